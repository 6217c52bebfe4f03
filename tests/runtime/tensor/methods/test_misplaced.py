"""Indices that do not fit, read and written: what is wrong, in PyTorch's words and in our error tree."""

import numpy as np
import pytest

import onnxgrad as og
from onnxgrad.errors import AxisError

WRONG = {
    "outside": (2, "index 2 is out of bounds for dimension 0 with size 2: the tensor has shape"),
    "outside, second": ((0, -4), "index -4 is out of bounds for dimension 1 with size 3"),
    "outside, behind an ellipsis": ((..., 3), "index 3 is out of bounds for dimension 1 with size 3"),
    "too many": ((0, 0, 0), "too many indices for tensor of dimension 2: 3 for"),
    "places": (np.array([0, 5]), "index 5 is out of bounds for dimension 0 with size 2"),
    "floats": (np.array([0.5]), "tensors used as indices must be long, int, byte or bool tensors, found float64"),
    "text": ("a", "is not indexed by 'a', of type str"),
    "mask": (np.array([True, False, True]), r"shape of the mask \[3\] at index 0 does not match .* \[2, 3\]"),
}


@pytest.mark.parametrize("index", WRONG)
@pytest.mark.parametrize("write", [False, True])
def test_the_error_says_which(index, write):
    at, message = WRONG[index]
    at = og.tensor(at) if isinstance(at, np.ndarray) else at
    x = og.ones(2, 3)
    with pytest.raises(AxisError, match=message):
        if write:
            x[at] = 0
        else:
            x[at]


def test_a_range_is_an_index():
    x = og.arange(6.0).reshape(3, 2).requires_grad_()
    y = x[range(3), og.tensor([0, 1, 0])]
    y.sum().backward()
    assert y.tolist() == [0, 3, 4] and x.grad.tolist() == [[1, 0], [0, 1], [1, 0]]
