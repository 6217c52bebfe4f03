"""`onnxgrad info`: what is in a model file."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from ...runtime.model.built import ValueInfo
    from ...runtime.model.model import Model

EPILOG = """\
examples:
  onnxgrad info model.onnx
  onnxgrad info model.onnx --parameters    every tensor, whether it trains, and why
  onnxgrad info model.onnx --json | jq .inputs"""

KINDS = ("parameter", "buffer", "constant")


def add_parser(subparsers: Any) -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "info",
        help="show a model's inputs, outputs, parameters and operators",
        description="Show what is in a model file: who made it, inputs, outputs, parameters, operators.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="MODEL", help="an .onnx file")
    parser.add_argument("--parameters", action="store_true", help="list every tensor with its role and why it has it")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")


def run(args: argparse.Namespace) -> int:
    """Print it."""
    from ...importers.onnx.model import load

    facts = describe(load(args.model), Path(args.model), tensors=args.parameters)
    if args.json:
        print(json.dumps(facts, indent=2))
    else:
        show(facts)
    return 0


def describe(model: Model, path: Path, *, tensors: bool) -> dict[str, Any]:
    """Return the facts about a model, as JSON has them."""
    source, report = model.source, model.report()
    facts: dict[str, Any] = {
        "file": str(path),
        "bytes": path.stat().st_size,
        "external_data": source.external,
        "producer": f"{source.producer_name} {source.producer_version}".strip(),
        "ir_version": source.ir_version,
        "opsets": source.opset_imports,
        "metadata": source.metadata,
        "doc": source.doc,
        "batch": report.batch,
        "inputs": [_port(v) for v in model.inputs],
        "outputs": [_port(v) for v in model.outputs],
        "tensors": {
            kind: {
                "tensors": sum(r.kind == kind for r in report),
                "elements": report.total(kind),
                "trainable": sum(r.size for r in report if r.kind == kind and r.trainable),
            }
            for kind in KINDS
        },
        "operators": source.operators,
    }
    if tensors:
        facts["rows"] = [
            {
                "name": r.name,
                "kind": r.kind,
                "type": r.dtype,
                "shape": list(r.shape),
                "trainable": r.trainable,
                "reason": r.reason,
            }
            for r in report
        ]
    return facts


def _port(value: ValueInfo) -> dict[str, Any]:
    from ...ops.types import TensorType, dtype_name

    if not isinstance(value.type, TensorType):
        return {"name": value.name, "type": str(value.type), "shape": None}
    shape = value.type.known_shape
    return {
        "name": value.name,
        "type": dtype_name(value.type.dtype),
        "shape": None
        if shape is None
        else [d if isinstance(d, int) else re.sub(r"[?][0-9]+", "?", str(d)) for d in shape],
    }


def show(facts: dict[str, Any]) -> None:
    """Print the facts as tables."""
    from rich.console import Console

    from ...ops.dims import show as show_shape

    # Where nobody looks at it, no line is cut to a terminal's width.
    console = Console(markup=False, highlight=False, width=None if sys.stdout.isatty() else 200)
    size = f"{facts['bytes'] / 1e6:,.2f} MB" + (" and weights beside it" if facts["external_data"] else "")
    lines = {
        "file": f"{facts['file']} ({size})",
        "producer": facts["producer"] or "not stated",
        "opset": ", ".join(f"{domain} {number}" for domain, number in facts["opsets"].items()),
        "format": f"IR version {facts['ir_version']}",
        "batch": facts["batch"],
        **{f"metadata {key}": value for key, value in facts["metadata"].items()},
        "doc": facts["doc"],
    }
    width = max(map(len, lines))
    for label, value in lines.items():
        if value:
            console.print(f"{label:<{width}}  {' '.join(value.split())[:300]}", soft_wrap=True)
    for way in ("input", "output"):
        rows = [(p["name"], p["type"], "-" if p["shape"] is None else show_shape(p["shape"])) for p in facts[way + "s"]]
        _table(console, (way, "type", "shape"), rows)
    totals = [
        (f"{kind}s", f"{t['tensors']:,}", f"{t['elements']:,}", f"{t['trainable']:,}")
        for kind, t in facts["tensors"].items()
    ]
    _table(console, ("weights", "tensors", "elements", "trainable"), totals)
    operators = [(name, f"{count:,}") for name, count in facts["operators"].items()]
    _table(console, ("operator", "nodes"), operators)
    if "rows" in facts:
        tensors = [
            (
                r["name"],
                r["kind"],
                f"{r['type']}{show_shape(r['shape'])}",
                "yes" if r["trainable"] else "no",
                r["reason"],
            )
            for r in facts["rows"]
        ]
        _table(console, ("tensor", "is a", "type", "trains", "because"), tensors)


def _table(console: Console, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
    numeric = {"tensors", "elements", "trainable", "nodes"}
    for label in head:
        table.add_column(label, justify="right" if label in numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    console.print()
    console.print(table)
