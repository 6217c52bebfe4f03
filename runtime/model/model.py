"""The imported model: a Module whose forward is a Graph.

With nobody watching it runs as a plan on plain arrays (`running`); where gradients may be asked for, or a value inside
is wanted, the same graph is interpreted with Tensors on the tape.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ...ops.errors import InputError
from ...ops.types import Array
from ..autograd import tape
from ..graph.graph import Graph, Value
from ..nn.module import Module
from ..passes.convert_values import convert_dtypes, converted_type, move_constants
from ..tensor.device import CPU, device_of
from ..tensor.stored import tensor_of
from ..tensor.tensor import Tensor
from .built import Built, Recalled, ValueInfo
from .heads import Head, find_head
from .recall import Recall
from .report import Report, Row
from .running import RunningModel


class Model(RunningModel):
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

    def __init__(self, built: Built | Recalled, *, name: str = "model", source: Any = None) -> None:
        """Make a model of what an importer hands over."""
        super().__init__()
        self.name, self.source = name, source
        self._device = CPU
        self.threads = None
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
        self._built = built
        self._graph = built.graph if isinstance(built, Built) else None
        self._recall = Recall(built)
        self._training_graph = self._fused = None
        self._program = self._buckets = self._shortcut = self._lowered = None
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
