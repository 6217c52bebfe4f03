"""Pointwise kernels come from their expressions; only the conversion of element types is written by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np

from ...errors import DTypeError
from ...op import namespace
from ...pointwise import bitcast, cast
from ...types import STRING, Array, DType, is_float, is_integer

POWERS: DType = np.dtype(ml_dtypes.float8_e8m0fnu)


@cast.kernel("array", half="native")
def _cast(x: Array, *, dtype: Any, saturate: bool = True, rounding: str = "up") -> Array:
    wanted = np.dtype(dtype)
    if x.dtype == wanted:
        return x
    if wanted == STRING:
        return _printed(x)
    if x.dtype == STRING and all(isinstance(v, str) for v in x.flat):
        return _read(x, wanted)
    with np.errstate(all="ignore"):
        if wanted == POWERS:
            return _power_of_two(x, saturate, rounding)
        if saturate and is_narrow(wanted):
            x = saturated(x, wanted)
        return x.astype(wanted)


def _power_of_two(x: Array, saturate: bool, rounding: str) -> Array:
    """Return the magnitudes of x as powers of two, 2**(code - 127); code 255 is NaN."""
    xp = namespace(x)
    wide = xp.abs(x.astype(np.float64))
    fraction, exponent = xp.frexp(wide)
    up = {"up": fraction > 0.5, "nearest": fraction >= 0.75, "down": False}[rounding]
    code = xp.where(wide == 0, -1, exponent + 126 + up)
    code = xp.where(xp.isinf(wide), 255, code)
    outside = (code < 0) | (code > 254)
    code = xp.clip(code, 0, 254) if saturate else xp.where(outside, 255, code)
    return xp.where(xp.isnan(wide), 255, code).astype(np.uint8).view(POWERS)


@bitcast.kernel("array", half="native")
def _bitcast(x: Array, *, dtype: Any) -> Array:
    return x.view(np.dtype(dtype))


def is_narrow(dtype: DType) -> bool:
    """Whether it is a float of 8 bits or fewer."""
    return is_float(dtype) and dtype.itemsize == 1


def saturated(x: Array, dtype: DType) -> Array:
    """Return x kept within the finite numbers of a narrow float type."""
    about: Any = ml_dtypes.finfo
    largest, smallest = float(about(dtype).max), float(about(dtype).min)
    wide = x.astype(np.float32) if x.dtype != np.float64 else x
    return namespace(x).clip(wide, smallest, largest)


def _printed(x: Array) -> Array:
    """Return numbers as text, floats to 8 digits, as onnxruntime prints them."""
    show: Callable[[Any], str]
    if is_float(x.dtype):
        show = lambda v: "NaN" if v != v else f"{float(v):.8g}".replace("inf", "INF")  # noqa: E731
    else:
        show = lambda v: str(int(v))  # noqa: E731
    out = np.empty(x.shape, STRING)
    out.reshape(-1)[:] = [show(v) for v in x.reshape(-1).tolist()]
    return out


def _read(x: Array, dtype: DType) -> Array:
    number: Callable[[str], Any] = _integer if is_integer(dtype) or dtype.kind == "b" else float
    try:
        values = [number(v) for v in x.reshape(-1)]
    except ValueError as error:
        raise DTypeError(f"cast: a string is not a number: {error}") from None
    with np.errstate(all="ignore"):
        wide = np.array(values, object if number is _integer else np.float64).reshape(x.shape)
        return wide.astype(dtype)


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        return int(float(text))
