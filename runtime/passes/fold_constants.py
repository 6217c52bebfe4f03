"""Compute now what depends on constants alone.

Cases:
    1. every input of a node is a constant: its outputs become constants (nothing that a parameter enters is folded);
    2. an integer output whose contents inference knows as numbers becomes a constant, whatever computed it (the shape
       arithmetic of exporters);
    3. a small tensor of one number, of known sizes.
Refused: random ops and control flow, outputs larger than `LIMIT_BYTES` that would outgrow their inputs.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...ops.create import full_like
from ...ops.dims import Dim, symbols_in
from ...ops.errors import OnnxGradError
from ...ops.types import TensorType, nbytes
from ..graph.graph import Graph, Node, Value
from .rewriting import PassResult, rebuild

LIMIT_BYTES = 1 << 20

SMALL_BYTES = 1 << 14
"""Tensors of one number become constants up to this size."""


def fold_constants(graph: Graph) -> PassResult:
    """Replace nodes of known result by constants."""
    folded = 0

    def rewrite(node: Node, args: tuple[Any, ...], new: Graph) -> tuple[Any, ...] | None:
        nonlocal folded
        if node.op.structural or any(True for a in node.attrs.values() for _ in symbols_in(a)):
            return None
        if not node.several and (known := _known(node.outputs[0])) is not None:
            folded += 1
            return (new.constant(known, node.outputs[0].name),)
        if node.op is full_like and (nbytes(t := node.outputs[0].tensor_type) or LIMIT_BYTES) <= SMALL_BYTES:
            folded += 1
            filled = np.full([int(d) for d in t.shape], node.attrs["value"], t.dtype)
            return (new.constant(filled, node.outputs[0].name),)
        values = [v for a in args for v in (a if isinstance(a, list) else [a]) if isinstance(v, Value)]
        if not values or not all(v.is_constant for v in values) or _binds_symbols(node):
            return None
        limit = max(LIMIT_BYTES, 2 * sum(v.array.nbytes for v in values))
        if sum(nbytes(v.type) or 0 for v in node.outputs if isinstance(v.type, TensorType)) > limit:
            return None
        try:
            result = node.op.run(*(_array(a) for a in args), **node.attrs)
        except (OnnxGradError, ValueError, TypeError, IndexError, ArithmeticError, MemoryError):
            return None  # it says so, and where, when it runs
        results = result if node.several else (result,)
        if sum(getattr(r, "nbytes", LIMIT_BYTES + 1) for r in results) > limit:
            return None
        folded += 1
        return tuple(new.constant(np.asarray(r), v.name) for r, v in zip(results, node.outputs, strict=True))

    copied = rebuild(graph, rewrite)
    return PassResult(copied if folded else graph, folded)


def _binds_symbols(node: Node) -> bool:
    """Whether run time reads symbols off its outputs, which folding would leave unbound."""
    return any(
        isinstance(c, Dim) for v in node.outputs if isinstance(v.type, TensorType) for c in v.type.contents or ()
    )


def _array(a: Any) -> Any:
    if isinstance(a, list):
        return [_array(v) for v in a]
    return a.array if isinstance(a, Value) else a


def _known(v: Value) -> Any:
    t = v.type
    if not isinstance(t, TensorType) or t.contents is None or not all(isinstance(c, int) for c in t.contents):
        return None
    return np.array(t.contents, t.dtype).reshape([int(d) for d in t.shape])
