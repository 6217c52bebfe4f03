"""CUDA reductions against the array kernels in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnxgrad.ops.expr import Var
from onnxgrad.ops.kernels.cuda import reduce as _rules
from onnxgrad.ops.kernels.cuda.lowering import Epilogue
from onnxgrad.ops.kernels.cuda.operand import Operand
from onnxgrad.ops.op import OPS
from onnxgrad.ops.types import BFLOAT16

from .site import refuses, run_op

assert _rules
RNG = np.random.default_rng(0)
FLOATS = ("sum", "mean", "prod", "max", "min", "l2_norm", "logsumexp")
CLOSE: dict[str, dict[str, float]] = {
    "float64": {"rtol": 1e-13, "atol": 1e-13},
    "float32": {"rtol": 2e-6, "atol": 2e-6},
    "float16": {"rtol": 1e-3, "atol": 1e-3},
    "bfloat16": {"rtol": 8e-3, "atol": 8e-3},
}
WALKS: dict[str, tuple[tuple[int, ...], tuple[int, ...], str]] = {
    "short rows": ((5, 3), (1,), "plain"),
    "odd rows": ((5, 37), (1,), "plain"),
    "a block a row": ((2, 2100), (1,), "plain"),
    "pieces of rows": ((2, 20000), (1,), "plain"),
    "columns": ((37, 12), (0,), "plain"),
    "pieces of columns": ((2000, 5), (0,), "plain"),
    "outside and inside": ((4, 3, 8), (0, 2), "plain"),
    "between": ((3, 5, 12), (1,), "plain"),
    "channels last": ((2, 8, 3, 5), (0, 2, 3), "channels_last"),
    "rows of channels": ((2, 8, 3, 5), (1,), "channels_last"),
    "transposed": ((4, 6, 5), (2,), "transposed"),
    "all": ((3, 4, 5), (0, 1, 2), "plain"),
    "none": ((3, 4), (), "plain"),
    "a scalar": ((), (), "plain"),
    "one element": ((1, 1), (1,), "plain"),
    "empty rows": ((3, 0), (1,), "plain"),
    "no rows": ((0, 3), (1,), "plain"),
}


def drawn(shape: tuple[int, ...], dtype: Any = np.float32) -> Any:
    return np.asarray(RNG.standard_normal(shape)).astype(dtype)


def wanted(op: str, *arrays: Any, **attrs: Any) -> Any:
    with np.errstate(all="ignore"):
        return OPS[op].run(*(a.astype(np.float64) if a.dtype.kind in "fV" else a for a in arrays), **attrs)


def check(op: str, x: Any, attrs: dict[str, Any], **how: Any) -> None:
    (y,) = run_op(op, [x], attrs, **how)
    want = np.asarray(wanted(op, x, **attrs))
    assert (y.dtype, y.shape) == (x.dtype, want.shape)
    with np.errstate(all="ignore"):
        rounded = want.astype(x.dtype).astype(float)
    np.testing.assert_allclose(y.astype(float), rounded, **CLOSE[x.dtype.name])


@pytest.mark.parametrize("walk", WALKS)
@pytest.mark.parametrize("op", FLOATS)
def test_walks(op: str, walk: str) -> None:
    shape, axes, order = WALKS[walk]
    compiles = op in ("mean", "logsumexp") and walk in ("odd rows", "pieces of columns")
    check(op, drawn(shape), {"axes": axes, "keepdims": len(walk) % 2 == 0}, order=order, compiles=compiles)


@pytest.mark.parametrize("dtype", [np.float64, np.float16, BFLOAT16])
@pytest.mark.parametrize("op", FLOATS)
def test_floats_of_other_widths(op: str, dtype: Any) -> None:
    check(op, drawn((6, 40), dtype), {"axes": (1,)}, compiles=op == "sum")
    check(op, drawn((40, 16), dtype), {"axes": (0,)}, compiles=op == "max")


@pytest.mark.parametrize("op", FLOATS)
def test_what_is_no_number(op: str) -> None:
    x = drawn((7, 9))
    x[1, 2], x[2, 3], x[3, 4], x[4], x[5], x[6] = np.nan, np.inf, -np.inf, -np.inf, -0.0, np.nan
    for axis in (0, 1):
        check(op, x, {"axes": (axis,)}, compiles=False)


@pytest.mark.parametrize("op", ["sum", "prod", "max", "min", "mean"])
@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"])
def test_integers_wrap(op: str, dtype: str) -> None:
    info = np.iinfo(dtype)
    x = RNG.integers(info.min, info.max, (5, 33), dtype=dtype)
    for axis in (0, 1):
        (y,) = run_op(op, [x], {"axes": (axis,)}, compiles=dtype == "int8" and axis == 0)
        np.testing.assert_array_equal(y, OPS[op].run(x, axes=(axis,)))


@pytest.mark.parametrize("op", ["sum", "prod", "max", "min"])
def test_truth_values(op: str) -> None:
    x = RNG.random((6, 5)) < np.array([0, 0.1, 0.5, 0.9, 1, 1])[:, None]
    (y,) = run_op(op, [x], {"axes": (1,)}, compiles=False)
    np.testing.assert_array_equal(y, OPS[op].run(x, axes=(1,)))
    assert refuses("mean", [x], {"axes": (1,)})


def test_views() -> None:
    x = drawn((8, 18))
    for view in (x[::2, ::3], x[:, ::-1], x.T, np.broadcast_to(x[:, :1], (8, 5)), x[:, 3:9]):
        for axis in (0, 1):
            check("sum", view, {"axes": (axis,)}, order="own", compiles=False)
    check("sum", drawn((4, 8)), {"axes": (1,)}, shift=1, compiles=False)


def test_pieces_of_a_view_that_is_not_aligned() -> None:
    check("mean", drawn((8, 33, 5, 4))[..., ::2], {"axes": (0, 1)}, order="own", shift=1, compiles=False)


def test_a_long_sum_is_exact_to_the_last_digits() -> None:
    x = RNG.random(300_000).astype(np.float32)
    (y,) = run_op("sum", [x], {"axes": None})
    np.testing.assert_allclose(y, x.astype(np.float64).sum(), rtol=2e-7)


@pytest.mark.parametrize("shape", [(5, 1), (1, 6), (6,), (4, 5, 6), (), (4, 1, 1)])
def test_sums_that_undo_broadcasting(shape: tuple[int, ...]) -> None:
    x = drawn((4, 5, 6))
    (y,) = run_op("sum_to", [x], {"shape": shape}, compiles=False)
    np.testing.assert_allclose(y, wanted("sum_to", x, shape=shape), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("op", ["argmax", "argmin"])
def test_where_extremes_are(op: str, last: bool) -> None:
    x = RNG.integers(0, 4, (5, 33)).astype(np.float32)
    x[2, 5], x[2, 9], x[3], x[4] = np.nan, np.nan, -np.inf, np.inf
    cases = [(x, 1), (x, 0), (RNG.integers(0, 3, (3, 40, 5)), 1), (RNG.integers(0, 9, (1, 9000)).astype(np.float16), 1)]
    for array, axis in cases:
        attrs = {"axis": axis, "select_last": last, "keepdims": last}
        (y,) = run_op(op, [array], attrs, compiles=op == "argmax" and array is x)
        want = OPS[op].run(array, **attrs)
        assert y.dtype == np.int64
        np.testing.assert_array_equal(y, want)
    assert refuses(op, [drawn((3, 0))], {"axis": 1})


@pytest.mark.parametrize("shape", [(40,), (4, 5, 3), (0,), ()])
def test_divided(shape: tuple[int, ...]) -> None:
    x = drawn(shape)
    (y,) = run_op("divided", [x], {"count": 7}, compiles=shape == (40,))
    np.testing.assert_allclose(y, x / np.float32(7), rtol=1e-6)


@pytest.mark.parametrize("axes", [(1,), (0, 2)])
def test_an_epilogue_joins(axes: tuple[int, ...]) -> None:
    x = drawn((6, 5, 8))
    shape = tuple(n for a, n in enumerate(x.shape) if a not in axes)
    a, b = drawn(shape), drawn(shape[-1:])
    strides = (8, 1) if len(shape) == 2 else (1,)
    operands = (Operand(a.dtype, shape, strides), Operand(b.dtype, shape, (0, 1)[-len(shape) :]))
    epilogue = Epilogue((Var("x") + Var("a0")) * Var("a1"), operands, np.dtype(np.float16))
    (y,) = run_op("mean", [x], {"axes": axes}, epilogue=epilogue, extra=[a, b])
    assert y.dtype == np.float16
    np.testing.assert_allclose(y, (wanted("mean", x, axes=axes) + a) * b, rtol=2e-3, atol=2e-3)
