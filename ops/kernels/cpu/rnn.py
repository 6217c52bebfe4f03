"""Recurrent layers: one product for the inputs of all steps, then one kernel that walks over time.

The walk multiplies the states of a block of batch entries by the recurrent weights. These are packed so that a panel
holds all gates of a vector of hidden units: what a panel gives is all that the new state of these units needs.

Axes: T steps, B batch, H hidden, D directions, G gates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ...dims import DimLike
from ...expr import Expr, Var, abs_, call, maximum, minimum, sigmoid, softplus, tanh, where
from ...rnn import BACKWARD, Activation
from ...types import TensorType
from .contraction import contraction
from .emitter import Emitter, V
from .expression import evaluate
from .kernel import kernel
from .lowering import Epilogue, Ref, Site, lowers
from .operand import Operand, row_major
from .rnn_block import ROWS, Block, Layer, Place, each_direction, pack, split
from .target import Target
from .tiling import panel_vectors

TYPES = (np.dtype(np.float32), np.dtype(np.float64))

Cell = Literal["rnn", "gru", "gru_linear", "lstm"]

_SECTIONS: dict[Cell, tuple[tuple[int, ...], ...]] = {
    "rnn": ((0,),), "gru": ((0, 1), (2,)), "gru_linear": ((0, 1, 2),), "lstm": ((0, 1, 2, 3),),
}  # fmt: skip
"""The gates that are computed together, section by section."""

GATES: dict[Cell, int] = {"rnn": 1, "gru": 3, "gru_linear": 3, "lstm": 4}
"""How many there are."""

INPUTS = ("x", "w", "r", "b", "lengths", "h0", "c0", "peepholes")
"""The arguments of a layer."""


@dataclass(frozen=True)
class Recurrent(Layer):
    """What the code of a walk forwards depends on.

    Attributes:
        activations: of the gates and, last, of an LSTM's cell, as expressions over x.
    """

    cell: Cell
    activations: tuple[tuple[Expr, ...], ...]
    input_forget: bool


def activation_expression(activation: Activation, clip: float | None) -> Expr:
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


@lowers("rnn", "gru", "lstm", "gru_train", "lstm_train")
def lower_recurrent(site: Site) -> bool:
    """Lower a recurrent layer; its sizes, but for steps and batch, are known."""
    base = site.op.removesuffix("_train")
    at = {name: i for i, name in enumerate(INPUTS[: 8 if base == "lstm" else 6]) if site.types[i] is not None}
    if site.attrs.get("quantized") or not supported(site, at):
        return False
    y = site.write(0)
    named = {"y": y if y.operand.strides[-1] == 1 else site.write(0, order="plain")}
    for i, name in enumerate(("h", "c", "kept", "cells") if base == "lstm" else ("h", "kept"), 1):
        if i < len(site.results):
            named[name] = site.write(i, order="plain")
    walk_forward(site, cell_of(site.op, site.attrs), at, named)
    return True


def cell_of(op: str, attrs: Mapping[str, Any]) -> Cell:
    """Return the kind of cell of an op on a layer."""
    if op.startswith("gru"):
        return "gru_linear" if attrs.get("linear_before_reset") else "gru"
    return "lstm" if op.startswith("lstm") else "rnn"


def supported(site: Site, at: Mapping[str, int]) -> bool:
    """Whether there is code for inputs of these types, given where each one is among the arguments."""
    types = {name: site.types[i] for name, i in at.items()}
    if not all(isinstance(types[n], TensorType) and types[n].ndim == 3 for n in ("x", "w", "r")):
        return False
    dtype = types["x"].dtype
    lengths = types.pop("lengths", None)
    if dtype not in TYPES or any(t.dtype != dtype for t in types.values()):
        return False
    static = (*types["w"].shape, *types["r"].shape, types["x"].shape[2], *(types["b"].shape if "b" in types else ()))
    if not all(isinstance(d, int) and d > 0 for d in static):
        return False
    return lengths is None or lengths.dtype in (np.int32, np.int64)


def walk_forward(site: Site, cell: Cell, at: Mapping[str, int], results: Mapping[str, Ref]) -> None:
    """Add the kernels of a layer.

    Args:
        site: where.
        cell: its kind.
        at: where each input is among the arguments.
        results: what to write: `y` (T, D, B, H), `h` and `c` (D, B, H), `kept` and `cells` as `lstm_train` has them.
    """
    x, r = site.types[at["x"]], site.types[at["r"]]
    hidden, a = int(r.shape[2]), site.attrs
    named = {"inputs": _projected(site, cell, at), "weights": _weights(site, cell, at["r"], hidden)}
    if "b" in at:
        named["bias"] = site.read(at["b"], order="plain")
    for name in ("lengths", "h0", "c0", "peepholes"):
        if name in at:
            named[name] = site.read(at[name], order="plain")
    named.update(results)
    clip = a.get("clip")
    activations = tuple(
        tuple(activation_expression(f, None if cell == "lstm" and i == 2 else clip) for i, f in enumerate(fs))
        for fs in a["cells"]
    )
    dtype, size, gates = np.dtype(x.dtype), np.dtype(x.dtype).itemsize, GATES[cell]
    params = Recurrent(
        dtype, tuple(named), tuple(ref.operand for ref in named.values()), BACKWARD[a["direction"]],
        hidden, x.shape[0], x.shape[1], cell, activations,
        bool(a.get("input_forget")),
    )  # fmt: skip
    directions = len(params.backward)
    made = kernel(
        cell, emit, params, operands=len(named), chunks=params.chunks,
        scratch=_Scratch.of(site.target, params).elements * size,
        flops=x.shape[0] * x.shape[1] * directions * hidden * hidden * gates * 2,
        bytes=size * (x.shape[0] * directions * gates * hidden * hidden),
    )  # fmt: skip
    site.call(made, list(named.values()))


def _projected(site: Site, cell: Cell, at: Mapping[str, int]) -> Ref:
    """Add the product of all steps with the input weights and its bias; return it, (D, T, B, G * H)."""
    x, w = site.types[at["x"]], site.types[at["w"]]
    directions, columns, depth = (int(d) for d in w.shape)
    grid: tuple[DimLike, ...] = (directions, *x.shape[:2])
    source = site.read(at["x"])
    steps = source.operand.strides
    vectors = panel_vectors(site.target, x.dtype, grid, columns, depth, (0, *steps[:2]))
    width = vectors * site.target.lanes(x.dtype)
    panels = -(-columns // width)
    strides = row_major((directions, panels, depth, width))
    pieces = []
    for first, count, wide in split(columns, width):
        shape = (directions, count, wide, depth)
        of = Operand(x.dtype, shape, (columns * depth, width * depth, depth, 1))
        to = Operand(x.dtype, shape, (strides[0], strides[1], 1, width))
        pieces.append((of, to, first * width * depth, first * depth * width))
    weights = pack(site, at["w"], pieces, (directions, panels, depth, width))
    out = site.temporary(x.dtype, (*grid, columns))
    epilogue, refs = None, []
    if "b" in at:
        refs = [site.read(at["b"], order="plain")]
        bias = Operand(x.dtype, out.operand.shape, (2 * columns, 0, 0, 1))
        epilogue = Epilogue(Var("x") + Var("a0"), (bias,), np.dtype(x.dtype))
    made = contraction(
        f"{cell} inputs", site.target, dtype=x.dtype, columns=columns, depth=depth, taps=(), a_start=0, grid=grid,
        a_grid=(0, *steps[:2]), a_depth=steps[2], b_grid=(strides[0], 0, 0), b_depth=width, b_panel=width * depth,
        output=out.operand, epilogue=epilogue, vectors=vectors,
    )  # fmt: skip
    site.call(made, [source, weights, out, *refs])
    return out


def _weights(site: Site, cell: Cell, i: int, hidden: int) -> Ref:
    """Return the recurrent weights: for each direction and section (panels, H, gates, lanes)."""
    t = site.types[i]
    lanes, directions = site.target.lanes(t.dtype), int(t.shape[0])
    panel = -(-hidden // lanes) * lanes * hidden
    whole = GATES[cell] * panel
    pieces, start = [], 0
    for section in _SECTIONS[cell]:
        gates, row = len(section), section[0] * hidden * hidden
        for first, count, wide in split(hidden, lanes):
            shape = (directions, count, gates, wide, hidden)
            of = Operand(t.dtype, shape, (int(t.shape[1]) * hidden, lanes * hidden, hidden * hidden, hidden, 1))
            to = Operand(t.dtype, shape, (whole, hidden * gates * lanes, lanes, 1, gates * lanes))
            pieces.append((of, to, row + first * lanes * hidden, start + first * hidden * gates * lanes))
        start += gates * panel
    return pack(site, i, pieces, (directions, whole))


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
        one = ROWS * width
        gates = max(map(len, _SECTIONS[p.cell]))
        return _Scratch((0, one), 2 * one, 3 * one, 4 * one, 5 * one, 5 * one + ROWS * gates * lanes, width)


def emit(e: Emitter, p: Recurrent) -> None:
    """Write the walk of a block of batch entries in one direction."""
    each_direction(e, p, lambda direction, block: _Walk(e, p, direction, block).write())


class _Walk(Block):
    """Writes the walk forwards of one block, in one direction."""

    def __init__(self, e: Emitter, p: Recurrent, direction: int, block: V) -> None:
        super().__init__(e, p, direction, block)
        self.p, self.at = p, _Scratch.of(e.target, p)
        self.gates = GATES[p.cell]
        self.sections = []
        panel = -(-p.hidden // self.lanes) * p.hidden * self.lanes
        start = direction * self.gates * panel
        for section in _SECTIONS[p.cell]:
            self.sections.append((section, start))
            start += len(section) * panel

    def write(self) -> None:
        """Write the walk."""
        e, p, at = self.e, self.p, self.at
        self.fill(at.states[0], at.width, "h0")
        if p.cell == "lstm":
            self.fill(at.cell, at.width, "c0")
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
        self.copy(last, at.width, "h")
        if p.cell == "lstm":
            self.copy(at.cell, at.width, "c")

    # one step -----------------------------------------------------------------------------------------------------

    def _section(self, section: int, states: Any) -> Iterator[tuple[Any, V]]:
        """Write the products of one section, panel by panel; yield the units of each, and their mask."""
        e, hidden = self.e, self.p.hidden
        gates, start = self.sections[section]
        found = self.operand("weights")
        assert found is not None
        for unit, mask in self.columns():
            weights = e.at(found[0], e.add(start, e.mul(unit, hidden * len(gates))), self.dtype)

            def initial(v: int, unit: Any = unit, mask: V = mask) -> V:
                if not self.operand("bias"):
                    return self.zero()
                column = e.add(unit, (self.gates + gates[v]) * hidden)
                return self.load(self.element("bias", self.direction, column), mask)

            def keep(row: V, v: int, total: V) -> None:
                place = e.mul(row, len(gates) * self.lanes)
                self.store(total, self.scratch(self.at.sums, place, v * self.lanes))

            self.multiply(self.scratch(states), self.at.width, hidden, weights, len(gates), initial, keep)
            yield unit, mask

    def _rows(self, step: V, unit: Any, mask: V, old: V, new: V, body: Callable[[_Unit], V]) -> None:
        """Write what follows on a panel's sums, row by row: the state, and where it is shown."""
        e = self.e
        with e.loop(0, self.count) as row:
            at = self._unit(step, row.index, unit, mask, old)
            h = body(at)
            shown = h
            if at.live is not None:
                shown = e.b.select(at.live, h, self.zero())
                h = e.b.select(at.live, h, at.before)
            self.store(h, self.scratch(new, at.offset))
            if self.operand("y"):
                self.store(shown, self.element("y", at.step, self.direction, at.entry, unit), mask)

    def _unit(self, step: V, row: V, unit: Any, mask: V, old: V) -> _Unit:
        at = self.place(step, row)
        offset = self.e.add(self.e.mul(row, self.at.width), unit)
        return _Unit(row, at.entry, at.step, at.live, unit, mask, offset, self.load(self.scratch(old, offset)))

    def _gate(self, at: _Unit, gate: int, slot: int, gates: int) -> V:
        """Return what the inputs and the state add up to in a gate, which is number `slot` of a section's `gates`."""
        return self.e.b.fadd(self._sum(at, slot, gates), self._input(at, gate))

    def _sum(self, at: _Unit, slot: int, gates: int) -> V:
        return self.load(self.scratch(self.at.sums, self.e.mul(at.row, gates * self.lanes), slot * self.lanes))

    def _input(self, at: _Unit, gate: int) -> V:
        column = self.e.add(at.unit, gate * self.p.hidden)
        return self.load(self.element("inputs", self.direction, at.step, at.entry, column), at.mask)

    def _activate(self, which: int, x: V) -> V:
        return evaluate(self.e, self.p.activations[self.direction][which], {"x": x}, self.lanes, self.dtype)

    def _keep(self, at: _Unit, name: str, **parts: V) -> None:
        """Write what the gradient reads, if it is wanted: parts `g0`, `g1`, ... are each so many H along."""
        if not self.operand(name):
            return
        for part, x in parts.items():
            column = self.e.add(at.unit, int(part[1:]) * self.p.hidden)
            self.store(x, self.element(name, at.step, self.direction, at.entry, column), at.mask)

    def _rnn(self, at: _Unit) -> V:
        return self._activate(0, self._gate(at, 0, 0, 1))

    def _gru_reset(self, step: V, unit: Any, mask: V, old: V) -> None:
        """Write the gates of a GRU that multiplies the state, before that meets the weights."""
        e = self.e
        with e.loop(0, self.count) as row:
            at = self._unit(step, row.index, unit, mask, old)
            update, reset = (self._activate(0, self._gate(at, g, g, 2)) for g in (0, 1))
            self.store(update, self.scratch(self.at.update, at.offset))
            self.store(e.b.fmul(reset, at.before), self.scratch(self.at.reset, at.offset))
            self._keep(at, "kept", g0=update, g1=reset)

    def _gru(self, at: _Unit) -> V:
        candidate = self._activate(1, self._gate(at, 2, 0, 1))
        self._keep(at, "kept", g2=candidate)
        return self._mixed(at, self.load(self.scratch(self.at.update, at.offset)), candidate)

    def _gru_linear(self, at: _Unit) -> V:
        e = self.e
        update, reset = (self._activate(0, self._gate(at, g, g, 3)) for g in (0, 1))
        inner = self._sum(at, 2, 3)
        candidate = self._activate(1, e.b.fadd(self._input(at, 2), e.b.fmul(reset, inner)))
        self._keep(at, "kept", g0=update, g1=reset, g2=candidate, g3=inner)
        return self._mixed(at, update, candidate)

    def _mixed(self, at: _Unit, update: V, candidate: V) -> V:
        b = self.e.b
        return b.fadd(candidate, b.fmul(update, b.fsub(at.before, candidate)))

    def _lstm(self, at: _Unit) -> V:
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
        left = b.fsub(e.constant(1, self.kind), taken) if self.p.input_forget else self._activate(0, seen(2, before))
        candidate = self._activate(1, self._gate(at, 3, 3, 4))
        cell = b.fadd(b.fmul(left, before), b.fmul(taken, candidate))
        shows = self._activate(0, seen(1, cell))
        h = b.fmul(shows, self._activate(2, cell))
        self._keep(at, "kept", g0=taken, g1=shows, g2=left, g3=candidate)
        self._keep(at, "cells", g0=cell)
        self.store(cell if at.live is None else b.select(at.live, cell, before), where)
        return h


@dataclass(frozen=True)
class _Unit(Place):
    """A vector of hidden units of one batch entry at one step.

    Attributes:
        unit: the first.
        mask: of the units that exist.
        offset: of the state in scratch memory.
        before: the state before.
    """

    unit: Any
    mask: V
    offset: V
    before: V
