"""`onnxgrad serve`: models over HTTP."""

from __future__ import annotations

import argparse
import re
from typing import Any

EPILOG = """\
examples:
  onnxgrad serve model.onnx
  onnxgrad serve digits.onnx faces.onnx --port 9000
  onnxgrad serve a/model.onnx b/model.onnx --name first --name second

  curl http://127.0.0.1:8000/v2/models/digits
  curl http://127.0.0.1:8000/v2/models/digits/infer -d \\
    '{"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}]}'

Clients of the Open Inference Protocol (KServe V2), such as tritonclient[http], work as they are. There is no
authentication: put a proxy in front before listening on an address that others reach."""


def add_parser(subparsers: Any) -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "serve",
        help="offer models over HTTP (Open Inference Protocol)",
        description="Serve models by the Open Inference Protocol until Ctrl-C. Needs onnxgrad[serve].",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("models", metavar="MODEL", nargs="+", help="an .onnx file")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=_port, default=8000, help="the port, 0 for a free one (default: %(default)s)")
    parser.add_argument(
        "--name",
        dest="names",
        metavar="NAME",
        action="append",
        default=[],
        type=_name,
        help="the name in the model's URL, once for each model (default: the file's name)",
    )
    parser.add_argument(
        "--limit-bytes",
        type=_size,
        default=64 << 20,
        metavar="N",
        help="refuse larger request bodies; 100K, 64M and 1G work (default: 64M)",
    )
    parser.add_argument(
        "--workers",
        type=_count,
        metavar="N",
        help="how many requests compute at once (default: cores, at most 4)",
    )
    parser.set_defaults(usage_error=parser.error)


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) >= 1 << 16:
        raise argparse.ArgumentTypeError(f"{text!r} is not between 0 and 65535")
    return int(text)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 1")
    return int(text)


def _size(text: str) -> int:
    match = re.fullmatch(r"(\d+)([KMG]?)(i?B)?", text, re.IGNORECASE)
    if match is None or int(match[1]) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 100K, 64M or 1G")
    return int(match[1]) << {"": 0, "K": 10, "M": 20, "G": 30}[match[2].upper()]


def _name(text: str) -> str:
    if not re.fullmatch(r"[\w.-][\w .-]*", text):
        raise argparse.ArgumentTypeError(f"{text!r}: letters, digits, '.', '-', '_' and spaces make a name")
    return text


def run(args: argparse.Namespace) -> int:
    """Load the models and serve them until told to stop."""
    if args.names and len(args.names) != len(args.models):
        args.usage_error(f"{len(args.models)} models want as many --name, found {len(args.names)}")
    from ...importers.onnx.model import load
    from ..serve import check_installed, serve

    check_installed()
    models: dict[str, Any] = {}
    for i, path in enumerate(args.models):
        model = load(path)
        name = args.names[i] if args.names else model.name
        if name in models:
            args.usage_error(f"two models are named {name!r}: name them with --name, once for each model")
        models[name] = model
    serve(models, host=args.host, port=args.port, limit_bytes=args.limit_bytes, workers=args.workers)
    return 0
