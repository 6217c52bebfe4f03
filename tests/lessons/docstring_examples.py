"""PyTorch's own examples: the lines behind `>>>` in the docstrings of the installed PyTorch, run in both libraries."""

from __future__ import annotations

import ast
import contextlib
import functools
import importlib
import inspect
import io
import math
import re
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

import onnxgrad as og

PLACES = (
    "torch",
    "torch.Tensor",
    "torch.autograd",
    "torch.autograd.function",
    "torch.autograd.functional",
    "torch.autograd.grad_mode",
    "torch.autograd.graph",
    "torch.func",
    "torch.linalg",
    "torch.nn",
    "torch.nn.functional",
    "torch.nn.init",
    "torch.nn.utils",
    "torch.nn.utils.parametrizations",
    "torch.nn.utils.parametrize",
    "torch.nn.utils.prune",
    "torch.nn.utils.rnn",
    "torch.nn.utils.stateless",
    "torch.optim",
    "torch.optim.lr_scheduler",
    "torch.optim.swa_utils",
    "torch.utils.checkpoint",
    "torch.utils.data",
)
"""Modules and classes whose members' docstrings are read."""

ELSEWHERE = re.compile(
    r"distributed|quant|\bjit\b|compile|multiprocessing|\bcuda|vmap|sparse|complex|cfloat|cdouble|[\d.]j\b|input\(|"
    r"DistributedDataParallel|nested|\bhub\b|profiler|futures|stor?age|Stream|Event|num_workers|dlpack|memory_format|"
    r"flush_denormal"
)
"""Statements about what is no part of this library; examples are cut before the first."""

DRAWN = re.compile(
    r"rand|empty|nn\.[A-Z]|normal|uniform|bernoulli|multinomial|poisson|dropout|seed|resize_|init\.|new_"
)
"""Examples whose numbers are drawn, or left to chance, and so not compared."""


class Outcome(NamedTuple):
    """What a statement did: what it printed, and the error that it raised."""

    text: str
    error: BaseException | None


class Failure(NamedTuple):
    """An example that ends otherwise than in PyTorch."""

    kind: str
    statement: str
    found: str


def statements(doc: str) -> list[str]:
    """Return the examples of a docstring as statements that compile."""
    blocks: list[list[str]] = []
    inside = False
    for line in doc.expandtabs().splitlines():
        code = line.strip()
        if code.startswith(">>>"):
            code = code[3:].removeprefix(" ")
            if inside and code.startswith(" "):
                blocks[-1].append(code)
            else:
                blocks.append([code])
            inside = True
        elif code.startswith("...") and inside:
            blocks[-1].append(code[3:].removeprefix(" "))
        else:
            inside = False
    parts = ["\n".join(b) for b in blocks]
    found, at = [], 0
    while at < len(parts):
        end = next((e for e in range(at + 1, min(len(parts), at + 40) + 1) if _compiles("\n".join(parts[at:e]))), None)
        if end is not None:
            found.append("\n".join(parts[at:end]))
        at = at + 1 if end is None else end
    return found


def _compiles(source: str) -> bool:
    try:
        ast.parse(source)
    except SyntaxError:
        return False
    return True


@functools.cache
def examples() -> dict[str, tuple[str, ...]]:
    """Return the statements of each docstring by the name of what it describes; those that stand twice once."""
    found: dict[str, tuple[str, ...]] = {}
    for place in PLACES:
        home = _home(place)
        for name in sorted(dir(home)):
            if name.startswith("_"):
                continue
            doc = inspect.getdoc(getattr(home, name, None)) or ""
            if ">>>" in doc and not inspect.ismodule(getattr(home, name)):
                lines = statements(doc)
                end = next((i for i, s in enumerate(lines) if ELSEWHERE.search(s)), len(lines))
                found[f"{place}.{name}"] = tuple(lines[:end])
    seen: set[tuple[str, ...]] = set()
    return {k: v for k, v in found.items() if v and not (v in seen or seen.add(v))}  # type: ignore[func-returns-value]


def _home(place: str) -> Any:
    if place == "torch.Tensor":
        return importlib.import_module("torch").Tensor
    return importlib.import_module(place)


def _names(root: Any) -> dict[str, Any]:
    nn = root.nn
    prune = importlib.import_module(f"{root.__name__}.nn.utils.prune")
    return {
        "__name__": "__main__", root.__name__: root, "nn": nn, "F": nn.functional, "optim": root.optim,
        "init": nn.init, "prune": prune, "Tensor": root.Tensor, "Function": root.autograd.Function, "np": np,
        "numpy": np, "math": math, "inf": math.inf, "nan": math.nan, "partial": functools.partial,
    }  # fmt: skip


def _run(source: str, names: dict[str, Any]) -> Outcome:
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for node in ast.parse(source).body:
                tree: Any = ast.Interactive([node]) if isinstance(node, ast.Expr) else ast.Module([node], [])
                exec(compile(tree, "<example>", "single" if isinstance(node, ast.Expr) else "exec"), names)
    except (Exception, SystemExit) as error:
        return Outcome(printed.getvalue(), error)
    return Outcome(printed.getvalue(), None)


@contextlib.contextmanager
def _undisturbed(torch: Any) -> Iterator[None]:
    """Put back what examples set for the process."""
    try:
        yield
    finally:
        for root in (torch, og):
            root.set_default_dtype(root.float32)
            root.set_grad_enabled(True)
            root.set_printoptions(profile="default", sci_mode=None)
            root.use_deterministic_algorithms(False)
            root.autograd.set_detect_anomaly(False)
            root.set_default_device(None)


def _plain(text: str) -> str:
    """Return a text without what is meant to differ: module names, addresses, spaces, how shapes print."""
    text = re.sub(r"0x[0-9a-f]+", "0x", text)
    text = re.sub(r"torch\.Size\(\[(\d+)\]\)", r"(\1,)", text)
    text = re.sub(r"torch\.Size\(\[([\d, ]*)\]\)", r"(\1)", text)
    text = re.sub(r"dtype\('(\w+)'\)", r"\1", text)
    return re.sub(r"\s+", " ", re.sub(r"\b(onnxgrad|torch)\.", "", text)).replace("-0.", "0.").strip()


def compare(torch: Any, name: str) -> Failure | None:
    """Run one docstring's examples in both libraries; None where they do the same."""
    lines = examples()[name]
    drawn = any(DRAWN.search(s) for s in lines)
    theirs, ours = _names(torch), _names(og)
    with _undisturbed(torch):
        for source in lines:
            wanted = _run(source, theirs)
            if isinstance(wanted.error, NameError | ImportError):
                continue
            found = _run(re.sub(r"\btorch\b", "onnxgrad", source), ours)
            if wanted.error is not None:
                if found.error is None:
                    return Failure("runs", source, f"runs, where PyTorch raises {wanted.error!r}")
                continue
            if found.error is not None:
                return Failure("raises", source, repr(found.error))
            if not drawn and _plain(wanted.text) != _plain(found.text):
                return Failure("prints", source, f"{_plain(found.text)!r}, PyTorch {_plain(wanted.text)!r}")
    return None
