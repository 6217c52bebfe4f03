"""A compiled graph that runs: native stages over one arena, steps of Python between them.

What depends on sizes (addresses, chunk counts, the arena's arrangement) is worked out once for each combination of
input shapes and kept in a bounded cache; no code is compiled for it. Each concurrent run has memory of its own.
"""

from __future__ import annotations

import functools
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...ops import dims
from ...ops.errors import AssumptionError, OnnxGradError
from ...ops.kernels.cpu.jit import BrokenKernelError, compile_kernels
from ...ops.kernels.cpu.spmd import check_chunks, physical_cores
from ...ops.types import Array, TensorType
from ..graph.execute import located, type_of_argument
from ..graph.graph import Graph, Node
from ..passes.specialize import specialize
from .binding import Bound, Frame, Patch, bind_late, bind_shape, check_sizes, is_symbolic, kept_results, ready
from .branches import Branches, find_fork
from .compiler import Compiler
from .memory import Lifetime, arrange
from .running import Running
from .stages import Call, HostStep, Ref, SlotArg

BINDINGS = 128
"""How many combinations of input shapes are remembered; the one that was used longest ago goes first."""

SPECIALS = 8
"""For how many combinations of input shapes a program of their own is kept, where types hang on them."""

REPEATS = 3
"""Shapes get a program of their own when they come this often."""

_FLOPS_PER_S, _BYTES_PER_S = 250e9, 60e9


@dataclass(frozen=True)
class Row:
    """What one stage of a program took: `Program.profile`."""

    name: str
    kernel: str
    time_s: float
    flops: int
    bytes: int


