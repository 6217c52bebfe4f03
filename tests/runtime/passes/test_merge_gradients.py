"""Products of one operand with several matrices, and the products of backward, become one of each kind."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from onnxgrad.ops import layout, pointwise as pw
from onnxgrad.ops.broadcast import sum_to
from onnxgrad.ops.matmul import matmul
from onnxgrad.ops.types import TensorType
from onnxgrad.runtime.graph.execute import run_graph
from onnxgrad.runtime.graph.graph import Graph
from onnxgrad.runtime.passes.drop_dead import drop_dead
from onnxgrad.runtime.passes.merge_equal import merge_equal
from onnxgrad.runtime.passes.merge_gradients import merge_gradients
from onnxgrad.runtime.passes.rewriting import run_passes
from onnxgrad.runtime.tracing.engine import CUDA_PASSES, PASSES

F32 = np.dtype(np.float32)
K, LEAD = 8, (2, 4)


def half(x):
    return pw.cast(x, dtype="bfloat16")


def wide(x):
    return pw.cast(x, dtype="float32")


def turn(x):
    return layout.transpose(x, perm=(1, 0))


def step(sizes=(6, 6, 6), *, biases=True, weights=True, residual=True, spoils="", widens=True, stored=False):
    """Return forward and backward of several products of one operand, as autodiff writes them."""
    graph = Graph("step")

    def given(name, *shape):
        return graph.input(name, TensorType(F32, shape))

    with graph.building():
        x, r = half(given("x", *LEAD, K)), given("r", *LEAD, K)
        results, gradients, matrices, turned, outputs = [], [], [], [], []
        for i, n in enumerate(sizes):
            w = given(f"w{i}", n, K)
            matrices.append(turn(half(w)) if stored else half(turn(w)))
            turned.append(half(w) if stored else turn(matrices[i]))
            y = matmul(x if (spoils, i) != ("operand", 1) else half(given("other", *LEAD, K)), matrices[i])
            bias = half(given(f"b{i}", n)) if (spoils, i) != ("bias", 1) else half(sum_to(wide(results[0]), shape=(n,)))
            y = pw.add(y, bias) if biases else y
            results.append(y)
            gradients.append(pw.mul(y, 0.5 + i))
        total = r if residual else None
        for i, n in enumerate(sizes):
            g = gradients[i]
            term = matmul(g, turned[i])
            term = wide(term) if widens else term
            total = term if total is None else pw.add(total, term)
            rows = layout.reshape(g, shape=(LEAD[0] * LEAD[1], n))
            if weights:
                outputs.append(wide(matmul(turn(rows), layout.reshape(x, shape=(-1, K)))))
            if biases:
                outputs.append(wide(sum_to(g, shape=(n,))))
        outputs += [total, *([gradients[0]] if spoils == "gradient" else [])]
        outputs += [matmul(x, matrices[1])] if spoils == "matrix" else []
        outputs += [pw.neg(outputs[0])] if spoils == "nothing" else []
    graph.outputs = outputs
    return merge_equal(graph).graph


def counts(graph):
    """Return how many nodes of each op of interest there are."""
    found = Counter(node.op.name for node in graph.nodes)
    return {name: found[name] for name in ("matmul", "sum_to")}


def run(graph):
    """Run a graph on numbers by the names of its inputs."""
    rng = {v.name: np.random.default_rng(i) for i, v in enumerate(sorted(graph.inputs, key=lambda v: v.name))}
    return run_graph(graph, [rng[v.name].standard_normal(v.shape).astype(F32) for v in graph.inputs])


def same(before, after):
    for a, b in zip(run(before), run(after), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        np.testing.assert_allclose(a.astype(F32), b.astype(F32), rtol=4e-2, atol=0.4)


@pytest.mark.parametrize(
    ("how", "matmuls", "sums"),
    [
        ({}, 3, 1),
        ({"sizes": (6, 4)}, 3, 1),
        ({"biases": False}, 3, 0),
        ({"weights": False}, 2, 1),
        ({"residual": False}, 3, 1),
        ({"residual": False, "widens": False}, 3, 1),
        ({"spoils": "nothing"}, 3, 1),
        ({"stored": True}, 3, 1),
        ({"stored": True, "sizes": (6, 4), "residual": False}, 3, 1),
    ],
)
def test_one_product_of_each_kind(how, matmuls, sums):
    graph = step(**how)
    found = run_passes(graph, [merge_gradients, merge_equal, drop_dead]).graph
    assert merge_gradients(graph).changed == 1
    assert counts(found) == {"matmul": matmuls, "sum_to": sums}
    assert sum(n.op is layout.concat and n.args[0].ndim == 2 for n in found.nodes) == 1  # forward and backward share it
    same(graph, found)


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("spoils", ["gradient", "matrix", "operand", "bias"])
def test_what_is_read_otherwise_stays(spoils, stored):
    graph = step(spoils=spoils, stored=stored)
    assert merge_gradients(graph).changed == 0 and merge_gradients(graph).graph is graph


def test_one_product_stays():
    assert merge_gradients(step(sizes=(6,))).changed == 0


def test_for_devices_alone():
    assert merge_gradients in CUDA_PASSES and merge_gradients not in PASSES
