"""A model's inputs from files, or at random."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..ops.dims import evaluate, show, symbols_in
from ..ops.errors import InputError
from ..ops.types import STRING, Array, TensorType, is_float, is_integer
from . import images

if TYPE_CHECKING:
    from ..runtime.model.built import ValueInfo

RANDOM = "random"


def collect(
    inputs: Sequence[ValueInfo],
    sources: Sequence[str],
    *,
    fill: bool = False,
    sizes: Mapping[str, int] | None = None,
    seed: int = 0,
    preparation: images.Preparation | None = None,
) -> dict[str, Any]:
    """Return the feeds that command-line sources stand for.

    Args:
        inputs: What the model takes.
        sources: `NAME=FILE`, `NAME=random`, or `FILE` alone for a model of one input or a file of names.
        fill: Whether inputs that no source names are random.
        sizes: Values of symbolic dimensions for random inputs; others are 1.
        seed: Of the random values.
        preparation: How photos become inputs.

    Raises:
        InputError: if a source cannot be read or fits no input.
    """
    by_name = {value.name: value for value in inputs}
    generator = np.random.default_rng(seed)
    feeds: dict[str, Any] = {}
    for source in sources:
        name, file = _split(source, by_name)
        if file == RANDOM:
            found = {name or _only(inputs, source).name: None}
        elif Path(file).suffix.lower() in (".npz", ".json") and name is None:
            found = _named(Path(file), inputs)
        else:
            value = by_name[name] if name is not None else _only(inputs, source)
            found = {value.name: _read(Path(file), value, preparation or images.Preparation())}
        for key, array in found.items():
            if key in feeds:
                raise InputError(f"input {key!r} is given twice")
            feeds[key] = random_input(by_name[key], sizes or {}, generator) if array is None else array
    for value in inputs:
        if fill and value.name not in feeds:
            feeds[value.name] = random_input(value, sizes or {}, generator)
    return feeds


def _split(source: str, by_name: Mapping[str, Any]) -> tuple[str | None, str]:
    """Return the name and the file of `NAME=FILE`; both may hold `=`, so known names decide."""
    for at in (i for i, c in enumerate(source) if c == "="):
        if source[:at] in by_name:
            return source[:at], source[at + 1 :]
    if "=" in source and not Path(source).exists():
        raise InputError(f"no input is named {source.partition('=')[0]!r}; the model takes {list(by_name)}")
    return None, source


def _only(inputs: Sequence[ValueInfo], source: str) -> ValueInfo:
    if len(inputs) != 1:
        raise InputError(f"which input is {source!r}? Say NAME={source}; the model takes {[v.name for v in inputs]}")
    return inputs[0]


def _named(path: Path, inputs: Sequence[ValueInfo]) -> dict[str, Any]:
    """Return what a file of several arrays holds for these inputs; `in:NAME` counts as `NAME`."""
    content = _content(path)
    if not isinstance(content, dict):
        return {_only(inputs, str(path)).name: _fit(_only(inputs, str(path)), content)}
    if isinstance(inner := content.get("in"), dict):
        content = inner
    found = {}
    for value in inputs:
        key = next((k for k in (value.name, f"in:{value.name}") if k in content), None)
        if key is not None:
            found[value.name] = _fit(value, content[key])
    if not found and len(inputs) == len(content) == 1:
        found = {inputs[0].name: _fit(inputs[0], next(iter(content.values())))}
    if not found:
        raise InputError(f"{path} holds {list(content)[:8]}, the model takes {[v.name for v in inputs]}")
    return found


def _read(path: Path, value: ValueInfo, preparation: images.Preparation) -> Any:
    if path.suffix.lower() in images.SUFFIXES:
        if not isinstance(value.type, TensorType) or value.type.known_shape is None:
            raise InputError(f"input {value.name!r} is a {value.type}, not an image")
        try:
            return images.read_image(path, value.type.dtype, value.type.known_shape, preparation)
        except InputError as error:
            raise InputError(f"input {value.name!r}: {error}") from error
    content = _content(path)
    if isinstance(content, dict):
        key = next((k for k in (value.name, f"in:{value.name}") if k in content), None)
        if key is None and len(content) != 1:
            raise InputError(f"{path} holds {list(content)[:8]}, nothing for input {value.name!r}")
        content = content[key] if key is not None else next(iter(content.values()))
    return _fit(value, content)


def _content(path: Path) -> Any:
    """Return what a .npy, .npz or .json file holds; objects are never unpickled."""
    suffix = path.suffix.lower()
    try:
        if suffix == ".json":
            return json.loads(path.read_bytes())
        if suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                return dict(arrays)
        if suffix == ".npy":
            return np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise
    except Exception as error:  # NumPy and zipfile raise half a dozen kinds on damaged files
        raise InputError(f"{path}: not a {suffix} file that can be read: {error}") from error
    raise InputError(f"{path}: not a .npy, .npz, .json or image file")


def _fit(value: ValueInfo, content: Any) -> Any:
    """Return lists as arrays of the input's element type; arrays stay as they are: the model checks them."""
    if isinstance(content, np.ndarray):
        return content.astype(object) if content.dtype.kind in "US" else content
    if not isinstance(value.type, TensorType):
        return [np.asarray(v) for v in content] if isinstance(content, list) else content
    try:
        array = np.array(content, None if value.type.dtype == STRING else value.type.dtype)
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(f"input {value.name!r}: the file does not hold {value.type}: {error}") from None
    return array.astype(object) if value.type.dtype == STRING else array


def random_input(value: ValueInfo, sizes: Mapping[str, int], generator: np.random.Generator) -> Array:
    """Return a random tensor for an input: normal floats, small integers, coin flips, short strings.

    Raises:
        InputError: if it is not a tensor, or its rank is not known.
    """
    if not isinstance(value.type, TensorType) or value.type.known_shape is None:
        raise InputError(f"input {value.name!r} is a {value.type}: give it a file")
    known = {name: sizes.get(name, 1) for name in symbols_in(value.type.known_shape)}
    shape = tuple(evaluate(d, known) for d in value.type.known_shape)
    dtype = value.type.dtype
    if is_float(dtype):
        return generator.standard_normal(shape).astype(dtype)
    if dtype == np.bool_:
        return generator.random(shape) < 0.5
    if dtype == STRING:
        return generator.choice(np.array(["one", "two", "three"], object), shape)
    if is_integer(dtype):
        return generator.integers(0, 2, shape).astype(dtype)
    raise InputError(f"input {value.name!r}: no random {dtype.name} {show(shape)}")
