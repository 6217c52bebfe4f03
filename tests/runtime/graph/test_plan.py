"""Graph, passes, plan and executor."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import pytest

from onnxgrad.ops import conv, layout, matmul, pointwise as pw, reduce
from onnxgrad.ops.create import full_like
from onnxgrad.ops.dims import Dim
from onnxgrad.ops.errors import InvalidGraphError, OnnxGradError
from onnxgrad.ops.types import TensorType
from onnxgrad.ops.window import Window
from onnxgrad.runtime.autograd.tape import grad
from onnxgrad.runtime.graph.autodiff import differentiate
from onnxgrad.runtime.graph.contents import dims_of
from onnxgrad.runtime.graph.execute import execute, plan_of, run_graph
from onnxgrad.runtime.graph.graph import Graph
from onnxgrad.runtime.passes.convert_values import widen_half
from onnxgrad.runtime.passes.drop_dead import drop_dead
from onnxgrad.runtime.passes.fold_constants import fold_constants
from onnxgrad.runtime.passes.infer_shapes import infer_shapes
from onnxgrad.runtime.passes.rewriting import PassResult, run_passes
from onnxgrad.runtime.tensor.tensor import Tensor

F64, F32 = np.dtype(np.float64), np.dtype(np.float32)
n = Dim.symbol("n")
rng = np.random.default_rng(0)


def small_net() -> Graph:
    """Return conv, relu, flatten, matmul over a symbolic batch."""
    g = Graph("net")
    x = g.input("x", TensorType(F64, (n, 2, 6, 6)))
    w, v = g.add_state("w", TensorType(F64, (3, 2, 3, 3))), g.add_state("v", TensorType(F64, (48, 5)))
    with g.building():
        y = pw.relu(conv.conv(x, w, win=Window((1, 1), ((0, 0), (0, 0)), (1, 1))))
        g.outputs = [matmul.matmul(layout.reshape(y, shape=(n, 48)), v)]
    return g


def feeds(batch: int) -> list[Any]:
    return [rng.standard_normal(s) for s in ((batch, 2, 6, 6), (3, 2, 3, 3), (48, 5))]


def test_symbols_stay_in_types_and_are_bound_by_the_inputs() -> None:
    g = small_net()
    assert g.outputs[0].shape == (n, 5)
    plan = plan_of(g)
    for batch in (1, 4):
        assert run_graph(g, feeds(batch))[0].shape == (batch, 5)
    assert plan_of(g) is plan


def test_plan_reads_as_text() -> None:
    text = str(plan_of(small_net()))
    assert "conv(" in text
    assert "free" in text
    assert "float64(n, 5)" in text


def test_values_are_let_go_after_their_last_reader() -> None:
    class Watched(np.ndarray):
        pass

    g = Graph()
    x = g.input("x", TensorType(F64, (1000,)))
    with g.building():
        a = pw.exp(x)
        b = pw.neg(a)
        c = pw.add(b, b)
        g.outputs = [c]
    alive: list[Any] = []
    refs: list[Any] = []

    def watch(value: Any, out: Any) -> Any:
        out = out.view(Watched)
        alive.append(sum(r() is not None for r in refs))
        refs.append(weakref.ref(out))
        return out

    execute(plan_of(g), [np.ones(1000)], watch=watch)
    assert max(alive) <= 1


def test_verify_names_what_is_used_before_it_is_defined() -> None:
    g = small_net()
    g.nodes.reverse()
    with pytest.raises(InvalidGraphError, match="before it is defined"):
        g.verify()


def test_drop_dead_and_fold() -> None:
    g = Graph()
    x = g.input("x", TensorType(F64, (n, 3)))
    with g.building():
        two = pw.add(g.constant(np.ones(3)), g.constant(np.ones(3)))
        pw.exp(x)
        g.outputs = [pw.mul(x, two)]
    result = run_passes(g, [fold_constants, drop_dead])
    assert [node.op.name for node in result.graph.nodes] == ["mul"]
    assert len(g.nodes) == 3
    a = rng.standard_normal((2, 3))
    np.testing.assert_array_equal(run_graph(result.graph, [a])[0], 2 * a)


def test_nothing_that_a_parameter_enters_is_folded() -> None:
    g = Graph()
    w = g.add_state("w", TensorType(F64, (3,)))
    with g.building():
        g.outputs = [pw.mul(w, g.constant(np.full(3, 2.0)))]
    assert fold_constants(g).changed == 0


def test_small_tensors_of_one_number_are_folded() -> None:
    g = Graph()
    x = g.input("x", TensorType(F64, (n, 3)))
    with g.building():
        blank, large = (full_like(x, shape=shape, value=2.0) for shape in ((3,), (1000, 1000)))
        g.outputs = [pw.mul(pw.cast(blank, dtype="float64"), x), large, full_like(x, shape=(n,), value=1.0)]
    result = run_passes(g, [fold_constants, drop_dead])
    assert [node.op.name for node in result.graph.nodes] == ["full_like", "mul", "full_like"]
    a = rng.standard_normal((2, 3))
    np.testing.assert_array_equal(run_graph(result.graph, [a])[0], 2 * a)


def test_a_broken_pass_is_named_and_can_be_bisected() -> None:
    def break_it(graph: Graph) -> PassResult:
        broken = small_net()
        broken.nodes.reverse()
        return PassResult(broken, 1)

    with pytest.raises(InvalidGraphError, match="break_it"):
        run_passes(small_net(), [drop_dead, break_it])
    run_passes(small_net(), [drop_dead, break_it], stop_after=1)


def test_shapes_are_inferred_again_for_new_inputs() -> None:
    g = infer_shapes(small_net(), {"x": TensorType(F64, (7, 2, 6, 6))}).graph
    assert g.outputs[0].shape[1] == 5


def test_half_is_widened() -> None:
    g = Graph()
    x = g.input("x", TensorType(np.dtype(np.float16), (n, 3)))
    with g.building():
        g.outputs = [pw.cast(pw.mul(x, g.constant(np.ones(3, np.float16))), dtype="float16")]
    wide = widen_half(g).graph
    assert wide.outputs[0].dtype == F32
    assert run_graph(wide, [np.ones((2, 3), np.float32)])[0].dtype == F32
    assert g.outputs[0].dtype == np.float16


def test_contents_known_at_run_time_bind_symbols() -> None:
    g = Graph()
    x = g.input("x", TensorType(F64, (n, 6)))
    s = g.input("shape", TensorType(np.dtype(np.int64), (2,)))
    with g.building():
        g.outputs = [layout.reshape(x, shape=dims_of(s))]
    a = rng.standard_normal((4, 6))
    np.testing.assert_array_equal(run_graph(g, [a, np.array([8, 3])])[0], a.reshape(8, 3))


def test_errors_say_where_and_with_what() -> None:
    g = small_net()
    bad = feeds(2)
    bad[0] = rng.standard_normal((2, 3, 6, 6))
    with pytest.raises(OnnxGradError, match=r"conv\(float64\(2, 3, 6, 6\)"):
        run_graph(g, bad)


def test_gradients_on_the_graph_equal_those_on_the_tape() -> None:
    g = small_net()
    backward = differentiate(g, ["x", "w", "v"])
    values = feeds(3)
    found = run_graph(backward, values)
    tensors = [Tensor(v, requires_grad=True) for v in values]
    (y,) = run_graph(g, tensors)
    wanted = grad(y, tensors, Tensor(np.ones(y.shape)))
    np.testing.assert_allclose(found[0], y.detach().numpy())
    for f, w in zip(found[1:], wanted, strict=True):
        np.testing.assert_allclose(f, w.numpy(), rtol=1e-12, atol=1e-12)


def test_gradients_of_gradients_on_the_graph() -> None:
    g = Graph()
    x = g.input("x", TensorType(F64, (n,)))
    with g.building():
        g.outputs = [reduce.sum_to(pw.exp(pw.mul(x, x)), shape=())]
    first = differentiate(g, ["x"])
    second = differentiate(first, ["x"], output=1)
    a = rng.standard_normal(4)
    e = np.exp(a * a)
    np.testing.assert_allclose(run_graph(second, [a])[-1], 2 * e + 4 * a * a * e)


def test_compositions_are_differentiated_on_the_graph() -> None:
    from onnxgrad.ops import loss

    g = Graph()
    x = g.input("x", TensorType(F64, (n, 5)))
    labels = g.input("labels", TensorType(np.dtype(np.int64), (n,)))
    with g.building():
        g.outputs = [loss.softmax_cross_entropy(x, labels)]
    a, y = rng.standard_normal((3, 5)), np.array([0, 4, 2])
    e = np.exp(a - a.max(1, keepdims=True))
    p = e / e.sum(1, keepdims=True)
    found = run_graph(differentiate(g, ["x"]), [a, y])
    np.testing.assert_allclose(found[0], -np.log(p[range(3), y]).mean())
    np.testing.assert_allclose(found[1], (p - np.eye(5)[y]) / 3, atol=1e-12)
