"""Eager calls of heavy ops on large arrays: compiled, with the same numbers."""

from __future__ import annotations

import numpy as np
import pytest

import onnxgrad as og
from onnxgrad import nn
from onnxgrad.ops import conv, matmul, rnn_train
from onnxgrad.ops.kernels.cpu.target import available
from onnxgrad.ops.window import Window

pytestmark = pytest.mark.skipif(not available(), reason="the compiled engine is off")

RNG = np.random.default_rng(0)
SAME = Window((1, 1), ((1, 1), (1, 1)), (1, 1))


def test_the_third_call_agrees_with_the_first_and_with_float64() -> None:
    a, b = (RNG.standard_normal(s).astype(np.float32) for s in ((400, 390), (390, 410)))
    wanted = a.astype(float) @ b.astype(float)
    kernel = matmul.matmul.eager_kernel
    assert kernel is not None
    for _ in range(3):
        np.testing.assert_allclose(kernel(a, b), wanted, rtol=1e-3, atol=1e-3)
    fast = kernel._fast  # type: ignore[attr-defined]
    assert any(p is not None and p.native for p in fast._programs.values())


def test_gradients_through_compiled_convolutions() -> None:
    x = RNG.standard_normal((4, 16, 60, 60)).astype(np.float32)
    w = (RNG.standard_normal((16, 16, 3, 3)) / 12).astype(np.float32)
    g = RNG.standard_normal((4, 16, 60, 60)).astype(np.float32)
    wide = [v.astype(np.float64) for v in (x, w, g)]
    dx = conv.conv_input_grad.run(wide[2], wide[1], win=SAME, size=(60, 60))
    dw = conv.conv_weight_grad.run(wide[2], wide[0], win=SAME, kernel=(3, 3))
    for _ in range(3):
        tx, tw = og.tensor(x, requires_grad=True), og.tensor(w, requires_grad=True)
        y = conv.conv(tx, tw, win=SAME)
        y.backward(og.tensor(g))
        assert tx.grad is not None
        assert tw.grad is not None
        np.testing.assert_allclose(tx.grad.numpy(), dx, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(tw.grad.numpy(), dw, rtol=1e-3, atol=1e-2)


def test_small_arrays_and_other_types_keep_their_array_kernel() -> None:
    kernel = matmul.matmul.eager_kernel
    assert kernel is not None
    for dtype in (np.float16, np.complex64):
        a = np.ones((400, 400), dtype)
        for _ in range(3):
            np.testing.assert_array_equal(kernel(a, a), matmul.matmul.array_kernel(a, a))  # type: ignore[misc]
    np.testing.assert_array_equal(kernel(np.eye(3), np.eye(3)), np.eye(3))


def test_a_swapped_matrix_is_no_copy_of_numpys() -> None:
    a, b = (RNG.standard_normal(s).astype(np.float32) for s in ((500, 320), (500, 410)))
    kernel = matmul.matmul.eager_kernel
    assert kernel is not None
    np.testing.assert_allclose(kernel(a.T, b), a.T.astype(float) @ b.astype(float), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(kernel(a, b[:320].T[:320]), a @ b[:320].T[:320], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["RNN", "GRU", "LSTM"])
def test_recurrent_layers_of_any_length_and_batch_share_their_kernels(name: str) -> None:
    og.manual_seed(0)
    layer = getattr(nn, name)(40, 64, bidirectional=True)
    wide = getattr(nn, name)(40, 64, bidirectional=True, dtype=og.float64)
    wide.load_state_dict({k: v.to(og.float64) for k, v in layer.state_dict().items()})
    kernel = rnn_train.lstm_train.eager_kernel
    for steps, batch in ((20, 12), (9, 30), (33, 7)):
        x = RNG.standard_normal((steps, batch, 40)).astype(np.float32)
        tensors = [og.tensor(x, requires_grad=True), og.tensor(x.astype(np.float64), requires_grad=True)]
        for module, given in zip((layer, wide), tensors, strict=True):
            y, _ = module(given)
            (y * y).sum().backward()
        np.testing.assert_allclose(tensors[0].grad.numpy(), tensors[1].grad.numpy(), rtol=0, atol=1e-3)
    for a, b in zip(layer.parameters(), wide.parameters(), strict=True):
        np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=0, atol=2e-3 * abs(b.grad.numpy()).max())
    if name == "LSTM":
        programs = kernel._fast._programs  # type: ignore[union-attr]
        mine = [p for key, p in programs.items() if key[0][0] == np.float32 and key[0][1][2] == 40]
        assert len(mine) == 1
        assert all(p is not None and p.native for p in mine)
