"""Scalar expressions as vector code: types, casts, truth values, what is refused."""

from __future__ import annotations

import ctypes
from typing import Any

import ml_dtypes
import numpy as np
import pytest

pytest.importorskip("llvmlite")

from onnxgrad.ops.dims import Dim
from onnxgrad.ops.errors import KernelError
from onnxgrad.ops.expr import Call, Expr, Var, call, equal, exp, maximum, minimum, pow_, where
from onnxgrad.ops.kernels.cpu.casts import CASTABLE, stored_as
from onnxgrad.ops.kernels.cpu.emitter import Emitter
from onnxgrad.ops.kernels.cpu.expression import evaluate
from onnxgrad.ops.kernels.cpu.jit import assembly, compile_kernels
from onnxgrad.ops.kernels.cpu.kernel import Kernel, kernel
from onnxgrad.ops.primitives import compile_array

Array = np.ndarray[Any, Any]
a, b, c = Var("a"), Var("b"), Var("c")
LENGTH = 64
RNG_BITS = np.random.default_rng(0).random(64) > 0.5


def _emit(e: Emitter, params: Any) -> None:
    expression, names, dtypes, result, lanes, n = params
    with e.loop(0, n, lanes) as loop:
        values = {}
        for i, (name, dtype) in enumerate(zip(names, dtypes, strict=True)):
            stored = stored_as(dtype)
            x = e.load(e.at(e.pointer(i), loop.index, stored), stored, lanes)
            values[name] = e.b.icmp_unsigned("!=", x, e.constant(0, x.type)) if dtype.kind == "b" else x
        y = evaluate(e, expression, values, lanes, result)
        e.store(y, e.at(e.pointer(len(names)), loop.index, result), result)


def _kernel(expression: Expr, inputs: dict[str, Array], result: Any, lanes: int) -> Kernel:
    dtypes = tuple(v.dtype for v in inputs.values())
    params = (expression, tuple(inputs), dtypes, np.dtype(result), lanes, Dim.symbol("n"))
    return kernel("expression", _emit, params, operands=len(inputs) + 1)


def run(expression: Expr, result: Any, **inputs: Array) -> Array:
    """Return an expression of arrays of 64 elements, the same for vectors and for single lanes."""
    outs = []
    for lanes in (16, 1):
        made = _kernel(expression, inputs, result, lanes)
        out = np.empty(LENGTH, result)
        args = np.array([*(v.ctypes.data for v in inputs.values()), out.ctypes.data, LENGTH], np.int64)
        ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p)(compile_kernels([made])[made.key])(
            args.ctypes.data, 0, None
        )
        outs.append(out)
    np.testing.assert_array_equal(outs[0].view(np.uint8), outs[1].view(np.uint8))
    return outs[0]


def numbers(dtype: Any, seed: int = 0) -> Array:
    """Return 64 elements of a type."""
    g = np.random.default_rng(seed)
    kind = np.dtype(dtype).kind
    if kind == "b":
        return g.integers(0, 2, LENGTH).astype(bool)
    if kind in "iu":
        return g.integers(0 if kind == "u" else -9, 10, LENGTH).astype(dtype)
    x = (g.normal(size=LENGTH) * 3).astype(dtype)
    x[:8] = [0.0, -0.0, 1, -1, np.inf, -np.inf, np.nan, 1e-41]
    return x


ARITHMETIC = [
    ("add", a + b), ("sub", a - b), ("mul", a * b), ("max", maximum(a, b)), ("min", minimum(a, b)), ("neg", -a),
    ("abs", call("abs", a)), ("sign", call("sign", a)), ("div", a / b), ("square", pow_(a, 2)), ("cube", pow_(a, 3)),
    ("clip", minimum(maximum(a, -1), 2)), ("left", maximum(0, a) - minimum(1, b)), ("halves", a / 4 + 3),
    ("choose", where(a < b, a, b)), ("some", where(a < 1, a, 0)), ("nested", where(equal(a, b), 1, where(a < b, 2, 3))),
    ("shared", (a + b) * (a + b)), ("counted", (a < b) * a + (a <= b)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "expression"), ARITHMETIC, ids=[n for n, _ in ARITHMETIC])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64"])
