"""Quantisation. Integer products go through floating-point BLAS where every sum in it is exact."""

from __future__ import annotations

import math
from typing import Any

import ml_dtypes
import numpy as np

from ... import conv as conv_ops
from ...op import namespace
from ...quantize import (
    conv_integer,
    dequantize_linear,
    dynamic_fake_quantize,
    dynamic_quantize_linear,
    fake_quantize,
    matmul_integer,
    quantize_linear,
    requantize,
    unpack_bits,
)
from ...types import Array, DType, is_integer
from ...window import Window
from .pointwise import saturated


def _limits(dtype: DType) -> tuple[int, int]:
    about: Any = ml_dtypes.iinfo  # knows the types of 4 bits too
    info = about(dtype)
    return int(info.min), int(info.max)


def _rounded(x: Array, zero: Array | None, dtype: Any, saturate: bool = True) -> Array:
    """Return saturate(round(x) + zero); x is this function's own and is overwritten."""
    xp, t = namespace(x), np.dtype(dtype)
    with np.errstate(all="ignore"):
        if not is_integer(t):
            if zero is not None:
                x = x + zero.astype(x.dtype)
            return (saturated(x, t) if saturate else x).astype(t)
        low, high = _limits(t)
        xp.rint(x, out=x)
        if zero is not None:
            x = x + zero.astype(x.dtype)
        x = xp.clip(x, low, high)
        return x.astype(t) if t.kind != "V" else x.astype(np.int8).astype(t)


@quantize_linear.kernel("array")
def _quantize_linear(x: Array, scale: Array, zero: Array | None = None, *, dtype: Any, saturate: bool = True) -> Array:
    with np.errstate(all="ignore"):
        wide = x if x.dtype == scale.dtype else x.astype(scale.dtype)
        return _rounded(namespace(x).asarray(wide / scale), zero, dtype, saturate)


@dequantize_linear.kernel("array")
def _dequantize_linear(x: Array, scale: Array, zero: Array | None = None, *, dtype: Any) -> Array:
    xp, t = namespace(x), np.dtype(dtype)
    wide = np.float32 if t.itemsize < 4 else t
    if zero is None:
        y = x.astype(wide)
    elif x.dtype.itemsize <= 2:  # exact in float32
        y = xp.asarray(x.astype(wide) - zero.astype(wide))
    else:
        y = xp.asarray(x.astype(np.int64) - zero.astype(np.int64)).astype(wide)
    return xp.asarray(y * scale.astype(wide)).astype(t)


@fake_quantize.kernel("array")
def _fake_quantize(
    x: Array,
    scale: Array,
    back: Array,
    zero: Array | None = None,
    zero_back: Array | None = None,
    *,
    dtype: Any,
    saturate: bool = True,
    to: Any,
) -> Array:
    return _dequantize_linear(
        _quantize_linear(x, scale, zero, dtype=dtype, saturate=saturate), back, zero_back, dtype=to
    )


@dynamic_quantize_linear.kernel("array")
def _dynamic_quantize_linear(x: Array) -> tuple[Array, Array, Array]:
    xp = namespace(x)
    x = x.astype(np.float32)
    low = xp.minimum(x.min(), 0) if x.size else xp.zeros((), np.float32)
    high = xp.maximum(x.max(), 0) if x.size else xp.zeros((), np.float32)
    scale = xp.asarray((high - low) / 255, np.float32)
    scale = xp.where(scale == 0, 1, scale).astype(np.float32)
    zero = xp.clip(xp.rint(xp.asarray(-low / scale)), 0, 255).astype(np.uint8)
    return _rounded(xp.asarray(x / scale), zero, np.uint8), scale, zero


@dynamic_fake_quantize.kernel("array")
def _dynamic_fake_quantize(x: Array) -> Array:
    whole, scale, zero = _dynamic_quantize_linear(x)
    return ((whole.astype(np.float32) - zero.astype(np.float32)) * scale).astype(x.dtype)


@unpack_bits.kernel("array", half="native")
def _unpack_bits(x: Array, *, bits: int) -> Array:
    xp = namespace(x)
    if bits == 8:
        return x
    if 8 % bits == 0:
        places = xp.arange(0, 8, bits, dtype=np.uint8)
        parts = (x[..., None] >> places) & np.uint8(2**bits - 1)
        return parts.reshape(*x.shape[:-1], x.shape[-1] * (8 // bits))
    single = (x[..., None] >> xp.arange(8, dtype=np.uint8)) & np.uint8(1)
    stream = single.reshape(*x.shape[:-1], -1)
    count = stream.shape[-1] // bits
    groups = stream[..., : count * bits].reshape(*x.shape[:-1], count, bits)
    return (groups << xp.arange(bits, dtype=np.uint8)).sum(axis=-1, dtype=np.uint8)


def _reach(x: Array, zero: Array | None) -> int:
    """Return the largest magnitude that x - zero can have."""
    low, high = _limits(x.dtype)
    return high - low if zero is not None else max(-low, high)


def _operands(a: Array, b: Array, a_zero: Array | None, b_zero: Array | None, terms: int) -> tuple[Array, Array]:
    """Return both as floats in which a sum of so many products is exact, with their zero points taken off."""
    exact = _reach(a, a_zero) * _reach(b, b_zero) * terms < 2**24
    t = np.float32 if exact else np.float64

    def shifted(x: Array, zero: Array | None) -> Array:
        return x.astype(t) if zero is None else x.astype(t) - zero.astype(t)

    return shifted(a, a_zero), shifted(b, b_zero)


def _int32(x: Array) -> Array:
    """Return exact integers as int32; what is larger wraps around, as integer sums do."""
    return x.astype(np.int32) if x.dtype == np.float32 else x.astype(np.int64).astype(np.int32)


@matmul_integer.kernel("array")
def _matmul_integer(a: Array, b: Array, a_zero: Array | None = None, b_zero: Array | None = None) -> Array:
    xp = namespace(a)
    left, right = _operands(a, b, a_zero, b_zero, a.shape[-1])
    return _int32(xp.asarray(xp.matmul(left, right)))


@conv_integer.kernel("array")
def _conv_integer(
    x: Array, w: Array, x_zero: Array | None = None, w_zero: Array | None = None, *, win: Window
) -> Array:
    left, right = _operands(x, w, x_zero, w_zero, math.prod(w.shape[1:]))
    return _int32(conv_ops.conv.run(left, right, win=win))


@requantize.kernel("array")
def _requantize(acc: Array, factor: Array, zero: Array | None = None, *, dtype: Any) -> Array:
    scaled = acc.astype(np.float32) * factor.astype(np.float32)
    return _rounded(namespace(acc).asarray(scaled), zero, dtype)
