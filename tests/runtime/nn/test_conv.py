"""Convolutions and their transposes against PyTorch and against sums over a window."""

import itertools

import numpy as np
import pytest

import onnxgrad as og
import onnxgrad.nn.functional as F
from onnxgrad import nn
from onnxgrad.autograd import check_grads
from onnxgrad.ops.errors import OpError

from .layers import draw, same_error, same_function, same_layer

SIZES = ((9,), (7, 8), (5, 4, 6))


def settings():
    """Each setting for each rank: batched, and without the batch axis."""
    for n, size in enumerate(SIZES, start=1):
        (x,) = draw((2, 4, *size))
        for args, kwargs in [
            ((4, 6, 3), {}),
            ((4, 6, 3, 2, 1), {"bias": False}),
            ((4, 6, 2), {"dilation": 2, "padding": 1}),
            ((4, 8, 3), {"groups": 2, "padding": "valid"}),
            ((4, 4, 3), {"groups": 4, "padding": "same"}),
            ((4, 2, 4), {"padding": "same"}),
            ((4, 2, 2), {"padding": "same", "dilation": 3}),
            ((4, 2, 3), {"padding": 1, "padding_mode": "reflect"}),
            ((4, 2, 4), {"padding": "same", "padding_mode": "replicate"}),
            ((4, 2, 3), {"padding": 2, "padding_mode": "circular", "stride": 2}),
        ]:
            yield f"Conv{n}d", args, kwargs, x
        yield f"Conv{n}d", (4, 6, 3), {}, x[0]
        yield f"Conv{n}d", (4, 2, 3), {"padding": 1, "padding_mode": "reflect"}, x[0]
        for args, kwargs in [
            ((4, 6, 3), {}),
            ((4, 6, 3, 2, 1, 1), {}),
            ((4, 6, 3, 3), {"output_padding": 2, "bias": False}),
            ((4, 6, 3), {"groups": 2, "dilation": 2}),
            ((4, 8, 2, 2), {"groups": 4, "padding": 1}),
            ((4, 2, 2), {"dilation": 3, "output_padding": 2}),
        ]:
            yield f"ConvTranspose{n}d", args, kwargs, x
        yield f"ConvTranspose{n}d", (4, 6, 3, 2), {}, x[0]
    (x,) = draw((2, 4, 7, 8))
    yield "Conv2d", (4, 6, (3, 2), (2, 1), (0, 1), (1, 3)), {}, x
    yield "Conv2d", (4, 6, [3, 2]), {"stride": [1, 2]}, x
    yield "ConvTranspose2d", (4, 6, (3, 2), (3, 2), (1, 0), (2, 1), 2, True, (1, 2)), {}, x
    yield "Conv2d", (4, 6, 1), {}, x[:1]


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("name", "args", "kwargs", "x"), list(settings()))
def test_layers_are_pytorchs(compared, name, args, kwargs, x, dtype):
    same_layer(compared, name, args, kwargs, [x], dtype)


@pytest.mark.oracle
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_functions_are_pytorchs(compared, n, dtype):
    x, w, b = draw((2, 4, *SIZES[n - 1]), (6, 2, *(2,) * n), (6,))
    same_function(compared, f"conv{n}d", (2, 1, 2, 2), {}, [x, w, b], dtype)
    same_function(compared, f"conv{n}d", (), {"padding": "same", "groups": 2}, [x[0], w], dtype)
    x, w, b = draw((2, 4, *SIZES[n - 1]), (4, 3, *(2,) * n), (6,))
    same_function(compared, f"conv_transpose{n}d", (2, 1, 1, 2, 2), {}, [x, w, b], dtype)


@pytest.mark.oracle
@pytest.mark.parametrize("wanted", [(13, 15), (13, 16), (2, 6, 14, 15), [14, 16]])
def test_output_size(compared, wanted):
    call = lambda lib, m, x: m(x, output_size=wanted)  # noqa: E731
    same_layer(compared, "ConvTranspose2d", (4, 6, 3, 2, 1), {}, draw((2, 4, 7, 8)), "float64", call=call)


def test_a_window_at_a_time():
    x, w, b = draw((1, 4, 6, 5), (2, 2, 3, 2), (2,))
    y = F.conv2d(*(og.tensor(a, dtype=og.float64) for a in (x, w, b)), (2, 1), (1, 0), (1, 2), 2).numpy()
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (0, 0)))
    for f, i, j in itertools.product(range(2), range(3), range(3)):
        seen = padded[0, 2 * f : 2 * f + 2, 2 * i : 2 * i + 3, j : j + 3 : 2]
        assert y[0, f, i, j] == pytest.approx((seen * w[f]).sum() + b[f])
    assert y.shape == (1, 2, 3, 3)


def test_second_derivatives():
    shapes = (1, 2, 4, 4), (2, 1, 2, 2), (2,)
    check_grads(lambda x, w, b: F.conv2d(x, w, b, padding="same", groups=2), list(draw(*shapes)), order=2)
    check_grads(lambda x, w, b: F.conv_transpose2d(x, w, b, 2, 1, 1, 2), list(draw(*shapes)), order=2)
    check_grads(
        lambda x, w: F.conv_transpose1d(x, w, None, 1, 1, 2, dilation=3), list(draw((1, 2, 4), (2, 1, 2))), order=2
    )


