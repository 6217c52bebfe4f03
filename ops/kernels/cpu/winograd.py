"""3x3 convolution of stride 1 by Winograd's minimal filtering, over channels last.

F(m x m, 3 x 3) makes m x m outputs from a tile of a x a inputs, a = m + 2, with a a products a channel, not 9 m m:

    Y = A' [ (G g G') * (B' d B) ] A

Summed over channels, the products are a a multiplications of matrices: tiles x channels by channels x filters. A block
of tiles is transformed into V (a a, tiles, channels), multiplied with the transformed weights U into M (a a, tiles,
filters), and M is transformed into the output. Where there are many tiles, a chunk of work is a block from beginning to
end, so small that V and M stay in the second cache; where there are few, the three parts are kernels of their own, and
chunks share out the tiles, the a a products, the tiles.

In float32 the largest error on random data, relative to the largest result, is 4e-6 to 3e-5 for m = 4, more with more
channels, and about 1e-6 for m = 2; `BOUND` is what tests allow. NaN and infinities spread over a tile.

Axes: N batch, C channel, F filter, H and W rows and columns.
Source: Lavin & Gray 2016 (arXiv:1509.09308).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ...dims import DimLike, product
from ...window import Window
from .depthwise import window_halo
from .kernel import kernel
from .lowering import Ref, Site
from .target import Target
from .winograd_code import FAR, Blocking, Sizes, WeightsCode, Winograd, emit_weights, emit_winograd, weight_parts
from .winograd_fresh import Fresh, chunks_and_scratch, emit_fresh, fresh

BOUND = 5e-5
TRAINED = 8
"""Images that are expected where their number is symbolic and the weights change."""


def suits(x: Any, w: Any, win: Window, size: Sequence[DimLike]) -> bool:
    """Whether a convolution x * w with outputs of this spatial size can be done so at all."""
    fixed = (*x.shape[1:], *w.shape, *size, *(p for pads in win.pads for p in pads))
    return (
        x.dtype == w.dtype
        and x.dtype in (np.float32, np.float64)
        and x.ndim == 4
        and x.shape[0] != 0
        and all(isinstance(d, int) for d in fixed)
        and tuple(w.shape[2:]) == (3, 3)
        and win.group == 1
        and tuple(win.strides) == tuple(win.dilations) == (1, 1)
        and all(0 <= p <= 2 for pads in win.pads for p in pads)
    )


def lower_winograd(site: Site) -> bool:
    """Lower `conv`; whether it pays is for the caller to ask (`winograd_wins`)."""
    x, w, win = site.types[0], site.types[1], site.attrs["win"]
    if site.exact or not suits(x, w, win, site.result.shape[2:]):
        return False
    _lower(site, win, int(x.shape[1]), int(w.shape[0]), gradient=False)
    return True


def lower_winograd_input_grad(site: Site) -> bool:
    """Lower `conv_input_grad`: the convolution of g with the weights turned by 180 degrees, C and F swapped."""
    g, w, win = site.types[0], site.types[1], site.attrs["win"]
    if site.exact or not suits(g, w, win, site.result.shape[2:]):
        return False
    turned = Window((1, 1), tuple((2 - lo, 2 - hi) for lo, hi in win.pads), (1, 1))
    if turned.out(g.shape[2:], (3, 3)) != tuple(site.result.shape[2:]):
        return False
    _lower(site, turned, int(w.shape[0]), int(w.shape[1]), gradient=True)
    return True


def _lower(site: Site, win: Window, channels: int, filters: int, *, gradient: bool) -> None:
    halo = window_halo(site.types[0].shape[2:], (3, 3), win)
    x, out = site.read(0, order="channels_last", halo=halo), site.write(order="channels_last")
    n, _, height, width = out.operand.shape
    dtype, size = x.operand.dtype, x.operand.dtype.itemsize
    images = n if isinstance(n, int) else 1 if site.hoistable(1) else TRAINED
    cut = choose_blocking(site.target, size, channels, filters, int(height), int(width), images)
    low, high = ((int(p[0]), int(p[1])) for p in zip(*win.pads, strict=True))
    p = Winograd(x.operand, out.operand, low, high, cut, "", None)
    if cut.share and not site.hoistable(1):
        few = fresh(site.target, replace(p, epilogue=site.epilogue), images, gradient=gradient)
        if few is not None:
            _call_fresh(site, few, x, out)
            return
    s = Sizes(p, site.target)
    u = _weights(site, p, s, gradient)

    def call(part: str, refs: list[Ref], chunks: DimLike, flops: DimLike, elements: DimLike, scratch: int) -> None:
        last = part in ("fused", "output")
        code = replace(p, part=part, epilogue=site.epilogue if last else None)
        refs = [*refs, *site.epilogue_refs] if last else refs
        site.call(
            kernel(
                f"winograd {part}", emit_winograd, code, operands=len(refs), chunks=chunks, scratch=scratch * size,
                flops=flops, bytes=elements * size,
            ),
            refs,
        )  # fmt: skip

    flops = 2 * s.a**2 * s.total * channels * filters
    source, result, weights = product(x.operand.shape), product(out.operand.shape), product(u.operand.shape)
    if not cut.share:
        moved = source + result + weights
        call("fused", [x, out, u], s.blocks, flops, moved, s.middle + s.v_size + s.m_size)
        return
    v, m = site.temporary(dtype, (s.blocks, s.v_size)), site.temporary(dtype, (s.blocks, s.m_size))
    v_all, m_all = product(v.operand.shape), product(m.operand.shape)
    call("input", [x, v], s.blocks * s.pieces, 0, source + v_all, s.middle)
    call("products", [v, m, u], s.blocks * (s.a**2 // cut.share), flops, v_all + m_all + weights, 0)
    call("output", [m, out], s.blocks * s.pieces, 0, m_all + result, s.middle)


def _weights(site: Site, p: Winograd, s: Sizes, gradient: bool) -> Ref:
    """Return U as (a a, groups, C, vectors of filters)."""
    code = WeightsCode(p.x.dtype, p.blocking, s.channels, s.filters, s.u_one, gradient)
    made = kernel("winograd weights", emit_weights, code, operands=2, chunks=p.blocking.groups * weight_parts(code))
    shape = (s.a**2, s.u_one)
    if site.hoistable(1):
        return site.prepared(site.origin(1, plain=True), [made], p.x.dtype, shape)
    source, out = site.read(1, order="plain"), site.temporary(p.x.dtype, shape)
    site.call(made, [source, out])
    return out


def _call_fresh(site: Site, p: Fresh, x: Ref, out: Ref) -> None:
    """Call the kernels of a convolution of few tiles with weights of this run."""
    base, dtype = p.base, p.base.x.dtype
    s = Sizes(base, site.target)
    w = site.read(1, order="plain")
    v = site.temporary(dtype, (s.blocks, s.v_size))
    moved = dtype.itemsize * (product(x.operand.shape) + product(v.operand.shape))
    made = kernel(
        "winograd input", emit_winograd, replace(base, part="input", epilogue=None), operands=2,
        chunks=s.blocks * s.pieces, scratch=s.middle * dtype.itemsize, bytes=moved,
    )  # fmt: skip
    site.call(made, [x, v])
    refs = [v, out, w, *site.epilogue_refs]
    chunks, scratch = chunks_and_scratch(p, site.target)
    moved = dtype.itemsize * (product(v.operand.shape) + product(out.operand.shape) + product(w.operand.shape))
    made = kernel(
        "winograd fresh", emit_fresh, p, operands=len(refs), chunks=chunks, scratch=scratch * dtype.itemsize,
        flops=2 * s.a**2 * s.total * s.channels * s.filters, bytes=moved,
    )  # fmt: skip
    site.call(made, refs)


# how to cut the work -------------------------------------------------------------------------------------------------

# (tiles, vectors of filters) whose sums, weights and one more fit in that many registers.
_REGISTER_TILES = {
    32: ((6, 4), (5, 4), (4, 4), (9, 3), (8, 3), (10, 2), (8, 2), (14, 2), (14, 1)),
    16: ((4, 3), (6, 2), (5, 2), (4, 2)),
}  # fmt: skip
_TRANSFORMS = {2: (100, 80), 4: (360, 270)}
"""What transforming one vector of a tile costs, in and out, in products of vectors."""
_STREAM = 14
"""Products of vectors that take as long as 64 bytes from the far caches."""
_CHUNKS = 7
"""From how many blocks on a block is a chunk."""
_SHARE = 2_000_000


def winograd_wins(
    target: Target, dtype: Any, channels: int, filters: int, height: DimLike, width: DimLike, batch: DimLike = 1,
    gain: float = 1,
) -> bool:  # fmt: skip
    """Return whether a 3x3 convolution with outputs of this size is faster so than directly.

    `gain` is how much faster than one of float32 the direct convolution is. Costs are in products of vectors, of which
    a direct kernel makes nearly as many as the core can.
    """
    if not (isinstance(height, int) and isinstance(width, int)) or min(channels, filters) < 8:
        return False
    size = np.dtype(dtype).itemsize
    vectors_ = -(-filters // (target.vector_bits // (8 * size)))
    images = batch if isinstance(batch, int) else 1
    direct: int = 9 * channels * vectors_ * height * width * images
    costs = [_cost(target, size, m, channels, filters, height, width, images) for m in (2, 4)]
    return min(costs) < direct / (1.1 * gain)


def _cost(
    target: Target, size: int, m: int, channels: int, filters: int, height: int, width: int, images: int
) -> float:
    cut = _blocking(target, size, m, channels, filters, height, width, images)
    lanes = target.vector_bits // (8 * size)
    tiles = -(-height // m) * -(-width // m) * images
    each = min(cut.tiles, tiles)
    padded = cut.groups * cut.group
    u = (m + 2) ** 2 * channels * padded
    stream = _STREAM * lanes * size / 64 if u * lanes * size > FAR else 0
    products = tiles / each * u * max(1.08 * -(-each // cut.step) * cut.step, stream)
    into, out = _TRANSFORMS[m]
    return products + tiles * (into * -(-channels // lanes) + out * -(-filters // lanes))


def choose_blocking(
    target: Target, size: int, channels: int, filters: int, height: int, width: int, images: int
) -> Blocking:  # fmt: skip
    """Return how to cut the work on outputs of this size; `size` is of an element, in bytes."""
    sizes = (channels, filters, height, width, images)
    m = min((4, 2), key=lambda m: _cost(target, size, m, *sizes))
    return _blocking(target, size, m, *sizes)


def _blocking(
    target: Target, size: int, m: int, channels: int, filters: int, height: int, width: int, images: int
) -> Blocking:  # fmt: skip
    lanes = target.vector_bits // (8 * size)
    vectors_ = -(-filters // lanes)
    tiles = max(1, -(-height // m) * -(-width // m) * images)
    u = (m + 2) ** 2 * channels * vectors_ * lanes * size
    most = 18 if u <= 600_000 else 32 if u <= 2_400_000 else 56
    if tiles >= 24 * _CHUNKS:
        most = min(most, -(-tiles // _CHUNKS))
    blocks = -(-tiles // most)
    each = -(-tiles // blocks)

    def cost(tile: tuple[int, int]) -> float:
        step, group = tile
        loads = (step + group) / 2
        busy = max(step * group / 2, loads, 4) + loads / 4
        if channels * group * lanes * size > 1 << 15:  # the weights of one product leave the first cache
            busy += 0.3 * group
        return -(-each // step) * -(-vectors_ // group) * busy * (1.06 if step * group > 24 else 1)

    step, group = min(_REGISTER_TILES[32 if target.registers >= 32 else 16], key=cost)
    groups = -(-vectors_ // group)
    share = 0
    if blocks < _CHUNKS:
        one = max(1, 2 * channels * vectors_ * lanes * each)
        shares = (1, 2, 3, 4, 6, 9, 12, 18) if m == 4 else (1, 2, 4, 8)
        share = next((d for d in shares if d * one > _SHARE), 0)
    return Blocking(m, -(-each // step) * step, step, group, groups, share)
