"""Affine quantisation: q = saturate(round(x / scale) + zero), and products of quantised tensors.

Scales and zero points broadcast to x as NumPy does; which axis they belong to ends in the bindings. Integer
sums are exact. The quantised operators of ONNX (QLinearConv, QLinearMatMul, ...) are compositions of these.

Source: ONNX QuantizeLinear-25, DequantizeLinear-25, DynamicQuantizeLinear-11, MatMulInteger-10,
ConvInteger-10; Jacob et al. 2018.
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

from . import conv as conv_ops, matmul as matmul_ops
from .dims import broadcast
from .errors import DTypeError
from .op import op
from .pointwise import add, cast, div, greater_equal, less_equal, logical_and, mul, round_, sub, sum_to_like
from .types import TensorType, is_float, is_integer
from .window import Window


@op()
def quantize_linear(
    x: TensorType, scale: TensorType, zero: TensorType | None = None, *, dtype: str, saturate: bool = True
) -> TensorType:
    """Return saturate(round(x / scale) + zero), halves to even. Declared non-differentiable.

    Args:
        x: floats, or int32.
        scale: positive; broadcasts to x.
        zero: the zero point, of the result's type; 0 where it is left out.
        dtype: the result's element type, an integer or a float of 8 bits or fewer.
        saturate: see `cast`; of narrow floats only.

    Raises:
        DTypeError: if the result is no type to quantise to.
    """
    t = np.dtype(dtype)
    if not is_integer(t) and not (is_float(t) and t.itemsize == 1):
        raise DTypeError(f"quantize_linear: wants an integer or narrow float type, found {dtype}")
    return TensorType(t, x.known_shape)


@quantize_linear.defvjp
def _quantize_linear_vjp(g: Any, y: Any, *args: Any, **attrs: Any) -> tuple[None, ...]:
    return (None,) * len(args)


@op()
def dequantize_linear(x: TensorType, scale: TensorType, zero: TensorType | None = None, *, dtype: str) -> TensorType:
    """Return (x - zero) * scale; linear in the scale.

    Args:
        x: integers, or narrow floats.
        scale: broadcasts to x.
        zero: the zero point; 0 where it is left out.
        dtype: the result's element type, a float.
    """
    return TensorType(np.dtype(dtype), x.known_shape)


@dequantize_linear.compose
def _dequantize_linear(x: Any, scale: Any, zero: Any = None, *, dtype: str) -> Any:
    wide = "int32" if is_integer(x.dtype) else dtype
    shifted = cast(x, dtype=wide) if zero is None else sub(cast(x, dtype=wide), cast(zero, dtype=wide))
    return mul(cast(shifted, dtype=dtype), cast(scale, dtype=dtype))


@op()
def fake_quantize(
    x: TensorType,
    scale: TensorType,
    back: TensorType,
    zero: TensorType | None = None,
    zero_back: TensorType | None = None,
    *,
    dtype: str,
    saturate: bool = True,
    to: str,
) -> TensorType:
    """Return the floats that x becomes when it is quantised and dequantised: training that knows of quantisation.

    The gradient goes straight through the rounding, and is 0 where x saturates; in `back` it is that of
    `dequantize_linear`.

    Args:
        x: floats.
        scale: to quantise with; broadcasts to x.
        back: the scale to dequantise with, mostly the same.
        zero: the zero point, of the type to quantise to; 0 where it is left out.
        zero_back: the zero point to dequantise with; given where `zero` is.
        dtype: the element type to quantise to.
        saturate: see `cast`; of narrow floats only.
        to: the result's element type.

    Source: Bengio, Leonard and Courville 2013, section 4 (the straight-through estimator).
    """
    quantize_linear.infer(x, scale, zero, dtype=dtype, saturate=saturate)
    return TensorType(np.dtype(to), x.known_shape)


@fake_quantize.defvjp
def _fake_quantize_vjp(
    g: Any, y: Any, x: Any, scale: Any, back: Any, zero: Any = None, zero_back: Any = None, *, dtype: str, **attrs: Any
) -> tuple[Any, ...]:
    low, high = _range(np.dtype(dtype))

    def through() -> Any:
        at = div(cast(x, dtype=str(scale.dtype)), scale)
        if is_integer(np.dtype(dtype)):
            at = round_(at) if zero is None else add(round_(at), cast(zero, dtype=str(scale.dtype)))
        inside = cast(logical_and(greater_equal(at, low), less_equal(at, high)), dtype=str(g.dtype))
        passed = mul(mul(g, inside), cast(div(back, scale), dtype=str(g.dtype)))
        return cast(passed, dtype=str(x.dtype))

    def scaled() -> Any:
        return cast(sum_to_like(mul(g, div(y, cast(back, dtype=str(y.dtype)))), back), dtype=str(back.dtype))

    return (through, None, scaled) + (None,) * ((zero is not None) + (zero_back is not None))


def _range(dtype: np.dtype[Any]) -> tuple[float, float]:
    about: Any = ml_dtypes  # knows the types of 4 bits and the floats of 8 too
    info = about.iinfo(dtype) if is_integer(dtype) else about.finfo(dtype)
    return float(info.min), float(info.max)


@op()
def dynamic_quantize_linear(x: TensorType) -> tuple[TensorType, TensorType, TensorType]:
    """Return x as uint8 with the scale and zero point that its range (with 0 in it) asks for.

    Shapes: S -> S, (), (). Not differentiable.
    """
    uint8 = np.dtype(np.uint8)
    return TensorType(uint8, x.known_shape), TensorType(np.dtype(np.float32), ()), TensorType(uint8, ())


@op()
def dynamic_fake_quantize(x: TensorType) -> TensorType:
    """Return the floats that x becomes when it is quantised by `dynamic_quantize_linear` and dequantised.

    The gradient goes straight through: nothing saturates.
    """
    return TensorType(x.dtype, x.known_shape)


@dynamic_fake_quantize.defvjp
def _dynamic_fake_quantize_vjp(g: Any, y: Any, x: Any) -> tuple[Any, ...]:
    return (lambda: g,)


@op(dtype="uint8")
def unpack_bits(x: TensorType, *, bits: int) -> TensorType:
    """Return the small integers that bytes hold, those in the low bits first. Not differentiable.

    Shapes: (*S, n) uint8 -> (*S, 8 n / bits) uint8; bits that do not fill an integer are left out.

    Raises:
        DTypeError: if x is not uint8, or an integer has more than 8 bits.
    """
    if x.dtype != np.uint8 or not 1 <= bits <= 8:
        raise DTypeError(f"unpack_bits: wants uint8 and 1 to 8 bits, found {x.dtype} and {bits}")
    return TensorType(x.dtype, (*x.shape[:-1], x.shape[-1] * 8 // bits))


@op(dtype="int32")
def matmul_integer(
    a: TensorType, b: TensorType, a_zero: TensorType | None = None, b_zero: TensorType | None = None
) -> TensorType:
    """Return the exact int32 product of a - a_zero and b - b_zero.

    Shapes: as `matmul`; the zero points broadcast to their operands.
    """
    _bytes("matmul_integer", a, b)
    return TensorType(np.dtype(np.int32), _plain(matmul_ops.matmul.infer(_real(a), _real(b))).known_shape)


@op(dtype="int32")
def conv_integer(
    x: TensorType,
    w: TensorType,
    x_zero: TensorType | None = None,
    w_zero: TensorType | None = None,
    *,
    win: Window,
) -> TensorType:
    """Return the exact int32 correlation of x - x_zero with w - w_zero; the padding is x_zero.

    Shapes: as `conv`; the zero points broadcast to their operands.
    """
    _bytes("conv_integer", x, w)
    return TensorType(np.dtype(np.int32), _plain(conv_ops.conv.infer(_real(x), _real(w), win=win)).known_shape)


@op()
def requantize(acc: TensorType, factor: TensorType, zero: TensorType | None = None, *, dtype: str) -> TensorType:
    """Return saturate(round(acc * factor) + zero) of integer sums, halves to even, computed in float32.

    Shapes: broadcast(acc, factor).
    """
    if acc.known_shape is None or factor.known_shape is None:
        return TensorType(np.dtype(dtype), acc.known_shape)
    return TensorType(np.dtype(dtype), broadcast(acc.shape, factor.shape))


def _bytes(name: str, *types: TensorType) -> None:
    for t in types:
        if not is_integer(t.dtype) or t.dtype.itemsize > 2:
            raise DTypeError(f"{name}: wants integers of at most 16 bits, found {t.dtype}")


def _real(t: TensorType) -> TensorType:
    return TensorType(np.dtype(np.float32), t.known_shape)


def _plain(t: Any) -> TensorType:
    assert isinstance(t, TensorType)
    return t
