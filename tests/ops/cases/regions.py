"""Boxes: the rows of the op table, a box, a bin and a point at a time."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from onnxgrad.ops.regions import crop_and_resize, first_rows, max_roi_places, non_max_suppression, roi_align

from ..case import OpCase, rand

BOXES = np.array([[0.63, 1.12, 5.31, 4.22], [-1.1, -2.3, 3.2, 9.1], [2.05, 2.1, 2.9, 2.6], [1.02, 0.21, 12.3, 6.4]])
IMAGES = np.array([0, 1, 1, 0])


def corners(y: float, x: float, h: int, w: int) -> list[tuple[int, int, float]]:
    """Return the elements around a point and what they weigh."""
    if not (-1 <= y <= h and -1 <= x <= w):
        return []
    y, x = min(max(y, 0), h - 1), min(max(x, 0), w - 1)
    i, j = int(y), int(x)
    return [
        (min(i + a, h - 1), min(j + b, w - 1), (abs(1 - a - (y - i))) * abs(1 - b - (x - j)))
        for a, b in itertools.product((0, 1), (0, 1))
    ]


def pooled(
    x: Any, boxes: Any, images: Any, *, size: Any, mode: str, samples: int, scale: float, half_pixel: bool
) -> np.ndarray:
    h, w = x.shape[2:]
    y = np.zeros((len(boxes), x.shape[1], *size))
    for r, p, q in np.ndindex(len(boxes), *size):
        x1, y1, x2, y2 = boxes[r] * scale - (0.5 if half_pixel else 0)
        spans = [y2 - y1, x2 - x1] if half_pixel else [max(y2 - y1, 1), max(x2 - x1, 1)]
        bins = [s / n for s, n in zip(spans, size, strict=True)]
        counts = [samples or math.ceil(b) for b in bins]
        read = []
        for i, j in itertools.product(*map(range, counts)):
            at = y1 + (p + (i + 0.5) / counts[0]) * bins[0], x1 + (q + (j + 0.5) / counts[1]) * bins[1]
            read.append([v * x[images[r], :, a, b] for a, b, v in corners(*at, h, w)] or [np.zeros(x.shape[1])])
        if not read:
            continue
        y[r, :, p, q] = (
            sum(sum(v) for v in read) / len(read)
            if mode == "avg"
            else np.max([v for point in read for v in point], axis=0)
        )
    return y


def align_row(mode: str, samples: int, half_pixel: bool, order: int = 2) -> OpCase:
    attrs = {"size": (2, 3), "mode": mode, "samples": samples, "scale": 0.7, "half_pixel": half_pixel}
    return OpCase(
        roi_align, (rand(2, 2, 4, 5), BOXES, IMAGES), lambda *a: pooled(*a, **attrs), attrs, tol=1e-10, symbolic=False,
        order=order, name=f"roi_align-{mode}-{samples}-{half_pixel}",
    )  # fmt: skip


def cropped(x: Any, boxes: Any, images: Any, *, size: Any, mode: str, outside: float) -> np.ndarray:
    h, w = x.shape[2:]
    y = np.full((len(boxes), x.shape[1], *size), outside)
    for r, *o in np.ndindex(len(boxes), *size):
        p = []
        for a, n in enumerate((h, w)):
            first, last = boxes[r, a] * (n - 1), boxes[r, a + 2] * (n - 1)
            p.append((first + last) / 2 if size[a] == 1 else first + o[a] * (last - first) / (size[a] - 1))
        if 0 <= p[0] <= h - 1 and 0 <= p[1] <= w - 1:
            if mode == "nearest":
                p = [math.floor(v + 0.5) for v in p]
            y[(r, slice(None), *o)] = sum(v * x[images[r], :, a, b] for a, b, v in corners(*p, h, w))
    return y


def crop_row(mode: str, size: tuple[int, int]) -> OpCase:
    boxes = np.array([[0.11, 0.23, 0.91, 0.72], [-0.3, 0.03, 0.52, 1.4], [0.8, 0.92, 0.21, 0.1]])
    attrs = {"size": size, "mode": mode, "outside": 2.5}
    return OpCase(
        crop_and_resize, (rand(2, 2, 4, 5), boxes, IMAGES[:3]), lambda *a: cropped(*a, **attrs), attrs, symbolic=False,
        name=f"crop_and_resize-{mode}-{size[0]}",
    )  # fmt: skip


def largest(x: Any, boxes: Any, *, size: Any, scale: float) -> np.ndarray:
    places = np.arange(x.size).reshape(x.shape)
    y = np.full((len(boxes), x.shape[1], *size), -1)
    for r, c, p, q in np.ndindex(y.shape):
        n, (x1, y1, x2, y2) = int(boxes[r, 0]), (math.floor(v * scale + 0.5) for v in boxes[r, 1:])
        spans = []
        for first, last, i, bins, limit in ((y1, y2, p, size[0], x.shape[2]), (x1, x2, q, size[1], x.shape[3])):
            width = max(last - first + 1, 1) / bins
            low, high = (math.floor(i * width) + first, math.ceil((i + 1) * width) + first)
            spans.append(slice(min(max(low, 0), limit), min(max(high, 0), limit)))
        part = x[n, c][tuple(spans)]
        if part.size:
            y[r, c, p, q] = places[n, c][tuple(spans)].reshape(-1)[part.argmax()]
    return y


def overlap_of(a: Any, b: Any) -> float:
    sides = [max(0.0, min(a[i + 2], b[i + 2]) - max(a[i], b[i])) for i in (0, 1)]
    inner = sides[0] * sides[1]
    areas = [(v[2] - v[0]) * (v[3] - v[1]) for v in (a, b)]
    return 0.0 if inner == 0 else inner / (sum(areas) - inner)


def suppressed(
    boxes: Any, scores: Any, most: Any = None, overlap: Any = None, least: Any = None, *, center: bool = False
) -> np.ndarray:
    limit = 0 if most is None else int(most[0])
    threshold = 0.0 if overlap is None else overlap[0]
    found: list[tuple[int, int, int]] = []
    for n, k in np.ndindex(scores.shape[:2]):
        plain = boxes[n]
        if center:
            plain = np.concatenate([plain[:, :2] - plain[:, 2:] / 2, plain[:, :2] + plain[:, 2:] / 2], axis=1)
        kept: list[int] = []
        for i in sorted(range(len(plain)), key=lambda i: (-scores[n, k, i], i)):
            if least is not None and scores[n, k, i] <= least[0]:
                continue
            if len(kept) < limit and all(overlap_of(plain[i], plain[j]) <= threshold for j in kept):
                kept.append(i)
        found += [(n, k, i) for i in kept]
    return np.array(found, np.int64).reshape(-1, 3)


def choice_row(
    count: int, most: int | None, overlap: float | None, least: float | None, center: bool = False
) -> OpCase:
    low, size = rand(2, count, 2, low=0, high=1), rand(2, count, 2, seed=1, low=0.1, high=0.6)
    scores = rand(2, 3, count, low=0, high=1).round(1)
    args = [np.concatenate([low, size if center else low + size], axis=2), scores]
    args += [None if v is None else np.array([v]) for v in (most, overlap, least)]
    return OpCase(
        non_max_suppression, tuple(args), lambda *a: suppressed(*a, center=center), {"center": center}, order=0,
        name=f"non_max_suppression-{count}-{most}-{overlap}-{least}-{center}",
    )  # fmt: skip


CASES = [
    *(align_row("avg", s, h) for s, h in itertools.product((0, 2), (False, True))),
    *(align_row("max", s, h) for s, h in itertools.product((0, 2), (False, True))),
    crop_row("bilinear", (3, 2)),
    crop_row("bilinear", (1, 1)),
    crop_row("nearest", (3, 4)),
    OpCase(
        max_roi_places,
        (rand(2, 2, 5, 6), np.array([[0, 0.2, 1.3, 4.4, 3.8], [1, 3.0, 2.0, 9.0, 9.0], [1, 2.0, 2.0, 2.0, 2.0]])),
        lambda *a: largest(*a, size=(2, 3), scale=0.8),
        {"size": (2, 3), "scale": 0.8},
        order=0,
    ),
    OpCase(first_rows, (IMAGES,), lambda v: np.array([v * 20 for v in v]), {"batch": 2, "rows": 20}, order=0),
    choice_row(8, 3, 0.3, None),
    choice_row(8, 3, 0.3, None, center=True),
    choice_row(150, 100, 0.5, None),
    choice_row(150, 20, 0.2, 0.5),
    choice_row(5, None, 0.3, None),
    choice_row(5, 5, None, 0.2),
]
