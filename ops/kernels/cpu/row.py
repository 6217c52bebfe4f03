"""Writes rows: the loops over them, and their passes: folds that keep sums exact, and maps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import llvmlite.ir as ir
import numpy as np

from ...dims import Dim
from ...errors import KernelError
from .emitter import I1, I32, Emitter, V, scalar_type
from .epilogue import Tail
from .operand import Operand
from .rows import Rows

Lanes: TypeAlias = list[V]
"""A value of each of a row's places: one scalar, or one vector for each of its vectors of places."""

CHAIN = 64
"""How many additions may follow one another before the sum is carried on with compensation."""

KEPT = -1
"""Among the numbers of operands: what `Row.fold` kept of the row in scratch memory."""


def walk(e: Emitter, rows: Rows, body: Callable[[Row], None], before: Callable[[Row], None] | None = None) -> None:
    """Write the loops over the rows of a chunk.

    Args:
        e: the emitter.
        rows: how to walk.
        body: writes one row, and may be called more than once.
        before: writes what comes before the first row, where vectors lie along an inner axis: it is given a row at 0.
    """
    if before is not None:
        before(Row(e, rows, [0] * len(rows.shape), [None]))
    sizes: list[Any] = [rows.shape[a] for a in rows.kept]
    n = rows.shape[rows.vector]
    step = rows.lanes * rows.width
    if rows.columns:
        sizes.append(e.ceil_div(n, step) if isinstance(n, Dim) else -(-n // step))
    total = rows.rows
    low = e.mul(e.chunk, rows.group)
    if rows.group == 1:
        _row(e, rows, e.unravel(low, sizes), body)
        return
    if not isinstance(total, Dim) and total == rows.group:
        low, high = e.index(0), e.index(total)
    else:
        count = e.mul(1, 1)
        for s in sizes:
            count = e.mul(count, s)
        high = e.add(low, rows.group)
        if isinstance(total, Dim) or total % rows.group:
            high = e.min(high, count)
    with e.loop(low, high) as loop:
        _row(e, rows, e.unravel(loop.index, sizes), body)


def _row(e: Emitter, rows: Rows, found: Sequence[V], body: Callable[[Row], None]) -> None:
    coordinates: list[Any] = [0] * len(rows.shape)
    for a, c in zip(rows.kept, found, strict=False):
        coordinates[a] = c
    if not rows.columns:
        body(Row(e, rows, coordinates, [None]))
        return
    n, lanes, width = rows.shape[rows.vector], rows.lanes, rows.width
    step = lanes * width
    block = found[-1]
    first = coordinates[rows.vector] = e.mul(block, step)
    if isinstance(n, Dim):
        last = e.add(first, step)
        whole = e.b.icmp_signed("<=", last, e.dim(n))
        with e.b.if_else(whole) as (then, otherwise):
            with then:
                body(Row(e, rows, coordinates, [None] * width))
            with otherwise, e.loop(first, n, lanes) as loop:
                coordinates = [*coordinates]
                coordinates[rows.vector] = loop.index
                mask = e.tail_mask(e.sub(n, loop.index), lanes) if lanes > 1 else None
                body(Row(e, rows, coordinates, [mask]))
        return
    full, rest = divmod(n, step)
    masks: list[V] = [None] * (rest // lanes)
    if rest % lanes:
        masks.append(ir.Constant(ir.VectorType(I1, lanes), [int(i < rest % lanes) for i in range(lanes)]))
    if not rest:
        body(Row(e, rows, coordinates, [None] * width))
    elif not full:
        body(Row(e, rows, coordinates, masks))
    else:
        with e.b.if_else(e.b.icmp_signed("<", block, e.index(full))) as (then, otherwise):
            with then:
                body(Row(e, rows, coordinates, [None] * width))
            with otherwise:
                body(Row(e, rows, coordinates, masks))


@dataclass
class _Pass:
    """What one pass over a row touches, at a place that loops move on."""

    inputs: dict[int, V]
    outputs: dict[int, Tail] = field(default_factory=dict)


class Row:
    """A row that is being written.

    Attributes:
        masks: for each vector of places which exist; None for all.
    """

    def __init__(self, e: Emitter, rows: Rows, coordinates: Sequence[Any], masks: Sequence[V]) -> None:
        """Make it; `walk` does."""
        self.e, self.rows, self.coordinates, self.masks = e, rows, coordinates, list(masks)
        self.width = len(self.masks)
        axes = [a for a in range(len(rows.shape)) if rows.inner[a]]
        if not rows.columns:
            axes = [*(a for a in axes if a != rows.vector), rows.vector]
        self.axes = axes
        self.run = axes[-1] if axes else None
        self.step = 1 if rows.columns else rows.lanes
        self.state_lanes = rows.lanes if rows.columns else 1

    def extent(self, axis: int) -> Any:
        """Return how many places an inner axis has here."""
        rows, e = self.rows, self.e
        if rows.piece is None or rows.piece[1] != axis:
            return rows.shape[axis]
        by, _, n = rows.piece
        return e.min(rows.shape[axis], e.sub(n, e.mul(self.coordinates[by], rows.shape[axis])))

    def count(self, dtype: Any) -> V:
        """Return how many elements the row walks over, as a float for `each`."""
        e, rows = self.e, self.rows
        if rows.piece is None and not isinstance(rows.count, Dim):
            return e.constant(float(rows.count), self._kind(dtype))
        total = e.mul(1, 1)
        for a in self.axes:
            total = e.mul(total, self.extent(a))
        if isinstance(total, ir.Constant):
            return e.constant(float(total.constant), self._kind(dtype))
        return e.splat(e.b.sitofp(total, scalar_type(dtype)), self.state_lanes)

    def constant(self, number: float, dtype: Any) -> V:
        """Return a number for `each`."""
        return self.e.constant(number, self._kind(dtype))

    def _kind(self, dtype: Any) -> ir.Type:
        one = scalar_type(dtype)
        return one if self.state_lanes == 1 else ir.VectorType(one, self.state_lanes)

    def each(self, f: Callable[..., V], *values: Lanes) -> Lanes:
        """Return f of values of the places."""
        return [f(*v) for v in zip(*values, strict=True)]

    def load(self, operand: int) -> Lanes:
        """Load what an operand that no inner axis moves holds at the row's places."""
        return [
            self._load(operand, self.pointer(operand), 0, w, self.masks[w], self.state_lanes) for w in range(self.width)
        ]

    def put(self, operand: int, values: Lanes, *, epilogue: bool = False) -> None:
        """Store a value for each of the row's places."""
        tail = self.tail(operand, epilogue=epilogue)
        for w, value in enumerate(values):
            tail.store(value, self.offsets(0, w), self.state_lanes, self.masks[w] if self.rows.columns else None)

    def fold(
        self,
        folds: Sequence[str],
        f: Callable[..., Sequence[V]],
        reads: Sequence[int],
        given: Sequence[Lanes] = (),
        *,
        dtype: Any,
        keeps: bool = False,
        unroll: int = 4,
        chain: int = CHAIN,
    ) -> list[Lanes]:
        """Walk over the row and fold terms.

        Args:
            folds: of each term: `add`, `mul`, `max`, `min` or `top`: the largest of what is no NaN.
            f: makes the terms of what was read, then what is given; with `keeps`, behind them what is kept.
            reads: operands.
            given: values of the places.
            dtype: of the terms.
            keeps: whether to keep the last that f returns in scratch memory.
            unroll: how many vectors are folded side by side, so that additions need not wait for one another.
            chain: how many additions may follow one another without compensation.
        """
        e, rows = self.e, self.rows
        given = self._splat(given)
        identities = [identity(fold, dtype, e) for fold in folds]
        starts = [e.splat(v, rows.lanes) for v in identities]
        room = max(1, e.target.registers // 2 // (self.width * len(folds)))
        unroll = max(1, min(unroll, room))
        place = self._pass([*reads, *([KEPT] if keeps else [])])

        def visit(at: _Pass, distance: int, slot: int, mask: V, carry: list[V]) -> list[V]:
            carry = list(carry)
            for w in range(self.width):
                taken = self.masks[w] if rows.columns else mask
                values = [self._load(k, at.inputs[k], distance, w, taken, rows.lanes) for k in reads]
                terms = list(f(*values, *(g[w] for g in given)))
                if keeps:
                    self._keep(terms.pop(), at.inputs[KEPT], distance, w, taken)
                for j, (fold, term) in enumerate(zip(folds, terms, strict=True)):
                    if mask is not None:
                        term = e.b.select(mask, term, starts[j])
                    i = (slot * self.width + w) * len(folds) + j
                    carry[i] = combine(e, fold, term, carry[i])
            return carry

        many = starts * (self.width * unroll)

        def together(values: list[V]) -> list[V]:
            """Fold what was folded side by side, as a tree."""
            per = self.width * len(folds)
            slots = [values[i : i + per] for i in range(0, len(values), per)]
            while len(slots) > 1:
                pairs, odd = zip(slots[::2], slots[1::2], strict=False), slots[len(slots) // 2 * 2 :]
                slots = [[combine(e, folds[j % len(folds)], a[j], c[j]) for j in range(per)] for a, c in pairs] + odd
            return slots[0]

        if self._exact(folds, dtype, unroll, chain):
            done = self._nest(self.axes, place, many, lambda at, carry: self._line(at, None, carry, unroll, visit))
            sums = together(done)
        else:
            sums = self._compensated(folds, place, starts, many, unroll, chain, visit, together)
        per = len(folds)
        out: list[Lanes] = []
        for j, fold in enumerate(folds):
            lanes = [sums[w * per + j] for w in range(self.width)]
            if not rows.columns and rows.lanes > 1:
                lanes = [_across(e, fold, v) for v in lanes]
            out.append(lanes)
        return out

    def _exact(self, folds: Sequence[str], dtype: Any, unroll: int, chain: int) -> bool:
        """Whether sums need no compensation: none rounds, or few additions follow one another."""
        if np.dtype(dtype).kind != "f" or "add" not in folds:
            return True
        if any(isinstance(self.rows.shape[a], Dim) for a in self.axes) or self.run is None:
            return self.run is None
        total = 1
        for a in self.axes[:-1]:
            total *= int(self.rows.shape[a])
        return total * -(-int(self.rows.shape[self.run]) // (self.step * unroll)) <= chain

    def _compensated(
        self,
        folds: Sequence[str],
        place: _Pass,
        starts: list[V],
        many: list[V],
        unroll: int,
        chain: int,
        visit: Callable[..., list[V]],
        together: Callable[[list[V]], list[V]],
    ) -> list[V]:
        """Fold runs of so many additions, and carry their sums on with what rounding took from them.

        Source: Kahan's summation in the form of Knuth's exact sum of two; Higham, Accuracy and Stability, 4.3.
        """
        e = self.e
        assert self.run is not None
        run = self.run
        zero = e.constant(0, starts[0].type)
        carry: list[V] = []
        for _ in range(self.width):
            for fold, start in zip(folds, starts, strict=True):
                carry += [zero, zero] if fold == "add" else [start]

        def add(carry: list[V], sums: list[V]) -> list[V]:
            out: list[V] = []
            at = 0
            for i, term in enumerate(sums):
                fold = folds[i % len(folds)]
                if fold != "add":
                    out.append(combine(e, fold, term, carry[at]))
                    at += 1
                    continue
                high, low = carry[at : at + 2]
                at += 2
                total = e.b.fadd(high, term)
                back = e.b.fsub(total, high)
                lost = e.b.fadd(e.b.fsub(high, e.b.fsub(total, back)), e.b.fsub(term, back))
                out += [total, e.b.fadd(low, lost)]
            return out

        def line(at: _Pass, carry: list[V]) -> list[V]:
            n, most = self.extent(run), chain * unroll * self.step
            if isinstance(n, int) and n <= most:
                return add(carry, together(self._line(at, n, many, unroll, visit)))
            with e.loop(0, n, most, carry) as loop:
                here = self._moved(at, run, loop.index)
                length = e.min(most, e.sub(n, loop.index))
                loop.next(add(loop.carried, together(self._line(here, length, many, unroll, visit))))
            return loop.results

        done = self._nest(self.axes, place, carry, line)
        out: list[V] = []
        at = 0
        for i in range(self.width * len(folds)):
            if folds[i % len(folds)] != "add":
                out.append(done[at])
                at += 1
                continue
            high, low = done[at : at + 2]
            at += 2
            finite = e.b.fcmp_ordered("==", e.b.fsub(high, high), zero)
            out.append(e.b.select(finite, e.b.fadd(high, low), high))
        return out

    def map(
        self,
        f: Callable[..., Sequence[V]],
        reads: Sequence[int],
        writes: Sequence[int],
        given: Sequence[Lanes] = (),
        *,
        epilogue: int | None = None,
        unroll: int = 2,
    ) -> None:
        """Walk over the row, but not along axes that no output has, and store f of what is read, then given.

        Args:
            f: returns one value for each operand that is written.
            reads: operands.
            writes: operands.
            given: values of the places.
            epilogue: which of them is written through the epilogue.
            unroll: how many vectors a loop's body has.
        """
        rows = self.rows
        given = self._splat(given)
        place = self._pass(reads, {k: self.tail(k, epilogue=k == epilogue) for k in writes})
        axes = [a for a in self.axes if a == rows.vector or any(rows.operands[k].strides[a] != 0 for k in writes)]
        unroll = max(1, unroll // self.width)

        def visit(at: _Pass, distance: int, slot: int, mask: V, carry: list[V]) -> list[V]:
            for w in range(self.width):
                taken = self.masks[w] if rows.columns else mask
                values = [self._load(k, at.inputs[k], distance, w, taken, rows.lanes) for k in reads]
                results = f(*values, *(g[w] for g in given))
                for k, value in zip(writes, results, strict=True):
                    at.outputs[k].store(value, self.offsets(distance, w), rows.lanes, taken)
            return carry

        run, self.run = self.run, axes[-1] if axes else None
        self._nest(axes, place, [], lambda at, carry: self._line(at, None, carry, unroll, visit))
        self.run = run

    def fill(self, operand: int, values: Lanes) -> None:
        """Store a value for each of the row's places, at every place of the inner axes that an operand has."""
        rows, o = self.rows, self.rows.operands[operand]
        axes = [a for a in self.axes if o.strides[a] != 0]
        if rows.columns or rows.vector in axes:
            self.map(lambda v: [v], (), (operand,), [values])
            return

        def inside(axes: Sequence[int], tail: Tail) -> None:
            if not axes:
                tail.store(values[0], [0] * len(rows.shape), 1)
                return
            with self.e.loop(0, self.extent(axes[0])) as loop:
                inside(axes[1:], tail.moved(axes[0], loop.index))

        inside(axes, self.tail(operand))

    # loops --------------------------------------------------------------------------------------------------------

    def _nest(
        self, axes: Sequence[int], at: _Pass, carry: list[V], line: Callable[[_Pass, list[V]], list[V]]
    ) -> list[V]:
        if len(axes) <= 1:
            return line(at, carry)
        with self.e.loop(0, self.extent(axes[0]), carry=carry) as loop:
            loop.next(self._nest(axes[1:], self._moved(at, axes[0], loop.index), loop.carried, line))
        return loop.results

    def _line(self, at: _Pass, n: Any, carry: list[V], unroll: int, visit: Callable[..., list[V]]) -> list[V]:
        """Walk along the last axis, or its first n places: whole vectors side by side, single ones, and the rest."""
        e, run, step = self.e, self.run, self.step
        if run is None:
            return visit(at, 0, 0, None, carry)
        n = self.extent(run) if n is None else n
        block = step * unroll
        if isinstance(n, int):
            main = n - n % block
            if main:
                with e.loop(0, main, block, carry) as loop:
                    here, now = self._moved(at, run, loop.index), loop.carried
                    for u in range(unroll):
                        now = visit(here, u * step, u, None, now)
                    loop.next(now)
                carry = loop.results
            if main < n:
                here = self._moved(at, run, e.index(main))
                for u in range(-(-(n - main) // step)):
                    left = n - main - u * step
                    mask = None
                    if left < step:
                        mask = ir.Constant(ir.VectorType(I1, step), [int(i < left) for i in range(step)])
                    carry = visit(here, u * step, u, mask, carry)
            return carry
        n = e.index(n)
        main = e.sub(n, e.mod(n, block))
        with e.loop(0, main, block, carry) as loop:
            here, now = self._moved(at, run, loop.index), loop.carried
            for u in range(unroll):
                now = visit(here, u * step, u, None, now)
            loop.next(now)
        carry = loop.results
        whole = n if step == 1 else e.sub(n, e.mod(n, step))
        if unroll > 1:
            with e.loop(main, whole, step, carry) as loop:
                loop.next(visit(self._moved(at, run, loop.index), 0, 0, None, loop.carried))
            carry = loop.results
        if step > 1:
            with e.loop(whole, n, step, carry) as loop:
                mask = e.tail_mask(e.sub(n, loop.index), step)
                loop.next(visit(self._moved(at, run, loop.index), 0, 0, mask, loop.carried))
            carry = loop.results
        return carry

    # places -------------------------------------------------------------------------------------------------------

    def _operand(self, k: int) -> Operand:
        if k != KEPT:
            return self.rows.operands[k]
        if self.rows.scratch is None:
            raise KernelError("these rows have no scratch memory")
        return self.rows.scratch

    def pointer(self, k: int) -> V:
        """Return the address of the row's first element of an operand."""
        if k == KEPT:
            return self.e.scratch
        o = self.rows.operands[k]
        terms = [self.e.mul(c, s) for c, s in zip(self.coordinates, o.strides, strict=True) if s != 0]
        return self.e.at(self._base(k), self.e.add(*terms), o.dtype)

    def _base(self, k: int) -> V:
        """Return the address of the first element of an operand, or of the chunk's own part of it."""
        e, rows = self.e, self.rows
        if k not in rows.own:
            return e.pointer(k)
        return e.at(e.pointer(k), e.mul(e.chunk, rows.count), rows.operands[k].dtype)

    def tail(self, k: int, *, epilogue: bool = False) -> Tail:
        """Return where an output of the row goes."""
        rows, e = self.rows, self.e
        tail = rows.epilogue if epilogue else None
        return Tail(e, rows.operands[k], self._base(k), tail, len(rows.operands), self.coordinates, rows.vector)

    def _pass(self, reads: Sequence[int], outputs: dict[int, Tail] | None = None) -> _Pass:
        return _Pass({k: self.pointer(k) for k in dict.fromkeys(reads)}, outputs or {})

    def _moved(self, at: _Pass, axis: int, index: Any) -> _Pass:
        e = self.e
        inputs = {}
        for k, p in at.inputs.items():
            o = self._operand(k)
            inputs[k] = p if o.strides[axis] == 0 else e.at(p, e.mul(index, o.strides[axis]), o.dtype)
        return _Pass(inputs, {k: t.moved(axis, index) for k, t in at.outputs.items()})

    def offsets(self, distance: int, w: int) -> list[int]:
        """Return how far a vector of places is from the row's first element, so far along the last inner axis."""
        offsets = [0] * len(self.rows.shape)
        if self.run is not None:
            offsets[self.run] = distance
        if self.rows.columns:
            offsets[self.rows.vector] = w * self.rows.lanes
        return offsets

    def _load(self, k: int, place: V, distance: int, w: int, mask: V, lanes: int) -> V:
        e, o = self.e, self._operand(k)
        terms = [e.mul(d, s) for d, s in zip(self.offsets(distance, w), o.strides, strict=True) if d != 0 and s != 0]
        place = e.at(place, e.add(*terms), o.dtype)
        if lanes == 1 or o.strides[self.rows.vector] == 0:
            return e.splat(e.load(place, o.dtype), lanes)
        return e.load(place, o.dtype, lanes, mask=mask)

    def _keep(self, value: V, place: V, distance: int, w: int, mask: V) -> None:
        e, o = self.e, self._operand(KEPT)
        terms = [e.mul(d, s) for d, s in zip(self.offsets(distance, w), o.strides, strict=True) if d != 0 and s != 0]
        e.store(value, e.at(place, e.add(*terms), o.dtype), o.dtype, mask=None if self.rows.columns else mask)

    def _splat(self, given: Sequence[Lanes]) -> list[Lanes]:
        if self.rows.columns:
            return list(given)
        return [[self.e.splat(v, self.rows.lanes) for v in g] for g in given]


def identity(fold: str, dtype: Any, e: Emitter) -> V:
    """Return what a fold of nothing is."""
    dtype = np.dtype(dtype)
    kind = scalar_type(dtype)
    if fold in ("add", "mul"):
        return e.constant(0 if fold == "add" else 1, kind)
    if dtype.kind == "f":
        return e.constant(-np.inf if fold in ("max", "top") else np.inf, kind)
    info = np.iinfo(dtype)
    return ir.Constant(kind, int(info.min if fold == "max" else info.max))


def combine(e: Emitter, fold: str, term: V, total: V) -> V:
    """Return a fold of two; `top` is the larger, and the total where the term is NaN: one instruction."""
    if fold == "top":
        return e.b.select(e.b.fcmp_ordered(">", term, total), term, total)
    return e.combine(fold, term, total)


def _across(e: Emitter, fold: str, vector: V) -> V:
    """Fold a vector's lanes, as a tree of fixed shape."""
    if fold != "top":
        return e.reduce(fold, vector)
    undefined = ir.Constant(vector.type, ir.Undefined)
    lanes = vector.type.count
    for half in (lanes >> k for k in range(1, lanes.bit_length())):
        places = ir.Constant(ir.VectorType(I32, lanes), [(i + half) % lanes for i in range(lanes)])
        vector = combine(e, fold, e.b.shuffle_vector(vector, undefined, places), vector)
    return e.b.extract_element(vector, I32(0))
