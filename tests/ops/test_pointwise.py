"""Pointwise ops where the table does not reach: special values, element types, broadcasting, PyTorch."""

from __future__ import annotations

import math
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from onnxgrad.ops import pointwise as pw
from onnxgrad.ops.dims import Dim
from onnxgrad.ops.errors import DTypeError, ShapeError
from onnxgrad.ops.types import TensorType, type_of
from onnxgrad.runtime.autograd import tape
from onnxgrad.runtime.tensor.tensor import Tensor

SPECIAL = [0.0, -0.0, 1e-30, -1e-30, 1.0, -1.0, 3.0, -3.0, 40.0, -40.0, 1e4, -1e4, 1e30, -1e30]
INFINITE = [math.inf, -math.inf, math.nan]


def derivatives(f: Any, x: np.ndarray, order: int = 2) -> list[np.ndarray]:
    """Return f and its derivatives, elementwise."""
    t = Tensor(x, requires_grad=True)
    y = f(t)
    found = [y.array]
    for _ in range(order):
        if not y.requires_grad:
            found.append(np.zeros_like(x))
            continue
        (g,) = tape.grad([y], [t], [Tensor(np.ones_like(x))], create_graph=True, allow_unused=True)
        y = g if g is not None else Tensor(np.zeros_like(x))
        found.append(y.array)
    return found


def torch_derivatives(f: Any, x: np.ndarray, order: int = 2) -> list[np.ndarray]:
    torch = pytest.importorskip("torch")
    t = torch.tensor(x, requires_grad=True)
    y = f(t)
    found = [y.detach().numpy()]
    for _ in range(order):
        if not y.requires_grad:
            found.append(np.zeros_like(x))
            continue
        (g,) = torch.autograd.grad(y, t, torch.ones_like(t), create_graph=True, allow_unused=True)
        y = g if g is not None else torch.zeros_like(t)
        found.append(y.detach().numpy(force=True))
    return found


PAIRS = {
    "relu": (pw.relu, "relu"),
    "relu6 as a layer": (pw.relu6, "nn.functional.relu6"),
    "abs": (pw.abs_, "abs"),
    "sigmoid": (pw.sigmoid, "sigmoid"),
    "tanh": (pw.tanh, "tanh"),
    "erf": (pw.erf, "erf"),
    "sqrt": (pw.sqrt, "sqrt"),
    "log": (pw.log, "log"),
    "softsign": (pw.softsign, "nn.functional.softsign"),
    "gelu": (pw.gelu, "nn.functional.gelu"),
    "leaky_relu": (lambda x: pw.leaky_relu(x, 0.01), "nn.functional.leaky_relu"),
    "elu": (lambda x: pw.elu(x, 1.0), "nn.functional.elu"),
    "celu": (lambda x: pw.celu(x, 1.0), "nn.functional.celu"),
    "silu": (lambda x: pw.swish(x, 1.0), "nn.functional.silu"),
    "square": (lambda x: pw.pow_(x, 2.0), lambda t: t**2),
    "cube": (lambda x: pw.pow_(x, 3.0), lambda t: t**3),
    "to the one": (lambda x: pw.pow_(x, 1.0), lambda t: t**1.0),
    "to the zero": (lambda x: pw.pow_(x, 0.0), lambda t: t**0.0),
    "hardsigmoid": (lambda x: pw.hard_sigmoid(x, 1 / 6, 0.5), "nn.functional.hardsigmoid"),
    "relu6": (lambda x: pw.clip(x, 0.0, 3.0), lambda t: t.clamp(0.0, 3.0)),
    "threshold": (lambda x: pw.thresholded_relu(x, 1.0), lambda t: t * (t > 1)),
}


def named(path: Any) -> Any:
    torch = pytest.importorskip("torch")
    if callable(path):
        return path
    found = torch
    for part in path.split("."):
        found = getattr(found, part)
    return found


