"""Tensors of tests in memory: buffers between unmapped pages, poisoned before they are written."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from onnxgrad.ops.kernels.cuda.operand import Operand

from ..cpu.site import guarded

ALIGNED = 64
"""Buffers begin at a multiple of so many bytes."""

POISON = 0xFF
"""What memory holds before it is written: NaN, -1."""


@dataclass(eq=False)
class Buffer:
    """Memory of a tensor; `first` are the bytes that it holds in the beginning, None for poison."""

    nbytes: int
    first: np.ndarray[Any, Any] | None = None
    fixed: bool = False
    memory: np.ndarray[Any, Any] = field(default_factory=lambda: np.empty(0, np.uint8))
    room: np.ndarray[Any, Any] = field(default_factory=lambda: np.empty(0, np.uint8))

    def place(self, *, at_end: bool, poison: int = POISON) -> None:
        """Take new memory and fill it."""
        self.room = guarded(-(-max(self.nbytes, 1) // ALIGNED) * ALIGNED, at_end=at_end)
        self.room[:] = POISON
        self.memory = self.room[: self.nbytes]
        self.memory[:] = poison if self.first is None else self.first


@dataclass(frozen=True, eq=False)
class TestRef:
    """A tensor in a buffer."""

    __test__ = False
    operand: Operand
    buffer: Buffer

    def view(self) -> np.ndarray[Any, Any]:
        """Return it as a NumPy array of its logical shape."""
        return view_of(self.operand, self.buffer.memory)

    @property
    def address(self) -> int:
        """The address of its first element."""
        return int(self.buffer.room.ctypes.data) + self.operand.offset * self.operand.dtype.itemsize


def view_of(operand: Operand, memory: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the logical array of a tensor whose buffer these bytes are."""
    size = operand.dtype.itemsize
    flat = memory[: memory.size // size * size].view(operand.dtype)
    return np.lib.stride_tricks.as_strided(
        flat[operand.offset :], operand.shape, [s * size for s in operand.strides], writeable=True
    )


def reach(operand: Operand) -> int:
    """Return how many elements a buffer holds in which a tensor lies."""
    if operand.size == 0:
        return operand.offset
    return operand.offset + 1 + sum((n - 1) * max(s, 0) for n, s in zip(operand.shape, operand.strides, strict=True))
