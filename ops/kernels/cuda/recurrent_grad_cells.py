"""What the kernels of gradients of recurrent layers share: the text of one step back of one hidden unit.

The text stands where `t`, `d`, `entry`, `j`, `step` and what `head` declares say which unit it is, and reads what
arrives: `arrived` at the state without the gradient of the step, `waiting` at an LSTM's cell, `inside` at the state
that a reset gate has multiplied. It makes `carry`, which goes on to the state before past the gates, and `cell_now`.

Axes: T steps, B batch, H hidden, D directions, G gates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from ...expr import Expr
from ..cpu.rnn import activation_expression
from .kernel import Ref
from .recurrent_cells import Layer, constants, function, placed
from .signature import Signature, is_wide

Half: TypeAlias = Literal["whole", "candidate", "reset"]
"""What of a step back is computed: all of it, or the two halves of a GRU whose reset gate multiplies the state."""

Slopes: TypeAlias = tuple[tuple[Expr, ...], ...]
"""The derivatives of each direction's activations, over their values `y`."""


@dataclass(frozen=True)
class Tensors:
    """What the kernels of a gradient read and write.

    Attributes:
        given: `gy`, `y`, which lie anyhow; `gh`, `gc`, `r`, `lengths`, `h0`, `c0`, `kept`, `cells`, without gaps.
        results: `gates`, `dh`, `dc`, `beside`, those that are wanted, without gaps.
    """

    given: Mapping[str, Ref]
    results: Mapping[str, Ref]

    @property
    def wide(self) -> bool:
        """Whether offsets need 64 bits."""
        return is_wide(*(ref.operand for ref in (*self.given.values(), *self.results.values())))


def functions(layer: Layer, slopes: Slopes) -> str:
    """Return the types, numbers and functions in front of a kernel."""
    made = [function(layer, f"slope{i}", [cell[i] for cell in slopes], "y") for i in range(len(slopes[0]))]
    if layer.cell == "lstm":
        made.append(function(layer, "act", [activation_expression(c[2], None) for c in layer.cells]))
    return constants(layer) + "\n".join(made)


def declare(s: Signature, layer: Layer, tensors: Tensors, given: Sequence[str], results: Sequence[str]) -> None:
    """Declare the sizes of a layer, what a step reads, and of the tensors those that are named beside."""
    for name in ("gy", "y"):
        if name in tensors.given:
            s.reads(name, tensors.given[name])
            for axis, stride in zip(_AXES, tensors.given[name].operand.strides, strict=True):
                s.size(f"{name}_{axis}", stride)
    for name in ("lengths", "h0", "c0", "kept", "cells", *given):
        if name in tensors.given:
            s.reads(name, tensors.given[name])
    for name in results:
        if name in tensors.results:
            s.writes(name, tensors.results[name])
    s.integer("steps", layer.steps)
    s.integer("batch", layer.batch)


_AXES = ("step", "direction", "entry", "unit")


def head(layer: Layer, tensors: Tensors, end: str) -> str:
    """Return the statements that say where a step and the one before lie, given how many steps its entry has."""
    forward, back = "place - 1", "(live ? place + 1 : place)"
    earlier = {"forward": forward, "reverse": back}.get(layer.direction, f"d == 1 ? {back} : {forward}")
    return (
        f"const bool live = {f'step < {end}' if 'lengths' in tensors.given else 'true'};\n"
        f"const index place = {placed(layer, 'step', end)};\n"
        f"const index earlier = {earlier};\n"
        "const index row = (place * DIRECTIONS + d) * batch + entry;\n"
        "const index made_row = (d * steps + place) * batch + entry;"
    )


def unit(layer: Layer, tensors: Tensors, half: Half = "whole") -> tuple[list[str], dict[int, str]]:
    """Return the statements of a step back of one unit, and each gate's gradient as the product with R reads it."""
    return _Unit(layer, tensors).text(half)


