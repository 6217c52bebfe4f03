"""Compiled gradients of convolutions against the array kernels in float64, and torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from onnxgrad.ops.conv import conv_input_grad, conv_weight_grad
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


CASES = {
    "square": ((2, 16, 9, 9), (32, 16, 3, 3), window(2, pad=(1, 1))),
    "stride of 2": ((2, 16, 9, 10), (12, 16, 3, 3), window(2, 2, (1, 1))),
    "stride beyond the kernel": ((2, 8, 9, 11), (12, 8, 2, 1), window(2, 3)),
    "one by one": ((2, 20, 7, 7), (40, 20, 1, 1), window(2)),
    "one by one, strided": ((1, 12, 9, 8), (33, 12, 1, 1), window(2, 2)),
    "first layer": ((2, 3, 23, 23), (16, 3, 7, 7), window(2, 2, (3, 3))),
    "dilated": ((1, 4, 15, 15), (20, 4, 3, 3), window(2, dilation=2, pad=(2, 2))),
    "dilated and strided": ((1, 4, 15, 16), (20, 4, 3, 3), window(2, 2, (2, 1), 3)),
    "dilation and stride of 2": ((1, 4, 15, 16), (20, 4, 3, 3), window(2, 2, (2, 2), 2)),
    "uneven pads": ((1, 4, 9, 9), (6, 4, 4, 4), window(2, 3, (1, 2))),
    "groups": ((2, 12, 8, 8), (18, 4, 3, 3), window(2, 2, pad=(1, 1), group=3)),
    "1-D": ((2, 6, 31), (10, 6, 5), window(1, 2, (2, 2))),
    "3-D": ((1, 3, 6, 7, 8), (5, 3, 3, 3, 3), window(3, 2, pad=(1, 1))),
    "many pixels": ((3, 5, 40, 40), (40, 5, 3, 3), window(2, pad=(1, 1))),
    "narrow": ((2, 24, 20, 20), (144, 24, 1, 1), window(2)),
    "narrow groups": ((1, 6, 30, 30), (64, 3, 3, 3), window(2, 2, (1, 1), group=2)),
    "cropped": ((1, 4, 9, 9), (8, 4, 3, 3), window(2, pad=(-1, 0))),
    "empty batch": ((0, 4, 9, 9), (8, 4, 3, 3), window(2)),
}


def arrays(case: str, batch: int | None = None, dtype: Any = np.float32) -> tuple[Any, Any, Any, Window]:
    """Return an input, filters and a gradient of the output."""
    x, w, win = CASES[case]
    x = (x[0] if batch is None else batch, *x[1:])
    out = (x[0], w[0], *win.out(x[2:], w[2:]))
    return (*(RNG.standard_normal(s).astype(dtype) for s in (x, w, out)), win)


def close(found: Any, want: Any) -> None:
    """Check that the largest difference is small beside the largest element."""
    assert found is not None
    assert found.shape == want.shape
    scale = np.abs(want).max(initial=1e-30)
    assert np.abs(found - want).max(initial=0) <= (1e-13 if found.dtype == np.float64 else 3e-5) * scale


def input_grad(g: Any, w: Any, win: Window, size: Any) -> Any:
    """Return the gradient of the input in float64."""
    return conv_input_grad(g.astype(np.float64), w.astype(np.float64), win=win, size=size)


def weight_grad(g: Any, x: Any, win: Window, kernel: Any) -> Any:
    """Return the gradient of the weights in float64."""
    return conv_weight_grad(g.astype(np.float64), x.astype(np.float64), win=win, kernel=kernel)


@pytest.mark.parametrize(("weights", "multiple", "at_end"), [((1,), 1, True), ((), 16, False), ((1,), 16, True)])
@pytest.mark.parametrize("case", CASES)
def test_input(case: str, weights: tuple[int, ...], multiple: int, at_end: bool) -> None:
    """The gradient of the input."""
    x, w, g, win = arrays(case)
    size = x.shape[2:]
    y = run_op(
        "conv_input_grad", [g, w], weights=weights, order="channels_last", multiple=multiple, at_end=at_end, exact=True,
        win=win, size=size,
    )  # fmt: skip
    close(y, input_grad(g, w, win, size))


@pytest.mark.parametrize(("multiple", "at_end"), [(1, True), (16, False), (16, True)])
@pytest.mark.parametrize("case", CASES)
def test_weight(case: str, multiple: int, at_end: bool) -> None:
    """The gradient of the weights."""
    x, w, g, win = arrays(case)
    kernel = w.shape[2:]
    y = run_op(
        "conv_weight_grad", [g, x], order="channels_last", multiple=multiple, at_end=at_end, win=win, kernel=kernel
    )
    close(y, weight_grad(g, x, win, kernel))


@pytest.mark.parametrize("case", ["square", "stride of 2", "groups", "1-D", "one by one"])
def test_float64(case: str) -> None:
    """float64 is exact to its own precision."""
    x, w, g, win = arrays(case, dtype=np.float64)
    size, kernel = x.shape[2:], w.shape[2:]
    y = run_op("conv_input_grad", [g, w], order="channels_last", exact=True, win=win, size=size)
    close(y, input_grad(g, w, win, size))
    close(
        run_op("conv_weight_grad", [g, x], order="channels_last", win=win, kernel=kernel),
        weight_grad(g, x, win, kernel),
    )


@pytest.mark.parametrize("case", ["square", "stride of 2", "first layer", "groups", "dilated and strided", "1-D"])
def test_torch(case: str) -> None:
    """torch's autograd computes the same."""
    torch = pytest.importorskip("torch")
    x, w, g, win = arrays(case)
    f = {1: torch.nn.functional.conv1d, 2: torch.nn.functional.conv2d}[x.ndim - 2]
    tx, tw = (torch.from_numpy(a).requires_grad_() for a in (x, w))
    pad = [p[0] for p in win.pads]
    padded = (
        tx if all(a == c for a, c in win.pads) else torch.nn.functional.pad(tx, [p for q in win.pads[::-1] for p in q])
    )
    y = f(padded, tw, stride=win.strides, padding=pad if padded is tx else 0, dilation=win.dilations, groups=win.group)
    y.backward(torch.from_numpy(g))
    size, kernel = x.shape[2:], w.shape[2:]
    found = run_op("conv_input_grad", [g, w], weights=[1], order="channels_last", exact=True, win=win, size=size)
    close(found, tx.grad.numpy())
    close(run_op("conv_weight_grad", [g, x], order="channels_last", win=win, kernel=kernel), tw.grad.numpy())


