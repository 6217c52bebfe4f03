"""In-place changes that gradients flow through: against PyTorch, against differences, and what is refused."""

import gc

import numpy as np
import pytest

import onnxgrad as og
from onnxgrad import autograd
from onnxgrad.ops.errors import AutogradError, DTypeError, ShapeError

START = np.arange(1.0, 7.0).reshape(2, 3)


def whole(lib, w):
    x = w * 2
    x.mul_(w)
    return (x * x).sum()


def of_a_view(lib, w):
    x = w * 2
    x[0].mul_(3)
    return (x * w).sum()


def into_a_plain_tensor(lib, w):
    out = lib.zeros(4, 3, dtype=lib.float64)
    out[1] = w[0] * 2
    out[2:4, 1:] = w[:, :2]
    return (out**2).sum()


def views_follow_their_base(lib, w):
    x = w * 0.5
    turned, flat = x.T, x.view(-1)
    x.mul_(3)
    flat.add_(w.view(-1))
    return (turned * turned).sum() + (flat * 2).sum()


def two_views(lib, w):
    x = w * 1
    a, b = x[0], x.view(-1)
    a.mul_(2)
    b.add_(w.view(-1))
    return (a * b[:3]).sum()


def by_integers(lib, w):
    x = w * 1
    x[lib.tensor([0, 1]), lib.tensor([2, 0])] = lib.tensor([5.0, 6.0], dtype=lib.float64)
    return (x * x * w).sum()


def by_truth_values(lib, w):
    x = w * 1
    x[x > 3.5] = 0
    return (x * x).sum()


def zeroed(lib, w):
    x = w * 1
    x.zero_()
    return (x * w).sum()


def other_is_needed(lib, w):
    x = w * 1
    x.mul_(w * w)
    x.div_(w + 1)
    return x.sum()


def augmented(lib, w):
    x = w * 1
    x += 1
    x[0] += w[1]
    x[:, 1] *= 3
    x -= w * 0.5
    x /= 2
    return (x**2).sum()


def clamped(lib, w):
    x = w * 1
    x.clamp_(1.5, 5.5)
    return (x**2).sum()


def steps(lib, w):
    h, total = lib.zeros(3, dtype=lib.float64), 0
    for i in range(2):
        h = h.clone()
        h.add_(w[i])
        h.tanh_()
        total = total + (h * h).sum()
    return total


def of_a_transposed_copy(lib, w):
    x = (w * 1).t()
    x.mul_(2)
    y = x.contiguous()
    y[0].add_(w[:, 0])
    return (y * x).sum()


def filled_rows(lib, w):
    rows = lib.empty(2, 3, dtype=lib.float64)
    for i in range(2):
        rows[i].copy_(w[i] * (i + 1))
    return (rows**3).sum()


CASES = [
    whole, of_a_view, into_a_plain_tensor, views_follow_their_base, two_views, by_integers, by_truth_values, zeroed,
    other_is_needed, augmented, clamped, steps, of_a_transposed_copy, filled_rows,
]  # fmt: skip


