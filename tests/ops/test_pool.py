"""Pooling: PyTorch as the oracle, ties and infinities."""

from __future__ import annotations

import numpy as np
import pytest

from onnxgrad.ops.kernels.array import window as walk
from onnxgrad.ops.pool import max_pool, max_pool_indices, sum_pool
from onnxgrad.ops.window import Window
from onnxgrad.runtime.autograd import tape
from onnxgrad.runtime.tensor.tensor import Tensor

from .case import rand

WINDOWS = [(2, 2, 0, 1), (3, 2, 1, 1), (3, 1, 1, 2), (5, 3, 2, 1)]


def gradient(f, x: np.ndarray, g: np.ndarray) -> np.ndarray:
    t = Tensor(x, requires_grad=True)
    (found,) = tape.grad(f(t), [t], Tensor(g))
    return found.array


@pytest.mark.oracle
@pytest.mark.parametrize(("k", "s", "p", "d"), WINDOWS)
@pytest.mark.parametrize("ceil", [False, True])
def test_max_pool_equals_pytorch(k: int, s: int, p: int, d: int, ceil: bool) -> None:
    torch = pytest.importorskip("torch")
    x = np.round(4 * rand(2, 3, 9, 8)) / 4  # with ties
    win = Window((s, s), ((p, p), (p, p)), (d, d))
    win = win.ceiled(x.shape[2:], (k, k)) if ceil else win
    tx = torch.tensor(x, requires_grad=True)
    ty, index = torch.nn.functional.max_pool2d(tx, k, s, p, d, ceil, return_indices=True)
    g = rand(*ty.shape)
    ty.backward(torch.tensor(g))
    np.testing.assert_array_equal(max_pool(x, kernel=(k, k), win=win), ty.detach())
    np.testing.assert_array_equal(max_pool_indices(x, kernel=(k, k), win=win) % 72, index)
    np.testing.assert_allclose(gradient(lambda t: max_pool(t, kernel=(k, k), win=win), x, g), tx.grad, atol=1e-12)


@pytest.mark.oracle
@pytest.mark.parametrize(("k", "s", "p"), [(2, 2, 0), (3, 2, 1), (3, 1, 1), (5, 3, 2)])
@pytest.mark.parametrize("ceil", [False, True])
@pytest.mark.parametrize("include", [False, True])
def test_average_pool_equals_pytorch(k: int, s: int, p: int, ceil: bool, include: bool) -> None:
    torch = pytest.importorskip("torch")
    x = rand(2, 3, 9, 8)
    plain = Window((s, s), ((p, p), (p, p)), (1, 1))
    how = {
        "kernel": (k, k),
        "win": plain.ceiled(x.shape[2:], (k, k)) if ceil else plain,
        "counted": plain.pads if include else ((0, 0), (0, 0)),
    }
    tx = torch.tensor(x, requires_grad=True)
    ty = torch.nn.functional.avg_pool2d(tx, k, s, p, ceil, include)
    g = rand(*ty.shape)
    ty.backward(torch.tensor(g))
    np.testing.assert_allclose(sum_pool(x, **how), ty.detach(), atol=1e-12)
    np.testing.assert_allclose(gradient(lambda t: sum_pool(t, **how), x, g), tx.grad, atol=1e-12)


def test_infinities_and_nan() -> None:
    win = Window((2, 2), ((1, 1), (1, 1)), (1, 1))
    x = np.full((1, 1, 4, 4), -np.inf)
    assert np.isneginf(max_pool(x, kernel=(2, 2), win=win)).all()
    index = max_pool_indices(x, kernel=(2, 2), win=win)
    assert index.min() >= 0 and index.max() < 16
    x[0, 0, 1, 1] = np.nan
    assert np.isnan(max_pool(x, kernel=(2, 2), win=win)[0, 0, 1, 1])
    index = max_pool_indices(x, kernel=(2, 2), win=win)
    assert index.min() >= 0 and index.max() < 16


def test_of_equal_elements_the_first_is_chosen() -> None:
    win = Window((2, 2), ((0, 0), (0, 0)), (1, 1))
    index = max_pool_indices(np.zeros((1, 2, 4, 4)), kernel=(2, 2), win=win)
    np.testing.assert_array_equal(index, [[[[0, 2], [8, 10]], [[16, 18], [24, 26]]]])


def test_blocks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    x = rand(3, 4, 7, 6)
    how = {"kernel": (3, 2), "win": Window((2, 1), ((1, 1), (0, 1)), (1, 2))}
    wanted = max_pool(x, **how), max_pool_indices(x, **how), sum_pool(x, **how)
    monkeypatch.setattr(walk, "CACHE_BYTES", 400)
    for f, w in zip((max_pool(x, **how), max_pool_indices(x, **how), sum_pool(x, **how)), wanted, strict=True):
        np.testing.assert_array_equal(f, w)
