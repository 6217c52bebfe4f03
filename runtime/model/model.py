"""The imported model: a Module whose forward is a Graph.

With nobody watching it runs as a plan on plain arrays; where gradients may be asked for, or a value inside is wanted,
the same graph is interpreted with Tensors on the tape.
"""

from __future__ import annotations

import contextlib
import fnmatch
import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...ops.errors import AssumptionError, InputError, OnnxGradError
from ...ops.types import HALF, Array, OptionalType, SequenceType, TensorType, ValueType
from ..autograd import tape
from ..autograd.grad_mode import MODE, no_grad
from ..autograd.saved import Late
from ..compiled.choice import check_precision, compile_program
from ..graph.execute import execute, plan_of
from ..graph.feeds import bind_call
from ..graph.graph import Graph, Value
from ..graph.plan import Plan
from ..nn.module import Module
from ..passes.convert_values import convert_dtypes, converted_type, move_constants
from ..passes.enter_training import enter_training
from ..passes.pipelines import FUSE
from ..passes.rewriting import run_passes
from ..tensor.device import CPU, device_of, to_device
from ..tensor.random import next_key
from ..tensor.stored import tensor_of
from ..tensor.tensor import Tensor, changes
from .built import Built, Recalled, ValueInfo
from .heads import Head, find_head
from .layers import LayeredModel, passing
from .precision import asked_precision, in_precision
from .recall import Recall
from .report import Report, Row

if TYPE_CHECKING:
    from ..compiled.program import Program, Row as StageTime
    from ..compiled.running import Running
    from ..compiled.shortcut import Shortcut
    from ..cuda.buckets import Buckets


