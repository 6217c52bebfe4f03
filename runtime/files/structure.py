"""Nested values as a text and arrays by name, and back: what a checkpoint is made of.

The text is JSON. Numbers, strings, None and truth values stand for themselves and a JSON list for a list; anything
else is an object whose first key says what it is, and Tensors and arrays are named there. Nothing that is read is ever
called or imported: these kinds are all there are.
"""

from __future__ import annotations

import json
import math
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ...ops.errors import InputError, LoadError, SaveError
from ...ops.types import Array
from ..nn.module import Module
from ..nn.parameter import Parameter
from ..nn.state_dict import State
from ..tensor.device import device
from ..tensor.tensor import Tensor, wrap
from .weights_file import CODES

VERSION = 1
DEPTH = 100
"""Values nested deeper than this are refused, and so are those that contain themselves."""

_MAPPINGS: dict[str, type[Any]] = {"ordered_dict": OrderedDict, "counter": Counter, "dict": dict}
_DTYPES = {dtype.name: dtype for dtype in CODES}
_SAVABLE = "Tensors, arrays, numbers, strings, bytes, None, and dicts, lists, tuples and sets of these"


def encode(value: Any) -> tuple[str, dict[str, Array]]:
    """Return nested values as a text and the arrays that it names.

    Tensors that share all their memory (tied weights) are one array; those that share some of it are apart.

    Raises:
        SaveError: naming a value that is of no kind that can be saved.
    """
    made = _Encoder()
    node = made.node(value, ())
    return json.dumps({"version": VERSION, "value": node}, separators=(",", ":"), allow_nan=False), made.arrays


class _Encoder:
    def __init__(self) -> None:
        self.arrays: dict[str, Array] = {}
        self._names: dict[Any, str] = {}

    def node(self, v: Any, path: tuple[Any, ...]) -> Any:
        if len(path) > DEPTH:
            raise SaveError(f"cannot save values nested more than {DEPTH} deep, or that contain themselves")
        if v is None or isinstance(v, bool):
            return v
        if isinstance(v, Tensor):
            return self._tensor(v, path)
        if isinstance(v, np.dtype) and v.name in _DTYPES:
            return {"dtype": v.name}
        if isinstance(v, device):
            return {"device": str(v)}
        if isinstance(v, np.generic) and not isinstance(v, str | bytes):
            return {"scalar": self._named(np.asarray(v), path)}
        if isinstance(v, np.ndarray) or hasattr(v, "__cuda_array_interface__"):
            return {"array": self._named(v, path)}
        if isinstance(v, str):
            return str(v)
        if isinstance(v, int):
            return self._int(int(v), path)
        if isinstance(v, float):
            return float(v) if math.isfinite(v) else {"float": repr(float(v))}
        if isinstance(v, complex):
            return {"complex": [self.node(v.real, path), self.node(v.imag, path)]}
        if isinstance(v, bytes | bytearray):
            return {"bytes": self._named(np.frombuffer(v, np.uint8), path)}
        if isinstance(v, Mapping):
            kind = next((k for k, t in _MAPPINGS.items() if isinstance(v, t)), "dict")
            made = {kind: [[self._key(k, path), self.node(e, (*path, k))] for k, e in v.items()]}
            versions = getattr(v, "_metadata", None)
            return made if versions is None else made | {"versions": self.node(versions, (*path, "_metadata"))}
        if isinstance(v, list | tuple):
            nodes = [self.node(e, (*path, i)) for i, e in enumerate(v)]
            return nodes if isinstance(v, list) else {"tuple": nodes}
        if isinstance(v, set | frozenset):
            kind = "set" if isinstance(v, set) else "frozenset"
            return {kind: [self._key(e, path) for e in sorted(v, key=repr)]}
        hint = "; save its state_dict()" if isinstance(v, Module) or hasattr(v, "state_dict") else ""
        raise SaveError(f"cannot save {_shown(path)}, a {type(v).__name__}{hint}. Can be saved: {_SAVABLE}")

    def _key(self, k: Any, path: tuple[Any, ...]) -> Any:
        if not _is_key(k):
            raise SaveError(f"cannot save {_shown(path)}: a key or element is a {type(k).__name__}")
        return self.node(k, path)

    def _int(self, v: int, path: tuple[Any, ...]) -> int:
        try:
            json.dumps(v)
        except ValueError as error:
            raise SaveError(f"cannot save {_shown(path)}: {error}") from error
        return v

    def _tensor(self, t: Tensor, path: tuple[Any, ...]) -> dict[str, Any]:
        node: dict[str, Any] = {"parameter" if isinstance(t, Parameter) else "tensor": self._named(t._array, path)}
        if t.requires_grad:
            node["requires_grad"] = True
        if t.device.type != "cpu":
            node["device"] = str(t.device)
        return node

    def _named(self, array: Array, path: tuple[Any, ...]) -> str:
        at = array.ctypes.data if isinstance(array, np.ndarray) else array.data.ptr
        memory = (type(array), at, array.shape, array.strides, array.dtype) if array.nbytes else None
        if memory is not None and memory in self._names:
            return self._names[memory]
        base = ".".join(str(p) for p in path).encode("utf-8", "replace").decode() or "value"
        name, n = base, 1
        while name in self.arrays or name == "__metadata__":
            n += 1
            name = f"{base}#{n}"
        self.arrays[name] = array
        if memory is not None:
            self._names[memory] = name
        return name