@pytest.mark.oracle
@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_special_values_as_pytorch(name: str, dtype: Any) -> None:
    ours, theirs = PAIRS[name]
    x = np.array([v for v in SPECIAL if dtype == np.float64 or abs(v) < 1e10], dtype)
    order = 1 if name in ("celu", "elu", "hardsigmoid") else 2  # PyTorch differs with itself at the kink
    wanted = torch_derivatives(named(theirs), x, order)
    for k, (f, w) in enumerate(zip(derivatives(ours, x, order), wanted, strict=True)):
        assert f.dtype == dtype
        exact = 1e-7 if name == "hardsigmoid" else 1e-12  # PyTorch's sixth is a float32
        rtol, atol = (1e-5, 1e-6) if dtype == np.float32 else (exact, 1e-14)
        np.testing.assert_allclose(f, w, rtol, atol, err_msg=f"order {k}")


@pytest.mark.oracle
def test_softplus_and_mish_at_zero_and_far_out() -> None:
    functional = pytest.importorskip("torch").nn.functional
    x = np.array([0.0, 1.0, -1.0, 15.0, -40.0])
    for ours, theirs in (
        (pw.softplus, lambda t: functional.softplus(t, threshold=1e9)),
        (pw.mish, functional.mish),
    ):
        for f, w in zip(derivatives(ours, x), torch_derivatives(theirs, x), strict=True):
            np.testing.assert_allclose(f, w, rtol=1e-9, atol=1e-12)
        assert all(np.isfinite(d).all() for d in derivatives(ours, np.array([-800.0, 800.0])))


@pytest.mark.parametrize("op", [pw.relu, pw.sigmoid, pw.tanh, pw.softplus, pw.exp], ids=lambda o: o.name)
def test_infinity_goes_where_the_limit_is(op: Any) -> None:
    high, low, nan = op(np.array(INFINITE))
    limits = {
        "relu": (math.inf, 0),
        "sigmoid": (1, 0),
        "tanh": (1, -1),
        "softplus": (math.inf, 0),
        "exp": (math.inf, 0),
    }
    assert (high, low) == limits[op.name]
    assert math.isnan(nan)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_erf_is_exact_to_two_ulp(dtype: Any) -> None:
    x = np.concatenate([np.linspace(-7, 7, 40001), np.logspace(-30, 1, 400)]).astype(dtype)
    wanted = np.array([math.erf(float(v)) for v in x])
    found = pw.erf(x)
    assert found.dtype == dtype
    ulp = np.spacing(np.abs(wanted).astype(dtype)).astype(float)
    assert (np.abs(found - wanted) <= 2 * ulp).all()
    np.testing.assert_array_equal(pw.erf(np.array([np.inf, -np.inf, 5, -5], dtype))[:2], [1, -1])
    assert np.isnan(pw.erf(np.array([np.nan], dtype))).all()
    assert np.signbit(pw.erf(np.array([-0.0], dtype))).all()


def test_sigmoid_keeps_its_digits_far_below_zero() -> None:
    np.testing.assert_allclose(pw.sigmoid(np.float32([-20, -60])), np.exp([-20.0, -60.0]), rtol=1e-6)


def test_pow_at_zero() -> None:
    base, exponent = np.array([0.0, 0.0, 0.0, 2.0]), np.array([0.0, 1.0, 2.0, 0.0])
    a, b = Tensor(base, requires_grad=True), Tensor(exponent, requires_grad=True)
    y = pw.pow_(a, b)
    np.testing.assert_array_equal(y.array, [1, 0, 0, 1])
    ga, gb = tape.grad([y], [a, b], [Tensor(np.ones(4))], create_graph=True)
    assert ga is not None and gb is not None
    np.testing.assert_allclose(ga.array, [0, 1, 0, 0])
    np.testing.assert_allclose(gb.array, [0, 0, 0, math.log(2)])
    (gaa,) = tape.grad([ga], [a], [Tensor(np.ones(4))])
    assert gaa is not None
    np.testing.assert_allclose(gaa.array, [0, 0, 2, 0])


