"""Boxes: the largest element of each bin, and choosing among boxes that overlap."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...errors import OpError
from ...op import namespace
from ...regions import first_rows, max_roi_places, non_max_suppression
from ...types import Array

BLOCK_BYTES = 1 << 20
CANDIDATES = 64
"""How many boxes of each class are looked at together."""


def _bounds(xp: Any, first: Array, last: Array, bins: int, size: int) -> tuple[Array, Array]:
    """Return the first element of each bin and the one after its last, (R, bins), inside an axis of this size."""
    width = xp.maximum(last - first + 1, 1).astype(np.float32)[:, None] / np.float32(bins)
    at = xp.arange(bins, dtype=np.float32)
    low = xp.floor(at * width) + first[:, None]
    high = xp.ceil((at + 1) * width) + first[:, None]
    return xp.clip(low, 0, size).astype(np.int64), xp.clip(high, 0, size).astype(np.int64)


@first_rows.kernel("array", half="native")
def _first_rows(images: Array, *, batch: int, rows: int) -> Array:
    at = images.astype(np.int64)
    if namespace(at) is np and at.size and (at.min() < 0 or at.max() >= batch):
        raise OpError(f"image {at.min() if at.min() < 0 else at.max()} is outside a batch of {batch}")
    return at * rows


@max_roi_places.kernel("array")
def _max_roi_places(x: Array, boxes: Array, *, size: tuple[int, int], scale: float) -> Array:
    xp = namespace(x)
    n, c, h, w = x.shape
    corners = boxes[:, 1:] * boxes.dtype.type(scale)
    whole = xp.trunc(corners)
    corners = (whole + xp.copysign(abs(corners - whole) >= 0.5, corners)).astype(np.int64)  # halves away from 0
    image = boxes[:, 0].astype(np.int64)
    if xp is np and image.size and (image.min() < 0 or image.max() >= n):
        raise OpError(
            f"max_roi_places: image {image.min() if image.min() < 0 else image.max()} is outside a batch of {n}"
        )
    x1, y1, x2, y2 = corners.T
    low, high = _bounds(xp, y1, y2, size[0], h)
    left, right = _bounds(xp, x1, x2, size[1], w)
    found = xp.full((len(boxes), *size, c), -1, np.int64)
    if found.size == 0 or h == 0 or w == 0:
        return found.transpose(0, 3, 1, 2)
    rows = x.transpose(0, 2, 3, 1).reshape(n * h * w, c)
    step = max(1, BLOCK_BYTES // (size[0] * size[1] * c * x.dtype.itemsize))
    for i in range(0, len(boxes), step):
        some = slice(i, i + step)
        best, where = _largest_rows(xp, rows, w, image[some] * h, low[some], high[some], left[some], right[some])
        empty = (high <= low)[some, :, None] | (right <= left)[some, None, :]
        # Rows are (image, place), the result is (image, channel, place).
        plane = where // (h * w) * (c - 1) + xp.arange(c)
        at = (where + plane * (h * w)).reshape(best.shape[0] // (size[0] * size[1]), *size, c)
        found[some] = xp.where(empty[..., None], -1, at)
    return found.transpose(0, 3, 1, 2)


def _largest_rows(
    xp: Any, rows: Array, width: int, first: Array, low: Array, high: Array, left: Array, right: Array
) -> tuple[Array, Array]:
    """Return the largest of each channel over the rectangles of rows, and which row it is in, (R * P * Q, C)."""
    best: Any = None
    where: Any = None
    for a in range(max(1, int((high - low).max()))):
        down = xp.maximum(xp.minimum(low + a, high - 1), 0) + first[:, None]
        for b in range(max(1, int((right - left).max()))):
            across = xp.maximum(xp.minimum(left + b, right - 1), 0)
            place = (down[:, :, None] * width + across[:, None, :]).reshape(-1)
            value = rows.take(place, axis=0)
            if best is None:
                best, where = value, xp.repeat(place[:, None], value.shape[1], axis=1)
                continue
            better = value > best
            xp.copyto(best, value, where=better)
            xp.copyto(where, place[:, None], where=better)
    return best, where


def _edges(boxes: Array, center: bool) -> tuple[Array, ...]:
    """Return the lower and upper edges of boxes along their two axes, and their areas, each (N, B)."""
    a, b, c, d = (boxes[..., i] for i in range(4))
    if center:
        edges = a - c / 2, b - d / 2, a + c / 2, b + d / 2
    else:
        edges = np.minimum(a, c), np.minimum(b, d), np.maximum(a, c), np.maximum(b, d)
    return *edges, (edges[2] - edges[0]) * (edges[3] - edges[1])


def _overlaps(one: tuple[Array, ...], other: tuple[Array, ...], limit: float) -> Array:
    """Return which pairs of boxes overlap by more than the limit; edges of (..., n), (..., m) -> (..., n, m)."""
    a, b = [v[..., :, None] for v in one], [v[..., None, :] for v in other]
    inner = np.minimum(a[2], b[2])
    inner -= np.maximum(a[0], b[0])
    np.maximum(inner, 0, out=inner)
    side = np.minimum(a[3], b[3])
    side -= np.maximum(a[1], b[1])
    np.maximum(side, 0, out=side)
    inner *= side
    union = a[4] + b[4]
    union -= inner
    # Compared as a quotient, so that what is exactly at the limit rounds as the standard's definition does.
    with np.errstate(all="ignore"):
        found: Array = np.divide(inner, union, out=side) > limit
    found &= inner > 0
    found &= union > 0
    return found


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
    edges, flat = _edges(boxes, center), scores.reshape(n * classes, count)
    threshold = _number(least, None)
    usable = None if threshold is None else flat > np.asarray(threshold, flat.dtype)
    wanted, tries = np.arange(len(flat)), 4 * limit + CANDIDATES
    found = []
    while wanted.size:
        pair, box, short = _ranked(flat, wanted, usable, tries)
        chosen, full = _choose(edges, pair, box, len(flat), classes, limit, float(_number(overlap, 0.0)))
        # A class for which the best ones did not suffice starts again with all of them.
        again = short & ~full
        keep = chosen & ~again[pair]
        found.append(np.stack([pair[keep], box[keep]], axis=1))
        wanted, tries = np.flatnonzero(again), count
    every = np.concatenate(found)
    every = every[np.argsort(every[:, 0], kind="stable")]
    image, kind = np.divmod(every[:, 0], classes)
    result = np.stack([image, kind, every[:, 1]], axis=1).astype(np.int64)
    return result if xp is np else xp.asarray(result)


def _ranked(scores: Array, wanted: Array, usable: Array | None, tries: int) -> tuple[Array, Array, Array]:
    """Return the candidates (pair, box), each pair's from the best score down, and which pairs have more of them.

    Args:
        scores: of the boxes of each (image, class) pair.
        wanted: the pairs.
        usable: which boxes are candidates at all.
        tries: about how many to return of each pair at most: ties with the last one come along.
    """
    count = scores.shape[1]
    some = scores[wanted]
    mask = np.ones(some.shape, bool) if usable is None else usable[wanted]
    short = np.zeros(len(scores), bool)
    if tries < count:
        floor = np.partition(some, count - tries, axis=1)[:, count - tries, None]
        best = some >= floor
        short[wanted] = (mask & ~best).any(axis=1)
        mask &= best
    row, box = np.nonzero(mask)
    order = np.lexsort((box, -some[row, box], row))
    return wanted[row[order]], box[order], short


def _choose(
    edges: tuple[Array, ...], pair: Array, box: Array, pairs: int, classes: int, limit: int, overlap: float
) -> tuple[Array, Array]:
    """Return which candidates are chosen, and which pairs have all that they may; the pairs go side by side."""
    ends = np.bincount(pair, minlength=pairs)
    first = np.cumsum(ends) - ends
    chosen = np.zeros(len(pair), bool)
    counts = np.zeros(pairs, np.int64)
    # Places that are not used yet hold empty boxes, which overlap nothing.
    kept = tuple(np.zeros((pairs, min(limit, int(ends.max(initial=0)))), e.dtype) for e in edges)
    for rank in range(0, int(ends.max(initial=0)), CANDIDATES):
        live = np.flatnonzero((counts < limit) & (ends > rank))
        if live.size == 0:
            break
        ranks = np.arange(rank, min(rank + CANDIDATES, int(ends[live].max())))
        good = ranks < ends[live, None]
        at = np.where(good, first[live, None] + ranks, 0)
        some = tuple(e[(live // classes)[:, None], box[at]] for e in edges)
        if (used := int(counts[live].max())) > 0:
            good &= ~_overlaps(some, tuple(e[live, :used] for e in kept), overlap).any(axis=2)
        within = _overlaps(some, some, overlap)
        for i in range(len(ranks) - 1):
            good[:, i + 1 :] &= ~(within[:, i, i + 1 :] & good[:, i, None])
        places = counts[live, None] + np.cumsum(good, axis=1) - 1
        good &= places < limit
        chosen[at[good]] = True
        row, column = np.nonzero(good)
        for target, e in zip(kept, some, strict=True):
            target[live[row], places[row, column]] = e[row, column]
        counts[live] += good.sum(axis=1)
    return chosen, counts >= limit
