"""Resize and Upsample against onnxruntime: each version, mode and way of giving the size."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnxgrad.ops.errors import ShapeError

from .free_node import agree, normal
from .one_node import run_node

X = normal(1, 2, 5, 6)
NONE = np.zeros(0, np.float32)
SCALES = [[1, 1, 2, 2], [1, 1, 1.5, 1.7], [1, 1, 0.6, 0.5], [1, 1, 0.8, 3]]
SIZES = [[1, 2, 10, 12], [1, 2, 7, 9], [1, 2, 3, 4], [1, 2, 1, 6]]
COORDINATES = ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "half_pixel_symmetric"]
scaled = pytest.mark.parametrize("scales", SCALES, ids=str)
coordinates = pytest.mark.parametrize("coordinates", COORDINATES)


def newest(coordinates: str) -> int:
    """Return the newest version that onnxruntime computes as the standard does: it rounds the size before it aligns."""
    return 18 if coordinates == "align_corners" else 19


def f32(values: list[Any]) -> np.ndarray:
    return np.array(values, np.float32)


@scaled
@coordinates
@pytest.mark.parametrize("mode", ["linear", "cubic"])
def test_scales(scales: list[float], coordinates: str, mode: str) -> None:
    how = {"opset": newest(coordinates), "mode": mode, "coordinate_transformation_mode": coordinates}
    agree("Resize", [X, None, f32(scales)], constants=(2,), **how)
    agree("Resize", [X, None, f32(scales)], **how)


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@coordinates
@pytest.mark.parametrize("mode", ["linear", "cubic"])
def test_sizes(sizes: list[int], coordinates: str, mode: str) -> None:
    how = {"opset": 19, "mode": mode, "coordinate_transformation_mode": coordinates}
    agree("Resize", [X, None, None, np.array(sizes)], constants=(3,), **how)
    agree("Resize", [X, None, None, np.array(sizes)], **how)


@scaled
@coordinates
@pytest.mark.parametrize("nearest", ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])
def test_nearest(scales: list[float], coordinates: str, nearest: str) -> None:
    if (coordinates, nearest, scales[2]) == ("half_pixel_symmetric", "floor", 0.6):
        pytest.skip("a coordinate is exactly 2: the order of float32 operations decides")
    how = {"mode": "nearest", "coordinate_transformation_mode": coordinates, "nearest_mode": nearest}
    agree("Resize", [X, None, f32(scales)], opset=newest(coordinates), constants=(2,), **how)


@scaled
@pytest.mark.parametrize("nearest", ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])
def test_tf_half_pixel(scales: list[float], nearest: str) -> None:
    how = {"coordinate_transformation_mode": "tf_half_pixel_for_nn", "nearest_mode": nearest}
    agree("Resize", [X, NONE, f32(scales)], opset=11, constants=(1, 2), **how)


@pytest.mark.parametrize("opset", [11, 13, 18, 19])
@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("roi", [[0, 0, 0.2, 0.3, 1, 1, 0.7, 0.9], [0, 0, -0.2, 0.3, 1, 1, 0.7, 1.4]], ids=str)
def test_crop_and_resize(opset: int, mode: str, roi: list[float]) -> None:
    agree(
        "Resize",
        [X, f32(roi), NONE if opset == 11 else None, np.array([1, 2, 4, 5])],
        opset=opset,
        mode=mode,
        constants=(1, 2, 3) if opset == 11 else (1, 3),
        coordinate_transformation_mode="tf_crop_and_resize",
        extrapolation_value=10.0,
    )
    agree(
        "Resize",
        [X, f32(roi), f32([1, 1, 0.8, 1.5])],
        opset=opset,
        mode=mode,
        coordinate_transformation_mode="tf_crop_and_resize",
    )


@scaled
@pytest.mark.parametrize("mode", ["linear", "cubic"])
@pytest.mark.parametrize("exclude", [0, 1])
def test_antialias(scales: list[float], mode: str, exclude: int) -> None:
    how = {"opset": 18, "mode": mode, "antialias": 1, "exclude_outside": exclude}
    agree("Resize", [normal(1, 2, 9, 10), None, f32(scales)], constants=(2,), **how)


@scaled
def test_cubic_exclude_outside(scales: list[float]) -> None:
    how = {"mode": "cubic", "exclude_outside": 1, "cubic_coeff_a": -0.5}
    agree("Resize", [X, NONE, f32(scales)], opset=11, constants=(1, 2), **how)


@pytest.mark.parametrize("policy", ["stretch", "not_larger", "not_smaller"])
@pytest.mark.parametrize("sizes", [[7, 8], [3, 4]])
def test_axes_and_policy(policy: str, sizes: list[int]) -> None:
    how = {"axes": [2, 3], "keep_aspect_ratio_policy": policy, "mode": "linear"}
    agree("Resize", [X, None, None, np.array(sizes)], opset=18, constants=(3,), **how)
    agree("Resize", [X, None, None, np.array(sizes)], opset=18, **how)


def test_axes_out_of_order() -> None:
    agree("Resize", [X, None, f32([2, 3])], opset=18, constants=(2,), axes=[3, 2], mode="linear")


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@scaled
def test_before_coordinates_had_modes(mode: str, scales: list[float]) -> None:
    agree("Resize", [X, f32(scales)], opset=10, mode=mode, constants=(1,))
    if min(scales) >= 1:
        agree("Upsample", [X], opset=7, mode=mode, scales=[float(s) for s in scales])
        agree("Upsample", [X, f32(scales)], opset=9, mode=mode, constants=(1,))
        agree("Upsample", [X, f32(scales)], opset=9, mode=mode)


def test_first_upsample() -> None:
    (y,) = run_node("Upsample", [X], opset=1, mode="nearest", height_scale=2.0, width_scale=3.0)
    np.testing.assert_array_equal(y, X.repeat(2, 2).repeat(3, 3))


def test_a_result_larger_than_the_budget_is_refused_before_it_is_allocated():
    huge = np.array([1, 1, 1e5, 1e5], np.float32)
    with pytest.raises(ShapeError, match=r"Resize-13 'node'.*more than the 16 GiB"):
        run_node("Resize", [np.ones((1, 1, 100, 100), np.float32), None, huge], opset=13, mode="nearest")
