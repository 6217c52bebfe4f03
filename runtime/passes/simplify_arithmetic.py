"""Leave out arithmetic that does nothing, and do with numbers once what was done twice.

Cases:
    1. x * 1, x / 1, x + 0, x - 0, x ** 1, -(-x), and where with a condition that is true or false throughout: x;
    2. 0 - x: -x; x ** 2: x * x; x ** 3: x * x * x; x ** 0.5: sqrt(x); x ** -1: 1 / x; x ** -0.5: 1 / sqrt(x);
    3. x / c with c a power of two: x * (1 / c), which is the same number;
    4. (x * a) * b, with / as well: x * (a b), within one rounding; (x + a) + b and (x - a) - b, where a and b have the
       same sign, so that nothing cancels;
    5. expand and broadcast_to before a pointwise op that broadcasts to the same shape anyway.
Refused: integers (but for 1 and 0), numbers whose product leaves the normal range of the element type, results in
between that something else reads, numbers that would make the result larger, what is computed of weights alone (it runs
once).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...ops import layout, pointwise as pw, reduce as red
from ...ops.dims import broadcast
from ...ops.errors import ShapeError
from ...ops.op import Op
from ...ops.pointwise import Pointwise
from ...ops.types import is_float
from ..graph.graph import Graph, Node, Value
from .extents import mentioned_symbols, stands_for
from .matching import is_ranked, like, made_by, number, reader_counts, shape_of, weight_values
from .rewriting import PassResult, rebuild

UNIFORM_LIMIT = 1 << 16
"""Constants of at most this many elements are looked at for one number throughout."""


def simplify_arithmetic(graph: Graph) -> PassResult:
    """Simplify pointwise arithmetic with numbers, in one walk."""
    simplifying = _Simplifying(graph)
    new = rebuild(graph, simplifying.rewrite)
    return PassResult(new if simplifying.changed else graph, simplifying.changed)


class _Simplifying:
    def __init__(self, graph: Graph) -> None:
        self.counts = reader_counts(graph)
        self.mentioned = mentioned_symbols(graph)
        self.aside = {v.node for v in weight_values(graph)}
        self.results = {*graph.outputs, *graph.updates.values()}
        self.changed = 0

    def rewrite(self, node: Node, args: tuple[Any, ...], new: Graph) -> tuple[Any, ...] | None:
        if not isinstance(node.op, Pointwise) or node in self.aside or not is_ranked(node):
            return None
        old = node.outputs[0]
        kept = _handed_on(node.op, args)
        if isinstance(kept, Value) and self._replaces(kept, old):
            self.changed += 1
            return (kept,)
        made = self._narrowed(node, args)
        if made is None and is_float(old.dtype):
            made = _power(node.op, args) or self._merged(node, args)
        if made is None or made.type.known_shape != old.type.known_shape or made.dtype != old.dtype:  # type: ignore[union-attr]
            return None
        self.changed += 1
        return (like(made, old),)

    def _replaces(self, x: Value, old: Value) -> bool:
        if x.type.dtype != old.dtype or shape_of(x) is None or shape_of(x) != shape_of(old):  # type: ignore[union-attr]
            return False
        return stands_for(x, old, self.mentioned) and not ((x.node is None or x.is_constant) and old in self.results)

    def _narrowed(self, node: Node, args: tuple[Any, ...]) -> Value | None:
        """Return the op of what was broadcast before it, where it broadcasts to the same shape itself."""
        shape, found = shape_of(node.outputs[0]), list(args)
        if shape is None:
            return None
        for i, a in enumerate(args):
            wide = made_by(a, layout.expand, red.broadcast_to)
            if wide is None:
                continue
            shapes = [shape_of(wide.args[0] if k == i else v) for k, v in enumerate(found)]
            try:
                fits = all(s is not None for s in shapes) and broadcast(*(s for s in shapes if s is not None)) == shape
            except ShapeError:
                fits = False
            if fits:
                found[i] = wide.args[0]
        return None if all(a is b for a, b in zip(found, args, strict=True)) else node.op(*found)

    def _merged(self, node: Node, args: tuple[Any, ...]) -> Value | None:
        """Return one op with a number in place of two, or a product in place of a quotient."""
        x, factor, shift = _with_number(node.op, args)
        if x is None:
            return None
        was = next(v for v, a in zip(node.args, args, strict=True) if a is x)
        inner = x.node if self.counts[was] == 1 and was not in self.results else None
        if inner is not None:
            y, by, plus = _with_number(inner.op, inner.args)
            if y is not None and factor is not None and by is not None and _normal(by * factor, x.dtype):
                return pw.mul(y, _constant(by * factor, x))  # type: ignore[no-any-return]
            if y is not None and shift is not None and plus is not None and shift * plus >= 0:
                return pw.add(y, _constant(shift + plus, x))  # type: ignore[no-any-return]
        if (
            node.op is pw.div
            and factor is not None
            and math.frexp(factor)[0] in (0.5, -0.5)
            and _normal(factor, x.dtype)
        ):
            return pw.mul(x, _constant(factor, x))  # type: ignore[no-any-return]
        return None


def _constant(n: float, x: Value) -> Value:
    return x.graph.constant(np.asarray(n, x.dtype))


def _normal(n: float, dtype: Any) -> bool:
    """Whether a number is neither too large nor too small for an element type."""
    if dtype not in (np.float32, np.float64):
        return False
    limits = np.finfo(dtype)
    return bool(limits.tiny <= abs(n) <= limits.max)


def _with_number(op: Op, args: tuple[Any, ...]) -> tuple[Value | None, float | None, float | None]:
    """Return x, a factor and a shift where an op computes x * factor or x + shift, else None for x."""
    if op not in (pw.mul, pw.div, pw.add, pw.sub):
        return None, None, None
    a, b = args
    if number(b) is None and op in (pw.mul, pw.add):
        a, b = b, a
    n = number(b)
    if n is None or not isinstance(a, Value) or a.is_constant or not math.isfinite(n):
        return None, None, None
    if op is pw.mul:
        return a, n, None
    if op is pw.div:
        return (a, 1 / n, None) if n else (None, None, None)
    return a, None, n if op is pw.add else -n


def _uniform(a: Any) -> float | None:
    """Return the number that a constant is throughout, of whatever shape."""
    if isinstance(a, bool):
        return None
    n = number(a)
    if n is not None or not isinstance(a, Value) or not a.is_constant:
        return n
    if a.array.dtype.kind not in "fiu" or not 0 < a.array.size <= UNIFORM_LIMIT:
        return None
    first = a.array.reshape(-1)[0]
    return float(first) if bool((a.array == first).all()) else None


def _handed_on(op: Op, args: tuple[Any, ...]) -> Any:
    """Return the argument that the result equals, None where there is none such."""
    if op is pw.mul:
        return args[0] if _uniform(args[1]) == 1 else args[1] if _uniform(args[0]) == 1 else None
    if op is pw.add:
        return args[0] if _uniform(args[1]) == 0 else args[1] if _uniform(args[0]) == 0 else None
    if op is pw.sub:
        return args[0] if _uniform(args[1]) == 0 else None
    if op in (pw.div, pw.pow_):
        return args[0] if _uniform(args[1]) == 1 else None
    if op is pw.neg and (inner := made_by(args[0], pw.neg)) is not None:
        return inner.args[0]
    if op is pw.where and isinstance(args[0], Value) and args[0].is_constant and args[0].array.size <= UNIFORM_LIMIT:
        condition = args[0].array
        return args[1] if condition.all() else args[2] if not condition.any() else None
    return None


def _power(op: Op, args: tuple[Any, ...]) -> Value | None:
    x = args[0]
    if op is pw.sub and isinstance(args[1], Value) and number(x) == 0:
        return pw.neg(args[1])  # type: ignore[no-any-return]
    if op is not pw.pow_ or not isinstance(x, Value) or not is_float(x.dtype):
        return None
    match number(args[1]):
        case 2.0:
            made = pw.mul(x, x)
        case 3.0:
            made = pw.mul(pw.mul(x, x), x)
        case 0.5:
            made = pw.sqrt(x)
        case -1.0:
            made = pw.reciprocal(x)
        case -0.5:
            made = pw.reciprocal(pw.sqrt(x))
        case _:
            made = None
    return made  # type: ignore[no-any-return]
