"""How a tensor lies in memory when compiled kernels read and write it: strides, a halo of zeros, slack.

Logical axes are always the op's own (N, C, H, W); only strides say in which order they lie. Convolutional networks run
*channels last*: strides (H W C, 1, W C, C). So a 1x1 convolution is a product of matrices, a permutation, a slice of
channels and a concatenation are views, and one contraction generator serves them all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ...dims import DimLike, Shape, product
from ...types import DType

Halo = tuple[tuple[int, int], ...]
"""For each axis, how many elements before and behind it may be read and are zero."""


@dataclass(frozen=True)
class Operand:
    """A strided tensor in memory.

    Attributes:
        strides: in elements, one an axis; 0 where it is broadcast.
        halo: zeros around it, an axis at a time; () for none.
        slack: how many elements behind the end of the innermost axis (stride 1) belong to it without meaning: a kernel
            may write them, and what it reads there is any number, NaN included.
    """

    dtype: DType
    shape: Shape
    strides: Shape
    halo: Halo = ()
    slack: int = 0

    @property
    def ndim(self) -> int:
        """The rank."""
        return len(self.shape)

    @property
    def size(self) -> DimLike:
        """The number of elements."""
        return product(self.shape)

    @property
    def contiguous(self) -> bool:
        """Whether it lies in row-major order without gaps."""
        return self.strides == row_major(self.shape) or self._lies((*range(self.ndim),))

    @property
    def channels_last(self) -> bool:
        """Whether axis 1 is innermost (stride 1), as convolutions want it."""
        return self.ndim > 2 and self.strides[1] == 1

    def _lies(self, order: Sequence[int]) -> bool:
        step: DimLike = 1
        for axis in reversed(order):
            if self.shape[axis] != 1 and self.strides[axis] != step:
                return False
            step = step * self.shape[axis]
        return True

    def padding(self, axis: int) -> tuple[int, int]:
        """Return the zeros that may be read before and behind an axis."""
        return self.halo[axis] if self.halo else (0, 0)

    def has_halo(self, wanted: Halo) -> bool:
        """Whether it has at least these zeros around it."""
        return all(self.padding(i)[0] >= low and self.padding(i)[1] >= high for i, (low, high) in enumerate(wanted))

    def reshaped(self, shape: Shape, strides: Shape) -> Operand:
        """Return another view of the same elements, without halo and slack."""
        return replace(self, shape=shape, strides=strides, halo=(), slack=0)

    def transposed(self, perm: Sequence[int]) -> Operand:
        """Return the view with its axes permuted."""
        return replace(
            self,
            shape=tuple(self.shape[p] for p in perm),
            strides=tuple(self.strides[p] for p in perm),
            halo=tuple(self.halo[p] for p in perm) if self.halo else (),
        )

    def broadcast_to(self, shape: Shape) -> Operand:
        """Return the view that NumPy's rules broadcast to a shape, with strides of 0."""
        new = len(shape) - self.ndim
        strides = [0] * new + [
            0 if mine == 1 and wanted != 1 else stride
            for mine, wanted, stride in zip(self.shape, shape[new:], self.strides, strict=True)
        ]
        return self.reshaped(shape, tuple(strides))


def row_major(shape: Shape) -> Shape:
    """Return the strides of a row-major array without gaps."""
    strides: list[DimLike] = []
    step: DimLike = 1
    for d in reversed(shape):
        strides.append(step)
        step = step * d
    return tuple(reversed(strides))


def packed(dtype: DType, shape: Shape) -> Operand:
    """Return a row-major operand without gaps."""
    return Operand(dtype, shape, row_major(shape))


def channels_last(dtype: DType, shape: Shape, halo: Halo = (), multiple: int = 1) -> tuple[Operand, DimLike, DimLike]:
    """Return an operand with axis 1 innermost, its size and the place of its first element, both in elements.

    Args:
        dtype: element type.
        shape: (N, C, *spatial).
        halo: zeros around it.
        multiple: the stride of a pixel is rounded up to this many elements; what is behind the channels is slack.
    """
    channels = int(shape[1])
    stride = -(-channels // multiple) * multiple
    strides: list[DimLike] = [0] * len(shape)
    strides[1] = 1
    step: DimLike = stride
    start: DimLike = 0
    for axis in range(len(shape) - 1, 1, -1):
        low, high = halo[axis] if halo else (0, 0)
        strides[axis] = step
        start = start + low * step
        step = step * (shape[axis] + low + high)
    strides[0] = step
    halo = halo if any(h != (0, 0) for h in halo) else ()
    return Operand(dtype, shape, tuple(strides), halo, stride - channels), step * shape[0], start
