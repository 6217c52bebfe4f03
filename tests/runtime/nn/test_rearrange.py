"""Shuffles and sliding blocks against PyTorch, and there and back."""

import numpy as np
import pytest

import onnxgrad as og
import onnxgrad.nn.functional as F
from onnxgrad.autograd import check_grads
from onnxgrad.ops.errors import ShapeError

from .layers import draw, same_error, same_function, same_layer

SETTINGS = [
    ("PixelShuffle", (2,), {}, (2, 8, 3, 4)),
    ("PixelShuffle", (3,), {}, (9, 2, 2)),
    ("PixelShuffle", (2,), {}, (2, 3, 4, 2, 2)),
    ("PixelUnshuffle", (2,), {}, (2, 3, 4, 6)),
    ("PixelUnshuffle", (3,), {}, (2, 3, 6)),
    ("ChannelShuffle", (2,), {}, (2, 6, 3)),
    ("ChannelShuffle", (3,), {}, (2, 6, 3, 4)),
    ("Unfold", (2,), {}, (2, 3, 5, 6)),
    ("Unfold", ((2, 3),), {"stride": (2, 1)}, (2, 3, 5, 6)),
    ("Unfold", (3, 2, 1, 2), {}, (2, 3, 7, 6)),
    ("Unfold", ((3, 2), (1, 2), (2, 0)), {}, (3, 5, 6)),
    ("Fold", ((5, 6), 2), {}, (2, 12, 20)),
    ("Fold", ((5, 6), (2, 3)), {"stride": (2, 1)}, (2, 18, 8)),
    ("Fold", ((7, 6), 3, 2, 1, 2), {}, (2, 27, 6)),
    ("Fold", (4, 2, 1, 1, 2), {}, (8, 9)),
]


@pytest.mark.oracle
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("name", "args", "kwargs", "shape"), SETTINGS)
def test_layers_are_pytorchs(compared, name, args, kwargs, shape, dtype):
    same_layer(compared, name, args, kwargs, draw(shape), dtype)


@pytest.mark.oracle
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_functions_are_pytorchs(compared, dtype):
    (x,) = draw((2, 8, 4, 6))
    for name, args in [
        ("pixel_shuffle", (2,)), ("pixel_unshuffle", (2,)), ("channel_shuffle", (4,)), ("unfold", (3, 1, 1, 2)),
    ]:  # fmt: skip
        same_function(compared, name, args, {}, [x], dtype)
    same_function(compared, "fold", ((3, 4), 2), {}, draw((2, 8, 6)), dtype)
    assert F.native_channel_shuffle is F.channel_shuffle


def test_there_and_back():
    x = og.tensor(draw((2, 8, 4, 6))[0])
    assert og.equal(F.pixel_unshuffle(F.pixel_shuffle(x, 2), 2), x)
    assert og.equal(F.channel_shuffle(F.channel_shuffle(x, 2), 4), x)
    ones = og.ones(1, 1, 4, 5)
    times = F.fold(F.unfold(ones, 3, padding=1), (4, 5), 3, padding=1)
    assert times[0, 0].tolist() == [[4, 6, 6, 6, 4], [6, 9, 9, 9, 6], [6, 9, 9, 9, 6], [4, 6, 6, 6, 4]]
    y = F.fold(F.unfold(x, 2, stride=2), (4, 6), 2, stride=2)
    assert og.equal(y, x)
    blocks = F.unfold(og.tensor([[[[1.0, np.inf], [3.0, 4.0]]]]), (1, 2))
    assert blocks.tolist() == [[[1, 3], [np.inf, 4]]]


def test_a_convolution_of_blocks():
    x, w = (og.tensor(a, dtype=og.float64) for a in draw((2, 3, 5, 6), (4, 3, 3, 2)))
    y = w.reshape(4, -1) @ F.unfold(x, (3, 2), padding=(1, 0), stride=(2, 1))
    np.testing.assert_allclose(y.reshape(2, 4, 3, 5).numpy(), F.conv2d(x, w, None, (2, 1), (1, 0)).numpy(), rtol=1e-12)


def test_second_derivatives():
    check_grads(lambda x: F.unfold(x, 2, 1, 1, 2), list(draw((1, 2, 3, 3))), order=2)
    check_grads(lambda x: F.fold(x, (3, 3), 2, 1, 0, 1), list(draw((1, 8, 4))), order=2)
    check_grads(lambda x: F.pixel_shuffle(x, 2), list(draw((1, 4, 2, 2))), order=2)


z = lambda lib, *shape: lib.zeros(*shape)  # noqa: E731
WRONG = [
    lambda lib: lib.nn.PixelShuffle(2)(z(lib, 1, 3, 4, 4)),
    lambda lib: lib.nn.PixelShuffle(2)(z(lib, 4, 4)),
    lambda lib: lib.nn.PixelShuffle(0)(z(lib, 1, 4, 4, 4)),
    lambda lib: lib.nn.PixelUnshuffle(2)(z(lib, 1, 4, 3, 4)),
    lambda lib: lib.nn.PixelUnshuffle(2)(z(lib, 1, 4, 4, 3)),
    lambda lib: lib.nn.PixelUnshuffle(0)(z(lib, 1, 4, 4, 4)),
    lambda lib: lib.nn.ChannelShuffle(2)(z(lib, 1, 3, 4, 4)),
    lambda lib: lib.nn.ChannelShuffle(2)(z(lib, 1, 4)),
    lambda lib: lib.nn.ChannelShuffle(0)(z(lib, 1, 4, 4)),
    lambda lib: lib.nn.Unfold(3)(z(lib, 1, 1, 2, 2)),
    lambda lib: lib.nn.Unfold((2, 2, 2))(z(lib, 1, 1, 2, 2)),
    lambda lib: lib.nn.Unfold(0)(z(lib, 1, 1, 2, 2)),
    lambda lib: lib.nn.Unfold(2, stride=0)(z(lib, 1, 1, 2, 2)),
    lambda lib: lib.nn.Unfold(2, padding=-1)(z(lib, 1, 1, 2, 2)),
    lambda lib: lib.nn.Fold(4, 2)(z(lib, 1, 4, 5)),
    lambda lib: lib.nn.Fold(4, 2)(z(lib, 1, 5, 9)),
    lambda lib: lib.nn.Fold(4, 2)(z(lib, 5)),
]


@pytest.mark.oracle
@pytest.mark.parametrize("call", WRONG)
def test_wrong_use_is_reported_as_pytorch_does(call):
    same_error(call)


def test_wrong_use_says_what_is_wrong():
    with pytest.raises(ShapeError, match="'channel' dimension to be divisible by the square of upscale_factor"):
        F.pixel_shuffle(og.zeros(1, 3, 4, 4), 2)
    with pytest.raises(ShapeError, match="Expected 3D or 4D"):
        F.unfold(og.zeros(4, 4), 2)
