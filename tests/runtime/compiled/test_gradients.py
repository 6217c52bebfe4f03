"""Graphs of forward, loss and backward: all of it native, pointwise gradients inside of the kernels before them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from onnxgrad.ops import conv, layout, loss, matmul, normalize, pointwise as pw, pool, reduce as red
from onnxgrad.ops.window import Window
from onnxgrad.runtime.compiled.program import Program
from onnxgrad.runtime.graph.autodiff import differentiate
from onnxgrad.runtime.graph.graph import Graph

from .graphs import build, feeds_for, reference

SAME = Window((1, 1), ((1, 1), (1, 1)), (1, 1))
HALF = Window((2, 2), ((1, 1), (1, 1)), (1, 1))


def weights(**shapes: tuple[int, ...]) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {n: (rng.standard_normal(s) / max(np.prod(s[1:]), 1) ** 0.5).astype(np.float32) for n, s in shapes.items()}


def convolutional(x: Any, labels: Any, w: Any, scale: Any, bias: Any, mean: Any, var: Any, v: Any, out: Any) -> Any:
    statistics = {"epsilon": 1e-3, "momentum": 0.9}
    y = conv.conv(x, w, win=SAME)
    y = pw.relu(normalize.batch_norm_train(y, scale, bias, mean, var, **statistics)[0])
    y = pool.max_pool(y, kernel=(3, 3), win=HALF)
    z = normalize.batch_norm_train(conv.conv(y, v, win=SAME), scale, bias, mean, var, **statistics)[0]
    y = pw.relu(pw.add(z, y))
    return loss.softmax_cross_entropy(matmul.matmul(red.mean(y, axes=(2, 3)), out), labels)


def attentive(x: Any, labels: Any, scale: Any, bias: Any, w: Any, v: Any, out: Any) -> Any:
    y = normalize.layer_norm(x, scale, bias, axis=2, epsilon=1e-5)
    y = pw.add(x, matmul.matmul(pw.gelu(matmul.matmul(y, w)), v))
    y = normalize.rms_norm(y, scale, axis=2, epsilon=1e-5)
    logits = matmul.matmul(normalize.softmax(y, axis=-1), out)
    return loss.softmax_cross_entropy(layout.transpose(logits, perm=(0, 2, 1)), labels, ignore_index=1)


NETWORKS: dict[str, tuple[dict[str, Any], dict[str, Any], Callable[..., Any], list[str]]] = {
    "convolutional": (
        {"x": (2, 16, 12, 12), "labels": (2,)},
        weights(
            w=(16, 16, 3, 3), scale=(16,), bias=(16,), mean=(16,), var=(16,), v=(16, 16, 3, 3), out=(16, 5)
        ),
        convolutional,
        ["[batch_norm_train + add + relu]", "[conv_input_grad + add]", "[max_pool_grad + relu_grad_x]"],
    ),
    "attentive": (
        {"x": (2, 7, 32), "labels": (2, 7)},
        weights(scale=(32,), bias=(32,), w=(32, 64), v=(64, 32), out=(32, 5)),
        attentive,
        ["[matmul + gelu_grad_x]"],
    ),
}  # fmt: skip


def trained(name: str) -> Graph:
    inputs, state, body, _ = NETWORKS[name]
    graph = build(inputs, state, body, {"labels": np.int64})
    return differentiate(graph, ["x", *(n for n in state if n not in ("mean", "var"))])


@pytest.mark.usefixtures("all_threads")
@pytest.mark.parametrize("name", NETWORKS)
def test_everything_is_native_and_as_array_kernels_compute_it(name: str) -> None:
    graph, state = trained(name), NETWORKS[name][1]
    program = Program(graph, hoist=False, threads=2)
    assert program.native, program.compiler.refused
    for tail in NETWORKS[name][3]:
        assert tail in str(program)
    feeds = feeds_for(graph)
    found, _ = program.run([*feeds, *(state[n] for n in graph.state)])
    wanted, _ = reference(graph, feeds, state)
    for f, w in zip(found, wanted, strict=True):
        np.testing.assert_allclose(f, w, rtol=0, atol=2e-5 * max(1.0, float(np.abs(w).max())))


def test_pytorch_agrees() -> None:
    torch = pytest.importorskip("torch")
    f = torch.nn.functional
    inputs, state, _, _ = NETWORKS["convolutional"]
    graph = trained("convolutional")
    feeds = feeds_for(graph)
    found, _ = Program(graph, hoist=False).run([*feeds, *(state[n] for n in graph.state)])
    x, t = torch.from_numpy(feeds[0]).requires_grad_(), {n: torch.from_numpy(a) for n, a in state.items()}
    for n in ("w", "scale", "bias", "v", "out"):
        t[n].requires_grad_()
    y = f.relu(f.batch_norm(f.conv2d(x, t["w"], padding=1), None, None, t["scale"], t["bias"], True, 0.1, 1e-3))
    y = f.max_pool2d(y, 3, 2, 1)
    z = f.batch_norm(f.conv2d(y, t["v"], padding=1), None, None, t["scale"], t["bias"], True, 0.1, 1e-3)
    total = f.cross_entropy(f.relu(z + y).mean((2, 3)) @ t["out"], torch.from_numpy(feeds[1]))
    total.backward()
    wanted = [total.detach(), x.grad, *(t[n].grad for n in state if n not in ("mean", "var"))]
    assert list(inputs) == ["x", "labels"]
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, b.numpy(), rtol=0, atol=2e-5 * max(1.0, float(b.abs().max())))
