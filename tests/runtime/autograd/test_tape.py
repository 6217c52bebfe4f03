"""The tape: accumulation, what is asked for, what is kept and freed, higher orders, in-place safety."""

import gc
import weakref

import numpy as np
import pytest

import onnxgrad as og
from onnxgrad import autograd
from onnxgrad.ops.errors import AutogradError


def leaf(*values):
    return og.tensor(list(values), dtype=og.float64, requires_grad=True)


def test_the_worked_example():
    ones = og.ones(2, 2)
    x = ones.clone().requires_grad_()
    w1, w2, w3 = (og.tensor(v, requires_grad=True) for v in (2.0, 3.0, 4.0))
    l1 = x * w1
    l2 = l1 + w2
    l3 = l1 * w3
    l4 = l2 * l3
    l4.retain_grad()
    l1.retain_grad()
    loss = l4.mean()
    assert repr(loss) == "tensor(40., grad_fn=<MeanBackward0>)"
    loss.backward()
    assert (w1.grad.item(), w2.grad.item(), w3.grad.item()) == (28.0, 8.0, 10.0)
    assert x.grad.tolist() == [[14.0, 14.0], [14.0, 14.0]]
    assert l1.grad.tolist() == [[7.0, 7.0], [7.0, 7.0]]
    assert l4.grad.tolist() == [[0.25, 0.25], [0.25, 0.25]]
    assert l2.grad is None and l3.grad is None


def test_graph_reads_as_pytorch():
    x, w = leaf(2.0), leaf(1.0)
    y = (x + w) * (w + 1)
    assert (
        y.item() == 6.0 and y.grad_fn.name() == "MulBackward0" and repr(y.grad_fn).startswith("<MulBackward0 object at")
    )
    (a, _), (b, _) = y.grad_fn.next_functions
    assert a.name() == b.name() == "AddBackward0"
    assert [f.name() if f else None for f, _ in a.next_functions] == ["AccumulateGrad", "AccumulateGrad"]
    assert a.next_functions[0][0].variable is x
    assert x.is_leaf and not y.is_leaf and x.grad_fn is None


@pytest.mark.parametrize(
    ("f", "name"),
    [
        (lambda x: x + x, "AddBackward0"), (lambda x: -x, "NegBackward0"), (lambda x: x**2, "PowBackward0"),
        (lambda x: x @ x, "MmBackward0"), (lambda x: x @ x[0], "MvBackward0"), (lambda x: x[0] @ x[0], "DotBackward0"),
        (lambda x: x.sum(), "SumBackward0"), (lambda x: x.sum(0), "SumBackward1"),
        (lambda x: x.mean(1), "MeanBackward1"), (lambda x: x.max(), "MaxBackward1"),
        (lambda x: x.amax(1), "AmaxBackward0"), (lambda x: x.log2(), "Log2Backward0"),
        (lambda x: x.clamp(0, 1), "ClampBackward1"), (lambda x: x.view(-1), "ViewBackward0"),
        (lambda x: x.transpose(0, 1), "TransposeBackward0"), (lambda x: x.unsqueeze(0), "UnsqueezeBackward0"),
        (lambda x: x.expand(2, 2, 2), "ExpandBackward0"), (lambda x: og.cat([x, x]), "CatBackward0"),
        (lambda x: x.clone(), "CloneBackward0"), (lambda x: x.softmax(1), "SoftmaxBackward0"),
        (lambda x: x.tril(), "TrilBackward0"), (lambda x: x.repeat(2, 1), "RepeatBackward0"),
        (lambda x: og.nn.functional.conv1d(x[None], x[:1, None, :1].expand(2, 2, 1)), "ConvolutionBackward0"),
        (lambda x: og.nn.functional.max_pool1d(x[None], 2), "MaxPool1DWithIndicesBackward0"),
        (lambda x: og.nn.functional.cross_entropy(x, og.tensor([0, 1])), "NllLossBackward0"),
        (lambda x: x.float(), "ToCopyBackward0"), (lambda x: og.zeros(2, 2).double().add_(x), "AddBackward0"),
    ],
)  # fmt: skip
def test_nodes_have_pytorchs_names(f, name):
    x = og.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=og.float64, requires_grad=True)
    assert f(x).grad_fn.name() == name


def test_gradients_add_up_and_never_share_memory():
    x, y = leaf(1.0, 2.0), leaf(3.0, 4.0)
    v = og.tensor([1.0, 1.0], dtype=og.float64)
    (x + y).backward(v)
    assert len({id(t.array) for t in (x.grad, y.grad, v)}) == 3
    held = x.grad
    (x * 3).sum().backward()
    assert x.grad is held and held.tolist() == [4.0, 4.0] and y.grad.tolist() == [1.0, 1.0] and v.tolist() == [1.0, 1.0]


