"""Rows of a table at indices, one by one or in bags.

Axes: V rows, D elements of a row, B bags.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from ....ops import create, cumulative, index, layout, pointwise as pw, reduce
from ....ops.errors import AxisError, DTypeError, OpError, ShapeError
from ....ops.types import is_integer
from ...autograd.grad_mode import MODE, no_grad
from ...autograd.node_names import labelled
from ...tensor.tensor import Tensor


def _checked(input: Any, name: str, sparse: bool, rows: Any = None) -> None:
    """Check indices, their values where a number of rows is given.

    Raises:
        DTypeError: if they are no integers.
        AxisError: if one is no row.
        OpError: if a sparse gradient is asked for.
    """
    if not is_integer(input.dtype):
        raise DTypeError(
            "Expected tensor for argument #1 'indices' to have one of the following scalar types: Long, Int; but got "
            f"{input.dtype} instead (while checking arguments for {name})"
        )
    if sparse:
        raise OpError(f"{name}: sparse=True is not supported: gradients are dense")
    places = getattr(input, "_array", input)
    if rows is None or not isinstance(places, np.ndarray) or not places.size:  # a device would be waited for
        return
    for k in (int(places.min()), int(places.max())):
        if not 0 <= k < rows:
            raise AxisError(f"{name}: index out of range in self: index {k} of a table of {rows} rows")


def row_of(padding_idx: int | None, rows: int, name: str = "Padding_idx") -> int | None:
    """Return the place of a padding row counted from the start.

    Raises:
        OpError: if there is no such row.
    """
    if padding_idx is None:
        return None
    if not -rows <= padding_idx < rows:
        raise OpError(f"{name} must be within num_embeddings")
    return padding_idx % rows


def _renormalised(weight: Tensor, input: Any, max_norm: float, norm_type: float) -> None:
    """Shorten in place the rows that are taken and longer than `max_norm`."""
    with no_grad():
        rows = index.unique(layout.reshape(input, shape=(-1,)))[0]
        taken = index.gather(weight, rows, axis=0)
        length = taken.norm(norm_type, 1, True)
        factor = pw.div(max_norm, pw.add(pw.maximum(length, max_norm), 1e-7))
        factor = pw.where(pw.greater(length, max_norm), factor, 1.0)
        weight[rows] = pw.mul(taken, factor)


def _counts(input: Any, like: Any, rows: Any) -> Any:
    """Return how often each row is taken, (V,), in the element type of another."""
    flat = layout.reshape(input, shape=(-1,))
    return index.gather_grad(create.full_like(like, shape=tuple(flat.shape), value=1), flat, axis=0, size=rows)


def embedding(
    input: Any, weight: Any, padding_idx: int | None = None, max_norm: float | None = None, norm_type: float = 2.0,
    scale_grad_by_freq: bool = False, sparse: bool = False,
) -> Any:  # fmt: skip
    """Return the rows of a table at indices.

    Args:
        input: the indices.
        weight: the table, (V, D).
        padding_idx: a row that gets no gradient.
        max_norm: shorten in place the rows that are taken and longer than this.
        norm_type: p of that norm.
        scale_grad_by_freq: divide each row's gradient by how often it is taken.
        sparse: not supported.

    Shapes: (*), (V, D) -> (*, D).

    Raises:
        DTypeError: if the indices are no integers.
        OpError: if `padding_idx` is outside the table, or a sparse gradient is asked for.
    """
    _checked(input, "embedding", sparse, weight.shape[0])
    padding = row_of(padding_idx, weight.shape[0])
    if max_norm is not None:
        _renormalised(weight, input, max_norm, norm_type)
    y = index.gather(weight, input, axis=0)
    if padding is None and not scale_grad_by_freq:
        return labelled(y, "Embedding")
    frozen = y.detach() if hasattr(y, "detach") else y
    if scale_grad_by_freq:
        often = index.gather(_counts(input, frozen, weight.shape[0]), input, axis=0)
        share = pw.div(1.0, layout.unsqueeze(often, axes=(input.ndim,)))
        y = pw.add(frozen, pw.mul(pw.sub(y, frozen), share))
    if padding is not None:
        y = pw.where(layout.unsqueeze(pw.equal(input, padding), axes=(input.ndim,)), frozen, y)
    return labelled(y, "Embedding")


def _checked_bags(input: Any, offsets: Any, per_sample_weights: Any, mode: str, scale_grad_by_freq: bool) -> None:
    """Check the arguments of `embedding_bag`.

    Raises:
        OpError: if they contradict each other.
        ShapeError: if sizes do not fit.
        DTypeError: if the offsets are no integers.
    """
    if mode not in ("sum", "mean", "max"):
        raise OpError("mode has to be one of sum, mean or max")
    if mode == "max" and scale_grad_by_freq:
        raise OpError("max mode does not support scaling the gradient by the frequency")
    if per_sample_weights is not None:
        if mode != "sum":
            raise OpError(
                "embedding_bag: per_sample_weights was not None. per_sample_weights is only supported for mode='sum' "
                f"(got mode='{mode}')."
            )
        if tuple(per_sample_weights.shape) != tuple(input.shape):
            raise ShapeError(
                f"embedding_bag: If per_sample_weights ({tuple(per_sample_weights.shape)}) is not None, then it must "
                f"have the same shape as the input ({tuple(input.shape)})"
            )
    if input.ndim not in (1, 2):
        raise ShapeError(f"input has to be 1D or 2D Tensor, but got Tensor of dimension {input.ndim}")
    if input.ndim == 2 and offsets is not None:
        raise OpError(
            "if input is 2D, then offsets has to be None, as input is treated is a mini-batch of fixed length "
            f"sequences. However, found offsets of type {type(offsets)}"
        )
    if input.ndim == 1:
        if offsets is None:
            raise OpError("offsets has to be a 1D Tensor but got None")
        if offsets.ndim != 1:
            raise ShapeError("offsets has to be a 1D Tensor")
        if not is_integer(offsets.dtype):
            raise DTypeError(f"embedding_bag: offsets are {offsets.dtype}, wanted integers")
        if MODE.trace is None:
            _checked_offsets(offsets.tolist(), input.shape[0])


def _checked_offsets(offsets: list[int], length: int) -> None:
    if offsets and offsets[0] != 0:
        raise ShapeError(
            "offsets[0] has to be 0, i.e., the first sequence in the mini-batch has to start from position 0. "
            f"However, got {offsets[0]}"
        )
    if offsets and offsets[-1] > length:
        raise ShapeError(
            f"offsets[-1] can not be greater than input's length {length} but got offsets[-1] of {offsets[-1]}"
        )
    if any(a > b for a, b in itertools.pairwise(offsets)):
        raise ShapeError(f"embedding_bag: offsets have to grow, found {offsets}")


def embedding_bag(
    input: Any, weight: Any, offsets: Any = None, max_norm: float | None = None, norm_type: float = 2,
    scale_grad_by_freq: bool = False, mode: str = "mean", sparse: bool = False, per_sample_weights: Any = None,
    include_last_offset: bool = False, padding_idx: int | None = None,
) -> Any:  # fmt: skip
    """Return the sum, mean or maximum of the rows of a table in each bag of indices; zeros for an empty bag.

    Args:
        input: the indices, (B, N), or of all bags in a row, (N,).
        weight: the table, (V, D).
        offsets: where each bag starts in a row of indices.
        max_norm: shorten in place the rows that are taken and longer than this.
        norm_type: p of that norm.
        scale_grad_by_freq: divide each row's gradient by how often it is taken.
        mode: `sum`, `mean` or `max`.
        sparse: not supported.
        per_sample_weights: factors of the rows, shaped as the input; for `sum`.
        include_last_offset: whether the last offset is where the last bag ends.
        padding_idx: an index that counts for nothing.

    Shapes: (B, N) or (N,), (V, D) -> (B, D).

    Raises:
        DTypeError: if the indices are no integers.
        OpError: if arguments contradict each other, or a sparse gradient is asked for.
        ShapeError: if sizes do not fit.
    """
    _checked_bags(input, offsets, per_sample_weights, mode, scale_grad_by_freq)
    _checked(input, "embedding_bag", sparse)
    padding = row_of(padding_idx, weight.shape[0], "padding_idx")
    rows = embedding(input, weight, None, max_norm, norm_type, scale_grad_by_freq)
    if per_sample_weights is not None:
        rows = pw.mul(rows, layout.unsqueeze(per_sample_weights, axes=(input.ndim,)))
    padded = None if padding is None else layout.unsqueeze(pw.equal(input, padding), axes=(input.ndim,))
    if padded is not None and mode != "max":
        rows = pw.where(padded, 0.0, rows)
    if input.ndim == 2:
        return _of_rows(rows, padded, mode)
    bags = offsets.shape[0]
    starts = index.gather_grad(
        create.full_like(offsets, shape=(bags,), value=1), offsets, axis=0, size=input.shape[0] + 1
    )
    places = pw.sub(cumulative.cumsum(starts, axis=0), 1)
    bag = layout.slice_(places, starts=(0,), stops=(input.shape[0],), steps=(1,), axes=(0,))
    y = _of_bags(rows, padded, bag, bags, mode)
    if not include_last_offset:
        return y
    return layout.slice_(y, starts=(0,), stops=(bags - 1,), steps=(1,), axes=(0,))


def _counted(rows: Any, padded: Any, width: int) -> Any:
    """Return 1 for each row that counts, else 0, (*, width)."""
    ones = create.full_like(rows, shape=(*rows.shape[:-1], width), value=1)
    return ones if padded is None else pw.where(padded, 0.0, ones)


def _of_rows(rows: Any, padded: Any, mode: str) -> Any:
    """Reduce (B, N, D) to (B, D)."""
    if mode == "sum":
        return reduce.sum_(rows, axes=(1,))
    counts = reduce.sum_(_counted(rows, padded, 1), axes=(1,))
    if mode == "mean":
        return pw.div(reduce.sum_(rows, axes=(1,)), pw.maximum(counts, 1.0))
    if rows.shape[1] == 0:
        return reduce.sum_(rows, axes=(1,))
    found = reduce.max_(rows if padded is None else pw.where(padded, float("-inf"), rows), axes=(1,))
    return pw.where(pw.equal(counts, 0.0), 0.0, found)


def _of_bags(rows: Any, padded: Any, bag: Any, bags: Any, mode: str) -> Any:
    """Reduce (N, D) to (B, D), given which bag each row is in."""
    if mode == "sum":
        return index.gather_grad(rows, bag, axis=0, size=bags)
    counts = index.gather_grad(_counted(rows, padded, 1), bag, axis=0, size=bags)
    if mode == "mean":
        return pw.div(index.gather_grad(rows, bag, axis=0, size=bags), pw.maximum(counts, 1.0))
    low = create.full_like(rows, shape=(bags, rows.shape[1]), value=float("-inf"))
    given = rows if padded is None else pw.where(padded, float("-inf"), rows)
    found = index.scatter_nd(low, layout.unsqueeze(bag, axes=(1,)), given, reduction="max")
    return pw.where(pw.equal(counts, 0.0), 0.0, found)


def one_hot(input: Any, num_classes: int = -1) -> Any:
    """Return int64 ones at the indices along a new last axis.

    Raises:
        DTypeError: if the indices are no integers.
        OpError: if one is negative, or not below the number of classes.
    """
    if not is_integer(input.dtype):
        raise DTypeError("one_hot is only applicable to index tensor of type LongTensor.")
    if MODE.trace is None or num_classes == -1:
        numbers = input.detach().cpu().numpy() if hasattr(input, "detach") else input
        if numbers.size and numbers.min() < 0:
            raise OpError("Class values must be non-negative.")
        if num_classes == -1:
            if not numbers.size:
                raise OpError("Can not infer total number of classes from empty tensor.")
            num_classes = int(numbers.max()) + 1
        elif numbers.size and numbers.max() >= num_classes:
            raise OpError("Class values must be smaller than num_classes.")
    return index.one_hot(input, depth=num_classes, axis=input.ndim, dtype="int64")