@pytest.mark.parametrize("case", ["square", "stride of 2", "one by one", "groups", "1-D", "many pixels"])
def test_symbolic_batch(case: str) -> None:
    """Another batch size needs no new code."""
    made = None
    for n in (1, 3, 20, 0):
        x, w, g, win = arrays(case, n)
        size, kernel = x.shape[2:], w.shape[2:]
        symbols = {0: (BATCH, *g.shape[1:])}
        y = run_op(
            "conv_input_grad",
            [g, w],
            symbols=symbols,
            weights=[1],
            order="channels_last",
            exact=True,
            win=win,
            size=size,
        )
        close(y, input_grad(g, w, win, size))
        symbols[1] = (BATCH, *x.shape[1:])
        y = run_op("conv_weight_grad", [g, x], symbols=symbols, order="channels_last", win=win, kernel=kernel)
        close(y, weight_grad(g, x, win, kernel))
        made = made or compiled_modules()
        assert compiled_modules() == made


def test_symbolic_size() -> None:
    """Upsampling by a transposed convolution of images of any size needs no new code."""
    made = None
    win = window(2, 2, (1, 1))
    for h, w in ((9, 20), (3, 1), (4, 33)):
        g, weights = RNG.standard_normal((2, 6, h, w)), RNG.standard_normal((6, 5, 4, 4))
        symbols = {0: (BATCH, 6, HEIGHT, WIDTH)}
        size: Any = (2 * HEIGHT, 2 * WIDTH)
        y = run_op(
            "conv_input_grad", [g.astype(np.float32), weights.astype(np.float32)], symbols=symbols, weights=[1],
            order="channels_last", exact=True, win=win, size=size,
        )  # fmt: skip
        close(y, conv_input_grad(g, weights, win=win, size=(2 * h, 2 * w)))
        made = made or compiled_modules()
        assert compiled_modules() == made


