"""Dropout: how often, how much, in which mode, from which seed, and whole channels."""

import numpy as np
import pytest

import onnxgrad as og
import onnxgrad.nn.functional as F
from onnxgrad import nn

from .layers import same_error

LAYERS = ("Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "AlphaDropout", "FeatureAlphaDropout")
SHAPES = {"Dropout1d": (40, 50, 4), "Dropout2d": (40, 50, 2, 3), "Dropout3d": (40, 50, 2, 2, 2)}
FLOOR = -1.7580993408473766


@pytest.mark.oracle
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("args", [(), (0.2,), (0.3, True)])
def test_they_print_as_pytorchs(name, args):
    import torch

    assert repr(getattr(nn, name)(*args)) == repr(getattr(torch.nn, name)(*args))


@pytest.mark.parametrize("dtype", [og.float32, og.float64])
@pytest.mark.parametrize("name", LAYERS)
def test_evaluation_changes_nothing(name, dtype):
    x = og.randn(*SHAPES.get(name, (4, 3))).to(dtype)
    assert getattr(nn, name)(0.5).eval()(x) is x and getattr(nn, name)(0.0)(x) is x
    assert getattr(nn, name)(0.5, inplace=True).eval()(x) is x and x._version == 0


@pytest.mark.parametrize("name", LAYERS)
def test_seeds_decide(name):
    x, m = og.randn(*SHAPES.get(name, (40, 50))), getattr(nn, name)(0.4)
    og.manual_seed(3)
    first, second = m(x), m(x)
    og.manual_seed(3)
    assert og.equal(m(x), first) and not og.equal(first, second)


@pytest.mark.parametrize("dtype", [og.float32, og.float64])
@pytest.mark.parametrize("p", [0.25, 0.8])
@pytest.mark.parametrize("name", ["Dropout", "Dropout1d", "Dropout2d", "Dropout3d"])
def test_elements_are_dropped_and_the_others_scaled(name, p, dtype):
    og.manual_seed(1)
    x = og.ones(*SHAPES.get(name, (200, 50)), dtype=dtype, requires_grad=True)
    y = getattr(nn, name)(p)(x)
    assert y.dtype == dtype
    values = y.detach().numpy().reshape(*y.shape[:2], -1)
    assert set(np.unique(values)) == {0.0, np.dtype(dtype).type(1 / (1 - p))}
    whole = values.min(-1) == values.max(-1)
    assert whole.all()
    assert (values == 0).mean() == pytest.approx(p, abs=0.03)
    y.sum().backward()
    assert og.equal(x.grad, y.detach())


@pytest.mark.parametrize("name", ["Dropout1d", "Dropout3d"])
def test_channels_without_a_batch_axis(name):
    og.manual_seed(1)
    y = getattr(nn, name)(0.5)(og.ones(*SHAPES[name][1:])).numpy().reshape(50, -1)
    assert (y.min(-1) == y.max(-1)).all() and 10 < (y.max(-1) == 0).sum() < 40


@pytest.mark.parametrize("dtype", [og.float32, og.float64])
@pytest.mark.parametrize("name", ["AlphaDropout", "FeatureAlphaDropout"])
def test_alpha_dropout_keeps_mean_and_variance(name, dtype):
    og.manual_seed(0)
    p = 0.3
    x = og.randn(300, 400, 2).to(dtype).requires_grad_()
    y = getattr(nn, name)(p)(x)
    assert (
        y.dtype == dtype
        and y.mean().item() == pytest.approx(0, abs=0.02)
        and y.var().item() == pytest.approx(1, abs=0.03)
    )
    scale = ((FLOOR**2 * p + 1) * (1 - p)) ** -0.5
    low = scale * FLOOR * (1 - p)
    values = y.detach().numpy()
    dropped = np.isclose(values, low, atol=1e-6)
    assert dropped.mean() == pytest.approx(p, abs=0.01)
    kept = x.detach().numpy()[~dropped] * scale - scale * FLOOR * p
    np.testing.assert_allclose(values[~dropped], kept, rtol=1e-4, atol=1e-5)
    assert (dropped.all(-1) == dropped.any(-1)).all() == (name == "FeatureAlphaDropout")
    y.sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), np.where(dropped, 0, scale), rtol=1e-6)


@pytest.mark.oracle
@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_alpha_dropout_has_pytorchs_values(p):
    import torch

    x = np.ones((50, 40), np.float32)
    for name in ("alpha_dropout", "feature_alpha_dropout"):
        ours = np.unique(getattr(F, name)(og.tensor(x), p, True).numpy())
        theirs = np.unique(getattr(torch.nn.functional, name)(torch.tensor(x), p, True).numpy())
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)


@pytest.mark.parametrize("name", ["dropout", "dropout1d", "dropout3d", "alpha_dropout", "feature_alpha_dropout"])
def test_everything_may_be_dropped(name):
    x = og.randn(2, 3, 4, 5)[: 2 if name != "dropout1d" else 1].squeeze(0)
    assert not getattr(F, name)(x, 1.0, True).any()


def test_in_place():
    og.manual_seed(2)
    x = og.ones(100, requires_grad=True)
    y = x * 1
    assert F.dropout(y, 0.5, inplace=True) is y and 20 < (y == 0).sum().item() < 80
    y.sum().backward()
    assert og.equal(x.grad, y.detach())
    z = og.ones(4, 10, 3)
    assert nn.Dropout1d(0.5, inplace=True)(z) is z and (z == 0).any()


def test_compiled_it_is_drawn_anew():
    f = og.compile(lambda x: F.dropout2d(x, 0.5))
    x = og.ones(4, 16, 2, 2)
    first, second = f(x), f(x)
    assert not og.equal(first, second) and set(np.unique(first.numpy())) == {0.0, 2.0}


def test_ranks_that_pytorch_warns_of():
    for f, shape in [(F.dropout2d, (3, 4)), (F.dropout3d, (3, 4, 5)), (F.dropout2d, (3, 4, 5))]:
        with pytest.warns(UserWarning, match=f.__name__):
            assert f(og.ones(*shape)).shape == shape


WRONG = [
    lambda lib: lib.nn.Dropout(2),
    lambda lib: lib.nn.AlphaDropout(-0.1),
    lambda lib: lib.nn.functional.dropout(lib.zeros(3), 1.5),
    lambda lib: lib.nn.functional.alpha_dropout(lib.zeros(3), 2.0, True),
    lambda lib: lib.nn.Dropout1d()(lib.zeros(3)),
    lambda lib: lib.nn.FeatureAlphaDropout()(lib.zeros(3)),
]


@pytest.mark.oracle
@pytest.mark.parametrize("call", WRONG)
def test_wrong_use_is_reported_as_pytorch_does(call):
    same_error(call)
