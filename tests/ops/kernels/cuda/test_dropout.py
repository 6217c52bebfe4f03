"""CUDA dropout: the mask is bit for bit the array kernel's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnxgrad.ops.expr import Var
from onnxgrad.ops.kernels.cuda import dropout as _rules
from onnxgrad.ops.kernels.cuda.lowering import Epilogue
from onnxgrad.ops.kernels.cuda.operand import Operand
from onnxgrad.ops.op import OPS
from onnxgrad.ops.types import BFLOAT16

from .site import run_op

assert _rules
RNG = np.random.default_rng(0)
KEY = np.array([2**64 - 3, 17], np.uint64)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, BFLOAT16])
@pytest.mark.parametrize("shape", [(1,), (3, 7), (4, 64), (2, 3, 24), (0, 2), ()])
def test_training(shape: tuple[int, ...], dtype: Any) -> None:
    x = RNG.standard_normal(shape).astype(dtype)
    x.reshape(-1)[:2] = [np.nan, np.inf][: x.size]
    for ratio in (0.0, 0.1, 0.75):
        (y,) = run_op("dropout_train", [x, KEY], {"ratio": ratio}, compiles=ratio == 0.1)
        want = OPS["dropout_train"].run(x, KEY, ratio=ratio)
        assert y.dtype == want.dtype
        np.testing.assert_array_equal(y.astype(float), want.astype(float))
        (mask,) = run_op("dropout_mask", [x, KEY], {"ratio": ratio}, compiles=ratio == 0.1)
        np.testing.assert_array_equal(mask, OPS["dropout_mask"].run(x, KEY, ratio=ratio))


@pytest.mark.parametrize("shape", [(6, 40), (5, 7)])
def test_a_residual_joins(shape: tuple[int, int]) -> None:
    x, residual, bias = (RNG.standard_normal(s).astype(np.float32) for s in (shape, shape, shape[1]))
    operands = tuple(Operand(np.dtype(np.float32), shape, s) for s in ((shape[1], 1), (0, 1)))
    epilogue = Epilogue(Var("x") + Var("a0") + Var("a1"), operands, np.dtype(np.float32))
    for order, shift in (("plain", 0), ("transposed", 1)):
        (y,) = run_op(
            "dropout_train", [x, KEY], {"ratio": 0.4}, epilogue=epilogue, extra=[residual, bias], order=order,
            shift=shift,
        )  # fmt: skip
        want = OPS["dropout_train"].run(x, KEY, ratio=0.4) + residual + bias
        np.testing.assert_allclose(y, want, rtol=1e-6, atol=1e-6)
