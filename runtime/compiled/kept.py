"""Programs that are kept from process to process: their tables for certain shapes, and how their weights are packed.

An entry of the cache says all that a run needs: which object holds the code, what the tables are, what of the weights
is computed and packed. Neither passes nor the compiler run. What cannot be said so (steps of Python, bodies) is not
kept; what an entry says of other shapes is compiled. Entries hang on the identity of the model, on the code that would
compile it, on the CPU and on the shapes.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ...ops.kernels.cpu import cache
from ...ops.kernels.cpu.jit import find_object, object_key
from ...ops.kernels.cpu.lowering import LOWERINGS
from ...ops.kernels.cpu.spmd import physical_cores
from ...ops.kernels.cpu.target import host_target
from ...ops.op import OPS
from ...ops.types import Array, TensorType
from ..files.archive import code_version, element_type, pack, unpack
from ..graph.graph import Node, Value
from .binding import Bound, Patch, ready
from .program import Program
from .running import Running
from .weights import AS_IT_IS, Slot, Slots, aligned_array, lying_array, unchanged

LIMIT_BYTES = 16 << 20
"""A program with more constants than this is not kept."""

_PACKAGE = __package__.rpartition(".runtime.")[0]


class _Unsayable(Exception):  # noqa: N818 (a reason, not a fault)
    """A program has something that an entry cannot say."""


# keeping -------------------------------------------------------------------------------------------------------------


def entry_key(identity: str, feeds: Sequence[Any], **settings: Any) -> str | None:
    """Return the key of the entry for a model's program for the shapes of these feeds; None where there can be none.

    Args:
        identity: equal for equal models, by those that gave it.
        feeds: what a run brings.
        settings: what `compile_program` is told.
    """
    version = code_version()
    if version is None or not all(type(f) is np.ndarray and not f.dtype.hasobject for f in feeds):
        return None
    shapes = [(f.dtype.name, f.shape) for f in feeds]
    said = "\n".join(
        [version, identity, repr(host_target()), repr((sorted(settings.items()), physical_cores(), shapes))]
    )
    return hashlib.sha256(said.encode()).hexdigest()


def keep(key: str, program: Program, feeds: Sequence[Any], first: Callable[[], None]) -> bool:
    """Write the entry of a program that has run these feeds.

    Args:
        key: of the entry.
        program: what ran them.
        feeds: what it was given.
        first: called before it is written.

    Returns:
        Whether that is settled: it is written, or can never be. Else another run may bring a program that can be.
    """
    chosen, asked = program.chosen(feeds)
    bound = chosen.bound_for(feeds)
    if not chosen.native or bound is None:
        return False
    if not all(low.rule.__module__.startswith(f"{_PACKAGE}.") for low in LOWERINGS.values()):
        return True
    try:
        facts, arrays = _Writer(chosen, bound).entry()
        facts["shapes_fed"] = [f.shape for f in feeds]
        facts["asked"] = {str(i): feeds[i].tobytes().hex() for i in sorted(asked)}
        data = pack(facts, arrays)
    except (_Unsayable, TypeError):
        return True
    first()
    cache.write(key, data, cache.PLAN)
    return True


class _Writer:
    """Makes the entry of one program for one set of sizes."""

    def __init__(self, program: Program, bound: Bound) -> None:
        self.program, self.bound = program, bound
        self.arrays: list[Array] = []
        self.nbytes = 0
        self.names: dict[str, int] = {}
        self.steps: list[Any] = []
        self.made: dict[int, Any] = {}

    def entry(self) -> tuple[dict[str, Any], list[Array]]:
        """Return what the entry says.

        Raises:
            _Unsayable: if it cannot be said.
        """
        program, bound = self.program, self.bound
        if not program.length or program.guard is not None:
            raise _Unsayable
        weights = program.weights
        slots = [s for s in weights.slots if ("weight", id(s)) in bound.patches]
        packing = [k for s in weights.slots for k in s.kernels or ()]
        numbers = {id(s): i for i, s in enumerate(slots)}
        code = [self.name(call.kernel.key) for stage in program.compiler.stages for call in stage.calls]
        patches = []
        for (kind, number), patch in bound.patches.items():
            number = numbers[number] if kind == "weight" else number
            patches.append([kind, number, self.array(patch.words), self.array(patch.offsets)])
        facts = {
            "object": object_key(
                [*(c.kernel for s in program.compiler.stages for c in s.calls), *packing], host_target()
            ),
            "tables": [self.array(a) for a in (bound.words, bound.entries[:, 2], bound.starts, bound.stages)],
            "code": self.array(np.array(code, np.int64)),
            "sizes": [bound.scratch, bound.arena, bound.saved],
            "patches": patches,
            "told": [self.array(a) for a in bound.told],
            "shapes": [None if d is None else [d.name, shape] for shape, d in bound.outputs],
            "length": program.length,
            "segments": [[begin, end] for begin, end, _ in program.segments],
            "results": [[k, self.array(w) if k == "constant" else w] for k, w in program.results],
            "outputs": program.output_count,
            "updates": list(program.updates),
            "slots": program.slot_count,
            "feeds": program.tensor_feeds,
            "flags": program.flags,
            "weights": [self.slot(s) for s in slots],
            "steps": self.steps,
            "names": [],
        }
        facts["names"] = list(self.names)
        return facts, self.arrays

    def name(self, key: str) -> int:
        """Return the number of a kernel's function."""
        return self.names.setdefault(f"k_{key}", len(self.names))

    def array(self, array: Array) -> int:
        """Return the number of an array."""
        self.nbytes += array.nbytes
        if self.nbytes > LIMIT_BYTES or array.dtype.hasobject:
            raise _Unsayable
        self.arrays.append(array)
        return len(self.arrays) - 1

    def slot(self, s: Slot) -> dict[str, Any]:
        """Return what a slot holds: an array, or how it is made."""
        if not s.sources:
            return {"array": self.array(s.array)}
        said: dict[str, Any] = {"source": self.source(s.source), "of": sorted(s.sources)}
        if s.kernels is not None:
            assert s.made is not None
            said["start"], said["made"] = s.start, [s.made.dtype.name, [int(d) for d in s.made.shape]]
            said["kernels"] = [[self.name(k.key), int(k.chunks), int(k.scratch)] for k in s.kernels]
        elif s.how != AS_IT_IS:
            said["pack"] = _function(s.pack)
        return said

    def source(self, v: Value) -> Any:
        """Return where an array comes from: a weight, a constant, an output of a step."""
        state = self.program.graph.state
        if v.is_constant:
            return ["array", self.array(v.array)]
        if v.node is None:
            if state.get(v.name) is not v:
                raise _Unsayable
            return ["weight", v.name]
        if id(v.node) not in self.made:
            self.made[id(v.node)] = self.step(v.node)
        return ["step", self.made[id(v.node)], v.index]

    def step(self, node: Node) -> int:
        """Return the number of a step that computes a node."""
        op = node.op
        types = [_types(a) for a in node.args]
        if OPS.get(op.name) is not op or op.array_kernel is None or op.select(types, node.attrs) is not op.array_kernel:
            raise _Unsayable
        args = [self.argument(a) for a in node.args]
        self.steps.append([op.name, args, {k: _said(a) for k, a in node.attrs.items()}, node.several])
        return len(self.steps) - 1

    def argument(self, a: Any) -> Any:
        """Return an argument of a step."""
        if isinstance(a, Value):
            return self.source(a)
        if isinstance(a, list):
            return ["list", [self.argument(v) for v in a]]
        return ["is", _said(a)]