class Program(Running):
    """A compiled graph."""

    def __init__(
        self, graph: Graph, *, exact: bool = False, threads: int | None = None, hoist: bool = True, guard: Any = None,
        precision: str = "float32", make: Callable[..., Program] | None = None, origin: Graph | None = None,
    ) -> None:  # fmt: skip
        """Compile a graph.

        Args:
            graph: after the DEVICE passes.
            exact: leave algorithms with larger rounding errors (Winograd) out.
            threads: how many; the physical cores that the process may use by default.
            hoist: whether state is weights that rarely change; else its entries are feeds, behind the inputs.
            precision: `float32`, or `bf16`: see `Compiler`.
            make: compiles other graphs (bodies, this one for certain shapes) by the passes that made this one.
            origin: the graph before sizes were assumed to be equal; what a program for certain shapes is made of.
            guard: gives the memory of one buffer instead of the arena: `guard(nbytes) -> array of bytes`; for tests.
        """
        super().__init__(threads or physical_cores(), guard)
        self.graph, self.make, self.origin = graph, make, origin or graph
        self._open: bool | None = None
        self._calls_of: dict[Any, int] = {}
        self._weight_views: dict[int, tuple[Array, Array]] = {}
        self._specials: OrderedDict[Any, Program | None] = OrderedDict()
        fork = find_fork(self.origin) if make is not None and hoist else None
        self.branches = None if fork is None or make is None else Branches(fork, make)

        def body(inner: Graph) -> Program:
            return make(inner) if make is not None else Program(inner, exact=exact, threads=self.threads, guard=guard)

        broken: set[str] = set()
        while True:
            c = Compiler(
                graph, exact=exact, hoist=hoist, without=frozenset(broken), precision=precision, make=body
            ).compile()
            calls = [call for stage in c.stages for call in stage.calls]
            try:
                packing = [k for slot in c.weights.slots for k in slot.kernels or ()]
                self._code = compile_kernels([*(call.kernel for call in calls), *packing], c.target)
                break
            except BrokenKernelError as error:
                found = {call.node for call in calls if error.key in _keys(call) and call.node is not None}
                names = {_label(n) for n in found} - broken
                if not names:
                    raise
                broken |= names
                warnings.warn(
                    f"{error}; {', '.join(sorted(names))}: array kernels instead", RuntimeWarning, stacklevel=4
                )
        self.compiler, self._calls = c, calls
        self.weights, self.length, self.slot_count = c.weights, len(c.stages), c.slot_count
        self.segments, self.results = _segments(c), c.outputs
        self.output_count, self.updates = len(graph.outputs), [*graph.updates]
        self.flags = [f"{n.source or n.name or n.op.name}: {message}" for _, message, n in c.flags]
        self._bindings: OrderedDict[Any, Bound] = OrderedDict()
        self._checked = [n for n in c.nodes if c.eligible.native(n) and is_symbolic(n)]
        self.tensor_feeds = [
            i for i, v in enumerate(c.fed) if isinstance(v.type, TensorType) and v.type.known_shape is not None
        ]

    @property
    def open(self) -> bool:
        """Whether a step runs its array kernel because of sizes that are not known when it is compiled."""
        if self._open is None:
            steps = [stage.host.node for stage in self.compiler.stages if stage.host is not None]
            self._open = self.make is not None and any(
                not isinstance(v.type, TensorType) or v.type.known_shape is None or is_symbolic(node)
                for node in steps
                for v in node.outputs
            )
        return self._open

    def _special(self, feeds: Sequence[Any], *, needed: bool = False) -> Program | None:
        """Return the program for the shapes of these feeds, where it is needed or leaves fewer steps of Python."""
        key = _sizes(feeds)
        with self._lock:
            if key in self._specials:
                self._specials.move_to_end(key)
                return self._better(self._specials[key], needed)
            if len(self._calls_of) >= BINDINGS:
                self._calls_of.clear()
            self._calls_of[key] = self._calls_of.get(key, 0) + 1
            if self._calls_of[key] < REPEATS:
                return None
            self._calls_of.clear()
        found: Program | None = None
        assert self.make is not None
        try:
            found = self.make(specialize(self.origin, key), last=True)
        except OnnxGradError:
            found = None  # running it says where and why
        with self._lock:
            self._specials[key] = found
            while len(self._specials) > SPECIALS:
                self._specials.popitem(last=False)
        return self._better(found, needed)

    def _better(self, special: Program | None, needed: bool) -> Program | None:
        return special if special is not None and (needed or special.steps < self.steps) else None

    def chosen(self, feeds: Sequence[Any]) -> tuple[Program, set[int]]:
        """Return the program that runs feeds like these, as far as it is made, and whose elements have chosen it."""
        asked: set[int] = set()
        if self.branches is not None:
            way, asked = self.branches.program(feeds, make=False)
            if way is not None:
                found, more = way.chosen(feeds)
                return found, asked | more
        special = self._specials.get(_sizes(feeds))
        if special is not None and (special.steps < self.steps or self.bound_for(feeds) is None):
            return special, asked
        return self, asked

    def instead(self) -> Iterator[tuple[str, Program]]:
        """Yield the programs that run in place of this one, each with when it does."""
        if self.branches is not None:
            yield from self.branches.programs()
        for shapes, special in list(self._specials.items()):
            if special is not None:
                sizes = zip((v.name for v in self.compiler.fed), shapes, strict=True)
                yield ", ".join(f"{n} is {dims.show(s)}" for n, s in sizes if s is not None), special

    @functools.cached_property
    def steps(self) -> int:
        """How many steps run their array kernels."""
        return sum(stage.host is not None for stage in self.compiler.stages)

    @property
    def native(self) -> bool:
        """Whether everything in it is compiled."""
        return not self.steps

    # binding -----------------------------------------------------------------------------------------------------

    def _bind(self, feeds: Sequence[Any]) -> Bound:
        key = self._shapes(feeds)
        with self._lock:
            bound = self._bindings.get(key)
            if bound is not None:
                self._bindings.move_to_end(key)
                return bound
        env: dict[str, int] = {}
        for i, v in enumerate(self.compiler.fed):
            if isinstance(v.type, TensorType) and v.type.known_shape is not None:
                bind_shape(v, feeds[i], env)
        bound = self._bound(env)
        with self._lock:
            self._bindings[key] = bound
            while len(self._bindings) > BINDINGS:
                self._bindings.popitem(last=False)
        return bound

    def bound_for(self, feeds: Sequence[Any]) -> Bound | None:
        """Return the tables for the shapes of feeds that this program has run, None where another did."""
        with self._lock:
            return self._bindings.get(self._shapes(feeds))

    def _every_bound(self) -> Sequence[Bound]:
        return [*self._bindings.values()]

    def _shapes(self, feeds: Sequence[Any]) -> Any:
        return tuple([feeds[i].shape for i in self.tensor_feeds])

    def _bound(self, env: dict[str, int]) -> Bound:
        for node in self._checked:
            check_sizes(node, env)
        c = self.compiler
        words: list[int] = []
        entries: list[list[int]] = []
        starts: list[int] = []
        stages: list[list[int]] = []
        found: dict[tuple[str, int], tuple[list[int], list[int]]] = {}
        arena = [s for s in c.storages if s.kind == "arena" and s.first >= 0]
        sizes = {id(s): dims.evaluate(s.elements, env) * s.dtype.itemsize for s in arena}
        offsets, total = arrange([Lifetime(sizes[id(s)], s.first, s.last) for s in arena])
        place = {id(s): o for s, o in zip(arena, offsets, strict=True)}
        scratch, saved = 0, 0.0
        for stage in c.stages:
            first, chunks, seconds = len(entries), 0, 0.0
            for call in stage.calls:
                k = call.kernel
                chunks += max(dims.evaluate(k.chunks, env), 0)
                entries.append([self._code[k.key], 0, chunks])
                starts.append(len(words))
                scratch = max(scratch, dims.evaluate(k.scratch, env))
                seconds += dims.evaluate(k.flops, env) / _FLOPS_PER_S + dims.evaluate(k.bytes, env) / _BYTES_PER_S
                for ref in call.refs:
                    s = ref.storage
                    offset = dims.evaluate(ref.start, env) * s.dtype.itemsize
                    target = {"arena": 0, "weight": id(s.slot)}.get(s.kind, s.place)
                    if s.kind == "arena":
                        offset += place[id(s)]
                        target = id(s) if self.guard else 0
                        offset -= place[id(s)] if self.guard else 0
                    at, by = found.setdefault((s.kind, target), ([], []))
                    at.append(len(words))
                    by.append(offset)
                    words.append(0)
                words += [dims.evaluate(d, env) for d in k.dims]
            saved += seconds * (1 - 1 / max(min(chunks, self.threads), 1))
            tickets, group = check_chunks(chunks) if stage.calls else (0, 1)
            stages.append([first, len(stage.calls), tickets, group])
        outputs = [
            (tuple(dims.evaluate(d, env) for d in v.type.known_shape), v.dtype)
            if kind == "output" and isinstance(v.type, TensorType) and v.type.known_shape is not None else ((), None)
            for (kind, _), v in zip(c.outputs, (*self.graph.outputs, *self.graph.updates.values()), strict=True)
        ]  # fmt: skip
        told = [
            np.array([dims.evaluate(d, env) for d in t.contents or ()], t.dtype).reshape(
                [dims.evaluate(d, env) for d in t.shape]
            )
            for t in c.told
        ]
        patches = {key: Patch(np.array(at, np.intp), np.array(by, np.int64)) for key, (at, by) in found.items()}
        return Bound(
            env, np.array(words or [0], np.int64), np.array(entries or [[0, 0, 0]], np.int64),
            np.array(starts or [0], np.int64), np.array(stages or [[0, 0, 0, 1]], np.int64), scratch + 64, total,
            patches, place, told, outputs, saved,
        )  # fmt: skip

    # running -----------------------------------------------------------------------------------------------------

    def run(
        self, feeds: Sequence[Any], tensors: Mapping[str, Any] | None = None, *, watch: Any = None,
        into: Mapping[int, Array] | None = None, env: Mapping[str, int] | None = None,
    ) -> tuple[list[Any], dict[str, Any]]:  # fmt: skip
        """Run on the entries of the graph.

        Args:
            feeds: one array an input, then the key, then the state where it is fed.
            tensors: the state as Tensors, where it is weights.
            watch: called with (stage, seconds) of each stage, which then runs by itself.
            env: symbols of an enclosing graph.
            into: arrays to write outputs to, by their number (updates behind the outputs); of the right shape,
                row-major.

        Returns:
            The outputs, and the updates of state by name.

        Raises:
            ShapeError: if sizes do not fit each other.
            AssumptionError: if they do not, or a kernel met bad input (an index out of range): array kernels say more.
        """
        feeds = [ready(f) for f in feeds]
        if self.branches is not None and watch is None:
            way, _ = self.branches.program(feeds)
            if way is not None:
                return way.run(feeds, tensors, into=into, env=env)
        special = self._special(feeds) if self.open and watch is None and not into else None
        if special is not None:
            return special.run(feeds, tensors, env=env)
        self.refresh(tensors, self._code)
        try:
            bound = self._bind(feeds)
        except AssumptionError:
            special = (
                self._special(feeds, needed=True) if self.make is not None and watch is None and not into else None
            )
            if special is None:
                raise
            return special.run(feeds, tensors, env=env)
        frame = self.frame(bound)
        try:
            return self._run(frame, feeds, watch, into or {}, env or {})
        finally:
            self.give_back(frame)

    def _run(
        self, frame: Frame, feeds: list[Any], watch: Any, into: Mapping[int, Array], outer: Mapping[str, int]
    ) -> tuple[list[Any], dict[str, Any]]:
        return self.execute(frame, feeds, watch, into, outer)

    def _late(self, bound: Bound, feeds: Sequence[Any], outer: Mapping[str, int]) -> dict[str, int]:
        env = {**outer, **bound.env}
        for i in self.tensor_feeds:
            bind_late(self.compiler.fed[i], feeds[i], env)
        return env

    def _guarded(self, frame: Frame) -> None:
        bound = frame.bound
        for s in self.compiler.storages:
            if s.kind == "arena" and ("arena", id(s)) in bound.patches:
                piece = self.guard(dims.evaluate(s.elements, bound.env) * s.dtype.itemsize)
                frame.views[-id(s)] = piece
                bound.patches["arena", id(s)].write(frame.words, piece.ctypes.data)

    def _host(self, step: HostStep, frame: Frame, slots: list[Any], env: dict[str, int], outputs: list[Any]) -> None:
        args = [self._argument(a, frame, slots, outputs) for a in step.args]
        node = step.node
        try:
            attrs = step.attrs
            if step.symbolic:
                attrs = {k: dims.bind(a, env) for k, a in attrs.items()}
                if not any(hasattr(a, "free_symbols") for a in attrs.values()):
                    node.op.infer_types(*map(type_of_argument, args), **attrs)
            result = step.kernel(*args, **attrs)
        except Exception as error:
            found = located(error, node, args)
            if found is error:
                raise
            raise found from error
        results = result if node.several else (result,)
        lent = [a for a, given in zip(args, step.args, strict=True) if isinstance(given, Ref)]
        lent += [x for a, given in zip(args, step.args, strict=True) if isinstance(given, list) for x in a]
        patches = frame.bound.patches
        for index, v, value in zip(step.outs, node.outputs, results, strict=True):
            value = kept_results(value, lent)
            if isinstance(v.type, TensorType):
                value = np.asarray(value)
                bind_late(v, value, env)
            patch = patches.get(("host", index))
            if patch is not None:
                value = ready(value)
                patch.write(frame.words, value.__array_interface__["data"][0])
            slots[index] = value

    def _argument(self, a: Any, frame: Frame, slots: list[Any], outputs: list[Any]) -> Any:
        if isinstance(a, SlotArg):
            return slots[a.index]
        if isinstance(a, Ref):
            return self._view(a, frame, slots, outputs)
        return [self._argument(x, frame, slots, outputs) for x in a] if isinstance(a, list) else a

    def _view(self, ref: Ref, frame: Frame, slots: list[Any], outputs: list[Any]) -> Array:
        """Return a tensor in memory as a NumPy array."""
        s, env = ref.storage, frame.bound.env
        if s.kind == "arena":
            if id(ref) in frame.views:
                return frame.views[id(ref)]
            if self.guard is not None:
                base = frame.views[-id(s)]
            else:
                assert frame.arena is not None
                base = frame.arena[frame.bound.offsets[id(s)] :]
        elif s.kind == "weight":
            assert s.slot is not None
            kept = self._weight_views.get(id(ref))
            if kept is not None and kept[0] is s.slot.array:
                return kept[1]
            base = s.slot.array.reshape(-1).view(np.uint8)
        elif s.kind == "told":
            base = frame.bound.told[s.place].reshape(-1).view(np.uint8)
        elif s.kind == "output":
            base = outputs[s.place].reshape(-1).view(np.uint8)
        else:
            base = ready(slots[s.place]).reshape(-1).view(np.uint8)
        start, item = dims.evaluate(ref.start, env), s.dtype.itemsize
        shape = [dims.evaluate(d, env) for d in ref.operand.shape]
        strides = [dims.evaluate(d, env) * item for d in ref.operand.strides]
        flat = base[start * item : base.size // item * item].view(s.dtype)
        strided = np.lib.stride_tricks.as_strided
        made = np.empty(shape, s.dtype) if 0 in shape else strided(flat, shape, strides)
        made.flags.writeable = False
        if s.kind == "arena":
            frame.views[id(ref)] = made
        elif s.kind == "weight":
            assert s.slot is not None
            self._weight_views[id(ref)] = (s.slot.array, made)
        return made

    # reading -----------------------------------------------------------------------------------------------------

    def profile(self, feeds: Sequence[Any], tensors: Mapping[str, Any] | None = None, runs: int = 10) -> list[Row]:
        """Return what each stage takes, the median of some runs, each stage run by itself."""
        feeds = [ready(f) for f in feeds]
        for _ in range(REPEATS):
            self.run(feeds, tensors)
        chosen, _ = self.chosen(feeds)
        if chosen is not self:
            return chosen.profile(feeds, tensors, runs)
        times: dict[int, list[float]] = {}
        for _ in range(max(runs, 1)):
            self.run(feeds, tensors, watch=lambda stage, seconds: times.setdefault(stage, []).append(seconds))
        env = self._bind(feeds).env
        rows = []
        for i, stage in enumerate(self.compiler.stages):
            taken = float(np.median(times.get(i, [0.0])))
            if stage.host is not None:
                node = stage.host.node
                rows.append(Row(node.name or node.op.name, f"{node.op.name} (array)", taken, 0, 0))
                continue
            node_ = stage.calls[-1].node
            rows.append(
                Row(
                    (node_.name or node_.op.name) if node_ is not None else "result",
                    " | ".join(call.kernel.name for call in stage.calls), taken,
                    sum(dims.evaluate(c.kernel.flops, env) for c in stage.calls),
                    sum(dims.evaluate(c.kernel.bytes, env) for c in stage.calls),
                )
            )  # fmt: skip
        return rows

    def __str__(self) -> str:
        """Return the program as readable text: each stage, its kernel, what is fused into it, bytes and FLOPs."""
        from .printing import describe

        return describe(self)


def _keys(call: Call) -> set[str]:
    """Return the keys of a call's kernel and of those that pack what it reads."""
    packing = (k for r in call.refs if r.storage.slot is not None for k in r.storage.slot.kernels or ())
    return {call.kernel.key, *(k.key for k in packing)}


def _sizes(feeds: Sequence[Any]) -> tuple[Any, ...]:
    return tuple([getattr(f, "shape", None) for f in feeds])


def _label(node: Node) -> str:
    return node.name or node.outputs[0].name


def _segments(c: Compiler) -> list[tuple[int, int, HostStep | None]]:
    found: list[tuple[int, int, HostStep | None]] = []
    begin = 0
    for i, stage in enumerate(c.stages):
        if stage.host is not None:
            if begin < i:
                found.append((begin, i, None))
            found.append((i, i + 1, stage.host))
            begin = i + 1
    if begin < len(c.stages):
        found.append((begin, len(c.stages), None))
    return found
