"""ai.onnx.preview.training: gradients of every order, and optimizers against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

from onnxgrad.importers.onnx.model import load_bytes
from onnxgrad.ops.errors import InvalidGraphError

from .both import model
from .one_node import run_node

TRAINING = "ai.onnx.preview.training"
X = np.array([1, 2, 3], np.float32)
W = np.array([[1, -1], [0.5, 2], [3, 0.25]], np.float32)


def gradient(inputs, outputs, **attrs):
    return helper.make_node("Gradient", inputs, outputs, domain=TRAINING, **attrs)


def run(nodes, feeds, outputs, **how):
    proto = model(nodes, feeds, outputs, opset=17, domains=[(TRAINING, 1)], **how)
    return load_bytes(proto.SerializeToString()).run(feeds)


CUBE = [
    helper.make_node("Mul", ["x", "x"], ["square"]),
    helper.make_node("Mul", ["square", "x"], ["cube"]),
    helper.make_node("ReduceSum", ["cube"], ["y"], keepdims=0),
]


def test_first_and_second_order() -> None:
    nodes = [*CUBE, gradient(["x"], ["d"], xs=["x"], y="y"), gradient(["x"], ["dd"], xs=["x"], y="d")]
    y, d, dd = run(nodes, {"x": X}, ["y", "d", "dd"])
    np.testing.assert_allclose(y, 36)
    np.testing.assert_allclose(d, 3 * X**2)
    np.testing.assert_allclose(dd, 6 * X)


def test_at_another_value_and_by_a_value_inside() -> None:
    nodes = [
        *CUBE,
        gradient(["at"], ["d"], xs=["x"], y="y"),
        gradient(["square", "x"], ["g"], xs=["square"], zs=["x"], y="y"),
    ]
    d, g = run(nodes, {"x": X, "at": 2 * X}, ["d", "g"])
    np.testing.assert_allclose(d, 12 * X**2)
    np.testing.assert_allclose(g, X)


def test_by_an_initializer() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Softmax", ["h"], ["p"]),
        helper.make_node("Mul", ["p", "p"], ["y"]),
        gradient(["x", "w"], ["dx", "dw"], xs=["x", "w"], y="y"),
    ]
    dx, dw = run(nodes, {"x": X[None]}, ["dx", "dw"], initializers={"w": W})

    def loss(x, w):
        e = np.exp(x @ w)
        return ((e / e.sum()) ** 2).sum()

    x, w, step = X.astype(float), W.astype(float), 1e-6
    for at in range(3):
        e = np.eye(3)[at] * step
        np.testing.assert_allclose(dx[0, at], (loss(x + e, w) - loss(x - e, w)) / (2 * step), atol=1e-5)
        e = np.outer(np.eye(3)[at], [1, 0]) * step
        np.testing.assert_allclose(dw[at, 0], (loss(x, w + e) - loss(x, w - e)) / (2 * step), atol=1e-5)


@pytest.mark.parametrize(
    ("attrs", "wrong"),
    [
        ({"xs": ["other"], "y": "y"}, "does not depend"),
        ({"xs": ["nothing"], "y": "y"}, "nothing defines 'nothing'"),
        ({"xs": ["x", "other"], "y": "y"}, "1 inputs for 2 xs"),
    ],
)
def test_what_cannot_be_differentiated_is_named(attrs, wrong) -> None:
    with pytest.raises(InvalidGraphError, match=f"Gradient-1.*{wrong}"):
        run([*CUBE, gradient(["other"], ["d"], **attrs)], {"x": X, "other": X}, ["d"])


RATE, STATE = np.float32(0.1), {"norm_coefficient": 0.01}
G, V, H = (np.array(v, np.float32) for v in ([0.5, -1, 2], [0.1, 0.2, -0.3], [0.3, 0.4, 0.5]))


def optimizer(op_type, count, values, n_out, **attrs):
    return run_node(op_type, [RATE, np.array(count, np.int64), *values], opset=1, domain=TRAINING, n_out=n_out, **attrs)


@pytest.mark.parametrize("count", [0, 3])
def test_adagrad(count) -> None:
    x, h = optimizer("Adagrad", count, [X, G, H], 2, decay_factor=0.1, epsilon=1e-3, **STATE)
    g = 0.01 * X + G
    np.testing.assert_allclose(h, H + g * g, rtol=1e-6)
    np.testing.assert_allclose(x, X - RATE / (1 + count * 0.1) * g / (np.sqrt(h) + 1e-3), rtol=1e-6)


@pytest.mark.parametrize("count", [0, 3])
@pytest.mark.parametrize("mode", ["standard", "nesterov"])
def test_momentum_of_two_tensors(count, mode) -> None:
    x, x2, v, v2 = optimizer(
        "Momentum", count, [X, W, G, W, V, 0 * W], 4, alpha=0.9, beta=0.5, mode=mode, norm_coefficient=0.01
    )
    for found, new, (a, b, c) in ((x, v, (X, G, V)), (x2, v2, (W, W, 0 * W))):
        g = 0.01 * a + b
        m = 0.9 * c + (0.5 if count else 1.0) * g
        np.testing.assert_allclose(new, m, rtol=1e-6)
        np.testing.assert_allclose(found, a - RATE * (g + 0.9 * m if mode == "nesterov" else m), rtol=1e-6)


@pytest.mark.parametrize("count", [0, 3])
def test_adam(count) -> None:
    x, v, h = optimizer("Adam", count, [X, G, V, H], 3, alpha=0.8, beta=0.95, norm_coefficient_post=0.1, **STATE)
    g = 0.01 * X + G
    np.testing.assert_allclose(v, 0.8 * V + 0.2 * g, rtol=1e-6)
    np.testing.assert_allclose(h, 0.95 * H + 0.05 * g * g, rtol=1e-5)
    rate = RATE * np.sqrt(1 - 0.95**count) / (1 - 0.8**count) if count else RATE
    np.testing.assert_allclose(x, 0.9 * (X - rate * v / (np.sqrt(h) + 1e-6)), rtol=1e-5)
