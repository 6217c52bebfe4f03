"""Recognise softmax attention as exporters write it, and put the op `attention` in its place.

The core is matmul(softmax(matmul(q, k')), v), batched over one or two axes or none.

Cases:
    1. a scale: on q, on k, on both, or on the scores, as mul or div by a number; on the scores also one a head;
    2. masks, any number of them: added or subtracted (position biases too), or where(seen, scores, low) either way;
    3. keys that were transposed in any place, or laid out as (B, H, E, S) from the start;
    4. scores reshaped between (B * H, L, S) and (B, H, L, S) round the mask;
    5. between softmax and the values: dropout in evaluation, identities, where(isnan(p), 0, p);
    6. v p' in place of p v, channels before places.
Where a query sees no key, `attention` gives zeros: the exported nodes give NaN, or the mean of all values where the
mask is a finite number.
Refused: scores or weights that something else reads, a mask that could make the scores larger, batch or head sizes that
may differ, a softmax along another axis.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ...ops import layout, pointwise as pw
from ...ops.attention import attention
from ...ops.dims import DimLike, Shape, product, symbols_in
from ...ops.matmul import matmul, swapped
from ...ops.normalize import softmax
from ...ops.types import is_float
from ..graph.graph import Graph, Node, Value
from .extents import absorbed_sizes, bound_symbols, stays
from .matching import (
    changes_nothing,
    is_ranked,
    like,
    lined_up,
    made_by,
    mapped,
    number,
    perm_of,
    reader_counts,
    shape_of,
)
from .rewriting import PassResult, rebuild

HIDDEN = -1e4
"""A score of at most this counts as hidden: e to this power is 0 beside any score that is seen."""

DEPTH = 16
"""How many nodes lie at most between the scores and their softmax."""


@dataclass(frozen=True)
class _Mask:
    """What is added to the scores, times a factor, or where they are seen; `rank` is that of the scores there."""

    value: Value
    rank: int
    factor: float = 1.0
    seen: bool = False
    negated: bool = False


@dataclass(frozen=True)
class _Scores:
    """The way from the scores to their softmax, walked backwards.

    Attributes:
        product: the matmul of queries and keys.
        lead: the batch and head sizes, where a node on the way has four axes.
        scales: tensors of one number a head.
    """

    product: Node
    scale: float = 1.0
    masks: tuple[_Mask, ...] = ()
    lead: Shape | None = None
    scales: tuple[Value, ...] = field(default=())


def fuse_attention(graph: Graph) -> PassResult:
    """Replace exported attention by the op."""
    if not any(node.op is softmax for node in graph.nodes):
        return PassResult(graph, 0)
    fusing = _Fusing(graph)
    new = rebuild(graph, fusing.rewrite, mapping=fusing.mapping)
    return PassResult(new if fusing.changed else graph, fusing.changed)


class _Fusing:
    def __init__(self, graph: Graph) -> None:
        self.counts = reader_counts(graph)
        self.absorbed = absorbed_sizes(graph)
        self.bound = bound_symbols(graph)
        self.mapping: dict[Value, Value] = {}
        self.place = mapped(self.mapping)
        self.changed = 0

    def rewrite(self, node: Node, args: tuple[Any, ...], new: Graph) -> tuple[Any, ...] | None:
        if node.op is not matmul or not is_ranked(node):
            return None
        made = self._fused(node, node.args[0], node.args[1], turned=False)
        if made is None:
            made = self._turned(node)
        if made is None:
            return None
        self.changed += 1
        return (like(made, node.outputs[0]),)

    def _turned(self, node: Node) -> Value | None:
        weights = made_by(node.args[1], layout.transpose)
        rank = len(shape_of(node.args[1]) or ())
        if weights is None or rank < 2 or perm_of(weights) != (*range(rank - 2), rank - 1, rank - 2):
            return None
        if self.counts[weights.outputs[0]] != 1:
            return None
        return self._fused(node, weights.args[0], node.args[0], turned=True)

    def _fused(self, node: Node, weights: Any, v: Any, *, turned: bool) -> Value | None:
        inside = self._softmax(weights)
        if inside is None:
            return None
        found = self._scores(inside.args[0], 1.0, DEPTH)
        if found is None:
            return None
        four = [s[:2] for p in (inside.outputs[0], weights) if len(s := shape_of(p) or ()) == 4]
        lead = found.lead or (four[0] if four else None)
        found = replace(found, lead=lead)
        if not self.bound.issuperset(symbols_in(lead)) or not all(_fits(m, lead) for m in found.masks):
            return None
        heads = self._operands(found, v, turned)
        if heads is None:
            return None
        q, k, v, scale = heads
        mask = self._mask(found, q)
        y: Value = attention(q, k, v, *(() if mask is None else (mask,)), scale=scale)
        if turned:
            y = swapped(y)
        rank = len(node.outputs[0].shape)
        if rank == 4:
            return y
        if lead is not None:
            return layout.reshape(y, shape=(product(lead), *y.shape[2:]))  # type: ignore[no-any-return]
        return layout.squeeze(y, axes=(1,) if rank == 3 else (0, 1))  # type: ignore[no-any-return]

    # from the values back to the softmax

    def _softmax(self, p: Any) -> Node | None:
        readers = 1
        for _ in range(DEPTH):
            if not isinstance(p, Value) or p.node is None or self.counts[p] != readers:
                return None
            node, readers = p.node, 1
            if not is_ranked(node):
                return None
            if node.op is softmax:
                rank = len(p.shape)
                return node if rank in (2, 3, 4) and node.attrs["axis"] % rank == rank - 1 else None
            if changes_nothing(node):
                p = node.args[0]
            elif node.op is pw.where:
                guard = made_by(node.args[0], pw.isnan)
                p = node.args[2]
                if guard is None or guard.args[0] is not p or number(node.args[1]) != 0:
                    return None
                if self.counts[guard.outputs[0]] != 1:
                    return None
                readers = 2
            elif node.op is layout.reshape and _refactored(node):
                p = node.args[0]
            else:
                return None
        return None

    # from the softmax back to the product

    def _scores(self, s: Any, factor: float, depth: int) -> _Scores | None:
        """Return how scores were made; `factor` is what they are multiplied with later."""
        if depth == 0 or not isinstance(s, Value) or s.node is None or self.counts[s] != 1 or not is_float(s.dtype):
            return None
        node, shape = s.node, shape_of(s)
        if shape is None or not 2 <= len(shape) <= 4:
            return None
        if node.op is matmul:
            found: _Scores | None = _Scores(node, factor)
        else:
            found = next(self._steps(node, factor, depth - 1), None)
        if found is not None and found.lead is None and len(shape) == 4:
            found = replace(found, lead=tuple(shape[:2]))
        return found

    def _steps(self, node: Node, factor: float, depth: int) -> Iterator[_Scores]:
        """Yield the ways back through a node between the product and the softmax."""
        args = node.args
        if changes_nothing(node) or (node.op is layout.reshape and _refactored(node)):
            yield from _some(self._scores(args[0], factor, depth))
        elif node.op in (pw.mul, pw.div):
            yield from self._scaled(node, factor, depth)
        elif node.op in (pw.add, pw.sub):
            sides = ((args[0], args[1]),) if node.op is pw.sub else ((args[0], args[1]), (args[1], args[0]))
            for s, mask in sides:
                if (found := self._scores(s, factor, depth)) is None:
                    continue
                if (n := number(mask)) is not None and np.isfinite(n) and _same_shape(s, node.outputs[0]):
                    yield found  # a softmax does not see what is added to all
                elif isinstance(mask, Value) and mask.dtype == s.dtype and self._broadcasts(mask, s):
                    sign = -1.0 if node.op is pw.sub else 1.0
                    yield replace(found, masks=(*found.masks, _Mask(mask, len(s.shape), sign * factor)))
        elif node.op is pw.where:
            seen = args[0]
            if not isinstance(seen, Value) or seen.dtype != bool:
                return
            for s, low in ((args[1], args[2]), (args[2], args[1])):
                least = number(low)
                if least is None or not least * factor <= HIDDEN:
                    continue
                if (found := self._scores(s, factor, depth)) is not None and self._broadcasts(seen, s):
                    yield replace(
                        found, masks=(*found.masks, _Mask(seen, len(s.shape), seen=True, negated=s is args[2]))
                    )

    def _scaled(self, node: Node, factor: float, depth: int) -> Iterator[_Scores]:
        a, b = node.args
        for s, by in ((a, b),) if node.op is pw.div else ((a, b), (b, a)):
            if not isinstance(s, Value) or not _same_shape(s, node.outputs[0]):
                continue
            n = number(by)
            if n is not None and n > 0:
                yield from _some(self._scores(s, factor * n if node.op is pw.mul else factor / n, depth))
            elif node.op is pw.mul and isinstance(by, Value) and by.dtype == s.dtype and self._a_head(by, s):
                found = self._scores(s, factor, depth)
                if found is not None and not found.masks and _rank(found.product) == len(s.shape):
                    yield replace(found, scales=(*found.scales, by))

    def _a_head(self, scale: Value, s: Value) -> bool:
        """Whether a tensor has one number for all queries and keys of a head."""
        shape = lined_up(scale, len(s.shape))
        return shape is not None and shape[-2:] == (1, 1) and self._broadcasts(scale, s)

    def _broadcasts(self, mask: Value, s: Value) -> bool:
        """Whether a mask leaves the scores their size; along the keys the product with the values sees to that."""
        rank = len(s.shape)
        return all(stays(mask, s.shape[i], i, rank, self.absorbed) for i in range(rank - 1))

    # what attention is given

    def _operands(self, found: _Scores, v: Any, turned: bool) -> tuple[Value, Value, Value, float] | None:
        q, keys = found.product.args
        scale = found.scale
        if not isinstance(q, Value) or not isinstance(keys, Value) or not isinstance(v, Value):
            return None
        if len({q.dtype, keys.dtype, v.dtype}) > 1 or not is_float(q.dtype):
            return None
        q, scale = _unscaled(q, scale)
        keys, scale = _unscaled(keys, scale)
        if any(shape_of(x) is None for x in (q, keys, v)) or len(q.shape) != len(keys.shape):
            return None
        e, length = q.shape[-1], keys.shape[-1]
        if keys.shape[-2] != e or v.shape[-1 if turned else -2] != length:
            return None
        shapes = [tuple(x.shape[:-2]) for x in (q, keys, v)]
        if not _leads_fit(shapes, found.lead):
            return None
        q_new = self.place(q)
        for by in found.scales:
            q_new = pw.mul(q_new, self.place(by))
        k_new, v_new = self._untransposed(keys), swapped(self.place(v)) if turned else self.place(v)
        return (*(_four(x, found.lead) for x in (q_new, k_new, v_new)), scale)  # type: ignore[return-value]

    def _untransposed(self, keys: Value) -> Value:
        """Return keys that are laid out as (..., E, S) as (..., S, E)."""
        node = made_by(keys, layout.transpose)
        if node is None:
            return swapped(self.place(keys))  # type: ignore[no-any-return]
        *front, a, b = perm_of(node)
        perm = (*front, b, a)
        source = self.place(node.args[0])
        untouched = perm == tuple(range(len(perm)))
        return source if untouched else layout.transpose(source, perm=perm)  # type: ignore[no-any-return]

    def _mask(self, found: _Scores, q: Value) -> Value | None:
        seen = added = None
        for m in found.masks:
            value = m.value
            if not m.seen and value.is_constant and not np.any(value.array):
                continue
            new = self.place(value)
            if m.rank == len(value.shape) == 3:
                if found.lead is None:
                    new = layout.unsqueeze(new, axes=(1,))
                elif value.shape[0] != 1:
                    new = layout.reshape(new, shape=(*found.lead, *value.shape[1:]))
            if m.seen:
                new = pw.logical_not(new) if m.negated else new
                seen = new if seen is None else pw.logical_and(seen, new)
            else:
                new = new if m.factor == 1 else pw.mul(new, m.factor)
                added = new if added is None else pw.add(added, new)
        if seen is None or added is None:
            return added if seen is None else seen
        low = q.graph.constant(np.asarray(-np.inf, q.dtype))
        both: Value = pw.where(seen, added, low)
        return both


def _fits(m: _Mask, lead: Shape | None) -> bool:
    """Whether a mask can be laid out as attention wants it, (B, H, L, S)."""
    batches = m.value.shape[0] if m.rank == len(m.value.shape) == 3 else 1
    return lead is None or batches == 1 or batches == product(lead)


def _some(found: _Scores | None) -> Iterator[_Scores]:
    if found is not None:
        yield found


def _rank(node: Node) -> int:
    return len(node.outputs[0].shape)


def _same_shape(a: Any, b: Any) -> bool:
    return shape_of(a) is not None and shape_of(a) == shape_of(b)


def _refactored(node: Node) -> bool:
    """Whether a reshape changes leading axes alone, between (B * H, L, S) and (B, H, L, S)."""
    before, after = shape_of(node.args[0]), shape_of(node.outputs[0])
    if before is None or after is None or {len(before), len(after)} != {3, 4}:
        return False
    return before[-2:] == after[-2:] and product(before[:-2]) == product(after[:-2])


def _unscaled(x: Value, scale: float) -> tuple[Value, float]:
    """Return what a value is before it is multiplied by numbers, and the scale times these."""
    while (node := made_by(x, pw.mul, pw.div)) is not None:
        a, b = node.args
        if number(b) is None and node.op is pw.mul:
            a, b = b, a
        n = number(b)
        if n is None or n == 0 or not isinstance(a, Value) or not _same_shape(a, x):
            break
        x, scale = a, scale * n if node.op is pw.mul else scale / n
    return x, scale


def _leads_fit(shapes: list[tuple[DimLike, ...]], lead: Shape | None) -> bool:
    """Whether queries, keys and values have the same batch and head sizes, or one head of keys for all queries."""
    q, k, v = shapes
    if len(q) != len(k):
        return False
    if len(v) != len(k):  # the scores were reshaped on the way
        return q == k and lead is not None and product(q) == product(v) == product(lead)
    one_head = len(q) == 2 and q[0] == k[0] and k[1] == 1
    return k == v and (q == k or one_head) and (len(q) == 2 or lead is None or product(q) == product(lead))


def _four(x: Value, lead: Shape | None) -> Value:
    rank = len(x.shape)
    if rank == 4:
        return x
    if lead is not None:
        return layout.reshape(x, shape=(*lead, *x.shape[-2:]))  # type: ignore[no-any-return]
    return layout.unsqueeze(x, axes=(1,) if rank == 3 else (0, 1))  # type: ignore[no-any-return]
