"""Winograd convolutions against the array kernels in float64 and torch; their error, and when they are chosen."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from onnxgrad.ops.dims import Dim
from onnxgrad.ops.expr import Var, maximum
from onnxgrad.ops.kernels.cpu import load_rules, winograd
from onnxgrad.ops.kernels.cpu.jit import compiled_modules
from onnxgrad.ops.kernels.cpu.lowering import LOWERINGS, Epilogue, Lowering
from onnxgrad.ops.kernels.cpu.operand import Operand
from onnxgrad.ops.kernels.cpu.target import host_target
from onnxgrad.ops.op import OPS
from onnxgrad.ops.window import Window

from .site import run_op

load_rules()
RNG = np.random.default_rng(0)
BATCH = Dim.symbol("n")
SAME = Window((1, 1), ((1, 1), (1, 1)), (1, 1))

# (N, C, H, W), filters, window
CASES = {
    "one tile": ((1, 8, 4, 4), 8, SAME),
    "tiles that hang over": ((2, 17, 7, 9), 33, SAME),
    "even": ((1, 40, 12, 16), 24, SAME),
    "many tiles": ((1, 16, 56, 57), 16, SAME),
    "one filter": ((2, 3, 6, 5), 1, SAME),
    "uneven pads": ((2, 20, 10, 11), 19, Window((1, 1), ((0, 1), (2, 0)), (1, 1))),
    "no pads": ((1, 16, 8, 8), 16, Window((1, 1), ((0, 0), (0, 0)), (1, 1))),
    "wide pads": ((3, 13, 5, 6), 70, Window((1, 1), ((2, 2), (2, 2)), (1, 1))),
    "narrow": ((1, 130, 10, 3), 48, Window((1, 1), ((1, 0), (1, 0)), (1, 1))),
}


@pytest.fixture(autouse=True)
def _only_these(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask the rules under test, whatever a convolution would choose."""
    monkeypatch.setitem(LOWERINGS, "conv", Lowering(winograd.lower_winograd, None, True))
    monkeypatch.setitem(LOWERINGS, "conv_input_grad", Lowering(winograd.lower_winograd_input_grad, None, True))


