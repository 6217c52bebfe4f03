"""Compiled convolutions with one filter a channel, and their gradients, against array kernels in float64 and torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from onnxgrad.ops.dims import Dim
from onnxgrad.ops.expr import Var, maximum, minimum
from onnxgrad.ops.kernels.cpu import load_rules
from onnxgrad.ops.kernels.cpu.depthwise import (
    lower_depthwise,
    lower_depthwise_input_grad,
    lower_depthwise_weight_grad,
)
from onnxgrad.ops.kernels.cpu.jit import compiled_modules
from onnxgrad.ops.kernels.cpu.lowering import LOWERINGS, Epilogue, Lowering
from onnxgrad.ops.kernels.cpu.operand import Operand
from onnxgrad.ops.op import OPS
from onnxgrad.ops.window import Window

from .site import run_op

load_rules()
RNG = np.random.default_rng(0)
BATCH = Dim.symbol("n")

CASES = {
    "3x3": ((2, 5, 7, 9), Window((1, 1), ((1, 1), (1, 1)), (1, 1), 5), (3, 3)),
    "many channels": ((1, 150, 8, 6), Window((1, 1), ((1, 1), (1, 1)), (1, 1), 150), (3, 3)),
    "strided": ((2, 20, 8, 11), Window((2, 2), ((1, 1), (1, 1)), (1, 1), 20), (3, 3)),
    "uneven": ((1, 33, 11, 10), Window((2, 1), ((2, 1), (0, 2)), (1, 1), 33), (5, 3)),
    "dilated": ((2, 17, 9, 9), Window((1, 1), ((2, 2), (2, 2)), (2, 2), 17), (3, 3)),
    "7x7": ((1, 16, 14, 13), Window((1, 1), ((3, 3), (3, 3)), (1, 1), 16), (7, 7)),
    "gaps": ((1, 16, 12, 12), Window((3, 3), ((0, 0), (0, 0)), (1, 1), 16), (2, 2)),
    "cropped": ((1, 8, 9, 9), Window((1, 1), ((-1, 0), (0, -1)), (1, 1), 8), (3, 3)),
    "causal 1-D": ((2, 6, 19), Window((1,), ((3, 0),), (1,), 6), (4,)),
    "strided 1-D": ((2, 24, 20), Window((2,), ((1, 1),), (1,), 24), (4,)),
}


@pytest.fixture(autouse=True)
def _only_these(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask the rules under test, whatever a convolution would choose."""
    rules = (("conv", lower_depthwise), ("conv_input_grad", lower_depthwise_input_grad))
    for name, rule in (*rules, ("conv_weight_grad", lower_depthwise_weight_grad)):
        monkeypatch.setitem(LOWERINGS, name, Lowering(rule, None, True))


def arrays(case: str, dtype: Any = np.float32) -> tuple[Any, Any, Any, Window]:
    """Return input, filters, a gradient of the output, and the window."""
    shape, win, kernel = CASES[case]
    x = RNG.standard_normal(shape).astype(dtype)
    w = RNG.standard_normal((shape[1], 1, *kernel)).astype(dtype)
    return x, w, RNG.standard_normal((*shape[:2], *win.out(shape[2:], kernel))).astype(dtype), win


def close(found: Any, op: str, xs: list[Any], **attrs: Any) -> None:
    """Check a result against the array kernel in float64."""
    want = OPS[op](*(a.astype(np.float64) for a in xs), **attrs)
    assert found is not None and found.shape == want.shape
    tolerance = 1e-13 if found.dtype == np.float64 else 1e-5
    assert np.abs(found - want).max(initial=0) <= tolerance * max(1, np.abs(want).max(initial=0))


@pytest.mark.parametrize("at_end", [True, False])
@pytest.mark.parametrize("weights", [[1], []])
@pytest.mark.parametrize("case", CASES)
def test_forward(case: str, weights: list[int], at_end: bool) -> None:
    """Weights packed beforehand or by a kernel."""
    x, w, _, win = arrays(case)
    close(run_op("conv", [x, w], win=win, weights=weights, at_end=at_end, multiple=16), "conv", [x, w], win=win)


