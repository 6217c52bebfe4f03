"""A line search: a step after which the loss has fallen enough and no longer falls steeply.

Source: Nocedal & Wright, Numerical Optimization, algorithms 3.5 and 3.6; the cubic of equation 3.59.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...ops.types import Array


@dataclass
class Point:
    """A place along the direction.

    Attributes:
        at: how far along.
        loss: the loss there.
        gradient: its gradient there.
        slope: of the loss along the direction.
    """

    at: Any
    loss: float
    gradient: Array
    slope: Any


def interpolated(a: Point, b: Point, low: Any = None, high: Any = None) -> Any:
    """Return where the cubic through two points with these slopes is lowest, within bounds."""
    if low is None:
        low, high = (a.at, b.at) if a.at <= b.at else (b.at, a.at)
    d1 = a.slope + b.slope - 3 * (a.loss - b.loss) / (a.at - b.at)
    square = d1 * d1 - a.slope * b.slope
    if not square >= 0:
        return (low + high) / 2.0
    root = np.sqrt(square)
    left, right = (a, b) if a.at <= b.at else (b, a)
    at = right.at - (right.at - left.at) * ((right.slope + root - d1) / (right.slope - left.slope + 2 * root))
    return min(max(at, low), high)


def strong_wolfe(
    probe: Callable[[Any], tuple[float, Array]], at: Any, direction: Array, loss: float, gradient: Array, slope: Any, *,
    c1: float = 1e-4, c2: float = 0.9, tolerance_change: float = 1e-9, max_ls: int = 25,
) -> tuple[float, Array, Any, int]:  # fmt: skip
    """Return loss and gradient at the step found, the step, and how often the loss was computed.

    Args:
        probe: gives loss and gradient at a step.
        at: where to start.
        direction: of the step.
        loss: at 0.
        gradient: at 0.
        slope: at 0.
        c1: what share of the first slope the loss has to fall by.
        c2: to what share of the first slope the slope has to fall.
        tolerance_change: the search ends where its interval is smaller.
        max_ls: how many probes after the first.
    """
    calls = 0

    def tried(at: Any) -> Point:
        nonlocal calls
        calls += 1
        found, g = probe(at)
        return Point(at, found, g, g.dot(direction))

    def too_high(p: Point) -> bool:
        return bool(p.loss > loss + c1 * p.at * slope)

    start = Point(0, loss, gradient.copy(), slope)
    before, now, rounds = start, tried(at), 0
    bracket: list[Point] | None = None
    while rounds < max_ls:
        if too_high(now) or (rounds > 1 and now.loss >= before.loss):
            bracket = [before, now]
            break
        if abs(now.slope) <= -c2 * slope:
            return now.loss, now.gradient, now.at, calls
        if now.slope >= 0:
            bracket = [before, now]
            break
        after = interpolated(before, now, now.at + 0.01 * (now.at - before.at), now.at * 10)
        before, now = now, tried(after)
        rounds += 1
    if bracket is None:
        bracket = [start, now]
    stalled, width = False, abs(direction).max()
    bracket.sort(key=lambda p: p.loss)
    while rounds < max_ls:
        low, high = bracket
        left, right = min(low.at, high.at), max(low.at, high.at)
        if (right - left) * width < tolerance_change:
            break
        at = interpolated(low, high)
        margin = 0.1 * (right - left)
        if min(right - at, at - left) < margin:
            if stalled or at >= right or at <= left:
                at = right - margin if abs(at - right) < abs(at - left) else left + margin
                stalled = False
            else:
                stalled = True
        else:
            stalled = False
        now = tried(at)
        rounds += 1
        if too_high(now) or now.loss >= low.loss:
            bracket = sorted((low, now), key=lambda p: p.loss)
            continue
        if abs(now.slope) <= -c2 * slope:
            return now.loss, now.gradient, now.at, calls
        bracket = [now, low if now.slope * (high.at - low.at) >= 0 else high]
    best = bracket[0]
    return best.loss, best.gradient, best.at, calls
