"""Normalisation against PyTorch, in training and evaluation, with its running statistics."""

import numpy as np
import pytest

import onnxgrad as og
import onnxgrad.nn.functional as F
from onnxgrad import nn
from onnxgrad.autograd import check_grads
from onnxgrad.ops.errors import OpError, ShapeError

from .layers import draw, same_error, same_function, same_layer
from .parity import both

CHANNELS = {1: [(6, 4), (3, 4, 5)], 2: [(3, 4, 5, 2)], 3: [(2, 4, 3, 2, 2)]}
RUNNING = [
    ((4,), {}),
    ((4, 1e-3, 0.3), {}),
    ((4, 1e-5, None), {}),
    ((4,), {"affine": False}),
    ((4,), {"track_running_stats": False}),
    ((4,), {"affine": True, "bias": False, "track_running_stats": True}),
    ((4, 0.1, 0.5, True, True), {}),
]


def twice(lib, m, x):
    """Call a module on two batches, so that running statistics move twice."""
    return m(x), m(x * 2 + 1)


@pytest.mark.oracle
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize(("args", "kwargs"), RUNNING)
@pytest.mark.parametrize("n", [1, 2, 3])
def test_batch_norm(compared, n, args, kwargs, train, dtype):
    for shape in CHANNELS[n]:
        same_layer(compared, f"BatchNorm{n}d", args, kwargs, draw(shape), dtype, train=train, call=twice)


@pytest.mark.oracle
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize(("args", "kwargs"), RUNNING)
@pytest.mark.parametrize("n", [1, 2, 3])
def test_instance_norm(compared, n, args, kwargs, train, dtype):
    (x,) = draw(CHANNELS[n][-1])
    same_layer(compared, f"InstanceNorm{n}d", args, kwargs, [x], dtype, train=train, call=twice)
    same_layer(compared, f"InstanceNorm{n}d", args, kwargs, [x[0]], dtype, train=train)


OTHERS = [
    ("LayerNorm", (5,), {}),
    ("LayerNorm", ((4, 5),), {}),
    ("LayerNorm", ([3, 4, 5], 1e-3), {}),
    ("LayerNorm", (5, 1e-5, False), {}),
    ("LayerNorm", (5,), {"bias": False}),
    ("RMSNorm", (5,), {}),
    ("RMSNorm", ((4, 5), 1e-3), {}),
    ("RMSNorm", (5,), {"elementwise_affine": False}),
    ("GroupNorm", (2, 4), {}),
    ("GroupNorm", (1, 4, 1e-3), {}),
    ("GroupNorm", (4, 4), {"affine": False}),
    ("GroupNorm", (4, 4), {"bias": False}),
    ("LocalResponseNorm", (3,), {}),
    ("LocalResponseNorm", (2, 0.1, 0.5, 2.0), {}),
    ("LocalResponseNorm", (7,), {"alpha": 0.5}),
]


@pytest.mark.oracle
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("name", "args", "kwargs"), OTHERS)
def test_other_layers(compared, name, args, kwargs, dtype):
    same_layer(compared, name, args, kwargs, draw((3, 4, 5) if name[0] in "LR" else (3, 4, 5, 2)), dtype)
    if name == "LocalResponseNorm":
        same_layer(compared, name, args, kwargs, draw((2, 5, 3, 2, 2)), dtype)


@pytest.mark.oracle
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_functions(compared, dtype):
    x, v, w, b = draw((3, 4, 5), (4,), (4,), (4,))
    for f in ("batch_norm", "instance_norm"):
        how = {"batch_norm": {}, "instance_norm": {"use_input_stats": False}}[f]

        def make(lib, f=f, how=how):
            mean, var = (lib.tensor(a, dtype=getattr(lib, dtype)) for a in (w, v * v))
            return lambda x, w, b: getattr(lib.nn.functional, f)(x, mean, var, w, b, **how)

        both(compared, f"F.{f}", make, [x, w, b], dtype)
    same_function(compared, "batch_norm", (None, None), {"training": True}, [x], dtype)
    same_function(compared, "instance_norm", (), {}, [x], dtype)
    same_function(compared, "group_norm", (2,), {}, [x], dtype)
    same_function(compared, "layer_norm", ((5,),), {}, [x], dtype)
    same_function(compared, "rms_norm", ((4, 5),), {}, [x], dtype)
    same_function(compared, "local_response_norm", (2,), {"k": 2.0}, [x], dtype)


@pytest.mark.oracle
def test_layer_norm_of_a_bias_alone(compared):
    import torch

    x, b = draw((3, 4), (4,))
    ours = F.layer_norm(og.tensor(x), (4,), None, og.tensor(b))
    theirs = torch.nn.functional.layer_norm(torch.tensor(x), (4,), None, torch.tensor(b))
    np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-5, atol=1e-6)