class Model(LayeredModel):
    """A model that was read from a file: callable, differentiable, trainable, and savable to the same file.

    Parameters are named by the file's initializers. Call it with inputs in order or by name, arrays or Tensors.

    Attributes:
        name: of the graph.
        inputs, outputs: what the file declares.
        source: the file's own facts; `og.save` uses it.
        graph: the computation.
        threads: how many `run` may use; the physical cores by default.
        accuracy: `fast`, or `exact` to leave out algorithms with larger rounding errors (Winograd).
        precision: `float32`; `bf16` to multiply operands rounded to bfloat16 where `run` convolves and multiplies
            matrices, on CUDA to compute in bfloat16; `fp16`, on CUDA, to compute in float16.
    """

    _graph: Graph | None
    _recall: Recall | None

    def __init__(self, built: Built | Recalled, *, name: str = "model", source: Any = None) -> None:
        """Make a model of what an importer hands over."""
        super().__init__()
        self.name, self.source = name, source
        self._device = CPU
        self.threads: int | None = None
        self.accuracy, self.precision = "fast", "float32"
        self._keep(built)
        self.eval()

    @property
    def graph(self) -> Graph:
        """The computation, built when somebody first asks."""
        if self._graph is None:
            self._graph = self._built.graph
            self.inputs, self.outputs = self._built.whole.inputs, self._built.whole.outputs
        return self._graph

    @graph.setter
    def graph(self, graph: Graph) -> None:
        self._graph, self._recall = graph, None

    def _keep(self, built: Built | Recalled) -> None:
        self.inputs, self.outputs = built.inputs, built.outputs
        self._built: Built | Recalled = built
        self._graph = built.graph if isinstance(built, Built) else None
        self._recall = Recall(built)
        self._training_graph: Graph | None = None
        self._fused: tuple[Graph, Graph] | None = None
        self._program: Program | None = None
        self._buckets: Buckets | None = None
        self._shortcut: Shortcut | None = None
        self._lowered: Model | None = None
        old = getattr(self, "_state", {})
        self._state: dict[str, Tensor] = {}
        self._roles = built.roles
        for key, (array, wanted) in built.state.items():
            array = array.astype(wanted) if array.dtype != wanted else array
            if isinstance(array, np.ndarray) and not array.flags.writeable:
                array = array.copy()
            trains = self._roles[key].kind == "parameter" and (key not in old or old[key].requires_grad)
            tensor = tensor_of(array, trains)
            tensor.name = key
            self._state[key] = tensor

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """Yield (name, Tensor) of every parameter, frozen ones too; the names are those of the file's initializers."""
        dot = f"{prefix}." if prefix else ""
        yield from ((dot + n, t) for n, t in self._state.items() if self._roles[n].kind == "parameter")

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """Yield (name, Tensor) of running statistics and the like."""
        dot = f"{prefix}." if prefix else ""
        yield from ((dot + n, t) for n, t in self._state.items() if self._roles[n].kind == "buffer")

    def _registries(self) -> list[dict[str, Any]]:
        return [self._state]

    def _apply(self, fn: Callable[[Any], Any], recurse: bool = True) -> Model:
        """Convert the state, and the graph's constants and element types with it."""

        def convert(array: Array) -> Array:
            return fn(Tensor(array))._array

        for t in self._state.values():
            t.data = convert(t.array)
            t.grad = None if t.grad is None else Tensor(convert(t.grad.array))
        old = np.dtype(np.float32) if not self._state else self.graph.state[next(iter(self._state))].tensor_type.dtype
        new = convert(np.zeros(0, old)).dtype
        graph = self.graph if new == old else convert_dtypes(self.graph, {old: new}).graph
        self.graph = move_constants(graph, lambda a: convert(a) if a.dtype.kind not in "OUS" else a).graph
        self._training_graph = self._program = self._buckets = self._shortcut = self._recall = None
        self._device = device_of(convert(np.zeros(0, old)))
        if new != old:
            self.inputs, self.outputs = (
                tuple(ValueInfo(i.name, converted_type(i.type, {old: new})) for i in infos)
                for infos in (self.inputs, self.outputs)
            )
        return self

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy takes over: everything but what was compiled."""
        return {**super().__getstate__(), "_program": None, "_buckets": None, "_shortcut": None, "_lowered": None}

    def report(self) -> Report:
        """Return what each tensor of the file is: parameter, buffer or constant, and why."""
        rows = []
        for name, role in self._roles.items():
            shape = self._state[name].shape if name in self._state else self._built.arrays[name].shape
            dtype = self._built.arrays[name].dtype
            trains = name in self._state and self._state[name].requires_grad
            rows.append(Row(name, role.kind, tuple(shape), str(dtype), role.reason, trains, math.prod(shape)))
        return Report(tuple(rows), self._built.batch)

    def freeze(self, *patterns: str) -> Module:
        """Stop training the parameters whose names match; all of them without a pattern.

        Args:
            patterns: shell patterns over parameter names or over the names of the nodes that read them (`layer1.*`).

        Raises:
            InputError: if a pattern matches nothing.
        """
        return self._set_trains(patterns, False)

    def unfreeze(self, *patterns: str) -> Module:
        """Train the parameters whose names match; all of them without a pattern."""
        return self._set_trains(patterns, True)

    def _set_trains(self, patterns: Sequence[str], trains: bool) -> Module:
        readers = {v.name: {n.name for n in nodes} for v, nodes in self.graph.consumers().items()}
        for pattern in patterns or ("*",):
            found = [
                t
                for n, t in self.named_parameters()
                if any(fnmatch.fnmatchcase(c, pattern) for c in (n, *readers.get(n, ())))
            ]
            if not found:
                names = [n for n, _ in self.named_parameters()]
                raise InputError(f"no parameter matches {pattern!r}; the first are {names[:5]}")
            for t in found:
                t.requires_grad = trains
        return self

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model; a Tensor out, or a tuple in the graph's output order when there are several.

        Half-precision models compute, and answer here, in float32; `run` answers in the file's own types. On CUDA,
        with gradients off and no hooks, it runs as `run` does, and inputs and results stay on the device.

        Raises:
            InputError: naming the input, what was found and what was wanted.
        """
        values = self._bind(args, kwargs)
        outs = None if self._device == CPU else self._run_on_cuda(values)
        if outs is None:
            outs, _ = self._interpret(values, self._called_graph())
        return outs[0] if len(outs) == 1 else outs

    def intermediates(self, names: Sequence[str], *args: Any, **kwargs: Any) -> tuple[Any, dict[str, Tensor]]:
        """Run the model and return its output and the values inside that were asked for, to differentiate by.

        Args:
            names: of layers (ONNX nodes) or values.
            args: inputs, as in a call.
            kwargs: inputs by name.

        Raises:
            InputError: if no layer or value has such a name.
        """
        graph = self._called_graph()
        if not {*names} <= {v.name for v in graph.values()}:
            graph = self._called_graph(fused=False)
        wanted = {self.find_value(n, graph): n for n in names}
        found: dict[str, Tensor] = {}

        def watch(value: Value, out: Any) -> Any:
            name = wanted.get(value)
            if name is None:
                return None
            if isinstance(out, Tensor) and not out.requires_grad and tape.is_grad_enabled():
                out = Tensor(out.array, requires_grad=True)
            found[name] = out
            return out

        outs, _ = self._interpret(self._bind(args, kwargs), graph, watch)
        return (outs[0] if len(outs) == 1 else outs), found

    def logits(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return the first output before a final softmax, which is what a loss wants."""
        value = self._logits_value()
        if value is self.graph.outputs[0]:
            out = self(*args, **kwargs)
            return out[0] if isinstance(out, tuple) else out  # type: ignore[no-any-return]
        _, found = self.intermediates([value.name], *args, **kwargs)
        return found[value.name]

    def _logits_value(self) -> Value:
        value = self.graph.outputs[0]
        node = value.node
        while node is not None and node.op.name in ("softmax", "log_softmax", "identity", "cast", "reshape"):
            before = node.args[0]
            if node.op.name in ("softmax", "log_softmax"):
                value = before
            node = before.node if isinstance(before, Value) else None
        return value

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

    def head(self) -> Head:
        """Return the layer that makes the class scores.

        Raises:
            InputError: if the model does not end in one that can be replaced.
        """
        return find_head(self.graph, self.outputs[0].name)

    def replace_head(self, num_classes: int, *, seed: int | None = None, gain: float = 1.0) -> Module:
        """Replace the layer that makes the class scores by a new one for this many classes.

        Works on Gemm, MatMul + Add and 1x1-Conv heads. The weights are drawn as PyTorch draws a Linear's.

        Args:
            num_classes: how many classes.
            seed: of the draw; the global generator by default.
            gain: the draw is multiplied by it. With few examples a small one (0.01) generalises better: what is random
                in the head is then small beside what it learns.

        Raises:
            InputError: if the model does not end in such a head.
        """
        if num_classes < 1:
            raise InputError(f"replace_head wants at least 1 class, found {num_classes}")
        head = self.head()
        arrays = {n: t.array for n, t in self._state.items()}
        for key, array in head.resized(arrays, self._built.arrays, num_classes, seed).items():
            arrays[key] = array
        built = self.source.rebuild(arrays)
        training = self.training
        self._keep(built)
        for name, t in self._state.items():  # the file's half precision has rounded what is trained in float32
            if name in arrays and arrays[name].dtype == t.dtype:
                t.data = arrays[name] * np.float32(gain) if name in (head.weight, head.bias) else arrays[name]
        return self.train(training)

    def extra_repr(self) -> str:
        """Return inputs and outputs, for `repr`."""
        return f"{', '.join(map(str, self.inputs))} -> {', '.join(map(str, self.outputs))}"

    def __repr__(self) -> str:
        """Return a short description: `Model(name: inputs -> outputs, parameters)`."""
        count = sum(t.numel() for _, t in self.named_parameters())
        return f"Model({self.name}: {self.extra_repr()}; {count:,} parameters)"


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
