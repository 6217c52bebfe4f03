"""Lesson 1: automatic differentiation, in-place safety, static and dynamic graphs, the picture."""

from pathlib import Path

import numpy as np
import pytest

import onnxgrad as torch
from onnxgrad import nn
from onnxgrad.ops.errors import AutogradError, TraceError


def test_the_chain_of_the_lesson():
    input = torch.ones([2, 2], requires_grad=False)
    w1 = torch.tensor(2.0, requires_grad=True)
    w2 = torch.tensor(3.0, requires_grad=True)
    w3 = torch.tensor(4.0, requires_grad=True)

    l1 = input * w1
    l2 = l1 + w2
    l3 = l1 * w3
    l4 = l2 * l3
    loss = l4.mean()

    assert str(loss) == "tensor(40., grad_fn=<MeanBackward0>)"
    assert str(l1).startswith("tensor([[2., 2.],\n        [2., 2.]], grad_fn=<MulBackward0>)")
    assert (w1.is_leaf, l1.is_leaf, input.is_leaf) == (True, False, True)
    assert (input.requires_grad, l1.requires_grad) == (False, True)
    loss.backward()
    assert str((w1.grad, w2.grad, w3.grad)) == "(tensor(28.), tensor(8.), tensor(10.))"
    assert (l1.grad, l2.grad, l3.grad, l4.grad, loss.grad) == (None,) * 5


def test_gradients_of_what_is_no_leaf_are_retained():
    input = torch.ones([2, 2], requires_grad=False)
    w1, w2, w3 = (torch.tensor(v, requires_grad=True) for v in (2.0, 3.0, 4.0))
    l1 = input * w1
    l2 = l1 + w2
    l3 = l1 * w3
    l4 = l2 * l3
    loss = l4.mean()
    l1.retain_grad()
    l4.retain_grad()
    loss.retain_grad()
    loss.backward()
    assert str(loss.grad) == "tensor(1.)"
    assert str(l4.grad) == "tensor([[0.2500, 0.2500],\n        [0.2500, 0.2500]])"
    assert str(l1.grad) == "tensor([[7., 7.],\n        [7., 7.]])"


def test_the_dynamic_graph_of_the_lesson():
    w = torch.tensor([1.0], requires_grad=True)
    x = torch.tensor([2.0], requires_grad=True)
    a = torch.add(w, x)
    b = torch.add(w, 1)
    y = torch.mul(a, b)
    y.backward()
    assert (w.grad, x.grad) == (torch.tensor([5.0]), torch.tensor([2.0]))
    assert [t.is_leaf for t in (w, x, a, b, y)] == [True, True, False, False, False]
    assert [t.grad_fn and t.grad_fn.name() for t in (w, x, a, b, y)] == [
        None, None, "AddBackward0", "AddBackward0", "MulBackward0",
    ]  # fmt: skip
    assert repr(y.grad_fn).startswith("<MulBackward0 object at 0x")


def test_gradients_accumulate_and_graphs_are_freed():
    x = torch.tensor([3.0], requires_grad=True)
    w = torch.tensor([2.0], requires_grad=True)
    for i in range(3):
        y = x * w
        y.backward()
        assert w.grad.item() == 3.0 * (i + 1)
    w.grad.zero_()
    assert w.grad.item() == 0.0
    y = x * w
    y.backward(retain_graph=True)
    y.backward()
    with pytest.raises(AutogradError, match="Trying to backward through the graph a second time"):
        y.backward()
    z = x + w
    z.backward()
    z.backward()  # nothing was saved


def test_several_losses_and_weights_of_them():
    w = torch.tensor([1.0], requires_grad=True)
    x = torch.tensor([2.0], requires_grad=True)
    a = torch.add(w, x)
    b = torch.add(w, 1)
    loss = torch.cat([torch.mul(a, b), torch.add(a, b)], dim=0)
    loss.backward(gradient=torch.tensor([1.0, 2.0]))
    assert w.grad.tolist() == [9.0]


def test_higher_orders():
    x = torch.tensor([3.0], requires_grad=True)
    y = torch.pow(x, 2)
    (grad_1,) = torch.autograd.grad(y, x, create_graph=True)
    assert str(grad_1) == "tensor([6.], grad_fn=<MulBackward0>)"
    assert str(torch.autograd.grad(grad_1, x)) == "(tensor([2.]),)"


