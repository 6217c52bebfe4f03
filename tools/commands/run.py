"""`onnxgrad run`: a model on inputs from files."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .image_options import add_image_options, preparation_of

EPILOG = """\
examples:
  onnxgrad run model.onnx --random                        just try it
  onnxgrad run model.onnx --input x.npy --output y.npz
  onnxgrad run model.onnx --input ids=ids.npy --input mask=mask.npy --print
  onnxgrad run resnet.onnx --input cat.jpg --imagenet --labels imagenet.txt
  onnxgrad run detector.onnx --input photo.png --scale 1 --bgr"""


def add_parser(subparsers: Any) -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "run",
        help="run a model on files or random inputs",
        description="Run a model and print what comes out: types, ranges, best classes, time.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="MODEL", help="an .onnx file")
    parser.add_argument(
        "--input",
        dest="inputs",
        metavar="[NAME=]FILE",
        action="append",
        default=[],
        help="an input from .npy, .npz, .json or an image, or NAME=random; the name may be left out for "
        "a model of one input and for files that hold arrays by name",
    )
    parser.add_argument("--random", action="store_true", help="random values for the inputs that are not given")
    parser.add_argument(
        "--dim",
        dest="dims",
        metavar="NAME=N",
        action="append",
        default=[],
        type=_dim,
        help="a symbolic size of random inputs",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the random values (default: 0)")
    parser.add_argument("--output", metavar="FILE", help="write the outputs to an .npz file, or one output to .npy")
    parser.add_argument("--print", dest="show", action="store_true", help="print the outputs' values")
    parser.add_argument("--labels", metavar="FILE", help="names of the classes, one a line")
    parser.add_argument("--repeat", type=int, default=1, metavar="N", help="run N times and print the median time")
    add_image_options(parser)


def _dim(text: str) -> tuple[str, int]:
    name, _, size = text.rpartition("=")
    if not name or not size.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=N")
    return name, int(size)


def run(args: argparse.Namespace) -> int:
    """Run the model and print."""
    from ...importers.onnx.model import load
    from ..inputs import collect

    labels = Path(args.labels).read_text("utf-8").splitlines() if args.labels else None
    started = time.perf_counter()
    model = load(args.model)
    loaded = time.perf_counter() - started
    feeds = collect(
        model.inputs,
        args.inputs,
        fill=args.random,
        sizes=dict(args.dims),
        seed=args.seed,
        preparation=preparation_of(args),
    )
    times = []
    for _ in range(max(1, args.repeat)):
        started = time.perf_counter()
        outputs = model.run(feeds)
        times.append(time.perf_counter() - started)
    names = [value.name for value in model.outputs]
    for name, output in zip(names, outputs, strict=True):
        print("\n".join(describe(name, output, labels)))
        if args.show:
            print(_text(output))
    print(f"loaded in {_duration(loaded)}, ran in {_duration(times[0])}", end="")
    print(f", {len(times)} times: median {_duration(sorted(times)[len(times) // 2])}" if len(times) > 1 else "")
    if args.output:
        write(Path(args.output), dict(zip(names, outputs, strict=True)))
        print(f"wrote {args.output}")
    return 0


def _duration(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.2f} ms"


def describe(name: str, output: Any, labels: Sequence[str] | None = None) -> list[str]:
    """Return lines about one output: type, range, and the best classes if it looks like class scores."""
    import numpy as np

    from ...ops.types import dtype_name, is_float, is_integer, type_of

    if not isinstance(output, np.ndarray):
        size = f" of {len(output)}" if hasattr(output, "__len__") else ""
        return [f"{name}: {type(output).__name__}{size}"]
    line = f"{name}: {type_of(output)}"
    if not output.size or not (is_float(output.dtype) or is_integer(output.dtype)):
        return [line]
    numbers = output.astype(np.float64) if dtype_name(output.dtype) != "float64" else output
    lines = [f"{line}  min {numbers.min():.6g}  mean {numbers.mean():.6g}  max {numbers.max():.6g}"]
    if is_float(output.dtype) and (scores := class_scores(numbers, labels)) is not None:
        for rank, index in enumerate(np.argsort(-scores, kind="stable")[:5], 1):
            label = f"  {labels[index]}" if labels is not None and index < len(labels) else ""
            lines.append(f"  {rank}. class {index}: {scores[index]:.6g}{label}")
    return lines


def class_scores(output: Any, labels: Sequence[str] | None = None) -> Any:
    """Return an output as scores of classes if it looks like them, else None.

    One row of numbers is taken for scores if there are as many labels, if they are probabilities or their
    logarithms, or if they are ten or more.
    """
    import numpy as np

    row = output.squeeze()
    if row.ndim != 1 or not np.isfinite(row).all():
        return None
    probable = bool((row >= 0).all() and abs(row.sum() - 1) < 1e-2)
    logarithms = bool((row <= 0).all() and abs(np.exp(row).sum() - 1) < 1e-2)
    known = labels is not None and len(labels) == row.size
    return row if known or probable or logarithms or 10 <= row.size <= 100_000 else None


def _text(output: Any) -> str:
    import numpy as np

    return np.array2string(output, threshold=sys.maxsize) if isinstance(output, np.ndarray) else repr(output)


def write(path: Path, outputs: dict[str, Any]) -> None:
    """Write outputs to an .npz file, or one to .npy, all or nothing; sequences become `NAME[0]` and so on.

    Raises:
        InputError: if the file's ending is another, or .npy should hold several.
    """
    import numpy as np

    from ...ops.errors import InputError

    arrays: dict[str, Any] = {}
    for name, output in outputs.items():
        parts = {f"{name}[{i}]": v for i, v in enumerate(output)} if isinstance(output, list) else {name: output}
        for key, value in parts.items():
            array = np.asarray(value)
            arrays[key] = array.astype(str) if array.dtype == object else array
    if path.suffix not in (".npz", ".npy") or (path.suffix == ".npy" and len(arrays) != 1):
        raise InputError(f"--output {path}: {len(arrays)} outputs go to an .npz file{', or .npy' * (len(arrays) == 1)}")
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "xb") as file:
            if path.suffix == ".npy":
                np.save(file, next(iter(arrays.values())), allow_pickle=False)
            else:
                np.savez(file, allow_pickle=False, **arrays)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
