"""Emitters: layout."""

from __future__ import annotations

from typing import Any

import numpy as np

from ....ops import broadcast, create, index, layout, pointwise as pw, sampling
from ....ops.dims import Dim, Shape, product
from ....runtime.graph.graph import Value
from .create import of_type
from .registry import emits, expands
from .writer import Writer

END = 2**63 - 1
"""A slice bound that means "to the end"; negative, "to the start"."""


@emits(layout.identity)
def identity(w: Writer, x: Value) -> str:
    return w.name(x)


def target(w: Writer, x: Any, shape: Shape) -> tuple[str, int | None]:
    """Return the second input of a Reshape to these sizes, and its `allowzero`.

    An open size that an axis has already is a 0, one that is left over a -1; only others are computed.
    """
    if all(isinstance(d, int) for d in shape):
        return w.ints(shape), 1 if 0 in shape else None
    old = x.type.known_shape or ()
    zeros = 0 not in shape
    wanted: list[Any] = list(shape)
    if zeros:
        wanted = [0 if isinstance(d, Dim) and i < len(old) and old[i] == d else d for i, d in enumerate(shape)]
    left = [i for i, d in enumerate(wanted) if isinstance(d, Dim)]
    if left and -1 not in wanted and zeros:
        hardest = max(left, key=lambda i: (wanted[i].name is None, i))
        wanted[hardest] = -1
    return w.ints(wanted), None if zeros else 1


@emits(layout.reshape)
def reshape(w: Writer, x: Value, *, shape: Shape) -> Any:
    if x.type.known_shape == tuple(w.out.shape) and -1 not in shape:  # type: ignore[union-attr]
        return w.name(x)
    sizes, allowzero = target(w, x, shape)
    return w.add("Reshape", x, sizes, allowzero=allowzero)


@emits(layout.reshape_to)
def reshape_to(w: Writer, x: Value, shape: Value, *, allowzero: bool = False) -> Any:
    return w.add("Reshape", x, w.cast(shape, np.int64), allowzero=1 if allowzero else None)


@emits(layout.squeeze)
def squeeze(w: Writer, x: Value, *, axes: tuple[int, ...] | None = None) -> Any:
    if axes == ():
        return w.name(x)
    return w.add("Squeeze", x, None if axes is None else w.ints(axes))


@emits(layout.unsqueeze)
def unsqueeze(w: Writer, x: Value, *, axes: tuple[int, ...]) -> Any:
    return w.add("Unsqueeze", x, w.ints(axes)) if axes else w.name(x)


@emits(layout.flatten)
def flatten(w: Writer, x: Value, *, axis: int = 1) -> Any:
    return w.add("Flatten", x, axis=axis)


@emits(layout.transpose)
def transpose(w: Writer, x: Value, *, perm: tuple[int, ...] | None = None) -> Any:
    order = tuple(reversed(range(x.ndim))) if perm is None else tuple(p % x.ndim for p in perm)
    return w.name(x) if order == tuple(range(x.ndim)) else w.add("Transpose", x, perm=order)


@emits(layout.concat)
def concat(w: Writer, *xs: Value, axis: int) -> Any:
    return w.name(xs[0]) if len(xs) == 1 else w.add("Concat", *xs, axis=axis)


@emits(layout.split)
def split(w: Writer, x: Value, *, axis: int, sizes: Shape) -> Any:
    if len(sizes) == 1:
        return (w.name(x),)
    made = w.add("Split", x, w.ints(sizes), outputs=len(sizes), axis=axis)
    return made if isinstance(made, tuple) else (made,)


@emits(layout.slice_)
def slice_(w: Writer, x: Value, *, starts: Shape, stops: Shape, steps: Shape, axes: tuple[int, ...]) -> Any:
    if not axes:
        return w.name(x)
    open_ended = [
        END if isinstance(a, int) and s == x.shape[a] and isinstance(n, int) and n > 0 and s != 0 else s
        for s, n, a in zip(stops, steps, axes, strict=True)
    ]
    plain = all(isinstance(n, int) and n == 1 for n in steps)
    return w.add("Slice", x, w.ints(starts), w.ints(open_ended), w.ints(axes), None if plain else w.ints(steps))


