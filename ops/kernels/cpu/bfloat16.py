"""Operands of contractions as pairs of bfloat16: two neighbours along the depth in one 32-bit word.

Where a plan's precision is `bf16`, convolutions without groups and products of matrices multiply operands rounded to
bfloat16 (to nearest even) and sum in float32. What only they and pointwise code read lies in memory as bfloat16; all
else is calculated in float32. Operands keep 8 significant bits, so a product is wrong by up to 2^-8 of itself, a sum by
about 2^-9 of the root of the sum of its products' squares; denormal numbers count as 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ...dims import DimLike, Shape, product
from ...expr import Call, Expr, Var
from ...types import BFLOAT16
from .casts import round_to_bfloat16
from .copy import copy_kernel, fill_parts
from .emitter import F32, I32, Emitter, V, undefined, vector_type
from .kernel import Kernel, kernel
from .lowering import Order, Ref, Site
from .operand import Halo, Operand, channels_last, packed, row_major
from .pointwise import make_kernel
from .target import Target

FLOAT32, INT32 = np.dtype(np.float32), np.dtype(np.int32)

GAIN = 1.9
"""How much faster a contraction of bfloat16 is than one of float32."""

WRITERS = frozenset({"conv", "matmul", "pointwise", "max_pool", "sum_pool", "layer_norm", "rms_norm"})
"""Ops whose rules write float32 as bfloat16 where their output lies so."""


def wanted(site: Site) -> bool:
    """Whether a site's contraction multiplies bfloat16: its plan says so and its tensors are float32."""
    return site.precision == "bf16" and all(t.dtype == FLOAT32 for t in (*site.types[:2], site.result))


def convert_kernel(target: Target, source: Operand, result: Operand) -> Kernel:
    """Return the kernel that copies a tensor between float32 and bfloat16."""
    x: Expr = Var("a0")
    if source.dtype == BFLOAT16:
        x = Call("cast:bfloat16:float32", (x,))
    return replace(make_kernel(target, x, [source], result), name="convert")


def _halved(d: DimLike) -> DimLike:
    return (d + 1) // 2


def _even(d: DimLike) -> bool:
    """Whether a size is known to be a multiple of 2."""
    return d // 2 * 2 == d


def read_pixels(site: Site, halo: Halo) -> tuple[Ref, Operand, DimLike]:
    """Return the first input with channels last and rounded, it as pairs of channels, and where its first pair is."""
    t = site.types[0]
    channels = int(t.shape[1])
    if channels % 2 == 0:
        ref = site.read(0, order="channels_last", halo=halo, elements="bfloat16")
        pairs = _pixel_pairs(ref.operand)
        if pairs is not None:
            return ref, pairs, 0
    source = site.read(0)
    o, size, start = channels_last(FLOAT32, t.shape, halo, 4 if channels <= 4 else 2)
    whole = packed(FLOAT32, (size,))
    wide, narrow = site.temporary(FLOAT32, (size,)), site.temporary(BFLOAT16, (size,))
    site.call(fill_parts(FLOAT32, [(0, whole.shape, whole.strides)], 0, "zeros"), [wide])
    site.call(copy_kernel(source.operand, replace(o, halo=()), target_start=start, name="pixels"), [source, wide])
    site.call(convert_kernel(site.target, whole, narrow.operand), [wide, narrow])
    even = channels + channels % 2
    pairs = _pixel_pairs(replace(o, dtype=BFLOAT16, shape=(o.shape[0], even, *o.shape[2:])))
    assert pairs is not None
    return narrow, pairs, start // 2


