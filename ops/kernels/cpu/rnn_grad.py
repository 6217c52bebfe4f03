"""Gradients of recurrent layers: one kernel that walks back over time, from the gates that the way there kept.

A step is pointwise work on what arrives at the state, which gives the gradients of the gates, and one product of these
with the recurrent weights. Where no gates were kept, the layer runs once more.

Axes: T steps, B batch, H hidden, D directions, G gates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ...expr import Const, Expr, Var, where
from ...rnn import BACKWARD, Activation
from .emitter import Emitter, V
from .expression import evaluate
from .kernel import kernel
from .lowering import Ref, Site, lowers
from .operand import Operand
from .rnn import GATES, INPUTS, Cell, activation_expression, cell_of, supported, walk_forward
from .rnn_block import ROWS, Block, Layer, Place, each_direction, pack, split
from .target import Target

_STATES = {"rnn": 1, "gru": 1, "lstm": 2}
_KEPT = {"rnn": (), "gru": ("kept",), "lstm": ("kept", "cells")}


@dataclass(frozen=True)
class RecurrentGrad(Layer):
    """What the code of a walk back depends on.

    Attributes:
        slopes: derivatives of the activations of the gates and, last, of an LSTM's cell, over their value y.
        shown: activations of an LSTM's cell, over x.
    """

    cell: Cell
    slopes: tuple[tuple[Expr, ...], ...]
    shown: tuple[Expr, ...]
    input_forget: bool


def slope_of_value(activation: Activation) -> Expr | None:
    """Return the derivative of an activation over its value y; None where the value does not tell it."""
    name, alpha, _ = activation
    y = Var("y")
    known: dict[str, Expr] = {
        "Sigmoid": y * (1.0 - y), "Tanh": 1.0 - y * y, "Relu": where(y > 0.0, 1.0, 0.0), "Affine": Const(alpha),
    }  # fmt: skip
    return known.get(name)


@lowers("rnn_grad", "gru_grad", "lstm_grad")
def lower_recurrent_grad(site: Site) -> bool:
    """Lower the walk back through a layer whose activations' values tell their derivatives."""
    base, a = site.op.removesuffix("_grad"), site.attrs
    states = _STATES[base]
    names = ("gy", "gh", "gc")[: 1 + states]
    names = (*names, "y", *INPUTS[: 8 if base == "lstm" else 6], *_KEPT[base])
    at = {name: i for i, name in enumerate(names) if site.types[i] is not None}
    slopes = [tuple(slope_of_value(f) for f in cell) for cell in a["cells"]]
    if a.get("quantized") or a.get("clip") is not None or "peepholes" in at or any(None in s for s in slopes):
        return False
    if not supported(site, at):
        return False
    cell = cell_of(site.op, a)
    y, r = site.types[at["y"]], site.types[at["r"]]
    hidden, dtype = int(r.shape[2]), np.dtype(r.dtype)
    named: dict[str, Ref] = {}
    kept = {name: site.read(at[name], order="plain") for name in _KEPT[base] if name in at}
    if len(kept) < len(_KEPT[base]):
        widths = {"kept": (4 if cell == "gru_linear" else GATES[cell]) * hidden, "cells": hidden}
        kept = {name: site.temporary(dtype, (*y.shape[:3], widths[name])) for name in _KEPT[base]}
        walk_forward(site, cell, at, kept)
    if "gy" in at:
        gy = site.read(at["gy"])
        named["gy"] = gy if gy.operand.strides[-1] == 1 else site.read(at["gy"], order="plain")
    for name in ("gh", "gc", "lengths", "h0", "c0"):
        if name in at:
            named[name] = site.read(at[name], order="plain")
    named["y"] = site.read(at["y"], order="plain")
    named.update(kept)
    named["weights"] = _weights(site, cell, at["r"], hidden)
    for i, name in enumerate(("gates", "dh", "dc") if base == "lstm" else ("gates", "dh", "beside")):
        if i < len(site.results):
            named[name] = site.write(i, order="plain")
    gates, backward = GATES[cell], BACKWARD[a["direction"]]
    params = RecurrentGrad(
        dtype, tuple(named), tuple(ref.operand for ref in named.values()), backward,
        hidden, y.shape[0], y.shape[2], cell, tuple(tuple(s for s in cell_ if s is not None) for cell_ in slopes),
        tuple(activation_expression(fs[-1], None) for fs in a["cells"]), bool(a.get("input_forget")),
    )  # fmt: skip
    size = dtype.itemsize
    made = kernel(
        f"{cell} back", emit, params, operands=len(named), chunks=params.chunks,
        scratch=_Scratch.of(site.target, params).elements * size,
        flops=y.shape[0] * y.shape[2] * len(backward) * hidden * hidden * gates * 2,
        bytes=size * (y.shape[0] * len(backward) * gates * hidden * (hidden + 2 * y.shape[2])),
    )  # fmt: skip
    site.call(made, list(named.values()))
    return True


