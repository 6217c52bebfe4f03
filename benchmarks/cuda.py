"""The table of goals on a CUDA device, measured against whatever peers are installed there.

    python -m benchmarks.cuda                    everything; writes RESULTS-cuda.md
    python -m benchmarks.cuda --only bert        some of it
    python -m benchmarks.cuda --quick            a rough look

Every case runs in a process of its own. A ratio is the peer's time divided by ours, the median of alternating blocks;
calls end when the device has done its work. Networks and peers need PyTorch; onnxruntime takes part where it has the
CUDA or TensorRT provider.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import onnxgrad as og
from onnxgrad.tools.bench import Settings
from onnxgrad.tools.bench.timing import alternate, latency, ratio

from .networks import NETWORKS
from .networks.export import export
from .suite import answer_of, context
from .training import ADAM_RATE, MOMENTUM_RATE, loss_of, targets

REPORT = Path(__file__).parent / "RESULTS-cuda.md"
QUICK = Settings(blocks=3, duration_s=0.2, pause_s=0.05)
FULL = Settings(blocks=7, duration_s=1.0, pause_s=0.1)
OURS = "onnxgrad"

Call = Callable[[], Any]


@dataclass(frozen=True)
class Case:
    """A line of the table.

    Args:
        kind: `inference`, `training`, `bandwidth` or `matmul`.
        name: of the network, of the operation, or the size of the matrices.
        batch: examples; rows for `bandwidth`.
        dtype: that products, or the elements, are of.
        goal: the least ratio to the fastest peer; for `bandwidth` the least part of what a copy reaches.
    """

    kind: str
    name: str
    batch: int
    dtype: str
    goal: float

    @property
    def key(self) -> str:
        """What names it."""
        return f"{self.kind}/{self.name}/{self.batch}/{self.dtype}"


CASES = (
    *(Case("inference", "resnet50", 128, dtype, 1.1) for dtype in ("bfloat16", "float16")),
    *(Case("inference", "resnet50", 1, dtype, 1.3) for dtype in ("bfloat16", "float16")),
    *(Case("inference", name, 32, "bfloat16", 1.0) for name in ("bert_base", "vit_b16")),
    *(Case("inference", name, 1, "bfloat16", 1.2) for name in ("bert_base", "vit_b16")),
    Case("training", "resnet50", 256, "bfloat16", 1.1),
    Case("training", "bert_base", 32, "bfloat16", 1.1),
    *(Case("bandwidth", name, 65536, "float32", 0.85) for name in ("gelu", "softmax", "layer_norm")),
    Case("matmul", "8192", 8192, "bfloat16", 0.98),
)
COLUMNS = 4096
"""Of the matrices whose rows `bandwidth` works on."""


def measure(case: Case, settings: Settings, device: str = "cuda") -> dict[str, Any]:
    """Return a case's figures: `engines` with times, `ratios` of peers' times to ours, `failures`."""
    calls, peers = {
        "inference": inference, "training": training, "bandwidth": bandwidth, "matmul": matmul,
    }[case.kind](case, device)  # fmt: skip
    failures: dict[str, str] = {}
    for name, make in peers.items():
        try:
            calls[name] = make()
            calls[name]()
        except Exception as error:  # a peer's own errors have no common type
            calls.pop(name, None)
            failures[name] = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    times = alternate(calls, settings)
    return {
        "engines": {name: {"latency_s": latency(blocks)} for name, blocks in times.items()},
        "ratios": {name: ratio(blocks, times[OURS]) for name, blocks in times.items() if name != OURS},
        "failures": failures,
    }


Contest = tuple[dict[str, Call], dict[str, Callable[[], Call]]]
"""Calls that must work, by engine, and what makes those of peers."""


def _waited(f: Call) -> Call:
    def call() -> None:
        f()
        og.cuda.synchronize()

    return call


def inference(case: Case, device: str) -> Contest:
    """Return forward passes of a network whose inputs lie on the device."""
    network = NETWORKS[case.name]
    example = network.example(case.batch)
    model = og.load(export(network)).to(device)
    model.eval()

    def forward(feeds: dict[str, Any]) -> Any:
        with og.no_grad(), og.amp.autocast(case.dtype):
            return model(**feeds)

    feeds = {name: og.tensor(a, device=device) for name, a in example.items()}
    ours = _waited(lambda: forward(feeds))
    ours()
    peers: dict[str, Callable[[], Call]] = {
        "torch eager": lambda: _torch_forward(case, device, mode=None),
        "torch compile": lambda: _torch_forward(case, device, mode="max-autotune"),
    }
    if device != "cpu":
        for provider in ("CUDA", "Tensorrt"):
            peers[f"onnxruntime {provider}"] = lambda p=provider: _onnxruntime(case, p)  # type: ignore[misc]
    return {OURS: ours}, peers


def _torch_forward(case: Case, device: str, *, mode: str | None) -> Call:
    import torch

    network = NETWORKS[case.name]
    dtype = getattr(torch, case.dtype)
    module = network.build().to(device, dtype)
    feeds = [torch.from_numpy(a).to(device) for a in network.example(case.batch).values()]
    if network.side:
        module = module.to(memory_format=torch.channels_last)
        feeds = [f.to(dtype).to(memory_format=torch.channels_last) for f in feeds]
    run = torch.compile(module, mode=mode) if mode else module

    def call() -> None:
        with torch.no_grad():
            run(*feeds)
        _torch_wait(device)

    for _ in range(3):
        call()
    return call


def _torch_wait(device: str) -> None:
    import torch

    if device != "cpu":
        torch.cuda.synchronize()


def _onnxruntime(case: Case, provider: str) -> Call:
    import onnxruntime as ort

    name = f"{provider}ExecutionProvider"
    if name not in ort.get_available_providers():
        raise RuntimeError(f"this onnxruntime has {', '.join(ort.get_available_providers())}")
    network = NETWORKS[case.name]
    options = {"trt_fp16_enable": True} if provider == "Tensorrt" else {}
    session = ort.InferenceSession(str(export(network)), providers=[(name, options)])
    binding = session.io_binding()
    for key, a in network.example(case.batch).items():
        binding.bind_ortvalue_input(key, ort.OrtValue.ortvalue_from_numpy(a, "cuda", 0))
    for output in session.get_outputs():
        binding.bind_output(output.name, "cuda")

    def call() -> None:
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()

    call()
    return call


def training(case: Case, device: str) -> Contest:
    """Return training steps in mixed precision: forward, loss, backward, update."""
    network = NETWORKS[case.name]
    example = network.example(case.batch)
    model = og.load(export(network, training=True)).to(device)
    model.train()
    optimizer = _optimizer(og, network, model.parameters())
    feeds = {name: og.tensor(a, device=device) for name, a in example.items()}
    y = og.tensor(targets(network, example), device=device)

    def train_step(model: Any, optimizer: Any, feeds: dict[str, Any], y: Any) -> Any:
        optimizer.zero_grad()
        with og.amp.autocast(case.dtype):
            loss = loss_of(network, og.nn.functional, model(**feeds), y)
        loss.backward()
        optimizer.step()
        return loss

    step = og.compile(train_step)
    ours = _waited(lambda: step(model, optimizer, feeds, y))
    ours()
    return {OURS: ours}, {
        "torch eager": lambda: _torch_step(case, device, compiled=False),
        "torch compile": lambda: _torch_step(case, device, compiled=True),
    }


def _optimizer(library: Any, network: Any, parameters: Any) -> Any:
    if network.optimizer == "adamw":
        return library.optim.AdamW(parameters, lr=ADAM_RATE)
    return library.optim.SGD(parameters, lr=MOMENTUM_RATE, momentum=0.9)


def _torch_step(case: Case, device: str, *, compiled: bool) -> Call:
    import torch

    network = NETWORKS[case.name]
    example = network.example(case.batch)
    module = network.build().train().to(device)
    feeds = [torch.from_numpy(a).to(device) for a in example.values()]
    y = torch.from_numpy(targets(network, example)).to(device)
    if network.side:
        module = module.to(memory_format=torch.channels_last)
        feeds = [f.to(memory_format=torch.channels_last) for f in feeds]
    optimizer = _optimizer(torch, network, module.parameters())
    forward = torch.compile(module) if compiled else module

    def call() -> None:
        optimizer.zero_grad()
        with torch.autocast(device, dtype=getattr(torch, case.dtype)):
            loss = loss_of(network, torch.nn.functional, forward(*feeds), y)
        loss.backward()
        optimizer.step()
        _torch_wait(device)

    for _ in range(3):
        call()
    return call


def bandwidth(case: Case, device: str) -> Contest:
    """Return one pass over a matrix, and a copy of it, which moves as many bytes."""
    rng = np.random.default_rng(0)
    x = og.tensor(rng.standard_normal((case.batch, COLUMNS)).astype(case.dtype), device=device)
    functional = og.nn.functional
    function = {
        "gelu": functional.gelu,
        "softmax": lambda x: functional.softmax(x, -1),
        "layer_norm": lambda x: functional.layer_norm(x, (COLUMNS,)),
    }[case.name]
    compiled = og.compile(function)
    ours = _waited(lambda: compiled(x))
    ours()
    return {OURS: ours}, {"a copy": lambda: _waited(x.clone)}


def matmul(case: Case, device: str) -> Contest:
    """Return a product of two square matrices."""
    import torch

    size = int(case.name)
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal((size, size)).astype(np.float32) for _ in range(2)]
    a, b = (og.tensor(m, device=device).to(getattr(og, case.dtype)) for m in arrays)
    compiled = og.compile(lambda a, b: a @ b)
    ours = _waited(lambda: compiled(a, b))
    ours()

    def peer() -> Call:
        c, d = (torch.from_numpy(m).to(device, getattr(torch, case.dtype)) for m in arrays)

        def call() -> None:
            torch.matmul(c, d)
            _torch_wait(device)

        return call

    return {OURS: ours}, {"torch": peer}


# the report ------------------------------------------------------------------------------------------------------


def device_line() -> str:
    """Return the device, its driver and memory, as the report says them."""
    found = og.cuda.get_device_properties()
    driver = "unknown"
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        driver = subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()[0]
    except (OSError, subprocess.CalledProcessError, IndexError) as error:
        driver = f"unknown ({type(error).__name__})"
    return f"{found.name}, {found.total_memory / 2**30:.0f} GiB, driver {driver}"


def render(rows: Sequence[tuple[Case, dict[str, Any]]], said: dict[str, Any], device: str) -> str:
    """Return the report in Markdown.

    Args:
        rows: cases with `{"figures"}` or `{"not_measured"}`.
        said: what `suite.context` returned.
        device: the line about it.
    """
    lines = [
        "# Results on CUDA",
        "",
        "`python -m benchmarks.cuda`. A ratio is the peer's time divided by ours, the median of alternating blocks of "
        "one run, in brackets the least and largest. Goals are for an H200.",
        "",
        f"- device: {device}",
        f"- commit: {said['commit']}",
        f"- when: {said['time']}",
        f"- versions: {', '.join(f'{n} {v}' for n, v in said['versions'].items())}",
        f"- settings: {'quick: too short to rely on' if said['quick'] else 'full'}",
        "",
        "| case | onnxgrad, ms | peers, ms | ratio | goal |  |",
        "|---|---|---|---|---|---|",
    ]
    missing = []
    for case, answer in rows:
        figures = answer.get("figures")
        if figures is None:
            lines.append(f"| {case.key} | - | - | - | {case.goal:.2f} | not measured |")
            missing.append((case.key, answer["not_measured"]))
            continue
        lines.append(_line(case, figures))
        missing += [(f"{case.key}: {name}", why) for name, why in figures["failures"].items()]
    if missing:
        lines += ["", "## Not measured", "", "| case | reason |", "|---|---|"]
        lines += [f"| {key} | {why.replace('|', ' ')} |" for key, why in missing]
    return "\n".join(lines) + "\n"


def _line(case: Case, figures: dict[str, Any]) -> str:
    engines, ratios = figures["engines"], figures["ratios"]
    times = {name: f"{e['latency_s']['median'] * 1e3:.3f}" for name, e in engines.items()}
    peers = ", ".join(f"{name} {ms}" for name, ms in times.items() if name != OURS) or "-"
    if not ratios:
        return f"| {case.key} | {times[OURS]} | {peers} | - | {case.goal:.2f} | no peer |"
    worst = min(ratios, key=lambda name: ratios[name]["median"])
    r = ratios[worst]
    verdict = "met" if r["median"] >= case.goal else "**missed**"
    spread = f"{r['median']:.2f} ({r['min']:.2f}, {r['max']:.2f}) to {worst}"
    return f"| {case.key} | {times[OURS]} | {peers} | {spread} | {case.goal:.2f} | {verdict} |"


def run_case(case: Case, *, quick: bool, limit_s: float) -> dict[str, Any]:
    """Measure a case in a new process, and return `{"figures": ...}` or `{"not_measured": reason}`."""
    command = [sys.executable, "-m", "benchmarks.cuda", "--one", case.key, *(["--quick"] if quick else [])]
    return answer_of(command, limit_s)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure what is asked for and write the report."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cuda", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", help="cases whose keys contain one of these")
    parser.add_argument("--quick", action="store_true", help="few short blocks: rough figures")
    parser.add_argument("--limit-s", type=float, default=900, metavar="S", help="of a case (default: 900)")
    parser.add_argument("--report", type=Path, default=REPORT, metavar="FILE", help=f"(default: {REPORT})")
    parser.add_argument("--list", action="store_true", help="print the cases and stop")
    parser.add_argument("--one", metavar="KEY", help="measure this case in this process and print its figures as JSON")
    args = parser.parse_args(argv)
    cases = [c for c in CASES if not args.only or any(part in c.key for part in args.only)]
    if not cases:
        parser.error("no case fits; --list shows them all")
    if args.list:
        print("\n".join(case.key for case in cases))
        return 0
    if not og.cuda.is_available():
        print(f"no CUDA device: {og.cuda.why_unavailable()}", file=sys.stderr)
        return 1
    if args.one:
        case = next(c for c in CASES if c.key == args.one)
        print(json.dumps({"figures": measure(case, QUICK if args.quick else FULL)}))
        return 0
    rows = []
    for i, case in enumerate(cases, 1):
        print(f"[{i}/{len(cases)}] {case.key}: ", end="", flush=True)
        begun = time.perf_counter()
        answer = run_case(case, quick=args.quick, limit_s=args.limit_s)
        rows.append((case, answer))
        shown = _line(case, answer["figures"]) if "figures" in answer else answer["not_measured"]
        print(f"{shown} ({time.perf_counter() - begun:.0f} s)", flush=True)
    args.report.write_text(render(rows, context(args.quick), device_line()), "utf-8")
    print(f"wrote {args.report}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
