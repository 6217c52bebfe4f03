"""An imported model as a graph of Python calls: its layers are calls of ops, its weights attributes by their names."""

from __future__ import annotations

import operator
from collections.abc import Callable, Container
from typing import Any

from ...ops import dims
from ...ops.dims import Dim, Larger, Quotient
from ...ops.errors import GraphError
from ...ops.op import Op
from ...ops.types import HALF
from ..graph.execute import plan_of
from ..graph.graph import Node as Layer, Value
from ..graph.plan import Bind
from ..model.model import Model
from ..tensor.random import next_key
from .graph import Graph
from .graph_module import GraphModule
from .node import Node


def graph_module_of(model: Model) -> GraphModule:
    """Return a module that computes what an imported model computes, as a graph that can be changed.

    Parameters and buffers are the model's own. A layer's node carries its name and operator of the file in `meta`
    (`onnx_name`, `onnx_op`), and is found by that name (`graph.find`). It computes as `eval()` does.
    """
    return GraphModule(model, _Importing(model).graph, type(model).__name__)


class Sized:
    """An op with attributes that hang on sizes: its call gets them as `sizes`.

    Attributes:
        op: what is called.
        attributes: those that mention symbols.
        symbols: those that the sizes bind, in their order; bodies of control flow bind others themselves.
    """

    def __init__(self, op: Op, attributes: dict[str, Any], known: Container[str]) -> None:
        """Find the symbols among those that are known."""
        self.op, self.attributes, self.__name__ = op, attributes, op.name
        self.symbols = sorted({s for a in attributes.values() for s in dims.symbols_in(a) if s in known})

    def __call__(self, *args: Any, sizes: tuple[int, ...], **attrs: Any) -> Any:
        """Call the op."""
        env = dict(zip(self.symbols, sizes, strict=True))
        return self.op(*args, **attrs, **{n: dims.bind(a, env) for n, a in self.attributes.items()})


class _Importing:
    def __init__(self, model: Model) -> None:
        source = model.graph
        plan = plan_of(source)
        self.graph = Graph()
        self.made: dict[int, Any] = {}
        self.known: dict[str, Callable[[], Node]] = {}
        self.sizes: dict[Any, Any] = {}
        state = {id(v): name for name, v in source.state.items()}
        for value, binds in zip(plan.entries, plan.entry_binds, strict=True):
            if id(value) in state:
                node = self.graph.get_attr(state[id(value)])
            elif any(value is k for k in source.keys):
                node = self.graph.call_function(next_key)
            else:
                node = self.graph.placeholder(value.name)
                node.meta["onnx_name"] = value.name
                if any(i.name == value.name and i.dtype in HALF for i in model.inputs):
                    node = self.graph.call_method("to", (node, str(value.tensor_type.dtype)))
            self._keep(value, node, binds)
        for step in plan.steps:
            self._layer(step.node, step.binds)
        outputs = tuple(self._argument(v) for v in source.outputs)
        self.graph.output(outputs[0] if len(outputs) == 1 else outputs)

    def _keep(self, value: Value, node: Any, binds: tuple[Bind, ...]) -> None:
        self.made[id(value)] = node
        for b in binds:
            self.known.setdefault(b.symbol, lambda node=node, b=b: self._bound(node, b))  # type: ignore[misc]

    def _layer(self, layer: Layer, binds: tuple[tuple[Bind, ...], ...]) -> None:
        args = tuple(self._argument(a) for a in layer.args)
        inside = {n: a for n, a in layer.attrs.items() if not _plain(a)}
        kwargs = {n: self._attribute(a) for n, a in layer.attrs.items() if n not in inside}
        name = layer.name or layer.outputs[0].name
        target: Any = layer.op
        if inside:
            target = Sized(layer.op, inside, self.known)
            kwargs["sizes"] = tuple(self._atom(s) for s in target.symbols)
        node = self.graph.create_node("call_function", target, args, kwargs, name)
        node.meta |= {"onnx_name": name, "onnx_op": getattr(layer.source, "op_type", layer.op.name)}
        if not layer.several:
            self._keep(layer.outputs[0], node, binds[0])
            return
        for index, (value, bound) in enumerate(zip(layer.outputs, binds, strict=True)):
            part = self.graph.call_function(operator.getitem, (node, index))
            part.meta["onnx_name"] = value.name
            self._keep(value, part, bound)

    def _argument(self, a: Any) -> Any:
        if isinstance(a, list):
            return [self._argument(v) for v in a]
        if not isinstance(a, Value):
            return a
        return a.array if a.is_constant else self.made[id(a)]

    def _attribute(self, a: Any) -> Any:
        return tuple(self._attribute(v) for v in a) if isinstance(a, tuple) else self._size(a)

    def _size(self, d: Any) -> Any:
        """Return the node that computes a dimension, or the integer that it is."""
        if not isinstance(d, Dim):
            return d
        if d not in self.sizes:
            total: Any = 0
            for monomial, coefficient in d.terms:
                product: Any = coefficient
                for atom in monomial:
                    product = self._call(operator.mul, product, self._atom(atom))
                total = self._call(operator.add, total, product)
            self.sizes[d] = total
        return self.sizes[d]

    def _atom(self, atom: Any) -> Any:
        if atom in self.sizes:
            return self.sizes[atom]
        if isinstance(atom, Quotient):
            function = operator.mod if atom.mod else operator.floordiv
            found = self._call(function, self._size(atom.num), self._size(atom.den))
        elif isinstance(atom, Larger):
            found = self.graph.call_function(max, (self._size(atom.a), self._size(atom.b)))
        elif atom in self.known:
            found = self.known[atom]()
        else:
            raise GraphError(f"size {atom} is not bound where it is needed")
        self.sizes[atom] = found
        return found

    def _call(self, function: Any, a: Any, b: Any) -> Any:
        neutral = 0 if function is operator.add else 1 if function is operator.mul else None
        if neutral is not None and type(a) is int and a == neutral:
            return b
        if isinstance(a, Node) or isinstance(b, Node):
            return self.graph.call_function(function, (a, b))
        return function(a, b)

    def _bound(self, node: Node, b: Bind) -> Node:
        if b.contents:
            flat = self.graph.call_method("reshape", (node, (-1,)))
            return self.graph.call_method("item", (self.graph.call_function(operator.getitem, (flat, b.axis)),))
        shape = self.graph.call_function(getattr, (node, "shape"))
        return self.graph.call_function(operator.getitem, (shape, b.axis))


def _plain(a: Any) -> bool:
    """Whether an attribute mentions symbols as sizes in tuples at most."""
    if isinstance(a, tuple):
        return all(_plain(v) for v in a)
    return isinstance(a, Dim) or not any(True for _ in dims.symbols_in(a))