class _Unit:
    """The text of a step back."""

    def __init__(self, layer: Layer, tensors: Tensors) -> None:
        self.layer, self.given, self.results = layer, tensors.given, tensors.results

    def text(self, half: Half) -> tuple[list[str], dict[int, str]]:
        """Return the statements of half a step or a whole one, and the factors."""
        if half == "reset":
            return self._reset()
        arriving = f" + {self._at('gy', 'place')}" if "gy" in self.given else ""
        made = {"rnn": self._rnn, "gru": self._gru, "gru_linear": self._gru_linear, "lstm": self._lstm}
        lines, factors = made[self.layer.cell]()
        return [f"const C s = arrived{arriving};", *lines], factors

    def _at(self, name: str, place: str) -> str:
        """Return an element of steps (T, D, B, H) that lie anyhow."""
        axes = zip((place, "d", "entry", "j"), _AXES, strict=True)
        return f"(C)widen({name}[{' + '.join(f'{i} * {name}_{axis}' for i, axis in axes)}])"

    def _initial(self, name: str) -> str:
        return f"(C)widen({name}[t])" if name in self.given else "(C)0"

    def _gates(self, *names: str) -> list[str]:
        """Return the statements that read the gates of the step."""
        at = f"(row * {len(names)} + {{}}) * hidden + j"
        return [f"const C {name} = widen(kept[{at.format(i)}]);" for i, name in enumerate(names)]

    def _give(self, values: Mapping[int, str], result: str = "gates") -> list[str]:
        """Return the statements that store gradients of gates in a result."""
        if result not in self.results:
            return []
        width = self.results[result].operand.shape[3] // self.layer.hidden
        at = f"(made_row * {width} + {{}}) * hidden + j"
        return [f"narrow(live ? {v} : (C)0, &{result}[{at.format(g)}]);" for g, v in values.items()]

    def _before(self) -> str:
        return f"const C before = step == 0 ? {self._initial('h0')} : {self._at('y', 'earlier')};"

    def _rnn(self) -> tuple[list[str], dict[int, str]]:
        lines = [f"const C da = s * slope0({self._at('y', 'place')}, d);", "const C carry = live ? (C)0 : arrived;"]
        return lines + self._give({0: "da"}), {0: "da"}

    def _mixed(self) -> list[str]:
        """Return the statements of a GRU's update gate and candidate."""
        return [
            "const C dn = s * (1 - z) * slope1(n, d);",
            "const C dz = s * (before - n) * slope0(z, d);",
            "const C carry = live ? s * z : arrived;",
        ]

    def _gru_linear(self) -> tuple[list[str], dict[int, str]]:
        lines = [self._before(), *self._gates("z", "reset", "n", "inner"), *self._mixed()]
        lines += ["const C dr = dn * inner * slope0(reset, d);", "const C through = dn * reset;"]
        factors = {0: "dz", 1: "dr", 2: "through"}
        return lines + self._give({0: "dz", 1: "dr", 2: "dn"}) + self._give(factors, "beside"), factors

    def _gru(self) -> tuple[list[str], dict[int, str]]:
        lines = [self._before(), *self._gates("z", "reset", "n"), *self._mixed()]
        lines += self._give({0: "dz", 2: "dn"}) + self._give({0: "reset * before"}, "beside")
        return lines, {0: "dz", 2: "dn"}

    def _reset(self) -> tuple[list[str], dict[int, str]]:
        """Return the second half of a GRU's step: the gradient of the reset gate."""
        lines = [self._before(), *self._gates("z", "reset", "n")]
        lines.append("const C dr = inside * before * slope0(reset, d);")
        lines.append("const C carry = live ? arrived + inside * reset : arrived;")
        return lines + self._give({1: "dr"}), {1: "dr"}

    def _lstm(self) -> tuple[list[str], dict[int, str]]:
        coupled = self.layer.input_forget
        cells = "(C)widen(cells[((earlier * DIRECTIONS + d) * batch + entry) * hidden + j])"
        lines = [
            *self._gates("i", "o", "f", "n"),
            f"const C old = step == 0 ? {self._initial('c0')} : {cells};",
            "const C shown = act(widen(cells[row * hidden + j]), d);",
            "const C cell_arrived = waiting + s * o * slope2(shown, d);",
            f"const C di = cell_arrived * {'(n - old)' if coupled else 'n'} * slope0(i, d);",
            "const C dout = s * shown * slope0(o, d);",
            f"const C df = {'0' if coupled else 'cell_arrived * old * slope0(f, d)'};",
            "const C dn = cell_arrived * i * slope1(n, d);",
            "const C cell_now = live ? cell_arrived * f : waiting;",
            "const C carry = live ? (C)0 : arrived;",
        ]
        factors = {0: "di", 1: "dout", 2: "df", 3: "dn"}
        return lines + self._give(factors), factors
