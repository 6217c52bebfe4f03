"""What the walks over time of recurrent layers share: blocks of batch entries, packed weights, products with them.

A chunk of work is a block of batch entries in one direction: it walks over all steps by itself. Its products are cut
into tiles of rows and vectors whose sums stay in registers, so that what is read of the weights serves several rows.

Axes: T steps, B batch, H hidden, D directions, G gates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import llvmlite.ir as ir

from ...dims import DimLike, at_least
from ...types import DType
from .copy import copy_kernel
from .emitter import Emitter, V, scalar_type
from .lowering import Ref, Site
from .operand import Operand
from .target import Target

_CHAINS = 8
"""This many sums that do not wait for each other keep the multipliers busy."""

ROWS = 8
"""Batch entries of a block at most; of more than half as many two blocks are made, so that two threads share them."""


@dataclass(frozen=True)
class Layer:
    """What the code of a walk depends on.

    Attributes:
        names: of the operands, in their order.
        operands: how they lie.
        backward: for each direction, whether it runs from the last step to the first.
        hidden: H.
        steps: T.
        batch: B.
    """

    dtype: DType
    names: tuple[str, ...]
    operands: tuple[Operand, ...]
    backward: tuple[bool, ...]
    hidden: int
    steps: DimLike
    batch: DimLike

    @property
    def chunks(self) -> DimLike:
        """Into how many blocks the work splits."""
        halves = (self.batch + (ROWS // 2 - 1)) // (ROWS // 2)
        two = halves - (at_least(halves, 2) - 2)
        return at_least((self.batch + (ROWS - 1)) // ROWS, two) * len(self.backward)


def _blocks(e: Emitter, batch: DimLike) -> V:
    """Return how many blocks a direction has."""
    return e.max(e.ceil_div(batch, ROWS), e.min(e.ceil_div(batch, ROWS // 2), 2))


def each_direction(e: Emitter, p: Layer, write: Callable[[int, V], None]) -> None:
    """Write `write(direction, block)` for the direction that a chunk belongs to."""
    if len(p.backward) == 1:
        write(0, e.chunk)
        return
    blocks = _blocks(e, p.batch)
    with e.b.if_else(e.b.icmp_signed(">=", e.chunk, blocks)) as (then, otherwise):
        with then:
            write(1, e.sub(e.chunk, blocks))
        with otherwise:
            write(0, e.chunk)


@dataclass(frozen=True)
class Place:
    """A batch entry at one step.

    Attributes:
        row: of the block.
        entry: of the batch.
        step: where it lies in time; backwards, not the number of the iteration.
        live: whether the sequence is that long; None where all are.
    """

    row: V
    entry: V
    step: V
    live: V


class Block:
    """Writes the walk over time of one block, in one direction."""

    def __init__(self, e: Emitter, p: Layer, direction: int, block: V) -> None:
        """Work out which batch entries it has: blocks are of one size but for the last."""
        self.e, self.layer, self.direction, self.dtype = e, p, direction, p.dtype
        self.lanes = e.target.lanes(p.dtype)
        self.kind = ir.VectorType(scalar_type(p.dtype), self.lanes)
        self.back = p.backward[direction]
        blocks = _blocks(e, p.batch)
        size = e.div(e.add(p.batch, e.sub(blocks, 1)), blocks)
        self.first = e.mul(block, size)
        self.count = e.min(size, e.sub(p.batch, self.first))

    def operand(self, name: str) -> tuple[V, Operand] | None:
        """Return the address of an operand and how it lies, None if there is none."""
        if name not in self.layer.names:
            return None
        i = self.layer.names.index(name)
        return self.e.pointer(i), self.layer.operands[i]

    def element(self, name: str, *coordinates: Any) -> V:
        """Return the address of an element of an operand."""
        found = self.operand(name)
        assert found is not None
        pointer, o = found
        offset = self.e.add(*(self.e.mul(c, s) for c, s in zip(coordinates, o.strides, strict=True)))
        return self.e.at(pointer, offset, o.dtype)

    def columns(self) -> Iterator[tuple[Any, V]]:
        """Yield, inside a loop where it takes one, the first unit of each vector, and its mask where it is not full."""
        e, hidden = self.e, self.layer.hidden
        whole = hidden // self.lanes * self.lanes
        if whole:
            with e.loop(0, whole, self.lanes) as unit:
                yield unit.index, None
        if hidden > whole:
            yield whole, e.tail_mask(hidden - whole, self.lanes)

    def scratch(self, *offset: Any) -> V:
        """Return an address in scratch memory."""
        return self.e.at(self.e.scratch, self.e.add(*offset), self.dtype)

    def load(self, pointer: V, mask: V = None) -> V:
        """Load a vector."""
        return self.e.load(pointer, self.dtype, self.lanes, mask=mask)

    def store(self, x: V, pointer: V, mask: V = None) -> None:
        """Store a vector."""
        self.e.store(x, pointer, self.dtype, mask=mask)

    def zero(self) -> V:
        """Return a vector of zeros."""
        return self.e.constant(0, self.kind)

    def place(self, iteration: V, row: V) -> Place:
        """Return where a row of the block is, `iteration` steps after its first."""
        e = self.e
        entry = e.add(self.first, row)
        step = e.sub(e.sub(self.layer.steps, 1), iteration) if self.back else iteration
        live = None
        if (found := self.operand("lengths")) is not None:
            length = e.load(e.at(found[0], entry, found[1].dtype), found[1].dtype)
            length = e.b.sext(length, iteration.type) if length.type != iteration.type else length
            live = e.b.icmp_signed("<", iteration, length)
            if self.back:
                step = e.b.select(live, e.sub(e.sub(length, 1), iteration), iteration)
        return Place(row, entry, step, live)

    def fill(self, base: int, width: int, name: str) -> None:
        """Write a state (D, B, H) to scratch memory, rows of `width`; zeros where there is none, and behind H."""
        e = self.e
        with e.loop(0, self.count) as row:
            for unit, mask in self.columns():
                x = self.zero()
                if self.operand(name):
                    x = self.load(self.element(name, self.direction, e.add(self.first, row.index), unit), mask)
                self.store(x, self.scratch(base, e.mul(row.index, width), unit))

    def copy(self, base: Any, width: int, name: str) -> None:
        """Write a state in scratch memory to an operand (D, B, H), if there is one."""
        e = self.e
        if not self.operand(name):
            return
        with e.loop(0, self.count) as row:
            for unit, mask in self.columns():
                x = self.load(self.scratch(base, e.mul(row.index, width), unit))
                self.store(x, self.element(name, self.direction, e.add(self.first, row.index), unit), mask)

    def multiply(
        self, source: V, step: int, depth: int, weights: V, vectors: int, initial: Callable[[int], V],
        write: Callable[[V, int, V], None],
    ) -> None:  # fmt: skip
        """Write products of the block's rows with a panel of weights (depth, vectors, lanes).

        Args:
            source: the first row.
            step: how far rows lie apart.
            depth: how many products are summed.
            weights: the panel.
            vectors: how many it has.
            initial: what the sum of a vector begins with.
            write: is given the row, which vector, and the sum.
        """
        e = self.e
        first: Any = 0
        for height, group in tiles(e.target, vectors):
            stop = e.add(first, e.mul(e.div(e.sub(self.count, first), height), height))
            with e.loop(first, stop, height) as row:
                for start in range(0, vectors, group):
                    chosen = range(start, min(start + group, vectors))
                    totals = self._sums(source, step, depth, weights, vectors, chosen, row.index, height, initial)
                    for (i, v), total in totals.items():
                        write(e.add(row.index, i), v, total)
            first = stop

    def _sums(
        self, source: V, step: int, depth: int, weights: V, vectors: int, chosen: range, row: V, height: int,
        initial: Callable[[int], V],
    ) -> dict[tuple[int, int], V]:  # fmt: skip
        e = self.e
        tile = [(i, v) for i in range(height) for v in chosen]
        parts = min(-(-_CHAINS // len(tile)), depth)
        begin = {v: initial(v) for v in chosen}
        sums = [begin[v] for _, v in tile] + [self.zero()] * ((parts - 1) * len(tile))
        source = e.at(source, e.mul(row, step), self.dtype)

        def add(k: Any, part: int, sums: list[V]) -> None:
            panel = e.at(weights, e.mul(k, vectors * self.lanes), self.dtype)
            loaded = {v: self.load(e.at(panel, v * self.lanes, self.dtype)) for v in chosen}
            place = e.at(source, k, self.dtype)
            for i in range(height):
                x = e.splat(e.load(e.at(place, i * step, self.dtype), self.dtype), self.lanes)
                for v in chosen:
                    n = part * len(tile) + i * len(chosen) + v - chosen.start
                    sums[n] = e.fma(x, loaded[v], sums[n])

        whole = depth // parts * parts
        with e.loop(0, whole, parts, carry=sums) as k:
            after = list(k.carried)
            for part in range(parts):
                add(e.add(k.index, part), part, after)
            k.next(after)
        sums = list(k.results)
        for n in range(whole, depth):
            add(n, n - whole, sums)
        totals = {}
        for n, key in enumerate(tile):
            total = sums[n]
            for part in range(1, parts):
                total = e.b.fadd(total, sums[part * len(tile) + n])
            totals[key] = total
        return totals


def tiles(target: Target, vectors: int) -> list[tuple[int, int]]:
    """Return the tiles of a product, tallest first: how many rows, and how many of the panel's vectors at a time."""
    found: list[tuple[int, int]] = []
    spare = 1 if target.fma else 2
    wide = target.registers > 16
    for height in (8, 6, 4, 2, 1):
        if height == 6 and wide:
            continue
        group = min(vectors, (target.registers - spare) // (height + 1))
        group = min(group, 3 if height == 8 else 4)
        if group and vectors % group == 1 and vectors > 1 and group > 2:
            group = 2
        if group >= min(vectors, 2):
            found.append((height, group))
    return found


def pack(site: Site, i: int, pieces: Sequence[tuple[Operand, Operand, int, int]], shape: tuple[int, ...]) -> Ref:
    """Return weights as they are read: once for each version where they are constant, else in every run.

    Args:
        site: where.
        i: which input.
        pieces: how a part of the input lies and how its copy does, and where both start.
        shape: of what is made; what no piece covers is anything.
    """
    fixed = site.hoistable(i)
    source = site.origin(i, plain=True) if fixed else site.read(i, order="plain")
    kernels = [copy_kernel(a, b, start, to, name=f"pack {site.op}") for a, b, start, to in pieces]
    dtype = site.types[i].dtype
    if fixed:
        return site.prepared(source, kernels, dtype, shape)
    target = site.temporary(dtype, shape)
    for k in kernels:
        site.call(k, [source, target])
    return target


def split(size: int, width: int) -> Iterator[tuple[int, int, int]]:
    """Yield the whole panels of a width and the one that is not full: the first, how many, how wide."""
    whole, rest = divmod(size, width)
    if whole:
        yield 0, whole, width
    if rest:
        yield whole, 1, rest
