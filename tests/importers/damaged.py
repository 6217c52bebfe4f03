"""Small valid models, and ways to damage them: in their bytes, or in one field of the protobuf."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from google.protobuf.descriptor import FieldDescriptor
from onnx import TensorProto, helper, numpy_helper

INTEGERS = (0, 1, -1, 2, 3, 7, 40, 4096, 1 << 40, 1 << 62, -(1 << 63), (1 << 63) - 1)
FLOATS = (0.0, -1.0, 1e-30, 1e30, float("nan"), float("inf"))
TEXTS = ("", "x", "y", "w", "nothing", "ai.onnx", "com.microsoft", "float", "é\x00")


def tensor(name: str, array: Any) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(array), name)


def _model(nodes: list[Any], weights: dict[str, Any], shape: list[Any], outputs: list[str], **how: Any) -> bytes:
    graph = helper.make_graph(
        nodes,
        "damaged",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [onnx.ValueInfoProto(name=o) for o in outputs],
        [tensor(k, v) for k, v in weights.items()],
    )
    opsets = [helper.make_opsetid("", 18), *(helper.make_opsetid(d, 1) for d in how.pop("domains", ()))]
    proto = helper.make_model(graph, opset_imports=opsets, ir_version=9, **how)
    data: bytes = proto.SerializeToString(deterministic=True)
    return data


def _convolution() -> bytes:
    n = helper.make_node
    return _model(
        [
            n("Conv", ["x", "w", "b"], ["c"], name="conv", pads=[1, 1, 1, 1], strides=[2, 1], kernel_shape=[3, 3]),
            n("BatchNormalization", ["c", "b", "b", "b", "b"], ["n"], name="norm"),
            n("MaxPool", ["n"], ["p"], name="pool", kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1),
            n("Resize", ["p", "", "s"], ["r"], name="resize", mode="linear"),
            n("Pad", ["r", "pads"], ["q"], name="pad", mode="reflect"),
            n("Reshape", ["q", "shape"], ["f"], name="reshape"),
            n("Gemm", ["f", "g"], ["y"], name="gemm", transB=1, alpha=0.5),
        ],
        {
            "w": np.full((4, 3, 3, 3), 0.1, np.float32), "b": np.ones(4, np.float32),
            "s": np.array([1, 1, 2, 2], np.float32), "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
            "shape": np.array([0, -1]), "g": np.ones((5, 96), np.float32),
        },
        [2, 3, 4, 4], ["y"],
    )  # fmt: skip


def _indexing() -> bytes:
    n = helper.make_node
    return _model(
        [
            n("Shape", ["x"], ["shape"], name="shape"),
            n("Gather", ["shape", "i"], ["rows"], name="gather", axis=0),
            n("Slice", ["x", "i", "rows", "i"], ["s"], name="slice"),
            n("TopK", ["s", "k"], ["t", "at"], name="topk", axis=-1),
            n("Split", ["t"], ["a", "b"], name="split", axis=1, num_outputs=2),
            n("Concat", ["a", "b", "x"], ["c"], name="concat", axis=1),
            n("Expand", ["c", "e"], ["d"], name="expand"),
            n("ConstantOfShape", ["e"], ["z"], name="zeros", value=tensor("", np.ones(1, np.float32))),
            n("ScatterND", ["z", "at0", "u"], ["m"], name="scatter", reduction="add"),
            n("OneHot", ["i", "depth", "values"], ["h"], name="onehot"),
            n("Transpose", ["d"], ["y"], name="transpose", perm=[1, 0]),
        ],
        {
            "i": np.array([0]), "k": np.array([2]), "e": np.array([3, 1]), "at0": np.array([[1], [2]]),
            "u": np.ones((2, 1), np.float32), "depth": np.array([4]), "values": np.array([0, 1], np.float32),
        },
        [3, 4], ["y", "m", "h"],
    )  # fmt: skip


def _control() -> bytes:
    n = helper.make_node
    scalar = helper.make_tensor_value_info
    body = helper.make_graph(
        [n("Identity", ["go"], ["on"]), n("Add", ["v", "w"], ["u"], name="inner"), n("Identity", ["u"], ["scan"])],
        "body",
        [scalar("k", TensorProto.INT64, []), scalar("go", TensorProto.BOOL, []), scalar("v", TensorProto.FLOAT, [4])],
        [scalar("on", TensorProto.BOOL, []), scalar("u", TensorProto.FLOAT, [4]), scalar("scan", 1, [4])],
    )
    then, other = (
        helper.make_graph([n(op, ["x"], [out], name=op)], op, [], [onnx.ValueInfoProto(name=out)])
        for op, out in (("Abs", "p"), ("Neg", "q"))
    )
    twice = helper.make_function(
        "local", "Twice", ["a"], ["b"], [n("Add", ["a", "a"], ["b"], name="double")], [helper.make_opsetid("", 18)]
    )
    return _model(
        [
            n("ReduceSum", ["x"], ["total"], name="sum", keepdims=0),
            n("Greater", ["total", "zero"], ["sign"], name="greater"),
            n("If", ["sign"], ["branch"], name="if", then_branch=then, else_branch=other),
            n("Twice", ["branch"], ["two"], name="twice", domain="local"),
            n("Loop", ["trips", "", "two"], ["last", "all"], name="loop", body=body),
            n("LSTM", ["all3", "W", "R"], ["", "h"], name="lstm", hidden_size=2),
            n("Unsqueeze", ["all", "one"], ["all3"], name="unsqueeze"),
            n("SequenceConstruct", ["last", "two"], ["seq"], name="seq"),
            n("ConcatFromSequence", ["seq"], ["y"], name="concat", axis=0),
        ],
        {
            "zero": np.float32(0), "trips": np.array(3), "w": np.ones(4, np.float32), "one": np.array([1]),
            "W": np.ones((1, 8, 4), np.float32), "R": np.ones((1, 8, 2), np.float32),
        },
        [4], ["y", "h"], functions=[twice], domains=["local"],
    )  # fmt: skip


def _quantised() -> bytes:
    n = helper.make_node
    return _model(
        [
            n("QuantizeLinear", ["x", "s", "z"], ["q"], name="quantize"),
            n("QLinearMatMul", ["q", "s", "z", "w", "s", "z", "s", "z"], ["p"], name="product"),
            n("DequantizeLinear", ["p", "s", "z"], ["d"], name="dequantize"),
            n("Cast", ["d"], ["c"], name="cast", to=TensorProto.INT32),
            n("Einsum", ["d", "d"], ["e"], name="einsum", equation="ij,kj->ik"),
            n("Softmax", ["e"], ["y"], name="softmax", axis=-1),
            n("Range", ["from", "to", "step"], ["r"], name="range"),
            n("Tile", ["c", "by"], ["t"], name="tile"),
        ],
        {
            "s": np.float32(0.1), "z": np.uint8(3), "w": np.ones((4, 2), np.uint8), "from": np.array(0),
            "to": np.array(5), "step": np.array(2), "by": np.array([2, 1]),
        },
        [3, 4], ["y", "r", "t"],
    )  # fmt: skip


MODELS = {"convolution": _convolution(), "indexing": _indexing(), "control": _control(), "quantised": _quantised()}


def _messages(message: Any) -> Iterator[Any]:
    yield message
    for field, value in message.ListFields():
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            for item in value if field.is_repeated else [value]:
                yield from _messages(item)


def fields(message: Any) -> list[tuple[Any, Any]]:
    """Return every (message, scalar field) of a protobuf that is set."""
    return [(m, f) for m in _messages(message) for f, _ in m.ListFields() if f.type != FieldDescriptor.TYPE_MESSAGE]


def _with_number(data: bytes, place: int, value: int) -> bytes:
    """Return raw data with one 64-bit integer replaced, where there is room for one."""
    if len(data) < 8:
        return data
    at = place % (len(data) // 8) * 8
    return data[:at] + (value & (1 << 64) - 1).to_bytes(8, "little") + data[at + 8 :]


def replace(message: Any, field: Any, place: int, choice: int) -> None:
    """Put another value of its kind into a field, or take one out of a list."""
    kinds: dict[Any, Any] = {
        FieldDescriptor.CPPTYPE_STRING: TEXTS,
        FieldDescriptor.CPPTYPE_FLOAT: FLOATS,
        FieldDescriptor.CPPTYPE_DOUBLE: FLOATS,
    }
    numbers = field.name == "raw_data" and choice % 2
    values = INTEGERS if numbers else kinds.get(field.cpp_type, INTEGERS)
    value = values[choice % len(values)]
    if field.type == FieldDescriptor.TYPE_BYTES:
        value = value.encode() if isinstance(value, str) else _with_number(getattr(message, field.name), place, value)
    elif field.type == FieldDescriptor.TYPE_ENUM:
        value = field.enum_type.values[choice % len(field.enum_type.values)].number
    elif field.cpp_type == FieldDescriptor.CPPTYPE_INT32:
        value = max(-(1 << 31), min(value, (1 << 31) - 1))
    if field.is_repeated:
        items = getattr(message, field.name)
        if choice % 13 == 0:
            del items[place % len(items)]
        else:
            items[place % len(items)] = value
    else:
        setattr(message, field.name, value)
