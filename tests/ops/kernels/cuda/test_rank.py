"""The CUDA kernels of `topk` against the array kernel and torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnxgrad.ops.kernels.cuda import rank as _rules
from onnxgrad.ops.op import OPS
from onnxgrad.ops.types import BFLOAT16

from .site import refuses, run_op

assert _rules
RNG = np.random.default_rng(0)


def check(x: Any, k: int, axis: int, *, largest: bool = True, **how: Any) -> None:
    """Compare values and places with the array kernel."""
    attrs = {"k": k, "axis": axis, "largest": largest}
    values, places = run_op("topk", [x], attrs, **how)
    want = OPS["topk"].run(x, **attrs)
    np.testing.assert_array_equal(places, want[1])
    np.testing.assert_array_equal(values.astype(np.float64), want[0].astype(np.float64))


@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize(
    ("shape", "k", "axis"),
    [((3, 8), 2, 1), ((9, 70), 16, 1), ((1, 1), 1, 1), ((2, 300), 300, 1), ((2, 1000), 5, -1), ((1, 6000), 50, 1),
     ((1, 1100), 1024, 1), ((4, 60, 3), 20, 1), ((5, 4, 3), 2, 0)],
)  # fmt: skip
def test_values_and_places(shape: tuple[int, ...], k: int, axis: int, largest: bool) -> None:
    x = RNG.standard_normal(shape).astype(np.float32)
    check(x, k, axis, largest=largest)
    values = np.array([0.0, -0.0, 1, -1, np.nan, np.inf, -np.inf])
    check(RNG.choice(values, shape).astype(np.float32), k, axis, largest=largest)


@pytest.mark.parametrize("dtype", [np.float16, BFLOAT16, np.float64, np.int8, np.uint8, np.int32, np.int64, np.uint64])
@pytest.mark.parametrize("k", [3, 40])
def test_every_type(dtype: Any, k: int) -> None:
    x = (20 * RNG.standard_normal((3, 90))).astype(np.int64).astype(dtype)
    x[0, :2] = [np.iinfo(dtype).min, np.iinfo(dtype).max] if np.dtype(dtype).kind in "iu" else [-np.inf, np.nan]
    for largest in (True, False):
        check(x, k, 1, largest=largest)


def test_rows_that_lie_otherwise() -> None:
    x = RNG.standard_normal((6, 50)).astype(np.float32)
    check(x, 4, 1, order="transposed")
    check(x, 30, 1, order="transposed", shift=1)


def test_torch_agrees() -> None:
    torch = pytest.importorskip("torch")
    x = RNG.permutation(4000).reshape(2, 2000).astype(np.float32)
    values, places = run_op("topk", [x], {"k": 33, "axis": 1})
    want = torch.topk(torch.from_numpy(x), 33)
    np.testing.assert_array_equal(values, want.values.numpy())
    np.testing.assert_array_equal(places, want.indices.numpy())


def test_what_sorts_is_refused() -> None:
    x = np.zeros((2, 2000), np.float32)
    assert refuses("topk", [x], {"k": 1025, "axis": 1})
    assert refuses("topk", [x], {"k": 0, "axis": 1})
