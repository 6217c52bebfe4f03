"""Changes of shape in place, and draws in place."""

import numpy as np
import pytest

import onnxgrad as og
from onnxgrad.errors import AutogradError, OpError, TraceError


def test_shapes_change_in_place():
    x = og.arange(6.0).reshape(2, 3)
    same = x
    assert x.unsqueeze_(0).squeeze_(0).t_() is x
    assert x.shape == (3, 2) and same._version == 3 and x.tolist() == [[0, 3], [1, 4], [2, 5]]
    assert x.transpose_(0, 1).swapaxes_(0, 1).swapdims_(0, 1).shape == (2, 3)
    assert x.squeeze_().shape == (2, 3) and og.ones(1, 2, 1).squeeze_().shape == (2,)


def test_gradients_flow_through_changes_of_shape():
    x = og.arange(6.0, dtype=og.float64).reshape(2, 3).requires_grad_()
    y = x * 2
    y.t_().unsqueeze_(0)
    (y * og.arange(6.0, dtype=og.float64).reshape(1, 3, 2)).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), 2 * np.arange(6.0).reshape(3, 2).T)


def test_resize():
    x = og.tensor([[1, 2], [3, 4]])
    assert x.resize_(4).tolist() == [1, 2, 3, 4] and x.resize_(2, 1).tolist() == [[1], [2]]
    assert x.resize_(3, 3).shape == (3, 3) and x.reshape(-1)[:2].tolist() == [1, 2]


def test_detach_in_place():
    x = og.ones(2, requires_grad=True)
    y = x * 2
    assert y.detach_() is y and y.is_leaf and not y.requires_grad


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: og.ones(2, requires_grad=True).unsqueeze_(0), AutogradError, "leaf Variable that requires grad"),
        (lambda: og.ones(2, requires_grad=True).resize_(3), AutogradError, "cannot resize variables"),
        (lambda: og.compile(lambda x: (x * 1).t_())(og.ones(2, 2)), TraceError, r"use t\(\)"),
        (lambda: og.ones(2).exponential_(-1), OpError, "lambda > 0.0, but found lambda=-1"),
        (lambda: og.ones(2).geometric_(1.5), OpError, "p=1.5"),
        (lambda: og.ones(2).cauchy_(0, 0), OpError, "sigma=0"),
        (lambda: og.ones(2).log_normal_(0, -1), OpError, "std=-1"),
    ],
)
def test_wrong_use(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize(
    ("draw", "median"),
    [
        (lambda t, g: t.exponential_(2.0, generator=g), np.log(2) / 2),
        (lambda t, g: t.geometric_(0.2, generator=g), 4),
        (lambda t, g: t.cauchy_(1.0, 2.0, generator=g), 1),
        (lambda t, g: t.log_normal_(0.5, 1.0, generator=g), np.exp(0.5)),
    ],
)
def test_draws(draw, median):
    t = og.empty(20001, dtype=og.float64)
    assert draw(t, og.Generator(0)) is t
    assert np.median(t.numpy()) == pytest.approx(median, rel=0.05, abs=0.06)


def test_in_place_names():
    x = og.tensor([1.0, 2.0, 3.0])
    assert x.gt_(1.5).tolist() == [0, 1, 1] and x.multiply_(4).negative_().tolist() == [0, -4, -4]
    assert x.put_(og.tensor([0]), og.tensor([9.0])).tolist() == [9, -4, -4]
    assert x.apply_(lambda v: v + 1).tolist() == [10, -3, -3]
    assert og.zeros(4, 2).fill_diagonal_(1, wrap=True).tolist() == [[1, 0], [0, 1], [0, 0], [1, 0]]
