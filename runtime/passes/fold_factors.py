"""Let what reads gradients multiply them itself: updates of parameters, and the norm of many gradients.

Cases, where a gradient is x times one float32, or that cast to x's type:
    1. the norm of gradients that all are such products by the same number takes x and the number;
    2. an update whose gradient is such a product, of one or several numbers, takes x and the numbers;
    3. a norm of which only the check for infinity and NaN is read is another norm's of the same gradients, whose
       factors are there by then.
Refused: products that something else reads, which have to be made anyway.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from ...ops import pointwise as pw
from ...ops.optimize import adam_update, gradient_norm, sgd_update
from ..graph.graph import Graph, Node, Value
from .drop_dead import drop_dead
from .matching import made_by, mapped, reader_counts, shape_of
from .rewriting import PassResult, rebuild

_NUMBERS = {sgd_update: 3, adam_update: 5}
"""Which argument of an update its numbers are; a flag and a list of factors may follow."""


def fold_factors(graph: Graph) -> PassResult:
    """Fold factors of gradients into what reads them."""
    if not any(n.op in _NUMBERS or n.op is gradient_norm for n in graph.nodes):
        return PassResult(graph, 0)
    found = _Products(graph)
    mapping: dict[Value, Value] = {}
    place = mapped(mapping)
    changed = 0

    def rewrite(node: Node, args: tuple[Any, ...], new: Graph) -> tuple[Any, ...] | None:
        nonlocal changed
        norm = found.checked_by.get(node, node)
        if norm in found.norms:
            changed += 1
            for other, by in found.checked_by.items():
                if by is norm and other.outputs[1] in mapping:
                    return mapping[other.outputs[0]], mapping[other.outputs[1]]
            gradients, factor = found.norms[norm]
            factors = [place(f) for f in (*norm.args[1], factor)]
            return tuple(gradient_norm([place(g) for g in gradients], factors, **norm.attrs))
        if node.op in _NUMBERS:
            gradient, factors = found.unscaled(node.args[1])
            if factors:
                changed += 1
                at = _NUMBERS[node.op] + 1
                skip, own = (*args[at:], None, None)[:2]
                made = [*(own or ()), *(place(f) for f in factors)]
                return tuple(node.op(args[0], place(gradient), *args[2:at], skip, made, **node.attrs))
        return None

    new = rebuild(graph, rewrite, mapping=mapping)
    return PassResult(drop_dead(new).graph if changed else graph, changed)


class _Products:
    """The products among a graph's gradients that nothing has to make.

    Attributes:
        norms: for each norm that takes the factor of its gradients, those without it, and the factor.
        checked_by: for each norm whose check alone is read, the one that makes it.
    """

    def __init__(self, graph: Graph) -> None:
        self.counts: Counter[Value] = reader_counts(graph)
        self.readers: dict[Value, list[Node]] = {}
        for node in graph.nodes:
            for v in node.inputs():
                self.readers.setdefault(v, []).append(node)
        self.norms: dict[Node, tuple[list[Value], Value]] = {}
        for node in graph.nodes:
            parts = [_factored(g) for g in node.args[0]] if node.op is gradient_norm else []
            there = [p for p in parts if p is not None]
            if there and len(there) == len(parts) and len({factor for _, factor in there}) == 1:
                self.norms[node] = [x for x, _ in there], there[0][1]
        while refused := [n for n in self.norms if not all(map(self._vanishes, n.args[0]))]:
            for node in refused:
                del self.norms[node]
        order = {n: i for i, n in enumerate(graph.nodes)}
        self.checked_by: dict[Node, Node] = {}
        for node in graph.nodes:
            if node.op is not gradient_norm or node.args[1] or self.counts[node.outputs[0]]:
                continue
            for norm, (gradients, factor) in self.norms.items():
                needed = [f.node for f in (*norm.args[1], factor)]
                sooner = all(n is None or order[n] < order[node] for n in needed)
                if sooner and len(gradients) == len(node.args[0]) and all(map(_same, gradients, node.args[0])):
                    self.checked_by[node] = norm
                    break

    def _vanishes(self, v: Value) -> bool:
        """Whether everything that reads a product multiplies by its factor itself, or does so one product further."""
        readers = self.readers.get(v, [])
        if len(readers) != self.counts[v]:
            return False
        return all(
            r in self.norms or (r.op in _NUMBERS and _reads_once(r, v))
            or (r.op is pw.mul and _factored(r.outputs[0], of=v) is not None and self._vanishes(r.outputs[0]))
            for r in readers
        )  # fmt: skip

    def unscaled(self, g: Any) -> tuple[Any, list[Value]]:
        """Return what a gradient is a product of, and the factors, the last one first."""
        factors: list[Value] = []
        while isinstance(g, Value) and (part := _factored(g)) is not None and self._vanishes(g):
            g = part[0]
            factors.append(part[1])
        return g, factors


def _same(a: Value, b: Value) -> bool:
    return a is b


def _reads_once(update: Node, v: Value) -> bool:
    """Whether an update reads a value as its gradient and nothing else."""
    return update.args[1] is v and sum(x is v for x in update.inputs()) == 1


def _factored(v: Any, of: Value | None = None) -> tuple[Value, Value] | None:
    """Return x and the float32 where a value is x times one, x being a certain value if that is given."""
    node = made_by(v, pw.mul)
    if node is None:
        return None
    for x, by in (node.args, node.args[::-1]):
        if shape_of(x) != shape_of(v) or not isinstance(x, Value) or x.dtype != v.dtype or of not in (None, x):
            continue
        cast = made_by(by, pw.cast)
        factor = cast.args[0] if cast is not None else by
        if isinstance(factor, Value) and shape_of(factor) == () and factor.dtype == np.float32:
            return x, factor
    return None
