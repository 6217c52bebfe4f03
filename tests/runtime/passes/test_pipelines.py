"""The DEVICE pipeline as a whole: real models, training graphs and graphs with bodies compute what they did."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxgrad.importers.onnx.model import load
from onnxgrad.ops import layout, pointwise as pw, reduce as red
from onnxgrad.ops.conv import conv
from onnxgrad.ops.create import shape_of
from onnxgrad.ops.dims import Dim
from onnxgrad.ops.index import nonzero
from onnxgrad.ops.matmul import matmul, swapped
from onnxgrad.ops.normalize import batch_norm, softmax
from onnxgrad.ops.types import TensorType
from onnxgrad.runtime.graph.autodiff import differentiate
from onnxgrad.runtime.graph.execute import execute, plan_of
from onnxgrad.runtime.graph.graph import Graph
from onnxgrad.runtime.passes.drop_dead import drop_dead
from onnxgrad.runtime.passes.enter_training import enter_training
from onnxgrad.runtime.passes.pipelines import DEVICE
from onnxgrad.runtime.passes.rewriting import run_passes

from ...shared_data import find_shared
from .graphs import Built, built, normal, op_names, positive
from .test_fold_norms import window

LARGE_BYTES = 20_000_000
LONG = {"style-candy-std", "dnsmos-sig-bak-ovr"}
SHARED = find_shared()
FOLDERS = sorted(p.parent for p in (SHARED / "models").glob("*/io.npz")) if SHARED else []
n = Dim.symbol("n")


def is_slow(folder: Path) -> bool:
    return folder.name in LONG or (folder / "model.onnx").stat().st_size > LARGE_BYTES


def run_both(before: Graph, after: Graph, feeds: dict[str, Any]) -> tuple[Any, Any]:
    one, other = (execute(plan_of(g), [feeds[v.name] for v in g.entries]) for g in (before, after))
    return one, other


def close(found: Any, wanted: Any, tolerance: float) -> None:
    if isinstance(wanted, list):
        for f, w in zip(found, wanted, strict=True):
            close(f, w, tolerance)
        return
    assert found.shape == wanted.shape
    assert found.dtype == wanted.dtype
    if wanted.dtype.kind != "f":
        np.testing.assert_array_equal(found, wanted)
        return
    finite = wanted[np.isfinite(wanted)]
    atol = tolerance * max(float(np.abs(finite).max(initial=0)), 1e-30)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=atol)


@pytest.mark.parametrize(
    "folder",
    [pytest.param(f, id=f.name, marks=[pytest.mark.slow] * is_slow(f)) for f in FOLDERS],
)
def test_real_models_compute_the_same(folder: Path) -> None:
    model = load(folder / "model.onnx")
    graph = model.graph
    device = run_passes(graph, DEVICE).graph
    draws = np.random.default_rng(zlib.crc32(folder.name.encode()))
    feeds: dict[str, Any] = {name: t.array for name, t in model._state.items()}
    with np.load(folder / "io.npz") as io:
        given = {k[3:]: io[k] for k in io.files if k.startswith("in:")}
    for v in graph.inputs:
        x = given[v.name]
        if x.dtype.kind == "U":
            x = x.astype(object)
        elif x.dtype.kind == "f":
            like = x.astype(np.float64)
            x = draws.standard_normal(x.shape) * max(float(like.std()), 1e-3) + like.mean()
        feeds[v.name] = x.astype(v.dtype) if isinstance(v.type, TensorType) else x
    feeds["rng_key"] = np.array([1, 2], np.uint64)
    wanted, found = run_both(graph, device, feeds)
    for f, w in zip(found[0], wanted[0], strict=True):
        close(f, w, 1e-4)


def network(b: Built) -> Any:
    """Return a net that all passes have something to do in, in what NumPy's array kernels compute."""
    x = b.input(normal(2, 6, 6, 3), (n, 6, 6, 3))
    y = conv(layout.transpose(x, perm=(0, 3, 1, 2)), b.weight(normal(8, 3, 3, 3)), win=window())
    y = batch_norm(y, *(b.weight(positive(8)) for _ in range(4)), epsilon=1e-5)
    y = layout.reshape(pw.relu(layout.transpose(y, perm=(0, 2, 3, 1))), shape=(n, 36, 8))
    c = pw.sub(y, red.mean(y, axes=(-1,), keepdims=True))
    v = pw.add(red.mean(pw.pow_(c, 2.0), axes=(-1,), keepdims=True), 1e-5)
    y = pw.add(pw.mul(pw.div(c, pw.sqrt(v)), b.weight(normal(8))), b.weight(normal(8)))
    q, k, s = (pw.add(matmul(y, b.weight(normal(8, 8))), b.weight(normal(8))) for _ in range(3))
    q, k, s = (layout.transpose(layout.reshape(t, shape=(n, 36, 2, 4)), perm=(0, 2, 1, 3)) for t in (q, k, s))
    p = softmax(pw.div(matmul(q, swapped(k)), 2.0), axis=3)
    return layout.reshape(layout.transpose(matmul(p, s), perm=(0, 2, 1, 3)), shape=(n, 36, 8))


