"""What a program reads that stays from run to run: constants, parameters, and what is computed and packed of them.

Everything that depends on weights alone is computed once for each version of them. A weight has changed when its Tensor
holds another array or counts another version, or when somebody else holds the array and may write to it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from ...ops.kernels.cpu.kernel import Kernel
from ...ops.kernels.cpu.spmd import aligned, check_chunks, pool
from ...ops.types import Array, TensorType
from ..graph.execute import execute
from ..graph.graph import Graph, Node, Value
from ..graph.plan import live_nodes, make_plan
from ..tensor.exposed import owners
from ..tensor.seen import Seen
from ..tensor.stored import StoredTensor

AS_IT_IS = "as it is"
"""The packing that packs nothing: the array itself, where it lies in row-major order."""

LOT_BYTES = 1 << 26
"""How much is packed before the file's pages that were read for it are let go."""


@dataclass(eq=False)
class Slot:
    """A packed array: where it comes from and what is done to it.

    Attributes:
        source: what is packed.
        how: names the packing.
        pack: a function of a NumPy array; not used where there are kernels.
        start: the element of the source that kernels are given.
        kernels: native code over (source, array) that packs it.
        made: the type of what kernels make.
        sources: the weights that the source depends on.
    """

    source: Value
    how: Any
    pack: Callable[[Array], Array]
    array: Array = None
    address: int = 0
    sources: frozenset[str] = frozenset()
    start: int = 0
    kernels: Sequence[Kernel] | None = None
    made: TensorType | None = None


class Slots:
    """Packed arrays, made again where what they are made of has changed.

    Attributes:
        generation: counts the times that anything was made.
        owners: the memory of the weights as they were looked at last.
    """

    slots: list[Slot]
    generation = 0
    owners: frozenset[int] = frozenset()

    def __init__(self, slots: list[Slot]) -> None:
        """Begin with these."""
        self.slots = slots
        self._seen = Seen()

    def evaluate(self, stale: Sequence[Slot], tensors: Mapping[str, Any]) -> dict[int, Array]:
        """Return the arrays that slots pack, by the ids of their sources; stored ones where they lie, if copied."""
        raise NotImplementedError

    def refresh(self, tensors: Mapping[str, Any], code: Mapping[str, int], threads: int = 1) -> bool:
        """Compute again what depends on weights that have changed; return whether any address is new.

        Args:
            tensors: the weights by name.
            code: the addresses of the slots' kernels, by key.
            threads: how many may pack.
        """
        try:
            return self._renew(tensors, code, threads)
        except BaseException:  # the next run finds everything changed
            self._seen.forget()
            raise

    def _renew(self, tensors: Mapping[str, Any], code: Mapping[str, int], threads: int) -> bool:
        changed = self._seen.changed(tensors)
        self.owners = owners(t._array for t in tensors.values() if not isinstance(t, StoredTensor))
        stale = [s for s in self.slots if s.array is None or s.sources & changed]
        if not stale:
            return False
        values = self.evaluate(stale, tensors)
        native = [s for s in stale if s.kernels is not None]
        moved = self._make_room([s for s in native if s.array is None])
        files = {t.stored.file for t in tensors.values() if isinstance(t, StoredTensor)}
        for part in _parts(native):
            run_packing(part, values, code, threads)
            for file in files:
                file.release()
        for s in stale:
            if s.kernels is not None:
                continue
            made = np.ascontiguousarray(s.pack(values[id(s.source)]))
            if s.how != AS_IT_IS:
                if s.array is not None and s.array.shape == made.shape and s.array.dtype == made.dtype:
                    s.array[...] = made
                    continue
                made = aligned_array(made)
            address = int(made.ctypes.data)
            moved = moved or address != s.address
            s.array, s.address = made, address
        self.generation += 1
        return moved

    def _make_room(self, slots: Sequence[Slot]) -> bool:
        """Give slots memory, which they share: large pieces are cheaper to touch than small ones."""
        room, start = aligned(sum(_room(s) for s in slots)), 0
        for s in slots:
            assert s.made is not None
            s.array = room[start : start + _nbytes(s)].view(s.made.dtype).reshape(s.made.shape)
            s.address = int(s.array.ctypes.data)
            start += _room(s)
        return bool(slots)


