"""One model, measured: the figures that `onnxgrad bench --json` writes.

The object has these members; what could not be measured is null.

- `model`: the file. `batch`: examples a run. `threads`. `inputs`: name -> `{"type", "shape"}`.
- `machine`: `cpu`, `cores` (that this process may use), `system`, `python`, `peak_flops_per_s` (see `peak`).
- `settings`: `warmup`, `blocks`, `duration_s`, `pause_s`.
- `engines`: name -> figures, ours (`onnxgrad`) first:
  - `version`
  - `latency_s`: `{"median", "p10", "p90", "calls"}` over all calls of all blocks
  - `throughput_per_s`: examples a second, from the median
  - `load_s`, `first_result_s`: in a fresh process, after imports; the first result includes loading
  - `resident_bytes`, `peak_bytes`: that loading and running add to a fresh process, after imports
  - `flops_per_s`, `share_of_peak`: by the operations that our plan counts, for every engine the same
  - `difference`: peers only: largest difference of an output from ours, in parts of the output's largest value
- `ratios`: peer -> `{"median", "min", "max", "blocks"}` of peer's time / ours, a number a block.
- `flops`: of one run, or null where the plan does not count them.
- `profile`: rows of `{"name", "kernel", "time_s", "flops", "bytes"}`, a step each, or null and `no_profile`: why.
- `failures`: engine -> why a figure of it is missing.
"""

from __future__ import annotations

import dataclasses
import os
import platform
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...ops.errors import OnnxGradError
from ...ops.types import Array, dtype_name
from .engines import OURS, Feeds, Runner, check_peers, import_engine, open_model
from .feeds import batch_of
from .fresh import fresh
from .peak import peak_flops
from .timing import Turns, alternate, latency, ratio

PROFILE_FIELDS = ("name", "kernel", "time_s", "flops", "bytes")


@dataclasses.dataclass(frozen=True)
class Settings(Turns):
    """How to measure.

    Args:
        warmup: see `Turns`, as the three after it.
        fresh_times: how many processes measure the first result and the memory; none with 0.
        profile_runs: how many runs the profile averages.
        peak: whether to measure the machine's peak.
    """

    fresh_times: int = 3
    profile_runs: int = 10
    peak: bool = True


def cores() -> int:
    """Return how many cores this process may use: physical ones where the compiled engine can count them."""
    from ...ops.kernels.cpu.target import available

    if available():
        from ...ops.kernels.cpu.spmd import physical_cores

        return physical_cores()
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def bench(
    path: str | os.PathLike[str],
    feeds: Feeds,
    *,
    threads: int | None = None,
    peers: Sequence[str] = (),
    settings: Settings | None = None,
    runner: Runner | None = None,
    options: dict[str, Any] | None = None,
    peer_options: Mapping[str, dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """Measure a model and return the figures; the module describes them.

    Args:
        path: of the .onnx file.
        feeds: inputs by name.
        threads: of every engine; all cores by default.
        peers: engines to compare with.
        settings: how.
        runner: our model if it is loaded already.
        options: for `onnxgrad.load`.
        peer_options: for `open_model` of peers, by name.

    Raises:
        OnnxGradError: if our engine cannot run the model, or a peer is unknown or not installed.
    """
    check_peers(peers)
    path, threads, settings, options = Path(path), threads or cores(), settings or Settings(), options or {}
    told: dict[str, dict[str, Any]] = {**(peer_options or {}), OURS: options}
    engines: dict[str, dict[str, Any]] = {}
    failures: dict[str, str] = {}
    ours = runner or open_model(OURS, path, threads, **options)
    wanted = ours.run(feeds)
    engines[OURS] = {"version": import_engine(OURS)}
    runners = {OURS: ours}
    for peer in dict.fromkeys(peers):
        try:
            version = import_engine(peer)
            other = open_model(peer, path, threads, **told.get(peer, {}))
            found = other.run(feeds)
        except Exception as error:  # a peer's own errors have no common type
            failures[peer] = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            continue
        engines[peer] = {"version": version, "difference": difference(wanted, found)}
        runners[peer] = other
    times = alternate({name: _call(r, feeds) for name, r in runners.items()}, settings)
    rows, no_profile = profile(ours.model, feeds, settings.profile_runs)
    flops = sum(row["flops"] or 0 for row in rows) if rows else None
    peak = peak_flops(threads) if settings.peak else None
    batch = batch_of(feeds)
    for name, figures in engines.items():
        figures["latency_s"] = latency(times[name])
        median = figures["latency_s"]["median"]
        figures["throughput_per_s"] = batch / median
        figures["flops_per_s"] = flops / median if flops else None
        figures["share_of_peak"] = flops / median / peak if flops and peak else None
        figures |= dict.fromkeys(("load_s", "first_result_s", "resident_bytes", "peak_bytes"))
        if settings.fresh_times:
            try:
                figures |= fresh(name, path, feeds, threads, times=settings.fresh_times, **told.get(name, {}))
            except OnnxGradError as error:
                failures[name] = str(error)
    return {
        "model": str(path),
        "batch": batch,
        "threads": threads,
        "inputs": {n: _described(a) for n, a in feeds.items()},
        "machine": {**machine(), "peak_flops_per_s": peak},
        "settings": {f.name: getattr(settings, f.name) for f in dataclasses.fields(Turns)},
        "engines": engines,
        "ratios": {name: ratio(times[name], times[OURS]) for name in runners if name != OURS},
        "flops": flops,
        "profile": rows,
        "no_profile": no_profile,
        "failures": failures,
    }


def _call(runner: Runner, feeds: Feeds) -> Callable[[], Any]:
    return lambda: runner.run(feeds)


def profile(model: Any, feeds: Feeds, runs: int) -> tuple[list[dict[str, Any]] | None, str | None]:
    """Return the plan's steps with their times, operations and bytes; or None and why there are none."""
    try:
        rows = model.profile(dict(feeds), runs=runs)
    except OnnxGradError as error:
        return None, str(error)
    return [{field: getattr(row, field) for field in PROFILE_FIELDS} for row in rows], None


def difference(wanted: Sequence[Any], found: Sequence[Any]) -> float | None:
    """Return the largest difference of two lists of outputs, in parts of each output's largest finite value.

    Infinite where shapes differ, or one is finite and the other not; outputs that are no numbers do not count.
    """
    largest: float | None = None
    for a, b in zip(wanted, found, strict=True):
        if not all(isinstance(v, np.ndarray) and v.dtype != object for v in (a, b)):
            continue
        largest = max(largest or 0.0, _apart(a, b))
    return largest


def _apart(a: Array, b: Array) -> float:
    if a.shape != b.shape:
        return float("inf")
    a, b = a.astype(np.float64), b.astype(np.float64)
    finite = np.isfinite(b)
    if not np.array_equal(finite, np.isfinite(a)):
        return float("inf")
    scale = float(np.abs(b[finite]).max(initial=0.0)) or 1.0
    return float(np.abs(a[finite] - b[finite]).max(initial=0.0)) / scale


def _described(value: Any) -> dict[str, Any]:
    if not isinstance(value, np.ndarray):
        return {"type": type(value).__name__, "shape": None}
    return {"type": dtype_name(value.dtype), "shape": list(value.shape)}


def machine() -> dict[str, Any]:
    """Return what the figures were measured on."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists() and (found := re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.MULTILINE)):
        cpu = found[1]
    return {"cpu": cpu, "cores": cores(), "system": platform.platform(), "python": platform.python_version()}