def test_every_pattern_of_a_network_is_found() -> None:
    b = built(network)
    device = run_passes(b.graph, DEVICE).graph
    names = op_names(device)
    wanted = {"conv": 1, "batch_norm": 0, "layer_norm": 1, "attention": 1, "softmax": 0, "mean": 0, "sqrt": 0, "pow": 0}
    assert {k: names.count(k) for k in wanted} == wanted
    np.testing.assert_allclose(b.run(device)[0], b.run(b.graph)[0], rtol=1e-9, atol=1e-9)


def test_a_second_run_finds_nothing_more() -> None:
    device = run_passes(built(network).graph, DEVICE).graph
    assert op_names(run_passes(device, DEVICE).graph) == op_names(device)


@pytest.mark.parametrize("stop", range(len(DEVICE) + 1))
def test_every_stop_computes_the_same(stop: int) -> None:
    b = built(network)
    after = run_passes(b.graph, DEVICE, stop_after=stop).graph
    np.testing.assert_allclose(b.run(after)[0], b.run(b.graph)[0], rtol=1e-9, atol=1e-9)


def test_training_and_its_gradients_compute_the_same() -> None:
    b = built(network)
    with b.graph.building():
        b.graph.outputs = [red.sum_to(pw.mul(b.graph.outputs[0], b.graph.outputs[0]), shape=())]
    training = enter_training(b.graph).graph
    whole = differentiate(training, [name for name in training.state if name not in training.updates])
    assert set(whole.updates) == set(training.updates) != set()
    wanted, found = run_both(whole, run_passes(whole, DEVICE).graph, b.feeds)
    assert set(found[1]) == set(wanted[1])
    for f, w in zip((*found[0], *found[1].values()), (*wanted[0], *wanted[1].values()), strict=True):
        np.testing.assert_allclose(f, w, rtol=1e-7, atol=1e-7)


def test_a_symbol_that_only_a_dead_value_binds_keeps_that_value() -> None:
    g = Graph()
    x, i = g.input("x", TensorType(np.dtype(np.float64), (n,))), g.input("i", TensorType(np.dtype(np.int64), (n,)))
    with g.building():
        found = nonzero(i)
        count = found.shape[1]
        g.outputs = [red.broadcast_to(red.sum_(x, axes=(0,), keepdims=True), shape=(count,))]
    clean = drop_dead(g).graph
    assert [v.op.name for v in clean.nodes] == ["nonzero", "sum", "broadcast_to"]
    (out,), _ = execute(plan_of(clean), [np.ones(4), np.array([0, 3, 0, 5])])
    np.testing.assert_array_equal(out, [4, 4])


def test_shapes_that_inputs_bind_are_not_computed() -> None:
    g = Graph()
    x = g.input("x", TensorType(np.dtype(np.float64), (n, 3)))
    with g.building():
        shape_of(x)
        g.outputs = [layout.reshape(x, shape=(n * 3,))]
    assert [v.op.name for v in drop_dead(g).graph.nodes] == ["reshape"]


def test_what_has_no_known_rank_is_left_alone() -> None:
    g = Graph()
    x, shape = (g.input(v, TensorType(np.dtype(t), (Dim.symbol(v),))) for v, t in (("x", "float64"), ("s", "int64")))
    with g.building():
        y = layout.transpose(layout.reshape_to(x, shape))
        y = layout.transpose(pw.mul(layout.identity(pw.mul(y, 2.0)), 3.0))
        g.outputs = [pw.pow_(layout.reshape(y, shape=(-1,)), 2.0), y]
    assert y.tensor_type.known_shape is None
    feeds = {"x": normal(6), "s": np.array([2, 3])}
    wanted, found = run_both(g, run_passes(g, DEVICE).graph, feeds)
    for f, w in zip(found[0], wanted[0], strict=True):
        np.testing.assert_allclose(f, w, rtol=1e-12)
