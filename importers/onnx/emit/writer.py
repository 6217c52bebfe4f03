"""The writer: a graph of canonical ops, node by node, as ONNX nodes.

While it writes, values have provisional names; `names.py` gives the final ones, once what nobody reads is gone.
"""

from __future__ import annotations

import itertools
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ....ops.dims import DimLike
from ....ops.errors import OnnxGradError, SaveError, SymbolicError
from ....ops.pointwise import Pointwise
from ....ops.types import STRING, Array, DType, TensorType, ValueType
from ....runtime.graph.body import Body
from ....runtime.graph.graph import Graph, Node, Value
from ....runtime.passes.drop_dead import drop_dead
from ....runtime.passes.fold_constants import fold_constants
from ....runtime.passes.matching import reader_counts
from ....runtime.passes.rewriting import run_passes
from ....runtime.tracing.module import Scope
from ..tensors import to_proto
from .patterns import Found, found_in
from .registry import EMITTERS, EXPANSIONS
from .sizes import Sizes

if TYPE_CHECKING:
    import onnx

INITIALIZER_BYTES = 1 << 16
"""Constants of at least this many bytes become initializers, smaller ones Constant nodes."""

_EQUAL_BYTES = 4096


@dataclass(eq=False)
class Inner:
    """A body of control flow, written.

    Attributes:
        inputs, outputs: their provisional names, and their types.
    """

    name: str
    lines: list[Line]
    inputs: list[tuple[str, ValueType]]
    outputs: list[tuple[str, ValueType]]


@dataclass(eq=False)
class Line:
    """An ONNX node, with where it comes from.

    Attributes:
        source: of the graph's node that it is part of: a `Scope`, the view of an imported node, or None.
        wanted: the name that each of its outputs had in the graph, where it had one of its own.
        bodies: those that it has, by attribute.
    """

    proto: onnx.NodeProto
    source: Any
    wanted: list[str]
    bodies: dict[str, Inner] = field(default_factory=dict)

    def reads(self) -> Iterator[str]:
        """Yield what it reads, and what its bodies read of what is around them."""
        yield from self.proto.input
        for body in self.bodies.values():
            for line in body.lines:
                yield from line.reads()
            yield from (name for name, _ in body.outputs)


