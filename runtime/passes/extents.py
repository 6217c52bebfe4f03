"""What is known of sizes that only run time knows: which ones a broadcast absorbed, and how large a slice can be."""

from __future__ import annotations

from typing import Any

from ...ops import layout, pointwise as pw
from ...ops.dims import Dim, DimLike, symbols_in
from ...ops.pointwise import Pointwise
from ...ops.types import TensorType
from ..graph.graph import Graph, Value
from .matching import changes_nothing, shape_of

DEPTH = 8
"""How many nodes back a bound is looked for."""


def absorbed_sizes(graph: Graph) -> dict[str, set[DimLike]]:
    """Return for each symbol that a broadcast made the sizes that it was made of; broadcasting it with them is it."""
    found: dict[str, set[DimLike]] = {}
    for node in graph.nodes:
        if not isinstance(node.op, Pointwise) and node.op is not layout.expand:
            continue
        out = shape_of(node.outputs[0]) or ()
        fresh = [(len(out) - i, d) for i, d in enumerate(out) if isinstance(d, Dim) and d.name is not None]
        shapes = [shape_of(a) for a in node.args]
        shapes += [node.attrs["shape"]] if node.op is layout.expand else []
        for back, dim in fresh:
            met = {s[-back] for s in shapes if s is not None and len(s) >= back}
            if dim not in met:
                name = dim.name
                assert name is not None
                below = found.setdefault(name, set())
                for d in met:
                    below.add(d)
                    below |= found.get(d.name or "", set()) if isinstance(d, Dim) else set()
    return found


def mentioned_symbols(graph: Graph) -> set[str]:
    """Return the symbols that attributes mention, so that some value has to bind them."""
    return {s for node in graph.nodes for a in node.attrs.values() for s in symbols_in(a)}


def bound_symbols(graph: Graph) -> set[str]:
    """Return the symbols that an entry or a node of the graph binds, which a new attribute may mention."""
    values = (v.type for v in graph.values())
    sizes = (d for t in values if isinstance(t, TensorType) for d in (*(t.known_shape or ()), *(t.contents or ())))
    return {d.name for d in sizes if isinstance(d, Dim) and d.name is not None}


def stands_for(new: Value, old: Value, mentioned: set[str]) -> bool:
    """Whether an existing value can take the place of another: no attribute mentions a symbol of that one alone."""
    if new.type == old.type:
        return True
    a, b = shape_of(new), shape_of(old)
    if a is None or b is None or new.dtype != old.dtype or len(a) != len(b):
        return False
    return all(p == q or not mentioned.intersection(symbols_in(q)) for p, q in zip(a, b, strict=True))


def stays(a: Any, size: DimLike, axis: int, rank: int, absorbed: dict[str, set[DimLike]]) -> bool:
    """Whether an argument that is broadcast to `rank` axes leaves an axis the size that it has."""
    shape = shape_of(a)
    if shape is None or len(shape) > rank:
        return False
    at = axis - rank + len(shape)
    if at < 0 or shape[at] == 1 or shape[at] == size:
        return True
    if isinstance(size, Dim) and shape[at] in absorbed.get(size.name or "", ()):
        return True
    return _at_most(a, at, size, DEPTH)


def _at_most(a: Any, axis: int, size: DimLike, depth: int) -> bool:
    """Whether an axis of a value can never be larger than a size: it was sliced so."""
    shape = shape_of(a)
    if shape is None:
        return False
    if shape[axis] == 1 or shape[axis] == size:
        return True
    node = a.node if isinstance(a, Value) else None
    if node is None or depth == 0:
        return False
    if node.op is layout.slice_:
        steps = zip(*(node.attrs[n] for n in ("starts", "stops", "steps", "axes")), strict=True)
        for start, stop, step, at in steps:
            if at == axis and step == 1 and stop - start == size:
                return True
        return _at_most(node.args[0], axis, size, depth - 1)
    if node.op is layout.unsqueeze:
        new = {i % len(shape) for i in node.attrs["axes"]}
        return _at_most(node.args[0], axis - sum(i < axis for i in new), size, depth - 1)
    if node.op is pw.cast or changes_nothing(node):
        return _at_most(node.args[0], axis, size, depth - 1)
    if isinstance(node.op, Pointwise):
        for v in node.args:
            at = axis - len(shape) + len(shape_of(v) or ())
            if at >= 0 and not _at_most(v, at, size, depth - 1):
                return False
        return True
    return False
