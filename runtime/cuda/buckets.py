"""A graph of open sizes on a device: a program for each combination of shapes that comes, the latest few of them.

What cannot be a program (sizes that hang on elements, sequences, strings) runs node by node on the device's arrays;
`refused` says why.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ...ops.errors import DeviceError, OnnxGradError
from ...ops.types import Array, TensorType
from ..compiled.program import Row
from ..graph.execute import execute, plan_of
from ..graph.graph import Graph
from ..passes.convert_values import move_constants
from ..passes.pipelines import DEVICE
from ..passes.rewriting import Pass, rebuild, run_passes
from ..passes.specialize import specialize
from ..tracing.collection import uncollected
from .compiler import why_not
from .holders import note_holder
from .printing import kernel_name, touched_bytes
from .program import CudaProgram
from .runner import Runner
from .steps import Step
from .weights import WeightStore

PROGRAMS = 16
"""For how many combinations of shapes there are programs; the one that was used longest ago goes first."""

REFUSALS = 128
"""For how many combinations it is remembered that there can be none."""

BYTES = 8 << 30
"""How much memory they may take together, beside weights; the last one may take more."""


class Buckets:
    """The programs of one graph.

    Attributes:
        graph: as the PORTABLE passes, or a trace, left it.
        runner: the device.
        refused: why shapes run without a program, by the shapes (and the use of TF32).
    """

    def __init__(
        self, graph: Graph, runner: Runner, *, passes: Sequence[Pass] = DEVICE, hoist: bool = True,
        in_place: Mapping[int, int] | None = None, tf32: Callable[[], bool] = bool, capture: bool = True,
        programs: int | None = None, limit_bytes: int = BYTES,
    ) -> None:  # fmt: skip
        """Begin without programs.

        Args:
            graph: what to run.
            runner: the device.
            passes: for the graph, once its sizes are known.
            hoist: whether state is weights; else each run brings it, behind the inputs.
            in_place: outputs, and the feeds that they replace.
            tf32: asked at each run whether products of float32 may round their operands to TF32.
            capture: record programs as CUDA graphs.
            programs: how many are kept, `PROGRAMS` by default; with 0 everything runs node by node.
            limit_bytes: how much memory they may take together.
        """
        self.graph, self.runner, self.passes, self.hoist = graph, runner, passes, hoist
        self.in_place, self.tf32, self.capture = dict(in_place or {}), tf32, capture
        self.programs_limit, self.limit_bytes = PROGRAMS if programs is None else programs, limit_bytes
        self.refused: dict[Any, str] = {}
        self.store = WeightStore(runner)
        self._updates = [*graph.updates]
        self._host: Graph | None = None
        self._device: Graph | None = None
        self._programs: OrderedDict[Any, CudaProgram] = OrderedDict()
        self._lock = threading.RLock()
        note_holder(self)

    @property
    def programs(self) -> list[CudaProgram]:
        """The programs that there are, the one that was used last at the end."""
        return list(self._programs.values())

    @property
    def nbytes(self) -> int:
        """The memory that they take beside weights."""
        return sum(p.nbytes for p in self._programs.values())

    def held(self) -> list[tuple[int, int, str]]:
        """Return the device, the bytes and what for of the memory that is taken; see `holders`."""
        found = [(p.taken, "arena and inputs") for p in list(self._programs.values())]
        found.append((self.store.nbytes, "packed weights"))
        return [(self.runner.index, n, f"{what} of {self.graph.name}") for n, what in found if n]

    def _key(self, feeds: Sequence[Any]) -> Any:
        return tuple(None if (s := getattr(f, "shape", None)) is None else tuple(s) for f in feeds), self.tf32()

    def program_for(self, feeds: Sequence[Any]) -> CudaProgram | None:
        """Return the program for feeds of these shapes, made now where it is new; None where there can be none."""
        key = self._key(feeds)
        with self._lock:
            found = self._programs.get(key)
            if found is not None:
                self._programs.move_to_end(key)
                return found
            if key in self.refused:
                return None
            found, reason = self._made(*key)
            if found is None:
                if len(self.refused) >= REFUSALS:
                    self.refused.clear()
                self.refused[key] = reason
                return None
            self._programs[key] = found
            while len(self._programs) > 1 and (
                len(self._programs) > self.programs_limit or self.nbytes > self.limit_bytes
            ):
                self._programs.popitem(last=False)
            return found

    def _made(self, shapes: Any, tf32: bool) -> tuple[CudaProgram | None, str]:
        if any(shape is None for shape in shapes):
            return None, "an input is no array"
        if not self.programs_limit:
            return None, "programs are switched off"
        if self._host is None:
            self._host = move_constants(_with_updates(self.graph), _on_host).graph
        try:
            with uncollected():
                entries = len(self.graph.inputs) + len(self.graph.keys)
                graph = specialize(self._host, shapes[:entries])
                if not self.hoist:
                    _check_state(graph, shapes[entries:])
                graph = run_passes(graph, self.passes).graph
                reason = why_not(graph)
                if reason:
                    return None, reason
                return CudaProgram(
                    graph, self.runner, self.store, hoist=self.hoist, in_place=self.in_place, tf32=tf32,
                    capture=self.capture,
                ), ""  # fmt: skip
        except DeviceError:
            raise
        except OnnxGradError as error:  # running it node by node says where and why
            return None, f"{type(error).__name__}: {error}"

    def run(
        self, feeds: Sequence[Any], tensors: Mapping[str, Any] | None = None, *, host: bool = False
    ) -> tuple[list[Any], dict[str, Any]]:
        """Run once.

        Args:
            feeds: one array an input, of the host or the device; then the key, then the state where it is fed.
            tensors: the state as Tensors, where it is weights.
            host: return NumPy arrays.

        Returns:
            The outputs (None for one that was written over a feed), and the updates of state by name.
        """
        with self._lock:
            program = self.program_for(feeds)
            if program is None:
                return self._by_nodes(feeds, tensors or {}, host)
            found = program.run(feeds, tensors, host=host)
        count = len(found) - len(self._updates)
        return found[:count], dict(zip(self._updates, found[count:], strict=True))

    def _by_nodes(
        self, feeds: Sequence[Any], tensors: Mapping[str, Any], host: bool
    ) -> tuple[list[Any], dict[str, Any]]:
        """Run on the device's arrays, node by node."""
        if self._device is None:
            self._device = move_constants(self.graph, self._constant).graph
        with self.runner.running():
            given = [*map(self._given, feeds)]
            given += [self._given(tensors[n]._array) for n in self._device.state] if self.hoist else []
            outs, updates = execute(plan_of(self._device), given)
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
        lines += [str(p) for p in self.programs]
        lines += [f"shapes {shapes} run node by node: {reason}" for (shapes, _), reason in self.refused.items()]
        return "\n".join(lines)


def _on_host(array: Any) -> Array:
    return array.get() if not isinstance(array, np.ndarray) and hasattr(array, "get") else array


def _with_updates(graph: Graph) -> Graph:
    """Return the graph with its updates as outputs behind the others."""
    if not graph.updates:
        return graph
    new = rebuild(graph)
    new.outputs, new.updates = [*new.outputs, *new.updates.values()], {}
    return new


def _check_state(graph: Graph, shapes: Sequence[Any]) -> None:
    """Check that the state that is fed has the shapes that the graph says.

    Raises:
        OnnxGradError: if it has not.
    """
    for v, shape in zip(graph.state.values(), shapes, strict=True):
        if isinstance(v.type, TensorType) and v.type.known_shape != shape:
            raise OnnxGradError(f"{v.name!r} is {shape}, wanted {v.type}")
