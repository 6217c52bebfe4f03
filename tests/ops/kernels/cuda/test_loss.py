"""CUDA losses of classification against the array kernels in float64 and PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnxgrad.ops.errors import OpError
from onnxgrad.ops.kernels.cuda import loss as _rules
from onnxgrad.ops.op import OPS
from onnxgrad.ops.types import BFLOAT16

from .site import refuses, run_op

assert _rules
RNG = np.random.default_rng(0)
SHAPES: dict[str, tuple[int, ...]] = {
    "rows": (5, 10),
    "long rows": (3, 17000),
    "pixels": (2, 21, 4, 3),
    "few classes": (700, 3),
    "pieces": (9000, 2),
    "one class": (3, 1),
}
OPTIONS: dict[str, tuple[str, bool, bool]] = {
    "mean": ("mean", False, False),
    "mean of weights": ("mean", True, False),
    "mean of some": ("mean", False, True),
    "sum": ("sum", True, True),
    "none": ("none", True, True),
    "each": ("none", False, False),
}
LOSSES = ("softmax_cross_entropy", "nll_loss")


def drawn(shape: tuple[int, ...], dtype: Any = np.float32, scale: float = 3.0) -> Any:
    return np.asarray(RNG.standard_normal(shape) * scale).astype(dtype)


def labelled(shape: tuple[int, ...], dtype: Any = np.int64) -> Any:
    """Return labels, some of which count from the last class."""
    return RNG.integers(-shape[1], shape[1], (shape[0], *shape[2:])).astype(dtype)


def close(y: Any, want: Any, relative: float = 3e-6) -> None:
    assert y.shape == np.shape(want)
    np.testing.assert_allclose(y.astype(float), want, rtol=relative, atol=relative * max(1e-3, np.max(np.abs(want))))


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("shape", SHAPES)
def test_losses_and_gradient(shape: str, option: str) -> None:
    reduction, weighted, ignores = OPTIONS[option]
    x = drawn(SHAPES[shape])
    labels = labelled(x.shape, np.int32 if option == "sum" else np.int64)
    weights = (RNG.random(x.shape[1]) + 0.1).astype(np.float32) if weighted else None
    attrs = {"reduction": reduction, "ignore_index": int(labels.flat[0]) if ignores and x.shape[1] > 1 else None}
    wide = None if weights is None else weights.astype(float)
    for order in ("plain", "channels_last") if x.ndim > 2 else ("plain",):
        compiles = (shape, option) in (("rows", "mean of weights"), ("long rows", "mean"), ("pieces", "sum"))
        for op in LOSSES:
            (y,) = run_op(op, [x, labels, weights], attrs, order=order, compiles=compiles)
            close(y, OPS[op].run(x.astype(float), labels, wide, **attrs))
        g = drawn(labels.shape if reduction == "none" else ())
        (dx,) = run_op("softmax_cross_entropy_grad", [g, x, labels, weights], attrs, order=order, compiles=compiles)
        want = OPS["softmax_cross_entropy_grad"].run(g.astype(float), x.astype(float), labels, wide, **attrs)
        close(dx, want, 1e-5)


@pytest.mark.parametrize("dtype", [np.float64, np.float16, BFLOAT16])
def test_floats_of_other_widths(dtype: Any) -> None:
    x, labels, g = drawn((6, 40), dtype), labelled((6, 40)), drawn((), dtype, 1)
    relative = {8: 1e-13, 2: 8e-3 if dtype == BFLOAT16 else 1e-3}[np.dtype(dtype).itemsize]
    (y,) = run_op("softmax_cross_entropy", [x, labels], {})
    close(y, OPS["softmax_cross_entropy"].run(x.astype(float), labels), relative)
    (dx,) = run_op("softmax_cross_entropy_grad", [g, x, labels], {}, compiles=False)
    close(dx, OPS["softmax_cross_entropy_grad"].run(g.astype(float), x.astype(float), labels), relative)


def test_what_is_no_number() -> None:
    x, labels = drawn((6, 12)), np.arange(6)
    x[0, 3], x[1, 3], x[2, 3], x[3, 3], x[4] = np.nan, np.inf, -np.inf, -np.inf, -np.inf
    for op in LOSSES:
        (y,) = run_op(op, [x, labels], {"reduction": "none"}, compiles=False)
        with np.errstate(all="ignore"):
            want = OPS[op].run(x.astype(float), labels, reduction="none")
        np.testing.assert_allclose(y, want, rtol=1e-5)
    x[5] = np.nan
    (dx,) = run_op("softmax_cross_entropy_grad", [drawn(()), x, labels], {"ignore_index": 5}, compiles=False)
    assert (dx[5] == 0).all()
    assert np.isnan(dx[[0, 1, 4]]).all()
    assert np.isfinite(dx[2:4]).all()


def test_a_label_that_is_no_class_sets_a_flag_makes_a_nan_and_touches_nothing() -> None:
    x, labels = drawn((4, 10)), np.array([3, 10, -11, 2**40])
    for op in LOSSES:
        (y,) = run_op(op, [x, labels, np.ones(10, np.float32)], {"reduction": "none"}, compiles=False, flagged=True)
        np.testing.assert_array_equal(np.isnan(y), [False, True, True, True])
    given = [drawn(()), x, labels]
    (dx,) = run_op("softmax_cross_entropy_grad", given, {"reduction": "sum"}, compiles=False, flagged=True)
    np.testing.assert_array_equal(np.isnan(dx).all(1), [False, True, True, True])


@pytest.mark.parametrize("last", [9, -10, 10, -11, -100])
@pytest.mark.parametrize("ignore", [None, -100])
@pytest.mark.parametrize("shape", [(700, 10), (3, 10, 5), (2, 10, 4, 3)])
def test_a_flag_is_set_where_one_label_is_no_class(shape: tuple[int, ...], ignore: int | None, last: int) -> None:
    """The last of all, unless it is ignored; the array kernel says so on the CPU, of the same labels."""
    x, labels = drawn(shape), labelled(shape)
    labels.flat[-1] = last
    bad = not -10 <= last < 10 and last != ignore
    attrs = {"ignore_index": ignore, "reduction": "mean"}
    if bad:
        with pytest.raises(OpError, match=f"index {last} is outside"):
            OPS["nll_loss"].run(x, labels, **attrs)
    for order in ("plain", "channels_last") if x.ndim > 2 else ("plain",):
        for op in LOSSES:
            run_op(op, [x, labels], attrs, order=order, flagged=bad, compiles=last == 10)
        given = [drawn(()), x, labels]
        run_op("softmax_cross_entropy_grad", given, attrs, order=order, flagged=bad, compiles=last == 10)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_against_torch(reduction: str) -> None:
    torch = pytest.importorskip("torch")
    x, labels, weights = drawn((3, 7, 4)), np.abs(labelled((3, 7, 4))) % 7, (RNG.random(7) + 0.5).astype(np.float32)
    t = torch.from_numpy(x.copy()).requires_grad_()
    want = torch.nn.functional.cross_entropy(
        t, torch.from_numpy(labels), torch.from_numpy(weights), ignore_index=2, reduction=reduction
    )
    want.sum().backward()
    attrs = {"reduction": reduction, "ignore_index": 2}
    (y,) = run_op("softmax_cross_entropy", [x, labels, weights], attrs, compiles=False)
    close(y, want.detach().numpy())
    g = np.ones_like(y)
    (dx,) = run_op("softmax_cross_entropy_grad", [g, x, labels, weights], attrs, compiles=False)
    close(dx, t.grad.numpy(), 1e-5)


def test_refusals() -> None:
    x = drawn((4, 5))
    assert refuses("softmax_cross_entropy", [x, np.zeros(4, np.int8)], {})
    assert refuses("softmax_cross_entropy", [x[:0], np.zeros(0, np.int64)], {})
