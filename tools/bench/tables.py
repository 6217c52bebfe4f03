"""The figures as tables."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .engines import OURS

if TYPE_CHECKING:
    from rich.console import Console

NOT_KNOWN = "-"
LONGEST_PROFILE = 40


def show(figures: dict[str, Any], *, profile: bool) -> None:
    """Print figures that `bench` returned; the profile's slowest steps where it is asked for."""
    from rich.console import Console

    # Where nobody looks at it, no line is cut to a terminal's width.
    console = Console(markup=False, highlight=False, width=None if sys.stdout.isatty() else 200)
    inputs = ", ".join(f"{n} {_typed(i)}" for n, i in figures["inputs"].items())
    peak = figures["machine"]["peak_flops_per_s"]
    known = f"; measured peak {peak / 1e9:,.0f} GFLOP/s" if peak else ""
    console.print(f"{figures['model']}: {inputs}", soft_wrap=True)
    console.print(f"{figures['machine']['cpu']}, {_threads(figures['threads'])}{known}", soft_wrap=True)
    engines = figures["engines"]
    head = ("", *engines)
    rows = [(label, *(cell(e) for e in engines.values())) for label, cell in _LINES]
    ratios = [NOT_KNOWN if n == OURS else _ratio(figures["ratios"][n]) for n in engines]
    if figures["ratios"]:
        rows.append(("time / ours (least to largest)", *ratios))
        rows.append(("outputs differ from ours by", *(_number(e.get("difference"), ".1e") for e in engines.values())))
    _table(console, head, rows)
    for name, why in figures["failures"].items():
        console.print(f"{name}: {why}", soft_wrap=True)
    if profile:
        _profile(console, figures)


def _profile(console: Console, figures: dict[str, Any]) -> None:
    rows = figures["profile"]
    if not rows:
        console.print(f"no profile: {figures['no_profile'] or 'the plan has no steps'}", soft_wrap=True)
        return
    total = sum(r["time_s"] for r in rows) or 1.0
    slowest = sorted(rows, key=lambda r: -r["time_s"])[:LONGEST_PROFILE]
    table = [
        (
            r["name"],
            r["kernel"],
            f"{r['time_s'] * 1e6:,.1f}",
            f"{100 * r['time_s'] / total:.1f}",
            _number(r["flops"] / r["time_s"] / 1e9 if r["flops"] and r["time_s"] else None, ",.1f"),
            _number(r["bytes"] / r["time_s"] / 1e9 if r["bytes"] and r["time_s"] else None, ",.1f"),
        )
        for r in slowest
    ]
    _table(console, ("step", "kernel", "µs", "%", "GFLOP/s", "GB/s"), table, left=2)
    if len(rows) > len(slowest):
        rest = sum(r["time_s"] for r in rows) - sum(r["time_s"] for r in slowest)
        console.print(f"and {len(rows) - len(slowest)} faster steps: {100 * rest / total:.1f} %")


def _typed(described: dict[str, Any]) -> str:
    shape = described["shape"]
    return str(described["type"]) if shape is None else f"{described['type']}({', '.join(map(str, shape))})"


def _threads(count: int) -> str:
    return f"{count} thread{'s' * (count != 1)}"


def _number(value: float | None, how: str) -> str:
    return NOT_KNOWN if value is None else format(value, how)


def duration(seconds: float | None) -> str:
    """Return a time as people read it."""
    if seconds is None:
        return NOT_KNOWN
    if seconds >= 1:
        return f"{seconds:.2f} s"
    return f"{seconds * 1e3:.2f} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.1f} µs"


def _ratio(ratio: dict[str, Any]) -> str:
    return f"{ratio['median']:.2f} ({ratio['min']:.2f} to {ratio['max']:.2f})"


def _scaled(key: str, unit: float, how: str) -> Any:
    return lambda e: _number(None if e.get(key) is None else e[key] / unit, how)


_LINES = (
    ("version", lambda e: e["version"].split("-")[0]),
    ("latency, median", lambda e: duration(e["latency_s"]["median"])),
    ("latency, 10 % to 90 %", lambda e: f"{duration(e['latency_s']['p10'])} to {duration(e['latency_s']['p90'])}"),
    ("examples a second", lambda e: f"{e['throughput_per_s']:,.1f}"),
    ("GFLOP/s", _scaled("flops_per_s", 1e9, ",.1f")),
    ("share of the peak, %", _scaled("share_of_peak", 1e-2, ".1f")),
    ("load", lambda e: duration(e["load_s"])),
    ("load to first result", lambda e: duration(e["first_result_s"])),
    ("memory added, MB", _scaled("resident_bytes", 1e6, ",.1f")),
    ("peak memory added, MB", _scaled("peak_bytes", 1e6, ",.1f")),
)


def _table(console: Console, head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> None:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
    for i, label in enumerate(head):
        table.add_column(label, justify="left" if i < left else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    console.print()
    console.print(table)
