"""The Open Inference Protocol's messages: bytes to feeds, outputs to bytes. No HTTP library is known here."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

import msgspec
import numpy as np

from ...ops.dims import Dim, Shape, show
from ...ops.errors import ServeError
from ...ops.types import STRING, Array, DType, TensorType, ValueType, dtype_name
from .datatypes import DATATYPES, DTYPES, check_shape, from_bytes, from_json, to_bytes, to_json

VERSION = "1"
"""The one version that every model has."""

EXTENSIONS = ("binary_tensor_data", "classification")


class Port(Protocol):
    """An input or output of a model, as the protocol needs to know it."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def type(self) -> ValueType:
        """Its type."""


class Servable(Protocol):
    """What can be served: named inputs and outputs, and a run on arrays, from several threads."""

    @property
    def inputs(self) -> Sequence[Port]:
        """What it takes."""

    @property
    def outputs(self) -> Sequence[Port]:
        """What it returns, in order."""

    def run(self, feeds: dict[str, Any], outputs: Sequence[str] | None = None) -> list[Array]:
        """Compute these outputs (by default all) from the inputs by name."""


class Tensor(msgspec.Struct):
    """One input of a request."""

    name: str
    shape: list[Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]]
    datatype: str
    parameters: dict[str, Any] | None = None
    data: msgspec.Raw = msgspec.Raw(b"")


class Wanted(msgspec.Struct):
    """One output that a request asks for."""

    name: str
    parameters: dict[str, Any] | None = None


class InferRequest(msgspec.Struct):
    """The JSON part of a request."""

    inputs: list[Tensor]
    id: str | None = None
    parameters: dict[str, Any] | None = None
    outputs: list[Wanted] | None = None


class Result(msgspec.Struct, omit_defaults=True):
    """One output of a response."""

    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, Any] | None = None
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class InferResponse(msgspec.Struct, omit_defaults=True):
    """The JSON part of a response."""

    model_name: str
    model_version: str
    outputs: list[Result]
    id: str | None = None


@dataclass(frozen=True)
class Choice:
    """How one output goes back: as bytes or JSON, and as it is or as its `classes` largest scores."""

    name: str
    binary: bool = False
    classes: int = 0


@dataclass(frozen=True)
class Call:
    """A request, read: what to run and how to answer."""

    feeds: dict[str, Array]
    outputs: tuple[Choice, ...]
    id: str | None = None


@dataclass(frozen=True)
class Answer:
    """A response body; `json_length` is the length of its JSON part where tensors follow as bytes."""

    body: bytes
    json_length: int | None


def infer(name: str, model: Servable, body: bytes, json_length: str | None = None) -> Answer:
    """Answer an inference request, given as its body and its Inference-Header-Content-Length.

    Raises:
        ServeError: if the request is malformed or does not fit the model.
        OnnxGradError: if the model cannot run on these inputs.
    """
    call = read(model, body, json_length)
    arrays = model.run(call.feeds, [choice.name for choice in call.outputs])
    return write(name, call, arrays)


def read(model: Servable, body: bytes, json_length: str | None = None) -> Call:
    """Return the call that a request body asks for.

    Raises:
        ServeError: if it is malformed or does not fit the model.
    """
    view = memoryview(body)
    length = _header(json_length, len(view))
    if json_length is not None and length == 0:
        return _read_raw(model, view)
    try:
        request = msgspec.json.decode(view[:length], type=InferRequest)
    except RecursionError:
        raise ServeError("the JSON is nested too deep") from None
    except ValueError as error:
        raise ServeError(f"not an inference request: {error}") from None
    feeds = _feeds(model, request.inputs, view[length:])
    binary = _flag(request.parameters, "binary_data_output", False)
    if request.outputs:
        choices = tuple(_choice(w, binary) for w in request.outputs)
    else:
        choices = tuple(Choice(o.name, binary) for o in model.outputs)
    _check_outputs(model, choices)
    return Call(feeds, choices, request.id)


def _header(json_length: str | None, total: int) -> int:
    if json_length is None:
        return total
    if not (json_length.isascii() and json_length.isdigit() and len(json_length) < 19):
        raise ServeError(f"Inference-Header-Content-Length is {json_length[:40]!r}, not a number")
    length = int(json_length)
    if length > total:
        raise ServeError(f"Inference-Header-Content-Length is {length}, the body has {total} bytes")
    return length


