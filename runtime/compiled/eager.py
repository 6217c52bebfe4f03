"""Compiled kernels for ops that are called one at a time: a program of one op, kept for each signature.

Every signature is compiled when it first comes, so that results do not hang on what ran before; what has no kernel
stays with the array kernels.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np

from ...ops.op import Kernel, Op
from ...ops.types import TensorType
from ..graph import Graph
from .program import Program

SIGNATURES = 512
"""How many signatures of an op are remembered; the one that was used longest ago goes first."""


class FastKernel:
    """The kernel of an op on plain arrays, compiled where that pays."""

    def __init__(self, op: Op, slow: Kernel) -> None:
        """Make it of an op and its array kernel."""
        self.op, self.slow = op, slow
        self._programs: OrderedDict[Any, Program | None] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, *args: Any, **attrs: Any) -> Any:
        """Compute."""
        program = self._program(args, attrs)
        if program is None:
            return self.slow(*args, **attrs)
        results, _ = program.run([a for a in args if type(a) is np.ndarray])
        return tuple(results) if len(results) > 1 else results[0]

    def _program(self, args: tuple[Any, ...], attrs: Mapping[str, Any]) -> Program | None:
        signature: list[Any] = []
        for a in args:
            if type(a) is np.ndarray:
                if a.dtype.kind not in "fib" or a.size == 0:
                    return None
                signature.append((a.dtype, a.shape))
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

    def _compiled(self, args: tuple[Any, ...], attrs: Mapping[str, Any]) -> Program:
        graph = Graph(self.op.name)
        with graph.building():
            given = [
                graph.input(f"x{i}", TensorType(a.dtype, a.shape)) if type(a) is np.ndarray else a
                for i, a in enumerate(args)
            ]
            made = self.op(*given, **attrs)
        graph.outputs = list(made) if isinstance(made, tuple) else [made]
        return Program(graph)
