"""From what a caller passes to what a model wants: by position or name, checked, with errors that say what to do."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from ...ops.dims import Dim, show
from ...ops.errors import InputError
from ...ops.types import HALF, STRING, TensorType, ValueType, dtype_name
from ..tensor.tensor import Tensor


class Declared(Protocol):
    """An input as the file declares it."""

    @property
    def name(self) -> str:
        """Its name."""
        ...

    @property
    def type(self) -> ValueType:
        """Its type."""
        ...


def keyword(name: str) -> str:
    """Return an input's name as a Python keyword: `input.1` is passed as `input_1`."""
    return re.sub(r"\W", "_", name)


def bind_call(inputs: Sequence[Declared], args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
    """Return one checked value an input from the arguments of a call.

    Raises:
        InputError: for too many, missing, unknown or unfitting inputs.
    """
    names = [i.name for i in inputs]
    if len(args) > len(inputs):
        raise InputError(f"the model takes {len(inputs)} inputs {names}, found {len(args)}")
    given: dict[str, Any] = dict(zip(names, args, strict=False))
    spelled = {keyword(n): n for n in names} | {n: n for n in names}
    for key, value in kwargs.items():
        if key not in spelled:
            raise InputError(f"no input is named {key!r}; the model takes {names}")
        if spelled[key] in given:
            raise InputError(f"input {spelled[key]!r} was given twice")
        given[spelled[key]] = value
    return bind_feeds(inputs, given)


def bind_feeds(inputs: Sequence[Declared], feeds: Mapping[str, Any]) -> list[Any]:
    """Return one checked value an input, in order.

    Raises:
        InputError: for missing, unknown or unfitting inputs.
    """
    names = [i.name for i in inputs]
    unknown = [n for n in feeds if n not in names]
    if unknown:
        raise InputError(f"no input is named {unknown[0]!r}; the model takes {names}")
    missing = [n for n in names if n not in feeds]
    if missing:
        raise InputError(f"input {missing[0]!r} is missing; the model takes {names}, found {list(feeds)}")
    sizes: dict[str, tuple[int, str]] = {}
    return [_checked(i, feeds[i.name], sizes) for i in inputs]


def _checked(declared: Declared, value: Any, sizes: dict[str, tuple[int, str]]) -> Any:
    type_, name = declared.type, declared.name
    if not isinstance(type_, TensorType):
        return value
    array = _array(value, type_, name)
    if array.dtype != type_.dtype and not (type_.dtype in HALF and array.dtype == np.float32):
        raise InputError(
            f"input {name!r}: found element type {dtype_name(array.dtype)}, wanted {type_}; convert it with "
            f".astype({dtype_name(type_.dtype)!r})"
        )
    if type_.known_shape is None:
        return array
    if array.ndim != len(type_.known_shape):
        raise InputError(f"input {name!r}: found rank {array.ndim} (shape {show(array.shape)}), wanted {type_}")
    for axis, (found, d) in enumerate(zip(array.shape, type_.known_shape, strict=True)):
        if isinstance(d, int):
            if found != d:
                raise InputError(
                    f"input {name!r}: found shape {show(array.shape)}, wanted {type_}: axis {axis} is {found}, not {d}"
                )
        elif isinstance(d, Dim) and d.name is not None and not d.name.startswith("?"):
            size, first = sizes.setdefault(d.name, (found, name))
            if size != found:
                raise InputError(
                    f"input {name!r}: found shape {show(array.shape)}, wanted {type_}: {d.name} is {found} here and "
                    f"{size} in input {first!r}"
                )
    return array


def _array(value: Any, type_: TensorType, name: str) -> Any:
    if isinstance(value, Tensor):
        return value
    if isinstance(value, np.ndarray | np.generic):
        array = np.asarray(value)
        return array.astype(object) if type_.dtype == STRING and array.dtype.kind in "US" else array
    if hasattr(value, "__cuda_array_interface__") or hasattr(value, "__array_interface__"):
        return value
    try:
        if hasattr(value, "__array__"):
            return np.asarray(value)
        return np.asarray(value, dtype=type_.dtype)
    except (ValueError, TypeError) as error:
        raise InputError(f"input {name!r}: found {type(value).__name__}, wanted {type_}: {error}") from None
