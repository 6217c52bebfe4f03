"""Winograd convolutions of few tiles with weights of this run: weights are transformed where they are multiplied.

Transformed weights are four times as large as the weights, and used for few tiles they take longer to write and read
again than to multiply. A chunk of work has a panel of filters and all tiles: for some channels at a time it transforms
its weights into U (a a, channels, panel), which stays in the second cache, and adds V U to its sums M (a a, tiles,
panel); in the end it transforms those back. V comes from the kernel that transforms the input.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

from ...dims import DimLike
from .ahead import ask
from .emitter import Emitter, V
from .target import Target
from .tiling import NEAR
from .winograd_code import Sizes, Winograd, odd_lines, transform_output, transform_weights

_REGISTER_TILES = {
    32: ((14, 2), (13, 2), (12, 2), (11, 2), (10, 2), (9, 3), (8, 3), (7, 3), (6, 4), (5, 4)),
    16: ((6, 2), (5, 2), (4, 3), (4, 2)),
}  # fmt: skip
"""(tiles, vectors of filters) whose sums, and what is multiplied, fit in that many registers."""
_CHANNELS = 64
"""So many at a time are transformed and multiplied."""
_CHUNKS = 7
"""How many there are at least."""


@dataclass(frozen=True)
class Fresh:
    """What the code depends on.

    Attributes:
        base: the convolution; its blocks of tiles are those of V.
        rows: tiles whose sums stay in registers.
        group: vectors of filters of a chunk.
        gradient: whether weights are turned by 180 degrees, C and F swapped.
    """

    base: Winograd
    rows: int
    group: int
    gradient: bool


def fresh(target: Target, p: Winograd, images: int, *, gradient: bool) -> Fresh | None:
    """Return how to convolve so, None where there are too many tiles or too few filters for that.

    Args:
        target: what CPU it is for.
        p: the convolution, without a part.
        images: how many are expected.
        gradient: whether weights are turned.
    """
    s = Sizes(p, target)
    tiles = s.down * s.across * images
    best: tuple[float, Fresh] | None = None
    for rows, group in _REGISTER_TILES[32 if target.registers >= 32 else 16]:
        panel = group * s.lanes
        chunks = -(-s.filters // panel)
        if s.filters < panel or chunks < _CHUNKS or s.a**2 * tiles * panel * p.x.dtype.itemsize > NEAR:
            continue
        cost = chunks * -(-tiles // rows) * group * max(rows, (rows + group) / group, 8 / group)
        if best is None or cost < best[0]:
            blocking = replace(p.blocking, tiles=-(-tiles // rows) * rows, step=rows, share=1)
            best = cost, Fresh(replace(p, blocking=blocking), rows, group, gradient)
    return best[1] if best else None


class _Places:
    """Where things lie in scratch, and how large it is, in elements."""

    def __init__(self, p: Fresh, s: Sizes) -> None:
        self.panel = p.group * s.lanes
        self.u_one = odd_lines(_CHANNELS * self.panel, s.line)
        self.m_one = odd_lines(p.base.blocking.tiles * self.panel, s.line)
        self.m_size = s.a**2 * self.m_one
        self.u = s.middle
        self.m = self.u + s.a**2 * self.u_one
        self.scratch: DimLike = s.blocks * self.m_size + self.m


def chunks_and_scratch(p: Fresh, target: Target) -> tuple[int, DimLike]:
    """Return how many chunks there are, and how much scratch they need, in elements."""
    s = Sizes(p.base, target)
    places = _Places(p, s)
    return -(-s.filters // places.panel), places.scratch


def emit_fresh(e: Emitter, p: Fresh) -> None:
    """Write the kernel; its operands are V, the output, the weights, those of the epilogue."""
    base = p.base
    s, dtype = Sizes(base, e.target), base.x.dtype
    places = _Places(p, s)
    first = e.mul(e.chunk, places.panel)
    if s.filters % places.panel:  # the last panel is shifted back and overlaps its neighbour
        first = e.min(first, s.filters - places.panel)
    total = e.mul(base.y.shape[0], s.down * s.across)
    size = base.blocking.tiles
    blocks = e.ceil_div(total, size)
    u, m = (e.at(e.scratch, place, dtype) for place in (places.u, places.m))
    along, across = (9, s.filters * 9) if p.gradient else (s.channels * 9, 9)
    with e.loop(0, s.channels, _CHANNELS) as part:
        channels = e.min(_CHANNELS, e.sub(s.channels, part.index))
        with e.loop(0, channels) as channel, e.loop(0, p.group) as group:
            at = e.add(e.mul(e.add(part.index, channel.index), across), e.mul(first, along))
            source = e.at(e.pointer(2), e.add(at, e.mul(group.index, s.lanes * along)), dtype)
            out = e.at(u, e.add(e.mul(channel.index, places.panel), e.mul(group.index, s.lanes)), dtype)
            transform_weights(
                e, dtype, base.blocking.m, source, [lane * along for lane in range(s.lanes)], out, places.u_one,
                turned=p.gradient,
            )  # fmt: skip
        later = e.min(part.index, 1)
        with e.loop(0, blocks) as block:
            count = e.min(size, e.sub(total, e.mul(block.index, size)))
            v = e.at(e.pointer(0), e.add(e.mul(block.index, s.v_size), part.index), dtype)
            sums = e.at(m, e.mul(block.index, places.m_size), dtype)
            with e.loop(0, s.a**2) as number, e.loop(0, e.ceil_div(count, p.rows)) as step:
                row = e.mul(step.index, p.rows)
                rows = e.at(v, e.add(e.mul(number.index, s.v_one), e.mul(row, s.v_row)), dtype)
                weights = e.at(u, e.mul(number.index, places.u_one), dtype)
                out = e.at(sums, e.add(e.mul(number.index, places.m_one), e.mul(row, places.panel)), dtype)
                _multiply(e, p, s, rows, weights, out, channels, later)
    of_panel = copy.copy(s)
    of_panel.filters, of_panel.m_row, of_panel.m_one = places.panel, places.panel, places.m_one
    with e.loop(0, blocks) as block:
        begin = e.mul(block.index, size)
        sums = e.at(m, e.mul(block.index, places.m_size), dtype)
        transform_output(e, base, of_panel, sums, e.scratch, 3, begin, 0, e.min(size, e.sub(total, begin)), first)


def _multiply(e: Emitter, p: Fresh, s: Sizes, rows: V, weights: V, out: V, channels: V, later: V) -> None:
    """Add the products of some channels to the sums of some tiles, which begin with 0 unless `later`.

    Meanwhile these tiles' V of the next number comes nearer.
    """
    dtype, lanes, panel = p.base.x.dtype, s.lanes, p.group * s.lanes
    kept = [e.at(out, (t * p.group + g) * lanes, dtype) for t in range(p.rows) for g in range(p.group)]
    with e.loop(0, later, carry=[e.zero(dtype, lanes)] * len(kept)) as start:
        start.next([e.load(k, dtype, lanes) for k in kept])

    def products(c: V, count: int, sums: list[V]) -> list[V]:
        sums = list(sums)
        row, weight = e.at(rows, c, dtype), e.at(weights, e.mul(c, panel), dtype)
        for i in range(count):
            ws = [e.load(e.at(weight, i * panel + g * lanes, dtype), dtype, lanes) for g in range(p.group)]
            for t in range(p.rows):
                value = e.splat(e.load(e.at(row, t * s.v_row + i, dtype), dtype), lanes)
                for g in range(p.group):
                    sums[t * p.group + g] = e.fma(value, ws[g], sums[t * p.group + g])
        return sums

    whole = e.mul(e.div(channels, 2), 2)
    lines = _CHANNELS * dtype.itemsize // 64
    with e.loop(0, whole, 2, carry=start.results) as loop:
        first = e.div(e.mul(loop.index, p.rows * lines), _CHANNELS)
        ask(
            e, e.at(rows, s.v_one, dtype), dtype, lines, first, -(-2 * p.rows * lines // _CHANNELS),
            lambda t: e.mul(t, s.v_row), locality=2,
        )  # fmt: skip
        loop.next(products(loop.index, 2, loop.carried))
    with e.loop(whole, channels, carry=loop.results) as rest:
        rest.next(products(rest.index, 1, rest.carried))
    for k, total in zip(kept, rest.results, strict=True):
        e.store(total, k, dtype)
