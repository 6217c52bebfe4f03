"""Losses and functions against PyTorch, with gradients to order 2."""

import numpy as np
import pytest

import onnxgrad as og
import onnxgrad.nn.functional as F
from onnxgrad.autograd import check_grads
from onnxgrad.ops.errors import OpError, ShapeError

RNG = np.random.default_rng(5)
SCORES = RNG.standard_normal((6, 4))
MAPS = RNG.standard_normal((2, 4, 3, 3))
LABELS = np.array([0, 3, 1, 1, 2, 0])
MAP_LABELS = RNG.integers(0, 4, (2, 3, 3))
WEIGHT = np.array([0.5, 2.0, 1.0, 0.25])
SOFT = np.exp(SCORES[::-1]) / np.exp(SCORES[::-1]).sum(1, keepdims=True)
UNIT = 1 / (1 + np.exp(-SCORES))
BITS = (RNG.random((6, 4)) > 0.5).astype(float)

LOSSES = [
    ("cross_entropy", (SCORES, LABELS), {}),
    ("cross_entropy", (SCORES, LABELS), {"weight": WEIGHT}),
    ("cross_entropy", (SCORES, LABELS), {"weight": WEIGHT, "label_smoothing": 0.2, "ignore_index": 1}),
    ("cross_entropy", (SCORES, LABELS), {"label_smoothing": 0.1}),
    ("cross_entropy", (SCORES, np.where(LABELS == 1, -100, LABELS)), {"label_smoothing": 0.1}),
    ("cross_entropy", (SCORES, SOFT), {}),
    ("cross_entropy", (SCORES, SOFT), {"weight": WEIGHT, "label_smoothing": 0.3}),
    ("cross_entropy", (MAPS, MAP_LABELS), {"weight": WEIGHT, "label_smoothing": 0.1}),
    ("cross_entropy", (SCORES[0], LABELS[0]), {}),
    ("nll_loss", (np.log(SOFT), LABELS), {"weight": WEIGHT, "ignore_index": 0}),
    ("mse_loss", (SCORES, UNIT), {}),
    ("l1_loss", (SCORES, UNIT), {}),
    ("smooth_l1_loss", (SCORES, UNIT), {"beta": 0.5}),
    ("huber_loss", (SCORES, UNIT), {"delta": 0.7}),
    ("binary_cross_entropy", (UNIT, BITS), {"weight": WEIGHT}),
    ("binary_cross_entropy_with_logits", (SCORES * 30, BITS), {}),
    ("binary_cross_entropy_with_logits", (SCORES, BITS), {"pos_weight": WEIGHT, "weight": WEIGHT}),
    ("kl_div", (np.log(UNIT), SOFT), {}),
    ("kl_div", (np.log(UNIT), np.log(SOFT)), {"log_target": True}),
]


def tensors(lib, args, kwargs):
    def one(a):
        return lib.tensor(a, dtype=lib.float64 if np.asarray(a).dtype.kind == "f" else lib.int64)

    x = one(args[0]).requires_grad_()
    rest = [one(a) for a in args[1:]]
    return x, rest, {k: one(v) if isinstance(v, np.ndarray) else v for k, v in kwargs.items()}


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides")
@pytest.mark.parametrize(("name", "args", "kwargs"), LOSSES)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_losses_equal_pytorch(name, args, kwargs, reduction):
    torch = pytest.importorskip("torch")
    x, rest, more = tensors(og, args, kwargs)
    tx, trest, tmore = tensors(torch, args, kwargs)
    y = getattr(F, name)(x, *rest, reduction=reduction, **more)
    want = getattr(torch.nn.functional, name)(tx, *trest, reduction=reduction, **tmore)
    assert y.shape == tuple(want.shape)
    np.testing.assert_allclose(y.detach().numpy(), want.detach().numpy(), rtol=1e-10, atol=1e-12)
    y.sum().backward()
    want.sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), tx.grad.numpy(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("name", "args", "kwargs"), [c for c in LOSSES if c[0] != "l1_loss" and c[1][0].max() < 20])
def test_losses_have_second_derivatives(name, args, kwargs):
    _, rest, more = tensors(og, args, kwargs)
    check_grads(lambda x: getattr(F, name)(x, *rest, **more), [np.asarray(args[0])], order=2)


