"""Normalisation, dropout and losses: extreme values, element types, and PyTorch as the oracle."""

from __future__ import annotations

import numpy as np
import pytest

from onnxgrad.ops import normalize as n
from onnxgrad.ops.dropout import dropout, dropout_train
from onnxgrad.ops.errors import DTypeError, OpError, ShapeError
from onnxgrad.ops.loss import nll_loss, softmax_cross_entropy
from onnxgrad.ops.types import type_of
from onnxgrad.runtime.autograd import tape
from onnxgrad.runtime.tensor.tensor import Tensor

from .case import rand


def gradients(f, args: list[np.ndarray], g: np.ndarray) -> list[np.ndarray]:
    ts = [Tensor(a, requires_grad=True) for a in args]
    return [v.array for v in tape.grad(f(*ts), ts, Tensor(g))]


def test_softmax_of_extreme_values() -> None:
    x = np.array([[1e30, 0.0, -1e30], [-np.inf, 0.0, 0.0], [88.0, 89.0, -500.0]], np.float32)
    y = n.softmax(x, axis=1)
    np.testing.assert_allclose(y[:2], [[1, 0, 0], [0, 0.5, 0.5]])
    np.testing.assert_allclose(y.sum(1), 1, rtol=1e-6)
    assert np.isfinite(n.log_softmax(x[2:], axis=1)).all()
    assert np.isnan(n.softmax(np.full((1, 2), -np.inf), axis=1)).all()


def test_variance_of_large_values_keeps_its_digits() -> None:
    x = np.float32(1e4) + rand(2, 256).astype(np.float32)
    wanted = (x - x.mean(1, keepdims=True, dtype=np.float64)) / x.std(1, keepdims=True, dtype=np.float64)
    np.testing.assert_allclose(n.standardize(x, axes=(1,), epsilon=0.0), wanted, atol=2e-3)


def test_statistics_may_be_wider_than_x() -> None:
    x = rand(2, 3, 4).astype(np.float16)
    wide = [rand(3, low=0.5).astype(np.float32) for _ in range(4)]
    y, mean, var = n.batch_norm_train(x, *wide, epsilon=1e-5, momentum=0.9)
    assert (y.dtype, mean.dtype, var.dtype) == (np.float16, np.float32, np.float32)
    assert n.batch_norm(x, *wide, epsilon=1e-5).dtype == np.float16


def test_each_output_of_batch_norm_has_its_own_gradient() -> None:
    args = [rand(4, 3, 2), rand(3), rand(3), rand(3), rand(3, low=0.5)]
    ts = [Tensor(a, requires_grad=True) for a in args]
    _, mean, _ = n.batch_norm_train(*ts, epsilon=1e-5, momentum=0.75)
    gx, gm = tape.grad(mean, [ts[0], ts[3]], Tensor(np.ones(3)))
    np.testing.assert_allclose(gx.array, 0.25 / 8)
    np.testing.assert_allclose(gm.array, 0.75)


def test_dropout_repeats_with_its_key() -> None:
    x = np.ones((200, 50), np.float32)
    key, other = np.array([1, 2], np.uint64), np.array([1, 3], np.uint64)
    y = dropout_train(x, key, ratio=0.25)
    np.testing.assert_array_equal(y, dropout_train(x, key, ratio=0.25))
    assert (y != dropout_train(x, other, ratio=0.25)).any()
    assert abs((y == 0).mean() - 0.25) < 0.02 and abs(y.mean() - 1) < 0.03
    np.testing.assert_array_equal(dropout_train(x, key, ratio=0.0), x)
    assert dropout(x, ratio=0.5) is x


def test_wrong_use_is_named() -> None:
    x = type_of(rand(2, 3, 4))
    with pytest.raises(OpError, match="ratio"):
        dropout.infer_types(x, ratio=1.0)
    with pytest.raises(ShapeError, match="batch_norm"):
        n.batch_norm.infer_types(x, *[type_of(rand(4))] * 4, epsilon=1e-5)
    with pytest.raises(ShapeError, match="group_norm"):
        n.group_norm.infer_types(x, *[type_of(rand(3))] * 2, groups=2, epsilon=1e-5)
    with pytest.raises(ShapeError, match="labels"):
        nll_loss.infer_types(x, type_of(np.zeros((2, 3), int)))
    with pytest.raises(DTypeError, match="nll_loss"):
        nll_loss.infer_types(x, type_of(rand(2, 4)))
    with pytest.raises(OpError, match="reduction"):
        softmax_cross_entropy.infer_types(x, type_of(np.zeros((2, 4), int)), reduction="avg")


