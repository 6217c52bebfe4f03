"""Pooling into a number of bins that is asked for: adaptive means and maxima, maxima at fractions, and unpooling."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ....ops import index as index_ops, layout, matmul, pointwise as pw, pool, rank, reduce as red
from ....ops.create import full_like
from ....ops.cumulative import cumsum
from ....ops.dims import Dim, product
from ....ops.errors import DTypeError, OpError, ShapeError
from ....ops.types import Array
from ...tensor.random import uniform
from .pool import avg_pool1d, avg_pool2d, avg_pool3d, max_pool1d, max_pool2d, max_pool3d
from .spatial import batched, beside, known, scalar_type, whole, window_sizes

_AVG: tuple[Callable[..., Any], ...] = (avg_pool1d, avg_pool2d, avg_pool3d)
_MAX: tuple[Callable[..., Any], ...] = (max_pool1d, max_pool2d, max_pool3d)


def adaptive_avg_pool1d(input: Any, output_size: Any) -> Any:
    """Return the means of so many bins of one spatial axis, which overlap where they do not divide it.

    Shapes: (N, C, L) or (C, L) -> (N, C, output_size) or (C, output_size).

    Raises:
        ShapeError: if ranks do not fit.
    """
    return _adaptive_avg(1, input, output_size)


def adaptive_avg_pool2d(input: Any, output_size: Any) -> Any:
    """Return the means of so many bins of two spatial axes; None keeps a size. See `adaptive_avg_pool1d`."""
    return _adaptive_avg(2, input, output_size)


def adaptive_avg_pool3d(input: Any, output_size: Any) -> Any:
    """Return the means of so many bins of three spatial axes; None keeps a size. See `adaptive_avg_pool1d`."""
    return _adaptive_avg(3, input, output_size)


def adaptive_max_pool1d(input: Any, output_size: Any, return_indices: bool = False) -> Any:
    """Return the largest element of so many bins of one spatial axis, which overlap where they do not divide it.

    Args:
        input: the signal.
        output_size: how many bins.
        return_indices: whether to return too where the elements are: indices into the flat spatial axes.

    Shapes: (N, C, L) or (C, L) -> (N, C, output_size) or (C, output_size).

    Raises:
        ShapeError: if ranks do not fit.
    """
    return _adaptive_max(1, input, output_size, return_indices)


def adaptive_max_pool2d(input: Any, output_size: Any, return_indices: bool = False) -> Any:
    """Return the largest of so many bins of two spatial axes; None keeps a size. See `adaptive_max_pool1d`."""
    return _adaptive_max(2, input, output_size, return_indices)


def adaptive_max_pool3d(input: Any, output_size: Any, return_indices: bool = False) -> Any:
    """Return the largest of so many bins of three spatial axes; None keeps a size. See `adaptive_max_pool1d`."""
    return _adaptive_max(3, input, output_size, return_indices)


def adaptive_max_pool1d_with_indices(input: Any, output_size: Any, return_indices: bool = False) -> Any:
    """Return `adaptive_max_pool1d` and where its elements are."""
    return _adaptive_max(1, input, output_size, True)


def adaptive_max_pool2d_with_indices(input: Any, output_size: Any, return_indices: bool = False) -> Any:
    """Return `adaptive_max_pool2d` and where its elements are."""
    return _adaptive_max(2, input, output_size, True)


def adaptive_max_pool3d_with_indices(input: Any, output_size: Any, return_indices: bool = False) -> Any:
    """Return `adaptive_max_pool3d` and where its elements are."""
    return _adaptive_max(3, input, output_size, True)


def _bins(n: int, name: str, input: Any, output_size: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Return the spatial sizes, and how many bins each has."""
    if input.ndim not in (n + 1, n + 2):
        raise ShapeError(f"{name}(): Expected {n + 1}D or {n + 2}D tensor, but got {list(input.shape)}")
    wanted = (output_size,) * n if output_size is None or isinstance(output_size, int) else tuple(output_size)
    if len(wanted) == 1:
        wanted *= n
    if len(wanted) != n:
        raise ShapeError(f"{name}: output_size must be {n}")
    found = tuple(input.shape[-n:])
    out = tuple(s if o is None else whole(o) for o, s in zip(wanted, found, strict=True))
    if known(out) and min(out) < 0:
        shown = ", ".join(map(str, out))
        raise ShapeError(f"{name}: elements of output_size must be greater than or equal to 0 but received {{{shown}}}")
    if any(isinstance(s, Dim) and o not in (1, s) for s, o in zip(found, out, strict=True)):
        raise ShapeError(f"{name}: {out} bins of sizes that only running knows; wanted 1 bin, or None")
    return found, out


