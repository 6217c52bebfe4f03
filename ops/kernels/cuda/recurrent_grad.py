"""Gradients of recurrent layers: a walk back over time, from the gates that the way there kept.

Where the recurrent weights are small, one kernel walks (`recurrent_walk_back`). Else a step is a kernel that makes the
gradients of the gates of what arrives at the state, and a product of these with the recurrent weights, of both
directions at once; a GRU whose reset gate multiplies the state takes both twice. Where no gates were kept, the layer
runs once more.

Axes: T steps, B batch, H hidden, D directions, G gates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from ..cpu.rnn import INPUTS
from ..cpu.rnn_grad import slope_of_value
from .copy import copied
from .indexing import View, view
from .kernel import Kernel, Ref, blocks
from .lowering import Site, lowers
from .matmul import multiply
from .recurrent import MOST_STEPS, layer_of, walk_forward
from .recurrent_cells import HEAD, Layer, ending
from .recurrent_grad_cells import Half, Slopes, Tensors, declare, functions, head, unit
from .recurrent_walk import arranged
from .recurrent_walk_back import arranged_back, walk_back
from .signature import THREADS, Signature

_KEPT = {"rnn": (), "gru": ("kept",), "lstm": ("kept", "cells")}
_RESULTS = {"rnn": ("gates", "dh"), "gru": ("gates", "dh", "beside"), "lstm": ("gates", "dh", "dc")}


@lowers("rnn_grad", "gru_grad", "lstm_grad")
def lower_recurrent_grad(site: Site) -> bool:
    """Lower the walk back through a layer whose activations' values tell their derivatives."""
    base, a = site.op.removesuffix("_grad"), site.attrs
    states = ("gy", "gh", "gc") if base == "lstm" else ("gy", "gh")
    names = (*states, "y", *INPUTS[: 8 if base == "lstm" else 6], *_KEPT[base])
    at = {name: i for i, name in enumerate(names) if site.types[i] is not None}
    slopes = [tuple(slope_of_value(f) for f in cell) for cell in a["cells"]]
    if a.get("clip") is not None or "peepholes" in at or any(s is None for cell in slopes for s in cell):
        return False
    layer = layer_of(site, at)
    if layer is None:
        return False
    arrangement, anew = arranged_back(layer), any(name not in at for name in _KEPT[base])
    if layer.steps > MOST_STEPS and (arrangement is None or (anew and arranged(layer) is None)):
        return False
    given = {name: site.read(at[name]) for name in ("gy", "y") if name in at}
    given |= {name: site.read(i, order="plain") for name, i in at.items() if name not in ("gy", "y", "x", "w", "b")}
    if anew:
        widths = {"kept": (4 if layer.cell in ("gru_linear", "lstm") else 3) * layer.hidden, "cells": layer.hidden}
        every = layer.steps, layer.directions, layer.batch
        made = {name: site.temporary(layer.dtype, (*every, widths[name])) for name in _KEPT[base]}
        walk_forward(site, layer, at, made)
        given |= made
    results = {name: site.write(i, order="plain") for i, name in enumerate(_RESULTS[base]) if site.wanted(i)}
    known = tuple(tuple(s for s in cell if s is not None) for cell in slopes)
    tensors = Tensors(given, results)
    if arrangement is not None:
        walk_back(site, layer, tensors, known, arrangement)
    else:
        _Steps(site, layer, tensors, known).add()
    return True


@dataclass(frozen=True)
class _Buffers:
    """What goes from one launch of the walk to the next.

    Attributes:
        carried: what arrives at the state of a step without passing its gates.
        factors: gradients of gates, which products read.
        sums: what the products give.
        cell: what arrives at an LSTM's cell.
    """

    carried: Ref
    factors: list[Ref]
    sums: list[Ref]
    cell: Ref | None


