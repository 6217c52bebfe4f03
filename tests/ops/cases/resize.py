"""Resizing: the rows of the op table."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from onnxgrad.ops.resize import Interpolation, resize, resize_grad

from ..case import OpCase, rand

Position = Callable[[int, int, int], float]


def half_pixel(i: int, n: int, out: int) -> float:
    return (i + 0.5) * n / out - 0.5


def align_corners(i: int, n: int, out: int) -> float:
    return i * (n - 1) / (out - 1) if out > 1 else 0.0


def asymmetric(i: int, n: int, out: int) -> float:
    return i * n / out


POSITIONS: dict[str, Position] = {
    "half_pixel": half_pixel,
    "align_corners": align_corners,
    "asymmetric": asymmetric,
    "pytorch_half_pixel": lambda i, n, out: half_pixel(i, n, out) if out > 1 else 0.0,
    "half_pixel_symmetric": half_pixel,
    "tf_half_pixel_for_nn": lambda i, n, out: (i + 0.5) * n / out,
    "torch_half_pixel": half_pixel,
    "torch_asymmetric": asymmetric,
    "torch_half_pixel_for_nn": lambda i, n, out: (i + 0.5) * n / out,
}
ROUNDINGS: dict[str, Callable[[float], int]] = {
    "floor": math.floor,
    "ceil": math.ceil,
    "round_prefer_floor": lambda x: math.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: math.floor(x + 0.5),
}


def weight(how: Interpolation, t: float) -> float:
    """Return the kernel at a distance: a triangle, or Keys' cubic."""
    t = abs(t)
    if how.mode == "linear":
        return max(0.0, 1 - t)
    a = how.cubic_a
    if t <= 1:
        return (a + 2) * t**3 - (a + 3) * t**2 + 1
    return a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a if t < 2 else 0.0


def matrix(how: Interpolation, n: int, out: int) -> np.ndarray:
    """Return the linear map of one axis, one weight at a time."""
    m = np.zeros((out, n))
    for i in range(out):
        x = POSITIONS[how.coordinates](i, n, out)
        if how.mode == "nearest":
            m[i, min(max(ROUNDINGS[how.nearest](x), 0), n - 1)] = 1
            continue
        stretch = max(1.0, n / out) if how.antialias else 1.0
        for j in range(-8 * n, 9 * n):
            if 0 <= j < n or not how.exclude_outside:
                m[i, min(max(j, 0), n - 1)] += weight(how, (j - x) / stretch)
        if how.exclude_outside or how.antialias:
            m[i] /= m[i].sum()
    return m


def row(how: Interpolation, shape: tuple[int, ...], size: tuple[int, ...]) -> list[OpCase]:
    """Return both ops on the last axes."""
    axes = tuple(range(len(shape) - len(size), len(shape)))
    old = shape[len(shape) - len(size) :]
    maps = [matrix(how, n, out) for n, out in zip(old, size, strict=True)]

    def forward(x: np.ndarray, *_: object) -> np.ndarray:
        for axis, m in zip(axes, maps, strict=True):
            x = np.moveaxis(np.tensordot(m, x, (1, axis)), 0, axis)
        return x

    def backward(g: np.ndarray) -> np.ndarray:
        for axis, m in zip(axes, maps, strict=True):
            g = np.moveaxis(np.tensordot(m.T, g, (1, axis)), 0, axis)
        return g

    name = f"{how.mode}-{how.coordinates}-{'x'.join(map(str, size))}" + "-antialias" * how.antialias
    g = rand(*shape[: len(shape) - len(size)], *size)
    return [
        OpCase(
            resize,
            (rand(*shape),),
            forward,
            {"axes": axes, "how": how, "size": size},
            tol=1e-6,
            name=f"resize-{name}",
        ),
        OpCase(
            resize_grad,
            (g,),
            backward,
            {"axes": axes, "how": how, "size": old},
            tol=1e-6,
            symbolic=False,
            name=f"resize_grad-{name}",
        ),
    ]


CASES = [
    *row(Interpolation(), (1, 2, 3, 4), (6, 8)),
    *row(Interpolation(nearest="floor", coordinates="asymmetric"), (2, 4, 3), (2, 6)),
    *row(Interpolation(nearest="ceil", coordinates="align_corners"), (1, 4), (7,)),
    *row(Interpolation(nearest="round_prefer_ceil", coordinates="tf_half_pixel_for_nn"), (1, 8), (4,)),
    *row(Interpolation("linear"), (1, 2, 3, 4), (6, 2)),
    *row(Interpolation("linear", "align_corners"), (2, 3), (1,)),
    *row(Interpolation("linear", "pytorch_half_pixel"), (2, 20), (40,)),
    *row(Interpolation("linear", antialias=True), (1, 8, 5), (4, 2)),
    *row(Interpolation(nearest="floor", coordinates="torch_asymmetric"), (1, 2, 3, 7), (6, 4)),
    *row(Interpolation(nearest="floor", coordinates="torch_half_pixel_for_nn"), (2, 7), (10,)),
    *row(Interpolation("linear", "torch_half_pixel", precision="float64"), (2, 7), (10,)),
    *row(Interpolation("cubic"), (2, 4), (8,)),
    *row(Interpolation("cubic", cubic_a=-0.5, exclude_outside=True), (2, 20), (40,)),
    *row(Interpolation("cubic", "half_pixel_symmetric", antialias=True), (2, 8), (4,)),
    OpCase(
        resize,
        (rand(1, 4), np.array([2.1])),
        lambda x, s: x[:, [0, 0, 0, 1, 1, 2, 2, 3]],
        {"axes": (1,), "how": Interpolation(coordinates="asymmetric", nearest="simple")},
        name="resize-runtime-scales",
    ),
    OpCase(
        resize,
        (np.array([[0.0, 1, 2, 3]]), None, np.array([-1, 1])),
        lambda x, *_: np.array([[9.0, 9, 1, 3]]),
        {
            "axes": (1,),
            "size": (4,),
            "how": Interpolation("linear", "tf_crop_and_resize"),
            "outside": 9.0,
        },
        tol=1e-6,
        name="resize-crop",
    ),
    OpCase(
        resize,
        (rand(4, 4),),
        lambda x: x.repeat(2, 0).repeat(2, 1),
        {"axes": (0, 1), "size": (8, 9), "fit": "not_larger", "how": Interpolation("nearest", "asymmetric", "floor")},
        name="resize-fit",
    ),
    OpCase(
        resize_grad,
        (rand(8, 8),),
        lambda g: g.reshape(4, 2, 4, 2).sum((1, 3)),
        {
            "axes": (0, 1),
            "size": (4, 4),
            "wanted": (8, 9),
            "fit": "not_larger",
            "how": Interpolation("nearest", "asymmetric", "floor"),
        },
        name="resize_grad-fit",
        symbolic=False,
    ),
]
