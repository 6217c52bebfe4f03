"""Boxes: pooling and resizing the part of an image inside each, and choosing among boxes that overlap.

Positions inside a box are linear in its corners, so what reads between elements is differentiable in the boxes too.

Axes: N images, C channels, H, W their sizes, R boxes, P, Q sizes of the output.
Source: ONNX RoiAlign-22, MaxRoiPool-22, NonMaxSuppression-11, com.microsoft CropAndResize; He et al. 2017;
Girshick 2015.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from . import layout, pointwise as pw, reduce as red
from .create import full_like
from .dims import Dim, DimLike, show
from .errors import OpError, ShapeError
from .index import gather
from .op import op
from .sampling import along, as_rows, count_up, mix_rows, tap_weights, taps_at, wide
from .types import TensorType

INT64 = np.dtype(np.int64)

BLOCK = 1 << 23
"""How many taps of boxes are laid out at once."""


def _pooled(name: str, x: TensorType, boxes: TensorType, size: tuple[int, int], *, columns: int = 4) -> TensorType:
    if x.ndim != 4 or boxes.ndim != 2:
        raise ShapeError(
            f"{name}: wants images (N, C, H, W) and boxes (R, n), found {show(x.shape)}, {show(boxes.shape)}"
        )
    if isinstance(boxes.shape[1], int) and boxes.shape[1] != columns:
        raise ShapeError(f"{name}: boxes have {boxes.shape[1]} numbers, wanted {columns}")
    if min(size) < 1:
        raise ShapeError(f"{name}: wants at least one bin, found {size}")
    return TensorType(x.dtype, (boxes.shape[0], x.shape[1], *size))


@op(dtype="int64")
def first_rows(images: TensorType, *, batch: DimLike, rows: int) -> TensorType:
    """Return where each image starts in a batch of images that are so many rows each.

    Shapes: any, unchanged.

    Raises:
        OpError: at run time, on the CPU, if an image is outside the batch.
    """
    return TensorType(INT64, images.known_shape)


@op()
def roi_align(
    x: TensorType,
    boxes: TensorType,
    images: TensorType,
    *,
    size: tuple[int, int],
    mode: str,
    samples: int,
    scale: float,
    half_pixel: bool,
) -> TensorType:
    """Pool points inside each bin of each box, every point read by linear interpolation.

    Args:
        x: the images.
        boxes: (x1, y1, x2, y2).
        images: of each box, the image that it lies in.
        size: (P, Q), the bins.
        mode: `avg`, or `max`, which is the largest of what single elements add to the points, as the standard has it.
        samples: points along each axis of a bin; 0 is one for each element that it covers.
        scale: from the boxes' coordinates to those of x.
        half_pixel: an element's centre is at 1/2; else boxes are at least 1 wide and high.

    Shapes: (N, C, H, W), (R, 4), (R,) -> (R, C, P, Q).
    """
    if mode not in ("avg", "max"):
        raise OpError(f"roi_align: mode {mode!r}, wanted avg or max")
    return _pooled("roi_align", x, boxes, size)


@roi_align.compose
def _roi_align(
    x: Any, boxes: Any, images: Any, *, size: tuple[int, int], mode: str, samples: int, scale: float, half_pixel: bool
) -> Any:
    dtype, c = str(x.dtype), x.shape[1]
    x, boxes = wide(x), wide(boxes)
    shape, rows = (int(x.shape[2]), int(x.shape[3])), as_rows(x)
    rows = layout.reshape(rows, shape=(1, x.shape[0] * shape[0] * shape[1], c))
    images = first_rows(images, batch=x.shape[0], rows=shape[0] * shape[1])
    boxes = pw.cast(boxes, dtype=str(x.dtype))
    ends = layout.split(pw.sub(pw.mul(boxes, scale), 0.5 if half_pixel else 0.0), axis=1, sizes=(1, 1, 1, 1))
    spans = [pw.sub(ends[i + 2], ends[i]) for i in (1, 0)]
    if not half_pixel:
        spans = [pw.maximum(s, 1.0) for s in spans]
    bins = [pw.div(s, float(n)) for s, n in zip(spans, size, strict=True)]
    counts: list[Any] = [samples, samples]
    if samples <= 0:
        counts = [pw.maximum(pw.ceil(b), 0.0) for b in bins]
    most = [n if isinstance(n, int) else _largest(n) for n in counts]
    step = max(1, BLOCK // max(1, math.prod(size) * math.prod(most) * 4 * (1 if mode == "avg" else int(c))))
    n, outs = boxes.shape[0], []
    if isinstance(n, Dim) or n <= step:
        outs = [_bins(rows, shape, size, mode, [ends[1], ends[0]], bins, counts, most, images)]
    else:
        for i in range(0, n, step):
            cut = [_some(v, i, min(i + step, n)) for v in (ends[1], ends[0], *bins, images, *counts)]
            largest = [m if isinstance(v, int) else _largest(v) for v, m in zip(cut[5:], most, strict=True)]
            outs.append(_bins(rows, shape, size, mode, cut[:2], cut[2:4], cut[5:], largest, cut[4]))
    y = outs[0] if len(outs) == 1 else layout.concat(*outs, axis=0)
    return pw.cast(layout.transpose(y, perm=(0, 3, 1, 2)), dtype=dtype)


def _some(x: Any, first: int, stop: int) -> Any:
    return x if isinstance(x, int) else layout.slice_(x, starts=(first,), stops=(stop,), steps=(1,), axes=(0,))


def _largest(x: Any) -> int:
    """Return the largest of what only run time knows, as an integer."""
    array = getattr(x, "array", x)
    if array is None:
        raise ShapeError("roi_align: how many points a bin takes is known only at run time")
    return int(array.max()) if array.size else 1


def _bins(
    rows: Any, shape: tuple[int, int], size: tuple[int, int], mode: str, starts: list[Any], bins: list[Any],
    counts: list[Any], most: list[int], images: Any,
) -> Any:  # fmt: skip
    """Return the pooled bins (R, P, Q, C)."""
    parts = [_sampled(*v) for v in zip(shape, size, starts, bins, counts, most, strict=True)]
    # (R, P, points, Q, points, 2, 2): an axis for each axis's bins, points and taps.
    (at, w, counted), (at_x, w_x, counted_x) = (
        tuple(layout.unsqueeze(v, axes=axes) for v in part)
        for part, axes in zip(parts, ((3, 4, 6), (1, 2, 5)), strict=True)
    )
    r, channels = images.shape[0], rows.shape[2]
    image = layout.reshape(images, shape=(r, *(1,) * 6))
    at = pw.add(pw.add(pw.mul(at, shape[1]), at_x), image)
    w, counted = pw.mul(w, w_x), pw.mul(counted, counted_x)
    taps = 4 * most[0] * most[1]
    flat = (1, r * size[0] * size[1], taps)
    at, w = (layout.reshape(layout.transpose(v, perm=(0, 1, 3, 2, 4, 5, 6)), shape=flat) for v in (at, w))
    if mode == "avg":
        y = layout.reshape(mix_rows(rows, at, w), shape=(r, *size, channels))
        for n in counts:
            y = pw.div(y, float(n) if isinstance(n, int) else layout.reshape(pw.maximum(n, 1.0), shape=(r, 1, 1, 1)))
        return y
    if taps == 0:
        return full_like(rows, shape=(r, *size, channels), value=0.0)
    read = gather(layout.squeeze(rows, axes=(0,)), layout.squeeze(at, axes=(0,)), axis=0)
    read = pw.mul(read, layout.unsqueeze(layout.squeeze(w, axes=(0,)), axes=(2,)))
    if any(not isinstance(n, int) for n in counts):
        wanted = (r, size[0], most[0], size[1], most[1], 2, 2)
        counted = layout.transpose(layout.expand(counted, shape=wanted), perm=(0, 1, 3, 2, 4, 5, 6))
        counted = layout.reshape(counted, shape=(r * size[0] * size[1], taps, 1))
        read = pw.where(pw.less(0.0, counted), read, -math.inf)
    y = red.max_(read, axes=(1,))
    return layout.reshape(pw.where(pw.equal(y, -math.inf), 0.0, y), shape=(r, *size, channels))


def _sampled(n: int, bins: int, start: Any, size: Any, count: Any, most: int) -> tuple[Any, Any, Any]:
    """Return places and weights along one axis, (R, bins, points, 2), and which points count, (R or 1, 1, points, 1).

    Args:
        n: the size of the image.
        bins: how many there are.
        start: of the first bin, (R, 1).
        size: of each bin, (R, 1).
        count: the points in a bin, a number or (R, 1).
        most: the largest of them.
    """
    r = start.shape[0]
    point = along(count_up(start, most), 2, 3)
    per_box: Any = (r, 1, 1)
    if not isinstance(count, int):
        count = layout.reshape(count, shape=per_box)
        counted = pw.cast(pw.less(point, count), dtype=str(start.dtype))
        count = pw.maximum(count, 1.0)
    else:
        counted = full_like(start, shape=(1, 1, most), value=1.0)
    inner = pw.div(pw.add(point, 0.5), float(count) if isinstance(count, int) else count)
    inner = pw.add(along(count_up(start, bins), 1, 3), inner)
    p = pw.add(layout.reshape(start, shape=per_box), pw.mul(layout.reshape(size, shape=per_box), inner))
    inside = pw.logical_and(pw.less_equal(-1.0, p), pw.less_equal(p, float(n)))
    inside = pw.mul(pw.cast(inside, dtype=str(start.dtype)), counted)
    p = pw.clip(p, 0.0, n - 1.0)
    at, _ = taps_at(p, size=n, taps=2, padding="border")
    w = pw.mul(tap_weights(p, "linear"), layout.unsqueeze(inside, axes=(3,)))
    return at, w, layout.unsqueeze(counted, axes=(3,))


@op()
def crop_and_resize(
    x: TensorType, boxes: TensorType, images: TensorType, *, size: tuple[int, int], mode: str, outside: float
) -> TensorType:
    """Resize the part of an image inside each box (y1, x1, y2, x2), which goes from 0 to 1 between centres.

    Modes: `bilinear` or `nearest`; `outside` is the value of what is read outside the image.

    Shapes: (N, C, H, W), (R, 4), (R,) -> (R, C, P, Q).
    """
    if mode not in ("bilinear", "nearest"):
        raise OpError(f"crop_and_resize: mode {mode!r}, wanted bilinear or nearest")
    return _pooled("crop_and_resize", x, boxes, size)


@crop_and_resize.compose
def _crop_and_resize(x: Any, boxes: Any, images: Any, *, size: tuple[int, int], mode: str, outside: float) -> Any:
    dtype, c, r = str(x.dtype), x.shape[1], boxes.shape[0]
    x = wide(x)
    shape = int(x.shape[2]), int(x.shape[3])
    ends = layout.split(pw.cast(boxes, dtype=str(x.dtype)), axis=1, sizes=(1, 1, 1, 1))
    seen, parts = [], []
    for i, (n, out) in enumerate(zip(shape, size, strict=True)):
        first, last = ends[i], ends[i + 2]
        if out > 1:
            step = pw.div(pw.mul(pw.sub(last, first), n - 1.0), out - 1.0)
            p = pw.add(pw.mul(first, n - 1.0), pw.mul(step, along(count_up(first, out), 1, 2)))
        else:
            p = pw.mul(pw.mul(pw.add(first, last), 0.5), n - 1.0)
        seen.append(pw.logical_and(pw.less_equal(0.0, p), pw.less_equal(p, n - 1.0)))
        p = pw.clip(p, 0.0, n - 1.0)
        if mode == "nearest":
            whole = pw.floor(p)
            p = pw.add(whole, pw.cast(pw.less_equal(0.5, pw.sub(p, whole)), dtype=str(x.dtype)))
        kind = "linear" if mode == "bilinear" else mode
        at, _ = taps_at(p, size=n, taps=2 if mode == "bilinear" else 1, padding="border")
        parts.append((at, tap_weights(p, kind)))
    (at, w), (at_x, w_x) = (
        tuple(layout.unsqueeze(v, axes=axes) for v in part) for part, axes in zip(parts, ((2, 4), (1, 3)), strict=True)
    )
    image = layout.reshape(first_rows(images, batch=x.shape[0], rows=shape[0] * shape[1]), shape=(r, 1, 1, 1, 1))
    at = pw.add(pw.add(pw.mul(at, shape[1]), at_x), image)
    flat = (1, r * size[0] * size[1], 4 if mode == "bilinear" else 1)
    rows = layout.reshape(as_rows(x), shape=(1, x.shape[0] * shape[0] * shape[1], c))
    y = mix_rows(rows, layout.reshape(at, shape=flat), layout.reshape(pw.mul(w, w_x), shape=flat))
    y = layout.reshape(y, shape=(r, *size, c))
    inside = pw.logical_and(layout.unsqueeze(seen[0], axes=(2, 3)), layout.unsqueeze(seen[1], axes=(1, 3)))
    return pw.cast(layout.transpose(pw.where(inside, y, outside), perm=(0, 3, 1, 2)), dtype=dtype)


@op(dtype="int64")
def max_roi_places(x: TensorType, boxes: TensorType, *, size: tuple[int, int], scale: float) -> TensorType:
    """Return where in the flattened images each bin of each box has its largest element, -1 where a bin is empty.

    Boxes are (image, x1, y1, x2, y2), rounded to whole elements; bins overlap where they do not divide.

    Shapes: (N, C, H, W), (R, 5) -> (R, C, P, Q).
    """
    return TensorType(INT64, _pooled("max_roi_places", x, boxes, size, columns=5).shape)


def max_roi_pool(x: Any, boxes: Any, *, size: tuple[int, int], scale: float) -> Any:
    """Return the largest element of each bin of each box, 0 where it is empty."""
    at = max_roi_places(x, boxes, size=size, scale=scale)
    y = gather(layout.reshape(x, shape=(-1,)), pw.maximum(at, 0), axis=0)
    return pw.where(pw.less(at, 0), 0.0, y)


@op(dtype="int64")
def non_max_suppression(
    boxes: TensorType,
    scores: TensorType,
    most: TensorType | None = None,
    overlap: TensorType | None = None,
    least: TensorType | None = None,
    *,
    center: bool = False,
) -> TensorType:
    """Return which boxes are chosen, (image, class, box) each: by class, from the best score down.

    A box is chosen unless it overlaps one that was, by more than `overlap` of their union.

    Args:
        boxes: corners (y1, x1, y2, x2) in any order, or with `center` (x, y, width, height).
        scores: of each box in each class.
        most: how many to choose in a class at most; 0 without it.
        overlap: 0 without it.
        least: scores have to be above it.
        center: how boxes are given.

    Shapes: (N, B, 4), (N, K, B), three of one element -> (how many, 3), known only at run time.

    Raises:
        ShapeError: if boxes and scores do not fit.
    """
    if boxes.ndim != 3 or scores.ndim != 3:
        raise ShapeError(f"non_max_suppression: boxes {show(boxes.shape)}, scores {show(scores.shape)}, wanted rank 3")
    pairs = (boxes.shape[0], scores.shape[0]), (boxes.shape[1], scores.shape[2]), (boxes.shape[2], 4)
    if any(isinstance(a, int) and isinstance(b, int) and a != b for a, b in pairs):
        raise ShapeError(f"non_max_suppression: boxes {show(boxes.shape)} do not fit scores {show(scores.shape)}")
    return TensorType(INT64, (Dim.fresh(), 3))
