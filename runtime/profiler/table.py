"""Events as a table of plain text, laid out as PyTorch's profiler does."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ...ops.errors import InputError
from .events import format_memory, format_time

SORTS = (
    "cpu_time", "cpu_time_total", "self_cpu_time_total", "cpu_memory_usage", "self_cpu_memory_usage", "flops", "count",
)  # fmt: skip
UNITS = {"s": 1e6, "ms": 1e3, "us": 1.0}
SCALES = ("FLOPs", "KFLOPs", "MFLOPs", "GFLOPs", "TFLOPs", "PFLOPs")
WIDTH, GAP = 12, "  "


def build_table(
    events: Sequence[Any], *, sort_by: str | None, row_limit: int, max_src_column_width: int | None,
    max_name_column_width: int | None, max_shapes_column_width: int | None, header: str | None,
    top_level_events_only: bool, time_unit: str | None, profile_memory: bool, with_flops: bool,
) -> str:  # fmt: skip
    """Return the table; see `EventList.table`."""
    if sort_by is not None and sort_by not in SORTS:
        raise InputError(f"sort_by is one of {list(SORTS)}, found {sort_by!r}")
    if time_unit is not None and time_unit not in UNITS:
        raise InputError(f"time_unit is one of {list(UNITS)}, found {time_unit!r}")
    if not events:
        return ""
    if sort_by is not None:
        events = sorted(events, key=lambda e: getattr(e, sort_by), reverse=True)
    total = sum(e.self_cpu_time_total for e in events)
    shown = [e for e in events if not (top_level_events_only and e.cpu_parent is not None)]
    shown = shown[:row_limit] if row_limit >= 0 else shown
    name_width = _at_most(max(len(e.key) for e in events) + 4, max_name_column_width)
    columns: list[tuple[str, int, str, list[str]]] = [
        ("Name", name_width, ">", [_cut(e.key, name_width) for e in shown])
    ]

    def add(title: str, cells: list[str], width: int = WIDTH, side: str = ">") -> None:
        columns.append((title, width, side, cells))

    def time(us: float) -> str:
        return format_time(us) if time_unit is None else f"{us / UNITS[time_unit]:.3f}{time_unit}"

    add("Self CPU %", [_share(e.self_cpu_time_total, total) for e in shown])
    add("Self CPU", [time(e.self_cpu_time_total) for e in shown])
    add("CPU total %", [_share(e.cpu_time_total, total) for e in shown])
    add("CPU total", [time(e.cpu_time_total) for e in shown])
    add("CPU time avg", [time(e.cpu_time) for e in shown])
    if profile_memory:
        add("CPU Mem", [format_memory(e.cpu_memory_usage) for e in shown])
        add("Self CPU Mem", [format_memory(e.self_cpu_memory_usage) for e in shown])
    add("# of Calls", [str(e.count) for e in shown])
    if any(e.input_shapes for e in events):
        width = _at_most(max(len(str(e.input_shapes)) for e in events) + 4, max_shapes_column_width)
        add("Input Shapes", ["" if e.input_shapes is None else str(e.input_shapes)[:width] for e in shown], width)
    counted = [e.flops for e in events if e.flops > 0]
    if with_flops and counted:
        step = min(max(int(math.log10(max(counted)) // 3) - 1, 0), len(SCALES) - 1)
        cells = [f"{e.flops / 1000**step:8.3f}" if e.flops > 0 else "--" for e in shown]
        add(f"Total {SCALES[step]}", cells)
    if any(e.stack for e in events):
        width = _at_most(max(len(line) for e in events for line in e.stack) + 4, max_src_column_width)
        add("Source Location", [e.stack[0][-width:] if e.stack else "" for e in shown], width, "<")
    rule = GAP.join("-" * width for _, width, _, _ in columns) + GAP
    lines = ["=" * (len(rule) - len(GAP)), header] if header is not None else []
    if top_level_events_only:
        lines += ["=" * (len(rule) - len(GAP)), "This report only display top-level ops statistics"]
    lines += [rule, _row([(title, width, side) for title, width, side, _ in columns]), rule]
    lines += [_row([(cells[i], width, side) for _, width, side, cells in columns]) for i in range(len(shown))]
    lines += [rule, f"Self CPU time total: {time(total)}"]
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[tuple[str, int, str]]) -> str:
    return "".join(f"{text:{side}{width}}{GAP}" for text, width, side in cells)


def _at_most(width: int, most: int | None) -> int:
    return width if most is None else min(width, most)


def _cut(name: str, width: int) -> str:
    return name if len(name) < width - 3 else name[: width - 3] + "..."


def _share(us: float, total: float) -> str:
    return f"{us * 100 / total:.2f}%" if total else "NaN"
