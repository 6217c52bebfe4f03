"""Padding against PyTorch and NumPy."""

import numpy as np
import pytest

import onnxgrad as og
import onnxgrad.nn.functional as F
from onnxgrad.autograd import check_grads
from onnxgrad.ops.errors import ShapeError

from .layers import draw, same_error, same_function, same_layer

SIZES = {1: (6,), 2: (5, 6), 3: (4, 5, 6)}
KINDS = ("Circular", "Constant", "Reflection", "Replication", "Zero")


@pytest.mark.oracle
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_layers_are_pytorchs(compared, kind, n, dtype):
    value = (2.5,) if kind == "Constant" else ()
    for padding in (2, (1, 2, 0, 3, 2, 1)[: 2 * n], [3, 0, 1, 1, 0, 2][: 2 * n], (-1, 2, 1, -2, 0, -1)[: 2 * n]):
        if isinstance(padding, list) and kind == "Circular":
            padding = tuple(padding)
        for shape in ((2, 3, *SIZES[n]), (3, *SIZES[n])):
            same_layer(compared, f"{kind}Pad{n}d", (padding, *value), {}, draw(shape), dtype)


@pytest.mark.oracle
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        (((1, 2),), {}),
        (((1, 2, 3, 0), "constant", -1.5), {}),
        (((0, 0, 0, 0, 1, 0),), {"value": 3}),
        (((1, -2, -1, 3),), {"value": 0.5}),
        (((2, 1),), {"mode": "reflect"}),
        (((2, 1, 0, 1), "replicate"), {}),
        (((6, 6), "circular"), {}),
        (((),), {}),
    ],
)
def test_functions_are_pytorchs(compared, args, kwargs, dtype):
    same_function(compared, "pad", args, kwargs, draw((2, 5, 6)), dtype)


@pytest.mark.parametrize(
    ("mode", "theirs"), [("reflect", "reflect"), ("replicate", "edge"), ("circular", "wrap"), ("constant", "constant")]
)
def test_pads_are_numpys(mode, theirs):
    (x,) = draw((2, 3, 4, 5))
    y = F.pad(og.tensor(x, dtype=og.float64), (2, 1, 0, 3), mode)
    np.testing.assert_array_equal(y.numpy(), np.pad(x, ((0, 0), (0, 0), (0, 3), (2, 1)), theirs))
    check_grads(lambda x: F.pad(x, (2, 1, 0, 3), mode), [x], order=2)


def test_integers_and_truth_values():
    assert F.pad(og.tensor([[1, 2]]), (1, 1), value=7).tolist() == [[7, 1, 2, 7]]
    assert F.pad(og.tensor([True]), (0, 1), value=True).tolist() == [True, True]


WRONG = [
    lambda lib: lib.nn.functional.pad(lib.zeros(2, 3, 4), (5, 5), mode="reflect"),
    lambda lib: lib.nn.functional.pad(lib.zeros(2, 3, 4, 4), (1, 1, 5, 5), mode="reflect"),
    lambda lib: lib.nn.functional.pad(lib.zeros(4), (1, 1), mode="reflect"),
    lambda lib: lib.nn.functional.pad(lib.zeros(2, 3, 4), (1, 1, 1), mode="constant"),
    lambda lib: lib.nn.functional.pad(lib.zeros(2, 3), (1, 1, 1, 1, 1, 1)),
    lambda lib: lib.nn.functional.pad(lib.zeros(2, 3, 4), (1, 1), mode="mirror"),
    lambda lib: lib.nn.functional.pad(lib.zeros(2, 3, 4), (1, 1), mode="reflect", value=2.0),
    lambda lib: lib.nn.functional.pad(lib.zeros(2, 3, 4), (5, 5), mode="circular"),
    lambda lib: lib.nn.functional.pad(lib.zeros(2, 3, 4), (-3, -3), mode="circular"),
    lambda lib: lib.nn.CircularPad1d(1)(lib.zeros(4)),
    lambda lib: lib.nn.ReflectionPad2d(1)(lib.zeros(4)),
]


@pytest.mark.oracle
@pytest.mark.parametrize("call", WRONG)
def test_wrong_use_is_reported_as_pytorch_does(call):
    same_error(call)


def test_wrong_use_says_what_is_wrong():
    with pytest.raises(ShapeError, match="resulted in a negative output size"):
        F.pad(og.zeros(2, 3, 4), (-3, -3))
    with pytest.raises(ShapeError, match="Padding size should be less than the corresponding input dimension"):
        F.pad(og.zeros(2, 3, 4), (4, 0), "reflect")
