"""`x[index]` as NumPy and PyTorch have it, made of slices, reshapes and gathers so that gradients flow through."""

from __future__ import annotations

from operator import getitem
from typing import TYPE_CHECKING, Any

import numpy as np

from ....ops import index as index_ops, layout
from ....ops.dims import Dim
from ....ops.errors import OpError
from ....ops.extent import UNBOUNDED
from ...autograd.grad_mode import MODE
from ...autograd.node_names import labelled
from ...autograd.record import note_view
from ...autograd.saved import Late
from .misplaced import misplaced

if TYPE_CHECKING:
    from ..tensor import Tensor


def plain_index(index: Any) -> Any:
    """Return an index with arrays in the place of Tensors and lists."""
    if isinstance(index, tuple):
        return tuple(plain_index(i) for i in index)
    if isinstance(index, list | range):
        return np.asarray([plain_index(i) for i in index])
    return getattr(index, "_array", index)


def take(x: Any, index: Any) -> Tensor:
    """Return the elements of a Tensor at an index; views where the index has no arrays."""
    if MODE.trace is not None:
        return MODE.trace.take(x, index)  # type: ignore[no-any-return]
    plain = plain_index(index)
    if not (x.requires_grad and MODE.enabled):
        try:
            array = x._array[plain] if Late.guard is None else Late.guard.change("index", getitem, x._array, plain)
        except (IndexError, TypeError) as error:
            raise misplaced(error, plain, tuple(x._array.shape)) from None
        out = Late.wrap(array)
        if getattr(out._array, "base", None) is not None:
            out._counter = x._shared_counter()
            note_view(out, x)
        return out
    return taken(x, plain)


def taken(x: Any, index: Any) -> Tensor:
    """Return the elements at an index, made of ops."""
    found = _take(x, _complete(index, x.ndim))
    if isinstance(index, int | np.integer):
        labelled(found, "Select")
    elif any(_is_array(i) for i in (index if isinstance(index, tuple) else (index,))):
        labelled(found, "Index")
    return found  # type: ignore[no-any-return]


def _is_array(i: Any) -> bool:
    return isinstance(i, bool | np.bool_) or (hasattr(i, "dtype") and (i.ndim > 0 or i.dtype.kind == "b"))


def _complete(index: Any, ndim: int) -> list[Any]:
    """Return one entry an axis (and None for new axes): the ellipsis written out, truth values as places."""
    entries: list[Any] = []
    for i in index if isinstance(index, tuple) else (index,):
        if _is_array(i) and np.dtype(getattr(i, "dtype", bool)).kind == "b":
            if np.ndim(i) == 0:
                raise OpError("indexing: a single truth value is not an index here; use unsqueeze")
            entries.extend(i.nonzero())
        else:
            entries.append(i)
    used = sum(i is not None and i is not Ellipsis for i in entries)
    if used > ndim:
        raise IndexError(f"too many indices for tensor of dimension {ndim}")
    at = next((k for k, i in enumerate(entries) if i is Ellipsis), len(entries))
    return [*entries[:at], *([slice(None)] * (ndim - used)), *entries[at + 1 :]]


def _take(x: Any, entries: list[Any]) -> Any:
    """Slice first, then drop and insert axes, then gather."""
    starts, stops, steps, axes = [], [], [], []
    shape: list[int] = []
    arrays: list[tuple[int, Any]] = []
    sliced: list[tuple[int, int]] = []
    axis = 0
    for i in entries:
        if i is None:
            shape.append(1)
            continue
        n = x.shape[axis]
        if _is_array(i):
            arrays.append((len(shape), i))
            shape.append(n)
        elif isinstance(i, slice) and _is_whole(i, n):
            shape.append(n)
        elif isinstance(i, slice):
            first, last, step = _bounds(i, n)
            sliced.append((len(shape), axis))
            starts.append(first)
            stops.append(last)
            steps.append(step)
            axes.append(axis)
            shape.append(n)
        else:
            k: Any = int(i)
            if isinstance(n, Dim) and k in (0, -1):
                k = n + k if k else 0
            elif not -n <= k < n:
                raise IndexError(f"index {k} is out of bounds for dimension {axis} with size {n}")
            else:
                k %= n
            starts.append(k)
            stops.append(k + 1)
            steps.append(1)
            axes.append(axis)
        axis += 1
    if axes:
        x = layout.slice_(x, starts=tuple(starts), stops=tuple(stops), steps=tuple(steps), axes=tuple(axes))
        for place, at in sliced:
            shape[place] = x.shape[at]
    if tuple(x.shape) != tuple(shape):
        x = layout.reshape(x, shape=tuple(shape))
    elif not axes and not arrays:
        x = layout.identity(x)
    return _gathered(x, arrays) if arrays else x


def _bounds(i: slice, n: Any) -> tuple[Any, Any, int]:
    """Return start, stop and step of a slice of n as the op has them; those that only run time knows as they are."""
    parts = [v.item() if hasattr(v, "item") else v for v in (i.start, i.stop, i.step)]
    step = 1 if parts[2] is None else parts[2]
    if any(isinstance(v, Dim) for v in (n, *parts)):
        first = (0 if step > 0 else UNBOUNDED) if parts[0] is None else parts[0]
        return first, (UNBOUNDED if step > 0 else -UNBOUNDED) if parts[1] is None else parts[1], step
    first, last, step = slice(*parts).indices(n)
    return first, last if last >= 0 else -n - 1, step


def _is_whole(i: slice, n: Any) -> bool:
    if i == slice(None):
        return True
    if any(isinstance(v, Dim) for v in (n, i.start, i.stop, i.step)):
        return False
    return i.indices(n) == (0, n, 1)


def _gathered(x: Any, arrays: list[tuple[int, Any]]) -> Any:
    """Take by integer arrays, which broadcast; their axes come where they stood, or first where they were apart."""
    places = [p for p, _ in arrays]
    for p, i in arrays:
        if hasattr(i, "interpret_priority"):
            continue
        if i.size and not (-x.shape[p] <= i.min() and i.max() < x.shape[p]):
            raise IndexError(f"index {int(i.max())} is out of bounds for dimension {p} with size {x.shape[p]}")
    if len(arrays) == 1:
        return index_ops.gather(x, arrays[0][1], axis=places[0])
    together = places == list(range(places[0], places[0] + len(places)))
    start = places[0] if together else 0
    if not together:
        rest = [a for a in range(x.ndim) if a not in places]
        x = layout.transpose(x, perm=tuple(places + rest))
    sizes = x.shape[start : start + len(places)]
    flat: Any = 0
    for size, (_, i) in zip(sizes, arrays, strict=True):
        flat = flat * size + i % size
    x = layout.reshape(x, shape=(*x.shape[:start], -1, *x.shape[start + len(places) :]))
    return index_ops.gather(x, flat, axis=start)
