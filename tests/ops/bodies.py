"""Bodies of control flow, made by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from onnxgrad.ops.types import TensorType
from onnxgrad.runtime.graph.body import Body
from onnxgrad.runtime.graph.graph import Graph


def body(f: Callable[..., Any], *inputs: Sequence[Any]) -> Body:
    """Return the body that a function of graph values traces to; inputs are (element type, *shape)."""
    graph = Graph("body")
    with graph.building():
        values = [graph.input(f"x{i}", TensorType(np.dtype(d), tuple(s))) for i, (d, *s) in enumerate(inputs)]
        outs = f(*values)
        graph.outputs = [v if hasattr(v, "graph") else graph.constant(v) for v in outs]
    graph.verify()
    return Body(graph)
