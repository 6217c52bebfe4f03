"""Reductions against the array kernels, NumPy in float64 and PyTorch, for tensors that lie in any way."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from onnxgrad.ops.dims import Dim
from onnxgrad.ops.expr import Var
from onnxgrad.ops.kernels.cpu.jit import compiled_modules
from onnxgrad.ops.kernels.cpu.lowering import Epilogue
from onnxgrad.ops.kernels.cpu.operand import Operand, packed
from onnxgrad.ops.op import OPS

from .site import run_op
from .strided import Lie, lies, lying

NUMPY = {
    "sum": np.sum,
    "mean": np.mean,
    "max": np.max,
    "min": np.min,
    "prod": np.prod,
    "l2_norm": lambda x, axis, keepdims: np.sqrt(np.sum(x * x, axis=axis, keepdims=keepdims)),
    "logsumexp": lambda x, axis, keepdims: np.log(np.sum(np.exp(x), axis=axis, keepdims=keepdims)),
}
N, S = Dim.symbol("n"), Dim.symbol("s")


def values(shape: tuple[int, ...], dtype: Any = np.float32, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def tolerance(dtype: Any) -> dict[str, float]:
    return {"rtol": 2e-5, "atol": 2e-6} if dtype == np.float32 else {"rtol": 1e-11, "atol": 1e-12}


@given(
    op=st.sampled_from(sorted(NUMPY)),
    shape=st.lists(st.sampled_from([1, 2, 3, 5, 16, 17, 33]), min_size=1, max_size=4),
    chosen=st.integers(0, 15),
    keepdims=st.booleans(),
    dtype=st.sampled_from([np.float32, np.float64]),
    ways=st.tuples(lies(), lies()),
    at_end=st.booleans(),
)
@settings(max_examples=60)
def test_any_axes_of_tensors_lying_in_any_way(
    op: str, shape: list[int], chosen: int, keepdims: bool, dtype: Any, ways: tuple[Lie, Lie], at_end: bool
) -> None:
    x = values(tuple(shape), dtype)
    axes = tuple(a for a in range(x.ndim) if chosen >> a & 1)
    with lying(*ways):
        y = run_op(op, [x], axes=axes, keepdims=keepdims, at_end=at_end)
    wanted = NUMPY[op](x.astype(np.float64), axis=axes, keepdims=keepdims)
    np.testing.assert_allclose(y, wanted, **tolerance(dtype))
    np.testing.assert_allclose(y, OPS[op].run(x, axes=axes, keepdims=keepdims), **tolerance(dtype))


@pytest.mark.parametrize("order", ["plain", "channels_last"])
@pytest.mark.parametrize("axes", [None, (0, 2, 3), (1,), (2, 3), (3,)])
@pytest.mark.parametrize("op", ["sum", "max", "l2_norm"])
def test_long_rows_in_pieces_on_any_number_of_threads(op: str, axes: Any, order: str) -> None:
    x = values((3, 40, 61, 67))
    results = [run_op(op, [x], axes=axes, order=order, multiple=16, threads=t) for t in (1, 2, 4)]
    for other in results[1:]:
        np.testing.assert_array_equal(results[0], other)
    positive = tuple(range(4)) if axes is None else axes
    np.testing.assert_allclose(
        results[0], NUMPY[op](x.astype(np.float64), axis=positive, keepdims=False), rtol=1e-5, atol=1e-3
    )


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
@pytest.mark.parametrize("op", ["sum", "prod", "max", "min"])
def test_integers(op: str, dtype: Any) -> None:
    x = np.random.default_rng(0).integers(-9, 9, (5, 37, 3)).astype(dtype)
    for axes in ((0,), (1,), (2,), (0, 1, 2)):
        np.testing.assert_array_equal(run_op(op, [x], axes=axes), OPS[op].run(x, axes=axes))


def test_a_sum_is_at_least_as_exact_as_pairwise_summation() -> None:
    rng = np.random.default_rng(0)
    for shape, axes in (((1_000_003,), (0,)), ((40_000, 24), (0,)), ((3, 200_000), (1,)), ((9, 20_000, 5), (1,))):
        x = (rng.random(shape) * 10 ** rng.uniform(-3, 3, shape)).astype(np.float32)
        y = run_op("sum", [x], axes=axes)
        moved = np.moveaxis(x, axes[0], -1).reshape(-1, shape[axes[0]])
        exact = np.array([math.fsum(row.tolist()) for row in moved]).reshape(np.shape(y))
        pairwise = np.array([np.add.reduce(np.ascontiguousarray(row)) for row in moved]).reshape(np.shape(y))
        assert np.abs(y - exact).max() <= max(
            np.abs(pairwise - exact).max(), np.spacing(exact.astype(np.float32)).max()
        )


@pytest.mark.parametrize("axes", [(0,), (1,), (0, 1)])
def test_infinities_and_nan(axes: tuple[int, ...]) -> None:
    x = values((70, 50))
    x[3, 4], x[5, 6], x[7, 8], x[9, 8] = np.inf, np.nan, np.inf, -np.inf
    x[11], x[:, 13] = -np.inf, np.inf
    for op in NUMPY:
        with np.errstate(all="ignore"):
            wanted = OPS[op].run(x, axes=axes)
        np.testing.assert_allclose(run_op(op, [x], axes=axes), wanted, rtol=1e-4)


def test_sizes_of_run_time_compile_once() -> None:
    cases = (("sum", (2,)), ("mean", (0, 2, 3)), ("max", (1,)), ("sum", (0, 1, 2, 3)), ("logsumexp", (1, 2)))
    counts = []
    for n, s in ((1, 1), (4, 100), (2, 2000)):
        x = values((n, 7, s, 5))
        for op, axes in cases:
            for order in ("plain", "channels_last"):
                y = run_op(op, [x], symbols={0: (N, 7, S, 5)}, axes=axes, keepdims=True, order=order, multiple=8)
                wanted = NUMPY[op](x.astype(np.float64), axis=axes, keepdims=True)
                np.testing.assert_allclose(y, wanted, rtol=1e-5, atol=1e-3)
        counts.append(compiled_modules())
    assert counts[0] == counts[1] == counts[2]


def test_columns_of_a_size_that_only_run_time_knows() -> None:
    for s in (1, 15, 64, 65, 300):
        x = values((6, s))
        y = run_op("sum", [x], symbols={0: (6, S)}, axes=(0,))
        np.testing.assert_allclose(y, x.sum(0), rtol=1e-5, atol=1e-6)


def test_nothing_at_run_time() -> None:
    x = np.zeros((0, 6), np.float32)
    np.testing.assert_array_equal(run_op("sum", [x], symbols={0: (N, 6)}, axes=(0,)), np.zeros(6))
    np.testing.assert_array_equal(run_op("max", [x], symbols={0: (N, 6)}, axes=(0,)), np.full(6, -np.inf))
    assert run_op("sum", [x], symbols={0: (N, 6)}, axes=(1,)).shape == (0,)
    assert run_op("sum", [x], axes=(0,)) is None


@pytest.mark.parametrize("shape", [(1,), (3, 1), (5, 1, 1), (1, 3, 4), (5, 3, 4), (4,), ()])
def test_sum_to_undoes_broadcasting(shape: tuple[int, ...]) -> None:
    x = values((5, 3, 4))
    y = run_op("sum_to", [x], shape=shape)
    np.testing.assert_allclose(y, OPS["sum_to"].run(x, shape=shape), rtol=1e-5, atol=1e-6)


def test_sum_to_refuses_what_only_run_time_decides() -> None:
    assert run_op("sum_to", [values((5, 3))], symbols={0: (N, 3)}, shape=(S, 3)) is None
    y = run_op("sum_to", [values((5, 3))], symbols={0: (N, 3)}, shape=(N, 1))
    np.testing.assert_allclose(y, values((5, 3)).sum(1, keepdims=True), rtol=1e-5)


@pytest.mark.parametrize("order", ["plain", "channels_last"])
def test_global_average_with_an_epilogue(order: str) -> None:
    x, bias = values((2, 70, 7, 7)), values((1, 70, 1, 1), seed=1)
    operand = packed(np.dtype(np.float32), bias.shape).broadcast_to((2, 70, 1, 1))
    epilogue = Epilogue(Var("x") * 2 + Var("a0"), (operand,), np.dtype(np.float32))
    y = run_op("mean", [x], axes=(2, 3), keepdims=True, epilogue=epilogue, extra=[bias], order=order, multiple=16)
    np.testing.assert_allclose(y, x.mean((2, 3), keepdims=True) * 2 + bias, rtol=1e-5, atol=1e-6)


def test_epilogue_of_a_sum_in_pieces() -> None:
    x, other = values((4, 24, 90, 90)), values((24,), seed=1)
    epilogue = Epilogue(Var("x") + Var("a0"), (Operand(np.dtype(np.float32), (24,), (1,)),), np.dtype(np.float32))
    y = run_op("sum", [x], axes=(0, 2, 3), epilogue=epilogue, extra=[other], order="channels_last")
    np.testing.assert_allclose(y, x.astype(np.float64).sum((0, 2, 3)) + other, rtol=1e-5, atol=1e-3)


def test_divided() -> None:
    x = values((3, 5, 9))
    np.testing.assert_allclose(run_op("divided", [x], count=7), x / np.float32(7), rtol=1e-6)
    y = run_op("divided", [x], symbols={0: (N, 5, S)}, count=N * S)
    np.testing.assert_allclose(y, x / np.float32(27), rtol=1e-6)


def test_pytorch_agrees() -> None:
    torch = pytest.importorskip("torch")
    x = values((4, 33, 20))
    for axis in range(3):
        y = run_op("logsumexp", [x * 30], axes=(axis,))
        np.testing.assert_allclose(y, torch.logsumexp(torch.from_numpy(x * 30), axis).numpy(), rtol=2e-6, atol=1e-5)
