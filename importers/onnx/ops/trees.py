"""Bindings: tree ensembles. The flat attribute lists of the standard become one `Forest` here."""

from __future__ import annotations

from typing import Any

import numpy as np

from ....ops import layout, pointwise as pw, rank, trees as tree_ops
from ....ops.errors import InvalidGraphError, UnsupportedAttributeError
from ....ops.trees import MODES, Forest
from ....ops.types import Array
from ..node import NodeView
from ..registry import binds
from .ml import ML, TRANSFORMS, labelled, labels_of, transform_of, transformed, two_columns


def _numbers(node: NodeView, name: str) -> Array:
    """Return a list of floats, or the tensor that may stand instead of it."""
    tensor = node.attr(f"{name}_as_tensor") if node.since_version >= 3 else None
    found = node.attr(name)
    if tensor is not None and np.size(tensor):
        return np.asarray(tensor).reshape(-1)
    return np.asarray(found or [], np.float32)


def _integers(node: NodeView, name: str) -> Array:
    return np.asarray(node.attr(name) or [], np.int64)


def _forest(node: NodeView, votes: str, targets: int, aggregate: str = "SUM") -> Forest:
    """Return the ensemble of a node whose leaves vote by the attributes `<votes>_ids`, `_weights`, ..."""
    node.ignore("nodes_hitrates", "nodes_hitrates_as_tensor")
    tree, number = _integers(node, "nodes_treeids"), _integers(node, "nodes_nodeids")
    names = node.attr("nodes_modes")
    unknown = {m for m in names if m not in (*MODES[:6], "LEAF")}
    if unknown:
        raise UnsupportedAttributeError(f"{node}: nodes_modes {sorted(unknown)}, wanted LEAF or one of {MODES[:6]}")
    n = len(tree)
    at = {key: i for i, key in enumerate(zip(tree.tolist(), number.tolist(), strict=True))}
    leaf = np.array([m == "LEAF" for m in names], bool)
    branch = {k: np.arange(n) for k in ("true", "false")}
    try:
        for k, child in branch.items():
            ids = _integers(node, f"nodes_{k}nodeids").tolist()
            child[:] = [i if leaf[i] else at[t, c] for i, (t, c) in enumerate(zip(tree.tolist(), ids, strict=True))]
        owners = [
            at[key]
            for key in zip(
                _integers(node, f"{votes}_treeids").tolist(),
                _integers(node, f"{votes}_nodeids").tolist(),
                strict=True,
            )
        ]
    except (KeyError, ValueError) as error:
        raise InvalidGraphError(f"{node}: its trees name a node that they do not have: {error}") from None
    weights, ids = _numbers(node, f"{votes}_weights"), _integers(node, f"{votes}_ids")
    rows = np.cumsum(leaf)
    table = np.zeros((int(leaf.sum()) + 1, targets), np.float64)
    given = np.zeros(table.shape, bool)
    np.add.at(table, (np.where(leaf, rows, 0)[owners], ids), weights)
    given[np.where(leaf, rows, 0)[owners], ids] = True
    base = np.zeros(targets)
    found = _numbers(node, "base_values")
    base[: len(found)] = found
    missing = node.attr("nodes_missing_value_tracks_true") or [0] * n
    values = _numbers(node, "nodes_values")
    roots = _roots(branch["true"], branch["false"], tree)
    return Forest(
        feature=np.where(leaf, 0, _integers(node, "nodes_featureids")),
        threshold=values,
        mode=np.array([0 if m == "LEAF" else MODES.index(m) for m in names], np.int8),
        true=branch["true"],
        false=branch["false"],
        missing=np.asarray(missing, bool),
        roots=roots,
        row=np.where(leaf, rows, 0),
        weights=table,
        votes=given,
        base=base,
        depth=_depth(node, branch["true"], branch["false"], roots),
        aggregate=aggregate,
    )


def _roots(true: Array, false: Array, tree: Array) -> Array:
    """Return for each tree the node that is no other's child, else its first one."""
    itself = np.arange(len(tree))
    child = np.zeros(len(tree), bool)
    for v in (true, false):
        child[v[v != itself]] = True
    roots: dict[int, int] = {}
    for i, t in enumerate(tree.tolist()):
        if not child[i]:
            roots.setdefault(t, i)
    return np.array(list(roots.values()), np.int64)


def _depth(node: NodeView, true: Array, false: Array, roots: Array) -> int:
    """Return the length of the longest way down.

    Raises:
        InvalidGraphError: if a way comes back to where it was.
    """
    level, depth = np.unique(roots), 0
    while True:
        inner = level[true[level] != level]
        if not len(inner):
            return depth
        depth += 1
        if depth > len(true):
            raise InvalidGraphError(f"{node}: a tree has a cycle")
        level = np.unique(np.concatenate([true[inner], false[inner]]))


