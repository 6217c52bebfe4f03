"""How an imported model runs: compiled on the CPU or a device, by array kernels, or interpreted with Tensors."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...ops.errors import AssumptionError, InputError, OnnxGradError
from ...ops.types import HALF, Array, OptionalType, SequenceType, TensorType, ValueType
from ..autograd.grad_mode import MODE, no_grad
from ..autograd.saved import Late
from ..compiled.choice import check_precision, compile_program
from ..graph.execute import execute, plan_of
from ..graph.feeds import bind_call
from ..graph.graph import Graph, Value
from ..graph.plan import Plan
from ..passes.enter_training import enter_training
from ..passes.pipelines import FUSE
from ..passes.rewriting import run_passes
from ..tensor.device import CPU, to_device
from ..tensor.random import next_key
from ..tensor.tensor import Tensor, changes
from .built import Built, Recalled, ValueInfo
from .layers import LayeredModel, passing
from .precision import asked_precision, in_precision
from .recall import Recall

if TYPE_CHECKING:
    from ..compiled.program import Program, Row as StageTime
    from ..compiled.running import Running
    from ..compiled.shortcut import Shortcut
    from ..cuda.buckets import Buckets


class RunningModel(LayeredModel):
    """The part of an imported model that runs its graph."""

    inputs: Sequence[ValueInfo]
    outputs: Sequence[ValueInfo]
    threads: int | None
    accuracy: str
    precision: str
    _built: Built | Recalled
    _graph: Graph | None
    _device: Any
    _recall: Recall | None
    _training_graph: Graph | None
    _fused: tuple[Graph, Graph] | None
    _program: Program | None
    _buckets: Buckets | None
    _shortcut: Shortcut | None
    _lowered: RunningModel | None

    def run(self, feeds: dict[str, Any], outputs: Sequence[str] | None = None) -> list[Any]:
        """Run the plan on plain arrays, by name, in the file's own types; nothing is recorded.

        Under autocast it computes as a model of that precision; on the CPU, where that has instructions for bfloat16.

        Args:
            feeds: arrays by input name.
            outputs: which outputs, in this order; all by default.

        Raises:
            InputError: naming the input, what was found and what was wanted.
        """
        if Late.autocasts and (precision := asked_precision(self)) is not None:
            return in_precision(self, precision).run(feeds, outputs)
        if self._shortcut is not None and outputs is None and not self._hooked:
            found = self._shortcut.run(feeds)
            if found is not None:
                return found
        since = changes[0]
        values = self._bind((), feeds)
        if self._device != CPU and self._hooked:
            values = self._on_device(values)
        names = [o.name for o in self.outputs]
        picked = names if outputs is None else list(outputs)
        unknown = [n for n in picked if n not in names]
        if unknown:
            raise InputError(f"no output is named {unknown}; the model has {names}")
        if self._graph is None:
            entries = [_fed(v, t) for v, t in zip(values, self._built.fed, strict=True)]
        else:
            entries = [*fed(values, self._graph), *fresh_keys(self._graph, self._device if self._hooked else CPU)]
        results = self._compute(entries)
        self._shortcut = None if self._hooked else self._found_shortcut(values, entries, since)
        by_name = {
            o.name: _rounded(r, o.type) for o, r in zip(self.outputs, results, strict=True) if o.name in set(picked)
        }
        return [to_device(by_name[n], "cpu") if self._device != CPU else by_name[n] for n in picked]

    def _found_shortcut(self, values: Sequence[Any], entries: Sequence[Any], since: int) -> Shortcut | None:
        """Return the short way for inputs like these, which have just been run."""
        program: Running | None = self._program
        if program is None and self._recall is not None:
            program = self._recall.program
        half = any(isinstance(i.type, TensorType) and i.type.dtype in HALF for i in (*self.inputs, *self.outputs))
        if program is None or half or len(values) != len(entries) or self._device != CPU:
            return None
        if any(a is not b for a, b in zip(values, entries, strict=True)):
            return None
        from ..compiled.shortcut import shortcut

        return shortcut(program, [i.name for i in self.inputs], entries, since)

    def plan(self) -> Plan | Program | Buckets:
        """Return the plan that `run` executes; print it to read it."""
        if self._device != CPU:
            return self._on_cuda()
        program = self._compiled()
        return plan_of(self.graph) if program is None else program

    def profile(self, feeds: dict[str, Any], runs: int = 10) -> list[StageTime]:
        """Return what each stage of the compiled plan takes, run by itself; the median of some runs.

        Args:
            feeds: arrays by input name, as `run` takes them.
            runs: how many.

        Raises:
            OnnxGradError: if the model does not run compiled.
        """
        program = self._compiled() if self._device == CPU else self._on_cuda()
        if program is None:
            raise OnnxGradError(
                "a profile needs the compiled engine: llvmlite installed and ONNXGRAD_CPU not off, or a model on CUDA"
            )
        graph = self.graph
        values = self._bind((), feeds)
        return program.profile([*fed(values, graph), *fresh_keys(graph, self._device)], self._state, runs)

    def _compiled(self) -> Program | None:
        """Return the compiled program of the model as it is run now, or None where the array engine runs it."""
        if self._program is None:
            self._program = compile_program(self.graph, **self._settings())
        return self._program

    def _on_cuda(self) -> Buckets:
        """Return what runs the model on the CUDA device where it is."""
        if self._buckets is None:
            from ..cuda.choice import compile_buckets, passes_for

            check_precision(self.precision, self._device)
            self._buckets = compile_buckets(self.graph, self._device, passes=passes_for(self.precision))
        return self._buckets

    def _run_on_cuda(self, values: Sequence[Any]) -> tuple[Any, ...] | None:
        """Run as a program, results as Tensors of the device.

        None where gradients, hooks or a trace watch, and for Tensors that lie elsewhere.
        """
        if MODE.enabled or MODE.trace is not None or self.training or (self._hooked and self._hooked_layers()):
            return None
        if any(isinstance(v, Tensor) and v.device != self._device for v in values):
            return None
        if Late.autocasts and (precision := asked_precision(self)) is not None:
            return in_precision(self, precision)._run_on_cuda(values)
        entries = [*fed(values, self.graph), *fresh_keys(self.graph, self._device)]
        with self._explained(entries):
            results, _ = self._on_cuda().run([getattr(e, "_array", e) for e in entries], self._state)
        return tuple(map(_tensors, results))

    def _settings(self) -> dict[str, Any]:
        return {"threads": self.threads, "exact": self.accuracy == "exact", "precision": self.precision}

    def _compute(self, entries: list[Any]) -> Sequence[Any]:
        """Run the graph on plain arrays, or interpreted while its layers have hooks."""
        if self._hooked and self._hooked_layers():
            feeds = [*map(_tensors, entries), *self._state.values()]
            with no_grad(), passing():
                outs, _ = self._execute(self._with_hooks(self.graph, self._hooked_layers()), feeds, interpret=True)
            return [o.array if isinstance(o, Tensor) else o for o in outs]
        with self._explained(entries):
            found = self._run_compiled(entries)
        if found is None:
            return self._execute(self.graph, [*entries, *(t.array for t in self._state.values())])[0]
        return found

    def _run_compiled(self, entries: list[Any]) -> Sequence[Any] | None:
        """Run the compiled program, one that another process has kept if there is; None where array kernels have to."""
        if self._device != CPU:
            return self._on_cuda().run([getattr(e, "_array", e) for e in entries], self._state, host=True)[0]
        recall = self._recall
        try:
            if recall is not None and self._program is None:
                found = recall.run(entries, self._state, **self._settings())
                if found is not None:
                    return found
            program = self._compiled()
            if program is None:
                return None
            results = program.run(entries, self._state)[0]
        except AssumptionError:
            return None
        if recall is not None:
            recall.keep(program, entries, **self._settings())
        return results

    def _bind(self, args: Sequence[Any], kwargs: dict[str, Any]) -> list[Any]:
        try:
            return bind_call(self.inputs, args, kwargs)
        except InputError as error:
            if self._built.batch.startswith("fixed"):
                raise InputError(f"{error}\nThe batch size is {self._built.batch}") from None
            raise

    def _on_device(self, values: Sequence[Any]) -> list[Any]:
        """Return inputs where the model is; Tensors stay where their caller put them."""
        if self._device == CPU:
            return list(values)
        return [v if isinstance(v, Tensor) or not hasattr(v, "dtype") else to_device(v, self._device) for v in values]

    def _active_graph(self) -> Graph:
        if not self.training:
            return self.graph
        if self._training_graph is None:
            self._training_graph = enter_training(self.graph).graph
        return self._training_graph

    def _traced_graph(self) -> Graph:
        """Return the active graph with the patterns that have an op of their own as that; for compiled functions."""
        active = self._active_graph()
        if self._fused is None or self._fused[0] is not active:
            self._fused = active, run_passes(active, FUSE).graph
        return self._fused[1]

    def _called_graph(self, fused: bool = True) -> Graph:
        """Return the graph that a call runs now, with the hooks of its layers."""
        hooked = self._hooked_layers()
        if hooked:
            return self._with_hooks(self._active_graph(), hooked)
        return self._active_graph() if MODE.trace is None or not fused else self._traced_graph()

    def _interpret(
        self, values: Sequence[Any], graph: Graph, watch: Callable[[Value, Any], Any] | None = None
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        feeds = [_tensors(v) for v in [*fed(self._on_device(values), graph), *fresh_keys(graph, self._device)]]
        with passing():
            outs, updates = self._execute(graph, [*feeds, *self._state.values()], interpret=True, watch=watch)
        for key, new in updates.items():
            self._state[key].data = new.array if isinstance(new, Tensor) else new
        return tuple(_tensors(o) for o in outs), updates

    def _execute(self, graph: Graph, feeds: list[Any], **how: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        with self._explained(feeds):
            return execute(plan_of(graph), feeds, **how)

    @contextlib.contextmanager
    def _explained(self, feeds: Sequence[Any]) -> Iterator[None]:
        """Say of an error that may come of it that the file fixes the batch size."""
        try:
            yield
        except OnnxGradError as error:
            batch = next((f.shape[0] for f in feeds if getattr(f, "ndim", 0) >= 2), 1)
            if self._built.batch_was_fixed and batch > 1:
                raise InputError(
                    f"{error}\nThe file fixes a batch size of 1 and this was called with {batch}: the layer "
                    "above keeps the 1 in its constants. Call it with one example at a time, or export it "
                    "with a dynamic batch."
                ) from error
            raise


def _tensors(v: Any) -> Any:
    if isinstance(v, list):
        return [_tensors(x) for x in v]
    if isinstance(v, Tensor) or not hasattr(v, "dtype") or not hasattr(v, "reshape"):
        return v
    return Tensor(v)


def fed(values: Sequence[Any], graph: Graph) -> list[Any]:
    """Return inputs in the element types that the graph computes in, where half precision is computed in float32."""
    return [_fed(v, i.type) for v, i in zip(values, graph.inputs[: len(values)], strict=True)]


def fresh_keys(graph: Graph, device: Any) -> list[Array]:
    """Return the key that a run has to bring, in a list, which is empty where nothing is drawn."""
    return [to_device(next_key(), device) for _ in graph.keys]


def _fed(v: Any, type_: ValueType) -> Any:
    if isinstance(type_, SequenceType | OptionalType):
        return [_fed(x, type_.element) for x in v] if isinstance(v, list) else _fed(v, type_.element)
    wanted = type_.dtype if isinstance(type_, TensorType) else None
    found = getattr(v, "dtype", None)
    if found is None or wanted is None or found == wanted or not (found in HALF or wanted in HALF):
        return v
    return v.to(wanted.name) if isinstance(v, Tensor) else v.astype(wanted)


def _rounded(v: Any, type_: ValueType) -> Any:
    if isinstance(type_, TensorType) and type_.dtype in HALF and hasattr(v, "astype"):
        return v.astype(type_.dtype)
    return np.asarray(v) if isinstance(v, np.generic) else v
