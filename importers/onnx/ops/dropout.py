"""Bindings: dropout."""

from __future__ import annotations

from typing import Any

import numpy as np

from ....ops import dropout as dropout_ops, pointwise as pw
from ..node import NodeView
from ..registry import binds
from .control import known_truth
from .random import key_of


@binds("Dropout", 1, 6, 7, 10)
def dropout_7(node: NodeView, x: Any) -> Any:
    """Dropout in evaluation; training puts the mask in its place.

    The second output is the mask of evaluation, all true.
    """
    node.ignore("is_test", "consumed_inputs")
    y = dropout_ops.dropout(x, ratio=float(node.attr("ratio", 0.5)))
    if len(node.outputs) < 2:
        return y
    mask = dropout_ops.all_kept(x)
    return y, mask if node.since_version >= 10 else pw.cast(mask, dtype=str(x.dtype))


@binds("Dropout", 12, 13, 22)
def dropout(node: NodeView, x: Any, ratio: Any = None, training_mode: Any = None) -> Any:
    """Dropout as the file says: in evaluation unless `training_mode` is true; the second output is the mask."""
    node.ignore("seed")
    training = False if training_mode is None else known_truth(training_mode)
    known = 0.5 if ratio is None else float(np.asarray(ratio.array).reshape(-1)[0]) if ratio.is_constant else None
    if training is False and known is not None:
        y = dropout_ops.dropout(x, ratio=known)
        return y if len(node.outputs) < 2 else (y, dropout_ops.all_kept(x))
    key = key_of(node)
    if known is None or training is None:
        return dropout_ops.dropout_in_mode(x, key, ratio, training_mode)
    y = dropout_ops.dropout_train(x, key, ratio=known)
    return y if len(node.outputs) < 2 else (y, dropout_ops.dropout_mask(x, key, ratio=known))
