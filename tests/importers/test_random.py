"""Random operators: type, shape, law, seeds, and fresh draws wherever a graph runs again."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

from onnxgrad.importers.onnx.model import load_bytes
from onnxgrad.ops.errors import UnsupportedError
from onnxgrad.runtime.tensor.random import manual_seed
from onnxgrad.runtime.tensor.tensor import Tensor

from .both import info, model
from .one_node import one_node_model, run_node

X = np.zeros((3, 4), np.float32)
CHANCES = np.tile(np.float32([0, 0.1, 0.5, 0.9, 1]), (20_000, 1))


def load(nodes, inputs, outputs, opset=22):
    return load_bytes(model(nodes, inputs, outputs, opset=opset).SerializeToString())


def near(sample, mean, std):
    """Check a mean and a deviation to five standard errors."""
    n = np.size(sample)
    assert abs(np.mean(sample) - mean) < 5 * std / n**0.5
    assert abs(np.std(sample) - std) < 5 * std / n**0.5


@pytest.mark.parametrize("version", [1, 22])
def test_normal(version) -> None:
    (y,) = run_node("RandomNormal", [], opset=version, shape=[100, 500], mean=2.0, scale=3.0)
    assert y.dtype == np.float32 and y.shape == (100, 500)
    near(y.astype(float), 2, 3)
    (y,) = run_node("RandomNormal", [], opset=version, shape=[5], dtype=TensorProto.DOUBLE)
    assert y.dtype == np.float64


@pytest.mark.parametrize("version", [1, 22])
def test_uniform(version) -> None:
    (y,) = run_node("RandomUniform", [], opset=version, shape=[100, 500], low=-1.0, high=2.0)
    near(y.astype(float), 0.5, 3 / 12**0.5)
    assert y.min() >= -1 and y.max() < 2


@pytest.mark.parametrize("op_type", ["RandomNormalLike", "RandomUniformLike"])
@pytest.mark.parametrize("version", [1, 22])
def test_like(op_type, version) -> None:
    (y,) = run_node(op_type, [X.astype(np.float64)], opset=version)
    assert y.dtype == np.float64 and y.shape == X.shape and np.unique(y).size == y.size
    (y,) = run_node(op_type, [np.zeros((2, 3), np.int32)], opset=version, dtype=10, out_types=[10])
    assert y.dtype == np.float16 and y.shape == (2, 3)


@pytest.mark.parametrize("version", [15, 22])
def test_bernoulli(version) -> None:
    (y,) = run_node("Bernoulli", [CHANCES], opset=version, dtype=TensorProto.INT32)
    assert y.dtype == np.int32 and set(np.unique(y)) == {0, 1}
    np.testing.assert_allclose(y.mean(0), CHANCES[0], atol=0.02)
    assert (y[:, 0] == 0).all() and (y[:, 4] == 1).all()


@pytest.mark.parametrize("version", [7, 22])
def test_multinomial(version) -> None:
    scores = np.log(np.array([[0.2, 0.3, 0.5], [2.0, 1.0, 1e-30]], np.float32))
    (y,) = run_node("Multinomial", [scores], opset=version, sample_size=20_000, dtype=TensorProto.INT64)
    assert y.dtype == np.int64 and y.shape == (2, 20_000)
    for row, p in zip(y, ([0.2, 0.3, 0.5], [2 / 3, 1 / 3, 0]), strict=True):
        np.testing.assert_allclose(np.bincount(row, minlength=3) / 20_000, p, atol=0.02)
    (y,) = run_node("Multinomial", [scores], opset=version)
    assert y.dtype == np.int32 and y.shape == (2, 1)


def test_a_seed_fixes_the_draws() -> None:
    draws = [run_node("RandomNormal", [], opset=22, shape=[4], seed=seed)[0] for seed in (1.5, 1.5, 2.0)]
    np.testing.assert_array_equal(draws[0], draws[1])
    assert (draws[0] != draws[2]).all()


def test_without_a_seed_each_node_and_each_run_draws_anew() -> None:
    nodes = [helper.make_node("RandomNormalLike", ["x"], [y]) for y in "ab"]
    m = load(nodes, {"x": X}, ["a", "b"])
    a, b = m.run({"x": X})
    c, d = m.run({"x": X})
    assert np.unique(np.stack([a, b, c, d])).size == 4 * X.size
    e, _ = m(X)
    assert not np.isin(e.numpy(), np.stack([a, b, c, d])).any()


def test_the_seed_of_the_process_repeats_runs() -> None:
    m = load([helper.make_node("RandomNormalLike", ["x"], ["y"])], {"x": X}, ["y"])
    draws = []
    for _ in range(2):
        manual_seed(3)
        draws += [m.run({"x": X})[0], m(X).numpy()]
    np.testing.assert_array_equal(draws[:2], draws[2:])


@pytest.mark.parametrize("control", ["Loop", "Scan", "If", "SequenceMap"])
def test_bodies_draw_anew_in_each_round(control) -> None:
    flag, count = np.array(True), np.array(4)
    drawn = helper.make_node("RandomNormalLike", ["x"], ["r"])
    out = helper.make_tensor_value_info("r", TensorProto.FLOAT, None)
    nodes: list = []
    if control == "Loop":
        body = helper.make_graph(
            [drawn, helper.make_node("Identity", ["on"], ["still"])],
            "body",
            [info("i", np.array(0)), info("on", flag)],
            [info("still", flag), out],
        )
        nodes = [helper.make_node("Loop", ["count", ""], ["y"], body=body)]
    elif control == "Scan":
        body = helper.make_graph([drawn], "body", [info("x", X[0])], [out])
        nodes = [helper.make_node("Scan", ["x"], ["y"], body=body, num_scan_inputs=1)]
    elif control == "If":
        body = helper.make_graph([drawn], "body", [], [out])
        nodes = [
            helper.make_node("If", ["flag"], ["t"], then_branch=body, else_branch=body),
            helper.make_node("If", ["flag"], ["u"], then_branch=body, else_branch=body),
            helper.make_node("Concat", ["t", "u"], ["y"], axis=0),
        ]
    else:
        body = helper.make_graph([drawn], "body", [info("x", X)], [out])
        nodes = [
            helper.make_node("SequenceConstruct", ["x", "x", "x"], ["s"]),
            helper.make_node("SequenceMap", ["s"], ["t"], body=body),
            helper.make_node("ConcatFromSequence", ["t"], ["y"], axis=0),
        ]
    m = load(nodes, {"x": X, "flag": flag, "count": count}, ["y"])
    feeds = {"x": X, "flag": flag, "count": count}
    draws = np.concatenate([m.run(feeds)[0].ravel() for _ in range(2)])
    assert np.unique(draws).size == draws.size >= 2 * X.size
    assert np.unique(m(**feeds).numpy()).size == draws.size // 2


def test_scan_8_refuses_to_draw() -> None:
    body = helper.make_graph(
        [helper.make_node("RandomNormalLike", ["x"], ["r"])], "body", [info("x", X[0])],
        [helper.make_tensor_value_info("r", TensorProto.FLOAT, None)],
    )  # fmt: skip
    with pytest.raises(UnsupportedError, match="draws"):
        load([helper.make_node("Scan", ["", "x"], ["y"], body=body, num_scan_inputs=1)], {"x": X[None]}, ["y"], 8)


@pytest.mark.parametrize("version", [12, 13, 22])
@pytest.mark.parametrize("constants", [[1, 2], [2], [1], []])
def test_dropout_in_training_mode(version, constants) -> None:
    x = np.arange(1, 20_001, dtype=np.float32)
    y, mask = run_node("Dropout", [x, np.float32(0.3), np.array(True)], opset=version, n_out=2, constants=constants)
    assert mask.dtype == bool
    np.testing.assert_allclose(y, np.where(mask, x / 0.7, 0), rtol=1e-6)
    near(mask, 0.7, 0.21**0.5)
    y, mask = run_node("Dropout", [x, np.float32(0.3), np.array(False)], opset=version, n_out=2, constants=constants)
    np.testing.assert_array_equal(y, x)
    assert mask.all()
    y, mask = run_node("Dropout", [x, np.float32(0), np.array(True)], opset=version, n_out=2, constants=constants)
    np.testing.assert_array_equal(y, x)
    assert mask.all()


def test_dropout_of_a_ratio_that_run_time_knows_drops_in_training() -> None:
    ones, half = np.ones((50, 40), np.float32), np.array(0.5, np.float32)
    m = load_bytes(one_node_model("Dropout", [ones, half], opset=22).SerializeToString())
    x = Tensor(ones, requires_grad=True)
    assert (m(ones, half).numpy() == 1).all()
    y = m.train()(x, half)
    assert set(np.unique(y.detach().numpy())) == {0, 2}
    y.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), y.detach().numpy())