def test_epilogue() -> None:
    """Bias, residual and relu reach every phase, in an output with a halo."""
    x, w, g, win = arrays("stride of 2")
    _, c, height, width = x.shape
    bias = RNG.standard_normal((1, c, 1, 1)).astype(np.float32)
    f32 = np.dtype(np.float32)
    rows = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
    operands = (
        Operand(f32, x.shape, (0, 1, 0, 0)), Operand(f32, x.shape, (height * width * c, 1, width * c, c)),
    )  # fmt: skip
    epilogue = Epilogue(maximum(Var("x") + Var("a0") + Var("a1"), 0), operands, f32)
    y = run_op(
        "conv_input_grad", [g, w], weights=[1], order="channels_last", exact=True, epilogue=epilogue,
        extra=(bias.ravel(), rows.ravel()), out_halo=((0, 0), (0, 0), (1, 1), (2, 1)), win=win, size=(height, width),
    )  # fmt: skip
    close(y, np.maximum(input_grad(g, w, win, (height, width)) + bias + x, 0))


@pytest.mark.parametrize("at_end", [True, False])
@pytest.mark.parametrize(("x", "w", "win"), [
    ((1, 40, 70, 70), (20, 40, 1, 1), window(2)),
    ((2, 24, 65, 90), (9, 24, 3, 3), window(2, pad=(1, 1))),
    ((2, 24, 60, 90), (9, 24, 2, 2), window(2, 2)),
    ((1, 90, 50, 50), (130, 90, 1, 1), window(2)),
])  # fmt: skip
def test_far(x: Any, w: Any, win: Window, at_end: bool) -> None:
    """Results that do not stay near, for which kernels ask for memory beforehand, with an epilogue that reads too."""
    size, f32 = x[2:], np.dtype(np.float32)
    g, weights, a, b = (
        RNG.standard_normal(s).astype(np.float32) for s in ((x[0], w[0], *win.out(size, w[2:])), w, x, x)
    )  # fmt: skip
    _, c, height, width = x
    last = Operand(f32, x, (height * width * c, 1, width * c, c))
    epilogue = Epilogue(maximum(Var("x") + Var("a0"), Var("a1")), (last, last), f32)
    extra = [np.ascontiguousarray(e.transpose(0, 2, 3, 1)).ravel() for e in (a, b)]
    y = run_op(
        "conv_input_grad", [g, weights], weights=[1], order="channels_last", at_end=at_end, exact=True,
        epilogue=epilogue, extra=extra, win=win, size=size,
    )  # fmt: skip
    close(y, np.maximum(input_grad(g, weights, win, size) + a, b))
    found = run_op("conv_weight_grad", [g, a], order="channels_last", at_end=at_end, win=win, kernel=w[2:], exact=True)
    close(found, weight_grad(g, a, win, w[2:]))


@pytest.mark.parametrize("case", ["square", "stride of 2", "groups", "many pixels"])
def test_threads(case: str) -> None:
    """Any number of threads computes the same bits."""
    x, w, g, win = arrays(case)
    size, kernel = x.shape[2:], w.shape[2:]
    for op, xs, attrs in (
        ("conv_input_grad", [g, w], {"size": size}),
        ("conv_weight_grad", [g, x], {"kernel": kernel}),
    ):
        one, two, four = (
            run_op(op, xs, order="channels_last", exact=True, threads=t, win=win, **attrs) for t in (1, 2, 4)
        )
        assert one.tobytes() == two.tobytes() == four.tobytes()


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_shape(data: st.DataObject) -> None:
    """Shapes that nobody thought of, outputs larger than what the gradient reaches included."""
    draw = data.draw
    group = draw(st.sampled_from([1, 1, 2, 3]))
    k = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    d = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    s = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    pads = tuple((draw(st.integers(0, 2)), draw(st.integers(0, 2))) for _ in k)
    size = tuple(draw(st.integers(max(1, e * (n - 1) + 1 - sum(p)), 18)) for n, e, p in zip(k, d, pads, strict=True))
    win = Window(s, pads, d, group)
    c, f, n = draw(st.integers(1, 20)), draw(st.integers(1, 36)), draw(st.integers(0, 3))
    w = RNG.standard_normal((f * group, c, *k)).astype(np.float32)
    x = RNG.standard_normal((n, c * group, *size)).astype(np.float32)
    g = RNG.standard_normal((n, f * group, *win.out(size, k))).astype(np.float32)
    how: Any = {"multiple": draw(st.sampled_from([1, 16])), "at_end": draw(st.booleans()), "order": "channels_last"}
    y = run_op(
        "conv_input_grad", [g, w], weights=[1] if draw(st.booleans()) else [], exact=True, win=win, size=size, **how
    )
    close(y, input_grad(g, w, win, size))
    close(run_op("conv_weight_grad", [g, x], win=win, kernel=k, **how), weight_grad(g, x, win, k))
