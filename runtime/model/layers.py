"""The layers of an imported model as modules: hooks on nodes of the file, by their names.

While a layer is hooked, its model runs interpreted on the tape, over a copy of the graph with a node before the layer
that calls the pre-hooks and one behind it that calls the others.
"""

from __future__ import annotations

import copy
import difflib
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from ...ops.errors import InputError, ModuleError
from ..autograd.grad_mode import MODE
from ..autograd.hooks import Hooks, RemovableHandle
from ..graph.graph import Graph, Node, Value
from ..graph.layer_order import contiguous
from ..nn.module import Module
from ..nn.module_hooks import GLOBAL, Passage, named
from ..nn.module_names import joined
from ..passes.rewriting import rebuild
from ..tensor.tensor import Tensor

if TYPE_CHECKING:
    from .report import Role

Self = TypeVar("Self", bound="LayeredModel")


class Layer(Module):
    """A layer of an imported model: what one node of the file computes.

    Its parameters are those of the model that it reads, by their names in the file.

    Attributes:
        name: of the node.
        kind: its operator.
    """

    def __init__(self, model: LayeredModel, name: str, kind: str) -> None:
        super().__init__()
        self.__dict__["_model"] = model
        self.name, self.kind = name, kind

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Refuse: the model runs its layers.

        Raises:
            ModuleError: always.
        """
        raise ModuleError(f"layer {self.name} is run by its model; call the model, or look on with a hook")

    def _keep_hook(
        self, hooks: Hooks, hook: Callable[..., Any], prepend: bool = False, **marks: Any
    ) -> RemovableHandle:
        hooked = self._model._hooked
        if self not in hooked:
            hooked.append(self)
        return super()._keep_hook(hooks, hook, prepend, **marks)

    def has_hooks(self) -> bool:
        """Return whether a hook is registered."""
        return bool(self._forward_hooks or self._forward_pre_hooks or self._backward_hooks or self._backward_pre_hooks)

    def train(self, mode: bool = True) -> Layer:
        """Refuse: the model has one mode.

        Raises:
            ModuleError: if it is another than the model's.
        """
        if mode != self._model.training:
            raise ModuleError(f"layer {self.name} has the mode of its model; call train() or eval() of the model")
        self.training = mode
        return self

    def _named(self, registry: str, method: str, prefix: str, recurse: bool, once: bool) -> Iterator[tuple[str, Any]]:
        kind = "parameter" if registry == "_parameters" else "buffer"
        model = self._model
        found = {
            v.name: None for n in model.graph.nodes if n.name == self.name for v in n.inputs() if v.name in model._state
        }
        return ((joined(prefix, n), model._state[n]) for n in found if model._roles[n].kind == kind)

    def _get_name(self) -> str:
        return self.kind

    def extra_repr(self) -> str:
        """Return name and output type."""
        return f"{self.name}: {self._model.find_value(self.name, self._model.graph).type}"


class LayeredModel(Module):
    """The part of an imported model that knows its layers."""

    graph: Graph
    _state: dict[str, Tensor]
    _roles: dict[str, Role]
    _layers: dict[str, Layer]
    _hooked: list[Layer]
    _looking: tuple[Graph, tuple[Layer, ...], Graph] | None

    def __init__(self) -> None:
        super().__init__()
        self._layers, self._hooked, self._looking = {}, [], None

    def _active_graph(self) -> Graph:
        raise NotImplementedError

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """Yield the layers by the names of the file's nodes."""
        for name, kind, _ in self.layers():
            if name:
                yield name, self._layer(name, kind)

    def _layer(self, name: str, kind: str) -> Layer:
        if name not in self._layers:
            self._layers[name] = Layer(self, name, kind)
        return self._layers[name]

    def get_submodule(self, target: str) -> Module:
        """Return the layer of a name; the model itself for an empty name. Hooks can be registered on it.

        Raises:
            AttributeError: if there is none; it suggests similar names.
        """
        if not target:
            return self
        for node in self.graph.nodes:
            if node.name == target:
                return self._layer(target, _kind(node))
        raise AttributeError(f"{self._get_name()} has no attribute `{target}`; did you mean {self._similar(target)}?")

    def set_submodule(self, target: str, module: Module, strict: bool = False) -> None:
        """Refuse: layers of a file are replaced by `replace_head` only.

        Raises:
            ModuleError: always.
        """
        raise ModuleError(f"layer {target!r} of an imported model cannot be replaced by a module")

    def train(self: Self, mode: bool = True) -> Self:
        """Set training mode, and return the model."""
        if not isinstance(mode, bool):
            raise ValueError("training mode is expected to be boolean")
        self.training = mode
        for layer in self._layers.values():
            layer.training = mode
        return self

    def layers(self) -> list[tuple[str, str, str]]:
        """Return (name, operator, output type) of every layer, in order of running."""
        rows: dict[str, tuple[str, str, str]] = {}
        for node in self.graph.nodes:
            rows[node.name] = (node.name, _kind(node), str(node.outputs[0].type))
        return list(rows.values())

    def find_value(self, name: str, graph: Graph | None = None) -> Value:
        """Return the value of this name, or the last output of the layer (ONNX node) of this name.

        Args:
            name: of a value or layer.
            graph: where to look; by default the one that a call runs now.

        Raises:
            InputError: if there is none; it suggests similar names.
        """
        graph = graph or self._active_graph()
        last: Value | None = None
        for node in graph.nodes:
            for v in node.outputs:
                if v.name == name:
                    return v
            if node.name == name:
                last = node.outputs[0]
        if last is not None:
            return last
        close = self._similar(name)
        count = len({n.name for n in graph.nodes if n.name})
        raise InputError(f"no layer or value is named {name!r}; did you mean {close}? (`model.layers()` lists {count})")

    def _similar(self, name: str) -> list[str]:
        names = list(dict.fromkeys(n.name for n in self.graph.nodes if n.name))
        return difflib.get_close_matches(name, names, 3, 0.3) or names[:3]

    def _hooked_layers(self) -> tuple[Layer, ...]:
        """Return the layers that hooks are registered on; all where there are hooks of all modules."""
        self._hooked = [layer for layer in self._hooked if layer.has_hooks()]
        if GLOBAL.any():
            return tuple(layer for layer in self.children() if isinstance(layer, Layer))
        return tuple(self._hooked)

    def _with_hooks(self, graph: Graph, layers: tuple[Layer, ...]) -> Graph:
        """Return a graph that calls the hooks of layers."""
        if self._looking is None or self._looking[0] is not graph or self._looking[1] != layers:
            self._looking = graph, layers, with_hooks(graph, layers)
        return self._looking[2]


