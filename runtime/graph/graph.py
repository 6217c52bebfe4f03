"""The Graph: what a model computes, as nodes over values with symbolic types. It knows no device.

A graph is built by calling ops on its Values, inside `with graph.building():`. A Value of an enclosing graph that is
used inside a body becomes a *capture* of the body, so control-flow ops take what their bodies need as ordinary
arguments.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...ops import dims
from ...ops.dims import DimLike, Shape
from ...ops.errors import InvalidGraphError, OnnxGradError, SymbolicError, TraceError
from ...ops.op import Op
from ...ops.random import KEY_TYPE, fold_key
from ...ops.types import Array, TensorType, ValueType, type_of

_names = itertools.count()

EVALUATION_LIMIT = 4096
"""Nodes over constants of at most this many elements are computed while a graph is built, where their values matter."""


class Value:
    """What flows along an edge: an input, a piece of state, a constant, or an output of a node."""

    __slots__ = ("array", "fixed", "graph", "index", "known", "name", "named", "node", "type")
    interpret_priority = 2

    def __init__(
        self,
        graph: Graph,
        type_: ValueType,
        name: str,
        *,
        node: Node | None = None,
        index: int = 0,
        array: Any = None,
    ) -> None:
        """Make a value of a graph; only `Graph` does."""
        self.graph, self.type, self.name, self.node, self.index, self.array = (
            graph,
            type_,
            name,
            node,
            index,
            array,
        )
        self.named = self.fixed = False
        self.known: Any = None

    @staticmethod
    def __interpret__(op: Op, args: Sequence[Any], attrs: dict[str, Any]) -> Any:
        """Add a node for the op to the graph that is being built."""
        graph = _building.stack[-1] if _building.stack else _first_graph(args)
        return graph.add(op, args, attrs)

    @property
    def tensor_type(self) -> TensorType:
        """The type, which is a tensor's."""
        if not isinstance(self.type, TensorType):
            raise SymbolicError(f"{self.name!r} is {self.type}, not a tensor")
        return self.type

    @property
    def shape(self) -> Shape:
        """The symbolic shape."""
        return self.tensor_type.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """The element type."""
        return self.tensor_type.dtype

    @property
    def ndim(self) -> int:
        """The rank."""
        return self.tensor_type.ndim

    @property
    def size(self) -> DimLike:
        """The number of elements."""
        return self.tensor_type.size

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        """Refuse: what it holds is known only when the graph runs."""
        raise TraceError(f"{self!r} has no elements before the graph runs; use ops, not NumPy, or return the Tensor")

    @property
    def is_constant(self) -> bool:
        """Whether its array is part of the graph."""
        return self.array is not None

    def __repr__(self) -> str:
        """Return `%name: type`."""
        return f"%{self.name}: {self.type}"


@dataclass(eq=False)
class Node:
    """An op applied to values.

    Attributes:
        args: values, Python scalars, None (an optional input left out), or lists of them.
        source: where it came from, for messages and for names: the ONNX node.
    """

    op: Op
    args: tuple[Any, ...]
    attrs: dict[str, Any]
    outputs: tuple[Value, ...] = ()
    name: str = ""
    source: Any = None
    several: bool = False

    def inputs(self) -> Iterator[Value]:
        """Return the values among the arguments."""
        found: list[Value] = []
        for a in self.args:
            if isinstance(a, Value):
                found.append(a)
            elif isinstance(a, list):
                found += [v for v in a if isinstance(v, Value)]
        return iter(found)

    def __repr__(self) -> str:
        """Return `%out = op(%in, attr=...)`."""
        args = [f"%{a.name}" if isinstance(a, Value) else repr(a) for a in self.args]
        args += [f"{k}={v!r}" for k, v in self.attrs.items()]
        return f"{', '.join('%' + v.name for v in self.outputs)} = {self.op.name}({', '.join(args)})"


