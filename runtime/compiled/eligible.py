"""Which nodes may run in native code, and which are computed once a version of the weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...ops.attention import attention
from ...ops.dims import Dim, Shape, symbols_in
from ...ops.kernels.cpu.lowering import LOWERINGS
from ...ops.matmul import matmul
from ...ops.pointwise import Pointwise
from ...ops.types import TensorType
from ..graph.graph import Graph, Node, Value

ELEMENTS = tuple(
    np.dtype(t)
    for t in ("float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool")
)
"""The element types that kernels are written for."""


class Eligible:
    """What may run in native code.

    Args:
        symbols: the sizes that are known when a run begins.
        without: names of nodes that run their array kernels.
    """

    def __init__(self, symbols: set[str], without: frozenset[str]) -> None:
        """Keep what decides."""
        self.symbols, self.without = symbols, without
        self._known_native: dict[int, bool] = {}

    def bound(self, t: Any) -> bool:
        """Whether all sizes of a type are known when a run begins."""
        if not isinstance(t, TensorType):
            return not isinstance(t, list) or all(self.bound(x) for x in t)
        return t.known_shape is not None and all(s in self.symbols for s in symbols_in(tuple(t.known_shape)))

    def native(self, node: Node) -> bool:
        """Whether a node's sizes and attributes are known when a run begins, and its types have a memory layout."""
        found = self._known_native.get(id(node))
        if found is None:
            found = self._known_native[id(node)] = self._is_native(node)
        return found

    def _is_native(self, node: Node) -> bool:
        if (node.name or node.outputs[0].name) in self.without:
            return False
        types = [v.type for v in (*node.inputs(), *node.outputs)]
        if not all(isinstance(t, TensorType) and self.bound(t) and t.dtype in ELEMENTS for t in types):
            return False
        if not all(s in self.symbols for v in node.outputs for s in symbols_in(v.tensor_type.contents or ())):
            return False  # what run time reads off its elements has to be read by Python
        if not all(s in self.symbols for a in node.attrs.values() for s in symbols_in(a)):
            return False
        return broadcasts_clearly(node)

    def fuses(self, node: Node) -> bool:
        """Whether its kernel applies an epilogue."""
        rule = LOWERINGS.get(node.op.name)
        return rule is not None and rule.fuses and self.native(node)


def broadcasts_clearly(node: Node) -> bool:
    """Whether no symbol meets another size that it may be equal to or, being 1, be broadcast to."""
    inner = 2 if node.op is matmul else 0
    if not inner and not isinstance(node.op, Pointwise) and node.op is not attention:
        return True
    if node.op is attention:
        mask = node.args[3] if len(node.args) > 3 else None
        scores = (*node.outputs[0].shape[:3], node.args[1].shape[2])
        return mask is None or _clear(mask.shape, scores)
    out = node.outputs[0].shape[: node.outputs[0].ndim - inner]
    return all(_clear(v.shape[: max(v.ndim - inner, 0)], out) for v in node.inputs())


def _clear(own: Shape, wanted: Shape) -> bool:
    return all(d in (1, e) for d, e in zip(reversed(own), reversed(wanted), strict=False))


def split_weights(graph: Graph, nodes: Sequence[Node]) -> tuple[list[Node], list[Node]]:
    """Return the nodes that depend on weights and constants alone, and the others."""
    fixed = {id(v) for v in graph.state.values()}
    updated = {id(v) for v in graph.updates.values()}
    hoisted, rest = [], []
    for node in nodes:
        values = list(node.inputs())
        alone = bool(values) and all(v.is_constant or id(v) in fixed for v in values)
        types = [v.type for v in node.outputs]
        static = all(
            isinstance(t, TensorType)
            and t.known_shape is not None
            and not any(isinstance(d, Dim) for d in (*t.known_shape, *(t.contents or ())))
            for t in types
        )
        attrs = any(True for a in node.attrs.values() for _ in symbols_in(a))
        bodies = any(hasattr(a, "free_symbols") for a in node.attrs.values())
        if alone and static and not attrs and not bodies and not any(id(v) in updated for v in node.outputs):
            hoisted.append(node)
            fixed.update(id(v) for v in node.outputs)
        else:
            rest.append(node)
    return hoisted, rest


def argument_type(a: Any) -> Any:
    """Return the type of an argument: of a value, of the values of a list; anything else is itself."""
    if isinstance(a, Value):
        return a.type
    return [argument_type(v) for v in a] if isinstance(a, list) else a
