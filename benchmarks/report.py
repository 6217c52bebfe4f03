"""RESULTS.md from the suite's figures."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from .cases import GOALS, KINDS, Case, Goal, all_cases

OURS = "onnxgrad"
LARGE_BYTES = 20_000_000

TITLES = {
    "inference": "Inference, float32",
    "exact": 'Without Winograd (`accuracy="exact"`)',
    "bf16": "Inference, bfloat16",
    "int8": "int8",
    "tiny": "Tiny models",
    "training": "Training step",
    "eager": "Eager ops",
    "contention": "2 threads and 1, beside a process that keeps one core busy",
}


@dataclass(frozen=True)
class Row:
    """What a line of the results file says about a case."""

    case: Case
    figures: dict[str, Any] | None
    reason: str
    context: dict[str, Any]


def _ratio(row: dict[str, Any], peer: str) -> float | None:
    found = row["ratios"].get(peer)
    return None if found is None else float(found["median"])


def _faster(row: dict[str, Any]) -> float | None:
    ratios = [r["median"] for r in row["ratios"].values()]
    return min(ratios) if ratios else None


def _of_engines(row: dict[str, Any], figure: str) -> float | None:
    """Return onnxruntime's figure divided by ours."""
    ours, theirs = (row["engines"].get(name, {}).get(figure) for name in (OURS, "onnxruntime"))
    return theirs / ours if ours and theirs else None


def _memory(row: dict[str, Any]) -> float | None:
    return _of_engines(row, "resident_bytes") if row["file_bytes"] > LARGE_BYTES else None


def _share(row: dict[str, Any]) -> float | None:
    share = row["engines"][OURS]["share_of_peak"]
    return None if share is None else 100 * float(share)


FIGURES: dict[str, Callable[[dict[str, Any]], float | None]] = {
    "onnxruntime": lambda row: _ratio(row, "onnxruntime"),
    "openvino": lambda row: _ratio(row, "openvino"),
    "one_thread": lambda row: _ratio(row, "one_thread"),
    "faster": _faster,
    "first_result": lambda row: _of_engines(row, "first_result_s"),
    "memory": _memory,
    "share_of_peak": _share,
}
"""What goals are about: larger is better, None where a case does not say."""


def geomean(values: Sequence[float]) -> float:
    """Return the geometric mean."""
    return math.exp(sum(map(math.log, values)) / len(values))


def render(rows: Sequence[Row]) -> str:
    """Return the report in Markdown."""
    lines = ["# Results", "", *_preamble(rows), "", "## Goals", ""]
    head = ("goal", "cases", "geomean", "wanted", "worst case", "wanted", "")
    lines += _table(head, [_goal(goal, rows) for goal in GOALS])
    for kind in KINDS:
        measured = [r for r in rows if r.case.kind == kind and r.figures]
        if measured:
            lines += ["", f"## {TITLES[kind]}", "", *_details(kind, measured)]
    missing = [(r.case.key, r.reason) for r in rows if not r.figures]
    for r in rows:
        missing += [(f"{r.case.key}: {name}", why) for name, why in (r.figures or {}).get("failures", {}).items()]
    if missing:
        lines += ["", "## Not measured", "", *_table(("case", "reason"), missing)]
    return "\n".join(lines) + "\n"


def _preamble(rows: Sequence[Row]) -> list[str]:
    said = {
        "machine": {f"{f['machine']['cpu']}, {f['machine']['cores']} cores" for r in rows if (f := r.figures)},
        "commit": {r.context["commit"] for r in rows},
        "when": {r.context["time"][:10] for r in rows},
        "versions": {", ".join(f"{n} {v}" for n, v in r.context["versions"].items()) for r in rows},
        "settings": {"quick: too short to rely on" if r.context["quick"] else "full" for r in rows},
    }
    return [
        "`python -m benchmarks`. A ratio is the peer's figure divided by ours: more than 1 is better than the peer. "
        "Engines take turns in one process, in blocks with a pause before each; ratios are medians over blocks, in "
        "brackets the least and largest. Loading and memory are from fresh processes, after imports. Outputs differ by "
        "this part of their largest value.",
        "",
        *(f"- {label}: {'; '.join(sorted(values))}" for label, values in said.items()),
    ]


