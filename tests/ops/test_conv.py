"""Convolution and its window: PyTorch as the oracle, big inputs in pieces, symbolic sizes."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from onnxgrad.ops.conv import conv, conv_input_grad, conv_weight_grad
from onnxgrad.ops.dims import Dim, bind
from onnxgrad.ops.errors import ShapeError
from onnxgrad.ops.kernels.array import window as walk
from onnxgrad.ops.types import type_of
from onnxgrad.ops.window import Window, same_pads

from .case import rand


@pytest.mark.oracle
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize(("k", "s", "p", "d"), [(3, 1, 1, 1), (3, 2, 1, 1), (1, 2, 0, 1), (3, 1, 2, 2), (5, 3, 2, 1)])
def test_gradients_equal_pytorch(groups: int, k: int, s: int, p: int, d: int) -> None:
    torch = pytest.importorskip("torch")
    x, w = rand(3, 4, 9, 8), rand(8, 4 // groups, k, k, seed=1)
    win = Window((s, s), ((p, p), (p, p)), (d, d), groups)
    tx, tw = (torch.tensor(a, requires_grad=True) for a in (x, w))
    ty = torch.nn.functional.conv2d(tx, tw, None, s, p, d, groups)
    g = rand(*ty.shape, seed=2)
    ty.backward(torch.tensor(g))
    np.testing.assert_allclose(conv(x, w, win=win), ty.detach(), atol=1e-10)
    np.testing.assert_allclose(conv_input_grad(g, w, win=win, size=x.shape[2:]), tx.grad, atol=1e-10)
    np.testing.assert_allclose(conv_weight_grad(g, x, win=win, kernel=(k, k)), tw.grad, atol=1e-10)


@pytest.mark.parametrize("limit", [1, 3000, 20000])
def test_pieces_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    x, w = rand(3, 4, 7, 6), rand(6, 2, 3, 2, seed=1)
    win = Window((2, 1), ((1, 1), (0, 1)), (1, 2), 2)
    y = conv(x, w, win=win)
    g = rand(*y.shape, seed=2)
    wanted = (y, conv_input_grad(g, w, win=win, size=(7, 6)), conv_weight_grad(g, x, win=win, kernel=(3, 2)))
    monkeypatch.setattr(walk, "PATCH_BYTES", limit)
    monkeypatch.setattr(walk, "CACHE_BYTES", limit)
    found = (
        conv(x, w, win=win),
        conv_input_grad(g, w, win=win, size=(7, 6)),
        conv_weight_grad(g, x, win=win, kernel=(3, 2)),
    )
    for f, t in zip(found, wanted, strict=True):
        np.testing.assert_allclose(f, t, atol=1e-12)
    depthwise = rand(8, 1, 3, 2, seed=3)
    each = Window((2, 1), ((1, 1), (0, 1)), (1, 2), 4)
    found = conv(x, depthwise, win=each)
    monkeypatch.undo()
    np.testing.assert_allclose(found, conv(x, depthwise, win=each), atol=1e-12)


def test_patches_of_a_big_image_stay_small() -> None:
    sizes = [(b - a) * 512 * 64 * 9 * 4 for _, a, b in walk.pieces(1, (512, 512), 64 * 9 * 4)]
    assert max(sizes) <= walk.PATCH_BYTES


def test_empty_batch() -> None:
    win = Window((1, 1), ((1, 1), (1, 1)), (1, 1))
    assert conv(rand(0, 2, 4, 4), rand(3, 2, 3, 3), win=win).shape == (0, 3, 4, 4)


def test_half_rounds_once() -> None:
    x, w = rand(1, 64, 5, 5).astype(np.float16), rand(2, 64, 3, 3, seed=1).astype(np.float16)
    win = Window((1, 1), ((0, 0), (0, 0)), (1, 1))
    y = conv(x, w, win=win)
    assert y.dtype == np.float16
    np.testing.assert_array_equal(y, conv(x.astype(np.float32), w.astype(np.float32), win=win).astype(np.float16))


@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER"])
def test_symbolic_same_pads_are_exact(mode: str) -> None:
    n = Dim.symbol("n")
    for k, s, d in itertools.product((1, 2, 3, 5), (1, 2, 3), (1, 2)):
        free = same_pads(mode, (n,), (k,), (s,), (d,))
        out = Window((s,), free, (d,)).out((n,), (k,))
        for size in range(1, 14):
            assert bind(free, {"n": size}) == same_pads(mode, (size,), (k,), (s,), (d,)), (k, s, d, size)
            assert bind(out, {"n": size}) == (-(-size // s),)


def test_symbolic_ceil_mode_is_exact() -> None:
    n = Dim.symbol("n")
    for k, s, d, lo, hi in itertools.product((1, 2, 3), (1, 2, 3), (1, 2), (0, 1), (0, 1)):
        win = Window((s,), ((lo, hi),), (d,))
        free = win.ceiled((n,), (k,))
        for size in range(max(1, d * (k - 1) + 1 - lo - hi), 14):
            fixed = win.ceiled((size,), (k,))
            assert bind(free, {"n": size}) == fixed, (k, s, d, lo, hi, size)
            (count,) = fixed.out((size,), (k,))
            starts = [i for i in range(50) if i * s < size + lo and i * s < size + lo + hi - d * (k - 1) - 1 + s]
            assert count == len(starts)


def test_a_bare_same_pad_keeps_its_shape_readable() -> None:
    n = Dim.symbol("n")
    assert Window((1,), same_pads("SAME_UPPER", (n,), (3,), (1,), (1,)), (1,)).out((n,), (3,)) == (n,)


@pytest.mark.parametrize(
    ("x", "w", "win", "message"),
    [
        ((1, 3, 5, 5), (2, 4, 3, 3), Window((1, 1), ((0, 0), (0, 0)), (1, 1)), "3 channels, w wants 4"),
        ((1, 3, 2, 5), (2, 3, 3, 3), Window((1, 1), ((0, 0), (0, 0)), (1, 1)), "larger than spatial axis 0"),
        ((1, 4, 5, 5), (3, 2, 3, 3), Window((1, 1), ((0, 0), (0, 0)), (1, 1), 2), "3 filters do not split"),
        ((1, 3, 5), (2, 3, 3, 3), Window((1, 1), ((0, 0), (0, 0)), (1, 1)), "shape"),
    ],
)
def test_errors_say_what_was_wanted(x: Any, w: Any, win: Window, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        conv.infer_types(type_of(rand(*x)), type_of(rand(*w)), win=win)
