"""The layer that makes the class scores: finding it, and new weights for another number of classes.

Kinds: Gemm (matmul and add, weight (out, in) or (in, out)), MatMul with or without Add, and a 1x1 Conv before global
pooling (SqueezeNet). Behind it may come activations, pooling, softmax and reshapes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...ops.errors import InputError
from ...ops.types import Array
from ..graph.graph import Graph, Node, Value
from ..tensor.random import default_generator

PASS_THROUGH = frozenset(
    {"softmax", "log_softmax", "sigmoid", "identity", "cast", "reshape", "transpose", "mean", "relu", "dropout",
     "avg_pool", "add", "max_pool", "tanh"}
)  # fmt: skip
WRAPPERS = frozenset({"transpose", "identity", "cast", "reshape"})


@dataclass(frozen=True)
class Head:
    """A classification head.

    Attributes:
        weight, bias: names of its state; `bias` is None where there is none.
        axis: the axis of the weight that counts classes.
        classes: how many there are now.
        reshapes: names of constants behind it that hold the number of classes.
    """

    weight: str
    bias: str | None
    axis: int
    classes: int
    layer: str
    reshapes: tuple[str, ...] = field(default=())

    def resized(
        self, state: dict[str, Array], constants: dict[str, Array], num_classes: int, seed: int | None
    ) -> dict[str, Array]:
        """Return new arrays for another number of classes, drawn as a Linear's are: U(-1/sqrt(in), 1/sqrt(in))."""
        rng = np.random.default_rng(seed) if seed is not None else default_generator.numpy
        old = state[self.weight]
        shape = list(old.shape)
        shape[self.axis] = num_classes
        fan_in = math.prod(old.shape) // old.shape[self.axis]
        bound = 1 / math.sqrt(fan_in)
        new = {self.weight: rng.uniform(-bound, bound, shape).astype(old.dtype)}
        if self.bias is not None:
            was = state[self.bias]
            shape = [num_classes if n == self.classes else n for n in was.shape]
            new[self.bias] = rng.uniform(-bound, bound, shape).astype(was.dtype)
        for name in self.reshapes:
            new[name] = np.where(constants[name] == self.classes, num_classes, constants[name])
        return new


def find_head(graph: Graph, output: str) -> Head:
    """Return the head that the first output comes from.

    Raises:
        InputError: if there is none that can be replaced.
    """
    reshapes: list[str] = []
    bias: Value | None = None
    node = graph.outputs[0].node
    while node is not None:
        if node.op.name in ("matmul", "conv"):
            return _head(graph, node, bias, tuple(reshapes))
        if node.op.name not in PASS_THROUGH:
            break
        if node.op.name == "add":
            bias = bias or next((s for a in node.args if (s := _state(a)) is not None), None)
        reshapes += _constants_of(node)
        node = _data_input(node)
    at = f"{node.name!r} ({getattr(node.source, 'op_type', node.op.name)})" if node is not None else "an input"
    raise InputError(
        f"replace_head: output {output!r} leads back to {at}, not to a Gemm, MatMul or Conv whose weight is a parameter"
    )


def _data_input(node: Node) -> Node | None:
    for a in node.args:
        if isinstance(a, Value) and _state(a) is None and a.node is not None:
            return a.node
    return None


def _state(a: Any) -> Value | None:
    """Return the state entry that an argument is, behind transposes and the like."""
    while isinstance(a, Value):
        if a.name in a.graph.state and a.node is None:
            return a
        if a.node is None or a.node.op.name not in WRAPPERS:
            return None
        a = a.node.args[0]
    return None


def _constants_of(node: Node) -> Iterator[str]:
    source = getattr(node.source, "proto", None)
    if node.op.name == "reshape" and source is not None and len(source.input) > 1:
        yield source.input[1]


def _head(graph: Graph, node: Node, bias: Value | None, reshapes: tuple[str, ...]) -> Head:
    operand = node.args[1]
    weight = _state(operand)
    if weight is None:
        raise InputError(f"replace_head: the weight of {node.name!r} is computed, not a parameter of the file")
    readers = [n for n in graph.nodes if any(v is weight for v in n.inputs())]
    if len(readers) > 1:
        raise InputError(f"replace_head: {weight.name!r} is shared by {[n.name for n in readers]}")
    shape = tuple(int(d) for d in weight.shape)
    if node.op.name == "conv":
        if any(k != 1 for k in shape[2:]):
            raise InputError(f"replace_head: the last layer {node.name!r} is a {shape[2]}x{shape[-1]} Conv, not a head")
        axis = 0
    else:
        axis = _class_axis(operand, weight)
    classes = shape[axis]
    if bias is not None and classes not in tuple(bias.shape):
        bias = None
    kept = tuple(r for r in reshapes if classes in _ints(graph, r))
    return Head(weight.name, bias.name if bias is not None else None, axis, classes, node.name, kept)


def _ints(graph: Graph, name: str) -> tuple[int, ...]:
    for node in graph.nodes:
        if node.op.name == "reshape" and name in getattr(getattr(node.source, "proto", None), "input", ()):
            return tuple(d for d in node.attrs["shape"] if isinstance(d, int))
    return ()


def _class_axis(operand: Any, weight: Value) -> int:
    """Return which axis of the weight ends up as the last axis of the MatMul's right operand."""
    axis = operand.ndim - 1
    while operand is not weight:
        node = operand.node
        if node.op.name == "transpose":
            perm = node.attrs["perm"] or tuple(reversed(range(operand.ndim)))
            axis = perm[axis]
        elif node.op.name == "reshape":
            raise InputError(f"replace_head: the weight {weight.name!r} is reshaped before it is used")
        operand = node.args[0]
    return int(axis)
