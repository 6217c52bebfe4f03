"""Axes and slices of a shape: which axis a number means, how many elements a slice takes, symbolic or not."""

from __future__ import annotations

from .dims import Dim, DimLike
from .errors import ShapeError

UNBOUNDED = 2**31 - 1
"""A slice bound of at least this size means "to the end", as exporters write it."""


def axis_of(axis: int, rank: int, name: str) -> int:
    """Return a non-negative axis.

    Raises:
        ShapeError: if the rank has no such axis.
    """
    if not -rank <= axis < rank:
        raise ShapeError(f"{name}: axis {axis} is outside rank {rank}")
    return axis % rank


def _reaches(a: DimLike, b: DimLike) -> bool | None:
    """Return whether a >= b, None where run time decides; sizes that only run time knows may be 0."""
    diff = a - b
    if not isinstance(diff, Dim):
        return diff >= 0
    if any(s.startswith("?") for s in diff.symbols()):
        return None
    low, high = diff.lower_bound(), (b - a).lower_bound()  # type: ignore[union-attr]
    return True if low is not None and low >= 0 else False if high is not None and high > 0 else None


def bound(i: DimLike, n: DimLike, low: int) -> DimLike | None:
    """Return a slice bound counted from the front and kept in [low, n + low], None where run time decides."""
    if isinstance(i, int) and abs(i) >= UNBOUNDED:
        return n + low if i > 0 else low
    negative = _reaches(-1, i)
    if negative is None:
        return None
    at = i + n if negative else i
    above, below = _reaches(at, low), _reaches(n + low, at)
    if above is False:
        return low
    return None if above is None or below is None else at if below else n + low


def extent(n: DimLike, start: DimLike, stop: DimLike, step: DimLike) -> DimLike | None:
    """Return how many elements a slice of n takes, None where run time decides."""
    if not isinstance(step, int):
        return None
    if step == 0:
        raise ShapeError("slice: a step is 0")
    if isinstance(n, int) and isinstance(start, int) and isinstance(stop, int):
        return len(range(n)[start:stop:step])
    low = 0 if step > 0 else -1
    first, last = bound(start, n, low), bound(stop, n, low)
    if first is None or last is None:
        return None
    span = last - first if step > 0 else first - last
    match _reaches(span, 0):
        case None:
            return None
        case False:
            return 0
    return (span + abs(step) - 1) // abs(step)