def test_running_statistics_by_hand():
    mean, var = og.zeros(2), og.ones(2)
    x = og.tensor([[1.0, 2.0], [3.0, 6.0]], requires_grad=True)
    F.batch_norm(x, mean, var, training=True, momentum=0.5)
    assert mean.tolist() == [1.0, 2.0] and var.tolist() == [1.5, 4.5]
    assert not mean.requires_grad and mean.grad_fn is None
    m = nn.BatchNorm1d(2, momentum=None)
    for k in (0.0, 2.0):
        m(og.tensor([[k, 0.0], [k + 2, 0.0]]))
    assert m.running_mean.tolist() == [2.0, 0.0] and m.num_batches_tracked.item() == 2
    assert og.equal(m.eval()(og.tensor([[2.0, 0.0]])), og.zeros(1, 2))
    m.reset_running_stats()
    assert m.running_mean.tolist() == [0, 0] and m.running_var.tolist() == [1, 1] and not m.num_batches_tracked.item()


def test_what_is_normalised_has_mean_0_and_variance_1():
    x = og.tensor(draw((8, 6, 5, 5))[0], dtype=og.float64) * 3 + 1
    for y, axes in [
        (nn.BatchNorm2d(6).double()(x), (0, 2, 3)),
        (nn.InstanceNorm2d(6).double()(x), (2, 3)),
        (nn.LayerNorm((5, 5)).double()(x), (2, 3)),
    ]:
        np.testing.assert_allclose(y.detach().numpy().mean(axes), 0, atol=1e-12)
        np.testing.assert_allclose(y.detach().numpy().var(axes), 1, rtol=1e-4)


def test_second_derivatives():
    x, w, b = draw((3, 4, 2), (4,), (4,))
    check_grads(lambda x, w, b: F.batch_norm(x, None, None, w, b, True), [x, w, b], order=2)
    check_grads(lambda x, w, b: F.instance_norm(x, None, None, w, b), [draw((2, 2, 4))[0], w[:2], b[:2]], order=2)
    check_grads(lambda x, w, b: F.group_norm(x, 2, w, b), [x, w, b], order=2)
    check_grads(lambda x: F.local_response_norm(x, 3), [x], order=2)
    check_grads(lambda x, w: F.rms_norm(x, (2,), w), [x, w[:2]], order=2)


z = lambda lib, *shape: lib.zeros(*shape)  # noqa: E731
WRONG = [
    lambda lib: lib.nn.BatchNorm1d(3)(z(lib, 2, 3, 4, 4)),
    lambda lib: lib.nn.BatchNorm2d(3)(z(lib, 2, 3)),
    lambda lib: lib.nn.BatchNorm3d(3)(z(lib, 2, 3)),
    lambda lib: lib.nn.BatchNorm2d(3)(z(lib, 2, 4, 3, 3)),
    lambda lib: lib.nn.BatchNorm1d(3)(z(lib, 1, 3)),
    lambda lib: lib.nn.functional.batch_norm(z(lib, 2, 3), z(lib, 3), z(lib, 3), weight=z(lib, 2)),
    lambda lib: lib.nn.functional.batch_norm(z(lib, 2, 3), z(lib, 3), z(lib, 3), eps=-1.0),
    lambda lib: lib.nn.functional.batch_norm(z(lib, 2, 3), z(lib, 3), z(lib, 3), training=True, eps=0.0),
    lambda lib: lib.nn.functional.batch_norm(z(lib, 2, 3), None, None),
    lambda lib: lib.nn.LayerNorm((3, 4))(z(lib, 2, 3, 5)),
    lambda lib: lib.nn.functional.layer_norm(z(lib, 2, 3), (3,), z(lib, 2)),
    lambda lib: lib.nn.functional.layer_norm(z(lib, 2, 3), ()),
    lambda lib: lib.nn.functional.rms_norm(z(lib, 2, 3), (3,), z(lib, 4)),
    lambda lib: lib.nn.functional.group_norm(z(lib, 2, 4, 3), 3),
    lambda lib: lib.nn.functional.group_norm(z(lib, 2, 4, 3), 2, z(lib, 3)),
    lambda lib: lib.nn.functional.group_norm(z(lib, 4), 2),
    lambda lib: lib.nn.functional.group_norm(z(lib, 1, 4), 4),
    lambda lib: lib.nn.GroupNorm(3, 4),
    lambda lib: lib.nn.InstanceNorm1d(3)(z(lib, 2, 3, 1)),
    lambda lib: lib.nn.InstanceNorm1d(3)(z(lib, 2, 3, 4, 4)),
    lambda lib: lib.nn.InstanceNorm2d(3)(z(lib, 2, 3)),
    lambda lib: lib.nn.InstanceNorm2d(3, affine=True)(z(lib, 2, 4, 3, 3)),
]


@pytest.mark.oracle
@pytest.mark.parametrize("call", WRONG)
def test_wrong_use_is_reported_as_pytorch_does(call):
    same_error(call)


def test_wrong_use_says_what_is_wrong():
    with pytest.raises(ShapeError, match="expected 4D input"):
        nn.BatchNorm2d(3)(og.ones(2, 3))
    with pytest.raises(ShapeError, match="more than 1 value per channel"):
        nn.BatchNorm1d(3)(og.ones(1, 3))
    with pytest.raises(OpError, match="running_mean must be defined in evaluation mode"):
        F.batch_norm(og.ones(2, 3), None, None)
    with pytest.raises(ShapeError, match="Expected 3D or higher"):
        F.local_response_norm(og.ones(2, 3), 2)
    with pytest.warns(UserWarning, match="does not match num_features"):
        nn.InstanceNorm1d(3)(og.ones(2, 4, 5))
