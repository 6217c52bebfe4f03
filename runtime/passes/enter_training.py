"""The training form of a graph: batch norm on batch statistics, dropout that drops.

Running statistics become `updates` of the graph, also where the file itself is one of training; each dropout reads a
key of its own. The running variance is the population's, as ONNX has it; PyTorch's is n / (n - 1) times that.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...ops import dropout, normalize
from ..graph.graph import Graph, Node, Value
from .rewriting import PassResult, rebuild


def enter_training(graph: Graph) -> PassResult:
    """Return the graph as it runs in training."""
    changed = 0
    updates: dict[str, Value] = {}

    def rewrite(node: Node, args: tuple[Any, ...], new: Graph) -> tuple[Any, ...] | None:
        nonlocal changed
        if node.op is normalize.batch_norm:
            mean, var = args[3], args[4]
            if not (_is_state(mean) and _is_state(var)):
                return None
            y, new_mean, new_var = normalize.batch_norm_train(*args, **{"momentum": 0.9, **node.attrs})
            updates[mean.name], updates[var.name] = new_mean, new_var
            changed += 1
            return (y,)
        if node.op is normalize.batch_norm_train and _is_state(args[3]) and _is_state(args[4]):
            made: tuple[Any, ...] = normalize.batch_norm_train(*args, **node.attrs)
            updates[args[3].name], updates[args[4].name] = made[1], made[2]
            changed += 1
            return made
        if node.op is dropout.dropout and node.attrs.get("ratio", 0.5) > 0:
            changed += 1
            return (dropout.dropout_train(args[0], new.random_key(), ratio=node.attrs["ratio"]),)
        if node.op is dropout.dropout_in_mode:
            changed += 1
            made = dropout.dropout_in_mode(*args[:3], np.asarray(True))
            return made
        return None

    new = rebuild(graph, rewrite, name=f"{graph.name}.train")
    new.updates = updates
    return PassResult(new if changed else graph, changed)


def _is_state(a: Any) -> bool:
    return isinstance(a, Value) and a.node is None and not a.is_constant and a.name in a.graph.state
