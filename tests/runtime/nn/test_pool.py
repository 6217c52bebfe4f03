"""Pooling and unpooling against PyTorch, and against one window at a time."""

import itertools

import numpy as np
import pytest

import onnxgrad as og
import onnxgrad.nn.functional as F
from onnxgrad.autograd import check_grads
from onnxgrad.ops.errors import OpError, ShapeError

from .layers import draw, same_error, same_function, same_layer
from .parity import both

SIZES = ((11,), (7, 9), (5, 6, 7))


def windows(n):
    """Settings of every kind of pool of n axes."""
    sizes, odd = (3, 2, 4)[:n], tuple(range(1, n + 1))
    for args, kwargs in [
        ((2,), {}),
        ((3, 2, 1), {}),
        ((3,), {"stride": 1, "dilation": 2}),
        ((sizes, 2), {}),
        ((3, odd, 1), {"ceil_mode": True}),
        ((3, 2), {"ceil_mode": True}),
        ((2, 3, 1), {"ceil_mode": True}),
        ((3, 2, 1, 2), {"return_indices": True}),
        ((3, 2), {"return_indices": True, "ceil_mode": True}),
    ]:
        yield f"MaxPool{n}d", args, kwargs
    for args, kwargs in [
        ((2,), {}),
        ((3, 2, 1), {}),
        ((sizes, 2), {}),
        ((3, 2, 1), {"count_include_pad": False}),
        ((3, odd, 1, True), {}),
        ((3, 2, 1, True, False), {}),
        *([((3, 2, 1), {"divisor_override": 5})] if n > 1 else []),
    ]:
        yield f"AvgPool{n}d", args, kwargs
    for args, kwargs in [
        ((2, 2), {}),
        ((1, 3), {"stride": 2}),
        ((3, sizes if n > 1 else 3), {}),
        ((4, 3, 2, True), {}),
    ]:
        yield f"LPPool{n}d", args, kwargs
    yield f"LPPool{n}d", (float("inf"), 2), {}
    yield f"LPPool{n}d", (float("-inf"), 2), {}
    for out in (1, 3, sizes, (None, 2, 5)[:n] if n > 1 else 4, [2] * n):
        yield f"AdaptiveAvgPool{n}d", (out,), {}
        yield f"AdaptiveMaxPool{n}d", (out,), {}
        yield f"AdaptiveMaxPool{n}d", (out,), {"return_indices": True}


SETTINGS = [(n, *setting) for n in (1, 2, 3) for setting in windows(n)]


@pytest.mark.oracle
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("n", "name", "args", "kwargs"), SETTINGS)
def test_layers_are_pytorchs(compared, n, name, args, kwargs, dtype):
    x = draw((2, 3, *SIZES[n - 1]))[0]
    if name.startswith("LP"):
        x = abs(x)  # PyTorch's powers of negative numbers are not numbers
    same_layer(compared, name, args, kwargs, [x], dtype)


@pytest.mark.oracle
@pytest.mark.parametrize("n", [1, 2, 3])
def test_the_batch_axis_may_be_missing(compared, n):
    (x,) = draw((3, *SIZES[n - 1]))
    for name, args in [("MaxPool", (2,)), ("AvgPool", (2,)), ("AdaptiveAvgPool", (3,)), ("AdaptiveMaxPool", (4,))]:
        same_layer(compared, f"{name}{n}d", args, {}, [x], "float64")
    same_layer(compared, f"MaxPool{n}d", (2,), {"return_indices": True}, [x], "float64")
    same_layer(compared, f"AdaptiveMaxPool{n}d", (4,), {"return_indices": True}, [x], "float64")


@pytest.mark.oracle
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("n", "window", "wanted"),
    [
        (1, (2,), None),
        (1, (3, 2, 1), None),
        (2, (2,), (7, 9)),
        (2, (2,), (2, 3, 7, 9)),
        (2, (3, 3), None),
        (2, ((2, 3), (2, 3)), None),
        (3, (2,), (5, 6, 7)),
    ],
)
def test_unpooling(compared, n, window, wanted, dtype):
    import torch

    x = torch.tensor(draw((2, 3, *SIZES[n - 1]))[0])
    y, at = getattr(torch.nn.functional, f"max_pool{n}d")(x, *window, return_indices=True)
    for batch in (slice(None), 0):
        inputs = [y[batch].numpy(), at[batch].numpy()]
        same_layer(
            compared,
            f"MaxUnpool{n}d",
            window,
            {},
            inputs,
            dtype,
            call=lambda lib, m, *xs: m(*xs, None if wanted is None else wanted[-n:]),
        )


