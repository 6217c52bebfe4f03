"""CUDA softmax, its logarithm and their gradients against the array kernels in float64 and PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnxgrad.ops.expr import Var
from onnxgrad.ops.kernels.cuda import softmax as _rules
from onnxgrad.ops.kernels.cuda.lowering import Epilogue
from onnxgrad.ops.kernels.cuda.operand import Operand
from onnxgrad.ops.op import OPS
from onnxgrad.ops.types import BFLOAT16

from .site import refuses, run_op

assert _rules
RNG = np.random.default_rng(0)
FORWARD = ("softmax", "log_softmax")
BACKWARD = ("softmax_grad", "log_softmax_grad")
CLOSE: dict[str, dict[str, float]] = {
    "float64": {"rtol": 1e-13, "atol": 1e-13},
    "float32": {"rtol": 3e-6, "atol": 3e-6},
    "float16": {"rtol": 1e-3, "atol": 1e-5},
    "bfloat16": {"rtol": 8e-3, "atol": 1e-5},
}
WALKS: dict[str, tuple[tuple[int, ...], int, str]] = {
    "odd rows": ((5, 37), 1, "plain"),
    "a warp a row": ((3, 512), -1, "plain"),
    "a block a row": ((2, 2600), -1, "plain"),
    "pieces": ((2, 40000), -1, "plain"),
    "columns": ((21, 12), 0, "plain"),
    "classes of pixels": ((2, 21, 4, 3), 1, "plain"),
    "long columns": ((3000, 4), 0, "plain"),
    "channels last": ((2, 8, 3, 5), 1, "channels_last"),
    "rows of pixels": ((2, 8, 3, 5), 2, "channels_last"),
    "one element": ((3, 1), 1, "plain"),
    "one row": ((7,), 0, "plain"),
    "empty rows": ((3, 0), 1, "plain"),
    "no rows": ((0, 3), 1, "plain"),
}


def drawn(shape: tuple[int, ...], dtype: Any = np.float32, scale: float = 4.0) -> Any:
    return (RNG.standard_normal(shape) * scale).astype(dtype)


def check(op: str, arrays: list[Any], axis: int, **how: Any) -> None:
    (y,) = run_op(op, arrays, {"axis": axis}, **how)
    want = OPS[op].run(*(a.astype(np.float64) for a in arrays), axis=axis)
    assert (y.dtype, y.shape) == (arrays[0].dtype, want.shape)
    np.testing.assert_allclose(y.astype(float), want, **CLOSE[y.dtype.name])


@pytest.mark.parametrize("walk", WALKS)
@pytest.mark.parametrize("op", FORWARD)
def test_walks(op: str, walk: str) -> None:
    shape, axis, order = WALKS[walk]
    check(op, [drawn(shape)], axis, order=order, compiles=op == "softmax" and len(shape) < 3)


@pytest.mark.parametrize("walk", WALKS)
@pytest.mark.parametrize("op", BACKWARD)
def test_gradients(op: str, walk: str) -> None:
    shape, axis, order = WALKS[walk]
    g, y = drawn(shape, scale=1), drawn(shape, scale=0.5)
    if op == "log_softmax_grad":
        y -= 5
    check(op, [g, y], axis, order=order, compiles=op == "softmax_grad" and walk in ("odd rows", "pieces", "columns"))


@pytest.mark.parametrize("dtype", [np.float64, np.float16, BFLOAT16])
@pytest.mark.parametrize("op", FORWARD)
def test_floats_of_other_widths(op: str, dtype: Any) -> None:
    check(op, [drawn((6, 40), dtype)], 1, compiles=op == "softmax")
    check(op, [drawn((40, 16), dtype)], 0, compiles=False)
    check(f"{op}_grad", [drawn((6, 40), dtype, 1), drawn((6, 40), dtype, 0.5)], 1, compiles=False)


@pytest.mark.parametrize("length", [9, 600, 17000])
@pytest.mark.parametrize("op", FORWARD)
def test_what_is_no_number(op: str, length: int) -> None:
    x = drawn((7, length))
    x[1, 2], x[2, 3], x[3, 4], x[4], x[5], x[6] = np.nan, np.inf, -np.inf, -np.inf, 1e30, np.nan
    check(op, [x], 1, compiles=False)


@pytest.mark.parametrize("op", FORWARD)
def test_many_rows_that_are_read_twice(op: str) -> None:
    x = np.repeat(drawn((1, 16500)), 270, axis=0)
    x[::50, 7] = 30
    check(op, [x], 1, compiles=False)


@pytest.mark.parametrize("op", FORWARD)
def test_against_torch(op: str) -> None:
    torch = pytest.importorskip("torch")
    x, g = drawn((4, 50)), drawn((4, 50))
    t = torch.from_numpy(x.copy()).requires_grad_()
    want = getattr(torch, op)(t, -1)
    want.backward(torch.from_numpy(g))
    (y,) = run_op(op, [x], {"axis": -1}, compiles=False)
    (dx,) = run_op(f"{op}_grad", [g, y], {"axis": -1}, compiles=False)
    np.testing.assert_allclose(y, want.detach().numpy(), rtol=2e-6, atol=2e-6)
    np.testing.assert_allclose(dx, t.grad.numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("axis", [0, 1])
def test_an_epilogue_joins(axis: int) -> None:
    x, a, b = drawn((6, 40)), drawn((6, 40)), drawn((40,))
    operands = (Operand(a.dtype, (6, 40), (40, 1)), Operand(b.dtype, (6, 40), (0, 1)))
    epilogue = Epilogue(Var("x") * Var("a0") + Var("a1"), operands, np.dtype(np.float32))
    (y,) = run_op("softmax", [x], {"axis": axis}, epilogue=epilogue, extra=[a, b])
    np.testing.assert_allclose(y, OPS["softmax"].run(x.astype(float), axis=axis) * a + b, rtol=1e-5, atol=1e-6)


def test_refusals() -> None:
    assert refuses("softmax", [np.zeros((3, 4), np.int32)], {"axis": 1})
