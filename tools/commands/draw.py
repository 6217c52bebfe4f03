"""`onnxgrad draw`: a picture of a model's graph."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

EPILOG = """\
examples:
  onnxgrad draw model.onnx                      model.svg, for a browser; tooltips say more
  onnxgrad draw model.onnx --out graph.png      needs matplotlib: pip install 'onnxgrad[explain]'
  onnxgrad draw model.onnx --depth 2            what has the same first two parts of its name is one box
  onnxgrad draw model.onnx --out - | dot -Tps   DOT text, for Graphviz"""


def add_parser(subparsers: Any) -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "draw",
        help="draw a model's graph",
        description="Draw a model: its inputs, operators with their weights and the shapes they make, its outputs.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="MODEL", help="an .onnx file")
    parser.add_argument(
        "--out",
        metavar="FILE",
        help="ends in .svg, .png, .pdf, .dot or .gv; - writes DOT text (default: MODEL's name.svg)",
    )
    parser.add_argument("--depth", type=_count, metavar="N", help="group operators by the first N parts of their names")
    parser.add_argument(
        "--columns", type=_count, metavar="N", help="columns of a long picture (default: what makes a good page)"
    )
    parser.add_argument("--attributes", action="store_true", help="show the operators' attributes")
    parser.add_argument("--title", metavar="TEXT", help="(default: the graph's name)")


def run(args: argparse.Namespace) -> int:
    """Draw, and write the picture."""
    from ...importers.onnx.model import load
    from ..draw import draw
    from ..draw.drawing import known_format

    out = args.out or str(Path(args.model).with_suffix(".svg").name)
    kind = "dot" if out == "-" else known_format(Path(out).suffix)
    drawing = draw(
        load(args.model), depth=args.depth, columns=args.columns, show_attrs=args.attributes, title=args.title
    )
    if out == "-":
        print(drawing.source, end="")
        return 0
    drawing.render(outfile=out, format=kind)
    print(f"wrote {out}")
    return 0


def _count(text: str) -> int:
    try:
        count = int(text)
    except ValueError:
        count = 0
    if count < 1:
        raise argparse.ArgumentTypeError(f"a number of 1 or more, not {text!r}")
    return count
