"""Initialisation: moments and bounds, structure, messages, and the distributions that layers start from."""

import math

import numpy as np
import pytest

import onnxgrad as og
from onnxgrad import nn
from onnxgrad.errors import ModuleError, OpError, ShapeError
from onnxgrad.nn import init


def drawn(name, shape=(60, 50), dtype="float32", **settings):
    og.manual_seed(0)
    t = og.zeros(*shape, dtype=dtype)
    assert getattr(init, name)(t, **settings) is t and str(t.dtype).endswith(dtype)
    return t.numpy().astype(np.float64)


FANS = {"in": 50, "out": 60}
RELU = math.sqrt(2)
UNIFORM = [
    ("uniform_", {"a": -1.0, "b": 3.0}, (-1.0, 3.0)),
    ("xavier_uniform_", {}, math.sqrt(6 / 110)),
    ("xavier_uniform_", {"gain": 2.0}, 2 * math.sqrt(6 / 110)),
    ("kaiming_uniform_", {}, RELU * math.sqrt(3 / 50)),
    ("kaiming_uniform_", {"a": math.sqrt(5)}, math.sqrt(1 / 50)),
    ("kaiming_uniform_", {"mode": "fan_out", "nonlinearity": "tanh"}, 5 / 3 * math.sqrt(3 / 60)),
]
NORMAL = [
    ("normal_", {"mean": 2.0, "std": 0.5}, 2.0, 0.5),
    ("xavier_normal_", {}, 0.0, math.sqrt(2 / 110)),
    ("kaiming_normal_", {}, 0.0, RELU / math.sqrt(50)),
    ("kaiming_normal_", {"mode": "FAN_OUT", "nonlinearity": "selu"}, 0.0, 0.75 / math.sqrt(60)),
]


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize(("name", "settings", "bounds"), UNIFORM)
def test_uniform_draws(name, settings, bounds, dtype):
    low, high = bounds if isinstance(bounds, tuple) else (-bounds, bounds)
    x = drawn(name, dtype=dtype, **settings)
    slack = 2e-3 * (high - low)
    assert x.min() >= low - slack and x.max() <= high + slack
    assert x.min() < low + 0.01 * (high - low) and x.max() > high - 0.01 * (high - low)
    assert x.mean() == pytest.approx((low + high) / 2, abs=0.02 * (high - low))
    assert x.std() == pytest.approx((high - low) / math.sqrt(12), rel=0.03)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize(("name", "settings", "mean", "std"), NORMAL)
def test_normal_draws(name, settings, mean, std, dtype):
    x = drawn(name, dtype=dtype, **settings)
    assert x.mean() == pytest.approx(mean, abs=0.06 * std) and x.std() == pytest.approx(std, rel=0.04)
    z = (x - mean) / std
    assert (z**4).mean() == pytest.approx(3.0, rel=0.15) and abs((z**3).mean()) < 0.15


@pytest.mark.parametrize(("mean", "std", "a", "b"), [(0, 1, -2, 2), (1, 2, -1, 1.5), (0, 1, 1.5, 2), (0, 0.02, -2, 2)])
def test_truncated_draws(mean, std, a, b):
    x = drawn("trunc_normal_", (100, 80), "float64", mean=mean, std=std, a=a, b=b)
    assert a <= x.min() and x.max() <= b
    grid = np.linspace(a, b, 200_001)
    density = np.exp(-(((grid - mean) / std) ** 2) / 2)
    share = density / density.sum()
    expected = (share * grid).sum()
    spread = math.sqrt((share * (grid - expected) ** 2).sum())
    assert x.mean() == pytest.approx(expected, abs=0.05 * spread) and x.std() == pytest.approx(spread, rel=0.03)


def test_a_mean_far_outside_is_warned_of():
    with pytest.warns(UserWarning, match="mean is more than 2 std from"):
        init.trunc_normal_(og.zeros(2), mean=10.0)


