"""What only a fresh process can say: the time from loading to the first result, and the memory that both add.

`measure` starts `python -m onnxgrad.tools.bench.fresh` once for each figure. The new process imports the engine and
reads the inputs first; only then does it look at the clock and at its own memory. Resident memory is what the kernel
counts in pages (`VmRSS` of /proc/self/status) after half a second of runs, less what it was before; peak memory is the
high-water mark (`VmHWM`, set back before the model is loaded) less the same. On systems without /proc both are None.
"""

from __future__ import annotations

import gc
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from ...ops.errors import OnnxGradError
from .engines import OURS, Feeds, import_engine, open_model

RUN_S = 0.5


def fresh(
    name: str, path: Path, feeds: Feeds, threads: int, *, times: int = 3, **options: Any
) -> dict[str, float | int | None]:
    """Return `load_s`, `first_result_s`, `resident_bytes` and `peak_bytes` of an engine, medians over processes.

    A process before those that count fills our cache of compiled code.

    Raises:
        OnnxGradError: with what the process said, if it failed.
    """
    with tempfile.TemporaryDirectory(prefix="onnxgrad-bench-") as folder:
        order = Path(folder) / "order.npz"
        said = json.dumps({"name": name, "path": str(path), "threads": threads, "options": options})
        np.savez(order, said, *feeds.values(), allow_pickle=False, names=np.array(list(feeds)))
        found = [_start(name, order, threads) for _ in range(times + (name == OURS))][-times:]
    return {
        key: None if found[0][key] is None else statistics.median(f[key] for f in found)  # type: ignore[type-var]
        for key in found[0]
    }


def _start(name: str, order: Path, threads: int) -> dict[str, float | None]:
    command = [sys.executable, "-m", __name__, str(order)]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": str(threads)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
        raise OnnxGradError(f"{name} in a process of its own: {last[0]}")
    result: dict[str, float | None] = json.loads(done.stdout.splitlines()[-1])
    return result


def main(order: Path) -> None:
    """Measure in this process and print the figures as JSON."""
    with np.load(order) as arrays:
        said = json.loads(str(arrays["arr_0"]))
        feeds = {str(n): arrays[f"arr_{i}"] for i, n in enumerate(arrays["names"], 1)}
    name, path, threads, options = said["name"], said["path"], said["threads"], said["options"]
    import_engine(name)
    gc.collect()
    before = _status("VmRSS")
    reset = _reset_peak()
    start = time.perf_counter()
    runner = open_model(name, Path(path), threads, **options)
    loaded = time.perf_counter()
    runner.run(feeds)
    first = time.perf_counter()
    while time.perf_counter() - first < RUN_S:
        runner.run(feeds)
    after, peak = _status("VmRSS"), _status("VmHWM") if reset else None
    figures = {
        "load_s": loaded - start,
        "first_result_s": first - start,
        "resident_bytes": None if after is None or before is None else after - before,
        "peak_bytes": None if peak is None or before is None else peak - before,
    }
    print(json.dumps(figures))


def _status(field: str) -> int | None:
    """Return a field of /proc/self/status in bytes."""
    try:
        text = Path("/proc/self/status").read_text()
    except OSError:
        return None
    found = re.search(rf"^{field}:\s+(\d+) kB$", text, re.MULTILINE)
    return int(found[1]) * 1024 if found else None


def _reset_peak() -> bool:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


if __name__ == "__main__":
    main(Path(sys.argv[1]))
