"""Gradients of normalisation layers in all that they read, against the array kernels, float64 and PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from onnxgrad.ops.dims import Dim
from onnxgrad.ops.expr import Var
from onnxgrad.ops.kernels.cpu.jit import compiled_modules
from onnxgrad.ops.kernels.cpu.lowering import Epilogue
from onnxgrad.ops.kernels.cpu.operand import packed
from onnxgrad.ops.op import OPS

from .site import run_op
from .strided import Lie, lies, lying

N, S = Dim.symbol("n"), Dim.symbol("s")
F32 = np.dtype(np.float32)
EPSILON = 1e-3


def values(*shape: int, dtype: Any = np.float32, seed: int = 0) -> np.ndarray[Any, Any]:
    return (np.random.default_rng(seed).standard_normal(shape) * 2 + 0.5).astype(dtype)


def definition(op: str, g: Any, x: Any, scale: Any, axis: int = 0) -> list[Any]:
    """Return the gradients in x, scale and bias in float64."""
    g, x, scale = (v.astype(np.float64) for v in (g, x, scale))
    axes = (0, *range(2, x.ndim)) if op == "batch_norm_train_grad" else tuple(range(axis % x.ndim, x.ndim))
    rest = axes if op == "batch_norm_train_grad" else tuple(range(axis % x.ndim))
    if op == "batch_norm_train_grad":
        scale = scale.reshape(-1, *(1,) * (x.ndim - 2))
    center = op != "rms_norm_grad"
    c = x - x.mean(axes, keepdims=True) if center else x
    r = 1 / np.sqrt((c * c).mean(axes, keepdims=True) + EPSILON)
    h = g * scale
    d = h - c * r * r * (h * c).mean(axes, keepdims=True)
    dx = r * (d - h.mean(axes, keepdims=True) if center else d)
    return [dx, (g * c * r).sum(rest), g.sum(rest)][: 3 if center else 2]


def agree(found: Any, wanted: Any, dtype: Any = np.float32) -> None:
    assert len(found) == len(wanted)
    for a, b in zip(found, wanted, strict=True):
        scale = max(1.0, float(np.abs(b).max()))
        np.testing.assert_allclose(a, b, rtol=0, atol=(1e-5 if dtype == np.float32 else 1e-12) * scale)


@given(
    shape=st.lists(st.sampled_from([1, 2, 3, 7, 33]), min_size=2, max_size=4),
    dtype=st.sampled_from([np.float32, np.float64]),
    ways=st.tuples(lies(), lies(), st.just(Lie()), lies()),
    at_end=st.booleans(),
)
@settings(max_examples=30)
def test_batches_lying_in_any_way(shape: list[int], dtype: Any, ways: tuple[Lie, ...], at_end: bool) -> None:
    g, x, scale = values(*shape, dtype=dtype, seed=1), values(*shape, dtype=dtype), values(shape[1], dtype=dtype)
    with lying(*ways):
        found = run_op("batch_norm_train_grad", [g, x, scale], epsilon=EPSILON, at_end=at_end)
    agree(found, definition("batch_norm_train_grad", g, x, scale), dtype)
    agree(found, OPS["batch_norm_train_grad"].run(g, x, scale, epsilon=EPSILON), dtype)


@pytest.mark.parametrize("op", ["layer_norm_grad", "rms_norm_grad"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("shape", "axis"), [((5, 7, 33), 2), ((5, 7, 33), 1), ((700, 768), -1), ((3, 5000), 1), ((900, 3), 1), ((4, 3), 0)]
)
def test_rows(op: str, shape: tuple[int, ...], axis: int, dtype: Any) -> None:
    g, x, scale = (values(*s, dtype=dtype, seed=i) for i, s in enumerate((shape, shape, shape[axis:])))
    for at_end in (True, False):
        found = run_op(op, [g, x, scale], axis=axis, epsilon=EPSILON, at_end=at_end)
        agree(found, definition(op, g, x, scale, axis), dtype)
        agree(found, OPS[op].run(g, x, scale, axis=axis, epsilon=EPSILON), dtype)


def test_any_number_of_threads() -> None:
    for op, shape, attrs in (
        ("layer_norm_grad", (3000, 96), {"axis": 1}),
        ("batch_norm_train_grad", (8, 24, 40, 40), {}),
    ):
        g, x, scale = values(*shape, seed=1), values(*shape), values(shape[1], seed=2)
        runs = [run_op(op, [g, x, scale], threads=t, epsilon=EPSILON, **attrs) for t in (1, 2, 4)]
        for other in runs[1:]:
            for a, b in zip(runs[0], other, strict=True):
                np.testing.assert_array_equal(a, b)


def test_sizes_of_run_time_compile_once() -> None:
    counts = []
    for n, s in ((1, 1), (3, 50), (2, 197)):
        g, x, scale = values(n, s, 48, seed=1), values(n, s, 48), values(48, seed=2)
        found = run_op(
            "layer_norm_grad", [g, x, scale], symbols={0: (N, S, 48), 1: (N, S, 48)}, axis=2, epsilon=EPSILON
        )
        agree(found, definition("layer_norm_grad", g, x, scale, 2))
        found = run_op(
            "batch_norm_train_grad", [g, x, values(s)], symbols={0: (N, s, 48), 1: (N, s, 48)}, epsilon=EPSILON
        )
        agree(found, definition("batch_norm_train_grad", g, x, values(s)))
        g, x = g.transpose(0, 2, 1).copy(), x.transpose(0, 2, 1).copy()
        found = run_op(
            "batch_norm_train_grad", [g, x, scale], symbols={0: (N, 48, S), 1: (N, 48, S)}, epsilon=EPSILON,
            order="channels_last", multiple=16,
        )  # fmt: skip
        agree(found, definition("batch_norm_train_grad", g, x, scale))
        counts.append(compiled_modules())
    assert counts[2] - counts[1] <= counts[1] - counts[0]


@pytest.mark.parametrize("order", ["plain", "channels_last"])
def test_an_epilogue_is_for_the_first_output(order: str) -> None:
    shape = (2, 16, 30, 30)
    g, x, other = values(*shape, seed=1), values(*shape), values(*shape, seed=2)
    residual, extra = packed(F32, shape), other
    if order == "channels_last":
        residual = packed(F32, (2, 30, 30, 16)).transposed((0, 3, 1, 2))
        extra = np.ascontiguousarray(other.transpose(0, 2, 3, 1))
    epilogue = Epilogue(Var("x") + Var("a0"), (residual,), F32)
    scale = values(16, seed=3)
    found = run_op(
        "batch_norm_train_grad", [g, x, scale], epsilon=EPSILON, order=order, multiple=16, epilogue=epilogue,
        extra=[extra],
    )  # fmt: skip
    dx, *rest = definition("batch_norm_train_grad", g, x, scale)
    agree(found, [dx + other, *rest])
    scale = values(30, seed=3)
    if order == "plain":
        found = run_op("layer_norm_grad", [g, x, scale], axis=3, epsilon=EPSILON, epilogue=epilogue, extra=[other])
        dx, *rest = definition("layer_norm_grad", g, x, scale, 3)
        agree(found, [dx + other, *rest])


def test_pytorch_agrees() -> None:
    torch = pytest.importorskip("torch")
    g, x = values(4, 24, 9, 11, seed=1), values(4, 24, 9, 11)
    leaf, scale, bias = (torch.from_numpy(v).requires_grad_() for v in (x, values(24, seed=2), values(24, seed=3)))
    y = torch.nn.functional.batch_norm(leaf, None, None, scale, bias, True, 0.1, EPSILON)
    y.backward(torch.from_numpy(g))
    for order in ("plain", "channels_last"):
        found = run_op("batch_norm_train_grad", [g, x, scale.detach().numpy()], epsilon=EPSILON, order=order)
        agree(found, [v.grad.numpy() for v in (leaf, scale, bias)])
    g, x = values(40, 96, seed=1), values(40, 96)
    leaf, scale, bias = (torch.from_numpy(v).requires_grad_() for v in (x, values(96, seed=2), values(96, seed=3)))
    torch.nn.functional.layer_norm(leaf, (96,), scale, bias, EPSILON).backward(torch.from_numpy(g))
    found = run_op("layer_norm_grad", [g, x, scale.detach().numpy()], axis=1, epsilon=EPSILON)
    agree(found, [v.grad.numpy() for v in (leaf, scale, bias)])


def test_a_scale_of_another_shape_is_refused() -> None:
    g, x = values(4, 6, seed=1), values(4, 6)
    assert run_op("layer_norm_grad", [g, x, values(1)], axis=1, epsilon=EPSILON) is None
