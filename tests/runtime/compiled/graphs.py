"""Small graphs for the tests of the compiler, and what they should compute."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from onnxgrad.ops.dims import Dim, evaluate
from onnxgrad.ops.types import TensorType
from onnxgrad.runtime.compiled.program import Program
from onnxgrad.runtime.graph.execute import execute
from onnxgrad.runtime.graph.graph import Graph
from onnxgrad.runtime.graph.plan import make_plan
from onnxgrad.runtime.tensor.tensor import Tensor

F32 = np.dtype(np.float32)


def build(
    inputs: dict[str, Sequence[Any]], weights: dict[str, Any], body: Callable[..., Any], dtypes: Any = None
) -> Graph:
    """Return the graph of a function over inputs and weights, in this order."""
    g = Graph("test")
    with g.building():
        given = [
            g.input(n, TensorType(np.dtype((dtypes or {}).get(n, F32)), tuple(_dims(s)))) for n, s in inputs.items()
        ]
        state = [g.add_state(n, TensorType(a.dtype, a.shape)) for n, a in weights.items()]
        made = body(*given, *state)
    g.outputs = list(made) if isinstance(made, tuple) else [made]
    return g


def with_state_fed(graph: Graph) -> Graph:
    """Return the graph with its state as inputs behind the others."""
    found = copy.copy(graph)
    found.inputs, found.state = [*graph.inputs, *graph.state.values()], {}
    return found


def _dims(shape: Sequence[Any]) -> list[Any]:
    return [Dim.symbol(d) if isinstance(d, str) else d for d in shape]


def feeds_for(graph: Graph, env: dict[str, int] | None = None, seed: int = 0) -> list[Any]:
    """Return random inputs; integers are 0 or 1."""
    rng = np.random.default_rng(seed)
    found = []
    for v in graph.inputs:
        shape = [evaluate(d, env or {}) for d in v.shape]
        found.append(
            rng.standard_normal(shape).astype(v.dtype) if v.dtype.kind == "f" else rng.integers(0, 2, shape, v.dtype)
        )
    return found


def reference(graph: Graph, feeds: Sequence[Any], weights: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """Return what the array kernels compute."""
    keys = [np.zeros(2, np.uint64) for _ in graph.keys]
    outs, updates = execute(make_plan(graph), [*feeds, *keys, *(weights[n] for n in graph.state)])
    return list(outs), updates


def compare(
    graph: Graph, weights: dict[str, Any], env: dict[str, int] | None = None, *, program: Program | None = None,
    tolerance: float = 1e-4, threads: int = 1, seed: int = 0, guard: Any = None,
) -> Program:  # fmt: skip
    """Run a graph compiled and not, and compare; return the program."""
    feeds = feeds_for(graph, env, seed)
    before = [f.copy() for f in feeds]
    program = program or Program(graph, threads=threads, guard=guard)
    tensors = {n: Tensor(a) for n, a in weights.items()}
    for _ in range(2):
        outs, updates = program.run(feeds, tensors)
        wanted, changed = reference(graph, feeds, weights)
        assert len(outs) == len(wanted)
        assert updates.keys() == changed.keys()
        pairs = [*zip(outs, wanted, strict=True), *((updates[k], changed[k]) for k in updates)]
        for found, right in pairs:
            right = np.asarray(right)
            assert found.shape == right.shape
            assert found.dtype == right.dtype
            scale = float(np.abs(right).max()) if right.size and right.dtype.kind == "f" else 1.0
            np.testing.assert_allclose(found, right, rtol=tolerance, atol=tolerance * max(scale, 1e-3))
    for a, b in zip(feeds, before, strict=True):
        np.testing.assert_array_equal(a, b)
    return program


def kernels(program: Program) -> list[str]:
    """Return the names of the kernels that are called, in order."""
    return [call.kernel.name for stage in program.compiler.stages for call in stage.calls]


def on_host(program: Program) -> list[str]:
    """Return the names of the ops that run their array kernel."""
    return [stage.host.node.op.name for stage in program.compiler.stages if stage.host is not None]
