"""Exported normalisation becomes the ops; NumPy's definitions and PyTorch's exports are the oracles."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from onnxgrad.importers.onnx.model import load_bytes
from onnxgrad.ops import layout, normalize, pointwise as pw, reduce as red
from onnxgrad.ops.dims import Dim
from onnxgrad.runtime.graph.execute import run_graph
from onnxgrad.runtime.graph.graph import Value
from onnxgrad.runtime.passes.drop_dead import drop_dead
from onnxgrad.runtime.passes.fuse_normalization import fuse_normalization

from .graphs import Built, built, checked, normal, op_names, unchanged

n = Dim.symbol("n")
X, W, C = normal(2, 3, 8) * 2 + 1, normal(8), normal(8)
EPSILON = 1e-3


def standard(x: Any, axes: Any = -1) -> Any:
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + EPSILON)


def rms(x: Any) -> Any:
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + EPSILON)


def mean(v: Value, axes: tuple[int, ...] = (-1,)) -> Any:
    return red.mean(v, axes=axes, keepdims=True)


def affine(b: Built, y: Any) -> Any:
    return pw.add(pw.mul(y, b.weight(W)), b.weight(C))


def root(v: Any) -> Any:
    return pw.sqrt(pw.add(v, EPSILON))


def _torch(b: Built, x: Value) -> Any:
    c = pw.sub(x, mean(x))
    return affine(b, pw.div(c, root(mean(pw.pow_(c, 2.0)))))


def _difference_computed_twice(b: Built, x: Value) -> Any:
    m = mean(x)
    square = pw.pow_(layout.identity(pw.sub(x, m)), 2.0)
    return affine(b, pw.div(pw.sub(x, m), root(mean(square))))


def _by_power(b: Built, x: Value) -> Any:
    c = pw.sub(x, mean(x))
    return affine(b, pw.mul(c, pw.pow_(pw.add(EPSILON, mean(pw.mul(c, c))), -0.5)))


def _scale_on_the_root(b: Built, x: Value) -> Any:
    c = pw.sub(x, mean(x))
    r = pw.mul(pw.reciprocal(root(mean(pw.mul(c, c)))), b.weight(W))
    return pw.add(b.weight(C), pw.mul(c, r))


def _tensorflow(b: Built, x: Value) -> Any:
    m = mean(x)
    c = pw.sub(x, m)
    r = pw.mul(pw.reciprocal(root(mean(pw.mul(c, c)))), b.weight(W))
    return pw.add(pw.mul(x, r), pw.sub(b.weight(C), pw.mul(m, r)))


def _jax(b: Built, x: Value) -> Any:
    def flat(v: Value) -> Any:
        return pw.mul(red.sum_(v, axes=(2,)), 1 / 8)

    def back(v: Any) -> Any:
        return layout.expand(layout.reshape(v, shape=(n, 3, 1)), shape=(n, 3, 1))

    m = flat(x)
    v = pw.maximum(0.0, pw.sub(flat(pw.mul(x, x)), pw.mul(m, m)))
    r = pw.mul(pw.reciprocal(root(back(v))), b.weight(W[None, None]))
    return pw.add(pw.mul(pw.sub(x, back(m)), r), b.weight(C))


@pytest.mark.parametrize("form", [_torch, _difference_computed_twice, _by_power, _scale_on_the_root, _tensorflow, _jax])
def test_layer_norm(form: Callable[[Built, Value], Any]) -> None:
    b = built(lambda b: form(b, b.input(X, (n, 3, 8))))
    found = checked(b, fuse_normalization, [standard(X) * W + C])
    assert op_names(found) == ["layer_norm"]


def test_layer_norm_without_scale_and_bias_and_over_two_axes() -> None:
    def make(b: Built) -> Any:
        x = b.input(X, (n, 3, 8))
        c = pw.sub(x, mean(x, (1, 2)))
        return pw.div(c, root(mean(pw.mul(c, c), (1, 2))))

    found = checked(built(make), fuse_normalization, [standard(X, (1, 2))])
    assert op_names(found) == ["layer_norm"]
    assert found.nodes[-1].attrs["axis"] == 1


def test_scale_that_is_no_weight_stays_apart() -> None:
    by = normal(2, 1, 8)

    def make(b: Built) -> Any:
        x = b.input(X)
        c = pw.sub(x, mean(x))
        return pw.mul(pw.div(c, root(mean(pw.mul(c, c)))), b.input(by))

    assert op_names(checked(built(make), fuse_normalization, [standard(X) * by])) == ["layer_norm", "mul"]


@pytest.mark.parametrize("divides", [False, True])
@pytest.mark.parametrize("scaled", [False, True])
def test_rms_norm(divides: bool, scaled: bool) -> None:
    def make(b: Built) -> Any:
        x = b.input(X, (n, 3, 8))
        r = root(mean(pw.pow_(x, 2.0)))
        y = pw.div(x, r) if divides else pw.mul(x, pw.div(1.0, r))
        return pw.mul(b.weight(W), y) if scaled else y

    found = checked(built(make), fuse_normalization, [rms(X) * (W if scaled else 1)])
    assert op_names(found) == ["rms_norm"]


@pytest.mark.parametrize("inner", [np.ones, lambda g: normal(g)])
def test_group_norm(inner: Callable[[int], Any]) -> None:
    x, scale, bias, w, c = normal(2, 6, 4, 5), inner(3), inner(3), normal(6, 1, 1), normal(6, 1, 1)

    def make(b: Built) -> Any:
        v = b.input(x, (n, 6, 4, 5))
        apart = layout.reshape(v, shape=(n, 3, -1))
        y = normalize.instance_norm(apart, b.weight(scale), b.weight(bias), epsilon=EPSILON)
        return pw.add(pw.mul(layout.reshape(y, shape=(n, 6, 4, 5)), b.weight(w)), b.weight(c))

    y = standard(x.reshape(2, 3, -1)) * scale[:, None] + bias[:, None]
    found = checked(built(make), fuse_normalization, [y.reshape(x.shape) * w + c])
    assert op_names(found) == ["group_norm"]


def _another_axis(b: Built) -> Any:
    x = b.input(X)
    c = pw.sub(x, mean(x, (1,)))
    return pw.div(c, root(mean(pw.mul(c, c), (1,))))


def _epsilon_of_an_input(b: Built) -> Any:
    x = b.input(X)
    c = pw.sub(x, mean(x))
    return pw.div(c, pw.sqrt(pw.add(mean(pw.mul(c, c)), b.input(np.array(EPSILON)))))


def _epsilon_outside(b: Built) -> Any:
    x = b.input(X)
    c = pw.sub(x, mean(x))
    return pw.div(c, pw.add(pw.sqrt(mean(pw.mul(c, c))), EPSILON))


def _variance_of_another_value(b: Built) -> Any:
    x, z = b.input(X), b.input(X)
    c = pw.sub(z, mean(z))
    return pw.div(pw.sub(x, mean(x)), root(mean(pw.mul(c, c))))


def _cube(b: Built) -> Any:
    x = b.input(X)
    c = pw.sub(x, mean(x))
    return pw.div(c, root(mean(pw.pow_(c, 3.0))))


def _sum_by_another_count(b: Built) -> Any:
    x = b.input(X)
    return pw.div(x, root(pw.div(red.sum_(pw.mul(x, x), axes=(2,), keepdims=True), 7.0)))


def _instance_norm_alone(b: Built) -> Any:
    y = normalize.instance_norm(b.input(X), b.weight(normal(3)), b.weight(normal(3)), epsilon=EPSILON)
    return layout.reshape(y, shape=(2, 3, 4, 2))


@pytest.mark.parametrize(
    "make",
    [
        _another_axis, _epsilon_of_an_input, _epsilon_outside, _variance_of_another_value, _cube,
        _sum_by_another_count, _instance_norm_alone,
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:invalid value")
def test_near_misses_stay(make: Callable[[Built], Any]) -> None:
    unchanged(built(make), fuse_normalization)


def test_other_axes_of_the_variance_are_no_layer_norm() -> None:
    def make(b: Built) -> Any:
        x = b.input(X)
        c = pw.sub(x, mean(x))
        return pw.div(c, root(mean(pw.mul(c, c), (1, 2))))

    c = X - X.mean(-1, keepdims=True)
    wanted = c / np.sqrt((c * c).mean((1, 2), keepdims=True) + EPSILON)
    assert op_names(checked(built(make), fuse_normalization, [wanted])) == ["mean", "sub", "rms_norm"]


def test_a_norm_that_is_read_twice_keeps_its_scale_apart() -> None:
    def make(b: Built) -> Any:
        x = b.input(X)
        c = pw.sub(x, mean(x))
        y = pw.div(c, root(mean(pw.mul(c, c))))
        return pw.mul(y, b.weight(W)), y

    found = checked(built(make), fuse_normalization, [standard(X) * W, standard(X)])
    assert op_names(found) == ["layer_norm", "mul"]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["LayerNorm", "GroupNorm"])
def test_what_pytorch_exports(name: str) -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    module = torch.nn.LayerNorm(8) if name == "LayerNorm" else torch.nn.GroupNorm(2, 8)
    torch.nn.init.normal_(module.weight)
    torch.nn.init.normal_(module.bias)
    x, file = torch.randn(2, 3, 8) if name == "LayerNorm" else torch.randn(2, 8, 4, 5), io.BytesIO()
    torch.onnx.export(
        module, (x,), file, dynamo=False, opset_version=14, input_names=["x"], dynamic_axes={"x": {0: "n"}}
    )
    model = load_bytes(file.getvalue())
    graph = drop_dead(fuse_normalization(model.graph).graph).graph
    assert op_names(graph)[-1:] == ["layer_norm" if name == "LayerNorm" else "group_norm"]
    feeds = [x.numpy() if v in graph.inputs else model._state[v.name].array for v in graph.entries]
    np.testing.assert_allclose(run_graph(graph, feeds)[0], module(x).detach().numpy(), rtol=1e-5, atol=1e-5)
