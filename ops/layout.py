"""Ops that move elements without changing them.

Pairs of adjoints: transpose and flip with themselves, concat and split, `slice_` and `unslice`, pad and
`unpad` (a constant pad is its own, with the signs turned).

Source: ONNX Reshape-25, Transpose-25, Concat-13, Split-18, Slice-13, Pad-25, Tile-13, Expand-13, Trilu-14.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from .broadcast import sum_to
from .create import full_like
from .dims import Dim, DimLike, Shape, broadcast, product, show
from .errors import DTypeError, ShapeError
from .extent import axis_of, extent
from .op import op
from .pointwise import sub, sum_to_like
from .types import TensorType, contents_array, with_contents

Entries: TypeAlias = tuple[Callable[[], Any] | None, ...]
Pads: TypeAlias = tuple[tuple[DimLike, DimLike], ...]


def open_axes(axes: Shape | None) -> bool:
    """Whether run time decides which axes these are."""
    return any(isinstance(a, Dim) for a in axes or ())


def unknown(x: TensorType, rank: int) -> TensorType:
    """Return a type of this rank, every size known only at run time."""
    return TensorType(x.dtype, tuple(Dim.fresh() for _ in range(rank)))


def swap(shape: Shape, axis: int, size: DimLike) -> Shape:
    """Return the shape with the size of one axis replaced."""
    return (*shape[:axis], size, *shape[axis + 1 :])


@op(symbolic=True)
def identity(x: TensorType) -> TensorType:
    """Return x."""
    return x


@identity.defvjp
def _identity_vjp(g: Any, y: Any, x: Any) -> Entries:
    return (lambda: g,)


@op(symbolic=True)
def reshape(x: TensorType, *, shape: Shape) -> TensorType:
    """Return the elements of x, row-major, in another shape; one -1 is what the others leave.

    Raises:
        ShapeError: if the numbers of elements differ.
    """
    return TensorType(x.dtype, _resolved(x.known_shape, shape))


def _resolved(old: Shape | None, shape: Shape) -> Shape:
    holes = [i for i, d in enumerate(shape) if isinstance(d, int) and d == -1]
    if len(holes) > 1 or any(isinstance(d, int) and d < -1 for d in shape):
        raise ShapeError(f"reshape: {show(shape)} has more than one -1, or another negative size")
    if old is None:
        return tuple(Dim.fresh() if i in holes else d for i, d in enumerate(shape))
    size = product(old)
    rest = product(d for i, d in enumerate(shape) if i not in holes)
    if not holes:
        if isinstance(size, int) and isinstance(rest, int) and size != rest:
            raise ShapeError(f"reshape: {show(old)} has {size} elements, {show(shape)} wants {rest}")
        return shape
    if isinstance(rest, int) and rest == 0:
        raise ShapeError(f"reshape: -1 in {show(shape)} could be any size")
    if isinstance(size, int) and isinstance(rest, int) and size % rest:
        raise ShapeError(f"reshape: {show(old)} has {size} elements, which {show(shape)} does not divide")
    return swap(shape, holes[0], size // rest)


@reshape.defvjp
def _reshape_vjp(g: Any, y: Any, x: Any, *, shape: Shape) -> Entries:
    return (lambda: reshape(g, shape=tuple(x.shape)),)


@op(symbolic=True)
def reshape_to(x: TensorType, shape: TensorType, *, allowzero: bool = False) -> TensorType:
    """Reshape to sizes that only run time knows; -1 is what is left, 0 copies the axis unless `allowzero`."""
    n = shape.shape[0]
    return TensorType(x.dtype, tuple(Dim.fresh() for _ in range(n)) if isinstance(n, int) else None)


@reshape_to.defvjp
def _reshape_to_vjp(g: Any, y: Any, x: Any, shape: Any, *, allowzero: bool = False) -> Entries:
    return lambda: reshape(g, shape=tuple(x.shape)), None


@op(symbolic=True)
def squeeze(x: TensorType, *, axes: tuple[int, ...] | None = None) -> TensorType:
    """Remove axes of size 1: these, or all of them.

    Raises:
        ShapeError: if one has another size.
    """
    if axes is None:
        if any(isinstance(d, Dim) for d in x.shape):
            return TensorType(x.dtype, None)
        return TensorType(x.dtype, tuple(d for d in x.shape if d != 1))
    if open_axes(axes):
        return unknown(x, x.ndim - len(axes))
    gone = {axis_of(a, x.ndim, "squeeze") for a in axes}
    for a in gone:
        if isinstance(x.shape[a], int) and x.shape[a] != 1:
            raise ShapeError(f"squeeze: axis {a} of {show(x.shape)} is not 1")
    return TensorType(x.dtype, tuple(d for i, d in enumerate(x.shape) if i not in gone))


@op(symbolic=True)
def unsqueeze(x: TensorType, *, axes: tuple[int, ...]) -> TensorType:
    """Insert axes of size 1, counted in the result."""
    if open_axes(axes):
        return unknown(x, x.ndim + len(axes))
    new = {axis_of(a, x.ndim + len(axes), "unsqueeze") for a in axes}
    if len(new) != len(axes):
        raise ShapeError(f"unsqueeze: axes {axes} repeat")
    old = iter(x.shape)
    return TensorType(x.dtype, tuple(1 if i in new else next(old) for i in range(x.ndim + len(axes))))


@op(symbolic=True)
def flatten(x: TensorType, *, axis: int = 1) -> TensorType:
    """Join the axes before `axis`, and those from it on: two axes are left."""
    if x.known_shape is None:
        return TensorType(x.dtype, (Dim.fresh(), Dim.fresh()))
    at = axis + x.ndim if axis < 0 else axis
    return TensorType(x.dtype, (product(x.shape[:at]), product(x.shape[at:])))


@squeeze.defvjp
@unsqueeze.defvjp
@flatten.defvjp
def _reshaped_vjp(g: Any, y: Any, x: Any, **attrs: Any) -> Entries:
    return (lambda: reshape(g, shape=tuple(x.shape)),)


@op(symbolic=True)
def transpose(x: TensorType, *, perm: tuple[int, ...] | None = None) -> TensorType:
    """Put axis `perm[i]` at place i; reverse the axes by default."""
    order = tuple(reversed(range(x.ndim))) if perm is None else perm
    if sorted(a % x.ndim if x.ndim else a for a in order) != list(range(x.ndim)):
        raise ShapeError(f"transpose: {perm} is no order of the axes of {show(x.shape)}")
    return TensorType(x.dtype, tuple(x.shape[a] for a in order))


@transpose.defvjp
def _transpose_vjp(g: Any, y: Any, x: Any, *, perm: tuple[int, ...] | None = None) -> Entries:
    back = None if perm is None else tuple(int(a) for a in np.argsort([p % len(perm) for p in perm]))
    return (lambda: transpose(g, perm=back),)


@op(symbolic=True)
def concat(*xs: TensorType, axis: int) -> TensorType:
    """Join along an axis; every other size agrees.

    Raises:
        ShapeError: if ranks or other sizes differ.
        DTypeError: if element types differ.
    """
    first = xs[0]
    if any(x.dtype != first.dtype for x in xs):
        raise DTypeError(f"concat: element types {sorted({str(x.dtype) for x in xs})} do not mix")
    known = [x for x in xs if x.known_shape is not None]
    if not known:
        return TensorType(first.dtype, None)
    rank = known[0].ndim
    if any(x.ndim != rank for x in known):
        raise ShapeError(f"concat: ranks differ: {', '.join(show(x.shape) for x in known)}")
    at = axis_of(axis, rank, "concat")
    shape: list[DimLike] = []
    for i in range(rank):
        sizes = [x.shape[i] for x in known]
        fixed = {d for d in sizes if isinstance(d, int)}
        if i != at and len(fixed) > 1:
            raise ShapeError(f"concat: axis {i} differs: {', '.join(show(x.shape) for x in known)}")
        shape.append(fixed.pop() if i != at and fixed else sizes[0])
    shape[at] = sum((x.shape[at] for x in known), 0) if len(known) == len(xs) else Dim.fresh()
    return TensorType(first.dtype, tuple(shape))


@concat.defvjp
def _concat_vjp(g: Any, y: Any, *xs: Any, axis: int) -> Entries:
    def part(i: int) -> Any:
        start = sum((x.shape[axis] for x in xs[:i]), 0)
        return slice_(g, starts=(start,), stops=(start + xs[i].shape[axis],), steps=(1,), axes=(axis,))

    return tuple((lambda i=i: part(i)) for i in range(len(xs)))


@op()
def split(x: TensorType, *, axis: int, sizes: Shape) -> tuple[TensorType, ...]:
    """Cut along an axis into parts of these sizes.

    Raises:
        ShapeError: if they do not add up.
    """
    if x.known_shape is None:
        return tuple(TensorType(x.dtype, None) for _ in sizes)
    at, total = axis_of(axis, x.ndim, "split"), sum(sizes, 0)
    if isinstance(total, int) and isinstance(x.shape[at], int) and total != x.shape[at]:
        raise ShapeError(f"split: sizes {sizes} add up to {total}, axis {axis} of {show(x.shape)} does not")
    outs = [TensorType(x.dtype, swap(x.shape, at, n)) for n in sizes]
    known = contents_array(x)
    if known is None or x.ndim != 1 or not all(isinstance(n, int) for n in sizes):
        return tuple(outs)
    bounds = np.cumsum([0, *sizes])
    return tuple(with_contents(t, known[a:b]) for t, a, b in zip(outs, bounds, bounds[1:], strict=False))


@split.defvjp
def _split_vjp(g: Any, y: Any, x: Any, *, axis: int, sizes: Shape) -> Entries:
    gs = g if isinstance(g, tuple) else (g,)
    some = next(v for v in gs if v is not None)

    def part(v: Any, n: DimLike) -> Any:
        return full_like(some, shape=swap(tuple(x.shape), axis % x.ndim, n), value=0) if v is None else v

    return (lambda: concat(*(part(v, n) for v, n in zip(gs, sizes, strict=True)), axis=axis),)


@op(symbolic=True)
def slice_(x: TensorType, *, starts: Shape, stops: Shape, steps: Shape, axes: tuple[int, ...]) -> TensorType:
    """Take every `step`-th element from start to before stop along some axes; bounds clamp as Python's."""
    if open_axes(axes):
        return unknown(x, x.ndim)
    shape = list(x.shape)
    for start, stop, step, axis in zip(starts, stops, steps, axes, strict=True):
        at = axis_of(axis, x.ndim, "slice")
        n = extent(shape[at], start, stop, step)
        shape[at] = Dim.fresh() if n is None else n
    return TensorType(x.dtype, tuple(shape))


