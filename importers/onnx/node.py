"""One ONNX node as a binding sees it: its attributes, tracked, and its place in the file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...ops.dims import Dim
from ...ops.errors import UnsupportedAttributeError
from ...ops.types import ValueType
from ...runtime.graph.body import Body

if TYPE_CHECKING:
    import onnx

ANNOTATIONS = frozenset({"doc_string", "description", "onnx_name"})
"""Attributes that say nothing about the computation."""


class NodeView:
    """A node, with every read of an attribute noted.

    Attributes:
        op_type, domain, since_version: the key of its binding; the domain `ai.onnx` is the empty one.
        name: the node's name, made of its first output where the file gives none.
        outputs: the names of its outputs; "" is one that is left out.
        opset: the version of the domain that the model imports.
        batch: the symbol that stands for a leading input size of 1, if there is one.
    """

    def __init__(
        self,
        proto: onnx.NodeProto,
        *,
        since_version: int,
        opset: int,
        make_body: Callable[[onnx.GraphProto, str, Sequence[ValueType] | None], Body] | None = None,
        inline: Callable[[onnx.GraphProto], tuple[Any, ...]] | None = None,
        read: Callable[[onnx.TensorProto], Any] | None = None,
        find: Callable[[str], Any] | None = None,
    ) -> None:
        """View a node; only the importer does."""
        self.proto = proto
        self.op_type: str = proto.op_type
        self.domain: str = "" if proto.domain == "ai.onnx" else proto.domain
        self.since_version, self.opset = since_version, opset
        self.batch: Dim | None = None
        self.outputs: list[str] = list(proto.output)
        self.name: str = proto.name or f"{proto.op_type}({next(iter(proto.output), '')})"
        self._attributes = {a.name: a for a in proto.attribute}
        self._read: set[str] = set()
        self._make_body, self._inline, self._read_tensor, self._find = make_body, inline, read, find

    def has(self, name: str) -> bool:
        """Whether the node carries an attribute."""
        return name in self._attributes

    def attr(self, name: str, default: Any = None) -> Any:
        """Return an attribute as a Python value: int, float, str, a list of them, an array, or a TypeProto.

        Strings are text where they are UTF-8, else bytes.
        """
        self._read.add(name)
        a = self._attributes.get(name)
        if a is None:
            return default
        return self._value(a)

    def _value(self, a: onnx.AttributeProto) -> Any:
        import onnx

        kind = onnx.AttributeProto
        match a.type:
            case kind.INT:
                return a.i
            case kind.FLOAT:
                return float(np.float32(a.f))
            case kind.STRING:
                return _text(a.s)
            case kind.INTS:
                return list(a.ints)
            case kind.FLOATS:
                return list(a.floats)
            case kind.STRINGS:
                return [_text(s) for s in a.strings]
            case kind.TYPE_PROTO:
                return a.tp
            case kind.TENSOR:
                from .tensors import to_array

                return self._read_tensor(a.t) if self._read_tensor else to_array(a.t)
        name = kind.AttributeType.Name(a.type)
        raise UnsupportedAttributeError(f"{self}: attribute {a.name!r} of kind {name} is not understood")

    def body(self, name: str, types: Sequence[ValueType] | None = None) -> Body:
        """Return a subgraph attribute as a body that can be called; outer values that it uses are its captures.

        Args:
            name: the attribute.
            types: of its inputs; those that the file declares by default.
        """
        assert self._make_body is not None
        return self._make_body(self._subgraph(name), f"{self.name}.{name}", types)

    def inline(self, name: str) -> tuple[Any, ...]:
        """Translate a subgraph attribute that has no inputs in place, and return its outputs."""
        assert self._inline is not None
        return self._inline(self._subgraph(name))

    def find(self, name: str) -> Any:
        """Return the value of a name that is in reach of the node."""
        assert self._find is not None
        return self._find(name)

    def _subgraph(self, name: str) -> onnx.GraphProto:
        self._read.add(name)
        if name not in self._attributes:
            raise UnsupportedAttributeError(f"{self}: the subgraph attribute {name!r} is missing")
        found: onnx.GraphProto = self._attributes[name].g
        return found

    def one_of(self, name: str, default: str, allowed: Sequence[str]) -> str:
        """Return a string attribute that has to be one of these.

        Raises:
            UnsupportedAttributeError: if it is another.
        """
        value: str = self.attr(name, default)
        if value not in allowed:
            raise UnsupportedAttributeError(f"{self}: {name} is {value!r}, wanted one of {list(allowed)}")
        return value

    def ignore(self, *names: str) -> None:
        """Note attributes that change nothing here."""
        self._read.update(names)

    def unread(self) -> list[str]:
        """Return the attributes that the binding did not read."""
        return sorted(set(self._attributes) - self._read - ANNOTATIONS)

    def __str__(self) -> str:
        """Return `Conv-11 'layer1/conv1'`, with the domain where it is not the standard one."""
        domain = f"{self.domain}::" if self.domain else ""
        return f"{domain}{self.op_type}-{self.since_version} {self.name!r}"


def _text(s: bytes) -> str | bytes:
    try:
        return s.decode()
    except UnicodeDecodeError:
        return s