@pytest.fixture(params=[2, 4])
def tile(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Tiles of 2x2 and of 4x4."""
    m: int = request.param

    def choose(target: Any, size: int, *sizes: int) -> Any:
        return winograd._blocking(target, size, m, *sizes)

    monkeypatch.setattr(winograd, "choose_blocking", choose)
    return m


def arrays(case: str, dtype: Any = np.float32) -> tuple[Any, Any, Any, Window]:
    """Return input, filters, a gradient of the output, and the window."""
    shape, filters, win = CASES[case]
    x = RNG.standard_normal(shape).astype(dtype)
    w = RNG.standard_normal((filters, shape[1], 3, 3)).astype(dtype)
    return x, w, RNG.standard_normal((shape[0], filters, *win.out(shape[2:], (3, 3)))).astype(dtype), win


def error(found: Any, op: str, xs: list[Any], **attrs: Any) -> float:
    """Return the largest difference from the array kernel in float64, relative to the largest result."""
    want = OPS[op](*(a.astype(np.float64) for a in xs), **attrs)
    assert found is not None and found.shape == want.shape
    return float(np.abs(found - want).max(initial=0) / np.abs(want).max(initial=1e-30))


@pytest.mark.parametrize("at_end", [True, False])
@pytest.mark.parametrize("weights", [[1], []])
@pytest.mark.parametrize("case", CASES)
def test_forward(case: str, weights: list[int], at_end: bool, tile: int) -> None:
    """Weights transformed beforehand or by a kernel."""
    x, w, _, win = arrays(case)
    y = run_op("conv", [x, w], win=win, weights=weights, at_end=at_end, multiple=16)
    assert error(y, "conv", [x, w], win=win) <= (winograd.BOUND if tile == 4 else 5e-6)


@pytest.mark.parametrize("at_end", [True, False])
@pytest.mark.parametrize("weights", [[1], []])
@pytest.mark.parametrize("case", CASES)
def test_input_grad(case: str, weights: list[int], at_end: bool, tile: int) -> None:
    """The gradient of the input is the same kernel."""
    x, w, g, win = arrays(case)
    attrs: dict[str, Any] = {"win": win, "size": x.shape[2:]}
    found = run_op("conv_input_grad", [g, w], weights=weights, at_end=at_end, **attrs)
    assert error(found, "conv_input_grad", [g, w], **attrs) <= (winograd.BOUND if tile == 4 else 5e-6)


@pytest.mark.parametrize(("channels", "size", "scale"), [(32, 24, 1), (64, 20, 1e6), (256, 14, 1), (512, 7, 1e-6)])
def test_accuracy(channels: int, size: int, scale: float, tile: int) -> None:
    """The error stays below the documented bound for the depths that networks have."""
    x = (scale * RNG.standard_normal((1, channels, size, size))).astype(np.float32)
    w = RNG.standard_normal((32, channels, 3, 3)).astype(np.float32)
    y = run_op("conv", [x, w], win=SAME, weights=[1])
    assert error(y, "conv", [x, w], win=SAME) <= winograd.BOUND


def test_float64(tile: int) -> None:
    """float64 has as many digits more."""
    x, w, g, win = arrays("tiles that hang over", np.float64)
    assert error(run_op("conv", [x, w], win=win, weights=[1]), "conv", [x, w], win=win) <= 1e-13
    attrs: dict[str, Any] = {"win": win, "size": x.shape[2:]}
    assert error(run_op("conv_input_grad", [g, w], **attrs), "conv_input_grad", [g, w], **attrs) <= 1e-13


@pytest.mark.parametrize("case", ["tiles that hang over", "many tiles"])
def test_torch(case: str) -> None:
    """torch computes the same."""
    torch = pytest.importorskip("torch")
    x, w, g, win = arrays(case)
    tx, tw = (torch.from_numpy(a.astype(np.float64)).requires_grad_() for a in (x, w))
    y = torch.nn.functional.conv2d(tx, tw, padding=1)
    y.backward(torch.from_numpy(g.astype(np.float64)))
    for found, want in (
        (run_op("conv", [x, w], win=win), y.detach().numpy()),
        (run_op("conv_input_grad", [g, w], win=win, size=x.shape[2:]), tx.grad.numpy()),
    ):
        assert np.abs(found - want).max() <= winograd.BOUND * np.abs(want).max()


@pytest.mark.parametrize("at_end", [True, False])
@pytest.mark.parametrize("case", ["tiles that hang over", "many tiles", "even"])
def test_epilogue(case: str, at_end: bool, tile: int) -> None:
    """Bias, residual and relu, into an output with a halo that stays zero."""
    x, w, g, win = arrays(case)
    _, f, h, wide = g.shape
    bias, f32 = RNG.standard_normal(f).astype(np.float32), np.dtype(np.float32)
    operands = (Operand(f32, g.shape, (0, 1, 0, 0)), Operand(f32, g.shape, (f * h * wide, 1, f * wide, f)))
    y = run_op(
        "conv", [x, w], win=win, weights=[1], order="channels_last", at_end=at_end,
        epilogue=Epilogue(maximum(Var("x") + Var("a0") + Var("a1"), 0), operands, f32),
        extra=(bias, np.ascontiguousarray(g.transpose(0, 2, 3, 1)).ravel()), out_halo=((0, 0), (0, 0), (1, 0), (0, 2)),
    )  # fmt: skip
    want = np.maximum(OPS["conv"](x.astype(np.float64), w.astype(np.float64), win=win) + bias[:, None, None] + g, 0)
    assert np.abs(y - want).max() <= winograd.BOUND * np.abs(want).max()


@pytest.mark.parametrize("case", ["tiles that hang over", "even", "many tiles"])
def test_symbolic_batch(case: str, tile: int) -> None:
    """Another batch needs no new code; each image's result does not depend on the others."""
    x, w, _, win = arrays(case)
    made, single = None, None
    for n in (1, 3, 7, 0):
        xs = np.concatenate([x[:1]] * 8)[:n]
        y = run_op("conv", [xs, w], symbols={0: (BATCH, *x.shape[1:])}, win=win, weights=[1])
        single = y if single is None else single
        for image in y:
            assert image.tobytes() == single[0].tobytes()
        made = made or compiled_modules()
        assert compiled_modules() == made
    assert single is not None
    assert error(single, "conv", [x[:1], w], win=win) <= winograd.BOUND


@pytest.mark.parametrize("case", ["tiles that hang over", "many tiles", "narrow"])
def test_threads(case: str, tile: int) -> None:
    """Any number of threads computes the same bits, with weights of this run too."""
    x, w, _, win = arrays(case)
    xs = np.concatenate([x] * 4)
    for weights in ([1], []):
        one, two, four = (run_op("conv", [xs, w], win=win, weights=weights, threads=t).tobytes() for t in (1, 2, 4))
        assert one == two == four


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_shape(data: st.DataObject) -> None:
    """Shapes that nobody thought of, forward and backward."""
    draw = data.draw
    pads = tuple((draw(st.integers(0, 2)), draw(st.integers(0, 2))) for _ in range(2))
    size = tuple(draw(st.integers(max(1, 3 - sum(p)), 24)) for p in pads)
    win = Window((1, 1), pads, (1, 1))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    x = rng.standard_normal((draw(st.integers(1, 3)), draw(st.integers(1, 40)), *size)).astype(np.float32)
    w = rng.standard_normal((draw(st.integers(1, 70)), x.shape[1], 3, 3)).astype(np.float32)
    g = rng.standard_normal((x.shape[0], w.shape[0], *win.out(size, (3, 3)))).astype(np.float32)
    weights = draw(st.sampled_from([[], [1]]))
    assert error(run_op("conv", [x, w], win=win, weights=weights), "conv", [x, w], win=win) <= winograd.BOUND
    found = run_op("conv_input_grad", [g, w], win=win, size=size, weights=weights)
    assert error(found, "conv_input_grad", [g, w], win=win, size=size) <= winograd.BOUND


def test_refuses() -> None:
    """Exact plans, strides, dilations, groups, other kernels and symbolic sizes are for other kernels."""
    x, w, _, win = arrays("even")
    assert run_op("conv", [x, w], win=win, exact=True) is None
    assert run_op("conv", [x, w], win=Window((2, 1), win.pads, (1, 1))) is None
    assert run_op("conv", [x, w], win=Window((1, 1), win.pads, (1, 2))) is None
    assert run_op("conv", [x, w[:, :10]], win=Window((1, 1), win.pads, (1, 1), 4)) is None
    assert run_op("conv", [x, w[:, :, :, :2]], win=win) is None
    assert run_op("conv", [x, w], win=win, symbols={0: (BATCH, 40, Dim.symbol("h"), 16)}) is None


def test_when_it_pays() -> None:
    """The layers of ResNets and VGG, but neither a first layer nor sizes that only run time knows."""
    target, f32 = host_target(), np.dtype(np.float32)
    for channels, size in ((64, 56), (128, 28), (256, 14), (512, 7), (64, 224), (256, 56), (512, 14), (32, 112)):
        assert winograd.winograd_wins(target, f32, channels, channels, size, size), (channels, size)
    assert not winograd.winograd_wins(target, f32, 3, 64, 224, 224)
    assert not winograd.winograd_wins(target, f32, 64, 64, Dim.symbol("h"), 56)
    assert not winograd.winograd_wins(target, f32, 512, 512, 1, 1)
