"""Several ops that are one ONNX operator: the layers that bindings took apart, and a few activations.

A pattern is recognised at its last node. What lies inside must be read by nobody else; it is left unwritten, as
nobody asks for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from ....ops import layout, matmul as matmul_ops, normalize, pointwise as pw
from ....ops.op import Op
from ....runtime.graph.graph import Node, Value

if TYPE_CHECKING:
    from .writer import Writer

BIASED: dict[Op, Callable[..., str | None]] = {}
"""What writes a convolution with the bias that is added to it; `conv.py` fills it."""


@dataclass(frozen=True, eq=False)
class Found:
    """A pattern in place of its last node."""

    write: Callable[[Writer], str]


@dataclass(frozen=True, eq=False)
class _Reading:
    """Who made a value, where only one node reads it."""

    read: Mapping[Value, int]

    def maker(self, a: Any, *ops: Op) -> Node | None:
        """Return the node that made an argument, if its op is one of these and nobody else reads it."""
        if not isinstance(a, Value) or a.node is None or a.node.op not in ops or self.read.get(a, 0) != 1:
            return None
        return a.node


Pattern: TypeAlias = Callable[[Node, _Reading, int], "Found | None"]


def found_in(nodes: Iterable[Node], read: Mapping[Value, int], opset: int) -> dict[Node, Found]:
    """Return the patterns among nodes, by their last node."""
    reading = _Reading(read)
    found: dict[Node, Found] = {}
    for node in nodes:
        for pattern in PATTERNS.get(node.op, ()):
            made = pattern(node, reading, opset)
            if made is not None:
                found[node] = made
                break
    return found


def _either(node: Node, reading: _Reading, *ops: Op) -> tuple[Node, Any] | None:
    """Return the maker of one argument of a node of two, and the other argument."""
    a, b = node.args
    for one, other in ((a, b), (b, a)):
        maker = reading.maker(one, *ops)
        if maker is not None:
            return maker, other
    return None


def _rank(a: Any) -> int | None:
    shape = getattr(getattr(a, "type", None), "known_shape", None)
    return None if shape is None else len(shape)


def _biased(node: Node, reading: _Reading, opset: int) -> Found | None:
    """Conv, ConvTranspose: a bias laid along the channels and added."""
    found = _either(node, reading, *BIASED)
    if found is None:
        return None
    product, other = found
    rank = _rank(product.outputs[0])
    if not isinstance(other, Value) or other.node is None or other.node.op is not layout.reshape or rank is None:
        return None
    bias, shape = other.node.args[0], tuple(other.shape)
    channels = product.outputs[0].shape[1]
    if _rank(bias) != 1 or shape != (channels, *(1,) * (rank - 2)) or node.outputs[0].dtype != bias.dtype:
        return None
    return Found(lambda w: _biased_written(w, node, product, bias))


def _biased_written(w: Writer, node: Node, product: Node, bias: Value) -> str:
    made = BIASED[product.op](w, *product.args, bias=bias, **product.attrs)
    return (
        w.add("Add", product.outputs[0], node.args[1 - node.args.index(product.outputs[0])]) if made is None else made
    )


def _gemm(node: Node, reading: _Reading, opset: int) -> Found | None:
    """Gemm: a matrix times a transposed weight, plus a bias."""
    if node.op is matmul_ops.matmul:
        product, bias = node, None
    else:
        found = _either(node, reading, matmul_ops.matmul)
        if found is None:
            return None
        product, bias = found
        out = product.outputs[0]
        if not isinstance(bias, Value) or _rank(bias) not in (1, 2) or bias.dtype != out.dtype:
            return None
        if node.outputs[0].type != out.type or any(
            d not in (1, n) for d, n in zip(reversed(bias.shape), reversed(out.shape), strict=False)
        ):
            return None
    a, b = product.args
    turned = reading.maker(b, layout.transpose)
    if _rank(a) != 2 or _rank(b) != 2 or turned is None or a.dtype != b.dtype or a.dtype.kind not in "fV":
        return None
    weight = turned.args[0]
    return Found(lambda w: w.add("Gemm", a, weight, bias, transB=1))


def _hard_swish(node: Node, reading: _Reading, opset: int) -> Found | None:
    found = _either(node, reading, pw.hard_sigmoid)
    if found is None:
        return None
    gate, x = found
    y, alpha, beta = gate.args
    if y is not x or not isinstance(alpha, float) or not math.isclose(alpha, 1 / 6, rel_tol=1e-6) or beta != 0.5:
        return None
    return Found(lambda w: w.add("HardSwish", x))


def _swish(node: Node, reading: _Reading, opset: int) -> Found | None:
    found = _either(node, reading, pw.sigmoid) if opset >= 24 else None
    if found is None or found[0].args[0] is not found[1]:
        return None
    x = found[1]
    return Found(lambda w: w.add("Swish", x))


def _selu(node: Node, reading: _Reading, opset: int) -> Found | None:
    inner = reading.maker(node.args[0], pw.elu)
    gamma = node.args[1]
    if inner is None or not isinstance(gamma, float) or not isinstance(inner.args[1], float):
        return None
    x, alpha = inner.args
    return Found(lambda w: w.add("Selu", x, alpha=alpha, gamma=gamma)) if gamma > 1 else None


def _softplus(node: Node, reading: _Reading, opset: int) -> Found | None:
    """Softplus: what PyTorch's is above its threshold differs from it by less than rounding."""
    condition, x, smooth = node.args
    large, soft = reading.maker(condition, pw.greater), reading.maker(smooth, pw.softplus)
    if large is None or soft is None or large.args[0] is not x or soft.args[0] is not x:
        return None
    threshold = large.args[1]
    wide = 20.0 if getattr(x, "dtype", None) != "float64" else 40.0
    if not isinstance(threshold, float) or threshold < wide:
        return None
    return Found(lambda w: w.add("Softplus", x))


def _same_choice(node: Node, reading: _Reading, opset: int) -> Found | None:
    _, a, b = node.args
    return Found(lambda w: w.name(a)) if a is b and isinstance(a, Value) and a.type == node.outputs[0].type else None


def _flat_batch_norm(node: Node, reading: _Reading, opset: int) -> Found | None:
    """BatchNormalization of (N, C), which has an axis put in for the op."""
    norm = reading.maker(node.args[0], normalize.batch_norm)
    wide = None if norm is None else reading.maker(norm.args[0], layout.reshape)
    if norm is None or wide is None:
        return None
    x = wide.args[0]
    if _rank(x) != 2 or wide.attrs["shape"] != (*x.shape, 1) or tuple(node.outputs[0].shape) != tuple(x.shape):
        return None
    vectors, epsilon = norm.args[1:], norm.attrs["epsilon"]
    return Found(lambda w: w.add("BatchNormalization", x, *vectors, epsilon=epsilon))


PATTERNS: dict[Op, tuple[Pattern, ...]] = {
    pw.add: (_biased, _gemm),
    pw.mul: (_hard_swish, _swish, _selu),
    pw.where: (_same_choice, _softplus),
    matmul_ops.matmul: (_gemm,),
    layout.reshape: (_flat_batch_norm,),
}

__all__ = ["BIASED", "Found", "found_in"]
