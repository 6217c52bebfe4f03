"""Roles: every float weight in a weight position is a parameter, whatever wrapped it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import helper, numpy_helper

from onnxgrad.importers.onnx.model import load_bytes
from onnxgrad.runtime.model.model import Model

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


def values(name: str, *v: float) -> Any:
    return numpy_helper.from_array(np.array(v, np.float32), name)


@pytest.mark.parametrize(
    ("nodes", "tensors", "wanted"),
    [
        (  # simulated quantisation: scales are no weights
            [
                NODE("QuantizeLinear", ["w", "s"], ["q"]), NODE("DequantizeLinear", ["q", "s"], ["d"]),
                NODE("MatMul", ["x", "d"], ["y"]),
            ],
            [tensor("w", 4, 4), values("s", 0.1)], {"w": "parameter", "s": "buffer"},
        ),
        (  # the start of a state: a filler, not a weight
            [NODE("Expand", ["w", "n"], ["e"]), NODE("MatMul", ["x", "e"], ["y"])],
            [tensor("w"), ints("n", [4, 4])], {"w": "constant"},
        ),
        (
            [NODE("Greater", ["x", "zero"], ["c"]), NODE("Where", ["c", "x", "w"], ["y"])],
            [values("zero", 0), tensor("w", 4)], {"w": "parameter", "zero": "constant"},
        ),
        (
            [NODE("Greater", ["x", "zero"], ["c"]), NODE("Where", ["c", "x", "w"], ["y"])],
            [values("zero", 0), values("w", -np.inf, -np.inf, -np.inf, -np.inf)], {"w": "constant"},
        ),
        ([NODE("Relu", ["x"], ["r"]), NODE("Add", ["r", "w"], ["y"])], [values("w", 0, 1, 2, 3)], {"w": "constant"}),
        (
            [NODE("Expand", ["w", "n"], ["e"]), NODE("AffineGrid", ["e", "size"], ["y"])],
            [tensor("w", 2, 3), ints("n", [1, 2, 3]), ints("size", [1, 3, 5, 5])], {"w": "parameter"},
        ),
    ],
    ids=["scales", "filler", "picked", "hidden", "grid", "affine"],
)  # fmt: skip
def test_what_is_and_is_no_weight(nodes: list, tensors: list, wanted: dict[str, str]) -> None:
    found = kinds(load_bytes(model(nodes, {"x": ["N", 4]}, {"y": None}, tensors, opset=20).SerializeToString()))
    assert {n: found[n] for n in wanted} == wanted


def test_the_exporter_says_what_a_tensor_is() -> None:
    m = model(
        [
            NODE("Mul", ["x", "gate"], ["a"]), NODE("Mul", ["a", "speed"], ["b"]), NODE("Add", ["b", "val_1"], ["c"]),
            NODE("MatMul", ["c", "val_2"], ["y"]),
        ],
        {"x": ["N", 4]}, {"y": None},
        [values("gate", 0.5), tensor("speed", 4), values("val_1", 1, 1, 1, 1), tensor("val_2", 4, 4)],
    )  # fmt: skip
    for name, kind in (("gate", "PARAMETER"), ("speed", "BUFFER")):
        info = helper.make_tensor_value_info(name, 1, None)
        entry = info.metadata_props.add()
        entry.key, entry.value = "pkg.torch.export.graph_signature.InputSpec.kind", kind
        m.graph.value_info.append(info)
    assert kinds(load_bytes(m.SerializeToString())) == {
        "gate": "parameter", "speed": "buffer", "val_1": "constant", "val_2": "parameter",
    }  # fmt: skip


def test_pytorch_writes_a_modules_tensors_as_initializers() -> None:
    grid = helper.make_node("Constant", [], ["/Constant_output_0"], value=tensor("", 1, 4))
    nodes = [
        grid, NODE("MatMul", ["x", "onnx::MatMul_7"], ["m"]), NODE("Add", ["m", "/Constant_output_0"], ["a"]),
        NODE("Mul", ["a", "scale"], ["b"]), NODE("Mul", ["b", "onnx::Mul_9"], ["y"]),
    ]  # fmt: skip
    tensors = [tensor("onnx::MatMul_7", 4, 4), values("scale", 0.5), values("onnx::Mul_9", 0.5)]
    m = model(nodes, {"x": ["N", 4]}, {"y": None}, tensors)
    found = kinds(load_bytes(m.SerializeToString()))
    assert (found["/Constant_output_0"], found["scale"]) == ("parameter", "constant")
    m.producer_name = "pytorch"
    found = kinds(load_bytes(m.SerializeToString()))
    assert found == {
        "onnx::MatMul_7": "parameter", "scale": "parameter", "onnx::Mul_9": "constant",
        "/Constant_output_0": "constant",
    }  # fmt: skip


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
