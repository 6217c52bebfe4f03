"""Softmax and its logarithm against the array kernels, float64 and PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from onnxgrad.ops.dims import Dim
from onnxgrad.ops.expr import Var
from onnxgrad.ops.kernels.cpu.jit import compiled_modules
from onnxgrad.ops.kernels.cpu.lowering import Epilogue
from onnxgrad.ops.kernels.cpu.operand import Operand
from onnxgrad.ops.op import OPS

from .site import run_op
from .strided import Lie, lies, lying

N, S = Dim.symbol("n"), Dim.symbol("s")


def values(shape: tuple[int, ...], dtype: Any = np.float32, seed: int = 0) -> np.ndarray[Any, Any]:
    return (np.random.default_rng(seed).standard_normal(shape) * 8).astype(dtype)


def definition(op: str, x: np.ndarray[Any, Any], axis: int) -> np.ndarray[Any, Any]:
    x = x.astype(np.float64)
    y = x - x.max(axis, keepdims=True)
    logs = y - np.log(np.exp(y).sum(axis, keepdims=True))
    return np.exp(logs) if op == "softmax" else logs


@given(
    op=st.sampled_from(["softmax", "log_softmax"]),
    shape=st.lists(st.sampled_from([1, 2, 3, 16, 17, 37]), min_size=1, max_size=4),
    axis=st.integers(-4, 3),
    dtype=st.sampled_from([np.float32, np.float64]),
    ways=st.tuples(lies(), lies()),
    at_end=st.booleans(),
)
@settings(max_examples=40)
def test_any_axis_of_tensors_lying_in_any_way(
    op: str, shape: list[int], axis: int, dtype: Any, ways: tuple[Lie, Lie], at_end: bool
) -> None:
    x = values(tuple(shape), dtype)
    axis = axis % x.ndim if axis >= 0 else axis % x.ndim - x.ndim
    with lying(*ways):
        y = run_op(op, [x], axis=axis, at_end=at_end)
    close = {"rtol": 3e-6, "atol": 4e-6} if dtype == np.float32 else {"rtol": 1e-13, "atol": 1e-13}
    np.testing.assert_allclose(y, definition(op, x, axis), **close)
    np.testing.assert_allclose(y, OPS[op].run(x, axis=axis), **close)


@pytest.mark.parametrize("op", ["softmax", "log_softmax"])
@pytest.mark.parametrize("axis", [0, 1])
def test_infinities_and_nan(op: str, axis: int) -> None:
    x = values((40, 35))
    x[3], x[4, 5], x[6, 7], x[8, 9] = -np.inf, np.inf, np.nan, -np.inf
    x[:, 11], x[10, 11], x[12] = -np.inf, 1, np.nan
    with np.errstate(all="ignore"):
        wanted = OPS[op].run(x, axis=axis)
    np.testing.assert_allclose(run_op(op, [x], axis=axis), wanted, rtol=2e-5, atol=4e-6)


@pytest.mark.parametrize("order", ["plain", "channels_last"])
@pytest.mark.parametrize("axis", [1, 2, 3])
def test_any_number_of_threads_and_slack(axis: int, order: str) -> None:
    x = values((5, 21, 40, 33))
    results = [run_op("softmax", [x], axis=axis, order=order, multiple=16, threads=t) for t in (1, 2, 4)]
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])
    np.testing.assert_allclose(results[0], definition("softmax", x, axis), rtol=3e-6, atol=1e-7)


def test_sizes_of_run_time_compile_once() -> None:
    counts = []
    for n, s in ((1, 1), (3, 16), (2, 130)):
        for axis in (1, 2):
            x = values((n, s, s))
            y = run_op("softmax", [x], symbols={0: (N, S, S)}, axis=axis)
            np.testing.assert_allclose(y, definition("softmax", x, axis), rtol=3e-6, atol=1e-7)
        counts.append(compiled_modules())
    assert counts[0] == counts[1] == counts[2]
    assert run_op("softmax", [np.zeros((0, 4, 4), np.float32)], symbols={0: (N, S, S)}, axis=1).shape == (0, 4, 4)


@pytest.mark.parametrize("axis", [0, 1])
def test_epilogue(axis: int) -> None:
    x, other = values((6, 50)), values((50,), seed=1)
    epilogue = Epilogue(Var("x") * Var("a0"), (Operand(np.dtype(np.float32), (6, 50), (0, 1)),), np.dtype(np.float32))
    y = run_op("softmax", [x], axis=axis, epilogue=epilogue, extra=[other])
    np.testing.assert_allclose(y, definition("softmax", x, axis) * other, rtol=1e-5, atol=1e-6)


def test_pytorch_agrees() -> None:
    torch = pytest.importorskip("torch")
    x = values((12, 197))
    for op, f in (("softmax", torch.softmax), ("log_softmax", torch.log_softmax)):
        np.testing.assert_allclose(run_op(op, [x], axis=1), f(torch.from_numpy(x), 1).numpy(), rtol=2e-6, atol=4e-6)


def adjoint(op: str, g: np.ndarray[Any, Any], y: np.ndarray[Any, Any], axis: int) -> np.ndarray[Any, Any]:
    g, y = g.astype(np.float64), y.astype(np.float64)
    if op == "softmax_grad":
        return (g - (g * y).sum(axis, keepdims=True)) * y
    return g - np.exp(y) * g.sum(axis, keepdims=True)


@given(
    op=st.sampled_from(["softmax_grad", "log_softmax_grad"]),
    shape=st.lists(st.sampled_from([1, 2, 3, 16, 17, 37]), min_size=1, max_size=4),
    axis=st.integers(-4, 3),
    dtype=st.sampled_from([np.float32, np.float64]),
    ways=st.tuples(lies(), lies(), lies()),
    at_end=st.booleans(),
)
@settings(max_examples=40)
def test_gradients_along_any_axis(
    op: str, shape: list[int], axis: int, dtype: Any, ways: tuple[Lie, ...], at_end: bool
) -> None:
    g, axis = values(tuple(shape), dtype, seed=1), axis % len(shape)
    y = definition(op.removesuffix("_grad"), values(tuple(shape), dtype), axis).astype(dtype)
    with lying(*ways):
        found = run_op(op, [g, y], axis=axis, at_end=at_end)
    close = {"rtol": 1e-5, "atol": 1e-4} if dtype == np.float32 else {"rtol": 1e-12, "atol": 1e-11}
    np.testing.assert_allclose(found, adjoint(op, g, y, axis), **close)
    np.testing.assert_allclose(found, OPS[op].run(g, y, axis=axis), **close)
