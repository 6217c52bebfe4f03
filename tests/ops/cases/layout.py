"""Layout: the rows of the op table."""

from __future__ import annotations

from typing import Any

import numpy as np

from onnxgrad.ops.layout import (
    concat,
    expand,
    flatten,
    flip,
    identity,
    pad,
    reshape,
    reshape_to,
    slice_,
    split,
    squeeze,
    tile,
    transpose,
    trilu,
    unpad,
    unslice,
    unsqueeze,
)

from ..case import OpCase, rand


def adjoint(f: Any, shape: tuple[int, ...]) -> Any:
    """Return the adjoint of a linear function of an array of this shape, from its matrix."""
    basis = np.eye(int(np.prod(shape))).reshape(-1, *shape)
    return lambda g: np.array([(f(e) * g).sum() for e in basis]).reshape(shape)


def by_index(x: np.ndarray, shape: tuple[int, ...], source: Any) -> np.ndarray:
    """Return an array of a shape, each element copied from the place that `source(place)` names."""
    out = np.zeros(shape, x.dtype)
    for place in np.ndindex(*shape):
        out[place] = x[source(place)]
    return out


def slices(starts: Any, stops: Any, steps: Any, axes: Any, shape: tuple[int, ...]) -> list[OpCase]:
    where = {"starts": starts, "stops": stops, "steps": steps, "axes": axes}
    cut = [slice(None)] * len(shape)
    for a, i, j, k in zip(axes, starts, stops, steps, strict=True):
        cut[a] = slice(i, j, k)

    def take(x: np.ndarray) -> np.ndarray:
        return x[tuple(cut)]

    x = rand(*shape)
    g = rand(*take(x).shape, seed=1)
    return [
        OpCase(slice_, (x,), take, where),
        OpCase(unslice, (g,), adjoint(take, shape), {**where, "size": shape}, symbolic=False),
    ]


def mirrored(i: int, n: int) -> int:
    while not 0 <= i < n:
        i = -i if i < 0 else 2 * (n - 1) - i
    return i


SOURCE = {"edge": lambda i, n: min(max(i, 0), n - 1), "wrap": lambda i, n: i % n, "reflect": mirrored}


def padded(pads: Any, mode: str) -> Any:
    """Return the pad by its definition, element by element."""

    def f(x: np.ndarray) -> np.ndarray:
        x = x[tuple(slice(max(-lo, 0), n - max(-hi, 0)) for (lo, hi), n in zip(pads, x.shape, strict=True))]
        grow = [(max(lo, 0), max(hi, 0)) for lo, hi in pads]
        shape = tuple(n + lo + hi for n, (lo, hi) in zip(x.shape, grow, strict=True))
        of = SOURCE[mode]
        return by_index(
            x, shape, lambda p: tuple(of(i - lo, n) for i, (lo, _), n in zip(p, grow, x.shape, strict=True))
        )

    return f


def pads(shape: tuple[int, ...], by: Any, mode: str) -> list[OpCase]:
    f = padded(by, mode)
    x = rand(*shape)
    g = rand(*f(x).shape, seed=1)
    return [
        OpCase(pad, (x,), f, {"pads": by, "mode": mode}),
        OpCase(unpad, (g,), adjoint(f, shape), {"pads": by, "mode": mode, "size": shape}, symbolic=False),
    ]


def constant_padded(by: Any) -> Any:
    def f(x: np.ndarray, value: Any = 0.0) -> np.ndarray:
        out = np.full(tuple(n + lo + hi for n, (lo, hi) in zip(x.shape, by, strict=True)), value, x.dtype)
        for place in np.ndindex(*out.shape):
            at = tuple(i - lo for i, (lo, _) in zip(place, by, strict=True))
            if all(0 <= i < n for i, n in zip(at, x.shape, strict=True)):
                out[place] = x[at]
        return out

    return f


def triangle(upper: bool, k: int) -> Any:
    def f(x: np.ndarray) -> np.ndarray:
        out = np.zeros_like(x)
        for place in np.ndindex(*x.shape):
            d = place[-1] - place[-2]
            if d >= k if upper else d <= k:
                out[place] = x[place]
        return out

    return f


def joined(axis: int) -> Any:
    return lambda *xs: np.array([v for x in xs for v in np.moveaxis(x, axis, 0)]).swapaxes(0, axis)


