"""Sampling between elements: the rows of the op table, on an image continued without end, a point at a time."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from onnxgrad.ops.sampling import deform_conv, grid_sample, match_rows, mix_rows, put_rows, taps_at
from onnxgrad.ops.window import Window

from ..case import OpCase, rand


def keys(t: float) -> float:
    """Return Keys's cubic kernel with a = -3/4."""
    t, a = abs(t), -0.75
    if t <= 1:
        return (a + 2) * t**3 - (a + 3) * t**2 + 1
    return a * (t**3 - 5 * t**2 + 8 * t - 4) if t < 2 else 0.0


KERNELS = {
    "nearest": lambda t: float(t == 0),
    "linear": lambda t: max(0.0, 1 - abs(t)),
    "cubic": keys,
}


def place(i: int, n: int, padding: str, corners: bool) -> int | None:
    """Return the element that stands at place i of an image continued without end."""
    while not 0 <= i < n:
        if padding == "zeros":
            return None
        if padding == "border":
            return 0 if i < 0 else n - 1
        if n == 1:
            return 0
        edge = 0 if i < 0 else n - 1
        i = 2 * edge - i if corners else 2 * edge - i + (-1 if i < 0 else 1)
    return i


def read(image: np.ndarray, p: Any, mode: str, padding: str, corners: bool) -> np.ndarray:
    """Return an image (C, *S) at a position."""
    value = np.zeros(image.shape[0])
    if mode == "nearest":
        p = [round(v) for v in p]
    reach = [range(math.floor(v) - 2, math.floor(v) + 4) for v in p]
    for i in itertools.product(*reach):
        w = math.prod(KERNELS[mode](v - j) for v, j in zip(p, i, strict=True))
        at = [place(j, n, padding, corners) for j, n in zip(i, image.shape[1:], strict=True)]
        if w and None not in at:
            value += w * image[(slice(None), *at)]
    return value


def sampled(x: Any, grid: Any, *, mode: str, padding: str, align_corners: bool) -> np.ndarray:
    out = grid.shape[1:-1]
    y = np.zeros((*x.shape[:2], *out))
    sizes = x.shape[2:]
    for n, *o in itertools.product(range(len(x)), *map(range, out)):
        g = grid[(n, *o)][::-1]
        if align_corners:
            p = [(v + 1) / 2 * (s - 1) for v, s in zip(g, sizes, strict=True)]
        else:
            p = [((v + 1) * s - 1) / 2 for v, s in zip(g, sizes, strict=True)]
        y[(n, slice(None), *o)] = read(x[n], p, mode, padding, align_corners)
    return y


def grid_row(mode: str, padding: str, align_corners: bool, *, x: Any = (2, 2, 3, 4), out: Any = (2, 3)) -> OpCase:
    attrs = {"mode": mode, "padding": padding, "align_corners": align_corners}
    args = rand(*x), rand(x[0], *out, len(x) - 2, seed=1)
    return OpCase(
        grid_sample, args, lambda *a: sampled(*a, **attrs), attrs, tol=1e-10, symbolic=False,
        name=f"grid_sample-{len(x) - 2}d-{mode}-{padding}-{align_corners}",
    )  # fmt: skip


def deformed(x: Any, w: Any, offset: Any, mask: Any = None, *, win: Window, offset_group: int) -> np.ndarray:
    (n, c), f, kernel, out = x.shape[:2], len(w), w.shape[2:], offset.shape[2:]
    d, each, per = len(kernel), c // offset_group, f // win.group
    offset = offset.reshape(n, offset_group, *kernel, d, *out)
    mask = np.ones((n, offset_group, *kernel, *out)) if mask is None else mask.reshape(n, offset_group, *kernel, *out)
    y = np.zeros((n, f, *out))
    for b, g, *ko in itertools.product(range(n), range(offset_group), *map(range, (*kernel, *out))):
        k, o = tuple(ko[:d]), tuple(ko[d:])
        p = [
            i * s - low + j * r + offset[(b, g, *k, a, *o)]
            for a, (i, s, (low, _), j, r) in enumerate(zip(o, win.strides, win.pads, k, win.dilations, strict=True))
        ]
        value = read(x[b, g * each : (g + 1) * each], p, "linear", "zeros", True) * mask[(b, g, *k, *o)]
        for m, q in itertools.product(range(f), range(each)):
            channel = g * each + q
            if channel // w.shape[1] == m // per:
                y[(b, m, *o)] += value[q] * w[(m, channel % w.shape[1], *k)]
    return y