class Weights(Slots):
    """The arrays that a program reads beside its feeds, of the graph that it is compiled from.

    Attributes:
        graph: of the program.
        hoisted: its nodes that depend on weights and constants alone.
    """

    def __init__(self, graph: Graph, hoisted: Sequence[Node]) -> None:
        """Find what each hoisted value depends on."""
        super().__init__([])
        self.graph, self.hoisted = graph, hoisted
        self._by_key: dict[tuple[int, Any], Slot] = {}
        self._depends: dict[int, frozenset[str]] = {id(v): frozenset([n]) for n, v in self.graph.state.items()}
        for node in self.hoisted:
            names = frozenset[str]().union(*(self.depends(v) for v in node.inputs()))
            for out in node.outputs:
                self._depends[id(out)] = names
        self._plans: dict[frozenset[int], Any] = {}

    def depends(self, v: Value) -> frozenset[str]:
        """Return the names of the weights that a value depends on."""
        return self._depends.get(id(v), frozenset())

    def covers(self, v: Value) -> bool:
        """Whether a value depends on weights and constants alone."""
        return v.is_constant or id(v) in self._depends

    def slot(self, v: Value, how: Any, pack: Callable[[Array], Array]) -> Slot:
        """Return the slot for a packing of a value, the same for equal packings."""
        key = (id(v), how)
        found = self._by_key.get(key)
        if found is None:
            found = self._by_key[key] = Slot(v, how, pack, sources=self.depends(v))
            self.slots.append(found)
        return found

    def known(self, v: Value, how: str) -> Array | None:
        """Return what a packing of a value makes, where that is known."""
        found = self._by_key.get((id(v), how))
        return None if found is None else found.array

    def fill(self, slot: Slot | None, array: Array) -> None:
        """Set what a slot holds, which will never change."""
        if slot is not None and slot.array is None:
            slot.array = aligned_array(np.ascontiguousarray(array))
            slot.address = int(slot.array.ctypes.data)

    def prepared(self, v: Value, start: int, kernels: Sequence[Kernel], made: TensorType) -> Slot:
        """Return the slot for what kernels make of a value from its element number `start` on."""
        found = self.slot(v, (start, made.shape, *(k.key for k in kernels)), unchanged)
        found.start, found.kernels, found.made = start, tuple(kernels), made
        return found

    def keep_slots(self, used: Collection[int]) -> None:
        """Forget the slots of kernels that are not among those with these ids."""
        self.slots = [s for s in self.slots if s.kernels is None or id(s) in used]

    def evaluate(self, stale: Sequence[Slot], tensors: Mapping[str, Any]) -> dict[int, Array]:
        """Return the arrays that slots pack, by the ids of their sources; stored ones where they lie, if copied."""
        wanted = [s.source for s in stale]
        owned = {id(s.source) for s in stale if s.how == AS_IT_IS}
        found: dict[int, Array] = {id(v): v.array for v in wanted if v.is_constant}
        ids = {id(v) for v in wanted}
        for name, v in self.graph.state.items():
            if id(v) in ids:
                found[id(v)] = tensors[name]._array if id(v) in owned else lying_array(tensors[name])
        rest = [v for v in wanted if id(v) not in found]
        if rest:
            key = frozenset(id(v) for v in rest)
            if key not in self._plans:
                part = Graph("weights", state=dict(self.graph.state), nodes=list(self.hoisted), outputs=rest)
                part.nodes = live_nodes(part)
                self._plans[key] = make_plan(part)
            results, _ = execute(self._plans[key], [lying_array(tensors[n]) for n in self.graph.state])
            for v, r in zip(rest, results, strict=True):
                array = np.asarray(r)
                found[id(v)] = array if array.flags.writeable or id(v) not in owned else array.copy()
        return found


def aligned_array(array: Array) -> Array:
    """Return a row-major array at an address that is a multiple of 64, not one that lies in a file."""
    if array.ctypes.data % 64 == 0 and array.flags.writeable:
        return array
    kept = aligned(array.nbytes).view(array.dtype).reshape(array.shape)
    kept[...] = array
    return kept


def lying_array(tensor: Any) -> Array:
    """Return a weight's array to read; a stored one stays where it is."""
    return tensor.stored.lying() if isinstance(tensor, StoredTensor) else tensor._array


def run_packing(slots: Sequence[Slot], values: Mapping[int, Array], code: Mapping[str, int], threads: int) -> None:
    """Run the kernels of slots, whose arrays are there, on the arrays of their sources."""
    sources = [np.ascontiguousarray(values[id(s.source)]) for s in slots]
    pairs = [
        (k, source.ctypes.data + s.start * source.itemsize, s.address)
        for s, source in zip(slots, sources, strict=True) for k in s.kernels or ()
    ]  # fmt: skip
    if not pairs:
        return
    words = np.array([pair[1:] for pair in pairs], np.int64)
    ends = np.cumsum([k.chunks for k, _, _ in pairs])
    first = words.ctypes.data
    entries = np.array([[code[k.key], first + 16 * i, ends[i]] for i, (k, _, _) in enumerate(pairs)], np.int64)
    stages = np.array([[0, len(pairs), *check_chunks(int(ends[-1]))]], np.int64)
    program = np.array([stages.ctypes.data, entries.ctypes.data], np.int64)
    scratch = max(int(k.scratch) for k, _, _ in pairs)
    pool().run(program.ctypes.data, 0, 1, scratch + 64, threads)


def _nbytes(slot: Slot) -> int:
    assert slot.made is not None
    return prod(int(d) for d in slot.made.shape) * int(slot.made.dtype.itemsize)


def _room(slot: Slot) -> int:
    """Return the bytes of a slot, filled up so that the next one is aligned."""
    return -(-_nbytes(slot) // 64) * 64


def _parts(slots: Sequence[Slot]) -> Iterator[Sequence[Slot]]:
    """Yield slots in lots of about `LOT_BYTES`."""
    first, size = 0, 0
    for i, s in enumerate(slots):
        size += s.array.nbytes
        if size >= LOT_BYTES:
            yield slots[first : i + 1]
            first, size = i + 1, 0
    if first < len(slots):
        yield slots[first:]


def unchanged(array: Array) -> Array:
    """Return an array as it is."""
    return array