def _kind(node: Node) -> str:
    return str(getattr(node.source, "op_type", node.op.name))


class _Runs(threading.local):
    """The passages through layers of the runs that are under way in one thread."""

    def __init__(self) -> None:
        self.stack: list[dict[Layer, LayerPassage]] = []


_RUNS = _Runs()


@contextmanager
def passing() -> Iterator[None]:
    """Run a graph of `with_hooks` inside the block."""
    _RUNS.stack.append({})
    try:
        yield
    except Exception:
        if MODE.trace is None:
            for passage in _RUNS.stack[-1].values():
                passage.fail()
        raise
    finally:
        _RUNS.stack.pop()


class LayerPassage(Passage):
    """One call of a hooked layer: what replaces its inputs and outputs is as they are."""

    def _take_args(self, hook: Callable[..., Any], given: Any) -> None:
        before = self.args
        super()._take_args(hook, given)
        self._check(hook, "inputs", before, self.args)

    def _take_result(self, hook: Callable[..., Any], given: Any) -> None:
        before = self._result
        super()._take_result(hook, given)
        if before is not None and given is not None:
            several = isinstance(before, tuple)
            self._check(hook, "output", before if several else (before,), given if several else (given,))

    def _check(self, hook: Callable[..., Any], what: str, before: Any, after: Any) -> None:
        where = f"{named(hook)} of layer {self.module.name}"
        if not isinstance(after, tuple) or len(before) != len(after):
            raise ModuleError(f"{where} returned {_shown(after)} for {what}; wanted {len(before)} values")
        for old, new in zip(before, after, strict=True):
            if isinstance(old, Tensor) and (
                not isinstance(new, Tensor) or new.dtype != old.dtype or tuple(new.shape) != tuple(old.shape)
            ):
                raise ModuleError(f"{where} returned {_shown(new)} for {what}; wanted {_shown(old)}")


