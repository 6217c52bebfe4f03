"""Multiply bytes where a model says with QuantizeLinear and DequantizeLinear that its tensors are quantised.

What exporters write, x and w being dequantised, is float arithmetic on quantised numbers. In its place come integer
products, with the bias and the activation on their sums, and one scaling to the next quantised tensor. Results differ
by at most one quantum: sums are exact here, and rounded there.

Cases, for conv, and for matmul by a matrix:
    1. x as `fake_quantize` or `dequantize_linear` gives it, w as `dequantize_linear` of weights does;
    2. then, if they are there, a bias a channel, relu, and `fake_quantize` or `quantize_linear` of the result;
    3. a result that is not quantised again: floats, of the scaled sums.
Refused: scales or zero points that are computed from inputs; those of x, if they are not one number; types other than
int8 and uint8; grouped convolutions whose groups are no multiples of four channels, such as depthwise ones, which are
faster with floats.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...ops import conv as conv_ops, pointwise as pw, quantize as q
from ...ops.matmul import matmul
from ..graph.graph import Graph, Node, Value
from .matching import along, is_weight, laid, like, made_by, mapped, reader_counts, shape_of, weight_values
from .rewriting import PassResult, rebuild

_BYTES = (np.dtype(np.int8), np.dtype(np.uint8))


@dataclass(frozen=True)
class _Quantised:
    """A tensor of the old graph that stands for quantised numbers: (whole - zero) * scale.

    Attributes:
        whole: the numbers, where they are a tensor of the old graph.
        source: the floats that are quantised to them, else.
    """

    scale: Any
    zero: Any
    dtype: np.dtype[Any]
    whole: Value | None = None
    source: Value | None = None


@dataclass(frozen=True)
class _Product:
    """A product of quantised tensors, and what is done to it; `end` is the value that all of it makes."""

    node: Node
    x: _Quantised
    w: _Quantised
    axis: int
    end: Value
    bias: Any = None
    relu: bool = False


def fuse_quantized(graph: Graph) -> PassResult:
    """Replace float products of dequantised tensors by integer ones."""
    if not any(node.op in (q.dequantize_linear, q.fake_quantize) for node in graph.nodes):
        return PassResult(graph, 0)
    fusing = _Fusing(graph)
    new = rebuild(graph, fusing.rewrite, mapping=fusing.mapping)
    return PassResult(new if fusing.changed else graph, fusing.changed)


class _Fusing:
    def __init__(self, graph: Graph) -> None:
        self.counts: Counter[Value] = reader_counts(graph)
        self.weights = weight_values(graph)
        self.mapping: dict[Value, Value] = {}
        self.place = mapped(self.mapping)
        self.wholes: dict[Value, Value] = {}  # of the new graph, for quantised floats of the old one
        self.changed = 0
        products = (self._product(n.outputs[0]) for n in graph.nodes if n.op in (conv_ops.conv, matmul))
        self.wanted = {p.node.args[0] for p in products if p is not None}

    def rewrite(self, node: Node, args: tuple[Any, ...], new: Graph) -> tuple[Any, ...] | None:
        if node.op in (conv_ops.conv, matmul):
            product = self._product(node.outputs[0])
            if product is None:
                return None
            self.changed += 1
            return (like(self._floats(product), node.outputs[0]),)
        if node.op not in (q.fake_quantize, q.quantize_linear):
            return None
        old = node.outputs[0]
        quantised = self._quantised(old) if node.op is q.fake_quantize else self._target(node)
        if quantised is None:
            return None
        product = self._product(quantised.source)
        if product is not None:
            whole = self._requantised(product, quantised)
        elif old in self.wanted:
            whole = q.quantize_linear(*self._arguments(quantised, node.args[0]), dtype=str(quantised.dtype))
        else:
            return None
        self.changed += 1
        if node.op is q.quantize_linear:
            return (like(whole, old),)
        self.wholes[old] = whole
        floats = q.dequantize_linear(*self._arguments(quantised, whole, placed=True), dtype="float32")
        return (like(floats, old),)

    # what the old graph says

    def _scalar(self, v: Any) -> bool:
        shape = shape_of(v)
        return is_weight(v, self.weights) and shape is not None and all(d == 1 for d in shape) and len(shape) < 2

    def _described(self, scale: Any, zero: Any, dtype: Any) -> _Quantised | None:
        """Return a tensor quantised as a whole, of which only the scale and the zero point are known."""
        known = zero is None or (isinstance(zero, Value) and zero.is_constant and zero.array.size == 1)
        if np.dtype(dtype) not in _BYTES or not known or not self._scalar(scale) or scale.dtype != np.float32:
            return None
        return _Quantised(scale, zero, np.dtype(dtype))

    def _quantised(self, v: Any) -> _Quantised | None:
        """Return how a value is quantised, None if it is not, or with a scale for each of its parts."""
        node = made_by(v, q.fake_quantize, q.dequantize_linear)
        if node is None or v.dtype != np.float32:
            return None
        if node.op is q.dequantize_linear:
            whole, scale, zero = (*node.args, None)[:3]
            found = self._described(scale, zero, whole.dtype)
            return None if found is None else replace(found, whole=whole)
        source, scale, back, zero, zero_back = (*node.args, None, None)[:5]
        if not _same(scale, back) or not _same(zero, zero_back) or source.dtype != np.float32:
            return None
        found = self._described(scale, zero, node.attrs["dtype"])
        return None if found is None else replace(found, source=source)

    def _target(self, node: Node) -> _Quantised | None:
        """Return how a `quantize_linear` quantises."""
        source, scale, zero = (*node.args, None)[:3]
        found = self._described(scale, zero, node.attrs["dtype"])
        return None if found is None or source.dtype != np.float32 else replace(found, source=source)

    def _weights(self, v: Any, axis: int) -> _Quantised | None:
        """Return how weights are quantised: as a whole, or an index of the axis of the result's channels."""
        node = made_by(v, q.dequantize_linear)
        if node is None or not is_weight(v, self.weights) or v.dtype != np.float32:
            return None
        whole, scale, zero = (*node.args, None)[:3]
        rank = len(v.shape)
        if whole.dtype not in _BYTES or scale.dtype != np.float32 or not along(scale, axis, rank, v.shape[axis]):
            return None
        if zero is not None and not (zero.is_constant and along(zero, axis, rank, v.shape[axis])):
            return None
        return _Quantised(scale, zero, whole.dtype, whole=whole)

    def _product(self, v: Any) -> _Product | None:
        """Return the product that a value is, with what was done to it since."""
        node = made_by(v, conv_ops.conv, matmul)
        if node is not None:
            return self._bare(node)
        if not isinstance(v, Value) or v.node is None or shape_of(v) is None:
            return None
        if v.node.op is pw.relu:
            inner = self._product(v.node.args[0]) if self._alone(v.node.args[0]) else None
            return None if inner is None or inner.relu else replace(inner, relu=True, end=v)
        if v.node.op is pw.add:
            for x, bias in (v.node.args, v.node.args[::-1]):
                inner = self._product(x) if self._alone(x) else None
                if inner is None or inner.relu or inner.bias is not None or not is_weight(bias, self.weights):
                    continue
                if isinstance(bias, Value) and along(bias, inner.axis, len(v.shape), v.shape[inner.axis]):
                    return replace(inner, bias=bias, end=v)
        return None

    def _alone(self, v: Any) -> bool:
        return isinstance(v, Value) and self.counts[v] == 1

    def _bare(self, node: Node) -> _Product | None:
        x, w = node.args
        out = node.outputs[0]
        if not isinstance(x, Value) or not isinstance(w, Value) or shape_of(x) is None or shape_of(w) is None:
            return None
        if node.op is matmul:
            if len(w.shape) != 2 or len(x.shape) < 2:
                return None
            axis, of_weights = len(out.shape) - 1, 1
        else:
            group, channels = node.attrs["win"].group, w.shape[1]
            if group > 1 and (not isinstance(channels, int) or channels % 4):
                return None
            axis, of_weights = 1, 0
        left, right = self._quantised(x), self._weights(w, of_weights)
        return None if left is None or right is None else _Product(node, left, right, axis, out)

    # what the new graph gets

    def _arguments(self, quantised: _Quantised, x: Value, *, placed: bool = False) -> tuple[Any, ...]:
        more = (quantised.scale,) if quantised.zero is None else (quantised.scale, quantised.zero)
        return (x if placed else self.place(x), *(self.place(v) for v in more))

    def _sums(self, product: _Product) -> tuple[Value, Value]:
        """Return the integer sums with the bias, and what one of them is worth; both laid along the channels."""
        node, axis = product.node, product.axis
        rank = len(node.outputs[0].shape)
        x = self.wholes.get(node.args[0])
        if x is None:
            whole = product.x.whole
            assert whole is not None
            x = self.place(whole)
        zeros = (self.place(product.x.zero), self.place(product.w.zero))
        w = self.place(product.w.whole)
        if node.op is matmul:
            sums = q.matmul_integer(x, w, *_trimmed(zeros))
        else:
            sums = q.conv_integer(x, w, *_trimmed(zeros), win=node.attrs["win"])
        unit = pw.mul(self._number(product.x.scale), laid(self.place(product.w.scale), axis, rank))
        if product.bias is not None:
            bias = pw.div(laid(self.place(product.bias), axis, rank), unit)
            sums = pw.add(sums, pw.cast(pw.round_(bias), dtype="int32"))
        return sums, unit

    def _number(self, scale: Any) -> Any:
        return laid(self.place(scale), 0, 0)

    def _requantised(self, product: _Product, to: _Quantised) -> Value:
        sums, unit = self._sums(product)
        lowest = np.iinfo(to.dtype).min
        zero = 0 if to.zero is None else int(to.zero.array.reshape(()))
        if product.relu and zero != lowest:
            sums = pw.relu(sums)
        factor = pw.div(unit, self._number(to.scale))
        more = () if to.zero is None else (self.place(to.zero),)
        made: Value = q.requantize(sums, factor, *more, dtype=str(to.dtype))
        return made

    def _floats(self, product: _Product) -> Value:
        sums, unit = self._sums(product)
        made: Value = pw.mul(pw.cast(sums, dtype="float32"), unit)
        return made


def _trimmed(zeros: tuple[Any, Any]) -> tuple[Any, ...]:
    """Return zero points without those at the end that are left out."""
    return zeros if zeros[1] is not None else zeros[:1] if zeros[0] is not None else ()


def _same(a: Any, b: Any) -> bool:
    """Whether two scales or zero points are one value, or equal constants."""
    if a is b:
        return True
    constants = isinstance(a, Value) and isinstance(b, Value) and a.is_constant and b.is_constant
    return constants and bool(np.array_equal(a.array, b.array))
