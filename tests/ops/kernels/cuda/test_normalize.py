"""CUDA normalisation layers against the array kernels in float64 and PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnxgrad.ops.expr import Var, maximum
from onnxgrad.ops.kernels.cuda import normalize as _rules
from onnxgrad.ops.kernels.cuda.lowering import Epilogue
from onnxgrad.ops.kernels.cuda.operand import Operand, channels_last_strides, row_major
from onnxgrad.ops.op import OPS
from onnxgrad.ops.types import BFLOAT16

from .site import refuses, run_op

assert _rules
RNG = np.random.default_rng(0)
EPSILON = 1e-5
CLOSE: dict[str, dict[str, float]] = {
    "float64": {"rtol": 1e-11, "atol": 1e-11},
    "float32": {"rtol": 2e-5, "atol": 2e-5},
    "float16": {"rtol": 2e-3, "atol": 2e-3},
    "bfloat16": {"rtol": 1.6e-2, "atol": 1.6e-2},
}
ROWS: dict[str, tuple[tuple[int, ...], int]] = {
    "odd rows": ((5, 37), 1),
    "a warp a row": ((3, 768), -1),
    "a block a row": ((2, 5000), 1),
    "pieces": ((2, 20000), 1),
    "two axes": ((4, 3, 8), 1),
    "all": ((4, 8), 0),
    "one element": ((3, 1), 1),
    "no rows": ((0, 4), 1),
}
IMAGES: dict[str, tuple[int, ...]] = {
    "odd": (3, 6, 5, 7),
    "small": (2, 64, 4, 4),
    "large": (2, 8, 40, 40),
    "1-D": (9, 4, 2),
    "a pixel": (2, 4, 1, 1),
    "no pixels": (4, 16),
}
PICTURES = [n for n, shape in IMAGES.items() if len(shape) > 2]


def drawn(shape: tuple[int, ...], dtype: Any = np.float32, shift: float = 0.0) -> Any:
    return np.asarray(RNG.standard_normal(shape) + shift).astype(dtype)


def positive(shape: tuple[int, ...], dtype: Any = np.float32) -> Any:
    return (RNG.random(shape) + 0.2).astype(dtype)


def check(op: str, arrays: list[Any], attrs: dict[str, Any], **how: Any) -> None:
    got = run_op(op, arrays, attrs, **how)
    wide = [a.astype(np.float64) if isinstance(a, np.ndarray) else a for a in arrays]
    want = OPS[op].run(*wide, **attrs)
    for y, w in zip(got, want if isinstance(want, tuple) else (want,), strict=True):
        assert y.shape == w.shape
        np.testing.assert_allclose(y.astype(float), w, **CLOSE[y.dtype.name])


def orders(shape: tuple[int, ...]) -> tuple[str, ...]:
    return ("plain", "channels_last") if len(shape) > 2 else ("plain",)


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("op", ["layer_norm", "rms_norm"])
def test_layers_of_rows(op: str, rows: str) -> None:
    shape, axis = ROWS[rows]
    own = shape[axis:]
    vectors = [drawn(own), drawn(own)] if op == "layer_norm" else [drawn(own)]
    compiles = op == "layer_norm" and rows in ("a warp a row", "pieces")
    check(op, [drawn(shape, shift=3), *vectors], {"axis": axis, "epsilon": EPSILON}, compiles=compiles)


def test_scales_that_are_broadcast_or_left_out() -> None:
    attrs = {"axis": 1, "epsilon": EPSILON}
    x = drawn((4, 5, 6))
    check("layer_norm", [x, drawn((5, 1)), drawn((6,))], attrs, compiles=False)
    check("layer_norm", [x, drawn((5, 6)), None], attrs, compiles=False)
    check("rms_norm", [x, drawn(())], attrs, compiles=False)
    assert refuses("rms_norm", [drawn((1, 5, 6)), drawn((4, 5, 6))], attrs)


@pytest.mark.parametrize("dtype", [np.float64, np.float16, BFLOAT16])
def test_floats_of_other_widths(dtype: Any) -> None:
    attrs = {"axis": 1, "epsilon": EPSILON}
    check("layer_norm", [drawn((4, 64), dtype), drawn((64,), dtype), drawn((64,), dtype)], attrs)
    mixed = [drawn((3, 8, 5, 5), dtype), drawn((8,)), drawn((8,)), drawn((8,)), positive((8,))]
    train = {"epsilon": EPSILON, "momentum": 0.9}
    for order in ("plain", "channels_last"):
        check("batch_norm_train", mixed, train, order=order, compiles=False)
        check("group_norm", mixed[:3], {"groups": 2, "epsilon": EPSILON}, order=order, compiles=False)


@pytest.mark.parametrize("image", IMAGES)
def test_batches(image: str) -> None:
    shape = IMAGES[image]
    c = shape[1]
    arrays = [drawn(shape, shift=3), drawn((c,)), drawn((c,)), drawn((c,)), positive((c,))]
    for order in orders(shape):
        compiles = image in ("odd", "large")
        check("batch_norm", arrays, {"epsilon": EPSILON}, order=order, compiles=image == "odd")
        check("batch_norm_train", arrays, {"epsilon": EPSILON, "momentum": 0.9}, order=order, compiles=compiles)


@pytest.mark.parametrize("image", PICTURES)
def test_examples_and_groups(image: str) -> None:
    shape = IMAGES[image]
    arrays = [drawn(shape, shift=3), drawn((shape[1],)), drawn((shape[1],))]
    for order in ("plain", "channels_last"):
        compiles = image == "large" and order == "channels_last"
        check("instance_norm", arrays, {"epsilon": EPSILON}, order=order, compiles=False)
        check("group_norm", arrays, {"groups": 2, "epsilon": EPSILON}, order=order, compiles=compiles)
        check("group_norm", arrays, {"groups": 1, "epsilon": EPSILON}, order=order, compiles=False)


@pytest.mark.parametrize("image", PICTURES)
def test_layers_without_scale(image: str) -> None:
    x = drawn(IMAGES[image])
    for order in ("plain", "channels_last"):
        axes = tuple(range(2, x.ndim))
        check("standardize", [x], {"axes": axes, "epsilon": EPSILON}, order=order, compiles=False)
        check("standardize", [x], {"axes": (0,), "epsilon": EPSILON, "center": False}, order=order, compiles=False)
        check("mean_variance_norm", [x + 1], {"axes": (0, *axes)}, order=order, compiles=image == "odd")
        sparse = np.where(RNG.random(x.shape) < 0.9, 0, x).astype(np.float32)
        check("lp_norm", [sparse], {"axis": 1, "p": 1}, order=order, compiles=False)
        check("lp_norm", [x], {"axis": -1, "p": 2}, order=order, compiles=False)


@pytest.mark.parametrize("shape", [(2, 1000), (2, 30000), (8000, 2)])
def test_a_large_mean_costs_no_digits(shape: tuple[int, int]) -> None:
    x = drawn(shape, shift=1000)
    axis = int(shape[0] < shape[1])
    (y,) = run_op("standardize", [x], {"axes": (axis,), "epsilon": 0.0}, compiles=False)
    want = OPS["standardize"].run(x.astype(np.float64), axes=(axis,), epsilon=0.0)
    np.testing.assert_allclose(y, want, rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize("length", [40, 20000])
def test_what_is_no_number(length: int) -> None:
    x = drawn((4, length))
    x[1, 2], x[2, 3], x[3] = np.nan, np.inf, 7
    check("layer_norm", [x, drawn((length,))], {"axis": 1, "epsilon": EPSILON}, compiles=False)


@pytest.mark.parametrize("order", ["plain", "channels_last"])
def test_against_torch(order: str) -> None:
    torch = pytest.importorskip("torch")
    f = torch.nn.functional
    x, scale, bias, mean, var = drawn((3, 8, 6, 6)), drawn((8,)), drawn((8,)), drawn((8,)), positive((8,))
    t = [torch.from_numpy(a.copy()) for a in (x, scale, bias, mean, var)]
    y, new_mean, _ = run_op(
        "batch_norm_train", [x, scale, bias, mean, var], {"epsilon": EPSILON, "momentum": 0.9}, order=order,
        compiles=False,
    )  # fmt: skip
    want = f.batch_norm(t[0], t[3], t[4], t[1], t[2], training=True, momentum=0.1, eps=EPSILON)
    np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(new_mean, t[3], rtol=1e-5, atol=1e-6)
    (y,) = run_op("group_norm", [x, scale, bias], {"groups": 4, "epsilon": EPSILON}, order=order, compiles=False)
    np.testing.assert_allclose(y, f.group_norm(t[0], 4, t[1], t[2], EPSILON), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("order", ["plain", "channels_last"])
@pytest.mark.parametrize("op", ["batch_norm", "group_norm"])
@pytest.mark.parametrize("shape", [(2, 8, 3, 5), (2, 8, 40, 40)])
def test_an_epilogue_joins(shape: tuple[int, ...], op: str, order: str) -> None:
    x, residual, each = drawn(shape), drawn(shape), drawn((8,))
    strides = row_major(shape) if order == "plain" else channels_last_strides(shape)
    operands = (Operand(residual.dtype, shape, strides), Operand(each.dtype, shape, (0, 1, 0, 0)))
    epilogue = Epilogue(maximum(Var("x") + Var("a0"), Var("a1")), operands, np.dtype(np.float16))
    arrays = [x, drawn((8,)), drawn((8,))]
    attrs: dict[str, Any] = {"epsilon": EPSILON}
    if op == "batch_norm":
        arrays += [drawn((8,)), positive((8,))]
    else:
        attrs["groups"] = 2
    y = run_op(
        op, arrays, attrs, order=order, epilogue=epilogue, extra=[residual, each[:, None, None]],
        compiles=shape[2] == 3,
    )[0]  # fmt: skip
    want = np.maximum(OPS[op].run(*arrays, **attrs) + residual, each[:, None, None])
    assert y.dtype == np.float16
    np.testing.assert_allclose(y, want, rtol=2e-3, atol=2e-3)


def test_refusals() -> None:
    x, v = drawn((2, 3, 4)), drawn((3,))
    assert refuses("batch_norm_train", [x[:0], v, v, v, v], {"epsilon": EPSILON, "momentum": 0.9})
    assert refuses("standardize", [x], {"axes": (), "epsilon": EPSILON})