def test_arithmetic_is_the_array_kernels(name: str, expression: Expr, dtype: str) -> None:
    x, y = numbers(dtype), numbers(dtype, 1)
    read = ("a", "b") if any(name == n for n, e in ARITHMETIC if _reads(e, "b")) else ("a",)
    inputs = {n: v for n, v in (("a", x), ("b", y)) if n in read}
    expected = compile_array(expression, read)(*inputs.values()).astype(dtype)
    found = run(expression, dtype, **inputs)
    rtol = 0 if np.dtype(dtype).kind == "i" else 1e-6 if dtype == "float32" else 1e-15
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=0)


def _reads(e: Expr, name: str) -> bool:
    return e.name == name if isinstance(e, Var) else isinstance(e, Call) and any(_reads(x, name) for x in e.args)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64", "bool"])
@pytest.mark.parametrize("fn", ["less", "less_equal", "equal"])
def test_comparisons(fn: str, dtype: str) -> None:
    x, y = numbers(dtype), numbers(dtype, 1)
    np.testing.assert_array_equal(run(call(fn, a, b), bool, a=x, b=y), getattr(np, fn)(x, y))


@pytest.mark.parametrize("fn", ["logical_and", "logical_or", "logical_xor", "bitwise_and", "bitwise_or", "bitwise_xor"])
@pytest.mark.parametrize("dtype", ["bool", "int32", "int64", "float32"])
def test_logic(fn: str, dtype: str) -> None:
    x, y = numbers(dtype), numbers(dtype, 1)
    bits = fn.startswith("bitwise")
    if bits and dtype == "float32":
        with pytest.raises(KernelError, match="bits of floats"):
            run(call(fn, a, b), dtype, a=x, b=y)
        return
    np.testing.assert_array_equal(run(call(fn, a, b), dtype if bits else bool, a=x, b=y), getattr(np, fn)(x, y))


def test_negations() -> None:
    x, n, t = numbers("float32"), numbers("int32"), numbers("bool")
    np.testing.assert_array_equal(run(call("logical_not", a), bool, a=x), np.logical_not(x))
    np.testing.assert_array_equal(run(call("bitwise_not", a), "int32", a=n), ~n)
    np.testing.assert_array_equal(run(call("bitwise_not", a), bool, a=t), ~t)
    np.testing.assert_array_equal(run(call("isnan", a), bool, a=x), np.isnan(x))


@pytest.mark.parametrize("source", sorted(CASTABLE))
@pytest.mark.parametrize("target", sorted(CASTABLE))
def test_casts(source: str, target: str) -> None:
    named = {"bfloat16": ml_dtypes.bfloat16}
    x = numbers("float32" if source in ("float16", "bfloat16") else source)
    x = x.astype(named.get(source, source))
    if np.dtype(target).kind in "iu":
        x = np.where(np.isfinite(x.astype(np.float64)), x, x.dtype.type(3)).astype(x.dtype)
        if target == "uint8":  # a negative float is no number of it
            x = np.abs(x.astype(np.float64)).astype(x.dtype)
    with np.errstate(all="ignore"):
        expected = x.astype(named.get(target, target))
    found = run(call(f"cast:{source}:{target}", a), np.dtype(named.get(target, target)), a=x)
    if np.dtype(target).kind in "biu":
        np.testing.assert_array_equal(found, expected)
    else:
        np.testing.assert_array_equal(found.astype(np.float64), expected.astype(np.float64))
        assert np.array_equal(np.signbit(found)[:6], np.signbit(expected)[:6])


@pytest.mark.parametrize("target", ["float16", "bfloat16"])
@pytest.mark.parametrize("source", ["float32", "float64"])
def test_rounds_halves_to_even(source: str, target: str) -> None:
    named = np.dtype({"bfloat16": ml_dtypes.bfloat16}.get(target, target))
    every = np.arange(0, 1 << 15, dtype=np.uint16)
    few = np.random.default_rng(4).choice(every[:-1], 20).view(named).astype(np.float64)
    few = few[np.isfinite(few)]
    steps = np.spacing(few.astype(np.float32)) if source == "float32" else np.spacing(few)
    following = (few.astype(named).view(np.uint16) + 1).view(named).astype(np.float64)
    middle = (few + following) / 2
    x = np.concatenate([middle, middle + steps, middle - steps, -middle, [65519.0, 65520.0, 6e-8, 2.9e-8]])
    x = np.resize(x, LENGTH).astype(source)
    with np.errstate(all="ignore"):
        torch = pytest.importorskip("torch")
        wanted = torch.from_numpy(x).to(getattr(torch, target)).to(torch.float64).numpy()
    found = run(call(f"cast:{source}:{target}", a), named, a=x).astype(np.float64)
    np.testing.assert_array_equal(found, x.astype(named).astype(np.float64))
    if source == "float32":
        np.testing.assert_array_equal(found, wanted)


