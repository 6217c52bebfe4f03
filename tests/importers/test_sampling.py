"""Grid sampling and deformable convolution against onnxruntime: every version and mode."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from .one_node import ort_node, run_node


def f32(*shape, seed=0, spread=1.0):
    return (np.random.default_rng([seed, *shape]).uniform(-1, 1, shape) * spread).astype(np.float32)


def agree(op, inputs, *, opset, theirs=None, tol=1e-5, **how):
    """Compare with onnxruntime, with an older version of the operator where it has no kernel for this one."""
    wanted = ort_node(op, inputs, opset=theirs or opset, **how)
    for f, w in zip(run_node(op, inputs, opset=opset, **how), wanted, strict=True):
        assert f.shape == w.shape and f.dtype == w.dtype
        np.testing.assert_allclose(f, w, rtol=1e-4, atol=tol)


PADDINGS = ("zeros", "border", "reflection")
MODES = {16: ("bilinear", "nearest", "bicubic"), 20: ("linear", "nearest", "cubic"), 22: ("linear", "nearest", "cubic")}


@pytest.mark.parametrize("opset", sorted(MODES))
@pytest.mark.parametrize(("which", "padding", "corners"), list(itertools.product(range(3), PADDINGS, (0, 1))))
def test_grid_sample(opset, which, padding, corners):
    how = {"mode": MODES[opset][which], "padding_mode": padding, "align_corners": corners}
    agree("GridSample", [f32(2, 3, 5, 6), f32(2, 4, 7, 2, spread=1.6)], opset=opset, **how)


@pytest.mark.parametrize(
    ("mode", "padding", "corners"), list(itertools.product(("linear", "nearest"), PADDINGS, (0, 1)))
)
def test_grid_sample_of_volumes(mode, padding, corners):
    how = {"mode": mode, "padding_mode": padding, "align_corners": corners}
    agree("GridSample", [f32(2, 2, 3, 5, 4), f32(2, 3, 4, 2, 3, spread=1.6)], opset=22, **how)


def test_grid_sample_of_microsoft():
    how = {"domain": "com.microsoft", "mode": "bicubic", "padding_mode": "border"}
    agree("GridSample", [f32(2, 3, 5, 6), f32(2, 4, 7, 2, spread=1.2)], opset=1, **how)


@pytest.mark.parametrize("corners", [0, 1])
@pytest.mark.parametrize("size", [(2, 3, 4, 5), (2, 3, 4, 5, 3), (1, 3, 4, 5), (1, 1, 4, 5, 3)])
def test_affine_grid(size, corners):
    d = len(size) - 2
    agree("AffineGrid", [f32(size[0], d, d + 1), np.array(size)], opset=20, align_corners=corners, constants=(1,))


@pytest.mark.parametrize("opset", [19, 22])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("group", "offset_group"), [(1, 1), (2, 2), (1, 4)])
def test_deform_conv(opset, masked, group, offset_group):
    args = [
        f32(2, 4, 6, 7), f32(6, 4 // group, 3, 2), f32(2, offset_group * 12, 3, 7, spread=2.0), f32(6),
        f32(2, offset_group * 6, 3, 7) if masked else None,
    ]  # fmt: skip
    how = {"pads": [1, 0, 1, 2], "strides": [2, 1], "dilations": [1, 2], "group": group, "offset_group": offset_group}
    agree("DeformConv", args, opset=opset, kernel_shape=[3, 2], **how)
