"""A graph for inputs of certain shapes as a program of a device: steps over one arena, and how they run.

A run brings its inputs to fixed places, does the steps, and hands out copies of its results. Addresses change only
where a weight or a piece of state has got another array; the steps are then bound anew.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ...ops.errors import InputError, KernelError
from ...ops.kernels.cuda.kernel import Launch, LibraryCall
from ...ops.kernels.cuda.operand import packed
from ...ops.types import Array
from ..autograd.saved import Late
from ..graph.execute import located
from ..graph.graph import Graph
from .arena import ALIGNMENT, Placed, Storage, place_in_arena, room
from .capture import Capture
from .checks import Checks
from .compiler import Compiler
from .runner import Block, Packed, Runner
from .steps import ArrayCall, Copy, Step
from .weights import WeightStore, lying

WANDERS = 3
"""A piece of state whose array has changed so often is copied to a fixed place in each run."""

Watch = Callable[[int, Step, float], None]


class CudaProgram:
    """A graph of known sizes that runs on a device.

    Attributes:
        graph: what it computes.
        compiler: how it came about; `compiler.refused` says what runs as array kernels, and why.
        steps: what it does.
        nbytes: the memory that it holds beside weights.
        capture: what is recorded of it.
        checks: of its input, by its kernels; None where they check nothing.
    """

    def __init__(
        self, graph: Graph, runner: Runner, store: WeightStore | None = None, *,
        in_place: Mapping[int, int] | None = None, tf32: bool = False, capture: bool = True,
    ) -> None:  # fmt: skip
        """Compile a graph; its memory is taken when it first runs.

        Args:
            graph: of known sizes, after the passes.
            runner: the device.
            store: the weights, which programs of other sizes share.
            in_place: outputs, and the feeds that they replace: their arrays are overwritten where that can be.
            tf32: whether products of float32 may round their operands to TF32.
            capture: record steps as CUDA graphs.
        """
        self.graph, self.runner = graph, runner
        self.store = store if store is not None else WeightStore(runner)
        self.compiler = Compiler(graph, self.store, in_place=in_place, tf32=tf32).compile()
        self.steps, self.in_place = self.compiler.steps, self.compiler.in_place
        self.arena_bytes = place_in_arena(self.compiler.storages)
        self.capture = Capture(self.steps, runner, on=capture)
        flags = self.compiler.flags
        self.checks = Checks(runner, flags, updates=bool(self.in_place)) if flags else None
        self._operands = [lying(v) for v in self.compiler.fed]
        self._staying = {*self.in_place.values()}
        copied = (o for i, o in enumerate(self._operands) if i not in self._staying)
        self.feed_bytes = sum(room(o.nbytes) for o in copied)
        self.nbytes = self.arena_bytes + self.feed_bytes
        self._arena: Block | None = None
        self._fixed: dict[int, Block] = {}
        self._flags: Block | None = None
        self._borrowed: dict[int, Block] = {}
        self._tables: dict[int, Block] = {}
        self._moves: dict[int, int] = {}
        self._generation = -1
        self._calls: list[Callable[[], None]] | None = None
        self._results: list[Array] = []

    @property
    def taken(self) -> int:
        """The bytes that it has taken by now, beside weights."""
        blocks = (self._arena, self._flags, *self._fixed.values(), *self._tables.values())
        return sum(b.nbytes for b in blocks if b is not None)

    # memory ------------------------------------------------------------------------------------------------------

    def _locate(self, storage: Storage) -> tuple[Block, int]:
        """Return the block that a storage lies in, and how far from its begin."""
        if storage.kind == "arena":
            assert self._arena is not None
            return self._arena, max(storage.offset, 0)
        if storage.kind == "feed":
            borrowed = self._borrowed.get(storage.place)
            return (self._fixed[storage.place] if borrowed is None else borrowed), 0
        if storage.kind == "table":
            return self._filled(storage), 0
        if storage.kind == "flag":
            assert self._flags is not None
            return self._flags, storage.place * storage.nbytes
        assert storage.slot is not None and storage.slot.block is not None
        return storage.slot.block, 0

    def _filled(self, storage: Storage) -> Block:
        """Return a table in memory, with addresses as they are now."""
        table = storage.table
        assert table is not None
        block = self._tables.get(id(storage))
        if block is None:
            block = self._tables[id(storage)] = self.runner.allocate(storage.nbytes)
        addresses = np.array([self._address(ref) for ref in table.refs], np.int64)
        self.runner.write(self.runner.view(block, packed(addresses.dtype, addresses.shape)), addresses)
        return block

    def _address(self, ref: Placed) -> int:
        block, nbytes = self._locate(ref.storage)
        return block.address + nbytes + ref.operand.offset * ref.operand.dtype.itemsize

    def view(self, ref: Placed) -> Array:
        """Return a tensor of the program as an array of the device; another step may overwrite it."""
        block, nbytes = self._locate(ref.storage)
        return self.runner.view(block, ref.operand, nbytes)

    def _bind(self) -> list[Callable[[], None]]:
        """Return what each step does, with addresses."""
        self.capture.forget()
        self._generation = self.store.generation
        self._results = [self.view(ref) for ref in self.compiler.outputs]
        return [self._bound(step) for step in self.steps]

    def _bound(self, step: Step) -> Callable[[], None]:
        work, runner = step.work, self.runner
        if isinstance(work, Launch):
            values = [self._address(a) if isinstance(a, Placed) else a for a in work.arguments]
            arguments = Packed(work.kernel.parameters, values)  # type: ignore[arg-type]
            function = runner.load(work.kernel)
            return functools.partial(runner.launch, function, work.grid, work.block, arguments, work.shared_bytes)
        if isinstance(work, LibraryCall):
            assert step.prepared is not None
            pointers = tuple(self._address(a) for a in work.arguments if isinstance(a, Placed))
            workspace = 0
            if step.workspace is not None:
                block, nbytes = self._locate(step.workspace)
                workspace = block.address + nbytes
            return functools.partial(step.prepared.run, pointers, workspace, runner.stream)
        if isinstance(work, Copy):
            return functools.partial(runner.write, self.view(work.target), self.view(work.source))
        return self._array_call(work)

    def _array_call(self, work: ArrayCall) -> Callable[[], None]:
        def given(a: Any) -> Any:
            if isinstance(a, list):
                return [given(x) for x in a]
            return self.view(a) if isinstance(a, Placed) else a

        args = [given(a) for a in work.arguments]
        targets = [self.view(ref) for ref in work.results]
        node, runner = work.node, self.runner

        def call() -> None:
            try:
                made = work.kernel(*args, **work.attrs)
                for target, value in zip(targets, made if node.several else (made,), strict=True):
                    value = runner.array(value)
                    if value.shape != target.shape or value.dtype != target.dtype:
                        raise KernelError(
                            f"its array kernel made {value.dtype}{value.shape}, wanted {target.dtype}{target.shape}"
                        )
                    runner.write(target, value)
            except Exception as error:
                found = located(error, node, args)
                if found is error:
                    raise
                raise found from error

        return call

    # running -----------------------------------------------------------------------------------------------------

    def _bring(self, feeds: Sequence[Any]) -> None:
        """Bring what a run is given to where the steps read it.

        What is overwritten in the end is read, and overwritten, where it lies on the device, unless it comes in another
        array each time.
        """
        runner = self.runner
        for i, (feed, operand) in enumerate(zip(feeds, self._operands, strict=True)):
            if tuple(feed.shape) != operand.shape or feed.dtype != operand.dtype:
                raise InputError(
                    f"input {self.compiler.fed[i].name!r}: found {feed.dtype}{tuple(feed.shape)}, this program is for "
                    f"{operand.dtype}{operand.shape}"
                )
            if i in self._staying and self._borrow(i, feed):
                continue
            if self._borrowed.pop(i, None) is not None:
                self._calls = None
            if i not in self._fixed:
                self._fixed[i], self._calls = runner.allocate(operand.nbytes), None
            runner.write(runner.view(self._fixed[i], operand), feed)

    def _borrow(self, i: int, feed: Any) -> bool:
        """Use the memory of a feed; whether that can be."""
        runner, known = self.runner, self._borrowed.get(i)
        if not runner.lies(feed) or not feed.flags.c_contiguous or self._moves.get(i, 0) > WANDERS:
            return False
        block = runner.borrow(feed)
        if block.address % ALIGNMENT and block.nbytes:
            return False
        if known is None or known.address != block.address:
            self._moves[i] = self._moves.get(i, 0) + 1
            if self._moves[i] > WANDERS:
                return False
            self._calls = None
        self._borrowed[i] = block
        return True

    def run(
        self, feeds: Sequence[Any], tensors: Mapping[str, Any] | None = None, *, host: bool = False,
        watch: Watch | None = None,
    ) -> list[Any]:  # fmt: skip
        """Run once.

        Args:
            feeds: one array an input, of the host or the device; then the key.
            tensors: the state as Tensors.
            host: return NumPy arrays.
            watch: called with (number, step, seconds) of each step, which then runs by itself and is waited for.

        Returns:
            The outputs, in memory of their own; None for those that were written over feeds.

        Raises:
            OnnxGradError: saying what kernels found wrong with the input, of this run where the host waits for it, else
                of an earlier one; see `checks`.
        """
        runner, checks = self.runner, self.checks
        with runner.running():
            if checks is not None:
                self._flags = checks.begin()
            self.store.refresh(tensors or {})
            if self._arena is None:
                self._arena = runner.allocate(self.arena_bytes)
            self._bring(feeds)
            if self._calls is None or self._generation != self.store.generation:
                self._calls = self._bind()
            launch = Late.guard is not None and Late.guard.mode == "launch"
            if watch is not None:
                self._watched(self._calls, watch)
            elif launch:
                self._waited(self._calls)
            else:
                self.capture.run(self._calls)
            if checks is not None:
                checks.send()
            results = [
                None if i in self.in_place and self.in_place[i] in self._borrowed
                else runner.download(view) if host else runner.copy(view)
                for i, view in enumerate(self._results)
            ]  # fmt: skip
            if checks is not None and (host or launch):
                checks.end()
            return results

    def _waited(self, calls: Sequence[Callable[[], None]]) -> None:
        """Do the steps one by one and wait for each: an error of the device is said of the step that made it."""
        for i, (step, call) in enumerate(zip(self.steps, calls, strict=True)):
            try:
                call()
                self.runner.synchronize()
            except Exception as error:
                node = step.node.name if step.node is not None and step.node.name else self.graph.name
                found = Late.guard.explained(error, f"{node!r}, step {i} of its program ({' + '.join(step.ops)})", ())
                if found is error:
                    raise
                raise found from (None if isinstance(error, MemoryError) else error)

    def _watched(self, calls: Sequence[Callable[[], None]], watch: Watch) -> None:
        self.runner.synchronize()
        for i, (step, call) in enumerate(zip(self.steps, calls, strict=True)):
            begin = time.perf_counter()
            call()
            self.runner.synchronize()
            watch(i, step, time.perf_counter() - begin)

    def __str__(self) -> str:
        """Return the program as readable text: each step, its kernel, grid, bytes and places in the arena."""
        from .printing import describe

        return describe(self)
