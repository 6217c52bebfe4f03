"""Fourier transforms as products with matrices of cosines and sines, overlapping frames, and their sums.

A transform of n numbers is a product with a matrix that is part of the plan. Up to some thousand numbers that is faster
than bringing them to the host, and as exact as their sums. Frames are copied to where products can read them; what is
fused to them, a window, is applied on the way.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from ...signal import dft_length
from ...types import Array, DType, TensorType
from .copy import copied
from .cublaslt import Side, describe
from .fusion import finish, fuses
from .indexing import View, merged, view
from .kernel import Ref
from .lowering import Site, lowers
from .prelude import C_TYPES, computed
from .signature import Signature, is_wide

_MATRIX_BYTES = 32 << 20
"""Transforms whose matrix is larger run on arrays."""

_TYPES = ("float32", "float64")


@dataclass(frozen=True)
class Transform:
    """A discrete Fourier transform along one axis.

    Attributes:
        size: of the axis of the input.
        parts: of a number of the input: 1 if it is real, 2 if it is complex.
        length: of the transform.
        inverse: whether it is the inverse.
        onesided: whether of the coefficients of a real signal half are left out.
    """

    size: int
    parts: int
    length: int
    inverse: bool
    onesided: bool

    @property
    def results(self) -> tuple[int, int]:
        """The size of the axis of the result, and the parts of a number there."""
        half = self.onesided and not self.inverse
        return self.length // 2 + 1 if half else self.length, 1 if self.onesided and self.inverse else 2

    @property
    def read(self) -> int:
        """How many elements of the axis it reads; the rest is cut off."""
        return min(self.size, self.length // 2 + 1 if self.onesided and self.inverse else self.length)

    def matrix(self, dtype: DType, size: int) -> Array:
        """Return the matrix (size, parts, size of the result, parts there) that the input is multiplied by."""
        (count, parts), read = self.results, self.read
        turns = np.outer(np.arange(read), np.arange(count)) % self.length
        angles = 2 * np.pi * np.arange(self.length) / self.length
        sign = 1 if self.inverse else -1
        real, imaginary = np.cos(angles)[turns], sign * np.sin(angles)[turns]
        if self.inverse:
            scale = np.full((read, 1), 1 / self.length)
            if self.onesided:  # coefficients stand for their mirror too, but for the first and the middle one
                scale[1 : (self.length + 1) // 2] *= 2
            real, imaginary = real * scale, imaginary * scale
        whole = np.zeros((size, 2, count, 2), dtype)
        whole[:read, 0, :, 0], whole[:read, 0, :, 1] = real, imaginary
        whole[:read, 1, :, 0], whole[:read, 1, :, 1] = -imaginary, real
        return np.ascontiguousarray(whole[:, : self.parts, :, :parts])


@lowers("dft", "dft_grad")
def _dft(site: Site) -> bool:
    a, adjoint = site.attrs, site.op == "dft_grad"
    x, y = site.types[0], site.results[0]
    whole, made = (y, x) if adjoint else (x, y)
    axis = a["axis"] % x.ndim
    if x.dtype.name not in _TYPES or 0 in (*x.shape, *y.shape) or axis == x.ndim - 1:
        return False
    size, parts = int(whole.shape[axis]), int(whole.shape[-1])
    inverse, onesided = bool(a.get("inverse")), bool(a.get("onesided"))
    length = int(dft_length(size, a.get("length"), inverse and onesided))
    t = Transform(size, parts, length, inverse, onesided)
    rows = (size if adjoint else t.read) * parts
    columns = int(made.shape[axis]) * int(made.shape[-1])
    if rows * columns * x.dtype.itemsize > _MATRIX_BYTES:
        return False
    key = "dft", x.dtype.name, t, rows
    made_of = site.shared(key, (), lambda: site.constant(t.matrix(x.dtype, rows // parts).reshape(rows, columns)))
    matrix = View(made_of, (rows, columns), (columns, 1))
    if adjoint:
        matrix = View(made_of, (columns, rows), (1, columns))
    _transformed(site, view(site.read(0)).part(axis, 0, matrix.shape[0] // int(x.shape[-1])), matrix, axis)
    return True


def _transformed(site: Site, x: View, matrix: View, axis: int) -> None:
    """Add the product of an axis and the last one, which is never rounded to TF32, with a matrix."""
    ndim = len(x.shape)
    order = (*(i for i in range(ndim) if i not in (axis, ndim - 1)), axis, ndim - 1)
    dtype = x.ref.operand.dtype
    x = View(x.ref, tuple(x.shape[i] for i in order), tuple(x.strides[i] for i in order))
    rows = prod(x.shape[:-2])
    k, n = matrix.shape
    left = _rows(x)
    if left is None:
        packed = site.temporary(dtype, x.shape)
        made = copied(x, view(packed))
        site.launch(made.kernel, made.grid, made.block, made.arguments, writes=made.writes)
        left = packed, k
    source, step = left
    y = site.write(0, order="plain")
    target = y.operand.transposed(order)
    straight = order == tuple(range(ndim))
    product = y if straight else site.temporary(dtype, target.shape)
    call = describe(
        (), rows, n, k, Side(dtype, (), step, 1, source.operand.offset),
        Side(dtype, (), *matrix.strides), Side(dtype, (), n, 1, product.operand.offset), tf32=False,
    )  # fmt: skip
    assert call is not None
    site.call(call, [source, matrix.ref, product], writes=(2,))
    if not straight:
        made = copied(view(product), View(y, target.shape, target.strides))
        site.launch(made.kernel, made.grid, made.block, made.arguments, writes=made.writes)


def _rows(v: View) -> tuple[Ref, int] | None:
    """Return a tensor whose two last axes are neighbours and the step from one to the next; None if they lie apart."""
    axes = [(n, s) for n, s in zip(v.shape[:-2], v.strides[:-2], strict=True) if n != 1]
    _, (outer,) = merged(tuple(n for n, _ in axes), [tuple(s for _, s in axes)])
    _, (inner,) = merged(*_without_ones(v))
    width = prod(v.shape[-2:])
    if len(outer) > 1 or inner not in ((), (1,)):
        return None
    step = outer[0] if outer else width
    return (v.ref, step) if step >= width else None


def _without_ones(v: View) -> Any:
    axes = [(n, s) for n, s in zip(v.shape[-2:], v.strides[-2:], strict=True) if n != 1]
    return tuple(n for n, _ in axes), [tuple(s for _, s in axes)]


# frames ---------------------------------------------------------------------------------------------------------------


@lowers("frames", fuses=fuses)
def _frames(site: Site) -> bool:
    x, y = site.types[0], site.results[0]
    if x.dtype.name not in C_TYPES:
        return False
    source, target = site.read(0), site.write(0, order="plain")
    o, step = source.operand, int(site.attrs["step"])
    shape = tuple(int(n) for n in y.shape)
    cut = View(source, shape, (o.strides[0], step * o.strides[1], *o.strides[1:]))
    if site.epilogue is not None:
        finish(site, site.epilogue, cut, x.dtype, view(target))
        return True
    made = copied(cut, view(target), "frames")
    site.launch(made.kernel, made.grid, made.block, made.arguments, writes=made.writes)
    return True


_OVERLAP = """
const index last = place / step < count - 1 ? place / step : count - 1;
index f = place < length ? 0 : (place - length) / step + 1;
C total = 0;
for (; f <= last; ++f) total += widen(g[from + f * g_frame + (place - f * step) * g_place]);
narrow(total, &y[to]);
"""


@lowers("overlap_add")
def _overlap_add(site: Site) -> bool:
    g, y = site.types[0], site.results[0]
    if not isinstance(g, TensorType) or g.dtype.name not in C_TYPES or g.dtype.kind == "b" or 0 in (*g.shape, *y.shape):
        return False
    source, target = site.read(0), site.write()
    o, p = source.operand, target.operand
    s = Signature(wide=is_wide(o, p))
    s.reads("g", source)
    s.writes("y", target)
    s.size("step", int(site.attrs["step"]))
    s.size("count", o.shape[1])
    s.size("length", o.shape[2])
    s.size("g_frame", o.strides[1])
    s.size("g_place", o.strides[2])
    axes = [(f"i{i}" if i != 1 else "place", n) for i, n in enumerate(p.shape)]
    names = [name for name, _ in axes]
    outer = [name for name in names if name != "place"]
    lines = [s.unravel("t", axes)]
    lines.append(
        f"const index from = {s.offset('g_at', list(zip(outer, (o.strides[0], *o.strides[3:]), strict=True)))};"
    )
    lines.append(f"const index to = {s.offset('y_at', list(zip(names, p.strides, strict=True)))};")
    s.launch(site, "overlap_add", "\n".join(lines) + _OVERLAP, p.size, before=f"typedef {computed(g.dtype)} C;\n")
    return True
