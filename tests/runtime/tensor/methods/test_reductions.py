"""Reductions and running reductions against PyTorch, NumPy and differences."""

import math

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra import numpy as hnp

import onnxgrad as og
from onnxgrad.errors import AxisError, DTypeError, OpError

from .row import Row, apart, normal, positive, tables

X, D, P = normal(2, 3, 4), apart(2, 3, 4), positive(2, 3, 4)
HOLES = D.copy()
HOLES[0, 1, 2] = HOLES[1, 2, 0] = HOLES[1, 0, 0] = np.nan
TIES = np.array([[1.0, 3.0, 3.0], [2.0, 2.0, 2.0]])


def along(name, x, reference=None, **more):
    """Return a reduction over all, over one axis, over several, with the axis kept."""
    rows = []
    for dim, keep in ((None, False), (1, False), (-1, True), ((0, 2), False)):
        if dim is None:
            wanted = None if reference is None else lambda v: reference(v)
            rows.append(Row(name, lambda t, v: getattr(t, name)(v), (x,), wanted, **more))
            continue
        wanted = None if reference is None else lambda v, dim=dim, keep=keep: reference(v, axis=dim, keepdims=keep)
        rows.append(
            Row(
                f"{name}-{dim}",
                lambda t, v, dim=dim, keep=keep: getattr(t, name)(v, dim=dim, keepdim=keep),
                (x,),
                wanted,
                **more,
            )
        )
    return rows


ROWS = [
    *along("sum", X, np.sum),
    *along("mean", X, np.mean),
    *along("amax", D, np.max),
    *along("amin", D, np.min),
    *along("nansum", HOLES, np.nansum, order=0),
    *along("nanmean", HOLES, np.nanmean, order=0),
    *along("std", X, lambda v, **how: np.std(v, ddof=1, **how)),
    *along("var", X, lambda v, **how: np.var(v, ddof=1, **how)),
    *along("norm", X)[:3],
    *along("all", D > 0, np.all, order=0),
    *along("any", D > 2, np.any, order=0),
    Row("prod", lambda t, v: t.prod(v), (X,), np.prod),
    Row("prod-1", lambda t, v: v.prod(1, keepdim=True), (X,), lambda v: v.prod(1, keepdims=True)),
    Row("max-ties", lambda t, v: v.max(), (TIES,), np.max, order=0),
    Row("max-1", lambda t, v: t.max(v, 1), (D,), lambda v: (v.max(1), v.argmax(1))),
    Row("min-keep", lambda t, v: v.min(dim=0, keepdim=True), (D,), order=2),
    Row("max-other", lambda t, v, w: t.max(v, w), (D, D[::-1].copy()), np.maximum),
    Row("aminmax", lambda t, v: tuple(t.aminmax(v, dim=1)), (D,), lambda v: (v.min(1), v.max(1))),
    Row("aminmax-all", lambda t, v: tuple(v.aminmax()), (D,), lambda v: (v.min(), v.max())),
    Row("argmax", lambda t, v: t.argmax(v), (D,), np.argmax, order=0),
    Row("argmax-keep", lambda t, v: v.argmax(keepdim=True), (D,), order=0),
    Row("argmin-1", lambda t, v: v.argmin(-1, keepdim=True), (D,), lambda v: v.argmin(-1, keepdims=True), order=0),
    Row("std-correction", lambda t, v: v.std(dim=1, correction=0), (X,), lambda v: v.std(1)),
    Row("std-biased", lambda t, v: t.std(v, False), (X,), np.std),
    Row("var_mean", lambda t, v: t.var_mean(v, 1), (X,), lambda v: (v.var(1, ddof=1), v.mean(1))),
    Row("std_mean", lambda t, v: t.std_mean(v, (0, 1), keepdim=True), (X,)),
    Row(
        "count_nonzero",
        lambda t, v: t.count_nonzero(v, dim=1),
        (np.round(X),),
        lambda v: np.count_nonzero(v, 1),
        order=0,
    ),
    Row("logsumexp", lambda t, v: v.logsumexp((0, 2)), (X,), lambda v: np.log(np.exp(v).sum((0, 2)))),
    Row("softmax", lambda t, v: t.softmax(v, 1), (X,), lambda v: np.exp(v) / np.exp(v).sum(1, keepdims=True)),
    Row(
        "log_softmax", lambda t, v: v.log_softmax(dim=-1), (X,), lambda v: v - np.log(np.exp(v).sum(-1, keepdims=True))
    ),
    *(
        Row(f"norm-{p}", lambda t, v, p=p: v.norm(p, 1), (D + 0.01,), lambda v, p=p: np.linalg.norm(v, p, 1), order=1)
        for p in (1, 2, 3, 0.5, math.inf, -math.inf)
    ),
    Row("norm-0", lambda t, v: v.detach().norm(0, 1), (np.round(X),), lambda v: np.linalg.norm(v, 0, 1), order=0),
    Row("norm-zero", lambda t, v: v.norm(3), (np.zeros((2, 2)),), order=0),
    Row("cumsum", lambda t, v: t.cumsum(v, 1), (X,), lambda v: v.cumsum(1)),
    Row("cumprod", lambda t, v: v.cumprod(dim=-1), (X,), lambda v: v.cumprod(-1)),
    Row("cumprod-zero", lambda t, v: v.cumprod(0), (np.array([2.0, 0, 3, 0, 1]),), np.cumprod),
    Row("logcumsumexp", lambda t, v: t.logcumsumexp(v, 2), (X,), lambda v: np.log(np.exp(v).cumsum(2))),
    Row("cummax", lambda t, v: tuple(t.cummax(v, 1)), (D,), order=2),
    Row("cummin", lambda t, v: tuple(v.cummin(0)), (D,), order=2),
    Row("cummax-ties", lambda t, v: tuple(v.cummax(1)), (TIES,), order=0),
    Row("cummax-nan", lambda t, v: tuple(v.cummax(0)), (np.array([1, np.nan, 3, np.nan]),), order=0),
    Row("diff", lambda t, v: t.diff(v), (X,), np.diff),
    Row("diff-2", lambda t, v: v.diff(n=2, dim=1), (X,), lambda v: np.diff(v, 2, 1)),
    Row("diff-more", lambda t, v, w: v.diff(dim=0, prepend=w, append=w), (X, X[:1])),
    Row("trapezoid", lambda t, v: t.trapezoid(v, dx=0.5), (X,), lambda v: np.trapezoid(v, dx=0.5)),
    Row(
        "trapezoid-at",
        lambda t, v, w: t.trapezoid(v, w, dim=1),
        (X, X[0, :, 0]),
        lambda v, w: np.trapezoid(v, w, axis=1),
    ),
    Row("cumulative_trapezoid", lambda t, v: t.cumulative_trapezoid(v, dim=1), (X,)),
    Row("scalar-sum", lambda t, v: v.sum(0) + v.max(-1).values + v.softmax(0), (np.array(1.5),), order=0),
]
test_it_is_pytorchs, test_it_is_numpys, test_gradients_are_those_of_differences = tables("reductions", ROWS)


