"""Normalisation layers and their gradients against the array kernels, their definition in float64 and PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from onnxgrad.ops.dims import Dim
from onnxgrad.ops.expr import Var
from onnxgrad.ops.kernels.cpu.jit import compiled_modules
from onnxgrad.ops.kernels.cpu.lowering import LOWERINGS, Epilogue
from onnxgrad.ops.kernels.cpu.operand import packed
from onnxgrad.ops.op import OPS
from onnxgrad.ops.pointwise import Pointwise
from onnxgrad.ops.types import TensorType
from onnxgrad.runtime.graph.autodiff import differentiate
from onnxgrad.runtime.graph.graph import Graph

from .site import run_op
from .strided import Lie, lies, lying

N, S = Dim.symbol("n"), Dim.symbol("s")
F32 = np.dtype(np.float32)


def values(*shape: int, dtype: Any = np.float32, seed: int = 0, shift: float = 0.5) -> np.ndarray[Any, Any]:
    return (np.random.default_rng(seed).standard_normal(shape) * 2 + shift).astype(dtype)


def vectors(channels: int, dtype: Any = np.float32) -> list[np.ndarray[Any, Any]]:
    """Return scale, bias, mean and variance of channels."""
    made = [values(channels, dtype=dtype, seed=i) for i in range(1, 5)]
    made[3] = np.abs(made[3]) + np.asarray(0.1, dtype)
    return made


def standardized(
    x: np.ndarray[Any, Any], axes: tuple[int, ...], epsilon: float, center: bool = True
) -> np.ndarray[Any, Any]:
    x = x.astype(np.float64)
    c = x - x.mean(axes, keepdims=True) if center else x
    return c / np.sqrt((c * c).mean(axes, keepdims=True) + epsilon)


def slope(
    g: np.ndarray[Any, Any], x: np.ndarray[Any, Any], axes: tuple[int, ...], epsilon: float, center: bool = True
) -> np.ndarray[Any, Any]:
    """Return the gradient of `standardized`, by its Jacobian's three terms."""
    g, x = g.astype(np.float64), x.astype(np.float64)
    c = x - x.mean(axes, keepdims=True) if center else x
    r = 1 / np.sqrt((c * c).mean(axes, keepdims=True) + epsilon)
    d = g - c * r * r * (g * c).mean(axes, keepdims=True)
    return r * (d - g.mean(axes, keepdims=True) if center else d)


def close(dtype: Any) -> dict[str, float]:
    return {"rtol": 2e-5, "atol": 2e-5} if dtype == np.float32 else {"rtol": 1e-10, "atol": 1e-10}


@given(
    shape=st.lists(st.sampled_from([1, 2, 3, 16, 17, 37]), min_size=1, max_size=4),
    chosen=st.integers(1, 15),
    center=st.booleans(),
    dtype=st.sampled_from([np.float32, np.float64]),
    ways=st.tuples(lies(), lies(), lies()),
    at_end=st.booleans(),
)
@settings(max_examples=30)
def test_any_axes_of_tensors_lying_in_any_way(
    shape: list[int], chosen: int, center: bool, dtype: Any, ways: tuple[Lie, Lie, Lie], at_end: bool
) -> None:
    x, g = values(*shape, dtype=dtype), values(*shape, dtype=dtype, seed=1)
    axes = tuple(a for a in range(x.ndim) if chosen >> a & 1) or (0,)
    attrs = {"axes": axes, "epsilon": 0.1, "center": center}
    with lying(*ways[:2]):
        y = run_op("standardize", [x], at_end=at_end, **attrs)
    np.testing.assert_allclose(y, standardized(x, axes, 0.1, center), **close(dtype))
    with lying(*ways):
        y = run_op("standardize_grad", [g, x], at_end=at_end, **attrs)
    np.testing.assert_allclose(y, slope(g, x, axes, 0.1, center), **close(dtype))
    np.testing.assert_allclose(y, OPS["standardize_grad"].run(g, x, **attrs), **close(dtype))


