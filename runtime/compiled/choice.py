"""Which engine runs a graph on the CPU: compiled where that can be, the array kernels else."""

from __future__ import annotations

import functools
import warnings
from typing import TYPE_CHECKING

import numpy as np

from ...ops.errors import InputError, KernelError
from ...ops.kernels.cpu.target import VARIABLE, available, host_target
from ...ops.types import BFLOAT16, DType
from ..graph.graph import Graph
from ..passes.pipelines import DEVICE
from ..passes.resolve_symbols import resolve_symbols
from ..passes.rewriting import run_passes
from ..tracing.collection import uncollected

if TYPE_CHECKING:
    from .program import Program


HALF_PRECISIONS: dict[str, DType] = {"bf16": BFLOAT16, "fp16": np.dtype(np.float16)}
"""The precisions beside `float32`, with their element types."""


def compile_program(
    graph: Graph, *, threads: int | None = None, exact: bool = False, precision: str = "float32"
) -> Program | None:
    """Return the compiled program of a graph, or None where the array kernels run it.

    Args:
        graph: as the PORTABLE passes left it.
        threads: how many; the physical cores that the process may use by default.
        exact: leave out algorithms with larger rounding errors.
        precision: `float32`, or `bf16`: convolutions and products of matrices multiply operands rounded to bfloat16.

    Raises:
        KernelError: if the precision cannot be had: see `check_precision`.
    """
    check_precision(precision)
    if not available():
        advise()
        return None
    from .program import Program

    def make(graph: Graph, *, last: bool = False) -> Program:
        with uncollected():
            device = run_passes(graph, DEVICE).graph
            resolved = run_passes(device, (resolve_symbols,)).graph
            again = None if last else make
            return Program(resolved, exact=exact, threads=threads, precision=precision, make=again, origin=device)

    return make(graph)


def check_precision(precision: str, device: str = "cpu") -> None:
    """Check that products of this precision can be had.

    Raises:
        InputError: if there is none of this name.
        KernelError: if the engine is off, or the device or CPU has no instructions for it.
    """
    if precision == "float32":
        return
    if precision not in HALF_PRECISIONS:
        raise InputError(f"precision is {precision!r}, wanted 'float32', 'bf16', or on CUDA 'fp16'")
    if device != "cpu":
        return
    if precision == "fp16":
        raise KernelError("precision 'fp16' is for CUDA, found device 'cpu'; use precision='bf16' or 'float32'")
    if not available():
        raise KernelError(
            f"precision {precision!r} needs the compiled engine: llvmlite installed and {VARIABLE} not off; "
            "or use precision='float32'"
        )
    target = host_target()
    if not target.bf16:
        raise KernelError(
            f"precision {precision!r} needs a CPU with AVX512_BF16, code is made for {target.name} without it; "
            "use precision='float32'"
        )


def multiplies_bfloat16() -> bool:
    """Whether precision `bf16` can be had: the engine is on, and the CPU has instructions for it."""
    return available() and host_target().bf16


@functools.cache
def advise() -> None:
    """Say, once a process, how to get speed."""
    import os

    if os.environ.get(VARIABLE) != "off":
        warnings.warn(
            "llvmlite is not installed: models run on NumPy, several times slower; `pip install llvmlite`",
            RuntimeWarning,
            stacklevel=4,
        )