@pytest.mark.oracle
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize(
    ("kernel", "size"), [(2, {"output_size": 3}), (1, {"output_size": 1}), (2, {"output_ratio": 0.6})]
)
def test_fractions_of_given_samples(compared, n, kernel, size, dtype):
    (x,) = draw((2, 3, *SIZES[n - 1]))
    samples = np.random.default_rng(1).random((2, 3, n)).astype(dtype)

    def make(lib):
        drawn = lib.tensor(samples, dtype=getattr(lib, dtype))
        return getattr(lib.nn, f"FractionalMaxPool{n}d")(kernel, return_indices=True, _random_samples=drawn, **size)

    both(compared, f"FractionalMaxPool{n}d", make, [x], dtype)


def test_fractions_are_drawn_anew():
    x = og.tensor(draw((1, 2, 40, 40))[0])
    og.manual_seed(0)
    first, second = (F.fractional_max_pool2d(x, 2, output_ratio=(0.5, 0.7)) for _ in range(2))
    assert first.shape == (1, 2, 20, 28) and not og.equal(first, second)
    og.manual_seed(0)
    assert og.equal(first, F.fractional_max_pool2d(x, 2, output_ratio=(0.5, 0.7)))


@pytest.mark.oracle
def test_functions_with_indices(compared):
    (x,) = draw((2, 3, 7, 9))
    same_function(compared, "max_pool2d_with_indices", (3, 2, 1), {}, [x], "float64")
    same_function(compared, "adaptive_max_pool2d_with_indices", ((3, 4),), {}, [x], "float64")


