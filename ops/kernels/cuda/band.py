"""Constant masks of attention that hide what a window hides: libraries know windows, and skip what lies outside."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...types import Array

_HIDDEN = -6e4
"""Numbers up to this one, added to scores, leave no weight beside a key to which 0 is added."""


@dataclass(frozen=True)
class Band:
    """Query i sees the keys from i + offset - left to i + offset + right; -1 is all on that side."""

    left: int
    right: int
    offset: int


def band(mask: Array, queries: int, keys: int) -> Band | None:
    """Return the window that a mask is; None where it is none, or differs between heads, or hides all of a row.

    Args:
        mask: truth values, or numbers that are added to the scores; broadcasts to (..., queries, keys).
        queries: how many.
        keys: how many.
    """
    seen = mask if mask.dtype == bool else mask == 0
    if mask.dtype != bool and not (seen | (mask <= np.asarray(_HIDDEN, mask.dtype))).all():
        return None
    seen = np.broadcast_to(seen, np.broadcast_shapes(seen.shape, (1, keys)))
    rows = seen.reshape(-1, *seen.shape[-2:])
    if (rows != rows[0]).any() or not rows[0].any(axis=1).all():
        return None
    first, last = rows[0].argmax(axis=1), keys - 1 - rows[0][:, ::-1].argmax(axis=1)
    if (rows[0].sum(axis=1) != last - first + 1).any():
        return None
    for offset in dict.fromkeys((max(keys - queries, 0), 0)):  # the last query stands at the last key, or at its number
        place = np.arange(queries) + offset
        left, right = _bound(place - first, first > 0), _bound(last - place, last < keys - 1)
        if left is not None and right is not None:
            return Band(left, right, offset)
    return None


def _bound(distance: Array, bound: Array) -> int | None:
    """Return how far queries see on a side, -1 for all; None if they do not see equally far.

    Args:
        distance: to the outermost key that each sees.
        bound: whether there are keys behind it.
    """
    distance, bound = np.broadcast_arrays(distance, bound)
    if not bound.any():
        return -1
    found = int(distance[bound][0])
    same = (distance[bound] == found).all() and (distance[~bound] <= found).all()
    return found if same and found >= 0 else None
