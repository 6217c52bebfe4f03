"""A graph for certain shapes: checks of ranks and sizes are decided, branches taken, nothing else changes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxgrad.importers.onnx.model import load_bytes
from onnxgrad.ops.kernels.cpu.target import available
from onnxgrad.runtime.graph.execute import execute
from onnxgrad.runtime.graph.plan import make_plan
from onnxgrad.runtime.passes.specialize import specialize

W = np.random.default_rng(0).standard_normal((4, 4)).astype(np.float32)


def checking() -> Any:
    """If the second size is 1, squeeze it; then multiply: the rank of what is multiplied hangs on a size."""
    one = numpy_helper.from_array(np.array([1], np.int64), "one")
    then = helper.make_graph(
        [helper.make_node("Squeeze", ["x", "one"], ["a"])], "then", [], [helper.make_tensor_value_info("a", 1, None)]
    )
    other = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["b"])], "other", [], [helper.make_tensor_value_info("b", 1, None)]
    )
    nodes = [
        helper.make_node("Shape", ["x"], ["s"], start=1, end=2),
        helper.make_node("Equal", ["s", "one"], ["c"]),
        helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=other),
        helper.make_node("MatMul", ["y", "w"], ["z"]),
        helper.make_node("Relu", ["z"], ["out"]),
    ]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", "m", 4])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)], [one, numpy_helper.from_array(W, "w")],
    )  # fmt: skip
    return load_bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString())


@pytest.mark.parametrize("shape", [(3, 1, 4), (3, 5, 4), (1, 1, 4)])
def test_the_branch_is_taken_and_the_rest_is_known(shape: tuple[int, ...]) -> None:
    model = checking()
    graph = specialize(model.graph, [shape])
    assert "if" not in [n.op.name for n in graph.nodes]
    wanted = (shape[0], 4) if shape[1] == 1 else shape
    assert graph.outputs[0].shape == wanted
    x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    (found,), _ = execute(make_plan(graph), [x, *(t.array for t in model._state.values())])
    np.testing.assert_allclose(found, np.maximum(x.reshape(wanted) @ W, 0), rtol=1e-5, atol=1e-6)


@pytest.mark.skipif(not available(), reason="the compiled engine is off")
def test_shapes_that_come_again_run_without_python() -> None:
    model = checking()
    for shape in ((3, 1, 4), (3, 5, 4), (3, 1, 4)):
        x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
        for _ in range(5):
            wanted = np.maximum(x.reshape((shape[0], 4) if shape[1] == 1 else shape) @ W, 0)
            np.testing.assert_allclose(model.run({"x": x})[0], wanted, rtol=1e-4, atol=1e-5)
    specials = model._compiled()._specials
    assert len(specials) == 2
    assert all(p.native for p in specials.values())
