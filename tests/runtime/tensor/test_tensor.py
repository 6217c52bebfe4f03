"""Tensors against PyTorch: values, gradients, element types, printing, in-place changes."""

import copy

import numpy as np
import pytest

import onnxgrad as og
from onnxgrad.ops.errors import AutogradError, DTypeError, InputError, ShapeError

X = np.array([[1.5, -2.0, 0.5], [3.0, 0.25, -1.0]])
W = np.array([[0.5, 2.0, -1.5], [1.0, -0.75, 2.5]])

EXPRESSIONS = {
    "add": lambda x, w: x + w,
    "add number": lambda x, w: 2 + x + 1.5,
    "sub": lambda x, w: 1 - x - w,
    "mul": lambda x, w: 3 * x * w,
    "div": lambda x, w: x / w + 2 / x,
    "pow": lambda x, w: x**2 + (x * x) ** 0.5 + 2.0**x,
    "mod": lambda x, w: x % 2,
    "neg abs": lambda x, w: -abs(x),
    "matmul": lambda x, w: x @ w.T,
    "matvec": lambda x, w: x @ w[0],
    "broadcast": lambda x, w: x * w[0] + w[:, :1],
    "sum dim": lambda x, w: (x * w).sum(1),
    "sum dims keepdim": lambda x, w: (x * w).sum((0, 1), keepdim=True),
    "mean": lambda x, w: (x * w).mean(),
    "prod": lambda x, w: x.prod(1),
    "max": lambda x, w: x.max(),
    "max dim": lambda x, w: x.max(1).values,
    "min dim keepdim": lambda x, w: x.min(dim=0, keepdim=True)[0],
    "amax": lambda x, w: x.amax((0, 1)),
    "var": lambda x, w: x.var(1),
    "std": lambda x, w: x.std(),
    "norm": lambda x, w: x.norm() + x.norm(1) + x.norm(dim=1).sum(),
    "logsumexp": lambda x, w: x.logsumexp(1),
    "softmax": lambda x, w: x.softmax(1) * w,
    "log_softmax": lambda x, w: x.log_softmax(0) * w,
    "exp log sqrt": lambda x, w: (x.exp() + 1).log() + (x * x).sqrt(),
    "trigonometric": lambda x, w: x.sin() + x.cos() + x.tanh() + x.sigmoid() + x.atan(),
    "relu": lambda x, w: x.relu(),
    "clamp": lambda x, w: x.clamp(-1.0, 1.5) + x.clamp(min=0.5) + x.clamp(max=0.5),
    "where": lambda x, w: x.where(x > 0, w),
    "masked_fill": lambda x, w: x.masked_fill(x > 1, 0.0) * w,
    "reshape": lambda x, w: x.reshape(3, -1) @ w,
    "view": lambda x, w: x.view(-1) * w.flatten(),
    "permute": lambda x, w: x.permute(1, 0) * w.t(),
    "transpose": lambda x, w: x.transpose(0, 1).reshape(2, 3) * w,
    "squeeze": lambda x, w: x.unsqueeze(0).squeeze() * w.unsqueeze(-1).squeeze(-1),
    "expand": lambda x, w: x[:1].expand(2, 3) * w,
    "repeat": lambda x, w: x.repeat(2, 2),
    "flip": lambda x, w: x.flip(1) * w,
    "split": lambda x, w: x.split(2, 1)[0] * 2 + x.split([1, 2], 1)[1],
    "chunk": lambda x, w: x.chunk(2)[1] * w,
    "unbind": lambda x, w: x.unbind(1)[2] * 3,
    "cumsum": lambda x, w: x.cumsum(1) * w,
    "sort": lambda x, w: x.sort(1)[0] * w,
    "topk": lambda x, w: x.topk(2, 1)[0],
    "tril": lambda x, w: x.tril() * w + x.triu(1),
    "item by item": lambda x, w: x[0, 1] * w[1, 2] + x[1][2],
    "slice": lambda x, w: x[:, ::2] * w[:, 1:],
    "new axis": lambda x, w: x[None, :, 1:, None] * w[..., :2, None],
    "negative index": lambda x, w: x[-1] * w[0],
    "mask": lambda x, w: x[x > 0] * 2,
    "rows": lambda x, w: x[[1, 0, 1]],
    "points": lambda x, w: x[[1, 0, 1], [2, 0, 2]],
    "index and slice": lambda x, w: x[[1, 1], 1:],
}


@pytest.mark.oracle
@pytest.mark.parametrize("name", EXPRESSIONS)
def test_expressions_and_gradients_equal_pytorch(name):
    torch = pytest.importorskip("torch")
    f = EXPRESSIONS[name]
    ours = [og.tensor(v, dtype=og.float64, requires_grad=True) for v in (X, W)]
    theirs = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (X, W)]
    y, want = f(*ours), f(*theirs)
    assert y.shape == tuple(want.shape)
    np.testing.assert_allclose(y.detach().numpy(), want.detach().numpy(), rtol=1e-12, atol=1e-12)
    (y * y).sum().backward()
    (want * want).sum().backward()
    for a, b in zip(ours, theirs, strict=True):
        if b.grad is None:
            assert a.grad is None
        else:
            np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=1e-10, atol=1e-12)