def test_changing_in_place():
    a = torch.ones((1,))
    before = a.data_ptr()
    a = a + torch.ones((1,))
    assert a.data_ptr() != before
    before = a.data_ptr()
    a += torch.ones((1,))
    assert a.data_ptr() == before and a._version == 1

    w = torch.tensor([1.0], requires_grad=True)
    with pytest.raises(
        AutogradError, match="a leaf Variable that requires grad is being used in an in-place operation"
    ):
        w.add_(1)
    x = torch.tensor([2.0], requires_grad=True)
    a = torch.add(w, x)
    b = torch.add(w, 1)
    y = torch.mul(a, b)
    a.add_(1)
    with pytest.raises(
        AutogradError, match=r"modified by an inplace operation: .* which is output 0 of AddBackward0, is at version 1"
    ):
        y.backward()


def test_data_and_detach_share_memory():
    a = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    out = a.sigmoid()
    b = out.detach()
    b.zero_()
    assert out.tolist() == [0.0, 0.0, 0.0]
    with pytest.raises(AutogradError, match="modified by an inplace operation"):
        out.sum().backward()
    out = a.sigmoid()
    out.data.zero_()
    out.sum().backward()  # nothing notices: that is what .data is for
    assert a.grad.tolist() == [0.0, 0.0, 0.0]


def test_linear_regression_by_hand():
    torch.manual_seed(1)
    x = torch.rand(20, 1) * 10
    y = 2 * x + (5 + torch.randn(20, 1))
    w = torch.randn((1), requires_grad=True)
    b = torch.zeros((1), requires_grad=True)
    for _ in range(2000):
        loss = (0.5 * (y - (w * x + b)) ** 2).mean()
        loss.backward()
        b.data.sub_(0.02 * b.grad)
        w.data.sub_(0.02 * w.grad)
        w.grad.zero_()
        b.grad.zero_()
    assert abs(w.item() - 2) < 0.3 and abs(b.item() - 5) < 1.5 and loss.item() < 1


def test_modes():
    x = torch.ones(2, requires_grad=True)
    with torch.no_grad():
        assert not (x * 2).requires_grad
        with torch.enable_grad():
            assert (x * 2).requires_grad

    @torch.no_grad()
    def f(t):
        return t * 2

    assert not f(x).requires_grad
    with torch.set_grad_enabled(False):
        assert not torch.is_grad_enabled()
    with torch.inference_mode():
        assert not (x * 2).requires_grad
    assert torch.is_grad_enabled() and not torch.cuda.is_available()
    assert torch.device("cuda" if torch.cuda.is_available() else "cpu") == torch.device("cpu")


def test_python_decides_while_it_runs():
    w = torch.tensor([[0.5, -0.2], [0.1, 0.4]], requires_grad=True)

    def forward(x, depth):
        for _ in range(depth):
            x = torch.relu(w @ x) if x.sum() > 0 else torch.tanh(w @ x)
        return x.sum()

    for depth in (1, 3):
        forward(torch.ones(2), depth).backward()
    assert w.grad.abs().sum().item() > 0
    with pytest.raises(TraceError, match=r"og\.where"):
        torch.compile(forward)(torch.ones(2), 2)


def test_a_static_graph_gives_the_same_gradients():
    net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    x = torch.randn(5, 4)
    net(x).pow(2).mean().backward()
    wanted = [p.grad.clone() for p in net.parameters()]
    net.zero_grad()
    static = torch.compile(lambda x: net(x).pow(2).mean())
    for _ in range(2):
        net.zero_grad()
        static(x).backward()
        for p, g in zip(net.parameters(), wanted, strict=True):
            np.testing.assert_allclose(p.grad.numpy(), g.numpy(), rtol=1e-5, atol=1e-7)


def test_the_picture(tmp_path):
    w1 = torch.tensor(2.0, requires_grad=True)
    w2 = torch.tensor(3.0, requires_grad=True)
    loss = ((torch.ones(2, 2) * w1 + w2) * (w1 * 4)).mean()
    dot = torch.make_dot(loss, params={"w1": w1, "w2": w2})
    dot.format = "svg"
    text = Path(dot.render(str(tmp_path / "graph"), view=False)).read_text()
    assert "MeanBackward0" in text and "MulBackward0" in text and ">w1" in text.replace("&gt;", ">")
