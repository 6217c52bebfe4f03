"""A model whose sizes are assumed to agree runs where they do not, by its array kernels, time and again."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxgrad.importers.onnx.model import load_bytes
from onnxgrad.ops.errors import OnnxGradError

BIAS = np.arange(8, dtype=np.float32)


def sliced() -> bytes:
    """Add the first n of 8 numbers to n numbers: for n above 8 there are only 8 of them."""
    nodes = [
        helper.make_node("Shape", ["x"], ["n"]),
        helper.make_node("Slice", ["bias", "zero", "n"], ["part"]),
        helper.make_node("Add", ["x", "part"], ["y"]),
    ]
    stored = [numpy_helper.from_array(BIAS, "bias"), numpy_helper.from_array(np.zeros(1, np.int64), "zero")]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["m"])], stored,
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString()


def test_sizes_that_agree_and_the_one_that_is_broadcast() -> None:
    model = load_bytes(sliced())
    for n in (8, 3, 8, 1, 3, 3, 3, 3):
        x = np.full(n, 0.5, np.float32)
        np.testing.assert_allclose(model.run({"x": x})[0], x + BIAS[:n])


def test_sizes_that_do_not_fit_say_so_each_time_and_leave_the_model_usable() -> None:
    model = load_bytes(sliced())
    for _ in range(5):
        with pytest.raises(OnnxGradError, match="Add"):
            model.run({"x": np.zeros(9, np.float32)})
    np.testing.assert_allclose(model.run({"x": np.zeros(4, np.float32)})[0], BIAS[:4])


def pyramid() -> bytes:
    """Halve an image twice, double it once, and add both: equal sizes, but for a height of 1, which is broadcast."""
    halve = {"kernel_shape": [1, 1], "strides": [2, 1]}
    nodes = [
        helper.make_node("MaxPool", ["x"], ["down"], **halve),
        helper.make_node("MaxPool", ["down"], ["further"], **halve),
        helper.make_node("Resize", ["further", "", "scales"], ["up"], mode="nearest"),
        helper.make_node("Add", ["down", "up"], ["y"]),
    ]
    stored = [numpy_helper.from_array(np.array([1, 1, 2, 1], np.float32), "scales")]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, "h", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1, "k", 4])], stored,
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString()


@pytest.mark.parametrize("heights", [(1, 1, 1, 1, 1), (8, 1, 8, 1, 16)])
def test_a_size_for_which_the_assumption_fails_still_runs(heights: tuple[int, ...]) -> None:
    model = load_bytes(pyramid())
    for h in heights:
        x = np.random.default_rng(h).standard_normal((1, 1, h, 4)).astype(np.float32)
        down = x[:, :, ::2]
        wanted = down + np.repeat(down[:, :, ::2], 2, axis=2)
        np.testing.assert_allclose(model.run({"x": x})[0], wanted, rtol=1e-6)


def test_ends_that_shapes_make_known_are_bound_when_the_shapes_have_come_often() -> None:
    n = helper.make_node
    nodes = [
        n("Shape", ["x"], ["n"]), n("Cast", ["n"], ["real"], to=TensorProto.FLOAT),
        n("Min", ["real", "most"], ["less"]), n("Cast", ["less"], ["end"], to=TensorProto.INT64),
        n("Slice", ["bias", "zero", "end"], ["part"]),
        n("ReduceSum", ["part"], ["sum"], keepdims=0), n("Add", ["x", "sum"], ["y"]),
    ]  # fmt: skip
    stored = [numpy_helper.from_array(a, name) for name, a in
              (("bias", BIAS), ("zero", np.zeros(1, np.int64)), ("most", np.array([5], np.float32)))]  # fmt: skip
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])], stored,
    )  # fmt: skip
    model = load_bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString())
    for size in (3, 8, 3, 8, 3, 8, 3, 8, 4):
        x = np.full(size, 0.5, np.float32)
        np.testing.assert_allclose(model.run({"x": x})[0], x + BIAS[: min(size, 5)].sum())