FUNCTIONS = [
    ("linear", lambda F, x, w, b: F.linear(x, w, b), [(5, 4), (3, 4), (3,)]),
    ("conv2d", lambda F, x, w, b: F.conv2d(x, w, b, (2, 1), "valid"), [(2, 3, 6, 5), (4, 3, 3, 2), (4,)]),
    ("conv1d unbatched", lambda F, x, w: F.conv1d(x, w, padding="same", dilation=2), [(3, 8), (4, 3, 3)]),
    ("conv_transpose1d", lambda F, x, w, b: F.conv_transpose1d(x, w, b, 2, 1, 1), [(2, 3, 5), (3, 2, 3), (2,)]),
    ("conv_transpose3d", lambda F, x, w: F.conv_transpose3d(x, w, stride=2), [(1, 2, 2, 2, 2), (2, 1, 2, 2, 2)]),
    ("max_pool2d", lambda F, x: F.max_pool2d(x, 3, 2, 1), [(2, 3, 7, 8)]),
    ("max_pool2d dilated", lambda F, x: F.max_pool2d(x, 2, 1, 0, 2), [(2, 3, 7, 8)]),
    ("avg_pool2d ceil", lambda F, x: F.avg_pool2d(x, 3, 2, 1, True), [(2, 3, 8, 8)]),
    ("avg_pool1d", lambda F, x: F.avg_pool1d(x, 2), [(2, 3, 8)]),
    ("avg_pool2d divisor", lambda F, x: F.avg_pool2d(x, 2, divisor_override=3), [(2, 3, 4, 4)]),
    ("adaptive", lambda F, x: F.adaptive_avg_pool2d(x, (3, 2)), [(2, 3, 7, 5)]),
    ("batch_norm", lambda F, x, w, b: F.batch_norm(x, None, None, w, b, training=True), [(5, 3, 2), (3,), (3,)]),
    ("layer_norm", lambda F, x, w: F.layer_norm(x, (4,), w), [(2, 3, 4), (4,)]),
    ("group_norm", lambda F, x: F.group_norm(x, 2), [(2, 4, 3)]),
    ("instance_norm", lambda F, x: F.instance_norm(x), [(2, 3, 4)]),
    ("gelu tanh", lambda F, x: F.gelu(x, approximate="tanh"), [(3, 4)]),
    ("softmin", lambda F, x: F.softmin(x, dim=0), [(3, 4)]),
    ("softplus", lambda F, x: F.softplus(x, 3.0, 0.5), [(3, 4)]),
    ("hardtanh", lambda F, x: F.hardtanh(x, -0.5, 0.25), [(3, 4)]),
    ("normalize", lambda F, x: F.normalize(x, dim=-1), [(3, 4)]),
    ("cosine_similarity", lambda F, x, y: F.cosine_similarity(x, y), [(3, 4), (3, 4)]),
    ("pad", lambda F, x: F.pad(x, (1, 2, 0, 1)), [(3, 4)]),
    ("pad reflect", lambda F, x: F.pad(x, (1, 2), mode="reflect"), [(2, 3, 4)]),
    ("pad value", lambda F, x: F.pad(x, (1, -1), value=2.5), [(3, 4)]),
    ("attention", lambda F, q, k, v: F.scaled_dot_product_attention(q, k, v), [(2, 3, 4), (2, 5, 4), (2, 5, 6)]),
    ("causal", lambda F, q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True), [(2, 3, 4)] * 3),
]  # fmt: skip


@pytest.mark.oracle
@pytest.mark.parametrize(("name", "f", "shapes"), FUNCTIONS, ids=[f[0] for f in FUNCTIONS])
def test_functions_equal_pytorch(name, f, shapes):
    torch = pytest.importorskip("torch")
    arrays = [np.random.default_rng(i).standard_normal(s) for i, s in enumerate(shapes)]
    xs = [og.tensor(a, dtype=og.float64, requires_grad=True) for a in arrays]
    ts = [torch.tensor(a, requires_grad=True) for a in arrays]
    y, want = f(F, *xs), f(torch.nn.functional, *ts)
    assert y.shape == tuple(want.shape)
    np.testing.assert_allclose(y.detach().numpy(), want.detach().numpy(), rtol=1e-9, atol=1e-11)
    (y * y).sum().backward()
    (want * want).sum().backward()
    for a, b in zip(xs, ts, strict=True):
        np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=1e-8, atol=1e-9)


@pytest.mark.oracle
def test_one_hot_and_masks_equal_pytorch():
    torch = pytest.importorskip("torch")
    assert F.one_hot(og.tensor([0, 2, 1])).tolist() == torch.nn.functional.one_hot(torch.tensor([0, 2, 1])).tolist()
    q = np.random.default_rng(0).standard_normal((2, 3, 4))
    mask = np.array([[True, False, True], [True, True, True], [False, False, True]])
    ours = F.scaled_dot_product_attention(*[og.tensor(q)] * 3, attn_mask=og.tensor(mask))
    theirs = torch.nn.functional.scaled_dot_product_attention(*[torch.tensor(q)] * 3, attn_mask=torch.tensor(mask))
    np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-6)


def test_batch_norm_moves_running_statistics_without_recording():
    mean, var = og.zeros(2), og.ones(2)
    x = og.tensor([[1.0, 2.0], [3.0, 6.0]], requires_grad=True)
    F.batch_norm(x, mean, var, training=True, momentum=0.5)
    assert mean.tolist() == [1.0, 2.0] and var.tolist() == [1.5, 4.5]
    assert not mean.requires_grad and mean.grad_fn is None


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: F.cross_entropy(og.zeros(3, 2), og.zeros(4, dtype=og.int64)), ShapeError, "batch_size"),
        (lambda: F.mse_loss(og.zeros(2), og.zeros(2), reduction="avg"), OpError, "not a valid value for reduction"),
        (lambda: F.cross_entropy(og.zeros(1, 2), og.tensor([5])), OpError, "5"),
        (lambda: F.cross_entropy(og.zeros(1, 2), og.tensor([0]), label_smoothing=2), OpError, "label_smoothing"),
        (lambda: F.binary_cross_entropy_with_logits(og.zeros(2), og.zeros(3)), ShapeError, "Target size"),
        (lambda: F.max_pool2d(og.zeros(1, 1, 4, 4), 2, padding=2), ShapeError, "half of effective kernel"),
        (lambda: F.conv2d(og.zeros(1, 1, 4, 4), og.zeros(1, 1, 3, 3), stride=2, padding="same"), OpError, "strided"),
        (lambda: F.conv2d(og.zeros(1, 1, 2, 2), og.zeros(1, 1, 3, 3)), ShapeError, "larger than"),
    ],
)
def test_wrong_use_says_what_is_wrong(call, error, message):
    with pytest.raises(error, match=message):
        call()