def _pixel_pairs(o: Operand) -> Operand | None:
    """Return channels-last pixels of an even number of channels as pairs."""
    others = (o.strides[0], *o.strides[2:])
    if o.strides[1] != 1 or not all(_even(s) for s in others):
        return None
    halves = [s // 2 for s in others]
    return Operand(FLOAT32, (o.shape[0], int(o.shape[1]) // 2, *o.shape[2:]), (halves[0], 1, *halves[1:]))


def read_rows(site: Site) -> tuple[Ref, Operand]:
    """Return the first input rounded, and it as pairs along its last axis."""
    t = site.types[0]
    depth = t.shape[-1]
    if isinstance(depth, int) and depth % 2 == 0:
        orders: tuple[Order, ...] = ("any", "plain")
        for order in orders:
            ref = site.read(0, order=order, elements="bfloat16")
            o = ref.operand
            if o.strides[-1] == 1 and all(_even(s) for s in o.strides[:-1]):
                shape = (*o.shape[:-1], depth // 2)
                return ref, Operand(FLOAT32, shape, (*(s // 2 for s in o.strides[:-1]), 1))
    source = site.read(0, elements="stored")
    half = _halved(depth)
    narrow = site.temporary(BFLOAT16, (*t.shape[:-1], 2 * half))
    strides = row_major(narrow.operand.shape)
    last = (2 * half - 1, (*t.shape[:-1], 1), strides)
    site.call(fill_parts(BFLOAT16, [last], 0, "zeros"), [narrow])
    inside = Operand(BFLOAT16, t.shape, strides)
    site.call(convert_kernel(site.target, source.operand, inside), [source, narrow])
    return narrow, packed(FLOAT32, (*t.shape[:-1], half))


@dataclass(frozen=True)
class Columns:
    """A right side that is packed: columns of float32, of which panels of `width` become pairs along the depth.

    Attributes:
        batch: sizes of the axes before the panels.
        taps: sizes of the axes between the panels and the depth.
        depth: how many elements a column has for each tap.
        columns: how many.
        steps: how far apart the elements lie along each of the axes (*batch, *taps, depth, columns).
        width: of a panel.
    """

    batch: Shape
    taps: Shape
    depth: DimLike
    columns: DimLike
    steps: Shape
    width: int

    @property
    def shape(self) -> Shape:
        """The result's: (*batch, panels, *taps, words, width)."""
        panels = (self.columns + (self.width - 1)) // self.width
        return (*self.batch, panels, *self.taps, _halved(self.depth), self.width)


def pack_columns(site: Site, i: int, columns: Callable[[Shape], Columns], order: Order = "any") -> Ref:
    """Return an input as panels of pairs of bfloat16, packed beforehand where it is a weight.

    Args:
        site: where.
        i: which input.
        columns: what is packed, given the strides of the input.
        order: how it lies where it is no weight.
    """
    if site.hoistable(i):
        origin = site.origin(i)
        p = columns(origin.operand.strides)
        return site.prepared(origin, [_pack_kernel(p)], INT32, p.shape)
    source = site.read(i, order=order)
    p = columns(source.operand.strides)
    target = site.temporary(INT32, p.shape)
    site.call(_pack_kernel(p), [source, target])
    return target


def _pack_kernel(p: Columns) -> Kernel:
    chunks = product(p.shape[: len(p.batch) + 1])
    size = product(p.shape)
    return kernel("pack pairs", emit_columns, p, operands=2, chunks=chunks, bytes=12 * size)


def emit_columns(e: Emitter, p: Columns) -> None:
    """Write the code that packs; a panel is a chunk, and what is behind the last column is zeros or a copy of it."""
    lanes, kind = e.target.lanes(FLOAT32), e.zero(INT32, e.target.lanes(FLOAT32)).type
    outer = len(p.batch) + 1
    panels = p.shape[outer - 1]
    *batch, panel = e.unravel(e.chunk, (*p.batch, panels))
    *steps, step_depth, step = p.steps
    source = e.pointer(0)
    for place, stride in zip(batch, steps, strict=False):
        source = e.at(source, e.mul(place, stride), FLOAT32)
    target = e.at(e.pointer(1), e.mul(e.chunk, product(p.shape[outer:])), INT32)
    first = e.mul(panel, p.width)
    whole = isinstance(p.columns, int) and p.columns % p.width == 0
    starts: list[list[V]] = []
    masks: list[V] = []
    for at in range(0, p.width, lanes):
        if step == 1:
            masks.append(None if whole else e.tail_mask(e.sub(p.columns, e.add(first, at)), lanes))
            starts.append([e.at(source, e.add(first, at), FLOAT32)])
            continue
        numbers = [e.add(first, at + k) for k in range(lanes)]
        last = e.sub(p.columns, 1)
        starts.append([e.at(source, e.mul(n if whole else e.min(n, last), step), FLOAT32) for n in numbers])

    def bits(v: int, distance: V) -> V:
        """Return a vector of columns rounded, in the low halves of words."""
        if step == 1:
            x = e.load(e.at(starts[v][0], distance, FLOAT32), FLOAT32, lanes, mask=masks[v])
        else:
            x = undefined(vector_type(F32, lanes))
            for k, start in enumerate(starts[v]):
                x = e.b.insert_element(x, e.load(e.at(start, distance, FLOAT32), FLOAT32), I32(k))
        return e.b.zext(round_to_bfloat16(e, x), kind)

    def write(rest: Sequence[tuple[DimLike, DimLike]], distance: V, place: V, count: int) -> None:
        """Write the words of one place of the depth, for all taps."""
        if rest:
            (size, stride), *inner = rest
            with e.loop(0, size) as loop:
                write(inner, e.add(distance, e.mul(loop.index, stride)), e.add(e.mul(place, size), loop.index), count)
            return
        at = e.at(target, e.mul(e.add(e.mul(place, words), word), p.width), INT32)
        for v in range(p.width // lanes):
            value = bits(v, distance)
            if count == 2:
                value = e.b.or_(value, e.b.shl(bits(v, e.add(distance, step_depth)), e.constant(16, kind)))
            e.store(value, e.at(at, v * lanes, INT32), INT32)

    words = _halved(p.depth)
    taps = list(zip(p.taps, steps[len(p.batch) :], strict=True))
    with e.loop(0, p.depth // 2) as loop:
        word = loop.index
        write(taps, e.mul(word, e.mul(2, step_depth)), e.index(0), 2)
    if isinstance(p.depth, int):
        if p.depth % 2:
            word = e.index(p.depth // 2)
            write(taps, e.mul(word, e.mul(2, step_depth)), e.index(0), 1)
        return
    with e.when(e.b.icmp_signed(">", e.mod(p.depth, 2), e.index(0))):
        word = e.dim(p.depth // 2)
        write(taps, e.mul(word, e.mul(2, step_depth)), e.index(0), 1)
