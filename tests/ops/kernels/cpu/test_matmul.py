"""Compiled products of matrices against NumPy in float64, and torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from onnxgrad.ops.dims import Dim
from onnxgrad.ops.expr import Var, maximum
from onnxgrad.ops.kernels.cpu import load_rules
from onnxgrad.ops.kernels.cpu.jit import compiled_modules
from onnxgrad.ops.kernels.cpu.lowering import Epilogue
from onnxgrad.ops.kernels.cpu.operand import Operand
from onnxgrad.ops.matmul import matmul

from .site import run_op
from .strided import Lie, lying

load_rules()
RNG = np.random.default_rng(0)
BATCH, LENGTH = Dim.symbol("n"), Dim.symbol("s")
F32 = np.dtype(np.float32)

CASES = {
    "square": ((64, 64), (64, 64)),
    "odd": ((13, 7), (7, 5)),
    "tall": ((197, 40), (40, 33)),
    "one row": ((1, 50), (50, 70)),
    "one column": ((50, 30), (30, 1)),
    "deep": ((15, 2050), (2050, 40)),
    "depth of 1": ((9, 1), (1, 20)),
    "rows of 3-D": ((2, 9, 24), (24, 40)),
    "batched": ((3, 2, 17, 8), (3, 2, 8, 21)),
    "batch broadcast to the right": ((3, 1, 5, 8), (4, 8, 6)),
    "batch broadcast to the left": ((6, 8), (2, 3, 8, 33)),
    "right batch of 1": ((4, 6, 8), (1, 8, 9)),
    "vector and matrix": ((20,), (20, 33)),
    "matrix and vector": ((19, 20), (20,)),
    "vectors": ((40,), (40,)),
    "vector and batch": ((8,), (3, 8, 5)),
    "batch and vector": ((3, 5, 8), (8,)),
    "empty": ((0, 8), (8, 9)),
    "empty batch": ((0, 3, 8), (0, 8, 9)),
}


def arrays(*shapes: tuple[int, ...], dtype: Any = np.float32) -> list[Any]:
    """Return arrays of these shapes."""
    return [RNG.standard_normal(s).astype(dtype) for s in shapes]


def close(found: Any, xs: list[Any]) -> None:
    """Check that the largest difference from float64 is small beside the largest element."""
    want = np.matmul(*(x.astype(np.float64) for x in xs))
    np.testing.assert_allclose(np.asarray(matmul(*(x.astype(np.float64) for x in xs))), want)
    assert found is not None
    assert found.shape == want.shape
    scale = np.abs(want).max(initial=1e-30)
    assert np.abs(found - want).max(initial=0) <= (1e-13 if found.dtype == np.float64 else 2e-5) * scale


@pytest.mark.parametrize("at_end", [True, False])
@pytest.mark.parametrize("weights", [(), (1,)])
@pytest.mark.parametrize("case", CASES)
def test_numpy(case: str, weights: tuple[int, ...], at_end: bool) -> None:
    """Right sides packed beforehand and packed now."""
    xs = arrays(*CASES[case])
    close(run_op("matmul", xs, weights=weights, at_end=at_end), xs)


@pytest.mark.parametrize("at_end", [True, False])
@pytest.mark.parametrize("case", [c for c, (a, b) in CASES.items() if len(a) > 2 or len(b) > 2])
def test_transposed(case: str, at_end: bool) -> None:
    """Sides whose second axis lies innermost, which for three axes is the other way round."""
    xs = arrays(*CASES[case])
    close(run_op("matmul", xs, order="channels_last", at_end=at_end), xs)


@pytest.mark.parametrize("case", ["odd", "tall", "batched", "vectors"])
def test_float64(case: str) -> None:
    """float64 is exact to its own precision."""
    xs = arrays(*CASES[case], dtype=np.float64)
    close(run_op("matmul", xs), xs)


def test_torch() -> None:
    """torch computes the same."""
    torch = pytest.importorskip("torch")
    xs = arrays((2, 33, 40), (2, 40, 50))
    want = torch.matmul(*map(torch.from_numpy, xs)).numpy()
    np.testing.assert_allclose(run_op("matmul", xs), want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("weights", [(), (1,)])
def test_symbolic_rows(weights: tuple[int, ...]) -> None:
    """Another batch or sequence length needs no new code; few rows have tiles of their own."""
    made = None
    for n, s in ((2, 17), (1, 1), (1, 2), (1, 4), (1, 6), (3, 9), (1, 13), (1, 14), (1, 15), (1, 27), (2, 64), (0, 5)):
        xs = arrays((n, s, 20), (20, 40))
        for at_end in (True, False):
            y = run_op("matmul", xs, symbols={0: (BATCH, LENGTH, 20)}, weights=weights, at_end=at_end)
            close(y, xs)
        made = made or compiled_modules()
        assert compiled_modules() == made


@pytest.mark.parametrize("columns", [5, 33, 100])
def test_any_number_of_rows(columns: int) -> None:
    """Tiles of all kinds together cover any number of rows."""
    for s in range(1, 60):
        xs = arrays((1, s, 3), (3, columns))
        close(run_op("matmul", xs, symbols={0: (BATCH, LENGTH, 3)}, weights=[1]), xs)


@pytest.mark.parametrize("order", ["plain", "channels_last"])
def test_symbolic_columns_and_depth(order: str) -> None:
    """Scores and their product with the values: the sequence length is a number of columns, then the depth."""
    for n, s in ((2, 17), (1, 1), (3, 32), (1, 37), (1, 5)):
        for at_end in (True, False):
            xs = arrays((n, 2, s, 12), (n, 2, 12, s))
            symbols = {0: (BATCH, 2, LENGTH, 12), 1: (BATCH, 2, 12, LENGTH)}
            close(run_op("matmul", xs, symbols=symbols, order=order, at_end=at_end), xs)
            xs = arrays((n, 2, s, s), (n, 2, s, 12))
            symbols = {0: (BATCH, 2, LENGTH, LENGTH), 1: (BATCH, 2, LENGTH, 12)}
            close(run_op("matmul", xs, symbols=symbols, order=order, at_end=at_end), xs)


@pytest.mark.parametrize("columns", [32, 37])
@pytest.mark.parametrize("rows", [(2, 9), (2, 1), (18,)])
def test_epilogue(rows: tuple[int, ...], columns: int) -> None:
    """Bias, residual and relu; a factor of each first axis keeps the rows from being one axis."""
    xs = arrays((*rows, 24), (24, columns))
    shape = (*rows, columns)
    bias, residual, factor = arrays((columns,), shape, rows[:1])
    none = (0,) * len(rows)
    steps = (rows[1] * columns, columns, 1) if len(rows) == 2 else (columns, 1)
    operands = (
        Operand(F32, shape, (*none, 1)), Operand(F32, shape, steps), Operand(F32, shape, (1, *none)),
    )  # fmt: skip
    x, a0, a1, a2 = (Var(n) for n in ("x", "a0", "a1", "a2"))
    epilogue = Epilogue(maximum(x * a2 + a0 + a1, 0), operands, F32)
    y = run_op("matmul", xs, weights=[1], epilogue=epilogue, extra=(bias, residual.ravel(), factor))
    scale = factor.reshape(-1, *(1,) * len(rows))
    want = np.maximum(np.matmul(*(a.astype(np.float64) for a in xs)) * scale + bias + residual, 0)
    np.testing.assert_allclose(y, want, rtol=1e-4, atol=1e-4)


def test_threads() -> None:
    """Any number of threads computes the same bits."""
    for shapes in (((97, 300), (300, 170)), ((3, 40, 64), (3, 64, 40)), ((60, 2048), (2048, 65))):
        xs = arrays(*shapes)
        one, two, four = (run_op("matmul", xs, threads=t) for t in (1, 2, 4))
        assert one.tobytes() == two.tobytes() == four.tobytes()


def test_not_a_number() -> None:
    """NaN reaches its row and its column alone."""
    xs = arrays((20, 9), (9, 37))
    xs[0][3, 4], xs[1][2, 36] = np.nan, np.nan
    np.testing.assert_array_equal(np.isnan(run_op("matmul", xs)), np.isnan(np.matmul(*xs)))


def test_refused() -> None:
    """Integers and sums over nothing are left to the array kernel."""
    assert run_op("matmul", [np.ones((2, 3), np.int64), np.ones((3, 2), np.int64)]) is None
    assert run_op("matmul", [np.ones((2, 0), np.float32), np.ones((0, 2), np.float32)]) is None


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_shape(data: st.DataObject) -> None:
    """Shapes that nobody thought of."""
    size = st.integers(1, 40)
    m, k, n = data.draw(size), data.draw(size), data.draw(size)
    batch = data.draw(st.lists(st.integers(1, 3), max_size=2))
    other = [d if data.draw(st.booleans()) else 1 for d in batch]
    xs = arrays((*batch, m, k), (*other, k, n))
    order = data.draw(st.sampled_from(["plain", "channels_last"]))
    weights = [1] if data.draw(st.booleans()) else []
    close(run_op("matmul", xs, weights=weights, order=order, at_end=data.draw(st.booleans())), xs)


EQUATIONS = {
    "bhid,bhjd->bhij": ((2, 3, 17, 8), (2, 3, 9, 8)),
    "bhij,bhjd->bhid": ((2, 3, 17, 9), (2, 3, 9, 24)),
    "bshd,bthd->bhst": ((2, 7, 3, 8), (2, 9, 3, 8)),
    "bid,de->bie": ((2, 5, 8), (8, 40)),
    "de,bid->bie": ((8, 40), (2, 5, 8)),
    "bthd,hde->bte": ((2, 5, 3, 8), (3, 8, 20)),
    "ij,ij->": ((3, 4), (3, 4)),
    "i,ij->j": ((9,), (9, 40)),
    "ijk,jil->kl": ((4, 5, 6), (5, 4, 7)),
}


@pytest.mark.parametrize("weights", [(), (0, 1)])
@pytest.mark.parametrize("equation", EQUATIONS)
def test_einsum(equation: str, weights: tuple[int, ...]) -> None:
    """Sums over common labels of two inputs, whichever is the left one."""
    xs = arrays(*EQUATIONS[equation])
    found = run_op("einsum", xs, weights=weights, equation=equation)
    if equation.endswith(">"):
        assert found is None
        return
    want = np.einsum(equation, *(x.astype(np.float64) for x in xs))
    np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("equation", ["ii,ij->ij", "ij,jk->kj", "ij,kl->il", "ij,jk->ijk", "ij,jk->ii"])
def test_einsum_refused(equation: str) -> None:
    """Diagonals, sums over a label of one input and products without a sum are left to the array kernel."""
    assert run_op("einsum", arrays((4, 4), (4, 4)), equation=equation) is None


def test_einsum_symbolic() -> None:
    """Another batch and length need no new code."""
    made = None
    for n, s in ((1, 5), (3, 20)):
        xs = arrays((n, s, 2, 8), (n, s, 2, 8))
        symbols = {0: (BATCH, LENGTH, 2, 8), 1: (BATCH, LENGTH, 2, 8)}
        y = run_op("einsum", xs, symbols=symbols, equation="bshd,bshe->bhde")
        np.testing.assert_allclose(y, np.einsum("bshd,bshe->bhde", *xs), rtol=1e-4, atol=1e-4)
        made = made or compiled_modules()
        assert compiled_modules() == made


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("symbolic", [False, True])
@pytest.mark.parametrize("shape", [(128, 200, 70), (96, 64, 130), (48, 1100, 64)])
def test_rows_that_lie_beside_each_other_are_gathered(shape: tuple[int, int, int], symbolic: bool, dtype: Any) -> None:
    rows, depth, columns = shape
    xs = arrays((rows, depth), (depth, columns), dtype=dtype)
    k = Dim.symbol("k")
    with lying(Lie(order=1)):
        for at_end in (False, True):
            close(
                run_op("matmul", xs, at_end=at_end, symbols={0: (rows, k), 1: (k, columns)} if symbolic else None), xs
            )


def test_gathered_rows_of_several_matrices_and_what_is_added_to_them() -> None:
    xs = arrays((3, 32, 80), (80, 66))
    extra = RNG.standard_normal((32, 66)).astype(np.float32)
    epilogue = Epilogue(Var("x") + Var("a0"), (Operand(F32, (3, 32, 66), (0, 66, 1)),), F32)
    with lying(Lie(order=1)):
        found = run_op("matmul", xs, epilogue=epilogue, extra=[extra])
    np.testing.assert_allclose(found, np.matmul(*xs) + extra, rtol=0, atol=1e-4)
    xs = arrays((2, 64, 90), (2, 90, 64))
    with lying(Lie(order=1)):
        one, two = (run_op("matmul", xs, threads=n) for n in (1, 2))
    close(one, xs)
    np.testing.assert_array_equal(one, two)
