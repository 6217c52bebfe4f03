"""CUDA gradients of normalisation layers against the array kernels in float64 and PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnxgrad.ops.expr import Var
from onnxgrad.ops.kernels.cuda import normalize_grad as _rules
from onnxgrad.ops.kernels.cuda.lowering import Epilogue
from onnxgrad.ops.kernels.cuda.operand import Operand
from onnxgrad.ops.op import OPS
from onnxgrad.ops.types import BFLOAT16

from .site import refuses, run_op

assert _rules
RNG = np.random.default_rng(0)
EPSILON = 1e-5
CLOSE: dict[str, float] = {"float64": 1e-11, "float32": 2e-5, "float16": 3e-3, "bfloat16": 2e-2}
ROWS: dict[str, tuple[tuple[int, ...], int]] = {
    "odd rows": ((5, 37), 1),
    "several rows a warp": ((300, 16), 1),
    "turns": ((4600, 4), 1),
    "a warp a row": ((9, 256), -1),
    "a block a row": ((2, 1500), 1),
    "long rows": ((3, 9000), 1),
    "many long rows": ((20, 8200), 1),
    "two axes": ((20, 3, 8), 1),
    "all": ((4, 8), 0),
}
IMAGES: dict[str, tuple[int, ...]] = {
    "odd": (3, 6, 5, 7),
    "small": (2, 64, 4, 4),
    "large": (2, 8, 40, 40),
    "1-D": (9, 4, 6),
    "no pixels": (40, 16),
    "many": (3000, 8),
}


def drawn(shape: tuple[int, ...], dtype: Any = np.float32, shift: float = 0.0) -> Any:
    return (RNG.standard_normal(shape) + shift).astype(dtype)


def check(op: str, arrays: list[Any], attrs: dict[str, Any], **how: Any) -> None:
    got = run_op(op, arrays, attrs, **how)
    want = OPS[op].run(*(a.astype(np.float64) for a in arrays), **attrs)
    for y, w in zip(got, want if isinstance(want, tuple) else (want,), strict=True):
        assert y.shape == w.shape
        close = CLOSE[y.dtype.name]
        np.testing.assert_allclose(y.astype(float), w, rtol=close, atol=close * abs(w).max())


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("op", ["layer_norm_grad", "rms_norm_grad"])
def test_layers_of_rows(op: str, rows: str) -> None:
    shape, axis = ROWS[rows]
    arrays = [drawn(shape), drawn(shape, shift=2), drawn(shape[axis:])]
    compiles = op == "layer_norm_grad" and rows in ("a warp a row", "a block a row", "long rows")
    check(op, arrays, {"axis": axis, "epsilon": EPSILON}, compiles=compiles)


@pytest.mark.parametrize("dtype", [np.float64, np.float16, BFLOAT16])
def test_floats_of_other_widths(dtype: Any) -> None:
    attrs = {"axis": 1, "epsilon": EPSILON}
    check("layer_norm_grad", [drawn((9, 64), dtype), drawn((9, 64), dtype), drawn((64,), dtype)], attrs)
    check("layer_norm_grad", [drawn((9, 64), dtype), drawn((9, 64), dtype), drawn((64,))], attrs, compiles=False)
    image = (3, 8, 5, 5)
    for order in ("plain", "channels_last"):
        arrays = [drawn(image, dtype), drawn(image, dtype), drawn((8,))]
        check("batch_norm_train_grad", arrays, {"epsilon": EPSILON}, order=order, compiles=False)


@pytest.mark.parametrize("image", IMAGES)
def test_batches(image: str) -> None:
    shape = IMAGES[image]
    arrays = [drawn(shape), drawn(shape, shift=2), drawn((shape[1],))]
    for order in ("plain", "channels_last") if len(shape) > 2 else ("plain",):
        compiles = image == "large"
        check("batch_norm_train_grad", arrays, {"epsilon": EPSILON}, order=order, compiles=compiles)


@pytest.mark.parametrize("image", IMAGES)
def test_layers_without_scale(image: str) -> None:
    shape = IMAGES[image]
    arrays = [drawn(shape), drawn(shape)]
    inner = tuple(range(2, len(shape))) or (1,)
    for order in ("plain", "channels_last") if len(shape) > 2 else ("plain",):
        compiles = image == "large" and order == "channels_last"
        check("standardize_grad", arrays, {"axes": inner, "epsilon": EPSILON}, order=order, compiles=compiles)
        attrs = {"axes": (0,), "epsilon": EPSILON, "center": False}
        check("standardize_grad", arrays, attrs, order=order, compiles=False)


def test_a_large_mean_costs_few_digits() -> None:
    shape = (6000, 2)
    arrays = [drawn(shape), drawn(shape, shift=300), drawn((2,))]
    got = run_op("batch_norm_train_grad", arrays, {"epsilon": EPSILON}, compiles=False)
    want = OPS["batch_norm_train_grad"].run(*(a.astype(np.float64) for a in arrays), epsilon=EPSILON)
    for y, w in zip(got, want, strict=True):
        np.testing.assert_allclose(y, w, rtol=2e-4, atol=2e-4 * abs(w).max())


def test_against_torch() -> None:
    torch = pytest.importorskip("torch")
    g, x, scale = drawn((12, 96)), drawn((12, 96)), drawn((96,))
    t, s = (torch.from_numpy(a.copy()).requires_grad_() for a in (x, scale))
    b = torch.zeros(96, requires_grad=True)
    torch.nn.functional.layer_norm(t, (96,), s, b, EPSILON).backward(torch.from_numpy(g))
    got = run_op("layer_norm_grad", [g, x, scale], {"axis": 1, "epsilon": EPSILON}, compiles=False)
    for y, w in zip(got, (t.grad, s.grad, b.grad), strict=True):
        np.testing.assert_allclose(y, w.numpy(), rtol=1e-4, atol=1e-5)


def test_an_epilogue_joins() -> None:
    g, x, scale, residual = drawn((6, 64)), drawn((6, 64)), drawn((64,)), drawn((6, 64))
    operand = Operand(residual.dtype, (6, 64), (64, 1))
    epilogue = Epilogue(Var("x") + Var("a0"), (operand,), np.dtype(np.float32))
    attrs = {"axis": 1, "epsilon": EPSILON}
    dx, dscale, _ = run_op("layer_norm_grad", [g, x, scale], attrs, epilogue=epilogue, extra=[residual])
    want = OPS["layer_norm_grad"].run(g, x, scale, **attrs)
    np.testing.assert_allclose(dx, want[0] + residual, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(dscale, want[1], rtol=1e-5, atol=1e-5)


def test_refusals() -> None:
    attrs = {"axis": 1, "epsilon": EPSILON}
    assert refuses("layer_norm_grad", [drawn((3, 1)), drawn((3, 1)), drawn((1,))], attrs)
    assert refuses("layer_norm_grad", [drawn((0, 4)), drawn((0, 4)), drawn((4,))], attrs)
