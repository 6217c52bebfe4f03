"""Reductions, ranks and running sums against onnxruntime, each bound version that it takes."""

from __future__ import annotations

import numpy as np
import pytest

from onnxgrad.importers.onnx.model import load_bytes
from onnxgrad.ops.errors import ShapeError
from onnxgrad.runtime.tensor.tensor import Tensor

from .one_node import one_node_model, ort_node, run_node

RNG = np.random.default_rng(0)
X = RNG.uniform(0.2, 2, (2, 3, 4)).astype(np.float32)
AXES = np.array([1, -1], np.int64)

BY_ATTRIBUTE = {
    "ReduceSum": (1, 11), "ReduceMean": (1, 11, 13),
    "ReduceMax": (1, 11, 12, 13), "ReduceMin": (1, 11, 12, 13),
    "ReduceProd": (1, 11, 13), "ReduceL1": (1, 11, 13), "ReduceL2": (1, 11, 13), "ReduceLogSum": (1, 11, 13),
    "ReduceLogSumExp": (1, 11, 13), "ReduceSumSquare": (1, 11, 13),
}  # fmt: skip
BY_INPUT = {"ReduceSum": 13, "ReduceMax": 20, "ReduceMin": 20} | dict.fromkeys(
    (
        "ReduceMean",
        "ReduceProd",
        "ReduceL1",
        "ReduceL2",
        "ReduceLogSum",
        "ReduceLogSumExp",
        "ReduceSumSquare",
    ),
    18,
)


def agree(op_type: str, inputs: list, tol: float = 1e-5, **how) -> None:
    found, wanted = run_node(op_type, inputs, **how), ort_node(op_type, inputs, **how)
    assert len(found) == len(wanted)
    for f, w in zip(found, wanted, strict=True):
        assert f.dtype == w.dtype and f.shape == w.shape
        np.testing.assert_allclose(f, w, rtol=tol, atol=tol)


@pytest.mark.parametrize(("op_type", "version"), [(o, max(v, 7)) for o, vs in BY_ATTRIBUTE.items() for v in vs])
def test_axes_as_an_attribute(op_type, version) -> None:
    agree(op_type, [X], opset=version, axes=[1, -1] if version >= 11 else [1, 2], keepdims=0)
    agree(op_type, [X], opset=version)


@pytest.mark.parametrize(("op_type", "version"), BY_INPUT.items())
def test_axes_as_an_input(op_type, version) -> None:
    agree(op_type, [X, AXES], opset=version, constants=[1], keepdims=0)
    agree(op_type, [X], opset=version, keepdims=0)
    agree(op_type, [X, np.array([], np.int64)], opset=version, constants=[1])


def test_no_axes_can_mean_none() -> None:
    agree("ReduceSum", [X], opset=13, noop_with_empty_axes=1)
    (y,) = run_node("ReduceSumSquare", [X, np.array([], np.int64)], opset=18, constants=[1], noop_with_empty_axes=1)
    np.testing.assert_allclose(y, X * X)


@pytest.mark.parametrize("op_type", ["ReduceSum", "ReduceProd", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceL2"])
def test_integers(op_type) -> None:
    agree(op_type, [np.array([[3, -7, 9], [5, 1, -4]], np.int32)], opset=11, axes=[1])


def test_truth_values() -> None:
    x = np.array([[True, False], [False, False]])
    agree("ReduceMax", [x, np.array([1])], opset=20, constants=[1])
    agree("ReduceMin", [x, np.array([1])], opset=20, constants=[1])


@pytest.mark.parametrize(("op_type", "version"), BY_INPUT.items())
def test_axes_that_only_run_time_knows(op_type, version) -> None:
    agree(op_type, [X, AXES], opset=version)
    agree(op_type, [X, AXES[:1]], opset=version, keepdims=0)
    agree(op_type, [X, np.array([], np.int64)], opset=version)
    agree(op_type, [X, np.array([], np.int64)], opset=version, noop_with_empty_axes=op_type == "ReduceSum")


def test_a_wrong_axis_at_run_time_names_the_node() -> None:
    with pytest.raises(ShapeError, match=r"ReduceSum-13 'node'.*axes \(3,\)"):
        run_node("ReduceSum", [X, np.array([3])], opset=13)


def test_gradients_by_way_of_axes_that_only_run_time_knows() -> None:
    model = load_bytes(one_node_model("ReduceL2", [X, AXES], opset=18, keepdims=0).SerializeToString())
    x = Tensor(X, requires_grad=True)
    y = model(x, AXES)
    y.sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), X / np.sqrt((X * X).sum((1, 2), keepdims=True)), rtol=1e-5)


@pytest.mark.parametrize("op_type", ["ArgMax", "ArgMin"])
@pytest.mark.parametrize("version", [7, 11, 12, 13])
def test_arg(op_type, version) -> None:
    tied = np.array([[1, 3, 3, 0], [2, -1, 2, -1]], np.float32)
    agree(op_type, [tied], opset=version, axis=1, keepdims=0)
    agree(op_type, [X], opset=version)
    if version >= 12:
        agree(op_type, [tied], opset=version, axis=-1, select_last_index=1)


@pytest.mark.parametrize("exclusive", [0, 1])
@pytest.mark.parametrize("reverse", [0, 1])
@pytest.mark.parametrize("version", [11, 14])
def test_cumsum(version, exclusive, reverse) -> None:
    for constants in ([1], []):
        agree("CumSum", [X, np.array(-1)], opset=version, constants=constants, exclusive=exclusive, reverse=reverse)


def test_cumprod() -> None:
    (y,) = run_node("CumProd", [X, np.array(1)], opset=26, constants=[1], reverse=1)
    np.testing.assert_allclose(y, np.cumprod(X[:, ::-1], 1)[:, ::-1], rtol=1e-6)


def test_topk() -> None:
    x = RNG.standard_normal((3, 6)).astype(np.float32)
    agree("TopK", [x], opset=9, n_out=2, k=2)
    agree("TopK", [x, np.array([3])], opset=10, n_out=2, constants=[1], axis=0)
    tied = np.array([[1, 3, 3, 0], [2, -1, 2, -1]], np.float32)
    for version in (11, 24):
        for largest in (0, 1):
            agree("TopK", [tied, np.array([3])], opset=version, n_out=2, constants=[1], largest=largest)


def test_topk_of_a_computed_k() -> None:
    agree("TopK", [X, np.array([2])], opset=11, n_out=2)
