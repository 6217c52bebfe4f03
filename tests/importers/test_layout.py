"""Bindings that move elements: every version against onnxruntime, or by hand where that has none."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnxgrad.importers.onnx.model import load_bytes
from onnxgrad.importers.onnx.ops.layout import unbaked
from onnxgrad.importers.onnx.registry import bound_versions
from onnxgrad.ops.dims import Dim
from onnxgrad.ops.errors import OnnxGradError, UnsupportedAttributeError
from onnxgrad.ops.types import TensorType
from onnxgrad.runtime.graph.graph import Graph

from .one_node import ort_node, run_node

X = np.random.default_rng(0).standard_normal((2, 3, 4)).astype(np.float32)
IMAGE = np.random.default_rng(1).standard_normal((2, 8, 4, 6)).astype(np.float32)
LATEST = 25
END = 2**63 - 1


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def agree(op_type: str, opset: int, inputs: list[Any], **how: Any) -> None:
    """Compare with onnxruntime, with the other inputs as constants and as run-time values."""
    try:
        wanted = ort_node(op_type, inputs, opset=opset, **how)
    except Exception as error:
        if "NOT_IMPLEMENTED" in str(error) or "opset" in str(error):
            pytest.skip(f"onnxruntime: {str(error)[:80]}")
        raise
    for constants in {tuple(i for i in range(1, len(inputs)) if inputs[i] is not None), ()}:
        found = run_node(op_type, inputs, opset=opset, constants=constants, **how)
        for f, w in zip(found, wanted, strict=True):
            assert f.dtype == w.dtype and f.shape == w.shape
            np.testing.assert_array_equal(f, w)


ROWS: list[tuple[str, tuple[int, ...], list[Any], dict[str, Any]]] = [
    ("Reshape", (5, 13, 14, 19, 21, 23, 24, 25), [X, ints(0, -1, 2)], {}),
    ("Reshape", (14, 25), [X[:, :0], ints(0, 4, 3)], {"allowzero": 1}),
    ("Transpose", (1, 13, 21, 23, 24, 25), [X], {}),
    ("Transpose", (1, 13), [X], {"perm": [1, 2, 0]}),
    ("Concat", (4, 11, 13), [X, X[:, :1], X], {"axis": 1}),
    ("Concat", (11, 13), [X, X], {"axis": -1}),
    ("Split", (2, 11), [X], {"axis": 2, "split": [1, 3], "n_out": 2}),
    ("Split", (2, 11), [X], {"axis": 2, "n_out": 2}),
    ("Split", (13, 18), [X, ints(1, 3)], {"axis": -1, "n_out": 2}),
    ("Split", (13,), [X], {"axis": 1, "n_out": 3}),
    ("Split", (18,), [X], {"axis": 1, "num_outputs": 2, "n_out": 2}),
    ("Slice", (1,), [X], {"starts": [1, -3], "ends": [END, -1], "axes": [0, 2]}),
    ("Slice", (1,), [X], {"starts": [0, 1], "ends": [1, 9]}),
    ("Slice", (10, 11, 13), [X, ints(1, -1), ints(-1, -END), ints(2, 1), ints(2, -1)], {}),
    ("Slice", (10, 11, 13), [X, ints(1), ints(END), ints(1)], {}),
    ("Slice", (11, 13), [X, ints(0, 1), ints(1, 2)], {}),
    ("Slice", (11, 13), [X, ints(-2), ints(END), ints(-1)], {}),
    ("Pad", (2,), [X], {"pads": [0, 1, 2, 0, 0, 1], "value": 1.5}),
    ("Pad", (2,), [X], {"pads": [0, 0, 2, 0, 0, 1], "mode": "reflect"}),
    ("Pad", (11, 13, 18, 19, 21, 23, 24, 25), [X, ints(0, 1, -1, 1, 0, 2), np.float32(2.5)], {}),
    ("Pad", (11, 13, 18, 19), [X, ints(0, 1, 2, 0, 0, 1)], {"mode": "edge"}),
    ("Pad", (18, 19, 25), [X, ints(1, 2), None, ints(-1)], {}),
    ("Pad", (19, 21, 25), [X, ints(0, 2, 3, 0, 1, 4)], {"mode": "wrap"}),
    ("Flatten", (1, 9, 11, 13, 21, 23, 24, 25), [X], {"axis": 2}),
    ("Flatten", (1, 9, 11, 13), [X], {"axis": 0}),
    ("Flatten", (11, 13), [X], {"axis": -1}),
    ("Squeeze", (1, 11), [X[:1, :, :1]], {"axes": [2]}),
    ("Squeeze", (13, 21, 23, 24, 25), [X[:, :1, :1], ints(1, -1)], {}),
    ("Squeeze", (1, 11, 13), [X[:, :1]], {}),
    ("Unsqueeze", (1, 11), [X], {"axes": [0, 3]}),
    ("Unsqueeze", (13, 21, 23, 24, 25), [X, ints(-1, 1)], {}),
    ("Expand", (8, 13), [X[:, :1], ints(5, 1, 3, 1)], {}),
    ("Tile", (6, 13), [X, ints(2, 1, 3)], {}),
    ("Trilu", (14,), [X], {}),
    ("Trilu", (14,), [X, np.array(-1, np.int64)], {"upper": 0}),
    ("ReverseSequence", (10,), [X, ints(1, 2, 2)], {}),
    ("ReverseSequence", (10,), [X, ints(3, 1)], {"time_axis": 1, "batch_axis": 0}),
    ("DepthToSpace", (1, 11, 13), [IMAGE], {"blocksize": 2}),
    ("DepthToSpace", (11, 13), [IMAGE], {"blocksize": 2, "mode": "CRD"}),
    ("SpaceToDepth", (1, 13), [IMAGE], {"blocksize": 2}),
    ("CenterCropPad", (18,), [IMAGE, ints(7, 3)], {"axes": [1, -1]}),
    ("Col2Im", (18,), [IMAGE[:, :, 0, :], ints(3, 4), ints(2, 2)], {}),
]


@pytest.mark.parametrize(
    ("op_type", "version", "inputs", "attrs"),
    [(o, v, i, a) for o, versions, i, a in ROWS for v in versions],
    ids=[f"{o}-{v}-{k}" for k, (o, versions, _, _) in enumerate(ROWS) for v in versions],
)
def test_agrees_with_onnxruntime(op_type, version, inputs, attrs):
    agree(op_type, max(version, 7), inputs, **attrs)


@pytest.mark.parametrize(
    ("op_type", "version", "inputs", "attrs", "wanted"),
    [
        ("Reshape", 1, [X], {"shape": [0, -1]}, X.reshape(2, 12)),
        ("Concat", 1, [X, X], {}, np.concatenate([X, X], 1)),
        ("Pad", 1, [X], {"paddings": [0, 0, 1, 0, 0, 2], "value": 3.0},
         np.concatenate([X[..., :1] * 0 + 3, X, X[..., :2] * 0 + 3], 2)),
        ("Tile", 1, [X, np.int64(2), np.int64(1)], {}, np.tile(X, (1, 2, 1))),
        ("SpaceToDepth", 28, [IMAGE], {"blocksize": 2, "mode": "CRD"},
         IMAGE.reshape(2, 8, 2, 2, 3, 2).transpose(0, 1, 3, 5, 2, 4).reshape(2, 32, 2, 3)),
    ],
)  # fmt: skip
def test_versions_that_onnxruntime_does_not_have(op_type, version, inputs, attrs, wanted):
    (found,) = run_node(op_type, inputs, opset=version, constants=tuple(range(1, len(inputs))), **attrs)
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("op_type", sorted({row[0] for row in ROWS}))
def test_every_version_is_bound(op_type):
    versions = {
        s.since_version for s in onnx.defs.get_all_schemas_with_history() if (s.domain, s.name) == ("", op_type)
    }
    assert bound_versions("", op_type) == sorted(versions)


def test_microsofts_pad_and_trilu():
    pads = ints(0, 0, 1, 0, 0, 1)
    how = {"domain": "com.microsoft", "opset": 1}
    (found,) = run_node("Pad", [X, pads], constants=(1,), mode="reflect", **how)
    np.testing.assert_array_equal(found, ort_node("Pad", [X, pads], constants=(1,), mode="reflect", **how)[0])
    (found,) = run_node("Trilu", [X], **how)
    np.testing.assert_array_equal(found, np.triu(X))


def test_an_unknown_mode_is_named():
    with pytest.raises(UnsupportedAttributeError, match="Pad-11 'node': mode is 'wrap'"):
        run_node("Pad", [X, ints(0, 0, 0, 0, 0, 0)], opset=11, mode="wrap")


B = Dim.symbol("batch")


@pytest.mark.parametrize(
    ("shape", "target", "wanted"),
    [
        ((B, 8, 4), (1, 32), (B, 32)),
        ((B, 8, 4), (1, -1, 4), (B, -1, 4)),
        ((B, 8, 4), (1, 2, 4, 4), (B, 2, 4, 4)),
        ((B, 8, 4), (-1, 4), (-1, 4)),
        ((B, 8, 4), (1, -1), (B, -1)),
        ((B, 8, 4), (4, 8, 1), (B * 4, 8, 1)),
        ((8, B, 12), (8, 4, 3), (8, B * 4, 3)),
        ((8, B, 12), (8, 1, 4, 3), (8, B, 4, 3)),
        ((B * 4, 8), (1, 4, 8), (B, 4, 8)),
        ((B, 8, 4), (32,), (32,)),
        ((B, 8, 4), (B, 32), (B, 32)),
        ((B, 8, 4), (1, 31), (1, 31)),
        ((2, 8), (1, 16), (1, 16)),
        ((B, Dim.symbol("n")), (1, -1), (1, -1)),
    ],
)
def test_a_baked_batch_is_put_back(shape, target, wanted):
    x = Graph().input("x", TensorType(np.dtype(np.float32), shape))
    assert unbaked(x, target, B) == wanted
    assert unbaked(x, target, None) == target


def chain(nodes: list[Any], shape: list[Any], constants: dict[str, np.ndarray]) -> bytes:
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [onnx.ValueInfoProto(name="y")],
        [onnx.numpy_helper.from_array(v, k) for k, v in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


def test_a_batch_of_one_in_the_file_runs_at_any_batch():
    node = helper.make_node
    model = load_bytes(
        chain(
            [
                node("Reshape", ["x", "a"], ["h"]),
                node("Transpose", ["h"], ["t"], perm=[0, 2, 1]),
                node("Reshape", ["t", "b"], ["y"]),
            ],
            [1, 3, 4], {"a": ints(1, 2, 6), "b": ints(1, 12)},
        )
    )  # fmt: skip
    x = np.random.default_rng(0).standard_normal((5, 3, 4)).astype(np.float32)
    (y,) = model.run({"x": x})
    np.testing.assert_array_equal(y, x.reshape(5, 2, 6).transpose(0, 2, 1).reshape(5, 12))


def test_shape_arithmetic_of_an_exporter_stays_known():
    node = helper.make_node
    data = chain(
        [
            node("Shape", ["x"], ["s"]),
            node("Gather", ["s", "zero"], ["n"]),
            node("Gather", ["s", "one"], ["t"]),
            node("Div", ["t", "two"], ["half"]),
            node("Unsqueeze", ["n", "at"], ["n1"]),
            node("Unsqueeze", ["half", "at"], ["h1"]),
            node("Concat", ["n1", "h1", "rest"], ["target"], axis=0),
            node("Reshape", ["x", "target"], ["r"]),
            node("Slice", ["s", "from", "to"], ["lead"]),
            node("ConstantOfShape", ["lead"], ["zeros"]),
            node("Unsqueeze", ["zeros", "at2"], ["z"]),
            node("Shape", ["r"], ["rs"]),
            node("Expand", ["z", "rs"], ["y"]),
        ],
        ["n", "t", 6],
        {
            "zero": np.int64(0).reshape(()), "one": np.int64(1).reshape(()), "two": np.int64(2).reshape(()),
            "at": ints(0), "rest": ints(2, -1), "from": ints(0), "to": ints(1), "at2": ints(1, 2, 3),
        },
    )  # fmt: skip
    model = load_bytes(data)
    for n, t in ((1, 4), (3, 2)):
        (y,) = model.run({"x": np.ones((n, t, 6), np.float32)})
        assert y.shape == (n, t // 2, 2, 6)


def test_a_reshape_that_cannot_be_is_located():
    with pytest.raises(OnnxGradError, match="'node'"):
        run_node("Reshape", [X, ints(5, 5)], opset=13, constants=(1,))
