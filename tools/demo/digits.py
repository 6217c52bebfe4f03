"""The digits that ship with the package, as they are and in a shifted domain."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from ...ops.types import Array

DATA = Path(__file__).with_name("digits.npz")
MODEL = Path(__file__).with_name("digits.onnx")

TRAINING = 1297
"""The first digits train, the last 500 test. The order is that of the writers, so most writers are in one part only."""


class Digits(NamedTuple):
    """Images (N, 1, 8, 8) as float32 from 0 to 1, and their classes."""

    images: Array
    labels: Array


def load_digits() -> tuple[Digits, Digits]:
    """Return the digits for training and for testing."""
    with np.load(DATA) as arrays:
        images = (arrays["images"][:, None] / 16).astype(np.float32)
        labels = arrays["labels"].astype(np.int64)
    return Digits(images[:TRAINING], labels[:TRAINING]), Digits(images[TRAINING:], labels[TRAINING:])


def shifted(digits: Digits) -> Digits:
    """Return the digits in another domain, made and not found: dark on light, and turned by 90 degrees."""
    turned = np.rot90(1 - digits.images, axes=(2, 3))
    return Digits(np.ascontiguousarray(turned), digits.labels)