def test_draws():
    og.manual_seed(0)
    m = nn.Conv2d(4, 300, 5)
    assert abs(m.weight).max().item() == pytest.approx(0.1, rel=1e-3) and abs(m.bias).max().item() <= 0.1
    before = m.weight.detach().clone()
    m.reset_parameters()
    assert not og.equal(m.weight, before)


z = lambda lib, *shape: lib.zeros(*shape)  # noqa: E731
WRONG = [
    lambda lib: lib.nn.Conv2d(3, 4, 3)(z(lib, 5, 5)),
    lambda lib: lib.nn.Conv1d(3, 4, 3)(z(lib, 5)),
    lambda lib: lib.nn.Conv3d(3, 4, 3)(z(lib, 1, 3, 4)),
    lambda lib: lib.nn.Conv2d(3, 4, 3)(z(lib, 1, 2, 5, 5)),
    lambda lib: lib.nn.Conv2d(3, 4, 3)(z(lib, 2, 5, 5)),
    lambda lib: lib.nn.Conv1d(4, 4, 3, groups=2)(z(lib, 1, 2, 5)),
    lambda lib: lib.nn.Conv2d(3, 4, 3)(z(lib, 1, 3, 2, 2)),
    lambda lib: lib.nn.Conv2d(3, 4, 3, dilation=2)(z(lib, 1, 3, 4, 9)),
    lambda lib: lib.nn.functional.conv2d(z(lib, 1, 4, 5, 5), z(lib, 3, 2, 3, 3), groups=2),
    lambda lib: lib.nn.functional.conv2d(z(lib, 1, 3, 5, 5), z(lib, 4, 3, 3, 3), z(lib, 3)),
    lambda lib: lib.nn.functional.conv2d(z(lib, 1, 3, 5, 5), z(lib, 4, 3, 3, 3), stride=(1, 2, 3)),
    lambda lib: lib.nn.functional.conv2d(z(lib, 1, 3, 5, 5), z(lib, 4, 3, 3, 3), stride=0),
    lambda lib: lib.nn.functional.conv2d(z(lib, 1, 3, 5, 5), z(lib, 4, 3, 3, 3), padding=-1),
    lambda lib: lib.nn.functional.conv2d(z(lib, 1, 3, 5, 5), z(lib, 4, 3, 3, 3), dilation=0),
    lambda lib: lib.nn.functional.conv2d(z(lib, 1, 3, 5, 5), z(lib, 4, 3, 3, 3), groups=0),
    lambda lib: lib.nn.functional.conv2d(z(lib, 1, 3, 5, 5), z(lib, 4, 3, 3, 3), padding="sane"),
    lambda lib: lib.nn.functional.conv2d(z(lib, 1, 3, 5, 5), z(lib, 4, 3, 3, 3), stride=2, padding="same"),
    lambda lib: lib.nn.functional.conv2d(z(lib, 1, 3, 5, 5).double(), z(lib, 4, 3, 3, 3)),
    lambda lib: lib.nn.ConvTranspose2d(3, 4, 3)(z(lib, 5, 5)),
    lambda lib: lib.nn.ConvTranspose2d(3, 4, 3)(z(lib, 1, 2, 5, 5)),
    lambda lib: lib.nn.ConvTranspose2d(3, 4, 1, padding=1)(z(lib, 1, 3, 1, 1)),
    lambda lib: lib.nn.functional.conv_transpose2d(z(lib, 1, 3, 5, 5), z(lib, 3, 4, 3, 3), z(lib, 3)),
    lambda lib: lib.nn.functional.conv_transpose2d(z(lib, 1, 3, 5, 5), z(lib, 3, 4, 3, 3), output_padding=-1),
    lambda lib: lib.nn.ConvTranspose2d(3, 4, 3, 2)(z(lib, 1, 3, 5, 5), output_size=(20, 20)),
    lambda lib: lib.nn.ConvTranspose2d(3, 4, 3, 2)(z(lib, 1, 3, 5, 5), output_size=(20, 20, 3)),
    lambda lib: lib.nn.ConvTranspose2d(3, 4, 3, padding_mode="reflect"),
    lambda lib: lib.nn.Conv2d(3, 4, 3, padding="same", stride=2),
    lambda lib: lib.nn.Conv2d(3, 4, 3, groups=2),
    lambda lib: lib.nn.Conv2d(4, 3, 3, groups=2),
    lambda lib: lib.nn.Conv2d(4, 3, 3, groups=0),
]


@pytest.mark.oracle
@pytest.mark.parametrize("call", WRONG)
def test_wrong_use_is_reported_as_pytorch_does(call):
    same_error(call)


def test_wrong_use_says_what_is_wrong():
    with pytest.raises(RuntimeError, match=r"expected input\[1, 2, 5, 5\] to have 3 channels, but got 2 channels"):
        nn.Conv2d(3, 4, 3)(og.zeros(1, 2, 5, 5))
    with pytest.raises(OpError, match="output padding must be smaller than either stride or dilation"):
        nn.ConvTranspose2d(3, 4, 3, output_padding=1)(og.zeros(1, 3, 5, 5))
    with pytest.raises(OpError, match="padding_mode must be one of"):
        nn.Conv2d(3, 4, 3, padding_mode="mirror")
    with pytest.raises(OpError, match="Invalid padding string 'sane'"):
        nn.Conv2d(3, 4, 3, padding="sane")
