"""Fold batch norm, and scales and shifts of channels, into the weights of what is linear beside them.

The weights that enter may be state or constants; what is computed of them alone is left in the graph as ordinary
nodes. A linear node is conv, conv_input_grad (ConvTranspose) or matmul by a matrix, with weights of state and
constants, and perhaps a bias a channel that is added to it. Channels are axis 1, or the last axis of a matmul.

Cases:
    1. batch_norm (running statistics) of a linear node: into its weights and bias;
    2. mul, div, add or sub of a linear node and a number, or one number a channel: likewise;
    3. conv without padding of a batch_norm: into the conv's weights and bias; matmul of one over (N, C) too;
    4. any other batch_norm: x * s + t, with s and t of the weights.
Refused: results in between that something else reads, weights or statistics that are computed from inputs or have
another element type, operands that would make the result larger, number / x.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...ops import conv as conv_ops, layout, normalize, pointwise as pw, reduce as red
from ...ops.matmul import matmul
from ...ops.types import is_float
from ..graph.graph import Graph, Node, Value
from .matching import (
    Mapped,
    along,
    is_ranked,
    is_weight,
    laid,
    like,
    made_by,
    mapped,
    reader_counts,
    shape_of,
    until_stable,
    weight_values,
)  # fmt: skip
from .rewriting import PassResult, rebuild


def fold_norms(graph: Graph) -> PassResult:
    """Fold what scales and shifts channels into weights, as often as there is something to fold."""
    return until_stable(graph, _once)


@dataclass(frozen=True)
class _Linear:
    """A linear node with the bias that is added to it, and the axis of its channels."""

    node: Node
    axis: int
    bias: Any = None


@dataclass(frozen=True)
class _Affine:
    """What is done to the channels of `x`: scaled, then shifted; None where it is not."""

    x: Value
    scale: Any = None
    shift: Any = None


def _once(graph: Graph) -> PassResult:
    folding = _Folding(graph)
    new = rebuild(graph, folding.rewrite, mapping=folding.mapping)
    return PassResult(new if folding.changed else graph, folding.changed)


class _Folding:
    def __init__(self, graph: Graph) -> None:
        self.counts: Counter[Value] = reader_counts(graph)
        self.weights = weight_values(graph)
        self.aside = {v.node for v in self.weights}  # nothing is won among the weights themselves
        self.reader = {v: node for node in graph.nodes for v in node.inputs()}
        self.mapping: dict[Value, Value] = {}
        self.place: Mapped = mapped(self.mapping)
        self.changed = 0

    def rewrite(self, node: Node, args: tuple[Any, ...], new: Graph) -> tuple[Any, ...] | None:
        if node in self.aside or node.op not in _TOUCHED or not is_ranked(node):
            return None
        made = self._into_what_it_reads(node)
        if made is None and node.op is normalize.batch_norm and not self._waits(node):
            made = self._pointwise(node)
        if made is None and node.op in (conv_ops.conv, matmul):
            made = self._of_batch_norm(node)
        if made is None:
            return None
        self.changed += 1
        return (like(made, node.outputs[0]),)

    # what is linear before

    def _linear(self, v: Any) -> _Linear | None:
        """Return the linear node, with its bias, that made a value which nothing else reads."""
        if not isinstance(v, Value) or self.counts[v] != 1:
            return None
        if (found := self._bare(v)) is not None:
            return found
        node = made_by(v, pw.add)
        if node is None:
            return None
        for x, bias in (node.args, node.args[::-1]):
            inner = self._bare(x) if isinstance(x, Value) and self.counts[x] == 1 else None
            if inner is not None and self._fits(bias, v, inner.axis):
                return _Linear(inner.node, inner.axis, bias)
        return None

    def _bare(self, v: Value) -> _Linear | None:
        node = made_by(v, conv_ops.conv, conv_ops.conv_input_grad, matmul)
        if node is None or not is_weight(node.args[1], self.weights) or not is_float(v.dtype):
            return None
        x, w = node.args
        if x.dtype != w.dtype:
            return None
        if node.op is not matmul:
            return _Linear(node, 1)
        return _Linear(node, len(v.shape) - 1) if shape_of(x) and len(x.shape) > 1 and len(w.shape) == 2 else None

    def _fits(self, a: Any, like: Value, axis: int) -> bool:
        """Whether an operand is a weight that scales or shifts the channels of a value."""
        if not is_weight(a, self.weights) or (isinstance(a, Value) and a.dtype != like.dtype):
            return False
        return along(a, axis, len(like.shape), like.shape[axis])

    def _into_what_it_reads(self, node: Node) -> Value | None:
        if node.op is normalize.batch_norm:
            found = self._linear(node.args[0])
            if found is None or found.axis != 1 or not self._standing(node):
                return None
            scale, shift = self._slopes(node)
            return self._applied(found, scale, shift)
        if node.op not in (pw.mul, pw.div, pw.add, pw.sub):
            return None
        a, b = node.args
        sides = ((a, b),) if node.op is pw.div else ((a, b), (b, a))
        for x, other in sides:
            found = self._linear(x)
            if found is None or not self._fits(other, x, found.axis):
                continue
            if node.op is pw.add and found.bias is None:
                return None
            operand = self._vector(self.place(other))
            match node.op:
                case pw.mul:
                    return self._applied(found, operand, None)
                case pw.div if operand != 0:
                    return self._applied(found, self._inverse(operand, x), None)
                case pw.add:
                    return self._applied(found, None, operand)
            if x is a:
                return self._applied(found, None, self._negative(operand))
            return self._applied(found, -1.0, operand)
        return None

    def _applied(self, found: _Linear, scale: Any, shift: Any) -> Value:
        """Return the linear node with scaled weights, and a bias that is scaled and shifted."""
        node, place = found.node, self.place
        x, w = place(node.args[0]), place(node.args[1])
        if scale is not None:
            w = pw.mul(w, self._over(node, w, scale))
        y = node.op(x, w, **node.attrs)
        bias = None if found.bias is None else self._vector(place(found.bias))
        if bias is not None and scale is not None:
            bias = pw.mul(bias, scale) if _is_value(bias) or _is_value(scale) else bias * scale
        if bias is None:
            bias = shift
        elif shift is not None:
            bias = pw.add(bias, shift) if _is_value(bias) or _is_value(shift) else bias + shift
        return y if bias is None else self._biased(y, bias, found.axis)

    def _biased(self, y: Value, bias: Any, axis: int) -> Value:
        channels = y.shape[axis]
        if not shape_of(bias) or bias.shape[0] != channels:
            flat = bias if _is_value(bias) else y.graph.constant(np.asarray(bias, y.dtype))
            bias = red.broadcast_to(flat, shape=(channels,))
        added: Value = pw.add(y, bias if axis == len(y.shape) - 1 else laid(bias, 0, len(y.shape) - axis))
        return added

    def _over(self, node: Node, w: Value, scale: Any) -> Any:
        """Return a scale of the channels that come out, laid along the weights."""
        if not shape_of(scale):
            return scale
        rank = len(w.shape)
        if node.op is conv_ops.conv:
            return laid(scale, 0, rank)
        if node.op is matmul:
            return scale
        return _grouped(scale, w, node.attrs["win"].group)

    # what is linear after

    def _waits(self, node: Node) -> bool:
        """Whether a batch norm is about to be folded into the only node that reads it."""
        y = node.outputs[0]
        reader = self.reader.get(y)
        return self.counts[y] == 1 and reader is not None and self._takes(reader, node)

    def _takes(self, node: Node, norm: Node) -> bool:
        """Whether a conv or matmul can take a batch norm of its input into its weights."""
        y = norm.outputs[0]
        if node.op not in (conv_ops.conv, matmul) or node.args[0] is not y or not is_weight(node.args[1], self.weights):
            return False
        if not self._standing(norm) or node.args[1].dtype != y.dtype:
            return False
        if node.op is matmul:
            return len(y.shape) == 2 and len(node.args[1].shape) == 2
        return all(p == (0, 0) for p in node.attrs["win"].pads)

    def _of_batch_norm(self, node: Node) -> Value | None:
        norm = made_by(node.args[0], normalize.batch_norm)
        if norm is None or self.counts[norm.outputs[0]] != 1 or not self._takes(node, norm):
            return None
        if self._linear(norm.args[0]) is not None:
            return None
        scale, shift = self._slopes(norm)
        x, w = self.place(norm.args[0]), self.place(node.args[1])
        if node.op is matmul:
            return self._biased(matmul(x, pw.mul(w, laid(scale, 0, 2))), matmul(shift, w), 1)
        rank, group = len(w.shape), node.attrs["win"].group
        scale, shift = (_grouped(v, w, group) for v in (scale, shift))
        y = conv_ops.conv(x, pw.mul(w, scale), **node.attrs)
        return self._biased(y, red.sum_(pw.mul(w, shift), axes=tuple(range(1, rank))), 1)

    # batch norm alone

    def _standing(self, node: Node) -> bool:
        """Whether scale, bias and statistics of a batch norm are weights of its own element type."""
        x = node.args[0]
        return is_float(x.dtype) and all(is_weight(v, self.weights) and v.dtype == x.dtype for v in node.args[1:])

    def _slopes(self, node: Node) -> tuple[Value, Value]:
        """Return s and t with batch_norm(x) = x s + t."""
        scale, bias, mean, var = (self.place(v) for v in node.args[1:])
        slope = pw.div(scale, pw.sqrt(pw.add(var, node.attrs["epsilon"])))
        return slope, pw.sub(bias, pw.mul(mean, slope))

    def _pointwise(self, node: Node) -> Value | None:
        if not self._standing(node):
            return None
        scale, shift = self._slopes(node)
        x = self.place(node.args[0])
        rank = len(x.shape) - 1
        made: Value = pw.add(pw.mul(x, laid(scale, 0, rank)), laid(shift, 0, rank))
        return made

    def _vector(self, a: Any) -> Any:
        """Return an operand as a vector of channels, or as one number."""
        shape = shape_of(a)
        return layout.reshape(a, shape=(-1,)) if shape and len(shape) != 1 else a

    def _inverse(self, a: Any, x: Value) -> Any:
        return pw.div(x.graph.constant(np.ones((), x.dtype)), a) if _is_value(a) else 1 / a

    def _negative(self, a: Any) -> Any:
        return pw.neg(a) if _is_value(a) else -a


_TOUCHED = (normalize.batch_norm, conv_ops.conv, matmul, pw.mul, pw.div, pw.add, pw.sub)


def _is_value(a: Any) -> bool:
    return isinstance(a, Value)


def _grouped(scale: Value, w: Value, group: int) -> Value:
    """Lay a vector over C along weights (F, C/G, *K): the channels into conv, and out of conv_input_grad."""
    rank = len(w.shape)
    if group == 1 or scale.shape[0] == 1:
        return laid(scale, 1, rank)  # type: ignore[no-any-return]
    f = w.shape[0]
    apart = layout.reshape(scale, shape=(group, 1, -1))
    wide = red.broadcast_to(apart, shape=(group, f // group, w.shape[1]))
    laid_out: Value = layout.reshape(wide, shape=(f, w.shape[1], *(1,) * (rank - 2)))
    return laid_out