@pytest.mark.parametrize("at_end", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_input_grad(case: str, at_end: bool) -> None:
    """The gradient of the input."""
    x, w, g, win = arrays(case)
    attrs: dict[str, Any] = {"win": win, "size": x.shape[2:]}
    close(run_op("conv_input_grad", [g, w], at_end=at_end, **attrs), "conv_input_grad", [g, w], **attrs)


@pytest.mark.parametrize("at_end", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_weight_grad(case: str, at_end: bool) -> None:
    """The gradient of the weights."""
    x, w, g, win = arrays(case)
    attrs: dict[str, Any] = {"win": win, "kernel": w.shape[2:]}
    close(run_op("conv_weight_grad", [g, x], at_end=at_end, **attrs), "conv_weight_grad", [g, x], **attrs)


@pytest.mark.parametrize("case", ["3x3", "strided", "causal 1-D"])
def test_torch(case: str) -> None:
    """torch computes the same three."""
    torch = pytest.importorskip("torch")
    x, w, g, win = arrays(case)
    f = torch.nn.functional.conv2d if x.ndim == 4 else torch.nn.functional.conv1d
    tx, tw = (torch.from_numpy(a.astype(np.float64)).requires_grad_() for a in (x, w))
    padded = torch.nn.functional.pad(tx, [p for pads in reversed(win.pads) for p in pads])
    y = f(padded, tw, stride=win.strides, dilation=win.dilations, groups=win.group)
    y.backward(torch.from_numpy(g.astype(np.float64)))
    found = (
        run_op("conv", [x, w], win=win),
        run_op("conv_input_grad", [g, w], win=win, size=x.shape[2:]),
        run_op("conv_weight_grad", [g, x], win=win, kernel=w.shape[2:]),
    )
    for ours, theirs in zip(found, (y.detach(), tx.grad, tw.grad), strict=True):
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("case", ["3x3", "strided"])
def test_float64(case: str) -> None:
    """float64 is exact to its own precision."""
    x, w, g, win = arrays(case, np.float64)
    close(run_op("conv", [x, w], win=win), "conv", [x, w], win=win)
    attrs: dict[str, Any] = {"win": win, "kernel": w.shape[2:]}
    close(run_op("conv_weight_grad", [g, x], **attrs), "conv_weight_grad", [g, x], **attrs)


@pytest.mark.parametrize("case", ["3x3", "strided", "causal 1-D"])
def test_symbolic_batch(case: str) -> None:
    """Another batch needs no new code."""
    _, win, kernel = CASES[case]
    made = None
    for n in (1, 3, 0):
        x, w, g, _ = arrays(case)
        x, g = (np.concatenate([a] * 2)[:n] for a in (x, g))
        sizes = {"x": (BATCH, *x.shape[1:]), "g": (BATCH, *g.shape[1:])}
        close(run_op("conv", [x, w], symbols={0: sizes["x"]}, win=win), "conv", [x, w], win=win)
        found = run_op("conv_weight_grad", [g, x], symbols={0: sizes["g"], 1: sizes["x"]}, win=win, kernel=kernel)
        close(found, "conv_weight_grad", [g, x], win=win, kernel=kernel)
        made = made or compiled_modules()
        assert compiled_modules() == made


@pytest.mark.parametrize("length", [5, 6, 40])
def test_symbolic_length(length: int) -> None:
    """Sizes may be symbols, and quotients of symbols."""
    win = Window((1,), ((3, 0),), (1,), 6)
    x, w = (RNG.standard_normal(s).astype(np.float32) for s in ((2, 6, length), (6, 1, 4)))
    close(run_op("conv", [x, w], symbols={0: (BATCH, 6, Dim.symbol("h"))}, win=win), "conv", [x, w], win=win)
    plane = Window((2, 2), ((1, 1), (1, 1)), (1, 1), 6)
    y = RNG.standard_normal((2, 6, length, 7)).astype(np.float32)
    v = RNG.standard_normal((6, 1, 3, 3)).astype(np.float32)
    for shape in ((BATCH, 6, Dim.symbol("h"), 7), (BATCH, 6, Dim.symbol("h"), Dim.symbol("w"))):
        close(run_op("conv", [y, v], symbols={0: shape}, win=plane), "conv", [y, v], win=plane)


@pytest.mark.parametrize("case", ["3x3", "many channels", "strided"])
def test_epilogue(case: str) -> None:
    """Bias, relu6 and residual, into an output with a halo that stays zero."""
    x, w, g, win = arrays(case)
    _, c, h, wide = g.shape
    bias = RNG.standard_normal(c).astype(np.float32)
    f32 = np.dtype(np.float32)
    rows = np.ascontiguousarray(g.transpose(0, 2, 3, 1))
    operands = (Operand(f32, g.shape, (0, 1, 0, 0)), Operand(f32, g.shape, (h * wide * c, 1, wide * c, c)))
    expression = minimum(maximum(Var("x") + Var("a0"), 0), 6) + Var("a1")
    y = run_op(
        "conv", [x, w], win=win, weights=[1], epilogue=Epilogue(expression, operands, f32), extra=(bias, rows.ravel()),
        out_halo=((0, 0), (0, 0), (1, 0), (0, 2)), order="channels_last",
    )  # fmt: skip
    want = np.clip(OPS["conv"](x.astype(np.float64), w.astype(np.float64), win=win) + bias[:, None, None], 0, 6) + g
    np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", ["many channels", "strided"])
def test_threads(case: str) -> None:
    """Any number of threads computes the same bits."""
    _, win, kernel = CASES[case]
    x, w, g, _ = arrays(case)
    x, g = (np.concatenate([a] * 8) for a in (x, g))
    for op, xs, attrs in (("conv", [x, w], {}), ("conv_weight_grad", [g, x], {"kernel": kernel})):
        found = [run_op(op, xs, win=win, threads=t, **attrs).tobytes() for t in (1, 2, 4)]
        assert found[0] == found[1] == found[2]


def test_not_a_number() -> None:
    """NaN and infinity reach the outputs that see them, and no others."""
    x, w, _, win = arrays("strided")
    x[0, 1, 4, 4], x[1, 0, 0, 0] = np.nan, np.inf
    found, want = run_op("conv", [x, w], win=win), OPS["conv"](x, w, win=win)
    np.testing.assert_array_equal(np.isfinite(found), np.isfinite(want))


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_shape(data: st.DataObject) -> None:
    """Shapes that nobody thought of, forward and both gradients."""
    draw = data.draw
    k = draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    strides = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    d = draw(st.tuples(st.integers(1, 2), st.integers(1, 2))) if strides == (1, 1) else (1, 1)
    pads = tuple((draw(st.integers(0, 2)), draw(st.integers(0, 2))) for _ in k)
    size = tuple(draw(st.integers(max(1, e * (n - 1) + 1 - sum(p)), 16)) for n, e, p in zip(k, d, pads, strict=True))
    channels = draw(st.integers(2, 40))
    win = Window(strides, pads, d, channels)
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    x = rng.standard_normal((draw(st.integers(1, 2)), channels, *size)).astype(np.float32)
    w = rng.standard_normal((channels, 1, *k)).astype(np.float32)
    g = rng.standard_normal((*x.shape[:2], *win.out(size, k))).astype(np.float32)
    close(run_op("conv", [x, w], win=win), "conv", [x, w], win=win)
    close(run_op("conv_input_grad", [g, w], win=win, size=size), "conv_input_grad", [g, w], win=win, size=size)
    close(run_op("conv_weight_grad", [g, x], win=win, kernel=k), "conv_weight_grad", [g, x], win=win, kernel=k)


def test_refuses() -> None:
    """Several filters a channel, and strides with dilations in the gradient, are for other kernels."""
    x, w = (RNG.standard_normal(s).astype(np.float32) for s in ((1, 4, 6, 6), (8, 1, 3, 3)))
    assert run_op("conv", [x, w], win=Window((1, 1), ((0, 0), (0, 0)), (1, 1), 4)) is None
    win = Window((2, 2), ((0, 0), (0, 0)), (2, 2), 4)
    g = np.ones((1, 4, 1, 1), np.float32)
    assert run_op("conv_input_grad", [g, w[:4]], win=win, size=(6, 6)) is None
