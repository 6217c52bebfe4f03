"""In-place changes that gradients flow through.

What is written is computed by recorded ops, and then the past of the Tensor is that computation. A view has a base, the
Tensor whose memory it shows: a change of a view is a change of a part of the base (`copy_slices`), and every other view
finds its past anew in the base when somebody asks for it.

Source: PyTorch's `rebase_history` and `CopySlices`.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from operator import getitem, setitem
from typing import TYPE_CHECKING, Any

import numpy as np

from ...ops import index as index_ops, layout, reduce
from ...ops.errors import AutogradError, DTypeError, ShapeError
from ...ops.op import namespace
from ...ops.pointwise import cast
from ...ops.types import Array
from ..cuda.guard import placed
from .grad_mode import enable_grad
from .node import Node, next_sequence
from .record import OpNode
from .saved import STALE, Edge, Late, Saved, SavedOutput

if TYPE_CHECKING:
    from ..tensor.tensor import Tensor


def change(target: Tensor, compute: Callable[[Tensor], Tensor]) -> None:
    """Put `compute(target)` in the place of a Tensor's elements, and of its past.

    Raises:
        AutogradError: on a leaf that requires a gradient, or a view of one.
        ShapeError, DTypeError: if the result does not fit.
    """
    base = _changeable(target)
    since = next_sequence()
    before = _before(target)
    with enable_grad():
        out = _fitting(compute(before), target)
    _keep(out, before, since)
    past = _before(base) if base is not target else None
    _store(target, target._array, out._array)
    _adopt(out, target)
    if past is not None:
        _rebase(base, past, out, positions(base._array, target._array))
    _retie(target, out)
    _outdate(base, target)


def change_part(target: Tensor, index: Any, value: Any) -> None:
    """Overwrite the elements of a Tensor at an index; gradients flow to the value, and past it to what stays.

    Args:
        target: what is changed.
        index: as NumPy takes it.
        value: a Tensor, an array or a number; broadcast.

    Raises:
        AutogradError: on a leaf that requires a gradient, or a view of one.
        ShapeError: if the value does not fit.
    """
    base = _changeable(target)
    if Late.guard is None:
        part = target._array[index]
    else:
        part = Late.guard.change("an in-place change", getitem, target._array, index)
    with enable_grad():
        new = _broadcast(value, part, target)
    past = _before(base)
    places = _places(base._array, target._array, part, index)
    _store(target, target._array, new._array, index)
    _rebase(base, past, new, places)
    _outdate(base, None)


def take_over(target: Tensor, edge: Edge) -> None:
    """Make an edge the past of a Tensor whose elements have been changed already.

    Raises:
        AutogradError: on a leaf that requires a gradient, or a view of one.
    """
    base = _changeable(target)
    made = Late.wrap(target._array)
    made._edge, made.requires_grad = edge, True
    if base is not target:
        _rebase(base, _before(base), made, positions(base._array, target._array))
    _retie(target, made)
    _outdate(base, target)


def refresh(view: Tensor) -> None:
    """Find the past of a view anew, after its base was changed."""
    base = view._base
    assert base is not None
    view._edge = None
    if not base.requires_grad:
        view.requires_grad = False
        return
    with enable_grad():
        flat = layout.reshape(_before(base), shape=(-1,))
        found = index_ops.gather(flat, positions(base._array, view._array), axis=0)
    view._edge = found._edge


def positions(base: Array, part: Array) -> Array:
    """Return where the elements of a view lie in its base, counted in row-major order of the base."""
    offsets = _offsets(part) + (_address(part) - _address(base))
    if base.flags.c_contiguous:
        found = offsets // base.itemsize
    else:
        lying = _offsets(base).reshape(-1)
        order = np.argsort(lying)
        found = order[np.searchsorted(lying, offsets, sorter=order)]
    with placed(base):
        return namespace(base).asarray(found)


def _address(array: Array) -> int:
    interface = getattr(array, "__array_interface__", None) or array.__cuda_array_interface__
    return int(interface["data"][0])


def _offsets(array: Array) -> Any:
    """Return the bytes from the first element to each."""
    total: Any = np.zeros(array.shape, np.int64)
    for axis, (size, stride) in enumerate(zip(array.shape, array.strides, strict=True)):
        total = total + (np.arange(size) * stride).reshape(-1, *[1] * (array.ndim - axis - 1))
    return total


def _places(base: Array, target: Array, part: Array, index: Any) -> Array:
    """Return where the elements at an index of a view of a base lie in the base."""
    if isinstance(part, np.generic):
        part = target[(*index, ...) if isinstance(index, tuple) else (index, ...)]
    if namespace(part).shares_memory(part, target):
        return positions(base, part)
    return positions(base, target)[index]


def _changeable(target: Tensor) -> Tensor:
    base = target if target._base is None else target._base
    if base.requires_grad and base.is_leaf:
        what = "a view of a leaf Variable" if base is not target else "a leaf Variable"
        raise AutogradError(f"{what} that requires grad is being used in an in-place operation.")
    return base


def _before(t: Tensor) -> Tensor:
    """Return a Tensor for what another one is now: its array and its past."""
    before = Late.wrap(t._array)
    if t.requires_grad:
        before._edge = t._grad_edge()
        before.requires_grad = True
    return before


def _fitting(out: Tensor, target: Tensor) -> Tensor:
    if tuple(out.shape) != tuple(target.shape):
        raise ShapeError(
            f"output with shape {list(target.shape)} doesn't match the broadcast shape {list(out.shape)}: an in-place "
            "change keeps the shape"
        )
    if out.dtype == target.dtype:
        return out
    if not np.can_cast(out.dtype, target.dtype, "same_kind"):
        raise DTypeError(f"result type {out.dtype} can't be cast to the desired output type {target.dtype}")
    return cast(out, dtype=str(target.dtype))  # type: ignore[no-any-return]


def _keep(out: Tensor, before: Tensor, since: int) -> None:
    """Give what nodes of the computation keep of the old elements a copy of them."""
    stack = [] if out._edge is None else [out._edge[0]]
    while stack:
        node = stack.pop()
        if not isinstance(node, Node) or node.sequence <= since:
            continue
        if isinstance(node, OpNode) and any(type(a) is Saved and a.tensor is before for a in node.args):
            with placed(before._array):
                before._array = before._array.copy()
            return
        stack.extend(edge[0] for edge in node.inputs if edge is not None)


def _store(target: Tensor, memory: Array, new: Array, index: Any = ...) -> None:
    try:
        if Late.guard is None:
            memory[index] = new
        else:
            Late.guard.change("an in-place change", setitem, memory, index, new)
    except ValueError as error:
        if not getattr(memory.flags, "writeable", True):
            raise AutogradError(
                "unsupported operation: more than one element of the written-to tensor refers to a single memory "
                "location, or the memory is read-only. Please clone() the tensor before performing the operation."
            ) from None
        raise ShapeError(f"in-place change of shape {memory.shape}: {error}") from None
    target._bump()


def _adopt(out: Tensor, target: Tensor) -> None:
    """Let the node of a result keep the Tensor that the result was written to."""
    node = None if out._edge is None else out._edge[0]
    for kept in node.outputs if isinstance(node, OpNode) else ():
        if type(kept) is SavedOutput and kept.array is out._array:
            kept.array, kept.counter = target._array, target._shared_counter()
            kept.version = kept.counter[0]


def _retie(target: Tensor, out: Tensor) -> None:
    old = target._edge
    target._edge, target.requires_grad = out._edge, out.requires_grad
    if target.retains_grad and out._edge is not None:
        if old is not None and old is not STALE and old[0].hooks is not None:
            kept = old[0].hooks.retained
            kept[:] = [(i, r) for i, r in kept if r() is not target]
        out._edge[0].hooked().retained.append((out._edge[1], weakref.ref(target)))


def _rebase(base: Tensor, past: Tensor, part: Tensor, places: Array) -> None:
    """Make a change of a part the past of a base."""
    made = Late.wrap(base._array)
    OpNode(index_ops.copy_slices, (past, part, places), {}, (made,), False)
    _retie(base, made)


def _outdate(base: Tensor, current: Tensor | None) -> None:
    """Let every view but the current one find its past anew."""
    for ref in tuple(base._views or ()):
        view = ref()
        if view is not None and view is not current and view._base is base:
            view._edge, view.requires_grad = STALE, base.requires_grad


def _broadcast(value: Any, part: Any, target: Tensor) -> Tensor:
    """Return a value with the shape of a part and the element type of a Tensor."""
    if not isinstance(value, Late.tensor_class):
        value = Late.wrap(namespace(target._array).asarray(value, target.dtype))
    shape = tuple(part.shape)
    if tuple(value.shape) != shape:
        lead = value.ndim - len(shape)
        if lead > 0 and math.prod(value.shape[:lead]) == 1:
            value = layout.reshape(value, shape=tuple(value.shape[lead:]))
        lead = len(shape) - value.ndim
        if lead < 0 or any(n not in (1, m) for n, m in zip(value.shape, shape[lead:], strict=True)):
            raise ShapeError(
                f"shape mismatch: value tensor of shape {list(value.shape)} cannot be broadcast to indexing result of "
                f"shape {list(shape)}"
            )
        value = reduce.broadcast_to(value, shape=shape)
    fits = value.dtype == target.dtype
    return value if fits else cast(value, dtype=str(target.dtype))  # type: ignore[no-any-return]
