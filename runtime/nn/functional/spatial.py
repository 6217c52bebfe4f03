"""What functions over spatial axes share: sizes an axis, and inputs that may lack the batch axis."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ....ops import layout
from ....ops.dims import Dim
from ....ops.errors import ShapeError
from ....ops.op import namespace
from ...cuda.guard import placed

_WORDS = ("", "a tuple of one int", "a tuple of two ints", "a tuple of three ints")
_WHOLE = (int, np.integer)


def whole(value: Any) -> Any:
    """Return an integer as Python's, a symbol of a trace as it is."""
    return value if isinstance(value, Dim) else int(value)


def sizes(value: Any, n: int, name: str) -> tuple[int, ...]:
    """Return one integer an axis.

    Raises:
        ShapeError: if a sequence has another length.
    """
    if isinstance(value, _WHOLE):
        return (int(value),) * n
    given = tuple(whole(v) for v in value)
    if len(given) == 1:
        return given * n
    if len(given) != n:
        raise ShapeError(
            f"expected {name} to be a single integer value or a list of {n} values to match the convolution "
            f"dimensions, but got {name}={list(given)}"
        )
    return given


def window_sizes(value: Any, n: int, function: str, name: str) -> tuple[int, ...]:
    """Return one integer an axis of a pooling window.

    Raises:
        ShapeError: if a sequence has another length.
    """
    if isinstance(value, _WHOLE):
        return (int(value),) * n
    given = tuple(whole(v) for v in value)
    if len(given) == 1:
        return given * n
    if len(given) != n:
        omitted = "be omitted, " if name == "stride" else "be "
        raise ShapeError(f"{function}: {name} must either {omitted}a single int, or {_WORDS[n]}")
    return given


_NAMES = {
    "float64": "Double", "float32": "Float", "float16": "Half", "bfloat16": "BFloat16", "int64": "Long", "int32": "Int",
    "int16": "Short", "int8": "Char", "uint8": "Byte", "bool": "Bool",
}  # fmt: skip


def scalar_type(dtype: Any) -> str:
    """Return what PyTorch's messages call an element type."""
    return _NAMES.get(str(dtype), str(dtype))


def known(values: Sequence[Any]) -> bool:
    """Whether all these sizes are numbers, none a symbol of a trace."""
    return all([type(v) is int or isinstance(v, _WHOLE) for v in values])


def batched(f: Callable[..., Any], n: int, *inputs: Any) -> Any:
    """Apply a function of (N, C, *S) to inputs that are so, or that are (C, *S); the results are as the inputs."""
    if inputs[0].ndim == n + 2:
        return f(*inputs)
    y = f(*(layout.unsqueeze(x, axes=(0,)) for x in inputs))
    if isinstance(y, tuple):
        return tuple(layout.squeeze(v, axes=(0,)) for v in y)
    return layout.squeeze(y, axes=(0,))


def beside(x: Any, array: Any) -> Any:
    """Return a constant array on the device of x."""
    if hasattr(array, "interpret_priority"):
        return array
    like = getattr(x, "_array", x)
    with placed(like):
        return namespace(like).asarray(array)