def _types(a: Any) -> Any:
    return [_types(v) for v in a] if isinstance(a, list) else a.type if isinstance(a, Value) else a


def _said(a: Any) -> Any:
    """Return an attribute as JSON has it; lists are tuples."""
    if isinstance(a, tuple):
        return [_said(v) for v in a]
    if isinstance(a, np.dtype):
        return {"dtype": a.name}
    if a is None or type(a) in (bool, int, float, str):
        return a
    raise _Unsayable


def _heard(a: Any) -> Any:
    if isinstance(a, list):
        return tuple([_heard(v) for v in a])
    return element_type(a["dtype"]) if isinstance(a, dict) else a


def _function(f: Any) -> Any:
    """Return the place of a function of this package, and what it is given."""
    given, f = (f.keywords, f.func) if isinstance(f, partial) and not f.args else ({}, f)
    module, name = getattr(f, "__module__", ""), getattr(f, "__qualname__", "")
    if not module.startswith(f"{_PACKAGE}.") or not name.isidentifier():
        raise _Unsayable
    return [module.removeprefix(_PACKAGE), name, {k: _said(v) for k, v in given.items()}]


def _found(said: Any) -> Any:
    module, name, given = said
    return partial(
        getattr(importlib.import_module(_PACKAGE + module), name), **{k: _heard(v) for k, v in given.items()}
    )


