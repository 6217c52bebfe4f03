"""Blocks to images and centred crops: the rows of the op table."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from onnxgrad.ops.spatial import center_crop_pad, col2im
from onnxgrad.ops.window import Window

from ..case import OpCase, rand


def columns_summed(size: tuple[int, ...], block: tuple[int, ...], win: Window) -> Any:
    def f(x: np.ndarray) -> np.ndarray:
        c = x.shape[1] // int(np.prod(block))
        wide = np.zeros((x.shape[0], c, *(n + lo + hi for n, (lo, hi) in zip(size, win.pads, strict=True))))
        out = win.out(size, block)
        x = x.reshape(x.shape[0], c, *block, *out)
        for k in itertools.product(*map(range, block)):
            for o in itertools.product(*map(range, out)):
                at = tuple(i * s + j * d for i, s, j, d in zip(o, win.strides, k, win.dilations, strict=True))
                wide[(slice(None), slice(None), *at)] += x[(slice(None), slice(None), *k, *o)]
        crop = tuple(slice(lo, lo + n) for n, (lo, _) in zip(size, win.pads, strict=True))
        return wide[(slice(None), slice(None), *crop)]

    return f


PLAIN = Window((1, 1), ((0, 0), (0, 0)), (1, 1))
WIDE = Window((2, 1), ((1, 0), (0, 1)), (1, 2))


def centred(shape: tuple[int, ...]) -> Any:
    def f(x: np.ndarray) -> np.ndarray:
        out = np.zeros(shape)
        more = [t - n for t, n in zip(shape, x.shape, strict=True)]
        low = [m // 2 if m >= 0 else -((-m) // 2) for m in more]
        for place in np.ndindex(*shape):
            at = tuple(i - lo for i, lo in zip(place, low, strict=True))
            if all(0 <= i < n for i, n in zip(at, x.shape, strict=True)):
                out[place] = x[at]
        return out

    return f


CASES = [
    OpCase(
        col2im,
        (rand(1, 8, 6),),
        columns_summed((3, 4), (2, 2), PLAIN),
        {"size": (3, 4), "block": (2, 2), "win": PLAIN},
    ),
    OpCase(
        col2im,
        (rand(2, 12, 6),),
        columns_summed((4, 4), (3, 2), WIDE),
        {"size": (4, 4), "block": (3, 2), "win": WIDE},
    ),
    OpCase(center_crop_pad, (rand(5, 4),), centred((2, 7)), {"shape": (2, 7), "axes": (0, 1)}),
    OpCase(center_crop_pad, (rand(3, 6),), centred((3, 3)), {"shape": (3,), "axes": (-1,)}),
]
