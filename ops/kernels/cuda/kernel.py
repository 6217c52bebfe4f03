"""CUDA kernels as data: their text and parameters, what launches them, and calls of a library."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol, TypeAlias, runtime_checkable

from ...errors import KernelError
from .operand import Operand
from .prelude import PRELUDE

Parameter: TypeAlias = Literal["pointer", "i32", "i64", "f32", "f64"]
"""What a kernel is passed: an address, or a number of this type by value."""

Grid: TypeAlias = tuple[int, int, int]

GRID_LIMIT: Grid = (2**31 - 1, 65535, 65535)
"""The most blocks of a launch along each axis."""


@dataclass(frozen=True)
class Kernel:
    """One `extern "C" __global__` function and the text that it is compiled from.

    Everything that changes the code (element types, ranks, vector widths) is in the text, so equal texts are one
    kernel; sizes and strides are parameters, so that other shapes compile nothing.

    Attributes:
        name: the function's, as plans and profiles print it; a C identifier.
        code: CUDA C++ behind the prelude. It includes nothing.
        parameters: in order.
        threads: the most threads of a block (`__launch_bounds__` in the text says the same number).
        registers: at most so many a thread may take on any architecture.
    """

    name: str
    code: str
    parameters: tuple[Parameter, ...]
    threads: int = 256
    registers: int = 64

    @property
    def text(self) -> str:
        """The whole text that is compiled."""
        return PRELUDE + self.code

    @cached_property
    def key(self) -> str:
        """The text's identity."""
        return hashlib.sha256(self.text.encode()).hexdigest()


@runtime_checkable
class Ref(Protocol):
    """A tensor in a plan's memory: what stands for an address among the arguments of a launch."""

    @property
    def operand(self) -> Operand:
        """How it lies; kernels are passed the address of its first element, its offset counted in."""


Argument: TypeAlias = "Ref | int | float"


@dataclass(frozen=True)
class Launch:
    """A kernel with its arguments.

    Attributes:
        kernel: which.
        grid: blocks along x, y, z.
        block: threads along x, y, z.
        arguments: a `Ref` for each pointer, a number for the others.
        shared_bytes: of dynamic shared memory.
        writes: the indices of the arguments that it writes (or reads and writes).
    """

    kernel: Kernel
    grid: Grid
    block: Grid
    arguments: tuple[Argument, ...]
    writes: tuple[int, ...]
    shared_bytes: int = 0

    def check(self) -> None:
        """Check that the arguments are what the kernel takes and that a device can launch so many threads.

        Raises:
            KernelError: saying which does not fit.
        """
        kernel = self.kernel
        if len(self.arguments) != len(kernel.parameters):
            raise KernelError(f"{kernel.name} takes {len(kernel.parameters)} arguments, found {len(self.arguments)}")
        for i, (kind, a) in enumerate(zip(kernel.parameters, self.arguments, strict=True)):
            if (kind == "pointer") != isinstance(a, Ref):
                raise KernelError(f"{kernel.name}: argument {i} is {type(a).__name__}, wanted {kind}")
            if kind in ("i32", "i64") and not isinstance(a, int):
                raise KernelError(f"{kernel.name}: argument {i} is {a!r}, wanted an integer")
            if kind == "i32" and isinstance(a, int) and not -(2**31) <= a < 2**31:
                raise KernelError(f"{kernel.name}: argument {i} is {a}, which {kind} does not hold")
        threads = self.block[0] * self.block[1] * self.block[2]
        if not 0 < threads <= kernel.threads:
            raise KernelError(f"{kernel.name} runs blocks of at most {kernel.threads} threads, found {self.block}")
        if not all(0 < n <= limit for n, limit in zip(self.grid, GRID_LIMIT, strict=True)):
            raise KernelError(f"{kernel.name}: a grid of {self.grid} blocks, wanted 1 to {GRID_LIMIT}")
        if not all(kernel.parameters[i] == "pointer" for i in self.writes):
            raise KernelError(f"{kernel.name}: writes {self.writes}, which are not all pointers")


class Description(Protocol):
    """What a library is asked to compute: a frozen dataclass of types, sizes, strides and options, hashable."""

    @property
    def library(self) -> str:
        """`cudnn` or `cublaslt`."""

    def prepare(self) -> Prepared:
        """Build what runs it on the current device.

        Raises:
            KernelError: if the library has no way to compute it; the op's array kernel then runs in its place.
        """


@dataclass(frozen=True)
class Prepared:
    """A library's call, ready.

    Attributes:
        run: `run(pointers, workspace, stream)`: all addresses as integers, in the order of the call's arguments.
        workspace_bytes: that the plan must hold for it.
    """

    run: Callable[[tuple[int, ...], int, int], None]
    workspace_bytes: int = 0


@dataclass(frozen=True)
class LibraryCall:
    """A call of cuDNN or cuBLASLt with its tensors.

    Attributes:
        description: what is computed.
        arguments: tensors, in the order that the description names.
        writes: the indices of those that it writes.
    """

    description: Description
    arguments: tuple[Ref, ...]
    writes: tuple[int, ...]


Work: TypeAlias = Launch | LibraryCall


def blocks(work: int, each: int) -> int:
    """Return how many blocks of `each` cover so much work; at least 1."""
    return max(1, -(-work // each))
