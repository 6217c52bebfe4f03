"""Ensembles of decision trees: declared non-differentiable, for they are constant almost everywhere.

Source: ONNX-ML TreeEnsembleRegressor-3, TreeEnsembleClassifier-3, TreeEnsemble-5.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .errors import ShapeError
from .op import op
from .types import Array, TensorType

MODES = ("BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ", "BRANCH_MEMBER")
"""How a node compares its feature with its threshold; the position is the number in `Forest.mode`."""


@dataclass(frozen=True, eq=False)
class Forest:
    """Trees as arrays over all their nodes; a leaf is its own child.

    Attributes:
        feature, threshold, mode: what each node compares.
        true, false: the node that follows.
        missing: whether NaN follows `true`.
        roots: the first node of each tree.
        row: for each node its row in `weights`.
        weights: what each leaf gives to each target; `votes` says where it gives anything.
        base: added to each target at the end.
        depth: the longest way from a root to a leaf.
        members: for each node the values of its set, NaN after the last; None without BRANCH_MEMBER.
        aggregate: SUM, AVERAGE, MIN or MAX over trees.
    """

    feature: Array
    threshold: Array
    mode: Array
    true: Array
    false: Array
    missing: Array
    roots: Array
    row: Array
    weights: Array
    votes: Array
    base: Array
    depth: int
    members: Array | None = None
    aggregate: str = "SUM"


@op()
def forest_scores(x: TensorType, *, forest: Forest, dtype: str) -> TensorType:
    """Return what the trees say of each row.

    Shapes: (N, F) -> (N, targets).

    Raises:
        ShapeError: if a node reads a feature that x has not.
    """
    n = x.shape[-1]
    used = int(forest.feature.max(initial=-1))
    if isinstance(n, int) and n <= used:
        raise ShapeError(f"forest_scores: x has {n} features, a node reads number {used}")
    return TensorType(np.dtype(dtype), (x.shape[0] if x.ndim == 2 else 1, forest.weights.shape[1]))
