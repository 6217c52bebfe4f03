"""A graph with half precision in the place of float32 where that costs few digits, for running only.

Autocast decides call by call; here the whole graph is known. Products take operands of half precision as under autocast
and what range or digits hang on stays float32. Beyond that activations travel in half precision: normalisations,
softmax, means and resizing answer in it (they compute in float32 inside), and sums of two activations, one of them in
half precision, and what multiplies or shifts them by weights, do too. Positions, masks and angles that are made of
integers stay float32 until a product or a sum of activations takes them.

Inputs, outputs and weights keep their types; the casts of weights depend on weights alone, so that an engine makes them
once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...ops.errors import OnnxGradError
from ...ops.op import OPS, Op
from ...ops.pointwise import Pointwise, cast
from ...ops.types import HALF, DType, TensorType, is_float
from ..graph.graph import Graph, Node, Value
from ..passes.matching import weight_values
from ..passes.rewriting import Pass, PassResult, has_graph, rebuild
from .lists import FLOAT32, LOWER, UNTOUCHED

NORMS = frozenset({"group_norm", "instance_norm", "layer_norm", "rms_norm"})
"""Ops that take, and answer, half precision whatever they are given."""

ANSWERED = frozenset({"batch_norm", "mean_variance_norm", "resize", "softmax", "standardize"})
"""Ops that answer in half precision where they are given that; under autocast, but for batch norm, in float32."""

QUANTIZED = frozenset({
    "dequantize_linear", "dynamic_fake_quantize", "dynamic_quantize_linear", "fake_quantize", "quantize_linear",
    "requantize",
})  # fmt: skip
"""Ops whose scales and results are of types that they name."""

SHIFTS = frozenset({"add", "sub", "mul", "div"})
"""Arithmetic that answers in half precision where one operand is, and the other a weight."""

SUMS = frozenset({"add", "sub"})
"""Arithmetic that answers in half precision where one operand is, and the other an activation of the same shape."""


def narrow(half: DType) -> Pass:
    """Return the pass that computes a graph in half precision.

    Args:
        half: bfloat16 or float16.
    """

    def narrowed(graph: Graph) -> PassResult:
        narrowing = _Narrowing(graph, half)
        new = rebuild(graph, narrowing.rewrite)
        new.outputs = [narrowing.typed(v, old) for v, old in zip(new.outputs, graph.outputs, strict=True)]
        new.updates = {k: narrowing.typed(v, graph.updates[k]) for k, v in new.updates.items()}
        return PassResult(new if narrowing.changed else graph, narrowing.changed)

    narrowed.__name__ = f"narrow to {half}"
    return narrowed


class _Narrowing:
    def __init__(self, graph: Graph, half: DType) -> None:
        self.half, self.name = half, str(half)
        self.old_weights = weight_values(graph)
        self.weights: set[Value] = set()
        self.casts: dict[tuple[int, str], tuple[Value, Value]] = {}
        self.changed = 0

    def rewrite(self, node: Node, args: tuple[Any, ...], new: Graph) -> tuple[Any, ...] | None:
        """Return the outputs of a node of half precision; None where it is copied."""
        if any(o in self.old_weights for o in node.outputs):
            return None
        for a, old in zip(args, node.args, strict=True):
            self._note(a, old)
        op = node.op
        kept = op.name in UNTOUCHED or op.name in QUANTIZED or OPS.get(op.name) is not op
        if kept or any(map(has_graph, node.attrs.values())):
            return self._as_given(node, args, new)
        wanted = self._wanted(op, args)
        if wanted is None and not self._differs(node, args):
            return None
        try:
            made = self._called(node, [self._in(a, wanted) for a in args] if wanted else list(args))
        except OnnxGradError:  # an op that is not for half precision
            return self._as_given(node, args, new)
        self.changed += 1
        return made

    def typed(self, v: Value, old: Value) -> Value:
        """Return what an output of the graph is, in the type that it is of by right."""
        if isinstance(v.type, TensorType) and isinstance(old.type, TensorType) and v.type.dtype != old.type.dtype:
            with v.graph.building():
                return self._cast(v, str(old.type.dtype))
        return v

    def _note(self, a: Any, old: Any) -> None:
        if isinstance(a, list):
            for v, o in zip(a, old, strict=True):
                self._note(v, o)
        elif isinstance(a, Value) and (a.is_constant or old in self.old_weights):
            self.weights.add(a)

    def _wanted(self, op: Op, args: Sequence[Any]) -> str | None:
        """Return the element type that a node's floats are brought to; None where they stay as they are."""
        floats = [v for v in _flat(args) if _narrows(v)]
        halves = [v for v in floats if v.type.dtype == self.half]
        if op.name in LOWER or op.name in NORMS or (op.name in ANSWERED and halves):
            return self.name
        if op.name in FLOAT32:
            return "float32" if halves else None
        if not halves or len(halves) == len(floats):
            return None
        if isinstance(op, Pointwise) and len(floats) == 2:
            one, other = (halves[0], next(v for v in floats if v.type.dtype != self.half))
            if op.name in SHIFTS and other in self.weights and _fits(other, one):
                return self.name
            if op.name in SUMS and _shape(one) is not None and _shape(one) == _shape(other):
                return self.name
        return "float32" if any(v.type.known_shape != () for v in floats if v not in halves) else self.name

    def _differs(self, node: Node, args: Sequence[Any]) -> bool:
        """Whether an argument is of another type than in the graph that was given."""
        return any(
            isinstance(a, Value) and a.type != old.type
            for a, old in zip(_flat(args), _flat(node.args), strict=True)
            if isinstance(old, Value)
        )

    def _as_given(self, node: Node, args: Sequence[Any], new: Graph) -> tuple[Value, ...]:
        """Return the outputs of a node that is given the types that it had."""
        typed = tuple(self._typed(a, old) for a, old in zip(args, node.args, strict=True))
        made = Node(node.op, typed, node.attrs, name=node.name, source=node.source, several=node.several)
        made.outputs = tuple(Value(new, v.type, v.name, node=made, index=v.index) for v in node.outputs)
        new.nodes.append(made)
        return made.outputs

    def _called(self, node: Node, args: Sequence[Any]) -> tuple[Any, ...]:
        """Call the op of a node; what it makes has the sizes, by name, that it had."""
        made = node.op(*args, **node.attrs)
        values: tuple[Any, ...] = made if isinstance(made, tuple) else (made,)
        for v, old in zip(values, node.outputs, strict=True):
            if v.node is not None and isinstance(v.type, TensorType) and isinstance(old.type, TensorType):
                v.type = TensorType(v.type.dtype, old.type.known_shape)
        return values

    def _in(self, a: Any, name: str) -> Any:
        if isinstance(a, list):
            return [self._in(v, name) for v in a]
        return self._cast(a, name) if _narrows(a) and str(a.type.dtype) != name else a

    def _typed(self, a: Any, old: Any) -> Any:
        if isinstance(a, list):
            return [self._typed(v, o) for v, o in zip(a, old, strict=True)]
        if not _narrows(a) or not isinstance(old.type, TensorType) or a.type.dtype == old.type.dtype:
            return a
        return self._cast(a, str(old.type.dtype))

    def _cast(self, v: Value, name: str) -> Value:
        found = self.casts.get((id(v), name))
        if found is None:
            made = cast(v, dtype=name)
            if v in self.weights:
                self.weights.add(made)
            found = self.casts[id(v), name] = v, made
        return found[1]


def _flat(args: Sequence[Any]) -> list[Any]:
    return [v for a in args for v in (a if isinstance(a, list) else (a,))]


def _narrows(a: Any) -> bool:
    """Whether something is a tensor of the graph whose type may change: of float32 or half precision."""
    if not isinstance(a, Value) or not isinstance(a.type, TensorType) or not is_float(a.type.dtype):
        return False
    return a.type.dtype in HALF or a.type.dtype == np.float32


def _shape(v: Value) -> Any:
    return v.type.known_shape if isinstance(v.type, TensorType) else None


def _fits(weight: Value, v: Value) -> bool:
    """Whether a weight broadcasts to an activation, which stays as large as it is."""
    shape = _shape(weight)
    return shape is not None and (_shape(v) is None or len(shape) <= len(_shape(v)))
