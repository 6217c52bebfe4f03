"""What a rule is given: one group of nodes, and how to read, write and call for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...ops.dims import Dim, DimLike, Shape, product
from ...ops.errors import KernelError
from ...ops.kernels.cpu.kernel import Kernel
from ...ops.kernels.cpu.lowering import Elements, Epilogue, Order
from ...ops.kernels.cpu.operand import Halo, packed
from ...ops.kernels.cpu.target import Target
from ...ops.types import Array, TensorType, type_of
from ..graph.graph import Value
from .eligible import argument_type
from .groups import Group
from .stages import Call, Origin, Ref, RefusedError, Stage, beside
from .weights import AS_IT_IS

if TYPE_CHECKING:
    from .compiler import Compiler


class NodeSite:
    """What a rule is given: see `ops.kernels.cpu.lowering.Site`."""

    def __init__(self, compiler: Compiler, group: Group, name: str) -> None:
        """Make it for a group."""
        self.c, self.group, self.op = compiler, group, name
        anchor = group.anchor
        if anchor is None:
            self.args: tuple[Any, ...] = tuple(group.operands)
            self.attrs: dict[str, Any] = {"expression": group.expression}
            self.values: tuple[Value, ...] = (group.output,)
        else:
            self.args, self.attrs = anchor.args, anchor.attrs
            self.values = (group.output, *anchor.outputs[1:])
        self.types = [argument_type(a) for a in self.args]
        self.results = [v.tensor_type for v in (anchor.outputs if anchor is not None else self.values)]
        self.result = self.results[0]
        self.target: Target = compiler.target
        self.exact, self.precision = compiler.exact, compiler.precision
        self.made: dict[int, Ref] = {}
        self._calls: list[Call] = []
        self._own: set[int] = set()
        self._epilogue: tuple[Epilogue, list[Ref]] | None = None

    @property
    def epilogue(self) -> Epilogue | None:
        """What to apply to the first output."""
        if self.group.anchor is None or self.group.expression is None:
            return None
        return self._tail()[0]

    @property
    def epilogue_refs(self) -> Sequence[Ref]:
        """The operands of the epilogue."""
        if self.group.anchor is None or self.group.expression is None:
            return ()
        return self._tail()[1]

    def _tail(self) -> tuple[Epilogue, list[Ref]]:
        if self._epilogue is None:
            assert self.group.expression is not None
            out, refs, operands = self.group.output, [], []
            last = self.c.arrangement.last(out)
            for v in self.group.operands:
                full = v.ndim == out.ndim and v.ndim > 2 and last and v.shape[1] != 1 and isinstance(v.shape[1], int)
                ref = self.c.read(v, "channels_last" if full else "any", (), self.group.node, "stored")
                operand = ref.operand.broadcast_to(out.shape)
                inner = 1 if last else out.ndim - 1
                if out.ndim and operand.strides[inner] not in (0, 1):
                    ref = self.c.read(v, "plain", (), self.group.node, "stored")
                    operand = ref.operand.broadcast_to(out.shape)
                    if operand.strides[inner] not in (0, 1):
                        raise RefusedError(f"{v!r} does not lie along the vectors of {out!r}")
                operands.append(operand)
                refs.append(ref)
            self._epilogue = Epilogue(self.group.expression, tuple(operands), out.dtype), refs
        return self._epilogue

    def _value(self, i: int, item: int | None) -> Value:
        a = self.args[i]
        a = a[item] if item is not None else a
        if isinstance(a, Value):
            return a
        if isinstance(a, bool | int | float):
            other = next((t.dtype for t in self.types if isinstance(t, TensorType)), np.dtype(np.float32))
            return self.c.graph.constant(np.asarray(a, other))
        raise RefusedError(f"input {i} of {self.op} is {type(a).__name__}, not a tensor")

    def read(
        self, i: int, *, order: Order = "any", halo: Halo = (), item: int | None = None, elements: Elements = "own"
    ) -> Ref:
        """Return an input lying as asked."""
        return self.c.read(self._value(i, item), order, halo, self.group.node, elements)

    def known(self, i: int) -> Array | None:
        """Return the array of a constant."""
        a = self.args[i]
        if isinstance(a, bool | int | float):
            return np.asarray(a)
        return a.array if isinstance(a, Value) and a.is_constant else None

    def hoistable(self, i: int) -> bool:
        """Whether an input depends on weights alone."""
        a = self.args[i]
        return isinstance(a, Value) and self.c.weights.covers(a)

    def packed(self, i: int, how: str, pack: Callable[[Array], Array]) -> Ref:
        """Return what packing makes of an input that depends on weights alone."""
        v = self._value(i, None)
        t = v.tensor_type
        if any(isinstance(d, Dim) for d in t.shape):
            raise RefusedError(f"{v!r} has sizes that only run time knows")
        known = self.c.weights.known(v, how)
        if known is None:
            known = pack(v.array if v.is_constant else np.zeros([int(d) for d in t.shape], t.dtype))
        ref = self.c._weight(v, how, pack, type_of(known))
        if v.is_constant:
            self.c.weights.fill(ref.storage.slot, known)
        return ref

    def origin(self, i: int, *, plain: bool = False) -> Origin:
        """Return how an input that depends on weights alone lies where kernels prepare it."""
        v = self._value(i, None)
        if any(isinstance(d, Dim) for d in v.shape):
            raise RefusedError(f"{v!r} has sizes that only run time knows")
        return Origin(packed(v.dtype, v.shape), v) if plain else self.c.origin(v)

    def prepared(self, origin: Any, kernels: Sequence[Kernel], dtype: Any, shape: Shape) -> Ref:
        """Return what kernels make of an input that depends on weights alone."""
        slot = self.c.weights.prepared(origin.value, origin.start, kernels, TensorType(np.dtype(dtype), tuple(shape)))
        return Ref(packed(dtype, shape), self.c._storage("weight", dtype, product(shape), slot=slot))

    def constant(self, array: Array) -> Ref:
        """Return an array that is part of the plan."""
        v = self.c.graph.constant(np.ascontiguousarray(array))
        return self.c._weight(v, AS_IT_IS, lambda a: a, type_of(v.array))

    def write(self, i: int = 0, *, order: Order = "any") -> Ref:
        """Return an output."""
        if i in self.made:
            return self.made[i]
        v = self.values[i]
        if order == "any":
            order = self.c.arrangement.orders.get(id(v), "plain")
        ref = self.c.home(v, order) or self.c._make(v, order)
        self.made[i] = ref
        self.c.places[id(v)] = [ref]
        return ref

    def flag(self, message: str) -> Ref:
        """Return a word that a kernel sets where its input is bad."""
        ref = Ref(packed(np.dtype(np.int64), (1,)), self.c._storage("flag", np.int64, 1, place=len(self.c.flags)))
        self.c.flags.append((ref, message, self.group.node))
        return ref

    def temporary(self, dtype: Any, shape: Sequence[DimLike]) -> Ref:
        """Return memory for this site."""
        dtype = np.dtype(dtype)
        ref = Ref(packed(dtype, tuple(shape)), self.c._storage("arena", dtype, product(tuple(shape))))
        self._own.add(id(ref.storage))
        return ref

    def call(self, kernel: Kernel, refs: Sequence[Ref]) -> None:
        """Run a kernel."""
        if len(refs) != kernel.operands:
            raise KernelError(f"{kernel.name} takes {kernel.operands} operands, found {len(refs)}")
        mine = self._own | {id(r.storage) for r in self.made.values()}
        writes = frozenset(id(r.storage) for r in refs if id(r.storage) in mine or r.storage.kind == "flag")
        call = Call(kernel, tuple(refs), self.group.node, self.group, writes)
        stages = self.c.stages
        halos = stages[-1].calls if stages else []
        if not self._calls and halos and all(beside(c, refs) for c in halos):
            halos.append(call)
        else:
            stages.append(Stage([call]))
        self._calls.append(call)

    def done(self) -> None:
        """Check that the rule made what it promised."""
        if 0 not in self.made or not (self._calls or 0 in self.result.shape):
            raise KernelError(f"the rule of {self.op} returned without writing its output")
