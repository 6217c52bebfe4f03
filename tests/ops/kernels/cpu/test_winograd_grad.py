"""The gradient of weights by Winograd against the array kernel in float64 and torch; its error, when it is chosen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from onnxgrad.ops.dims import Dim
from onnxgrad.ops.kernels.cpu import load_rules, winograd_grad
from onnxgrad.ops.kernels.cpu.jit import compiled_modules
from onnxgrad.ops.kernels.cpu.lowering import LOWERINGS, Lowering
from onnxgrad.ops.kernels.cpu.target import host_target
from onnxgrad.ops.kernels.cpu.winograd import BOUND
from onnxgrad.ops.window import Window

from .site import run_op
from .test_winograd import BATCH, CASES, SAME, arrays, error

load_rules()
RNG = np.random.default_rng(0)
OP = "conv_weight_grad"


@pytest.fixture(autouse=True)
def _only_this(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask the rule under test, whatever the gradient of the weights would choose."""
    monkeypatch.setitem(LOWERINGS, OP, Lowering(winograd_grad.lower_winograd_weight_grad, None, False))


@pytest.fixture(params=["as chosen", "small"])
def cut(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The blocks and shares that the sizes ask for, and small ones, so that there are several of each."""
    if request.param == "small":
        monkeypatch.setattr(winograd_grad, "_WIDE", 64)
        monkeypatch.setattr(winograd_grad, "_TILES", 3)
    winograd_grad._blocked.cache_clear()
    yield request.param
    winograd_grad._blocked.cache_clear()


@pytest.mark.parametrize(("multiple", "at_end"), [(1, True), (16, False), (16, True)])
@pytest.mark.parametrize("case", CASES)
def test_array_kernel(case: str, multiple: int, at_end: bool, cut: str) -> None:
    """All layouts of the inputs."""
    x, _, g, win = arrays(case)
    attrs: dict[str, Any] = {"win": win, "kernel": (3, 3)}
    found = run_op(OP, [g, x], order="channels_last", multiple=multiple, at_end=at_end, **attrs)
    assert error(found, OP, [g, x], **attrs) <= BOUND


@pytest.mark.parametrize(
    ("images", "channels", "filters", "size", "scale"),
    [(8, 32, 32, 28, 1), (2, 64, 48, 20, 1e6), (8, 32, 64, 14, 1), (4, 256, 32, 7, 1e-6)],
)
def test_accuracy(images: int, channels: int, filters: int, size: int, scale: float) -> None:
    """The error stays below the documented bound for the sums that networks have."""
    x = (scale * RNG.standard_normal((images, channels, size, size))).astype(np.float32)
    g = RNG.standard_normal((images, filters, size, size)).astype(np.float32)
    attrs: dict[str, Any] = {"win": SAME, "kernel": (3, 3)}
    assert error(run_op(OP, [g, x], **attrs), OP, [g, x], **attrs) <= BOUND


def test_float64(cut: str) -> None:
    """float64 has as many digits more."""
    x, _, g, win = arrays("tiles that hang over", np.float64)
    attrs: dict[str, Any] = {"win": win, "kernel": (3, 3)}
    assert error(run_op(OP, [g, x], **attrs), OP, [g, x], **attrs) <= 1e-13


@pytest.mark.parametrize("case", ["tiles that hang over", "many tiles"])
def test_torch(case: str) -> None:
    """torch computes the same."""
    torch = pytest.importorskip("torch")
    x, w, g, win = arrays(case)
    tx, tw = (torch.from_numpy(a.astype(np.float64)).requires_grad_() for a in (x, w))
    torch.nn.functional.conv2d(tx, tw, padding=1).backward(torch.from_numpy(g.astype(np.float64)))
    found, want = run_op(OP, [g, x], win=win, kernel=(3, 3)), tw.grad.numpy()
    assert np.abs(found - want).max() <= BOUND * np.abs(want).max()


@pytest.mark.parametrize("case", ["tiles that hang over", "even", "many tiles"])
def test_symbolic_batch(case: str, cut: str) -> None:
    """Another batch needs no new code; the gradient of no images is 0."""
    x, _, g, win = arrays(case)
    attrs: dict[str, Any] = {"win": win, "kernel": (3, 3)}
    symbols = {0: (BATCH, *g.shape[1:]), 1: (BATCH, *x.shape[1:])}
    made = None
    for n in (1, 3, 20, 0):
        xs, gs = (RNG.standard_normal((n, *a.shape[1:])).astype(np.float32) for a in (x, g))
        found = run_op(OP, [gs, xs], symbols=symbols, **attrs)
        assert error(found, OP, [gs, xs], **attrs) <= BOUND
        made = made or compiled_modules()
        assert compiled_modules() == made
    assert not found.any()


@pytest.mark.parametrize("case", ["tiles that hang over", "many tiles", "narrow"])
def test_threads(case: str, cut: str) -> None:
    """Any number of threads computes the same bits."""
    x, _, g, win = arrays(case)
    xs, gs = (np.concatenate([a] * 4) for a in (x, g))
    one, two, four = (run_op(OP, [gs, xs], win=win, kernel=(3, 3), threads=t).tobytes() for t in (1, 2, 4))
    assert one == two == four


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_shape(data: st.DataObject) -> None:
    """Shapes that nobody thought of."""
    draw = data.draw
    pads = tuple((draw(st.integers(0, 2)), draw(st.integers(0, 2))) for _ in range(2))
    size = tuple(draw(st.integers(max(1, 3 - sum(p)), 24)) for p in pads)
    attrs: dict[str, Any] = {"win": Window((1, 1), pads, (1, 1)), "kernel": (3, 3)}
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    x = rng.standard_normal((draw(st.integers(1, 3)), draw(st.integers(1, 90)), *size)).astype(np.float32)
    filters = draw(st.integers(1, 90))
    g = rng.standard_normal((x.shape[0], filters, *attrs["win"].out(size, (3, 3)))).astype(np.float32)
    found = run_op(OP, [g, x], multiple=draw(st.sampled_from([1, 16])), at_end=draw(st.booleans()), **attrs)
    assert error(found, OP, [g, x], **attrs) <= BOUND


def test_refuses() -> None:
    """Exact plans, strides, dilations, groups, other kernels and symbolic sizes are for other kernels."""
    x, _, g, win = arrays("even")
    assert run_op(OP, [g, x], win=win, kernel=(3, 3), exact=True) is None
    assert run_op(OP, [g[:, :, ::2], x], win=Window((2, 1), win.pads, (1, 1)), kernel=(3, 3)) is None
    assert run_op(OP, [g[..., 2:], x], win=Window((1, 1), win.pads, (1, 2)), kernel=(3, 3)) is None
    assert run_op(OP, [g, x], win=Window((1, 1), win.pads, (1, 1), 4), kernel=(3, 3)) is None
    assert run_op(OP, [g, x], win=Window((1, 1), ((1, 1), (0, 0)), (1, 1)), kernel=(3, 1)) is None
    rows = Dim.symbol("h")
    symbols = {0: (BATCH, 24, rows, 16), 1: (BATCH, 40, rows, 16)}
    assert run_op(OP, [g, x], win=win, kernel=(3, 3), symbols=symbols) is None


@pytest.mark.parametrize(
    ("filters", "channels", "size", "images", "wins"),
    [(64, 64, 56, 8, True), (512, 512, 7, 8, True), (32, 128, 14, 8, True), (64, 3, 224, 8, False),
     (512, 512, 7, 1, True), (64, 64, Dim.symbol("h"), 8, False)],
)  # fmt: skip
def test_wins(filters: int, channels: int, size: Any, images: int, wins: bool) -> None:
    """Deep layers of a batch are faster so."""
    target, f32 = host_target(), np.dtype(np.float32)
    assert winograd_grad.grad_wins(target, f32, filters, channels, size, size, images) == wins
