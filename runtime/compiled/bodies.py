"""Bodies of control flow as programs of their own: what they capture of the weights stays weights there."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...ops.dims import Env
from ...ops.errors import AssumptionError
from ...ops.types import TensorType, ValueType
from ..graph.execute import run_graph
from ..graph.graph import Graph, Node, Value
from ..passes.rewriting import has_graph, rebuild
from .weights import Slot, Weights

if TYPE_CHECKING:
    from .program import Program


class CapturedWeight:
    """A weight of the enclosing graph, as the program of a body reads it: an array with a version."""

    def __init__(self, slot: Slot, weights: Weights) -> None:
        """Refer to a slot of the enclosing program's weights."""
        self.slot, self.weights = slot, weights

    @property
    def _array(self) -> Any:
        return self.slot.array

    @property
    def _version(self) -> int:
        return self.weights.generation


class CompiledBody:
    """A body that runs as a program on arrays; see `runtime.body.Body`.

    Attributes:
        graph: the body, called with its inputs and captures.
        tensors: the captures that are weights, by their names in `inner`.
    """

    def __init__(
        self, graph: Graph, inner: Graph, kept: Sequence[int], tensors: Mapping[str, CapturedWeight],
        make: Callable[[Graph], Program],
        env: Mapping[str, int] | None = None,
    ) -> None:  # fmt: skip
        """Keep what is needed to compile it when it is first called.

        Args:
            graph: the body.
            inner: the same with captured weights as state.
            kept: which arguments of `graph` `inner` takes.
            tensors: the others.
            make: compiles a graph.
            env: symbols of the enclosing graph.
        """
        self.graph, self.inner, self.kept, self.tensors, self.make = graph, inner, kept, tensors, make
        self.env: Mapping[str, int] = env or {}
        self._shared: dict[str, Program] = {}

    @property
    def output_types(self) -> tuple[ValueType, ...]:
        """The types of what it returns."""
        return tuple(v.type for v in self.graph.outputs)

    def free_symbols(self) -> Iterator[str]:
        """Yield nothing: what symbols it needs it is given by `bind`."""
        yield from ()

    def bind(self, env: Env) -> CompiledBody:
        """Return the body with symbols of the enclosing graph bound."""
        bound = copy.copy(self)
        bound.env = {**self.env, **env}
        return bound

    def __call__(self, *args: Any) -> tuple[Any, ...]:
        """Run it, and return its outputs."""
        program = self._shared.get("program")
        if program is None:
            program = self._shared["program"] = self.make(self.inner)
        feeds = [np.asarray(args[i]) if hasattr(args[i], "dtype") else args[i] for i in self.kept]
        try:
            return tuple(program.run(feeds, self.tensors, env=self.env)[0])
        except AssumptionError:
            return run_graph(self.graph, args, env=self.env)


def compiled_attributes(
    node: Node, weights: Weights, slot_of: Callable[[Value], Slot], make: Callable[[Graph], Program]
) -> dict[str, Any]:
    """Return a node's attributes with its bodies compiled."""
    return {
        key: _compiled(a, args, weights, slot_of, make)
        if has_graph(a) and (args := _given(node, key, a)) is not None
        else a
        for key, a in node.attrs.items()
    }


def _given(node: Node, key: str, body: Any) -> Sequence[Any] | None:
    """Return the arguments of a node that are a body's captures; None for an op that is none of If, Loop and Scan."""
    count = len(body.graph.captures)
    if node.op.name == "if":
        split = node.attrs["split"]
        return node.args[1 : 1 + split] if key == "then" else node.args[1 + split :]
    if node.op.name in ("loop", "scan"):
        return node.args[len(node.args) - count :]
    return None


def _compiled(
    body: Any,
    captured: Sequence[Any],
    weights: Weights,
    slot_of: Callable[[Value], Slot],
    make: Callable[[Graph], Program],
) -> Any:
    graph: Graph = body.graph
    mapping: dict[Value, Value] = {}
    inner = rebuild(graph, mapping=mapping)
    tensors: dict[str, CapturedWeight] = {}
    first = len(graph.inputs) + len(graph.keys)
    kept, rest = list(range(first)), []
    for i, (pair, outer) in enumerate(zip(graph.captures, captured, strict=True)):
        own = mapping[pair[1]]
        fixed = isinstance(outer, Value) and weights.covers(outer) and isinstance(own.type, TensorType)
        if fixed and isinstance(outer.type, TensorType) and outer.type.known_shape is not None:
            name = f"capture{i}"
            own.type = TensorType(outer.dtype, outer.shape)
            inner.state[name] = own
            tensors[name] = CapturedWeight(slot_of(outer), weights)
        else:
            rest.append((pair[0], own))
            kept.append(first + i)
    inner.captures = rest
    return CompiledBody(graph, inner, kept, tensors, make, body.env)
