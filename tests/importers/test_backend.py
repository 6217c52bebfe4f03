"""The standard's interface to a runtime: its own test runner drives it, and what callers may pass."""

from __future__ import annotations

import unittest
import warnings
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import onnxgrad.backend as backend
from onnxgrad.errors import InputError, UnsupportedOperatorError

RUNNER = [
    "test_(add|conv|basic_conv|softmax|cast|gather|reduce_sum|lstm|slice|attention_4d_\\w*bf16)_?",  # ordinary nodes
    "test_(sequence|optional|if_seq|loop11|range|identity_sequence|split_to)",  # sequences, optionals, bodies
    "test_operator_",
    "test_(Linear|BatchNorm2d|Conv2d|Softmax)",
    "test_single_relu_model",
]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the standard's cases warn while they are generated
def test_the_standards_own_runner_is_content() -> None:
    from onnx.backend.test import BackendTest

    runner = BackendTest(backend.Backend, __name__)
    for pattern in RUNNER:
        runner.include(pattern)
    result = unittest.TestResult()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        runner.test_suite.run(result)
    assert not result.errors + result.failures, (result.errors + result.failures)[0][1]
    assert result.testsRun - len(result.skipped) > 200


def model(nodes: Any, inputs: Any, outputs: Any) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "g", inputs, outputs)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


SUB = model(
    [helper.make_node("Sub", ["a", "b"], ["y"]), helper.make_node("Neg", ["y"], ["z"])],
    [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("a", ["n"]), ("b", []))],
    [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in ("y", "z")],
)
A = np.array([1, 2, 3], np.float32)


@pytest.mark.parametrize(
    "inputs",
    [[A, np.float32(1)], (A, 1.0), {"b": np.array(1, np.float32), "a": A}, [[1, 2, 3], 1]],
    ids=["list", "tuple", "dict", "lists"],
)
def test_inputs_in_every_form(inputs: Any) -> None:
    outputs = backend.prepare(SUB, "CPU").run(inputs)
    np.testing.assert_array_equal(outputs["y"], [0, 1, 2])
    np.testing.assert_array_equal(outputs[1], [0, -1, -2])
    assert backend.run_model(SUB, inputs)[0].dtype == np.float32


def test_one_input_needs_no_list() -> None:
    relu = model(
        [helper.make_node("Relu", ["x"], ["y"])],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])],
    )
    np.testing.assert_array_equal(backend.run_model(relu, -A)[0], [0, 0, 0])


def test_wrong_inputs() -> None:
    rep = backend.prepare(SUB)
    with pytest.raises(InputError, match="'b' is missing"):
        rep.run([A])
    with pytest.raises(InputError, match="takes 2 inputs"):
        rep.run([A, A, A])
    with pytest.raises(InputError, match="'c'"):
        rep.run({"c": A})


def test_optional_and_sequence_inputs() -> None:
    tensor = helper.make_tensor_type_proto(TensorProto.FLOAT, ["n"])
    has = model(
        [helper.make_node("OptionalHasElement", ["x"], ["y"])],
        [helper.make_value_info("x", helper.make_optional_type_proto(tensor))],
        [helper.make_tensor_value_info("y", TensorProto.BOOL, [])],
    )
    assert [bool(backend.run_model(has, [v])[0]) for v in (None, A)] == [False, True]
    count = model(
        [helper.make_node("SequenceLength", ["x"], ["y"])],
        [helper.make_value_info("x", helper.make_sequence_type_proto(tensor))],
        [helper.make_tensor_value_info("y", TensorProto.INT64, [])],
    )
    assert [int(backend.run_model(count, [v])[0]) for v in ([], [A, A], (A,))] == [0, 2, 1]


def test_run_node() -> None:
    node = helper.make_node("Clip", ["x", "", "high"], ["y"])
    np.testing.assert_array_equal(backend.run_node(node, [A, np.float32(2)])[0], [1, 2, 2])
    old = helper.make_node("Clip", ["x"], ["y"], max=2.0)
    np.testing.assert_array_equal(backend.run_node(old, [A], opset_version=6)["y"], [1, 2, 2])
    info = [(np.dtype(np.float32), (3,))]
    np.testing.assert_array_equal(backend.run_node(old, {"x": A}, "CPU", info, opset_version=6)[0], [1, 2, 2])
    joined = backend.run_node(helper.make_node("ConcatFromSequence", ["s"], ["y"], axis=0), [[A, A]])
    np.testing.assert_array_equal(joined[0], [1, 2, 3, 1, 2, 3])
    with pytest.raises(UnsupportedOperatorError, match="Nothing"):
        backend.run_node(helper.make_node("Nothing", ["x"], ["y"]), [A])
    with pytest.raises(InputError, match="'high'"):
        backend.run_node(node, [A])


def test_devices() -> None:
    assert backend.supports_device("CPU")
    assert not backend.supports_device("TPU")
    assert not backend.supports_device("CUDA:99")
    assert not backend.supports_device("CUDA:x")
    with pytest.raises(InputError, match="TPU"):
        backend.prepare(SUB, "TPU")