def test_ties_share_the_gradient() -> None:
    a, b = (
        Tensor(np.array([1.0, 2.0, 3.0]), requires_grad=True),
        Tensor(np.array([1.0, 5.0, 0.0]), requires_grad=True),
    )
    ga, gb = tape.grad([pw.maximum(a, b)], [a, b], [Tensor(np.ones(3))])
    assert ga is not None and gb is not None
    np.testing.assert_array_equal(ga.array, [0.5, 0, 1])
    np.testing.assert_array_equal(gb.array, [0.5, 1, 0])


def test_clip_gives_the_gradient_to_whoever_is_the_result() -> None:
    x = Tensor(np.array([-2.0, -1.0, 0.0, 1.0, 2.0]), requires_grad=True)
    for low, high, wanted in ((-1.0, 1.0, ([0, 1, 1, 1, 0], 1, 1)), (1.0, -1.0, ([0] * 5, 0, 5))):
        lo, hi = Tensor(np.array(low), requires_grad=True), Tensor(np.array(high), requires_grad=True)
        grads = tape.grad([pw.clip(x, lo, hi)], [x, lo, hi], [Tensor(np.ones(5))])
        for g, w in zip(grads, wanted, strict=True):
            assert g is not None
            np.testing.assert_array_equal(g.array, w)


FLOAT_OPS = [
    o
    for o in vars(pw).values()
    if isinstance(o, pw.Pointwise) and o.expression is not None and o.result != "bool" and "_grad_" not in o.name
]


@pytest.mark.parametrize("shape", [(), (3,)], ids=["scalar", "vector"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("op", FLOAT_OPS, ids=lambda o: o.name)
def test_element_type_stays(op: Any, dtype: Any, shape: tuple[int, ...]) -> None:
    args: list[Any] = [np.full(shape, 0.5, dtype) for _ in op.names]
    if op.name == "where":
        args[0] = np.ones(shape, bool)
    if op.name == "acosh":
        args[0] = np.full(shape, 1.5, dtype)
    tensors = [Tensor(a, requires_grad=a.dtype != bool) for a in args]
    y = op(*tensors)
    assert y.dtype == np.dtype(dtype)
    assert y.shape == shape
    grads = tape.grad([y], [t for t in tensors if t.requires_grad], [Tensor(np.ones(shape, dtype))], allow_unused=True)
    assert all(g is None or (g.dtype == np.dtype(dtype) and g.shape == shape) for g in grads)


@pytest.mark.parametrize("op", [pw.add, pw.mul, pw.div, pw.maximum, pw.pow_], ids=lambda o: o.name)
def test_python_scalars_are_weak(op: Any) -> None:
    x = np.ones((2,), np.float32)
    assert op(x, 2.0).dtype == op(2.0, x).dtype == op(x, 2).dtype == np.float32
    assert op.infer_types(TensorType(x.dtype, (2,)), 2.0).dtype == np.float32


def test_true_division_by_a_python_float() -> None:
    np.testing.assert_array_equal(pw.div(np.array([1, -3]), 2.0), [0.5, -1.5])


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int64])
def test_integer_division_truncates(dtype: Any) -> None:
    a, b = np.array([7, 100, 1], dtype), np.array([2, 3, 7], dtype)
    found = pw.div(a, b)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, [3, 33, 0])


SIZES = st.lists(st.integers(1, 3), max_size=4)


@settings(max_examples=60, deadline=None)
@given(SIZES, st.lists(st.booleans(), min_size=4, max_size=4), st.integers(0, 4))
def test_broadcasting_and_its_undoing(sizes: list[int], ones: list[bool], cut: int) -> None:
    a_shape = tuple(sizes)
    b_shape = tuple(1 if one else n for n, one in zip(sizes, ones, strict=False))[min(cut, len(sizes)) :]
    a, b = np.ones(a_shape), np.full(b_shape, 2.0)
    ta, tb = Tensor(a, requires_grad=True), Tensor(b, requires_grad=True)
    y = pw.mul(tb, ta)
    assert y.shape == np.broadcast_shapes(a_shape, b_shape)
    assert pw.mul.infer_types(TensorType(a.dtype, a_shape), TensorType(b.dtype, b_shape)).shape == y.shape
    ga, gb = tape.grad([y], [ta, tb], [Tensor(np.ones(y.shape))])
    assert ga is not None and gb is not None
    np.testing.assert_array_equal(ga.array, np.full(a_shape, 2.0))
    np.testing.assert_array_equal(gb.array, np.full(b_shape, a.size / b.size))


