"""Signals: PyTorch as the oracle, and what transforms have to keep."""

from __future__ import annotations

import numpy as np
import pytest

from onnxgrad.ops.dims import Dim
from onnxgrad.ops.errors import ShapeError
from onnxgrad.ops.signal import dft, frames, overlap_add, stft
from onnxgrad.ops.types import TensorType
from onnxgrad.runtime.autograd import tape
from onnxgrad.runtime.autograd.gradcheck import check_grads
from onnxgrad.runtime.tensor.tensor import Tensor

from .case import rand


@pytest.mark.oracle
@pytest.mark.parametrize("onesided", [True, False])
def test_stft_equals_pytorch(onesided: bool) -> None:
    torch = pytest.importorskip("torch")
    x, window = rand(2, 50), rand(16, seed=1)
    tx = torch.tensor(x, requires_grad=True)
    ty = torch.view_as_real(
        torch.stft(tx, 16, 5, window=torch.tensor(window), center=False, onesided=onesided, return_complex=True)
    ).transpose(1, 2)
    g = rand(*ty.shape, seed=2)
    ty.backward(torch.tensor(g))
    t = Tensor(x[..., None], requires_grad=True)
    y = stft(t, Tensor(window), length=16, step=5, onesided=onesided)
    np.testing.assert_allclose(y.array, ty.detach(), atol=1e-10)
    (found,) = tape.grad(y, [t], Tensor(g))
    np.testing.assert_allclose(found.array[..., 0], tx.grad, atol=1e-10)


def test_stft_has_all_orders() -> None:
    check_grads(lambda x, w: stft(x, w, length=4, step=2), (rand(1, 8, 1), rand(4)), order=2)


@pytest.mark.parametrize("onesided", [False, True])
@pytest.mark.parametrize("length", [6, 7])
def test_the_inverse_undoes(onesided: bool, length: int) -> None:
    x = rand(2, length, 1 if onesided else 2)
    y = dft(x, axis=1, length=length, onesided=onesided)
    np.testing.assert_allclose(dft(y, axis=1, length=length, onesided=onesided, inverse=True), x, atol=1e-12)


def test_float32_stays() -> None:
    assert dft(rand(1, 8, 1).astype(np.float32), axis=1, length=8).dtype == np.float32


def test_frames_without_overlap_come_back() -> None:
    x = rand(2, 12)
    np.testing.assert_array_equal(overlap_add(frames(x, length=3, step=3), step=3, size=12), x)


def test_symbolic_lengths() -> None:
    n = Dim.symbol("n")
    t = frames.infer_types(TensorType(np.dtype("float32"), (1, n, 1)), length=16, step=4)
    assert t.shape == (1, (n - 16) // 4 + 1, 16, 1)
    t = dft.infer_types(t, axis=2, length=16, onesided=True)
    assert t.shape == (1, (n - 16) // 4 + 1, 9, 2)


def test_a_signal_shorter_than_a_frame() -> None:
    with pytest.raises(ShapeError, match="longer than the signal"):
        frames.infer_types(TensorType(np.dtype("float32"), (1, 3)), length=4, step=1)
