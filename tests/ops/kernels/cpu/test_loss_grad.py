"""The gradient of cross entropy against the array kernel, its definition and PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnxgrad.ops.dims import Dim
from onnxgrad.ops.kernels.cpu import load_rules
from onnxgrad.ops.kernels.cpu.jit import compiled_modules
from onnxgrad.ops.op import OPS

from .site import run_op

load_rules()
OP = "softmax_cross_entropy_grad"
N, S = Dim.symbol("n"), Dim.symbol("s")
SHAPES = [(8, 1000), (3, 5), (1, 1), (2, 7, 5, 6), (1, 3, 60, 80), (4, 6, 1)]


def sample(shape: tuple[int, ...], reduction: str, dtype: Any = np.float32, index: Any = np.int64) -> list[Any]:
    """Return g, x, labels, of which some count from the end, and weights."""
    rng = np.random.default_rng(0)
    x = (rng.standard_normal(shape) * 3).astype(dtype)
    labels = rng.integers(-shape[1], shape[1], (shape[0], *shape[2:])).astype(index)
    g = rng.standard_normal(labels.shape if reduction == "none" else ()) + 2
    return [np.asarray(g, dtype), x, labels, (rng.random(shape[1]) + 0.5).astype(dtype)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("order", ["plain", "channels_last"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_array_kernel_agrees(reduction: str, order: str, shape: tuple[int, ...]) -> None:
    *arrays, weights = sample(shape, reduction)
    arrays[2].flat[-1] = -100
    for given in (arrays, [*arrays, weights]):
        for ignore in (-100, 0, None):
            if ignore is None:
                given[2].flat[-1] = 0
            attrs = {"reduction": reduction, "ignore_index": ignore}
            if ignore == 0:
                given[2].flat[-1] = 0
            with np.errstate(all="ignore"):
                wanted = OPS[OP].run(*given, **attrs)
            for at_end in (True, False):
                found = run_op(OP, given, order=order, multiple=16, at_end=at_end, **attrs)
                np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=2e-6)
            given[2].flat[-1] = -100


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("index", [np.int32, np.int64])
def test_definition(dtype: Any, index: Any) -> None:
    g, x, labels, weights = sample((9, 33), "mean", dtype, index)
    labels[4] = -100
    found = run_op(OP, [g, x, labels, weights], reduction="mean", ignore_index=-100)
    counts = np.where(labels == -100, 0, weights.astype(np.float64)[labels % 33])
    wide = np.exp(x.astype(np.float64))
    wanted = wide / wide.sum(1, keepdims=True)
    wanted[np.arange(9), labels % 33] -= 1
    wanted *= (float(g) * counts / counts.sum())[:, None]
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6 if dtype == np.float32 else 1e-15)


def test_rows_that_count_nothing_are_zero() -> None:
    g, x, labels, _ = sample((6, 5), "sum")
    x[1], x[2, 3], labels[1], labels[2] = -np.inf, np.nan, 4, 4
    found = run_op(OP, [g, x, labels], reduction="sum", ignore_index=4)
    assert not found[labels == 4].any()
    assert np.isfinite(found).all()


def test_sizes_of_run_time_compile_once() -> None:
    counts = []
    for n, s in ((1, 1), (3, 20), (2, 70)):
        g, x, labels, _ = sample((n, 12, s), "mean")
        symbols = {1: (N, 12, S), 2: (N, S)}
        found = run_op(OP, [g, x, labels], symbols=symbols, reduction="mean")
        np.testing.assert_allclose(found, OPS[OP].run(g, x, labels, reduction="mean"), rtol=2e-5, atol=2e-6)
        counts.append(compiled_modules())
    assert counts[0] == counts[1] == counts[2]


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_pytorch_agrees(reduction: str) -> None:
    torch = pytest.importorskip("torch")
    _, x, labels, weights = sample((40, 17), reduction)
    labels %= 17
    labels[3] = -100
    leaf = torch.from_numpy(x).requires_grad_()
    loss = torch.nn.functional.cross_entropy(
        leaf, torch.from_numpy(labels), torch.from_numpy(weights), reduction=reduction
    )
    loss.backward()
    g = np.ones((), np.float32)
    found = run_op(OP, [g, x, labels, weights], reduction=reduction, ignore_index=-100)
    np.testing.assert_allclose(found, leaf.grad.numpy(), rtol=1e-5, atol=1e-6)
