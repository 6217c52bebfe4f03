"""CUDA convolutions with one filter a channel, and their gradients, against the array kernels and torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnxgrad.ops.expr import Var, maximum, minimum
from onnxgrad.ops.kernels.cuda.depthwise import depthwise_conv, depthwise_input_grad, depthwise_weight_grad
from onnxgrad.ops.kernels.cuda.lowering import LOWERINGS, Epilogue, Lowering, every
from onnxgrad.ops.kernels.cuda.operand import Operand, channels_last_strides, row_major
from onnxgrad.ops.op import OPS
from onnxgrad.ops.types import BFLOAT16
from onnxgrad.ops.window import Window

from .site import refuses, run_op

RNG = np.random.default_rng(0)
ORDERS = ("plain", "channels_last")
RULES = {"conv": depthwise_conv, "conv_input_grad": depthwise_input_grad, "conv_weight_grad": depthwise_weight_grad}

CASES: dict[str, tuple[tuple[int, ...], tuple[int, ...], Window]] = {
    "3x3": ((2, 8, 6, 7), (3, 3), Window((1, 1), ((1, 1), (1, 1)), (1, 1), 8)),
    "3x3 s2": ((1, 12, 9, 8), (3, 3), Window((2, 2), ((1, 1), (1, 0)), (1, 1), 12)),
    "odd channels": ((1, 5, 6, 6), (3, 3), Window((1, 1), ((1, 1), (1, 1)), (1, 1), 5)),
    "many channels": ((1, 140, 3, 5), (3, 3), Window((1, 1), ((1, 1), (1, 1)), (1, 1), 140)),
    "7x7": ((1, 16, 8, 9), (7, 7), Window((1, 1), ((3, 3), (3, 3)), (1, 1), 16)),
    "dilated": ((1, 4, 9, 9), (3, 2), Window((1, 2), ((2, 2), (0, 1)), (2, 3), 4)),
    "1-D": ((2, 8, 11), (5,), Window((1,), ((2, 2),), (1,), 8)),
    "1-D s3": ((2, 8, 11), (5,), Window((3,), ((4, 0),), (1,), 8)),
    "cropped": ((1, 4, 6, 6), (2, 2), Window((1, 1), ((-1, 0), (0, -1)), (1, 1), 4)),
}


@pytest.fixture(autouse=True)
def _rules(monkeypatch: pytest.MonkeyPatch) -> None:
    for op, rule in RULES.items():
        monkeypatch.setitem(LOWERINGS, op, Lowering(rule, every))


def drawn(case: str, dtype: Any = np.float32) -> tuple[Any, Any, Any]:
    """Return x, w and g of a case."""
    shape, kernel, win = CASES[case]
    out = win.out(shape[2:], kernel)
    sizes = (shape, (shape[1], 1, *kernel), (*shape[:2], *out))
    x, w, g = (RNG.standard_normal(s).astype(dtype) for s in sizes)
    return x, w, g


def check(case: str, order: str, dtype: Any, tolerance: float) -> None:
    """Compare the three ops with the array kernels in float64."""
    shape, kernel, win = CASES[case]
    x, w, g = drawn(case, dtype)
    for op, arrays, attrs in (
        ("conv", [x, w], {}),
        ("conv_input_grad", [g, w], {"size": shape[2:]}),
        ("conv_weight_grad", [g, x], {"kernel": kernel}),
    ):
        (y,) = run_op(op, arrays, {"win": win, **attrs}, order=order)
        want = OPS[op].run(*(a.astype(np.float64) for a in arrays), win=win, **attrs)
        scale = max(1.0, float(np.abs(want).max()))
        np.testing.assert_allclose(y.astype(float), want, rtol=tolerance, atol=tolerance * scale, err_msg=op)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("case", CASES)
def test_the_three_ops(case: str, order: str) -> None:
    check(case, order, np.float32, 1e-5)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("dtype", [np.float16, BFLOAT16, np.float64])
@pytest.mark.parametrize("case", ["3x3", "7x7", "3x3 s2"])
def test_every_type(case: str, dtype: Any, order: str) -> None:
    check(case, order, dtype, 1e-12 if dtype is np.float64 else 2e-2)


def test_many_pixels_are_added_up_in_parts() -> None:
    win = Window((1, 1), ((1, 1), (1, 1)), (1, 1), 4)
    x, g = (RNG.standard_normal((2, 4, 40, 41)).astype(np.float32) for _ in range(2))
    want = OPS["conv_weight_grad"].run(g.astype(float), x.astype(float), win=win, kernel=(3, 3))
    for order in ORDERS:
        (y,) = run_op("conv_weight_grad", [g, x], {"win": win, "kernel": (3, 3)}, order=order)
        np.testing.assert_allclose(y, want, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("order", ORDERS)
def test_torch_agrees(order: str) -> None:
    torch = pytest.importorskip("torch")
    x, w, g = drawn("3x3 s2")
    win = Window((2, 2), ((1, 1), (1, 1)), (1, 1), 12)
    xt, wt = (torch.from_numpy(a).requires_grad_() for a in (x, w))
    want = torch.nn.functional.conv2d(xt, wt, stride=2, padding=1, groups=12)
    (y,) = run_op("conv", [x, w], {"win": win}, order=order)
    np.testing.assert_allclose(y, want.detach().numpy(), rtol=1e-5, atol=1e-5)
    g = RNG.standard_normal(y.shape).astype(np.float32)
    want.backward(torch.from_numpy(g))
    (dx,) = run_op("conv_input_grad", [g, w], {"win": win, "size": (9, 8)}, order=order)
    np.testing.assert_allclose(dx, xt.grad.numpy(), rtol=1e-5, atol=1e-5)
    (dw,) = run_op("conv_weight_grad", [g, x], {"win": win, "kernel": (3, 3)}, order=order)
    np.testing.assert_allclose(dw, wt.grad.numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("case", ["3x3", "7x7"])
def test_bias_activation_and_residual_join(case: str, order: str) -> None:
    x, w, g = drawn(case)
    channels = x.shape[1]
    bias = RNG.standard_normal((channels, 1, 1)).astype(np.float32)
    broadcast = Operand(np.dtype(np.float32), bias.shape, (1, 1, 1)).broadcast_to(g.shape)
    steps = (channels_last_strides if order == "channels_last" else row_major)(g.shape)
    epilogue = Epilogue(
        minimum(maximum(Var("x") + Var("a0"), 0), 6) + Var("a1"),
        (broadcast, Operand(np.dtype(np.float32), g.shape, steps)),
        np.dtype(np.float32),
    )
    (y,) = run_op("conv", [x, w], {"win": CASES[case][2]}, order=order, epilogue=epilogue, extra=[bias, g])
    want = np.clip(OPS["conv"].run(x, w, win=CASES[case][2]) + bias, 0, 6) + g
    np.testing.assert_allclose(y, want, rtol=1e-4, atol=1e-4)


def test_what_is_not_depthwise_is_refused() -> None:
    x = np.zeros((1, 4, 5, 5), np.float32)
    w = np.zeros((8, 1, 3, 3), np.float32)
    assert refuses("conv", [x, w], {"win": Window((1, 1), ((0, 0), (0, 0)), (1, 1), 4)})
    assert refuses("conv", [x, w[:4, :, :, :].repeat(2, 1)], {"win": Window((1, 1), ((0, 0), (0, 0)), (1, 1), 2)})
