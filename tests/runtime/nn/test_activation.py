"""Activations against PyTorch, away from and at their corners."""

import numpy as np
import pytest

import onnxgrad as og
import onnxgrad.nn.functional as F
from onnxgrad import nn
from onnxgrad.autograd import check_grads
from onnxgrad.ops.errors import OpError, ShapeError

from .layers import draw, same_error, same_function, same_layer
from .parity import both

X = draw((4, 6, 3))[0] * 3
CORNERS = np.array([-np.inf, -1e30, -100.0, -6, -3, -1, -0.5, -1e-6, 0, 1e-6, 0.5, 1, 3, 6, 20, 21, 100, 1e30, np.inf])

ALONG = ("Softmax", "Softmin", "LogSoftmax", "Softmax2d", "GLU")
SETTINGS = [
    *[(n, (), {}) for n in ("ReLU", "ReLU6", "SELU", "SiLU", "Mish", "Sigmoid", "LogSigmoid", "Tanh", "Tanhshrink")],
    *[(n, (), {"inplace": True}) for n in ("ReLU", "ReLU6", "SELU", "SiLU", "Mish")],
    ("Softsign", (), {}),
    ("Threshold", (0.5, -2.0), {}),
    ("Threshold", (0.1, 20, True), {}),
    ("Hardtanh", (), {}),
    ("Hardtanh", (-0.5, 2.0), {}),
    ("LeakyReLU", (), {}),
    ("LeakyReLU", (0.2, True), {}),
    ("PReLU", (), {}),
    ("PReLU", (6,), {}),
    ("PReLU", (6, 0.1), {}),
    ("ELU", (), {}),
    ("ELU", (0.5, True), {}),
    ("CELU", (), {}),
    ("CELU", (2.0,), {}),
    ("GELU", (), {}),
    ("GELU", ("tanh",), {}),
    ("Hardshrink", (), {}),
    ("Hardshrink", (1.5,), {}),
    ("Softshrink", (), {}),
    ("Softshrink", (1.5,), {}),
    ("Softplus", (), {}),
    ("Softplus", (2.0, 1.0), {}),
    ("Softmax", (1,), {}),
    ("Softmax", (-1,), {}),
    ("Softmin", (0,), {}),
    ("LogSoftmax", (2,), {}),
    ("Softmax2d", (), {}),
    ("GLU", (1,), {}),
    ("GLU", (0,), {}),
]


@pytest.mark.oracle
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("name", "args", "kwargs"), SETTINGS)
def test_layers_are_pytorchs(compared, name, args, kwargs, dtype):
    call = lambda lib, m, x: m(x * 1)  # noqa: E731 - a leaf is not changed in place
    same_layer(compared, name, args, kwargs, [X], dtype, call=call)
    if name not in ALONG:
        same_layer(compared, name, args, kwargs, [X.reshape(2, 6, 2, 3)], dtype, call=call)


@pytest.mark.oracle
@pytest.mark.parametrize("kwargs", [{}, {"inplace": True}])
def test_hard_layers_are_pytorchs(compared, kwargs):
    call = lambda lib, m, x: m(x * 1)  # noqa: E731
    same_layer(compared, "Hardswish", (), kwargs, [X], "float32", call=call)
    same_layer(compared, "Hardswish", (), kwargs, [X], "float64", call=call)
    same_layer(compared, "Hardsigmoid", (), kwargs, [X], "float32", call=call)
    # in float64 PyTorch's hardsigmoid has 1/6 in float32
    x = og.tensor(X, dtype=og.float64)
    np.testing.assert_allclose(F.hardsigmoid(x).numpy(), np.clip(X / 6 + 0.5, 0, 1), rtol=1e-14)


@pytest.mark.oracle
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("name", "args"),
    [s[:2] for s in SETTINGS if not s[2] and True not in s[1] and s[0] not in ALONG and 6 not in s[1]]
    + [("Hardswish", ())],
)
def test_corners_are_pytorchs(compared, name, args, dtype):
    """Values at the corners, at 0, at large numbers and infinities; gradients where numbers are moderate."""
    make = lambda lib: getattr(lib.nn, name)(*args)  # noqa: E731
    # inf - inf and 0 * inf are left out
    largest = 1e20 if name in ("Mish", "GELU", "Tanhshrink", "Softshrink", "Hardswish", "SiLU") else np.inf
    with np.errstate(all="ignore"):
        both(compared, name, make, [CORNERS[abs(CORNERS) <= 100]], dtype)
        both(compared, name, make, [CORNERS[abs(CORNERS) <= largest]], dtype, call=lambda lib, m, x: m(x.detach()))


