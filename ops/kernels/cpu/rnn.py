"""Recurrent layers: one product for the inputs of all steps, then one kernel that walks over time.

The walk multiplies the states of a block of batch entries by the recurrent weights. These are packed so that a panel
holds all gates of a vector of hidden units: what a panel gives is all that the new state of these units needs.

Axes: T steps, B batch, H hidden, D directions, G gates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import llvmlite.ir as ir
import numpy as np

from ...dims import DimLike
from ...expr import Expr, Var, abs_, call, maximum, minimum, sigmoid, softplus, tanh, where
from ...rnn import BACKWARD, Activation
from ...types import Array, DType, TensorType
from .contraction import contraction
from .emitter import Emitter, V, scalar_type
from .expression import evaluate
from .kernel import kernel
from .lowering import Epilogue, Ref, Site, lowers
from .operand import Operand
from .target import Target
from .tiling import panel_vectors

TYPES = (np.dtype(np.float32), np.dtype(np.float64))

Cell = Literal["rnn", "gru", "gru_linear", "lstm"]

_SECTIONS: dict[Cell, tuple[tuple[int, ...], ...]] = {
    "rnn": ((0,),), "gru": ((0, 1), (2,)), "gru_linear": ((0, 1, 2),), "lstm": ((0, 1, 2, 3),),
}  # fmt: skip
"""The gates that are computed together, section by section."""

_CHAINS = 8
"""This many sums that do not wait for each other keep the multipliers busy."""

_TILES = 4
"""Row tiles of a block of batch entries, which share what is read of the weights."""


@dataclass(frozen=True)
class Recurrent:
    """What the code of the walk depends on.

    Attributes:
        names: of the operands, in their order.
        operands: how they lie.
        gates: activations of the gates and, last, of an LSTM's cell, as expressions over x.
        rows: batch entries of a tile.
        hidden: H.
        steps: T.
        batch: B.
    """

    cell: Cell
    dtype: DType
    names: tuple[str, ...]
    operands: tuple[Operand, ...]
    backward: tuple[bool, ...]
    activations: tuple[tuple[Expr, ...], ...]
    input_forget: bool
    rows: int
    hidden: int
    steps: DimLike
    batch: DimLike


def _expression(activation: Activation, clip: float | None) -> Expr:
    """Return an activation over x, of what is clipped first where there is a threshold."""
    name, alpha, beta = activation
    x: Expr = Var("x")
    if clip is not None:
        x = minimum(maximum(x, -clip), clip)
    made: dict[str, Callable[[], Expr]] = {
        "Relu": lambda: maximum(x, 0.0),
        "Tanh": lambda: tanh(x),
        "Sigmoid": lambda: sigmoid(x),
        "Affine": lambda: x * alpha + beta,
        "LeakyRelu": lambda: where(x < 0.0, x * alpha, x),
        "ThresholdedRelu": lambda: where(x < alpha, 0.0, x),
        "ScaledTanh": lambda: tanh(x * beta) * alpha,
        "HardSigmoid": lambda: minimum(maximum(x * alpha + beta, 0.0), 1.0),
        "Elu": lambda: where(x < 0.0, call("expm1", minimum(x, 0.0)) * alpha, x),
        "Softsign": lambda: x / (abs_(x) + 1.0),
        "Softplus": lambda: softplus(x),
    }
    return made[name]()


@lowers("rnn", "gru", "lstm")
def lower_recurrent(site: Site) -> bool:
    """Lower a recurrent layer with constant weights."""
    x, w, r, b, lengths, h0, *more = (*site.types, None, None)[: 8 if site.op == "lstm" else 6]
    a = site.attrs
    if a.get("quantized") or not all(isinstance(t, TensorType) and t.ndim == 3 for t in (x, w, r)):
        return False
    floats = [t for t in (x, w, r, b, h0, *more) if t is not None]
    if x.dtype not in TYPES or any(t.dtype != x.dtype for t in floats):
        return False
    static = (*w.shape, *r.shape, x.shape[2])
    if not all(isinstance(d, int) and d > 0 for d in static) or not all(site.hoistable(i) for i in (1, 2)):
        return False
    if (b is not None and not site.hoistable(3)) or (lengths is not None and lengths.dtype not in (np.int32, np.int64)):
        return False
    hidden = int(r.shape[2])
    cell: Cell = "gru_linear" if site.op == "gru" and a.get("linear_before_reset") else site.op  # type: ignore[assignment]
    named = {"inputs": _projected(site, cell, hidden)}
    named["weights"] = _weights(site, cell, hidden)
    if cell == "gru_linear" and b is not None:
        named["inner"] = site.packed(3, "recurrent bias of the candidate", lambda v: v[:, 5 * hidden :])
    for name, i in (("lengths", 4), ("h0", 5), ("c0", 6), ("peepholes", 7)):
        if i < len(site.types) and site.types[i] is not None:
            named[name] = site.read(i, order="plain")
    y = site.write(0)
    named["y"] = y if y.operand.strides[-1] == 1 else site.write(0, order="plain")
    named["h"] = site.write(1, order="plain")
    if cell == "lstm":
        named["c"] = site.write(2, order="plain")
    backward, clip = BACKWARD[a["direction"]], a.get("clip")
    activations = tuple(
        tuple(_expression(f, None if cell == "lstm" and i == 2 else clip) for i, f in enumerate(fs))
        for fs in a["cells"]
    )
    target, size = site.target, np.dtype(x.dtype).itemsize
    gates = sum(map(len, _SECTIONS[cell]))
    params = Recurrent(
        cell, np.dtype(x.dtype), tuple(named), tuple(ref.operand for ref in named.values()), backward, activations,
        bool(a.get("input_forget")), _rows(target, cell), hidden, x.shape[0], x.shape[1],
    )  # fmt: skip
    block = _TILES * params.rows
    directions = len(backward)
    work = x.shape[0] * x.shape[1] * directions * hidden * hidden * gates * 2
    made = kernel(
        site.op, emit, params, operands=len(named), chunks=(x.shape[1] + (block - 1)) // block * directions,
        scratch=_Scratch.of(target, params).elements * size, flops=work,
        bytes=size * (x.shape[0] * directions * gates * hidden * hidden),
    )  # fmt: skip
    site.call(made, list(named.values()))
    return True


def _projected(site: Site, cell: Cell, hidden: int) -> Ref:
    """Add the product of all steps with the input weights; return it with the biases, (T, B, D * G * H)."""
    x, w, _, b = site.types[:4]
    directions, gates, depth = (int(d) for d in w.shape)
    columns = directions * gates
    grid = x.shape[:2]
    vectors = panel_vectors(site.target, x.dtype, grid, columns, depth)
    width = vectors * site.target.lanes(x.dtype)

    def pack(w: Array) -> Array:
        panels = -(-columns // width)
        full = np.zeros((panels * width, depth), w.dtype)
        full[:columns] = w.reshape(columns, depth)
        return np.ascontiguousarray(full.reshape(panels, width, depth).swapaxes(1, 2))

    def both(b: Array) -> Array:
        total = b[:, :gates] + b[:, gates:]
        if cell == "gru_linear":
            total[:, 2 * hidden :] = b[:, 2 * hidden : gates]
        return total.reshape(-1)

    out = site.temporary(x.dtype, (*grid, columns))
    epilogue, refs = None, []
    if b is not None:
        refs = [site.packed(3, f"biases of {cell}", both)]
        epilogue = Epilogue(Var("x") + Var("a0"), (Operand(x.dtype, out.operand.shape, (0, 0, 1)),), np.dtype(x.dtype))
    source = site.read(0)
    made = contraction(
        f"{site.op} inputs", site.target, dtype=x.dtype, columns=columns, depth=depth, taps=(), a_start=0, grid=grid,
        a_grid=source.operand.strides[:2], a_depth=source.operand.strides[2], b_grid=(0, 0), b_depth=width,
        b_panel=width * depth, output=out.operand, epilogue=epilogue, vectors=vectors,
    )  # fmt: skip
    site.call(made, [source, site.packed(1, f"rows in panels of {width}", pack), out, *refs])
    return out


def _weights(site: Site, cell: Cell, hidden: int) -> Ref:
    """Return the recurrent weights: for each direction and section (panels, H, gates, lanes), filled up with zeros."""
    lanes = site.target.lanes(site.types[0].dtype)
    panels = -(-hidden // lanes)

    def pack(r: Array) -> Array:
        apart = r.reshape(r.shape[0], -1, hidden, hidden)
        full = np.zeros((*apart.shape[:2], panels * lanes, hidden), r.dtype)
        full[:, :, :hidden] = apart
        parts = full.reshape(*apart.shape[:2], panels, lanes, hidden)
        sections = [parts[:, list(s)].transpose(0, 2, 4, 1, 3).reshape(r.shape[0], -1) for s in _SECTIONS[cell]]
        return np.ascontiguousarray(np.concatenate(sections, axis=1))

    return site.packed(2, f"{cell} in panels of {lanes}", pack)


def _rows(target: Target, cell: Cell) -> int:
    """Return how many batch entries' sums of the widest section stay in registers."""
    gates = max(map(len, _SECTIONS[cell]))
    return max(1, min(8, (target.registers - gates - (2 if target.fma else 3)) // gates))


@dataclass(frozen=True)
class _Scratch:
    """Where things lie in scratch memory, in elements: the state twice, the cell, what a GRU keeps, sums of a panel."""

    states: tuple[int, int]
    cell: int
    update: int
    reset: int
    sums: int
    elements: int
    width: int

    @staticmethod
    def of(target: Target, p: Recurrent) -> _Scratch:
        lanes = target.lanes(p.dtype)
        width = -(-p.hidden // lanes) * lanes
        block = _TILES * p.rows
        one = block * width
        gates = max(map(len, _SECTIONS[p.cell]))
        return _Scratch((0, one), 2 * one, 3 * one, 4 * one, 5 * one, 5 * one + block * gates * lanes, width)


def emit(e: Emitter, p: Recurrent) -> None:
    """Write the walk of a block of batch entries in one direction."""
    if len(p.backward) == 1:
        _Walk(e, p, 0, e.chunk).write()
        return
    block = _TILES * p.rows
    blocks = e.ceil_div(p.batch, block)
    second = e.b.icmp_signed(">=", e.chunk, blocks)
    with e.b.if_else(second) as (then, otherwise):
        with then:
            _Walk(e, p, 1, e.sub(e.chunk, blocks)).write()
        with otherwise:
            _Walk(e, p, 0, e.chunk).write()


class _Walk:
    """Writes the walk over time of one block, in one direction."""

    def __init__(self, e: Emitter, p: Recurrent, direction: int, block: V) -> None:
        self.e, self.p, self.direction, self.dtype = e, p, direction, p.dtype
        self.lanes = e.target.lanes(p.dtype)
        self.kind = ir.VectorType(scalar_type(p.dtype), self.lanes)
        self.at = _Scratch.of(e.target, p)
        self.back = p.backward[direction]
        size = _TILES * p.rows
        self.first = e.mul(block, size)
        self.count = e.min(size, e.sub(p.batch, self.first))
        self.gates = sum(map(len, _SECTIONS[p.cell]))
        self.sections = []
        panel = -(-p.hidden // self.lanes) * p.hidden * self.lanes
        start = direction * self.gates * panel
        for section in _SECTIONS[p.cell]:
            self.sections.append((len(section), start))
            start += len(section) * panel

    def operand(self, name: str) -> tuple[V, Operand] | None:
        """Return the address of an operand and how it lies, None if there is none."""
        if name not in self.p.names:
            return None
        i = self.p.names.index(name)
        return self.e.pointer(i), self.p.operands[i]

    def element(self, name: str, *coordinates: Any) -> V:
        """Return the address of an element of an operand."""
        found = self.operand(name)
        assert found is not None
        pointer, o = found
        offset = self.e.add(*(self.e.mul(c, s) for c, s in zip(coordinates, o.strides, strict=True)))
        return self.e.at(pointer, offset, o.dtype)

    def columns(self) -> Iterator[tuple[Any, V]]:
        """Yield, inside a loop where it takes one, the first unit of each vector, and its mask where it is not full."""
        e, hidden = self.e, self.p.hidden
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

    def write(self) -> None:
        """Write the walk."""
        e, p, at = self.e, self.p, self.at
        self._fill(at.states[0], "h0")
        if p.cell == "lstm":
            self._fill(at.cell, "c0")
        with e.loop(0, p.steps) as step:
            odd = e.b.and_(step.index, e.index(1))
            old = e.mul(odd, at.states[1])
            new = e.sub(at.states[1], old)
            for unit, mask in self._section(0, old):
                if p.cell == "gru":
                    self._gru_reset(step.index, unit, mask, old)
                else:
                    body = {"rnn": self._rnn, "gru_linear": self._gru_linear, "lstm": self._lstm}[p.cell]
                    self._rows(step.index, unit, mask, old, new, body)
            if p.cell == "gru":
                for unit, mask in self._section(1, at.reset):
                    self._rows(step.index, unit, mask, old, new, self._gru)
        last = e.mul(e.b.and_(e.index(p.steps), e.index(1)), at.states[1])
        self._copy(last, "h")
        if p.cell == "lstm":
            self._copy(at.cell, "c")

    def _fill(self, base: Any, name: str) -> None:
        """Write an initial state to scratch memory; zeros where there is none, and behind the last unit."""
        e = self.e
        with e.loop(0, self.count) as row:
            for unit, mask in self.columns():
                x = e.constant(0, self.kind)
                if self.operand(name):
                    x = self.load(self.element(name, self.direction, e.add(self.first, row.index), unit), mask)
                e.store(x, self.scratch(base, e.mul(row.index, self.at.width), unit), self.dtype)

    def _copy(self, base: Any, name: str) -> None:
        """Write a final state."""
        e = self.e
        with e.loop(0, self.count) as row:
            for unit, mask in self.columns():
                x = self.load(self.scratch(base, e.mul(row.index, self.at.width), unit))
                place = self.element(name, self.direction, e.add(self.first, row.index), unit)
                e.store(x, place, self.dtype, mask=mask)

    # one step -----------------------------------------------------------------------------------------------------

    def _section(self, section: int, states: Any) -> Iterator[tuple[Any, V]]:
        """Write the products of one section, panel by panel; yield the units of each, and their mask."""
        gates, start = self.sections[section]
        for unit, mask in self.columns():
            self._product(states, gates, self.e.add(start, self.e.mul(unit, self.p.hidden * gates)))
            yield unit, mask

    def _product(self, states: Any, gates: int, panel: Any) -> None:
        """Write the sums of one panel to scratch memory, (rows, gates, lanes)."""
        e, p = self.e, self.p
        found = self.operand("weights")
        assert found is not None
        weights = e.at(found[0], panel, self.dtype)
        first: Any = 0
        for height in sorted({p.rows, (p.rows + 1) // 2, 1}, reverse=True):
            stop = e.add(first, e.mul(e.div(e.sub(self.count, first), height), height))
            with e.loop(first, stop, height) as row:
                self._tile(states, gates, weights, row.index, height)
            first = stop

    def _tile(self, states: Any, gates: int, weights: V, row: V, height: int) -> None:
        e, hidden = self.e, self.p.hidden
        parts = min(-(-_CHAINS // (height * gates)), hidden)
        sums = [e.constant(0, self.kind)] * (parts * height * gates)
        source = self.scratch(states, e.mul(row, self.at.width))

        def step(k: Any, part: int, sums: list[V]) -> None:
            panel = e.at(weights, e.mul(k, gates * self.lanes), self.dtype)
            vectors = [self.load(e.at(panel, g * self.lanes, self.dtype)) for g in range(gates)]
            for i in range(height):
                place = e.at(e.at(source, k, self.dtype), i * self.at.width, self.dtype)
                x = e.splat(e.load(place, self.dtype), self.lanes)
                for g, vector in enumerate(vectors):
                    n = (part * height + i) * gates + g
                    sums[n] = e.fma(x, vector, sums[n])

        whole = hidden // parts * parts
        with e.loop(0, whole, parts, carry=sums) as k:
            after = list(k.carried)
            for part in range(parts):
                step(e.add(k.index, part), part, after)
            k.next(after)
        sums = list(k.results)
        for n in range(whole, hidden):
            step(n, n - whole, sums)
        for i in range(height):
            for g in range(gates):
                total = sums[i * gates + g]
                for part in range(1, parts):
                    total = e.b.fadd(total, sums[(part * height + i) * gates + g])
                place = e.mul(e.add(row, i), gates * self.lanes)
                e.store(total, self.scratch(self.at.sums, place, g * self.lanes), self.dtype)

    def _rows(self, step: V, unit: Any, mask: V, old: V, new: V, body: Callable[[_Place], V]) -> None:
        """Write what follows on a panel's sums, row by row: the state, and where it is shown."""
        e = self.e
        with e.loop(0, self.count) as row:
            at = self._place(step, row.index, unit, mask, old)
            h = body(at)
            shown = h
            if at.live is not None:
                shown = e.b.select(at.live, h, e.constant(0, self.kind))
                h = e.b.select(at.live, h, at.before)
            e.store(h, self.scratch(new, at.offset), self.dtype)
            e.store(shown, self.element("y", at.step, self.direction, at.entry, unit), self.dtype, mask=mask)

    def _place(self, step: V, row: V, unit: Any, mask: V, old: V) -> _Place:
        e = self.e
        entry = e.add(self.first, row)
        place = e.sub(e.sub(self.p.steps, 1), step) if self.back else step
        live = None
        if (found := self.operand("lengths")) is not None:
            length = e.load(e.at(found[0], entry, found[1].dtype), found[1].dtype)
            length = e.b.sext(length, step.type) if length.type != step.type else length
            live = e.b.icmp_signed("<", step, length)
            if self.back:
                place = e.b.select(live, e.sub(e.sub(length, 1), step), step)
        offset = e.add(e.mul(row, self.at.width), unit)
        return _Place(row, unit, mask, place, entry, live, offset, self.load(self.scratch(old, offset)))

    def _gate(self, at: _Place, gate: int, slot: int, gates: int) -> V:
        """Return what the inputs and the state add up to in a gate, which is number `slot` of a section's `gates`."""
        return self.e.b.fadd(self._sum(at, slot, gates), self._input(at, gate))

    def _sum(self, at: _Place, slot: int, gates: int) -> V:
        return self.load(self.scratch(self.at.sums, self.e.mul(at.row, gates * self.lanes), slot * self.lanes))

    def _input(self, at: _Place, gate: int) -> V:
        column = self.e.add(at.unit, (self.direction * self.gates + gate) * self.p.hidden)
        return self.load(self.element("inputs", at.step, at.entry, column), at.mask)

    def _activate(self, which: int, x: V) -> V:
        return evaluate(self.e, self.p.activations[self.direction][which], {"x": x}, self.lanes, self.dtype)

    def _rnn(self, at: _Place) -> V:
        return self._activate(0, self._gate(at, 0, 0, 1))

    def _gru_reset(self, step: V, unit: Any, mask: V, old: V) -> None:
        """Write the gates of a GRU that multiplies the state, before that meets the weights."""
        e = self.e
        with e.loop(0, self.count) as row:
            at = self._place(step, row.index, unit, mask, old)
            e.store(self._activate(0, self._gate(at, 0, 0, 2)), self.scratch(self.at.update, at.offset), self.dtype)
            reset = self._activate(0, self._gate(at, 1, 1, 2))
            e.store(e.b.fmul(reset, at.before), self.scratch(self.at.reset, at.offset), self.dtype)

    def _gru(self, at: _Place) -> V:
        candidate = self._activate(1, self._gate(at, 2, 0, 1))
        return self._mixed(at, self.load(self.scratch(self.at.update, at.offset)), candidate)

    def _gru_linear(self, at: _Place) -> V:
        e = self.e
        update, reset = (self._activate(0, self._gate(at, g, g, 3)) for g in (0, 1))
        inner = self._sum(at, 2, 3)
        if self.operand("inner"):
            inner = e.b.fadd(inner, self.load(self.element("inner", self.direction, at.unit), at.mask))
        candidate = self._activate(1, e.b.fadd(self._input(at, 2), e.b.fmul(reset, inner)))
        return self._mixed(at, update, candidate)

    def _mixed(self, at: _Place, update: V, candidate: V) -> V:
        b = self.e.b
        return b.fadd(candidate, b.fmul(update, b.fsub(at.before, candidate)))

    def _lstm(self, at: _Place) -> V:
        e, b = self.e, self.e.b
        where = self.scratch(self.at.cell, at.offset)
        before = self.load(where)

        def seen(gate: int, cell: V) -> V:
            x = self._gate(at, gate, gate, 4)
            if not self.operand("peepholes"):
                return x
            column = e.add(at.unit, gate * self.p.hidden)
            return b.fadd(x, b.fmul(self.load(self.element("peepholes", self.direction, column), at.mask), cell))

        taken = self._activate(0, seen(0, before))
        kept = b.fsub(e.constant(1, self.kind), taken) if self.p.input_forget else self._activate(0, seen(2, before))
        candidate = self._activate(1, self._gate(at, 3, 3, 4))
        cell = b.fadd(b.fmul(kept, before), b.fmul(taken, candidate))
        h = b.fmul(self._activate(0, seen(1, cell)), self._activate(2, cell))
        e.store(cell if at.live is None else b.select(at.live, cell, before), where, self.dtype)
        return h


@dataclass(frozen=True)
class _Place:
    """A vector of hidden units of one batch entry at one step.

    Attributes:
        row: of the block.
        unit: the first.
        mask: of the units that exist.
        step: of the inputs that is read and shown now; backwards, not the number of the iteration.
        entry: of the batch.
        live: whether the sequence is that long; None where all are.
        offset: of the state in scratch memory.
        before: the state before.
    """

    row: V
    unit: Any
    mask: V
    step: V
    entry: V
    live: V
    offset: V
    before: V
