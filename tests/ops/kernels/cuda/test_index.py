"""CUDA gathers and scatters against the array kernels and torch; indices outside set a flag and touch nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnxgrad.ops.errors import OpError
from onnxgrad.ops.expr import Var
from onnxgrad.ops.kernels.cuda import index as _rules
from onnxgrad.ops.kernels.cuda.lowering import Epilogue
from onnxgrad.ops.kernels.cuda.operand import Operand
from onnxgrad.ops.op import OPS
from onnxgrad.ops.types import BFLOAT16

from .site import lower, make_site, refuses, run_op

assert _rules
RNG = np.random.default_rng(0)


def numbers(shape: tuple[int, ...], dtype: Any = np.float32) -> Any:
    """Return an array."""
    return (4 * RNG.standard_normal(shape)).astype(dtype)


def places(shape: tuple[int, ...], size: int, dtype: Any = np.int64) -> Any:
    """Return indices, of which some count from the end."""
    return RNG.integers(-size, size, shape).astype(dtype)


def check(op: str, arrays: list[Any], *, tolerance: float = 0.0, **attrs: Any) -> None:
    """Compare with the array kernel, exactly or in float64."""
    (y,) = run_op(op, arrays, attrs)
    if not tolerance:
        np.testing.assert_array_equal(y, OPS[op].run(*arrays, **attrs))
        return
    wide = [a.astype(np.float64) if a.dtype.kind in "fV" else a for a in arrays]
    want = OPS[op].run(*wide, **attrs)
    np.testing.assert_allclose(y.astype(np.float64), want, rtol=tolerance, atol=tolerance)


# gathers --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("index", [np.int32, np.int64])
@pytest.mark.parametrize(
    ("shape", "indices", "axis"),
    [((9, 16), (5,), 0), ((3, 7, 8), (2, 3), 1), ((4, 5), (3,), -1), ((6, 5), (), 0), ((7,), (2, 0), 0),
     ((1, 3), (4,), 0)],
)  # fmt: skip
def test_gather(shape: tuple[int, ...], indices: tuple[int, ...], axis: int, index: Any) -> None:
    check("gather", [numbers(shape), places(indices, shape[axis], index)], axis=axis)


@pytest.mark.parametrize("dtype", [np.float16, BFLOAT16, np.float64, np.int8, np.int64, np.bool_])
def test_gather_of_every_type(dtype: Any) -> None:
    check("gather", [numbers((6, 24), dtype), places((4,), 6)], axis=0)


def test_gather_elements() -> None:
    check("gather_elements", [numbers((4, 6, 3)), places((3, 9, 2), 6)], axis=1)
    check("gather_elements", [numbers((10,)), places((25,), 10, np.int32)], axis=0)
    check("gather_elements", [numbers((10, 4)), places((10, 1), 4)], axis=1)
    assert refuses("gather_elements", [numbers((2, 3)), places((3, 3), 3)], {"axis": 1})


@pytest.mark.parametrize(
    ("shape", "indices", "batch"),
    [((4, 5, 8), (6, 2), 0), ((4, 5, 8), (3, 3), 0), ((2, 5, 6), (2, 4, 1), 1), ((2, 3, 4), (2, 3, 2, 1), 2)],
)
def test_gather_nd(shape: tuple[int, ...], indices: tuple[int, ...], batch: int) -> None:
    k = indices[-1]
    at = np.stack([places(indices[:-1], shape[batch + i]) for i in range(k)], axis=-1)
    check("gather_nd", [numbers(shape), at], batch_dims=batch)


def test_what_lies_otherwise_is_gathered() -> None:
    x, at = numbers((8, 6)), places((5,), 6)
    for order, shift in (("transposed", 0), ("plain", 1)):
        (y,) = run_op("gather", [x, at], {"axis": 1}, order=order, shift=shift)
        np.testing.assert_array_equal(y, x[:, at])


def test_embeddings_are_added_up_in_one_kernel() -> None:
    words, at, other = numbers((11, 16)), places((2, 5), 11), numbers((5, 16))
    operand = Operand(np.dtype(np.float32), (2, 5, 16), (0, 16, 1))
    epilogue = Epilogue(Var("x") + Var("a0"), (operand,), np.dtype(np.float32))
    (y,) = run_op("gather", [words, at], {"axis": 0}, epilogue=epilogue, extra=[other])
    np.testing.assert_array_equal(y, words[at] + other)
    square = Epilogue(Var("x") * Var("x"), (), np.dtype(np.float32))
    (y,) = run_op("gather", [words, np.int64(3).reshape(())], {"axis": 1}, epilogue=square)
    np.testing.assert_array_equal(y, words[:, 3] ** 2)
    (y,) = run_op("gather", [words[:, 0].copy(), np.int64(3).reshape(())], {"axis": 0}, epilogue=square)
    np.testing.assert_array_equal(y, words[3, 0] ** 2)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int32])
def test_an_index_outside_reads_nothing(dtype: Any) -> None:
    x, at = numbers((4, 8), dtype), np.array([1, 4, -5, 2**31 - 1, -(2**31), 3])
    want = x[np.where((at >= -4) & (at < 4), at, 0)]
    want[1:5] = np.nan if np.dtype(dtype).kind == "f" else 0
    for epilogue in (None, Epilogue(Var("x") + 0.0, (), np.dtype(dtype))):
        (y,) = run_op("gather", [x, at], {"axis": 0}, epilogue=epilogue, flagged=True)
        np.testing.assert_array_equal(y, want)
    (y,) = run_op("gather_nd", [x, np.stack([at, at * 0 + 100], axis=1)], {}, flagged=True)
    np.testing.assert_array_equal(y, np.full(6, want[1, 0]))
    far = np.array([[2**62, -(2**62), 0]])
    (y,) = run_op("gather_elements", [x, far], {"axis": 1}, flagged=True)
    np.testing.assert_array_equal(y, [[want[1, 0], want[1, 0], x[0, 0]]])


# scatters -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 20, 700, 5000])
def test_gradients_of_embeddings(count: int) -> None:
    g, at = numbers((count, 12)), places((count,), 37)
    check("gather_grad", [g, at], axis=0, size=37, tolerance=1e-4)


def test_gradients_of_gathers_along_inner_axes() -> None:
    check("gather_grad", [numbers((3, 50, 4)), places((50,), 6)], axis=1, size=6, tolerance=1e-5)
    check("gather_grad", [numbers((3, 5, 2, 6)), places((5, 2), 4)], axis=1, size=4, tolerance=1e-5)
    check("gather_grad", [numbers((3, 6)), places((), 4)], axis=1, size=4, tolerance=1e-5)


@pytest.mark.parametrize("dtype", [np.float16, BFLOAT16, np.float64])
@pytest.mark.parametrize("count", [7, 90])
def test_gradients_of_every_type(count: int, dtype: Any) -> None:
    g, at = numbers((count, 8), dtype), places((count,), 10)
    tolerance = 1e-12 if np.dtype(dtype).itemsize == 8 else 3e-2
    check("gather_grad", [g, at], axis=0, size=10, tolerance=tolerance)


def test_the_gradient_is_torchs() -> None:
    torch = pytest.importorskip("torch")
    g, at = numbers((400, 16)), RNG.integers(0, 23, 400)
    w = torch.zeros((23, 16), requires_grad=True)
    torch.nn.functional.embedding(torch.from_numpy(at), w).backward(torch.from_numpy(g))
    (y,) = run_op("gather_grad", [g, at], {"axis": 0, "size": 23})
    np.testing.assert_allclose(y, w.grad.numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("reduction", ["none", "add", "mul", "max", "min"])
@pytest.mark.parametrize(
    ("shape", "indices", "axis"), [((4, 6, 3), (3, 9, 2), 1), ((50,), (2100,), 0), ((7, 40), (7, 60), 1)]
)
def test_scatter_elements(shape: tuple[int, ...], indices: tuple[int, ...], axis: int, reduction: str) -> None:
    x, at = numbers(shape), places(indices, shape[axis], np.int32)
    updates = np.where(RNG.random(indices) < 0.1, np.nan, 1 + 0.01 * numbers(indices)).astype(np.float32)
    tolerance = {"add": 1e-3, "mul": 1e-3}.get(reduction, 0.0)
    check("scatter_elements", [x, at, updates], axis=axis, reduction=reduction, tolerance=tolerance)


@pytest.mark.parametrize("reduction", ["none", "add", "mul", "max", "min"])
@pytest.mark.parametrize(
    ("shape", "indices", "batch"),
    [((4, 5, 8), (6, 2), 0), ((9, 4), (300, 1), 0), ((4, 3), (90, 2), 0), ((2, 5, 6), (2, 70, 1), 1)],
)
def test_scatter_nd(shape: tuple[int, ...], indices: tuple[int, ...], batch: int, reduction: str) -> None:
    k = indices[-1]
    at = np.stack([places(indices[:-1], shape[batch + i]) for i in range(k)], axis=-1)
    updates = 1 + 0.01 * numbers((*indices[:-1], *shape[batch + k :]))
    tolerance = {"add": 1e-4, "mul": 1e-4}.get(reduction, 0.0)
    check("scatter_nd", [numbers(shape), at, updates], batch_dims=batch, reduction=reduction, tolerance=tolerance)


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int32, np.int64, np.uint8, np.bool_])
@pytest.mark.parametrize("reduction", ["none", "add", "max"])
def test_scatter_of_every_type(dtype: Any, reduction: str) -> None:
    arrays = [numbers((9, 4), dtype), places((60, 1), 9), numbers((60, 4), dtype)]
    if dtype is np.bool_ and reduction != "none":
        assert refuses("scatter_nd", arrays, {"reduction": reduction})
        return
    tolerance = 2e-2 if dtype is np.float16 and reduction == "add" else 0.0
    if dtype is np.float64 and reduction == "add":
        tolerance = 1e-12
    check("scatter_nd", arrays, reduction=reduction, tolerance=tolerance)


def test_constant_places_that_are_distinct_are_written_at_once() -> None:
    x, updates, at = numbers((50, 8)), numbers((40, 8)), RNG.permutation(50)[:40].reshape(40, 1)
    (y,) = run_op("scatter_nd", [x, at, updates], {}, constants=[1])
    np.testing.assert_array_equal(y, OPS["scatter_nd"].run(x, at, updates))
    at[3] = at[30]
    (y,) = run_op("scatter_nd", [x, at, updates], {}, constants=[1])
    np.testing.assert_array_equal(y, OPS["scatter_nd"].run(x, at, updates))


@pytest.mark.parametrize("reduction", ["none", "add"])
@pytest.mark.parametrize("count", [6, 60])
def test_an_index_outside_writes_nothing(count: int, reduction: str) -> None:
    x, at = numbers((5, 4)), np.resize(np.array([1, 5, -6, 2**40, -(2**40), 4]), (count, 1))
    updates = numbers((count, 4))
    inside = ((at >= -5) & (at < 5)).reshape(-1)
    want = OPS["scatter_nd"].run(x.astype(float), at[inside], updates[inside].astype(float), reduction=reduction)
    (y,) = run_op("scatter_nd", [x, at, updates], {"reduction": reduction}, flagged=True)
    np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("count", [4, 100])
def test_changed_parts(count: int) -> None:
    x = numbers((6, 9))
    at = RNG.integers(-54, 54, count)
    check("copy_slices", [x, numbers((count,)), at])


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("dtype", ["bool", "float32", "float16", "int64"])
def test_one_hot(axis: int, dtype: str) -> None:
    at = RNG.integers(-7, 9, (5, 4))
    check("one_hot", [at], depth=6, axis=axis, dtype=dtype)


# flags ----------------------------------------------------------------------------------------------------------------

X = numbers((4, 6, 5))
"""What is indexed below: each op along an axis of 6, or by pairs into axes of 4 and 6."""

INDEXED: dict[str, tuple[str, dict[str, Any], Any]] = {
    "gather": ("gather", {"axis": 1}, lambda at: [X, at]),
    "gather_elements": ("gather_elements", {"axis": 1}, lambda at: [X, at.reshape(1, -1, 1)]),
    "gather_nd": ("gather_nd", {}, lambda at: [X, np.stack([at % 4, at], axis=-1)]),
    "gather_grad, few": ("gather_grad", {"axis": 0, "size": 6}, lambda at: [numbers((at.size, 3)), at]),
    "gather_grad, many": (
        "gather_grad", {"axis": 0, "size": 6}, lambda at: [numbers((40 * at.size, 3)), np.tile(at, 40)]
    ),
    "scatter_elements, written": (
        "scatter_elements", {"axis": 1}, lambda at: [X, at.reshape(1, -1, 1), numbers((1, at.size, 1))]
    ),
    "scatter_nd, added": (
        "scatter_nd", {"reduction": "add"},
        lambda at: [X, np.stack([at % 4, at], axis=-1), numbers((at.size, 5))],
    ),
    "scatter_nd, of many the last": (
        "scatter_nd", {}, lambda at: [X[0], np.tile(at, 40).reshape(-1, 1), numbers((40 * at.size, 5))]
    ),
}  # fmt: skip


@pytest.mark.parametrize("last", [5, -6, 6, -7, 2**31 - 1])
@pytest.mark.parametrize("name", INDEXED)
def test_a_flag_is_set_where_an_index_is_outside(name: str, last: int) -> None:
    """Among many the last one; the array kernel says so on the CPU, of the same indices."""
    op, attrs, arrays_of = INDEXED[name]
    arrays = arrays_of(np.array([0, 3, -1, -6, last]))
    bad = not -6 <= last < 6
    if bad:
        with pytest.raises(OpError, match="is outside an axis of size 6"):
            OPS[op].run(*arrays, **attrs)
    run_op(op, arrays, attrs, flagged=bad, compiles=last == 6)


@pytest.mark.parametrize("index", [8, -9])
def test_flags_of_places_in_a_whole_tensor(index: int) -> None:
    x, at = numbers((2, 4)), np.array([[3, index]])
    run_op("pool_gather", [x, at], flagged=True, compiles=False)
    run_op("copy_slices", [x, numbers((1, 2)), at], flagged=True, compiles=False)
    g, at = numbers((1, 2, 1, 2)), np.array([0, 1, 2, index]).reshape(1, 2, 1, 2)
    for op in ("pool_scatter", "max_unpool"):
        run_op(op, [g, at], {"size": (2, 2)}, flagged=True, compiles=False)
    run_op("pool_scatter", [g, at * 0 - 1], {"size": (2, 2)}, flagged=True, compiles=False)
    run_op("max_unpool", [g, at * 0 - 1], {"size": (2, 2)}, compiles=False)


@pytest.mark.parametrize("name", INDEXED)
def test_constants_that_are_inside_are_not_looked_at(name: str) -> None:
    op, attrs, arrays_of = INDEXED[name]
    for last, checked in ((5, False), (-6, False), (6, True), (-7, True)):
        site = make_site(op, arrays_of(np.array([0, 3, last])), attrs, constants=[1])
        assert lower(site)
        assert bool(site.flags) == checked
