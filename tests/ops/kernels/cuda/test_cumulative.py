"""CUDA running sums, products and recurrences against the array kernels in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnxgrad.ops.kernels.cuda import cumulative as _rules
from onnxgrad.ops.op import OPS
from onnxgrad.ops.types import BFLOAT16

from .site import refuses, run_op

assert _rules
RNG = np.random.default_rng(0)
RUNNING = ("cumsum", "cumprod", "logcumsumexp")
CLOSE: dict[str, float] = {"float64": 1e-12, "float32": 2e-5, "float16": 2e-3, "bfloat16": 1.6e-2}
WALKS: dict[str, tuple[tuple[int, ...], int, str]] = {
    "short rows": ((5, 7), 1, "plain"),
    "a warp a row": ((3, 300), 1, "plain"),
    "a block a row": ((2, 3000), -1, "plain"),
    "columns": ((40, 7), 0, "plain"),
    "between": ((3, 20, 4), 1, "plain"),
    "channels last": ((2, 12, 3, 5), 1, "channels_last"),
    "one": ((1,), 0, "plain"),
    "nothing": ((3, 0), 1, "plain"),
}


def drawn(shape: tuple[int, ...], dtype: Any = np.float32) -> Any:
    return (RNG.standard_normal(shape) * 0.3 + 1).astype(dtype)


def check(op: str, arrays: list[Any], attrs: dict[str, Any], **how: Any) -> None:
    (y,) = run_op(op, arrays, attrs, **how)
    with np.errstate(all="ignore"):
        want = OPS[op].run(*(a.astype(np.float64) for a in arrays), **attrs)
    assert (y.dtype, y.shape) == (arrays[0].dtype, want.shape)
    close = CLOSE[y.dtype.name]
    np.testing.assert_allclose(
        y.astype(float), want, rtol=close, atol=close * np.abs(want, where=True).max(initial=1e-9)
    )


@pytest.mark.parametrize("walk", WALKS)
@pytest.mark.parametrize("op", RUNNING)
def test_walks(op: str, walk: str) -> None:
    shape, axis, order = WALKS[walk]
    x = drawn(shape) if op != "cumprod" else np.clip(drawn(shape), 0.9, 1.1)
    for exclusive in (False, True):
        attrs = {"axis": axis}
        if op != "logcumsumexp":
            attrs |= {"exclusive": exclusive, "reverse": exclusive != (shape[0] > 2)}
        check(op, [x], attrs, order=order, compiles=walk in ("a block a row", "columns") and not exclusive)


@pytest.mark.parametrize("walk", WALKS)
@pytest.mark.parametrize("reverse", [False, True])
def test_recurrences(walk: str, reverse: bool) -> None:
    shape, axis, order = WALKS[walk]
    a, b = drawn(shape) * 0.7, drawn(shape)
    check("linear_scan", [a, b], {"axis": axis, "reverse": reverse}, order=order, compiles=walk == "columns")


def test_factors_overflow_where_results_do_not() -> None:
    a, b = np.full((2, 400), 1e3, np.float32), np.zeros((2, 400), np.float32)
    a[:, 0], b[1, -1] = np.inf, 2
    check("linear_scan", [a, b], {"axis": 1}, compiles=False)


@pytest.mark.parametrize("dtype", [np.float64, np.float16, BFLOAT16])
@pytest.mark.parametrize("op", RUNNING)
def test_floats_of_other_widths(op: str, dtype: Any) -> None:
    check(op, [drawn((3, 40), dtype)], {"axis": 1}, compiles=op == "cumsum")


@pytest.mark.parametrize("dtype", ["int8", "uint16", "int32", "int64", "uint64"])
@pytest.mark.parametrize("op", ["cumsum", "cumprod"])
def test_integers_wrap(op: str, dtype: str) -> None:
    x = RNG.integers(0, 100, (3, 50)).astype(dtype)
    (y,) = run_op(op, [x], {"axis": 1, "reverse": True}, compiles=dtype == "int64")
    np.testing.assert_array_equal(y, OPS[op].run(x, axis=1, reverse=True))


@pytest.mark.parametrize("op", RUNNING)
@pytest.mark.parametrize("axis", [0, 1])
def test_what_is_no_number(op: str, axis: int) -> None:
    x = drawn((12, 12))
    x[2, 3], x[5, 4], x[7, 6], x[9, 8], x[:, 0] = np.nan, np.inf, -np.inf, 0, -np.inf
    (y,) = run_op(op, [x], {"axis": axis}, compiles=False)
    with np.errstate(all="ignore"):
        want = OPS[op].run(x.astype(np.float64), axis=axis)
    np.testing.assert_allclose(y, want, rtol=1e-5)


def test_refusals() -> None:
    assert refuses("cumsum", [np.ones((2, 3), bool)], {"axis": 1})
    assert refuses("logcumsumexp", [np.ones((2, 3), np.int32)], {"axis": 1})
