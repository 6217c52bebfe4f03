"""Bindings: layout."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ....ops import layout
from ....ops.dims import Dim, DimLike, Shape, product
from ....ops.errors import ShapeError, UnsupportedAttributeError
from ....ops.extent import axis_of
from ....ops.types import TensorType
from ....runtime.graph.contents import dims_of, known_contents
from ..node import NodeView
from ..registry import binds
from .reduce import integers


def has_rank(x: Any) -> bool:
    """Whether the rank of a value is known before run time."""
    return isinstance(x.type, TensorType) and x.type.known_shape is not None


def axis_in(x: Any, axis: int) -> int:
    """Return an axis of x counted from the front, as it is where run time decides it or the rank of x."""
    return axis_of(axis, x.ndim, "axis") if has_rank(x) and isinstance(axis, int) else axis


def scalar_dim(value: Any) -> DimLike:
    """Return the only element of an integer input as a dimension."""
    return dims_of(value)[0]  # type: ignore[no-any-return]


@binds("Reshape", 1)
def reshape_1(node: NodeView, x: Any) -> Any:
    node.ignore("consumed_inputs")
    return _reshaped(node, x, tuple(node.attr("shape")), allowzero=False)


@binds("Reshape", 5, 13, 14, 19, 21, 23, 24, 25)
def reshape(node: NodeView, x: Any, shape: Any) -> Any:
    allowzero = bool(node.attr("allowzero", 0))
    if known_contents(shape) is None:
        return layout.reshape_to(x, shape, allowzero=allowzero)
    target = dims_of(shape)
    if not allowzero and 0 in target and not has_rank(x):
        return layout.reshape_to(x, shape, allowzero=False)
    return _reshaped(node, x, target, allowzero=allowzero)


def _reshaped(node: NodeView, x: Any, target: Shape, *, allowzero: bool) -> Any:
    if not allowzero:
        target = tuple(x.shape[i] if isinstance(d, int) and d == 0 else d for i, d in enumerate(target))
    return layout.reshape(x, shape=unbaked(x, target, node.batch))


def unbaked(x: Any, target: Shape, batch: Dim | None) -> Shape:
    """Return a reshape target that was exported for a batch of 1, with the batch put back.

    Row-major, the batch keeps its place: after as many elements of the target as lie before it in x. It takes
    the place of a 1 there, or joins an axis that is not the last of three or more (`batch * heads`). At batch
    1 nothing changes.
    """
    if batch is None or not has_rank(x) or not all(isinstance(d, int) for d in target):
        return target
    per = x.tensor_type.size // batch
    known = [int(d) for d in target if d != -1]
    if not isinstance(per, int) or x.tensor_type.size != batch * per or not per or 0 in known:
        return target
    if per % math.prod(known) or (len(known) == len(target) and math.prod(known) != per):
        return target
    before = product(x.shape[: next(i for i, d in enumerate(x.shape) if isinstance(d, Dim))])
    seen: DimLike = 1
    for i, d in enumerate(target):
        joins = d > 1 and len(target) >= 3 and i < len(target) - 1
        if seen == before and (d == 1 or joins):
            return layout.swap(target, i, batch * d)
        if d == -1:
            break
        seen = seen * d
    return target


@binds("Transpose", 1, 13, 21, 23, 24, 25)
def transpose(node: NodeView, x: Any) -> Any:
    perm = node.attr("perm")
    return layout.transpose(x, perm=None if perm is None else tuple(perm))


@binds("Concat", 1)
def concat_1(node: NodeView, *xs: Any) -> Any:
    return layout.concat(*xs, axis=axis_in(xs[0], node.attr("axis", 1)))


@binds("Concat", 4, 11, 13)
def concat(node: NodeView, *xs: Any) -> Any:
    return layout.concat(*xs, axis=axis_in(xs[0], node.attr("axis")))


@binds("Split", 1, 2, 11, 13, 18)
def split(node: NodeView, x: Any, sizes: Any = None) -> Any:
    axis, count = axis_in(x, node.attr("axis", 0)), len(node.outputs)
    given = node.attr("split") if node.since_version < 13 else None
    if node.attr("num_outputs", count) != count:
        raise UnsupportedAttributeError(f"{node}: num_outputs is not the number of outputs, {count}")
    if given is not None:
        parts: Shape = tuple(given)
    elif sizes is not None:
        parts = dims_of(sizes)
    else:
        n = x.shape[axis]
        most = (n + count - 1) // count if node.since_version >= 18 else n // count
        parts = (*(most,) * (count - 1), n - most * (count - 1)) if node.since_version >= 18 else (most,) * count
    return layout.split(x, axis=axis, sizes=parts)


@binds("Slice", 1)
def slice_1(node: NodeView, x: Any) -> Any:
    starts, ends = node.attr("starts"), node.attr("ends")
    return _sliced(x, tuple(starts), tuple(ends), node.attr("axes"), None)


@binds("Slice", 10, 11, 13)
def slice_(node: NodeView, x: Any, starts: Any, ends: Any, axes: Any = None, steps: Any = None) -> Any:
    at = None if axes is None else dims_of(axes)
    return _sliced(x, dims_of(starts), dims_of(ends), at, None if steps is None else dims_of(steps))


def _sliced(x: Any, starts: Shape, ends: Shape, axes: Sequence[Any] | None, steps: Shape | None) -> Any:
    at = tuple(axis_in(x, a) for a in axes) if axes is not None else tuple(range(len(starts)))
    return layout.slice_(x, starts=starts, stops=ends, steps=steps or (1,) * len(starts), axes=at)


def pad_pairs(pads: Sequence[DimLike]) -> layout.Pads:
    half = len(pads) // 2
    return tuple(zip(pads[:half], pads[half:], strict=True))


@binds("Pad", 1, 2)
def pad_attr(node: NodeView, x: Any) -> Any:
    mode = node.one_of("mode", "constant", ("constant", "reflect", "edge"))
    pads = node.attr("paddings" if node.since_version == 1 else "pads")
    return layout.pad(x, node.attr("value", 0.0), pads=pad_pairs(pads), mode=mode)


@binds("Pad", 11, 13, 18, 19, 21, 23, 24, 25)
@binds("Pad", 1, domain="com.microsoft")
def pad(node: NodeView, x: Any, pads: Any, value: Any = None, axes: Any = None) -> Any:
    wraps = ("wrap",) if node.since_version >= 19 or node.domain else ()
    mode = node.one_of("mode", "constant", ("constant", "reflect", "edge", *wraps))
    pairs, at = pad_pairs(dims_of(pads)), None if axes is None else dims_of(axes)
    if at is not None and has_rank(x) and not layout.open_axes(at):
        pairs, at = layout.all_pads(pairs, at, x.ndim), None
    return layout.pad(x, value, pads=pairs, mode=mode, axes=at)


@binds("Flatten", 1, 9, 11, 13, 21, 23, 24, 25)
def flatten(node: NodeView, x: Any) -> Any:
    axis = node.attr("axis", 1)
    if not has_rank(x):
        return layout.flatten(x, axis=axis)
    if not -x.ndim <= axis <= x.ndim:
        raise ShapeError(f"axis {axis} is outside rank {x.ndim}")
    at = axis + x.ndim if axis < 0 else axis
    return layout.reshape(x, shape=(product(x.shape[:at]), product(x.shape[at:])))


@binds("Squeeze", 1, 11, 13, 21, 23, 24, 25)
def squeeze(node: NodeView, x: Any, axes: Any = None) -> Any:
    given = node.attr("axes") if node.since_version < 13 else None
    at = tuple(given) if given is not None else dims_of(axes) if axes is not None else None
    return layout.squeeze(x, axes=None if at is None else tuple(axis_in(x, a) for a in at))


@binds("Unsqueeze", 1, 11, 13, 21, 23, 24, 25)
def unsqueeze(node: NodeView, x: Any, axes: Any = None) -> Any:
    return layout.unsqueeze(x, axes=tuple(node.attr("axes")) if axes is None else dims_of(axes))


@binds("Expand", 8, 13)
def expand(node: NodeView, x: Any, shape: Any) -> Any:
    return layout.expand(x, shape=dims_of(shape))


@binds("Tile", 1)
def tile_1(node: NodeView, x: Any, tiles: Any, axis: Any) -> Any:
    at = axis_in(x, integers(node, axis, "axis")[0])
    return layout.tile(x, repeats=layout.swap((1,) * x.ndim, at, scalar_dim(tiles)))


@binds("Tile", 6, 13)
def tile(node: NodeView, x: Any, repeats: Any) -> Any:
    return layout.tile(x, repeats=dims_of(repeats))


@binds("Trilu", 14)
@binds("Trilu", 1, domain="com.microsoft")
def trilu(node: NodeView, x: Any, k: Any = None) -> Any:
    return layout.trilu(x, upper=bool(node.attr("upper", 1)), k=0 if k is None else scalar_dim(k))
