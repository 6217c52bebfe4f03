"""Roles: every float weight in a weight position is a parameter, whatever wrapped it."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper, numpy_helper

from onnxgrad.importers.onnx.model import load_bytes
from onnxgrad.runtime.model import Model

from .models import attention_model, cnn, ints, model, tensor

NODE = helper.make_node


def kinds(m: Model) -> dict[str, str]:
    return {r.name: r.kind for r in m.report()}


def test_cnn() -> None:
    m = load_bytes(cnn().SerializeToString())
    assert [n for n, _ in m.named_parameters()] == [
        "conv.weight", "conv.bias", "bn.scale", "bn.bias", "fc.weight", "fc.bias",
    ]  # fmt: skip
    assert [n for n, _ in m.named_buffers()] == ["bn.mean", "bn.var"]
    assert m.report().total("parameter") == 4 * 27 + 4 + 4 + 4 + 20 + 5


def test_weights_behind_wrappers() -> None:
    m = load_bytes(attention_model().SerializeToString())
    found = kinds(m)
    assert {n for n, k in found.items() if k == "parameter"} == {"table", "positions", "wq", "wk", "wv"}
    assert found["root"] == "constant"
    assert found["mask"] == "constant"
    reasons = {r.name: r.reason for r in m.report()}
    assert "Transpose" in reasons["wk"]
    assert "Identity" in reasons["wv"]
    assert "mask" in reasons["mask"]


def test_gradients_reach_every_parameter() -> None:
    m = load_bytes(attention_model().SerializeToString())
    m(np.array([[1, 2, 3, 4], [0, 1, 5, 10]])).sum().backward()
    for name, p in m.named_parameters():
        assert p.grad is not None, name
        assert np.abs(p.grad.numpy()).max() > 0, name


@pytest.mark.parametrize(
    ("nodes", "tensors", "wanted"),
    [
        (
            [NODE("Cast", ["w"], ["c"], to=1), NODE("MatMul", ["x", "c"], ["y"])],
            [tensor("w", 4, 4, dtype=np.float16)], {"w": "parameter"},
        ),
        ([NODE("MatMul", ["w", "x"], ["y"])], [tensor("w", 4, 4)], {"w": "parameter"}),
        ([NODE("Gemm", ["x", "w"], ["y"])], [tensor("w", 4, 4)], {"w": "parameter"}),
        ([NODE("Mul", ["x", "w"], ["y"])], [tensor("w", 1)], {"w": "constant"}),
        ([NODE("Relu", ["x"], ["r"]), NODE("Mul", ["r", "w"], ["y"])], [tensor("w", 4)], {"w": "parameter"}),
        ([NODE("Sub", ["x", "w"], ["y"])], [tensor("w", 4)], {"w": "buffer"}),
        ([NODE("Reshape", ["x", "s"], ["y"])], [ints("s", [-1, 4])], {"s": "constant"}),
        (
            [NODE("Slice", ["w", "a", "b"], ["h"]), NODE("MatMul", ["x", "h"], ["y"])],
            [tensor("w", 8, 4), ints("a", [0]), ints("b", [4])], {"w": "parameter", "a": "constant"},
        ),
        (
            [NODE("Mul", ["g", "v"], ["w"]), NODE("MatMul", ["x", "w"], ["y"])],
            [tensor("g", 1, 4), tensor("v", 4, 4)], {"g": "parameter", "v": "parameter"},
        ),
        ([NODE("PRelu", ["x", "w"], ["y"])], [tensor("w", 4)], {"w": "parameter"}),
        ([NODE("Relu", ["x"], ["y"])], [tensor("unused", 4)], {"unused": "constant"}),
    ],
)  # fmt: skip
def test_positions(nodes: list, tensors: list, wanted: dict[str, str]) -> None:
    m = load_bytes(model(nodes, {"x": ["N", 4]}, {"y": None}, tensors).SerializeToString())
    found = kinds(m)
    assert {n: found[n] for n in wanted} == wanted


def test_weights_of_functions_and_branches() -> None:
    f = helper.make_function(
        "local",
        "Linear",
        ["a", "b"],
        ["c"],
        [NODE("MatMul", ["a", "b"], ["c"])],
        [helper.make_opsetid("", 17)],
    )
    branch = helper.make_graph(
        [NODE("Linear", ["x", "w"], ["out"], domain="local")],
        "branch",
        [],
        [helper.make_tensor_value_info("out", 1, None)],
    )
    other = helper.make_graph(
        [NODE("Add", ["x", "u"], ["out2"])], "other", [], [helper.make_tensor_value_info("out2", 1, None)]
    )
    flag = numpy_helper.from_array(np.array(True), "flag")
    m = model(
        [NODE("If", ["flag"], ["y"], "if", then_branch=branch, else_branch=other)], {"x": ["N", 4]}, {"y": None},
        [tensor("w", 4, 4), tensor("u", 4), flag], functions=[f], extra_opsets=[helper.make_opsetid("local", 1)],
    )  # fmt: skip
    loaded = load_bytes(m.SerializeToString())
    assert kinds(loaded)["w"] == "parameter"
    x = np.ones((2, 4), np.float32)
    out = loaded(x)
    np.testing.assert_allclose(out.detach().numpy(), x @ numpy_helper.to_array(m.graph.initializer[0]), rtol=1e-6)
    out.sum().backward()
    assert dict(loaded.named_parameters())["w"].grad is not None


def test_report_reads_as_a_table() -> None:
    text = str(load_bytes(attention_model().SerializeToString()).report())
    assert "because" in text
    assert "100.0% of all float" not in text
    assert "in parameters" in text
