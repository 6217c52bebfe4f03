"""Products of operands rounded to bfloat16 against float64 of the rounded operands, torch, and float32."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from onnxgrad.ops.dims import Dim
from onnxgrad.ops.expr import Var, maximum
from onnxgrad.ops.kernels.cpu import load_rules
from onnxgrad.ops.kernels.cpu.bfloat16 import convert_kernel
from onnxgrad.ops.kernels.cpu.lowering import Epilogue
from onnxgrad.ops.kernels.cpu.operand import Operand
from onnxgrad.ops.kernels.cpu.target import host_target
from onnxgrad.ops.window import Window

from .site import TestSite, run_op

load_rules()
pytestmark = pytest.mark.skipif(not host_target().bf16, reason="the target has no products of bfloat16")

RNG = np.random.default_rng(0)
F32 = np.dtype(np.float32)
BATCH, LENGTH = Dim.symbol("n"), Dim.symbol("s")

MATRICES = {
    "square": ((64, 64), (64, 64)),
    "odd depth": ((13, 7), (7, 5)),
    "depth of 1": ((9, 1), (1, 20)),
    "rows of 3-D": ((2, 9, 24), (24, 40)),
    "deep": ((15, 2050), (2050, 40)),
    "batched": ((3, 2, 17, 8), (3, 2, 8, 21)),
    "batched, odd depth": ((3, 2, 17, 9), (3, 2, 9, 21)),
    "batch broadcast to the left": ((6, 8), (2, 3, 8, 33)),
    "right batch of 1": ((4, 6, 8), (1, 8, 9)),
    "vector and matrix": ((20,), (20, 33)),
    "matrix and vector": ((19, 21), (21,)),
    "vectors": ((40,), (40,)),
    "empty": ((0, 8), (8, 9)),
}
CONVOLUTIONS: dict[str, tuple[tuple[int, ...], tuple[int, ...], Any]] = {
    "3x3": ((2, 16, 9, 11), (24, 16, 3, 3), Window((1, 1), ((1, 1), (1, 1)), (1, 1))),
    "1x1": ((1, 6, 7, 5), (40, 6, 1, 1), Window((1, 1), ((0, 0), (0, 0)), (1, 1))),
    "first layer": ((1, 3, 20, 20), (20, 3, 7, 7), Window((2, 2), ((3, 3), (3, 3)), (1, 1))),
    "one channel": ((2, 1, 9, 9), (8, 1, 3, 3), Window((1, 1), ((1, 1), (1, 1)), (1, 1))),
    "odd channels": ((1, 7, 9, 8), (17, 7, 3, 3), Window((1, 1), ((1, 0), (0, 2)), (1, 1))),
    "strided": ((2, 32, 15, 14), (16, 32, 3, 3), Window((2, 2), ((1, 1), (0, 1)), (1, 1))),
    "dilated": ((1, 8, 16, 17), (9, 8, 3, 2), Window((1, 2), ((2, 2), (0, 0)), (2, 3))),
    "1-D": ((2, 12, 30), (10, 12, 5), Window((2,), ((2, 2),), (1,))),
    "3-D": ((1, 4, 5, 6, 7), (6, 4, 2, 3, 2), Window((1, 1, 1), ((0, 0), (1, 1), (0, 1)), (1, 1, 1))),
}


def rounded(x: Any) -> Any:
    """Return an array rounded to bfloat16, as float64."""
    return x.astype(ml_dtypes.bfloat16).astype(np.float64)


def arrays(*shapes: tuple[int, ...]) -> list[Any]:
    """Return arrays of these shapes."""
    return [RNG.standard_normal(s).astype(np.float32) for s in shapes]


def close(found: Any, want: Any, bound: float = 1e-5) -> None:
    """Check the largest difference, relative to the largest element."""
    assert found is not None and found.shape == want.shape
    assert np.abs(found - want).max(initial=0) <= bound * np.abs(want).max(initial=1e-30)


def convolve(x: Any, w: Any, win: Window) -> Any:
    """Convolve with torch, in the type of the arrays."""
    torch = pytest.importorskip("torch")
    pads = [p for pair in reversed(win.pads) for p in pair]
    f = {3: torch.conv1d, 4: torch.conv2d, 5: torch.conv3d}[x.ndim]
    padded = torch.nn.functional.pad(torch.from_numpy(x), pads)
    return f(padded, torch.from_numpy(w), stride=win.strides, dilation=win.dilations).numpy()


@pytest.mark.parametrize("at_end", [True, False])
@pytest.mark.parametrize("weights", [(), (1,)])
@pytest.mark.parametrize("case", MATRICES)
def test_matmul(case: str, weights: tuple[int, ...], at_end: bool) -> None:
    """Right sides packed beforehand and packed now; rounded operands are multiplied exactly, the rest is float32."""
    xs = arrays(*MATRICES[case])
    y = run_op("matmul", xs, weights=weights, at_end=at_end, precision="bf16")
    close(y, np.matmul(*map(rounded, xs)))
    close(y, np.matmul(*xs), 2e-2)


@pytest.mark.parametrize("case", [c for c, (a, b) in MATRICES.items() if len(a) > 2 or len(b) > 2])
def test_transposed(case: str) -> None:
    """Sides whose second axis lies innermost."""
    xs = arrays(*MATRICES[case])
    close(run_op("matmul", xs, order="channels_last", precision="bf16"), np.matmul(*map(rounded, xs)))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 70), st.integers(1, 90), st.booleans(), st.booleans())
def test_sizes(m: int, k: int, n: int, fixed: bool, at_end: bool) -> None:
    """Any size: tails of rows, pairs and columns."""
    xs = arrays((m, k), (k, n))
    y = run_op("matmul", xs, weights=[1] if fixed else [], at_end=at_end, precision="bf16")
    close(y, np.matmul(*map(rounded, xs)))


@pytest.mark.parametrize("depth", [20, 21])
def test_symbolic_rows(depth: int) -> None:
    """Batch and length that only run time knows."""
    for n, s in ((2, 17), (1, 1), (0, 5), (3, 64)):
        xs = arrays((n, s, depth), (depth, 40))
        y = run_op("matmul", xs, symbols={0: (BATCH, LENGTH, depth)}, weights=[1], precision="bf16")
        close(y, np.matmul(*map(rounded, xs)))


def test_symbolic_columns_and_depth() -> None:
    """The length is a number of columns, then the depth, even and odd."""
    for n, s in ((2, 17), (1, 1), (3, 32), (1, 37)):
        xs = arrays((n, 2, s, 12), (n, 2, 12, s))
        symbols = {0: (BATCH, 2, LENGTH, 12), 1: (BATCH, 2, 12, LENGTH)}
        close(run_op("matmul", xs, symbols=symbols, precision="bf16"), np.matmul(*map(rounded, xs)))
        xs = arrays((n, 2, s, s), (n, 2, s, 12))
        symbols = {0: (BATCH, 2, LENGTH, LENGTH), 1: (BATCH, 2, LENGTH, 12)}
        close(run_op("matmul", xs, symbols=symbols, precision="bf16"), np.matmul(*map(rounded, xs)))


@pytest.mark.parametrize("at_end", [True, False])
@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_convolution(case: str, at_end: bool) -> None:
    """Convolutions: rounded operands are multiplied exactly, the rest is float32."""
    x_shape, w_shape, win = CONVOLUTIONS[case]
    x, w = arrays(x_shape, w_shape)
    y = run_op("conv", [x, w], weights=[1], at_end=at_end, precision="bf16", exact=True, win=win)
    close(y, convolve(rounded(x), rounded(w), win))
    close(y, convolve(x, w, win), 2e-2)


@pytest.mark.parametrize("case", ["first layer", "strided"])
def test_symbolic_batch(case: str) -> None:
    """A number of images that only run time knows."""
    x_shape, w_shape, win = CONVOLUTIONS[case]
    for n in (1, 3, 0):
        x, w = arrays((n, *x_shape[1:]), w_shape)
        y = run_op(
            "conv", [x, w], symbols={0: (BATCH, *x_shape[1:])}, weights=[1], precision="bf16", exact=True, win=win
        )
        close(y, convolve(rounded(x), rounded(w), win))


def test_winograd() -> None:
    """Where Winograd in float32 is faster it stays, and rounds nothing; `exact` leaves it out."""
    x, w = arrays((1, 64, 56, 56), (64, 64, 3, 3))
    win = Window((1, 1), ((1, 1), (1, 1)), (1, 1))
    want = convolve(x.astype(np.float64), w.astype(np.float64), win)
    close(run_op("conv", [x, w], weights=[1], precision="bf16", win=win), want, 5e-5)
    y = run_op("conv", [x, w], weights=[1], precision="bf16", exact=True, win=win)
    assert np.abs(y - want).max() > 1e-4 * np.abs(want).max()


def test_groups_and_changing_filters() -> None:
    """Groups, and filters that are no weights, are multiplied in float32."""
    torch = pytest.importorskip("torch")
    x, w = arrays((1, 8, 9, 9), (8, 4, 3, 3))
    win = Window((1, 1), ((1, 1), (1, 1)), (1, 1), 2)
    y = run_op("conv", [x, w], weights=[1], precision="bf16", win=win)
    exact = (torch.from_numpy(a.astype(np.float64)) for a in (x, w))
    want = torch.conv2d(*exact, padding=1, groups=2)
    close(y, want.numpy(), 1e-5)
    _, w = arrays((1,), (6, 8, 3, 3))
    win = Window((1, 1), ((1, 1), (1, 1)), (1, 1))
    close(run_op("conv", [x, w], precision="bf16", exact=True, win=win), convolve(x, w, win), 1e-5)


@pytest.mark.parametrize("at_end", [True, False])
@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize("columns", [32, 37])
def test_epilogue(columns: int, stored: bool, at_end: bool) -> None:
    """Bias, residual (which may lie as bfloat16) and relu; the result may be stored as bfloat16."""
    xs = arrays((18, 24), (24, columns))
    bias, residual = arrays((columns,), (18, columns))
    kind = np.dtype(ml_dtypes.bfloat16) if stored else F32
    operands = (Operand(F32, (18, columns), (0, 1)), Operand(kind, (18, columns), (columns, 1)))
    epilogue = Epilogue(maximum(Var("x") + Var("a0") + Var("a1"), 0), operands, F32)
    extra = (bias, residual.astype(kind).ravel())
    y = run_op(
        "matmul", xs, weights=[1], epilogue=epilogue, extra=extra, precision="bf16", rounded=stored, at_end=at_end
    )
    want = np.maximum(np.matmul(*map(rounded, xs)) + bias + residual.astype(kind).astype(np.float64), 0)
    assert y.dtype == kind
    close(y.astype(np.float64), want, 2**-8 if stored else 1e-5)


def test_stored_as_bfloat16() -> None:
    """A convolution reads and writes bfloat16, and rounds to nearest even as NumPy does."""
    x_shape, w_shape, win = CONVOLUTIONS["3x3"]
    x, w = arrays(x_shape, w_shape)
    halo = ((0, 0), (0, 0), (1, 1), (2, 1))
    y = run_op("conv", [x, w], weights=[1], precision="bf16", exact=True, rounded=True, out_halo=halo, win=win)
    whole = run_op("conv", [x, w], weights=[1], precision="bf16", exact=True, win=win)
    np.testing.assert_array_equal(y.view(np.uint16), whole.astype(ml_dtypes.bfloat16).view(np.uint16))


def test_conversions() -> None:
    """Between float32 and bfloat16: ties to even, infinities, NaN, the sign of 0, tails of vectors."""
    x = np.concatenate([RNG.standard_normal(210), [np.inf, -np.inf, np.nan, -0.0, 1 + 2**-8, 1 + 3 * 2**-8, 3.4e38]])
    x = x.astype(np.float32)
    kinds = (F32, np.dtype(ml_dtypes.bfloat16))
    for source, to in (kinds, kinds[::-1]):
        site = TestSite("convert", [], {}, [], [], {})
        a, b = site.constant(x.astype(source)), site.temporary(to, x.shape)
        site.call(convert_kernel(site.target, a.operand, b.operand), [a, b])
        site.run()
        want = x.astype(source).astype(to)
        np.testing.assert_array_equal(b.view({}).astype(np.float64), want.astype(np.float64))


def test_threads() -> None:
    """Any number of threads gives the same bits."""
    x_shape, w_shape, win = CONVOLUTIONS["strided"]
    x, w = arrays((4, *x_shape[1:]), w_shape)
    first = run_op("conv", [x, w], weights=[1], precision="bf16", exact=True, win=win)
    a, b = arrays((3, 90, 65), (3, 65, 130))
    second = run_op("matmul", [a, b], precision="bf16")
    for threads in (2, 4):
        again = run_op("conv", [x, w], weights=[1], precision="bf16", exact=True, win=win, threads=threads)
        np.testing.assert_array_equal(first, again)
        np.testing.assert_array_equal(second, run_op("matmul", [a, b], precision="bf16", threads=threads))


def test_special_values() -> None:
    """NaN and infinities go through; what rounds to infinity is infinite; denormal numbers count as 0."""
    a = np.zeros((4, 6), np.float32)
    a[0, 0], a[1, 1], a[2, 2], a[3, 3] = np.nan, np.inf, 3.4e38, 1e-39
    y = run_op("matmul", [a, np.ones((6, 5), np.float32)], weights=[1], precision="bf16")
    assert np.isnan(y[0]).all()
    assert np.isposinf(y[1:3]).all()
    assert (y[3] == 0).all()