@op()
def unslice(
    g: TensorType, *, starts: Shape, stops: Shape, steps: Shape, axes: tuple[int, ...], size: Shape
) -> TensorType:
    """Return the adjoint of `slice_`: g laid into zeros of shape `size`."""
    return TensorType(g.dtype, size)


@slice_.defvjp
def _slice_vjp(g: Any, y: Any, x: Any, **where: Any) -> Entries:
    return (lambda: unslice(g, **where, size=tuple(x.shape)),)


@unslice.defvjp
def _unslice_vjp(u: Any, y: Any, g: Any, *, size: Shape, **where: Any) -> Entries:
    return (lambda: slice_(u, **where),)


@op()
def pad(
    x: TensorType,
    value: Any = None,
    *,
    pads: Pads,
    mode: str = "constant",
    axes: tuple[int, ...] | None = None,
) -> TensorType:
    """Grow these axes (each by default) by (low, high) elements; negative pads crop.

    Modes: `constant` repeats value (0 by default), `edge` the outermost element, `reflect` mirrors without
    it, `wrap` goes round.
    """
    if x.known_shape is None:
        return TensorType(x.dtype, tuple(Dim.fresh() for _ in pads) if axes is None else None)
    if open_axes(axes):
        return unknown(x, x.ndim)
    if len(pads) != (x.ndim if axes is None else len(axes)):
        raise ShapeError(f"pad: {len(pads)} pairs of pads for {show(x.shape)}, axes {axes}")
    every = all_pads(pads, axes, x.ndim)
    return TensorType(x.dtype, tuple(n + lo + hi for n, (lo, hi) in zip(x.shape, every, strict=True)))


