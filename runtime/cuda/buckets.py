"""A graph of open sizes on a device: a program for each combination of shapes that comes, the latest few of them.

Where sizes or branches hang on the elements of small inputs of the host, there is a program for each of the first few
combinations of these too. Where they hang on others, what comes before them is a program and the rest runs node by node
on the device's arrays (`divided`); what can be no program at all (sequences, strings) runs so as a whole, and `refused`
says why.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from ...ops.errors import DeviceError, OnnxGradError
from ...ops.places import to_numpy
from ...ops.types import Array
from ..compiled.program import Row
from ..graph.execute import execute, plan_of
from ..graph.graph import Graph
from ..passes.convert_values import move_constants
from ..passes.pin_inputs import deciding_inputs, is_small, pin_inputs
from ..passes.pipelines import DEVICE
from ..passes.rewriting import Pass, rebuild, run_passes
from ..passes.specialize import specialize
from ..tracing.collection import uncollected
from .compiler import why_not
from .divided import divide
from .holders import note_holder
from .printing import kernel_name, touched_bytes
from .program import CudaProgram
from .runner import Runner
from .steps import Step
from .weights import WeightStore

PROGRAMS = 16
"""For how many combinations of shapes there are programs; the one that was used longest ago goes first."""

WAYS = 4
"""For how many combinations of elements of small inputs there are programs, for the same shapes."""

OTHERS = (b"others",)
"""Stands for all further combinations."""

REFUSALS = 128
"""For how many combinations it is remembered that there can be none."""

BYTES = 8 << 30
"""How much memory they may take together, beside weights; the last one may take more."""


Key: TypeAlias = tuple[tuple[Any, ...], bool, tuple[bytes, ...]]
"""The shapes of feeds, whether TF32 is used, and what small inputs hold where sizes hang on that."""


@dataclass(frozen=True)
class Parts:
    """A program, and what runs node by node behind it.

    Attributes:
        program: returns what `behind` reads first.
        behind: on the device.
        fed: the inputs that it reads next, by number.
        why: which value keeps it from being a program.
    """

    program: CudaProgram
    behind: Graph
    fed: Sequence[int]
    why: str


class Buckets:
    """The programs of one graph.

    Attributes:
        graph: as the PORTABLE passes, or a trace, left it.
        runner: the device.
        refused: why feeds run without a program, by their shapes and what else they are told apart by.
    """

    def __init__(
        self, graph: Graph, runner: Runner, *, passes: Sequence[Pass] = DEVICE,
        in_place: Mapping[int, int] | None = None, tf32: Callable[[], bool] = bool, capture: bool = True,
        programs: int | None = None, limit_bytes: int = BYTES,
    ) -> None:  # fmt: skip
        """Begin without programs.

        Args:
            graph: what to run.
            runner: the device.
            passes: for the graph, once its sizes are known.
            in_place: outputs, and the feeds that they replace.
            tf32: asked at each run whether products of float32 may round their operands to TF32.
            capture: record programs as CUDA graphs.
            programs: how many are kept, `PROGRAMS` by default; with 0 everything runs node by node.
            limit_bytes: how much memory they may take together.
        """
        self.graph, self.runner, self.passes = graph, runner, passes
        self.in_place, self.tf32, self.capture = dict(in_place or {}), tf32, capture
        self.programs_limit, self.limit_bytes = PROGRAMS if programs is None else programs, limit_bytes
        self.refused: dict[Key, str] = {}
        self.store = WeightStore(runner)
        self._updates = [*graph.updates]
        self._host: Graph | None = None
        self._device: Graph | None = None
        self._programs: OrderedDict[Key, CudaProgram | Parts] = OrderedDict()
        self._pinned: dict[Key, tuple[int, ...]] = {}
        self._lock = threading.RLock()
        note_holder(self)

    @property
    def programs(self) -> list[CudaProgram]:
        """The programs that there are, the one that was used last at the end."""
        return [w.program if isinstance(w, Parts) else w for w in list(self._programs.values())]

    @property
    def nbytes(self) -> int:
        """The memory that they take beside weights."""
        return sum(p.nbytes for p in self.programs)

    def held(self) -> list[tuple[int, int, str]]:
        """Return the device, the bytes and what for of the memory that is taken; see `holders`."""
        found = [(p.taken, "arena and inputs") for p in self.programs]
        found.append((self.store.nbytes, "packed weights"))
        return [(self.runner.index, n, f"{what} of {self.graph.name}") for n, what in found if n]

    def _key(self, feeds: Sequence[Any]) -> Key:
        shapes = tuple(None if (s := getattr(f, "shape", None)) is None else tuple(s) for f in feeds)
        key: Key = shapes, self.tf32(), ()
        pinned = self._pinned.get(key)
        if pinned is None:
            return key
        own: Key = (*key[:2], tuple(feeds[i].tobytes() for i in pinned))
        full = own not in self._programs and sum(k[:2] == own[:2] for k in self._programs) >= WAYS
        return (*key[:2], OTHERS) if full else own

    def program_for(self, feeds: Sequence[Any]) -> CudaProgram | None:
        """Return the program for feeds of these shapes, made now where it is new; None where there can be none."""
        with self._lock:
            found = self._way(feeds)
            return found.program if isinstance(found, Parts) else found

    def _way(self, feeds: Sequence[Any]) -> CudaProgram | Parts | None:
        key = self._key(feeds)
        found = self._programs.get(key)
        if found is not None:
            self._programs.move_to_end(key)
            return found
        if key in self.refused:
            return None
        pins = self._pinned[*key[:2], ()] if key[2] and key[2] is not OTHERS else ()
        found, reason, deciding = self._made(key, {i: feeds[i] for i in pins})
        if not key[2] and 0 < len(deciding) < len(self.graph.inputs) and all(is_small(feeds[i]) for i in deciding):
            pinned, _, _ = self._made(key, {i: feeds[i] for i in deciding})
            if isinstance(pinned, CudaProgram) or (found is None and pinned is not None):
                if len(self._pinned) >= REFUSALS:
                    self._pinned.clear()
                self._pinned[key] = tuple(deciding)
                found, key = pinned, self._key(feeds)
        if found is None:
            if len(self.refused) >= REFUSALS:
                self.refused.clear()
            self.refused[key] = reason
            return None
        self._programs[key] = found
        while len(self._programs) > 1 and (len(self._programs) > self.programs_limit or self.nbytes > self.limit_bytes):
            self._programs.popitem(last=False)
        return found

    def _made(self, key: Key, pins: Mapping[int, Array]) -> tuple[CudaProgram | Parts | None, str, list[int]]:
        """Return what runs feeds; else None, why, and which inputs may decide what is not known."""
        shapes, tf32, _ = key
        if any(shape is None for shape in shapes):
            return None, "an input is no array", []
        if not self.programs_limit:
            return None, "programs are switched off", []
        if self._host is None:
            self._host = move_constants(_with_updates(self.graph), to_numpy).graph
        try:
            with uncollected():
                entries = len(self.graph.inputs) + len(self.graph.keys)
                graph = specialize(pin_inputs(self._host, pins) if pins else self._host, shapes[:entries])
                graph = run_passes(graph, self.passes).graph
                reason = why_not(graph)
                if not reason:
                    return self._program(graph, tf32), "", []
                deciding = [] if pins else deciding_inputs(graph)
                parts = None if self.in_place else divide(graph)
                if parts is None:
                    return None, reason, deciding
                behind = move_constants(parts.behind, self._constant).graph
                return Parts(self._program(parts.before, tf32), behind, parts.fed, parts.why), "", deciding
        except DeviceError:
            raise
        except OnnxGradError as error:  # running it node by node says where and why
            return None, f"{type(error).__name__}: {error}", []

    def _program(self, graph: Graph, tf32: bool) -> CudaProgram:
        return CudaProgram(graph, self.runner, self.store, in_place=self.in_place, tf32=tf32, capture=self.capture)

    def run(
        self, feeds: Sequence[Any], tensors: Mapping[str, Any] | None = None, *, host: bool = False
    ) -> tuple[list[Any], dict[str, Any]]:
        """Run once.

        Args:
            feeds: one array an input, of the host or the device; then the key.
            tensors: the state as Tensors.
            host: return NumPy arrays.

        Returns:
            The outputs (None for one that was written over a feed), and the updates of state by name.
        """
        with self._lock:
            way = self._way(feeds)
            if way is None:
                return self._by_nodes(feeds, tensors or {}, host)
            if isinstance(way, CudaProgram):
                found = way.run(feeds, tensors, host=host)
            else:
                found = [*way.program.run(feeds, tensors), *(feeds[i] for i in way.fed)]
                found = self._executed(way.behind, found, tensors or {}, host)[0]
        count = len(found) - len(self._updates)
        return found[:count], dict(zip(self._updates, found[count:], strict=True))

    def _by_nodes(
        self, feeds: Sequence[Any], tensors: Mapping[str, Any], host: bool
    ) -> tuple[list[Any], dict[str, Any]]:
        """Run on the device's arrays, node by node."""
        if self._device is None:
            self._device = move_constants(self.graph, self._constant).graph
        return self._executed(self._device, feeds, tensors, host)

    def _executed(
        self, graph: Graph, feeds: Sequence[Any], tensors: Mapping[str, Any], host: bool
    ) -> tuple[list[Any], dict[str, Any]]:
        with self.runner.running():
            given = [*map(self._given, feeds)]
            given += [self._given(tensors[n]._array) for n in graph.state]
            outs, updates = execute(plan_of(graph), given)
            found = [*outs, *updates.values()]
            if not host or self.in_place:
                found = [self._own(r) for r in found]
            results, updates = found[: len(outs)], dict(zip(updates, found[len(outs) :], strict=True))
            for i, feed in self.in_place.items():
                if self.runner.lies(feeds[feed]):
                    self.runner.write(feeds[feed], results[i])
                    results[i] = None
            if host:
                return [*map(self._downloaded, results)], {n: self._downloaded(a) for n, a in updates.items()}
            return results, updates

    def _own(self, found: Any) -> Any:
        """Return a result that is nobody else's: it may be a feed, or a constant of the graph, as it is."""
        if isinstance(found, list):
            return [self._own(f) for f in found]
        return self.runner.copy(found) if self.runner.lies(found) else found

    def _constant(self, array: Array) -> Array:
        return array if array.dtype.kind in "OSU" else self.runner.array(array)

    def _given(self, feed: Any) -> Any:
        if isinstance(feed, list):
            return [self._given(f) for f in feed]
        return self._constant(feed) if hasattr(feed, "dtype") else feed

    def _downloaded(self, found: Any) -> Any:
        if isinstance(found, list):
            return [self._downloaded(f) for f in found]
        return self.runner.download(found) if self.runner.lies(found) else found

    def profile(self, feeds: Sequence[Any], tensors: Mapping[str, Any] | None = None, runs: int = 10) -> list[Row]:
        """Return what each step takes, the median of some runs, each step run by itself.

        Raises:
            OnnxGradError: if there is no program for these shapes.
        """
        times: dict[int, list[float]] = {}

        def watch(i: int, step: Step, seconds: float) -> None:
            times.setdefault(i, []).append(seconds)

        with self._lock:
            program = self.program_for(feeds)
            if program is None:
                raise OnnxGradError(f"a profile needs a program for these shapes: {self.refused[self._key(feeds)]}")
            for _ in range(max(runs, 1)):
                program.run(feeds, tensors, watch=watch)
        return [
            Row(
                "result" if s.node is None else s.node.name or s.node.op.name, kernel_name(s),
                float(np.median(times.get(i, [0.0]))), 0, touched_bytes(s),
            )
            for i, s in enumerate(program.steps)
        ]  # fmt: skip

    def __str__(self) -> str:
        """Return the programs as readable text, and why other shapes have none."""
        lines = [f"{self.graph.name} on {self.runner.name}: {len(self._programs)} programs, {self.nbytes:,} B"]
        for way in list(self._programs.values()):
            lines.append(str(way.program if isinstance(way, Parts) else way))
            if isinstance(way, Parts):
                lines.append(f"{len(way.behind.nodes)} nodes behind it run node by node: {way.why}")
        lines += [f"shapes {key[0]} run node by node: {reason}" for key, reason in self.refused.items()]
        return "\n".join(lines)


def _with_updates(graph: Graph) -> Graph:
    """Return the graph with its updates as outputs behind the others."""
    if not graph.updates:
        return graph
    new = rebuild(graph)
    new.outputs, new.updates = [*new.outputs, *new.updates.values()], {}
    return new