def deform_row(x: Any, w: Any, win: Window, offset_group: int = 1, masked: bool = True, order: int = 2) -> OpCase:
    out, taps = win.out(x[2:], w[2:]), math.prod(w[2:])
    args = [rand(*x), rand(*w, seed=1), rand(x[0], offset_group * taps * len(out), *out, seed=2) / 2]
    if masked:
        args.append(rand(x[0], offset_group * taps, *out, seed=3))
    attrs = {"win": win, "offset_group": offset_group}
    return OpCase(
        deform_conv, tuple(args), lambda *a: deformed(*a, **attrs), attrs, tol=1e-10, symbolic=False, order=order,
        name=f"deform_conv-{len(out)}d-{win.group}-{offset_group}-{masked}",
    )  # fmt: skip


AT = np.array([[[0, 2], [3, 3], [1, 0]], [[4, 4], [2, 0], [2, 1]]])


def mixed(x: Any, at: Any, w: Any) -> np.ndarray:
    return np.einsum("bptc,bpt->bpc", np.stack([rows[i] for rows, i in zip(x, at, strict=True)]), w)


def put(g: Any, at: Any, w: Any) -> np.ndarray:
    x = np.zeros((2, 6, g.shape[2]))
    for b, p, t in np.ndindex(at.shape):
        x[b, at[b, p, t]] += w[b, p, t] * g[b, p]
    return x


def matched(g: Any, x: Any, at: Any) -> np.ndarray:
    w = np.zeros(at.shape)
    for b, p, t in np.ndindex(at.shape):
        w[b, p, t] = g[b, p] @ x[b, at[b, p, t]]
    return w


def taps_row(taps: int, padding: str, corners: bool, size: int = 4) -> OpCase:
    positions = np.linspace(-9.3, 12.2, 20).reshape(4, 5)

    def reference(positions: Any) -> tuple[np.ndarray, np.ndarray]:
        at, inside = np.zeros((4, 5, taps), int), np.ones((4, 5, taps))
        for a, b, t in np.ndindex(at.shape):
            i = math.floor(positions[a, b]) + t - (taps == 4)
            found = place(i, size, padding, corners)
            at[a, b, t] = min(max(i, 0), size - 1) if found is None else found
            inside[a, b, t] = found is not None
        return at, inside

    attrs = {"size": size, "taps": taps, "padding": padding, "align_corners": corners}
    return OpCase(taps_at, (positions,), reference, attrs, order=0, name=f"taps_at-{taps}-{padding}-{corners}-{size}")


PADDINGS = ("zeros", "border", "reflection")
CASES = [
    OpCase(mix_rows, (rand(2, 5, 3), AT, rand(2, 3, 2, seed=1)), mixed),
    OpCase(put_rows, (rand(2, 3, 3), AT, rand(2, 3, 2, seed=1)), put, {"size": 6}),
    OpCase(match_rows, (rand(2, 3, 3), rand(2, 5, 3, seed=1), AT), matched),
    *(taps_row(*v) for v in itertools.product((1, 2, 4), PADDINGS, (False, True), (4, 1))),
    *(grid_row(*v) for v in itertools.product(("nearest", "linear", "cubic"), PADDINGS, (False, True))),
    grid_row("linear", "reflection", False, x=(1, 2, 2, 3, 4), out=(2, 1, 2)),
    grid_row("cubic", "zeros", True, x=(1, 1, 2, 3, 2), out=(1, 2, 2)),
    grid_row("linear", "border", True, x=(2, 3, 5), out=(4,)),
    grid_row("linear", "reflection", True, x=(1, 2, 1, 3)),
    deform_row((2, 2, 4, 3), (3, 2, 2, 2), Window((1, 1), ((1, 0), (0, 1)), (1, 1))),
    deform_row((1, 4, 5, 4), (4, 2, 2, 3), Window((2, 1), ((0, 1), (1, 1)), (1, 1), 2), 2),
    deform_row((1, 4, 3, 4), (2, 4, 2, 1), Window((1, 1), ((0, 0), (0, 0)), (2, 1)), 4, masked=False),
    deform_row((1, 2, 3, 2, 3), (2, 1, 2, 1, 2), Window((1, 1, 1), ((0, 0),) * 3, (1, 1, 1), 2), order=1),
]