@dataclass(eq=False)
class Graph:
    """Nodes in an order in which they can run, between inputs and outputs.

    Attributes:
        state: parameters and buffers by name; their arrays live in the module, not here.
        updates: new values of state entries that running the graph produces (running statistics).
        captures: (value of the enclosing graph, input of this one) pairs of a body.
        key: what every random draw follows from. The outermost graph is given one at each run, beside its inputs;
            a body captures its own. None where nothing is drawn.
        draws: how many keys have been made of it.
    """

    name: str = "main"
    inputs: list[Value] = field(default_factory=list)
    outputs: list[Value] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    state: dict[str, Value] = field(default_factory=dict)
    updates: dict[str, Value] = field(default_factory=dict)
    captures: list[tuple[Value, Value]] = field(default_factory=list)
    parent: Graph | None = None
    source: Any = None
    key: Value | None = None
    draws: int = 0

    @contextlib.contextmanager
    def building(self) -> Iterator[Graph]:
        """Make this the graph that ops called on Values add to, in this thread."""
        _building.stack.append(self)
        try:
            yield self
        finally:
            _building.stack.pop()

    def input(self, name: str, type_: ValueType) -> Value:
        """Add an input."""
        value = Value(self, type_, name)
        self.inputs.append(value)
        return value

    def add_state(self, name: str, type_: TensorType) -> Value:
        """Add a parameter or buffer; its name is unique.

        Raises:
            InvalidGraphError: if the name is taken.
        """
        if name in self.state:
            raise InvalidGraphError(f"two initializers are named {name!r}")
        value = self.state[name] = Value(self, type_, name)
        return value

    def constant(self, array: Array, name: str = "") -> Value:
        """Return a constant of this array."""
        array = array if hasattr(array, "dtype") and hasattr(array, "reshape") else np.asarray(array)
        return Value(self, type_of(array), name or f"c{next(_names)}", array=array)

    def add(self, op: Op, args: Sequence[Any], attrs: dict[str, Any]) -> Any:
        """Add a node, with its types inferred, and return its output or tuple of outputs."""
        lifted = tuple(self._lift(a) for a in args)
        types = op.infer_types(*(_types(a) for a in lifted), **attrs)
        several = isinstance(types, tuple)
        node = Node(op, lifted, attrs, source=self.source, several=several)
        made = types if isinstance(types, tuple) else (types,)
        node.outputs = tuple(Value(self, t, f"v{next(_names)}", node=node, index=i) for i, t in enumerate(made))
        self.nodes.append(node)
        if node.args and not op.structural and _fixed(node):
            for v in node.outputs:
                v.fixed = True
        return node.outputs if several else node.outputs[0]

    def _lift(self, a: Any) -> Any:
        if isinstance(a, Value):
            return self.own(a)
        if a is None or isinstance(a, bool | int | float | str):
            return a
        if isinstance(a, list):
            return [self._lift(v) for v in a]
        array = getattr(a, "array", a)
        return self.constant(array)

    def own(self, value: Value) -> Value:
        """Return the value as one of this graph: itself, or the capture of an enclosing graph's."""
        if value.graph is self or value.is_constant:
            return value
        if self.parent is None:
            raise InvalidGraphError(f"{value!r} belongs to another graph than {self.name!r}")
        outer = self.parent.own(value)
        for seen, inner in self.captures:
            if seen is outer:
                return inner
        inner = Value(self, outer.type, outer.name)
        self.captures.append((outer, inner))
        return inner

    def body(self, name: str) -> Graph:
        """Return a new graph for a body of control flow inside this one."""
        return Graph(name, parent=self)

    def random_key(self) -> Value:
        """Return a fresh key, for one random op."""
        if self.key is None:
            self.key = Value(self, KEY_TYPE, "rng_key")
            if self.parent is not None:
                self.captures.append((self.parent.random_key(), self.key))
        self.draws += 1
        with self.building():
            key: Value = fold_key(self.key, number=self.draws)
        return key

    @property
    def keys(self) -> tuple[Value, ...]:
        """The key, where each run has to bring one."""
        return () if self.key is None or self.parent is not None else (self.key,)

    @property
    def entries(self) -> tuple[Value, ...]:
        """What a run is given: inputs, the key where there is one, captures, state."""
        return (*self.inputs, *self.keys, *(inner for _, inner in self.captures), *self.state.values())

    def values(self) -> Iterator[Value]:
        """Yield what a run is given, and node outputs."""
        yield from self.entries
        for node in self.nodes:
            yield from node.outputs

    def find(self, name: str) -> Value:
        """Return the value of this name.

        Raises:
            KeyError: if there is none.
        """
        for value in self.values():
            if value.name == name:
                return value
        raise KeyError(name)

    def consumers(self) -> dict[Value, list[Node]]:
        """Return for each value the nodes that read it."""
        found: dict[Value, list[Node]] = {}
        for node in self.nodes:
            for v in node.inputs():
                found.setdefault(v, []).append(node)
        return found

    def verify(self) -> None:
        """Check that every value is defined before it is used, once.

        Raises:
            InvalidGraphError: naming the first value that is not.
        """
        defined = {id(v) for v in self.entries}
        for node in self.nodes:
            for v in node.inputs():
                if id(v) not in defined and not v.is_constant:
                    raise InvalidGraphError(f"graph {self.name!r}: {v!r} is used by {node!r} before it is defined")
            for v in node.outputs:
                if id(v) in defined:
                    raise InvalidGraphError(f"graph {self.name!r}: {v!r} is defined twice")
                defined.add(id(v))
        for v in (*self.outputs, *self.updates.values()):
            if not v.is_constant and id(v) not in defined:
                raise InvalidGraphError(f"graph {self.name!r}: output {v!r} is never defined")

    def __str__(self) -> str:
        """Return the graph as readable text."""
        lines = [f"graph {self.name}({', '.join(map(repr, self.inputs))})"]
        lines += [f"  state {v!r}" for v in self.state.values()]
        lines += [f"  {node!r}" for node in self.nodes]
        lines.append(f"  return {', '.join('%' + v.name for v in self.outputs)}")
        return "\n".join(lines)


class _Building(threading.local):
    def __init__(self) -> None:
        self.stack: list[Graph] = []


_building = _Building()


def current_graph() -> Graph | None:
    """Return the graph that is being built in this thread, if any."""
    return _building.stack[-1] if _building.stack else None


def _first_graph(args: Sequence[Any]) -> Graph:
    for a in args:
        if isinstance(a, Value) and not a.is_constant:
            return a.graph
    raise OnnxGradError("an op on constants alone needs `with graph.building():`")


def _types(a: Any) -> Any:
    if isinstance(a, Value):
        return a.type
    if isinstance(a, list):
        return [_types(v) for v in a]
    return a


def _fixed(node: Node) -> bool:
    """Whether a node depends on small constants alone."""
    size = 0
    for a in node.args:
        if isinstance(a, list) or (isinstance(a, Value) and not (a.is_constant or a.fixed)):
            return False
        if isinstance(a, Value) and a.is_constant:
            size += a.array.size
    return size <= EVALUATION_LIMIT and not any(True for a in node.attrs.values() for _ in dims.symbols_in(a))