def test_numpys_names():
    x = og.tensor(X)
    assert og.equal(x.sum(axis=1, keepdims=True), x.sum(1, True))
    assert og.equal(x.std(axis=1), x.std(1)) and og.equal(x.cumsum(axis=0), x.cumsum(0))
    assert og.equal(og.max(x, axis=1).values, x.amax(1))


def test_named_results_print_as_pytorchs():
    found = og.tensor([[1.0, 3.0], [4.0, 2.0]]).max(1)
    assert repr(found) == "torch.return_types.max(\nvalues=tensor([3., 4.]),\nindices=tensor([1, 0]))"
    values, indices = found
    assert values is found.values and indices is found[1]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: og.ones(2, 3).sum(2), AxisError, r"expected to be in range of \[-2, 1\], but got 2"),
        (lambda: og.ones(2, 3).mean((0, 0)), AxisError, "mean: dim 0 appears multiple times"),
        (lambda: og.tensor([1]).mean(), DTypeError, "Got: int64"),
        (lambda: og.tensor([1]).std(), DTypeError, "int64"),
        (lambda: og.ones(0).max(), AxisError, r"max\(\): Expected reduction dim to be specified"),
        (lambda: og.ones(2, 0).amin(1), AxisError, r"amin\(\): Expected reduction dim 1 to have non-zero size"),
        (lambda: og.tensor([1, 2]).softmax(0), DTypeError, "softmax.*int64"),
        (lambda: og.tensor(1.0).diff(), OpError, "at least one-dimensional"),
    ],
)
def test_wrong_use_says_what_is_wrong(call, error, message):
    with pytest.raises(error, match=message):
        call()


@settings(max_examples=50)
@given(hnp.array_shapes(min_dims=1, max_dims=4, max_side=4), st.data())
def test_any_axes_as_numpy(shape, data):
    rank = len(shape)
    axes = data.draw(st.lists(st.integers(-rank, rank - 1), min_size=1, unique_by=lambda a: a % rank))
    keep = data.draw(st.booleans())
    array = np.arange(math.prod(shape), dtype=float).reshape(shape) % 5
    x = og.tensor(array)
    for name in ("sum", "mean", "amax"):
        wanted = getattr(np, name)(array, axis=tuple(axes), keepdims=keep)
        np.testing.assert_allclose(getattr(x, name)(axes, keep).numpy(), wanted)
