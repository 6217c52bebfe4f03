"""Connectionist temporal classification: the rows of the op table, against the sum over all paths, one by one."""

from __future__ import annotations

import itertools
import math

import numpy as np

from onnxgrad.ops.ctc import ctc_loss, ctc_visits

from ..case import OpCase, rand

X = rand(4, 3, 3)
TARGETS = np.array([[1, 2], [2, 2], [1, 9]])
FRAMES, LABELS = np.array([4, 3, 4]), np.array([2, 2, 1])


def paths(x: np.ndarray, n: int, targets: np.ndarray, frames: np.ndarray, labels: np.ndarray, blank: int):
    """Yield every path that spells a target, and its probability."""
    wanted = targets[n, : labels[n]].tolist()
    for path in itertools.product(range(x.shape[2]), repeat=int(frames[n])):
        if [c for c, _ in itertools.groupby(path) if c != blank] == wanted:
            yield path, math.exp(math.fsum(x[t, n, c] for t, c in enumerate(path)))


def losses(x: np.ndarray, *rest: np.ndarray, blank: int) -> np.ndarray:
    totals = [math.fsum(p for _, p in paths(x, n, *rest, blank)) for n in range(x.shape[1])]
    return np.array([-math.log(p) if p else math.inf for p in totals])


def visits(x: np.ndarray, *rest: np.ndarray, blank: int) -> np.ndarray:
    out = np.zeros(x.shape)
    for n in range(x.shape[1]):
        found = list(paths(x, n, *rest, blank))
        for path, p in found:
            for t, c in enumerate(path):
                out[t, n, c] += p / math.fsum(q for _, q in found)
    return out


def rows(name: str, *args: np.ndarray, blank: int = 0) -> list[OpCase]:
    return [
        OpCase(
            ctc_loss, args, lambda *a: losses(*a, blank=blank), {"blank": blank}, order=1, symbolic=False,
            name=f"ctc_loss-{name}",
        ),
        OpCase(
            ctc_visits, args, lambda *a: visits(*a, blank=blank), {"blank": blank}, order=None, symbolic=False,
            name=f"ctc_visits-{name}",
        ),
    ]  # fmt: skip


CASES = [
    *rows("lengths", X, TARGETS, FRAMES, LABELS),
    *rows("last_blank", X, np.array([[0, 1], [0, 0], [1, 0]]), FRAMES, np.array([2, 2, 0]), blank=2),
    *rows("one_frame", X[:1], np.array([[1], [2], [0]]), np.array([1, 1, 1]), np.array([1, 1, 0])),
]