class Writer:
    """Writes a graph, or a list of nodes whose inputs have names.

    Attributes:
        opset: the version of the operator set.
        lines: the ONNX nodes so far.
        tensors: large constants, by provisional name.
        types: of the names that stand for values of the graph.
        sizes: what writes sizes that only run time knows.
        node: the graph's node that is being written.
        results: the names that outputs have so far.
    """

    def __init__(self, opset: int, outer: Writer | None = None) -> None:
        """Start with nothing written; a body of control flow starts with what is known around it."""
        self.opset = opset
        self.lines: list[Line] = []
        self.types: dict[str, TensorType] = {}
        self.node: Node
        self.results: list[str] = []
        self._makers: dict[str, tuple[Line, int]] = {}
        self.tensors: dict[str, Array] = {} if outer is None else outer.tensors
        self.sizes: Sizes = Sizes(self) if outer is None else outer.sizes.inside(self)
        self._source: Any = None if outer is None else outer._source
        self._names: dict[Value, str] = {} if outer is None else dict(outer._names)
        self._count: Iterator[int] = itertools.count(1) if outer is None else outer._count
        self._constants: dict[Any, str] = {} if outer is None else dict(outer._constants)

    # names -------------------------------------------------------------------------------------------------------

    def fresh(self) -> str:
        """Return a provisional name."""
        return f"%{next(self._count)}"

    def bind(self, value: Value, name: str) -> None:
        """Say which name stands for a value of the graph."""
        self._names[value] = name
        made = self._makers.get(name)
        constant = made is not None and made[0].proto.op_type == "Constant"
        if isinstance(value.type, TensorType) and name not in self.types and not constant:
            self.types[name] = value.type
            self.sizes.note(name, value.type)
        if value.named and made is not None:
            line, index = made
            line.wanted[index] = line.wanted[index] or value.name

    def name(self, x: Any) -> str:
        """Return the name of a value, an array, or a name; nothing for None."""
        if isinstance(x, str):
            return x
        if x is None:
            return ""
        if isinstance(x, Value):
            found = self._names.get(x)
            return self.constant(x.array) if found is None and x.is_constant else self._names[x]
        if hasattr(x, "dtype"):
            return self.constant(np.asarray(x))
        raise TypeError(f"{self.node!r}: a {type(x).__name__} among tensors; use `number`")

    # what emitters call ------------------------------------------------------------------------------------------

    def add(
        self, op_type: str, *inputs: Any, outputs: int = 1, domain: str = "", bodies: dict[str, Inner] | None = None,
        **attrs: Any,
    ) -> Any:  # fmt: skip
        """Add an ONNX node, and return the name of its output, or a tuple of names.

        Args:
            op_type: the operator.
            inputs: Values, arrays, names, or None for one that is left out.
            outputs: how many.
            domain: of the operator.
            bodies: attributes that are graphs, from `body`.
            attrs: attributes; None leaves one out.
        """
        from onnx import helper

        ins = [self.name(x) for x in inputs]
        while ins and not ins[-1]:
            ins.pop()
        outs = [self.fresh() for _ in range(outputs)]
        given: dict[str, Any] = {k: int(v) if isinstance(v, bool) else v for k, v in attrs.items() if v is not None}
        proto = helper.make_node(op_type, ins, outs, domain=domain, **given)
        line = Line(proto, self._source, [""] * outputs, bodies or {})
        self.lines.append(line)
        self._makers.update((name, (line, i)) for i, name in enumerate(outs))
        return outs[0] if outputs == 1 else tuple(outs)

    def constant(self, array: Array) -> str:
        """Return the name of a constant.

        Raises:
            SaveError: if it is neither numbers nor text.
        """
        array = np.asarray(array)
        if array.dtype == STRING and not all(isinstance(v, str) for v in array.reshape(-1)):
            raise SaveError(self._no_form(self.node, "a constant of it is no tensor"))
        small = array.nbytes <= _EQUAL_BYTES and array.dtype != object
        key = (str(array.dtype), array.shape, array.tobytes()) if small else id(array)
        found = self._constants.get(key)
        if found is None:
            if array.nbytes >= INITIALIZER_BYTES:
                found = self.fresh()
                self.tensors[found] = array
            else:
                found = self.add("Constant", value=to_proto(array, ""))
            self._constants[key] = found
        return found

    def number(self, value: float, dtype: Any) -> str:
        """Return the name of a constant of one number."""
        return self.constant(np.asarray(value).astype(np.dtype(dtype)))

    def ints(self, values: Iterable[DimLike]) -> str:
        """Return the name of a vector of integers (int64), which may be sizes that only run time knows."""
        return self.sizes.vector(tuple(values))

    def cast(self, x: Any, dtype: Any, found: DType | None = None) -> str:
        """Return x in another element type; `found` is its own, where x is a name."""
        own = x.dtype if hasattr(x, "dtype") else found
        return self.name(x) if own is not None and own == np.dtype(dtype) else self.add("Cast", x, to=elem_type(dtype))

    def body(self, body: Body, captures: Sequence[Any]) -> Inner:
        """Return a body of control flow, written; what it captures keeps the name that it has here."""
        graph = body.graph
        inner = Writer(self.opset, self)
        inputs = [(inner.fresh(), v.type) for v in graph.inputs]
        for v, (name, _) in zip(graph.inputs, inputs, strict=True):
            inner.bind(v, name)
        for (_, v), a in zip(graph.captures, captures, strict=True):
            inner._names[v] = self.name(a)
        inner.write(graph.nodes, reader_counts(graph))
        outputs = [(inner.result(v, ()), v.type) for v in graph.outputs]
        return Inner(graph.name, inner.lines, inputs, outputs)

    def result(self, value: Value, fixed: Container[str]) -> str:
        """Return the name of a value as an output: a node of this writer makes it, and no other output has it."""
        name = self.name(value)
        if name in fixed or name in self.results or name not in self._makers:
            name = str(self.add("Identity", name))
        self.results.append(name)
        return name

    @property
    def out(self) -> TensorType:
        """The type of the first output of the node that is being written."""
        return self.node.outputs[0].tensor_type

    # graphs ------------------------------------------------------------------------------------------------------

    def write(self, nodes: Iterable[Node], read: Mapping[Value, int]) -> None:
        """Write nodes in order; what they read has names or is constant.

        Args:
            nodes: the nodes.
            read: how often each value is read.

        Raises:
            SaveError: if one of them has no form in ONNX.
        """
        listed = list(nodes)
        patterns = found_in(listed, read, self.opset)
        for node in listed:
            outer = self._source
            self._source = outer if node.source is None else node.source
            self.node = node
            made = self._written(node, patterns.get(node))
            for value, name in zip(node.outputs, made if isinstance(made, tuple) else (made,), strict=True):
                self.bind(value, name)
            self._source = outer

    def _written(self, node: Node, pattern: Found | None) -> Any:
        if pattern is not None:
            return pattern.write(self)
        emitter = EMITTERS.get(node.op.name)
        made = None
        try:
            if emitter is not None:
                made = emitter(self, *node.args, **node.attrs)
        except SymbolicError as error:
            raise SaveError(self._no_form(node, str(error))) from error
        if made is None and isinstance(node.op, Pointwise) and node.op.expression is not None:
            from .expression import write_expression

            made = write_expression(self, node)
        return self._expanded(node) if made is None else made

    def _expanded(self, node: Node) -> Any:
        """Write a node as what its op consists of."""
        f = EXPANSIONS.get(node.op.name, node.op.composition)
        if f is None:
            raise SaveError(self._no_form(node, "it has no ONNX form here"))
        inner = Graph(node.op.name)
        outside: list[Value] = []

        def inside(a: Any) -> Any:
            if isinstance(a, list):
                return [inside(v) for v in a]
            if not isinstance(a, Value) or a.is_constant:
                return a
            outside.append(a)
            return inner.input(a.name, a.type)

        try:
            with inner.building():
                args = [inside(a) for a in node.args]
                made = f(*args, **node.attrs)
        except SaveError:
            raise
        except (OnnxGradError, TypeError, ValueError, AttributeError) as error:
            raise SaveError(self._no_form(node, f"what it consists of hangs on run time ({error})")) from error
        results = made if isinstance(made, tuple | list) else (made,)
        inner.outputs = [v if isinstance(v, Value) else inner.constant(np.asarray(v)) for v in results]
        graph = run_passes(inner, (fold_constants, drop_dead)).graph
        for value, old in zip(graph.inputs, outside, strict=True):
            self._names[value] = self.name(old)
        self.write(graph.nodes, reader_counts(graph))
        self.node = node
        names = tuple(self.name(v) for v in graph.outputs)
        return names if node.several else names[0]

    def _no_form(self, node: Node, why: str) -> str:
        source = self._source
        where = f" in {source}" if isinstance(source, Scope) else f" at {source.name!r}" if source is not None else ""
        return (
            f"op {node.op.name!r}{where} cannot be written as ONNX opset {self.opset}: {why}. Write the layer with "
            "other ops, or register how the op is written: onnxgrad.importers.onnx.emit.registry.emits"
        )


def elem_type(dtype: Any) -> int:
    """Return ONNX's number of an element type."""
    from onnx import TensorProto, helper

    d = np.dtype(dtype)
    return int(TensorProto.STRING) if d == STRING else int(helper.np_dtype_to_tensor_dtype(d))