class _Steps:
    """A walk back each of whose steps is launches of its own."""

    def __init__(self, site: Site, layer: Layer, tensors: Tensors, slopes: Slopes) -> None:
        self.site, self.layer, self.tensors, self.slopes = site, layer, tensors, slopes
        h, rows = layer.hidden, layer.gates * layer.hidden
        self.halves: tuple[Half, ...] = ("candidate", "reset") if layer.cell == "gru" else ("whole",)
        widths = (h, 2 * h) if layer.cell == "gru" else (rows,)
        self.buffers = _Buffers(
            site.temporary(layer.exact, layer.state),
            [site.temporary(layer.dtype, (*layer.state[:2], n)) for n in widths],
            [site.temporary(layer.exact, layer.state) for _ in widths],
            site.temporary(layer.exact, layer.state) if layer.cell == "lstm" else None,
        )
        r = tensors.given["r"]
        self.weights = [View(r, (layer.directions, widths[-1], h), (rows * h, h, 1))]
        if layer.cell == "gru":
            own = site.temporary(layer.dtype, (layer.directions, h, h))
            made = copied(View(r, own.operand.shape, (rows * h, h, 1), 2 * h * h), view(own))
            site.launch(made.kernel, made.grid, made.block, made.arguments, writes=made.writes)
            self.weights.insert(0, view(own))
        self._made: dict[tuple[Half, bool], tuple[Kernel, Signature]] = {}

    def add(self) -> None:
        """Add the work of all steps, the last first."""
        b = self.buffers
        for step in reversed(range(self.layer.steps)):
            for half, factors, weights, sums in zip(self.halves, b.factors, self.weights, b.sums, strict=True):
                self._launch(half, step)
                if step or "dh" in self.tensors.results or half != self.halves[-1]:
                    multiply(self.site, view(factors), weights, view(sums))
        self._finish()

    def _launch(self, half: Half, step: int) -> None:
        key = half, step == self.layer.steps - 1
        if key not in self._made:
            s = Signature(wide=self.tensors.wide)
            s.integer("step", 0)
            body = self._body(s, half, newest=key[1])
            name = f"{self.layer.cell}_back" + ("" if half == "whole" else f"_{half}")
            before = functions(self.layer, self.slopes)
            self._made[key] = s.kernel(name, body, registers=128, before=before), s
        kernel, s = self._made[key]
        grid = (blocks(prod(self.layer.state), THREADS), 1, 1)
        self.site.launch(kernel, grid, (THREADS, 1, 1), [step, *s.arguments[1:]], writes=s.written)

    def _body(self, s: Signature, half: Half, *, newest: bool) -> str:
        """Return the text of a step of one unit a thread."""
        layer, given, b = self.layer, self.tensors.given, self.buffers
        declare(s, layer, self.tensors, ("gh", "gc") if newest else (), ("gates", "beside"))
        s.size("hidden", layer.hidden)
        s.size("work", prod(layer.state))
        s.writes("carried", b.carried)
        lines = [HEAD, s.unravel("t", [("d", layer.directions), ("entry", layer.batch), ("j", layer.hidden)])]
        lines += [f"const i32 end = {ending(given, 'entry')};", head(layer, self.tensors, "end")]
        if half == "reset":
            s.reads("sums", b.sums[0])
            lines.append("const C inside = sums[t], arrived = carried[t];")
        elif newest:
            lines.append(f"const C arrived = {'widen(gh[t])' if 'gh' in given else '0'};")
        else:
            s.reads("sums", b.sums[-1])
            lines.append("const C arrived = sums[t] + carried[t];")
        if b.cell is not None:
            s.writes("cell", b.cell)
            last = "widen(gc[t])" if "gc" in given else "0"
            lines.append(f"const C waiting = {last if newest else 'cell[t]'};")
        made, factors = unit(layer, self.tensors, half)
        lines += [*made, "carried[t] = carry;", *(["cell[t] = cell_now;"] if b.cell is not None else [])]
        lines += self._factors(s, half, factors)
        return "\n".join(lines)

    def _factors(self, s: Signature, half: Half, values: Mapping[int, str]) -> list[str]:
        """Return the statements that store what the products read."""
        lines, buffers = [], self.buffers.factors
        places = {2: (0, 0), 0: (1, 0), 1: (1, 1)} if half != "whole" else {g: (0, g) for g in values}
        for n in sorted({places[g][0] for g in values}):
            s.writes(f"factors{n}", buffers[n])
        for g, value in values.items():
            n, column = places[g]
            width = buffers[n].operand.shape[2] // self.layer.hidden
            at = f"((d * batch + entry) * {width} + {column}) * hidden + j"
            lines.append(f"narrow(live ? {value} : (C)0, &factors{n}[{at}]);")
        return lines

    def _finish(self) -> None:
        """Store what arrives at the states before the first step."""
        s, lines, results = Signature(), [], self.tensors.results
        if "dh" in results:
            s.reads("sums", self.buffers.sums[-1])
            s.reads("carried", self.buffers.carried)
            s.writes("dh", results["dh"])
            lines.append("narrow(sums[t] + carried[t], &dh[t]);")
        if "dc" in results and self.buffers.cell is not None:
            s.reads("cell", self.buffers.cell)
            s.writes("dc", results["dc"])
            lines.append("narrow(cell[t], &dc[t]);")
        if lines:
            s.launch(self.site, f"{self.layer.cell}_back_states", "\n".join(lines), prod(self.layer.state))
