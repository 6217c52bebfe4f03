"""Dropout: the rows of the op table."""

from __future__ import annotations

import numpy as np

from onnxgrad.ops.dropout import dropout, dropout_train

from ..case import OpCase, rand

KEY = np.array([7, 11], np.uint64)


def masked(x: np.ndarray, key: np.ndarray) -> np.ndarray:
    """Apply NumPy's own Philox mask."""
    keep = np.random.Generator(np.random.Philox(key=key)).random(x.shape, np.float32) >= 0.25
    return np.where(keep, x / 0.75, 0)


CASES = [
    OpCase(dropout, (rand(2, 3),), lambda x: x, {"ratio": 0.5}),
    OpCase(dropout_train, (rand(4, 5), KEY), masked, {"ratio": 0.25}),
]
