"""Make one product of several that multiply the same operand by weights: x (A B C) instead of x A, x B, x C.

Cases: matrices of weights side by side for one operand, all with biases or without, or some with. Queries, keys and
values of attention are such products; their parts are slices of the one result, and one large product keeps a device
busier than three.
Refused: operands that are weights themselves, results of more than `COLUMNS` columns, products whose bias something
else than a sum reads, biases that are no vectors.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...ops import layout
from ...ops.matmul import matmul
from ...ops.pointwise import add
from ...ops.types import DType, TensorType
from ..graph.graph import Graph, Node, Value
from .matching import is_weight, reader_counts, weight_values
from .rewriting import PassResult, rebuild

COLUMNS = 1 << 15
"""A merged product has at most so many columns."""


@dataclass(frozen=True)
class _Product:
    """x w, or x w + bias.

    Attributes:
        node: the product.
        last: the sum with the bias, the product without one.
        bias: None without one.
    """

    node: Node
    last: Node
    w: Value
    bias: Value | None

    @property
    def columns(self) -> int:
        return int(self.w.shape[1])


def merge_products(graph: Graph) -> PassResult:
    """Merge products of one operand and weights."""
    weights, counts = weight_values(graph), reader_counts(graph)
    adders = {id(v): n for n in graph.nodes if n.op is add for v in n.inputs()}
    groups: dict[tuple[int, int, DType], list[_Product]] = {}
    for node in graph.nodes:
        if (found := _product(node, weights, counts, adders)) is not None:
            key = id(node.args[0]), int(found.w.shape[0]), found.w.dtype
            groups.setdefault(key, []).append(found)
    chosen = [g for g in groups.values() if len(g) > 1 and sum(p.columns for p in g) <= COLUMNS]
    if not chosen:
        return PassResult(graph, 0)
    members = {id(p.node): (group, i) for group in chosen for i, p in enumerate(group)}
    sums = {id(p.last): (group, i) for group in chosen for i, p in enumerate(group)}
    parts: dict[int, tuple[Any, ...]] = {}
    mapping: dict[Value, Value] = {}

    def rewrite(node: Node, args: tuple[Any, ...], new: Graph) -> tuple[Any, ...] | None:
        found = members.get(id(node)) or sums.get(id(node))
        if found is None:
            return None
        group, i = found
        if id(group) not in parts:
            parts[id(group)] = _merged(new, args[0], group, mapping)
        return (parts[id(group)][i],)

    ahead = copy.copy(graph)  # weights first: a merged product stands where the first of its products stood
    aside = [n for n in graph.nodes if n.outputs and all(v in weights for v in n.outputs)]
    kept = {id(n) for n in aside}
    ahead.nodes = [*aside, *(n for n in graph.nodes if id(n) not in kept)]
    return PassResult(rebuild(ahead, rewrite, mapping=mapping), len(chosen))


def _product(node: Node, weights: set[Value], counts: Any, adders: dict[int, Node]) -> _Product | None:
    if node.op is not matmul:
        return None
    x, w = node.args
    if not isinstance(x, Value) or is_weight(x, weights) or not isinstance(w, Value) or not is_weight(w, weights):
        return None
    shape = _shape(w)
    if shape is None or len(shape) != 2 or _shape(x) is None or x.ndim < 2:
        return None
    y = node.outputs[0]
    adder = adders.get(id(y)) if counts[y] == 1 else None
    if adder is None:
        return _Product(node, node, w, None)
    bias = next((a for a in adder.args if a is not y), None)
    if isinstance(bias, Value) and is_weight(bias, weights) and _shape(bias) == shape[1:] and bias.dtype == w.dtype:
        return _Product(node, adder, w, bias)
    return _Product(node, node, w, None)


def _shape(v: Value) -> Any:
    """Return the shape of a tensor whose sizes are numbers, of an activation its shape as it is; else None."""
    return v.type.known_shape if isinstance(v.type, TensorType) else None


def _merged(new: Graph, x: Value, group: list[_Product], mapping: dict[Value, Value]) -> tuple[Any, ...]:
    """Return the parts of one product in the place of several."""

    def placed(v: Value) -> Value:
        return v if v.is_constant else mapping[v]

    y = matmul(x, layout.concat(*(placed(p.w) for p in group), axis=1))
    if any(p.bias is not None for p in group):
        none = [new.constant(np.zeros(p.columns, p.w.dtype)) if p.bias is None else placed(p.bias) for p in group]
        y = add(y, layout.concat(*none, axis=0))
    found: tuple[Any, ...] = layout.split(y, axis=y.ndim - 1, sizes=tuple(p.columns for p in group))
    return found
