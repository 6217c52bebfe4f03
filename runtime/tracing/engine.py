"""What runs a traced graph: the compiled engine where it can be had, the array kernels else."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...ops.errors import AssumptionError, InputError
from ...ops.kernels.cpu.target import available
from ...ops.places import HOST
from ...ops.types import Array
from ..amp.widen import Halves
from ..compiled.choice import advise
from ..graph.execute import execute, plan_of
from ..graph.graph import Graph
from ..passes.drop_dead import drop_dead
from ..passes.early_updates import early_updates
from ..passes.expand_compositions import expand_norms
from ..passes.fold_constants import fold_constants
from ..passes.fold_factors import fold_factors
from ..passes.merge_equal import merge_equal
from ..passes.merge_gradients import merge_gradients
from ..passes.merge_layout import merge_layout
from ..passes.recompute import peak_bytes, recompute
from ..passes.rewriting import Pass, run_passes
from ..passes.simplify_arithmetic import simplify_arithmetic
from ..passes.turn_products import turn_products

if TYPE_CHECKING:
    from ..cuda.traced import TracedBuckets
    from ..tensor.tensor import Tensor

PASSES: Sequence[Pass] = (
    fold_constants,
    drop_dead,
    merge_equal,
    merge_layout,
    turn_products,
    simplify_arithmetic,
    merge_layout,
    merge_equal,
    drop_dead,
    early_updates,
)
"""Safe where state changes from run to run, and where backward reads what forward made."""

CUDA_PASSES: Sequence[Pass] = (*PASSES[:-1], merge_gradients, merge_equal, drop_dead, early_updates, fold_factors)
"""The same for a device: fewer and larger products, and kernels that take factors of gradients from memory."""

_ATTEMPTS = 6
"""How often a program is made anew to fit into a memory limit."""


class Engine:
    """Runs a graph whose state is fed: compiled where that can be, with array kernels else.

    Attributes:
        graph: after the passes.
        device: where it runs, `cpu` or `cuda:N`.
        program: what runs it on the CPU, None for the array kernels.
    """

    def __init__(
        self, graph: Graph, *, threads: int | None, exact: bool, passes: Sequence[Pass] = PASSES,
        memory_limit_bytes: int | None = None, env: Mapping[str, int] | None = None, device: str = HOST,
        weights: Mapping[str, Tensor] | None = None,
    ) -> None:  # fmt: skip
        """Make it ready; the state that nothing reads is left out.

        Args:
            graph: as it was traced.
            threads: how many.
            exact: without algorithms of larger rounding errors.
            passes: for the graph.
            memory_limit_bytes: how much intermediate values may take; what is cheap is then computed again.
            env: the sizes to reckon with.
            device: where it is to run.
            weights: the Tensors that state is, by its name; where they do not change, a device lays them out once.
        """
        self.device, self.weights = device, dict(weights or {})
        self._half = Halves(graph) if device == HOST else None
        self._pairs: dict[int, int] = {}
        self._buckets: TracedBuckets | None = None
        own = [] if self._half is None else [expand_norms]
        self.graph = run_passes(graph if self._half is None else self._half.graph, [*own, *passes]).graph
        self.exact, self.threads = exact, threads
        self._make()
        if memory_limit_bytes is not None:
            self._shrink(memory_limit_bytes, dict(env or {}))

    def _make(self) -> None:
        read = {v for n in self.graph.nodes for v in n.inputs()} | set(self.graph.outputs)
        self.graph.state = {k: v for k, v in self.graph.state.items() if v in read}
        self.program: Any = None
        self._late_flags = False
        if self._half is None:
            return
        if available():
            from ..compiled.program import Program

            self.program = Program(
                self.graph, exact=self.exact, threads=self.threads, hoist=False, precision=self._half.precision
            )
        else:
            advise()

    def _shrink(self, limit: int, env: dict[str, int]) -> None:
        """Compute again what is cheap until the arena is small enough, and say so where it cannot be."""
        whole, taken, changes = self.graph, self.arena_bytes(env), 0
        target = peak_bytes(whole, env) * limit / max(taken, 1)
        for _ in range(_ATTEMPTS):
            if taken <= limit:
                return
            found = recompute(whole, int(target), env)
            if found.changed > changes:
                self.graph, changes = found.graph, found.changed
                self._make()
                taken = self.arena_bytes(env)
            target *= 0.85
        if taken > limit:
            warnings.warn(
                f"a compiled step takes {taken:,} bytes for intermediate values, more than the limit of {limit:,}: "
                "what is left is not cheap to compute again",
                RuntimeWarning,
                stacklevel=8,
            )

    def arena_bytes(self, env: Mapping[str, int]) -> int:
        """Return what intermediate values take for these sizes; for the array kernels, what is alive at once."""
        if self.program is None:
            return peak_bytes(self.graph, env)
        return int(self.program._bound(dict(env)).arena)

    def run(self, feeds: Sequence[Any], into: dict[int, Array]) -> Sequence[Any]:
        """Return the outputs; those that `into` names are written there.

        Raises:
            InputError: if a kernel met bad input behind the first of those that are written over feeds; before that the
                array kernels run instead, and raise what they raise.
        """
        if self._half is None:
            return self._on_cuda(feeds, into)
        if self._half.changed:
            return self._half.run(self._run, feeds, into)
        return self._run(feeds, into)

    def _on_cuda(self, feeds: Sequence[Any], into: dict[int, Array]) -> Sequence[Any]:
        if self._buckets is None:
            from ..cuda.traced import TracedBuckets

            self._buckets = TracedBuckets(
                self.graph, self.device, in_place=self._pairs, weights=self.weights, passes=CUDA_PASSES
            )
        results = self._buckets.run(feeds)
        for i, array in into.items():
            if results[i] is not None:
                array[...] = results[i]
        return results

    def _run(self, feeds: Sequence[Any], into: dict[int, Array]) -> Sequence[Any]:
        if self.program is not None:
            try:
                return self.program.run(feeds, into=into)[0]  # type: ignore[no-any-return]
            except AssumptionError as error:
                if self._late_flags and into:
                    raise InputError(str(error)) from error
        results, _ = execute(plan_of(self.graph), feeds)
        for i, array in into.items():
            np.copyto(array, results[i])
        return results

    def in_place(self, output: int, feed: int) -> bool:
        """Whether an output may be written over a feed: nothing reads that afterwards, nor elsewhere meanwhile."""
        if self._half is None:
            self._pairs[output] = feed
            return True
        if output in self._half.outputs:
            return False
        if self.program is None:
            return True
        writes = -1
        readers: list[tuple[int, Any]] = []
        for n, stage in enumerate(self.program.compiler.stages):
            if stage.host is not None and any(_touches(a, feed) for a in _flat(stage.host.args)):
                readers.append((n, None))
            for call in stage.calls:
                if any(r.storage.kind == "output" and r.storage.place == output for r in call.refs):
                    if writes >= 0:
                        return False
                    writes, writer = n, call
                if any(_touches(r, feed) for r in call.refs):
                    readers.append((n, call))
        if writes < 0 or any(n > writes or (n == writes and call is not writer) for n, call in readers):
            return False
        return not any(call is writer for _, call in readers) or _elementwise(writer, output, feed)

    def pause_before(self, outputs: Sequence[int]) -> None:
        """Let the run stop, where a kernel met bad input, before any of these outputs is written."""
        program = self.program
        if program is None or not program.compiler.flags:
            return
        chosen = set(outputs)
        first = next(
            (
                n
                for n, stage in enumerate(program.compiler.stages)
                for call in stage.calls
                if any(r.storage.kind == "output" and r.storage.place in chosen for r in call.refs)
            ),
            0,
        )
        self._late_flags = any(ref.storage.last >= first for ref, _, _ in program.compiler.flags)
        program.segments = [
            piece
            for begin, end, host in program.segments
            for piece in ([(begin, first, host), (first, end, host)] if begin < first < end else [(begin, end, host)])
        ]


def _flat(args: Sequence[Any]) -> list[Any]:
    return [x for a in args for x in (_flat(a) if isinstance(a, list | tuple) else [a])]


def _touches(a: Any, feed: int) -> bool:
    storage = getattr(a, "storage", None)
    if storage is not None:
        return storage.kind in ("feed", "host") and storage.place == feed
    return getattr(a, "index", None) == feed


def _elementwise(call: Any, output: int, feed: int) -> bool:
    """Whether a kernel reads each element of the feed before it writes that of the output, and no other element."""
    if call.kernel.name in ("sgd_update", "adam_update"):
        return True
    if not call.kernel.name.startswith("pointwise["):
        return False
    target = next(r for r in call.refs if r.storage.kind == "output" and r.storage.place == output)
    sources = [r for r in call.refs if _touches(r, feed)]
    return all(
        r.start == target.start
        and r.operand.shape == target.operand.shape
        and r.operand.strides == target.operand.strides
        for r in sources
    )
