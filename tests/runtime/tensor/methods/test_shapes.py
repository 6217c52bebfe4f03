"""Shapes and rearrangements against PyTorch, NumPy and differences; which of them share memory."""

import math

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra import numpy as hnp

import onnxgrad as og
from onnxgrad.errors import AxisError, OpError, ShapeError

from .row import Row, apart, tables

X, M, V = apart(2, 3, 4), apart(3, 4), apart(5)

ROWS = [
    Row("movedim", lambda t, v: t.movedim(v, 0, 2), (X,), lambda v: np.moveaxis(v, 0, 2)),
    Row("moveaxis", lambda t, v: v.moveaxis((0, 1), (-1, 0)), (X,), lambda v: np.moveaxis(v, (0, 1), (-1, 0))),
    Row("swapdims", lambda t, v: v.swapdims(0, -1), (X,), lambda v: np.swapaxes(v, 0, -1)),
    Row("transpose-names", lambda t, v: v.transpose(dim0=0, dim1=1), (X,), lambda v: v.transpose(1, 0, 2)),
    Row("permute-names", lambda t, v: t.permute(v, dims=(2, 0, 1)), (X,), lambda v: v.transpose(2, 0, 1)),
    Row("mT", lambda t, v: v.mT + v.mH + v.adjoint(), (X,), lambda v: 3 * v.swapaxes(1, 2)),
    Row("T", lambda t, v: v.T + v.H + v.t(), (M,), lambda v: 3 * v.T),
    Row("ravel", lambda t, v: t.ravel(v), (X,), np.ravel),
    Row("flatten", lambda t, v: v.flatten(0, 1), (X,), lambda v: v.reshape(6, 4)),
    Row("unflatten", lambda t, v: v.unflatten(-1, (2, -1)), (X,), lambda v: v.reshape(2, 3, 2, 2)),
    Row("squeeze-several", lambda t, v: v[:, None, :, None].squeeze((1, 3)), (M,), lambda v: v),
    Row("squeeze-other", lambda t, v: v.squeeze(0), (M,), lambda v: v),
    Row("tile", lambda t, v: v.tile(2, 1), (X,), lambda v: np.tile(v, (2, 1))),
    Row("tile-more", lambda t, v: t.tile(v, (2, 1, 2)), (M,), lambda v: np.tile(v, (2, 1, 2))),
    Row("repeat", lambda t, v: v.repeat(2, 1, 3), (M,), lambda v: np.tile(v, (2, 1, 3))),
    Row("repeat_interleave", lambda t, v: v.repeat_interleave(2), (M,), lambda v: v.repeat(2)),
    Row("repeat_interleave-dim", lambda t, v: v.repeat_interleave(3, dim=1), (M,), lambda v: v.repeat(3, 1)),
    Row(
        "repeat_interleave-each",
        lambda t, v: t.repeat_interleave(v, t.tensor([2, 0, 1]), dim=0),
        (M,),
        lambda v: v.repeat([2, 0, 1], 0),
    ),
    Row("roll", lambda t, v: t.roll(v, 2), (M,), lambda v: np.roll(v, 2)),
    Row("roll-dims", lambda t, v: v.roll((1, -2), dims=(0, 1)), (M,), lambda v: np.roll(v, (1, -2), (0, 1))),
    Row("roll-0", lambda t, v: v.roll(0, 0), (M,), lambda v: v),
    *(
        Row(f"rot90-{k}", lambda t, v, k=k: t.rot90(v, k, (0, 2)), (X,), lambda v, k=k: np.rot90(v, k, (0, 2)))
        for k in range(-1, 4)
    ),
    Row("flip", lambda t, v: t.flip(v, dims=(0, -1)), (X,), lambda v: np.flip(v, (0, -1))),
    Row("fliplr", lambda t, v: t.fliplr(v), (M,), np.fliplr),
    Row("flipud", lambda t, v: v.flipud(), (M,), np.flipud),
    Row("unfold", lambda t, v: v.unfold(0, 2, 1), (V,), lambda v: np.lib.stride_tricks.sliding_window_view(v, 2)),
    Row("unfold-step", lambda t, v: v.unfold(1, 2, 2), (X,)),
    Row("unfold-last", lambda t, v: v.unfold(-1, 3, 1), (X,)),
    Row("expand", lambda t, v: v[:, None].expand(-1, 2, 4), (M,)),
    Row("expand-lead", lambda t, v: v.expand(2, 3, 4), (M,), lambda v: np.broadcast_to(v, (2, 3, 4))),
    Row("broadcast_to", lambda t, v: t.broadcast_to(v, (2, 3, 4)), (M,), lambda v: np.broadcast_to(v, (2, 3, 4))),
    Row("expand_as", lambda t, v, w: v.expand_as(w), (M, X), lambda v, w: np.broadcast_to(v, w.shape)),
    Row("view_as", lambda t, v: v.view_as(v.reshape(6, 4)), (X,), lambda v: v.reshape(6, 4)),
    Row("reshape-name", lambda t, v: t.reshape(v, shape=(4, -1)), (X,), lambda v: v.reshape(4, -1)),
    Row("sum_to_size", lambda t, v: v.sum_to_size(1, 4), (M,), lambda v: v.sum(0, keepdims=True)),
    Row("tril", lambda t, v: t.tril(v, -1), (M,), lambda v: np.tril(v, -1)),
    Row("triu", lambda t, v: v.triu(diagonal=1), (M,), lambda v: np.triu(v, 1)),
    Row("hstack", lambda t, v, w: t.hstack((v, w)), (M, M[:, :2].copy()), lambda v, w: np.hstack((v, w))),
    Row("hstack-vectors", lambda t, v: t.hstack([v, v]), (V,), lambda v: np.hstack((v, v))),
    Row("vstack", lambda t, v, w: t.vstack((v, w)), (M, M[0]), lambda v, w: np.vstack((v, w))),
    Row("dstack", lambda t, v: t.dstack((v, v)), (M,), lambda v: np.dstack((v, v))),
    Row(
        "column_stack",
        lambda t, v, w: t.column_stack((v, w)),
        (M, M[:, 0].copy()),
        lambda v, w: np.column_stack((v, w)),
    ),
    Row("block_diag", lambda t, v, w: t.block_diag(v, w), (M, V)),
    Row("stack", lambda t, v: t.stack((v, v), dim=-1), (M,), lambda v: np.stack((v, v), -1)),
    Row("cat-empty", lambda t, v: t.cat((t.zeros(0, dtype=v.dtype), v)), (M,), lambda v: v),
    Row(
        "atleast",
        lambda t, v: (t.atleast_1d(v), t.atleast_2d(v), t.atleast_3d(v)),
        (V,),
        lambda v: (v, v[None], v[None, :, None]),
    ),
    Row(
        "broadcast_tensors",
        lambda t, v, w: t.broadcast_tensors(v, w),
        (M, M[:1]),
        lambda v, w: np.broadcast_arrays(v, w),
    ),
    Row(
        "meshgrid",
        lambda t, v, w: t.meshgrid(v, w, indexing="ij"),
        (V, V[:2]),
        lambda v, w: np.meshgrid(v, w, indexing="ij"),
    ),
    Row("meshgrid-xy", lambda t, v, w: t.meshgrid(v, w, indexing="xy"), (V, V[:2]), lambda v, w: np.meshgrid(v, w)),
    Row("cartesian_prod", lambda t, v, w: t.cartesian_prod(v, w), (V, V[:2])),
    Row("combinations", lambda t, v: t.combinations(v, 3), (V,)),
    Row("combinations-again", lambda t, v: t.combinations(v, with_replacement=True), (V,)),
    Row(
        "vander", lambda t, v: t.vander(v, 4), (V,), lambda v: np.vander(v, 4), order=1, dtypes=()
    ),  # PyTorch has no gradient
    Row("tensor_split", lambda t, v: t.tensor_split(v, 2, dim=1), (M,), lambda v: np.array_split(v, 2, 1)),
    Row("tensor_split-at", lambda t, v: v.tensor_split((1, 2), 0), (M,), lambda v: np.array_split(v, (1, 2))),
    Row("hsplit", lambda t, v: t.hsplit(v, 2), (M,), lambda v: np.hsplit(v, 2)),
    Row("vsplit", lambda t, v: t.vsplit(v, 3), (M,), lambda v: np.vsplit(v, 3)),
    Row("dsplit", lambda t, v: t.dsplit(v, (1, 3)), (X,), lambda v: np.dsplit(v, (1, 3))),
    Row("split-sizes", lambda t, v: v.split([1, 2], dim=0), (M,), lambda v: np.split(v, [1])),
    Row("chunk", lambda t, v: v.chunk(2, dim=-1), (V,), lambda v: (v[:3], v[3:])),
    Row("unbind", lambda t, v: t.unbind(v, 1), (X,), lambda v: tuple(v.transpose(1, 0, 2))),
    Row("narrow", lambda t, v: v.narrow(-1, -3, 2), (X,), lambda v: v[..., 1:3]),
    Row("select", lambda t, v: t.select(v, 1, -1), (X,), lambda v: v[:, -1]),
]
test_it_is_pytorchs, test_it_is_numpys, test_gradients_are_those_of_differences = tables("shapes", ROWS)

