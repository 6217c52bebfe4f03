"""Recurrent layers: one product for the inputs of all steps and directions, then a walk over time.

Where the recurrent weights are small, one kernel walks (`recurrent_walk`). Else each step is a product of the states
with these weights, of both directions at once, and a kernel that makes the gates and the new states of it; a GRU whose
reset gate multiplies the state takes both once more, for its candidate.

Axes: T steps, B batch, I input, H hidden, D directions, G gates.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import numpy as np

from ...types import TensorType
from ..cpu.rnn import INPUTS, cell_of
from .copy import copied
from .indexing import View, view
from .kernel import Kernel, Ref, blocks
from .lowering import Site, lowers
from .matmul import multiply, served
from .recurrent_cells import HEAD, Layer, Stage, Tensors, activations, constants, declare, ending, placed, unit
from .recurrent_walk import arranged, walk
from .signature import THREADS, Signature

MOST_STEPS = 1024
"""Longer walks in launches of their own run on arrays: a program holds every launch."""


@lowers("rnn", "gru", "lstm", "gru_train", "lstm_train")
def lower_recurrent(site: Site) -> bool:
    """Lower a recurrent layer."""
    base = site.op.removesuffix("_train")
    at = {name: i for i, name in enumerate(INPUTS[: 8 if base == "lstm" else 6]) if site.types[i] is not None}
    layer = layer_of(site, at)
    if layer is None:
        return False
    names = ("y", "h", "c", "kept", "cells") if base == "lstm" else ("y", "h", "kept")
    wanted = {name: i for i, name in enumerate(names) if i < len(site.results) and site.wanted(i)}
    arrangement = arranged(layer)
    if arrangement is None and layer.steps > MOST_STEPS:
        return False
    results = {name: site.write(i, order="plain" if i else "permuted") for name, i in wanted.items()}
    walk_forward(site, layer, at, results)
    return True


def layer_of(site: Site, at: Mapping[str, int]) -> Layer | None:
    """Return the layer at a site, given where each input is among its arguments; None where there is no code for it."""
    types = {name: site.types[i] for name, i in at.items()}
    if site.attrs.get("quantized") or not all(isinstance(t, TensorType) for t in types.values()):
        return None
    lengths = types.pop("lengths", None)
    if not served(*types.values()) or (lengths is not None and lengths.dtype not in (np.int32, np.int64)):
        return None
    (steps, batch, inputs), hidden, a = map(int, types["x"].shape), int(types["r"].shape[2]), site.attrs
    return Layer(
        cell_of(site.op, a), np.dtype(types["x"].dtype), steps, batch, inputs, hidden, a["direction"], a["cells"],
        a.get("clip"), bool(a.get("input_forget")),
    )  # fmt: skip


def walk_forward(site: Site, layer: Layer, at: Mapping[str, int], results: Mapping[str, Ref]) -> None:
    """Add the work of a layer.

    Args:
        site: where.
        layer: what.
        at: where each input is among the arguments.
        results: what to write: see `Tensors`.
    """
    given = {name: site.read(at[name], order="plain") for name in INPUTS[3:] if name in at}
    tensors = Tensors(projected(site, layer, at), given, results)
    weights = site.read(at["r"], order="plain")
    arrangement = arranged(layer)
    if arrangement is not None:
        walk(site, layer, tensors, weights, arrangement)
    else:
        _Steps(site, layer, tensors, weights).add()


def projected(site: Site, layer: Layer, at: Mapping[str, int]) -> View:
    """Add the product x W^T of all steps and directions; return it as (T, B, D G H)."""
    x, w = site.read(at["x"]), site.read(at["w"], order="plain")
    if x.operand.strides[2] != 1 and layer.inputs != 1:
        x = site.read(at["x"], order="plain")
    width = layer.directions * layer.gates * layer.hidden
    across = x.operand.strides[0] < x.operand.strides[1]
    order = (1, 0, 2) if across else (0, 1, 2)
    lying = x.operand.transposed(order)
    rows = lying.shape[:2]
    made = site.temporary(layer.exact, (*rows, width))
    weights = View(w, (rows[0], layer.inputs, width), (0, 1, layer.inputs))
    multiply(site, View(x, lying.shape, lying.strides), weights, view(made))
    seen = made.operand.transposed(order)
    return View(made, seen.shape, seen.strides)


class _Steps:
    """A layer whose every step is launches of its own."""

    def __init__(self, site: Site, layer: Layer, tensors: Tensors, weights: Ref) -> None:
        self.site, self.layer, self.tensors = site, layer, tensors
        results, gates, h = tensors.results, layer.gates, layer.hidden
        self.h = results.get("h") or site.temporary(layer.dtype, layer.state)
        self.h_exact = site.temporary(layer.exact, layer.state) if layer.narrow else self.h
        kept = None if layer.narrow else results.get("c")
        self.c = (kept or site.temporary(layer.exact, layer.state)) if layer.cell == "lstm" else None
        self.stages: tuple[Stage, ...] = ("reset", "candidate") if layer.cell == "gru" else ("whole",)
        counts = (2, 1) if layer.cell == "gru" else (gates,)
        self.sums = [site.temporary(layer.exact, (*layer.state[:2], n * h)) for n in counts]
        steps = (gates * h * h, 1, h)
        self.weights = [View(weights, (layer.directions, h, counts[0] * h), steps)]
        if layer.cell == "gru":
            self.update, self.reset = site.temporary(layer.exact, layer.state), site.temporary(layer.dtype, layer.state)
            own = site.temporary(layer.dtype, (layer.directions, h, h))
            made = copied(View(weights, own.operand.shape, (gates * h * h, h, 1), 2 * h * h), view(own))
            site.launch(made.kernel, made.grid, made.block, made.arguments, writes=made.writes)
            self.weights.append(View(own, own.operand.shape, (h * h, 1, h)))
        self._made: dict[tuple[Stage, bool, bool], tuple[Kernel, Signature]] = {}

    def add(self) -> None:
        """Add the work of all steps."""
        for step in range(self.layer.steps):
            before = self.h if step else self.tensors.given.get("h0")
            for stage, sums, weights in zip(self.stages, self.sums, self.weights, strict=True):
                if before is not None:
                    factor = self.reset if stage == "candidate" else before
                    multiply(self.site, view(factor), weights, view(sums))
                self._launch(stage, step)

    def _launch(self, stage: Stage, step: int) -> None:
        last = step == self.layer.steps - 1 and self.layer.narrow
        key = stage, step == 0, last
        if key not in self._made:
            s = Signature(wide=self.tensors.wide)
            s.integer("step", 0)
            body = self._body(s, stage, first=step == 0, last=last)
            name = self.layer.cell if stage == "whole" else f"{self.layer.cell}_{stage}"
            self._made[key] = (
                s.kernel(f"{name}_step", body, registers=128, before=constants(self.layer) + activations(self.layer)),
                s,
            )
        kernel, s = self._made[key]
        grid = (blocks(prod(self.layer.state), THREADS), 1, 1)
        self.site.launch(kernel, grid, (THREADS, 1, 1), [step, *s.arguments[1:]], writes=s.written)

    def _body(self, s: Signature, stage: Stage, *, first: bool, last: bool) -> str:
        """Return the text of a step of one unit a thread."""
        layer, given = self.layer, self.tensors.given
        declare(s, layer, self.tensors, ("b", "lengths", "peepholes"))
        s.size("hidden", layer.hidden)
        s.size("work", prod(layer.state))
        gates = {"whole": range(layer.gates), "reset": range(2), "candidate": range(2, 3)}[stage]
        multiplied = not first or "h0" in given
        if multiplied:
            s.reads("sums", self.sums[self.stages.index(stage)])
        lines = [HEAD, s.unravel("t", [("d", layer.directions), ("entry", layer.batch), ("j", layer.hidden)])]
        lines.append(f"const i32 end = {ending(given, 'entry')};")
        lines.append(f"const bool live = {'step < end' if 'lengths' in given else 'true'};")
        lines.append(f"const index place = {placed(layer, 'step', 'end')};")
        lines.append("const index x_at = place * x_step + entry * x_entry + d * GATES * hidden + j;")
        lines.append("const index b_at = d * 2 * GATES * hidden + j;")
        lines.append(f"const index sums_at = (d * batch + entry) * {len(gates)} * hidden + j;")
        for i, g in enumerate(gates):
            fresh = f"x[x_at + {g} * hidden]" + (f" + widen(b[b_at + {g} * hidden])" if "b" in given else "")
            terms = [f"sums[sums_at + {i} * hidden]"] if multiplied else []
            terms += [f"widen(b[b_at + {layer.gates + g} * hidden])"] if "b" in given else []
            apart = layer.cell == "gru_linear" and g == 2
            lines += [f"const C fresh = {fresh};"] if apart else []
            lines.append(f"const C a{g} = {' + '.join(terms if apart else [fresh, *terms]) or '0'};")
        lines += self._before(s, stage, first=first)
        lines.append(unit(layer, self.tensors, stage))
        lines += self._after(s, stage, last=last)
        return "\n".join(lines)

    def _before(self, s: Signature, stage: Stage, *, first: bool) -> list[str]:
        """Return the statements that read the states."""
        given, lines = self.tensors.given, []
        (s.reads if stage == "reset" else s.writes)("h", self.h_exact)
        if self.c is not None:
            s.writes("c", self.c)
        for name, initial in (("h", "h0"), ("c", "c0"))[: 1 + (self.c is not None)]:
            if first and initial in given:
                s.reads(initial, given[initial])
            old = f"{name}[t]" if not first else f"widen({initial}[t])" if initial in given else "0"
            lines.append(f"const C {name}_old = {old};")
        if stage == "candidate":
            s.reads("update", self.update)
            lines.append("const C z = update[t];")
        return lines

    def _after(self, s: Signature, stage: Stage, *, last: bool) -> list[str]:
        """Return the statements that write the states."""
        if stage == "reset":
            s.writes("update", self.update)
            s.writes("reset_h", self.reset)
            return ["update[t] = z;", "narrow(reset * h_old, &reset_h[t]);"]
        lines = ["const C h_now = live ? h_new : h_old;", "h[t] = h_now;"]
        if self.layer.narrow:
            s.writes("h_stored", self.h)
            lines.append("narrow(h_now, &h_stored[t]);")
        if self.c is not None:
            lines += ["const C c_now = live ? c_new : c_old;", "c[t] = c_now;"]
        if last and "c" in self.tensors.results:
            s.writes("c_last", self.tensors.results["c"])
            lines.append("narrow(c_now, &c_last[t]);")
        return lines
