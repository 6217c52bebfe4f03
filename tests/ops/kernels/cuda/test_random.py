"""CUDA random draws: bit for bit what NumPy's generator gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnxgrad.ops.kernels.cuda import random as _rules
from onnxgrad.ops.op import OPS
from onnxgrad.ops.types import BFLOAT16, TensorType

from .site import run_op

assert _rules
RNG = np.random.default_rng(0)
KEYS = [np.array(k, np.uint64) for k in ([0, 0], [7, 2**64 - 1], [2**63 + 12345, 987654321])]


@pytest.mark.parametrize("number", [0, 1, 2**31, 2**62])
def test_keys_that_follow_from_keys(number: int) -> None:
    for key in KEYS:
        (y,) = run_op("fold_key", [key], {"number": number})
        np.testing.assert_array_equal(y, OPS["fold_key"].run(key, number=number))


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize("shape", [(1,), (3, 5), (4, 64), (1031,), (0, 3), ()])
def test_even_draws(shape: tuple[int, ...], dtype: str) -> None:
    sizes = np.array(shape, np.int64)
    made = BFLOAT16 if dtype == "bfloat16" else np.dtype(dtype)
    for key, low, high in zip(KEYS, (0.0, -1.3, 2.0), (1.0, 0.7, 2.5), strict=True):
        attrs = {"low": low, "high": high, "dtype": dtype}
        (y,) = run_op("random_uniform", [key, sizes], attrs, results=[TensorType(made, shape)])
        np.testing.assert_array_equal(y, OPS["random_uniform"].run(key, sizes, **attrs))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, BFLOAT16])
@pytest.mark.parametrize("shape", [(5, 7), (8, 16)])
def test_draws_by_probability(shape: tuple[int, ...], dtype: Any) -> None:
    p = RNG.random(shape).astype(dtype)
    p.reshape(-1)[:3] = [0, 1, np.nan]
    for key, out in zip(KEYS, ("float32", "bool", "int64"), strict=True):
        (y,) = run_op("bernoulli", [p, key], {"dtype": out})
        np.testing.assert_array_equal(y, OPS["bernoulli"].run(p, key, dtype=out))
        assert 0 < y.astype(float).sum() < y.size
