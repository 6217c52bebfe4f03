"""Compiled pooling and its gradients against the array kernels and torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from onnxgrad.ops.dims import Dim
from onnxgrad.ops.errors import OpError
from onnxgrad.ops.expr import Var, maximum, where
from onnxgrad.ops.kernels.cpu import load_rules
from onnxgrad.ops.kernels.cpu.jit import compiled_modules
from onnxgrad.ops.kernels.cpu.lowering import Epilogue
from onnxgrad.ops.kernels.cpu.operand import Operand
from onnxgrad.ops.op import OPS
from onnxgrad.ops.window import Window

from .site import run_op

load_rules()
RNG = np.random.default_rng(0)
BATCH, HEIGHT, WIDTH = (Dim.symbol(s) for s in "nhw")


def window(rank: int, stride: int = 1, pad: tuple[int, int] = (0, 0), dilation: int = 1) -> Window:
    """Return a window that is alike along all axes."""
    return Window((stride,) * rank, (pad,) * rank, (dilation,) * rank)


CASES = {
    "3x3 s2": ((2, 5, 7, 9), (3, 3), window(2, 2, (1, 1))),
    "2x2 s2": ((1, 16, 12, 12), (2, 2), window(2, 2)),
    "many channels": ((1, 150, 6, 5), (3, 3), window(2, 1, (1, 1))),
    "whole": ((2, 17, 7, 7), (7, 7), window(2)),
    "uneven": ((1, 8, 9, 10), (2, 4), Window((3, 1), ((0, 1), (2, 0)), (1, 1))),
    "ceiled": ((1, 4, 7, 7), (2, 2), window(2, 2).ceiled((7, 7), (2, 2))),
    "1-D": ((2, 20, 13), (3,), window(1, 1, (1, 1))),
    "3-D": ((1, 3, 5, 6, 7), (2, 2, 2), window(3, 2, (1, 0))),
}
DILATED = {
    "dilated": ((2, 4, 9, 9), (3, 3), window(2, 2, (1, 1), 2)),
    "dilated 1-D": ((1, 4, 9), (3,), window(1, 1, (2, 2), 2)),
}


def same(found: Any, op: str, xs: list[Any], *, exactly: bool = False, **attrs: Any) -> None:
    """Check a result against the array kernel in float64."""
    want = np.asarray(OPS[op](*(a.astype(np.float64) if a.dtype.kind == "f" else a for a in xs), **attrs))
    assert found is not None
    if exactly:
        np.testing.assert_array_equal(found, want)
    else:
        np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("at_end", [True, False])
@pytest.mark.parametrize("lost", [False, True])
@pytest.mark.parametrize("case", CASES | DILATED)
def test_max(case: str, lost: bool, at_end: bool) -> None:
    """Maxima and their places: the first of equals; NaN wins, infinities are numbers."""
    shape, kernel, win = (CASES | DILATED)[case]
    x = RNG.integers(-3, 3, shape).astype(np.float32)
    x[0, 0], x[0, -1, 1] = -np.inf, np.inf
    if lost:
        x[0, 1, 2] = np.nan
    attrs: dict[str, Any] = {"kernel": kernel, "win": win}
    same(run_op("max_pool", [x], at_end=at_end, multiple=16, **attrs), "max_pool", [x], exactly=True, **attrs)
    for column_major in (False, True):
        attrs["column_major"] = column_major
        same(run_op("max_pool_indices", [x], at_end=at_end, **attrs), "max_pool_indices", [x], exactly=True, **attrs)


def counts(kernel: tuple[int, ...], win: Window) -> list[Any]:
    """Return which pads may count: a sum, none, the window's."""
    return [None, ((0, 0),) * len(kernel), win.pads]


