"""Blocks of timed calls, taking turns, and what they say.

Peers are measured in the same process, in alternating blocks, because a machine's speed changes from minute to minute:
the ratio of two blocks that follow each other says more than two medians from different times. A pause before each
block lets the pool of whoever ran before fall asleep.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Blocks = list[list[float]]


@dataclass(frozen=True)
class Turns:
    """How calls take turns.

    Args:
        warmup: calls before the first block, whose times do not count.
        blocks: how many of each.
        duration_s: how long a block lasts; it has at least 3 calls, unless they take four times as long.
        pause_s: before each block.
    """

    warmup: int = 3
    blocks: int = 7
    duration_s: float = 0.5
    pause_s: float = 0.3


def alternate(calls: Mapping[str, Callable[[], Any]], turns: Turns) -> dict[str, Blocks]:
    """Return the seconds of each call in each block, by name; the order turns around from block to block."""
    for call in calls.values():
        for _ in range(turns.warmup):
            call()
    times: dict[str, Blocks] = {name: [] for name in calls}
    gc.collect()
    for i in range(turns.blocks):
        for name in reversed(list(calls)) if i % 2 else calls:
            time.sleep(turns.pause_s)
            times[name].append(_block(calls[name], turns.duration_s))
    return times


def _block(call: Callable[[], Any], duration_s: float) -> list[float]:
    clock = time.perf_counter
    begun = clock()
    call()  # after a pause, caches and cores are cold
    times: list[float] = []
    while True:
        start = clock()
        call()
        end = clock()
        times.append(end - start)
        spent = end - begun
        if (spent >= duration_s and len(times) >= 3) or spent >= 4 * duration_s:
            return times


def latency(blocks: Blocks) -> dict[str, float]:
    """Return the median, 10th and 90th percentile of all calls, in seconds."""
    times = sorted(t for block in blocks for t in block)
    return {"median": statistics.median(times), "p10": _at(times, 0.1), "p90": _at(times, 0.9), "calls": len(times)}


def _at(ordered: Sequence[float], part: float) -> float:
    place = part * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def ratio(theirs: Blocks, ours: Blocks) -> dict[str, Any]:
    """Return how many times as long theirs take: the block's medians' ratios, their median, least and largest."""
    ratios = [statistics.median(t) / statistics.median(o) for t, o in zip(theirs, ours, strict=True)]
    return {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios), "blocks": ratios}
