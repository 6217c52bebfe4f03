"""ModelProto to Graph: every node through its binding, initializers to parameters, buffers and constants."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ...ops.dims import Dim, symbols_in
from ...ops.errors import (
    InvalidGraphError,
    LoadError,
    OnnxGradError,
    SymbolicError,
    UnsupportedOperatorError,
)
from ...ops.types import Array, TensorType, ValueType, is_float
from ...runtime.graph.body import Body
from ...runtime.graph.graph import Graph, Value
from ...runtime.model.report import Role
from ...runtime.tensor.stored import StoredArray
from . import ops as _bindings
from .check import check_functions, sorted_nodes
from .late import postponed
from .node import NodeView
from .read import Weights, densify
from .registry import BINDINGS, bound_versions, translate
from .schemas import check_opset, schema_function, since_version
from .signature import check_node
from .types import value_type
from .weights import Roles

if TYPE_CHECKING:
    import onnx

assert _bindings

DEPTH_LIMIT = 64
"""Nesting of subgraphs and functions beyond which a file is refused."""


@dataclass
class Scope:
    """The names that one graph or function body defines."""

    graph: Graph
    values: dict[str, Value | None] = field(default_factory=dict)
    parent: Scope | None = None
    opsets: dict[str, int] = field(default_factory=dict)
    attributes: dict[str, Any] = field(default_factory=dict)
    prefix: str = ""
    depth: int = 0

    def find(self, name: str) -> Value:
        """Return the value of a name, here or in an enclosing graph."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope.values:
                value = scope.values[name]
                if value is None:
                    raise InvalidGraphError(f"{name!r} is an optional input that was left out")
                return value
            scope = scope.parent
        raise InvalidGraphError(f"nothing defines {name!r}")

    def names(self) -> frozenset[str]:
        """Return every name in reach."""
        return frozenset(self.values) | (self.parent.names() if self.parent else frozenset())


@dataclass
class Imported:
    """A translated model.

    Attributes:
        arrays: the data of parameters, buffers and constants by name.
        places: the TensorProto that each of them came from.
        roles: what each tensor of the file is.
        batch: the symbol that stands for leading input sizes of 1, if it does.
    """

    graph: Graph
    arrays: dict[str, Array | StoredArray]
    places: dict[str, Any]
    roles: dict[str, Role]
    batch: Dim | None


