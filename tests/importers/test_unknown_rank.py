"""Inputs of unknown rank: what a binding cannot know is settled when the node first sees its input."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper, numpy_helper

from onnxgrad.importers.onnx.model import load_bytes
from onnxgrad.runtime.tensor.tensor import Tensor


def numbers(*shape: int) -> np.ndarray:
    return np.random.default_rng([7, *shape]).standard_normal(shape).astype(np.float32)


CASES: list[tuple[str, np.ndarray, dict[str, np.ndarray], int, dict[str, Any]]] = [
    ("Split", numbers(2, 4), {}, 2, {"axis": 1}),
    ("Split", numbers(2, 4), {"sizes": np.array([1, 3])}, 2, {"axis": -1}),
    ("TopK", numbers(2, 4), {"k": np.array([2])}, 2, {}),
    ("Unique", np.array([3, 1, 3], np.float32), {}, 4, {}),
    ("LSTM", numbers(5, 2, 3), {"w": numbers(1, 16, 3), "r": numbers(1, 16, 4)}, 3, {"hidden_size": 4}),
    ("GRU", numbers(5, 2, 3), {"w": numbers(1, 12, 3), "r": numbers(1, 12, 4)}, 2, {"hidden_size": 4}),
    ("MaxPool", numbers(1, 1, 4, 4), {}, 2, {"kernel_shape": [2, 2]}),
    ("Conv", numbers(1, 2, 4, 4), {"w": numbers(3, 2, 3, 3)}, 1, {}),
    ("LayerNormalization", numbers(2, 3), {"scale": numbers(3)}, 1, {}),
]


def model_of(op_type: str, constants: dict[str, np.ndarray], n_out: int, attrs: dict[str, Any]) -> bytes:
    outputs = [f"y{i}" for i in range(n_out)]
    node = helper.make_node(op_type, ["x", *constants], outputs, "node", **attrs)
    inputs = [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, None)]
    tensors = [numpy_helper.from_array(a, n) for n, a in constants.items()]
    graph = helper.make_graph([node], "g", inputs, [onnx.ValueInfoProto(name=o) for o in outputs], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(model.SerializeToString())


@pytest.mark.parametrize(
    ("op_type", "x", "constants", "n_out", "attrs"), CASES, ids=lambda v: v if isinstance(v, str) else ""
)
def test_equals_onnxruntime_and_records_on_the_tape(
    op_type: str, x: np.ndarray, constants: dict[str, np.ndarray], n_out: int, attrs: dict[str, Any]
) -> None:
    data = model_of(op_type, constants, n_out, attrs)
    wanted = ort.InferenceSession(data, providers=["CPUExecutionProvider"]).run(None, {"x": x})
    model = load_bytes(data)
    for found, w in zip(model.run({"x": x}), wanted, strict=True):
        np.testing.assert_allclose(found, w, rtol=1e-4, atol=1e-5)
    leaf = Tensor(x, requires_grad=True)
    out = model(leaf)
    (out[0] if isinstance(out, tuple) else out).sum().backward()
    assert leaf.grad is not None
    assert leaf.grad.shape == x.shape
