"""Hooks of Tensors and of the nodes of the tape: what they see, what they may replace, what they may not."""

import gc
import weakref

import numpy as np
import pytest

import onnxgrad as og
from onnxgrad.ops.errors import AutogradError


def leaf(*values):
    return og.tensor(list(values), requires_grad=True)


@pytest.mark.parametrize("computed", [False, True])
def test_a_hook_sees_the_gradient_and_may_replace_it(computed):
    w = leaf(1.0, 2.0)
    x = w * 3 if computed else w
    seen = []
    handle = x.register_hook(lambda g: seen.append(g.tolist()))
    double = x.register_hook(lambda g: g * 2)
    (x * og.tensor([5.0, 7.0])).sum().backward(retain_graph=True)
    factor = 3 if computed else 1
    assert seen == [[5.0, 7.0]] and w.grad.tolist() == [10.0 * factor, 14.0 * factor]
    handle.remove()
    handle.remove()
    with double:
        pass
    w.grad = None
    (x * og.tensor([5.0, 7.0])).sum().backward()
    assert len(seen) == 1 and w.grad.tolist() == [5.0 * factor, 7.0 * factor]


def test_hooks_run_in_order_and_before_the_gradient_is_retained():
    w = leaf(1.0)
    x = w * 1
    x.retain_grad()
    x.register_hook(lambda g: g + 1)
    x.register_hook(lambda g: g * 10)
    (x * 2).backward()
    assert x.grad.item() == w.grad.item() == 30.0


def test_a_hook_sees_the_sum_of_all_uses_once():
    w = leaf(2.0)
    seen = []
    w.register_hook(lambda g: seen.append(g.item()))
    (w * w + w).backward()
    assert seen == [5.0]


def test_autograd_grad_and_inputs_see_what_hooks_made():
    w = leaf(2.0)
    x = w * 3
    x.register_hook(lambda g: g * 2)
    w.register_hook(lambda g: g + 1)
    gx, gw = og.autograd.grad(x * 5, (x, w), retain_graph=True)
    assert (gx.item(), gw.item()) == (10.0, 31.0)
    (x * 5).backward(inputs=[w])
    assert w.grad.item() == 31.0


def test_hooks_are_differentiated_where_the_graph_is_created():
    w = leaf(3.0)
    x = w * w
    with x.register_hook(lambda g: g * x):
        (g,) = og.autograd.grad(x, w, create_graph=True)
    (h,) = og.autograd.grad(g, w)
    assert g.item() == 54.0 and h.item() == 54.0  # w^2 * 2w and its derivative 6 w^2


def test_after_the_gradient_is_added():
    w = leaf(1.0, 2.0)
    seen = []
    handle = w.register_post_accumulate_grad_hook(lambda p: seen.append((p is w, p.grad.tolist())))
    w.sum().backward()
    (w * 2).sum().backward()
    assert seen == [(True, [1.0, 1.0]), (True, [3.0, 3.0])]
    handle.remove()
    w.sum().backward()
    assert len(seen) == 2


def test_nodes_have_hooks_before_and_after():
    a, b = leaf(2.0), leaf(5.0)
    y = a * b
    seen = []
    y.grad_fn.register_prehook(lambda gs: (gs[0] * 10,))
    y.grad_fn.register_hook(lambda inputs, outputs: seen.append([t.item() for t in (*inputs, *outputs)]))
    y.grad_fn.register_hook(lambda inputs, outputs: (inputs[0] + 1, inputs[1]))
    y.backward()
    assert seen == [[50.0, 20.0, 10.0]] and a.grad.item() == 51.0 and b.grad.item() == 20.0


def test_the_end_of_a_leaf_has_hooks_too():
    w = leaf(2.0)
    y = w * 3
    (end, _), *_ = y.grad_fn.next_functions
    seen = []
    end.register_prehook(lambda gs: (gs[0] + 1,))
    end.register_hook(lambda inputs, outputs: seen.append(outputs[0].item()))
    y.backward()
    assert w.grad.item() == 4.0 and seen == [4.0]


def test_clipping_and_masking_by_hooks():
    w = leaf(1.0, -4.0, 9.0)
    w.register_hook(lambda g: g.clamp(-1, 1))
    w.register_hook(lambda g: g * og.tensor([1.0, 0.0, 1.0]))
    (w * og.tensor([0.5, 3.0, -7.0])).sum().backward()
    assert w.grad.tolist() == [0.5, 0.0, -1.0]


def test_what_a_hook_keeps_does_not_change_later():
    w = leaf(1.0)
    kept = []
    w.register_hook(lambda g: kept.append(g))
    (w * 2).backward()
    (w * 3).backward()
    assert [k.item() for k in kept] == [2.0, 3.0] and w.grad.item() == 5.0


@pytest.mark.parametrize("computed", [False, True])
@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda g: og.ones(3), r"has changed the size of value: was \[2\], got \[3\]"),
        (lambda g: g.double(), "has changed the type of value: was float32, got float64"),
        (lambda g: 3.0, "wanted a Tensor or None, found float"),
    ],
)
def test_wrong_results_are_named(made, message, computed):
    w = leaf(1.0, 2.0)
    x = w * 2 if computed else w

    def shout(g):
        return made(g)

    x.register_hook(shout)
    with pytest.raises(AutogradError, match="hook .*shout.*" + message):
        (x * 2).sum().backward()
    assert w.grad is None


def test_where_there_is_no_gradient_there_is_no_hook():
    with pytest.raises(AutogradError, match="doesn't require gradient"):
        og.ones(2).register_hook(print)
    with pytest.raises(AutogradError, match="doesn't require gradient"):
        og.ones(2).register_post_accumulate_grad_hook(print)
    with pytest.raises(AutogradError, match="non-leaf"):
        (leaf(1.0) * 2).register_post_accumulate_grad_hook(print)


def test_an_error_in_a_hook_reaches_the_user_and_nothing_is_left():
    w = leaf(1.0)
    x = w * 2

    def fail(g):
        raise ZeroDivisionError("mine")

    handle = x.register_hook(fail)
    y = x * 3
    with pytest.raises(ZeroDivisionError, match="mine"):
        y.backward(retain_graph=True)
    handle.remove()
    y.backward()
    assert w.grad.item() == 6.0


def test_hooks_keep_nothing_alive():
    w = leaf(1.0)
    x = w * 2
    x.register_hook(lambda g: None)
    gone = weakref.ref(x)
    del x
    gc.collect()
    assert gone() is None


@pytest.mark.oracle
def test_the_numbers_are_pytorchs():
    torch = pytest.importorskip("torch")

    def run(lib):
        x = lib.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=lib.float64, requires_grad=True)
        y = x @ x
        z = (y * x).relu()
        y.register_hook(lambda g: g.clamp(max=2.0))
        z.register_hook(lambda g: g * 0.5)
        x.register_hook(lambda g: g / g.norm())
        z.retain_grad()
        (z * z).mean().backward()
        return x.grad.numpy(), z.grad.numpy()

    for ours, theirs in zip(run(og), run(torch), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)
