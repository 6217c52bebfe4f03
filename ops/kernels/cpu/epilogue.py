"""Writes epilogues: the pointwise tail of a kernel, on vectors along the output's innermost axis."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...types import BFLOAT16
from .casts import cast, round_to_bfloat16
from .emitter import F32, Emitter, V
from .expression import evaluate
from .lowering import Epilogue
from .operand import Operand


class Tail:
    """Where a kernel's results go: through the epilogue, if there is one, into the output.

    A kernel makes one with the coordinates at which it works, as far as they are known only at run time; each vector is
    then stored at constant distances from there. What lies in memory as bfloat16 is calculated with as float32.
    """

    def __init__(
        self, e: Emitter, output: Operand, pointer: V, epilogue: Epilogue | None, first: int,
        coordinates: Sequence[Any], inner: int,
    ) -> None:  # fmt: skip
        """Prepare.

        Args:
            e: the emitter.
            output: how the output lies.
            pointer: the address of its first element.
            epilogue: what to apply, or None.
            first: the number of the epilogue's first operand among the kernel's.
            coordinates: of the place, one for each logical axis of the output: ints, `Dim`s or IR values.
            inner: the axis along which vectors lie; the output has stride 1 there.
        """
        self.e, self.output, self.epilogue, self.inner = e, output, epilogue, inner
        self.place = _place(e, output, pointer, coordinates)
        operands = epilogue.operands if epilogue else ()
        self.operands = operands
        self.places = [_place(e, o, e.pointer(first + i), coordinates) for i, o in enumerate(operands)]

    def moved(self, axis: int, distance: Any) -> Tail:
        """Return the tail at coordinates this far along an axis, a distance that only run time knows."""
        e, tail = self.e, copy.copy(self)
        tail.place = e.at(self.place, e.mul(distance, self.output.strides[axis]), self.output.dtype)
        tail.places = [
            e.at(place, e.mul(distance, o.strides[axis]), o.dtype)
            for o, place in zip(self.operands, self.places, strict=True)
        ]
        return tail

    def store(self, x: V, offsets: Sequence[int], lanes: int, mask: V = None) -> None:
        """Apply the epilogue to a vector (or scalar, with lanes = 1) and store it.

        Args:
            x: the kernel's result.
            offsets: the distance from the coordinates, one for each logical axis.
            lanes: how many elements along the innermost axis.
            mask: which lanes exist; None for all.
        """
        e = self.e
        if self.epilogue is not None:
            values = {"x": x}
            for i, (operand, place) in enumerate(zip(self.operands, self.places, strict=True)):
                values[f"a{i}"] = self._load(operand, place, offsets, lanes, mask)
            x = evaluate(e, self.epilogue.expression, values, lanes, self.epilogue.dtype)
        if self.output.dtype == BFLOAT16 and getattr(x.type, "element", x.type) == F32:
            x = round_to_bfloat16(e, x)
        where = _moved(e, self.output, self.place, offsets)
        e.store(x, where, self.output.dtype, mask=mask)

    def _load(self, operand: Operand, place: V, offsets: Sequence[int], lanes: int, mask: V) -> V:
        e = self.e
        where = _moved(e, operand, place, offsets)
        if lanes == 1 or operand.strides[self.inner] == 0:
            value = e.splat(e.load(where, operand.dtype), lanes)
        else:
            value = e.load(where, operand.dtype, lanes, mask=mask)
        if np.dtype(operand.dtype).kind == "b":
            return e.b.icmp_unsigned("!=", value, e.constant(0, value.type))
        if operand.dtype == BFLOAT16:
            return cast(e, value, "bfloat16", "float32")
        return value


def _place(e: Emitter, operand: Operand, pointer: V, coordinates: Sequence[Any]) -> V:
    terms = [e.mul(c, s) for c, s in zip(coordinates, operand.strides, strict=True) if s != 0]
    return e.at(pointer, e.add(*terms), operand.dtype)


def _moved(e: Emitter, operand: Operand, place: V, offsets: Sequence[int]) -> V:
    terms = [e.mul(o, s) for o, s in zip(offsets, operand.strides, strict=True) if s != 0 and o != 0]
    return e.at(place, e.add(*terms), operand.dtype) if terms else place
