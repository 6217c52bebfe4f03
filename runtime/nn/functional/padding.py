"""Padding of the last axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ....ops import layout
from ....ops.errors import OpError, ShapeError
from .spatial import known, whole

MODES = {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def pad(input: Any, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Any:
    """Grow the last axes; negative numbers crop.

    Args:
        input: what to pad.
        pad: (low, high) of the last axis, then of the one before it, and so on.
        mode: what stands there: a `constant`, what `reflect`ing at the outermost element gives, that element
            (`replicate`), or what `circular` going round gives.
        value: of the constant; 0 by default.

    Raises:
        OpError: if the mode is not one of these, or takes no value.
        ShapeError: if there are too many numbers, or the mode has nothing to put there.
    """
    if len(pad) % 2:
        raise ShapeError("Padding length must be divisible by 2")
    if len(pad) > 2 * input.ndim:
        raise ShapeError(
            "Padding length should be less than or equal to two times the input dimension but got padding length "
            f"{len(pad)} and input of dimension {input.ndim}"
        )
    pairs = [(whole(pad[i]), whole(pad[i + 1])) for i in range(0, len(pad), 2)]
    if mode not in MODES:
        raise OpError(f"Unrecognised padding mode {mode}")
    if mode != "constant":
        if value not in (None, 0):
            raise OpError(f'Padding mode "{mode}" doesn\'t take in value argument')
        if input.ndim not in (len(pairs) + 1, len(pairs) + 2) or len(pairs) > 3:
            raise ShapeError(f"Padding size {len(pad)} is not supported for {input.ndim}D input tensor.")
    full = ((0, 0),) * (input.ndim - len(pairs)) + tuple(reversed(pairs))
    for axis, (n, (low, high)) in enumerate(zip(input.shape, full, strict=True)):
        if known((n, low, high)):
            _check(mode, axis, n, low, high, input)
    fill = None if not value else np.asarray(value, input.dtype)
    return layout.pad(input, fill, pads=full, mode=MODES[mode])


def _check(mode: str, axis: int, n: int, low: int, high: int, input: Any) -> None:
    if mode == "constant" or not (low or high):
        if n + low + high < 0:
            raise ShapeError(
                f"The input size {n}, plus negative padding {low} and {high} resulted in a negative output size, "
                f"which is invalid. Check dimension {axis} of your input."
            )
        return
    if mode == "reflect" and max(low, high) >= n:
        raise ShapeError(
            f"Argument #{2 * (input.ndim - axis) + 2}: Padding size should be less than the corresponding input "
            f"dimension, but got: padding ({low}, {high}) at dimension {axis} of input {list(input.shape)}"
        )
    if mode == "circular" and max(low, high) > n:
        raise ShapeError("Padding value causes wrapping around more than once.")
    if n + low + high < 1:
        if mode == "circular":
            raise ShapeError("Negative padding value is resulting in an empty dimension")
        raise ShapeError(f"input (dimension {axis}: {n}) is too small. Calculated output: {n + low + high}")
    if n == 0:
        raise ShapeError(f"Expected non-zero dimensions to pad by mode {mode}, but got: {list(input.shape)}")
