"""A site whose tensors lie in any order, with gaps that hold NaN, and halos of zeros."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import numpy as np
from hypothesis import strategies as st

from onnxgrad.ops.kernels.cpu import load_rules
from onnxgrad.ops.kernels.cpu.operand import Operand

from . import site
from .site import TestRef, TestSite

load_rules()


@dataclass(frozen=True)
class Lie:
    """How one tensor lies: a number that says in which order its axes lie, and how many places an element is apart."""

    order: int = 0
    gap: int = 1
    halo: bool = False


def lies(ranks: int = 4) -> st.SearchStrategy[Lie]:
    """Return ways to lie; most of them without gaps."""
    return st.builds(Lie, st.integers(0, 23), st.sampled_from([1, 1, 1, 2]), st.booleans())


@dataclass
class StridedSite(TestSite):
    """Gives out tensors that lie as `ways` says, inputs first, where a rule takes any order."""

    __test__ = False
    ways: tuple[Lie, ...] = field(default_factory=tuple)

    def _lying(self, dtype: Any, shape: tuple[Any, ...], way: Lie) -> tuple[Operand, Any, Any]:
        order, pool, left = [], list(range(len(shape))), way.order
        while pool:
            order.append(pool.pop(left % len(pool)))
            left //= len(pool) + 1
        strides: list[Any] = [0] * len(shape)
        step: Any = way.gap
        start: Any = 0
        for axis in reversed(order):
            low, high = (1, 2) if way.halo and axis >= 2 else (0, 0)
            strides[axis] = step
            start = start + low * step
            step = step * (shape[axis] + low + high)
        return Operand(np.dtype(dtype), shape, tuple(strides)), step, start

    def read(self, i: int, *, order: str = "any", halo: Any = (), item: int | None = None) -> TestRef:
        """Place an input."""
        if order != "any" or halo or item is not None or i >= len(self.ways):
            return super().read(i, order=order, halo=halo, item=item)
        operand, size, start = self._lying(self.types[i].dtype, self.types[i].shape, self.ways[i])
        return self._place(operand, self.arrays[i], size, start)

    def write(self, i: int = 0, *, order: str = "any") -> TestRef:
        """Make room for an output."""
        if order != "any" or i or not self.ways:
            return super().write(i, order=order)
        dtype = self.epilogue.dtype if self.epilogue else self.results[0].dtype
        operand, size, start = self._lying(dtype, self.results[0].shape, self.ways[-1])
        self.outputs[0] = TestRef(operand, self._bytes(size, dtype), start)
        return self.outputs[0]


@contextmanager
def lying(*ways: Lie) -> Iterator[None]:
    """Let `run_op` place inputs, and last the output, in these ways."""
    made = type("Site", (StridedSite,), {"__test__": False})

    def make(*args: Any, **kwargs: Any) -> StridedSite:
        return made(*args, ways=ways, **kwargs)  # type: ignore[no-any-return]

    with mock.patch.object(site, "TestSite", make):
        yield