def _is_key(k: Any) -> bool:
    return k is None or isinstance(k, str | int | float | complex) or (isinstance(k, tuple) and all(map(_is_key, k)))


def _shown(path: tuple[Any, ...]) -> str:
    return "obj" + "".join(f"[{p!r}]" for p in path)


def decode(text: str, arrays: dict[str, Array], where: str, place: Callable[[Tensor, str], Tensor]) -> Any:
    """Return the values that `encode` made a text and arrays of.

    Args:
        text: the structure.
        arrays: by the names in it.
        where: what errors call the file.
        place: puts a Tensor where it belongs, given the device that it was saved from.

    Raises:
        LoadError: naming what is wrong with the structure.
    """

    def finite(token: str) -> float:
        if not math.isfinite(float(token)):
            raise ValueError(f"the number {token} is not finite")
        return float(token)

    def constant(token: str) -> float:
        raise ValueError(f"{token} is no JSON")

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) != len(pairs):
            raise ValueError(f"a key comes twice: {', '.join(k for k, _ in pairs)}")
        return made

    try:
        root = json.loads(text, parse_float=finite, parse_constant=constant, object_pairs_hook=once)
    except RecursionError:
        raise LoadError(f"{where}: its structure is nested too deep") from None
    except ValueError as error:
        raise LoadError(f"{where}: its structure cannot be read: {error}") from error
    if not isinstance(root, dict) or set(root) != {"version", "value"}:
        raise LoadError(f"{where}: its structure has not the keys version and value")
    if root["version"] != VERSION:
        raise LoadError(f"{where}: its structure is of version {root['version']!r}, this onnxgrad reads {VERSION}")
    made = _Decoder(arrays, where, place)
    value = made.value(root["value"], 0)
    if unused := sorted(set(arrays) - made.used):
        raise LoadError(f"{where}: no part of its structure names {', '.join(map(repr, unused[:5]))}")
    return value