def _feeds(model: Servable, tensors: Sequence[Tensor], rest: memoryview) -> dict[str, Array]:
    ports = {port.name: port for port in model.inputs}
    feeds: dict[str, Array] = {}
    at = 0
    for tensor in tensors:
        if tensor.name not in ports:
            raise ServeError(f"no input {tensor.name[:200]!r}; the inputs are {_names(model.inputs)}")
        if tensor.name in feeds:
            raise ServeError(f"input {tensor.name!r} is given twice")
        try:
            dtype, shape = _fit(ports[tensor.name], tensor.datatype, tuple(tensor.shape))
            size = _binary_size(tensor.parameters)
            if size is None:
                feeds[tensor.name] = _read_json(tensor, dtype, shape)
                continue
            if tensor.data:
                raise ServeError("has both data and binary_data_size")
            if size > len(rest) - at:
                raise ServeError(f"binary_data_size is {size}, only {len(rest) - at} bytes are left")
            feeds[tensor.name] = from_bytes(rest[at : at + size], dtype, shape)
            at += size
        except ServeError as error:
            raise ServeError(f"input {tensor.name!r}: {error}", error.status) from None
    if at != len(rest):
        raise ServeError(f"{len(rest)} bytes follow the JSON, the inputs' binary_data_size adds up to {at}")
    return feeds


def _read_json(tensor: Tensor, dtype: DType, shape: tuple[int, ...]) -> Array:
    if not tensor.data:
        if "shared_memory_region" in (tensor.parameters or {}):
            raise ServeError("shared memory is not supported")
        raise ServeError("data is missing")
    return from_json(bytes(tensor.data), dtype, shape)


def _fit(port: Port, datatype: str, shape: tuple[int, ...]) -> tuple[DType, tuple[int, ...]]:
    """Return the element type and shape that a client announces, if the model takes them."""
    wanted = _tensor_type(port)
    if datatype not in DTYPES:
        raise ServeError(f"datatype {datatype[:40]!r} is none of {', '.join(DTYPES)}")
    fits = wanted.known_shape is None or (
        len(shape) == len(wanted.known_shape)
        and all(isinstance(w, Dim) or w == d for d, w in zip(shape, wanted.known_shape, strict=True))
    )
    if DTYPES[datatype] != wanted.dtype or not fits:
        raise ServeError(f"found {datatype} {show(shape[:64])}, wanted {type_text(port)}")
    check_shape(shape)
    return wanted.dtype, shape


def _tensor_type(port: Port) -> TensorType:
    if isinstance(port.type, TensorType) and port.type.dtype in DATATYPES:
        return port.type
    raise ServeError(f"{port.name!r} is a {port.type}, which the protocol cannot carry", 501)


def type_text(port: Port) -> str:
    """Return a type as people read it, `FP32 (n, 3)`; sizes that have no name are `?`."""
    if not isinstance(port.type, TensorType):
        return str(port.type)
    return f"{_datatype(port.type.dtype)} {re.sub(r'[?][0-9]+', '?', show(port.type.known_shape))}"


def _datatype(dtype: DType) -> str:
    return DATATYPES.get(dtype, dtype_name(dtype).upper())


def _binary_size(parameters: dict[str, Any] | None) -> int | None:
    size = (parameters or {}).get("binary_data_size")
    if size is None or (isinstance(size, int) and not isinstance(size, bool) and size >= 0):
        return size
    raise ServeError("binary_data_size is not a number of bytes")


def _flag(parameters: dict[str, Any] | None, name: str, default: bool) -> bool:
    value = (parameters or {}).get(name, default)
    if not isinstance(value, bool):
        raise ServeError(f"parameter {name} is neither true nor false")
    return value


def _choice(wanted: Wanted, binary: bool) -> Choice:
    parameters = wanted.parameters or {}
    classes = parameters.get("classification", 0)
    if type(classes) is not int or classes < ("classification" in parameters):
        raise ServeError(f"output {wanted.name[:200]!r}: classification is not a number of classes")
    if "shared_memory_region" in parameters:
        raise ServeError(f"output {wanted.name[:200]!r}: shared memory is not supported")
    return Choice(wanted.name, _flag(parameters, "binary_data", binary), classes)


def _check_outputs(model: Servable, choices: Sequence[Choice]) -> None:
    ports = {port.name: port for port in model.outputs}
    seen = set()
    for choice in choices:
        if choice.name not in ports:
            raise ServeError(f"no output {choice.name[:200]!r}; the outputs are {_names(model.outputs)}")
        if choice.name in seen:
            raise ServeError(f"output {choice.name!r} is asked for twice")
        seen.add(choice.name)
        dtype = _tensor_type(ports[choice.name]).dtype
        if choice.classes and dtype.kind not in "fiu":
            raise ServeError(f"output {choice.name!r}: {DATATYPES[dtype]} has no classification")


def _names(ports: Sequence[Port]) -> str:
    return ", ".join(repr(port.name) for port in ports) or "none"


