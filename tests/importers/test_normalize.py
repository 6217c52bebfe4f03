"""Normalisation, dropout and losses against onnxruntime, each bound version that it takes."""

from __future__ import annotations

import numpy as np
import pytest

from .one_node import run_node
from .test_reduce import agree

RNG = np.random.default_rng(1)


def rand(*shape: int, low: float = -2, high: float = 2) -> np.ndarray:
    return RNG.uniform(low, high, shape).astype(np.float32)


X = rand(2, 3, 4, 5)
CHANNELS = [rand(3), rand(3), rand(3), rand(3, low=0.5)]
MICROSOFT = {"domain": "com.microsoft", "opset": 1}


@pytest.mark.parametrize("op_type", ["Softmax", "LogSoftmax", "Hardmax"])
@pytest.mark.parametrize(("version", "axes"), [(7, (None, 0, 2, 3)), (11, (None, 1, -1, -2)), (13, (None, 0, 1, -1))])
def test_softmax_and_what_its_axis_meant(op_type, version, axes) -> None:
    for axis in axes:
        agree(op_type, [X], opset=version, **({} if axis is None else {"axis": axis}))
    agree(op_type, [rand(2, 5, 1, 1)], opset=7)


@pytest.mark.parametrize("version", [7, 9, 14, 15])
def test_batch_norm(version) -> None:
    agree("BatchNormalization", [X, *CHANNELS], opset=version, epsilon=0.01)
    agree("BatchNormalization", [rand(4, 3), *CHANNELS], opset=version)