@pytest.mark.oracle
def test_of_equal_elements_and_nan_the_first_counts():
    import torch

    x = np.array([[[1.0, 2, 2, 2, np.nan, 0, 1, 1, 1]]], np.float32)
    for call in (lambda f, x: f.max_pool1d(x, 3, return_indices=True), lambda f, x: f.adaptive_max_pool1d(x, 4, True)):
        ours, theirs = call(F, og.tensor(x)), call(torch.nn.functional, torch.tensor(x))
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_a_bin_at_a_time():
    (x,) = draw((1, 2, 5, 7))
    t = og.tensor(x, dtype=og.float64)
    mean, (most, at) = F.adaptive_avg_pool2d(t, (3, 4)).numpy(), F.adaptive_max_pool2d(t, (3, 4), True)
    for c, i, j in itertools.product(range(2), range(3), range(4)):
        rows = slice(i * 5 // 3, -(-(i + 1) * 5 // 3))
        columns = slice(j * 7 // 4, -(-(j + 1) * 7 // 4))
        part = x[0, c, rows, columns]
        assert mean[0, c, i, j] == pytest.approx(part.mean()) and most[0, c, i, j].item() == part.max()
        assert x[0, c].reshape(-1)[at[0, c, i, j].item()] == part.max()


def test_unpooling_undoes_pooling():
    x = og.tensor(draw((2, 3, 6, 8))[0])
    y, at = F.max_pool2d(x, 2, return_indices=True)
    back = F.max_unpool2d(y, at, 2)
    assert back.shape == x.shape and og.equal(back[back != 0], x[back != 0]) and (back != 0).sum().item() == y.numel()
    assert og.equal(F.max_pool2d(back.clamp(min=0), 2), y.clamp(min=0))


def test_second_derivatives():
    (x,) = draw((1, 2, 5, 5))
    check_grads(lambda x: F.max_pool2d(x, 2, 1, return_indices=True)[0], [x], order=2)
    check_grads(lambda x: F.adaptive_max_pool2d(x, (3, 2)), [x], order=2)
    check_grads(lambda x: F.adaptive_avg_pool2d(x, (3, 2)), [x], order=2)
    check_grads(lambda x: F.avg_pool2d(x, 2, 2, 1, True, False), [x], order=2)
    check_grads(lambda x: F.lp_pool2d(x, 3, 2), [abs(x) + 0.1], order=2)
    at = F.max_pool2d(og.tensor(x), 2, return_indices=True)[1]
    check_grads(lambda y: F.max_unpool2d(y, at, 2, output_size=(5, 5)), list(draw((1, 2, 2, 2))), order=2)


def test_compiled_for_any_batch():
    def f(x):
        y, at = F.max_pool2d(x, 2, return_indices=True)
        return F.max_unpool2d(y, at, 2), F.adaptive_max_pool2d(x, (3, 4)), F.adaptive_avg_pool2d(x, (None, 1))

    compiled = og.compile(f)
    for n in (2, 3, 5):
        x = og.tensor(draw((n, 3, 6, 8))[0])
        for a, b in zip(compiled(x), f(x), strict=True):
            np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-5, atol=1e-6)


z = lambda lib, *shape: lib.zeros(*shape)  # noqa: E731
WRONG = [
    lambda lib: lib.nn.MaxPool2d(2)(z(lib, 5, 5)),
    lambda lib: lib.nn.MaxPool1d(2)(z(lib, 5)),
    lambda lib: lib.nn.MaxPool3d(2)(z(lib, 5, 5)),
    lambda lib: lib.nn.MaxPool2d(2, padding=2)(z(lib, 1, 1, 4, 4)),
    lambda lib: lib.nn.MaxPool2d(3)(z(lib, 1, 1, 2, 2)),
    lambda lib: lib.nn.MaxPool3d(3)(z(lib, 1, 1, 2, 2, 2)),
    lambda lib: lib.nn.MaxPool2d((2, 2, 2))(z(lib, 1, 1, 4, 4)),
    lambda lib: lib.nn.MaxPool2d(2, (1, 2, 3))(z(lib, 1, 1, 4, 4)),
    lambda lib: lib.nn.MaxPool2d(2, padding=-1)(z(lib, 1, 1, 4, 4)),
    lambda lib: lib.nn.MaxPool2d(2, 0)(z(lib, 1, 1, 4, 4)),
    lambda lib: lib.nn.AvgPool3d(2)(z(lib, 5, 5, 5)),
    lambda lib: lib.nn.AvgPool2d(3)(z(lib, 1, 1, 2, 2)),
    lambda lib: lib.nn.AvgPool2d(2, padding=2)(z(lib, 1, 1, 4, 4)),
    lambda lib: lib.nn.AvgPool2d(2, divisor_override=0)(z(lib, 1, 1, 4, 4)),
    lambda lib: lib.nn.AdaptiveAvgPool2d(2)(z(lib, 4, 4)),
    lambda lib: lib.nn.AdaptiveAvgPool3d(2)(z(lib, 4, 4)),
    lambda lib: lib.nn.AdaptiveAvgPool2d((2, 2, 2))(z(lib, 1, 1, 4, 4)),
    lambda lib: lib.nn.AdaptiveAvgPool2d(-1)(z(lib, 1, 1, 4, 4)),
    lambda lib: lib.nn.MaxUnpool2d(2)(z(lib, 1, 1, 2, 2), lib.zeros(1, 1, 2, 3, dtype=lib.int64)),
    lambda lib: lib.nn.MaxUnpool2d(2)(z(lib, 1, 1, 2, 2), z(lib, 1, 1, 2, 2)),
    lambda lib: lib.nn.MaxUnpool2d(2)(z(lib, 2, 2), lib.zeros(2, 2, dtype=lib.int64)),
    lambda lib: lib.nn.MaxUnpool2d(2)(z(lib, 1, 1, 2, 2), lib.full((1, 1, 2, 2), 99, dtype=lib.int64)),
    lambda lib: lib.nn.MaxUnpool2d(2)(z(lib, 1, 1, 2, 2), lib.zeros(1, 1, 2, 2, dtype=lib.int64), (9, 9)),
    lambda lib: lib.nn.MaxUnpool2d(2)(z(lib, 1, 1, 2, 2), lib.zeros(1, 1, 2, 2, dtype=lib.int64), (9, 9, 9)),
    lambda lib: lib.nn.functional.fractional_max_pool2d(z(lib, 1, 1, 4, 4), 2),
    lambda lib: lib.nn.functional.fractional_max_pool2d(z(lib, 1, 1, 4, 4), 2, output_size=4),
    lambda lib: lib.nn.FractionalMaxPool2d(2),
    lambda lib: lib.nn.FractionalMaxPool2d(2, output_size=2, output_ratio=0.5),
    lambda lib: lib.nn.FractionalMaxPool3d(2, output_ratio=2),
]


@pytest.mark.oracle
@pytest.mark.parametrize("call", WRONG)
def test_wrong_use_is_reported_as_pytorch_does(call):
    same_error(call)


def test_wrong_use_says_what_is_wrong():
    with pytest.raises(ShapeError, match="pad should be at most half of effective kernel size"):
        F.max_pool2d(og.zeros(1, 1, 4, 4), 2, padding=2)
    with pytest.raises(ShapeError, match=r"Given input size: \(1x2x2\). Calculated output size: \(1x0x0\)"):
        F.avg_pool2d(og.zeros(1, 1, 2, 2), 3)
    with pytest.raises(OpError, match="kernel_size must be greater than zero"):
        F.max_pool1d(og.zeros(1, 1, 4), 0)
