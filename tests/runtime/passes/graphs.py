"""Small graphs, how they run before and after a pass, and what is in them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from onnxgrad.ops.types import TensorType
from onnxgrad.runtime.graph.execute import run_graph
from onnxgrad.runtime.graph.graph import Graph, Value
from onnxgrad.runtime.passes.drop_dead import drop_dead
from onnxgrad.runtime.passes.matching import weight_values
from onnxgrad.runtime.passes.rewriting import Pass

F32, F64 = np.dtype(np.float32), np.dtype(np.float64)
rng = np.random.default_rng(7)


class Built:
    """A graph of one pass's test: inputs and state come with the arrays that they are run on."""

    def __init__(self) -> None:
        self.graph = Graph("net")
        self.feeds: dict[str, Any] = {}

    def input(self, array: Any, shape: Sequence[Any] | None = None) -> Value:
        """Add an input of this array's type, or of a symbolic shape."""
        name = f"x{len(self.feeds)}"
        self.feeds[name] = array
        return self.graph.input(name, TensorType(array.dtype, tuple(shape or array.shape)))

    def weight(self, array: Any) -> Value:
        """Add a piece of state."""
        name = f"w{len(self.feeds)}"
        self.feeds[name] = array
        return self.graph.add_state(name, TensorType(array.dtype, array.shape))

    def run(self, graph: Graph) -> list[Any]:
        """Run a graph on the arrays of this one."""
        return list(run_graph(graph, [self.feeds[v.name] for v in graph.entries]))


def normal(*shape: int, dtype: Any = F64) -> Any:
    return rng.standard_normal(shape).astype(dtype)


def positive(*shape: int, dtype: Any = F64) -> Any:
    return rng.uniform(0.5, 2, shape).astype(dtype)


def built(make: Callable[[Built], Any]) -> Built:
    """Return the graph that a function builds; it returns the output, or several."""
    b = Built()
    with b.graph.building():
        out = make(b)
    b.graph.outputs = list(out) if isinstance(out, tuple) else [out]
    return b


def op_names(graph: Graph) -> list[str]:
    """Return the ops of a graph without those that compute of weights alone, which run once."""
    weights = weight_values(graph)
    return [n.op.name for n in graph.nodes if not all(v in weights for v in n.outputs)]


def checked(b: Built, rewrite: Pass, wanted: Sequence[Any] | None = None, *, rtol: float = 1e-9) -> Graph:
    """Return what a pass makes of a graph, without dead nodes, once it computes the same, and what is `wanted`."""
    before = b.run(b.graph)
    result = rewrite(b.graph)
    result.graph.verify()
    assert [v.name for v in result.graph.outputs] == [v.name for v in b.graph.outputs]
    clean = drop_dead(result.graph).graph
    clean.verify()
    after = b.run(clean)
    for found, was in zip(after, before, strict=True):
        assert found.dtype == was.dtype
        np.testing.assert_allclose(found, was, rtol=rtol, atol=rtol)
    for found, want in zip(after, wanted or (), strict=False):
        np.testing.assert_allclose(found, want, rtol=rtol, atol=rtol)
    return clean


def unchanged(b: Built, rewrite: Pass) -> None:
    """Check that a pass finds nothing in a graph."""
    result = rewrite(b.graph)
    assert result.changed == 0
    assert result.graph is b.graph
