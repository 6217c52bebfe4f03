"""Boxes: many of them, and none."""

from __future__ import annotations

import numpy as np
import pytest

from onnxgrad.ops import regions
from onnxgrad.ops.errors import OpError, ShapeError
from onnxgrad.ops.regions import crop_and_resize, max_roi_places, max_roi_pool, non_max_suppression, roi_align
from onnxgrad.ops.types import type_of
from onnxgrad.runtime.autograd.gradcheck import check_grads

from .case import rand
from .cases.regions import pooled, suppressed

ATTRS = {"size": (2, 2), "scale": 0.5, "half_pixel": True}


@pytest.mark.parametrize("mode", ["avg", "max"])
def test_blocks_of_boxes(mode, monkeypatch):
    x = rand(2, 3, 9, 8)
    boxes = np.concatenate([rand(7, 2, low=0, high=5), rand(7, 2, seed=1, low=6, high=17)], axis=1)
    images = np.arange(7) % 2
    wanted = pooled(x, boxes, images, mode=mode, samples=0, **ATTRS)
    for block in (1, 200, 1 << 20):
        monkeypatch.setattr(regions, "BLOCK", block)
        y = roi_align(x, boxes, images, mode=mode, samples=0, **ATTRS)
        np.testing.assert_allclose(y, wanted, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("samples", [0, 2])
def test_no_boxes(mode, samples):
    x, images = rand(2, 3, 9, 8), np.zeros(0, np.int64)
    assert roi_align(x, np.zeros((0, 4)), images, mode=mode, samples=samples, **ATTRS).shape == (0, 3, 2, 2)
    crops = crop_and_resize(x, np.zeros((0, 4)), images, size=(2, 3), mode="bilinear", outside=0.0)
    assert crops.shape == (0, 3, 2, 3)
    assert max_roi_pool(x, np.zeros((0, 5)), size=(2, 3), scale=1.0).shape == (0, 3, 2, 3)


def test_max_roi_pool_gradients():
    boxes = np.array([[0, 0, 0, 3, 4], [1, 2, 1, 9, 9]], np.float32)
    check_grads(lambda x: max_roi_pool(x, boxes, size=(2, 2), scale=1.0), [rand(2, 2, 4, 5)])


def test_suppression_over_several_rounds():
    rng = np.random.default_rng(0)
    low = rng.random((2, 400, 2))
    boxes = np.concatenate([low, low + rng.random((2, 400, 2)) / 4], axis=2)
    scores = rng.random((2, 2, 400)).round(2)
    for most, overlap in ((400, 0.1), (50, 0.9), (7, 0.0)):
        args = boxes, scores, np.array([most]), np.array([overlap])
        np.testing.assert_array_equal(non_max_suppression(*args), suppressed(*args))


@pytest.mark.parametrize("image", [-1, 2, np.iinfo(np.int64).min])
def test_an_image_outside_the_batch_is_refused(image):
    x, boxes, images = rand(2, 3, 4, 5), np.array([[0.0, 0.0, 2.0, 2.0]]), np.array([image])
    for mode in ("avg", "max"):
        with pytest.raises(OpError, match="outside"):
            roi_align(x, boxes, images, mode=mode, samples=2, **ATTRS)
    with pytest.raises(OpError, match="outside"):
        crop_and_resize(x, boxes, images, size=(2, 3), mode="bilinear", outside=0.0)
    with pytest.raises(OpError, match="outside"):
        max_roi_pool(x, np.array([[image, 0.0, 0.0, 2.0, 2.0]]), size=(2, 2), scale=1.0)


def test_what_does_not_fit_is_refused():
    x, boxes = type_of(rand(2, 3, 4, 5)), type_of(rand(2, 4))
    with pytest.raises(ShapeError, match="wanted 5"):
        max_roi_places.infer_types(x, boxes, size=(2, 2), scale=1.0)
    with pytest.raises(ShapeError, match="one bin"):
        crop_and_resize.infer_types(x, boxes, type_of(np.zeros(2, int)), size=(0, 2), mode="nearest", outside=0.0)
    with pytest.raises(ShapeError, match="do not fit"):
        non_max_suppression.infer_types(type_of(rand(1, 5, 4)), type_of(rand(1, 2, 6)))
