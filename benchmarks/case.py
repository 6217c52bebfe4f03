"""Measures one case in this process and prints its figures as a line of JSON.

Run by the suite: python -m benchmarks.case KIND NAME BATCH THREADS [--quick]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from typing import Any

from onnxgrad.tools.bench import Settings, bench
from onnxgrad.tools.bench.engines import PEERS, open_model
from onnxgrad.tools.bench.measure import machine
from onnxgrad.tools.bench.timing import alternate, latency, ratio

from .cases import Case, options_of
from .eager import eager_calls
from .models import NotMeasured, model_of
from .networks import NETWORKS
from .training import our_step, torch_steps

QUICK = {"blocks": 3, "duration_s": 0.15, "fresh_times": 1}
BUSY = """
import os
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
parent = os.getppid()
print(flush=True)
while os.getppid() == parent:
    pass
"""


def measure(case: Case, settings: Settings) -> dict[str, Any]:
    """Return a case's figures: what `onnxgrad bench --json` writes, or `engines`, `ratios` and `failures` of it."""
    if case.kind == "training":
        return training(case, settings)
    if case.kind == "contention":
        return contention(case, settings)
    if case.kind == "eager":
        return _turns(eager_calls(case.threads), settings, {})
    path, feeds = model_of(case)
    peers = {"bf16": ("openvino",), "exact": ()}.get(case.kind, PEERS)
    bf16 = {"openvino": {"precision": "bf16"}} if case.kind == "bf16" else {}
    figures = bench(
        path,
        feeds,
        threads=case.threads,
        peers=peers,
        settings=settings,
        options=options_of(case.kind),
        peer_options=bf16,
    )
    figures["profile"] = None
    figures["batch"] = case.batch
    return {**figures, "file_bytes": path.stat().st_size}


def training(case: Case, settings: Settings) -> dict[str, Any]:
    """Measure a training step in turns with each way of PyTorch's."""
    network = NETWORKS[case.name]
    failures: dict[str, str] = {}
    calls: dict[str, Any] = {"onnxgrad": our_step(network, case.batch, case.threads)}
    calls["onnxgrad"]()
    for way, make in torch_steps(network, case.batch, case.threads).items():
        try:
            calls[f"torch {way}"] = make()
        except Exception as error:  # torch.compile needs a C++ compiler, and fails in many ways
            failures[f"torch {way}"] = _reason(error)
    return _turns(calls, settings, failures)


def contention(case: Case, settings: Settings) -> dict[str, Any]:
    """Measure 2 threads in turns with 1, while another process keeps the first core busy."""
    path, feeds = model_of(case)
    runners = {"onnxgrad": open_model("onnxgrad", path, case.threads), "one_thread": open_model("onnxgrad", path, 1)}
    calls = {name: (lambda r=runner: r.run(feeds)) for name, runner in runners.items()}
    with subprocess.Popen([sys.executable, "-c", BUSY], stdout=subprocess.PIPE) as busy:
        try:
            assert busy.stdout is not None
            busy.stdout.readline()
            return _turns(calls, settings, {})
        finally:
            busy.kill()


def _turns(calls: dict[str, Any], settings: Settings, failures: dict[str, str]) -> dict[str, Any]:
    times = alternate(calls, settings)
    ours = times.get("onnxgrad")
    return {
        "engines": {name: {"latency_s": latency(blocks)} for name, blocks in times.items()},
        "ratios": {name: ratio(blocks, ours) for name, blocks in times.items() if ours and name != "onnxgrad"},
        "machine": machine(),
        "failures": failures,
    }


def _reason(error: Exception) -> str:
    kind = "" if isinstance(error, NotMeasured) else f"{type(error).__name__}: "
    return f"{kind}{' '.join(str(error).split())[:200]}"


def main() -> None:
    """Measure, and print `{"figures": ...}` or `{"not_measured": reason}`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind")
    parser.add_argument("name")
    parser.add_argument("batch", type=int)
    parser.add_argument("threads", type=int)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    settings = Settings(**QUICK) if args.quick else Settings()  # type: ignore[arg-type]
    try:
        answer = {"figures": measure(Case(args.kind, args.name, args.batch, args.threads), settings)}
    except Exception as error:  # one case's failure is a row of the report
        answer = {"not_measured": _reason(error)}  # type: ignore[dict-item]
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