def _shown(x: Any) -> str:
    if isinstance(x, Tensor):
        return f"a Tensor {x.dtype}{list(x.shape)}"
    return f"a tuple of {len(x)}" if isinstance(x, tuple) else f"a {type(x).__name__}"


class _Point:
    """Stands in a graph where hooks are called; for the executor it is an op."""

    def __init__(self, layer: Layer, name: str) -> None:
        self.layer, self.name = layer, name

    def select(self, *unused: Any) -> Any:
        """Return itself: there are no kernels."""
        return self

    def __call__(self, *values: Any) -> Any:
        """Call the hooks; what they raise is passed on as it is."""
        given = tuple(_tensor(v) for v in values)
        try:
            return self.pass_by(given)
        except Exception as error:
            error.located = True  # type: ignore[attr-defined]
            raise

    def pass_by(self, values: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return the values after the hooks."""
        raise NotImplementedError


class _Before(_Point):
    def pass_by(self, values: tuple[Any, ...]) -> tuple[Any, ...]:
        passage = _RUNS.stack[-1][self.layer] = LayerPassage(self.layer, values, {})
        passage.enter()
        return passage.args


class _Behind(_Point):
    def pass_by(self, values: tuple[Any, ...]) -> tuple[Any, ...]:
        passage = _RUNS.stack[-1].get(self.layer)
        if passage is None:
            passage = LayerPassage(self.layer, (), {})
            passage.enter()
        result = passage.leave(values if len(values) > 1 else values[0])
        _RUNS.stack[-1].pop(self.layer, None)
        return result if isinstance(result, tuple) else (result,)


def _tensor(v: Any) -> Any:
    return v if isinstance(v, Tensor | list) or not hasattr(v, "dtype") else Tensor(v)


def with_hooks(graph: Graph, layers: Sequence[Layer]) -> Graph:
    """Return a graph that calls the hooks of layers.

    Args:
        graph: the model's.
        layers: those that are in it; others are left out.
    """
    nodes, ends = contiguous(graph, {layer.name for layer in layers})
    ordered = copy.copy(graph)
    ordered.__dict__.pop("_plan", None)
    ordered.nodes = nodes
    by_name = {layer.name: layer for layer in layers}
    new_of: dict[Value, Value] = {}
    inner: dict[Value, Value] = {}

    def rewrite(node: Node, args: tuple[Any, ...], new: Graph) -> tuple[Any, ...] | None:
        group = ends.get(node.name)
        if group is None:
            return None
        layer = by_name[node.name]
        if node is group.first:
            inner.clear()
            outside = [new_of[v] for v in group.inputs]
            if outside:
                inner.update(zip(outside, _point(new, _Before(layer, "before"), outside, group.inputs), strict=True))
        made = _copy(node, tuple(_placed(a, inner) for a in args), new)
        if node is not group.last:
            return made
        new_of.update(zip(node.outputs, made, strict=True))
        results = [new_of[v] for v in group.outputs]
        behind = _point(new, _Behind(layer, "behind"), results, group.outputs)
        for old, value, result in zip(group.outputs, behind, results, strict=True):
            result.name, new_of[old] = f"{result.name}/unhooked", value
        return tuple(new_of[v] for v in node.outputs)

    return rebuild(ordered, rewrite, mapping=new_of)


def _point(new: Graph, op: Any, args: list[Value], like: Sequence[Value]) -> tuple[Value, ...]:
    node = Node(op, tuple(args), {}, name=op.layer.name, source=f"{op.name} layer {op.layer.name}", several=True)
    node.outputs = tuple(Value(new, v.type, v.name, node=node, index=i) for i, v in enumerate(like))
    for v in node.outputs:
        v.named = True
    new.nodes.append(node)
    return node.outputs


def _copy(node: Node, args: tuple[Any, ...], new: Graph) -> tuple[Value, ...]:
    copied = Node(node.op, args, node.attrs, name=node.name, source=node.source, several=node.several)
    copied.outputs = tuple(Value(new, v.type, v.name, node=copied, index=v.index) for v in node.outputs)
    new.nodes.append(copied)
    return copied.outputs


def _placed(a: Any, inner: dict[Value, Value]) -> Any:
    if isinstance(a, list):
        return [_placed(v, inner) for v in a]
    return inner.get(a, a) if isinstance(a, Value) else a
