"""The memory of a program: what its tensors lie in, and where each piece lies in the one arena."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from ...ops.kernels.cuda.operand import Operand
from ..compiled.memory import Lifetime, arrange

if TYPE_CHECKING:
    from .weights import Slot

ALIGNMENT = 256
"""Bytes that the address of every piece of memory is a multiple of."""

Kind: TypeAlias = Literal["arena", "weight", "feed", "table", "flag"]


@dataclass(eq=False)
class Storage:
    """A piece of memory.

    Attributes:
        kind: `arena` (the program's own, for some of its steps), `weight` (stays from run to run: `slot`), `feed` (what
            each run brings: `place` says which), `table` (addresses of other tensors: `table`), `flag` (a word that a
            kernel sets, at `place` among the others: `message` says what it means).
        nbytes: its size.
        first, last: the steps that need it, both included; -1 before it is needed.
        offset: from the arena's begin.
    """

    kind: Kind
    nbytes: int
    place: int = -1
    slot: Slot | None = None
    table: Table | None = None
    message: str = ""
    first: int = -1
    last: int = -1
    offset: int = -1


@dataclass(frozen=True, eq=False)
class Placed:
    """A tensor in a storage: what rules call a `Ref`. The operand's offset counts from the storage's begin."""

    operand: Operand
    storage: Storage


@dataclass(frozen=True, eq=False)
class Table:
    """Tensors whose addresses a kernel reads from memory; those at the indices `writes` it writes."""

    refs: tuple[Placed, ...]
    writes: tuple[int, ...]


def room(nbytes: int) -> int:
    """Return bytes filled up so that what follows is aligned."""
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


def span(operand: Operand) -> tuple[int, int]:
    """Return the first element of a tensor that is touched, and the one behind the last, from the storage's begin."""
    if 0 in operand.shape:
        return operand.offset, operand.offset
    reach = [(n - 1) * s for n, s in zip(operand.shape, operand.strides, strict=True)]
    low, high = sum(min(r, 0) for r in reach), sum(max(r, 0) for r in reach)
    return operand.offset + low, operand.offset + high + 1


def place_in_arena(storages: Sequence[Storage]) -> int:
    """Give every storage of the arena its offset, and return the arena's size.

    Storages that are needed at the same step never overlap; those that no step needs take no room.
    """
    used = [s for s in storages if s.kind == "arena" and s.first >= 0]
    offsets, total = arrange([Lifetime(s.nbytes, s.first, s.last) for s in used], alignment=ALIGNMENT)
    for storage, offset in zip(used, offsets, strict=True):
        storage.offset = offset
    return total
