"""Gathers and scatters: compiled kernels against the array kernels and NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import onnxgrad.ops.kernels.cpu.index  # noqa: F401 (registers the rules)
from onnxgrad.ops.dims import Dim
from onnxgrad.ops.errors import OpError
from onnxgrad.ops.op import OPS

from .site import run_op

ORDERS = ["plain", "channels_last"]


def noise(*shape: int, dtype: Any = np.float32) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).standard_normal(shape).astype(dtype)


def places(n: int, *shape: int, dtype: Any = np.int64) -> np.ndarray[Any, Any]:
    return np.random.default_rng(1).integers(-n, n, shape).astype(dtype)


def symbols(shape: tuple[int, ...], prefix: str = "n") -> tuple[Any, ...]:
    return tuple(Dim.symbol(f"{prefix}{i}") for i in range(len(shape)))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    st.lists(st.integers(1, 20), min_size=1, max_size=4),
    st.lists(st.integers(0, 9), max_size=2),
    st.integers(0, 3),
    st.sampled_from([np.int32, np.int64]),
    st.sampled_from(["float32", "uint8", "float64"]),
    st.booleans(),
    st.sampled_from(ORDERS),
)
def test_gather(shape: list[int], at: list[int], axis: int, index: Any, dtype: str, symbolic: bool, order: str) -> None:
    x, axis = noise(*shape).astype(dtype), axis % len(shape)
    indices = places(shape[axis], *at, dtype=index)
    names = {0: symbols(x.shape), 1: symbols(indices.shape, "i")} if symbolic else {}
    got = run_op("gather", [x, indices], symbols=names, order="plain" if symbolic else order, axis=axis)
    np.testing.assert_array_equal(got, np.take(x, indices, axis))
    if not symbolic and len(at) < 2:
        got = run_op("gather", [x, indices], weights=[1], order=order, axis=axis)
        np.testing.assert_array_equal(got, np.take(x, indices, axis))


@pytest.mark.parametrize("threads", [1, 2])
def test_embedding(threads: int) -> None:
    table, words = noise(1000, 768), places(1000, 2, 70)
    wanted = table[words]
    np.testing.assert_array_equal(run_op("gather", [table, words], threads=threads), wanted)
    names = {1: (Dim.symbol("batch"), Dim.symbol("length"))}
    np.testing.assert_array_equal(run_op("gather", [table, words], symbols=names, threads=threads), wanted)


@pytest.mark.parametrize("bad", [5, -6, 2**40])
@pytest.mark.parametrize("threads", [1, 2])
def test_an_index_outside_is_an_error(bad: int, threads: int) -> None:
    x, indices = noise(5, 4), np.array([0, bad, 1])
    with pytest.raises(OpError, match="outside"):
        run_op("gather", [x, indices], threads=threads)
    with pytest.raises(OpError, match="outside"):
        run_op("gather_nd", [x, np.array([[1, 1], [bad, 0]])])
    with pytest.raises(OpError, match="outside"):
        run_op("gather_elements", [x, np.array([[bad]])])
    with pytest.raises(OpError, match="outside"):
        run_op("gather_grad", [noise(3, 4), indices], axis=0, size=5)
    with pytest.raises(OpError, match="outside"):
        run_op("scatter_nd", [x, np.array([[bad]]), noise(1, 4)])
    assert run_op("gather", [x, indices], weights=[1]) is None, "known to be wrong: the array kernel says so"


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("index", [np.int32, np.int64])
def test_gather_elements(order: str, axis: int, index: Any) -> None:
    x = noise(4, 5, 6)
    shape = [3, 5, 2]
    shape[axis] = 7
    indices = places(x.shape[axis], *shape, dtype=index)
    got = run_op("gather_elements", [x, indices], order=order, axis=axis)
    cut = tuple(slice(None) if i == axis % 3 else slice(n) for i, n in enumerate(shape))
    np.testing.assert_array_equal(got, np.take_along_axis(x[cut], indices % x.shape[axis], axis))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("batch,k", [(0, 1), (0, 3), (1, 2), (2, 1)])
def test_gather_nd(order: str, batch: int, k: int) -> None:
    x = noise(3, 4, 5, 18)
    lead = (*x.shape[:batch], 6, 2)
    indices = np.stack([places(x.shape[batch + i], *lead) for i in range(k)], -1)
    got = run_op("gather_nd", [x, indices], order=order, threads=2, batch_dims=batch)
    np.testing.assert_array_equal(got, OPS["gather_nd"].array_kernel(x, indices, batch_dims=batch))
    if batch == 0:
        np.testing.assert_array_equal(got, x[tuple(np.moveaxis(indices, -1, 0))])


def added(shape: tuple[int, ...], axis: int, indices: Any, g: Any) -> np.ndarray[Any, Any]:
    """Return the adjoint of a gather in float64."""
    y = np.zeros(shape)
    at = (slice(None),) * axis
    for place in np.ndindex(indices.shape):
        y[(*at, indices[place])] += g[(*at, *place)]
    return y


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "shape,axis,at", [((50, 200), 0, (70, 3)), ((3, 7, 5), 1, (11,)), ((9,), 0, (30,)), ((4, 6), 1, ())]
)
@pytest.mark.parametrize("symbolic", [False, True])
def test_gather_grad(dtype: Any, shape: tuple[int, ...], axis: int, at: tuple[int, ...], symbolic: bool) -> None:
    indices = places(shape[axis], *at)
    g = noise(*shape[:axis], *at, *shape[axis + 1 :], dtype=dtype)
    names = {0: (*symbols(shape[:axis], "a"), *symbols(at, "i"), *symbols(shape[axis + 1 :], "b")), 1: symbols(at, "i")}
    one, two = (
        run_op("gather_grad", [g, indices], symbols=names if symbolic else {}, threads=n, axis=axis, size=shape[axis])
        for n in (1, 2)
    )
    np.testing.assert_array_equal(one, two)
    tolerance = {"rtol": 1e-5, "atol": 1e-5} if dtype == np.float32 else {"rtol": 1e-12, "atol": 1e-12}
    np.testing.assert_allclose(one, added(shape, axis, indices, g), **tolerance)
    kernel = OPS["gather_grad"].array_kernel
    np.testing.assert_allclose(one, kernel(g, indices, axis=axis, size=shape[axis]), **tolerance)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("reduction", ["none", "add", "mul", "max", "min"])
@pytest.mark.parametrize("axis", [0, 2])
@pytest.mark.parametrize("dtype", [np.float32, np.int64])
def test_scatter_elements(order: str, reduction: str, axis: int, dtype: Any) -> None:
    x = (noise(4, 5, 6) * 4).astype(dtype)
    shape = [3, 4, 5]
    shape[axis] = 9  # places repeat
    indices, updates = places(x.shape[axis], *shape), (noise(*shape) * 4).astype(dtype)
    got = run_op("scatter_elements", [x, indices, updates], order=order, axis=axis, reduction=reduction, threads=2)
    wanted = OPS["scatter_elements"].array_kernel(x, indices, updates, axis=axis, reduction=reduction)
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)
    plain = x.astype(np.float64)
    fold = {"none": lambda a, b: b, "add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}[reduction]
    for place in np.ndindex(*shape):
        at = (*place[:axis], indices[place], *place[axis + 1 :])
        plain[at] = fold(plain[at], updates[place])
    np.testing.assert_allclose(got, plain, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("reduction", ["none", "add", "max"])
@pytest.mark.parametrize("batch,k", [(0, 1), (0, 3), (1, 1), (1, 2)])
@pytest.mark.parametrize("columns", [1, 18, 300])
def test_scatter_nd(reduction: str, batch: int, k: int, columns: int) -> None:
    x = noise(3, 4, 5, columns)
    lead = (*x.shape[:batch], 30)
    indices = np.stack([places(x.shape[batch + i], *lead) for i in range(k)], -1)
    updates = noise(*lead, *x.shape[batch + k :])
    attrs = {"reduction": reduction, "batch_dims": batch}
    one, two = (run_op("scatter_nd", [x, indices, updates], threads=n, **attrs) for n in (1, 2))
    np.testing.assert_array_equal(one, two)
    wanted = OPS["scatter_nd"].array_kernel(x, indices, updates, **attrs)
    np.testing.assert_allclose(one, wanted, rtol=1e-5, atol=1e-6)
    plain = x.astype(np.float64)
    fold = {"none": lambda a, b: b, "add": np.add, "max": np.maximum}[reduction]
    for place in np.ndindex(*lead):
        at = (*place[:batch], *indices[place])
        plain[at] = fold(plain[at], updates[place])
    np.testing.assert_allclose(one, plain, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", ["bool", "float32", "int64"])
@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("index", [np.int32, np.int64])
def test_one_hot(dtype: str, axis: int, index: Any) -> None:
    indices = np.array([[0, 3, -1], [7, -9, 6]], index)
    got = run_op("one_hot", [indices], depth=7, axis=axis, dtype=dtype)
    np.testing.assert_array_equal(got, OPS["one_hot"].array_kernel(indices, depth=7, axis=axis, dtype=dtype))
    wanted = np.zeros((2, 3, 7), dtype)
    for place, at in (((0, 0), 0), ((0, 1), 3), ((0, 2), 6), ((1, 2), 6)):
        wanted[(*place, at)] = 1
    np.testing.assert_array_equal(got, np.moveaxis(wanted, -1, axis % 3))


def test_refusals() -> None:
    x = noise(3, 4)
    assert run_op("gather", [x, np.array([0], np.uint8)]) is None
    assert run_op("gather_grad", [x.astype(np.float16), np.array([0, 1, 2])], axis=0, size=5) is None
    assert run_op("scatter_nd", [x, np.zeros((2, 0), np.int64), noise(2, 3, 4)]) is None