def test_truth_values_count_as_numbers() -> None:
    x, t = numbers("float32"), numbers("bool")
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(run(a * b, "float32", a=x, b=t), x * t)
    np.testing.assert_array_equal(run(a + b, bool, a=t, b=~t), t | ~t)
    np.testing.assert_array_equal(run(where(b, a, 0), "float32", a=x, b=t), np.where(t, x, 0))


@pytest.mark.parametrize(("high", "low"), [(1, 0), (1.0, 0.0), (2**40 + 1, 0)])
@pytest.mark.parametrize("target", ["bool", "int64", "float64"])
def test_numbers_that_are_cast_from_integers_stay_exact(high: Any, low: Any, target: str) -> None:
    chosen = RNG_BITS[:LENGTH]
    x = np.linspace(-1, 1, LENGTH).astype(np.float32)
    picked = call(f"cast:int64:{target}", where(a, high, low))
    found = run(
        where(equal(call(f"cast:{target}:float64", picked), float(np.dtype(target).type(high))), b, 0.0),
        np.float32,
        a=chosen,
        b=x,
    )
    np.testing.assert_array_equal(found, np.where(chosen, x, 0))


def test_types_meet_as_numpys() -> None:
    x, n, m = numbers("float32"), numbers("int32"), numbers("int64")
    np.testing.assert_array_equal(run(a + b, "int64", a=n, b=m), n + m)
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(run(a * b, "float64", a=x, b=n), x * n)
    np.testing.assert_array_equal(run(a * 0.5, "float64", a=n), n * 0.5)


def test_integers_divide_without_traps() -> None:
    n = np.resize(np.array([7, -7, 5, 0, -(2**31), 9], np.int32), LENGTH)
    d = np.resize(np.array([2, 2, 0, 0, -1, -1, 3], np.int32), LENGTH)
    safe = (d != 0) & ~((n == -(2**31)) & (d == -1))
    found = run(a / b, "int32", a=n, b=d)
    np.testing.assert_array_equal(found[safe], np.trunc(n[safe] / d[safe]).astype(np.int32))
    np.testing.assert_array_equal(found[d == 0], 0)
    for fn in ("mod", "fmod"):
        found = run(call(fn, a, b), "int32", a=n, b=d)
        np.testing.assert_array_equal(found[safe], getattr(np, fn)(n[safe], d[safe]))


@pytest.mark.parametrize("exponent", [1, 2, 3, 4, -1, 0.5, -0.5, 2.0, 1.5, -2])
def test_constant_powers(exponent: float) -> None:
    for dtype in ("float32", "float64"):
        x = numbers(dtype)
        with np.errstate(all="ignore"):
            expected = np.power(x.astype(np.longdouble), exponent).astype(dtype)
        np.testing.assert_allclose(
            run(pow_(a, exponent), dtype, a=x), expected, rtol=4e-7 if dtype == "float32" else 1e-15
        )


def test_zero_keeps_nan_in_one_instruction() -> None:
    x = numbers("float32")
    for expression, expected in ((maximum(a, 0), np.maximum(x, 0)), (minimum(6, a), np.minimum(6, x))):
        np.testing.assert_array_equal(run(expression, "float32", a=x), expected)
    text = assembly([_kernel(maximum(a, 0), {"a": x}, "float32", 16)])
    assert "cmpun" not in text


def test_shared_parts_are_computed_once() -> None:
    once = assembly([_kernel(exp(a), {"a": numbers("float32")}, "float32", 16)])
    e = exp(a)
    twice = assembly([_kernel(e * e + e, {"a": numbers("float32")}, "float32", 16)])
    assert len(twice.splitlines()) < len(once.splitlines()) + 20


@pytest.mark.parametrize(
    ("expression", "dtype", "message"),
    [
        (call("gamma", a), "float32", "no vector code for gamma"),
        (call("fmod", a, a), "float32", "integers alone"),
        (exp(a), "int32", "wants floats"),
        (-a, "bool", "truth values"),
        (b + 1, "float32", "reads b"),
        (call("cast:float32:uint16", a), "float32", "cast from float32 to uint16"),
    ],
)
def test_refuses(expression: Expr, dtype: str, message: str) -> None:
    with pytest.raises(KernelError, match=message):
        run(expression, dtype, a=numbers(dtype))