def test_batch_norm_that_trains() -> None:
    def reference(x, scale, bias, mean, var):
        m, v = x.mean((0, 2, 3)), x.var((0, 2, 3))
        a, b, c, d = (t[:, None, None] for t in (scale, bias, m, v))
        return a * (x - c) / np.sqrt(d + 1e-5) + b, 0.7 * mean + 0.3 * m, 0.7 * var + 0.3 * v

    for version, how in ((15, {"training_mode": 1, "n_out": 3}), (9, {"n_out": 3})):
        found = run_node("BatchNormalization", [X, *CHANNELS], opset=version, momentum=0.7, **how)
        for f, w in zip(found, reference(X, *CHANNELS), strict=True):
            np.testing.assert_allclose(f, w, rtol=1e-4, atol=1e-5)
    five = run_node("BatchNormalization", [X, *CHANNELS], opset=7, n_out=5)
    np.testing.assert_allclose(five[3], X.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(five[4], X.var((0, 2, 3)), rtol=1e-4)


def test_batch_norm_of_a_vector_and_of_each_activation() -> None:
    one = [rand(1), rand(1), rand(1), rand(1, low=0.5)]
    x = rand(6)
    (y,) = run_node("BatchNormalization", [x, *one], opset=9)
    np.testing.assert_allclose(y, one[0] * (x - one[2]) / np.sqrt(one[3] + 1e-5) + one[1], rtol=1e-5)
    each = [rand(3, 4, 5), rand(3, 4, 5), rand(3, 4, 5), rand(3, 4, 5, low=0.5)]
    agree("BatchNormalization", [X, *each], opset=7, spatial=0)


def test_instance_and_group_norm() -> None:
    for version in (7, 22):
        agree("InstanceNormalization", [X, *CHANNELS[:2]], opset=version, epsilon=0.01, tol=1e-4)
    x = rand(2, 4, 3, 3)
    agree("GroupNormalization", [x, rand(2), rand(2)], opset=18, num_groups=2, tol=1e-4)
    agree("GroupNormalization", [x, rand(4), rand(4)], opset=21, num_groups=2, tol=1e-4)


@pytest.mark.parametrize("half", [False, True])
def test_layer_norm(half) -> None:
    kind, code, tol = (np.float16, 10, 2e-3) if half else (np.float32, 1, 1e-5)
    x, scale, bias = rand(2, 3, 4).astype(kind), rand(4).astype(kind), rand(4).astype(kind)
    agree("LayerNormalization", [x, scale, bias], opset=17, out_types=[code], tol=tol)
    agree("LayerNormalization", [x, scale], opset=17, n_out=3, out_types=[code, 1, 1], tol=tol)
    agree("LayerNormalization", [x, scale, bias], opset=12, out_types=[code], tol=tol)
    agree("SimplifiedLayerNormalization", [x, scale], opset=12, out_types=[code], tol=tol)


def test_layer_norm_over_several_axes() -> None:
    agree("LayerNormalization", [rand(2, 3, 4), rand(3, 4), rand(3, 4)], opset=17, axis=1, epsilon=0.1)


def test_rms_norm() -> None:
    agree("RMSNormalization", [rand(2, 3, 4), rand(4)], opset=23)
    agree("RMSNormalization", [rand(2, 3, 4), rand(3, 4)], opset=23, axis=1, epsilon=0.1)


def test_skip_norms() -> None:
    x, skip, scale, bias, more = rand(2, 3, 8), rand(2, 3, 8), rand(8), rand(8), rand(8)
    agree("SkipLayerNormalization", [x, skip, scale, bias, more], **MICROSOFT, epsilon=1e-5, out_types=[1])
    agree("SkipLayerNormalization", [x, rand(1, 3, 8), scale], **MICROSOFT, out_types=[1])
    agree("SkipSimplifiedLayerNormalization", [x, skip, scale, more], **MICROSOFT, out_types=[1])
    named = {"n_out": 4, "out_types": [1] * 4}
    total = x + skip + more
    found = run_node("SkipLayerNormalization", [x, skip, scale, bias, more], **MICROSOFT, **named)
    np.testing.assert_allclose(found[3], total, rtol=1e-6)
    np.testing.assert_allclose(found[1][..., 0], total.mean(-1), rtol=1e-4, atol=1e-6)


def test_embed_layer_norm() -> None:
    ids, segments = RNG.integers(0, 6, (2, 3)).astype(np.int32), RNG.integers(0, 2, (2, 3)).astype(np.int32)
    tables = [rand(6, 8), rand(5, 8), rand(2, 8), rand(8), rand(8)]
    mask = np.array([[1, 1, 0], [1, 1, 1]], np.int32)
    agree("EmbedLayerNormalization", [ids, segments, *tables, mask], **MICROSOFT, n_out=2, out_types=[1, 6])
    agree(
        "EmbedLayerNormalization",
        [ids, None, *tables[:2], None, *tables[3:]],
        **MICROSOFT,
        n_out=2,
        out_types=[1, 6],
    )


@pytest.mark.parametrize("version", [7, 13])
def test_lrn(version) -> None:
    agree("LRN", [rand(2, 7, 3, 3)], opset=version, size=3, alpha=0.1, beta=0.6, bias=2.0)
    agree("LRN", [rand(2, 7, 3, 3)], opset=version, size=5)


def test_lp_norm() -> None:
    x = rand(2, 3, 4)
    for p in (1, 2):
        for axis in (1, -1):
            agree("LpNormalization", [x], opset=7, p=p, axis=axis)
            agree("LpNormalization", [x], opset=22, p=p, axis=axis)
    (zero,) = run_node("LpNormalization", [np.zeros((1, 3), np.float32)], opset=22)
    np.testing.assert_array_equal(zero, 0)


def test_mean_variance_norm() -> None:
    agree("MeanVarianceNormalization", [X], opset=9, tol=1e-4)
    agree("MeanVarianceNormalization", [X], opset=13, axes=[2, 3], tol=1e-4)


@pytest.mark.parametrize("version", [7, 10])
def test_dropout_by_attribute(version) -> None:
    agree("Dropout", [X], opset=version, ratio=0.3)


@pytest.mark.parametrize("version", [12, 13, 22])
def test_dropout_by_input(version) -> None:
    agree("Dropout", [X, np.float32(0.3)], opset=version, n_out=2, constants=[1])
    agree("Dropout", [X], opset=version, n_out=2)


LABELS = np.array([[1, 2], [0, 3]], np.int64)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("extra", [{}, {"ignore_index": 2}])
def test_losses(reduction, extra) -> None:
    x, weights = rand(2, 4, 2), rand(4, low=0.5)
    for inputs in ([x, LABELS], [x, LABELS, weights]):
        for version in (12, 13):
            agree("SoftmaxCrossEntropyLoss", inputs, opset=version, reduction=reduction, n_out=2, **extra)
            agree("SoftmaxCrossEntropyLoss", inputs, opset=version, reduction=reduction, **extra)
        for version in (12, 13, 22):
            agree("NegativeLogLikelihoodLoss", inputs, opset=version, reduction=reduction, **extra)


def test_mask_of_old_dropout_is_a_number() -> None:
    _, mask = run_node("Dropout", [X], opset=7, n_out=2)
    assert mask.dtype == np.float32 and (mask == 1).all()