@given(
    shape=st.tuples(*[st.sampled_from([1, 2, 3, 7, 33])] * 4),
    op=st.sampled_from(["batch_norm", "batch_norm_train", "instance_norm", "group_norm"]),
    groups=st.sampled_from([1, 3, 99]),
    ways=st.tuples(lies(), *[st.just(Lie())] * 4, lies()),
    at_end=st.booleans(),
)
@settings(max_examples=40)
def test_channels_lying_in_any_way(
    shape: tuple[int, ...], op: str, groups: int, ways: tuple[Lie, ...], at_end: bool
) -> None:
    channels = shape[1]
    x, given = values(*shape), vectors(channels)
    attrs: dict[str, Any] = {"epsilon": 0.1}
    if op == "batch_norm_train":
        attrs["momentum"] = 0.8
    if op == "group_norm":
        attrs["groups"] = groups if channels % groups == 0 else channels
    arrays = [x, *given[: 4 if op.startswith("batch") else 2]]
    with lying(*ways):
        y = run_op(op, arrays, at_end=at_end, **attrs)
    wanted = OPS[op].run(*arrays, **attrs)
    for found, right in zip(
        y if isinstance(y, list) else [y], wanted if isinstance(wanted, tuple) else [wanted], strict=True
    ):
        np.testing.assert_allclose(found, right, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("order", ["plain", "channels_last"])
@pytest.mark.parametrize("shape", [(3, 70, 33, 31), (1, 24, 130, 129), (16, 8, 90), (2, 1, 300, 200), (40, 600)])
def test_batch_statistics_on_any_number_of_threads(shape: tuple[int, ...], order: str) -> None:
    x, (scale, bias, mean, var) = values(*shape, shift=30), vectors(shape[1])
    attrs = {"epsilon": 1e-3, "momentum": 0.9}
    arrays = [x, scale, bias, mean, var]
    results = [run_op("batch_norm_train", arrays, order=order, multiple=16, threads=t, **attrs) for t in (1, 2, 4)]
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(a, b)
    axes = (0, *range(2, x.ndim))
    wide = x.astype(np.float64)
    across = (-1, *(1,) * (x.ndim - 2))
    wanted = standardized(x, axes, 1e-3) * scale.reshape(across) + bias.reshape(across)
    np.testing.assert_allclose(results[0][0], wanted, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(results[0][1], mean * 0.9 + wide.mean(axes) * 0.1, rtol=1e-6, atol=2e-6)
    np.testing.assert_allclose(results[0][2], var * 0.9 + wide.var(axes) * 0.1, rtol=1e-5)
    g = values(*shape, seed=7)
    grads = [run_op("standardize_grad", [g, x], axes=axes, epsilon=1e-3, order=order, threads=t) for t in (1, 3)]
    np.testing.assert_array_equal(*grads)
    np.testing.assert_allclose(grads[0], slope(g, x, axes, 1e-3), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("order", ["plain", "channels_last"])
@pytest.mark.parametrize("groups", [1, 4, 32, 64])
def test_groups_of_large_pictures(groups: int, order: str) -> None:
    x, (scale, bias, *_) = values(2, 64, 41, 37, shift=20), vectors(64)
    results = [
        run_op("group_norm", [x, scale, bias], groups=groups, epsilon=1e-3, order=order, multiple=16, threads=t)
        for t in (1, 2)
    ]
    np.testing.assert_array_equal(*results)
    apart = standardized(x.reshape(2, groups, -1), (2,), 1e-3).reshape(x.shape)
    wanted = apart * scale.reshape(-1, 1, 1) + bias.reshape(-1, 1, 1)
    np.testing.assert_allclose(results[0], wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("shape", "axis"), [((5, 7, 33), 2), ((5, 7, 33), 1), ((3, 768), -1), ((1, 60000), 1), ((4, 1), 1)]
)
def test_layer_and_rms_norm(shape: tuple[int, ...], axis: int, dtype: Any) -> None:
    x, scale, bias = values(*shape, dtype=dtype), *(values(*shape[axis:], dtype=dtype, seed=i) for i in (1, 2))
    axes = tuple(range(axis % x.ndim, x.ndim))
    y = run_op("layer_norm", [x, scale, bias], axis=axis, epsilon=1e-2)
    np.testing.assert_allclose(y, standardized(x, axes, 1e-2) * scale + bias, **close(dtype))
    y = run_op("layer_norm", [x, scale, None], axis=axis, epsilon=1e-2)
    np.testing.assert_allclose(y, standardized(x, axes, 1e-2) * scale, **close(dtype))
    y = run_op("rms_norm", [x, scale], axis=axis, epsilon=1e-2)
    np.testing.assert_allclose(y, standardized(x, axes, 1e-2, center=False) * scale, **close(dtype))
    y = run_op("layer_norm", [x, scale[..., :1], bias[..., -1:]], axis=axis, epsilon=1e-2)
    np.testing.assert_allclose(y, standardized(x, axes, 1e-2) * scale[..., :1] + bias[..., -1:], **close(dtype))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_norms_without_parameters(axis: int) -> None:
    x = values(4, 19, 33)
    x[:, 3, :], x[2, :, 5], x[1, 1, :] = 0, 0, 0
    for p in (1, 2):
        wanted = OPS["lp_norm"].run(x, p=p, axis=axis)
        np.testing.assert_allclose(run_op("lp_norm", [x], p=p, axis=axis), wanted, rtol=1e-5, atol=1e-7)
    y = run_op("mean_variance_norm", [x], axes=(axis,))
    np.testing.assert_allclose(y, OPS["mean_variance_norm"].run(x, axes=(axis,)), rtol=1e-4, atol=1e-4)


def test_variance_of_numbers_far_from_zero() -> None:
    x = (values(4, 48, 40, 40, shift=0) + 1000).astype(np.float32)
    y = run_op("batch_norm_train", [x, *vectors(48)], epsilon=1e-5, momentum=0.0, order="channels_last")
    np.testing.assert_allclose(y[2], x.astype(np.float64).var((0, 2, 3)), rtol=1e-4)


def test_infinities_and_nan() -> None:
    x, g = values(6, 40), values(6, 40, seed=1)
    x[1, 3], x[2, 4], g[4, 5] = np.inf, np.nan, np.inf
    for axes in ((0,), (1,)):
        for op, arrays in (("standardize", [x]), ("standardize_grad", [g, x])):
            wanted = OPS[op].run(*arrays, axes=axes, epsilon=1e-3)
            y = run_op(op, arrays, axes=axes, epsilon=1e-3)
            np.testing.assert_array_equal(np.isfinite(y), np.isfinite(wanted))
            np.testing.assert_allclose(y[np.isfinite(y)], wanted[np.isfinite(y)], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("order", ["plain", "channels_last"])
@pytest.mark.parametrize("op", ["batch_norm", "batch_norm_train", "instance_norm", "group_norm", "standardize_grad"])
def test_sizes_of_run_time_compile_once(op: str, order: str) -> None:
    counts = []
    for n, s in ((1, 1), (3, 20), (2, 70)):
        x, given = values(n, 12, s, 5), vectors(12)
        attrs: dict[str, Any] = {"epsilon": 0.1}
        arrays = [x, *given[: 4 if op.startswith("batch") else 2]]
        if op == "batch_norm_train":
            attrs["momentum"] = 0.8
        if op == "group_norm":
            attrs["groups"] = 4
        if op == "standardize_grad":
            arrays, attrs["axes"] = [values(n, 12, s, 5, seed=1), x], (0, 2, 3)
        symbols = {i: (N, 12, S, 5) for i, a in enumerate(arrays) if a.ndim == 4}
        y = run_op(op, arrays, symbols=symbols, order=order, multiple=16, **attrs)
        wanted = OPS[op].run(*arrays, **attrs)
        for found, right in zip(
            y if isinstance(y, list) else [y], wanted if isinstance(wanted, tuple) else [wanted], strict=True
        ):
            np.testing.assert_allclose(found, right, rtol=2e-4, atol=2e-4)
        counts.append(compiled_modules())
    assert counts[0] == counts[1] == counts[2]


def test_a_sequence_of_run_time() -> None:
    scale, bias = values(96, seed=1), values(96, seed=2)
    for s in (1, 50, 197):
        x = values(2, s, 96)
        y = run_op("layer_norm", [x, scale, bias], symbols={0: (N, S, 96)}, axis=2, epsilon=1e-5)
        np.testing.assert_allclose(y, standardized(x, (2,), 1e-5) * scale + bias, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("order", ["plain", "channels_last"])
@pytest.mark.parametrize("op", ["layer_norm", "batch_norm_train", "group_norm"])
def test_epilogue_and_halo(op: str, order: str) -> None:
    x, given, other = values(2, 16, 30, 30), vectors(16), values(2, 16, 30, 30, seed=9)
    attrs: dict[str, Any] = {"epsilon": 0.1}
    arrays = [x, *given]
    if op == "batch_norm_train":
        attrs["momentum"] = 0.5
    elif op == "group_norm":
        arrays, attrs["groups"] = [x, *given[:2]], 4
    else:
        arrays, attrs["axis"] = [x, values(16, 30, 30, seed=1)], 1
    residual = packed(F32, x.shape)
    if order == "channels_last":
        residual = packed(F32, (2, 30, 30, 16)).transposed((0, 3, 1, 2))
    epilogue = Epilogue(Var("x") + Var("a0"), (residual,), F32)
    extra = np.ascontiguousarray(other.transpose(0, 2, 3, 1)) if order == "channels_last" else other
    halo = ((0, 0), (0, 0), (1, 1), (2, 1)) if order == "channels_last" else ()
    y = run_op(op, arrays, epilogue=epilogue, extra=[extra], order=order, out_halo=halo, multiple=16, **attrs)
    wanted = OPS[op].run(*arrays, **attrs)
    wanted = wanted[0] if isinstance(wanted, tuple) else wanted
    np.testing.assert_allclose(y[0] if isinstance(y, list) else y, wanted + other, rtol=2e-4, atol=2e-4)


def test_pytorch_agrees() -> None:
    torch = pytest.importorskip("torch")
    t, f = torch.from_numpy, torch.nn.functional
    x, (scale, bias, mean, var) = values(4, 24, 9, 11), vectors(24)
    wanted = f.group_norm(t(x), 6, t(scale), t(bias), 1e-3).numpy()
    np.testing.assert_allclose(
        run_op("group_norm", [x, scale, bias], groups=6, epsilon=1e-3), wanted, rtol=1e-4, atol=1e-5
    )
    leaf = t(x.copy()).requires_grad_()
    y = f.batch_norm(leaf, t(mean.copy()), t(var.copy()), None, None, True, 0.1, 1e-3)
    g = values(4, 24, 9, 11, seed=1)
    y.backward(t(g))
    for order in ("plain", "channels_last"):
        found = run_op("standardize_grad", [g, x], axes=(0, 2, 3), epsilon=1e-3, order=order)
        np.testing.assert_allclose(found, leaf.grad.numpy(), rtol=1e-4, atol=1e-5)


VIEWS = {"reshape", "squeeze", "unsqueeze"}
TRAINED: list[tuple[str, tuple[tuple[Any, ...], ...], dict[str, Any]]] = [
    ("softmax", ((N, 8),), {"axis": 1}),
    ("log_softmax", ((N, 8),), {"axis": 1}),
    ("layer_norm", ((N, S, 8), (8,), (8,)), {"axis": 2, "epsilon": 1e-5}),
    ("rms_norm", ((N, S, 8), (8,)), {"axis": 2, "epsilon": 1e-5}),
    ("batch_norm", ((N, 8, 5, 5), (8,), (8,), (8,), (8,)), {"epsilon": 1e-5}),
    ("batch_norm_train", ((N, 8, 5, 5), (8,), (8,), (8,), (8,)), {"epsilon": 1e-5, "momentum": 0.9}),
    ("instance_norm", ((N, 8, 5, 5), (8,), (8,)), {"epsilon": 1e-5}),
    ("group_norm", ((N, 8, 5, 5), (8,), (8,)), {"epsilon": 1e-5, "groups": 2}),
    ("softmax_cross_entropy", ((N, 8), (N,)), {}),
]


@pytest.mark.parametrize(("op", "shapes", "attrs"), TRAINED, ids=[t[0] for t in TRAINED])
def test_gradient_graphs_have_rules(op: str, shapes: tuple[tuple[Any, ...], ...], attrs: dict[str, Any]) -> None:
    graph = Graph(op)
    loss = op == "softmax_cross_entropy"
    kinds = [np.dtype(np.int64) if loss and i == 1 else F32 for i in range(len(shapes))]
    inputs = [graph.input(f"i{i}", TensorType(k, s)) for i, (k, s) in enumerate(zip(kinds, shapes, strict=True))]
    with graph.building():
        y = OPS[op](*inputs, **attrs)
        y = y[0] if isinstance(y, tuple | list) else y
        graph.outputs = [OPS["sum"](OPS["mul"](y, y))]
    wrt = ["i0"] if loss else [f"i{i}" for i in range(min(3, len(shapes)))]
    nodes = differentiate(graph, wrt).nodes
    ops = {node.op.name for node in nodes if not isinstance(node.op, Pointwise)}
    assert not ops - VIEWS - set(LOWERINGS)


@pytest.mark.parametrize("order", ["plain", "channels_last"])
@pytest.mark.parametrize(("channels", "size", "beta"), [(2, 5, 0.75), (35, 5, 0.75), (64, 4, 0.6), (17, 1, 1.0)])
def test_local_response(channels: int, size: int, beta: float, order: str) -> None:
    x = values(2, channels, 5, 7)
    attrs = {"size": size, "alpha": 0.3, "beta": beta, "bias": 1.5}
    for at_end in (True, False):
        y = run_op("lrn", [x], order=order, multiple=16, at_end=at_end, **attrs)
        low = (size - 1) // 2
        squares = np.pad(x.astype(np.float64) ** 2, ((0, 0), (low, size - 1 - low), (0, 0), (0, 0)))
        total = sum(squares[:, j : j + channels] for j in range(size))
        np.testing.assert_allclose(y, x / (1.5 + 0.3 / size * total) ** beta, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(y, OPS["lrn"].run(x, **attrs), rtol=1e-5, atol=1e-6)
