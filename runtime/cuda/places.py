"""Where the values of a program lie, and how one comes to lie otherwise.

A value may lie in several places: as it was made, and as readers wanted it, row-major or channels last. Views are
places too. What a rule that fails has added is taken back.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple, cast

from ...ops import layout
from ...ops.broadcast import broadcast_to
from ...ops.errors import KernelError
from ...ops.kernels.cpu.operand import Operand as Strided
from ...ops.kernels.cuda.lowering import Order, T
from ...ops.kernels.cuda.operand import Operand, packed
from ...ops.op import Op
from ...ops.types import TensorType
from ..compiled.groups import Group
from ..compiled.views import VIEWS, view
from ..graph.graph import Node, Value
from .arena import Placed, Storage
from .readers import Readers
from .steps import Copy, Step
from .weights import Hoisted, Lies, WeightStore, lying
from .widening import Widenings

_MADE_LAST = ("conv", "conv_input_grad")
"""Ops whose results lie channels last."""


class Mark(NamedTuple):
    """How far a program has come: how many of everything that is taken back where a rule fails."""

    steps: int
    storages: int
    places: int
    shared: int


class Places:
    """The places of a program that is being made.

    Attributes:
        store: what stays from run to run.
        part: what depends on weights alone.
        runner: the device.
        readers: who reads what.
        widenings: the casts that are not written unless somebody wants them.
        steps: so far; copies are among them.
        storages: the memory of the arena.
    """

    def __init__(self, store: WeightStore, part: Hoisted, readers: Readers, widenings: Widenings) -> None:
        """Begin with nothing in memory; see the class for the arguments."""
        self.store, self.part, self.runner = store, part, store.runner
        self.readers, self.widenings = readers, widenings
        self.steps: list[Step] = []
        self.storages: list[Storage] = []
        self._shared: dict[Hashable, Any] = {}
        self._waiting: dict[int, Group] = {}
        self._places: dict[int, list[Placed]] = {}
        self._journal: list[int] = []
        self._targets: dict[int, Placed] = {}

    def realise(self, group: Group) -> None:
        """Make what has waited for somebody to want it."""
        raise NotImplementedError

    def storage(self, nbytes: int) -> Storage:
        """Return memory of the arena."""
        self.storages.append(Storage("arena", nbytes))
        return self.storages[-1]

    def _put(self, v: Value, ref: Placed) -> None:
        self._places.setdefault(id(v), []).append(ref)
        self._journal.append(id(v))

    def mark(self) -> Mark:
        """Return how far the program has come."""
        return Mark(len(self.steps), len(self.storages), len(self._journal), len(self._shared))

    def rewind(self, mark: Mark) -> None:
        """Take back what has been added since."""
        del self.steps[mark.steps :], self.storages[mark.storages :]
        while len(self._journal) > mark.places:
            self._places[self._journal.pop()].pop()
        while len(self._shared) > mark.shared:
            self._shared.popitem()

    def shared(self, key: Hashable, given: Sequence[Any], make: Callable[[], T]) -> T:
        """Return what `make` returns, or what it returned before for this key and these arguments of nodes."""

        def identity(a: Any) -> Hashable:
            if not isinstance(a, Value):
                return a  # type: ignore[no-any-return]
            return self.part.key(a) if self.part.covers(a) else id(a)

        whole = key, tuple(map(identity, given))
        if whole not in self._shared:
            self._shared[whole] = make()
        return cast(T, self._shared[whole])

    def weight(self, v: Value, lies: Lies) -> Placed:
        """Return a value that depends on weights alone, in memory that stays."""
        slot = self.store.slot(self.part, v, lies)
        return Placed(slot.operand, Storage("weight", slot.operand.nbytes, slot=slot))

    def _refs(self, v: Value) -> list[Placed]:
        found = self._places.get(id(v))
        if not found and (group := self._waiting.get(id(v))) is not None:
            self.realise(group)
            found = self._places[id(v)]
        if not found:
            if not self.part.covers(v):
                raise KernelError(f"{v!r} is not in memory")
            self._put(v, self._origin(v))
            found = self._places[id(v)]
        return found

    def _origin(self, v: Value) -> Placed:
        """Return what depends on weights alone, as a view of what it is made of by moving nothing."""
        node = v.node
        source = node.args[0] if node is not None and node.op in VIEWS else None
        if isinstance(source, Value) and self.part.covers(source) and not v.is_constant:
            whole = self._refs(source)[0]
            seen = views_of(node.op, whole.operand, node)  # type: ignore[union-attr, arg-type]
            if seen is not None:
                return Placed(seen[v.index], whole.storage)
        return self.weight(v, "plain")

    def read(self, v: Value, order: Order, node: Node | None) -> Placed:
        """Return a value lying as asked; it is copied where it does not."""
        refs = self._refs(v)
        if order == "any":
            return refs[0]
        for ref in refs:
            if ref.operand.contiguous if order == "plain" else ref.operand.channels_last:
                return ref
        if self.part.covers(v):
            self._put(v, self.weight(v, "channels_last" if order == "channels_last" else "plain"))
        else:
            if order == "channels_last" and v.ndim < 3:
                raise KernelError(f"{v!r} has no channels to lie last")
            operand = lying(v, order)
            made = Placed(operand, self.storage(operand.nbytes))
            self._copy(refs[0], made, node)
            self._put(v, made)
        return self._places[id(v)][-1]

    def waits(self, v: Value) -> bool:
        """Whether nobody has wanted a value in memory yet."""
        return id(v) in self._waiting and not self._places.get(id(v))

    def along(self, v: Value, last: bool) -> Placed | None:
        """Return a value lying in the order in which a kernel walks, or broadcast; None where it lies across."""
        refs = self._refs(v)
        whole = (ref for ref in refs if (ref.operand.channels_last if last else ref.operand.contiguous))
        parts = (ref for ref in refs if ref.operand.in_order(last) or 0 in ref.operand.strides)
        return next(whole, None) or next(parts, None)

    def _copy(self, source: Placed, target: Placed, node: Node | None) -> None:
        """Add what brings a tensor into other memory."""
        a, b = source.operand, target.operand
        work: Any = Copy(source, target)
        if a.size and (a.strides != b.strides or not (b.contiguous or b.channels_last)):
            from ...ops.kernels.cuda.copy import copying

            try:
                work = copying(source, target)
                work.check()
                self.runner.load(work.kernel)
            except KernelError:
                work = Copy(source, target)
        self.steps.append(Step(work, node, ("copy",)))

    def placed(self, v: Value, operand: Operand, room: Placed | None = None) -> Placed:
        """Return memory for a value that lies so: its own, or where it is a part of a tensor that of the whole."""
        ref = Placed(operand, self.storage(operand.nbytes) if room is None else room.storage)
        self._put(v, ref)
        return ref

    def output(self, v: Value, order: Order) -> Placed:
        """Return memory for what a group makes."""
        joint = self.readers.joined(v) if order == "permuted" else None
        if joint is not None and id(joint[0]) not in self._targets:
            whole = packed(v.dtype, tuple(int(d) for d in joint[0].shape))
            room = self.shared(("joined", id(joint[0])), (), lambda: self.storage(whole.nbytes))
            self._put(v, Placed(joint[1], room))
            return self._places[id(v)][-1]
        operand = self.readers.permuted(v) if order == "permuted" else None
        operand = operand or lying(v, order if v.ndim > 2 else "plain")
        target = self._targets.get(id(v))
        if target is not None and target.operand.strides == operand.strides:
            ref = target
        else:
            ref = Placed(operand, self.storage(operand.nbytes))
        self._put(v, ref)
        return ref

    def wants_last(self, group: Group, v: Value) -> bool:
        """Whether what a group makes is to lie channels last, as what it is made of does."""
        if v.ndim < 3 or v.shape[1] == 1 or all(n == 1 for n in v.shape[2:]):
            return False
        if group.anchor is not None and group.anchor.op.name in _MADE_LAST:
            return True
        same = [r for r in group.reads() if isinstance(r.type, TensorType) and r.ndim == v.ndim]
        full = [r for r in same if r.shape == v.shape] or same[:1]
        if group.anchor is None or group.anchor.op is layout.concat:
            return any(self._last(r) for r in full if r.shape[1] != 1)
        return bool(full) and self._last(full[0])

    def _last(self, v: Value) -> bool:
        v = self.widenings.source(v)
        if not self._places.get(id(v)):
            return False
        operand = self._places[id(v)][0].operand
        return operand.ndim > 2 and operand.in_order(last=True) and not operand.in_order(last=False)


def views_of(op: Op, operand: Operand, node: Node) -> list[Operand] | None:
    """Return each output of a node as a view of an operand; None where it is none."""
    types = tuple(v.tensor_type for v in node.outputs)
    if op is broadcast_to:
        return [operand.broadcast_to(tuple(int(d) for d in types[0].shape))]
    seen = view(op, Strided(operand.dtype, operand.shape, operand.strides), node.attrs, types)
    if seen is None:
        return None
    found = []
    for made, start in seen:
        shape, strides = tuple(int(d) for d in made.shape), tuple(int(s) for s in made.strides)
        found.append(Operand(operand.dtype, shape, strides, operand.offset + int(start)))
    return found
