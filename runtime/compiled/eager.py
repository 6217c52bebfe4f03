"""Compiled kernels for ops that are called one at a time: a program of one op, kept for each signature.

Every signature is compiled when it first comes, so that results do not hang on what ran before; what has no kernel
stays with the array kernels.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...ops.dims import Dim, Shape
from ...ops.matmul import swapped
from ...ops.op import Kernel, Op
from ...ops.types import Array, TensorType
from ..graph.graph import Graph
from .program import Program

SIGNATURES = 512
"""How many signatures of an op are remembered; the one that was used longest ago goes first."""

_SYMBOLS = {letter: Dim.symbol(letter) for letter in "bt"}


def _lying(a: Array) -> tuple[Array, bool]:
    """Return an array as a program is fed it: with its last two axes swapped where it lies so."""
    if a.flags.c_contiguous or a.ndim < 2:
        return a, False
    turned = a.swapaxes(-1, -2)
    return (turned, True) if turned.flags.c_contiguous else (a, False)


class FastKernel:
    """The kernel of an op on plain arrays, compiled where that pays."""

    def __init__(self, op: Op, slow: Kernel, axes: Sequence[str] = ()) -> None:
        """Make it.

        Args:
            op: an op.
            slow: its array kernel.
            axes: for each argument its axes; those with a letter may have any size, the same for all of one letter.
        """
        self.op, self.slow, self.axes = op, slow, axes
        self._programs: OrderedDict[Any, Program | None] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, *args: Any, **attrs: Any) -> Any:
        """Compute."""
        program = self._program(args, attrs)
        if program is None:
            return self.slow(*args, **attrs)
        results, _ = program.run([_lying(a)[0] for a in args if type(a) is np.ndarray])
        return tuple(results) if len(results) > 1 else results[0]

    def _program(self, args: tuple[Any, ...], attrs: Mapping[str, Any]) -> Program | None:
        signature: list[Any] = []
        for i, a in enumerate(args):
            if type(a) is np.ndarray:
                if a.dtype.kind not in "fib" or a.size == 0:
                    return None
                signature.append((a.dtype, self._shape(i, a), _lying(a)[1]))
            elif a is None or isinstance(a, bool | int | float):
                signature.append(a)
            else:
                return None
        key = (*signature, *sorted(attrs.items()))
        with self._lock:
            if key not in self._programs:
                self._programs[key] = None
                while len(self._programs) > SIGNATURES:
                    self._programs.popitem(last=False)
            self._programs.move_to_end(key)
            found = self._programs[key]
        if found is None:
            found = self._compiled(args, attrs)
            with self._lock:
                self._programs[key] = found
        return found if found.native else None

    def _shape(self, i: int, a: Array) -> Shape:
        axes = self.axes[i] if self.axes else "." * a.ndim
        return tuple(n if s == "." else _SYMBOLS[s] for s, n in zip(axes, a.shape, strict=True))

    def _given(self, graph: Graph, i: int, a: Array) -> Any:
        """Add an input of the program, and return the argument that it is."""
        shape, turned = self._shape(i, a), _lying(a)[1]
        if not turned:
            return graph.input(f"x{i}", TensorType(a.dtype, shape))
        x = graph.input(f"x{i}", TensorType(a.dtype, (*shape[:-2], shape[-1], shape[-2])))
        return swapped(x)

    def _compiled(self, args: tuple[Any, ...], attrs: Mapping[str, Any]) -> Program:
        graph = Graph(self.op.name)
        with graph.building():
            given = [self._given(graph, i, a) if type(a) is np.ndarray else a for i, a in enumerate(args)]
            made = self.op(*given, **attrs)
        graph.outputs = list(made) if isinstance(made, tuple) else [made]
        return Program(graph)
