"""Expressions in CUDA C++ against the array kernels, which NumPy computes: in float64 where roundings differ."""

import ml_dtypes
import numpy as np
import pytest

from onnxgrad.ops.errors import KernelError
from onnxgrad.ops.expr import Const, Expr, Var, call, equal, maximum, minimum, where
from onnxgrad.ops.kernels.cuda import pointwise  # noqa: F401 - registers the rules
from onnxgrad.ops.kernels.cuda.expression import supports, write
from onnxgrad.ops.primitives import compile_array
from onnxgrad.ops.types import BFLOAT16, TensorType

from . import host
from .site import run_op

pytestmark = [
    pytest.mark.skipif(host.why_not() is not None, reason=str(host.why_not())),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
]

X, Y = Var("x"), Var("y")
SPECIAL = [0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 2.0, 3.0, -3.0, 1e-40, -1e-40, 1e-30, 80.0, -80.0, 3e38, -3e38, np.inf,
           -np.inf, np.nan]  # fmt: skip
UNARY = (
    "exp", "expm1", "exp2", "log", "log1p", "log2", "log10", "sqrt", "sin", "cos", "tan", "asin", "acos", "atan",
    "sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "erf", "erfc", "erfinv", "lgamma", "sigmoid", "softplus", "abs",
    "sign", "floor", "ceil", "trunc", "round", "neg",
)  # fmt: skip
BINARY = ("add", "sub", "mul", "div", "mod", "fmod", "pow", "max", "min", "atan2", "hypot", "copysign", "logaddexp",
          "logaddexp2")  # fmt: skip
INTEGER = ("add", "sub", "mul", "div", "mod", "fmod", "pow", "max", "min", "neg", "abs", "sign", "floor")
ELEMENTS = ("float32", "float64", "float16", "bfloat16", "bool", "int8", "uint8", "int16", "uint16", "int32", "uint32",
            "int64", "uint64")  # fmt: skip


def chosen(cases: list[Expr]) -> Expr:
    """Return the case whose number `k` is."""
    found = cases[-1]
    for i in reversed(range(len(cases) - 1)):
        found = where(equal(Var("k"), i), cases[i], found)
    return found


def rename(expression: Expr, names: list[str]) -> Expr:
    from onnxgrad.ops.expr import substitute

    return substitute(expression, {n: Var(f"a{i}") for i, n in enumerate(names)})


def evaluate(cases: list[Expr], dtype, *, result=None, **arrays) -> np.ndarray:
    """Return one row a case, all computed by one kernel."""
    k = np.arange(len(cases), dtype=np.int32)[:, None]
    shape = np.broadcast_shapes(k.shape, *(a.shape for a in arrays.values()))
    results = [TensorType(np.dtype(result or dtype), shape)]
    expression = rename(chosen(cases), ["k", *arrays])
    (y,) = run_op("pointwise", [k, *arrays.values()], {"expression": expression}, results=results)
    return y


def numpy_of(cases: list[Expr], **arrays) -> list[np.ndarray]:
    return [np.asarray(compile_array(c, tuple(arrays))(*arrays.values())) for c in cases]


def errors_in_ulp(found: np.ndarray, exact: np.ndarray, dtype) -> np.ndarray:
    with np.errstate(all="ignore"):
        near = exact.astype(dtype)
        ulp = np.abs(np.spacing(near)).astype(np.float64)
        off = np.abs(found.astype(np.float64) - exact) / ulp
        return np.where((found == near) | (np.isnan(found) & np.isnan(near)), 0, off)


def check_special(name, found, numpy_found):
    """NaN, infinities and zeros are where NumPy has them, zeros with their signs."""
    for what in (np.isnan, np.isposinf, np.isneginf):
        np.testing.assert_array_equal(what(found), what(numpy_found), err_msg=f"{name}: {what.__name__}")
    both = (found == 0) & (numpy_found == 0)
    np.testing.assert_array_equal(np.signbit(found[both]), np.signbit(numpy_found[both]), err_msg=f"{name}: -0")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_functions_of_one_float(rng_values, dtype):
    x = rng_values(dtype)
    cases = [call(fn, X) for fn in UNARY]
    found = evaluate(cases, dtype, x=x)
    exact, rounded = numpy_of(cases, x=x.astype(np.float64)), numpy_of(cases, x=x)
    for fn, y, wanted, near in zip(UNARY, found, exact, rounded, strict=True):
        check_special(fn, y, near)
        finite = np.isfinite(wanted.astype(dtype)) & (np.abs(wanted) > 1e-37)
        if fn == "erfinv":  # the emulator's is exact to 1e-16, not more
            finite &= np.abs(x) > 0.1
        limit = 4 if dtype == "float32" else 1000 if fn == "lgamma" else 32  # the exact value is NumPy's own float64
        assert errors_in_ulp(y, wanted, dtype)[finite].max() <= limit, fn


