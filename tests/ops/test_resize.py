"""Resizing: PyTorch as the oracle, and what interpolation has to keep."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnxgrad.ops.dims import Dim
from onnxgrad.ops.resize import Interpolation, resize, resize_grad
from onnxgrad.ops.types import TensorType

from .case import rand

MODES: list[tuple[Interpolation, dict[str, Any]]] = [
    (Interpolation("linear"), {"mode": "bilinear"}),
    (Interpolation("linear", "align_corners"), {"mode": "bilinear", "align_corners": True}),
    (Interpolation("cubic"), {"mode": "bicubic"}),
    (Interpolation("cubic", "align_corners"), {"mode": "bicubic", "align_corners": True}),
    (Interpolation("nearest", "asymmetric", "floor"), {"mode": "nearest"}),
    (Interpolation("nearest", "half_pixel", "round_prefer_ceil"), {"mode": "nearest-exact"}),
    (Interpolation("linear", exclude_outside=True, antialias=True), {"mode": "bilinear", "antialias": True}),
    (
        Interpolation("cubic", cubic_a=-0.5, exclude_outside=True, antialias=True),
        {"mode": "bicubic", "antialias": True},
    ),
]


@pytest.mark.oracle
@pytest.mark.parametrize(("how", "mode"), MODES)
@pytest.mark.parametrize("size", [(10, 14), (3, 4), (64, 9), (5, 7)])
def test_equals_pytorch(how: Interpolation, mode: dict[str, Any], size: tuple[int, int]) -> None:
    torch = pytest.importorskip("torch")
    x = rand(2, 3, 5, 7)
    tx = torch.tensor(x, requires_grad=True)
    ty = torch.nn.functional.interpolate(tx, size, **mode)
    g = rand(*ty.shape)
    ty.backward(torch.tensor(g))
    np.testing.assert_allclose(resize(x, axes=(2, 3), how=how, size=size), ty.detach(), atol=2e-5)
    np.testing.assert_allclose(resize_grad(g, axes=(2, 3), how=how, size=(5, 7)), tx.grad, atol=5e-5)


@pytest.mark.parametrize("how", [m[0] for m in MODES])
@pytest.mark.parametrize("size", [(9,), (100,), (257,)])
def test_constants_stay_constant(how: Interpolation, size: tuple[int]) -> None:
    y = resize(np.full((2, 40), 3.0), axes=(1,), how=how, size=size)
    np.testing.assert_allclose(y, 3.0, rtol=1e-6)


def test_few_reads_and_matrix_agree() -> None:
    how = Interpolation("cubic")
    short, long = rand(1, 16), np.zeros((1, 32))
    long[:, :16] = short
    a = resize(short, axes=(1,), how=how, size=(32,))  # as a matrix
    b = resize(long, axes=(1,), how=how, size=(64,))  # as four reads
    np.testing.assert_allclose(a[:, :26], b[:, :26], atol=1e-6)


def test_symbolic_sizes_pass_through() -> None:
    n, m = Dim.symbol("n"), Dim.symbol("m")
    t = resize.infer_types(TensorType(np.dtype("float32"), (1, n)), axes=(1,), how=Interpolation(), size=(m,))
    assert t.shape == (1, m)