def test_symbolic_shapes_broadcast() -> None:
    n = Dim.symbol("n")
    f32 = np.dtype(np.float32)
    assert pw.add.infer_types(TensorType(f32, (n, 3)), TensorType(f32, (1,))).shape == (n, 3)
    with pytest.raises(ShapeError, match="add"):
        pw.add.infer_types(TensorType(f32, (2, 3)), TensorType(f32, (4,)))


def test_comparisons_of_dimensions_are_known_where_every_binding_agrees() -> None:
    n = Dim.symbol("n")
    sizes = TensorType(np.dtype(np.int64), (2,), (n, 3))
    unknown = pw.equal.infer_types(sizes, type_of(np.array([-1, 3])))
    assert unknown.contents == (0, 1)
    assert pw.where.infer_types(unknown, type_of(np.array([7, 8])), sizes).contents == (n, 8)
    assert pw.greater.infer_types(sizes, type_of(np.array([0]))).contents == (1, 1)
    assert pw.equal.infer_types(sizes, type_of(np.array([5, 3]))).contents is None


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([np.float32, np.float64, np.int64]), st.integers(0, 8), st.integers(0, 999))
def test_where_is_numpys_to_the_bit(dtype: Any, which: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    full = np.array([1, -0.0, np.nan, np.inf, 7], np.float64)[rng.integers(0, 5, (20, 30))]
    with np.errstate(invalid="ignore"):
        full = full.astype(dtype)
    operands: list[Any] = [full, full[:1], full[:, :1], 0, 0.5 if dtype != np.int64 else 5]
    a, b = operands[which % 5], operands[(which * 3 + seed) % 3]
    condition = rng.random((20, 30)) > 0.5
    wanted = np.where(condition, a, b)
    found = pw.where(condition, a, b)
    assert found.dtype == wanted.dtype
    np.testing.assert_array_equal(found.view(np.uint8), wanted.view(np.uint8))
    np.testing.assert_array_equal(pw.where(condition, b, a), np.where(condition, b, a))


def test_floats_are_wanted() -> None:
    with pytest.raises(DTypeError, match="exp"):
        pw.exp.infer_types(TensorType(np.dtype(np.int64), (2,)))


@pytest.mark.parametrize(
    ("values", "dtype", "wanted"),
    [
        (["1.5", "NaN", "-INF", "1e-3"], "float32", [1.5, math.nan, -math.inf, 1e-3]),
        (["7", "-12"], "int64", [7, -12]),
        (["9007199254740993"], "int64", [9007199254740993]),
        (["1", "0"], "bool", [True, False]),
    ],
)
def test_strings_become_numbers(values: list[str], dtype: str, wanted: list[Any]) -> None:
    found = pw.cast(np.array(values, object), dtype=dtype)
    np.testing.assert_array_equal(found, np.array(wanted, dtype))


def test_strings_that_are_no_numbers() -> None:
    with pytest.raises(DTypeError, match="not a number"):
        pw.cast(np.array(["one"], object), dtype="float32")


@pytest.mark.parametrize(
    ("name", "largest"), [("float8_e4m3fn", 448), ("float8_e5m2", 57344), ("float8_e4m3fnuz", 240)]
)
def test_narrow_floats_saturate(name: str, largest: float) -> None:
    x = np.array([1e9, -np.inf, np.nan, 0.3], np.float32)
    kept = pw.cast(x, dtype=name).astype(np.float32)
    assert kept[0] == largest
    assert kept[1] == -largest
    assert np.isnan(kept[2])
    assert abs(kept[3] - 0.3) < 0.03
    assert not np.isfinite(pw.cast(x, dtype=name, saturate=False).astype(np.float32)[:3]).any()