@pytest.mark.oracle
@pytest.mark.parametrize(
    "f",
    [
        lambda t: t.tensor([1, 2]) + 1.5,
        lambda t: t.tensor([1, 2]) / 2,
        lambda t: t.tensor([5, -5]) // 2,
        lambda t: t.tensor([5, -5]) % 3,
        lambda t: t.tensor([1.0, 2.0]) * t.tensor([1, 2]),
        lambda t: t.tensor([1.0, 2.0], dtype=t.float16) * t.tensor(2.0, dtype=t.float64),
        lambda t: t.tensor([1.0, 2.0], dtype=t.float16) + t.tensor([1.0, 2.0]),
        lambda t: t.tensor([1.0, 2.0], dtype=t.bfloat16) + t.tensor([1.0, 2.0], dtype=t.float16),
        lambda t: t.tensor([True, False]) + 1,
        lambda t: t.tensor([True, False]).sum(),
        lambda t: t.tensor([1, 2], dtype=t.int32).sum(),
        lambda t: t.tensor([1, 2]).exp(),
        lambda t: t.tensor([1, 2]) > 1.5,
        lambda t: t.tensor([1, 2]).float().mean(),
        lambda t: t.tensor([1.0, 3.0]).argmax(),
        lambda t: t.arange(5),
        lambda t: t.arange(0, 1, 0.25),
        lambda t: t.full((2,), 3),
        lambda t: t.cat([t.tensor([1]), t.tensor([0.5])]),
        lambda t: t.stack([t.zeros(2), t.ones(2)], 1),
        lambda t: ~t.tensor([True, False]),
        lambda t: t.eye(2)[0].bool(),
        lambda t: t.tensor(3) / t.tensor(2),
        lambda t: t.zeros(2, 3).any(),
        lambda t: t.linspace(0, 1, 5),
    ],
)
def test_element_types_mix_as_in_pytorch(f):
    torch = pytest.importorskip("torch")
    ours, theirs = f(og), f(torch)
    assert str(ours.dtype) == str(theirs.dtype).removeprefix("torch.")
    np.testing.assert_allclose(ours.double().numpy(), theirs.double().numpy(), rtol=1e-6)


@pytest.mark.oracle
@pytest.mark.parametrize(
    "data",
    [
        [[7.0, 7.0], [7.0, 7.0]],
        40.0,
        [1.5, 1000.25],
        [1e-5, 1.0],
        [0.0, -0.5, float("nan"), float("inf")],
        [[1, 20], [300, 4]],
        [True, False],
        [],
        [[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [7.0, 8.0]]],
        [float(i) for i in range(40)],
        [[float(i * j) for i in range(40)] for j in range(30)],
        [1e10, 1.0],
    ],
)
def test_prints_as_pytorch(data):
    torch = pytest.importorskip("torch")
    assert repr(og.tensor(data)) == repr(torch.tensor(data))


def test_repr_names_gradient_and_type():
    x = og.tensor([1.0], requires_grad=True)
    assert repr(x) == "tensor([1.], requires_grad=True)"
    assert repr(x.mean()) == "tensor(1., grad_fn=<MeanBackward0>)"
    assert repr(x.detach().double()) == "tensor([1.], dtype=float64)"
    assert f"{x.mean():.2f}" == "1.00"


def test_operators_take_arrays_on_either_side():
    x = og.tensor([1.0, 2.0])
    for y in (np.array([1.0, 1.0], np.float32) + x, x + np.array([1.0, 1.0], np.float32), [1.0, 1.0] + x):  # noqa: RUF005
        assert isinstance(y, og.Tensor) and y.tolist() == [2.0, 3.0]
    assert (np.float32(2) * x).dtype == og.float32
    assert (x * np.float64(2)).dtype == og.float32
    assert (np.eye(2, dtype=np.float32) @ x).tolist() == [1.0, 2.0]


def test_comparison_with_none_is_identity():
    x = og.tensor([1.0])
    assert (x == None) is False  # noqa: E711
    assert x != "a"


def test_scalars_convert():
    x = og.tensor(2)
    assert (int(x), float(x), bool(x), x.item(), [10, 20, 30][x]) == (2, 2.0, True, 2, 30)
    with pytest.raises(AutogradError, match="ambiguous"):
        bool(og.zeros(2))
    with pytest.raises(TypeError, match="0-d"):
        len(x)


