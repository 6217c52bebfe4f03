"""Mistakes that beginners make: the error is of our tree, of PyTorch's class, and says what was found and wanted."""

import numpy as np
import pytest

import onnxgrad as torch
import onnxgrad.nn.functional as F
from onnxgrad import nn
from onnxgrad.errors import AutogradError, AxisError, DTypeError, OnnxGradError, ShapeError


def needing(*shape):
    return torch.ones(*shape, requires_grad=True)


MISTAKES = {
    "float64 from NumPy": (
        lambda: nn.Linear(3, 4)(torch.from_numpy(np.ones((2, 3)))), DTypeError,
        r"must have the same dtype, but got Double and Float: the input is float64\[2, 3\], the weight float32\[4, 3\]",
    ),
    "integers into a layer": (lambda: nn.Linear(3, 4)(torch.ones(2, 3).long()), DTypeError, "Long and Float"),
    "a word that is not in the table": (
        lambda: nn.Embedding(5, 2)(torch.tensor([1, 5])), AxisError, "index 5 of a table of 5 rows",
    ),
    "a negative word": (lambda: nn.Embedding(5, 2)(torch.tensor([-1])), AxisError, "index -1 of a table"),
    "an axis that is not there": (lambda: F.softmax(torch.ones(2, 2), dim=2), AxisError, r"range of \[-2, 1\]"),
    "classes for probabilities": (
        lambda: F.binary_cross_entropy(torch.tensor([0.5]), torch.tensor([1])), DTypeError, "Long but expected Float",
    ),
    "the number of many": (lambda: torch.ones(3).item(), ShapeError, r"a Tensor with 3 elements .* \[3\]"),
    "a float of many": (lambda: float(torch.ones(3)), ShapeError, "3 elements cannot be converted to Scalar"),
    "fill with many": (lambda: torch.empty(2).fill_(torch.ones(2)), ShapeError, "0-dimension value tensor"),
    "out where gradients are recorded": (
        lambda: torch.add(needing(2), 1, out=torch.empty(2)), AutogradError, "don't support automatic differentiation",
    ),
    "out of another shape": (
        lambda: torch.add(torch.ones(2), 1, out=torch.empty(3)), ShapeError, r"out has shape \[3\], the result \[2\]",
    ),
}  # fmt: skip

OF_PYTHON = {
    "labels in a list": (lambda: F.cross_entropy(torch.ones(2, 3), [0, 1]), "must be Tensor, not list"),
    "plus text": (lambda: torch.ones(2) + "a", "type 'str' for an operation on a Tensor"),
    "plus None": (lambda: None * torch.ones(2), "type 'NoneType' for an operation on a Tensor"),
    "sizes of text": (lambda: torch.zeros("a"), "sizes must be integers, found 'a'"),
    "data of a number": (lambda: setattr(torch.ones(2), "data", 5), "Variable data has to be a tensor, but got int"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_error_is_of_our_tree_and_names_what_is_wrong(mistake):
    call, error, message = MISTAKES[mistake]
    with pytest.raises(error, match=message) as caught:
        call()
    assert isinstance(caught.value, OnnxGradError) and isinstance(caught.value, RuntimeError)


@pytest.mark.parametrize("mistake", OF_PYTHON)
def test_wrong_types_are_type_errors(mistake):
    call, message = OF_PYTHON[mistake]
    with pytest.raises(TypeError, match=message):
        call()


def test_what_looks_like_a_mistake_and_is_none():
    x = needing(3)
    with torch.no_grad():
        assert x.numpy().tolist() == [1, 1, 1]
    (x * 2).sum().backward()
    (x * 2).sum().backward()
    assert x.grad.tolist() == [4, 4, 4]
    found = torch.empty(0)
    torch.matmul(torch.ones(2, 2), torch.ones(2, 2), out=found)
    assert found.tolist() == [[2, 2], [2, 2]]


def test_an_optimizer_in_backward():
    v, rate = torch.zeros(3, requires_grad=True), 0.01
    handle = v.register_post_accumulate_grad_hook(lambda p: p.add_(p.grad, alpha=-rate))
    v.backward(torch.tensor([1.0, 2.0, 3.0]))
    handle.remove()
    np.testing.assert_allclose(v.detach().numpy(), [-0.01, -0.02, -0.03], rtol=1e-6)
    net = nn.Linear(4, 2)
    optimizers = {p: torch.optim.SGD([p], lr=0.1) for p in net.parameters()}

    def step(p):
        optimizers[p].step()
        optimizers[p].zero_grad()

    for p in net.parameters():
        p.register_post_accumulate_grad_hook(step)
    before = net.weight.detach().clone()
    net(torch.ones(3, 4)).sum().backward()
    np.testing.assert_allclose(net.weight.detach().numpy(), before.numpy() - 0.3, rtol=1e-5, atol=1e-6)
    assert net.weight.grad is None
