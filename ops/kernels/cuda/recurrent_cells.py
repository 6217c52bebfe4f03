"""What the kernels of recurrent layers share: a layer's sizes and tensors, and the text of one step of one hidden unit.

The text reads what the gates are computed from as `a0`, `a1`, ..., the states before as `h_old` and `c_old`, and makes
`h_new` and `c_new`. `step` counts in the order in which a direction runs, `place` is where that step lies.

Axes: T steps, B batch, H hidden, D directions, G gates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from ...expr import Expr
from ...rnn import BACKWARD, Cells
from ...types import DType
from ..cpu.rnn import GATES, Cell, activation_expression
from .expression import write
from .indexing import View
from .kernel import Ref
from .operand import Sizes
from .prelude import computed
from .signature import DTYPES, Signature, indented, is_wide

Stage: TypeAlias = Literal["whole", "reset", "candidate"]
"""What of a step is computed: all of it, or the two halves of a GRU whose reset gate multiplies the state."""


HEAD = """
const i64 thread = (i64)blockIdx.x * blockDim.x + threadIdx.x;
if (thread >= work) return;
const index t = (index)thread;
"""
"""Statements in front of those of a unit a thread."""


@dataclass(frozen=True)
class Layer:
    """A recurrent layer, its sizes and what it computes.

    Attributes:
        cell: its kind.
        dtype: of its tensors.
        steps: T.
        batch: B.
        inputs: of a step.
        hidden: H.
        direction: `forward`, `reverse` or `bidirectional`.
        cells: the activations of each direction.
        clip: the threshold before them.
        input_forget: whether an LSTM's forget gate is 1 less its input gate.
    """

    cell: Cell
    dtype: DType
    steps: int
    batch: int
    inputs: int
    hidden: int
    direction: str
    cells: Cells
    clip: float | None
    input_forget: bool

    @property
    def directions(self) -> int:
        """D."""
        return len(BACKWARD[self.direction])

    @property
    def gates(self) -> int:
        """G."""
        return GATES[self.cell]

    @property
    def ctype(self) -> str:
        """What states and gates are calculated with."""
        return computed(self.dtype)

    @property
    def exact(self) -> DType:
        """The element type of states and gates between steps."""
        return DTYPES[self.ctype]

    @property
    def narrow(self) -> bool:
        """Whether tensors are stored in half precision."""
        return self.exact != self.dtype

    @property
    def state(self) -> Sizes:
        """The shape of a state."""
        return self.directions, self.batch, self.hidden


@dataclass(frozen=True)
class Tensors:
    """What the kernels of a layer read and write.

    Attributes:
        inputs: x W^T of every step, (T, B, D G H).
        given: `b`, `lengths`, `h0`, `c0`, `peepholes`, those that there are, without gaps.
        results: `y`, `h`, `c`, `kept`, `cells`, those that are wanted; all but `y` without gaps.
    """

    inputs: View
    given: Mapping[str, Ref]
    results: Mapping[str, Ref]

    @property
    def wide(self) -> bool:
        """Whether offsets need 64 bits."""
        return is_wide(*(ref.operand for ref in (self.inputs.ref, *self.given.values(), *self.results.values())))


def declare(s: Signature, layer: Layer, tensors: Tensors, names: Sequence[str]) -> None:
    """Declare the sizes of a layer, the inputs and results of a step, and those of its given tensors that are named."""
    s.reads("x", tensors.inputs.ref)
    s.size("x_step", tensors.inputs.strides[0])
    s.size("x_entry", tensors.inputs.strides[1])
    for name in names:
        if name in tensors.given:
            s.reads(name, tensors.given[name])
    for name in ("y", "kept", "cells"):
        if name in tensors.results:
            s.writes(name, tensors.results[name])
    if "y" in tensors.results:
        for axis, stride in zip(
            ("step", "direction", "entry", "unit"), tensors.results["y"].operand.strides, strict=True
        ):
            s.size(f"y_{axis}", stride)
    s.integer("steps", layer.steps)
    s.integer("batch", layer.batch)


def constants(layer: Layer) -> str:
    """Return the type and the numbers in front of a kernel."""
    return f"typedef {layer.ctype} C;\nenum {{ GATES = {layer.gates}, DIRECTIONS = {layer.directions} }};\n"


def activations(layer: Layer) -> str:
    """Return the activations as functions `act0`, `act1` ..."""
    made = []
    for i in range(len(layer.cells[0])):
        clip = None if layer.cell == "lstm" and i == 2 else layer.clip
        made.append(function(layer, f"act{i}", [activation_expression(cell[i], clip) for cell in layer.cells]))
    return "\n".join(made)


def function(layer: Layer, name: str, expressions: Sequence[Expr], variable: str = "x") -> str:
    """Return an expression of one variable as a function of that and the direction `d`, which may have its own."""
    bodies = []
    for expression in expressions:
        made = write(expression, {variable: variable}, {variable: layer.ctype})
        bodies.append(f"{made.statements}\nreturn {made.result};")
    text = bodies[0]
    if len(set(bodies)) > 1:
        text = f"if (d == 0) {{\n{indented(bodies[0])}\n}}\n{bodies[1]}"
    head = f"static __device__ __forceinline__ C {name}(const C {variable}, const int d)"
    return f"{head} {{\n{indented(text)}\n}}\n"


def ending(given: Mapping[str, Ref], entry: str) -> str:
    """Return how many steps an entry of the batch has."""
    if "lengths" not in given:
        return "steps"
    return f"(i32)(lengths[{entry}] < 0 ? 0 : lengths[{entry}] > steps ? steps : lengths[{entry}])"


def placed(layer: Layer, step: str, end: str) -> str:
    """Return where a step of an entry that has `end` steps lies."""
    if layer.direction == "forward":
        return step
    turned = f"{step} < {end} ? {end} - 1 - {step} : {step}"
    return f"({turned})" if layer.direction == "reverse" else f"(d == 1 ? ({turned}) : {step})"


def unit(layer: Layer, tensors: Tensors, stage: Stage = "whole") -> str:
    """Return the statements of one step of unit `j` of entry `entry` in direction `d`.

    They read `a0` ..., for a linear GRU `fresh` beside, and `h_old`, `c_old`, `live`, `place`; they make `h_new`,
    `c_new`, in the first half of a GRU `z` and `reset`, and store the results of the step.
    """
    match layer.cell:
        case "rnn":
            lines = ["const C h_new = act0(a0, d);"]
        case "gru_linear":
            lines = ["const C z = act0(a0, d), reset = act0(a1, d);", "const C n = act1(fresh + reset * a2, d);"]
            lines += [_MIXED, *_kept(layer, tensors, ("z", "reset", "n", "a2"))]
        case "gru":
            lines = []
            if stage != "candidate":
                lines += ["const C z = act0(a0, d), reset = act0(a1, d);", *_kept(layer, tensors, ("z", "reset"))]
            if stage != "reset":
                lines += ["const C n = act1(a2, d);", _MIXED, *_kept(layer, tensors, ("n",), first=2)]
        case "lstm":
            lines = _lstm(layer, tensors)
    if "y" in tensors.results and stage != "reset":
        at = "place * y_step + d * y_direction + entry * y_entry + j * y_unit"
        lines.append(f"narrow(live ? h_new : (C)0, &y[{at}]);")
    return "\n".join(lines)


_MIXED = "const C h_new = n + z * (h_old - n);"


def _kept(layer: Layer, tensors: Tensors, values: Sequence[str], first: int = 0) -> list[str]:
    """Return the statements that store what a gradient reads of a step, from a gate on."""
    if "kept" not in tensors.results:
        return []
    width = 4 if layer.cell in ("gru_linear", "lstm") else 3
    lines = []
    for i, value in enumerate(values, first):
        row = f"((index)(place * DIRECTIONS + d) * batch + entry) * {width} + {i}"
        lines.append(f"narrow({value}, &kept[({row}) * hidden + j]);")
    return lines


def _lstm(layer: Layer, tensors: Tensors) -> list[str]:
    peepholes = "peepholes" in tensors.given

    def seen(gate: int, cell: str) -> str:
        return f"a{gate} + widen(peepholes[(d * 3 + {gate}) * hidden + j]) * {cell}" if peepholes else f"a{gate}"

    forget = "1 - i" if layer.input_forget else f"act0({seen(2, 'c_old')}, d)"
    lines = [
        f"const C i = act0({seen(0, 'c_old')}, d);",
        f"const C f = {forget};",
        "const C n = act1(a3, d);",
        "const C c_new = f * c_old + i * n;",
        f"const C o = act0({seen(1, 'c_new')}, d);",
        "const C h_new = o * act2(c_new, d);",
    ]
    lines += _kept(layer, tensors, ("i", "o", "f", "n"))
    if "cells" in tensors.results:
        lines.append("narrow(c_new, &cells[((index)(place * DIRECTIONS + d) * batch + entry) * hidden + j]);")
    return lines