# recalling -----------------------------------------------------------------------------------------------------------


def recall(key: str, threads: int | None = None) -> KeptProgram | None:
    """Return the program of an entry, or None where it is not there or no longer whole."""
    data = cache.read(key, cache.PLAN)
    if data is None:
        return None
    try:
        facts, arrays = unpack(data)
        code = find_object(facts["object"], facts["names"], host_target())
        return None if code is None else KeptProgram(facts, arrays, code, threads)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, ImportError) as error:
        cache.warn_once(f"a plan in {cache.folder()} cannot be used ({error}); it is made again")
        return None


@dataclass(eq=False)
class _Source:
    """What a slot is packed of: see `_Writer.source`."""

    said: Any


@dataclass(frozen=True)
class _Packing:
    """What `run_packing` asks of a kernel."""

    key: str
    chunks: int
    scratch: int


class KeptProgram(Running):
    """A program for certain shapes, as an entry says it."""

    def __init__(
        self, facts: Mapping[str, Any], arrays: list[Array], code: Mapping[str, int], threads: int | None
    ) -> None:
        """Make it of what `unpack` returns and the addresses of its functions."""
        super().__init__(threads or physical_cores())
        names = facts["names"]
        addresses = np.array([code[n] for n in names], np.int64)
        self._code = code
        slots = [_slot(said, arrays, names) for said in facts["weights"]]
        self.weights = KeptWeights(slots, facts["steps"], arrays)
        words, ends, starts, stages = (np.array(arrays[i]) for i in facts["tables"])
        entries = np.zeros((len(ends), 3), np.int64)
        entries[:, 0], entries[:, 2] = addresses[arrays[facts["code"]]], ends
        patches = {
            (kind, id(slots[number]) if kind == "weight" else number): Patch(arrays[at], arrays[by])
            for kind, number, at, by in facts["patches"]
        }
        outputs = [((), None) if s is None else (tuple(s[1]), element_type(s[0])) for s in facts["shapes"]]
        scratch, arena, saved = facts["sizes"]
        told = [np.array(arrays[i]) for i in facts["told"]]
        self.bound = Bound({}, words, entries, starts, stages, scratch, arena, patches, {}, told, outputs, saved)
        self.length = facts["length"]
        self.segments = [(begin, end, None) for begin, end in facts["segments"]]
        self.results = [(k, np.array(arrays[w]) if k == "constant" else w) for k, w in facts["results"]]
        self.output_count, self.updates, self.slot_count = facts["outputs"], facts["updates"], facts["slots"]
        self.tensor_feeds, self.flags = facts["feeds"], facts["flags"]
        self._fed = [tuple(shape) for shape in facts["shapes_fed"]]
        self._asked = {int(i): bytes.fromhex(content) for i, content in facts["asked"].items()}

    def chosen(self, feeds: Sequence[Any]) -> tuple[Running, Sequence[int]]:
        """Return itself, and the places of the inputs whose elements it is for."""
        return self, [*self._asked]

    def bound_for(self, feeds: Sequence[Any]) -> Bound | None:
        """Return the tables, for feeds of the shapes of its entry."""
        return self.bound if [f.shape for f in feeds] == self._fed else None

    def _every_bound(self) -> Sequence[Bound]:
        return [self.bound]

    def run(self, feeds: Sequence[Any], tensors: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]] | None:
        """Run on feeds of the shapes of its entry; None where their elements want another program.

        Raises:
            AssumptionError: if a kernel met bad input: array kernels say more.
        """
        if any(feeds[i].tobytes() != content for i, content in self._asked.items()):
            return None
        feeds = [ready(f) for f in feeds]
        self.refresh(tensors, self._code)
        frame = self.frame(self.bound)
        try:
            return self.execute(frame, feeds, None, {}, {})
        finally:
            self.give_back(frame)


