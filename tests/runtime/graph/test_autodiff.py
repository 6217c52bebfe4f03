"""Gradients through control flow on a graph, against the tape."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnxgrad.ops import control, pointwise as pw, reduce
from onnxgrad.ops.errors import AutogradError
from onnxgrad.ops.types import TensorType
from onnxgrad.runtime.autograd.tape import grad
from onnxgrad.runtime.graph.autodiff import differentiate
from onnxgrad.runtime.graph.execute import run_graph
from onnxgrad.runtime.graph.graph import Graph
from onnxgrad.runtime.tensor.tensor import Tensor

from ...ops.bodies import body

F = "float64"
X, Y = np.random.default_rng(0).standard_normal((2, 2, 3))
N = np.arange(6).reshape(2, 3)

bent = body(lambda x, y: (pw.mul(pw.sin(x), pw.mul(y, y)), pw.add(x, 1.0)), (F, 2, 3), (F, 2, 3))
counted = body(lambda y, n: (pw.mul(y, pw.cos(y)), pw.mul(pw.exp(y), pw.cast(n, dtype=F))), (F, 2, 3), ("int64", 2, 3))


def inner(x: Any, y: Any) -> tuple[Any, ...]:
    small = pw.less(reduce.sum_(pw.mul(x, x)), 4.0)
    return control.if_(small, x, y, y, x, then=bent, orelse=turned, split=2)


turned = body(lambda y, x: (pw.cos(pw.mul(x, y)), y), (F, 2, 3), (F, 2, 3))
nested = body(inner, (F, 2, 3), (F, 2, 3))


def model(then: Any, args: Any, second: bool = True) -> Graph:
    graph = Graph("model")
    with graph.building():
        p = graph.input("p", TensorType(np.dtype(bool), ()))
        x, y = (graph.input(name, TensorType(np.dtype(F), (2, 3))) for name in "xy")
        n = graph.input("n", TensorType(np.dtype(np.int64), (2, 3)))
        a, b = control.if_(p, *args(x, y), y, n, then=then, orelse=counted, split=2)
        graph.outputs = [reduce.sum_(pw.mul(a, pw.sin(b)) if second else pw.sin(a))]
    return graph


MODELS = {
    "both results": model(bent, lambda x, y: (x, y)),
    "one result": model(bent, lambda x, y: (pw.mul(x, 2.0), x), second=False),
    "one in another": model(nested, lambda x, y: (x, y)),
}


def on_tape(graph: Graph, choice: bool) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return the gradients by x and y, and those of the sum of the latter."""
    x, y = Tensor(X, requires_grad=True), Tensor(Y, requires_grad=True)
    (out,) = run_graph(graph, [Tensor(np.array(choice)), x, y, Tensor(N)])
    first = grad([out], [x, y], create_graph=True, materialize_grads=True, allow_unused=True)
    twice = [Tensor(np.zeros((2, 3)))] * 2
    if first[1].requires_grad:
        twice = list(grad([first[1].sum()], [x, y], materialize_grads=True, allow_unused=True))
    return [g.detach().numpy() for g in first], [g.detach().numpy() for g in twice]


@pytest.mark.parametrize("choice", [True, False])
@pytest.mark.parametrize("name", sorted(MODELS))
def test_if(name: str, choice: bool) -> None:
    graph = MODELS[name]
    first, twice = on_tape(graph, choice)
    once = differentiate(graph, ["x", "y"])
    feeds = [np.array(choice), X, Y, N]
    _, *found = run_graph(once, feeds)
    for f, w in zip(found, first, strict=True):
        np.testing.assert_allclose(f, w, rtol=1e-12)
    *_, by_x, by_y = run_graph(differentiate(once, ["x", "y"], output=2), feeds)
    for f, w in zip((by_x, by_y), twice, strict=True):
        np.testing.assert_allclose(f, w, rtol=1e-12)


def test_a_loop_is_refused_with_what_to_do() -> None:
    step = body(lambda i, c, x: (c, pw.sin(x)), ("int64",), ("bool",), (F, 2, 3))
    graph = Graph("looped")
    with graph.building():
        x = graph.input("x", TensorType(np.dtype(F), (2, 3)))
        (y,) = control.loop(np.array(3), None, x, body=step, carried=1)
        graph.outputs = [reduce.sum_(y)]
    with pytest.raises(AutogradError, match="differentiate on the tape"):
        differentiate(graph, ["x"])
