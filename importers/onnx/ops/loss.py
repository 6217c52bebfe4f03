"""Bindings: losses."""

from __future__ import annotations

from typing import Any

from ....ops import loss as losses
from ....ops.normalize import log_softmax
from ..node import NodeView
from ..registry import binds


def _how(node: NodeView) -> dict[str, Any]:
    reduction = node.one_of("reduction", "mean", losses.REDUCTIONS)
    return {"reduction": reduction, "ignore_index": node.attr("ignore_index")}


@binds("NegativeLogLikelihoodLoss", 12, 13, 22)
def nll_loss(node: NodeView, x: Any, labels: Any, weights: Any = None) -> Any:
    return losses.nll_loss(x, labels, weights, **_how(node))


@binds("SoftmaxCrossEntropyLoss", 12, 13)
def softmax_cross_entropy(node: NodeView, x: Any, labels: Any, weights: Any = None) -> Any:
    """SoftmaxCrossEntropyLoss: the second output is the log-probabilities."""
    if len(node.outputs) == 1:
        return losses.softmax_cross_entropy(x, labels, weights, **_how(node))
    log_prob = log_softmax(x, axis=1)
    return losses.nll_loss(log_prob, labels, weights, **_how(node)), log_prob