def test_fills():
    t = og.zeros(2, 3)
    np.testing.assert_array_equal(init.constant_(t, 0.5).numpy(), np.full((2, 3), 0.5))
    np.testing.assert_array_equal(init.ones_(t).numpy(), np.ones((2, 3)))
    np.testing.assert_array_equal(init.zeros_(t).numpy(), np.zeros((2, 3)))
    np.testing.assert_array_equal(init.eye_(t).numpy(), np.eye(2, 3))


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (4, 2, 3)])
def test_orthogonal_draws(shape):
    x = drawn("orthogonal_", shape, "float64", gain=2.0).reshape(shape[0], -1)
    product = x @ x.T if x.shape[0] <= x.shape[1] else x.T @ x
    np.testing.assert_allclose(product, 4 * np.eye(len(product)), atol=1e-12)


def test_sparse_draws():
    x = drawn("sparse_", (40, 30), sparsity=0.33, std=0.1)
    assert ((x == 0).sum(0) == math.ceil(0.33 * 40)).all()
    assert x[x != 0].std() == pytest.approx(0.1, rel=0.1)


@pytest.mark.oracle
@pytest.mark.parametrize(("shape", "groups"), [((4, 3, 5), 1), ((3, 4, 3, 2), 1), ((6, 2, 3, 3, 3), 3)])
def test_dirac_is_pytorchs(shape, groups):
    import torch

    theirs = torch.nn.init.dirac_(torch.zeros(shape), groups)
    np.testing.assert_array_equal(drawn("dirac_", shape, groups=groups), theirs.numpy())


def test_a_dirac_convolution_hands_on_its_channels():
    conv = nn.Conv2d(3, 3, 3, padding=1, bias=False)
    init.dirac_(conv.weight)
    x = og.tensor(np.random.default_rng(0).standard_normal((1, 3, 4, 4)).astype(np.float32))
    np.testing.assert_allclose(conv(x).detach().numpy(), x.numpy(), atol=1e-6)


@pytest.mark.oracle
@pytest.mark.parametrize(
    "given",
    [
        ("linear",),
        ("conv_transpose2d",),
        ("sigmoid",),
        ("tanh",),
        ("relu",),
        ("leaky_relu",),
        ("leaky_relu", 0.3),
        ("selu",),
    ],
)
def test_gains_are_pytorchs(given):
    import torch

    assert init.calculate_gain(*given) == pytest.approx(torch.nn.init.calculate_gain(*given))


def test_draws_come_from_the_generator_that_is_given():
    g = og.Generator().manual_seed(3)
    a = init.normal_(og.zeros(4), generator=g).tolist()
    assert init.normal_(og.zeros(4), generator=g.manual_seed(3)).tolist() == a


def test_leaves_that_require_gradients_are_overwritten_without_a_trace():
    p = nn.Parameter(og.zeros(3, 3))
    for f in (init.uniform_, init.orthogonal_, init.eye_, init.xavier_normal_):
        assert f(p).requires_grad and p.is_leaf


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: init.xavier_uniform_(og.zeros(3)), ShapeError, "Fan in and fan out can not be computed for tensor"),
        (lambda: init.kaiming_normal_(og.zeros(2, 2), mode="x"), OpError, "Mode x not supported, please use one of"),
        (lambda: init.calculate_gain("x"), OpError, "Unsupported nonlinearity x"),
        (lambda: init.calculate_gain("leaky_relu", True), OpError, "negative_slope True not a valid number"),
        (lambda: init.eye_(og.zeros(3)), ShapeError, "Only tensors with 2 dimensions are supported"),
        (lambda: init.sparse_(og.zeros(3), 0.1), ShapeError, "Only tensors with 2 dimensions are supported"),
        (lambda: init.dirac_(og.zeros(3, 3)), ShapeError, "Only tensors with 3, 4, or 5 dimensions are supported"),
        (lambda: init.dirac_(og.zeros(3, 3, 3), 2), ShapeError, "dim 0 must be divisible by groups"),
        (lambda: init.orthogonal_(og.zeros(3)), ShapeError, "Only tensors with 2 or more dimensions are supported"),
        (lambda: nn.utils.skip_init(dict), ModuleError, "Expected a Module"),
        (lambda: nn.utils.skip_init(nn.ReLU), ModuleError, "must support a 'device' arg"),
    ],
)
def test_what_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("f", [init.kaiming_uniform_, init.kaiming_normal_])
def test_nothing_to_draw_is_warned_of(f):
    with pytest.warns(UserWarning, match="Initializing zero-element tensors is a no-op"):
        f(og.zeros(0, 3))


