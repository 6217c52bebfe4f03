"""A program of a device as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...ops.kernels.cuda.kernel import Launch, LibraryCall
from .arena import Placed
from .steps import ArrayCall, Step

if TYPE_CHECKING:
    from .program import CudaProgram


SHOWN = 4
"""How many inputs, and of the tensors that a step writes, are told."""


def describe(program: CudaProgram) -> str:
    """Return a line a step: the ops in it, its kernel and grid, the bytes that it touches, and what it writes where."""
    c, capture = program.compiler, program.capture
    kernels = {s.work.kernel.key for s in program.steps if isinstance(s.work, Launch)}
    arrays = sum(isinstance(s.work, ArrayCall) for s in program.steps)
    fed = [v for i, v in enumerate(c.fed) if i not in program.in_place.values()]
    shapes = ", ".join(f"{v.name}: {v.type}" for v in fed[:SHOWN])
    shapes += f" and {len(fed) - SHOWN} more" if len(fed) > SHOWN else ""
    shapes += f"; replaces {len(program.in_place)}" if program.in_place else ""
    graphs = f"{capture.graphs} CUDA graphs" if capture.on else "never recorded"
    lines = [
        f"CUDA program {program.graph.name}({shapes}): {len(program.steps)} steps, {len(kernels)} kernels, "
        f"{arrays} steps of array kernels, arena of {program.arena_bytes:,} B, inputs of {program.feed_bytes:,} B, "
        f"{graphs}"
    ]
    lines += [f"{i:5}  {_step(step)}" for i, step in enumerate(program.steps)]
    lines += [f"declined: {said}" for said in c.declined]
    return "\n".join(lines)


def kernel_name(step: Step) -> str:
    """Return what runs a step, in a word."""
    work = step.work
    if isinstance(work, Launch):
        return work.kernel.name
    if isinstance(work, LibraryCall):
        return f"{work.description.library} {type(work.description).__name__}"
    return "array kernel" if isinstance(work, ArrayCall) else "copy"


def touched_bytes(step: Step) -> int:
    """Return how many bytes a step reads and writes, each tensor counted once."""
    tensors = {(id(p.storage), p.operand.offset, p.operand.shape): p for p in (*step.reads(), *step.writes())}
    return sum(_moved(p) for p in tensors.values())


def _moved(p: Placed) -> int:
    """Return the bytes of a tensor that memory has to deliver: what is broadcast counts once."""
    size = p.operand.dtype.itemsize
    for n, stride in zip(p.operand.shape, p.operand.strides, strict=True):
        size *= n if stride or not n else 1
    return size


def _step(step: Step) -> str:
    work = step.work
    ops = " + ".join(step.ops)
    how = kernel_name(step)
    if isinstance(work, Launch):
        how += f" grid {_product(work.grid)} block {_product(work.block)}"
        how += f" shared {work.shared_bytes:,} B" if work.shared_bytes else ""
    if isinstance(work, ArrayCall):
        how += f" ({work.reason})"
    if step.workspace is not None:
        how += f" workspace {step.workspace.nbytes:,} B"
    written = step.writes()
    made = ", ".join(_placed(p) for p in written[:SHOWN])
    made += f" and {len(written) - SHOWN} more" if len(written) > SHOWN else ""
    name = f"  # {step.node.name}" if step.node is not None and step.node.name else ""
    return f"{ops}: {how} -> {made}, {touched_bytes(step):,} B{name}"


def _placed(p: Placed) -> str:
    o, s = p.operand, p.storage
    how = "" if o.contiguous else " channels last" if o.channels_last else f" strides {o.strides}"
    where = f"arena+{s.offset + o.offset * o.dtype.itemsize}" if s.kind == "arena" else s.kind
    where += f" {s.place}" if s.kind == "feed" else ""
    return f"{o.dtype.name}[{', '.join(map(str, o.shape))}]{how} at {where}"


def _product(grid: tuple[int, int, int]) -> str:
    return "x".join(map(str, grid))
