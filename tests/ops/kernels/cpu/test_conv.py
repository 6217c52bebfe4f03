"""Compiled convolutions against the array kernel in float64, and torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from onnxgrad.ops.conv import conv
from onnxgrad.ops.dims import Dim
from onnxgrad.ops.expr import Var, maximum
from onnxgrad.ops.kernels.cpu import load_rules
from onnxgrad.ops.kernels.cpu.jit import compiled_modules
from onnxgrad.ops.kernels.cpu.lowering import Epilogue
from onnxgrad.ops.kernels.cpu.operand import Operand
from onnxgrad.ops.window import Window

from .site import run_op

load_rules()
RNG = np.random.default_rng(0)
BATCH, HEIGHT, WIDTH = (Dim.symbol(s) for s in "nhw")


def window(rank: int, stride: int = 1, pad: tuple[int, int] = (0, 0), dilation: int = 1, group: int = 1) -> Window:
    """Return a window that is alike along all axes."""
    return Window((stride,) * rank, (pad,) * rank, (dilation,) * rank, group)


def arrays(x: tuple[int, ...], w: tuple[int, ...], dtype: Any = np.float32) -> list[Any]:
    """Return an input and filters."""
    return [RNG.standard_normal(s).astype(dtype) for s in (x, w)]


def wanted(xs: list[Any], win: Window) -> Any:
    """Return the convolution in float64."""
    return conv(*(a.astype(np.float64) for a in xs), win=win)


def close(found: Any, want: Any) -> None:
    """Check that the largest difference is small beside the largest element."""
    assert found is not None
    assert found.shape == want.shape
    scale = np.abs(want).max(initial=1e-30)
    assert np.abs(found - want).max(initial=0) <= (1e-13 if found.dtype == np.float64 else 2e-5) * scale


CASES = {
    "square": ((2, 16, 9, 9), (32, 16, 3, 3), window(2, pad=(1, 1))),
    "odd channels": ((1, 5, 8, 11), (7, 5, 3, 2), window(2, pad=(1, 0))),
    "first layer": ((1, 3, 23, 23), (16, 3, 7, 7), window(2, 2, (3, 3))),
    "one by one": ((2, 20, 7, 7), (40, 20, 1, 1), window(2)),
    "one by one, strided": ((1, 12, 9, 8), (33, 12, 1, 1), window(2, 2)),
    "dilated": ((1, 4, 15, 15), (20, 4, 3, 3), window(2, dilation=2, pad=(2, 2))),
    "uneven pads": ((1, 4, 9, 9), (6, 4, 4, 4), window(2, 3, (1, 2))),
    "width of 1": ((3, 8, 5, 1), (9, 8, 3, 1), Window((1, 1), ((1, 1), (0, 0)), (1, 1))),
    "groups": ((2, 12, 8, 8), (18, 4, 3, 3), window(2, pad=(1, 1), group=3)),
    "groups of 2": ((1, 8, 6, 6), (8, 2, 3, 3), window(2, pad=(1, 1), group=4)),
    "1-D": ((2, 6, 31), (10, 6, 5), window(1, 2, (2, 2))),
    "3-D": ((1, 3, 6, 7, 8), (5, 3, 3, 3, 3), window(3, pad=(1, 1))),
    "3-D, groups": ((1, 4, 5, 5, 5), (6, 2, 2, 2, 2), window(3, 2, group=2)),
    "patches": ((1, 3, 32, 32), (24, 3, 8, 8), window(2, 8)),
    "cropped": ((1, 4, 9, 9), (8, 4, 3, 3), window(2, pad=(-1, 0))),
    "empty batch": ((0, 4, 9, 9), (8, 4, 3, 3), window(2)),
    "deep": ((1, 1040, 3, 5), (50, 1040, 3, 3), window(2, pad=(1, 1))),
    "deep, one by one": ((1, 2100, 3, 5), (50, 2100, 1, 1), window(2)),
}


@pytest.mark.parametrize("at_end", [True, False])
@pytest.mark.parametrize("multiple", [1, 16])
@pytest.mark.parametrize("case", CASES)
def test_array_kernel(case: str, multiple: int, at_end: bool) -> None:
    """Weights packed beforehand, in all layouts of the input."""
    x, w, win = CASES[case]
    xs = arrays(x, w)
    y = run_op("conv", xs, weights=[1], order="channels_last", multiple=multiple, at_end=at_end, exact=True, win=win)
    close(y, wanted(xs, win))


@pytest.mark.parametrize("case", CASES)
def test_weights_of_this_run(case: str) -> None:
    """Filters that are no constants are packed by a kernel."""
    x, w, win = CASES[case]
    xs = arrays(x, w)
    close(run_op("conv", xs, order="channels_last", exact=True, win=win), wanted(xs, win))


@pytest.mark.parametrize("case", ["square", "odd channels", "groups", "1-D"])
def test_float64(case: str) -> None:
    """float64 is exact to its own precision."""
    x, w, win = CASES[case]
    xs = arrays(x, w, np.float64)
    close(run_op("conv", xs, weights=[1], order="channels_last", exact=True, win=win), wanted(xs, win))


@pytest.mark.parametrize("case", CASES)
def test_torch(case: str) -> None:
    """torch computes the same."""
    torch = pytest.importorskip("torch")
    x, w, win = CASES[case]
    if win.pads[0][0] != win.pads[0][1] or len(set(win.pads)) > 1 or x[0] == 0:
        pytest.skip("torch wants even pads")
    xs = arrays(x, w)
    f = {1: torch.nn.functional.conv1d, 2: torch.nn.functional.conv2d, 3: torch.nn.functional.conv3d}[len(x) - 2]
    want = f(
        *map(torch.from_numpy, xs), stride=win.strides, padding=win.pads[0][0], dilation=win.dilations, groups=win.group
    )
    close(run_op("conv", xs, weights=[1], order="channels_last", exact=True, win=win), want.numpy())


@pytest.mark.parametrize(("filters", "multiple"), [(32, 1), (7, 1), (7, 16), (40, 16)])
@pytest.mark.parametrize("at_end", [True, False])
def test_epilogue(filters: int, multiple: int, at_end: bool) -> None:
    """Bias, residual and relu, into an output with a halo that stays zero."""
    win = window(2, pad=(1, 1))
    xs = arrays((2, 8, 6, 6), (filters, 8, 3, 3))
    bias = RNG.standard_normal((1, filters, 1, 1)).astype(np.float32)
    residual = RNG.standard_normal((2, filters, 6, 6)).astype(np.float32)
    x, a0, a1 = Var("x"), Var("a0"), Var("a1")
    shape = residual.shape
    rows = np.ascontiguousarray(residual.transpose(0, 2, 3, 1))
    f32 = np.dtype(np.float32)
    operands = (
        Operand(f32, shape, (0, 1, 0, 0)),
        Operand(f32, shape, (36 * filters, 1, 6 * filters, filters)),
    )
    epilogue = Epilogue(maximum(x + a0 + a1, 0), operands, f32)
    y = run_op(
        "conv", xs, weights=[1], order="channels_last", multiple=multiple, at_end=at_end, exact=True, win=win,
        epilogue=epilogue, extra=(bias.ravel(), rows.ravel()), out_halo=((0, 0), (0, 0), (1, 1), (2, 1)),
    )  # fmt: skip
    close(y, np.maximum(wanted(xs, win) + bias + residual, 0))


@pytest.mark.parametrize("case", ["square", "one by one", "groups", "1-D", "3-D", "first layer"])
def test_symbolic_batch(case: str) -> None:
    """Another batch size needs no new code."""
    x, w, win = CASES[case]
    made = None
    for n in (1, 3, 20, 0):
        xs = arrays((n, *x[1:]), w)
        symbols = {0: (BATCH, *x[1:])}
        close(
            run_op("conv", xs, symbols=symbols, weights=[1], order="channels_last", exact=True, win=win),
            wanted(xs, win),
        )
        made = made or compiled_modules()
        assert compiled_modules() == made


@pytest.mark.parametrize("win", [window(2, pad=(1, 1)), window(2, 2, (1, 1)), window(2, pad=(2, 2), dilation=2)])
def test_symbolic_size(win: Window) -> None:
    """Another height and width need no new code either; narrow maps have tiles of their own."""
    made = None
    for h, w in ((9, 40), (5, 3), (6, 1), (7, 17), (3, 5), (4, 6)):
        xs = arrays((2, 4, h, w), (20, 4, 3, 3))
        symbols = {0: (BATCH, 4, HEIGHT, WIDTH)}
        for at_end in (True, False):
            y = run_op(
                "conv", xs, symbols=symbols, weights=[1], order="channels_last", exact=True, win=win, at_end=at_end
            )
            close(y, wanted(xs, win))
        made = made or compiled_modules()
        assert compiled_modules() == made


@pytest.mark.parametrize(("channels", "filters"), [(2, 20), (64, 34), (128, 258)])
def test_any_width(channels: int, filters: int) -> None:
    """Tiles of all kinds together cover any width, and no more."""
    win = window(1, pad=(1, 1))
    symbols = {0: (BATCH, channels, WIDTH)}
    for w in range(1, 60):
        xs = arrays((1, channels, w), (filters, channels, 3))
        y = run_op("conv", xs, symbols=symbols, weights=[1], order="channels_last", exact=True, win=win)
        close(y, wanted(xs, win))


@pytest.mark.parametrize("case", ["square", "odd channels", "deep", "groups"])
def test_threads(case: str) -> None:
    """Any number of threads computes the same bits."""
    x, w, win = CASES[case]
    xs = arrays((4, *x[1:]), w)
    one, two, four = (
        run_op("conv", xs, weights=[1], order="channels_last", exact=True, win=win, threads=t) for t in (1, 2, 4)
    )
    assert one.tobytes() == two.tobytes() == four.tobytes()


def test_not_a_number() -> None:
    """NaN and infinity reach the outputs that see them, and no others."""
    xs = arrays((1, 3, 9, 9), (5, 3, 3, 3))
    xs[0][0, 1, 4, 4], xs[0][0, 0, 0, 0] = np.nan, np.inf
    win = window(2, pad=(1, 1))
    y = run_op("conv", xs, weights=[1], order="channels_last", multiple=16, exact=True, win=win)
    np.testing.assert_array_equal(np.isfinite(y), np.isfinite(conv(*xs, win=win)))


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_shape(data: st.DataObject) -> None:
    """Shapes that nobody thought of."""
    draw = data.draw
    group = draw(st.sampled_from([1, 1, 2, 3]))
    k = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    d = draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    pads = tuple((draw(st.integers(0, 2)), draw(st.integers(0, 2))) for _ in k)
    size = tuple(draw(st.integers(max(1, e * (n - 1) + 1 - sum(p)), 20)) for n, e, p in zip(k, d, pads, strict=True))
    win = Window(draw(st.tuples(st.integers(1, 3), st.integers(1, 3))), pads, d, group)
    c, f = draw(st.integers(1, 20)), draw(st.integers(1, 36))
    xs = arrays((draw(st.integers(0, 3)), c * group, *size), (f * group, c, *k))
    y = run_op(
        "conv", xs, weights=[1] if draw(st.booleans()) else [], order="channels_last", exact=True, win=win,
        multiple=draw(st.sampled_from([1, 16])), at_end=draw(st.booleans()),
    )  # fmt: skip
    close(y, wanted(xs, win))