def _read_raw(model: Servable, body: memoryview) -> Call:
    """Read a body that is the one input's bytes and nothing else; the answer is in bytes too."""
    if len(model.inputs) != 1:
        raise ServeError(f"a raw body needs a model of one input, this one has {len(model.inputs)}")
    port = model.inputs[0]
    wanted = _tensor_type(port)
    shape = wanted.known_shape
    if shape is None or sum(isinstance(d, Dim) for d in shape) > 1:
        raise ServeError(f"a raw body needs at most one unknown dimension, {port.name!r} has {show(shape)}")
    if wanted.dtype == STRING:
        array: Array = np.empty(1, object)
        try:
            array[0] = str(body, "utf-8")
        except UnicodeDecodeError:
            raise ServeError(f"input {port.name!r}: not UTF-8") from None
        found = 1
    else:
        array, found = None, len(body) // wanted.dtype.itemsize
    row = int(np.prod([d for d in shape if isinstance(d, int)], dtype=object))
    dims = tuple(d if isinstance(d, int) else found // max(row, 1) for d in shape)
    try:
        if array is None:
            array = from_bytes(body, wanted.dtype, dims)
        elif check_shape(dims) != 1:
            raise ServeError(f"a raw body is one string, wanted {show(dims)}")
    except ServeError as error:
        raise ServeError(f"input {port.name!r}: {error}") from None
    choices = tuple(Choice(o.name, binary=True) for o in model.outputs)
    _check_outputs(model, choices)
    return Call({port.name: array.reshape(dims)}, choices)


def write(name: str, call: Call, arrays: Sequence[Array]) -> Answer:
    """Return the response of a model of this name to a call that gave these arrays."""
    results: list[Result] = []
    tail: list[bytes | memoryview] = []
    for choice, array in zip(call.outputs, map(np.asarray, arrays), strict=True):
        if choice.classes:
            array = top_classes(array, choice.classes)
        result = Result(choice.name, DATATYPES[array.dtype], list(array.shape))
        if choice.binary:
            tail.append(to_bytes(array))
            result.parameters = {"binary_data_size": len(tail[-1])}
        else:
            result.data = to_json(array)
        results.append(result)
    header = msgspec.json.encode(InferResponse(name, VERSION, results, call.id))
    return Answer(b"".join((header, *tail)), len(header) if tail else None)


def top_classes(scores: Array, count: int) -> Array:
    """Return the largest scores of each row as strings `score:index`, the classification extension's form."""
    rows = scores.reshape(scores.shape[0], -1) if scores.ndim > 1 and scores.size else scores.reshape(1, -1)
    count = min(count, rows.shape[1])
    best = np.argsort(-rows.astype(np.float64), axis=1, kind="stable")[:, :count]
    texts = np.empty(best.shape, object)
    for (row, rank), index in np.ndenumerate(best):
        texts[row, rank] = f"{rows[row, index]:g}:{index}"
    return texts if scores.ndim > 1 else texts.reshape(-1)


def metadata(name: str, model: Servable) -> dict[str, Any]:
    """Return a model's metadata; dimensions that only a request knows are -1."""
    return {
        "name": name,
        "versions": [VERSION],
        "platform": "onnxgrad_onnx",
        "inputs": [_describe(port) for port in model.inputs],
        "outputs": [_describe(port) for port in model.outputs],
    }


def _describe(port: Port) -> dict[str, Any]:
    if not isinstance(port.type, TensorType):
        return {"name": port.name, "datatype": str(port.type), "shape": [-1]}
    shape: Shape = (-1,) if port.type.known_shape is None else port.type.known_shape
    return {
        "name": port.name,
        "datatype": _datatype(port.type.dtype),
        "shape": [d if isinstance(d, int) else -1 for d in shape],
    }


def expand(body: bytes, encoding: str, limit: int) -> bytes:
    """Return a body without its Content-Encoding, `gzip` or `deflate`.

    Raises:
        ServeError: if it is damaged, expands beyond the limit, or has another encoding.
    """
    if encoding in ("", "identity"):
        return body
    if encoding not in ("gzip", "deflate"):
        raise ServeError(f"Content-Encoding {encoding[:40]!r} is neither gzip nor deflate", 415)
    inflate = zlib.decompressobj(wbits=zlib.MAX_WBITS | (16 if encoding == "gzip" else 0))
    try:
        whole = inflate.decompress(body, limit + 1)
    except zlib.error as error:
        raise ServeError(f"the {encoding} body is damaged: {error}") from None
    if len(whole) > limit:
        raise ServeError(f"the {encoding} body expands beyond the limit of {limit} bytes", 413)
    if not inflate.eof or inflate.unused_data:
        raise ServeError(f"the {encoding} body is damaged: it is cut off or followed by other data")
    return whole
