"""Sequences and optionals against onnxruntime, in and out as lists."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

from onnxgrad.ops.errors import OpError

from .both import agree, model, ours

rng = np.random.default_rng(0)
node = helper.make_node
FLOAT, INT = TensorProto.FLOAT, TensorProto.INT64


def f32(*shape):
    return rng.standard_normal(shape).astype(np.float32)


def sequence(name, kind=FLOAT):
    return helper.make_tensor_sequence_value_info(name, kind, None)


A, B = f32(2, 3), f32(4, 3)


@pytest.mark.parametrize("at", [0, 1, -1, -2])
def test_a_sequence_is_built_read_and_changed(at):
    proto = model(
        [
            node("SequenceConstruct", ["a", "b"], ["s"]),
            node("SequenceAt", ["s", "at"], ["y"]),
            node("SequenceInsert", ["s", "y", "at"], ["more"]),
            node("SequenceErase", ["s", "at"], ["fewer"]),
            node("SequenceErase", ["more"], ["first"]),
            node("SequenceLength", ["more"], ["n"]),
        ],
        {"a": A, "b": B, "at": np.array(at)},
        ["y", sequence("more"), sequence("fewer"), sequence("first"), "n"],
        opset=17,
    )
    agree(proto, {"a": A, "b": B, "at": np.array(at)})


@pytest.mark.parametrize("split", [None, np.array(2), np.array([1, 3])], ids=["each", "size", "sizes"])
@pytest.mark.parametrize("opset", [11, 24])
@pytest.mark.parametrize("keepdims", [0, 1])
def test_a_tensor_is_split_and_joined(split, opset, keepdims):
    feeds = {"x": B} | ({} if split is None else {"split": split})
    if split is not None and not keepdims:
        pytest.skip("the reference squeezes parts that are not of size 1")
    apart = split is None and not keepdims
    proto = model(
        [
            node(
                "SplitToSequence",
                ["x", *(["split"] if split is not None else [])],
                ["s"],
                axis=0,
                keepdims=keepdims,
            ),
            node("ConcatFromSequence", ["s"], ["y"], axis=0, new_axis=int(apart)),
        ],
        feeds,
        [sequence("s"), "y"],
        opset=opset,
    )
    _, y = agree(proto, feeds)
    np.testing.assert_array_equal(y, B)


def test_sequences_are_inputs_too():
    proto = model([node("SequenceLength", ["s"], ["n"])], {}, ["n"], opset=17)
    proto.graph.input.append(sequence("s"))
    agree(proto, {"s": [A, B, A]})


def test_a_map_goes_over_sequences_and_captures():
    body = helper.make_graph(
        [node("Mul", ["x", "w"], ["xw"]), node("Add", ["xw", "t"], ["y"]), node("Neg", ["x"], ["z"])],
        "body",
        [helper.make_tensor_value_info(n, FLOAT, None) for n in ("x", "t")],
        [helper.make_tensor_value_info(n, FLOAT, None) for n in ("y", "z")],
    )
    proto = model(
        [
            node("SequenceConstruct", ["a", "b"], ["s"]),
            node("SequenceMap", ["s", "t"], ["ys", "zs"], body=body),
        ],
        {"a": A, "b": B, "t": f32(3)},
        [sequence("ys"), sequence("zs")],
        opset=17,
        initializers={"w": f32(3)},
    )
    agree(proto, {"a": A, "b": B, "t": f32(3)})


@pytest.mark.parametrize("opset", [16, 18])
def test_an_optional_holds_a_value(opset):
    proto = model(
        [
            node("Optional", ["a"], ["o"]),
            node("OptionalHasElement", ["o"], ["has"]),
            node("OptionalGetElement", ["o"], ["y"]),
        ],
        {"a": A},
        ["has", "y"],
        opset=opset,
    )
    agree(proto, {"a": A})


def test_an_optional_holds_nothing():
    kind = helper.make_tensor_type_proto(FLOAT, [2, 3])
    nodes = [node("Optional", [], ["o"], type=kind), node("OptionalHasElement", ["o"], ["has"])]
    agree(model(nodes, {}, ["has"], opset=17), {})
    with pytest.raises(OpError, match="is empty"):
        ours(model([*nodes, node("OptionalGetElement", ["o"], ["y"])], {}, ["y"], opset=17), {})


def test_a_position_outside_the_sequence_is_an_error_that_says_it():
    proto = model(
        [node("SequenceConstruct", ["a"], ["s"]), node("SequenceAt", ["s", "at"], ["y"])],
        {"a": A, "at": np.array(0)},
        ["y"],
        opset=17,
    )
    with pytest.raises(OpError, match="position 3 is outside a sequence of 1"):
        ours(proto, {"a": A, "at": np.array(3)})
