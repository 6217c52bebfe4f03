"""What stays on the device from run to run: constants, parameters, and what is computed of them alone.

The programs of one graph for different shapes share it. A parameter that lies as it is wanted is read where its Tensor
holds it; everything else is made once for each version of the weights that it depends on.
"""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np

from ...ops.kernels.cuda.lowering import Order
from ...ops.kernels.cuda.operand import Operand, channels_last_strides, packed
from ...ops.types import Array
from ..compiled.weights import lying_array
from ..graph.execute import execute
from ..graph.graph import Graph, Node, Value
from ..graph.plan import live_nodes, make_plan
from ..passes.convert_values import move_constants
from ..tensor.exposed import any_exposed, owners
from ..tensor.seen import Seen
from ..tensor.stored import StoredTensor
from ..tensor.tensor import changes
from .arena import ALIGNMENT
from .runner import Block, Runner

Lies: TypeAlias = Literal["plain", "channels_last"]


@dataclass(eq=False)
class Slot:
    """A tensor that stays.

    Attributes:
        value: what it holds, a value of `part.graph`.
        lies: how.
        operand: how it lies, in numbers.
        sources: the names of the weights that it depends on.
        block: where it is; None before it is filled.
        borrowed: whether that is the memory of a Tensor's own array.
    """

    value: Value
    part: Hoisted
    lies: Lies
    operand: Operand
    sources: frozenset[str]
    block: Block | None = None
    borrowed: bool = False


class Hoisted:
    """The part of a program's graph that depends on weights and constants alone.

    Args:
        graph: of the program.
        nodes: its nodes that depend on nothing else.
    """

    def __init__(self, graph: Graph, nodes: Sequence[Node]) -> None:
        """Find what each value depends on; see the class for the arguments."""
        self.graph, self.nodes = graph, nodes
        self._names: dict[int, frozenset[str]] = {}
        self._keys: dict[int, tuple[Value, str]] = {}
        self._names.update((id(v), frozenset([n])) for n, v in graph.state.items())
        for node in nodes:
            names = frozenset[str]().union(*(self.sources(v) for v in node.inputs()))
            self._names.update((id(v), names) for v in node.outputs)

    def covers(self, v: Value) -> bool:
        """Whether a value depends on weights and constants alone."""
        return v.is_constant or id(v) in self._names

    def sources(self, v: Value) -> frozenset[str]:
        """Return the names of the weights that a value depends on."""
        return self._names.get(id(v), frozenset())

    def key(self, v: Value) -> str:
        """Return what is equal for values that are computed alike of the same weights, whichever graph they are of."""
        found = self._keys.get(id(v))
        if found is None:
            found = self._keys[id(v)] = v, hashlib.sha256(repr(self._said(v)).encode()).hexdigest()
        return found[1]

    def _said(self, v: Value) -> Any:
        if v.is_constant:
            array = np.ascontiguousarray(v.array)
            return "constant", array.dtype.name, v.array.shape, hashlib.sha256(array.tobytes()).hexdigest()
        if v.node is None:
            return "state", v.name, v.dtype.name, tuple(v.shape)
        args = [[self.key(x) for x in a] if isinstance(a, list) else self._argument(a) for a in v.node.args]
        return v.node.op.name, args, sorted(v.node.attrs.items(), key=lambda item: item[0]), v.index

    def _argument(self, a: Any) -> Any:
        return ("value", self.key(a)) if isinstance(a, Value) else ("number", a)


@dataclass
class WeightStore:
    """The slots of all programs of a graph.

    Attributes:
        runner: the device.
        generation: counts the times that any address has changed.
    """

    runner: Runner
    generation: int = 0
    _slots: weakref.WeakValueDictionary[Any, Slot] = field(default_factory=weakref.WeakValueDictionary)
    _seen: Seen = field(default_factory=Seen)
    _since: int = -1
    _owners: frozenset[int] = frozenset()

    def slot(self, part: Hoisted, v: Value, lies: Lies = "plain") -> Slot:
        """Return the slot of a value, which programs of other shapes that want the same share."""
        key = (part.key(v), lies)
        found = self._slots.get(key)
        if found is None:
            found = Slot(v, part, lies, lying(v, lies), part.sources(v))
            self._slots[key] = found
        return found

    @property
    def nbytes(self) -> int:
        """The bytes that slots take beside the Tensors' own arrays."""
        return sum(s.block.nbytes for s in self._slots.values() if s.block is not None and not s.borrowed)

    def refresh(self, tensors: Mapping[str, Any]) -> None:
        """Make what is not there yet, and again what depends on weights that have changed.

        Args:
            tensors: the weights by name.
        """
        slots = list(self._slots.values())
        fresh = [s for s in slots if s.block is None]
        if not fresh and self._since == changes[0] and not any_exposed(self._owners):
            return
        try:
            self._renew(slots, tensors)
        except BaseException:  # the next run finds everything changed
            self._seen.forget()
            self._since = -1
            raise

    def _renew(self, slots: Sequence[Slot], tensors: Mapping[str, Any]) -> None:
        self._since = changes[0]
        changed = self._seen.changed(tensors)
        self._owners = owners(t._array for t in tensors.values() if not isinstance(t, StoredTensor))
        stale = [s for s in slots if s.block is None or s.sources & changed]
        by_part: dict[int, list[Slot]] = {}
        for s in stale:
            by_part.setdefault(id(s.part), []).append(s)
        for some in by_part.values():
            for s, array in zip(some, self._values(some, tensors), strict=True):
                self._fill(s, array)

    def _values(self, slots: Sequence[Slot], tensors: Mapping[str, Any]) -> list[Array]:
        """Return what slots of one part hold, on the device or, where it is only to be copied, on the host."""
        part = slots[0].part
        computed = [s.value for s in slots if s.value.node is not None and not s.value.is_constant]
        made: dict[int, Array] = {}
        if computed:
            graph = Graph("weights", nodes=list(part.nodes), outputs=list({id(v): v for v in computed}.values()))
            graph.nodes = live_nodes(graph)
            read = {id(v) for node in graph.nodes for v in node.inputs()}
            graph.state = {n: v for n, v in part.graph.state.items() if id(v) in read}
            moved = move_constants(graph, self.runner.array).graph
            given = [self.runner.array(lying_array(tensors[n])) for n in moved.state]
            results, _ = execute(make_plan(moved), given)
            made = {id(v): r for v, r in zip(graph.outputs, results, strict=True)}

        def of(s: Slot) -> Array:
            if s.value.is_constant:
                return s.value.array
            return made[id(s.value)] if id(s.value) in made else lying_array(tensors[s.value.name])

        return [of(s) for s in slots]

    def _fill(self, s: Slot, array: Array) -> None:
        runner, before = self.runner, 0 if s.block is None else s.block.address
        own = s.value.node is None and not s.value.is_constant
        block = None
        if own and s.lies == "plain" and runner.lies(array) and array.flags.c_contiguous:
            block = runner.borrow(array)
        if block is not None and block.address % ALIGNMENT == 0:
            s.block, s.borrowed = block, True
        else:
            if s.block is None or s.borrowed:
                s.block, s.borrowed = runner.allocate(s.operand.nbytes), False
            runner.write(runner.view(s.block, s.operand), array)
        self.generation += s.block.address != before


def lying(v: Value, order: Order = "plain") -> Operand:
    """Return how a value lies in an order, without gaps."""
    shape = tuple(int(d) for d in v.shape)
    if order == "channels_last":
        return Operand(v.dtype, shape, channels_last_strides(shape))
    return packed(v.dtype, shape)
