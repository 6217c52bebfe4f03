"""Support vector machines of ai.onnx.ml against onnxruntime."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

from onnxgrad.importers.onnx.model import load_bytes
from onnxgrad.ops.errors import UnsupportedError
from onnxgrad.runtime.tensor.tensor import Tensor

from .both import agree, model

ML = "ai.onnx.ml"
RNG = np.random.default_rng(0)
X = RNG.standard_normal((40, 3)).astype(np.float32)
KERNELS = ["LINEAR", "POLY", "RBF", "SIGMOID"]
PARAMS = [0.5, 0.25, 3.0]


def build(op, x, n_out=1, **attrs):
    node = helper.make_node(op, ["x"], [f"y{i}" for i in range(n_out)], domain=ML, **attrs)
    return model([node], {"x": x}, [f"y{i}" for i in range(n_out)], opset=17, domains=[(ML, 1)])


def check(op, x=X, tol=2e-5, **how):
    return agree(build(op, x, **how), {"x": x}, tol=tol)


def drawn(*shape, seed=1):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def classifier(counts, *, labels=None, proba=False, kernel="RBF", **more):
    classes, vectors = len(counts), sum(counts)
    pairs = classes * (classes - 1) // 2
    attrs = {
        "coefficients": drawn(classes - 1, vectors).ravel().tolist(),
        "support_vectors": drawn(vectors, 3).ravel().tolist(),
        "vectors_per_class": counts,
        "rho": drawn(pairs).tolist(),
        "kernel_type": kernel,
        "kernel_params": PARAMS,
    }
    if proba:
        attrs |= {"prob_a": (-np.abs(drawn(pairs)) - 0.5).tolist(), "prob_b": drawn(pairs, seed=2).tolist()}
    names = {"classlabels_ints": list(range(3, 3 + classes))} if labels is None else {"classlabels_strings": labels}
    return attrs | names | more | {"n_out": 2}


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("one_class", [0, 1])
def test_regressor(kernel, one_class):
    check(
        "SVMRegressor",
        coefficients=drawn(5).tolist(),
        support_vectors=drawn(5, 3).ravel().tolist(),
        n_supports=5,
        rho=[0.3],
        kernel_type=kernel,
        kernel_params=PARAMS,
        one_class=one_class,
    )


def test_regressor_without_vectors():
    check("SVMRegressor", coefficients=[0.5, -1.0, 2.0], rho=[0.25], n_supports=0, kernel_params=PARAMS)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("counts", [[3, 4], [2, 3, 4], [1, 2, 3, 4]])
@pytest.mark.parametrize("proba", [False, True])
def test_classifier(kernel, counts, proba):
    check("SVMClassifier", tol=1e-4, **classifier(counts, kernel=kernel, proba=proba))


@pytest.mark.parametrize("how", ["NONE", "LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO"])
@pytest.mark.parametrize(("counts", "proba"), [([3, 4], False), ([2, 3, 4], False), ([2, 3, 4], True)])
def test_transforms(how, counts, proba):
    check("SVMClassifier", tol=1e-4, **classifier(counts, proba=proba, post_transform=how))


def test_text_labels():
    check("SVMClassifier", **classifier([2, 3, 4], labels=["cat", "dog", "eel"]))


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_whole_numbers(dtype):
    check("SVMClassifier", np.array([[1, 2, 0], [0, -1, 3]], dtype), **classifier([3, 4]))


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("positive", [False, True])
def test_classifier_without_vectors(classes, positive):
    weights = drawn(classes, 3)
    check(
        "SVMClassifier",
        coefficients=(np.abs(weights) if positive else weights).ravel().tolist(),
        rho=[0.1],
        kernel_params=PARAMS,
        classlabels_ints=list(range(classes)),
        n_out=2,
    )


def test_distances_of_large_features_keep_their_digits():
    x = (X * 100 + 5000).astype(np.float32)
    attrs = classifier([3, 4], kernel="RBF") | {"kernel_params": [1e-5, 0.0, 0.0]}
    attrs["support_vectors"] = (drawn(7, 3) * 100 + 5000).ravel().tolist()
    check("SVMClassifier", x, **attrs)


@pytest.mark.parametrize("kernel", KERNELS)
def test_gradient(kernel):
    attrs = classifier([2, 3, 2], kernel=kernel)
    loaded = load_bytes(build("SVMClassifier", X, **attrs).SerializeToString())
    x, towards, step = Tensor(X, requires_grad=True), drawn(*X.shape, seed=3), np.float32(1e-2)
    loaded(x)[1].sum().backward()
    ends = [loaded(X + side * step * towards)[1].numpy().astype(float) for side in (1, -1)]
    slope = (ends[0] - ends[1]).sum(axis=1) / (2 * step)
    np.testing.assert_allclose((x.grad.numpy() * towards).sum(axis=1), slope, rtol=2e-2, atol=2e-2)


def test_too_few_numbers_are_refused():
    attrs = classifier([2, 3, 2]) | {"rho": [0.5]}
    with pytest.raises(UnsupportedError, match="rho"):
        load_bytes(build("SVMClassifier", X, **attrs).SerializeToString())
