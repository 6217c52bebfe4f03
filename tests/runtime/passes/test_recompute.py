"""Computing cheap values again: less is kept, the numbers stay."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import onnxgrad as og
from onnxgrad import nn, optim
from onnxgrad.nn import functional as F
from onnxgrad.ops import pointwise as pw, reduce
from onnxgrad.ops.dims import Dim
from onnxgrad.ops.types import TensorType
from onnxgrad.runtime.graph.autodiff import differentiate
from onnxgrad.runtime.graph.execute import run_graph
from onnxgrad.runtime.graph.graph import Graph
from onnxgrad.runtime.passes.recompute import peak_bytes, recompute

F32 = np.dtype(np.float32)


def chain(length, size):
    """Return the gradient of a chain of matrix products with cheap nodes between them."""
    from onnxgrad.ops.matmul import matmul

    graph = Graph("chain")
    with graph.building():
        x = graph.input("x", TensorType(F32, (size, 16)))
        w = graph.input("w", TensorType(F32, (16, 16)))
        y = x
        for _ in range(length):
            y = matmul(y, w)
            y = pw.mul(y, pw.sigmoid(y))
        graph.outputs = [reduce.sum_(y)]
    return differentiate(graph, ["x", "w"])


@pytest.mark.parametrize("size", [32, Dim.symbol("n")])
def test_less_is_kept_and_the_numbers_stay(size):
    graph, env = chain(5, size), {"n": 32}
    before = str(graph)
    peak = peak_bytes(graph, env)
    result = recompute(graph, peak * 2 // 3, env)
    result.graph.verify()
    assert result.changed and peak_bytes(result.graph, env) <= peak * 2 // 3
    assert str(graph) == before, "the pass changed its input"
    rng = np.random.default_rng(0)
    feeds = [rng.standard_normal(s).astype(np.float32) for s in ((32, 16), (16, 16))]
    for a, b in zip(run_graph(graph, feeds), run_graph(result.graph, feeds), strict=True):
        np.testing.assert_array_equal(a, b)


def test_nothing_is_done_where_there_is_room_and_it_ends_where_nothing_helps():
    graph = chain(3, 32)
    assert recompute(graph, 1 << 30, {}).changed == 0
    least = recompute(graph, 0, {})
    least.graph.verify()
    assert 0 < peak_bytes(least.graph, {}) < peak_bytes(graph, {})


@pytest.mark.parametrize("engine", ["compiled", "array"])
def test_a_step_under_a_memory_limit(engine, monkeypatch):
    if engine == "array":
        monkeypatch.setenv("ONNXGRAD_CPU", "off")

    def step(m, o, x, y):
        o.zero_grad()
        loss = F.cross_entropy(m(x), y)
        loss.backward()
        o.step()
        return loss

    def trained(limit):
        og.manual_seed(0)
        layers = []
        for channels in (3, 8, 8, 8):
            layers += [nn.Conv2d(channels, 8, 3, padding=1), nn.BatchNorm2d(8), nn.SiLU()]
        m = nn.Sequential(*layers, nn.Flatten(), nn.Linear(512, 4))
        o, compiled = optim.SGD(m.parameters(), lr=0.05), og.compile(step, memory_limit_bytes=limit)
        losses = [compiled(m, o, x, y).item() for _ in range(3)]
        return losses, compiled.program(m, o, x, y).engine.arena_bytes({})

    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((8, 3, 8, 8)).astype(np.float32), rng.integers(0, 4, 8)
    losses, whole = trained(None)
    limit = int(whole * 0.8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found, taken = trained(limit)
    assert taken <= limit
    np.testing.assert_allclose(found, losses, rtol=1e-4, atol=1e-6)
    with pytest.warns(RuntimeWarning, match="more than the limit"):
        trained(1000)