@binds("TreeEnsembleRegressor", 1, 3, domain=ML)
def tree_ensemble_regressor(node: NodeView, x: Any) -> Any:
    aggregate = node.one_of("aggregate_function", "SUM", ("SUM", "AVERAGE", "MIN", "MAX"))
    forest = _forest(node, "target", int(node.attr("n_targets", 1)), aggregate)
    return transformed(tree_ops.forest_scores(x, forest=forest, dtype="float32"), transform_of(node))


@binds("TreeEnsembleClassifier", 1, 3, domain=ML)
def tree_ensemble_classifier(node: NodeView, x: Any) -> Any:
    """TreeEnsembleClassifier: if all leaves of a binary one vote for class 0, their sum scores class 1.

    The label is the class of the highest score; a single one is compared with 0, or with 1/2 if no weight is
    negative.
    """
    labels, how = labels_of(node, "classlabels_int64s"), transform_of(node)
    voted = set(_integers(node, "class_ids").tolist())
    threshold = 0.5 if (_numbers(node, "class_weights") >= 0).all() else 0.0
    bases = len(_numbers(node, "base_values"))
    classes = max(len(labels), 1)
    scores = tree_ops.forest_scores(x, forest=_forest(node, "class", classes), dtype="float32")
    if classes != 2 or len(voted) != 1 or bases > 1:
        return labelled(labels, rank.argmax(scores, axis=1)), transformed(scores, how)
    (column,) = voted
    score = layout.slice_(scores, starts=(column,), stops=(column + 1,), steps=(1,), axes=(1,))
    places = pw.cast(pw.greater(layout.reshape(score, shape=(-1,)), threshold), dtype="int64")
    if column == 0:
        return labelled(labels, places), two_columns(score, threshold > 0, how)
    return labelled(labels, places), transformed(scores, how)


@binds("TreeEnsemble", 5, domain=ML)
def tree_ensemble(node: NodeView, x: Any) -> Any:
    """TreeEnsemble: inner nodes and leaves apart, comparisons by number, sets of members."""
    node.ignore("nodes_hitrates")
    splits = np.asarray(node.attr("nodes_splits")).reshape(-1)
    leaf_weights = np.asarray(node.attr("leaf_weights")).reshape(-1)
    leaf_targets = _integers(node, "leaf_targetids")
    inner, leaves = len(splits), len(leaf_weights)
    children = {}
    for k in ("true", "false"):
        ids, is_leaf = _integers(node, f"nodes_{k}nodeids"), _integers(node, f"nodes_{k}leafs").astype(bool)
        if (ids < 0).any() or (ids >= np.where(is_leaf, leaves, inner)).any():
            raise InvalidGraphError(f"{node}: nodes_{k}nodeids name a node that is not there")
        children[k] = np.concatenate([ids + inner * is_leaf, np.arange(inner, inner + leaves)])
    pad = np.zeros(leaves, np.int64)
    mode = np.asarray(node.attr("nodes_modes")).reshape(-1).astype(np.int8)
    targets = int(node.attr("n_targets"))
    weights, votes = np.zeros((leaves + 1, targets)), np.zeros((leaves + 1, targets), bool)
    weights[np.arange(1, leaves + 1), leaf_targets] = leaf_weights
    votes[np.arange(1, leaves + 1), leaf_targets] = True
    roots = _integers(node, "tree_roots")
    missing = node.attr("nodes_missing_value_tracks_true") or [0] * inner
    forest = Forest(
        feature=np.concatenate([_integers(node, "nodes_featureids"), pad]),
        threshold=np.concatenate([splits, pad.astype(splits.dtype)]),
        mode=np.concatenate([mode, pad.astype(np.int8)]),
        true=children["true"],
        false=children["false"],
        missing=np.concatenate([np.asarray(missing, bool), pad.astype(bool)]),
        roots=roots,
        row=np.concatenate([np.zeros(inner, np.int64), np.arange(1, leaves + 1)]),
        weights=weights,
        votes=votes,
        base=np.zeros(targets),
        depth=_depth(node, children["true"], children["false"], roots),
        members=_members(node, mode, leaves),
        aggregate=("AVERAGE", "SUM", "MIN", "MAX")[int(node.attr("aggregate_function", 1))],
    )
    scores = tree_ops.forest_scores(x, forest=forest, dtype=str(x.dtype))
    return transformed(scores, TRANSFORMS[int(node.attr("post_transform", 0))])


def _members(node: NodeView, mode: Array, leaves: int) -> Array | None:
    """Return the sets of the BRANCH_MEMBER nodes as rows, padded with NaN."""
    found = node.attr("membership_values")
    if found is None:
        return None
    sets: list[list[float]] = [[]]
    for v in np.asarray(found).reshape(-1).tolist():
        if np.isnan(v):
            sets.append([])
        else:
            sets[-1].append(v)
    each = iter(sets)
    rows = [next(each, []) if m == MODES.index("BRANCH_MEMBER") else [] for m in mode.tolist()] + [[]] * leaves
    out = np.full((len(rows), max(map(len, rows), default=0)), np.nan, np.asarray(found).dtype)
    for i, members in enumerate(rows):
        out[i, : len(members)] = members
    return out