def all_pads(pads: Pads, axes: tuple[int, ...] | None, rank: int) -> Pads:
    """Return one pair of pads for each axis."""
    if axes is None:
        return pads
    given = {axis_of(a, rank, "pad"): pair for a, pair in zip(axes, pads, strict=True)}
    return tuple(given.get(i, (0, 0)) for i in range(rank))


@op()
def unpad(g: TensorType, *, pads: Pads, mode: str, size: Shape, axes: tuple[int, ...] | None = None) -> TensorType:
    """Return the adjoint of a `reflect`, `edge` or `wrap` pad: every copy added to where it came from."""
    return TensorType(g.dtype, size)


@pad.defvjp
def _pad_vjp(
    g: Any, y: Any, x: Any, value: Any = None, *, pads: Pads, mode: str = "constant", axes: Any = None
) -> Entries:
    back = tuple((-lo, -hi) for lo, hi in pads)

    def for_x() -> Any:
        if mode == "constant":
            return pad(g, pads=back, axes=axes)
        return unpad(g, pads=pads, mode=mode, size=tuple(x.shape), axes=axes)

    def for_value() -> Any:
        if mode != "constant":
            return full_like(g, shape=tuple(value.shape), value=0)
        inside = pad(pad(g, pads=back, axes=axes), pads=pads, axes=axes)
        return sum_to_like(sub(g, inside), value)

    return for_x, for_value if hasattr(value, "shape") else None


