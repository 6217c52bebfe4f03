"""Express sizes that only run time knows by the sizes of the inputs, where samples agree on how.

`mask[:, :n]` has min(n, 1024) columns, and what it is added to has n; an upsampled map has 2 ceil(h / 32) rows, the
one it is added to ceil(h / 16). For inference these are two sizes, for every call that works they are one. The pass
infers the graph for several sample sizes of the inputs (primes, multiples of 64, small numbers: what fits the whole
graph first), and gives one name to all sizes that agree in all of them.

The result is an *assumption*: who runs the graph must infer its types for the sizes at hand before
(`compiled.program`), and run it otherwise where they differ. Refused: symbols that hang on data (NonZero), and nodes
that cannot be inferred for the samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ...ops import dims
from ...ops.dims import Dim, DimLike
from ...ops.errors import OnnxGradError
from ...ops.types import TensorType
from ..graph.graph import Graph, Value
from .rewriting import PassResult, has_graph, rebuild

SAMPLES = (
    (11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53),
    tuple(64 * n for n in (2, 3, 5, 7, 11, 13)),
    (2, 3, 5, 7, 4, 6),
)
"""Sizes to try, until some fit the whole graph; else those that fit the most of it."""


def resolve_symbols(graph: Graph) -> PassResult:
    """Replace symbols that first appear inside the graph by expressions over those of its inputs."""
    known = {s for v in graph.entries for s in _symbols(v)}
    if not known or not _inside(graph) - known:
        return PassResult(graph, 0)
    names = sorted(known)
    tried = []
    for sizes in SAMPLES:
        samples = [{s: sizes[(i + 3 * k) % len(sizes)] for i, s in enumerate(names)} for k in range(3)]
        seen = [_observed(graph, env) for env in samples]
        failures = sum(count for _, count in seen)
        tried.append((failures, samples, [found for found, _ in seen]))
        if not failures:
            break
    _, samples, values = min(tried, key=lambda t: t[0])
    named = _named(graph, samples, values, names, known)
    return PassResult(_substituted(graph, named), len(named)) if named else PassResult(graph, 0)


def _inside(graph: Graph) -> set[str]:
    return {s for node in graph.nodes for v in node.outputs for s in _symbols(v)}


def _named(
    graph: Graph, samples: Sequence[Mapping[str, int]], seen: Sequence[Mapping[str, int]], names: Sequence[str],
    known: set[str],
) -> dict[DimLike, DimLike]:  # fmt: skip
    """Return for each size another that agrees with it in all samples and is made of the inputs' symbols."""
    first: dict[tuple[int, ...], DimLike] = {tuple(env[s] for env in samples): Dim.symbol(s) for s in reversed(names)}
    named: dict[DimLike, DimLike] = {}
    for node in graph.nodes:
        for v in node.outputs:
            t = v.type
            if not isinstance(t, TensorType):
                continue
            for d in (*(t.known_shape or ()), *(t.contents or ())):
                if not isinstance(d, Dim) or d in named or not all(s in found for found in seen for s in d.symbols()):
                    continue
                values = tuple(d.evaluate(found) for found in seen)
                if values not in first:
                    made = d if all(s in known for s in d.symbols()) else _formed(values, samples, names)
                    if made is None:
                        continue
                    first[values] = made
                if first[values] != d:
                    named[d] = first[values]
    return named


def _symbols(v: Value) -> Iterator[str]:
    if isinstance(v.type, TensorType):
        yield from dims.symbols_in((v.type.known_shape or (), v.type.contents or ()))


def _observed(graph: Graph, env: Mapping[str, int]) -> tuple[dict[str, int], int]:
    """Return what each bare symbol inside the graph is for these sizes of the inputs, and how many nodes do not fit."""
    found: dict[str, int] = dict(env)
    failures = 0
    types: dict[int, TensorType] = {}
    for v in graph.entries:
        if isinstance(v.type, TensorType) and v.type.known_shape is not None:
            types[id(v)] = TensorType(v.dtype, dims.bind(v.type.known_shape, env))

    def concrete(a: Any) -> Any:
        if isinstance(a, Value):
            return a.type if a.is_constant else types[id(a)]
        return [concrete(v) for v in a] if isinstance(a, list) else a

    for node in graph.nodes:
        if any(map(has_graph, node.attrs.values())):
            continue
        try:
            attrs = {k: dims.bind(a, found) for k, a in node.attrs.items()}
            made = node.op.infer_types(*map(concrete, node.args), **attrs)
        except KeyError:
            continue  # it reads what could not be inferred
        except OnnxGradError:
            failures += 1
            continue
        for v, t in zip(node.outputs, made if isinstance(made, tuple) else (made,), strict=True):
            if isinstance(t, TensorType) and t.known_shape is not None:
                types[id(v)] = t
                failures += 0 in t.known_shape
                _note(v, t, found)
    return found, failures


def _note(v: Value, t: TensorType, found: dict[str, int]) -> None:
    declared = v.type
    if not isinstance(declared, TensorType) or declared.known_shape is None:
        return
    pairs = [*zip(declared.known_shape, t.known_shape or (), strict=False)]
    if declared.contents is not None and t.contents is not None:
        pairs += zip(declared.contents, t.contents, strict=False)
    for d, n in pairs:
        if isinstance(d, Dim) and d.name is not None and isinstance(n, int):
            found.setdefault(d.name, n)


def _formed(values: Sequence[int], samples: Sequence[Mapping[str, int]], names: Sequence[str]) -> DimLike | None:
    """Return the constant, or the affine form of an input's size, that has these values in the samples."""
    if len(set(values)) == 1:
        return values[0]
    for s in names:
        xs = [env[s] for env in samples]
        if xs[1] == xs[0]:
            continue
        slope, rest = divmod(values[1] - values[0], xs[1] - xs[0])
        offset = values[0] - slope * xs[0]
        if not rest and all(slope * x + offset == v for x, v in zip(xs, values, strict=True)):
            return slope * Dim.symbol(s) + offset
    return None


def _substituted(graph: Graph, named: Mapping[DimLike, DimLike]) -> Graph:
    bare = {d.name: e for d, e in named.items() if isinstance(d, Dim) and d.name is not None}
    new = rebuild(graph)
    for node in new.nodes:
        node.attrs = {k: a if has_graph(a) else dims.substitute(a, bare) for k, a in node.attrs.items()}
        for v in node.outputs:
            t = v.type
            if isinstance(t, TensorType) and t.known_shape is not None:
                contents = (
                    None if t.contents is None else tuple(named.get(d, dims.substitute(d, bare)) for d in t.contents)
                )
                shape = tuple(named.get(d, dims.substitute(d, bare)) for d in t.known_shape)
                v.type = replace(t, known_shape=shape, contents=contents)
    return new