CASES = [
    OpCase(identity, (rand(2, 3),), lambda x: x),
    OpCase(reshape, (rand(2, 6),), lambda x: np.array(x.ravel().tolist()).reshape(3, 4), {"shape": (3, 4)}),
    OpCase(reshape, (rand(2, 6),), lambda x: x.reshape(2, 3, 2), {"shape": (2, -1, 2)}, name="reshape-hole"),
    OpCase(reshape, (rand(1),), lambda x: x[0], {"shape": ()}, name="reshape-to-scalar"),
    OpCase(reshape_to, (rand(2, 6), np.array([0, -1, 2])), lambda x, s: x.reshape(2, 3, 2)),
    OpCase(
        reshape_to,
        (rand(0, 3), np.array([3, 0])),
        lambda x, s: x.reshape(3, 0),
        {"allowzero": True},
        name="reshape_to-allowzero",
    ),
    OpCase(squeeze, (rand(1, 3, 1),), lambda x: x[0, :, 0], {"axes": (0, -1)}, symbolic=False),
    OpCase(squeeze, (rand(1, 3, 1),), lambda x: x[0, :, 0], symbolic=False, name="squeeze-all"),
    OpCase(unsqueeze, (rand(2, 3),), lambda x: x[:, None, :, None], {"axes": (1, -1)}),
    OpCase(flatten, (rand(2, 3, 4),), lambda x: x.reshape(2, 12), {"axis": 1}),
    OpCase(flatten, (rand(2, 3, 4),), lambda x: x.reshape(1, 24), {"axis": 0}, name="flatten-0"),
    OpCase(flatten, (rand(2, 3, 4),), lambda x: x.reshape(6, 4), {"axis": -1}, name="flatten-last"),
    OpCase(
        transpose,
        (rand(2, 3, 4),),
        lambda x: by_index(x, (4, 2, 3), lambda p: (p[1], p[2], p[0])),
        {"perm": (2, 0, 1)},
    ),
    OpCase(
        transpose,
        (rand(2, 3, 4),),
        lambda x: by_index(x, (4, 3, 2), lambda p: p[::-1]),
        name="transpose-reverse",
    ),
    OpCase(concat, (rand(2, 3), rand(2, 1, seed=1), rand(2, 2, seed=2)), joined(1), {"axis": 1}, symbolic=False),
    OpCase(concat, (rand(3),), lambda x: x, {"axis": -1}),
    OpCase(split, (rand(5, 2),), lambda x: (x[:2], x[2:3], x[3:]), {"axis": 0, "sizes": (2, 1, 2)}),
    OpCase(split, (rand(2, 3),), lambda x: (x,), {"axis": -1, "sizes": (3,)}, name="split-one"),
    *slices((1,), (4,), (1,), (0,), (5, 2)),
    *slices((-1, 0), (-(2**63), 2**31 - 1), (-1, 2), (1, 0), (5, 3)),
    *slices((3, -3), (0, -1), (-2, 1), (0, -1), (5, 4)),
    *slices((9,), (12,), (1,), (0,), (3,)),
    *pads((3, 4), ((1, 2), (0, 3)), "edge"),
    *pads((3, 4), ((2, 1), (-1, 2)), "reflect"),
    *pads((3,), ((5, 4),), "reflect"),
    *pads((2, 3), ((2, 3), (4, -1)), "wrap"),
    OpCase(pad, (rand(2, 3),), constant_padded(((1, 0), (0, 2))), {"pads": ((1, 0), (0, 2))}, name="pad-zeros"),
    OpCase(
        pad,
        (rand(3, 4), rand()),
        constant_padded(((-1, 2), (1, -2))),
        {"pads": ((-1, 2), (1, -2))},
        name="pad-value",
    ),
    OpCase(flip, (rand(2, 3),), lambda x: by_index(x, (2, 3), lambda p: (p[0], 2 - p[1])), {"axes": (1,)}),
    OpCase(
        flip,
        (rand(2, 3),),
        lambda x: by_index(x, (2, 3), lambda p: (1 - p[0], 2 - p[1])),
        {"axes": (0, -1)},
        name="flip-all",
    ),
    OpCase(
        tile,
        (rand(2, 3),),
        lambda x: by_index(x, (4, 9), lambda p: (p[0] % 2, p[1] % 3)),
        {"repeats": (2, 3)},
    ),
    OpCase(expand, (rand(3, 1),), lambda x: by_index(x, (2, 3, 4), lambda p: (p[1], 0)), {"shape": (2, 1, 4)}),
    OpCase(trilu, (rand(3, 4),), triangle(True, 1), {"upper": True, "k": 1}),
    OpCase(trilu, (rand(2, 4, 3),), triangle(False, -1), {"upper": False, "k": -1}),
]
