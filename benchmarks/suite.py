"""The benchmark suite: every case in a process of its own, its figures as lines of JSON, RESULTS.md from them.

Run it on a machine that does nothing else:

    python -m benchmarks                                     everything; hours
    python -m benchmarks --only resnet18 bert --batch 1      some of it
    python -m benchmarks --kinds training --quick            a rough look
    python -m benchmarks --render                            RESULTS.md again, from what was measured
    python -m benchmarks --check                             are the networks what they claim to be?

The newest line of a case counts. Networks need PyTorch, peers their packages: pip install torch onnxruntime openvino.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from .cases import KINDS, Case, all_cases
from .models import ROOT
from .report import FIGURES, Row, render

RESULTS = ROOT / "build" / "benchmarks" / "results.jsonl"
REPORT = Path(__file__).parent / "RESULTS.md"
PACKAGES = ("onnxgrad", "numpy", "llvmlite", "onnxruntime", "openvino", "torch")


def chosen(args: argparse.Namespace) -> list[Case]:
    """Return the cases that the command line asks for."""
    return [
        case
        for case in all_cases()
        if (not args.kinds or case.kind in args.kinds)
        and (not args.only or any(part in case.name for part in args.only))
        and (not args.batch or case.batch in args.batch)
        and (not args.threads or case.threads in args.threads)
    ]


def run_case(case: Case, *, quick: bool, limit_s: float) -> dict[str, Any]:
    """Measure a case in a new process, and return `{"figures": ...}` or `{"not_measured": reason}`."""
    threads = str(case.threads)
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": threads, "OMP_NUM_THREADS": threads}
    command = [sys.executable, "-m", "benchmarks.case", case.kind, case.name, str(case.batch), threads]
    return answer_of([*command, "--quick"] if quick else command, limit_s, environment)


def answer_of(command: Sequence[str], limit_s: float, environment: dict[str, str] | None = None) -> dict[str, Any]:
    """Return the JSON object of a process' last line, or `{"not_measured": reason}`."""
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=limit_s, check=False
        )
    except subprocess.TimeoutExpired:
        return {"not_measured": f"took longer than {limit_s:g} s"}
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        said = done.stderr.strip().splitlines()[-1:] or ["nothing"]
        return {"not_measured": f"the process ended with {done.returncode} and said: {said[0][:300]}"}
    answer: dict[str, Any] = json.loads(lines[-1])
    return answer


def context(quick: bool) -> dict[str, Any]:
    """Return what a line of the results says besides figures."""
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude=*"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "-"
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return {"time": now, "commit": commit or "unknown", "versions": found, "quick": quick}


def read(path: Path) -> list[Row]:
    """Return the newest line of each case, in the suite's order."""
    newest: dict[Case, Row] = {}
    for line in path.read_text("utf-8").splitlines() if path.exists() else ():
        entry = json.loads(line)
        case = Case(**entry["case"])
        newest[case] = Row(case, entry.get("figures"), entry.get("not_measured", ""), entry["context"])
    order = {case: i for i, case in enumerate(all_cases())}
    return sorted((r for r in newest.values() if r.case in order), key=lambda r: order[r.case])


def summary(answer: dict[str, Any]) -> str:
    """Return a case's outcome on one line."""
    figures = answer.get("figures")
    if figures is None:
        return f"not measured: {answer['not_measured']}"
    parts = [f"{name} {e['latency_s']['median'] * 1e3:.3f} ms" for name, e in figures["engines"].items()]
    parts += [f"ratio to {name} {r['median']:.2f}" for name, r in figures["ratios"].items()]
    share = FIGURES["share_of_peak"](figures) if "share_of_peak" in figures["engines"].get("onnxgrad", {}) else None
    parts += [f"{share:.0f} % of peak"] if share is not None else []
    return ", ".join([*parts, *(f"{name}: {why}" for name, why in figures["failures"].items())])


def main(argv: Sequence[str] | None = None) -> int:
    """Measure what is asked for and write the report."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", help="models whose names contain one of these")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, metavar="KIND", help=f"of {', '.join(KINDS)}")
    parser.add_argument("--batch", nargs="+", type=int, metavar="N", help="these batches only")
    parser.add_argument("--threads", nargs="+", type=int, metavar="N", help="these numbers of threads only")
    parser.add_argument("--quick", action="store_true", help="few short blocks: rough figures")
    parser.add_argument("--limit-s", type=float, default=1800, metavar="S", help="of a case (default: 1800)")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FILE", help=f"(default: {RESULTS})")
    parser.add_argument("--report", type=Path, default=REPORT, metavar="FILE", help=f"(default: {REPORT})")
    parser.add_argument("--no-report", action="store_true", help="only add to the results")
    parser.add_argument("--list", action="store_true", help="print the cases and stop")
    parser.add_argument("--render", action="store_true", help="measure nothing, write the report")
    parser.add_argument("--check", action="store_true", help="check the networks and stop")
    args = parser.parse_args(argv)
    cases = chosen(args)
    if not cases:
        parser.error("no case fits; --list shows them all")
    if args.list:
        print("\n".join(case.key for case in cases))
        return 0
    if args.check:
        return check_networks({case.name for case in cases})
    if not args.render:
        args.results.parent.mkdir(parents=True, exist_ok=True)
        for i, case in enumerate(cases, 1):
            print(f"[{i}/{len(cases)}] {case.key}: ", end="", flush=True)
            answer = run_case(case, quick=args.quick, limit_s=args.limit_s)
            line = {"case": vars(case), "context": context(args.quick), **answer}
            with args.results.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            print(summary(answer), flush=True)
    if not args.no_report:
        rows = read(args.results)
        if not rows:
            parser.error(f"{args.results} holds no results")
        args.report.write_text(render(rows), "utf-8")
        print(f"wrote {args.report}")
    return 0


def check_networks(names: set[str]) -> int:
    """Compare networks with what is published about them and with their exported files; 1 if one differs."""
    from .networks import NETWORKS
    from .networks.export import check, export

    wrong = 0
    for name, network in NETWORKS.items():
        for training in (False, True):
            if name in names:
                path = export(network, training=training)
                try:
                    print(f"{path.stem}: {check(network, path)}", flush=True)
                except AssertionError as error:
                    wrong += 1
                    print(f"{path.stem}: WRONG: {error}", flush=True)
    return min(wrong, 1)
