"""Operators of training graphs: each against the gradient of its op, and whole training steps."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnxgrad.importers.onnx.model import load_bytes
from onnxgrad.ops import normalize as norm, pointwise as pw
from onnxgrad.ops.loss import softmax_cross_entropy
from onnxgrad.runtime.autograd import tape
from onnxgrad.runtime.tensor.tensor import Tensor

from .one_node import run_node

RNG = np.random.default_rng(2)
MICROSOFT = {"domain": "com.microsoft", "opset": 1, "out_types": [1]}


def rand(*shape: int) -> np.ndarray:
    return RNG.uniform(-2, 2, shape).astype(np.float32)


def gradients(f, g: np.ndarray, *args: np.ndarray) -> list[np.ndarray]:
    ts = [Tensor(a, requires_grad=True) for a in args]
    return [t.array for t in tape.grad(f(*ts), ts, Tensor(g))]


X, G = rand(2, 3, 4), rand(2, 3, 4)


@pytest.mark.parametrize(
    ("op_type", "f", "reads_y", "attrs"),
    [
        ("ReluGrad", pw.relu, True, {}),
        ("GeluGrad", pw.gelu, False, {}),
        ("FastGeluGrad", pw.gelu_tanh, False, {}),
        ("SoftmaxGrad", lambda x: norm.softmax(x, axis=2), True, {"axis": 2}),
        ("SoftmaxGrad_13", lambda x: norm.softmax(x, axis=1), True, {"axis": 1}),
        ("LogSoftmaxGrad_13", lambda x: norm.log_softmax(x, axis=-1), True, {}),
    ],
)
def test_of_one_input(op_type, f, reads_y, attrs) -> None:
    (found,) = run_node(op_type, [G, f(X) if reads_y else X], **MICROSOFT, **attrs)
    np.testing.assert_allclose(found, gradients(f, G, X)[0], rtol=1e-5, atol=1e-6)


def test_of_softmax_as_it_was() -> None:
    def flat(x):
        return norm.softmax(x.reshape(2, 12), axis=1).reshape(2, 3, 4)

    (found,) = run_node("SoftmaxGrad", [G, flat(X)], **MICROSOFT)
    wanted = gradients(lambda x: norm.softmax(x, axis=1), G.reshape(2, 12), X.reshape(2, 12))[0]
    np.testing.assert_allclose(found, wanted.reshape(2, 3, 4), rtol=1e-5, atol=1e-6)


def test_of_layer_norm() -> None:
    scale, bias = rand(4), rand(4)
    wanted = gradients(lambda *a: norm.layer_norm(*a, axis=2, epsilon=1e-5), G, X, scale, bias)
    mean, r = (np.asarray(v) for v in norm.moments(X, axes=(2,), epsilon=1e-5))
    given = run_node("LayerNormalizationGrad", [G, X, scale, mean, r], **(MICROSOFT | {"out_types": [1] * 3}), n_out=3)
    for f, w in zip(given, wanted, strict=True):
        np.testing.assert_allclose(f, w, rtol=1e-4, atol=1e-5)
    (dx,) = run_node("LayerNormalizationGrad", [G, X, scale, bias], **MICROSOFT)
    np.testing.assert_allclose(dx, wanted[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("ignore", [None, 2])
@pytest.mark.parametrize("weights", [None, np.array([0.5, 1, 2, 3], np.float32)])
def test_of_cross_entropy(reduction, ignore, weights) -> None:
    x, labels = rand(5, 4), np.array([0, 2, 1, 3, 2])
    how = {"reduction": reduction, "ignore_index": ignore}
    g = np.array(1.5, np.float32)
    (wanted,) = gradients(lambda v: softmax_cross_entropy(v, labels, weights, **how), g, x)
    inputs = [g, norm.log_softmax(x, axis=1), labels, *([] if weights is None else [weights])]
    attrs = {k: v for k, v in how.items() if v is not None}
    (found,) = run_node("SoftmaxCrossEntropyLossGrad", inputs, **MICROSOFT, **attrs)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)


def test_accumulation() -> None:
    for overwrite, wanted in ((True, G), (False, X + G)):
        how = MICROSOFT | {"out_types": [9, 1]}
        flag, total = run_node("InPlaceAccumulatorV2", [X, G, np.array([overwrite])], **how, n_out=2)
        assert flag.tolist() == [True]
        np.testing.assert_allclose(total, wanted)


@pytest.mark.parametrize("name", ["cct2-ft1-train-deeploy", "cct2-lora1-train-deeploy"])
def test_a_whole_training_step(name, shared) -> None:
    folder = shared / "models" / name
    model = onnx.load(folder / "model.onnx")
    for node in model.graph.node:
        if node.op_type == "GeluGrad":
            # the file hands it what stands before a bias that Gelu itself got; the reference steps did not
            node.input[1] += "_add_bias"
    feeds, wanted = np.load(folder / "supplied/inputs.npz"), np.load(folder / "supplied/outputs.npz")
    found = load_bytes(model.SerializeToString()).run({k: feeds[k] for k in feeds})
    for output, value in zip(model.graph.output, found, strict=True):
        np.testing.assert_allclose(value, wanted[output.name], rtol=0, atol=1e-7)
