"""Gradients of compiled functions: what a call returns knows its past, and backward through it is a program too.

The trace goes on behind the function's end: the gradients of its results by all that it was computed from, given those
of the results. What that reads of the forward part, the forward program returns beside the results.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ...ops.dims import Dim, symbols_in
from ...ops.errors import AutogradError
from ...ops.places import HOST, place_of
from ...ops.types import Array, TensorType, is_float
from ..autograd.node import Flow, Needed, Node
from ..autograd.saved import Saved
from ..autograd.tape import grad
from ..graph.graph import Graph, Node as GraphNode, Value
from ..passes.rewriting import rebuild
from ..tensor.tensor import Tensor
from .trace import Trace


class TracedGradient:
    """The backward part of a compiled function.

    Attributes:
        sources: values of the Tensors that gradients flow to, as the trace has them.
        saved: values of the forward part that it reads.
    """

    def __init__(self, trace: Trace, outputs: Sequence[Tensor]) -> None:
        """Trace it, behind the forward part.

        Args:
            trace: under way.
            outputs: the Tensors that the function returns.
        """
        graph = trace.graph
        self._nodes = len(graph.nodes)
        self.outputs = [i for i, t in enumerate(outputs) if t.requires_grad and t._edge is not None]
        self.owned = [o for o in trace.owned.values() if o.tensor.requires_grad and o.tensor._array is o.value]
        given = [Value(graph, TensorType(outputs[i].dtype, tuple(outputs[i].shape)), f"g{i}") for i in self.outputs]
        found = grad(
            [outputs[i] for i in self.outputs],
            [o.tensor for o in self.owned],
            [Tensor(g) for g in given],
            retain_graph=True,
            allow_unused=True,
        )
        self.owned = [o for o, g in zip(self.owned, found, strict=True) if g is not None]
        made = graph.nodes[self._nodes :]
        del graph.nodes[self._nodes :]
        results = [g._array for g in found if g is not None]
        inside = {v for node in made for v in node.outputs} | set(given)
        read = dict.fromkeys([v for node in made for v in node.inputs()] + results)
        self.saved = [v for v in read if not v.is_constant and v not in inside]
        self.saved += _binding([*self.saved, *given], graph.entries, made)
        part = Graph(f"{graph.name}.backward", inputs=[*self.saved, *given], outputs=results, nodes=made)
        self.graph = rebuild(part)

    def tie(
        self, results: Sequence[Tensor], sources: Sequence[Tensor], saved: Sequence[Array],
        run: Callable[[Sequence[Array]], Sequence[Any]],
    ) -> None:  # fmt: skip
        """Give Tensors that a run returned their past.

        Args:
            results: what the run returned.
            sources: the Tensors of `owned`, of this call.
            saved: the arrays of `saved`.
            run: computes the gradients by the sources of what was saved and the gradients of the results.
        """
        node = CompiledNode(sources, saved, [results[i] for i in self.outputs], run)
        for i, t in enumerate(results[i] for i in self.outputs):
            if is_float(t.dtype):
                t.requires_grad, t._edge = True, (node, i)


def _binding(there: Sequence[Value], others: Sequence[Value], nodes: Sequence[GraphNode]) -> list[Value]:
    """Return entries of the graph that bind sizes which nodes mention, and which nothing that is there binds."""
    wanted = {s for n in nodes for a in n.attrs.values() for s in symbols_in(a)} - _sizes(there)
    found = []
    for v in others:
        if v not in there and wanted & _sizes([v]):
            found.append(v)
            wanted -= _sizes([v])
    return found


def _sizes(values: Sequence[Value]) -> set[str]:
    """Return the symbols that shapes of values bind."""
    shapes = (v.type.known_shape for v in values if isinstance(v.type, TensorType))
    return {d.name for shape in shapes for d in shape or () if isinstance(d, Dim) and d.name is not None}


def _array(g: Any) -> Array:
    """Return a gradient as an array, where it lies."""
    return g if place_of(g) != HOST else np.asarray(g)


class CompiledNode(Node):
    """One call of a compiled function, whose backward is a program."""

    __slots__ = ("_run", "_saved", "_sources")

    def __init__(
        self, sources: Sequence[Tensor], saved: Sequence[Array], results: Sequence[Tensor],
        run: Callable[[Sequence[Array]], Sequence[Any]],
    ) -> None:  # fmt: skip
        """Record the call."""
        self.inputs = tuple(s._grad_edge() if s.requires_grad else None for s in sources)
        self.begin()
        self.saves = True
        self._sources: Sequence[Saved] = [Saved(s) for s in sources]
        self._saved, self._run = saved, run
        self.shapes = tuple((t.shape, t.dtype) for t in results)

    def name(self) -> str:
        """Return the name."""
        return "CompiledBackward"

    def gradients(self, gs: Sequence[Any], recorded: bool, needed: Needed | None) -> list[Flow]:
        """Run the program.

        Raises:
            AutogradError: where its own gradient would be wanted.
        """
        if recorded:
            raise AutogradError("a compiled function has first derivatives only; call the function itself instead")
        sources = [s.unpack(self, False) for s in self._sources]
        given = [np.zeros(*s) if g is None else _array(g) for s, g in zip(self.shapes, gs, strict=True)]
        found = self._run([*self._saved, *given])
        return [
            (i, _array(g), like)
            for i, (edge, g, like) in enumerate(zip(self.inputs, found, sources, strict=True))
            if edge is not None and (needed is None or needed(edge))
        ]

    def release(self) -> None:
        """Forget what was kept."""
        self._sources, self._saved, self.freed = (), (), True