def test_ignored_labels_may_be_no_class_and_may_meet_infinity() -> None:
    x = np.array([[0.0, -np.inf], [-1.0, -2.0]])
    labels = np.array([-100, 1])
    assert nll_loss(x, labels, ignore_index=-100) == 2.0
    (g,) = gradients(lambda v: nll_loss(v, labels, ignore_index=-100), [x], np.array(1.0))
    np.testing.assert_array_equal(g, [[0, 0], [0, -1]])


LAYERS = {
    "softmax": (lambda x: n.softmax(x, axis=1), lambda t, f, x: f.softmax(x, 1), [(2, 4, 3)]),
    "log_softmax": (lambda x: n.log_softmax(x, axis=1), lambda t, f, x: f.log_softmax(x, 1), [(2, 4, 3)]),
    "layer_norm": (
        lambda x, s, b: n.layer_norm(x, s, b, axis=2, epsilon=1e-3),
        lambda t, f, x, s, b: f.layer_norm(x, (3,), s, b, 1e-3), [(2, 4, 3), (3,), (3,)],
    ),
    "rms_norm": (
        lambda x, s: n.rms_norm(x, s, axis=2, epsilon=1e-3),
        lambda t, f, x, s: f.rms_norm(x, (3,), s, 1e-3), [(2, 4, 3), (3,)],
    ),
    "batch_norm_train": (
        lambda x, s, b: n.batch_norm_train(x, s, b, np.zeros(4), np.ones(4), epsilon=1e-3, momentum=0.9)[0],
        lambda t, f, x, s, b: f.batch_norm(x, None, None, s, b, True, 0.1, 1e-3), [(2, 4, 3), (4,), (4,)],
    ),
    "instance_norm": (
        lambda x, s, b: n.instance_norm(x, s, b, epsilon=1e-3),
        lambda t, f, x, s, b: f.instance_norm(x, None, None, s, b, eps=1e-3), [(2, 4, 3), (4,), (4,)],
    ),
    "group_norm": (
        lambda x, s, b: n.group_norm(x, s, b, groups=2, epsilon=1e-3),
        lambda t, f, x, s, b: f.group_norm(x, 2, s, b, 1e-3), [(2, 4, 3), (4,), (4,)],
    ),
    "lrn": (
        lambda x: n.lrn(x, size=3, alpha=0.3, beta=0.75, bias=1.5),
        lambda t, f, x: f.local_response_norm(x, 3, 0.3, 0.75, 1.5), [(2, 4, 3)],
    ),
    "cross_entropy": (
        lambda x, w: softmax_cross_entropy(x, np.array([[0, 1, 2], [3, 2, 2]]), w, ignore_index=2),
        lambda t, f, x, w: f.cross_entropy(x, t.tensor([[0, 1, 2], [3, 2, 2]]), w.detach(), ignore_index=2),
        [(2, 4, 3), (4,)],
    ),
}  # fmt: skip


@pytest.mark.oracle
@pytest.mark.parametrize("name", LAYERS)
def test_torch_agrees(name) -> None:
    torch = pytest.importorskip("torch")
    ours, theirs, shapes = LAYERS[name]
    args = [rand(*s, seed=i, low=0.5 if s == (4,) else -2.0) for i, s in enumerate(shapes)]
    ts = [torch.tensor(a, requires_grad=True) for a in args]
    wanted = theirs(torch, torch.nn.functional, *ts)
    np.testing.assert_allclose(ours(*args), wanted.detach().numpy(), rtol=1e-9, atol=1e-12)
    g = rand(*wanted.shape, seed=9)
    grads = torch.autograd.grad(wanted, ts, torch.tensor(g), allow_unused=True)
    for found, w in zip(gradients(ours, args, g), grads, strict=True):
        if w is not None:
            np.testing.assert_allclose(found, w.numpy(), rtol=1e-8, atol=1e-10)
