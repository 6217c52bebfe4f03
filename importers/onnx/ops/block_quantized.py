"""Bindings: weights kept as small integers with a scale for each block of them (com.microsoft).

The integers are constants, the scales buffers; the gradient to what the weights meet is that of the float operator.
Source: onnxruntime's contrib operators MatMulNBits-1 and GatherBlockQuantized-1.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ....ops import index, layout, pointwise as pw, quantize as q
from ....ops.errors import UnsupportedAttributeError
from ....ops.matmul import matmul
from ....ops.types import is_float
from ....runtime.graph.contents import known_contents
from ..node import NodeView
from ..registry import binds
from .quantize import real

MICROSOFT = "com.microsoft"


def _integer(x: Any, size: int) -> Any:
    """Return the first entries along the last axis."""
    return layout.slice_(x, starts=(0,), stops=(size,), steps=(1,), axes=(x.ndim - 1,))


def _dequantized(x: Any, scale: Any, zero: Any, default: int) -> Any:
    """Return (x - zero) * scale; the zero point may be a float too, and the default is for one that is left out."""
    if zero is None:
        zero = np.asarray(default).astype(x.dtype) if default else None
    elif is_float(zero.dtype):
        return pw.mul(pw.sub(pw.cast(x, dtype=str(scale.dtype)), pw.cast(zero, dtype=str(scale.dtype))), scale)
    return real(x, scale, zero)


@binds("MatMulNBits", 1, domain=MICROSOFT)
def matmul_nbits(
    node: NodeView, a: Any, b: Any, scales: Any, zero: Any = None, groups: Any = None, bias: Any = None
) -> Any:
    """MatMulNBits: A times the transpose of weights (N, K), of which each block along K has a scale."""
    n, k, size = (int(node.attr(name)) for name in ("N", "K", "block_size"))
    bits = int(node.attr("bits", 4))
    node.ignore("accuracy_level")
    if node.attr("weight_prepacked", 0):
        raise UnsupportedAttributeError(f"{node}: weights in the layout of one device (weight_prepacked) are not read")
    blocks = -(-k // size)
    whole = q.unpack_bits(layout.reshape(b, shape=(n, blocks, size * bits // 8)), bits=bits)
    scales = layout.reshape(scales, shape=(n, blocks))
    if zero is not None and not is_float(zero.dtype):
        zero = _integer(q.unpack_bits(layout.reshape(zero, shape=(n, -1)), bits=bits), blocks)
    elif zero is not None:
        zero = layout.reshape(zero, shape=(n, blocks))
    if groups is None:
        scales, zero = (v if v is None else layout.reshape(v, shape=(n, blocks, 1)) for v in (scales, zero))
    else:
        whole, groups = layout.reshape(whole, shape=(n, blocks * size)), _integer(groups, k)
        whole = _integer(whole, k)
        scales, zero = (v if v is None else index.gather(v, groups, axis=1) for v in (scales, zero))
    weights = _dequantized(whole, scales, zero, 2 ** (bits - 1))
    weights = _integer(layout.reshape(weights, shape=(n, -1)), k)
    y = matmul(a, layout.transpose(weights, perm=(1, 0)))
    return y if bias is None else pw.add(y, bias)


@binds("GatherBlockQuantized", 1, domain=MICROSOFT)
def gather_block_quantized(node: NodeView, data: Any, indices: Any, scales: Any, zero: Any = None) -> Any:
    """GatherBlockQuantized: entries of a quantised table, as floats; zeros where an index is outside."""
    along, axis = (int(node.attr(name, d)) % data.ndim for name, d in (("quantize_axis", 1), ("gather_axis", 0)))
    bits, size, default = int(node.attr("bits", 4)), int(node.attr("block_size", 128)), 0
    if data.dtype == np.uint8:
        default = 2 ** (bits - 1)
        if zero is not None:
            zero = _integer(q.unpack_bits(zero, bits=bits), scales.shape[-1])
        data = q.unpack_bits(data, bits=bits)
    entries, length = data.shape[axis], int(data.shape[along])
    size = size or length
    inside = pw.logical_and(pw.less_equal(-entries, indices), pw.less(indices, entries))
    at = pw.where(inside, indices, 0)
    at = pw.where(pw.less(at, 0), pw.add(at, entries), at)
    taken = index.gather(data, at, axis=axis)
    if axis == along:
        block = pw.div(at, size)
        scales, zero = (v if v is None else index.gather(v, block, axis=axis) for v in (scales, zero))
    else:
        after = along if along < axis else along + indices.ndim - 1
        each = np.arange(length) // size
        row = at if scales.shape[axis] == entries else pw.sub(at, at)
        scales, zero = (v if v is None else index.gather(v, row, axis=axis) for v in (scales, zero))
        scales, zero = (v if v is None else index.gather(v, each, axis=after) for v in (scales, zero))
    y = _dequantized(taken, scales, zero, default)
    known = known_contents(indices)
    if known is not None and all(-entries <= i < entries for i in known.reshape(-1)):
        return y
    shape = (*(1,) * axis, *indices.shape, *(1,) * (data.ndim - axis - 1))
    return pw.where(layout.reshape(inside, shape=shape), y, 0.0)
