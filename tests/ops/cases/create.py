"""Tensors made of shapes, numbers and ranges: the rows of the op table."""

from __future__ import annotations

import numpy as np

from onnxgrad.ops.create import eye_like, fill, full_like, range_, shape_of, size_of

from ..case import OpCase, rand

CASES = [
    OpCase(shape_of, (rand(2, 3, 4),), lambda x: np.array([2, 3, 4]), order=0),
    OpCase(
        shape_of,
        (rand(2, 3, 4),),
        lambda x: np.array([3]),
        {"start": -2, "end": -1},
        order=0,
        name="shape_of-part",
    ),
    OpCase(size_of, (rand(2, 3, 4),), lambda x: np.array(24), order=0),
    OpCase(
        fill,
        (np.array([2, 3]),),
        lambda s: np.array([[1.5] * 3] * 2),
        {"value": 1.5, "dtype": "float64"},
        order=0,
    ),
    OpCase(fill, (np.array([3]),), lambda s: np.array([7, 7, 7]), {"value": 7, "dtype": "int64"}, order=0),
    OpCase(full_like, (rand(2),), lambda x: np.array([[3.0], [3.0]]), {"shape": (2, 1), "value": 3}, order=0),
    OpCase(range_, (np.array(2), np.array(11), np.array(3)), lambda a, b, c: np.array([2, 5, 8]), order=0),
    OpCase(
        range_,
        (np.array(3), np.array(-2), np.array(-2)),
        lambda a, b, c: np.array([3, 1, -1]),
        order=0,
        name="range-down",
    ),
    OpCase(
        range_,
        (np.array(3), np.array(1), np.array(1)),
        lambda a, b, c: np.array([], int),
        order=0,
        name="range-empty",
    ),
    OpCase(
        range_,
        (np.array(0.5), np.array(1.8), np.array(0.5)),
        lambda a, b, c: np.array([0.5, 1, 1.5]),
        name="range-float",
    ),
    OpCase(
        eye_like,
        (rand(2, 3),),
        lambda x: np.array([[0, 1, 0], [0, 0, 1]], np.int32),
        {"k": 1, "dtype": "int32"},
        order=0,
    ),
]
