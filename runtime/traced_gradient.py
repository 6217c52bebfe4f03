"""Gradients of compiled functions: what a call returns knows its past, and backward through it is a program too.

The trace goes on behind the function's end: the gradients of its results by all that it was computed from, given those
of the results. What that reads of the forward part, the forward program returns beside the results.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from ..ops.errors import AutogradError
from ..ops.types import Array, TensorType, is_float
from .grad_mode import MODE
from .graph import Graph, Value
from .node import Edge, Node, Saved, Shaped, next_sequence
from .passes.rewriting import rebuild
from .tape import grad
from .tensor import Tensor
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
        tied = [results[i] for i in self.outputs]

        def vjp(g: Any, y: Any, *args: Any, **attrs: Any) -> tuple[Callable[[], Any] | None, ...]:
            if MODE.enabled:
                raise AutogradError("a compiled function has first derivatives only; call the function itself instead")
            gs = [np.zeros(t.shape, t.dtype) if a is None else np.asarray(a) for t, a in zip(tied, g, strict=True)]
            found: list[Sequence[Any]] = []

            def entry(i: int) -> Callable[[], Any]:
                def compute() -> Any:
                    if not found:
                        found.append(run([*saved, *gs]))
                    return np.asarray(found[0][i])

                return compute

            return tuple(entry(i) for i in range(len(sources)))

        node: Any = object.__new__(Node)
        node.op, node.attrs, node.several = SimpleNamespace(name="compiled", vjp=vjp), {}, True
        node.sequence, node.freed, node.saves, node.retained = next_sequence(), False, True, None
        edges: list[Edge | None] = [s._grad_edge() if s.requires_grad else None for s in sources]
        node.inputs = tuple(edges)
        node.args = tuple(Saved(s) for s in sources)
        node.shapes = tuple((t.shape, t.dtype) for t in tied)
        node.outputs = tuple(Shaped(*s) for s in node.shapes)
        for i, t in enumerate(tied):
            if is_float(t.dtype):
                t.requires_grad, t._edge = True, (node, i)
