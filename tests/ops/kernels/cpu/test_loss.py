"""Losses against the array kernels, their definition and PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnxgrad.ops.dims import Dim
from onnxgrad.ops.errors import OpError
from onnxgrad.ops.kernels.cpu.jit import compiled_modules
from onnxgrad.ops.op import OPS

from .site import run_op
from .strided import Lie, lying

N, S = Dim.symbol("n"), Dim.symbol("s")
SHAPES = [(8, 1000), (3, 5), (1, 1), (2, 7, 5, 6), (1, 3, 300, 400), (4, 6, 1)]


def sample(shape: tuple[int, ...], dtype: Any = np.float32, index: Any = np.int64) -> list[Any]:
    rng = np.random.default_rng(0)
    x = (rng.standard_normal(shape) * 3).astype(dtype)
    labels = rng.integers(0, shape[1], (shape[0], *shape[2:])).astype(index)
    return [x, labels, (rng.random(shape[1]) + 0.5).astype(dtype)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("order", ["plain", "channels_last"])
@pytest.mark.parametrize("op", ["nll_loss", "softmax_cross_entropy"])
def test_array_kernels_agree(op: str, order: str, shape: tuple[int, ...]) -> None:
    x, labels, weights = sample(shape)
    for reduction in ("mean", "sum", "none"):
        for given in ([x, labels], [x, labels, weights]):
            for ignore in (None, 1):
                attrs = {"reduction": reduction, "ignore_index": ignore}
                y = run_op(op, given, order=order, multiple=16, **attrs)
                with np.errstate(all="ignore"):
                    wanted = OPS[op].run(*given, **attrs)
                np.testing.assert_allclose(y, wanted, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("index", [np.int32, np.int64])
def test_definition(dtype: Any, index: Any) -> None:
    x, labels, weights = sample((9, 33), dtype, index)
    labels[4] = -100
    y = run_op("softmax_cross_entropy", [x, labels, weights], reduction="mean", ignore_index=-100)
    wide = x.astype(np.float64)
    logs = wide - np.log(np.exp(wide).sum(1, keepdims=True))
    kept = labels != -100
    each = [-logs[i, k] * weights[k] for i, k in enumerate(labels) if k != -100]
    np.testing.assert_allclose(
        y, np.sum(each) / weights[labels[kept]].sum(), rtol=2e-6 if dtype == np.float32 else 1e-13
    )


def test_a_label_that_is_no_class_raises() -> None:
    x, labels, _ = sample((4, 5))
    for bad in (5, -6, 1 << 40):
        labels[2] = bad
        with pytest.raises(OpError, match="label"):
            run_op("nll_loss", [x, labels])
        run_op("nll_loss", [x, labels], ignore_index=bad)


def test_ignored_infinity_and_rows_of_infinity() -> None:
    x, labels, _ = sample((6, 5))
    x[1], x[2, 3], x[3, 0], labels[1] = -np.inf, np.inf, np.nan, 4
    with np.errstate(all="ignore"):
        for attrs in ({"reduction": "none"}, {"reduction": "none", "ignore_index": 4}):
            wanted = OPS["softmax_cross_entropy"].run(x, labels, **attrs)
            np.testing.assert_allclose(
                run_op("softmax_cross_entropy", [x, labels], **attrs), wanted, rtol=2e-5, atol=1e-6
            )


def test_large_logits_keep_their_digits() -> None:
    x = np.array([[1e6, 1e6 - 1, 0]], np.float32)
    y = run_op("softmax_cross_entropy", [x, np.array([0])], reduction="none")
    np.testing.assert_allclose(y, [np.log(1 + np.exp(-1.0))], rtol=1e-6)


def test_any_number_of_threads() -> None:
    x, labels, weights = sample((3, 11, 200, 210))
    results = [run_op("softmax_cross_entropy", [x, labels, weights], threads=t) for t in (1, 2, 4)]
    assert results[0] == results[1] == results[2]


def test_sizes_of_run_time_compile_once() -> None:
    counts = []
    for n, s in ((1, 1), (5, 70), (2, 900)):
        x, labels, _ = sample((n, 6, s))
        y = run_op("softmax_cross_entropy", [x, labels], symbols={0: (N, 6, S), 1: (N, S)})
        np.testing.assert_allclose(y, OPS["softmax_cross_entropy"].run(x, labels), rtol=1e-5)
        counts.append(compiled_modules())
    assert counts[0] == counts[1] == counts[2]


def test_x_may_lie_in_any_order() -> None:
    x, labels, _ = sample((3, 5, 7, 6))
    for order in range(0, 24, 5):
        with lying(Lie(order, 1 + order % 2), Lie()):
            y = run_op("softmax_cross_entropy", [x, labels])
        np.testing.assert_allclose(y, OPS["softmax_cross_entropy"].run(x, labels), rtol=1e-5)


def test_pytorch_agrees() -> None:
    torch = pytest.importorskip("torch")
    x, labels, weights = sample((6, 10, 4))
    f = torch.nn.functional.cross_entropy
    for reduction in ("mean", "sum", "none"):
        wanted = f(*map(torch.from_numpy, (x, labels)), torch.from_numpy(weights), reduction=reduction)
        y = run_op("softmax_cross_entropy", [x, labels, weights], reduction=reduction)
        np.testing.assert_allclose(y, wanted.numpy(), rtol=1e-5, atol=1e-6)
