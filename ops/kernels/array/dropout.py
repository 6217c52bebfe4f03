"""Dropout; the mask is drawn on the host, so that it is the same on every device."""

from __future__ import annotations

import numpy as np

from ...dropout import dropout, dropout_mask, dropout_train
from ...op import namespace
from ...types import Array
from .random import generator


@dropout.kernel("array", half="native")
def _dropout(x: Array, *, ratio: float) -> Array:
    return x


@dropout_train.kernel("array")
def _dropout_train(x: Array, key: Array, *, ratio: float) -> Array:
    return namespace(x).where(_dropout_mask(x, key, ratio=ratio), x * (1 / (1 - ratio)), x.dtype.type(0))


@dropout_mask.kernel("array", half="native")
def _dropout_mask(x: Array, key: Array, *, ratio: float) -> Array:
    return namespace(x).asarray(generator(key).random(x.shape, np.float32) >= np.float32(ratio))