def test_in_place():
    x = og.tensor([-1.0, 2.0], requires_grad=True)
    for m, expected in [
        (nn.ReLU(True), [0, 2]),
        (nn.Threshold(0, 7, True), [7, 2]),
        (nn.Hardtanh(-2, 1, True), [-1, 1]),
    ]:
        y = x * 1
        assert m(y) is y and y.tolist() == expected
    y.sum().backward()
    assert x.grad.tolist() == [1, 0]
    with pytest.raises(RuntimeError, match="a leaf Variable that requires grad is being used in an in-place operation"):
        F.relu(x, inplace=True)


@pytest.mark.oracle
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("name", "args", "kwargs"),
    [
        *[
            (n, (), {})
            for n in ("relu", "relu6", "elu", "celu", "selu", "gelu", "silu", "mish", "sigmoid", "logsigmoid")
        ],
        *[(n, (), {}) for n in ("tanh", "tanhshrink", "hardshrink", "softshrink", "softplus", "softsign", "hardtanh")],
        ("leaky_relu", (0.3,), {}),
        ("threshold", (0.2, 7.0), {}),
        ("rrelu", (0.1, 0.4), {}),
        ("rrelu", (0.25, 0.25, True), {}),
        ("softmax", (0,), {}),
        ("softmin", (1,), {}),
        ("log_softmax", (2,), {}),
        ("glu", (1,), {}),
        ("hardtanh", (-2, 1.5), {}),
        ("gelu", (), {"approximate": "tanh"}),
    ],
)
def test_functions_are_pytorchs(compared, name, args, kwargs, dtype):
    same_function(compared, name, args, kwargs, [X], dtype)


@pytest.mark.oracle
def test_weights_of_prelu(compared):
    x, w, one = draw((3, 4, 2), (4,), (1,))
    same_function(compared, "prelu", (), {}, [x, w], "float64")
    same_function(compared, "prelu", (), {}, [x, one], "float64")
    same_function(compared, "prelu", (), {}, [x[0, 0], one], "float64")
    same_function(compared, "prelu", (), {}, [x[0, 0, 0, ...], one], "float64")
    assert nn.PReLU(3, 0.1).weight.tolist() == [np.float32(0.1)] * 3


def test_compiled_in_place():
    f = lambda x: F.elu(F.relu6(x * 2, inplace=True) - 1, inplace=True)  # noqa: E731
    x = og.tensor(X)
    np.testing.assert_allclose(og.compile(f)(x).numpy(), f(x).numpy(), rtol=1e-6)


def test_softmax_of_another_type():
    x = og.tensor([[1, 2], [3, 5]])
    y = F.softmax(x, 1, dtype=og.float64)
    assert y.dtype == og.float64 and np.allclose(y.numpy().sum(1), 1)
    assert og.allclose(F.log_softmax(x, 1, dtype=og.float64).exp(), y)
    assert og.allclose(F.softmin(x, 1, dtype=og.float64), F.softmax(-x, 1, dtype=og.float64))


@pytest.mark.oracle
@pytest.mark.parametrize(("shape", "axis"), [((3,), 0), ((3, 4), 1), ((2, 3, 4), 0), ((2, 3, 4, 5), 1)])
@pytest.mark.parametrize("name", ["softmax", "softmin", "log_softmax"])
def test_an_axis_that_is_not_given(name, shape, axis):
    import torch

    x = draw(shape)[0]
    with pytest.warns(UserWarning, match=f"Implicit dimension choice for {name} has been deprecated"):
        ours = getattr(F, name)(og.tensor(x))
    with pytest.warns(UserWarning, match="Implicit"):
        theirs = getattr(torch.nn.functional, name)(torch.tensor(x))
    np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-5)
    assert og.equal(ours, getattr(F, name)(og.tensor(x), axis))
    assert repr(nn.Softmax()) == "Softmax(dim=None)"


