"""Dropout: the rows of the op table."""

from __future__ import annotations

from typing import Any

import numpy as np

from onnxgrad.ops.dropout import dropout, dropout_in_mode, dropout_mask, dropout_train

from ..case import OpCase, rand

KEY = np.array([7, 11], np.uint64)


def kept(x: np.ndarray, key: np.ndarray) -> np.ndarray:
    """Draw NumPy's own Philox mask."""
    return np.random.Generator(np.random.Philox(key=key)).random(x.shape, np.float32) >= 0.25


def masked(x: np.ndarray, key: np.ndarray, *_: Any) -> np.ndarray:
    return np.where(kept(x, key), x / 0.75, 0)


CASES = [
    OpCase(dropout, (rand(2, 3),), lambda x: x, {"ratio": 0.5}),
    OpCase(dropout_train, (rand(4, 5), KEY), masked, {"ratio": 0.25}),
    OpCase(dropout_mask, (rand(4, 5), KEY), kept, {"ratio": 0.25}, order=0),
    OpCase(
        dropout_in_mode,
        (rand(4, 5), KEY, 0.25, np.array(True)),
        lambda *args: (masked(*args), kept(*args[:2])),
        name="dropout_in_mode-training",
    ),
    OpCase(
        dropout_in_mode,
        (rand(4, 5), KEY, None, None),
        lambda x, *_: (x, np.ones(x.shape, bool)),
        name="dropout_in_mode-evaluation",
    ),
]