def test_a_broadcast_gradient_is_writable():
    x = leaf(1.0, 2.0)
    x.sum().backward()
    x.grad.mul_(2)
    assert x.grad.tolist() == [2.0, 2.0]


def test_backward_on_a_leaf():
    x = leaf(1.0)
    x.backward()
    assert x.grad.tolist() == [1.0]


def test_backward_only_to_what_is_asked_for():
    x, w = leaf(1.0, 2.0), leaf(3.0, 4.0)
    y = x * w
    (y * w).sum().backward(inputs=[x])
    assert x.grad.tolist() == [9.0, 16.0] and w.grad is None


def test_grad_leaves_grad_alone_and_reaches_inside():
    x, w = leaf(1.0, 2.0), leaf(3.0, 4.0)
    h = x * w
    y = (h * h).sum()
    gx, gh = autograd.grad(y, [x, h], retain_graph=True)
    assert gh.tolist() == [6.0, 16.0] and gx.tolist() == [18.0, 64.0] and x.grad is None
    assert autograd.grad(y, y, retain_graph=True)[0].item() == 1.0
    other = leaf(1.0)
    assert autograd.grad(y, [x, other], allow_unused=True, retain_graph=True)[1] is None
    assert autograd.grad(y, [other], materialize_grads=True, retain_graph=True)[0].tolist() == [0.0]
    with pytest.raises(AutogradError, match="input 0 appears not to have been used"):
        autograd.grad(y, [other])
    with pytest.raises(AutogradError, match="does not require grad"):
        autograd.grad(og.ones(1, requires_grad=True).sum(), [og.ones(1)])


def test_frozen_inputs_cost_nothing():
    calls = []
    w = og.tensor([2.0])
    x = leaf(1.0).to(og.float32).detach().requires_grad_()
    y = x * w
    assert [e is None for e in y.grad_fn.inputs] == [False, True]
    assert not calls
    y.sum().backward()
    assert w.grad is None and x.grad.tolist() == [2.0]


def test_modes():
    x = leaf(1.0)
    with og.no_grad():
        assert not (x * 2).requires_grad and not og.is_grad_enabled()
        with og.enable_grad():
            assert (x * 2).requires_grad
    assert (x * 2).requires_grad

    @og.no_grad()
    def f():
        return x * 2

    @og.no_grad
    def g():
        return x * 2

    @og.inference_mode()
    def h():
        return x * 2

    assert not any(k().requires_grad for k in (f, g, h))
    og.set_grad_enabled(False)
    try:
        assert not (x * 2).requires_grad
    finally:
        og.set_grad_enabled(True)
    with og.set_grad_enabled(False):
        assert not og.is_grad_enabled()
    assert og.is_grad_enabled()


def test_a_mode_ends_with_an_exception():
    with pytest.raises(ValueError, match="x"), og.no_grad():
        raise ValueError("x")
    assert og.is_grad_enabled()


def test_errors_of_backward():
    x = leaf(1.0, 2.0)
    with pytest.raises(AutogradError, match="implicitly created only for scalar outputs"):
        (x * 2).backward()
    with pytest.raises(AutogradError, match="does not require grad and does not have a grad_fn"):
        og.ones(1).backward()
    with pytest.raises(AutogradError, match="Mismatch in shape"):
        (x * 2).backward(og.ones(3))
    y = (x * x).sum()
    y.backward()
    with pytest.raises(AutogradError, match="second time"):
        y.backward()
    with pytest.raises(AutogradError, match="retain_grad"):
        og.ones(1).retain_grad()


def test_a_second_backward_where_nothing_was_saved():
    x = leaf(1.0, 2.0)
    y = (x + 1).sum()
    y.backward()
    y.backward()
    assert x.grad.tolist() == [2.0, 2.0]


def test_retain_graph():
    x = leaf(1.0, 2.0)
    y = (x * x).sum()
    y.backward(retain_graph=True)
    y.backward()
    assert x.grad.tolist() == [4.0, 8.0]


def test_intermediates_are_freed_as_backward_passes():
    x = leaf(*range(8))
    alive = []
    h = x
    for _ in range(4):
        h = h.exp() * 0.1
        alive.append(weakref.ref(h))
    y = h.sum()
    node = weakref.ref(y.grad_fn)
    kept = sum(ref() is not None for ref in alive)
    del h
    y.backward()
    assert kept and [ref() for ref in alive] == [None] * 4
    del y
    assert node() is None  # by reference counts alone: no cycles


def test_leaves_are_freed_without_the_collector():
    gc.disable()
    try:
        x = leaf(1.0)
        y = (x * x).sum()
        y.backward()
        ref = weakref.ref(x)
        del x, y
        assert ref() is None
    finally:
        gc.enable()


