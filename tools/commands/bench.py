"""`onnxgrad bench`: how fast a model runs, in what memory, and how its peers do."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from .image_options import add_image_options, preparation_of

EPILOG = """\
examples:
  onnxgrad bench model.onnx
  onnxgrad bench resnet.onnx --batch 8 --threads 1 --profile
  onnxgrad bench bert.onnx --shape input_ids=1x128
  onnxgrad bench model.onnx --peer onnxruntime --peer openvino
  onnxgrad bench model.onnx --input x.npz --json figures.json
  onnxgrad bench model.onnx --device cuda
  onnxgrad bench --device cuda --suite --quick

Peers run in the same process in alternating blocks with a pause before each; ratio = peer's time / ours, so more than 1
is faster than the peer. PyTorch runs no .onnx file: it is a peer in `python -m benchmarks` of a checkout only."""


def add_parser(subparsers: Any) -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "bench",
        help="measure a model's speed and memory, beside its peers",
        description="Measure latency, throughput, memory, FLOP/s and their share of the machine's peak, and the time "
        "from loading to the first result; beside onnxruntime and OpenVINO if asked.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="MODEL", nargs="?", help="an .onnx file")
    parser.add_argument("--device", default="cpu", metavar="NAME", help="cpu, cuda or cuda:N (default: cpu)")
    parser.add_argument(
        "--suite",
        action="store_true",
        help="measure the table of goals instead of a model, and write benchmarks/RESULTS.md or, with --device cuda, "
        "RESULTS-cuda.md; in a checkout",
    )
    parser.add_argument("--quick", action="store_true", help="with --suite: few short blocks, rough figures")
    parser.add_argument(
        "--input",
        dest="inputs",
        metavar="[NAME=]FILE",
        action="append",
        default=[],
        help="an input from .npy, .npz, .json or an image (default: random values of the declared types)",
    )
    parser.add_argument(
        "--shape",
        dest="shapes",
        metavar="NAME=AxBxC",
        action="append",
        default=[],
        type=_shape,
        help="the shape of a random input, such as x=1x3x224x224; may be repeated",
    )
    parser.add_argument("--batch", type=_count, metavar="N", help="examples a run, where the file leaves it open")
    parser.add_argument("--threads", type=_count, metavar="N", help="of every engine (default: all cores)")
    parser.add_argument(
        "--peer",
        dest="peers",
        metavar="NAME",
        action="append",
        default=[],
        choices=("onnxruntime", "openvino", "torch"),
        help="onnxruntime or openvino; may be repeated",
    )
    parser.add_argument(
        "--warmup", type=_whole, default=3, metavar="N", help="runs before the first block (default: 3)"
    )
    parser.add_argument("--blocks", type=_count, default=7, metavar="N", help="blocks of each engine (default: 7)")
    parser.add_argument(
        "--duration-s", type=_seconds, default=0.5, metavar="S", help="how long a block lasts (default: 0.5)"
    )
    parser.add_argument(
        "--pause-s",
        type=_seconds,
        default=0.3,
        metavar="S",
        help="before a block, so that other engines' threads fall asleep (default: 0.3)",
    )
    parser.add_argument("--profile", action="store_true", help="list the steps of the plan with their times")
    parser.add_argument("--json", metavar="FILE", help="write the figures to a file; - prints them and nothing else")
    add_image_options(parser)


def _shape(text: str) -> tuple[str, tuple[int, ...]]:
    name, _, sizes = text.rpartition("=")
    parts = sizes.lower().split("x")
    if not name or not all(p.isdecimal() for p in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=AxBxC, such as x=1x3x224x224")
    return name, tuple(map(int, parts))


def _whole(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number such as 0, 1 or 2")
    return int(text)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 1")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time in seconds")
    return seconds


def run(args: argparse.Namespace) -> int:
    """Measure and print; 1 if an engine that was asked for could not be measured."""
    if args.threads:  # NumPy reads it when it is imported
        os.environ.setdefault("OPENBLAS_NUM_THREADS", str(args.threads))
    from ...ops.errors import InputError
    from ...runtime.tensor.device import device as Device
    from ..bench import Settings, bench
    from ..bench.engines import OURS, check_peers, open_model
    from ..bench.feeds import make_feeds
    from ..bench.measure import cores
    from ..bench.tables import show

    device = str(Device(args.device))
    if args.suite:
        return _suite(args, device)
    if args.model is None:
        raise InputError("which model? `onnxgrad bench MODEL`, or `onnxgrad bench --suite` in a checkout")
    if args.quick:
        raise InputError("--quick goes with --suite; of one model, --blocks and --duration-s say how long to measure")
    check_peers(args.peers, device)
    if args.json not in (None, "-") and not Path(args.json).absolute().parent.is_dir():
        raise InputError(f"--json {args.json}: the folder {Path(args.json).parent} does not exist")
    threads = args.threads or cores()
    options = {} if device == "cpu" else {"device": device}
    runner = open_model(OURS, Path(args.model), threads, **options)
    feeds = make_feeds(runner.model.inputs, args.inputs, dict(args.shapes), args.batch, preparation_of(args))
    settings = Settings(args.warmup, args.blocks, args.duration_s, args.pause_s, peak=device == "cpu")
    figures = bench(
        args.model, feeds, threads=threads, peers=args.peers, settings=settings, runner=runner, options=options,
        peer_options=dict.fromkeys(args.peers, options),
    )  # fmt: skip
    text = json.dumps(figures, indent=2)
    if args.json == "-":
        print(text)
        for name, why in figures["failures"].items():
            print(f"onnxgrad: {name}: {why}", file=sys.stderr)
    else:
        show(figures, profile=args.profile)
        if args.json:
            Path(args.json).write_text(text + "\n", "utf-8")
            print(f"wrote {args.json}")
    return 1 if figures["failures"] else 0


def _suite(args: argparse.Namespace, device: str) -> int:
    """Run the suite of the checkout that this package is installed from."""
    import subprocess

    from ...ops.errors import InputError

    if args.model is not None or args.peers or args.inputs or args.shapes or args.json:
        raise InputError("--suite measures its own models and peers: give it --device and --quick alone")
    root = Path(__file__).resolve().parents[2]
    if not (root / "benchmarks" / "suite.py").is_file():
        raise InputError(
            "--suite needs a checkout, installed by `pip install -e .`: the suite is no part of the package"
        )
    module = "benchmarks" if device == "cpu" else "benchmarks.cuda"
    command = [sys.executable, "-m", module, *(["--quick"] if args.quick else [])]
    return subprocess.run(command, cwd=root, check=False).returncode
