"""Tree ensembles: the rows of the op table, one row and one tree at a time."""

from __future__ import annotations

from typing import Any

import numpy as np

from onnxgrad.ops.trees import MODES, Forest, forest_scores

from ..case import OpCase, rand

COMPARE = {
    "BRANCH_LEQ": lambda v, t, m: v <= t,
    "BRANCH_LT": lambda v, t, m: v < t,
    "BRANCH_GTE": lambda v, t, m: v >= t,
    "BRANCH_GT": lambda v, t, m: v > t,
    "BRANCH_EQ": lambda v, t, m: v == t,
    "BRANCH_NEQ": lambda v, t, m: v != t,
    "BRANCH_MEMBER": lambda v, t, m: v in m,
}


def forest(aggregate: str, modes: tuple[str, ...], targets: int = 2, members: Any = None) -> Forest:
    """Return two trees: a root over two leaves, and a root over a leaf and a node with two leaves."""
    rng = np.random.default_rng(len(aggregate))
    names = [modes[0], "", "", modes[-1], "", modes[0], "", ""]
    weights = rng.standard_normal((6, targets))
    votes = np.ones((6, targets), bool)
    weights[2, 0], votes[2, 0] = 0, False
    weights[5, 1], votes[5, 1] = 0, False
    return Forest(
        feature=np.array([0, 0, 0, 1, 0, 2, 0, 0]),
        threshold=np.array([0.5, 0, 0, -0.3, 0, 1.0, 0, 0]),
        mode=np.array([MODES.index(n) if n else 0 for n in names]),
        true=np.array([1, 1, 2, 4, 4, 6, 6, 7]),
        false=np.array([2, 1, 2, 5, 4, 7, 6, 7]),
        missing=np.array([1, 0, 0, 0, 0, 1, 0, 0], bool),
        roots=np.array([0, 3]),
        row=np.array([0, 1, 2, 0, 3, 0, 4, 5]),
        weights=weights,
        votes=votes,
        base=np.arange(targets) / 4,
        depth=2,
        members=members,
        aggregate=aggregate,
    )


def walked(f: Forest) -> Any:
    def reference(x: np.ndarray) -> np.ndarray:
        out = np.zeros((len(x), f.weights.shape[1]))
        for n, features in enumerate(x):
            leaves = []
            for node in f.roots:
                while f.true[node] != node:
                    v = features[f.feature[node]]
                    members = () if f.members is None else f.members[node]
                    goes = COMPARE[MODES[f.mode[node]]](v, f.threshold[node], members)
                    goes = goes or (np.isnan(v) and f.missing[node])
                    node = f.true[node] if goes else f.false[node]
                leaves.append(f.row[node])
            for k in range(out.shape[1]):
                given = [f.weights[i, k] for i in leaves if f.votes[i, k]]
                every = {"SUM": sum, "AVERAGE": lambda v: sum(v) / len(f.roots), "MIN": min, "MAX": max}
                out[n, k] = (every[f.aggregate](given) if given else 0) + f.base[k]
        return out

    return reference


def row(aggregate: str, *modes: str, members: Any = None) -> OpCase:
    f = forest(aggregate, modes, members=members)
    x = np.round(rand(40, 3) * 2) / 2
    x[::7, 0] = np.nan
    x[1::7, 2] = np.nan
    return OpCase(
        forest_scores,
        (x,),
        walked(f),
        {"forest": f, "dtype": "float64"},
        order=0,
        name=f"forest_scores-{aggregate}-{'-'.join(modes)}",
    )


SETS = np.full((8, 3), np.nan)
SETS[0, :2], SETS[5, :] = (0.5, -1.0), (1.0, 2.0, 0.0)

CASES = [
    *(row(a, "BRANCH_LEQ") for a in ("SUM", "AVERAGE", "MIN", "MAX")),
    *(row("SUM", m) for m in MODES[1:6]),
    row("SUM", "BRANCH_LT", "BRANCH_GT"),
    row("SUM", "BRANCH_MEMBER", "BRANCH_LEQ", members=SETS),
]
