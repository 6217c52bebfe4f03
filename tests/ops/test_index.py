"""Gathers and scatters: random indices against NumPy, large embeddings, bounds, and PyTorch's gradients."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies as st

from onnxgrad.ops import index
from onnxgrad.ops.dims import Dim
from onnxgrad.ops.errors import DTypeError, OpError, ShapeError
from onnxgrad.ops.types import TensorType, type_of
from onnxgrad.runtime.tensor.tensor import Tensor

shapes = st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple)


def numbers(shape: tuple[int, ...]) -> np.ndarray:
    return np.arange(np.prod(shape), dtype=np.float64).reshape(shape)


@given(shapes, shapes, st.data())
def test_gather_is_numpys_take(shape, of, data):
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    n = shape[axis]
    at = np.array(data.draw(st.lists(st.integers(-n, n - 1), min_size=int(np.prod(of)), max_size=int(np.prod(of)))))
    at, x = at.reshape(of), numbers(shape)
    y = index.gather(x, at, axis=axis)
    np.testing.assert_array_equal(y, np.take(x, at, axis=axis))
    assert index.gather.infer_types(type_of(x), type_of(at), axis=axis).shape == y.shape
    back = index.gather_grad(y, at, axis=axis, size=n)
    wanted = np.zeros((n, *np.delete(shape, axis)))
    np.add.at(
        wanted,
        at.ravel(),
        np.moveaxis(y.reshape(*shape[: axis % len(shape)], -1, *shape[axis % len(shape) + 1 :]), axis, 0),
    )
    np.testing.assert_array_equal(back, np.moveaxis(wanted, 0, axis))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64])
@pytest.mark.parametrize("width", [(), (3,)])
def test_scatter_add_keeps_the_type_and_loses_nothing(dtype, width):
    rng = np.random.default_rng(0)
    at = rng.integers(0, 7, 500)
    g = rng.integers(0, 3, (500, *width)).astype(dtype)
    found = index.gather_grad(g, at, axis=0, size=9)
    wanted = np.zeros((9, *width), np.int64)
    np.add.at(wanted, at, g.astype(np.int64))
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, wanted)
    data = np.zeros((9, *width), dtype)
    np.testing.assert_array_equal(index.scatter_nd(data, at[:, None], g, reduction="add"), wanted)


@pytest.mark.parametrize("bad", [5, -6])
def test_an_index_outside_is_an_error(bad):
    x = numbers((5, 2))
    for call in (
        lambda: index.gather(x, np.array([0, bad]), axis=0),
        lambda: index.gather(x, np.array(bad), axis=0),
        lambda: index.gather_elements(x, np.array([[bad]]), axis=0),
        lambda: index.gather_nd(x, np.array([[bad]])),
        lambda: index.scatter_nd(x, np.array([[bad, 0]]), np.array([1.0])),
        lambda: index.scatter_elements(x, np.array([[bad]]), np.array([[1.0]]), axis=0),
        lambda: index.gather_grad(x[:1], np.array([bad]), axis=0, size=5),
    ):
        with pytest.raises(OpError, match=f"index {bad} is outside an axis of size 5"):
            call()


def test_misuse_says_so():
    x = numbers((3, 2))
    with pytest.raises(DTypeError, match="gather: indices are float64"):
        index.gather.infer_types(type_of(x), type_of(x), axis=0)
    with pytest.raises(ShapeError, match="gather_elements: indices"):
        index.gather_elements(x, np.zeros((3, 5), int), axis=0)
    with pytest.raises(ShapeError, match="scatter_nd: updates"):
        index.scatter_nd(x, np.zeros((1, 1), int), np.zeros((1, 3)))
    with pytest.raises(ShapeError, match="gather_nd: tuples of 3"):
        index.gather_nd.infer_types(type_of(x), TensorType(np.dtype(int), (4, 3)))
    with pytest.raises(OpError, match="outside an axis of 3"):
        index.tensor_scatter(x[None], x[None], np.array([2]), axis=1)


def test_compress_takes_where_the_condition_holds():
    x, keep = numbers((3, 4)), np.array([True, False, True])
    np.testing.assert_array_equal(index.compress(x, keep, axis=0), x[[0, 2]])
    np.testing.assert_array_equal(index.compress(x, keep), [0, 2])
    t = Tensor(x, requires_grad=True)
    index.compress(t, keep, axis=1).backward(np.ones((3, 2)))
    np.testing.assert_array_equal(t.grad.array, [[1, 0, 1, 0]] * 3)


def test_what_only_data_decide_has_a_fresh_size():
    t = index.nonzero.infer_types(TensorType(np.dtype(bool), (Dim.symbol("n"), 3)))
    assert t.shape[0] == 2 and isinstance(t.shape[1], Dim) and t.shape[1] != Dim.symbol("n")


@pytest.mark.oracle
@pytest.mark.parametrize(("ours", "theirs"), [("add", "sum"), ("mul", "prod"), ("max", "amax"), ("min", "amin")])
def test_scatter_gradients_are_torchs(ours, theirs):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    x, at = rng.integers(-2, 3, (4, 5)).astype(np.float64), rng.integers(0, 4, (6, 5))
    u, g = rng.integers(-2, 3, (6, 5)).astype(np.float64), rng.standard_normal((4, 5))
    a, b = Tensor(x, requires_grad=True), Tensor(u, requires_grad=True)
    y = index.scatter_elements(a, at, b, axis=0, reduction=ours)
    y.backward(g)
    ta, tb = torch.tensor(x, requires_grad=True), torch.tensor(u, requires_grad=True)
    ty = torch.scatter_reduce(ta, 0, torch.tensor(at), tb, reduce=theirs)
    ty.backward(torch.tensor(g))
    np.testing.assert_allclose(y.array, ty.detach().numpy(), atol=1e-12)
    np.testing.assert_allclose(a.grad.array, ta.grad.numpy(), atol=1e-12)
    np.testing.assert_allclose(b.grad.array, tb.grad.numpy(), atol=1e-12)


@pytest.mark.oracle
def test_embedding_gradient_is_torchs():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    w, at = rng.standard_normal((50, 8)).astype(np.float32), rng.integers(0, 50, (4, 30))
    g = rng.standard_normal((4, 30, 8)).astype(np.float32)
    ours = Tensor(w, requires_grad=True)
    index.gather(ours, at, axis=0).backward(g)
    theirs = torch.tensor(w, requires_grad=True)
    torch.nn.functional.embedding(torch.tensor(at), theirs).backward(torch.tensor(g))
    np.testing.assert_allclose(ours.grad.array, theirs.grad.numpy(), atol=1e-5)
