"""Pooling inside boxes, crops and the choice among boxes against onnxruntime."""

from __future__ import annotations

import numpy as np
import pytest

from .one_node import ort_node, run_node
from .test_sampling import agree, f32

BOXES = np.array([[0.6, 1.1, 5.3, 4.2], [-1.0, -2.0, 3.0, 9.0], [2.0, 2.0, 2.0, 2.0], [1, 0.2, 12, 6]], np.float32)
IMAGES = np.array([0, 1, 1, 0])


@pytest.mark.parametrize("opset", [10, 16, 22])
@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("samples", [0, 1, 3])
def test_roi_align(opset, mode, samples):
    how = {"mode": mode, "sampling_ratio": samples, "output_height": 2, "output_width": 3, "spatial_scale": 0.7}
    agree("RoiAlign", [f32(2, 3, 6, 8), BOXES, IMAGES], opset=opset, theirs=min(opset, 16), **how)


def test_roi_align_does_not_shift_where_told_so():
    how = {"coordinate_transformation_mode": "output_half_pixel", "output_height": 2, "output_width": 2}
    agree("RoiAlign", [f32(2, 3, 6, 8), BOXES, IMAGES], opset=16, **how)


@pytest.mark.parametrize("opset", [1, 22])
@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_max_roi_pool(opset, scale):
    boxes = np.concatenate([IMAGES[:, None].astype(np.float32), np.abs(BOXES)], axis=1)
    agree("MaxRoiPool", [f32(2, 3, 7, 9), boxes], opset=opset, theirs=1, pooled_shape=[2, 3], spatial_scale=scale)


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
@pytest.mark.parametrize("size", [(3, 4), (1, 1)])
def test_crop_and_resize(mode, size):
    boxes = np.array([[0.1, 0.2, 0.9, 0.7], [-0.3, 0.0, 0.5, 1.4], [0.8, 0.9, 0.2, 0.1]], np.float32)
    args = [f32(2, 3, 6, 8), boxes, np.array([0, 1, 1], np.int32), np.array(size, np.int32)]
    how = {"domain": "com.microsoft", "mode": mode, "extrapolation_value": 2.5}
    agree("CropAndResize", args, opset=1, constants=(3,), **how)


def choices(count, classes, seed):
    rng = np.random.default_rng(seed)
    corner, size = rng.random((2, count, 2)), rng.random((2, count, 2)) * 0.5
    scores = rng.random((2, classes, count)).round(2)  # with ties
    return np.concatenate([corner, corner + size], axis=2).astype(np.float32), scores.astype(np.float32)


@pytest.mark.parametrize("opset", [10, 11])
@pytest.mark.parametrize("center", [0, 1])
@pytest.mark.parametrize(("count", "most"), [(10, 3), (300, 1000), (300, 20)])
@pytest.mark.parametrize("least", [None, 0.4])
def test_non_max_suppression(opset, center, count, most, least):
    boxes, scores = choices(count, 3, count + most)
    args = [boxes, scores, np.array([most]), np.array([0.3], np.float32)]
    args += [] if least is None else [np.array([least], np.float32)]
    agree("NonMaxSuppression", args, opset=opset, center_point_box=center)


def test_non_max_suppression_of_nothing():
    boxes, scores = choices(5, 2, 0)
    for args in ([boxes, scores], [boxes, scores, np.array([0])], [boxes[:, :0], scores[:, :, :0], np.array([3])]):
        (y,) = run_node("NonMaxSuppression", args, opset=11)
        assert y.shape == (0, 3) and y.dtype == np.int64


def test_corners_may_come_in_any_order():
    boxes, scores = choices(40, 2, 1)
    turned = boxes[..., [2, 1, 0, 3]]
    more = [np.array([9]), np.array([0.5], np.float32)]
    (found,) = run_node("NonMaxSuppression", [turned, scores, *more], opset=11)
    np.testing.assert_array_equal(found, ort_node("NonMaxSuppression", [turned, scores, *more], opset=11)[0])
