"""What old lessons wrap Tensors in, and the classes of Tensors by element type and of sizes."""

import pytest

import onnxgrad as og
from onnxgrad.autograd import Variable


def test_variables_are_tensors():
    x = og.ones(2, 2)
    v = Variable(x, requires_grad=True)
    (v * v * 3).mean().backward()
    assert v.grad.tolist() == [[1.5, 1.5], [1.5, 1.5]] and not x.requires_grad
    assert isinstance(v, Variable) and isinstance(v, og.Tensor) and not isinstance(1, Variable)
    with pytest.raises(TypeError, match="Variable data has to be a tensor, but got int"):
        Variable(1)


def test_types_of_tensors():
    assert isinstance(og.ones(1), og.FloatTensor) and not isinstance(og.ones(1), og.DoubleTensor)
    assert isinstance(og.LongTensor([1, 2]), og.LongTensor) and og.ByteTensor(2, 3).shape == (2, 3)
    assert og.ones(1).type(og.LongTensor).dtype == og.int64


def test_sizes():
    s = og.Size([2, 3, 4])
    assert s == (2, 3, 4) and s.numel() == 24 and repr(s[1:]) == "torch.Size([3, 4])" and s[0] == 2
    assert (
        isinstance(s + og.Size([5]), og.Size)
        and og.zeros(s).shape == s
        and str(og.zeros(2).size()) == "torch.Size([2])"
    )