def test_rrelu():
    x = og.tensor(draw((100, 100))[0], requires_grad=True)
    og.manual_seed(0)
    m = nn.RReLU(0.1, 0.3)
    y = m(x)
    y.sum().backward()
    below = x.detach().numpy() < 0
    slopes = x.grad.numpy()[below]
    assert (x.grad.numpy()[~below] == 1).all() and slopes.min() >= 0.1 and slopes.max() < 0.3
    assert slopes.mean() == pytest.approx(0.2, rel=0.01) and slopes.std() == pytest.approx(0.2 / 12**0.5, rel=0.03)
    np.testing.assert_allclose(y.detach().numpy()[below], x.detach().numpy()[below] * slopes, rtol=1e-6)
    og.manual_seed(0)
    assert og.equal(m(x), y) and not og.equal(m(x), y)
    assert og.equal(m.eval()(x), F.leaky_relu(x, 0.2)) and repr(m) == "RReLU(lower=0.1, upper=0.3)"


@pytest.mark.parametrize("hard", [False, True])
def test_gumbel_softmax(hard):
    scores = og.tensor([1.0, 0.0, -1.0, 2.0])
    x = (og.zeros(20000, 4) + scores).requires_grad_()
    og.manual_seed(0)
    y = F.gumbel_softmax(x, tau=0.7, hard=hard)
    np.testing.assert_allclose(y.detach().numpy().sum(1), 1, rtol=1e-5)
    drawn = np.bincount(y.detach().numpy().argmax(1), minlength=4) / len(y)
    np.testing.assert_allclose(drawn, F.softmax(scores, 0).numpy(), atol=0.01)
    og.manual_seed(0)
    smooth = F.gumbel_softmax(x, tau=0.7)
    if hard:
        assert set(np.round(np.unique(y.detach().numpy()), 5)) == {0.0, 1.0}
        weights = og.tensor(draw((20000, 4))[0])
        (mine,) = og.autograd.grad((y * weights).sum(), [x])
        (soft,) = og.autograd.grad((smooth * weights).sum(), [x])
        np.testing.assert_allclose(mine.numpy(), soft.numpy(), rtol=1e-5, atol=1e-7)
    else:
        assert og.equal(smooth, y)
    with pytest.warns(UserWarning, match="`eps` parameter is deprecated"):
        F.gumbel_softmax(x, eps=1e-5)


@pytest.mark.parametrize(
    "name", ["gelu", "silu", "mish", "softplus", "selu", "logsigmoid", "tanhshrink", "softmin", "glu"]
)
def test_second_derivatives(name):
    kwargs = {"dim": 0} if name in ("softmin", "glu") else {}
    check_grads(lambda x: getattr(F, name)(x, **kwargs), list(draw((4, 3))), order=2)


WRONG = [
    lambda lib: lib.nn.GLU()(lib.zeros(3)),
    lambda lib: lib.nn.functional.glu(lib.tensor(1.0)),
    lambda lib: lib.nn.functional.hardtanh(lib.zeros(3), 1.0, -1.0),
    lambda lib: lib.nn.CELU(0.0)(lib.zeros(3)),
    lambda lib: lib.nn.GELU("exact")(lib.zeros(3)),
    lambda lib: lib.nn.functional.rrelu(lib.zeros(3), 0.5, 0.2),
    lambda lib: lib.nn.Softshrink(-1.0)(lib.zeros(3)),
    lambda lib: lib.nn.PReLU(2)(lib.zeros(2, 3)),
    lambda lib: lib.nn.Softmax2d()(lib.zeros(3, 4)),
]


@pytest.mark.oracle
@pytest.mark.parametrize("call", WRONG)
def test_wrong_use_is_reported_as_pytorch_does(call):
    same_error(call)


def test_wrong_use_says_what_is_wrong():
    with pytest.raises(ShapeError, match="Halving dimension must be even"):
        F.glu(og.zeros(3))
    with pytest.raises(OpError, match=r"max_val \(-1\) must be greater than min_val \(1\)"):
        nn.Hardtanh(1, -1)
    with pytest.warns(FutureWarning, match="renamed to `min_val`"):
        assert nn.Hardtanh(min_value=-3).min_val == -3
    with pytest.raises(TypeError, match="unexpected keyword argument 'slope'"):
        nn.ReLU(slope=1)
