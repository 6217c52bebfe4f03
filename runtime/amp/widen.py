"""What autocast traces, as the CPU engine wants it: float32 in the place of half precision, whose products may round.

The CPU has instructions for products of bfloat16 at most, and nothing for other half precision. So a graph that holds
half precision is computed in float32 between its entries and its outputs, which are converted. Where all its products
are of bfloat16 and the CPU multiplies that, operands of products are rounded to it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ...ops.kernels.cpu.target import available
from ...ops.types import BFLOAT16, HALF, Array, DType, TensorType
from ..compiled.choice import multiplies_bfloat16
from ..graph.graph import Graph
from ..passes.convert_values import widen_half

CONTRACTIONS = frozenset({
    "attention", "attention_grad", "conv", "conv_input_grad", "conv_weight_grad", "einsum", "gru", "gru_grad",
    "gru_train", "lstm", "lstm_grad", "lstm_train", "matmul", "rnn", "rnn_grad",
})  # fmt: skip
"""Ops that multiply."""


class Halves:
    """What of a graph is half precision, and how it is run.

    Attributes:
        graph: in float32 where the CPU engine is to run it, else as it was given.
        changed: whether it is in float32 instead of half precision.
        precision: what its products want: `bf16` or `float32`, as `compile_program` takes it.
        outputs: the element types of the outputs that are half precision by right.
    """

    def __init__(self, graph: Graph) -> None:
        """Look at a graph, which is not changed."""
        self.graph, self.precision = graph, "float32"
        self.outputs: dict[int, DType] = {}
        if available():
            self.graph = widen_half(graph).graph
        self.changed = self.graph is not graph
        if self.changed:
            types = enumerate(v.type for v in graph.outputs)
            self.outputs = {i: t.dtype for i, t in types if isinstance(t, TensorType) and t.dtype in HALF}
            if multiplies_bfloat16() and _multiplies(graph, (BFLOAT16,)):
                self.precision = "bf16"

    def run(
        self, run: Callable[[Sequence[Any], dict[int, Array]], Sequence[Any]], feeds: Sequence[Any],
        into: dict[int, Array],
    ) -> Sequence[Any]:  # fmt: skip
        """Return the outputs of a run of the graph in the types that they are of by right.

        Args:
            run: runs the graph in float32: takes feeds, and where to write some outputs.
            feeds: in the types of the graph that was given.
            into: where to write some outputs.
        """
        wide = [f.astype(np.float32) if getattr(f, "dtype", None) in HALF else f for f in feeds]
        results = list(run(wide, {i: a for i, a in into.items() if i not in self.outputs}))
        with np.errstate(over="ignore"):
            for i, dtype in self.outputs.items():
                results[i] = np.asarray(results[i]).astype(dtype)
                if i in into:
                    np.copyto(into[i], results[i])
        return results


def _multiplies(graph: Graph, dtypes: Sequence[object]) -> bool:
    """Whether all products of a graph and of its bodies are of certain element types."""
    for node in graph.nodes:
        if node.op.name in CONTRACTIONS and not all(
            isinstance(v.type, TensorType) and v.type.dtype in dtypes for v in list(node.inputs())[:2]
        ):
            return False
        if any(hasattr(a, "with_graph") and not _multiplies(a.graph, dtypes) for a in node.attrs.values()):
            return False
    return True
