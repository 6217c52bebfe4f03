"""What a program does, one after the other: launches, calls of libraries, copies, array kernels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias, cast

from ...ops.kernels.cuda.kernel import Launch, LibraryCall, Prepared
from ..graph.graph import Node
from .arena import Placed, Storage


@dataclass(frozen=True, eq=False)
class Copy:
    """Elements of one tensor brought into another of the same shape and element type."""

    source: Placed
    target: Placed


@dataclass(frozen=True, eq=False)
class ArrayCall:
    """A node that runs its array kernel on views of the memory; what it makes is copied to where it is wanted.

    Attributes:
        kernel: takes `arguments`, with arrays in place of `Placed`, and `attrs`.
        results: where its outputs go.
        reason: why no kernel of the device runs it.
    """

    node: Node
    kernel: Callable[..., Any]
    arguments: tuple[Any, ...]
    attrs: dict[str, Any]
    results: tuple[Placed, ...]
    reason: str


Work: TypeAlias = "Launch | LibraryCall | Copy | ArrayCall"


@dataclass(eq=False)
class Step:
    """One piece of work.

    Attributes:
        node: which it is for; None for what brings results to where they belong.
        ops: the names of the ops that it computes.
        prepared: what runs a library's call.
        workspace: the memory that the library needs meanwhile.
    """

    work: Work
    node: Node | None = None
    ops: tuple[str, ...] = field(default=())
    prepared: Prepared | None = None
    workspace: Storage | None = None

    @property
    def capturable(self) -> bool:
        """Whether it may be part of a CUDA graph: it allocates nothing, and nothing waits for it."""
        return not isinstance(self.work, ArrayCall)

    def reads(self) -> list[Placed]:
        """Return the tensors that it is given, those that it writes too where they are arguments."""
        work = self.work
        if isinstance(work, Copy):
            return [work.source]
        if isinstance(work, ArrayCall):
            return list(placed_in(work.arguments))
        given = [a for a in work.arguments if isinstance(a, Placed)]
        return given + [r for a in given if a.storage.table is not None for r in a.storage.table.refs]

    def writes(self) -> list[Placed]:
        """Return the tensors that it writes."""
        work = self.work
        if isinstance(work, Copy):
            return [work.target]
        if isinstance(work, ArrayCall):
            return list(work.results)
        tables = [a.storage.table for a in work.arguments if isinstance(a, Placed)]
        listed = [t.refs[i] for t in tables if t is not None for i in t.writes]
        return [cast(Placed, work.arguments[i]) for i in work.writes] + listed

    def storages(self) -> list[Storage]:
        """Return what memory it needs."""
        own = [] if self.workspace is None else [self.workspace]
        return [p.storage for p in (*self.reads(), *self.writes())] + own


def placed_in(arguments: Any) -> Iterator[Placed]:
    """Yield the tensors among arguments, those in lists too."""
    for a in arguments:
        if isinstance(a, Placed):
            yield a
        elif isinstance(a, list):
            yield from placed_in(a)