VIEWS = {
    "view": lambda x: x.view(4, 3),
    "transpose": lambda x: x.transpose(0, 1),
    "T": lambda x: x.T,
    "mT": lambda x: x.mT,
    "permute": lambda x: x.permute(1, 0),
    "movedim": lambda x: x.movedim(0, 1),
    "narrow": lambda x: x.narrow(1, 1, 2),
    "select": lambda x: x.select(0, 1),
    "split": lambda x: x.split(2)[0],
    "chunk": lambda x: x.chunk(2, 1)[1],
    "unbind": lambda x: x.unbind(1)[2],
    "tensor_split": lambda x: x.tensor_split(2)[0],
    "squeeze": lambda x: x.squeeze(0),
    "unsqueeze": lambda x: x.unsqueeze(1),
    "diagonal": lambda x: x.diagonal(),
    "unflatten": lambda x: x.unflatten(1, (2, 2)),
    "detach": lambda x: x.detach(),
    "view-type": lambda x: x.view(og.int32),
    "view-narrower": lambda x: x.view(og.int16),
    "flatten": lambda x: x.flatten(),
    "real": lambda x: x.real,
}
COPIES = {
    "flip": lambda x: x.flip(0),
    "rot90": lambda x: x.rot90(),
    "roll": lambda x: x.roll(0, 0),
    "clone": lambda x: x.clone(),
    "tile": lambda x: x.tile(1, 1),
    "repeat": lambda x: x.repeat(1, 1),
    "diag": lambda x: x.diag(),
    "triu": lambda x: x.triu(-9),
    "index": lambda x: x[[0, 1, 2]],
    "index_select": lambda x: x.index_select(0, og.tensor([0])),
    "nan_to_num": lambda x: x.nan_to_num(),
    "contiguous": lambda x: x.T.contiguous(),
    "ravel": lambda x: x.T.ravel(),
}


