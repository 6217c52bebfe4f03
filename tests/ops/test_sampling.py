"""Sampling against PyTorch, on a graph, and where coordinates are extreme."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from onnxgrad.ops import reduce
from onnxgrad.ops.errors import OpError, ShapeError
from onnxgrad.ops.kernels.array import sampling as kernels
from onnxgrad.ops.sampling import deform_conv, grid_sample, put_rows, taps_at
from onnxgrad.ops.types import type_of
from onnxgrad.ops.window import Window
from onnxgrad.runtime.autograd import tape
from onnxgrad.runtime.graph.autodiff import differentiate
from onnxgrad.runtime.graph.execute import run_graph
from onnxgrad.runtime.graph.graph import Graph
from onnxgrad.runtime.tensor.tensor import Tensor

from .case import rand

PADDINGS = ("zeros", "border", "reflection")
TORCH = {"nearest": "nearest", "linear": "bilinear", "cubic": "bicubic"}


@pytest.mark.oracle
@pytest.mark.parametrize(("mode", "padding", "corners"), list(itertools.product(TORCH, PADDINGS, (False, True))))
def test_values_and_gradients_agree_with_pytorch(mode, padding, corners):
    torch = pytest.importorskip("torch")
    arrays = rand(2, 3, 5, 4), rand(2, 6, 3, 2, seed=1)
    theirs = [torch.tensor(a, requires_grad=True) for a in arrays]
    ours = [Tensor(a, requires_grad=True) for a in arrays]
    y = grid_sample(*ours, mode=mode, padding=padding, align_corners=corners)
    z = torch.nn.functional.grid_sample(*theirs, mode=TORCH[mode], padding_mode=padding, align_corners=corners)
    np.testing.assert_allclose(y.array, z.detach().numpy(), rtol=1e-9, atol=1e-12)
    g = rand(*y.shape, seed=3)
    wanted = torch.autograd.grad(z, theirs, torch.tensor(g))
    found = tape.grad(y, ours, Tensor(g), allow_unused=mode == "nearest")
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(0 if a is None else a.array, b.numpy(), rtol=1e-8, atol=1e-11)


@pytest.mark.oracle
def test_no_offset_is_a_convolution():
    torch = pytest.importorskip("torch")
    x, w, mask = rand(2, 4, 6, 5), rand(6, 2, 3, 2, seed=1), rand(2, 6, 4, 5, seed=2)
    win = Window((1, 1), ((0, 0), (1, 0)), (1, 1), 2)
    y = deform_conv(x, w, np.zeros((2, 12, 4, 5)), np.ones_like(mask), win=win, offset_group=1)
    padded = torch.nn.functional.pad(torch.tensor(x), (1, 0, 0, 0))
    np.testing.assert_allclose(y, torch.nn.functional.conv2d(padded, torch.tensor(w), groups=2).numpy(), atol=1e-10)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("mode", sorted(TORCH))
def test_far_coordinates(mode, padding):
    grid = np.array([-1e30, -1e6, 1e6, 1e30]).reshape(1, 4, 1, 1) * np.ones(2)
    x = rand(1, 2, 3, 4)
    y = grid_sample(x, grid, mode=mode, padding=padding)
    assert np.isfinite(y).all() and abs(y).max() <= 2 * abs(x).max()
    if padding == "zeros":
        assert (y == 0).all()


def test_half_and_integer_images():
    x, grid = rand(1, 2, 3, 4), rand(1, 5, 6, 2, low=-1, high=1)
    half = grid_sample(x.astype(np.float16), grid.astype(np.float16))
    wide = grid_sample(x.astype(np.float16).astype(np.float32), grid.astype(np.float16).astype(np.float32))
    np.testing.assert_array_equal(half, wide.astype(np.float16))
    whole = grid_sample((10 * x).astype(np.int64), grid, mode="nearest", padding="border")
    assert whole.dtype == np.int64 and np.isin(whole, (10 * x).astype(np.int64)).all()


def test_blocks_do_not_matter(monkeypatch):
    rng = np.random.default_rng(0)
    g, at, w = rng.random((2, 500, 3)), rng.integers(0, 7, (2, 500, 4)), rng.random((2, 500, 4))
    wanted = put_rows(g, at, w, size=7)
    monkeypatch.setattr(kernels, "BLOCK_BYTES", 1)
    np.testing.assert_allclose(put_rows(g, at, w, size=7), wanted, rtol=1e-12)


def test_gradients_on_a_graph():
    arrays = rand(2, 3, 4, 5), rand(2, 3, 2, 2, seed=1)
    graph = Graph("g")
    xs = [graph.input(n, type_of(a)) for n, a in zip(("x", "grid"), arrays, strict=True)]
    with graph.building():
        graph.outputs = [reduce.sum_(grid_sample(*xs))]
    found = run_graph(differentiate(graph, ["x", "grid"]), arrays)[1:]
    ours = [Tensor(a, requires_grad=True) for a in arrays]
    for f, w in zip(found, tape.grad(grid_sample(*ours).sum(), ours), strict=True):
        np.testing.assert_allclose(f, w.array, rtol=1e-10, atol=1e-12)


def test_what_does_not_fit_is_refused():
    x = rand(1, 4, 5, 5)
    with pytest.raises(ShapeError, match="grid"):
        grid_sample.infer_types(type_of(x), type_of(rand(1, 2, 2, 3)))
    with pytest.raises(OpError, match="padding"):
        taps_at.infer_types(type_of(x), size=3, taps=2, padding="wrap")
    win = Window((1, 1), ((0, 0), (0, 0)), (1, 1))
    with pytest.raises(ShapeError, match="offsets"):
        deform_conv.infer_types(
            type_of(x), type_of(rand(2, 4, 2, 2)), type_of(rand(1, 9, 4, 4)), win=win, offset_group=1
        )
