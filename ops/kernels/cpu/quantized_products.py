"""Products of quantised tensors: contractions over groups of four bytes.

With x and w shifted by their zero points a and b, and K products in each sum,

    sum((x - a) (w - b)) = sum(x w) - a (sum(w) - K b) - b sum(x)

so a contraction multiplies the bytes as they are, and what it stores is corrected by one number a column, known
beforehand, and, only where b is not 0, by one number a row, which a contraction with ones gives. Signed x has 128
added, unsigned w has 128 taken off. Padding is a, so it too cancels.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...dims import DimLike, Shape
from ...expr import Expr, Var, call, substitute
from ...types import Array, TensorType
from ...window import Window
from .byte_products import Products
from .contraction import Tap, contraction
from .conv import input_halo, rows_of, rows_of_epilogue
from .copy import copy_kernel, fill_parts
from .lowering import Demand, Epilogue, Ref, Site, lowers
from .operand import Halo, Operand, channels_last, row_major
from .tiling import panel_vectors

INT32 = np.dtype(np.int32)
_BYTES = (np.dtype(np.uint8), np.dtype(np.int8))


@dataclass(frozen=True)
class Left:
    """The operand x, as groups of four bytes.

    Attributes:
        zero: its zero point as the contraction sees it, where it is known.
        late: the zero point, where only run time knows it, broadcast to the result; with `ref` its tensor.
    """

    products: Products
    zero: int | None
    late: Operand | None = None
    ref: Ref | None = None

    @property
    def shift(self) -> int:
        """What is added to its elements."""
        return 128 if self.products == "signed" else 0


def _left(site: Site, i: int, shape: Shape, columns: int) -> Left | None:
    """Return what is known of x and its zero point, input i; None where there is no code for it."""
    products: Products = "signed" if site.types[0].dtype == np.int8 else "unsigned"
    shift = 128 if products == "signed" else 0
    t = site.types[i] if i < len(site.types) else None
    if t is None:
        return Left(products, shift)
    known = site.known(i)
    if known is not None and known.size == 1:
        return Left(products, int(np.asarray(known).reshape(())) + shift)
    lined = (1,) * (len(shape) - t.ndim) + tuple(t.shape)
    if (
        len(lined) != len(shape)
        or lined[columns] != 1
        or any(a not in (1, b) for a, b in zip(lined, shape, strict=True))
    ):
        return None
    ref = site.read(i)
    return Left(products, None, ref.operand.broadcast_to(shape), ref)


def _right_zero(site: Site, i: int, shape: tuple[int, ...]) -> Array | None:
    """Return the zero points of w as signed bytes have them, one a column; None where they are not known."""
    shift = 128 if site.types[1].dtype == np.uint8 else 0
    if i >= len(site.types) or site.types[i] is None:
        return np.full(shape, -shift, np.int64)
    known = site.known(i)
    if known is None or known.size not in (1, math.prod(shape)):
        return None
    zero = known.astype(np.int64) - shift
    return np.array(np.broadcast_to(zero.reshape(-1), (math.prod(shape),)).reshape(shape))


def _signed(w: Array) -> Array:
    """Return bytes as signed ones, 128 taken off unsigned ones."""
    return w if w.dtype == np.int8 else (w.astype(np.int16) - 128).astype(np.int8)


def _corrected(
    site: Site, left: Left, zeros: Array, count: int, axis: int, sums: Callable[[Array], Array],
    rows: Callable[[], tuple[Ref, Operand]],
) -> tuple[Epilogue | None, list[Ref]]:  # fmt: skip
    """Return the epilogue that corrects a product and applies the site's own, and the tensors that it reads.

    Args:
        site: where.
        left: of x.
        zeros: of w, one a column.
        count: of products in a sum.
        axis: of the result, along which the columns lie.
        sums: gives the sums of the columns of signed weights, each over its products.
        rows: adds the kernel that sums the rows of x; gives the tensor and how it lies, broadcast to the result.
    """
    shape = site.result.shape
    along = tuple(1 if i == axis else 0 for i in range(len(shape)))
    x: Expr = Var("x")
    operands: list[Operand] = []
    refs: list[Ref] = []

    def operand(ref: Ref, o: Operand) -> Var:
        operands.append(o)
        refs.append(ref)
        return Var(f"a{len(refs) - 1}")

    if left.zero != 0:
        factor = 1 if left.zero is None else left.zero
        digest = hashlib.sha256(zeros.tobytes()).hexdigest()[:16]

        def correction(w: Array) -> Array:
            whole = factor * (sums(_signed(w).astype(np.int64)) - count * zeros)
            return whole.reshape(-1).astype(INT32)

        ref = site.packed(1, f"sums of {count} less zeros {digest} times {factor}", correction)
        column = operand(ref, Operand(INT32, shape, along))
        if left.zero is None:
            assert left.late is not None and left.ref is not None
            zero = call(f"cast:{np.dtype(left.late.dtype).name}:int32", operand(left.ref, left.late))
            x = x - (zero + left.shift) * column
        else:
            x = x - column
    if zeros.any():
        mine = operand(*rows())
        x = x - mine * operand(site.constant(zeros.reshape(-1).astype(INT32)), Operand(INT32, shape, along))
    own = site.epilogue
    if own is not None:
        shifted: dict[str, Expr] = {f"a{i}": Var(f"a{i + len(refs)}") for i in range(len(own.operands))}
        x = substitute(own.expression, {**shifted, "x": x})
        operands.extend(own.operands)
    refs.extend(site.epilogue_refs)
    if own is None and not operands:
        return None, refs
    return Epilogue(x, tuple(operands), own.dtype if own is not None else INT32), refs


def _panels(w: Array, width: int) -> Array:
    """Return (groups, columns, *outer, depth) as (groups, panels, *outer, words, width, 4), filled up with zeros."""
    groups, columns, *outer, depth = w.shape
    panels, words = -(-columns // width), -(-depth // 4)
    full = np.zeros((groups, panels * width, *outer, words * 4), np.int8)
    full[:, :columns, ..., :depth] = w
    parts = full.reshape(groups, panels, width, *outer, words, 4)
    return np.ascontiguousarray(np.moveaxis(parts, 2, -2))


def _words(*sizes: DimLike) -> bool:
    """Whether distances in bytes are whole numbers of words."""
    return all(s % 4 == 0 for s in sizes)


# products of matrices -------------------------------------------------------------------------------------------------


@lowers("matmul_integer", fuses=True)
def lower_matmul_integer(site: Site) -> bool:
    """Lower a product of matrices of bytes, the right one being a constant."""
    a, b = site.types[:2]
    if a.dtype not in _BYTES or b.dtype not in _BYTES or a.ndim < 2 or b.ndim != 2:
        return False
    if not site.hoistable(1) or not all(isinstance(d, int) and d > 0 for d in (*b.shape, a.shape[-1])):
        return False
    depth, columns = int(b.shape[0]), int(b.shape[1])
    shape = site.result.shape
    zeros = _right_zero(site, 3, (columns,))
    left = None if zeros is None else _left(site, 2, shape, len(shape) - 1)
    if left is None or zeros is None:
        return False
    source = site.read(0)
    o = source.operand
    if o.strides[-1] != 1 or depth % 4 or not _words(*o.strides[:-1]):
        source, o = _padded_rows(site, source, a)
    words = -(-depth // 4)
    grid, strides = shape[:-1], tuple(s // 4 for s in o.strides[:-1])

    def product(columns: int, panels: Callable[[int], Ref], out: Ref, y: Operand, epilogue: Any, refs: Any) -> None:
        vectors = panel_vectors(site.target, INT32, grid, columns, words)
        width = vectors * site.target.lanes(INT32)
        made = contraction(
            "matmul_integer", site.target, dtype=INT32, columns=columns, depth=words, taps=(), a_start=0, grid=grid,
            a_grid=strides, a_depth=1, b_grid=(0,) * len(grid), b_depth=width, b_panel=width * words, output=y,
            epilogue=epilogue, vectors=vectors, products=left.products,
        )  # fmt: skip
        site.call(made, [source, panels(width), out, *refs])

    def rows() -> tuple[Ref, Operand]:
        total = site.temporary(INT32, (*grid, 1))
        ones = np.ones((1, 1, depth), np.int8)
        product(1, lambda width: site.constant(_panels(ones, width)), total, total.operand, None, ())
        return total, total.operand.broadcast_to(shape)

    epilogue, refs = _corrected(site, left, zeros, depth, len(shape) - 1, lambda w: w.sum(axis=0), rows)

    def panels(width: int) -> Ref:
        return site.packed(1, f"bytes in panels of {width}", lambda w: _panels(_signed(w).T[None], width))

    y = site.write(0, order="plain")
    product(columns, panels, y, y.operand, epilogue, refs)
    return True


def _padded_rows(site: Site, source: Ref, t: TensorType) -> tuple[Ref, Operand]:
    """Return rows with bytes without meaning behind them, so that they begin at words."""
    shape = (*t.shape[:-1], -(-int(t.shape[-1]) // 4) * 4)
    target = site.temporary(t.dtype, shape)
    view = Operand(t.dtype, t.shape, row_major(shape))
    site.call(copy_kernel(source.operand, view, name="words"), [source, target])
    return target, view


# convolutions ---------------------------------------------------------------------------------------------------------


def _demand(types: Sequence[Any], attrs: dict[str, Any]) -> dict[int, Demand]:
    x, w = types[:2]
    if not all(isinstance(d, int) for d in w.shape[2:]):
        return {}
    halo = input_halo(x, w.shape[2:], attrs["win"])
    return {} if halo is None else {0: Demand("channels_last", halo)}


@lowers("conv_integer", demand=_demand, fuses=True)
def lower_conv_integer(site: Site) -> bool:
    """Lower a convolution of bytes with constant weights."""
    x, w = site.types[:2]
    win: Window = site.attrs["win"]
    static = (x.shape[1], *w.shape, win.group)
    if x.dtype not in _BYTES or w.dtype not in _BYTES or not 3 <= x.ndim <= 5 or not site.hoistable(1):
        return False
    if not all(isinstance(d, int) and d > 0 for d in static) or (win.group > 1 and int(w.shape[1]) % 4):
        return False
    filters, channels, *kernel = (int(d) for d in w.shape)
    halo = input_halo(x, tuple(kernel), win)
    zeros = _right_zero(site, 3, (filters,))
    if halo is None or zeros is None or (zeros.any() and win.group > 1):
        return False
    shape = site.result.shape
    left = _left(site, 2, shape, 1)
    padded = any(h != (0, 0) for h in halo)
    if left is None or (left.zero is None and padded):
        return False
    source, o, start = _pixels(site, x, halo, left)
    convolution = _Convolution(site, left, source, o, start, tuple(kernel), -(-channels // 4))

    def rows() -> tuple[Ref, Operand]:
        total = site.temporary(INT32, (shape[0], 1, *shape[2:]))
        ones = np.ones((1, 1, *kernel, channels), np.int8)
        convolution.call(1, 1, lambda width: site.constant(_panels(ones, width)), total, total.operand, None, ())
        return total, total.operand.broadcast_to(shape)

    def sums(w: Array) -> Array:
        return w.reshape(filters, -1).sum(axis=1)

    epilogue, refs = _corrected(site, left, zeros, channels * math.prod(kernel), 1, sums, rows)

    def panels(width: int) -> Ref:
        def pack(w: Array) -> Array:
            last = np.moveaxis(_signed(w), 1, -1)
            return _panels(last.reshape(win.group, filters // win.group, *kernel, channels), width)

        return site.packed(1, f"bytes of {win.group} groups in panels of {width}", pack)

    y = site.write(0, order="channels_last")
    convolution.call(win.group, filters, panels, y, y.operand, epilogue, refs)
    return True


def _pixels(site: Site, t: TensorType, halo: Halo, left: Left) -> tuple[Ref, Operand, DimLike]:
    """Return x with channels last, words of channels and its zero point around it; and where its first element lies."""
    zero = (left.zero or 0) - left.shift
    if int(t.shape[1]) % 4 == 0 and (zero == 0 or all(h == (0, 0) for h in halo)):
        ref = site.read(0, order="channels_last", halo=halo)
        if _words(ref.operand.strides[0], *ref.operand.strides[2:]):
            return ref, ref.operand, 0
    ref = site.read(0)
    o, size, start = channels_last(t.dtype, t.shape, halo, 4)
    target = site.temporary(t.dtype, (size,))
    if o.halo:
        whole = Operand(t.dtype, (size,), (1,))
        site.call(fill_parts(t.dtype, [(0, whole.shape, whole.strides)], zero, "zero point"), [target])
    site.call(copy_kernel(ref.operand, replace(o, halo=(), slack=0), target_start=start, name="words"), [ref, target])
    return target, o, start


@dataclass(frozen=True)
class _Convolution:
    """A convolution of bytes, for any filters.

    Attributes:
        source: x, of which `o` says how it lies and `start` where its first element is.
        words: of four channels, a pixel and group.
    """

    site: Site
    left: Left
    source: Ref
    o: Operand
    start: DimLike
    kernel: tuple[int, ...]
    words: int

    def call(
        self, groups: int, filters: int, panels: Callable[[int], Ref], out: Ref, y: Operand, epilogue: Epilogue | None,
        refs: Sequence[Ref],
    ) -> None:  # fmt: skip
        """Add the contraction."""
        site, kernel, words = self.site, self.kernel, self.words
        win: Window = site.attrs["win"]
        pixel = tuple(s // 4 for s in self.o.strides[2:])
        counts, depth = list(kernel), words
        if win.dilations[-1] == 1 and pixel[-1] == words:
            depth *= counts.pop()
        start = self.start
        for (low, _), s in zip(win.pads, self.o.strides[2:], strict=True):
            start = start - low * s
        shape = site.result.shape
        grid = (groups, shape[0], *shape[2:])
        deep = words * math.prod(kernel)
        vectors = panel_vectors(site.target, INT32, grid, filters // groups, deep)
        width = vectors * site.target.lanes(INT32)
        taps = []
        for i, count in enumerate(counts):
            taps.append(Tap(count, win.dilations[i] * pixel[i], math.prod(counts[i + 1 :]) * depth * width))
        size = -(-(filters // groups) // width) * deep * width
        a_grid = (words, self.o.strides[0] // 4, *(s * st for s, st in zip(win.strides, pixel, strict=True)))
        made = contraction(
            "conv_integer", site.target, dtype=INT32, columns=filters // groups, depth=depth, taps=taps,
            a_start=start // 4, grid=grid, a_grid=a_grid, a_depth=1, b_grid=(size, *(0,) * (len(grid) - 1)),
            b_depth=width, b_panel=deep * width, output=rows_of(y, groups),
            epilogue=rows_of_epilogue(epilogue, groups), vectors=vectors, products=self.left.products,
        )  # fmt: skip
        site.call(made, [self.source, panels(width), out, *refs])
