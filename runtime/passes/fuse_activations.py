"""Recognise activations that exporters write as several nodes, and put ops in their place.

The gradients of the ops read less than those of the parts do.

Cases, with factors in any order, and numbers that multiply or divide:
    1. gelu: 0.5 x (1 + erf(x / sqrt 2));
    2. gelu_tanh: 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)));
    3. swish: x sigmoid(x);
    4. relu6: clip(x, 0, 6), whose gradient at the bounds is 0, as that of PyTorch's layer is.
Refused: results in between that something else reads.
"""

from __future__ import annotations

import math
from typing import Any

from ...ops import pointwise as pw
from ...ops.types import is_float
from ..graph.graph import Graph, Node, Value
from .drop_dead import drop_dead
from .matching import is_ranked, like, made_by, mapped, number, reader_counts, shape_of, through
from .rewriting import PassResult, rebuild


def fuse_activations(graph: Graph) -> PassResult:
    """Replace exported activations by the ops, in one walk."""
    counts = reader_counts(graph)
    mapping: dict[Value, Value] = {}
    place = mapped(mapping)
    changed = 0

    def rewrite(node: Node, args: tuple[Any, ...], new: Graph) -> tuple[Any, ...] | None:
        nonlocal changed
        if node.op not in (pw.mul, pw.div, pw.clip) or not is_ranked(node) or not is_float(node.outputs[0].dtype):
            return None
        found = _found(node, counts)
        if found is None:
            return None
        op, x, more = found
        if shape_of(x) != shape_of(node.outputs[0]):
            return None
        changed += 1
        return (like(op(place(x), *more), node.outputs[0]),)

    new = rebuild(graph, rewrite, mapping=mapping)
    return PassResult(drop_dead(new).graph if changed else graph, changed)


def _found(node: Node, counts: Any) -> tuple[Any, Value, tuple[Any, ...]] | None:
    """Return the op that a node is the end of, what it reads and its numbers."""
    if node.op is pw.clip:
        x, low, high = node.args
        if isinstance(x, Value) and number(low) == 0 and number(high) == 6:
            return pw.relu6, x, ()
        return None
    scale, factors = _product(node.outputs[0], counts, last=True)
    if len(factors) != 2:
        return None
    for x, other in (factors, factors[::-1]):
        x = through(x)
        if _near(scale, 1) and (s := _alone(other, counts, pw.sigmoid)) is not None and through(s.args[0]) is x:
            return pw.swish, x, (1.0,)
        inner = _one_more(other, counts)
        if not _near(scale, 0.5) or inner is None:
            continue
        if (node_ := _alone(inner, counts, pw.erf)) is not None:
            by, rest = _product(node_.args[0], counts)
            if _near(by, math.sqrt(0.5)) and [through(r) for r in rest] == [x]:
                return pw.gelu, x, ()
        if (node_ := _alone(inner, counts, pw.tanh)) is not None:
            by, rest = _product(node_.args[0], counts)
            if _near(by, math.sqrt(2 / math.pi)) and len(rest) == 1 and _with_cube(rest[0], x, counts):
                return pw.gelu_tanh, x, ()
    return None


def _near(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=1e-5)


def _alone(v: Any, counts: Any, *ops: Any) -> Node | None:
    """Return what made a value that one node reads."""
    v = through(v)
    node = made_by(v, *ops)
    return node if node is not None and counts[v] == 1 else None


def _product(v: Any, counts: Any, *, last: bool = False) -> tuple[float, list[Any]]:
    """Return the number and the values whose product a value is; `last` where others may read it."""
    v = through(v)
    n = number(v)
    if n is not None:
        return n, []
    node = made_by(v, pw.mul, pw.div) if last else _alone(v, counts, pw.mul, pw.div)
    if node is None:
        return 1.0, [v]
    if node.op is pw.div:
        by = number(node.args[1])
        if not by:
            return 1.0, [v]
        scale, factors = _product(node.args[0], counts)
        return scale / by, factors
    (a, first), (b, second) = (_product(arg, counts) for arg in node.args)
    return a * b, [*first, *second]


def _one_more(v: Any, counts: Any) -> Any:
    """Return u where a value is 1 + u."""
    node = _alone(v, counts, pw.add)
    if node is None:
        return None
    a, b = node.args
    return b if number(a) == 1 else a if number(b) == 1 else None


def _with_cube(v: Any, x: Value, counts: Any) -> bool:
    """Whether a value is x + 0.044715 x^3."""
    node = _alone(v, counts, pw.add)
    if node is None:
        return False
    for a, b in (node.args, node.args[::-1]):
        scale, factors = _product(b, counts)
        if through(a) is not x or not _near(scale, 0.044715):
            continue
        if [through(f) for f in factors] == [x] * 3:
            return True
        power = _alone(factors[0], counts, pw.pow_) if len(factors) == 1 else None
        if power is not None and through(power.args[0]) is x and number(power.args[1]) == 3:
            return True
    return False