@pytest.mark.oracle
@pytest.mark.parametrize("f", CASES, ids=lambda f: f.__name__)
def test_gradients_to_second_order_are_pytorchs(f):
    torch = pytest.importorskip("torch")

    def found(lib):
        w = lib.tensor(START, requires_grad=True)
        y = f(lib, w)
        (g,) = lib.autograd.grad(y, w, create_graph=True)
        (h,) = lib.autograd.grad((g * g).sum(), w) if g.requires_grad else (g,)
        return [t.detach().numpy() for t in (y, g, h)]

    for ours, theirs in zip(found(og), found(torch), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("f", CASES, ids=lambda f: f.__name__)
def test_gradients_are_those_of_differences(f):
    w = og.tensor(START, requires_grad=True)
    assert autograd.gradcheck(lambda w: f(og, w), (w,))


@pytest.mark.parametrize(
    "f", [whole, into_a_plain_tensor, by_integers, zeroed, other_is_needed, clamped, steps], ids=lambda f: f.__name__
)
def test_they_compile(f):
    w = og.tensor(START, requires_grad=True)
    y = f(og, w)
    (g,) = autograd.grad(y, w)
    again = og.tensor(START, requires_grad=True)
    compiled = og.compile(lambda w: f(og, w))(again)
    np.testing.assert_allclose(compiled.item(), y.item(), rtol=1e-12)
    compiled.backward()
    np.testing.assert_allclose(again.grad.numpy(), g.numpy(), rtol=1e-9)


def test_versions_count_for_all_that_share_memory():
    x = og.zeros(2, 3)
    row, flat, other = x[0], x.view(6), x.detach()
    row.add_(1)
    flat[4] = 5
    assert x._version == row._version == flat._version == other._version == 2
    assert x.tolist() == [[1, 1, 1], [0, 5, 0]] and row._is_view() and row._base is x and x._base is None


@pytest.mark.parametrize(
    ("change", "which"),
    [(lambda t: t.add_(1), "output 0 of ExpBackward0"), (lambda t: t[0].mul_(2), "output 0 of ExpBackward0")],
)
def test_what_backward_needs_may_not_change(change, which):
    y = og.tensor([1.0, 2.0], requires_grad=True).exp()
    change(y)
    with pytest.raises(
        AutogradError,
        match=r"has been modified by an inplace operation: .*is at version 1; expected version 0 instead. Hint",
    ):
        y.sum().backward()


def test_in_place_results_may_not_change_either():
    x = og.tensor([1.0, 2.0], requires_grad=True) * 1
    x.exp_()
    x.add_(1)
    with pytest.raises(AutogradError, match=r"is at version 2; expected version 1"):
        x.sum().backward()


def test_what_nothing_was_saved_of_may_change():
    w = og.tensor([1.0, 2.0], requires_grad=True)
    x = w * 1
    y = x + 1
    x.mul_(5)
    y.sum().backward()
    assert w.grad.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("change", [lambda w: w.add_(1), lambda w: w.__setitem__(0, 1.0), lambda w: w.zero_()])
def test_leaves_refuse_at_once(change):
    w = og.tensor([1.0, 2.0], requires_grad=True)
    with pytest.raises(
        AutogradError, match=r"^a leaf Variable that requires grad is being used in an in-place operation"
    ):
        change(w)
    with pytest.raises(AutogradError, match=r"^a view of a leaf Variable that requires grad"):
        change(w.view(2))
    with og.no_grad():
        view = w.view(2)
    with pytest.raises(AutogradError, match=r"^a view of a leaf Variable"):
        change(view)
    with og.no_grad():
        change(w)
    change(w.data)
    change(w.detach())
    assert w.is_leaf and w.requires_grad


def test_a_retained_gradient_is_that_of_the_new_elements():
    w = og.tensor([1.0, 2.0], requires_grad=True)
    x = w * 1
    x.retain_grad()
    x.mul_(2)
    (x * 3).sum().backward()
    assert x.grad.tolist() == [3.0, 3.0] and w.grad.tolist() == [6.0, 6.0]


def test_views_are_forgotten_with_the_last_reference():
    x = og.zeros(4)
    gc.collect()
    for _ in range(100):
        x[1:].add_(1)
    assert len(x._views) == 0


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda x: x.add_(og.ones(2, 3)), ShapeError, r"output with shape \[3\] doesn't match the broadcast shape"),
        (lambda x: x.__setitem__(0, og.ones(2)), ShapeError, "shape"),
        (
            lambda x: x.long().add_(1.5),
            DTypeError,
            "result type float.* can't be cast to the desired output type int64",
        ),
        (lambda x: x.reshape(1, 3).expand(2, 3).add_(1), AutogradError, "more than one element"),
        (lambda x: x.pow_(og.ones(2, 3)), ShapeError, "an in-place change keeps the shape"),
    ],
)
@pytest.mark.parametrize("recorded", [False, True])
def test_bad_changes(change, error, message, recorded):
    x = og.tensor([1.0, 2.0, 3.0], requires_grad=recorded) * 1
    with pytest.raises(error, match=message):
        change(x)
