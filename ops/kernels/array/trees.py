"""Tree ensembles: all rows go down all trees together, one level at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...op import namespace
from ...trees import Forest, forest_scores
from ...types import Array

BLOCK = 1 << 22
"""How many (row, tree, target) values are held at once."""


@forest_scores.kernel("array")
def _forest_scores(x: Array, *, forest: Forest, dtype: str) -> Array:
    xp = namespace(x)
    x = x.reshape(-1, x.shape[-1])
    targets = forest.weights.shape[1]
    rows = max(1, BLOCK // max(1, len(forest.roots) * targets))
    parts = [_scores(xp, x[i : i + rows], forest) for i in range(0, len(x), rows)]
    return (xp.concatenate(parts) if parts else xp.empty((0, targets))).astype(dtype)


def _scores(xp: Any, x: Array, forest: Forest) -> Array:
    leaves = xp.asarray(forest.row)[_leaves(xp, x, forest)]  # (N, T)
    given = xp.asarray(forest.weights).astype(float)[leaves]  # (N, T, K)
    if forest.aggregate in ("MIN", "MAX"):
        votes = xp.asarray(forest.votes)[leaves]
        least = forest.aggregate == "MIN"
        far = xp.where(votes, given, xp.inf if least else -xp.inf)
        best = far.min(axis=1) if least else far.max(axis=1)
        total = xp.where(votes.any(axis=1), best, 0.0)
    else:
        total = given.sum(axis=1)
        if forest.aggregate == "AVERAGE":
            total = total / len(forest.roots)
    return total + xp.asarray(forest.base)


def _leaves(xp: Any, x: Array, forest: Forest) -> Array:
    """Return the leaf of each row in each tree, (N, T)."""
    feature, threshold, mode, true, false, missing = (
        xp.asarray(v)
        for v in (forest.feature, forest.threshold, forest.mode, forest.true, forest.false, forest.missing)
    )
    members = None if forest.members is None else xp.asarray(forest.members)
    comparisons = sorted({int(m) for m in forest.mode})
    node = xp.broadcast_to(xp.asarray(forest.roots), (len(x), len(forest.roots)))
    for _ in range(forest.depth):
        value = xp.take_along_axis(x, feature[node], axis=1)
        goes = _COMPARE[comparisons[0]](xp, value, threshold[node])
        for m in comparisons[1:]:
            goes = xp.where(mode[node] == m, _COMPARE[m](xp, value, threshold[node]), goes)
        if members is not None:
            goes = xp.where(mode[node] == MEMBER, (value[..., None] == members[node]).any(axis=-1), goes)
        if x.dtype.kind == "f":
            goes |= xp.isnan(value) & missing[node]
        node = xp.where(goes, true[node], false[node])
    return node


MEMBER = 6

_COMPARE: dict[int, Callable[[Any, Array, Array], Array]] = {
    0: lambda xp, v, t: v <= t,
    1: lambda xp, v, t: v < t,
    2: lambda xp, v, t: v >= t,
    3: lambda xp, v, t: v > t,
    4: lambda xp, v, t: v == t,
    5: lambda xp, v, t: v != t,
    MEMBER: lambda xp, v, t: xp.zeros(v.shape, bool),
}
