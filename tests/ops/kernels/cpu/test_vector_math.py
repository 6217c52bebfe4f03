"""Elementary functions as vector code: errors in units of the last place, special values, no calls."""

from __future__ import annotations

import ctypes
import functools
import math
from typing import Any

import numpy as np
import pytest

pytest.importorskip("llvmlite")

from onnxgrad.ops.dims import Dim
from onnxgrad.ops.errors import KernelError
from onnxgrad.ops.kernels.cpu.emitter import Emitter
from onnxgrad.ops.kernels.cpu.jit import assembly, compile_kernels
from onnxgrad.ops.kernels.cpu.kernel import Kernel, kernel
from onnxgrad.ops.kernels.cpu.vector_math import FUNCTIONS, call

Array = np.ndarray[Any, Any]

SPECIAL = (
    0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 0.5, -0.5, 2.0, -2.0, 3.0, -3.0, 1e-45, -1e-45, 1e-40, 1.1754944e-38,
    -1.1754944e-38, 3.4028235e38, -3.4028235e38, 88.72283, 88.72284, -87.33655, -103.97, -104.1, 16777216.0, 1e22,
)  # fmt: skip
SPECIAL64 = (*SPECIAL, 5e-324, -5e-324, 709.78, 709.79, -745.1, -745.2, 1.7e308, 6381956970095103.0 * 2.0**797)

EXACT = {"floor", "ceil", "trunc", "round"}
IN_DOUBLE = {"tan", "asin", "acos", "atan", "sinh", "cosh", "asinh", "acosh", "atanh", "pow"}


def _emit(e: Emitter, params: Any) -> None:
    fn, dtype, count, n, lanes = params
    lanes = lanes or e.target.lanes(dtype)
    with e.loop(0, n, lanes) as loop:
        xs = [e.load(e.at(e.pointer(i), loop.index, dtype), dtype, lanes) for i in range(count)]
        e.store(call(e, fn, *xs), e.at(e.pointer(count), loop.index, dtype), dtype)


def _kernel(fn: str, dtype: str, count: int, lanes: int = 0) -> Kernel:
    return kernel(fn, _emit, (fn, dtype, count, Dim.symbol("n"), lanes), operands=count + 1)


@functools.cache
def _function(fn: str, dtype: str, count: int, lanes: int) -> Any:
    made = _kernel(fn, dtype, count, lanes)
    return ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p)(compile_kernels([made])[made.key])


def apply(fn: str, *arrays: Array, lanes: int = 0) -> Array:
    """Return a function of arrays by its vector code."""
    n, dtype = arrays[0].size, arrays[0].dtype
    padded = [np.concatenate([a, np.ones(-n % 16, dtype)]) for a in arrays]
    out = np.empty_like(padded[0])
    args = np.array([*(a.ctypes.data for a in padded), out.ctypes.data, out.size], np.int64)
    _function(fn, dtype.name, len(arrays), lanes)(args.ctypes.data, 0, None)
    return out[:n]


def ulps(y: Array, reference: Array) -> Array:
    """Return the error against values of higher precision, in units of the last place of the right result.

    Infinities, NaN and signs of zero must agree; next to the largest number infinity is right too.
    """
    dtype, info = y.dtype, np.finfo(y.dtype)
    with np.errstate(all="ignore"):
        right = reference.astype(dtype)
        size = np.abs(reference)
        _, exponent = np.frexp(np.where((size > 0) & np.isfinite(size), size, 1))
        unit = np.ldexp(reference.dtype.type(1), np.maximum(exponent - 1, info.minexp) - info.nmant)
        error = np.abs(y.astype(reference.dtype) - reference) / unit
        edge = (np.abs(right) == info.max) | (np.abs(y) == info.max)
        infinite = np.isinf(right) | np.isinf(y)
        error = np.where(infinite, np.where((right == y) | (edge & (np.sign(right) == np.sign(y))), 0, np.inf), error)
        error = np.where(np.isnan(right) | np.isnan(y), np.where(np.isnan(right) & np.isnan(y), 0, np.inf), error)
        zeros = (right == 0) & (y == 0)
        return np.where(zeros & (np.signbit(right) != np.signbit(y)), np.inf, error)


def sample(dtype: type, count: int, seed: int = 0) -> Array:
    """Return special values, any bits, values about 0 and about 1."""
    g = np.random.default_rng(seed)
    if dtype is np.float32:
        bits: Array = g.integers(0, 1 << 32, count, dtype=np.uint64).astype(np.uint32).view(np.float32)
    else:
        bits = g.integers(0, 1 << 64, count, dtype=np.uint64).view(np.float64)
    top = 8 if dtype is np.float32 else 11
    near = g.uniform(-1, 1, count) * np.exp2(g.uniform(-24, top, count))
    one = g.choice([-1, 1], count) + g.uniform(-1, 1, count) * np.exp2(g.uniform(-50, 1, count))
    special = SPECIAL if dtype is np.float32 else SPECIAL64
    with np.errstate(over="ignore"):
        return np.concatenate([np.asarray(special, dtype), bits, near.astype(dtype), one.astype(dtype)])


def _sigmoid(x: Array) -> Array:
    z = np.exp(-np.abs(x))
    return np.where(x < 0, z, 1) / (1 + z)


def _softplus(x: Array) -> Array:
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def _tanh_softplus(x: Array) -> Array:
    w = np.exp(np.minimum(x, 60))
    return w * (w + 2) / (w * (w + 2) + 2)