class Translator:
    """Translates one model; `run` does it.

    Args:
        weights: the model as it was read.
        free_batch: treat a leading input size of 1 as the symbol `batch`, where no input has a symbol there already.
        replaced: arrays to use instead of the file's, by tensor name.
    """

    def __init__(self, weights: Weights, *, free_batch: bool = True, replaced: dict[str, Array] | None = None) -> None:
        """Prepare to translate; see the class for the arguments."""
        self.weights = weights
        self.model = weights.proto
        self.free_batch = free_batch
        self.replaced = replaced or {}
        self.roles = Roles(self.model)
        self.found_roles: dict[str, Role] = {}
        self.arrays: dict[str, Array | StoredArray] = {}
        self.places: dict[str, Any] = {}
        self.functions = {
            (f.domain if f.domain != "ai.onnx" else "", f.name, getattr(f, "overload", "")): f
            for f in self.model.functions
        }
        self.batch: Dim | None = None
        self.root = Graph(self.model.graph.name or "main")

    def run(self) -> Imported:
        """Translate the main graph.

        Raises:
            LoadError: if a part of it is not understood; unsupported operators are all named at once.
        """
        opsets = {("" if o.domain == "ai.onnx" else o.domain): int(o.version) for o in self.model.opset_import}
        check_opset(opsets.get("", 1), "the model")
        check_functions(self.model.graph.node, {key[:2]: f for key, f in self.functions.items()})
        self._refuse_unsupported(opsets)
        scope = Scope(self.root, opsets=opsets)
        proto = self.model.graph
        with self.root.building():
            initializers = {t.name for t in proto.initializer} | {t.values.name for t in proto.sparse_initializer}
            infos = [info for info in proto.input if info.name not in initializers]
            types = [value_type(info.type, info.name) for info in infos]
            for info, type_ in zip(infos, self._freed(types) if self.free_batch else types, strict=True):
                if info.name in scope.values:
                    raise InvalidGraphError(f"two graph inputs are named {info.name!r}")
                scope.values[info.name] = self.root.input(info.name, type_)
            self._graph(proto, scope)
            self.root.outputs = [scope.find(o.name) for o in proto.output]
        self.root.verify()
        return Imported(self.root, self.arrays, self.places, self.found_roles, self.batch)

    def _graph(self, proto: onnx.GraphProto, scope: Scope) -> None:
        seen: set[str] = set()
        for t in proto.initializer:
            if t.name in seen:
                raise InvalidGraphError(f"two initializers are named {t.name!r}")
            seen.add(t.name)
            scope.values[t.name] = self._tensor(t.name, t, self.weights.find(t))
        for sparse in proto.sparse_initializer:
            scope.values[sparse.values.name] = self._tensor(sparse.values.name, None, densify(sparse))
        outer = scope.parent.names() if scope.parent else frozenset()
        self._nodes(sorted_nodes(proto.node, scope.values, outer, proto.name or "main"), scope)
        for o in proto.output:
            if o.name not in scope.names():
                raise InvalidGraphError(f"graph {proto.name!r}: output {o.name!r} is never defined")

    def _tensor(self, name: str, place: Any, given: Array | StoredArray) -> Value:
        """Return a tensor of the file as a parameter, a buffer or a constant."""
        array: Any = self.replaced.get(name, given)
        if place is not None and self.places.get(name) is place and name in self.root.state:
            return self.root.state[name]
        role = self.roles.role(name, array)
        if name in self.found_roles and name in self.root.state:
            name = self._unused(name)
        self.found_roles[name] = role
        constant = role.kind == "constant" or not is_float(array.dtype)
        if constant and isinstance(array, StoredArray):
            array = array.read()
        self.arrays[name], self.places[name] = array, place
        if constant:
            return self.root.constant(array, name)
        return self.root.add_state(name, TensorType(array.dtype, tuple(array.shape)))

    def _unused(self, name: str) -> str:
        k = 1
        while f"{name}.{k}" in self.root.state:
            k += 1
        return f"{name}.{k}"

    def _nodes(self, nodes: Iterable[onnx.NodeProto], scope: Scope) -> None:
        for proto in nodes:
            self._node(proto, scope)

    def _node(self, proto: onnx.NodeProto, scope: Scope) -> None:
        proto = self._resolved(proto, scope)
        domain = "" if proto.domain == "ai.onnx" else proto.domain
        inputs = tuple(self._input(name, scope) for name in proto.input)
        function = self.functions.get((domain, proto.op_type, getattr(proto, "overload", "")))
        if function is not None:
            self._bind_outputs(proto, self._call(function, proto, inputs, scope), scope)
            return
        opset = scope.opsets.get(domain, 1)
        version = since_version(domain, proto.op_type, opset)
        if (
            domain == ""
            and proto.op_type == "Constant"
            and not scope.prefix
            and (t := _value_tensor(proto)) is not None
        ):
            scope.values[proto.output[0]] = self._tensor(proto.output[0], t, self.weights.read(t))
            return
        view = NodeView(
            proto, since_version=version, opset=opset,
            make_body=lambda g, name, types: self._body(g, name, types, scope),
            inline=lambda g: self._inlined(g, scope), read=self.weights.read, find=scope.find,
        )  # fmt: skip
        view.name, view.batch = scope.prefix + view.name, self.batch
        graph = scope.graph
        before, outer_source = len(graph.nodes), graph.source
        graph.source = view
        try:
            check_node(view, inputs)
            if (domain, proto.op_type, version) not in BINDINGS and (
                body := schema_function(domain, proto, opset)
            ) is not None:
                results = self._call(body, proto, inputs, scope)
            else:
                results = self._translated(view, inputs, graph)
        except OnnxGradError as error:
            if (located := _at(view, error)) is error:
                raise
            raise located from error
        except (TypeError, ValueError, IndexError, KeyError, AttributeError) as error:
            raise LoadError(f"{view}: its inputs or attributes are not as the operator wants them: {error}") from error
        finally:
            graph.source = outer_source
        for node in graph.nodes[before:]:
            node.name = node.name or view.name
        self._bind_outputs(proto, results, scope)

    def _translated(self, view: NodeView, inputs: tuple[Value | None, ...], graph: Graph) -> tuple[Any, ...]:
        """Translate a node, or postpone it until run time says the ranks that its binding asks for."""
        before = len(graph.nodes)
        try:
            return translate(view, inputs)
        except SymbolicError:
            if any(a.HasField("g") for a in view.proto.attribute):
                raise
            del graph.nodes[before:]
            return postponed(view, inputs)

    def _bind_outputs(self, proto: onnx.NodeProto, results: tuple[Any, ...], scope: Scope) -> None:
        if len(results) < len([o for o in proto.output if o]):
            raise InvalidGraphError(
                f"{proto.op_type} {proto.name!r} gives {len(results)} outputs, the graph names {list(proto.output)}"
            )
        for name, value in zip(proto.output, results, strict=False):
            if not name:
                continue
            if isinstance(value, Value) and value.node is not None and not getattr(value, "named", False):
                value.name, value.named = scope.prefix + name, True
            scope.values[name] = value

    def _input(self, name: str, scope: Scope) -> Value | None:
        if not name:
            return None
        s: Scope | None = scope
        while s is not None:
            if name in s.values:
                return s.values[name]
            s = s.parent
        raise InvalidGraphError(f"nothing defines {name!r}")

    def _inlined(self, proto: onnx.GraphProto, outer: Scope) -> tuple[Any, ...]:
        """Translate a subgraph without inputs into the graph around it."""
        scope = Scope(
            outer.graph, parent=outer, opsets=outer.opsets, attributes=outer.attributes, prefix=outer.prefix,
            depth=outer.depth + 1,
        )  # fmt: skip
        self._graph(proto, scope)
        return tuple(scope.find(o.name) for o in proto.output)

    def _body(self, proto: onnx.GraphProto, name: str, types: Sequence[ValueType] | None, outer: Scope) -> Body:
        """Translate a subgraph into a body, its inputs of these types or of those that the file declares."""
        if outer.depth >= DEPTH_LIMIT:
            raise LoadError(f"{name}: subgraphs are nested more than {DEPTH_LIMIT} deep")
        graph = outer.graph.body(name)
        scope = Scope(
            graph,
            parent=outer,
            opsets=outer.opsets,
            attributes=outer.attributes,
            prefix=outer.prefix,
            depth=outer.depth + 1,
        )
        with graph.building():
            declared = [value_type(info.type, None) for info in proto.input]
            given = declared if types is None else types
            if len(given) != len(declared):
                raise InvalidGraphError(f"{name}: the subgraph has {len(declared)} inputs, the node gives {len(given)}")
            for info, type_, stated in zip(proto.input, given, declared, strict=True):
                loose = isinstance(type_, TensorType) and type_.known_shape is None
                scope.values[info.name] = graph.input(
                    info.name, stated if loose and info.type.HasField("tensor_type") else type_
                )
            self._graph(proto, scope)
            graph.outputs = [graph.own(scope.find(o.name)) for o in proto.output]
        return Body(graph)

    def _call(
        self, function: onnx.FunctionProto, call: onnx.NodeProto, inputs: tuple[Any, ...], outer: Scope
    ) -> tuple[Any, ...]:
        """Inline a function: its inputs are the call's, its attribute references the call's attributes."""
        if outer.depth >= DEPTH_LIMIT:
            raise LoadError(f"functions call each other more than {DEPTH_LIMIT} deep, at {function.name}")
        if len(inputs) > len(function.input):
            raise InvalidGraphError(
                f"{call.op_type} {call.name!r}: the function takes {len(function.input)} inputs, found {len(inputs)}"
            )
        given = {a.name: a for a in call.attribute}
        attributes = {a.name: a for a in function.attribute_proto} | {n: given[n] for n in given}
        opsets = {("" if o.domain == "ai.onnx" else o.domain): int(o.version) for o in function.opset_import}
        label = call.name or next(iter(call.output), function.name)
        scope = Scope(
            outer.graph, opsets=opsets or outer.opsets, attributes=attributes, prefix=f"{outer.prefix}{label}/",
            depth=outer.depth + 1,
        )  # fmt: skip
        padded = (*inputs, *([None] * (len(function.input) - len(inputs))))
        scope.values.update(zip(function.input, padded, strict=True))
        self._nodes(sorted_nodes(function.node, scope.values, frozenset(), function.name), scope)
        return tuple(scope.find(o) for o in function.output)

    def _resolved(self, proto: onnx.NodeProto, scope: Scope) -> onnx.NodeProto:
        """Return the node with references to attributes of the enclosing function replaced by their values."""
        if not any(a.ref_attr_name for a in proto.attribute):
            return proto
        out = type(proto)()
        out.CopyFrom(proto)
        del out.attribute[:]
        for a in proto.attribute:
            if not a.ref_attr_name:
                out.attribute.append(a)
            elif a.ref_attr_name in scope.attributes:
                given = out.attribute.add()
                given.CopyFrom(scope.attributes[a.ref_attr_name])
                given.name = a.name
        return out

    def _freed(self, types: list[ValueType]) -> list[ValueType]:
        """Return input types with a symbol for leading sizes of 1; as they are where an input has a symbol there."""
        shapes = [t.known_shape or () for t in types if isinstance(t, TensorType)]
        if any(shape and isinstance(shape[0], Dim) for shape in shapes):
            return types
        taken = set(symbols_in(tuple(shapes)))
        symbol = Dim.symbol(next((n for n in ("batch", "batch_size") if n not in taken), "batch of one"))

        def one(t: ValueType) -> ValueType:
            shape = t.known_shape if isinstance(t, TensorType) else None
            if not isinstance(t, TensorType) or shape is None or len(shape) < 2 or shape[0] != 1:
                return t
            self.batch = symbol
            return TensorType(t.dtype, (symbol, *shape[1:]))

        return [one(t) for t in types]

    def _refuse_unsupported(self, opsets: dict[str, int]) -> None:
        """Name every operator that has no binding, at once, with its version and where it stands."""
        missing: dict[str, list[str]] = {}

        def visit(nodes: Iterable[onnx.NodeProto], versions: dict[str, int]) -> None:
            for proto in nodes:
                domain = "" if proto.domain == "ai.onnx" else proto.domain
                known = (domain, proto.op_type, getattr(proto, "overload", "")) in self.functions
                version = since_version(domain, proto.op_type, versions.get(domain, 1))
                known = known or (domain, proto.op_type, version) in BINDINGS
                if not known and schema_function(domain, proto, versions.get(domain, 1)) is None:
                    key = f"{domain + '::' if domain else ''}{proto.op_type}-{version}"
                    missing.setdefault(key, []).append(proto.name or next(iter(proto.output), ""))
                for a in proto.attribute:
                    for g in ([a.g] if a.HasField("g") else []) + list(a.graphs):
                        visit(g.node, versions)

        visit(self.model.graph.node, opsets)
        for f in self.model.functions:
            visit(f.node, {("" if o.domain == "ai.onnx" else o.domain): int(o.version) for o in f.opset_import})
        if missing:
            lines = []
            for key, nodes in sorted(missing.items()):
                domain, _, op_type = key.rpartition("-")[0].rpartition("::")
                bound = bound_versions(domain, op_type)
                more = f" and {len(nodes) - 1} more" if len(nodes) > 1 else ""
                lines.append(f"  {key} at node {nodes[0]!r}{more}" + (f"; bound: {bound}" if bound else ""))
            raise UnsupportedOperatorError("operators that onnxgrad does not have:\n" + "\n".join(lines))


def _at(view: NodeView, error: OnnxGradError) -> OnnxGradError:
    if getattr(error, "located", False):
        return error
    message = str(error)
    located = type(error)(message if str(view) in message else f"{view}: {message}")
    located.located = True  # type: ignore[attr-defined]
    return located


def _value_tensor(proto: onnx.NodeProto) -> onnx.TensorProto | None:
    for a in proto.attribute:
        if a.name == "value" and a.HasField("t"):
            found: onnx.TensorProto = a.t
            return found
    return None