def _vectors(hidden: int, lanes: int) -> int:
    """Return how many vectors a panel of the weights has."""
    return 2 if hidden > lanes else 1


def _weights(site: Site, cell: Cell, i: int, hidden: int) -> Ref:
    """Return the recurrent weights: for each direction (panels, G * H, vectors, lanes)."""
    t = site.types[i]
    lanes, directions, depth = site.target.lanes(t.dtype), int(t.shape[0]), GATES[cell] * hidden
    width = _vectors(hidden, lanes) * lanes
    panels = -(-hidden // width)
    pieces = []
    for first, count, wide in split(hidden, width):
        shape = (directions, count, depth, wide)
        of = Operand(t.dtype, shape, (depth * hidden, width, hidden, 1))
        to = Operand(t.dtype, shape, (panels * depth * width, depth * width, width, 1))
        pieces.append((of, to, first * width, first * depth * width))
    return pack(site, i, pieces, (directions, panels, depth, width))


@dataclass(frozen=True)
class _Scratch:
    """Where things lie in scratch memory, in elements, and how far rows lie apart there.

    Attributes:
        state: what arrives at the state from the step after.
        cell: the same for an LSTM's cell.
        inside: what arrives at a GRU's reset state.
        gates: their gradients in this step.
    """

    state: int
    cell: int
    inside: int
    gates: int
    elements: int
    width: int
    deep: int

    @staticmethod
    def of(target: Target, p: RecurrentGrad) -> _Scratch:
        lanes = target.lanes(p.dtype)
        panel = _vectors(p.hidden, lanes) * lanes
        width = -(-p.hidden // panel) * panel
        deep = -(-GATES[p.cell] * p.hidden // lanes) * lanes
        one = ROWS * width
        return _Scratch(0, one, 2 * one, 3 * one, 3 * one + ROWS * deep, width, deep)


def emit(e: Emitter, p: RecurrentGrad) -> None:
    """Write the walk back of a block of batch entries in one direction."""
    each_direction(e, p, lambda direction, block: _Back(e, p, direction, block).write())


class _Back(Block):
    """Writes the walk back of one block, in one direction."""

    def __init__(self, e: Emitter, p: RecurrentGrad, direction: int, block: V) -> None:
        super().__init__(e, p, direction, block)
        self.p, self.at = p, _Scratch.of(e.target, p)

    def write(self) -> None:
        """Write the walk."""
        e, p, at = self.e, self.p, self.at
        self.fill(at.state, at.width, "gh")
        if p.cell == "lstm":
            self.fill(at.cell, at.width, "gc")
        body = {"rnn": self._rnn, "gru": self._gru, "gru_linear": self._gru_linear, "lstm": self._lstm}[p.cell]
        with e.loop(0, p.steps) as step:
            iteration = e.sub(e.sub(p.steps, 1), step.index)
            self._each(iteration, body)
            if p.cell == "gru":
                self._product(2 * p.hidden, p.hidden, at.inside, fresh=True)
                self._each(iteration, self._gru_reset)
                self._product(0, 2 * p.hidden, at.state)
            else:
                self._product(0, GATES[p.cell] * p.hidden, at.state)
        self.copy(at.state, at.width, "dh")
        if p.cell == "lstm":
            self.copy(at.cell, at.width, "dc")

    def _each(self, iteration: V, body: Any) -> None:
        """Write `body` for each vector of the block's states."""
        e = self.e
        with e.loop(0, self.count) as row:
            at = self.place(iteration, row.index)
            base = e.mul(row.index, self.at.width)
            gates = e.mul(row.index, self.at.deep)
            for unit, mask in self.columns():
                body(_Unit(at.row, at.entry, at.step, at.live, iteration, unit, mask, e.add(base, unit), gates))

    def _product(self, first: int, depth: int, to: int, *, fresh: bool = False) -> None:
        """Write the product of gates from `first` on with the weights, over what lies in scratch or added to it."""
        e, p, at = self.e, self.p, self.at
        vectors = _vectors(p.hidden, self.lanes)
        width = vectors * self.lanes
        panels = at.width // width
        found = self.operand("weights")
        assert found is not None
        whole = GATES[p.cell] * p.hidden * width
        with e.loop(0, panels) as panel:
            start = e.add(e.mul(panel.index, whole), self.direction * panels * whole + first * width)
            column = e.mul(panel.index, width)

            def keep(row: V, v: int, total: V) -> None:
                place = self.scratch(to, e.mul(row, at.width), column, v * self.lanes)
                self.store(total if fresh else e.b.fadd(total, self.load(place)), place)

            source = self.scratch(at.gates + first)
            weights = e.at(found[0], start, self.dtype)
            self.multiply(source, at.deep, depth, weights, vectors, lambda v: self.zero(), keep)

    # a vector of units --------------------------------------------------------------------------------------------

    def _arrived(self, at: _Unit) -> V:
        """Return what arrives at the state of a step."""
        s = self.load(self.scratch(self.at.state, at.offset))
        if self.operand("gy"):
            s = self.e.b.fadd(s, self.load(self.element("gy", at.step, self.direction, at.entry, at.unit), at.mask))
        return s

    def _before(self, at: _Unit, every: str, start: str) -> V:
        """Return a state, or cell, before a step: of the step before it, or the initial one."""
        e = self.e
        begins = e.b.icmp_signed("==", at.iteration, e.index(0))
        previous = e.add(at.step, 1 if self.back else -1)
        if self.back and at.live is not None:
            previous = e.b.select(at.live, previous, at.step)
        previous = e.b.select(begins, e.index(0), previous)
        place = self.element(every, previous, self.direction, at.entry, at.unit)
        if not self.operand(start):
            return e.b.select(begins, self.zero(), self.load(place, at.mask))
        return self.load(e.b.select(begins, self.element(start, self.direction, at.entry, at.unit), place), at.mask)

    def _kept(self, at: _Unit, name: str, part: int = 0) -> V:
        column = self.e.add(at.unit, part * self.p.hidden)
        return self.load(self.element(name, at.step, self.direction, at.entry, column), at.mask)

    def _times_slope(self, g: V, which: int, y: V) -> V:
        slope = evaluate(self.e, self.p.slopes[self.direction][which], {"y": y}, self.lanes, self.dtype)
        return self.e.b.fmul(g, slope)

    def _give(self, at: _Unit, gate: int, g: V, *names: str) -> None:
        """Write the gradient of a gate: into the results of these names and, first, where the product reads it."""
        e = self.e
        g = g if at.live is None else e.b.select(at.live, g, self.zero())
        column = e.add(at.unit, gate * self.p.hidden)
        if "product" in names:
            self.store(g, self.scratch(self.at.gates, at.gates, column), at.mask)
        for name in names:
            if name != "product":
                self.store(g, self.element(name, self.direction, at.step, at.entry, column), at.mask)

    def _hand_on(self, at: _Unit, base: int, new: V) -> None:
        """Write what goes on to the step before; what arrived, where the sequence has ended."""
        place = self.scratch(base, at.offset)
        self.store(new if at.live is None else self.e.b.select(at.live, new, self.load(place)), place)

    def _rnn(self, at: _Unit) -> None:
        s = self._arrived(at)
        y = self.load(self.element("y", at.step, self.direction, at.entry, at.unit), at.mask)
        self._give(at, 0, self._times_slope(s, 0, y), "product", "gates")
        self._hand_on(at, self.at.state, self.zero())

    def _gru_linear(self, at: _Unit) -> None:
        b = self.e.b
        s, before = self._arrived(at), self._before(at, "y", "h0")
        z, reset, n, inner = (self._kept(at, "kept", i) for i in range(4))
        dn = self._times_slope(b.fmul(s, b.fsub(self.e.constant(1, self.kind), z)), 1, n)
        self._give(at, 0, self._times_slope(b.fmul(s, b.fsub(before, n)), 0, z), "product", "gates", "beside")
        self._give(at, 1, self._times_slope(b.fmul(dn, inner), 0, reset), "product", "gates", "beside")
        self._give(at, 2, b.fmul(dn, reset), "product", "beside")
        self._give(at, 2, dn, "gates")
        self._hand_on(at, self.at.state, b.fmul(s, z))

    def _gru(self, at: _Unit) -> None:
        b = self.e.b
        s, before = self._arrived(at), self._before(at, "y", "h0")
        z, reset, n = (self._kept(at, "kept", i) for i in range(3))
        dn = self._times_slope(b.fmul(s, b.fsub(self.e.constant(1, self.kind), z)), 1, n)
        self._give(at, 0, self._times_slope(b.fmul(s, b.fsub(before, n)), 0, z), "product", "gates")
        self._give(at, 2, dn, "product", "gates")
        self._give(at, 0, b.fmul(reset, before), "beside")
        self._hand_on(at, self.at.state, b.fmul(s, z))

    def _gru_reset(self, at: _Unit) -> None:
        b = self.e.b
        inside, before = self.load(self.scratch(self.at.inside, at.offset)), self._before(at, "y", "h0")
        reset = self._kept(at, "kept", 1)
        self._give(at, 1, self._times_slope(b.fmul(inside, before), 0, reset), "product", "gates")
        place = self.scratch(self.at.state, at.offset)
        self._hand_on(at, self.at.state, b.fadd(self.load(place), b.fmul(inside, reset)))

    def _lstm(self, at: _Unit) -> None:
        e, b, p = self.e, self.e.b, self.p
        s, old, cell = self._arrived(at), self._before(at, "cells", "c0"), self._kept(at, "cells")
        i, o, forget, n = (self._kept(at, "kept", g) for g in range(4))
        shown = evaluate(e, p.shown[self.direction], {"x": cell}, self.lanes, self.dtype)
        arrived = self.load(self.scratch(self.at.cell, at.offset))
        arrived = b.fadd(arrived, self._times_slope(b.fmul(s, o), 2, shown))
        self._give(at, 1, self._times_slope(b.fmul(s, shown), 0, o), "product", "gates")
        seen = b.fsub(n, old) if p.input_forget else n
        self._give(at, 0, self._times_slope(b.fmul(arrived, seen), 0, i), "product", "gates")
        of_forget = self.zero() if p.input_forget else self._times_slope(b.fmul(arrived, old), 0, forget)
        self._give(at, 2, of_forget, "product", "gates")
        self._give(at, 3, self._times_slope(b.fmul(arrived, i), 1, n), "product", "gates")
        self._hand_on(at, self.at.cell, b.fmul(arrived, forget))
        self._hand_on(at, self.at.state, self.zero())


@dataclass(frozen=True)
class _Unit(Place):
    """A vector of hidden units of one batch entry at one step.

    Attributes:
        iteration: the number of the step in the layer's own order.
        unit: the first.
        mask: of the units that exist.
        offset: of the state in scratch memory.
        gates: of the gates' row in scratch memory.
    """

    iteration: V
    unit: Any
    mask: V
    offset: V
    gates: V
