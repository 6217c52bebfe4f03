"""Bindings of gathers, scatters and made tensors: every version that onnxruntime has, against it."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnxgrad.importers.onnx.registry import bound_versions
from onnxgrad.ops.errors import OpError, UnsupportedAttributeError

from .one_node import ort_node, run_node

X = np.random.default_rng(0).standard_normal((3, 4, 2)).astype(np.float32)
FLAT = np.array([2, 1, 1, 3, 4, 3], np.float32)


def ints(*values: Any) -> np.ndarray:
    return np.array(values, np.int64)


AT = ints([0, 2, -1], [1, 0, 0])
ROWS_OF = ints([[0, 1], [2, 0]], [[1, -1], [0, 0]])
U = np.random.default_rng(1).standard_normal((2, 3)).astype(np.float32)
TABLE = X[..., 0]
ONCE = ints([0, 2, 1], [1, 0, 3])
TWICE = ints([0, 2, 0], [1, 1, 3])

ROWS: list[tuple[str, tuple[int, ...], list[Any], dict[str, Any]]] = [
    ("Gather", (1, 11, 13), [X, ints([0, 2], [1, 1])], {"axis": 1}),
    ("Gather", (11, 13), [X, np.array(-1, np.int32)], {"axis": -1}),
    ("GatherElements", (11, 13), [TABLE, AT], {"axis": 1}),
    ("GatherElements", (11, 13), [TABLE, AT], {}),
    ("GatherND", (11, 12, 13), [X, ROWS_OF], {}),
    ("GatherND", (12, 13), [X, ints([1], [0], [3])], {"batch_dims": 1}),
    ("Scatter", (9,), [TABLE, ONCE, U], {"axis": 1}),
    ("ScatterElements", (11, 13, 16, 18), [TABLE, ONCE, U], {"axis": -1}),
    ("ScatterElements", (16, 18), [TABLE, TWICE, U], {"axis": 1, "reduction": "add"}),
    ("ScatterElements", (16, 18), [TABLE, TWICE, U], {"axis": 1, "reduction": "mul"}),
    ("ScatterElements", (18,), [TABLE, TWICE, U], {"axis": 1, "reduction": "max"}),
    ("ScatterElements", (18,), [TABLE, TWICE, U], {"axis": 1, "reduction": "min"}),
    ("ScatterND", (11, 13, 16, 18), [X, ints([2], [0]), X[:2] * 2], {}),
    ("ScatterND", (16, 18), [X, ints([1], [1]), X[:2] * 2], {"reduction": "add"}),
    ("ScatterND", (16, 18), [X, ints([1], [1]), X[:2] * 2], {"reduction": "mul"}),
    ("ScatterND", (18,), [X, ints([1], [1]), X[:2] * 2], {"reduction": "max"}),
    ("ScatterND", (18,), [X, ints([1], [1]), X[:2] * 2], {"reduction": "min"}),
    ("NonZero", (9, 13), [np.array([[1, 0, 3], [0, 0, 4]], np.float32)], {}),
    ("Compress", (9, 11), [X, np.array([True, False, True])], {"axis": 0}),
    ("Compress", (9, 11), [X, np.array([False, True, True, False])], {}),
    ("Compress", (11,), [X, np.array([False, True, True, False])], {"axis": -2}),
    ("OneHot", (9, 11), [ints([0, 2], [-1, 7]), ints(3), np.array([2, 5], np.float32)], {}),
    ("OneHot", (9, 11), [ints(0, 2), ints(3), np.array([0, 1], np.float32)], {"axis": 0}),
    ("OneHot", (11,), [FLAT, np.array(4, np.float32), np.array([0, 1], np.float32)], {"axis": -1}),
    ("Unique", (11,), [FLAT], {"n_out": 4}),
    ("Unique", (11,), [FLAT], {"n_out": 4, "sorted": 0}),
    ("Unique", (11,), [FLAT.reshape(2, 3)], {"n_out": 4}),
    ("Unique", (11,), [TABLE[[0, 1, 0]]], {"n_out": 4, "axis": 0}),
    ("Shape", (1, 13, 15, 19, 21, 23, 24, 25), [X], {}),
    ("Shape", (15, 19, 25), [X], {"start": -2, "end": -1}),
    ("Size", (1, 13, 19, 21, 23, 24, 25), [X], {}),
    ("ConstantOfShape", (9, 20, 21, 23, 24, 25), [ints(2, 3)], {}),
    ("ConstantOfShape", (9,), [ints(2)], {"value": onnx.numpy_helper.from_array(np.array([7], np.int64))}),
    ("Range", (11,), [np.array(2, np.int64), np.array(9, np.int64), np.array(3, np.int64)], {}),
    ("Range", (11,), [np.array(1, np.float32), np.array(-1, np.float32), np.array(-0.5, np.float32)], {}),
    ("EyeLike", (9, 22), [TABLE], {}),
    ("EyeLike", (9,), [TABLE], {"k": -1, "dtype": TensorProto.INT32}),
    ("TensorScatter", (24,), [X, X[:, :2] * 3, ints(0, 2, 1)], {"axis": 1}),
    ("TensorScatter", (24,), [X, X[:, :2] * 3, ints(3, 2, 0)], {"axis": 1, "mode": "circular"}),
]


@pytest.mark.parametrize(
    ("op_type", "version", "inputs", "attrs"),
    [(o, v, i, a) for o, versions, i, a in ROWS for v in versions],
    ids=[f"{o}-{v}-{k}" for k, (o, versions, _, _) in enumerate(ROWS) for v in versions],
)
def test_agrees_with_onnxruntime(op_type, version, inputs, attrs):
    opset = max(version, 7)
    try:
        wanted = ort_node(op_type, inputs, opset=opset, **attrs)
    except Exception as error:
        if "NOT_IMPLEMENTED" in str(error) or "opset" in str(error):
            pytest.skip(f"onnxruntime: {str(error)[:80]}")
        raise
    for constants in {tuple(range(1, len(inputs))), ()}:
        for f, w in zip(run_node(op_type, inputs, opset=opset, constants=constants, **attrs), wanted, strict=True):
            assert f.dtype == w.dtype and f.shape == w.shape
            np.testing.assert_allclose(f, w, rtol=1e-6)


@pytest.mark.parametrize("op_type", sorted({row[0] for row in ROWS} | {"Constant"}))
def test_every_version_is_bound(op_type):
    versions = {
        s.since_version for s in onnx.defs.get_all_schemas_with_history() if (s.domain, s.name) == ("", op_type)
    }
    assert bound_versions("", op_type) == sorted(versions)


@pytest.mark.parametrize(
    ("attrs", "wanted"),
    [
        ({"value": onnx.numpy_helper.from_array(X)}, X),
        ({"value_float": 1.5}, np.float32(1.5)),
        ({"value_floats": [1.5, 2.0]}, np.array([1.5, 2], np.float32)),
        ({"value_int": 3}, np.int64(3)),
        ({"value_ints": [3, 4]}, ints(3, 4)),
        ({"value_string": "é"}, np.array("é", object)),
        ({"value_strings": ["a", "b"]}, np.array(["a", "b"], object)),
    ],
)
def test_constant(attrs, wanted):
    (found,) = run_node("Constant", [], opset=13, **attrs)
    assert found.dtype == wanted.dtype and found.shape == wanted.shape
    assert found.tolist() == wanted.tolist()


def test_a_sparse_constant_is_refused():
    values = helper.make_tensor("v", TensorProto.FLOAT, [1], [1.0])
    places = helper.make_tensor("i", TensorProto.INT64, [1], [2])
    with pytest.raises(UnsupportedAttributeError, match="Constant-13 'node': sparse_value"):
        run_node("Constant", [], opset=13, sparse_value=helper.make_sparse_tensor(values, places, [3]))


def test_half_precision_range_and_microsofts():
    found = run_node("Range", [np.array(v, np.float16) for v in (0, 3, 0.5)], opset=27, stash_type=1)[0]
    np.testing.assert_array_equal(found, np.arange(0, 3, 0.5))
    how = {"domain": "com.microsoft", "opset": 1}
    bounds = [np.array(2, np.int64), np.array(5, np.int64)]
    np.testing.assert_array_equal(run_node("Range", bounds, **how)[0], ort_node("Range", bounds, **how)[0])


def test_an_index_outside_is_located():
    with pytest.raises(OpError, match=r"'node'.*index 9 is outside an axis of size 3"):
        run_node("Gather", [X, ints(9)], opset=13)
