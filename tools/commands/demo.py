"""`onnxgrad demo`: the main job, once, on a model and data that ship with the package."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_parser(subparsers: Any) -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "demo",
        help="load, run, finetune, explain and save a model that ships with the package",
        description="Run a pretrained model on real handwritten digits, finetune it for a shifted domain, explain an "
        "answer, save it and load it again.",
    )
    parser.add_argument(
        "--out",
        metavar="FOLDER",
        type=Path,
        default=Path("onnxgrad-demo"),
        help="where to write (default: onnxgrad-demo)",
    )


def run(args: argparse.Namespace) -> int:
    """Run the demo; 1 if the saved model gave other outputs than the one in memory."""
    from rich.console import Console

    from ..demo.demo import demo

    return 0 if demo(args.out, Console()) else 1
