"""Graphs on a device by the executor: sizes lie on the host, and go to the device where they meet what lies there."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnxgrad as og
from onnxgrad.importers.onnx.model import load_bytes
from onnxgrad.ops.errors import OutOfMemoryError
from onnxgrad.runtime.graph.execute import run_graph

from ...ops.device_arrays import ndarray


def model() -> og.nn.Module:
    """(x W) / sqrt(size) + row number, flattened to what a Shape says."""
    table = {"one": np.array(1), "zero": np.array(0), "axis": np.array([1]), "flat": np.array([-1])}
    weight = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    node = helper.make_node
    graph = helper.make_graph(
        [
            node("MatMul", ["x", "w"], ["y"]),
            node("Shape", ["y"], ["shape"]),
            node("Gather", ["shape", "one"], ["n"], axis=0),
            node("Cast", ["n"], ["size"], to=TensorProto.FLOAT),
            node("Sqrt", ["size"], ["root"]),
            node("Div", ["y", "root"], ["z"]),
            node("Gather", ["shape", "zero"], ["rows"], axis=0),
            node("Range", ["zero", "rows", "one"], ["numbers"]),
            node("Cast", ["numbers"], ["floats"], to=TensorProto.FLOAT),
            node("Unsqueeze", ["floats", "axis"], ["column"]),
            node("Add", ["z", "column"], ["sum"]),
            node("Reshape", ["sum", "flat"], ["out"]),
        ],
        "sizes",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["B", 4])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weight, "w"), *(numpy_helper.from_array(v, k) for k, v in table.items())],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return load_bytes(made.SerializeToString())


@pytest.mark.parametrize("place", ["cuda:0", "cuda:1"])
def test_models_answer_and_learn_as_on_the_cpu(two_devices, place):
    x = np.random.default_rng(1).standard_normal((5, 4)).astype(np.float32)
    results = []
    for where in ("cpu", place):
        net = model().to(where)
        assert {p.device for p in net.parameters()} == {where}
        t = og.tensor(x, device=where, requires_grad=True)
        y = net(t)
        (y * y).sum().backward()
        assert y.device == where and t.grad.device == where
        results.append([v.detach().cpu().numpy() for v in (y, t.grad, *(p.grad for p in net.parameters()))])
    for here, there in zip(*results, strict=True):
        np.testing.assert_allclose(there, here, rtol=1e-5, atol=1e-6)


def test_plans_run_on_the_arrays_of_a_device(two_devices):
    net = model().to("cuda:1")
    x = og.ones(5, 4, device="cuda:1").array
    (found,) = run_graph(net.graph, [x, *(net._state[n].array for n in net.graph.state)])
    assert isinstance(found, ndarray) and found.device.id == 1
    np.testing.assert_allclose(found.get(), model().run({"x": np.ones((5, 4), np.float32)})[0], rtol=1e-6)


def test_a_node_that_finds_no_memory_is_named(two_devices):
    net = model().to("cuda")
    x = og.ones(20000, 4, device="cuda")
    og.cuda.set_memory_limit(og.cuda.memory_reserved() + 1024)
    with pytest.raises(OutOfMemoryError, match=r"CUDA out of memory: matmul asked for 234.50 KiB"):
        run_graph(net.graph, [x.array, *(net._state[n].array for n in net.graph.state)])
