"""A program for certain sizes: its tables, and how sizes are bound and checked."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...ops import dims
from ...ops.dims import Dim, show
from ...ops.errors import AssumptionError, InputError, OnnxGradError
from ...ops.types import Array, TensorType
from ..graph.execute import located
from ..graph.graph import Node, Value

_byte = ctypes.c_char.from_buffer


@dataclass(frozen=True)
class Patch:
    """The words that hold addresses in one array: where they are, and how far from its first byte each points."""

    words: Array
    offsets: Array

    def write(self, table: Array, address: int) -> None:
        """Set them."""
        table[self.words] = self.offsets + address


@dataclass(eq=False)
class Bound:
    """A program for certain sizes; `saved` is about how many seconds of a run more threads save."""

    env: dict[str, int]
    words: Array
    entries: Array
    starts: Array
    stages: Array
    scratch: int
    arena: int
    patches: dict[tuple[str, int], Patch]
    offsets: dict[int, int]
    told: list[Array]
    outputs: list[tuple[tuple[int, ...], Any]]
    saved: float
    frames: list[Frame] = field(default_factory=list)


@dataclass(eq=False)
class Frame:
    """One run's tables, pointing into one arena."""

    bound: Bound
    words: Array
    entries: Array
    program: Array
    flags: Array
    address: int
    arena: Array | None = None
    generation: int = -1
    views: dict[int, Array] = field(default_factory=dict)


def address(array: Array) -> int:
    """Return where the first byte of an array is; the plain ways of asking take several times as long."""
    if not array.flags.writeable or not array.size:
        return int(array.__array_interface__["data"][0])
    try:
        return ctypes.addressof(_byte(array))
    except ValueError:  # of a type that the buffer protocol does not know
        return int(array.__array_interface__["data"][0])


def ready(feed: Any) -> Any:
    """Return a feed as kernels read it: row-major and aligned."""
    if type(feed) is np.ndarray:
        return feed if feed.flags.c_contiguous and feed.flags.aligned else np.ascontiguousarray(feed)
    return np.ascontiguousarray(feed).reshape(np.shape(feed)) if hasattr(feed, "dtype") else feed


def bind_shape(v: Value, feed: Any, env: dict[str, int]) -> None:
    """Bind the symbols of an input's shape.

    Raises:
        InputError: if the feed has another shape, or a symbol another size, than declared.
    """
    for d, n in zip(v.tensor_type.shape, feed.shape, strict=True):
        if isinstance(d, Dim) and d.name:
            if env.setdefault(d.name, n) != n:
                raise InputError(f"input {v.name!r}: {d} is {n} here and {env[d.name]} in another input")
        elif isinstance(d, int) and d != n:
            raise InputError(f"input {v.name!r}: found shape {show(feed.shape)}, wanted {v.type}")


def bind_late(v: Value, array: Array, env: dict[str, int]) -> None:
    """Bind the symbols that only running brings: the sizes and contents of what a step of Python made."""
    t = v.tensor_type
    for d, n in zip(t.known_shape or (), array.shape, strict=False):
        if isinstance(d, Dim) and d.name:
            env.setdefault(d.name, n)
    if t.contents is not None and any(isinstance(d, Dim) for d in t.contents):
        for d, n in zip(t.contents, array.reshape(-1).tolist(), strict=False):
            if isinstance(d, Dim) and d.name:
                env.setdefault(d.name, int(n))


def is_symbolic(node: Node) -> bool:
    """Whether a size of what a node reads or makes is a symbol."""
    types = [v.type for v in (*node.inputs(), *node.outputs)]
    return any(isinstance(d, Dim) for t in types if isinstance(t, TensorType) for d in t.known_shape or ())


def check_sizes(node: Node, env: dict[str, int]) -> None:
    """Infer a node's types from the sizes of this run, which raises what running it would.

    Raises:
        AssumptionError: if inference refuses them, or they are not related as the program was compiled for.
    """

    def concrete(a: Any) -> Any:
        if isinstance(a, Value):
            t = a.tensor_type
            contents = None if t.contents is None else tuple(dims.bind(d, env) for d in t.contents)
            return TensorType(t.dtype, tuple(dims.bind(d, env) for d in t.shape), contents)
        return [concrete(v) for v in a] if isinstance(a, list) else a

    args = [concrete(a) for a in node.args]
    try:
        made = node.op.infer_types(*args, **{k: dims.bind(a, env) for k, a in node.attrs.items()})
        for v, t in zip(node.outputs, made if isinstance(made, tuple) else (made,), strict=True):
            wanted = tuple(dims.bind(d, env) for d in v.shape)
            if isinstance(t, TensorType) and t.known_shape is not None and t.known_shape != wanted:
                raise AssumptionError(f"gives {show(t.known_shape)} where the graph says {show(wanted)}")
    except OnnxGradError as error:
        raise located(AssumptionError(str(error)), node, args) from error


def kept_results(value: Any, lent: Sequence[Any]) -> Any:
    """Return what a step of Python made, copied where it lies in memory that is used again."""
    if isinstance(value, list):
        return [kept_results(v, lent) for v in value]
    if isinstance(value, np.ndarray) and any(isinstance(a, np.ndarray) and np.may_share_memory(value, a) for a in lent):
        return value.copy()
    return value
