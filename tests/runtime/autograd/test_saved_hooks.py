"""Hooks on what nodes keep for backward."""

import numpy as np
import pytest

import onnxgrad as og
from onnxgrad.autograd.graph import Node, disable_saved_tensors_hooks, save_on_cpu, saved_tensors_hooks
from onnxgrad.errors import AutogradError


def gradients(x, w, **hooks):
    a, b = x.clone().requires_grad_(), w.clone().requires_grad_()
    if hooks:
        with saved_tensors_hooks(**hooks):
            y = ((a @ b).tanh() * a.sum()).exp().sum()
    else:
        y = ((a @ b).tanh() * a.sum()).exp().sum()
    return og.autograd.grad(y, (a, b), create_graph=True)


def test_what_is_unpacked_stands_for_what_was_kept():
    x, w = og.randn(2, 3, dtype=og.float64), og.randn(3, 2, dtype=og.float64)
    shelf, unpacked = {}, []

    def pack(t):
        shelf[len(shelf)] = t.detach().numpy().copy()
        return len(shelf) - 1

    def unpack(key):
        unpacked.append(key)
        return og.tensor(shelf[key])

    for found, wanted in zip(gradients(x, w, pack_hook=pack, unpack_hook=unpack), gradients(x, w), strict=True):
        np.testing.assert_allclose(found.detach().numpy(), wanted.detach().numpy(), rtol=1e-12)
        assert found.requires_grad
    assert len(shelf) >= 4 and set(unpacked) == set(shelf)


def test_second_derivatives_flow_through_what_was_unpacked():
    x = og.tensor([2.0], dtype=og.float64, requires_grad=True)
    with saved_tensors_hooks(lambda t: t.detach().numpy().copy(), og.tensor):
        y = x**3 + x.exp()
    (g,) = og.autograd.grad(y, x, create_graph=True)
    (second,) = og.autograd.grad(g, x)
    assert second.item() == pytest.approx(12 + np.exp(2))


def test_each_is_unpacked_once_and_inner_hooks_count():
    seen = []
    a, b = og.ones(5, requires_grad=True), og.ones(5, requires_grad=True) * 2
    with saved_tensors_hooks(lambda t: seen.append("outer"), lambda t: t):  # noqa: SIM117 - one in the other
        with saved_tensors_hooks(lambda t: seen.append("pack") or t, lambda t: seen.append("unpack") or t):
            y = a * b
    y.sum().backward()
    assert seen == ["pack"] * 2 + ["unpack"] * 2
    np.testing.assert_array_equal(a.grad.numpy(), np.full(5, 2))


def test_save_on_cpu():
    layer = og.nn.Linear(3, 2)
    with save_on_cpu(pin_memory=True):
        layer(og.ones(2, 3)).tanh().sum().backward()
    assert layer.weight.grad.shape == (2, 3)


def spoil(t):
    t += 1
    return t


@pytest.mark.parametrize(
    ("pack", "unpack", "error", "message"),
    [
        (lambda t: t, lambda t: 1, TypeError, "expected to be a Tensor but got int"),
        (lambda t: t, lambda t: og.ones(7), AutogradError, r"float32\[7\] for a saved tensor of float32\[3\]"),
        (spoil, lambda t: t, AutogradError, "modifying its input in place"),
    ],
)
def test_hooks_that_do_wrong(pack, unpack, error, message):
    x = og.ones(3).requires_grad_()
    with pytest.raises(error, match=message):
        with saved_tensors_hooks(pack, unpack):
            y = (x * 2).exp()
        y.sum().backward()


def test_hooks_may_be_forbidden():
    with disable_saved_tensors_hooks("not here"), pytest.raises(AutogradError, match="not here"):
        saved_tensors_hooks(lambda t: t, lambda t: t).__enter__()
    with saved_tensors_hooks(lambda t: t, lambda t: t):
        pass


def test_what_a_node_keeps_has_pytorchs_names():
    x = og.ones(3, requires_grad=True)
    y = x.pow(3)
    assert isinstance(y.grad_fn, Node) and y.grad_fn._saved_self is x
    e = x.exp()
    assert e.grad_fn._saved_result.equal(e)
    with pytest.raises(AttributeError, match="keeps nothing by the name '_saved_self'"):
        _ = (x + 1).grad_fn._saved_self
    with pytest.raises(AttributeError, match="no attribute 'nope'"):
        _ = y.grad_fn.nope
    y.sum().backward()
    with pytest.raises(AutogradError, match="already been freed"):
        _ = y.grad_fn._saved_self
