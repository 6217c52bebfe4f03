"""Recognise layer, RMS and group normalisation as exporters write them, and put the ops in their place.

Cases, with c = x - mean(x), v = mean(c * c) (or mean(x * x) - mean(x) ** 2, kept from below 0 or not) and a constant e,
over the last axes:
    1. layer_norm: c / sqrt(v + e), c * (1 / sqrt(v + e)), c * (v + e) ** -0.5;
    2. the same with scale: c * (scale * (1 / sqrt(v + e))), and in TensorFlow's form x r + (bias - mean(x) r) with
       r = scale * (1 / sqrt(v + e));
    3. rms_norm: x / sqrt(mean(x * x) + e) and its forms;
    4. group_norm: instance_norm of x with its channels in groups, in the shape of x again;
    5. then mul by a scale and add of a bias, which each op takes, where nothing else reads what lies between.
Squares are pow(c, 2) or mul(c, c); a mean may be a sum times 1 / n or divided by n, and put back into shape by reshape,
unsqueeze or expand.
Refused: other axes than the last, an epsilon that is no constant or not positive or outside of the root; scales and
biases that are not weights of the shape of the normalised axes (for group_norm: of the channels) stay as they are.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...ops import layout, normalize, pointwise as pw, reduce as red
from ...ops.dims import Dim, Shape
from ...ops.types import is_float
from ..graph.graph import Graph, Node, Value
from .matching import (
    along,
    is_ranked,
    is_weight,
    like,
    lined_up,
    made_by,
    mapped,
    number,
    reader_counts,
    shape_of,
    through,
    until_stable,
    weight_values,
)  # fmt: skip
from .rewriting import PassResult, rebuild
from .statistics import mean_axes, square_axes, unspread, variance_axes


def fuse_normalization(graph: Graph) -> PassResult:
    """Replace exported normalisation by the ops, then give these the scales and biases that follow."""
    return until_stable(graph, _once)


def _once(graph: Graph) -> PassResult:
    fusing = _Fusing(graph)
    new = rebuild(graph, fusing.rewrite, mapping=fusing.mapping)
    return PassResult(new if fusing.changed else graph, fusing.changed)


class _Fusing:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.counts = reader_counts(graph)
        self.weights = weight_values(graph)
        self.mapping: dict[Value, Value] = {}
        self.place = mapped(self.mapping)
        self.changed = 0

    def rewrite(self, node: Node, args: tuple[Any, ...], new: Graph) -> tuple[Any, ...] | None:
        if node.op not in _ROOTS or not is_ranked(node) or not is_float(node.outputs[0].dtype):
            return None
        made = None
        if node.op in (pw.mul, pw.div):
            made = self._standard(node) or (self._scaled(node) if node.op is pw.mul else None)
        elif node.op is pw.add:
            made = self._of_tensorflow(node) or self._shifted(node)
        elif node.op is layout.reshape:
            made = self._grouped(node)
        if made is None:
            return None
        self.changed += 1
        return (like(made, node.outputs[0]),)

    # the core

    def _standard(self, node: Node) -> Value | None:
        """Return layer_norm or rms_norm for c / sqrt(v + e) or x / sqrt(mean(x * x) + e), with a scale or without."""
        a, b = node.args
        for c, r in ((a, b),) if node.op is pw.div else ((a, b), (b, a)):
            c = through(c)
            if not isinstance(c, Value) or shape_of(c) is None or shape_of(c) != shape_of(node.outputs[0]):
                continue
            root, scale = self._root(r, node.op is pw.div)
            if root is None:
                continue
            made = self._layer(c, root, scale) or self._rms(c, root, scale)
            if made is not None:
                return made
        return None

    def _root(self, r: Any, divides: bool) -> tuple[Any, Any]:
        """Return v + e where r (or what it divides by) is its inverse root, and the scale that r was given."""
        scale = None
        r = unspread(r)
        if not divides and (node := made_by(r, pw.mul)) is not None:
            for inverse, by in (node.args, node.args[::-1]):
                if (inside := _inside(inverse, divides=False)) is not None:
                    return inside, by
        return _inside(r, divides=divides), scale

    def _layer(self, c: Value, root: Value, scale: Any) -> Value | None:
        node = made_by(c, pw.sub)
        if node is None:
            return None
        x = through(node.args[0])
        axes = mean_axes(node.args[1], x)
        if axes is None:
            return None
        found = _plus(root)
        if found is None or variance_axes(found[0], x) != axes:
            return None
        return self._made(normalize.layer_norm, x, axes, found[1], scale)

    def _rms(self, x: Value, root: Value, scale: Any) -> Value | None:
        found = _plus(root)
        if found is None:
            return None
        axes = square_axes(found[0], x)
        return None if axes is None else self._made(normalize.rms_norm, x, axes, found[1], scale)

    def _made(
        self, op: Any, x: Value, axes: tuple[int, ...], epsilon: float, scale: Any, bias: Any = None
    ) -> Value | None:
        """Return the op over these axes, or None where they are not the last or the vectors do not fit."""
        rank, count = len(x.shape), len(axes)
        if axes != tuple(range(rank - count, rank)) or not count:
            return None
        shape = tuple(x.shape[-count:])
        vectors = []
        for v in (scale, bias):
            if v is not None and not self._fits(v, x, shape):
                return None
            vectors.append(None if v is None else self._vector(v, shape, x))
        if vectors[0] is None:
            if any(isinstance(d, Dim) for d in shape):
                return None
            vectors[0] = self.graph.constant(np.ones([int(d) for d in shape], x.dtype))
        made: Value = op(self.place(x), *(v for v in vectors if v is not None), axis=rank - count, epsilon=epsilon)
        return made

    def _of_tensorflow(self, node: Node) -> Value | None:
        """Return layer_norm for x r + (bias - mean(x) r)."""
        for product, rest in (node.args, node.args[::-1]):
            first, second = made_by(product, pw.mul), made_by(rest, pw.sub)
            if first is None or second is None:
                continue
            bias, taken = second.args[0], made_by(second.args[1], pw.mul)
            if taken is None:
                continue
            for x, r in (first.args, first.args[::-1]):
                for m, again in (taken.args, taken.args[::-1]):
                    made = self._affine(through(x), r, m, bias) if r is again and isinstance(r, Value) else None
                    if made is not None:
                        return made
        return None

    def _affine(self, x: Any, r: Value, m: Any, bias: Any) -> Value | None:
        axes = mean_axes(m, x)
        if axes is None:
            return None
        root, scale = self._root(r, divides=False)
        found = None if root is None else _plus(root)
        if found is None or variance_axes(found[0], x) != axes:
            return None
        return self._made(normalize.layer_norm, x, axes, found[1], scale, bias)

    def _grouped(self, node: Node) -> Value | None:
        """Return group_norm for instance_norm of the channels of x in groups."""
        norm = made_by(node.args[0], normalize.instance_norm)
        if norm is None or self.counts[norm.outputs[0]] != 1:
            return None
        before = made_by(norm.args[0], layout.reshape)
        if before is None:
            return None
        x, apart = before.args[0], norm.args[0].shape
        shape = shape_of(x)
        if shape is None or shape != shape_of(node.outputs[0]) or len(shape) < 3 or len(apart) < 3:
            return None
        channels, groups = shape[1], apart[1]
        if not isinstance(channels, int) or not isinstance(groups, int) or channels % groups or apart[0] != shape[0]:
            return None
        vectors = []
        for v in norm.args[1:]:
            wide = red.broadcast_to(layout.unsqueeze(self.place(v), axes=(1,)), shape=(groups, channels // groups))
            vectors.append(layout.reshape(wide, shape=(channels,)))
        made: Value = normalize.group_norm(self.place(x), *vectors, groups=groups, epsilon=norm.attrs["epsilon"])
        return made

    # what follows

    def _scaled(self, node: Node) -> Value | None:
        """Return the norm with a scale, where the one that it has is of ones, or of channels."""
        for y, by in (node.args, node.args[::-1]):
            norm = self._alone(y, normalize.layer_norm, normalize.rms_norm, normalize.group_norm)
            if norm is None or shape_of(y) != shape_of(node.outputs[0]):
                continue
            x, scale, *bias = norm.args
            if norm.op is normalize.group_norm:
                if (v := self._channels(by, y)) is not None:
                    made: Value = norm.op(
                        self.place(x), pw.mul(self.place(scale), v), pw.mul(self.place(bias[0]), v), **norm.attrs
                    )
                    return made
            elif not any(b is not None for b in bias) and _ones(scale):
                shape = tuple(x.shape[norm.attrs["axis"] % len(x.shape) :])
                if self._fits(by, y, shape):
                    done: Value = norm.op(self.place(x), self._vector(by, shape, x), **norm.attrs)
                    return done
        return None

    def _shifted(self, node: Node) -> Value | None:
        for y, by in (node.args, node.args[::-1]):
            norm = self._alone(y, normalize.layer_norm, normalize.group_norm)
            if norm is None or shape_of(y) != shape_of(node.outputs[0]):
                continue
            x, scale, *bias = norm.args
            if norm.op is normalize.group_norm:
                if (v := self._channels(by, y)) is not None:
                    made: Value = norm.op(
                        self.place(x), self.place(scale), pw.add(self.place(bias[0]), v), **norm.attrs
                    )
                    return made
            elif not any(b is not None for b in bias):
                shape = tuple(x.shape[norm.attrs["axis"] % len(x.shape) :])
                if self._fits(by, y, shape):
                    done: Value = norm.op(self.place(x), self.place(scale), self._vector(by, shape, x), **norm.attrs)
                    return done
        return None

    def _alone(self, y: Any, *ops: Any) -> Node | None:
        node = made_by(y, *ops)
        return node if node is not None and self.counts[y] == 1 else None

    def _fits(self, v: Any, x: Value, shape: Shape) -> bool:
        """Whether an operand is a scale or bias of these last axes: a weight of their shape, or one number."""
        if number(v) is not None:
            return not any(isinstance(d, Dim) for d in shape)
        if not isinstance(v, Value) or not is_weight(v, self.weights) or v.dtype != x.dtype:
            return False
        lined = lined_up(v, len(x.shape))
        rest = len(x.shape) - len(shape)
        return lined is not None and lined[rest:] == shape and all(d == 1 for d in lined[:rest])

    def _vector(self, v: Any, shape: Shape, x: Value) -> Any:
        n = number(v)
        if n is not None:
            return self.graph.constant(np.full([int(d) for d in shape], n, x.dtype))
        new = self.place(v)
        return new if tuple(v.shape) == shape else layout.reshape(new, shape=shape)

    def _channels(self, v: Any, y: Value) -> Any:
        """Return an operand as a vector of channels, or None where it is none."""
        if not is_weight(v, self.weights) or (isinstance(v, Value) and v.dtype != y.dtype):
            return None
        if not along(v, 1, len(y.shape), y.shape[1]):
            return None
        new = self.place(v)
        return layout.reshape(new, shape=(-1,)) if shape_of(v) else new


_ROOTS = (pw.mul, pw.div, pw.add, layout.reshape)


def _ones(v: Any) -> bool:
    return isinstance(v, Value) and v.is_constant and bool((v.array == 1).all())


def _inside(r: Any, *, divides: bool) -> Value | None:
    """Return w where r is 1 / sqrt(w), or sqrt(w) that divides."""
    r = unspread(r)
    if not divides:
        if (node := made_by(r, pw.reciprocal)) is not None:
            return _inside(node.args[0], divides=True)
        if (node := made_by(r, pw.div)) is not None and number(node.args[0]) == 1:
            return _inside(node.args[1], divides=True)
    if (node := made_by(r, pw.sqrt)) is not None and divides:
        return node.args[0]  # type: ignore[no-any-return]
    if (node := made_by(r, pw.pow_)) is not None and number(node.args[1]) == (0.5 if divides else -0.5):
        return node.args[0]  # type: ignore[no-any-return]
    return None


def _plus(w: Value) -> tuple[Value, float] | None:
    """Return v and e where w is v + e with a positive number e."""
    node = made_by(unspread(w), pw.add)
    if node is None:
        return None
    for v, e in (node.args, node.args[::-1]):
        n = number(e)
        if n is not None and n > 0 and isinstance(v, Value):
            return v, n
    return None
