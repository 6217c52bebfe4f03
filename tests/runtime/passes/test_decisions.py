"""Which conditions small integer inputs decide, and the graph in which the branch is taken, with open sizes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from onnxgrad.ops import control, create, layout, pointwise as pw, reduce
from onnxgrad.ops.dims import Dim
from onnxgrad.ops.types import TensorType
from onnxgrad.runtime.graph.body import Body
from onnxgrad.runtime.graph.execute import run_graph
from onnxgrad.runtime.graph.graph import Graph, Value
from onnxgrad.runtime.passes.decisions import SMALL, find_decisions
from onnxgrad.runtime.passes.specialize import specialize

F32, I64 = np.dtype(np.float32), np.dtype(np.int64)
N = Dim.symbol("n")


def choose(g: Graph, condition: Any, x: Value, then: Callable[[Any], Any], orelse: Callable[[Any], Any]) -> Value:
    """Add an If over a condition whose branches apply these to x."""
    bodies = []
    for function in (then, orelse):
        body = g.body("branch")
        with body.building():
            body.outputs = [function(x)]
        bodies.append(body)
    captures = [[outer for outer, _ in b.captures] for b in bodies]
    then_, orelse_ = map(Body, bodies)
    value: Value = control.if_(
        condition, *captures[0], *captures[1], then=then_, orelse=orelse_, split=len(captures[0])
    )[0]
    return value


def graph(condition: Callable[[Any, Any, Any], Any], rate_type: TensorType | None = None) -> Graph:
    """If the condition of (x, rate, weight) holds, two copies of x behind each other; else x; then that plus 1."""
    g = Graph("test")
    x = g.input("x", TensorType(F32, (N, 3)))
    rate = g.input("rate", rate_type or TensorType(I64, ()))
    with g.building():
        w = g.add_state("w", TensorType(F32, ()))
        y = choose(g, condition(x, rate, w), x, lambda v: layout.concat(v, v, axis=0), lambda v: pw.neg(v))
        g.outputs = [pw.add(layout.reshape(y, shape=(3, -1)), 1.0)]
    return g


def equal(a: Any, n: int) -> Any:
    return pw.equal(a, np.array(n, np.int64))


def is_two(x: Any) -> Any:
    return layout.squeeze(equal(create.shape_of(x, start=0, end=1), 2), axes=(0,))


DECIDED: dict[str, tuple[Callable[[Any, Any, Any], Any], Callable[[int, int], bool]]] = {
    "an input": (lambda x, r, w: equal(r, 16000), lambda n, r: r == 16000),
    "arithmetic": (lambda x, r, w: pw.logical_not(equal(pw.mod(r, np.array(100)), 0)), lambda n, r: r % 100 != 0),
    "as a float": (lambda x, r, w: pw.greater(pw.cast(r, dtype="float32"), 9.5), lambda n, r: r > 9),
    "with a size": (lambda x, r, w: pw.logical_and(equal(r, 16000), is_two(x)), lambda n, r: r == 16000 and n == 2),
}
OPEN: dict[str, Callable[[Any, Any, Any], Any]] = {
    "data": lambda x, r, w: pw.greater(reduce.sum_(x, axes=(0, 1)), 0.0),
    "data beside it": lambda x, r, w: pw.logical_or(equal(r, 16000), pw.greater(reduce.sum_(x, axes=(0, 1)), 0.0)),
    "a weight": lambda x, r, w: pw.greater(pw.cast(r, dtype="float32"), w),
    "sizes alone": lambda x, r, w: is_two(x),
}


@pytest.mark.parametrize("name", DECIDED)
@pytest.mark.parametrize("taken", [True, False])
def test_conditions_over_small_inputs_are_known_before(name: str, taken: bool) -> None:
    condition, expected = DECIDED[name]
    g = graph(condition)
    found = find_decisions(g, g.inputs)
    assert found is not None
    assert found.values == (1,)
    assert len(found.nodes) == 1
    for n, rate in [(2, 16000), (3, 16000), (2, 8000), (2, 7), (5, 16001)]:
        told = [np.array([n], np.int64) for _ in found.told]
        (out,) = run_graph(found.graph, [np.array(rate, np.int64), *told])
        assert bool(np.asarray(out).item()) == expected(n, rate)
    special = specialize(g, taken={found.nodes[0]: taken})
    special.verify()
    assert "if" not in [node.op.name for node in special.nodes]
    for n in (1, 4):
        x = np.random.default_rng(n).standard_normal((n, 3)).astype(np.float32)
        (y,) = run_graph(special, [x, np.array(16000, np.int64), np.array(1, np.float32)])
        wanted = np.concatenate([x, x]) if taken else -x
        np.testing.assert_array_equal(y, wanted.reshape(3, -1) + np.float32(1))


def test_sizes_behind_a_branch_are_those_of_the_branch() -> None:
    g = graph(DECIDED["an input"][0])
    (node,) = find_decisions(g, g.inputs).nodes  # type: ignore[union-attr]
    assert specialize(g, taken={node: True}).outputs[0].shape == (3, 2 * N)
    assert specialize(g, taken={node: False}).outputs[0].shape == (3, N)


@pytest.mark.parametrize("name", OPEN)
def test_what_is_computed_or_a_weight_decides_nothing_before(name: str) -> None:
    g = graph(OPEN[name])
    assert find_decisions(g, g.inputs) is None


@pytest.mark.parametrize(
    "kind", [TensorType(F32, ()), TensorType(I64, (SMALL + 1,)), TensorType(I64, (1, 1)), TensorType(I64, None)]
)
def test_only_a_few_integers_are_asked(kind: TensorType) -> None:
    def condition(x: Any, r: Any, w: Any) -> Any:
        return equal(reduce.max_(pw.cast(r, dtype="int64")), 3)

    g = graph(condition, kind)
    assert find_decisions(g, g.inputs) is None


def test_a_body_that_stays_calls_the_sizes_as_the_graph_around_it_does_now() -> None:
    """What is behind the branch is expanded, in a loop, to a size that only the branch says."""
    g = Graph("test")
    x = g.input("x", TensorType(F32, (N,)))
    rate = g.input("rate", TensorType(I64, ()))
    times = g.input("times", TensorType(I64, ()))
    with g.building():
        y = choose(g, equal(rate, 1), x, lambda v: layout.concat(v, v, axis=0), lambda v: pw.neg(v))
        body = g.body("body")
        i, go = body.input("i", TensorType(I64, ())), body.input("go", TensorType(np.dtype(bool), ()))
        v = body.input("v", y.type)
        with body.building():
            ones = layout.expand(body.constant(np.array([1], np.float32)), shape=y.shape)
            body.outputs = [go, pw.add(v, ones)]
        del i
        g.outputs = [control.loop(times, None, y, *[o for o, _ in body.captures], body=Body(body), carried=1)[0]]
    (node,) = find_decisions(g, g.inputs).nodes  # type: ignore[union-attr]
    a = np.arange(4, dtype=np.float32)
    for taken in (True, False):
        special = specialize(g, taken={node: taken})
        (out,) = run_graph(special, [a, np.array(1), np.array(3)])
        np.testing.assert_array_equal(out, (np.concatenate([a, a]) if taken else -a) + 3)
