"""How many floating-point operations an op does: a multiplication and an addition are two."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from ...ops import reduce as reduce_ops
from ...ops.op import Op
from ...ops.pointwise import Pointwise
from ...ops.types import is_float

Shapes: TypeAlias = "Sequence[tuple[int, ...]]"

_REDUCTIONS = {op.name for op in (reduce_ops.sum_, reduce_ops.mean, reduce_ops.max_, reduce_ops.min_, reduce_ops.prod)}


def _conv(ins: Shapes, outs: Shapes, attrs: Mapping[str, Any]) -> int:
    return 2 * math.prod(outs[0]) * math.prod(ins[1][1:])


def _conv_input_grad(ins: Shapes, outs: Shapes, attrs: Mapping[str, Any]) -> int:
    return 2 * math.prod(ins[0]) * math.prod(ins[1][1:])


def _conv_weight_grad(ins: Shapes, outs: Shapes, attrs: Mapping[str, Any]) -> int:
    return 2 * math.prod(ins[0]) * math.prod(outs[0][1:])


def _matmul(ins: Shapes, outs: Shapes, attrs: Mapping[str, Any]) -> int:
    return 2 * math.prod(outs[0]) * ins[0][-1]


def _einsum(ins: Shapes, outs: Shapes, attrs: Mapping[str, Any]) -> int:
    """Count the sizes of all letters; a factor and a sum each."""
    operands = attrs["equation"].replace(" ", "").partition("->")[0].split(",")
    sizes: dict[str, int] = {}
    for letters, shape in zip(operands, ins, strict=False):
        if "." in letters or len(letters) != len(shape):
            return 0
        sizes.update(zip(letters, shape, strict=True))
    return max(len(ins), 1) * math.prod(sizes.values())


def _attention(ins: Shapes, outs: Shapes, attrs: Mapping[str, Any]) -> int:
    q, k, v = ins[:3]
    return 2 * math.prod(q[:-1]) * k[-2] * (q[-1] + v[-1])


def _attention_grad(ins: Shapes, outs: Shapes, attrs: Mapping[str, Any]) -> int:
    q, k, v = outs[:3]
    return math.prod(q[:-1]) * k[-2] * (6 * q[-1] + 4 * v[-1])


FORMULAS: dict[str, Callable[[Shapes, Shapes, Mapping[str, Any]], int]] = {
    "conv": _conv,
    "conv_input_grad": _conv_input_grad,
    "conv_weight_grad": _conv_weight_grad,
    "matmul": _matmul,
    "einsum": _einsum,
    "attention": _attention,
    "attention_grad": _attention_grad,
}


def flops_of(op: Op, args: Sequence[Any], results: Sequence[Any], attrs: Mapping[str, Any]) -> int:
    """Return the floating-point operations of an op; 0 where they are not counted.

    Contractions are counted in full, pointwise ops as one a result, reductions as one an element.

    Args:
        op: what was computed.
        args: what it was given.
        results: what it gave.
        attrs: its attributes.
    """
    outs = [tuple(r.shape) for r in results if hasattr(r, "shape")]
    if not outs:
        return 0
    ins = [tuple(a.shape) for a in args if hasattr(a, "shape")]
    formula = FORMULAS.get(op.name)
    if formula is not None:
        return formula(ins, outs, attrs)
    if isinstance(op, Pointwise):
        return math.prod(outs[0]) if is_float(results[0].dtype) else 0
    return math.prod(ins[0]) if op.name in _REDUCTIONS and ins else 0
