"""Sizes that only run time knows, as ONNX nodes: Shape of what has such an axis, and arithmetic on that."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from ....ops.dims import Atom, Dim, DimLike, Larger, Quotient, Shape
from ....ops.errors import SaveError
from ....ops.types import TensorType

if TYPE_CHECKING:
    from .writer import Writer

INT64 = np.dtype(np.int64)


class Sizes:
    """Writes dimensions as integer tensors.

    What has an axis of just that size is asked for its shape; else the dimension is computed from its symbols.
    """

    def __init__(self, writer: Writer) -> None:
        """Start knowing of no tensor."""
        self._writer = writer
        self._axes: dict[Dim, tuple[str, int]] = {}
        self._elements: dict[Dim, tuple[str, int, TensorType]] = {}
        self._whole: dict[Shape, str] = {}
        self._made: dict[DimLike, str] = {}

    def inside(self, writer: Writer) -> Sizes:
        """Return what a body of control flow may ask: what is known here."""
        made = Sizes(writer)
        made._axes, made._elements = dict(self._axes), dict(self._elements)
        made._whole, made._made = dict(self._whole), dict(self._made)
        return made

    def note(self, name: str, type_: TensorType) -> None:
        """Note which sizes a tensor can be asked for."""
        for axis, d in enumerate(type_.known_shape or ()):
            if isinstance(d, Dim):
                self._axes.setdefault(d, (name, axis))
        for i, d in enumerate(type_.contents or ()):
            if isinstance(d, Dim):
                self._elements.setdefault(d, (name, i, type_))
        if type_.contents and type_.ndim == 1 and type_.dtype == INT64:
            self._whole.setdefault(type_.contents, name)

    def vector(self, dims: Shape) -> str:
        """Return the name of a vector of these sizes."""
        if all(isinstance(d, int) for d in dims):
            return self._writer.constant(np.array(dims, np.int64))
        if dims in self._whole:
            return self._whole[dims]
        parts = list(self._parts(dims))
        return parts[0] if len(parts) == 1 else self._add("Concat", *parts, axis=0)

    def scalar(self, d: DimLike) -> str:
        """Return the name of a number."""
        if isinstance(d, int):
            return self._writer.constant(np.array(d, np.int64))
        if d in self._elements and self._elements[d][2].ndim == 0:
            return self._long(*self._elements[d][::2])
        return self._add("Squeeze", self.vector((d,)), np.array([0]))

    def _parts(self, dims: Shape) -> Iterator[str]:
        """Yield vectors that make up the sizes: runs of numbers, and of axes that follow each other in one tensor."""
        at = 0
        while at < len(dims):
            end = at + 1
            first = self._place(dims[at])
            while end < len(dims):
                numbers = isinstance(dims[at], int) and isinstance(dims[end], int)
                beside = first is not None and self._place(dims[end]) == (first[0], first[1] + end - at)
                if not numbers and not beside:
                    break
                end += 1
            if isinstance(dims[at], int):
                yield self._writer.constant(np.array(dims[at:end], np.int64))
            elif first is not None and end > at + 1:
                yield self._add("Shape", first[0], start=first[1], end=first[1] + end - at)
            else:
                yield self._one(dims[at])
            at = end

    def _add(self, op_type: str, *inputs: Any, **attrs: Any) -> str:
        made: str = self._writer.add(op_type, *inputs, **attrs)
        return made

    def _place(self, d: DimLike) -> tuple[str, int] | None:
        return self._axes.get(d) if isinstance(d, Dim) else None

    def _one(self, d: DimLike) -> str:
        """Return the name of a vector of one size."""
        if isinstance(d, int):
            return self._writer.constant(np.array([d], np.int64))
        made = self._made.get(d)
        if made is None:
            made = self._made[d] = self._computed(d)
        return made

    def _computed(self, d: Dim) -> str:
        if d in self._axes:
            name, axis = self._axes[d]
            return self._add("Shape", name, start=axis, end=axis + 1)
        if d in self._elements:
            name, i, t = self._elements[d]
            long = self._long(name, t)
            return self._add("Gather", long, np.array([i])) if t.ndim else self._add("Reshape", long, np.array([1]))
        if d.name is not None:
            raise SaveError(f"the size {d} belongs to no tensor that is written: it cannot be computed in the file")
        total = ""
        for monomial, coefficient in d.terms:
            term = "" if monomial and coefficient == 1 else self._one(coefficient)
            for atom in monomial:
                factor = self._atom(atom)
                term = self._add("Mul", term, factor) if term else factor
            total = self._add("Add", total, term) if total else term
        return total

    def _long(self, name: str, t: TensorType) -> str:
        return name if t.dtype == INT64 else self._add("Cast", name, to=7)

    def _atom(self, atom: Atom) -> str:
        if isinstance(atom, str):
            return self._one(Dim.symbol(atom))
        if isinstance(atom, Larger):
            return self._add("Max", self._one(atom.a), self._one(atom.b))
        assert isinstance(atom, Quotient)
        num, den = self._one(atom.num), self._one(atom.den)
        if atom.mod:
            return self._add("Mod", num, den)
        low = atom.num.lower_bound() if isinstance(atom.num, Dim) else atom.num
        if low is None or low < 0:  # Div rounds towards zero
            num = self._add("Sub", num, self._add("Mod", num, den))
        return self._add("Div", num, den)
