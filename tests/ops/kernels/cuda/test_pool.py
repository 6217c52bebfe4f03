"""CUDA pooling against the array kernels and torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnxgrad.ops.expr import Var, maximum
from onnxgrad.ops.kernels.cuda import pool as _rules
from onnxgrad.ops.kernels.cuda.lowering import Epilogue
from onnxgrad.ops.kernels.cuda.operand import Operand
from onnxgrad.ops.op import OPS
from onnxgrad.ops.types import BFLOAT16
from onnxgrad.ops.window import Window

from .site import refuses, run_op

assert _rules
RNG = np.random.default_rng(0)


def window(rank: int, stride: int = 1, pad: tuple[int, int] = (0, 0), dilation: int = 1) -> Window:
    """Return a window that is alike along all axes."""
    return Window((stride,) * rank, (pad,) * rank, (dilation,) * rank)


CASES: dict[str, tuple[tuple[int, ...], tuple[int, ...], Window]] = {
    "3x3 s2": ((2, 8, 7, 9), (3, 3), window(2, 2, (1, 1))),
    "odd channels": ((1, 3, 6, 5), (2, 2), window(2, 2)),
    "uneven": ((1, 8, 9, 10), (2, 4), Window((3, 1), ((0, 1), (2, 0)), (1, 1))),
    "ceiled": ((1, 4, 7, 7), (2, 2), window(2, 2).ceiled((7, 7), (2, 2))),
    "dilated": ((2, 4, 9, 9), (3, 3), window(2, 2, (1, 1), 2)),
    "1-D": ((2, 20, 13), (3,), window(1, 1, (1, 1))),
    "3-D": ((1, 3, 5, 6, 7), (2, 2, 2), window(3, 2, (1, 0))),
    "whole": ((2, 12, 9, 9), (9, 9), window(2)),
    "nothing": ((0, 4, 5, 5), (2, 2), window(2)),
}
"""Shapes, kernels and windows."""

ORDERS = ("plain", "channels_last")


def drawn(shape: tuple[int, ...], dtype: Any = np.float32, *, ties: bool = False) -> Any:
    """Return an array; with `ties` of few distinct values, NaN, infinities and zeros of both signs."""
    if not ties:
        return RNG.standard_normal(shape).astype(dtype)
    values = np.array([0.0, -0.0, 1.0, 2.0, np.nan, np.inf, -np.inf])
    return RNG.choice(values, shape, p=[0.2, 0.2, 0.2, 0.2, 0.05, 0.05, 0.1]).astype(dtype)


def wanted(op: str, arrays: list[Any], **attrs: Any) -> Any:
    """Return what the array kernel gives in float64."""
    return OPS[op].run(*(a.astype(np.float64) if a.dtype.kind in "fV" else a for a in arrays), **attrs)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("case", CASES)
def test_maxima_and_their_places(case: str, order: str) -> None:
    shape, kernel, win = CASES[case]
    x = drawn(shape, ties=True)
    (y,) = run_op("max_pool", [x], {"kernel": kernel, "win": win}, order=order)
    np.testing.assert_array_equal(y, wanted("max_pool", [x], kernel=kernel, win=win))
    for column_major in (False, True):
        attrs = {"kernel": kernel, "win": win, "column_major": column_major}
        (at,) = run_op("max_pool_indices", [x], attrs, order=order, compiles=column_major)
        np.testing.assert_array_equal(at, OPS["max_pool_indices"].run(x, **attrs))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("case", CASES)
def test_sums_and_means(case: str, order: str) -> None:
    shape, kernel, win = CASES[case]
    x = drawn(shape)
    for counted in (None, win.pads, tuple((0, 0) for _ in kernel)):
        attrs = {"kernel": kernel, "win": win, "counted": counted}
        (y,) = run_op("sum_pool", [x], attrs, order=order)
        np.testing.assert_allclose(y, wanted("sum_pool", [x], **attrs), rtol=1e-5, atol=1e-5)


def test_means_as_torch_has_them() -> None:
    torch = pytest.importorskip("torch")
    x = drawn((2, 8, 7, 9))
    win = window(2, 2, (1, 1)).ceiled((7, 9), (3, 3))
    for counted, include in ((((1, 1), (1, 1)), True), (((0, 0), (0, 0)), False)):
        (y,) = run_op("sum_pool", [x], {"kernel": (3, 3), "win": win, "counted": counted}, order="channels_last")
        want = torch.nn.functional.avg_pool2d(
            torch.from_numpy(x), 3, 2, 1, ceil_mode=True, count_include_pad=include
        ).numpy()
        np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float16, BFLOAT16, np.float64, np.int8, np.uint8, np.int32, np.int64])
@pytest.mark.parametrize("order", ORDERS)
def test_every_type(dtype: Any, order: str) -> None:
    x = (8 * RNG.standard_normal((2, 16, 6, 5))).astype(dtype)
    attrs = {"kernel": (3, 3), "win": window(2, 2, (1, 1))}
    (y,) = run_op("max_pool", [x], attrs, order=order)
    np.testing.assert_array_equal(y.astype(np.float64), wanted("max_pool", [x], **attrs))
    if np.dtype(dtype).kind in "iu":
        assert refuses("sum_pool", [x], attrs)
        return
    (y,) = run_op("sum_pool", [x], attrs, order=order)
    rtol = {2: 1e-2, 8: 1e-12}[np.dtype(dtype).itemsize]
    np.testing.assert_allclose(y.astype(np.float64), wanted("sum_pool", [x], **attrs), rtol=rtol, atol=rtol)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kernel", [(2, 2), (8, 8)])
def test_an_epilogue_joins(order: str, kernel: tuple[int, int]) -> None:
    x, bias = drawn((2, 8, 8, 8)), drawn((8, 1, 1))
    shape = tuple(OPS["sum_pool"].run(x, kernel=kernel, win=window(2)).shape)
    operand = Operand(np.dtype(np.float32), (8, 1, 1), (1, 1, 1)).broadcast_to(shape)
    epilogue = Epilogue(maximum(Var("x") + Var("a0"), 0), (operand,), np.dtype(np.float16))
    (y,) = run_op("sum_pool", [x], {"kernel": kernel, "win": window(2)}, order=order, epilogue=epilogue, extra=[bias])
    want = np.maximum(wanted("sum_pool", [x], kernel=kernel, win=window(2)) + bias, 0)
    assert y.dtype == np.float16
    np.testing.assert_allclose(y, want, rtol=2e-3, atol=2e-3)


def test_inputs_that_begin_anywhere() -> None:
    x = drawn((1, 8, 5, 5))
    attrs = {"kernel": (2, 2), "win": window(2)}
    for order in (*ORDERS, "transposed"):
        (y,) = run_op("max_pool", [x], attrs, order=order, shift=1)
        np.testing.assert_array_equal(y, wanted("max_pool", [x], **attrs))
