"""Simulated quantisation: gradients that differences cannot check."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnxgrad.ops import quantize as q
from onnxgrad.ops.rnn import lstm
from onnxgrad.runtime.tensor.tensor import Tensor


@pytest.mark.parametrize(("dtype", "zero"), [("int8", np.array(-9, np.int8)), ("uint8", None)])
def test_gradient_goes_through_rounding_and_stops_where_it_saturates(dtype: str, zero: Any) -> None:
    x = np.linspace(-40, 40, 41)
    zeros = () if zero is None else (zero, zero)
    start = 0 if zero is None else int(zero)
    inside = (np.round(x / 0.25) + start >= np.iinfo(dtype).min) & (np.round(x / 0.25) + start <= np.iinfo(dtype).max)
    assert 0 < inside.sum() < x.size
    t, back = Tensor(x, requires_grad=True), Tensor(np.array(0.5), requires_grad=True)
    y = q.fake_quantize(t, np.array(0.25), back, *zeros, dtype=dtype, to="float64")
    g = np.cos(np.arange(41.0))
    (y * Tensor(g)).sum().backward()
    np.testing.assert_allclose(t.grad.numpy(), 2 * g * inside)
    np.testing.assert_allclose(back.grad.numpy(), (y.detach().numpy() / 0.5 * g).sum())


def drawn(*shape: int) -> np.ndarray:
    return np.random.default_rng([1, *shape]).uniform(-1.5, 1.5, shape).astype(np.float32)


@pytest.mark.oracle
@pytest.mark.parametrize("axis", [None, 0, 1, 2])
@pytest.mark.parametrize(("dtype", "low", "high"), [("int8", -128, 127), ("uint8", 0, 255)])
def test_as_pytorch_simulates_it(axis: int | None, dtype: str, low: int, high: int) -> None:
    torch = pytest.importorskip("torch")
    x, g = drawn(3, 4, 5), drawn(3, 4, 5)[::-1].copy()
    wanted = torch.tensor(x, requires_grad=True)
    if axis is None:
        scale, zero = np.float32(0.0078125), np.array(low + 90, dtype)
        y = torch.fake_quantize_per_tensor_affine(wanted, float(scale), int(zero), low, high)
    else:
        n = x.shape[axis]
        scales, zeros = np.float32(2.0) ** -np.arange(5, 5 + n, dtype=np.float32), low + 90 + np.arange(n)
        y = torch.fake_quantize_per_channel_affine(
            wanted, torch.tensor(scales), torch.tensor(zeros.astype(np.float32)), axis, low, high
        )
        shape = (n, *(1,) * (2 - axis))
        scale, zero = scales.reshape(shape), zeros.astype(dtype).reshape(shape)
    y.backward(torch.tensor(g))
    t = Tensor(x, requires_grad=True)
    found = q.fake_quantize(t, np.asarray(scale), np.asarray(scale), zero, zero, dtype=dtype, to="float32")
    (found * Tensor(g)).sum().backward()
    np.testing.assert_array_equal(found.detach().numpy(), y.detach().numpy())
    np.testing.assert_array_equal(t.grad.numpy(), wanted.grad.numpy())
    assert 0 < np.count_nonzero(t.grad.numpy()) < x.size


def test_dynamic_quantisation_hands_gradients_through() -> None:
    t = Tensor(drawn(3, 4), requires_grad=True)
    g = drawn(3, 4)[::-1].copy()
    (q.dynamic_fake_quantize(t) * Tensor(g)).sum().backward()
    np.testing.assert_array_equal(t.grad.numpy(), g)


def test_quantised_lstm_is_nearly_the_plain_one() -> None:
    x, w, r = drawn(4, 1, 3), drawn(1, 8, 3), drawn(1, 8, 2)
    how = {"direction": "forward", "cells": ((("Sigmoid", 0.0, 0.0), ("Tanh", 0.0, 0.0), ("Tanh", 0.0, 0.0)),)}
    grads = []
    for quantized in (False, True):
        t = Tensor(x, requires_grad=True)
        y, *_ = lstm(t, Tensor(w), Tensor(r), None, None, None, None, None, quantized=quantized, **how)
        y.sum().backward()
        grads.append((y.detach().numpy(), t.grad.numpy()))
        plain = lstm(x, w, r, None, None, None, None, None, quantized=quantized, **how)[0]
        np.testing.assert_allclose(plain, grads[-1][0], rtol=1e-5)
    for a, b in zip(*grads, strict=True):
        assert 0 < np.abs(a - b).max() < 0.01