@pytest.fixture
def rng_values():
    def values(dtype, seed=0):
        rng = np.random.default_rng(seed)
        drawn = [rng.normal(size=60), rng.uniform(-1, 1, 60), 30 * rng.normal(size=60), np.exp(8 * rng.normal(size=40))]
        return np.concatenate([SPECIAL, *drawn]).astype(dtype)

    return values


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_functions_of_two_floats(rng_values, dtype):
    x, y = rng_values(dtype), np.array([*SPECIAL, 1.7, -2.3, 0.1, 7.0], dtype)[:, None]
    x, y = (np.ascontiguousarray(a).reshape(-1) for a in np.broadcast_arrays(x[:40], y))
    cases = [call(fn, X, Y) for fn in BINARY]
    cases += [where(c, 1.0, 0.0) for c in (X < Y, X <= Y, equal(X, Y), call("isnan", X))]
    names = [*BINARY, "less", "less_equal", "equal", "isnan"]
    found = evaluate(cases, dtype, x=x, y=y)
    exact, rounded = numpy_of(cases, x=x.astype(np.float64), y=y.astype(np.float64)), numpy_of(cases, x=x, y=y)
    for name, z, wanted, near in zip(names, found, exact, rounded, strict=True):
        if name in ("max", "min"):  # which of two equal zeros wins is open
            np.testing.assert_array_equal(z, near, err_msg=name)
        else:
            check_special(name, z, near)
        finite = np.isfinite(wanted.astype(dtype)) & (np.abs(wanted) > 1e-37) & np.isfinite(near)
        if name.startswith("logaddexp"):  # what cancels is lost
            finite &= np.abs(wanted) > 0.5 * np.maximum(np.abs(x), np.abs(y))
        assert errors_in_ulp(z, wanted, dtype)[finite].max() <= 4, name


@pytest.mark.parametrize("exponent", [-1, 0.5, -0.5, 1, 2, 3.0, 4, 0, 2.5])
def test_powers_by_a_constant(rng_values, exponent):
    x = rng_values("float32")
    (found,) = evaluate([call("pow", X, exponent)], "float32", x=x)
    exact, near = (np.power(v, np.full_like(v, exponent)) for v in (x.astype(np.float64), x))  # not its short ways
    check_special(exponent, found, near)
    finite = np.isfinite(exact.astype(np.float32)) & (np.abs(exact) > 1e-37)
    assert errors_in_ulp(found, exact, np.float32)[finite].max() <= 4


def test_extremes_with_a_constant_hand_on_nan():
    x = np.array(SPECIAL, np.float32)
    cases = [maximum(X, 0), maximum(0, X), minimum(X, 6), minimum(6, X), maximum(X, np.nan), minimum(np.nan, X)]
    for case, y, wanted in zip(cases, evaluate(cases, "float32", x=x), numpy_of(cases, x=x), strict=True):
        np.testing.assert_array_equal(y, wanted, err_msg=str(case.args))


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"])
def test_integers(dtype):
    info = np.iinfo(dtype)
    values = np.array([info.min, info.min + 1, info.max, 0, 1, 2, 3, 5, 7, 100, info.max // 2], dtype)
    if info.min < 0:
        values = np.concatenate([values, np.array([-1, -2, -3, -7, -100], dtype)])
    x, y = (a.ravel() for a in np.meshgrid(values, values))
    cases = [call(fn, X, Y) if fn not in ("neg", "abs", "sign", "floor") else call(fn, X) for fn in INTEGER]
    cases += [where(X < Y, X, Y), where(equal(X, Y), 3, X)]
    found = evaluate(cases, dtype, x=x, y=y)
    for fn, z, wanted in zip([*INTEGER, "less", "equal"], found, numpy_of(cases, x=x, y=y), strict=True):
        there = np.ones(x.shape, bool)
        if fn == "pow":  # NumPy's goes by floats where an exponent is negative
            there = (y >= 0) & (y < 64) & (np.abs(x.astype(float)) ** y.astype(float) < min(2.0**50, info.max))
        np.testing.assert_array_equal(z[there], wanted[there].astype(dtype), err_msg=f"{fn} {dtype}")


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "uint64", "bool"])
def test_bits(dtype):
    if dtype == "bool":
        x, y = (a.ravel() for a in np.meshgrid([False, True], [False, True]))
        names = (
            "bitwise_and",
            "bitwise_or",
            "bitwise_xor",
            "logical_and",
            "logical_or",
            "logical_xor",
            "add",
            "mul",
            "max",
        )
    else:
        x, y = (a.ravel().astype(dtype) for a in np.meshgrid([0, 1, 2, 77, 100, 127], [0, 1, 3, 7, 8, 31, 63, 64]))
        names = ("bitwise_and", "bitwise_or", "bitwise_xor", "shift_left", "shift_right")
    found = evaluate([*(call(n, X, Y) for n in names), call("bitwise_not", X)], dtype, x=x, y=y)
    of = {"shift_left": np.left_shift, "shift_right": np.right_shift, "mul": np.multiply, "max": np.maximum}
    for n, z in zip(names, found, strict=False):
        np.testing.assert_array_equal(z, of.get(n, getattr(np, n, None))(x, y), err_msg=n)
    np.testing.assert_array_equal(found[-1], np.invert(x))