LAYERS = [
    ("Linear", (40, 30), {}),
    ("Bilinear", (10, 12, 14), {}),
    ("Embedding", (50, 30), {}),
    ("Embedding", (50, 30), {"padding_idx": 3}),
    ("EmbeddingBag", (50, 30), {}),
    ("Conv1d", (12, 14, 5), {}),
    ("Conv2d", (8, 12, 3), {"groups": 4}),
    ("Conv3d", (4, 6, 3), {}),
    ("ConvTranspose1d", (12, 14, 5), {}),
    ("ConvTranspose2d", (8, 12, 3), {"groups": 4}),
    ("ConvTranspose3d", (4, 6, 3), {}),
    ("BatchNorm2d", (5,), {}),
    ("InstanceNorm1d", (5,), {"affine": True, "track_running_stats": True}),
    ("LayerNorm", ((4, 5),), {}),
    ("GroupNorm", (2, 6), {}),
    ("RMSNorm", (6,), {}),
    ("PReLU", (4,), {}),
    ("RNN", (6, 12), {"num_layers": 2}),
    ("LSTM", (6, 12), {"bidirectional": True, "proj_size": 5}),
    ("GRU", (6, 12), {}),
    ("LSTMCell", (6, 12), {}),
    ("GRUCell", (6, 12), {}),
    ("RNNCell", (6, 12), {}),
    ("MultiheadAttention", (16, 2), {}),
    ("MultiheadAttention", (16, 2), {"kdim": 8, "vdim": 10, "add_bias_kv": True}),
    ("TransformerEncoderLayer", (16, 2, 24), {}),
    ("TransformerDecoderLayer", (16, 2, 24), {}),
]


@pytest.mark.oracle
@pytest.mark.parametrize(("name", "args", "kwargs"), LAYERS)
def test_layers_start_from_pytorchs_distributions(name, args, kwargs):
    import torch

    og.manual_seed(0)
    torch.manual_seed(0)

    def samples(lib):
        layers = [getattr(lib.nn, name)(*args, **kwargs) for _ in range(40)]
        found = {}
        for layer in layers:
            for key, value in layer.state_dict().items():
                found.setdefault(key, []).append(value.detach().numpy().ravel())
        return {key: np.concatenate(v) for key, v in found.items()}

    ours, theirs = samples(og), samples(torch)
    assert list(ours) == list(theirs)
    for key, b in theirs.items():
        a = ours[key]
        assert a.shape == b.shape
        if b.std() == 0:
            np.testing.assert_array_equal(a, b, err_msg=key)
            continue
        error = b.std() / math.sqrt(len(b))
        assert abs(a.mean() - b.mean()) < 6 * error, key
        assert a.std() == pytest.approx(b.std(), rel=5 / math.sqrt(len(b))), key
        bounded = ((b / b.std()) ** 4).mean() < 2.4
        if bounded:
            assert abs(a).max() == pytest.approx(abs(b).max(), rel=0.05), key
        assert (a == 0).mean() == pytest.approx((b == 0).mean(), abs=1e-3), key


@pytest.mark.parametrize(("name", "args", "kwargs"), [l for l in LAYERS if l[0] not in ("BatchNorm2d",)][:8])  # noqa: E741
def test_skipping_draws_nothing(name, args, kwargs):
    og.manual_seed(5)
    layer = nn.utils.skip_init(getattr(nn, name), *args, **kwargs)
    after = og.zeros(3)
    init.uniform_(after)
    og.manual_seed(5)
    assert init.uniform_(og.zeros(3)).tolist() == after.tolist()
    made = getattr(nn, name)(*args, **kwargs)
    assert [(k, v.shape) for k, v in layer.state_dict().items()] == [(k, v.shape) for k, v in made.state_dict().items()]
    layer.load_state_dict(made.state_dict())
