"""Functions of Tensors beside their methods."""

import numpy as np
import pytest

import onnxgrad as og
from onnxgrad.errors import AutogradError, ShapeError

X = np.random.default_rng(0).normal(size=(4, 6))


@pytest.mark.parametrize("spacing", [1.0, 0.5, [2.0, 3.0]])
def test_gradient_at_even_distances(spacing):
    gaps = spacing if isinstance(spacing, list) else [spacing]
    for found, wanted in zip(og.gradient(og.tensor(X), spacing=spacing), np.gradient(X, *gaps), strict=True):
        np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-12)


def test_gradient_at_places():
    rows, columns = np.array([0.0, 1, 3, 4.5]), np.cumsum(np.arange(1.0, 7))
    found = og.gradient(og.tensor(X), spacing=[og.tensor(rows), og.tensor(columns)])
    for f, wanted in zip(found, np.gradient(X, rows, columns), strict=True):
        np.testing.assert_allclose(f.numpy(), wanted, rtol=1e-12)
    with pytest.raises(ShapeError, match="1 spacings for 2 axes"):
        og.gradient(og.tensor(X), spacing=[1.0])
    with pytest.raises(ShapeError, match=r"\[3\] places for an axis of 4"):
        og.gradient(og.tensor(X), spacing=[og.ones(3), og.ones(6)])


@pytest.mark.parametrize("correction", [0, 1])
def test_covariances_with_weights(correction):
    f, a = np.array([1, 2, 1, 3, 1, 1]), np.array([0.5, 1, 2, 1, 0.1, 1])
    for weights in ({"fweights": f}, {"aweights": a}, {"fweights": f, "aweights": a}, {}):
        found = og.cov(og.tensor(X), correction=correction, **{k: og.tensor(w) for k, w in weights.items()})
        np.testing.assert_allclose(found.numpy(), np.cov(X, ddof=correction, **weights), rtol=1e-10)
    assert og.tensor(X).cov().shape == (4, 4) and og.corrcoef(og.tensor([[1, 2, 3], [3, 1, 2]])).shape == (2, 2)


def test_functions_of_layers_are_in_the_root():
    x = og.ones(1, 2, 4)
    assert og.cosine_similarity(x, x).shape == (1, 4) and og.conv1d(x, og.ones(1, 2, 2)).shape == (1, 1, 3)
    assert og.dropout(x, 0.5, False).equal(x) and og.selu(x) is not None


def test_asarray_keeps_the_past_unless_told():
    t = og.ones(3, requires_grad=True) + 2
    assert og.asarray(t).grad_fn is not None and og.asarray(t, requires_grad=False).grad_fn is None
    assert og.asarray(np.ones(2)).requires_grad is False and og.asarray([1.0], requires_grad=True).is_leaf


def test_counting_methods():
    x = og.tensor([1, 1, 3])
    assert x.bincount().tolist() == [0, 2, 0, 1] and x.float().histc(2, 0, 4).tolist() == [2, 1]
    assert og.repeat_interleave(og.tensor([1, 2])).tolist() == [0, 1, 1]
    assert x.float().histogram(2)[0].tolist() == [2, 1] and og.qr(og.ones(3, 2), some=False)[0].shape == (3, 3)


def test_checkpoints_of_a_chain():
    net = og.nn.Sequential(og.nn.Linear(3, 3), og.nn.Tanh(), og.nn.Linear(3, 3), og.nn.Tanh(), og.nn.Linear(3, 1))
    x = og.randn(2, 3, requires_grad=True)
    (wanted,) = og.autograd.grad(net(x).sum(), x)
    for segments in (1, 2, 5):
        y = og.utils.checkpoint.checkpoint_sequential(net, segments, x, use_reentrant=False)
        (found,) = og.autograd.grad(y.sum(), x)
        np.testing.assert_allclose(found.numpy(), wanted.numpy(), rtol=1e-6)
    with pytest.raises(AutogradError, match="6 segments of 5 functions"):
        og.utils.checkpoint.checkpoint_sequential(net, 6, x)
