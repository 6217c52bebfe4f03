"""Simulated quantisation: gradients that differences cannot check."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnxgrad.ops import quantize as q
from onnxgrad.runtime.tensor import Tensor


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
