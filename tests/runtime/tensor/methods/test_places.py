"""Elements by place, and order, against PyTorch, NumPy and differences: gathers, scatters, sorting."""

import math

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra import numpy as hnp

import onnxgrad as og
from onnxgrad.errors import AxisError, DTypeError, OpError, ShapeError

from .row import RNG, Row, apart, tables

X, M, V = apart(2, 3, 4), apart(3, 5), apart(7)
SRC = apart(3, 5) + 0.1
AT = RNG.integers(0, 3, (2, 5))
ONCE = np.array([[0, 2, 1, 0, 2], [1, 0, 2, 2, 0]])
MASK = M > 0
WHOLE = RNG.integers(0, 5, (4, 6))
HOLES = np.where(M > 1.2, np.nan, M)
ROWS_OF = np.array([2, 0, 2])


def scattered(x, index, src, axis, combine, include=True):
    """Scatter by the definition, one element at a time."""
    y = x.copy()
    seen = set()
    for at in np.ndindex(index.shape):
        to = tuple(index[at] if i == axis else k for i, k in enumerate(at))
        y[to] = src[at] if not include and to not in seen else combine(y[to], src[at])
        seen.add(to)
    return y


PLACES = [
    Row("gather", lambda t, v, i: t.gather(v, 0, i), (M, AT), lambda v, i: np.take_along_axis(v, i, 0)),
    Row("gather-smaller", lambda t, v, i: v.gather(1, i[:, :2]), (M, AT)),
    Row("take", lambda t, v, i: t.take(v, i), (M, AT), np.take),
    Row(
        "take_along_dim",
        lambda t, v, i: t.take_along_dim(v, i, dim=1),
        (M, ROWS_OF[:, None]),
        lambda v, i: np.take_along_axis(v, i, 1),
    ),
    Row("take_along_dim-flat", lambda t, v, i: v.take_along_dim(i), (M, AT), lambda v, i: v.ravel()[i.ravel()]),
    Row("index_select", lambda t, v, i: t.index_select(v, 0, i), (M, ROWS_OF), lambda v, i: v[i]),
    Row("masked_select", lambda t, v, m: t.masked_select(v, m), (M, MASK), lambda v, m: v[m]),
    Row("masked_select-row", lambda t, v, m: v.masked_select(m), (M, MASK[0]), lambda v, m: v[:, m].ravel()),
    Row("nonzero", lambda t, m: t.nonzero(m), (MASK,), np.argwhere, order=0),
    Row("nonzero-tuple", lambda t, m: m.nonzero(as_tuple=True), (MASK,), np.nonzero, order=0),
    Row("argwhere", lambda t, m: t.argwhere(m), (MASK,), np.argwhere, order=0),
    Row("where-places", lambda t, m: t.where(m), (MASK,), np.where, order=0),
    Row("scatter", lambda t, v, i, s: t.scatter(v, 0, i, s), (M, ONCE, SRC[:2])),
    Row(
        "scatter-value",
        lambda t, v, i: v.scatter(0, i, 1.5),
        (M, ONCE),
        lambda v, i: scattered(v, i, np.full(i.shape, 1.5), 0, lambda a, b: b),
    ),
    Row("scatter-named", lambda t, v, i: t.scatter(v, dim=0, index=i, value=-2), (M, AT), order=0),
    Row(
        "scatter-add",
        lambda t, v, i, s: v.scatter(0, i, s.detach(), reduce="add").detach(),
        (M, AT, SRC[:2]),
        lambda v, i, s: scattered(v, i, s, 0, np.add),
        order=0,
        dtypes=(),
    ),  # PyTorch warns
    Row(
        "scatter_add-larger",
        lambda t, v, i, s: v.scatter_add(0, i, s),
        (M, AT, SRC),
        lambda v, i, s: scattered(v, i, s, 0, np.add),
        dtypes=(),
    ),  # PyTorch has no gradient
    Row(
        "scatter_add",
        lambda t, v, i, s: t.scatter_add(v, 0, i, s),
        (M, AT, SRC[:2]),
        lambda v, i, s: scattered(v, i, s, 0, np.add),
    ),
    *(
        Row(
            f"scatter_reduce-{name}-{include}",
            lambda t, v, i, s, name=name, include=include: v.scatter_reduce(0, i, s, name, include_self=include),
            (M, AT, SRC[:2]),
            None if f is None else lambda v, i, s, f=f, include=include: scattered(v, i, s, 0, f, include),
            order=1,
        )
        for name, f in (
            ("sum", np.add),
            ("prod", np.multiply),
            ("mean", None),
            ("amax", np.maximum),
            ("amin", np.minimum),
        )
        for include in (True, False)
    ),
    Row("index_add", lambda t, v, i, s: t.index_add(v, 0, i, s, alpha=2), (M, ROWS_OF, SRC)),
    Row("index_add-1", lambda t, v, i, s: v.index_add(-1, i, s), (M, ROWS_OF, SRC[:, :3].copy())),
    Row("index_copy", lambda t, v, i, s: t.index_copy(v, 0, i, s), (M, np.array([2, 0]), SRC[:2])),
    Row("index_fill", lambda t, v, i: t.index_fill(v, 1, i, -1), (M, ROWS_OF)),
    Row("index_put", lambda t, v, i, s: v.index_put((i, i), s), (M, np.array([0, 2]), SRC[0, :2])),
    Row("index_put-add", lambda t, v, i, s: t.index_put(v, (i,), s, accumulate=True), (M, ROWS_OF, SRC)),
    Row(
        "index_put-mask",
        lambda t, v, m: t.index_put(v, (m,), t.tensor(2.0, dtype=v.dtype)),
        (M, MASK),
        lambda v, m: np.where(m, 2, v),
    ),
    Row("masked_scatter", lambda t, v, m, s: t.masked_scatter(v, m, s), (M, MASK, SRC)),
    Row("put", lambda t, v, i, s: t.put(v, i, s), (M, np.array([1, 7]), SRC[0, :2])),
    Row("put-add", lambda t, v, i, s: v.put(i, s, accumulate=True), (M, np.array([1, 1]), SRC[0, :2])),
    Row("select_scatter", lambda t, v, s: t.select_scatter(v, s, 0, 1), (M, SRC[0])),
    Row("slice_scatter", lambda t, v, s: t.slice_scatter(v, s, 1, 0, 4, 2), (M, SRC[:, :2].copy())),
    Row("diagonal_scatter", lambda t, v, s: t.diagonal_scatter(v, s, 1), (M, SRC[0, :3].copy())),
    Row("renorm", lambda t, v: t.renorm(v, 2, 0, 1.5), (M,), order=1),
    Row("isin", lambda t, a, b: t.isin(a, b), (WHOLE, np.array([1, 3])), np.isin, order=0),
    Row(
        "bincount",
        lambda t, a: t.bincount(a.reshape(-1), minlength=9),
        (WHOLE,),
        lambda a: np.bincount(a.ravel(), minlength=9),
        order=0,
    ),
    Row(
        "bincount-weights", lambda t, a, w: t.bincount(a[0], w[0, :6].detach()), (WHOLE, np.ones((1, 6)) * 0.5), order=0
    ),
    Row("histc", lambda t, v: t.histc(v.detach(), 5), (M,), lambda v: np.histogram(v, 5)[0], order=0),
    Row(
        "histc-range",
        lambda t, v: t.histc(v.detach(), bins=4, min=-1, max=1),
        (M,),
        lambda v: np.histogram(v, 4, (-1, 1))[0],
        order=0,
    ),
    Row(
        "histogram",
        lambda t, v: tuple(t.histogram(v.detach(), 4)),
        (M,),
        lambda v: np.histogram(v, 4),
        order=0,
        dtypes=("float64",),
    ),
    Row(
        "searchsorted",
        lambda t, v, w: t.searchsorted(v.detach(), w.detach()),
        (np.sort(V), M),
        np.searchsorted,
        order=0,
    ),
    Row(
        "searchsorted-rows",
        lambda t, v, w: t.searchsorted(v.detach(), w.detach(), right=True),
        (np.sort(M), SRC[:, :2].copy()),
        order=0,
    ),
    Row(
        "bucketize",
        lambda t, v, w: t.bucketize(v.detach(), w.detach()),
        (M, np.sort(V)),
        lambda v, w: np.searchsorted(w, v),
        order=0,
    ),
    Row(
        "unravel_index", lambda t, i: t.unravel_index(i, (3, 4)), (AT,), lambda i: np.unravel_index(i, (3, 4)), order=0
    ),
]
ORDER = [
    Row("sort", lambda t, v: tuple(t.sort(v, 1)), (M,), lambda v: (np.sort(v, 1), np.argsort(v, 1))),
    Row(
        "sort-down",
        lambda t, v: tuple(v.sort(0, descending=True)),
        (M,),
        lambda v: (-np.sort(-v, 0), np.argsort(-v, 0)),
    ),
    Row("sort-stable", lambda t, a: tuple(t.sort(a, stable=True, dim=-1, descending=True)), (WHOLE,), order=0),
    Row("argsort", lambda t, v: t.argsort(v, dim=-1, descending=True), (M,), lambda v: np.argsort(-v), order=0),
    Row("msort", lambda t, v: t.msort(v), (M,), lambda v: np.sort(v, 0)),
    Row("topk", lambda t, v: tuple(t.topk(v, 2)), (M,)),
    Row("topk-smallest", lambda t, v: tuple(v.topk(3, dim=0, largest=False)), (M,)),
    Row(
        "kthvalue",
        lambda t, v: tuple(t.kthvalue(v, 2, 1, True)),
        (M,),
        lambda v: (np.sort(v, 1)[:, 1:2], np.argsort(v, 1)[:, 1:2]),
    ),
    Row("median", lambda t, v: t.median(v), (V,), np.median),
    Row("median-even", lambda t, v: tuple(v.median(0)), (apart(4, 3),)),
    Row("median-nan", lambda t, v: tuple(t.median(v, 1)), (HOLES,), order=0),
    Row("median-nan-all", lambda t, v: t.median(v).detach(), (HOLES,), order=0),
    Row("median-ties", lambda t, v: t.median(v), (np.array([1.0, 2, 2, 2, 3]),), order=0),
    Row("nanmedian", lambda t, v: tuple(t.nanmedian(v, 1)), (HOLES,), order=0),
    Row("nanmedian-all", lambda t, v: t.nanmedian(v), (HOLES,), order=0),
    Row("median-whole", lambda t, a: t.median(a), (WHOLE,), order=0),
    Row("mode", lambda t, a: tuple(t.mode(a)), (WHOLE,), order=0),
    Row("mode-0", lambda t, v: tuple(t.mode(v, 0, keepdim=True)), (np.round(M),), order=0),
    Row("quantile", lambda t, v: t.quantile(v, 0.3), (M,), lambda v: np.quantile(v, 0.3)),
    Row(
        "quantile-several",
        lambda t, v: t.quantile(v, t.tensor([0.1, 0.5, 1.0], dtype=v.dtype), dim=1, keepdim=True),
        (M,),
    ),
    *(
        Row(
            f"quantile-{how}",
            lambda t, v, how=how: v.quantile(0.35, 1, interpolation=how),
            (M,),
            lambda v, how=how: np.quantile(v, 0.35, 1, method=how),
        )
        for how in ("linear", "lower", "higher", "midpoint", "nearest")
    ),
    Row(
        "quantile-nan", lambda t, v: t.quantile(v.detach(), 0.3, 1), (HOLES,), lambda v: np.quantile(v, 0.3, 1), order=0
    ),
    Row(
        "nanquantile",
        lambda t, v: t.nanquantile(v.detach(), 0.3, 1),
        (HOLES,),
        lambda v: np.nanquantile(v, 0.3, 1),
        order=0,
    ),
    Row(
        "unique",
        lambda t, a: t.unique(a, return_inverse=True, return_counts=True),
        (WHOLE,),
        lambda a: np.unique(a, return_inverse=True, return_counts=True),
        order=0,
    ),
    Row("unique-dim", lambda t, a: t.unique(a, dim=0, return_inverse=True), (WHOLE[[0, 1, 0, 2]],), order=0),
    Row(
        "unique_consecutive",
        lambda t, a: t.unique_consecutive(a, return_inverse=True, return_counts=True),
        (np.array([1, 1, 2, 2, 1]),),
        order=0,
    ),
    Row(
        "unique_consecutive-dim",
        lambda t, a: t.unique_consecutive(a, dim=1),
        (np.array([[1, 1, 2], [3, 3, 2]]),),
        order=0,
    ),
    Row("scalar", lambda t, v: (v.sort().values, v.topk(1).values, v.median()), (np.array(2.0),), order=0),
]
test_places_are_pytorchs, test_places_are_numpys, test_gradients_of_places = tables("places", PLACES)
test_order_is_pytorchs, test_order_is_numpys, test_gradients_of_order = tables("order", ORDER)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: og.ones(2, 3).gather(0, og.zeros(2, dtype=og.int64)), ShapeError, "same number of dimensions"),
        (
            lambda: og.ones(2, 3).gather(0, og.zeros(1, 4, dtype=og.int64)),
            ShapeError,
            r"index \[1, 4\] to be no larger than self \[2, 3\]",
        ),
        (lambda: og.ones(2, 3).gather(0, og.zeros(1, 3)), DTypeError, "gather.*float32"),
        (
            lambda: og.ones(2, 3).gather(1, og.tensor([[3]])),
            RuntimeError,
            "index 3 is out of bounds for dimension 1 with size 3",
        ),
        (lambda: og.ones(2, 3).index_select(0, og.tensor([2])), IndexError, "index 2 is out of bounds"),
        (lambda: og.ones(2).scatter(0, og.tensor([0]), og.ones(1).double()), DTypeError, "float32 and float64"),
        (lambda: og.ones(2).scatter(0, og.tensor([0]), 1.0, reduce="max"), OpError, "either add or multiply"),
        (lambda: og.ones(2, 2).scatter(0, og.tensor([0]), og.ones(1)), ShapeError, "same number of dimensions"),
        (
            lambda: og.ones(2, 2).scatter_add(0, og.tensor([[0, 1]]), og.ones(1, 1)),
            ShapeError,
            r"src \[1, 1\] in scatter_add",
        ),
        (
            lambda: og.ones(2).scatter_reduce(0, og.tensor([0]), og.ones(1), "max"),
            OpError,
            "sum, prod, mean, amax or amin, got max",
        ),
        (lambda: og.ones(2, 2).index_add(0, og.tensor([0]), og.ones(2, 2)), ShapeError, r"Number of indices \(1\)"),
        (
            lambda: og.ones(2, 2).index_put((og.tensor([0]),), og.ones(3)),
            ShapeError,
            r"\[3\] cannot be broadcast .* \[1, 2\]",
        ),
        (lambda: og.ones(3).masked_scatter(og.tensor([True] * 3), og.ones(2)), ShapeError, "2 < 3"),
        (lambda: og.ones(3).masked_select(og.ones(3)), DTypeError, "BoolTensor"),
        (lambda: og.ones(3).topk(4), AxisError, r"selected index k out of range: 4 of 3 along dim 0 of shape \(3,\)"),
        (lambda: og.ones(3).kthvalue(0), AxisError, "out of range for dimension 0"),
        (lambda: og.ones(3).quantile(1.5), OpError, r"range \[0, 1\]"),
        (lambda: og.ones(3).half().quantile(0.5), DTypeError, "float16"),
        (lambda: og.bincount(og.tensor([-1])), OpError, "non-negative"),
        (
            lambda: og.searchsorted(og.ones(2, 3), og.ones(3, 3)),
            ShapeError,
            r"\[2, 3\] and input value tensor \[3, 3\]",
        ),
        (lambda: og.ones(2, 3).select_scatter(og.ones(2), 0, 0), ShapeError, r"src size = \[2\], slice size = \[3\]"),
    ],
)
def test_wrong_use_says_what_is_wrong(call, error, message):
    with pytest.raises(error, match=message):
        call()


@settings(max_examples=50)
@given(hnp.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=4), st.data())
def test_scatters_and_gathers_of_any_shape(shape, data):
    axis = data.draw(st.integers(0, len(shape) - 1))
    small = tuple(data.draw(st.integers(1, n if i != axis else 5)) for i, n in enumerate(shape))
    index = data.draw(hnp.arrays(np.int64, small, elements=st.integers(0, shape[axis] - 1)))
    array = np.arange(math.prod(shape), dtype=float).reshape(shape)
    src = np.arange(math.prod(small), dtype=float).reshape(small) / 8
    x, s = og.tensor(array, requires_grad=True), og.tensor(src, requires_grad=True)
    found = x.scatter_add(axis, og.tensor(index), s)
    np.testing.assert_allclose(found.detach().numpy(), scattered(array, index, src, axis, np.add))
    taken = x.gather(axis, og.tensor(index))
    picked = [array[tuple(index[at] if i == axis else k for i, k in enumerate(at))] for at in np.ndindex(small)]
    np.testing.assert_array_equal(taken.detach().numpy().ravel(), picked)
    found.sum().backward()
    assert (x.grad == 1).all() and (s.grad == 1).all()
