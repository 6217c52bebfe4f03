"""What is kept from process to process, as bytes: facts that JSON can say, and arrays behind them."""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from math import prod
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from ...ops.types import Array

_ROOT = Path(__file__).resolve().parents[2]
_ALIGNED = 64

FOLDERS = (
    "ops", "ops/kernels", "ops/kernels/array", "ops/kernels/cpu", "runtime", "runtime/graph", "runtime/passes",
    "runtime/compiled", "runtime/model", "runtime/files", "runtime/tracing", "runtime/tensor", "runtime/autograd",
    "importers", "importers/onnx", "importers/onnx/ops",
)  # fmt: skip
"""Where the code lies that loads, rewrites and compiles models."""


def pack(facts: Any, arrays: Sequence[Array]) -> bytes:
    """Return facts and arrays as bytes.

    Raises:
        TypeError: if JSON has no words for a fact, or an array holds objects.
    """
    kept = [np.ascontiguousarray(a) for a in arrays]
    if any(a.dtype.hasobject for a in kept):
        raise TypeError("arrays of objects are not kept")
    described = [[k.dtype.name, np.shape(a)] for k, a in zip(kept, arrays, strict=True)]
    head = json.dumps([facts, described], separators=(",", ":")).encode()
    parts = [len(head).to_bytes(8, "little"), head, bytes(-(8 + len(head)) % _ALIGNED)]
    for a in kept:
        parts += [a.tobytes(), bytes(-a.nbytes % _ALIGNED)]
    return b"".join(parts)


def unpack(data: bytes) -> tuple[Any, list[Array]]:
    """Return the facts and read-only arrays that `pack` was given.

    Raises:
        ValueError: if that is not what these bytes are.
    """
    start = 8 + int.from_bytes(data[:8], "little")
    facts, described = json.loads(data[8:start])
    start += -start % _ALIGNED
    arrays = []
    for name, shape in described:
        dtype = element_type(name)
        count = prod(shape)
        arrays.append(np.frombuffer(data, dtype, count, start).reshape(shape))
        start += count * dtype.itemsize
        start += -start % _ALIGNED
    return facts, arrays


@functools.cache
def element_type(name: str) -> np.dtype[Any]:
    """Return the element type of a name, one of NumPy's or of `ml_dtypes`."""
    return np.dtype(getattr(ml_dtypes, name, name))


@functools.cache
def code_version() -> str | None:
    """Return a text that changes with the code that loads and compiles models; None where that cannot be told.

    A source file has changed where its size or time of change has, as Python itself decides it for compiled modules.
    """
    import llvmlite

    onnx = find_spec("onnx")
    if onnx is None or onnx.origin is None:
        return None
    said = [str(_ROOT), sys.version, np.__version__, ml_dtypes.__version__, llvmlite.__version__]
    stamps = []
    try:
        stamps.append(_stamp(onnx.origin, os.stat(onnx.origin)))
        for folder in FOLDERS:
            with os.scandir(_ROOT / folder) as entries:
                stamps += [_stamp(e.path, e.stat()) for e in entries if e.name.endswith(".py")]
    except OSError:
        return None
    return repr((said, sorted(stamps)))


def _stamp(path: str, status: os.stat_result) -> tuple[str, int, int]:
    return path, status.st_size, status.st_mtime_ns
