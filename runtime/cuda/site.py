"""What a rule is given: one group of nodes, and how to read, write and launch for it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ...ops.errors import KernelError, OpError
from ...ops.kernels.cuda.kernel import Argument, Description, Grid, Kernel, Launch, LibraryCall, Ref
from ...ops.kernels.cuda.lowering import LOWERINGS, Epilogue, Order, Prologue, T
from ...ops.kernels.cuda.operand import Operand, packed
from ...ops.types import Array, DType, TensorType, type_of
from ..compiled.eligible import argument_type
from ..compiled.groups import Group
from ..graph.execute import located
from ..graph.graph import Value
from .arena import Placed, Storage, Table
from .steps import Step

if TYPE_CHECKING:
    from .compiler import Compiler


class NodeSite:
    """What a rule is given: see `ops.kernels.cuda.lowering.Site`."""

    def __init__(self, compiler: Compiler, group: Group, op: str) -> None:
        """Make it for a group whose rule is that of an op."""
        self.c, self.group, self.op = compiler, group, op
        anchor = group.anchor
        if anchor is None:
            self.args: tuple[Any, ...] = tuple(map(compiler.widenings.source, group.operands))
            self.attrs: dict[str, Any] = {"expression": group.expression}
            self.values: tuple[Value, ...] = (group.output,)
            self.results = [group.output.tensor_type]
        else:
            self.args, self.attrs = anchor.args, anchor.attrs
            self.values = (group.output, *anchor.outputs[1:])
            self.results = [v.tensor_type for v in anchor.outputs]
        self.types: list[Any] = [argument_type(a) for a in self.args]
        self.tf32 = compiler.tf32
        self.made: dict[int, Placed] = {}
        self.steps: list[Step] = []
        self._rounded: Placed | None = None
        self._epilogue: tuple[Epilogue, list[Placed]] | None = None

    @property
    def epilogue(self) -> Epilogue | None:
        """What to apply to the first output."""
        return None if self.group.anchor is None or self.group.expression is None else self._tail()[0]

    @property
    def epilogue_refs(self) -> Sequence[Ref]:
        """The operands of the epilogue."""
        return () if self.group.anchor is None or self.group.expression is None else self._tail()[1]

    def _tail(self) -> tuple[Epilogue, list[Placed]]:
        if self._epilogue is None:
            assert self.group.expression is not None
            out = self.group.output
            shape = tuple(int(d) for d in out.shape)
            last = self.made[0].operand.channels_last if 0 in self.made else self.c.wants_last(self.group, out)
            operands, refs = [], []
            for v in map(self.c.widenings.source, self.group.operands):
                ref = None
                if v.shape == out.shape and out.ndim > 2:
                    order: Order = "channels_last" if last else "plain"
                    ref = self.c.along(v, last) or self.c.read(v, order, self.group.node)
                ref = ref or self.c.read(v, "any", self.group.node)
                operands.append(ref.operand.broadcast_to(shape))
                refs.append(Placed(operands[-1], ref.storage))
            self._epilogue = Epilogue(self.group.expression, tuple(operands), out.dtype), refs
        return self._epilogue

    def read(self, i: int, *, order: Order = "any", item: int | None = None) -> Placed:
        """Return an input lying as asked."""
        a = self.args[i] if item is None else self.args[i][item]
        if isinstance(a, Value):
            rule = LOWERINGS.get(self.op)
            narrow = rule is not None and i in rule.narrow
            return self.c.read(self.c.widenings.source(a) if narrow else a, order, self.group.node)
        if isinstance(a, bool | int | float):
            other = next((t.dtype for t in self.types if isinstance(t, TensorType)), np.dtype(np.float32))
            return self.constant(np.asarray(a, other))
        raise KernelError(f"input {i} of {self.op} is {type(a).__name__}, not a tensor")

    def prologue(self, i: int) -> Prologue | None:
        """Return what an input is, as long as nobody has computed it."""
        before = self.group.prologues.get(i)
        return None if before is None else self.c.prologue(before)

    def known(self, i: int) -> Array | None:
        """Return the array of a constant, or of a number."""
        a = self.args[i]
        if isinstance(a, bool | int | float):
            return np.asarray(a)
        return a.array if isinstance(a, Value) and a.is_constant else None

    def constant(self, array: Array) -> Placed:
        """Return a NumPy array that is part of the plan, on the device."""
        array = np.ascontiguousarray(array).reshape(np.shape(array))
        return self.c.weight(Value(self.c.graph, type_of(array), "constant", array=array), "plain")

    def wanted(self, i: int) -> bool:
        """Whether something reads an output."""
        return self.c.readers.wanted(self.values[i])

    def readers(self, i: int) -> Sequence[str]:
        """Return the names of the ops that read an output."""
        return self.c.readers.ops(self.values[i])

    def write(self, i: int = 0, *, order: Order = "any") -> Placed:
        """Return an output, lying as asked."""
        if i not in self.made:
            v = self.values[i]
            if order == "any":
                order = "channels_last" if self.c.wants_last(self.group, v) else "plain"
            self.made[i] = self.c.output(v, order)
        return self.made[i]

    def lying(self, operand: Operand, room: Placed | None = None) -> Placed:
        """Return the first output, lying so in memory of its own, or in that of another tensor."""
        self.made[0] = self.c.placed(self.values[0], operand, room)
        return self.made[0]

    def rounded(self) -> Placed | None:
        """Return the memory for what output 0 is rounded to."""
        cast = self.group.rounded
        if cast is None or 0 not in self.made:
            return None
        if self._rounded is None:
            operand = replace(self.made[0].operand, dtype=cast.output.dtype, offset=0)
            self._rounded = self.c.placed(cast.output, operand)
        return self._rounded

    def temporary(self, dtype: DType, shape: Sequence[int]) -> Placed:
        """Return memory for a row-major tensor."""
        operand = packed(np.dtype(dtype), tuple(int(n) for n in shape))
        return Placed(operand, self.c.storage(operand.nbytes))

    def shared(self, key: Hashable, inputs: Sequence[int | None], make: Callable[[], T]) -> T:
        """Return what is made of some inputs, once for all sites."""
        return self.c.shared(key, [None if i is None else self.args[i] for i in inputs], make)

    def attempt(self, work: Callable[[], None]) -> bool:
        """Return whether work could be added; what a refused call leaves behind is taken back."""
        mark, steps, made = self.c.mark(), len(self.steps), dict(self.made)
        kept = self._epilogue, self._rounded
        try:
            work()
        except KernelError as error:
            self.c.rewind(mark)
            del self.steps[steps:]
            self.made, (self._epilogue, self._rounded) = made, kept
            node = self.group.node
            self.c.declined.append(f"{node.name or node.outputs[0].name} ({node.op.name}): {error}")
            return False
        return True

    def table(self, refs: Sequence[Ref], *, writes: Sequence[int] = ()) -> Placed:
        """Return a vector of the addresses of tensors; a launch that is given it reads them, and writes some."""
        operand = packed(np.dtype(np.int64), (len(refs),))
        table = Table(tuple(cast(Placed, r) for r in refs), tuple(writes))
        return Placed(operand, Storage("table", operand.nbytes, table=table))

    def flag(self, message: str) -> Placed:
        """Return a word that is 0 until a kernel that meets bad input sets it."""
        node, operand = self.group.node, packed(np.dtype(np.int32), (1,))
        said = str(located(OpError(message), node, node.args))
        return Placed(operand, Storage("flag", operand.nbytes, message=said))

    def launch(
        self, kernel: Kernel, grid: Grid, block: Grid, arguments: Sequence[Argument], *, writes: Sequence[int],
        shared_bytes: int = 0,
    ) -> None:  # fmt: skip
        """Launch a kernel behind what was added before."""
        launch = Launch(kernel, grid, block, tuple(arguments), tuple(writes), shared_bytes)
        launch.check()
        try:
            self.c.runner.load(kernel)
        except KernelError as error:
            raise RuntimeError(f"{kernel.name} cannot be compiled: {error}") from error
        self._add(Step(launch, self.group.node, self._ops()))

    def call(self, description: Description, refs: Sequence[Ref], *, writes: Sequence[int]) -> None:
        """Call a library behind what was added before."""
        call = LibraryCall(description, tuple(refs), tuple(writes))
        prepared = self.c.runner.prepare(call)
        workspace = self.c.storage(prepared.workspace_bytes) if prepared.workspace_bytes else None
        self._add(Step(call, self.group.node, self._ops(), prepared, workspace))

    def _ops(self) -> tuple[str, ...]:
        before = [n for group in self.group.prologues.values() for n in group.nodes if self.c.waits(group.output)]
        behind = self.group.rounded.nodes if self._rounded is not None and self.group.rounded is not None else []
        return tuple(n.op.name for n in (*before, *self.group.nodes, *behind))

    def _add(self, step: Step) -> None:
        self.steps.append(step)
        self.c.steps.append(step)

    def done(self, steps: Sequence[Step] | None = None) -> None:
        """Check that the rule made what it promised, in these steps; its own by default.

        Raises:
            KernelError: if it left an output unwritten that is wanted.
        """
        written: set[int] = {id(p.storage) for s in (self.steps if steps is None else steps) for p in s.writes()}
        for i in filter(self.wanted, range(len(self.values))):
            if i not in self.made or id(self.made[i].storage) not in written:
                raise KernelError(f"the rule of {self.op} returned without writing output {i}, which is wanted")
