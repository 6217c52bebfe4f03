"""Bodies of control flow run compiled, and what they capture of the weights is packed once a version."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnxgrad as og
from onnxgrad.importers.onnx.model import load_bytes
from onnxgrad.ops.kernels.cpu.target import available

pytestmark = pytest.mark.skipif(not available(), reason="the compiled engine is off")

RNG = np.random.default_rng(0)
W, V = (RNG.standard_normal((8, 8)).astype(np.float32) for _ in range(2))


def _info(name: str, *shape: int | str, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def choosing() -> og.nn.Module:
    branches = [
        helper.make_graph(
            [helper.make_node("MatMul", ["x", w], [f"y_{w}"])], f"branch_{w}", [], [_info(f"y_{w}", "n", 8)]
        )
        for w in ("w", "v")
    ]
    graph = helper.make_graph(
        [helper.make_node("If", ["c"], ["y"], then_branch=branches[0], else_branch=branches[1])], "g",
        [_info("x", "n", 8), _info("c", kind=TensorProto.BOOL)], [_info("y", "n", 8)],
        [numpy_helper.from_array(a, n) for a, n in ((W, "w"), (V, "v"))],
    )  # fmt: skip
    return load_bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString())


@pytest.mark.parametrize("rows", [1, 3])
def test_each_branch_computes_with_its_weights(rows: int) -> None:
    model, x = choosing(), RNG.standard_normal((rows, 8)).astype(np.float32)
    for _ in range(2):
        for c, w in ((True, W), (False, V)):
            np.testing.assert_allclose(model.run({"x": x, "c": np.array(c)})[0], x @ w, rtol=1e-4, atol=1e-5)


def test_a_branch_sees_new_weights() -> None:
    model, x = choosing(), RNG.standard_normal((2, 8)).astype(np.float32)
    feeds = {"x": x, "c": np.array(True)}
    np.testing.assert_allclose(model.run(feeds)[0], x @ W, rtol=1e-4, atol=1e-5)
    with og.no_grad():
        dict(model.named_parameters())["w"].mul_(2)
    np.testing.assert_allclose(model.run(feeds)[0], x @ (2 * W), rtol=1e-4, atol=1e-5)


def test_a_loop_carries_through_its_compiled_body() -> None:
    body = helper.make_graph(
        [helper.make_node("MatMul", ["h", "w"], ["t"]), helper.make_node("Tanh", ["t"], ["h_out"]),
         helper.make_node("Identity", ["go"], ["go_out"]), helper.make_node("Identity", ["h_out"], ["seen"])],
        "body", [_info("i", kind=TensorProto.INT64), _info("go", kind=TensorProto.BOOL), _info("h", 2, 8)],
        [_info("go_out", kind=TensorProto.BOOL), _info("h_out", 2, 8), _info("seen", 2, 8)],
    )  # fmt: skip
    graph = helper.make_graph(
        [helper.make_node("Loop", ["times", "", "x"], ["y", "all"], body=body)], "g",
        [_info("x", 2, 8), _info("times", kind=TensorProto.INT64)], [_info("y", 2, 8), _info("all", "k", 2, 8)],
        [numpy_helper.from_array(W, "w")],
    )  # fmt: skip
    model = load_bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString())
    x = RNG.standard_normal((2, 8)).astype(np.float32)
    for times in (0, 1, 5):
        y, seen = model.run({"x": x, "times": np.array(times)})
        wanted = [x]
        for _ in range(times):
            wanted.append(np.tanh(wanted[-1] @ W))
        np.testing.assert_allclose(y, wanted[-1], rtol=1e-4, atol=1e-5)
        assert seen.shape == (times, 2, 8)
        if times:
            np.testing.assert_allclose(seen, wanted[1:], rtol=1e-4, atol=1e-5)