def test_what_the_gradient_does_not_read_is_not_kept():
    x = leaf(1.0, 2.0)
    a = x * 2
    ref = weakref.ref(a)
    y = a + 1
    del a
    assert ref() is None
    y.sum().backward()
    assert x.grad.tolist() == [2.0, 2.0]


def test_deep_graphs_need_no_recursion():
    x = leaf(1.0)
    y = x
    for _ in range(20_000):
        y = y + x
    y.backward(og.ones(1))
    assert x.grad.tolist() == [20_001.0]
    del y


class TestInPlaceSafety:
    def test_a_changed_argument_is_noticed(self):
        x, w = leaf(1.0, 2.0), og.tensor([3.0, 4.0], dtype=og.float64)
        y = (x * w).sum()
        w.add_(1)
        with pytest.raises(
            AutogradError, match=r"modified by an inplace operation.*is at version 1; expected version 0"
        ):
            y.backward()

    def test_a_changed_output_is_noticed(self):
        x = leaf(1.0, 2.0)
        y = x.exp()
        y.detach().mul_(2)
        with pytest.raises(AutogradError, match="output 0 of ExpBackward0, is at version 1"):
            y.sum().backward()

    def test_a_changed_view_is_noticed(self):
        x, w = leaf(1.0, 2.0), og.tensor([3.0, 4.0], dtype=og.float64)
        y = (x * w).sum()
        w[0:1].zero_()
        with pytest.raises(AutogradError, match="inplace"):
            y.backward()

    def test_what_is_not_read_may_change(self):
        x, w = leaf(1.0, 2.0), og.tensor([3.0, 4.0], dtype=og.float64)
        y = (x + w).sum()
        w.add_(1)
        y.backward()
        assert x.grad.tolist() == [1.0, 1.0]

    def test_data_lets_it_through(self):
        x, w = leaf(1.0, 2.0), og.tensor([3.0, 4.0], dtype=og.float64)
        y = (x * w).sum()
        w.data.add_(1)
        y.backward()
        assert x.grad.tolist() == [4.0, 5.0]


class TestHigherOrders:
    def test_closed_form(self):
        x = leaf(0.5, -1.5)
        (g,) = autograd.grad((x**3).sum(), x, create_graph=True)
        (h,) = autograd.grad(g.sum(), x, create_graph=True)
        (k,) = autograd.grad(h.sum(), x)
        np.testing.assert_allclose(g.detach().numpy(), 3 * x.array**2)
        np.testing.assert_allclose(h.detach().numpy(), 6 * x.array)
        np.testing.assert_allclose(k.numpy(), [6.0, 6.0])

    def test_through_grad_attribute(self):
        x = leaf(2.0)
        (x**3).sum().backward(create_graph=True)
        assert x.grad.requires_grad
        g, x.grad = x.grad, None
        g.sum().backward()
        assert x.grad.tolist() == [12.0]

    def test_gradient_penalty_equals_pytorch(self):
        torch = pytest.importorskip("torch")
        rng = np.random.default_rng(0)
        arrays = [rng.standard_normal(s) for s in ((5, 3), (3, 4), (4, 1))]

        def penalty(lib, grad, ts):
            x, a, b = ts
            y = ((x @ a).tanh() @ b).exp().sum()
            (g,) = grad(y, x, create_graph=True)
            return ((g * g).sum(1).sqrt() - 1).square().mean()

        ours = [og.tensor(v, dtype=og.float64, requires_grad=True) for v in arrays]
        theirs = [torch.tensor(v, requires_grad=True) for v in arrays]
        penalty(og, autograd.grad, ours).backward()
        penalty(torch, torch.autograd.grad, theirs).backward()
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=1e-9)


def test_several_outputs_one_used():
    x = leaf(3.0, 1.0, 2.0)
    values, _ = x.topk(2)
    values[0].backward()
    assert x.grad.tolist() == [1.0, 0.0, 0.0]
    (part,) = x.split(3)
    part.sum().backward()
    assert x.grad.tolist() == [2.0, 1.0, 1.0]


def test_a_gradient_has_the_type_of_its_tensor():
    x, w = og.ones(2, requires_grad=True), og.ones(2, dtype=og.float64)
    (x * w).sum().backward()
    assert x.grad.dtype == og.float32


def test_gradcheck():
    x = leaf(0.5, 2.0)
    assert autograd.gradcheck(lambda t: t.exp().log() * t, x) and autograd.gradgradcheck(lambda t: t**3, x)
    assert not autograd.gradcheck(lambda t: t * t.detach(), x, raise_exception=False)


def test_asking_for_a_gradient_that_is_declared_not_to_exist_names_the_op():
    x = og.tensor([1.0, 3.0, 2.0], requires_grad=True)
    with pytest.raises(AutogradError, match="argmax has no gradient"):
        x.argmax().backward()
