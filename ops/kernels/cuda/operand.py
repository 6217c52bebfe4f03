"""How a tensor lies in a device's memory: element type, sizes, strides.

All of them are numbers: a CUDA plan is made for the shapes of one call, and other shapes get a plan of their own.
Logical axes are always the op's own (N, C, H, W). Convolutional networks run *channels last*: only the strides say so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

from ...types import DType

Sizes = tuple[int, ...]


@dataclass(frozen=True)
class Operand:
    """A strided tensor.

    Attributes:
        dtype: of its elements; truth values take a byte each, 0 or 1.
        shape: its sizes.
        strides: in elements, one an axis; 0 where it is broadcast.
        offset: of its first element from the address that a kernel is passed, in elements; views have one.
    """

    dtype: DType
    shape: Sizes
    strides: Sizes
    offset: int = 0

    @property
    def ndim(self) -> int:
        """The rank."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """The number of elements."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """The bytes that its elements take, each counted once where it is broadcast or not."""
        return self.size * self.dtype.itemsize

    @property
    def contiguous(self) -> bool:
        """Whether it lies in row-major order without gaps."""
        return self._lies(range(self.ndim))

    @property
    def channels_last(self) -> bool:
        """Whether it has at least 3 axes and lies without gaps with axis 1 innermost, as convolutions want it."""
        return self.ndim > 2 and self._lies((0, *range(2, self.ndim), 1))

    def _lies(self, order: Sequence[int]) -> bool:
        step = 1
        for axis in reversed(order):
            if self.shape[axis] != 1 and self.strides[axis] != step:
                return False
            step *= self.shape[axis]
        return True

    def in_order(self, last: bool) -> bool:
        """Whether elements follow each other as in a channels-last, else a row-major tensor, with gaps between rows."""
        step, rows = 1, False
        for axis in reversed((0, *range(2, self.ndim), 1) if last else range(self.ndim)):
            if self.shape[axis] != 1:
                if self.strides[axis] < step or (self.strides[axis] != 1 and not rows):
                    return False
                step, rows = self.strides[axis] * self.shape[axis], True
        return True

    def broadcast_to(self, shape: Sequence[int]) -> Operand:
        """Return the view of this shape, with strides of 0 where it is broadcast."""
        lead = len(shape) - self.ndim
        strides = tuple(
            0 if i < lead or self.shape[i - lead] == 1 != n else self.strides[i - lead] for i, n in enumerate(shape)
        )
        return replace(self, shape=tuple(shape), strides=strides)

    def transposed(self, perm: Sequence[int]) -> Operand:
        """Return the view with its axes permuted."""
        return replace(self, shape=tuple(self.shape[p] for p in perm), strides=tuple(self.strides[p] for p in perm))


def row_major(shape: Sequence[int]) -> Sizes:
    """Return the strides of a row-major tensor, in elements."""
    strides, step = [], 1
    for n in reversed(shape):
        strides.append(step)
        step *= n
    return tuple(reversed(strides))


def channels_last_strides(shape: Sequence[int]) -> Sizes:
    """Return the strides of a tensor (N, C, spatial...) whose channels are innermost, in elements."""
    inner = row_major((shape[0], *shape[2:], shape[1]))
    return (inner[0], inner[-1], *inner[1:-1])


def packed(dtype: DType, shape: Sequence[int]) -> Operand:
    """Return a row-major tensor."""
    return Operand(dtype, tuple(shape), row_major(shape))
