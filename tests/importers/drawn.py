"""Checks of models that draw random numbers, whose stored draws nobody can reproduce.

Which check applies is decided by what the model computes, never by its name.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from .conformance import Case, nodes_of

DRAWS = frozenset(
    {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
)
REPEATS = 2000
"""How many independent examples a distribution is judged by."""


def is_random(case: Case) -> bool:
    """Whether some node draws: a random operator, or a Dropout that the feeds set to train with a ratio above 0."""
    return any(n.op_type in DRAWS for n in nodes_of(case.model.graph)) or any(
        _dropout(case, feeds) is not None for feeds, _ in case.data_sets
    )


def _dropout(case: Case, feeds: Any) -> tuple[onnx.NodeProto, float] | None:
    """Return the Dropout that trains, and its ratio."""
    known = dict(zip([i.name for i in case.inputs], feeds, strict=True))
    for node in nodes_of(case.model.graph):
        if node.op_type != "Dropout" or len(node.input) < 3 or not bool(known[node.input[2]]):
            continue
        ratio = float(known[node.input[1]]) if node.input[1] else 0.5
        if ratio > 0:
            return node, ratio
    return None


def check_draw(case: Case, prepare: Any) -> None:
    """Check type, shape and the law of what is drawn.

    Args:
        case: a case for which `is_random` holds.
        prepare: makes of a ModelProto a function from inputs to outputs.
    """
    for feeds, wanted in case.data_sets:
        found = prepare(case.model)(feeds)
        assert len(found) == len(wanted)
        for f, w in zip(found, wanted, strict=True):
            assert (f.dtype, f.shape) == (np.asarray(w).dtype, np.shape(w))
        many = [np.broadcast_to(feeds[0], (REPEATS, *np.shape(feeds[0]))), *feeds[1:]]
        outs = prepare(_repeated(case.model))(many)
        trains = _dropout(case, feeds)
        if trains is not None:
            _check_dropout(np.asarray(feeds[0]), trains[1], outs)
        else:
            _check_bernoulli(_chance(case.model, np.asarray(feeds[0], np.float64)), outs[0])


def _repeated(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with one axis more before its first input and its outputs, for independent examples."""
    new = onnx.ModelProto()
    new.CopyFrom(model)
    shapes = [new.graph.input[0].type.tensor_type.shape, *(o.type.tensor_type.shape for o in new.graph.output)]
    for shape in shapes:
        sizes = [d.dim_value for d in shape.dim]
        del shape.dim[:]
        for size in (REPEATS, *sizes):
            shape.dim.add().dim_value = size
    return new


def _chance(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    """Return the chance of a 1, of a Bernoulli draw or of a uniform draw that is compared with the input.

    The standard's own function body of Bernoulli compares the other way round: it gives 1 with chance 1 - x.
    """
    nodes = list(nodes_of(model.graph))
    if any(n.op_type == "Bernoulli" for n in nodes):
        return x
    uniform = {n.output[0] for n in nodes if n.op_type == "RandomUniformLike"}
    for n in nodes:
        if n.op_type in ("Less", "Greater") and uniform & set(n.input):
            below = (n.op_type == "Less") == (n.input[0] in uniform)
            return x if below else 1 - x
    raise AssertionError("the law of this model is not known here")


def _check_bernoulli(p: np.ndarray, drawn: np.ndarray) -> None:
    assert set(np.unique(drawn)) <= {0, 1}
    mean = drawn.astype(np.float64).mean(0)
    assert (np.abs(mean - p) <= 5 * np.sqrt(p * (1 - p) / REPEATS) + 1e-12).all()
    assert len({d.tobytes() for d in drawn}) > REPEATS // 100, "the examples are not drawn independently"


def _check_dropout(x: np.ndarray, ratio: float, outs: Any) -> None:
    y = outs[0]
    kept = y != 0
    np.testing.assert_allclose(y, np.where(kept, x / (1 - ratio), 0), rtol=1e-5)
    if len(outs) > 1:
        assert outs[1].dtype == bool
        np.testing.assert_array_equal(outs[1] & (x != 0), kept)
    spread = np.sqrt(ratio * (1 - ratio) / y.size)
    assert abs(kept.mean() - (1 - ratio)) <= 5 * spread
    each = 6 * np.sqrt(ratio * (1 - ratio) / REPEATS)
    assert (np.abs(kept.mean(0) - (1 - ratio)) <= each).all()
