"""Arrays whose memory has been handed out: somebody may write to them without a version being counted.

`Tensor.numpy()`, `.data` and `from_numpy` hand an array out. It counts as exposed as long as it has more references
than it had before; NumPy's views refer to the array that owns their memory, so they count.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Iterable

import numpy as np

from ...ops.types import Array

_given: dict[int, tuple[weakref.ref[Array], int]] = {}


def expose(array: Array) -> None:
    """Note that a Tensor's array is about to be handed out; what refers to it now is taken to be harmless."""
    _note(array, 0)


def share(array: Array) -> None:
    """Note that a Tensor takes an array that somebody else has: any reference but the Tensor's counts."""
    _note(array, _ALONE)


def _note(array: Array, harmless: int) -> None:
    owner = _owner(array)
    known = _given.get(id(owner))
    if known is None or known[0]() is not owner:
        key = id(owner)
        # one reference less than here: `expose` and `_note` hold it, in `is_exposed` only one frame does
        _given[key] = weakref.ref(owner, lambda _: _given.pop(key, None)), harmless or sys.getrefcount(owner) - 1


def is_exposed(array: Array) -> bool:
    """Whether somebody else may write to an array."""
    if not _given:
        return False
    owner = _owner(array)
    known = _given.get(id(owner))
    return known is not None and known[0]() is owner and sys.getrefcount(owner) > known[1]


def owners(arrays: Iterable[Array]) -> frozenset[int]:
    """Return what `any_exposed` asks for about these arrays, which somebody has to hold."""
    return frozenset(id(_owner(a)) for a in arrays)


def any_exposed(of: frozenset[int]) -> bool:
    """Whether any of these `owners` has ever been handed out."""
    return bool(_given) and not _given.keys().isdisjoint(of)


def _owner(array: Array) -> Array:
    base = getattr(array, "base", None)
    return array if base is None or not hasattr(base, "__array_interface__") else base


class _Holder:
    array: Array = None


def _alone() -> int:
    """Return the references that `is_exposed` counts for an array that only a Tensor holds."""
    holder = _Holder()
    holder.array = np.zeros(1)
    return _count(holder.array)


def _count(array: Array) -> int:
    owner = _owner(array)
    return sys.getrefcount(owner)


_ALONE = _alone()