@pytest.mark.parametrize("name", VIEWS)
def test_views_share_memory_and_version(name):
    x = og.arange(12.0).reshape(3, 4)
    view = VIEWS[name](x)
    assert np.shares_memory(x.numpy(), view.numpy())
    before = view._version
    x.zero_()
    assert view._version > before and not view.any()


@pytest.mark.parametrize("name", COPIES)
def test_copies_do_not(name):
    x = og.arange(1.0, 13.0).reshape(3, 4)
    copy = COPIES[name](x)
    before = copy.clone()
    x.zero_()
    assert og.equal(copy, before)
    copy.fill_(7)
    assert not x.any()


def test_how_it_lies_in_memory():
    x = og.arange(24.0).reshape(2, 3, 4)
    view = x[1:, ::2, 1:]
    assert x.stride() == (12, 4, 1) and view.stride() == (12, 8, 1) and view.stride(-1) == 1
    assert view.storage_offset() == 13 and x.storage_offset() == 0
    assert view.untyped_storage().data_ptr() == x.data_ptr()
    assert x.is_contiguous() and not view.is_contiguous()
    assert x.itemsize == 4 == x.element_size() and x.nbytes == 96 and x.nelement() == 24 and x.ndimension() == 3
    assert not x.is_cuda and x.is_cpu and x.get_device() == -1 and not x.is_complex() and x.is_signed()
    assert x.view(og.int32).dtype == og.int32 and x.view(og.float64).shape == (2, 3, 2)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: og.ones(2, 3).transpose(0, 2), AxisError, r"range of \[-2, 1\], but got 2"),
        (lambda: og.ones(2, 3).permute(0, 0), AxisError, "dim 0 appears multiple times"),
        (lambda: og.ones(2, 3).permute(0), ShapeError, "is not equal to len"),
        (lambda: og.ones(2, 3).view(4), ShapeError, r"shape '\[4\]' is invalid for input of size 6"),
        (lambda: og.ones(2, 3).reshape(-1, -1), ShapeError, "only one dimension can be inferred"),
        (lambda: og.ones(2, 3).T.view(6), RuntimeError, r"Use .reshape\(...\) instead"),
        (
            lambda: og.ones(2, 3).expand(2, 4),
            ShapeError,
            r"expanded size of the tensor \(4\) must match the existing size \(3\)",
        ),
        (lambda: og.ones(2, 3).expand(3), ShapeError, "must be greater or equal"),
        (lambda: og.ones(2, 3).unflatten(1, (2, 2)), ShapeError, "don't multiply up to the size of dim 1"),
        (lambda: og.ones(2, 3).repeat(2), ShapeError, "Number of dimensions of repeat dims"),
        (lambda: og.ones(2, 3).split([1, 2], 1).split, AttributeError, "split"),
        (lambda: og.ones(2, 3).split([1, 3], 1), ShapeError, r"sum exactly to 3 .* split_sizes=\[1, 3\]"),
        (
            lambda: og.ones(2, 3).narrow(1, 2, 2),
            ShapeError,
            r"start \(2\) \+ length \(2\) exceeds dimension size \(3\)",
        ),
        (lambda: og.ones(2, 3).select(1, 3), IndexError, "index 3 out of range for tensor of size"),
        (lambda: og.ones(2, 3).unfold(1, 4, 1), OpError, "maximum size for tensor at dimension 1 is 3 but size is 4"),
        (lambda: og.ones(2, 3).hsplit(2), ShapeError, "not divisible"),
        (lambda: og.cat([]), OpError, "non-empty list"),
        (
            lambda: og.cat([og.ones(2, 3), og.ones(2, 4)]),
            ShapeError,
            "Expected size 3 but got size 4 for tensor number 1",
        ),
        (lambda: og.stack([og.ones(2), og.ones(3)]), ShapeError, r"got \[2\] at entry 0 and \[3\] at entry 1"),
        (lambda: og.broadcast_tensors(og.ones(2), og.ones(3)), ShapeError, "Shape mismatch"),
        (lambda: og.ones(2).mT, ShapeError, "Got 1-D tensor"),
        (lambda: og.ones(2, 3).flatten(1, 0), ShapeError, "start_dim cannot come after"),
        (lambda: og.ones(2, 3).roll((1, 2), 0), ShapeError, "must align"),
        (lambda: og.ones(2).reshape(2, order="F"), TypeError, "order"),
        (lambda: og.ones(3).view(og.float64), ShapeError, "divisible by 2"),
    ],
)
def test_wrong_use_says_what_is_wrong(call, error, message):
    with pytest.raises(error, match=message):
        call()


@settings(max_examples=60)
@given(hnp.array_shapes(min_dims=1, max_dims=4, max_side=4), st.data())
def test_rearrangements_of_any_shape(shape, data):
    array = np.arange(math.prod(shape), dtype=float).reshape(shape)
    x = og.tensor(array, requires_grad=True)
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    other = data.draw(st.integers(-len(shape), len(shape) - 1))
    by = data.draw(st.integers(-5, 5))
    for found, wanted in (
        (x.movedim(axis, other), np.moveaxis(array, axis, other)),
        (x.roll(by, axis), np.roll(array, by, axis)),
        (x.flip(axis), np.flip(array, axis)),
        (x.repeat_interleave(2, axis), array.repeat(2, axis)),
        (x.diff(dim=axis), np.diff(array, axis=axis)),
    ):
        np.testing.assert_array_equal(found.detach().numpy(), wanted)
    x.roll(by, axis).flip(axis).movedim(axis, other).sum().backward()
    assert x.grad.shape == shape and (x.grad == 1).all()
