"""Views of tensors, and the axes that a kernel walks over: ordered as memory lies, neighbours joined where they can."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from .kernel import Ref
from .operand import Sizes

NARROW = 2**31
"""From so many elements on, offsets are 64 bits wide."""


@dataclass(frozen=True)
class View:
    """Elements of a tensor in memory, as a kernel walks over them.

    Attributes:
        ref: the tensor whose address is passed.
        shape: of the view.
        strides: in elements; 0 where it is broadcast, negative where it is turned round.
        start: of its first element from the one that the address is of, in elements.
    """

    ref: Ref
    shape: Sizes
    strides: Sizes
    start: int = 0

    @property
    def size(self) -> int:
        """The number of elements, those of broadcast axes counted again and again."""
        return prod(self.shape)

    @property
    def reach(self) -> int:
        """How far its elements lie from the address, in elements."""
        return abs(self.start) + sum(abs(s) * (n - 1) for s, n in zip(self.strides, self.shape, strict=True) if n)

    def aligned(self, elements: int) -> bool:
        """Whether its first element lies at a multiple of so many elements; allocations begin at multiples of 256."""
        return (self.ref.operand.offset + self.start) % elements == 0

    def part(self, axis: int, start: int, size: int, step: int = 1) -> View:
        """Return the elements at start, start + step, ... along an axis."""
        stride = self.strides[axis]
        shape = (*self.shape[:axis], size, *self.shape[axis + 1 :])
        strides = (*self.strides[:axis], stride * step, *self.strides[axis + 1 :])
        return View(self.ref, shape, strides, self.start + start * stride)


def view(ref: Ref) -> View:
    """Return the view of all elements of a tensor."""
    return View(ref, ref.operand.shape, ref.operand.strides)


def broadcast(ref: Ref, shape: Sizes) -> View:
    """Return the view of a tensor broadcast to a shape."""
    return View(ref, shape, ref.operand.broadcast_to(shape).strides)


def ordered(shape: Sizes, strides: Sequence[Sizes], by: Sizes) -> tuple[Sizes, list[Sizes]]:
    """Return shape and strides without axes of size 1, the axis of the largest stride of `by` first."""
    axes = sorted((i for i, n in enumerate(shape) if n != 1), key=lambda i: -abs(by[i]))
    return tuple(shape[i] for i in axes), [tuple(s[i] for i in axes) for s in strides]


def merged(shape: Sizes, strides: Sequence[Sizes]) -> tuple[Sizes, list[Sizes]]:
    """Return shape and strides with neighbouring axes that lie together in every tensor walked as one."""
    sizes: list[int] = []
    steps: list[list[int]] = [[] for _ in strides]
    for i, n in enumerate(shape):
        if sizes and all(own[-1] == s[i] * n for own, s in zip(steps, strides, strict=True)):
            sizes[-1] *= n
            for own, s in zip(steps, strides, strict=True):
                own[-1] = s[i]
        else:
            sizes.append(n)
            for own, s in zip(steps, strides, strict=True):
                own.append(s[i])
    return tuple(sizes), [tuple(own) for own in steps]


def is_wide(views: Sequence[View], size: int) -> bool:
    """Whether indices and offsets need 64 bits; a grid may reach behind the last element by less than 2**24."""
    return max([size, *(v.reach for v in views)]) >= NARROW - 2**24


def reciprocal(divisor: int) -> tuple[int, int]:
    """Return (m, h), so that n / divisor is (n m / 2**32) >> h for 0 <= n < 2**31; the bits of m as a signed number.

    The divisor is at least 2. Source: Granlund & Montgomery 1994, "Division by invariant integers".
    """
    bits = (divisor - 1).bit_length()
    factor = (1 << (31 + bits)) // divisor + 1
    return factor - 2**32 if factor >= 2**31 else factor, bits - 1
