"""The part of a model that training does not change, split off: it runs as a plan, once an example.

What comes before every trained parameter is the prefix; the rest, with the loss behind it, is the tail. Frozen batch
norms and dropouts of the prefix act as in evaluation; a dropout at its very end belongs to the tail.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ...ops.dims import Dim
from ...ops.random import fold_key
from ...ops.types import Array, TensorType, is_float
from ..autograd.grad_mode import MODE
from ..graph.execute import execute, plan_of
from ..graph.graph import Graph, Node, Value
from ..passes.enter_training import enter_training
from ..passes.pipelines import FUSE
from ..passes.rewriting import run_passes
from ..tensor.tensor import Tensor
from .model import Model
from .running import fed, fresh_keys


class FrozenPrefix:
    """A model in two parts, split where training begins.

    Attributes:
        model: the model, whose parameters both parts read.
        boundary: the values that go from the prefix to the tail.
    """

    def __init__(self, model: Model, prefix: Graph, tail: Graph) -> None:
        """Hold the parts; `split` makes them."""
        self.model, self.prefix, self.tail = model, prefix, tail
        self.training_tail = enter_training(tail).graph
        self.boundary = tuple(prefix.outputs)

    @property
    def per_example(self) -> bool:
        """Whether every value of the boundary has one row an example, so that it can be kept and shuffled."""
        return all(is_float(v.tensor_type.dtype) and _has_rows(v) for v in self.boundary)

    def features(self, *args: Any, **kwargs: Any) -> tuple[Array, ...]:
        """Return what the prefix makes of inputs; nothing is recorded."""
        model = self.model
        values = fed([getattr(v, "array", v) for v in model._on_device(model._bind(args, kwargs))], model.graph)
        state = [t.array for t in model._state.values()]
        return execute(plan_of(self.prefix), [*values, *state])[0]

    def __call__(self, *features: Any) -> Any:
        """Return what the tail makes of features, recorded on the tape, in the model's mode."""
        graph = self.training_tail if self.model.training else self.tail
        if MODE.trace is not None:
            graph = run_passes(graph, FUSE).graph
        feeds: list[Any] = [Tensor(f) for f in features]
        feeds += [Tensor(key) for key in fresh_keys(graph, self.model._device)]
        outs, updates = execute(
            plan_of(graph), [*feeds, *self.model._state.values()], env=self._env(features), interpret=True
        )
        for key, new in updates.items():
            self.model._state[key].data = new
        return outs[0] if len(outs) == 1 else outs

    def _env(self, features: Sequence[Array]) -> Mapping[str, int]:
        """Return the symbols that the features' shapes say."""
        found: dict[str, int] = {}
        for value, array in zip(self.boundary, features, strict=True):
            shape = value.type.known_shape if isinstance(value.type, TensorType) else None
            for d, size in zip(shape or (), array.shape, strict=False):
                if isinstance(d, Dim) and d.name is not None:
                    found[d.name] = size
        return found


def split(model: Model, *, logits: bool) -> FrozenPrefix | None:
    """Split a model where training begins, or return None where nothing worth keeping comes before, or hooks look on.

    Args:
        model: an imported model, with what is not trained frozen.
        logits: end the tail before a final softmax.
    """
    if model._hooked_layers():
        return None
    graph = model.graph
    outputs = [model._logits_value()] if logits else list(graph.outputs)
    trained = [graph.state[n] for n, t in model.named_parameters() if t.requires_grad]
    behind = _reached(graph, trained)
    if any(n.op is fold_key for n in graph.nodes):  # what is drawn anew at each run cannot be kept
        return None
    from_inputs = _reached(graph, graph.inputs)
    tail = [n for n in graph.nodes if any(id(v) in behind for v in n.inputs())]
    local = behind | {id(v) for v in graph.values() if id(v) not in from_inputs}
    _take_dropouts(graph, tail, local, outputs)
    mine = set(map(id, tail))
    prefix = [n for n in graph.nodes if id(n) not in mine]
    boundary = _boundary(tail, local, outputs)
    made = {id(v) for n in prefix for v in n.outputs}
    if not any(id(v) in made for v in boundary) or not all(isinstance(v.type, TensorType) for v in boundary):
        return None
    last = [n for n in graph.nodes if id(n) in mine or all(id(v) in local for v in n.outputs)]
    return FrozenPrefix(
        model,
        Graph(f"{graph.name}.prefix", inputs=list(graph.inputs), outputs=boundary, nodes=prefix, state=graph.state),
        Graph(f"{graph.name}.tail", inputs=list(boundary), outputs=outputs, nodes=last, state=graph.state),
    )


def _has_rows(v: Value) -> bool:
    shape = v.tensor_type.known_shape
    return bool(shape and (isinstance(shape[0], Dim) or shape[0] == 1))


def _reached(graph: Graph, start: Iterable[Value]) -> set[int]:
    """Return the ids of these values and of all that is computed from them."""
    found = {id(v) for v in start}
    for node in graph.nodes:
        if any(id(v) in found for v in node.inputs()):
            found.update(id(v) for v in node.outputs)
    return found


def _boundary(tail: Sequence[Node], local: set[int], outputs: Sequence[Value]) -> list[Value]:
    """Return the values that the tail reads and does not compute from its own weights."""
    read = [v for n in tail for v in n.inputs()] + list(outputs)
    return list({id(v): v for v in read if not v.is_constant and id(v) not in local}.values())


def _take_dropouts(graph: Graph, tail: list[Node], local: set[int], outputs: Sequence[Value]) -> None:
    """Move dropouts that nothing but the tail reads from the end of the prefix into it."""
    while True:
        ends = [v.node for v in _boundary(tail, local, outputs) if v.node is not None]
        readers = graph.consumers()
        mine = set(map(id, tail))
        moved = [
            n
            for n in ends
            if n.op.name == "dropout" and all(id(r) in mine for v in n.outputs for r in readers.get(v, ()))
        ]
        if not moved:
            return
        tail[:0] = moved
        for node in moved:
            local.update(id(v) for v in node.outputs)