@pytest.mark.parametrize("at_end", [True, False])
@pytest.mark.parametrize("case", CASES | DILATED)
def test_sum(case: str, at_end: bool) -> None:
    """Sums and means."""
    shape, kernel, win = (CASES | DILATED)[case]
    x = RNG.standard_normal(shape).astype(np.float32)
    for counted in counts(kernel, win):
        attrs: dict[str, Any] = {"kernel": kernel, "win": win, "counted": counted}
        same(run_op("sum_pool", [x], at_end=at_end, multiple=16, **attrs), "sum_pool", [x], **attrs)


@pytest.mark.parametrize("at_end", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_sum_grad(case: str, at_end: bool) -> None:
    """The gradients of sums and means."""
    shape, kernel, win = CASES[case]
    g = RNG.standard_normal((*shape[:2], *win.out(shape[2:], kernel))).astype(np.float32)
    for counted in counts(kernel, win):
        attrs: dict[str, Any] = {"kernel": kernel, "win": win, "counted": counted, "size": shape[2:]}
        same(run_op("sum_pool_grad", [g], at_end=at_end, **attrs), "sum_pool_grad", [g], **attrs)


@pytest.mark.parametrize("at_end", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_scatter(case: str, at_end: bool) -> None:
    """The gradient of a maximum, and of indices that point anywhere."""
    shape, kernel, win = CASES[case]
    x = RNG.standard_normal(shape).astype(np.float32)
    own = OPS["max_pool_indices"](x, kernel=kernel, win=win)
    g = RNG.standard_normal(own.shape).astype(np.float32)
    anywhere = np.where(RNG.random(own.shape) < 0.5, own, RNG.integers(0, x.size, own.shape))
    for indices in (own, anywhere):
        found = run_op("pool_scatter", [g, indices], size=shape[2:], at_end=at_end)
        same(found, "pool_scatter", [g, indices], size=shape[2:])


@pytest.mark.parametrize("at_end", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", CASES | DILATED)
def test_max_grad(case: str, dtype: Any, at_end: bool) -> None:
    """The first of equal elements gets what its windows give."""
    shape, kernel, win = (CASES | DILATED)[case]
    x = RNG.integers(-3, 3, shape).astype(dtype)
    x[0, 0] = -np.inf
    g = RNG.standard_normal((*shape[:2], *win.out(shape[2:], kernel))).astype(dtype)
    found = run_op("max_pool_grad", [g, x], kernel=kernel, win=win, at_end=at_end)
    same(found, "max_pool_grad", [g, x], kernel=kernel, win=win)


def test_max_grad_of_many_rows_and_taps() -> None:
    """Rows that chunks share, windows that are not written out, an epilogue that reads the result."""
    f32, shape = np.dtype(np.float32), (1, 40, 90, 60)
    x = RNG.standard_normal(shape).astype(np.float32)
    _, c, h, w = shape
    mask = Epilogue(where(Var("a0") > 0, Var("x"), 0), (Operand(f32, shape, (h * w * c, 1, w * c, c)),), f32)
    extra = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
    for kernel, win in (((3, 3), window(2, 2, (1, 1))), ((5, 5), window(2, 1, (2, 2)))):
        g = RNG.standard_normal((*shape[:2], *win.out(shape[2:], kernel))).astype(np.float32)
        runs = [
            run_op("max_pool_grad", [g, x], kernel=kernel, win=win, threads=t, epilogue=mask, extra=[extra],
                   order="channels_last", multiple=16, out_halo=((0, 0), (0, 0), (1, 0), (0, 2)))
            for t in (1, 4)
        ]  # fmt: skip
        np.testing.assert_array_equal(*runs)
        wanted = OPS["max_pool_grad"](g, x, kernel=kernel, win=win)
        np.testing.assert_allclose(runs[0], np.where(x > 0, wanted, 0), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("index", [-1, 4 * 49, np.iinfo(np.int64).min])
def test_scatter_outside(index: int) -> None:
    """An index outside the result is an error."""
    indices = np.zeros((1, 4, 3, 3), np.int64)
    indices[0, 1, 2, 1] = index
    with pytest.raises(OpError, match="outside"):
        run_op("pool_scatter", [np.ones(indices.shape, np.float32), indices], size=(7, 7))


@pytest.mark.parametrize("case", ["3x3 s2", "2x2 s2", "whole"])
def test_torch(case: str) -> None:
    """torch computes the same maxima, means and gradients."""
    torch = pytest.importorskip("torch")
    f = torch.nn.functional
    shape, kernel, win = CASES[case]
    x = RNG.standard_normal(shape).astype(np.float32)
    window_ = {"kernel_size": kernel, "stride": win.strides, "padding": win.pads[0][0]}
    attrs: dict[str, Any] = {"kernel": kernel, "win": win}
    tx = torch.from_numpy(x).requires_grad_()
    largest, places = f.max_pool2d(tx, **window_, return_indices=True)
    np.testing.assert_array_equal(run_op("max_pool", [x], **attrs), largest.detach().numpy())
    indices = run_op("max_pool_indices", [x], **attrs)
    planes = np.arange(shape[0] * shape[1]).reshape(*shape[:2], 1, 1) * shape[2] * shape[3]
    np.testing.assert_array_equal(indices, places.numpy() + planes)
    g = RNG.standard_normal(indices.shape).astype(np.float32)
    largest.backward(torch.from_numpy(g))
    np.testing.assert_allclose(run_op("pool_scatter", [g, indices], size=shape[2:]), tx.grad.numpy(), atol=1e-6)
    found = run_op("max_pool_grad", [g, x], **attrs)
    np.testing.assert_allclose(found, tx.grad.numpy(), atol=1e-6)
    for counted in counts(kernel, win)[1:]:
        tx = torch.from_numpy(x).requires_grad_()
        mean = f.avg_pool2d(tx, **window_, count_include_pad=counted == win.pads and win.pads[0][0] > 0)
        mean.backward(torch.from_numpy(g))
        np.testing.assert_allclose(run_op("sum_pool", [x], counted=counted, **attrs), mean.detach().numpy(), atol=1e-6)
        found = run_op("sum_pool_grad", [g], counted=counted, size=shape[2:], **attrs)
        np.testing.assert_allclose(found, tx.grad.numpy(), atol=1e-6)


@pytest.mark.parametrize("op", ["max_pool", "max_pool_indices", "sum_pool"])
def test_symbolic_sizes(op: str) -> None:
    """Other batches, heights and widths need no new code."""
    win, made = window(2, 2, (1, 1)), None
    attrs: dict[str, Any] = {"kernel": (3, 3), "win": win} | ({"counted": ((0, 0),) * 2} if op == "sum_pool" else {})
    for n, h, w in ((1, 7, 9), (3, 1, 2), (2, 12, 40), (0, 5, 5)):
        x = RNG.standard_normal((n, 20, h, w)).astype(np.float32)
        symbols = {0: (BATCH, 20, HEIGHT, WIDTH)}
        same(run_op(op, [x], symbols=symbols, **attrs), op, [x], **attrs)
        made = made or compiled_modules()
        assert compiled_modules() == made


def test_symbolic_gradients() -> None:
    """Gradients over symbolic batches and windows."""
    win = window(2, 2, (1, 1))
    for n, h, w in ((1, 7, 9), (3, 3, 2), (2, 12, 40)):
        x = RNG.standard_normal((n, 20, h, w)).astype(np.float32)
        indices = OPS["max_pool_indices"](x, kernel=(3, 3), win=win)
        g = RNG.standard_normal(indices.shape).astype(np.float32)
        symbols = {i: (BATCH, 20, HEIGHT, WIDTH) for i in (0, 1)}
        attrs: dict[str, Any] = {"kernel": (3, 3), "win": win, "counted": ((0, 0),) * 2, "size": (h, w)}
        same(run_op("sum_pool_grad", [g], symbols={0: symbols[0]}, **attrs), "sum_pool_grad", [g], **attrs)
        found = run_op("max_pool_grad", [g, x], symbols=symbols | {0: (BATCH, 20, Dim.symbol("p"), Dim.symbol("q"))},
                       kernel=(3, 3), win=win)  # fmt: skip
        same(found, "max_pool_grad", [g, x], kernel=(3, 3), win=win)
        found = run_op("pool_scatter", [g, indices], symbols=symbols, size=(h, w))
        same(found, "pool_scatter", [g, indices], size=(h, w))


@pytest.mark.parametrize("op", ["max_pool", "sum_pool"])
def test_epilogue(op: str) -> None:
    """A scale a channel and a residual, into an output with a halo that stays zero."""
    shape, kernel, win = CASES["many channels"]
    x = RNG.standard_normal(shape).astype(np.float32)
    scale = RNG.standard_normal(shape[1]).astype(np.float32)
    f32, (_, c, h, w) = np.dtype(np.float32), shape
    operands = (Operand(f32, shape, (0, 1, 0, 0)), Operand(f32, shape, (h * w * c, 1, w * c, c)))
    y = run_op(
        op, [x], kernel=kernel, win=win, order="channels_last", out_halo=((0, 0), (0, 0), (1, 0), (0, 2)),
        epilogue=Epilogue(maximum(Var("x") * Var("a0") + Var("a1"), 0), operands, f32),
        extra=(scale, np.ascontiguousarray(x.transpose(0, 2, 3, 1)).ravel()),
    )  # fmt: skip
    want = np.maximum(OPS[op](x.astype(np.float64), kernel=kernel, win=win) * scale[:, None, None] + x, 0)
    np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-5)


def test_threads() -> None:
    """Any number of threads computes the same bits."""
    win = window(2, 1, (1, 1))
    x = RNG.standard_normal((4, 70, 28, 28)).astype(np.float32)
    indices = OPS["max_pool_indices"](x, kernel=(3, 3), win=win)
    window_: dict[str, Any] = {"kernel": (3, 3), "win": win}
    runs: list[tuple[str, list[Any], dict[str, Any]]] = [
        ("max_pool", [x], window_), ("max_pool_indices", [x], window_), ("sum_pool", [x], window_),
        ("sum_pool_grad", [x], {**window_, "size": (28, 28)}), ("pool_scatter", [x, indices], {"size": (28, 28)}),
    ]  # fmt: skip
    for op, xs, attrs in runs:
        one, two, four = (run_op(op, xs, threads=t, **attrs).tobytes() for t in (1, 2, 4))
        assert one == two == four


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_any_shape(data: st.DataObject) -> None:
    """Shapes that nobody thought of."""
    draw = data.draw
    rank = draw(st.integers(1, 3))
    k = tuple(draw(st.integers(1, 4)) for _ in range(rank))
    d = tuple(draw(st.integers(1, 2)) for _ in range(rank))
    pads = tuple((draw(st.integers(0, n - 1)), draw(st.integers(0, n - 1))) for n in k)
    low = [max(1, e * (n - 1) + 1 - sum(p)) for n, e, p in zip(k, d, pads, strict=True)]
    size = tuple(draw(st.integers(n, n + 9)) for n in low)
    win = Window(tuple(draw(st.integers(1, 3)) for _ in k), pads, d)
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    x = rng.integers(-9, 9, (draw(st.integers(1, 2)), draw(st.integers(1, 36)), *size)).astype(np.float32)
    attrs: dict[str, Any] = {"kernel": k, "win": win}
    same(run_op("max_pool", [x], **attrs), "max_pool", [x], exactly=True, **attrs)
    counted = draw(st.sampled_from(counts(k, win)))
    same(run_op("sum_pool", [x], counted=counted, **attrs), "sum_pool", [x], counted=counted, **attrs)
    g = rng.standard_normal((*x.shape[:2], *win.out(size, k))).astype(np.float32)
    same(run_op("max_pool_grad", [g, x], **attrs), "max_pool_grad", [g, x], **attrs)
    if max(d) == 1:
        attrs |= {"counted": counted, "size": size}
        same(run_op("sum_pool_grad", [g], **attrs), "sum_pool_grad", [g], **attrs)
