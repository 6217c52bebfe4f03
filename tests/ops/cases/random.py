"""Random draws: the rows of the op table. The references are NumPy's own generators."""

from __future__ import annotations

from typing import Any

import numpy as np

from onnxgrad.ops.random import bernoulli, fold_key, key_sequence, multinomial, random_normal, random_uniform

from ..case import OpCase, rand

KEY = np.array([7, 11], np.uint64)
SHAPE = np.array([2, 3])
CHANCES = np.abs(rand(4, 5)) / 2
SCORES = rand(3, 4)


def numpy_draws() -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=KEY))


def row(op: Any, args: tuple[Any, ...], reference: Any, **attrs: Any) -> OpCase:
    return OpCase(op, args, reference, attrs, order=0, symbolic=False)


def classes(scores: np.ndarray, key: np.ndarray) -> np.ndarray:
    """Draw by walking up the cumulative probabilities."""
    out = np.zeros((len(scores), 6), np.int64)
    for n, at in enumerate(numpy_draws().random((len(scores), 6))):
        p = np.exp(scores[n]) / np.exp(scores[n]).sum()
        for k, u in enumerate(at):
            while out[n, k] < len(p) - 1 and p[: out[n, k] + 1].sum() <= u:
                out[n, k] += 1
    return out


CASES = [
    row(fold_key, (KEY,), lambda k: np.random.Philox(key=k, counter=3).random_raw(2), number=3),
    row(
        key_sequence,
        (KEY, [SCORES, CHANCES]),
        lambda k, xs: [np.random.Philox(key=k, counter=1 + i).random_raw(2) for i in range(2)],
    ),
    row(
        random_uniform, (KEY, SHAPE), lambda k, s: numpy_draws().random((2, 3)) * 3 - 1, low=-1.0, high=2.0,
        dtype="float64",
    ),
    row(
        random_normal, (KEY, SHAPE), lambda k, s: numpy_draws().standard_normal((2, 3)) * 2 + 1, mean=1.0, std=2.0,
        dtype="float64",
    ),
    row(bernoulli, (CHANCES, KEY), lambda p, k: (numpy_draws().random(p.shape) < p).astype(np.int32), dtype="int32"),
    row(multinomial, (SCORES, KEY), classes, count=6, dtype="int64"),
]  # fmt: skip
