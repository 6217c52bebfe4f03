"""A graph for certain elements of some inputs: what reads these inputs reads constants.

A sampling rate or a shape that is fed decides branches and sizes behind it. For given elements they are known.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ...ops.types import Array, TensorType
from ..graph.graph import Graph, Value
from .decisions import SMALL
from .rewriting import rebuild


def is_small(array: Any) -> bool:
    """Whether an array of the host is a few integers or truth values."""
    return type(array) is np.ndarray and array.dtype.kind in "iub" and array.size <= SMALL


def deciding_inputs(graph: Graph) -> list[int]:
    """Return the inputs, by number, that sizes or types of a graph hang on by integers and truth values alone."""
    numbers = {id(v): i for i, v in enumerate(graph.inputs)}
    found: set[int] = set()
    seen: set[int] = set()

    def walk(v: Value) -> None:
        if id(v) in seen or not isinstance(v.type, TensorType) or v.type.dtype.kind not in "iub":
            return
        seen.add(id(v))
        if id(v) in numbers:
            found.add(numbers[id(v)])
        for before in () if v.node is None else v.node.inputs():
            walk(before)

    for node in graph.nodes:
        if not all(map(_is_known, node.outputs)) and all(map(_is_known, node.inputs())):
            for v in node.inputs():
                walk(v)
    return sorted(found)


def _is_known(v: Value) -> bool:
    shape = v.type.known_shape if isinstance(v.type, TensorType) else None
    return shape is not None and all(isinstance(d, int) for d in shape)


def pin_inputs(graph: Graph, arrays: Mapping[int, Array]) -> Graph:
    """Return the graph with the same inputs, of which some are not read.

    Args:
        graph: what to change.
        arrays: what inputs hold, by their number.
    """
    new = rebuild(graph)
    constants = {id(new.inputs[i]): new.constant(a) for i, a in arrays.items()}

    def place(a: Any) -> Any:
        if isinstance(a, list):
            return [place(v) for v in a]
        return constants.get(id(a), a) if isinstance(a, Value) else a

    for node in new.nodes:
        node.args = tuple(place(a) for a in node.args)
    new.outputs = [place(v) for v in new.outputs]
    new.updates = {k: place(v) for k, v in new.updates.items()}
    return new