def test_views_share_memory_and_version():
    x = og.zeros(2, 3)
    for view in (x.view(6), x[0], x.t(), x[:, 1:], x.detach(), x.unsqueeze(0), x.data):
        assert np.shares_memory(view.array, x.array)
    row = x[1]
    row.fill_(2.0)
    assert x._version == row._version == 1 and x.sum().item() == 6
    assert x.clone()._version == 0
    with pytest.raises(ShapeError, match="view size"):
        x.t().view(6)


def test_in_place_methods_keep_the_array():
    x = og.tensor([1.0, 4.0])
    array = x.array
    x.add_(1).mul_(2).sub_(og.tensor([0.0, 1.0]), alpha=2).div_(4).clamp_(1.0, 1.5)
    assert x.array is array and x.tolist() == [1.0, 1.5] and x._version == 5
    x += 1
    x[0] = 7
    x[x > 6] = 5.0
    assert x.array is array and x.tolist() == [5.0, 2.5]


def test_changing_a_leaf_in_place_is_refused_but_not_under_no_grad():
    w = og.tensor([1.0, 2.0], requires_grad=True)
    with pytest.raises(AutogradError, match="a leaf Variable that requires grad"):
        w.add_(1)
    with pytest.raises(AutogradError, match="a leaf Variable that requires grad"):
        w += 1
    with pytest.raises(AutogradError, match="a leaf Variable that requires grad"):
        w[0] = 1
    array = w.array
    with og.no_grad():
        w -= 0.5
    assert w.array is array and w.requires_grad and w.is_leaf and w.tolist() == [0.5, 1.5]
    w.data.mul_(2)
    w.detach().add_(1)
    assert w.tolist() == [2.0, 4.0]


def test_augmented_assignment_is_recorded():
    w = og.tensor([1.0, 2.0], requires_grad=True)
    total = og.zeros(2)
    total += w
    total *= w
    total.sum().backward()
    assert w.grad.tolist() == [2.0, 4.0]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: og.zeros(2, 3) + og.zeros(4), ShapeError, "add"),
        (lambda: og.zeros(2, 3) @ og.zeros(2, 3), ShapeError, "matmul: .*inner sizes 3 and 2"),
        (lambda: og.zeros(2, 3).reshape(4), ShapeError, r"shape '\[4\]' is invalid for input of size 6"),
        (lambda: og.zeros(2)[[0, 5]], IndexError, "out of bounds"),
        (lambda: og.zeros(2, requires_grad=True)[[0, 5]], IndexError, "index 5 is out of bounds"),
        (lambda: og.zeros(2, requires_grad=True)[3], IndexError, "index 3 is out of bounds"),
        (lambda: og.zeros(2, requires_grad=True)[0, 0], IndexError, "too many indices"),
        (lambda: og.tensor([1], requires_grad=True), DTypeError, "floating point"),
        (lambda: og.tensor([1, 2]).mean(), DTypeError, "floating point or complex dtype. Got: int64"),
        (lambda: og.zeros(2, requires_grad=True).numpy(), AutogradError, "detach"),
        (lambda: (og.zeros(2, requires_grad=True) * 1).requires_grad_(False), AutogradError, "leaf"),
        (lambda: og.zeros(2).fill_(og.zeros(3)), ShapeError, "fill_ only supports"),
        (lambda: og.zeros(1).to("tpu"), InputError, "tpu"),
    ],
)
def test_wrong_use_says_what_is_wrong(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_copies():
    w = og.tensor([1.0], requires_grad=True)
    (w * 2).backward()
    other = copy.deepcopy(w)
    assert other.requires_grad and other.grad.tolist() == [2.0] and not np.shares_memory(other.array, w.array)
    assert np.shares_memory(copy.copy(w).array, w.array)
    with pytest.raises(AutogradError, match="leaves"):
        copy.deepcopy(w * 2)


def test_random_draws_repeat_from_a_seed():
    def draw():
        og.manual_seed(7)
        return [og.randn(3), og.rand(2, 2), og.randint(0, 10, (4,)), og.randperm(5), og.zeros(3).normal_()]

    assert all(og.equal(a, b) for a, b in zip(draw(), draw(), strict=True))
    g = og.Generator(3)
    a = og.randn(4, generator=g)
    assert not og.equal(a, og.randn(4, generator=g)) and og.equal(a, og.randn(4, generator=og.Generator(3)))
    state = g.get_state()
    b = og.rand(3, generator=g)
    g.set_state(state)
    assert og.equal(b, og.rand(3, generator=g))


def test_functions_are_methods():
    x = [[1.0, -1.0], [2.0, 0.5]]
    assert og.relu(x).tolist() == [[1.0, 0.0], [2.0, 0.5]]
    assert og.einsum("ij,ij->i", og.tensor(x), og.tensor(x)).tolist() == [2.0, 4.25]
    assert og.where(og.tensor([True, False]), 1.0, 2.0).tolist() == [1.0, 2.0]
    assert og.allclose(og.ones(2), og.ones(2) + 1e-9) and og.is_tensor(og.ones(1))
