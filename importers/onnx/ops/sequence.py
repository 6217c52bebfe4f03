"""Bindings: sequences and optionals."""

from __future__ import annotations

from typing import Any

from ....ops import sequence as sequence_ops
from ....ops.errors import UnsupportedAttributeError
from ....ops.random import key_sequence
from ....ops.types import SequenceType, TensorType
from ....runtime.graph.graph import current_graph
from ..node import NodeView
from ..registry import binds
from ..tensors import dtype_of
from ..types import value_type
from .control import carry_key, outer


def _alone(op: Any, **attrs: Any) -> Any:
    """Add an op that has no arguments to the graph that is being built."""
    graph = current_graph()
    assert graph is not None
    return graph.add(op, (), attrs)


@binds("SequenceEmpty", 11)
def sequence_empty(node: NodeView) -> Any:
    return _alone(sequence_ops.sequence_empty, element=TensorType(dtype_of(node.attr("dtype", 1)), None))


@binds("SequenceConstruct", 11)
def sequence_construct(node: NodeView, *xs: Any) -> Any:
    return sequence_ops.sequence_construct(*xs)


@binds("SequenceAt", 11)
def sequence_at(node: NodeView, xs: Any, position: Any) -> Any:
    return sequence_ops.sequence_at(xs, position)


@binds("SequenceInsert", 11)
def sequence_insert(node: NodeView, xs: Any, x: Any, position: Any = None) -> Any:
    return sequence_ops.sequence_insert(xs, x, position)


@binds("SequenceErase", 11)
def sequence_erase(node: NodeView, xs: Any, position: Any = None) -> Any:
    return sequence_ops.sequence_erase(xs, position)


@binds("SequenceLength", 11)
def sequence_length(node: NodeView, xs: Any) -> Any:
    return sequence_ops.sequence_length(xs)


@binds("SplitToSequence", 11, 24)
def split_to_sequence(node: NodeView, x: Any, split: Any = None) -> Any:
    axis, keepdims = int(node.attr("axis", 0)), bool(node.attr("keepdims", 1))
    return sequence_ops.split_to_sequence(x, split, axis=axis, keepdims=keepdims)


@binds("ConcatFromSequence", 11)
def concat_from_sequence(node: NodeView, xs: Any) -> Any:
    axis, new_axis = int(node.attr("axis")), bool(node.attr("new_axis", 0))
    return sequence_ops.concat_from_sequence(xs, axis=axis, new_axis=new_axis)


@binds("SequenceMap", 17)
def sequence_map(node: NodeView, *xs: Any) -> Any:
    types = [x.type.element if isinstance(x.type, SequenceType) else x.type for x in xs]
    body = node.body("body", types)
    keys = [key_sequence(key, xs[0]) for key in carry_key(body, len(xs), None)]
    return sequence_ops.sequence_map(*xs, *keys, *outer(body), body=body, inputs=len(xs) + len(keys))


@binds("Optional", 15, 28)
def optional(node: NodeView, x: Any = None) -> Any:
    declared = node.attr("type")
    if x is not None:
        return sequence_ops.optional(x)
    if declared is None:
        raise UnsupportedAttributeError(f"{node}: an empty optional wants the attribute 'type'")
    return _alone(sequence_ops.optional, element=value_type(declared, None))


@binds("OptionalHasElement", 15, 18, 28)
def optional_has_element(node: NodeView, x: Any = None) -> Any:
    if x is None:
        return _alone(sequence_ops.optional_has_element)
    return sequence_ops.optional_has_element(x)


@binds("OptionalGetElement", 15, 18, 28)
def optional_get_element(node: NodeView, x: Any) -> Any:
    return sequence_ops.optional_get_element(x)