def _even(found: Sequence[Any], out: Sequence[Any]) -> bool:
    """Whether bins divide their axes, so that they are windows side by side."""
    return all(s is o or o == 1 or (o and s % o == 0) for s, o in zip(found, out, strict=True))


def _side_by_side(found: Sequence[Any], out: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(1 if s is o else s if o == 1 else s // o for s, o in zip(found, out, strict=True))


def _adaptive_avg(n: int, input: Any, output_size: Any) -> Any:
    found, out = _bins(n, f"adaptive_avg_pool{n}d", input, output_size)
    if all(o == 1 for o in out):
        return red.mean(input, axes=tuple(range(input.ndim - n, input.ndim)), keepdims=True)
    if _even(found, out):
        return _AVG[n - 1](input, _side_by_side(found, out))
    y = input
    for axis, (size, count) in enumerate(zip(found, out, strict=True), start=input.ndim - n):
        y = _mean_bins(y, axis, size, count)
    return y


def _mean_bins(x: Any, axis: int, size: int, count: int) -> Any:
    """Return the means of `count` overlapping bins of an axis, as a product with a matrix of shares."""
    shares = np.zeros((size, count), x.dtype)
    for i in range(count):
        low, high = i * size // count, -(-(i + 1) * size // count)
        shares[low:high, i] = 1 / (high - low)
    last = x.ndim - 1
    order = list(range(x.ndim))
    order[axis], order[last] = last, axis
    y = matmul.matmul(layout.transpose(x, perm=tuple(order)), beside(x, shares))
    return layout.transpose(y, perm=tuple(order))


def _adaptive_max(n: int, input: Any, output_size: Any, return_indices: bool) -> Any:
    found, out = _bins(n, f"adaptive_max_pool{n}d", input, output_size)
    if _even(found, out):
        return _MAX[n - 1](input, _side_by_side(found, out), return_indices=return_indices)
    starts = [np.arange(o) * s // o for s, o in zip(found, out, strict=True)]
    stops = [-(-(np.arange(o) + 1) * s // o) for s, o in zip(found, out, strict=True)]
    places = []
    for low, high in zip(starts, stops, strict=True):
        at = low[:, None] + np.arange((high - low).max(initial=1))
        places.append(np.minimum(at, high[:, None] - 1))  # a shorter bin meets its last element again
    table = _flat_places(places, found)
    y, at = batched(lambda x: _largest(x, table, found), n, input)
    return (y, at) if return_indices else y


def _flat_places(places: Sequence[Array], size: Sequence[int]) -> Array:
    """Return the flat places of all pairs of places of several axes.

    Shapes: for each axis (*B, bins, window) -> (*B, *bins, product(windows)).
    """
    lead, n = places[0].ndim - 2, len(places)
    total: Any = 0
    for axis, (at, pitch) in enumerate(zip(places, (math.prod(size[i + 1 :]) for i in range(n)), strict=True)):
        spread = [1] * (2 * n)
        spread[axis], spread[n + axis] = at.shape[-2], at.shape[-1]
        total = total + (at * pitch).reshape(*at.shape[:lead], *spread)
    return np.ascontiguousarray(total.reshape(*total.shape[: lead + n], -1))


def _largest(x: Any, table: Array, size: Sequence[Any]) -> tuple[Any, Any]:
    """Return the largest elements at flat places, which lie along the last axis, and where they are.

    Shapes: (N, C, *S), (*O, window) or (N, C, *O, window) -> (N, C, *O) twice.
    """
    n, lead = len(size), tuple(x.shape[:2])
    out, width = table.shape[-n - 1 : -1], table.shape[-1]
    flat = layout.reshape(x, shape=(*lead, math.prod(size)))
    fixed = flat.detach() if hasattr(flat, "detach") else flat
    shared = table.ndim == n + 1
    places = beside(x, table.reshape(-1) if shared else table.reshape(*lead, -1))
    take = index_ops.gather if shared else index_ops.gather_elements
    window = layout.reshape(take(fixed, places, axis=2), shape=(*lead, math.prod(out), width))
    corner = beside(x, np.arange(math.prod(out)) * width)
    at = take(places, pw.add(rank.argmax(window, axis=-1), corner), axis=0 if shared else 2)
    y = index_ops.gather_elements(flat, at, axis=2)
    return layout.reshape(y, shape=(*lead, *out)), layout.reshape(at, shape=(*lead, *out))


def fractional_max_pool2d(
    input: Any, kernel_size: Any, output_size: Any = None, output_ratio: Any = None, return_indices: bool = False,
    _random_samples: Any = None,
) -> Any:  # fmt: skip
    """Return the largest elements under windows that start at steps of random sizes, over two spatial axes.

    Args:
        input: the images.
        kernel_size: the sizes of the window.
        output_size: how many windows.
        output_ratio: or how many in relation to the sizes of the images.
        return_indices: whether to return too where the elements are: indices into the flat spatial axes.
        _random_samples: (N, C, 2) numbers from 0 to 1 that decide where the windows start; drawn by default.

    Shapes: (N, C, H, W) or (C, H, W) -> (N, C, *O) or (C, *O).

    Raises:
        OpError: if neither a size nor a ratio is given.
        ShapeError: if the windows do not fit.
    Source: Graham 2014, "Fractional Max-Pooling".
    """
    return _fractional(2, input, kernel_size, output_size, output_ratio, return_indices, _random_samples)


def fractional_max_pool3d(
    input: Any, kernel_size: Any, output_size: Any = None, output_ratio: Any = None, return_indices: bool = False,
    _random_samples: Any = None,
) -> Any:  # fmt: skip
    """Return the largest elements under windows at random steps over three axes; see `fractional_max_pool2d`."""
    return _fractional(3, input, kernel_size, output_size, output_ratio, return_indices, _random_samples)


def fractional_max_pool2d_with_indices(
    input: Any, kernel_size: Any, output_size: Any = None, output_ratio: Any = None, return_indices: bool = False,
    _random_samples: Any = None,
) -> Any:  # fmt: skip
    """Return `fractional_max_pool2d` and where its elements are."""
    return _fractional(2, input, kernel_size, output_size, output_ratio, True, _random_samples)


def fractional_max_pool3d_with_indices(
    input: Any, kernel_size: Any, output_size: Any = None, output_ratio: Any = None, return_indices: bool = False,
    _random_samples: Any = None,
) -> Any:  # fmt: skip
    """Return `fractional_max_pool3d` and where its elements are."""
    return _fractional(3, input, kernel_size, output_size, output_ratio, True, _random_samples)


def _fractional(
    n: int, input: Any, kernel_size: Any, output_size: Any, output_ratio: Any, return_indices: bool, samples: Any
) -> Any:
    name = f"fractional_max_pool{n}d"
    if input.ndim not in (n + 1, n + 2):
        raise ShapeError(f"{name}(): Expected {n + 1}D or {n + 2}D tensor, but got: {list(input.shape)}")
    kernel, found = window_sizes(kernel_size, n, name, "kernel_size"), tuple(input.shape[-n:])
    if output_size is None and output_ratio is None:
        raise OpError(f"{name} requires specifying either an output_size or an output_ratio")
    if output_size is None:
        ratios = (output_ratio,) * n if isinstance(output_ratio, float | int) else tuple(output_ratio)
        output_size = tuple(int(s * r) for s, r in zip(found, ratios, strict=True))
    out = window_sizes(output_size, n, name, "output_size")
    for what, s, k, o in zip(("time", "height", "width")[3 - n :], found, kernel, out, strict=True):
        if o + k - 1 > s:
            raise ShapeError(f"{name}(): pool {what} {k} too large relative to input {what} {s}")
    lead = tuple(input.shape[:2]) if input.ndim == n + 2 else (1, input.shape[0])
    drawn = uniform(np.empty((*lead, n), input.dtype), 0.0, 1.0) if samples is None else np.asarray(samples)
    places = []
    for axis, (s, k, o) in enumerate(zip(found, kernel, out, strict=True)):
        # PyTorch's samples name the last axis first.
        start = _starts(drawn[..., n - 1 - axis] if n == 2 else drawn[..., axis], s, k, o)
        places.append(start[..., None] + np.arange(k))
    y, at = batched(lambda x: _largest(x, _flat_places(places, found), found), n, input)
    return (y, at) if return_indices else y


def _starts(sample: Array, size: int, kernel: int, count: int) -> Array:
    """Return where the windows of an axis start: (N, C) samples -> (N, C, count)."""
    last = np.full((*sample.shape, 1), size - kernel)
    if count == 1:
        return last
    step = sample.dtype.type(size - kernel) / sample.dtype.type(count - 1)
    i = np.arange(count - 1).astype(sample.dtype)
    first = ((sample[..., None] + i) * step).astype(np.int64) - (sample[..., None] * step).astype(np.int64)
    return np.concatenate([first, last], axis=-1)


def max_unpool1d(
    input: Any, indices: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, output_size: Any = None
) -> Any:
    """Put the results of `max_pool1d` back where its indices say, into zeros.

    Args:
        input: the maxima.
        indices: where they were.
        kernel_size: of the pooling, as its stride and padding.
        stride: its size by default.
        padding: of the pooling.
        output_size: the size before it, where that is not the smallest that fits.

    Shapes: (N, C, O) or (C, O), the same -> (N, C, L) or (C, L).

    Raises:
        ShapeError: if shapes do not fit.
        OpError: if an index is outside.
    """
    return _max_unpool(1, input, indices, kernel_size, stride, padding, output_size)


def max_unpool2d(
    input: Any, indices: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, output_size: Any = None
) -> Any:
    """Put the results of `max_pool2d` back where its indices say, into zeros; see `max_unpool1d`."""
    return _max_unpool(2, input, indices, kernel_size, stride, padding, output_size)


def max_unpool3d(
    input: Any, indices: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, output_size: Any = None
) -> Any:
    """Put the results of `max_pool3d` back where its indices say, into zeros; see `max_unpool1d`."""
    return _max_unpool(3, input, indices, kernel_size, stride, padding, output_size)


def _max_unpool(n: int, input: Any, indices: Any, kernel_size: Any, stride: Any, padding: Any, output_size: Any) -> Any:
    name = f"max_unpool{n}d"
    if input.ndim not in (n + 1, n + 2):
        raise ShapeError(
            f"Input to max_unpooling{n}d should be a {n + 1}d or {n + 2}d Tensor, but got a tensor with {input.ndim} "
            "dimensions."
        )
    if indices.dtype != np.dtype(np.int64):
        raise DTypeError(f"elements in indices should be type int64 but got: {scalar_type(indices.dtype)}")
    if tuple(indices.shape) != tuple(input.shape):
        raise ShapeError(
            "Expected shape of indices to be same as that of the input tensor "
            f"({list(input.shape)}) but got indices tensor with shape: {list(indices.shape)}"
        )
    kernel = window_sizes(kernel_size, n, name, "kernel_size")
    strides = kernel if stride is None else window_sizes(stride, n, name, "stride")
    pads = window_sizes(padding, n, name, "padding")
    size = _unpooled(tuple(input.shape[-n:]), kernel, strides, pads, output_size)
    inside = product(size)
    array = getattr(indices, "_array", indices)
    if isinstance(array, np.ndarray) and array.size and not 0 <= array.min() <= array.max() < inside:
        bad = int(array.min()) if array.min() < 0 else int(array.max())
        volumes = "x".join(map(str, size))
        raise OpError(f"Found an invalid max index: {bad} (output volumes are of size {volumes})")

    def put(x: Any, at: Any) -> Any:
        corner = cumsum(full_like(at, shape=(x.shape[0] * x.shape[1],), value=inside), axis=0, exclusive=True)
        flat = pw.add(at, layout.reshape(corner, shape=(*x.shape[:2], *(1,) * n)))
        return pool.max_unpool(x, flat, size=size)

    return batched(put, n, input, indices)


def _unpooled(
    found: tuple[int, ...], kernel: tuple[int, ...], strides: tuple[int, ...], pads: tuple[int, ...], wanted: Any
) -> tuple[int, ...]:
    """Return the size before a pooling, checked where it is given."""
    least = tuple((o - 1) * s + k - 2 * p for o, s, k, p in zip(found, strides, kernel, pads, strict=True))
    if wanted is None:
        return least
    n = len(kernel)
    given = tuple(wanted)[2:] if len(wanted) == n + 2 else tuple(wanted)
    if len(given) != n:
        raise ShapeError(
            f"output_size should be a sequence containing {n} or {n + 2} elements, but it has a length of "
            f"'{len(given)}'"
        )
    for axis, (size, low, s) in enumerate(zip(given, least, strides, strict=True)):
        if known((size, low)) and not low - s < size < low + s:
            raise ShapeError(f'invalid output_size "{given}" (dim {axis} must be between {low - s} and {low + s})')
    return given