@expands(layout.unslice)
def unslice(g: Any, *, starts: Any, stops: Any, steps: Any, axes: Any, size: Shape) -> Any:
    """Scatter along one axis after the other, the last axis first."""
    shape = list(g.shape)
    for start, step, axis in zip(starts, steps, axes, strict=True):
        places = sampling.count_up(of_type(np.float32), shape[axis])
        at = pw.cast(pw.add(pw.mul(places, float(step)), float(start)), dtype="int64")
        shape[axis] = size[axis]
        wide = layout.reshape(at, shape=tuple(-1 if i == axis else 1 for i in range(len(shape))))
        zeros = create.full_like(g, shape=tuple(shape), value=0)
        g = index.scatter_elements(zeros, broadcast.broadcast_to(wide, shape=tuple(g.shape)), g, axis=axis)
    return g


@emits(layout.pad)
def pad(w: Writer, x: Value, value: Any = None, *, pads: layout.Pads, mode: str = "constant", axes: Any = None) -> Any:
    if mode == "wrap" and w.opset < 19:
        return None
    at = axes if layout.open_axes(axes) else None
    every = list(pads if at is not None else layout.all_pads(pads, axes, x.ndim))
    if all(pair == (0, 0) for pair in every):
        return w.name(x)
    sides = w.ints([lo for lo, _ in every] + [hi for _, hi in every])
    number = None if value is None else fill(w, value, x.dtype)
    return w.add("Pad", x, sides, number, None if at is None else w.ints(at), mode=mode)


def fill(w: Writer, value: Any, dtype: Any) -> str:
    """Return a number or a tensor of one element as a 0-d tensor of an element type."""
    if not isinstance(value, Value):
        return w.number(value, dtype)
    name = w.cast(value, dtype)
    return name if value.type.known_shape == () else w.add("Reshape", name, np.zeros(0, np.int64))  # type: ignore[union-attr]


@expands(layout.pad)
def padded_by_parts(x: Any, value: Any = None, *, pads: layout.Pads, mode: str, axes: Any = None) -> Any:
    """Go round by joining what lies at the other end."""
    for axis, (low, high) in enumerate(layout.all_pads(pads, axes, x.ndim)):
        n = x.shape[axis]
        parts = [x]
        if low:
            parts.insert(0, layout.slice_(x, starts=(n - low,), stops=(n,), steps=(1,), axes=(axis,)))
        if high:
            parts.append(layout.slice_(x, starts=(0,), stops=(high,), steps=(1,), axes=(axis,)))
        x = layout.concat(*parts, axis=axis) if len(parts) > 1 else x
    return x


@emits(layout.flip)
def flip(w: Writer, x: Value, *, axes: tuple[int, ...]) -> Any:
    n = len(axes)
    return (
        w.add("Slice", x, w.ints((-1,) * n), w.ints((-END,) * n), w.ints(axes), w.ints((-1,) * n)) if n else w.name(x)
    )


@emits(layout.tile)
def tile(w: Writer, x: Value, *, repeats: Shape) -> Any:
    return w.name(x) if all(r == 1 for r in repeats) else w.add("Tile", x, w.ints(repeats))


@emits(layout.expand, broadcast.broadcast_to)
def expand(w: Writer, x: Value, *, shape: Shape) -> Any:
    """Expand; an axis that keeps its size is asked for as 1."""
    if tuple(x.shape) == tuple(w.out.shape):
        return w.name(x)
    lead = len(shape) - x.ndim
    wanted = [1 if i >= lead and x.shape[i - lead] == d else d for i, d in enumerate(shape)]
    return w.add("Expand", x, w.ints(wanted))


@emits(broadcast.sum_to)
def sum_to(w: Writer, x: Value, *, shape: Shape) -> Any:
    lead = x.ndim - len(shape)
    axes = [*range(lead), *(i + lead for i, d in enumerate(shape) if d == 1 and x.shape[i + lead] != 1)]
    y = w.add("ReduceSum", x, w.ints(axes), keepdims=1) if axes else w.name(x)
    return w.add("Squeeze", y, w.ints(range(lead))) if lead else y


@emits(layout.trilu)
def trilu(w: Writer, x: Value, *, upper: bool, k: Any = 0) -> Any:
    return w.add("Trilu", x, w.sizes.scalar(k) if isinstance(k, Dim) or k else None, upper=int(upper))


def flat(x: Any) -> Any:
    """Return all elements in one axis."""
    return layout.reshape(x, shape=(product(x.shape),))
