"""What a program is made of before sizes are known: storages, tensors in them, kernel calls, stages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...ops.dims import DimLike
from ...ops.kernels.cpu.kernel import Kernel
from ...ops.kernels.cpu.operand import Operand
from ..graph.graph import Node, Value
from .groups import Group
from .weights import Slot


@dataclass(eq=False)
class Storage:
    """A piece of memory.

    Attributes:
        kind: `arena` (this program's), `feed` and `host` (an array that Python brings: `place` is its slot), `output`
            (fresh for each run: `place` is which), `weight` (a slot of `Weights`), `told` (integers that
            follow from sizes), `flag` (a word that a kernel sets).
        elements: how many, of `dtype`.
        first, last: the stages that need it.
    """

    kind: str
    dtype: Any
    elements: DimLike = 0
    place: int = 0
    slot: Slot | None = None
    first: int = -1
    last: int = -1


@dataclass(frozen=True, eq=False)
class Ref:
    """A tensor in a storage; `start` is the place of its first element."""

    operand: Operand
    storage: Storage
    start: DimLike = 0


@dataclass(frozen=True, eq=False)
class Origin:
    """A tensor in the array of a value that depends on weights alone; `start` is the place of its first element."""

    operand: Operand
    value: Value
    start: int = 0


@dataclass(frozen=True, eq=False)
class Call:
    """A kernel applied to tensors; `writes` are the ids of the storages that it writes."""

    kernel: Kernel
    refs: tuple[Ref, ...]
    node: Node | None
    group: Group | None = None
    writes: frozenset[int] = frozenset()


@dataclass(eq=False)
class HostStep:
    """A node that runs its array kernel."""

    node: Node
    kernel: Callable[..., Any]
    args: tuple[Any, ...]
    outs: tuple[int, ...]
    reason: str
    symbolic: bool
    attrs: dict[str, Any]


@dataclass(eq=False)
class Stage:
    """Kernel calls that may run side by side, or one step of Python."""

    calls: list[Call] = field(default_factory=list)
    host: HostStep | None = None


@dataclass(frozen=True)
class SlotArg:
    """An argument of a step of Python: what slot `index` holds."""

    index: int


class RefusedError(Exception):
    """A rule asked for something that this node cannot give."""


def side_by_side(stages: Sequence[Stage]) -> list[Stage]:
    """Join neighbouring stages that do not touch what the other writes, so that their chunks share one barrier."""
    merged: list[Stage] = []
    read: set[int] = set()
    written: set[int] = set()
    for stage in stages:
        if stage.host is not None:
            merged.append(stage)
            read, written = set(), set()
            continue
        reads, writes = _touched(stage)
        apart = not (writes & (read | written)) and not (reads & written)
        if merged and merged[-1].host is None and apart:
            merged[-1] = Stage(merged[-1].calls + stage.calls)
            read |= reads
            written |= writes
        else:
            merged.append(stage)
            read, written = reads, writes
    return merged


def _touched(stage: Stage) -> tuple[set[int], set[int]]:
    """Return the ids of the storages that a stage touches, and of those that it writes."""
    return {id(r.storage) for c in stage.calls for r in c.refs}, {w for c in stage.calls for w in c.writes}


def written(kernel: Kernel, refs: tuple[Ref, ...], node: Node | None) -> Call:
    """Return a call that writes its last operand."""
    return Call(kernel, refs, node, writes=frozenset([id(refs[-1].storage)]))


def beside(call: Call, refs: Sequence[Ref]) -> bool:
    """Whether a call writes the halo of one of these, beside which the inside may be written."""
    return call.kernel.name == "zero_halo" and any(call.refs[0].storage is r.storage for r in refs)