def _slot(said: Mapping[str, Any], arrays: Sequence[Array], names: Sequence[str]) -> Slot:
    if "array" in said:
        nothing: Any = _Source(None)
        slot = Slot(nothing, AS_IT_IS, unchanged)
        slot.array = aligned_array(arrays[said["array"]])
        slot.address = int(slot.array.ctypes.data)
        return slot
    pack = _found(said["pack"]) if "pack" in said else unchanged
    source: Any = _Source(said["source"])
    slot = Slot(source, "packed" if "pack" in said else AS_IT_IS, pack, sources=frozenset(said["of"]))
    if "kernels" in said:
        name, shape = said["made"]
        slot.start, slot.made = said["start"], TensorType(element_type(name), tuple(shape))
        packing: list[Any] = [_Packing(names[n], chunks, scratch) for n, chunks, scratch in said["kernels"]]
        slot.kernels = packing
    return slot


class KeptWeights(Slots):
    """The weights of a kept program."""

    def __init__(self, slots: list[Slot], steps: Sequence[Any], arrays: Sequence[Array]) -> None:
        """Keep the steps that compute what is packed."""
        super().__init__(slots)
        self._steps, self._arrays = steps, arrays

    def evaluate(self, stale: Sequence[Slot], tensors: Mapping[str, Any]) -> dict[int, Array]:
        """Return the arrays that slots pack."""
        sources: list[Any] = [s.source for s in stale]
        wanted = {n for source in sources for n in _steps_in(source.said)}
        for number in range(len(self._steps) - 1, -1, -1):
            if number in wanted:
                wanted.update(n for a in self._steps[number][1] for n in _steps_in(a))
        made: dict[int, Any] = {}

        def value(said: Any) -> Any:
            kind, what = said[0], said[1]
            if kind == "step":
                return made[what][said[2]] if self._steps[what][3] else made[what]
            if kind == "weight":
                return lying_array(tensors[what])
            if kind == "array":
                return self._arrays[what]
            return [value(v) for v in what] if kind == "list" else _heard(what)

        for number in sorted(wanted):
            name, args, attrs, _ = self._steps[number]
            made[number] = OPS[name].run(*map(value, args), **{k: _heard(a) for k, a in attrs.items()})
        found: dict[int, Array] = {}
        for s, source in zip(stale, sources, strict=True):
            owned = s.how == AS_IT_IS and s.kernels is None
            if owned and source.said[0] == "weight":
                found[id(source)] = tensors[source.said[1]]._array
                continue
            array = np.asarray(value(source.said))
            found[id(source)] = array if array.flags.writeable or not owned else array.copy()
        return found


def _steps_in(said: Any) -> Iterator[int]:
    """Yield the numbers of the steps whose results an argument names."""
    if said[0] == "step":
        yield said[1]
    elif said[0] == "list":
        for v in said[1]:
            yield from _steps_in(v)
