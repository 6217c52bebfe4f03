"""Pointwise methods against PyTorch, NumPy and differences; element types over a grid."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra import numpy as hnp

import onnxgrad as og
from onnxgrad.errors import DTypeError, OpError, ShapeError

from .row import Row, normal, positive, tables

X, Y, P, Q = normal(3, 4), normal(4), positive(3, 4), positive(4)
SPECIAL_OF = [
    "exp2", "expm1", "log2", "log10", "log1p", "erfc", "lgamma", "digamma", "sinc", "trunc", "frac", "sgn",
    "nan_to_num", "signbit", "isposinf", "isneginf", "isinf", "isfinite",
]  # fmt: skip
SPECIAL = np.array([0.0, -0.0, 1.0, -1.0, math.inf, -math.inf, math.nan, 2.5, -3.5])
MASK = X > 0


def unary(name, x, reference=None, **more):
    return Row(name, lambda t, v: getattr(t, name)(v), (x,), reference, **more)


def binary(name, x, y, reference=None, **more):
    return Row(name, lambda t, a, b: getattr(t, name)(a, b), (x, y), reference, **more)


ROWS = [
    unary("exp2", X, np.exp2),
    unary("expm1", X, np.expm1),
    unary("log2", P, np.log2),
    unary("log10", P, np.log10),
    unary("log1p", P, np.log1p),
    unary("erfc", X, np.vectorize(math.erfc)),
    unary("erfinv", np.tanh(X) * 0.9),
    unary("lgamma", P, np.vectorize(math.lgamma)),
    unary("digamma", P, dtypes=("float32",)),  # PyTorch's gradient is exact to 1e-9
    unary("sinc", X, np.sinc),
    unary("trunc", X * 3, np.trunc),
    unary("fix", X * 3, np.fix),
    unary("frac", X * 3, lambda v: v - np.trunc(v)),
    Row("sgn", lambda t, v: t.sgn(v.detach()), (X,), np.sign, order=0),
    unary("sign", X, np.sign),
    unary("square", X, np.square),
    unary("rsqrt", P, lambda v: 1 / np.sqrt(v)),
    unary("deg2rad", X, np.deg2rad),
    unary("rad2deg", X, np.rad2deg),
    unary("logit", np.clip(P / 2.2, 0.1, 0.9), lambda v: np.log(v / (1 - v))),
    unary("nan_to_num", X, np.nan_to_num),
    unary("signbit", X, np.signbit, order=0),
    unary("isposinf", X, np.isposinf, order=0),
    unary("isneginf", X, np.isneginf, order=0),
    unary("isreal", X, np.isreal, order=0),
    Row("logit-eps", lambda t, v: v.logit(eps=0.2), (P / 2.2,), order=1),
    Row("round-decimals", lambda t, v: v.round(decimals=2), (X,), lambda v: np.round(v, 2), order=0),
    Row("round-tens", lambda t, v: v.round(decimals=-1), (X * 100,), lambda v: np.round(v, -1), order=0),
    Row("polygamma-1", lambda t, v: t.polygamma(1, v), (P,), order=1, dtypes=("float32",)),
    Row("polygamma-3", lambda t, v: t.polygamma(3, v), (P,), order=1),
    binary("atan2", X, Y, np.arctan2),
    binary("hypot", X, Y, np.hypot),
    binary("copysign", X, Y, np.copysign),
    binary("logaddexp", X, Y, np.logaddexp),
    binary("logaddexp2", X, Y, np.logaddexp2),
    binary("xlogy", X, Q, lambda a, b: a * np.log(b)),
    binary("fmax", X, Y, np.fmax),
    binary("fmin", X, Y, np.fmin),
    binary("fmod", X * 5, Q, np.fmod, order=1),
    binary("remainder", X * 5, Q, np.mod, order=1),
    binary("float_power", P, Y, np.float_power),
    binary("maximum", X, Y, np.maximum),
    binary("logical_xor", MASK, ~MASK[0], np.logical_xor, order=0),
    binary("dist", X, Y, lambda a, b: np.linalg.norm(a - b)),
    Row("heaviside", lambda t, a, b: t.heaviside(a.detach(), b.detach()), (np.round(X), Y), np.heaviside, order=0),
    Row("rsub", lambda t, a, b: t.rsub(a, b, alpha=2), (X, Y), lambda a, b: b - 2 * a),
    Row("lerp", lambda t, a, b, w: t.lerp(a, b, w), (X, X + 1, P), lambda a, b, w: a + w * (b - a)),
    Row("lerp-number", lambda t, a, b: a.lerp(b, 0.3), (X, X + 1), lambda a, b: a + 0.3 * (b - a)),
    Row("addcmul", lambda t, a, b, c: t.addcmul(a, b, c, value=2), (X, Y, P), lambda a, b, c: a + 2 * b * c),
    Row("addcdiv", lambda t, a, b, c: t.addcdiv(a, b, c, value=2), (X, Y, P), lambda a, b, c: a + 2 * b / c),
    Row("where", lambda t, c, a, b: t.where(c, a, b), (MASK, X, Y), np.where),
    Row("where-number", lambda t, c, a: t.where(c, a, 0.5), (MASK, X), lambda c, a: np.where(c, a, 0.5)),
    Row("masked_fill", lambda t, a, m: a.masked_fill(m, -1.5), (X, MASK), lambda a, m: np.where(m, -1.5, a)),
    Row("clamp-tensors", lambda t, a, b: a.clamp(b, b + 1), (X, Y), lambda a, b: np.clip(a, b, b + 1)),
    Row("clamp_min", lambda t, a: t.clamp_min(a, 0.1), (X,), lambda a: np.maximum(a, 0.1)),
    Row("div-trunc", lambda t, a, b: t.div(a, b, rounding_mode="trunc"), (X * 9, Q), lambda a, b: np.trunc(a / b), 0),
    Row("div-floor", lambda t, a, b: t.div(a, b, rounding_mode="floor"), (X * 9, Q), np.floor_divide, order=0),
    Row("pow-number-base", lambda t, a: t.pow(2.1, a), (X,), lambda a: 2.1**a),
    Row("sub-alpha", lambda t, a, b: t.sub(a, b, alpha=3), (X, Y), lambda a, b: a - 3 * b),
]
test_it_is_pytorchs, test_it_is_numpys, test_gradients_are_those_of_differences = tables("pointwise", ROWS)

DTYPES = ["float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool"]
BINARY = [
    "add",
    "sub",
    "mul",
    "div",
    "pow",
    "floor_divide",
    "remainder",
    "maximum",
    "eq",
    "lt",
    "atan2",
    "logaddexp",
    "where",
    "bitwise_and",
    "fmod",
]


def same(ours, theirs):
    """Whether both raise, or give the same type, shape and numbers."""
    results = []
    for f in (ours, theirs):
        try:
            results.append(f())
        except (RuntimeError, NotImplementedError, TypeError) as error:
            results.append(error)
    a, b = results
    if isinstance(b, Exception):
        return  # what PyTorch lacks may be there
    assert not isinstance(a, Exception), a
    assert str(a.dtype) == str(b.dtype).removeprefix("torch."), (a.dtype, b.dtype)
    assert tuple(a.shape) == tuple(b.shape)
    loose = 2e-2 if "16" in str(a.dtype) else 1e-5
    np.testing.assert_allclose(a.double().numpy(), b.double().numpy(), rtol=loose, atol=loose)


@pytest.mark.oracle
@pytest.mark.parametrize("name", BINARY)
def test_element_types_mix_as_in_pytorch(name):
    import torch

    def call(lib, a, b):
        return lib.where(lib.tensor([True, False]), a, b) if name == "where" else getattr(lib, name)(a, b)

    for first, second in itertools.product(DTYPES, DTYPES):
        for left, right in (([3, 2], [1, 2]), ([3, 2], 2), (2, [1, 2]), (3, 2)):

            def both(lib, first=first, second=second, left=left, right=right):
                a = lib.tensor(left, dtype=getattr(lib, first))
                return call(lib, a, lib.tensor(right, dtype=getattr(lib, second)))

            same(lambda: both(og), lambda: both(torch))


@pytest.mark.oracle
@pytest.mark.parametrize("name", BINARY)
@pytest.mark.parametrize("number", [2, 2.5, True])
def test_numbers_mix_as_in_pytorch(name, number):
    import torch

    def call(lib, dtype, data):
        a = lib.tensor(data, dtype=getattr(lib, dtype))
        return lib.where(lib.tensor([True, False]), a, number) if name == "where" else getattr(lib, name)(a, number)

    for dtype in DTYPES:
        for data in ([3, 2], 3):
            if name in ("atan2", "logaddexp"):
                continue  # these take no numbers
            same(
                lambda dtype=dtype, data=data: call(og, dtype, data),
                lambda dtype=dtype, data=data: call(torch, dtype, data),
            )


UNARY = [
    "neg",
    "abs",
    "sign",
    "exp",
    "exp2",
    "expm1",
    "log",
    "log1p",
    "sqrt",
    "rsqrt",
    "sin",
    "atan",
    "sigmoid",
    "tanh",
    "erf",
    "erfc",
    "floor",
    "ceil",
    "round",
    "trunc",
    "square",
    "reciprocal",
    "relu",
    "logical_not",
    "bitwise_not",
    "isnan",
    "isinf",
    "isfinite",
    "signbit",
    "deg2rad",
    "digamma",
    "lgamma",
    "sum",
    "mean",
    "prod",
    "amax",
    "std",
    "cumsum",
    "argmax",
    "any",
    "all",
    "softmax",
    "logsumexp",
    "nansum",
    "count_nonzero",
    "median",
]


@pytest.mark.oracle
@pytest.mark.parametrize("name", UNARY)
def test_element_types_of_one_operand(name):
    import torch

    more = {"cumsum": (0,), "softmax": (0,), "logsumexp": (0,)}.get(name, ())
    for dtype in DTYPES:
        for data in ([1, 3, 2], 1) if name != "std" else ([1, 3, 2],):

            def call(lib, dtype=dtype, data=data):
                return getattr(lib, name)(lib.tensor(data, dtype=getattr(lib, dtype)), *more)

            same(lambda: call(og), lambda: call(torch))


@pytest.mark.oracle
def test_types_are_pytorchs():
    import torch

    for first, second in itertools.product(DTYPES, DTYPES):
        a, b = (getattr(og, n) for n in (first, second))
        c, d = (getattr(torch, n) for n in (first, second))
        assert str(og.promote_types(a, b)) == str(torch.promote_types(c, d)).removeprefix("torch.")
        assert og.can_cast(a, b) == torch.can_cast(c, d)
        for left, right in (([1], [1]), ([1], 1), (1, [1])):
            ours = og.result_type(og.tensor(left, dtype=a), og.tensor(right, dtype=b))
            theirs = torch.result_type(torch.tensor(left, dtype=c), torch.tensor(right, dtype=d))
            assert str(ours) == str(theirs).removeprefix("torch.")
        for number in (1, 1.5, True):
            ours, theirs = (
                og.result_type(og.tensor([1], dtype=a), number),
                torch.result_type(torch.tensor([1], dtype=c), number),
            )
            assert str(ours) == str(theirs).removeprefix("torch.")


@pytest.mark.oracle
def test_special_numbers():
    import torch

    for name in SPECIAL_OF:
        ours, theirs = (getattr(lib, name)(lib.tensor(SPECIAL)) for lib in (og, torch))
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-12, err_msg=name)
    a, b = (np.ravel(v) for v in np.meshgrid(SPECIAL, SPECIAL))
    for name in (
        "atan2",
        "hypot",
        "copysign",
        "logaddexp",
        "xlogy",
        "fmax",
        "fmin",
        "maximum",
        "minimum",
        "floor_divide",
        "remainder",
    ):
        ours, theirs = (getattr(lib, name)(lib.tensor(a), lib.tensor(b)) for lib in (og, torch))
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-12, err_msg=name)


def test_inverse_error_function_is_inverse():
    x = np.concatenate([np.linspace(-1, 1, 201), [1e-12, 1 - 1e-9, -1e-300]])
    y = og.erfinv(og.tensor(x)).numpy()
    back = np.array([math.erf(v) for v in y])
    np.testing.assert_allclose(back, x, rtol=4e-16)
    assert np.isnan(og.erfinv(og.tensor(1.5)).item())


def test_derivatives_of_the_gamma_function():
    euler = 0.5772156649015329
    x = og.tensor([1.0, 0.5, -0.5, 20.0], dtype=og.float64)
    harmonic = sum(1 / k for k in range(1, 20))
    wanted = [-euler, -euler - 2 * math.log(2), 2 - euler - 2 * math.log(2), harmonic - euler]
    np.testing.assert_allclose(x.digamma().numpy(), wanted, rtol=1e-14, atol=1e-15)
    np.testing.assert_allclose(
        og.polygamma(1, x[:3]).numpy(), [math.pi**2 / 6, math.pi**2 / 2, math.pi**2 / 2 + 4], rtol=1e-14
    )
    assert og.polygamma(2, x[:1]).item() == pytest.approx(-2 * 1.2020569031595942, rel=1e-14)


def test_numbers_that_are_exact():
    assert og.log2(og.tensor([8.0, 1024.0])).tolist() == [3.0, 10.0]
    assert og.log10(og.tensor([1000.0])).item() == 3.0
    assert og.exp2(og.tensor([10.0])).item() == 1024.0
    assert (og.tensor(1.0, dtype=og.float64) // 0.1).item() == 9.0
    assert og.xlogy(og.tensor([0.0, 0.0]), og.tensor([0.0, float("nan")])).isnan().tolist() == [False, True]
    assert og.xlogy(2.0, og.tensor([1.0])).item() == 0.0


def test_bits():
    a, b = og.tensor([12, 10]), og.tensor([2, 1])
    assert (a & b).tolist() == [0, 0] and (a | b).tolist() == [14, 11] and (a ^ b).tolist() == [14, 11]
    assert (a << b).tolist() == [48, 20] and (a >> b).tolist() == [3, 5] and (~a).tolist() == [-13, -11]
    assert a.bitwise_and(6).tolist() == [4, 2] and og.bitwise_left_shift(a, 1).tolist() == [24, 20]
    assert (~og.tensor([True])).tolist() == [False]


def test_close_and_equal():
    a = og.tensor([1.0, math.nan, math.inf])
    assert a.isclose(a + 1e-9).tolist() == [True, False, True]
    assert og.isclose(a, a, equal_nan=True).all() and not og.allclose(a, a) and og.allclose(a, a, equal_nan=True)
    assert og.equal(og.ones(2), og.ones(2)) and not og.equal(og.ones(2), og.ones(3))
    assert not og.isclose(og.tensor([1.0]), og.tensor([math.inf]))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: og.zeros(2, 3) + og.zeros(2, 4),
            ShapeError,
            r"add: .*size of tensor a \(3\) must match the size of tensor b \(4\)",
        ),
        (lambda: og.ones(2) * og.ones(3), RuntimeError, r"mul: .*non-singleton dimension 0"),
        (lambda: og.tensor([True]) - og.tensor([True]), DTypeError, "two bool tensors is not supported"),
        (lambda: og.tensor([2]) ** -1, DTypeError, "negative integer powers"),
        (lambda: og.div(og.ones(1), 2, rounding_mode="up"), OpError, "rounding_mode .* 'up'"),
        (lambda: og.ones(2) & og.ones(2), OpError, "bitwise_and"),
        (lambda: og.tensor([1, 2]).masked_fill(og.tensor([True, False]), math.inf), DTypeError, "int64"),
        (lambda: og.ones(2).masked_fill(og.ones(2), 1), DTypeError, "boolean masks"),
        (lambda: og.where(og.ones(2), 1.0, 0.0), DTypeError, "boolean tensor"),
        (lambda: og.ones(2).clamp(), DTypeError, "At least one of"),
        (lambda: og.ones(2).isclose(og.ones(2).double()), DTypeError, "float64"),
        (lambda: og.add(og.ones(2), 1, out=[1.0]), TypeError, "out"),
    ],
)
def test_wrong_use_says_what_is_wrong(call, error, message):
    with pytest.raises(error, match=message):
        call()


@settings(max_examples=40)
@given(
    hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=3, max_side=3), st.sampled_from(["atan2", "fmax", "hypot"])
)
def test_broadcasts_as_numpy(shapes, name):
    (first, second), result = shapes.input_shapes, shapes.result_shape
    a, b = (np.arange(np.prod(s, dtype=int), dtype=float).reshape(s) + k for k, s in enumerate((first, second)))
    x, y = og.tensor(a, requires_grad=True), og.tensor(b, requires_grad=True)
    found = getattr(og, name)(x, y)
    assert found.shape == result
    reference = {"atan2": np.arctan2, "fmax": np.fmax, "hypot": np.hypot}[name]
    np.testing.assert_allclose(found.detach().numpy(), reference(a, b))
    found.sum().backward()
    assert x.grad.shape == first and y.grad.shape == second
