"""Boxes: the largest element of each bin, and choosing among boxes that overlap."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...op import namespace
from ...regions import max_roi_places, non_max_suppression
from ...types import Array

BLOCK_BYTES = 1 << 24
CANDIDATES = 64
"""How many boxes of each class are looked at together."""


def _bounds(xp: Any, first: Array, last: Array, bins: int, size: int) -> tuple[Array, Array]:
    """Return the first element of each bin and the one after its last, (R, bins), inside an axis of this size."""
    width = xp.maximum(last - first + 1, 1).astype(np.float32)[:, None] / np.float32(bins)
    at = xp.arange(bins, dtype=np.float32)
    low = xp.floor(at * width) + first[:, None]
    high = xp.ceil((at + 1) * width) + first[:, None]
    return xp.clip(low, 0, size).astype(np.int64), xp.clip(high, 0, size).astype(np.int64)


def _largest_along(xp: Any, x: Array, low: Array, high: Array, place: Any) -> tuple[Array, Array]:
    """Return the largest of x over [low, high) of an axis, and where it is; `place` picks one element of each range."""
    best, where = None, None
    longest = int((high - low).max(initial=0))
    for t in range(max(1, longest)):
        at = xp.maximum(xp.minimum(low + t, high - 1), 0)
        here, index = place(x, at)
        if best is None:
            best, where = here, index
            continue
        better = here > best
        best, where = xp.where(better, here, best), xp.where(better, index, where)
    return best, where


@max_roi_places.kernel("array")
def _max_roi_places(x: Array, boxes: Array, *, size: tuple[int, int], scale: float) -> Array:
    xp = namespace(x)
    n, c, h, w = x.shape
    corners = boxes[:, 1:] * boxes.dtype.type(scale)
    corners = xp.trunc(corners + xp.copysign(0.5, corners)).astype(np.int64)  # halves away from 0
    image = boxes[:, 0].astype(np.int64)
    x1, y1, x2, y2 = corners.T
    low, high = _bounds(xp, y1, y2, size[0], h)
    left, right = _bounds(xp, x1, x2, size[1], w)
    y = xp.empty((len(boxes), c, *size), np.int64)
    if y.size == 0:
        return y
    if h == 0 or w == 0:
        y[...] = -1
        return y
    step = max(1, BLOCK_BYTES // (c * size[0] * w * x.dtype.itemsize))
    for i in range(0, len(boxes), step):
        some = slice(i, i + step)
        images = x[image[some]]  # (R, C, H, W)

        def row(v: Array, at: Array) -> tuple[Array, Array]:
            index = xp.broadcast_to(at[:, None, :, None], (len(v), c, size[0], w))
            return xp.take_along_axis(v, index, axis=2), index

        best, rows = _largest_along(xp, images, low[some], high[some], row)

        def column(v: Array, at: Array) -> tuple[Array, Array]:
            index = xp.broadcast_to(at[:, None, None, :], (len(v), c, *size))
            return xp.take_along_axis(v, index, axis=3), index

        _, columns = _largest_along(xp, best, left[some], right[some], column)
        rows = xp.take_along_axis(rows, columns, axis=3)
        plane = image[some, None] * c + xp.arange(c)
        at = (plane[:, :, None, None] * h + rows) * w + columns
        empty = (high <= low)[some, None, :, None] | (right <= left)[some, None, None, :]
        y[some] = xp.where(empty, -1, at)
    return y


def _corners(boxes: Array, center: bool) -> Array:
    """Return boxes as (y1, x1, y2, x2) with the lower corner first."""
    if center:
        middle, half = boxes[..., 1::-1], boxes[..., :1:-1] / 2
        return np.concatenate([middle - half, middle + half], axis=-1)
    first, second = boxes[..., :2], boxes[..., 2:]
    return np.concatenate([np.minimum(first, second), np.maximum(first, second)], axis=-1)


def _overlaps(a: Array, b: Array, limit: float) -> Array:
    """Return which pairs overlap by more than the limit: (..., n, 4), (..., m, 4) -> (..., n, m)."""
    one, other = a[..., :, None, :], b[..., None, :, :]
    inner = np.maximum(
        np.minimum(one[..., 2:], other[..., 2:]) - np.maximum(one[..., :2], other[..., :2]), 0
    ).prod(-1)  # fmt: skip
    areas = [(v[..., 2:] - v[..., :2]).prod(-1) for v in (one, other)]
    union = areas[0] + areas[1] - inner
    with np.errstate(all="ignore"):
        return (inner > 0) & (areas[0] > 0) & (areas[1] > 0) & (union > 0) & (inner / union > limit)


def _number(x: Array | None, default: Any) -> Any:
    return default if x is None or x.size == 0 else x.reshape(-1)[0].item()


@non_max_suppression.kernel("array")
def _non_max_suppression(
    boxes: Array, scores: Array, most: Array | None = None, overlap: Array | None = None,
    least: Array | None = None, *, center: bool = False,
) -> Array:  # fmt: skip
    xp = namespace(boxes)
    n, classes, count = scores.shape
    limit = min(int(_number(most, 0)), count)
    if limit <= 0 or scores.size == 0:
        return xp.zeros((0, 3), np.int64)
    if xp is not np:
        boxes, scores = boxes.get(), scores.get()
    threshold = _number(least, None)
    flat = scores.reshape(n * classes, count)
    order = np.argsort(-flat, axis=1, kind="stable")
    usable = count if threshold is None else (flat > np.asarray(threshold, flat.dtype)).sum(axis=1)
    ends = np.broadcast_to(np.asarray(usable), (n * classes,))
    chosen = _choose(_corners(boxes, center), order, ends, classes, limit, float(_number(overlap, 0.0)))
    pair, rank = np.nonzero(chosen)
    image, kind = np.divmod(pair, classes)
    found = np.stack([image, kind, order[pair, rank]], axis=1).astype(np.int64)
    return found if xp is np else xp.asarray(found)


def _choose(corners: Array, order: Array, ends: Array, classes: int, limit: int, overlap: float) -> Array:
    """Return which of the ranked boxes of each (image, class) are chosen, all of them side by side.

    Args:
        corners: (N, B, 4).
        order: (N * classes, B), the boxes from the best down.
        ends: (N * classes,), how many of those are candidates.
    """
    pairs, last = len(order), int(ends.max(initial=0))
    chosen = np.zeros((pairs, order.shape[1]), bool)
    kept = np.zeros((pairs, min(limit, last), 4), corners.dtype)  # unused ones are empty boxes: they overlap nothing
    counts = np.zeros(pairs, np.int64)
    for first in range(0, last, CANDIDATES):
        live = np.flatnonzero((counts < limit) & (ends > first))
        if live.size == 0:
            break
        ranks = np.arange(first, min(first + CANDIDATES, last))
        some = corners[(live // classes)[:, None], order[live[:, None], ranks]]
        good = ranks < ends[live, None]
        if (used := int(counts[live].max())) > 0:
            good &= ~_overlaps(some, kept[live, :used], overlap).any(axis=2)
        within = _overlaps(some, some, overlap)
        for i in range(len(ranks) - 1):
            good[:, i + 1 :] &= ~(within[:, i, i + 1 :] & good[:, i, None])
        places = counts[live, None] + np.cumsum(good, axis=1) - 1
        good &= places < limit
        chosen[live[:, None], ranks] = good
        row, column = np.nonzero(good)
        kept[live[row], places[row, column]] = some[row, column]
        counts[live] += good.sum(axis=1)
    return chosen
