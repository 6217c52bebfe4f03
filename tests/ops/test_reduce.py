"""Reductions, ranks and running sums: edges, and PyTorch as the oracle."""

from __future__ import annotations

import numpy as np
import pytest

from onnxgrad.ops.cumulative import cumprod
from onnxgrad.ops.dims import Dim
from onnxgrad.ops.errors import DTypeError, ShapeError
from onnxgrad.ops.rank import topk
from onnxgrad.ops.reduce import l2_norm, logsumexp, max_, mean, min_, prod, sum_
from onnxgrad.ops.types import TensorType, type_of
from onnxgrad.runtime.autograd import tape
from onnxgrad.runtime.autograd.gradcheck import check_grads
from onnxgrad.runtime.graph.autodiff import differentiate
from onnxgrad.runtime.graph.execute import run_graph
from onnxgrad.runtime.graph.graph import Graph
from onnxgrad.runtime.tensor.tensor import Tensor

from .case import rand

TIED = np.array([[1.0, 3.0, 3.0], [2.0, 2.0, 2.0]])
ZEROS = np.array([[2.0, 0.0, 3.0, -1.0], [0.0, 0.0, 5.0, 2.0], [1.5, 2.0, 0.5, -3.0]])


def gradient(f, x: np.ndarray) -> np.ndarray:
    t = Tensor(x, requires_grad=True)
    (g,) = tape.grad(f(t), [t], Tensor(np.ones_like(f(x))))
    return g.array


def test_ties_share_the_gradient() -> None:
    wanted = np.array([[0, 0.5, 0.5], [1 / 3, 1 / 3, 1 / 3]])
    np.testing.assert_allclose(gradient(lambda x: max_(x, axes=(1,)), TIED), wanted)
    np.testing.assert_allclose(gradient(lambda x: min_(x, axes=(1,)), -TIED), wanted)


def test_product_of_zeros_has_a_third_derivative() -> None:
    check_grads(lambda x: prod(x, axes=(1,)), [ZEROS], order=3)
    check_grads(lambda x: cumprod(x, axis=1), [ZEROS], order=3)


def test_nothing_to_reduce() -> None:
    x = np.zeros((2, 0), np.float32)
    np.testing.assert_array_equal(max_(x, axes=(1,)), np.full(2, -np.inf))
    np.testing.assert_array_equal(min_(x, axes=(1,)), np.full(2, np.inf))
    assert max_(np.zeros((0,), np.int8)) == -128
    assert not max_(np.zeros((0,), bool)) and min_(np.zeros((0,), bool))
    np.testing.assert_array_equal(prod(x, axes=(1,)), [1, 1])
    np.testing.assert_array_equal(logsumexp(x + 1, axes=(0,)), np.zeros(0))


def test_extreme_values() -> None:
    x = np.array([[-np.inf, -np.inf], [1e4, 1e4], [-1e4, np.inf], [0, np.nan]])
    np.testing.assert_allclose(logsumexp(x, axes=(1,)), [-np.inf, 1e4 + np.log(2), np.inf, np.nan])
    np.testing.assert_array_equal(gradient(lambda v: l2_norm(v, axes=(1,)), np.zeros((1, 2))), [[0, 0]])


def test_float16_rounds_once() -> None:
    x = np.full(4096, 1.001, np.float16)
    assert sum_(x) == np.float16(4096 * float(x[0])) and mean(x) == x[0]


def test_sizes_multiply_without_being_known() -> None:
    n = Dim.symbol("n")
    shape = TensorType(np.dtype(np.int64), (3,), (n, 4, 6))
    found = prod.infer_types(shape, axes=(0,), keepdims=True)
    assert found.contents == (24 * n,)
    assert sum_.infer_types(shape, axes=(0,), keepdims=True).contents == (n + 10,)


@pytest.mark.parametrize(
    "f", [lambda x: mean(x, axes=(0,)), lambda x: prod(x, axes=(0,)), lambda x: max_(x, axes=(0,))]
)
def test_reductions_of_unknown_sizes_are_differentiated_in_a_graph(f) -> None:
    graph = Graph("main")
    x = graph.input("x", TensorType(np.dtype(np.float64), (Dim.symbol("n"), 4)))
    with graph.building():
        graph.outputs = [f(x)]
    both = differentiate(graph, ["x"])
    for n in (3, 5):
        array = rand(n, 4)
        np.testing.assert_allclose(run_graph(both, [array])[1], gradient(f, array), rtol=1e-12)


@pytest.mark.parametrize("axes", [(3,), (0, 0), (-1, 2)])
def test_axes_are_checked(axes) -> None:
    with pytest.raises(ShapeError):
        sum_.infer_types(type_of(rand(2, 3, 4)), axes=axes)


def test_wrong_use_is_named() -> None:
    with pytest.raises(DTypeError, match="logsumexp"):
        logsumexp.infer_types(type_of(np.arange(3)), axes=(0,))
    with pytest.raises(ShapeError, match="topk"):
        topk.infer_types(type_of(rand(2, 3)), k=4, axis=1)


@pytest.mark.oracle
def test_torch_agrees() -> None:
    torch = pytest.importorskip("torch")
    x = rand(3, 4, 5)
    t = torch.tensor(x, requires_grad=True)
    pairs = [
        (lambda v: max_(v, axes=(0, 2)), lambda v: v.amax((0, 2))),
        (lambda v: prod(v, axes=(1,)), lambda v: v.prod(1)),
        (lambda v: logsumexp(v, axes=(1, 2)), lambda v: v.logsumexp((1, 2))),
        (lambda v: l2_norm(v, axes=(1,)), lambda v: torch.linalg.vector_norm(v, dim=1)),
        (lambda v: cumprod(v, axis=1), lambda v: v.cumprod(1)),
        (lambda v: topk(v, k=2, axis=1)[0], lambda v: v.topk(2, 1).values),
    ]
    for ours, theirs in pairs:
        np.testing.assert_allclose(ours(x), theirs(t).detach().numpy(), rtol=1e-12)
        (g,) = torch.autograd.grad(theirs(t).sum(), t)
        np.testing.assert_allclose(gradient(ours, x), g.numpy(), rtol=1e-9, atol=1e-12)
