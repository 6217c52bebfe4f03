"""Equal nodes become one; what only looks equal stays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from onnxgrad.ops import create, layout, pointwise as pw, random, reduce as red
from onnxgrad.ops.dims import Dim
from onnxgrad.ops.random import KEY_TYPE
from onnxgrad.ops.types import TensorType
from onnxgrad.runtime.graph.contents import dims_of
from onnxgrad.runtime.graph.execute import run_graph
from onnxgrad.runtime.graph.graph import Graph
from onnxgrad.runtime.passes.merge_equal import merge_equal

from .graphs import F64, Built, built, checked, normal, op_names, unchanged

n = Dim.symbol("n")
X = normal(4, 3)


def test_chains_that_are_equal_become_one() -> None:
    def make(b: Built) -> Any:
        x = b.input(X, (n, 3))

        def side() -> Any:
            shifted = pw.add(x, b.graph.constant(np.array(2.0)))
            return red.sum_(pw.exp(pw.mul(shifted, 0.5)), axes=(1,))

        return pw.sub(pw.mul(side(), 3.0), side())

    found = checked(built(make), merge_equal, [2 * np.exp((X + 2) / 2).sum(1)])
    assert op_names(found) == ["add", "mul", "exp", "sum", "mul", "sub"]


def test_nodes_of_several_outputs_and_lists() -> None:
    def make(b: Built) -> Any:
        x = b.input(X)
        one, two = (layout.split(x, axis=1, sizes=(1, 2)) for _ in range(2))
        return layout.concat(one[1], two[1], two[0], axis=1)

    wanted = X[:, [1, 2, 1, 2, 0]]
    assert op_names(checked(built(make), merge_equal, [wanted])) == ["split", "concat"]


def test_draws_of_one_key() -> None:
    g = Graph()
    key, size = g.input("key", KEY_TYPE), g.constant(np.array([5]))
    with g.building():
        a, c = (random.random_normal(key, size, mean=0.0, std=1.0, dtype="float64") for _ in range(2))
        g.outputs = [pw.sub(a, c)]
    assert [v.op.name for v in merge_equal(g).graph.nodes] == ["random_normal", "sub"]


def _other_attribute(b: Built) -> Any:
    x = b.input(X)
    return red.sum_(x, axes=(0,)), red.sum_(x, axes=(1,))


def _other_number(b: Built) -> Any:
    x = b.input(X)
    return pw.mul(x, 0.0), pw.mul(x, -0.0), pw.mul(x, 1), pw.mul(x, 1.0)


def _other_bytes(b: Built) -> Any:
    x = b.input(X)
    return pw.add(x, b.graph.constant(np.zeros(3))), pw.add(x, b.graph.constant(-np.zeros(3)))


def _other_order(b: Built) -> Any:
    x, y = b.input(X), b.input(X)
    return pw.sub(x, y), pw.sub(y, x)


def _large_constants(b: Built) -> Any:
    x = b.input(normal(1000))
    return tuple(pw.add(x, b.graph.constant(np.ones(1000))) for _ in range(2))


@pytest.mark.parametrize("make", [_other_attribute, _other_number, _other_bytes, _other_order, _large_constants])
def test_near_misses_stay(make: Callable[[Built], Any]) -> None:
    unchanged(built(make), merge_equal)


def test_sizes_that_only_run_time_knows_stay_named() -> None:
    """Two slices of unknown length are equal, but each names its length, and later nodes mention the names."""
    g = Graph()
    x, i = g.input("x", TensorType(F64, (n,))), g.input("i", TensorType(np.dtype(np.int64), (1,)))
    with g.building():
        (stop,) = dims_of(i)
        parts = [layout.slice_(x, starts=(0,), stops=(stop,), steps=(1,), axes=(0,)) for _ in range(2)]
        g.outputs = [layout.reshape(p, shape=(p.shape[0], 1)) for p in parts]
        assert create.shape_of(parts[0]).type != create.shape_of(parts[1]).type
    a = normal(5)
    for found in run_graph(merge_equal(g).graph, [a, np.array([3])]):
        np.testing.assert_array_equal(found, a[:3, None])
