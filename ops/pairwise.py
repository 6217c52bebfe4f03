"""Class probabilities from those of every pair of classes.

Source: Wu, Lin and Weng 2004, "Probability Estimates for Multi-class Classification by Pairwise Coupling", their second
method as libsvm runs it; ONNX-ML SVMClassifier-1.
"""

from __future__ import annotations

import numpy as np

from .dims import show
from .errors import ShapeError
from .op import op
from .types import TensorType


def pairs(classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the first and the second class of each pair, in the order (0, 1), (0, 2) ... (1, 2) ..."""
    return np.triu_indices(classes, 1)


@op()
def pairwise_coupling(p: TensorType, *, classes: int) -> TensorType:
    """Return the class probabilities that agree best with the probability of the first class of each pair.

    It is found by iteration up to libsvm's tolerance, so that it is the same number, and so has no gradient.

    Shapes: (N, classes (classes - 1) / 2) -> (N, classes).

    Raises:
        ShapeError: if there are not so many pairs.
    """
    n = classes * (classes - 1) // 2
    if p.ndim != 2 or (isinstance(p.shape[1], int) and p.shape[1] != n):
        raise ShapeError(f"pairwise_coupling: wants shape (N, {n}), found {show(p.shape)}")
    return TensorType(p.dtype, (p.shape[0], classes))
