"""Events as a file that trace viewers read: chrome://tracing, Perfetto, TensorBoard.

Source: "Trace Event Format", complete events (`X`) and metadata events (`M`).
"""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from .events import FunctionEvent

CATEGORIES = {
    "op": "cpu_op", "backward": "cpu_op", "module": "python_function", "annotation": "user_annotation",
    "optimizer": "user_annotation", "data": "user_annotation", "compile": "cpu_op", "program": "cpu_op",
    "stage": "kernel",
}  # fmt: skip


def write_trace(
    path: str | os.PathLike[str], events: Sequence[FunctionEvent], threads: Mapping[int, str],
    metadata: Mapping[str, Any],
) -> None:  # fmt: skip
    """Write events as a Chrome trace, compressed where the name ends in `.gz`; each thread is a track."""
    pid = os.getpid()
    start = min((e.time_range.start for e in events), default=0.0)
    entries: list[dict[str, Any]] = [_meta("process_name", pid, 0, {"name": "onnxgrad"})]
    for order, (tid, name) in enumerate(sorted(threads.items())):
        entries.append(_meta("thread_name", pid, tid, {"name": f"thread {tid} ({name})"}))
        entries.append(_meta("thread_sort_index", pid, tid, {"sort_index": order}))
    entries += [_entry(e, pid, start) for e in events]
    content = {
        "schemaVersion": 1,
        "displayTimeUnit": "ms",
        **metadata,
        "traceEvents": entries,
        "traceName": os.fspath(path),
    }
    text = json.dumps(content, default=str)
    if os.fspath(path).endswith(".gz"):
        with gzip.open(path, "wt", encoding="utf-8") as file:
            file.write(text)
    else:
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)


def _meta(name: str, pid: int, tid: int, args: dict[str, Any]) -> dict[str, Any]:
    return {"ph": "M", "name": name, "pid": pid, "tid": tid, "ts": 0, "args": args}


def _entry(e: FunctionEvent, pid: int, start: float) -> dict[str, Any]:
    args: dict[str, Any] = {"External id": e.id, **{k: v for k, v in e.extra.items() if isinstance(v, str)}}
    if e.input_shapes is not None:
        args["Input Dims"] = e.input_shapes
    if e.own_memory:
        args["Bytes"] = e.own_memory
    if e.own_flops:
        args["FLOPs"] = e.own_flops
    if e.module_hierarchy:
        args["Module Hierarchy"] = e.module_hierarchy
    if e.stack:
        args["Call stack"] = ";".join(reversed(e.stack))
    return {
        "ph": "X",
        "cat": CATEGORIES[e.kind],
        "name": e.name,
        "pid": pid,
        "tid": e.thread,
        "ts": round(e.time_range.start - start, 3),
        "dur": round(e.cpu_time_total, 3),
        "args": args,
    }
