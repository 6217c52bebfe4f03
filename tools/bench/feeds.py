"""Inputs to measure with: from files, or random ones of the declared types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...ops.dims import Dim, DimLike, Shape, show
from ...ops.errors import InputError
from ...ops.types import TensorType
from ...runtime.model.built import ValueInfo
from ..images import Preparation
from ..inputs import collect, random_input

Shapes = Mapping[str, tuple[int, ...]]


def make_feeds(
    inputs: Sequence[ValueInfo],
    sources: Sequence[str] = (),
    shapes: Shapes | None = None,
    batch: int | None = None,
    preparation: Preparation | None = None,
) -> dict[str, Any]:
    """Return feeds: what the sources give, and random values for the other inputs.

    Args:
        inputs: What the model takes.
        sources: `NAME=FILE`, `NAME=random` or `FILE`, as `onnxgrad run` takes them.
        shapes: of random inputs, by name; a size that the file leaves open then holds for the other inputs too.
        batch: the leading size of random inputs that the file leaves open; 1 by default.
        preparation: How photos become inputs.

    Raises:
        InputError: if a shape does not fit or a size stays open, saying what to give.
    """
    shapes = dict(shapes or {})
    by_name = {v.name: v for v in inputs}
    for name in shapes:
        if name not in by_name:
            raise InputError(f"--shape {name}=...: no input has this name; the model takes {list(by_name)}")
    files = [s for s in sources if not s.endswith("=random")]
    feeds = collect(inputs, files, preparation=preparation)
    if twice := [name for name in shapes if name in feeds]:
        raise InputError(f"input {twice[0]!r} is given both as a file and as a --shape")
    rest = [v for v in inputs if v.name not in feeds]
    sizes = _sizes(by_name, shapes, {n: np.shape(a) for n, a in feeds.items() if hasattr(a, "shape")})
    leading = {d for v in rest if v.shape and isinstance(d := v.shape[0], Dim)}
    if batch is not None and batch != 1 and rest and not leading and not shapes:
        fixed = ", ".join(str(v) for v in rest)
        raise InputError(f"--batch {batch}: the file fixes the batch ({fixed}); export it with a dynamic batch")
    for d in leading:
        if d.name is not None:
            sizes.setdefault(d.name, batch or 1)
    generator = np.random.default_rng(0)
    for value in rest:
        shape = shapes.get(value.name) or _resolved(value, sizes)
        known = ValueInfo(value.name, TensorType(value.dtype, shape)) if isinstance(value.type, TensorType) else value
        feeds[value.name] = random_input(known, {}, generator)
    return {v.name: feeds[v.name] for v in inputs}


def _sizes(inputs: Mapping[str, ValueInfo], shapes: Shapes, fed: Shapes) -> dict[str, int]:
    """Return the values of symbols that given shapes imply."""
    sizes: dict[str, int] = {}
    for name, found in (*shapes.items(), *fed.items()):
        declared: Shape | None = inputs[name].shape
        if declared is None:
            continue
        wrong = len(declared) != len(found) or any(
            isinstance(d, int) and d != n for d, n in zip(declared, found, strict=True)
        )
        if wrong and name in shapes:
            raise InputError(f"--shape {name}={'x'.join(map(str, found))}: the model declares {show(declared)}")
        if not wrong:
            sizes |= {d.name: n for d, n in zip(declared, found, strict=True) if isinstance(d, Dim) and d.name}
    return sizes


def _resolved(value: ValueInfo, sizes: Mapping[str, int]) -> tuple[int, ...]:
    if not isinstance(value.type, TensorType):
        raise InputError(f"input {value.name!r} is a {value.type}: give it a file with --input {value.name}=FILE")
    shape = value.shape
    resolved = None if shape is None else [_size(d, sizes) for d in shape]
    if resolved is None or None in resolved:
        example = "AxBxC" if shape is None else "x".join(str(n or "N") for n in resolved or ())
        raise InputError(
            f"input {value.name!r} leaves sizes open: {'its rank' if shape is None else show(shape)}; say "
            f"--shape {value.name}={example}, numbers for every size"
        )
    return tuple(n for n in resolved if n is not None)


def _size(d: DimLike, sizes: Mapping[str, int]) -> int | None:
    if isinstance(d, int):
        return d
    return sizes.get(d.name) if d.name is not None else None


def batch_of(feeds: Mapping[str, Any]) -> int:
    """Return how many examples a run computes: the leading size of the first input that has one."""
    return next((int(a.shape[0]) for a in feeds.values() if getattr(a, "ndim", 0)), 1)
