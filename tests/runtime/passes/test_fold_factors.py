"""Factors of gradients go into the updates and norms that read them, where nothing else does."""

from __future__ import annotations

import numpy as np
import pytest

from onnxgrad.ops import pointwise as pw
from onnxgrad.ops.op import OPS
from onnxgrad.ops.optimize import adam_update, gradient_norm, sgd_update
from onnxgrad.ops.types import BFLOAT16, TensorType
from onnxgrad.runtime.graph.execute import run_graph
from onnxgrad.runtime.graph.graph import Graph
from onnxgrad.runtime.passes.fold_factors import fold_factors
from onnxgrad.runtime.tracing.engine import CUDA_PASSES, PASSES

SHAPES = [(3, 4), (5,), ()]
SGD = {"decays": False, "nesterov": False}


def step(dtype="float32", *, clip=True, check=True, keep=(), factors=1, late=False):
    """Return the graph of a step of gradients that are scaled back, checked, and clipped.

    Args:
        dtype: of parameters and gradients.
        clip: whether the norm is there, and clips.
        check: whether what is infinite is sought.
        keep: numbers of the scaled gradients that are outputs too.
        factors: how many different ones gradients are scaled by.
        late: whether the first factor hangs on the check.
    """
    half = np.dtype(dtype)
    graph = Graph("step")
    with graph.building():
        scales = [graph.input(f"scale{i}", TensorType(np.dtype(np.float32), ())) for i in range(factors)]
        numbers = graph.input("numbers", TensorType(half, (4,)))
        ps, gs = ([graph.input(f"{n}{i}", TensorType(half, s)) for i, s in enumerate(SHAPES)] for n in "pg")
        inverses = [pw.reciprocal(s) for s in scales]
        found = gradient_norm(gs, [], p=2.0)[1] if check else None
        if late:
            inverses[0] = pw.reciprocal(pw.add(scales[0], found))
        scaled = [pw.mul(g, pw.cast(inverses[i % factors], dtype=str(half))) for i, g in enumerate(gs)]
        ends = scaled
        if clip:
            norm, _ = gradient_norm(scaled, [], p=2.0)
            factor = pw.div(0.5, pw.add(norm, 1e-6))
            ends = [pw.mul(g, pw.cast(factor, dtype=str(half))) for g in scaled]
        graph.outputs = [sgd_update(p, g, None, numbers, found, **SGD)[0] for p, g in zip(ps, ends, strict=True)]
        graph.outputs += [scaled[i] for i in keep] + ([norm] if clip else []) + ([found] if check else [])
    return graph


def feeds_of(graph, bad=False):
    rng = np.random.default_rng(0)
    made = {v.name: np.asarray(rng.standard_normal(v.shape)).astype(v.dtype) for v in graph.inputs}
    made["numbers"][...] = [0.1, 0, 0, 0]
    for name in made:
        if name.startswith("scale"):
            made[name] = np.array(8.0, np.float32)
    if bad:
        made["g1"][2] = np.inf
    return [made[v.name] for v in graph.inputs]


def ops(graph, name):
    return [n for n in graph.nodes if n.op is OPS[name]]


@pytest.mark.parametrize(
    ("how", "products", "norms", "taken"),
    [
        ({}, 0, 1, [2, 2, 2]),
        ({"dtype": BFLOAT16}, 0, 1, [2, 2, 2]),
        ({"clip": False}, 0, 1, [1, 1, 1]),
        ({"check": False}, 0, 1, [2, 2, 2]),
        ({"clip": False, "check": False}, 0, 0, [1, 1, 1]),
        ({"keep": (0,)}, 3, 2, [1, 1, 1]),
        ({"keep": (0,), "clip": False}, 1, 1, [0, 1, 1]),
        ({"factors": 2}, 3, 2, [1, 1, 1]),
        ({"factors": 2, "clip": False}, 0, 1, [1, 1, 1]),
        ({"late": True}, 0, 2, [2, 2, 2]),
    ],
)
def test_what_is_folded(how, products, norms, taken):
    graph = step(**how)
    found = fold_factors(graph)
    found.graph.verify()
    assert found.changed
    assert len(ops(found.graph, "mul")) == products
    assert len(ops(found.graph, "gradient_norm")) == norms
    updates = ops(found.graph, "sgd_update")
    assert [len(n.args[5]) if len(n.args) > 5 else 0 for n in updates] == taken
    assert fold_factors(found.graph).changed == 0
    tol = 2e-2 if how.get("dtype") == BFLOAT16 else 1e-6
    for bad in (False, True) if how.get("check", True) else (False,):
        feeds = feeds_of(graph, bad)
        with np.errstate(all="ignore"):
            pairs = zip(run_graph(graph, feeds), run_graph(found.graph, feeds), strict=True)
            for a, b in pairs:
                assert a.dtype == b.dtype
                np.testing.assert_allclose(a.astype(np.float64), b.astype(np.float64), rtol=tol, atol=tol)


def test_a_product_that_an_update_reads_twice_is_made():
    graph = Graph("twice")
    one = TensorType(np.dtype(np.float32), ())
    with graph.building():
        p, g = (graph.input(n, TensorType(np.dtype(np.float32), (3,))) for n in "pg")
        numbers = graph.input("numbers", TensorType(np.dtype(np.float32), (7,)))
        scaled = pw.mul(g, graph.input("scale", one))
        graph.outputs = [adam_update(p, scaled, scaled, p, None, numbers, decays=False, decoupled=False)[0]]
    assert fold_factors(graph).changed == 0


def test_graphs_without_updates_stay_themselves():
    graph = Graph("plain")
    with graph.building():
        x = graph.input("x", TensorType(np.dtype(np.float32), (3,)))
        graph.outputs = [pw.mul(x, graph.input("f", TensorType(np.dtype(np.float32), ())))]
    assert fold_factors(graph).graph is graph


def test_it_is_for_devices():
    assert fold_factors in CUDA_PASSES and fold_factors not in PASSES