def _goal(goal: Goal, rows: Iterable[Row]) -> tuple[str, ...]:
    found = {r.case: r.figures for r in rows if r.figures}
    cases = [c for c in all_cases() if c.kind == goal.kind and (not goal.names or c.name in goal.names)]
    values = [(v, c.key) for c in cases if c in found and (v := _figure(goal, found[c])) is not None]
    total = len(values) + sum(c not in found for c in cases)
    count = f"{len(values)} of {total}"
    how = "{:.0f}{}" if goal.unit != "x" else "{:.2f}{}"
    wanted = how.format(goal.geomean, goal.unit)
    least = how.format(goal.worst, goal.unit) if goal.worst is not None else "-"
    if not values:
        return goal.title, count, "-", wanted, "-", least, "not measured"
    mean, (worst, key) = geomean([v for v, _ in values]), min(values)
    met = mean >= goal.geomean and (goal.worst is None or worst >= goal.worst)
    return (
        goal.title,
        count,
        how.format(mean, goal.unit),
        wanted,
        f"{how.format(worst, goal.unit)} {key.partition('/')[2]}",
        least,
        ("met" if len(values) == total else "met so far") if met else "**missed**",
    )


def _figure(goal: Goal, figures: dict[str, Any]) -> float | None:
    return FIGURES[goal.figure](figures) if OURS in figures["engines"] else None


def _details(kind: str, rows: Sequence[Row]) -> list[str]:
    peers = list(dict.fromkeys(n for r in rows for n in (r.figures or {})["engines"] if n != OURS))
    alone = any("share_of_peak" in (r.figures or {})["engines"].get(OURS, {}) for r in rows)
    head = ["model", "batch", "threads", f"{OURS}, ms", *(f"{p}, ms" for p in peers), *(f"ratio to {p}" for p in peers)]
    if alone:
        head += ["peak, %", "first result, ms", "memory, MB", "outputs differ by"]
    table = []
    for row in rows:
        figures = row.figures or {}
        engines, ratios = figures["engines"], figures["ratios"]
        cells = [row.case.name, str(row.case.batch), str(row.case.threads)]
        cells += [_ms(engines.get(n, {}).get("latency_s", {}).get("median")) for n in (OURS, *peers)]
        cells += [_spread(ratios.get(p)) for p in peers]
        if alone:
            share = engines[OURS]["share_of_peak"]
            cells.append("-" if share is None else f"{100 * share:.0f}")
            cells.append(_each(engines, "first_result_s", 1e3))
            cells.append(_each(engines, "resident_bytes", 1e-6))
            apart = [d for e in engines.values() if (d := e.get("difference")) is not None]
            cells.append(f"{max(apart):.0e}" if apart else "-")
        table.append(cells)
    notes = [f"First result and memory: {' / '.join((OURS, *peers))}.", ""] if alone and peers else []
    return [*notes, *_table(head, table)]


def _ms(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds * 1e3:.2f}" if seconds >= 1e-3 else f"{seconds * 1e3:.4f}"


def _spread(ratio: dict[str, Any] | None) -> str:
    return "-" if ratio is None else f"{ratio['median']:.2f} ({ratio['min']:.2f}, {ratio['max']:.2f})"


def _each(engines: dict[str, Any], figure: str, scale: float) -> str:
    return " / ".join("-" if e.get(figure) is None else f"{e[figure] * scale:.0f}" for e in engines.values())


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    cells = [[c.replace("|", "\\|") for c in row] for row in (head, *rows)]
    lines = [f"| {' | '.join(row)} |" for row in cells]
    return [lines[0], "|" + "---|" * len(head), *lines[1:]]