class _Decoder:
    def __init__(self, arrays: dict[str, Array], where: str, place: Callable[[Tensor, str], Tensor]) -> None:
        self.arrays, self.where, self.place = arrays, where, place
        self.used: set[str] = set()
        self._placed: dict[tuple[str, str], Tensor] = {}

    def wrong(self, what: str) -> LoadError:
        return LoadError(f"{self.where}: its structure is wrong: {what}")

    def value(self, node: Any, depth: int) -> Any:
        if depth > DEPTH:
            raise self.wrong(f"nested more than {DEPTH} deep")
        if isinstance(node, list):
            return [self.value(n, depth + 1) for n in node]
        if not isinstance(node, dict):
            return node
        if not node:
            raise self.wrong("an object without a kind")
        kind, content = next(iter(node.items()))
        if kind in ("tensor", "parameter"):
            return self._tensor(kind, content, node)
        if kind == "ordered_dict" and set(node) == {kind, "versions"}:
            return self._state(content, node["versions"], depth)
        if len(node) != 1:
            raise self.wrong(f"an object with the keys {', '.join(node)}")
        if kind in ("array", "scalar", "bytes"):
            return self._array(kind, content)
        if kind in _MAPPINGS:
            return self._mapping(_MAPPINGS[kind](), content, depth)
        if kind in ("tuple", "set", "frozenset"):
            values = [self.value(n, depth + 1) for n in self._list(kind, content)]
            if kind == "tuple":
                return tuple(values)
            made = set(map(self._key, values))
            return made if kind == "set" else frozenset(made)
        return self._atom(kind, content)

    def _atom(self, kind: str, content: Any) -> Any:
        if kind == "float" and content in ("nan", "inf", "-inf"):
            return float(content)
        if kind == "complex" and isinstance(content, list) and len(content) == 2:
            real, imaginary = (self.value(n, DEPTH) for n in content)
            if isinstance(real, float) and isinstance(imaginary, float):
                return complex(real, imaginary)
        if kind == "device" and isinstance(content, str):
            try:
                return device(content)
            except InputError as error:
                raise self.wrong(str(error)) from error
        if kind == "dtype" and isinstance(content, str):
            found = _DTYPES.get(content)
            if found is not None:
                return found
        raise self.wrong(f"no value is {json.dumps({kind: content})[:80]}")

    def _list(self, kind: str, content: Any) -> list[Any]:
        if not isinstance(content, list):
            raise self.wrong(f"a {kind} without a list")
        return content

    def _key(self, k: Any) -> Any:
        if not _is_key(k):
            raise self.wrong(f"a key or element is a {type(k).__name__}")
        return k

    def _state(self, content: Any, versions: Any, depth: int) -> Any:
        made, found = self._mapping(State(), content, depth), self.value(versions, depth + 1)
        modules = found.items() if isinstance(found, OrderedDict) else [(None, None)]
        if not all(isinstance(name, str) and isinstance(of, dict) for name, of in modules):
            raise self.wrong("the versions of a state dict are not a dict for each module")
        made._metadata = found
        return made

    def _mapping(self, made: Any, content: Any, depth: int) -> Any:
        for pair in self._list("dict", content):
            if not isinstance(pair, list) or len(pair) != 2:
                raise self.wrong("a dict without pairs")
            key = self._key(self.value(pair[0], depth + 1))
            if key in made:
                raise self.wrong(f"the key {key!r} comes twice")
            made[key] = self.value(pair[1], depth + 1)
        return made

    def _found(self, name: Any) -> Array:
        if not isinstance(name, str) or name not in self.arrays:
            raise self.wrong(f"it names {name!r}, which the file does not hold")
        self.used.add(name)
        return self.arrays[name]

    def _array(self, kind: str, name: Any) -> Any:
        array = self._found(name)
        if kind == "array":
            return array
        if kind == "scalar":
            if array.ndim:
                raise self.wrong(f"the number {name!r} has the shape {array.shape}")
            return array[()]
        if array.dtype != np.uint8 or array.ndim != 1:
            raise self.wrong(f"the bytes {name!r} are of element type {array.dtype} and shape {array.shape}")
        return array.tobytes()

    def _tensor(self, kind: str, name: Any, node: dict[str, Any]) -> Tensor:
        array = self._found(name)
        requires_grad, location = node.get("requires_grad", False), node.get("device", "cpu")
        if set(node) - {kind, "requires_grad", "device"} or not isinstance(requires_grad, bool):
            raise self.wrong(f"the {kind} {name!r} is described as {json.dumps(node)[:80]}")
        try:
            location = str(device(location))
        except InputError as error:
            raise self.wrong(str(error)) from error
        at = (name, location)
        if at not in self._placed:
            self._placed[at] = self.place(wrap(array), location)
        shared = self._placed[at]
        if requires_grad and not shared.is_floating_point():
            raise self.wrong(f"{name!r} requires a gradient and is of element type {shared.dtype}")
        if kind == "parameter":
            return Parameter(shared._array, requires_grad)
        return shared.detach().requires_grad_(requires_grad)