def _erf(x: Array) -> Array:
    return np.array([math.erf(v) for v in x.astype(np.float64).tolist()])


REFERENCES = {
    "asin": np.arcsin, "acos": np.arccos, "atan": np.arctan, "asinh": np.arcsinh, "acosh": np.arccosh,
    "atanh": np.arctanh, "sigmoid": _sigmoid, "softplus": _softplus, "tanh_softplus": _tanh_softplus, "erf": _erf,
    "round": np.rint,
}  # fmt: skip


def reference(fn: str, x: Array, wide: type) -> Array:
    """Return a function in a wider type."""
    with np.errstate(all="ignore"):
        return np.asarray((REFERENCES.get(fn) or getattr(np, fn))(x.astype(wide)))


UNARY = sorted(FUNCTIONS - {"pow"})


@pytest.mark.parametrize("fn", UNARY)
def test_float32_within_2_ulp(fn: str) -> None:
    x = sample(np.float32, 1 << 16)
    error = ulps(apply(fn, x), reference(fn, x, np.float64))
    limit = 0 if fn in EXACT else 0.501 if fn in IN_DOUBLE | {"sqrt"} else 2.05 if fn == "tanh_softplus" else 2
    worst = int(np.argmax(error))
    assert error[worst] <= limit, f"{fn}({x[worst]!r}) is {error[worst]} ulp off"


@pytest.mark.parametrize("fn", UNARY)
def test_float64_within_4_ulp(fn: str) -> None:
    x = sample(np.float64, 1 << 13)
    error = ulps(apply(fn, x), reference(fn, x, np.longdouble))
    # where long double is no wider, or the reference is the C library's, it errs by one itself
    limit = 0 if fn in EXACT else 4 + (fn == "erf" or np.finfo(np.longdouble).nmant == 52)
    worst = int(np.argmax(error))
    assert error[worst] <= limit, f"{fn}({x[worst]!r}) is {error[worst]} ulp off"


@pytest.mark.parametrize("fn", ["exp", "tanh", "erf", "sigmoid", "log1p", "sin"])
@pytest.mark.parametrize("name", ["float32", "float64"])
def test_agrees_with_torch(fn: str, name: str) -> None:
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(1).normal(size=4096).astype(name) * 4
    with np.errstate(invalid="ignore"):
        expected = getattr(torch, fn)(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(apply(fn, x), expected, rtol=1e-6 if name == "float32" else 4e-15)


@pytest.mark.parametrize("fn", UNARY)
def test_one_lane_is_the_same(fn: str) -> None:
    x = sample(np.float32, 300)
    np.testing.assert_array_equal(apply(fn, x, lanes=1), apply(fn, x))


@pytest.mark.parametrize("name", ["float32", "float64"])
def test_pow_of_special_values(name: str) -> None:
    values = np.array([*SPECIAL, 0.3, -0.3, 5.0, -7.0, 1e10, 2.5], name)
    x, y = (v.ravel() for v in np.meshgrid(values, values))
    wide = np.float64 if name == "float32" else np.longdouble
    with np.errstate(all="ignore"):
        error = ulps(apply("pow", x, y), np.power(x.astype(wide), y.astype(wide)))
    worst = int(np.argmax(error))
    assert error[worst] <= (0.501 if name == "float32" else 4), f"{x[worst]} ** {y[worst]}"


@pytest.mark.parametrize("name", ["float32", "float64"])
def test_pow_over_the_range(name: str) -> None:
    g = np.random.default_rng(2)
    x = np.exp2(g.uniform(-1, 1, 1 << 15) * np.exp2(g.uniform(-20, 6.9, 1 << 15))).astype(name)
    limit = 103 if name == "float32" else 744
    with np.errstate(all="ignore"):
        size = np.log(x.astype(np.float64))
        y = (g.uniform(-limit, limit, x.size) / np.where(size == 0, 1, size)).astype(name)
        wide = np.float64 if name == "float32" else np.longdouble
        error = ulps(apply("pow", x, y), np.power(x.astype(wide), y.astype(wide)))
    assert error.max() <= (0.501 if name == "float32" else 4)


@pytest.mark.parametrize("fn", ["sin", "cos", "tan"])
def test_angles_near_multiples_of_half_pi(fn: str) -> None:
    k = np.concatenate([np.arange(1, 4000), np.random.default_rng(3).integers(1, 1 << 40, 4000)])
    for dtype in (np.float32, np.float64):
        x = (k.astype(np.longdouble) * np.longdouble(np.pi) / 2).astype(dtype)
        wide = np.float64 if dtype is np.float32 else np.longdouble
        assert ulps(apply(fn, x), reference(fn, x, wide)).max() <= (2 if dtype is np.float32 else 4)


@pytest.mark.parametrize("fn", sorted(FUNCTIONS))
@pytest.mark.parametrize("name", ["float32", "float64"])
def test_calls_no_library(fn: str, name: str) -> None:
    """Vectors of the target's width become instructions; large angles go through a function of the module."""
    text = assembly([_kernel(fn, name, 2 if fn == "pow" else 1)])
    called = {line.split()[1] for line in text.splitlines() if line.strip().startswith(("call", "bl "))}
    assert {name for name in called if "reduce_large_angle" not in name} == set()


def test_names_what_it_lacks() -> None:
    with pytest.raises(KernelError, match="no vector code for gamma"):
        assembly([_kernel("gamma", "float32", 1)])