@unpad.defvjp
def _unpad_vjp(u: Any, y: Any, g: Any, *, pads: Pads, mode: str, size: Shape, axes: Any = None) -> Entries:
    return (lambda: pad(u, pads=pads, mode=mode, axes=axes),)


@op(symbolic=True)
def flip(x: TensorType, *, axes: tuple[int, ...]) -> TensorType:
    """Turn these axes round."""
    return TensorType(x.dtype, x.known_shape)


@flip.defvjp
def _flip_vjp(g: Any, y: Any, x: Any, *, axes: tuple[int, ...]) -> Entries:
    return (lambda: flip(g, axes=axes),)


@op(symbolic=True)
def tile(x: TensorType, *, repeats: Shape) -> TensorType:
    """Repeat x `repeats[i]` times along axis i."""
    if x.known_shape is None:
        return TensorType(x.dtype, tuple(Dim.fresh() for _ in repeats))
    if len(repeats) != x.ndim:
        raise ShapeError(f"tile: {len(repeats)} repeats for {show(x.shape)}")
    return TensorType(x.dtype, tuple(n * r for n, r in zip(x.shape, repeats, strict=True)))


@tile.defvjp
def _tile_vjp(g: Any, y: Any, x: Any, *, repeats: Shape) -> Entries:
    def total() -> Any:
        apart = tuple(d for pair in zip(repeats, x.shape, strict=True) for d in pair)
        kept = tuple(d for n in x.shape for d in (1, n))
        return reshape(sum_to(reshape(g, shape=apart), shape=kept), shape=tuple(x.shape))

    return (total,)


@op(symbolic=True)
def expand(x: TensorType, *, shape: Shape) -> TensorType:
    """Broadcast x and `shape` to each other."""
    return TensorType(x.dtype, broadcast(x.shape, shape))


@expand.defvjp
def _expand_vjp(g: Any, y: Any, x: Any, *, shape: Shape) -> Entries:
    return (lambda: sum_to_like(g, x),)


@op(symbolic=True)
def trilu(x: TensorType, *, upper: bool, k: DimLike = 0) -> TensorType:
    """Keep the last two axes on and above (else on and below) the k-th diagonal; zeros elsewhere.

    Raises:
        ShapeError: if there are fewer than two axes.
    """
    if x.known_shape is not None and len(x.known_shape) < 2:
        raise ShapeError(f"trilu: wants two axes or more, found {show(x.known_shape)}")
    return TensorType(x.dtype, x.known_shape)


@trilu.defvjp
def _trilu_vjp(g: Any, y: Any, x: Any, *, upper: bool, k: DimLike = 0) -> Entries:
    return (lambda: trilu(g, upper=upper, k=k),)