def test_truth_of_floats():
    x = np.array(SPECIAL, np.float32)
    cases = [
        call("logical_not", X),
        call("logical_and", X, 1),
        call("logical_xor", X, True),
        call("signbit", X),
        call("isnan", X),
    ]
    found = evaluate(cases, "bool", x=x)
    for z, wanted in zip(found, (x == 0, x != 0, x == 0, np.signbit(x), np.isnan(x)), strict=True):
        np.testing.assert_array_equal(z, wanted)


def test_casts_between_all_types():
    values = np.array([0, 1, 2, 3, 100, 127, 7, 5])
    fractions = np.array([0.5, -1.5, 2.5, 1e-3, -0.0, 99.99, 65519.0, 1.0 + 2.0**-11 + 2.0**-40])
    arrays = {f"v{i}": (fractions if i < 4 else values).astype(t) for i, t in enumerate(ELEMENTS)}
    cases, wanted = [], []
    for i, source in enumerate(ELEMENTS):
        for target in ELEMENTS:
            cases.append(call(f"cast:{target}:float64", call(f"cast:{source}:{target}", Var(f"v{i}"))))
            with np.errstate(all="ignore"):
                wanted.append(arrays[f"v{i}"].astype(target).astype(np.float64))
    found = evaluate(cases, "float64", **arrays)
    for n, (y, z) in enumerate(zip(found, wanted, strict=True)):
        source, target = ELEMENTS[n // len(ELEMENTS)], ELEMENTS[n % len(ELEMENTS)]
        kept = np.abs(z) < 100 if target in ("int8", "uint8") else np.abs(z) < 1e9
        kept &= ~((arrays[f"v{n // len(ELEMENTS)}"].astype(float) < 0) & (target.startswith("u")))
        np.testing.assert_array_equal(y[kept], z[kept], err_msg=f"{source} to {target}")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_float64_is_rounded_to_half_precision_once(dtype):
    x = np.array([1 + 2.0**-11, 1 + 2.0**-11 + 2.0**-40, 1 + 2.0**-11 - 2.0**-40, 65520 - 1e-9, 65520, 2.0**-25,
                  2.0**-25 + 2.0**-70, np.inf, -np.inf, np.nan, -0.0, 1e300])  # fmt: skip
    (y,) = run_op("cast", [x], {"dtype": dtype})
    with np.errstate(all="ignore"):
        wanted = x.astype(np.float16) if dtype == "float16" else x.astype(ml_dtypes.bfloat16)
    np.testing.assert_array_equal(y.view(np.uint16)[~np.isnan(x)], wanted.view(np.uint16)[~np.isnan(x)])
    assert np.isnan(y.astype(float))[9]


def test_types_mix_as_in_numpy():
    wanted = {
        ("i32", "float"): "double", ("i16", "float"): "float", ("u8", "i8"): "i16", ("u32", "i32"): "i64",
        ("u64", "i64"): "double", ("bool", "u8"): "u8", ("bool", "float"): "float", ("i64", "i32"): "i64",
    }  # fmt: skip
    for (a, b), c in wanted.items():
        assert write(X + Y, {"x": "x", "y": "y"}, {"x": a, "y": b}).ctype == c, (a, b)
    assert write(X * 0.5, {"x": "x"}, {"x": "i32"}).ctype == "double"
    assert write(X * 2, {"x": "x"}, {"x": "i8"}).ctype == "i8"
    assert write(where(X < 0, 1, 0), {"x": "x"}, {"x": "float"}).ctype == "float"


def test_shared_parts_are_written_once_and_the_text_is_the_same_each_time():
    shared = call("exp", X + 1.0)
    made = write(shared * shared + shared, {"x": "x"}, {"x": "float"})
    assert made.statements.count("expf") == 1
    again = call("exp", X + 1.0)
    assert made == write(again * again + again, {"x": "x"}, {"x": "float"})


def test_what_has_no_code_is_refused():
    f32, b = np.dtype(np.float32), np.dtype(bool)
    assert not supports(call("polygamma", 1, X), {"x": f32})
    assert not supports(X - Y, {"x": b, "y": b})
    assert not supports(call("exp", X), {"x": np.dtype(np.int32)})
    assert not supports(X + 300, {"x": np.dtype(np.int8)})
    assert supports(X + 300, {"x": np.dtype(np.int32)}, BFLOAT16)
    with pytest.raises(KernelError, match="reads y, given are"):
        write(X + Y, {"x": "x"}, {"x": "float"})
    assert write(Const(2), {}, {}, stored=np.dtype(np.float16)).result == "2.0f"
