"""Winograd with weights that are transformed where they are used, against the array kernels in float64 and torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from onnxgrad.ops.expr import Var, maximum
from onnxgrad.ops.kernels.cpu import load_rules, winograd, winograd_fresh
from onnxgrad.ops.kernels.cpu.jit import compiled_modules
from onnxgrad.ops.kernels.cpu.lowering import LOWERINGS, Epilogue, Lowering
from onnxgrad.ops.kernels.cpu.operand import Operand
from onnxgrad.ops.kernels.cpu.target import host_target
from onnxgrad.ops.op import OPS
from onnxgrad.ops.window import Window

from .site import run_op
from .test_winograd import BATCH, SAME, error

load_rules()
RNG = np.random.default_rng(0)

# (N, C, H, W), filters, window
CASES = {
    "whole panels": ((2, 64, 8, 8), 64, SAME),
    "tiles that hang over": ((2, 130, 7, 9), 73, SAME),
    "one channel": ((1, 1, 6, 5), 64, SAME),
    "uneven pads": ((3, 70, 10, 11), 100, Window((1, 1), ((0, 1), (2, 0)), (1, 1))),
    "wide pads": ((1, 65, 5, 6), 67, Window((1, 1), ((2, 2), (2, 2)), (1, 1))),
}


@pytest.fixture(autouse=True)
def _only_this(monkeypatch: pytest.MonkeyPatch) -> None:
    """Convolve so whatever the sizes are."""
    monkeypatch.setitem(LOWERINGS, "conv", Lowering(winograd.lower_winograd, None, True))
    monkeypatch.setitem(LOWERINGS, "conv_input_grad", Lowering(winograd.lower_winograd_input_grad, None, True))
    monkeypatch.setattr(winograd, "_SHARE", 0)
    monkeypatch.setattr(winograd_fresh, "_CHUNKS", 1)
    chosen, plan = winograd.fresh, []

    def fresh(*args: Any, **kwargs: Any) -> Any:
        plan.append(chosen(*args, **kwargs))
        assert plan[-1] is not None
        return plan[-1]

    monkeypatch.setattr(winograd, "fresh", fresh)


def arrays(case: str, dtype: Any = np.float32, n: int | None = None) -> tuple[Any, Any, Any, Window]:
    """Return input, filters, a gradient of the output, and the window."""
    shape, filters, win = CASES[case]
    shape = (shape[0] if n is None else n, *shape[1:])
    x, w = RNG.standard_normal(shape), RNG.standard_normal((filters, shape[1], 3, 3))
    g = RNG.standard_normal((shape[0], filters, *win.out(shape[2:], (3, 3))))
    return x.astype(dtype), w.astype(dtype), g.astype(dtype), win


@pytest.mark.parametrize("at_end", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_forward(case: str, at_end: bool) -> None:
    """Weights as they are."""
    x, w, _, win = arrays(case)
    y = run_op("conv", [x, w], win=win, at_end=at_end, multiple=16)
    assert error(y, "conv", [x, w], win=win) <= winograd.BOUND


@pytest.mark.parametrize("at_end", [True, False])
@pytest.mark.parametrize("case", ["whole panels", "tiles that hang over", "uneven pads", "wide pads"])
def test_input_grad(case: str, at_end: bool) -> None:
    """Weights that are turned."""
    x, w, g, win = arrays(case)
    attrs: dict[str, Any] = {"win": win, "size": x.shape[2:]}
    found = run_op("conv_input_grad", [g, w], at_end=at_end, **attrs)
    assert error(found, "conv_input_grad", [g, w], **attrs) <= winograd.BOUND


def test_float64() -> None:
    """float64 has as many digits more."""
    x, w, g, win = arrays("tiles that hang over", np.float64)
    assert error(run_op("conv", [x, w], win=win), "conv", [x, w], win=win) <= 1e-13
    attrs: dict[str, Any] = {"win": win, "size": x.shape[2:]}
    assert error(run_op("conv_input_grad", [g, w], **attrs), "conv_input_grad", [g, w], **attrs) <= 1e-13


def test_torch() -> None:
    """torch computes the same."""
    torch = pytest.importorskip("torch")
    x, w, g, win = arrays("tiles that hang over")
    tx, tw = (torch.from_numpy(a.astype(np.float64)).requires_grad_() for a in (x, w))
    y = torch.nn.functional.conv2d(tx, tw, padding=1)
    y.backward(torch.from_numpy(g.astype(np.float64)))
    for found, want in (
        (run_op("conv", [x, w], win=win), y.detach().numpy()),
        (run_op("conv_input_grad", [g, w], win=win, size=x.shape[2:]), tx.grad.numpy()),
    ):
        assert np.abs(found - want).max() <= winograd.BOUND * np.abs(want).max()


@pytest.mark.parametrize("case", ["tiles that hang over", "whole panels"])
def test_epilogue(case: str) -> None:
    """Bias, residual and relu, into an output with a halo that stays zero."""
    x, w, g, win = arrays(case)
    _, f, h, wide = g.shape
    bias, f32 = RNG.standard_normal(f).astype(np.float32), np.dtype(np.float32)
    operands = (Operand(f32, g.shape, (0, 1, 0, 0)), Operand(f32, g.shape, (f * h * wide, 1, f * wide, f)))
    y = run_op(
        "conv", [x, w], win=win, order="channels_last",
        epilogue=Epilogue(maximum(Var("x") + Var("a0") + Var("a1"), 0), operands, f32),
        extra=(bias, np.ascontiguousarray(g.transpose(0, 2, 3, 1)).ravel()), out_halo=((0, 0), (0, 0), (1, 0), (0, 2)),
    )  # fmt: skip
    want = np.maximum(OPS["conv"](x.astype(np.float64), w.astype(np.float64), win=win) + bias[:, None, None] + g, 0)
    assert np.abs(y - want).max() <= winograd.BOUND * np.abs(want).max()


@pytest.mark.parametrize("case", ["tiles that hang over", "whole panels"])
def test_symbolic_batch(case: str) -> None:
    """Another batch needs no new code, also where tiles are of several blocks."""
    made = None
    for n in (1, 3, 30, 0):
        x, w, _, win = arrays(case, n=n)
        y = run_op("conv", [x, w], symbols={0: (BATCH, *x.shape[1:])}, win=win)
        assert error(y, "conv", [x, w], win=win) <= winograd.BOUND
        made = made or compiled_modules()
        assert compiled_modules() == made


@pytest.mark.parametrize("case", ["tiles that hang over", "uneven pads"])
def test_threads(case: str) -> None:
    """Any number of threads computes the same bits."""
    x, w, g, win = arrays(case)
    attrs: dict[str, Any] = {"win": win, "size": x.shape[2:]}
    for op, xs, more in (("conv", [x, w], {"win": win}), ("conv_input_grad", [g, w], attrs)):
        one, two, four = (run_op(op, xs, threads=t, **more).tobytes() for t in (1, 2, 4))
        assert one == two == four


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_any_shape(data: st.DataObject) -> None:
    """Shapes that nobody thought of."""
    draw = data.draw
    pads = tuple((draw(st.integers(0, 2)), draw(st.integers(0, 2))) for _ in range(2))
    size = tuple(draw(st.integers(max(1, 3 - sum(p)), 12)) for p in pads)
    win = Window((1, 1), pads, (1, 1))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    x = rng.standard_normal((draw(st.integers(1, 3)), draw(st.integers(1, 140)), *size)).astype(np.float32)
    w = rng.standard_normal((draw(st.integers(64, 140)), x.shape[1], 3, 3)).astype(np.float32)
    assert error(run_op("conv", [x, w], win=win), "conv", [x, w], win=win) <= winograd.BOUND


def test_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many tiles and few filters are for the other kernels."""
    f32 = np.dtype(np.float32)
    monkeypatch.undo()

    def plan(size: int, filters: int, images: int) -> Any:
        x, y = (Operand(f32, (images, c, size, size), (1, 1, 1, 1)) for c in (64, filters))
        cut = winograd.choose_blocking(host_target(), 4, 64, filters, size, size, images)
        p = winograd.Winograd(x, y, (1, 1), (1, 1), cut, "", None)
        return winograd_fresh.fresh(host_target(), p, images, gradient=False)

    assert plan(7, 512, 8) is not None
    assert plan(56, 512, 8) is None
    assert plan(7, 8, 8) is None
