"""The command line: `onnxgrad COMMAND ...`."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any

from .commands import bench, demo, draw, explain, finetune, info, run, serve

EPILOG = """\
examples:
  onnxgrad demo                              see everything once, on a model that ships in the package
  onnxgrad info model.onnx                   what is in a file
  onnxgrad run model.onnx --input photo.jpg  run it
  onnxgrad serve model.onnx                  offer it over HTTP

`onnxgrad COMMAND --help` explains a command."""

COMMANDS = {
    "demo": demo,
    "info": info,
    "run": run,
    "finetune": finetune,
    "explain": explain,
    "draw": draw,
    "serve": serve,
    "bench": bench,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code: 0, 1 for errors, 130 for Ctrl-C.

    Raises:
        SystemExit: 2 for a command line that cannot be understood, 0 after `--help` and `--version`.
    """
    parser = argparse.ArgumentParser(
        prog="onnxgrad",
        description="Run, finetune, explain, draw, serve and measure ONNX models.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    subparsers = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND", required=True)
    for module in COMMANDS.values():
        module.add_parser(subparsers)
    for command in subparsers.choices.values():
        command.add_argument(
            "--debug", action="store_true", default=argparse.SUPPRESS, help="show the traceback of an error"
        )
    args = parser.parse_args(argv)
    try:
        code = int(COMMANDS[args.command].run(args))
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # whoever read the output, such as `head`, has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if args.debug:
            traceback.print_exc()
        else:
            print(f"onnxgrad: error: {_one_line(error)}", file=sys.stderr)
        return 1


class _Version(argparse.Action):
    """Prints the version: looked up only here, since that takes as long as all else."""

    def __call__(self, parser: argparse.ArgumentParser, *args: Any, **kwargs: Any) -> None:
        from importlib.metadata import version

        print(f"onnxgrad {version('onnxgrad')}")
        parser.exit()


def _one_line(error: Exception) -> str:
    from ..ops.errors import OnnxGradError

    if isinstance(error, OnnxGradError | OSError):
        return " ".join(str(error).split())
    return f"{type(error).__name__}: {' '.join(str(error).split())} (a bug: --debug shows where)"
