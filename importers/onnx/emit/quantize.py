"""Emitters: quantisation. Scales of one element have an operator; others are written as arithmetic."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

from ....ops import pointwise as pw, quantize as ops
from ....ops.dims import product
from ....ops.types import is_integer
from ....runtime.graph.graph import Value
from .layout import fill
from .registry import emits, expands
from .writer import Writer

BYTES = (np.dtype(np.int8), np.dtype(np.uint8))


def _single(v: Value | None) -> bool:
    return v is None or (v.type.known_shape is not None and product(v.shape) == 1)  # type: ignore[union-attr]


@emits(ops.quantize_linear)
def quantize_linear(
    w: Writer, x: Value, scale: Value, zero: Value | None = None, *, dtype: str, saturate: bool = True
) -> Any:
    made = np.dtype(dtype)
    if made not in BYTES or not _single(scale) or not _single(zero) or w.out.known_shape != x.type.known_shape:  # type: ignore[union-attr]
        return None
    at = fill(w, zero, made) if zero is not None else w.number(0, made)
    return w.add("QuantizeLinear", x, fill(w, scale, x.dtype), at)


@expands(ops.quantize_linear)
def quantized(x: Any, scale: Any, zero: Any = None, *, dtype: str, saturate: bool = True) -> Any:
    """Round, move, saturate."""
    if not is_integer(dtype):
        return pw.cast(pw.div(x, scale), dtype=dtype, saturate=saturate)
    limits: Any = ml_dtypes.iinfo(np.dtype(dtype))  # type: ignore[no-untyped-call]
    y = pw.round_(pw.div(x, scale))
    y = y if zero is None else pw.add(y, pw.cast(zero, dtype=str(y.dtype)))
    return pw.cast(pw.clip(y, float(limits.min), float(limits.max)), dtype=dtype)


@emits(ops.dequantize_linear)
def dequantize_linear(w: Writer, x: Value, scale: Value, zero: Value | None = None, *, dtype: str) -> Any:
    plain = x.dtype in BYTES and scale.dtype == np.dtype(dtype)
    if not plain or not _single(scale) or not _single(zero) or w.out.known_shape != x.type.known_shape:  # type: ignore[union-attr]
        return None
    return w.add("DequantizeLinear", x, fill(w, scale, dtype), None if zero is None else fill(w, zero, x.dtype))


@expands(ops.fake_quantize)
def fake_quantize(
    x: Any,
    scale: Any,
    back: Any,
    zero: Any = None,
    zero_back: Any = None,
    *,
    dtype: str,
    saturate: bool = True,
    to: str,
) -> Any:
    """Quantise, and dequantise."""
    q = ops.quantize_linear(x, scale, zero, dtype=dtype, saturate=saturate)
    return ops.dequantize_linear(q, back, zero_back, dtype=to)
