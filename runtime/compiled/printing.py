"""A program as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...ops.dims import Dim, show

if TYPE_CHECKING:
    from .program import Program
    from .stages import Call, Ref


def describe(program: Program) -> str:
    """Return each stage: its kernel, the nodes in it, how its result lies, bytes moved and FLOPs.

    The programs that run in its place for certain inputs follow.
    """
    c = program.compiler
    kernels = {call.kernel.key for stage in c.stages for call in stage.calls}
    host = sum(stage.host is not None for stage in c.stages)
    lines = [
        f"program {program.graph.name}: {len(c.stages)} stages, {len(kernels)} kernels for {c.target.name}, "
        f"{host} steps of array kernels, {len(c.weights.hoisted)} nodes computed once a version of the weights"
    ]
    for i, stage in enumerate(c.stages):
        if stage.host is not None:
            node = stage.host.node
            made = ", ".join(str(v.type) for v in node.outputs)
            lines.append(f"{i:5}  {node.op.name} (array kernel: {stage.host.reason}) -> {made}  # {node.name}")
        for call in stage.calls:
            lines.append(f"{i:5}  {_call(call)}")
    lines += [f"where {when}: {describe(other)}" for when, other in program.instead()]
    return "\n".join(lines)


def _call(call: Call) -> str:
    out = call.refs[-1] if call.group is None else _result(call)
    nodes = [n.op.name for n in call.group.nodes] if call.group is not None else []
    fused = f" [{' + '.join(nodes)}]" if len(nodes) > 1 else ""
    where = f"  # {call.node.name}" if call.node is not None and call.node.name else ""
    flops, size = _number(call.kernel.flops, "FLOP"), _number(call.kernel.bytes, "B")
    return f"{call.kernel.name}{fused} -> {_lies(out)}{flops}{size}{where}"


def _result(call: Call) -> Ref:
    assert call.group is not None
    shape = call.group.output.tensor_type.shape
    return next((r for r in reversed(call.refs) if r.operand.shape == shape), call.refs[-1])


def _lies(ref: Ref) -> str:
    o = ref.operand
    how = " channels last" if o.channels_last and not o.contiguous else ""
    halo = f" halo {'x'.join(str(max(h)) for h in o.halo[2:])}" if o.halo else ""
    return f"{o.dtype.name}{show(o.shape)}{how}{halo}"


def _number(n: object, unit: str) -> str:
    if isinstance(n, Dim):
        return f", {n} {unit}"
    assert isinstance(n, int)
    for size, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if n >= size:
            return f", {n / size:.3g} {letter}{unit}"
    return f", {n} {unit}" if n else ""
