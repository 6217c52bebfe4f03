"""Transposes of products become products of transposes."""

from __future__ import annotations

import numpy as np
import pytest

from onnxgrad.ops import layout
from onnxgrad.ops.matmul import matmul
from onnxgrad.ops.pointwise import cast
from onnxgrad.ops.types import TensorType
from onnxgrad.runtime.graph.execute import run_graph
from onnxgrad.runtime.graph.graph import Graph
from onnxgrad.runtime.passes.turn_products import turn_products


def built(a, b, perm, twice=False, result=False, casts=()):
    graph = Graph("products")
    with graph.building():
        x, w = (graph.input(n, TensorType(np.dtype(np.float64), s)) for n, s in (("x", a), ("w", b)))
        product = matmul(x, w)
        for dtype in casts:
            product = cast(product, dtype=dtype)
        graph.outputs = [layout.transpose(product, perm=perm)]
        if twice:
            graph.outputs.append(layout.transpose(product, perm=tuple(range(product.ndim))))
        if result:
            graph.outputs.append(product)
    return graph


@pytest.mark.parametrize(
    ("graph", "changed"),
    [
        (built((3, 4), (4, 5), (1, 0)), 1),
        (built((3, 4), (4, 5), None), 1),
        (built((2, 3, 4), (2, 4, 5), (0, 2, 1)), 1),
        (built((2, 3, 4), (2, 4, 5), (1, 0, 2)), 0),
        (built((2, 3, 4), (4, 5), (0, 2, 1)), 0),
        (built((3, 4), (4, 5), (0, 1)), 0),
        (built((3, 4), (4, 5), (1, 0), twice=True), 0),
        (built((3, 4), (4, 5), (1, 0), result=True), 0),
        (built((3, 4), (4, 5), (1, 0), casts=("float32",)), 1),
        (built((2, 3, 4), (2, 4, 5), (0, 2, 1), casts=("float32", "float64")), 1),
        (built((3, 4), (4, 5), (0, 1), casts=("float32",)), 0),
        (built((3, 4), (4, 5), (1, 0), result=True, casts=("float32",)), 0),
        (built((3, 4), (4, 5), (1, 0), twice=True, casts=("float32",)), 0),
    ],
)
def test_cases(graph, changed):
    found = turn_products(graph)
    found.graph.verify()
    assert found.changed == changed
    rng = np.random.default_rng(0)
    feeds = [rng.standard_normal(v.shape) for v in graph.inputs]
    for a, b in zip(run_graph(graph, feeds), run_graph(found.graph, feeds), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=1e-12 if a.dtype == np.float64 and not _rounds(graph) else 1e-6)


def _rounds(graph):
    return any(node.op is cast for node in graph.nodes)


def test_what_is_left():
    """A cast follows the product that was turned, and the transposes are of its factors."""
    (node,) = (turn_products(built((3, 4), (4, 5), (1, 0), casts=("float32",))).graph.outputs[0].node,)
    assert node.op is cast
    product = node.args[0].node
    assert product.op is matmul and [a.node.op for a in product.args] == [layout.transpose] * 2
