"""Pointwise bindings against onnxruntime, at every version that it knows."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from onnx.reference import ReferenceEvaluator

from onnxgrad.importers.onnx.ops import pointwise as bindings
from onnxgrad.importers.onnx.registry import BINDINGS, bound_versions
from onnxgrad.ops.errors import UnsupportedAttributeError

from .one_node import ort_node, run_node

ort = pytest.importorskip("onnxruntime")
MICROSOFT = "com.microsoft"
rng = np.random.default_rng(0)
X = rng.uniform(-3, 3, (2, 3, 4)).astype(np.float32)
ROW = rng.uniform(-3, 3, (4,)).astype(np.float32)
INTS = rng.integers(-20, 20, (2, 3, 4)).astype(np.int64)
DIVISORS = np.array([3, -4, 7, -2])
BOOLS = X > 0


def agree(op_type: str, inputs: list[Any], *, opset: int, tol: float = 2e-6, **how: Any) -> None:
    """Compare with onnxruntime, or skip what it does not know."""
    try:
        wanted = ort_node(op_type, inputs, opset=opset, **how)
    except Exception as error:
        if any(
            s in str(error) for s in ("NOT_IMPLEMENTED", "Could not find an implementation", "NotImplemented", "opset")
        ):
            pytest.skip(f"onnxruntime: {str(error)[:100]}")
        raise
    for f, w in zip(run_node(op_type, inputs, opset=opset, **how), wanted, strict=True):
        half = w.dtype == np.float16  # models in half precision compute and answer in float32
        assert half or f.dtype == w.dtype
        assert f.shape == w.shape
        if f.dtype.kind == "f":
            np.testing.assert_allclose(f, w, rtol=2e-3 if half else tol, atol=tol)
        else:
            np.testing.assert_array_equal(f, w)


def at(op_type: str, versions: tuple[int, ...]) -> list[Any]:
    return [pytest.param(op_type, v, id=f"{op_type}-{v}") for v in versions if v >= 7]


def domain_of(op_type: str, x: np.ndarray) -> np.ndarray:
    match op_type:
        case "Acos" | "Asin" | "Atanh":
            return x / 4
        case "Acosh":
            return np.abs(x) + np.float32(1)
        case "Log" | "Sqrt":
            return np.abs(x)
        case "Not":
            return x > 0
        case "BitwiseNot":
            return x.astype(np.int32)
    return x


@pytest.mark.parametrize(("op_type", "version"), [p for o, (_, vs) in bindings.UNARY.items() for p in at(o, vs)])
def test_unary(op_type: str, version: int) -> None:
    agree(op_type, [domain_of(op_type, X)], opset=version)


@pytest.mark.parametrize(("op_type", "version"), [p for o, (_, vs) in bindings.BINARY.items() for p in at(o, vs)])
def test_binary(op_type: str, version: int) -> None:
    logical, bitwise = op_type in ("And", "Or", "Xor"), op_type.startswith("Bitwise")
    whole = bitwise or (op_type == "Equal" and version < 11)
    a, b = (BOOLS, BOOLS[:1]) if logical else (INTS, DIVISORS) if whole else (X, ROW)
    agree(op_type, [a, b], opset=version)


@pytest.mark.parametrize(("op_type", "version"), [p for o, (_, vs, _) in bindings.ALPHA.items() for p in at(o, vs)])
@pytest.mark.parametrize("attrs", [{}, {"alpha": 0.7}], ids=["default", "alpha"])
def test_with_alpha(op_type: str, version: int, attrs: dict[str, float]) -> None:
    agree(op_type, [X], opset=version, **attrs)


ROWS: list[tuple[str, list[Any], int, dict[str, Any]]] = [
    ("Div", [INTS, DIVISORS], 14, {}),
    ("Mod", [INTS, DIVISORS], 13, {}),
    ("Mod", [INTS, DIVISORS], 10, {"fmod": 1}),
    ("Mod", [X, ROW], 13, {"fmod": 1}),
    ("Pow", [np.abs(X), ROW], 15, {}),
    ("Pow", [X, np.array(2, np.int64)], 13, {}),
    ("Pow", [X, np.array(3.0)], 12, {}),
    ("Pow", [INTS, np.array([0, 1, 2, 3])], 13, {}),
    ("Pow", [INTS.astype(np.int32), np.array([0.5, 1, 2.5, 3], np.float32)], 13, {}),
    ("PRelu", [X, np.full((3, 1), 0.3, np.float32)], 9, {}),
    ("PRelu", [X, ROW], 16, {}),
    ("Max", [X, ROW, X[:, :1] * 2], 13, {}),
    ("Max", [INTS, DIVISORS], 12, {}),
    ("Min", [X, ROW, X[:, :1] * 2], 8, {}),
    ("Sum", [X, ROW, X[:, :1]], 8, {}),
    ("Sum", [X], 13, {}),
    ("Mean", [X, ROW, X[:, :1]], 13, {}),
    ("Where", [BOOLS, X, ROW], 16, {}),
    ("Where", [BOOLS, INTS, DIVISORS], 9, {}),
    ("Where", [BOOLS[0, 0], np.array(["a", "b", "c", "d"], object), np.array(["e"], object)], 16, {}),
    ("Equal", [np.array(["a", "b"], object), np.array(["a", "c"], object)], 19, {}),
    ("Equal", [BOOLS, BOOLS[:1]], 13, {}),
    ("Clip", [X], 6, {"min": -1.0}),
    ("Clip", [X], 6, {"min": -1.0, "max": 0.5}),
    ("Clip", [X, np.array(-1, np.float32), np.array(0.5, np.float32)], 11, {}),
    ("Clip", [X, None, np.array(0.5, np.float32)], 13, {}),
    ("Clip", [X, np.array(-1, np.float32)], 12, {"constants": [1]}),
    ("Clip", [X], 13, {}),
    ("Clip", [INTS, np.array(-5)], 12, {}),
    ("Clip", [INTS.astype(np.int8), None, np.array(5, np.int8)], 12, {}),
    ("BitShift", [np.array([1, 2, 200], np.uint8), np.array([1, 3, 2], np.uint8)], 11, {"direction": "LEFT"}),
    ("BitShift", [np.array([1, 9, 200], np.uint32), np.array([1], np.uint32)], 11, {"direction": "RIGHT"}),
    ("HardSigmoid", [X], 6, {}),
    ("HardSigmoid", [X], 22, {"alpha": 0.4, "beta": 0.3}),
    ("HardSwish", [X], 14, {}),
    ("HardSwish", [X], 22, {}),
    ("Selu", [X], 6, {}),
    ("Selu", [X], 22, {"alpha": 1.2, "gamma": 0.9}),
    ("Shrink", [X], 9, {"bias": 0.3, "lambd": 1.2}),
    ("Shrink", [X], 9, {}),
    ("Gelu", [X], 20, {}),
    ("Gelu", [X], 20, {"approximate": "tanh"}),
    ("Relu", [INTS.astype(np.int32)], 14, {}),
    ("Abs", [INTS], 13, {}),
    ("Neg", [INTS], 13, {}),
    ("Sign", [INTS], 13, {}),
    ("Identity", [X], 16, {}),
    ("Identity", [INTS], 1, {}),
    ("IsNaN", [np.array([1, np.nan, np.inf], np.float32)], 13, {}),
    ("Round", [np.array([0.5, 1.5, 2.5, -0.5, -1.5, 2.6], np.float32)], 11, {}),
    ("Sigmoid", [X.astype(np.float64)], 13, {}),
    ("Erf", [X * 3], 13, {}),
]


@pytest.mark.parametrize(
    ("op_type", "inputs", "opset", "attrs"), ROWS, ids=[f"{r[0]}-{r[2]}-{i}" for i, r in enumerate(ROWS)]
)
def test_rows(op_type: str, inputs: list[Any], opset: int, attrs: dict[str, Any]) -> None:
    agree(op_type, inputs, opset=opset, **attrs)


@pytest.mark.parametrize("positive", [0, 1])
@pytest.mark.parametrize("negative", [0, 1])
def test_is_inf(positive: int, negative: int) -> None:
    x = np.array([1, np.inf, -np.inf, np.nan], np.float32)
    agree("IsInf", [x], opset=10, detect_positive=positive, detect_negative=negative)


@pytest.mark.parametrize(
    ("op_type", "inputs", "attrs"),
    [
        ("Gelu", [X], {}),
        ("BiasGelu", [X, ROW], {}),
        ("FastGelu", [X], {}),
        ("FastGelu", [X, ROW], {}),
        ("QuickGelu", [X], {}),
        ("QuickGelu", [X], {"alpha": 1.0}),
    ],
)
def test_microsoft(op_type: str, inputs: list[Any], attrs: dict[str, Any]) -> None:
    agree(op_type, inputs, opset=1, domain=MICROSOFT, tol=1e-5, **attrs)


def test_bias_split_gelu() -> None:
    """onnxruntime has no kernel of it for the CPU: compared with what it says it is."""
    (found,) = run_node("BiasSplitGelu", [X, ROW], opset=1, domain=MICROSOFT)
    left, right = np.split(X + ROW, 2, axis=-1)
    (gelu,) = ort_node("Gelu", [right], opset=20)
    np.testing.assert_allclose(found, left * gelu, rtol=1e-5, atol=1e-6)


NAMES = {n: getattr(TensorProto, n) for n in ("FLOAT", "DOUBLE", "FLOAT16", "INT8", "INT32", "INT64", "UINT8", "BOOL")}


@pytest.mark.parametrize("to", NAMES)
@pytest.mark.parametrize(
    "source",
    [X, INTS, BOOLS, X.astype(np.float16), np.abs(INTS).astype(np.uint8)],
    ids=lambda a: a.dtype.name,
)
def test_cast(source: np.ndarray, to: str) -> None:
    agree("Cast", [np.abs(source) if to.startswith("U") else source], opset=13, to=NAMES[to])


@pytest.mark.parametrize(
    "values",
    [
        np.array([1.5, 0.1, -2e10, 1e-7, 3, 16777216.0, np.nan, np.inf, -np.inf], np.float32),
        np.array([1.5, 0.1, -2e10, 1e-7, 123456789.125]),
        np.array([-7, 2**60]),
        np.array([3, 255], np.uint8),
        np.array([0.1, 2.5], np.float16),
    ],
    ids=lambda a: a.dtype.name,
)
def test_numbers_become_strings(values: np.ndarray) -> None:
    agree("Cast", [values], opset=13, to=TensorProto.STRING, out_types=[TensorProto.STRING])


def test_strings_become_numbers() -> None:
    text = np.array(["1.5", "-2e3", "NaN", "INF", "-INF"], object)
    agree("Cast", [text], opset=13, to=TensorProto.FLOAT)
    agree("Cast", [np.array(["12", "-3"], object)], opset=9, to=TensorProto.INT64)


def test_bit_cast() -> None:
    (found,) = run_node("BitCast", [X], opset=26, to=TensorProto.INT32)
    np.testing.assert_array_equal(found, X.view(np.int32))


def test_cast_like() -> None:
    agree("CastLike", [X, INTS[0, 0]], opset=19)


@pytest.mark.parametrize("name", ["FLOAT8E4M3FN", "FLOAT8E5M2", "FLOAT8E4M3FNUZ", "FLOAT8E5M2FNUZ"])
@pytest.mark.parametrize("saturate", [0, 1])
def test_cast_to_float8(name: str, saturate: int) -> None:
    x = np.array([0, 0.3, -2.7, 300, 1e6, -1e6, np.inf, np.nan], np.float32)
    to = getattr(TensorProto, name)
    (found,) = run_node("Cast", [x], opset=19, to=to, saturate=saturate)
    node = onnx.helper.make_node("Cast", ["x"], ["y"], to=to, saturate=saturate)
    (wanted,) = ReferenceEvaluator(node).run(None, {"x": x})
    np.testing.assert_array_equal(found.astype(np.float32), np.asarray(wanted).astype(np.float32))


def test_version_1_of_cast_names_the_type() -> None:
    (found,) = run_node("Cast", [X], opset=1, to="INT32")
    np.testing.assert_array_equal(found, X.astype(np.int32))
    with pytest.raises(UnsupportedAttributeError, match="nothing"):
        run_node("Cast", [X], opset=1, to="nothing")


def test_unknown_attributes_are_named() -> None:
    with pytest.raises(UnsupportedAttributeError, match=r"Relu-14 'node'.*beta"):
        run_node("Relu", [X], opset=14, beta=1.0)


@pytest.mark.parametrize("opset", [1, 6])
@pytest.mark.parametrize(
    ("shape", "axis", "wanted"),
    [
        ((4,), None, (4,)),
        ((3,), 1, (3, 1)),
        ((2, 3), 0, (2, 3, 1)),
        ((3, 4), 1, (3, 4)),
        ((3,), -2, (3, 1)),
        ((), None, ()),
    ],
)
def test_old_broadcasting(opset: int, shape: tuple[int, ...], axis: int | None, wanted: tuple[int, ...]) -> None:
    b = rng.uniform(1, 2, shape).astype(np.float32)
    attrs = {"broadcast": 1} | ({} if axis is None else {"axis": axis})
    for op_type, f in (("Add", np.add), ("Sub", np.subtract), ("Mul", np.multiply), ("Div", np.divide)):
        (found,) = run_node(op_type, [X, b], opset=opset, **attrs)
        np.testing.assert_array_equal(found, f(X, b.reshape(wanted)))


def test_old_comparisons_and_power_broadcast() -> None:
    b = rng.uniform(1, 2, (3,)).astype(np.float32)
    (found,) = run_node("Less", [X, b], opset=6, broadcast=1, axis=1)
    np.testing.assert_array_equal(found, b[:, None] > X)
    (found,) = run_node("Pow", [np.abs(X), b], opset=6, broadcast=1, axis=1)
    np.testing.assert_allclose(found, np.abs(X) ** b[:, None], rtol=1e-6)


def test_old_nodes_name_what_they_overwrite() -> None:
    (found,) = run_node("Relu", [X], opset=1, consumed_inputs=[0])
    np.testing.assert_array_equal(found, np.maximum(X, 0))
    (found,) = run_node("Clip", [X], opset=1, consumed_inputs=[0], max=1.0)
    np.testing.assert_array_equal(found, np.minimum(X, 1))


def test_old_prelu_slopes_belong_to_channels() -> None:
    slope = np.array([0.1, 0.2, 0.3], np.float32)
    (found,) = run_node("PRelu", [X, slope], opset=6)
    np.testing.assert_allclose(found, np.where(X < 0, X * slope[:, None], X), rtol=1e-6)


FAMILY = """BitCast
Abs Acos Acosh Add And Asin Asinh Atan Atanh BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor
Cast CastLike Ceil Celu Clip Cos Cosh Div Elu Equal Erf Exp Floor Gelu Greater GreaterOrEqual HardSigmoid
HardSwish Identity IsInf IsNaN LeakyRelu Less LessOrEqual Log Max Mean Min Mish Mod Mul Neg Not Or PRelu Pow
Reciprocal Relu Round Selu Shrink Sigmoid Sign Sin Sinh Softplus Softsign Sqrt Sub Sum Swish Tan Tanh
ThresholdedRelu Where Xor"""


def test_every_version_is_bound() -> None:
    assert BINDINGS
    known: dict[str, set[int]] = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain == "":
            known.setdefault(schema.name, set()).add(schema.since_version)
    for op_type in FAMILY.split():
        assert known[op_type] <= set(bound_versions("", op_type)), op_type
