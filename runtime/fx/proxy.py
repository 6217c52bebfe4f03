"""What stands for a value while a module is traced: what is done with it becomes nodes of a graph."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ...ops.errors import TraceError

if TYPE_CHECKING:
    from .node import Node
    from .tracer import Tracer


class Proxy:
    """The result of a node.

    Attributes:
        node: whose result it stands for.
        tracer: what records.
    """

    is_symbolic = True

    def __init__(self, node: Node, tracer: Tracer) -> None:
        """Stand for the result of a node."""
        self.node, self.tracer = node, tracer

    def __repr__(self) -> str:
        """Return `Proxy(name)`."""
        return f"Proxy({self.node.name})"

    def __getattr__(self, name: str) -> Attribute:
        """Record that an attribute is read, or a method called."""
        if name.startswith("_"):
            raise AttributeError(f"a traced value has no attribute {name!r}")
        return Attribute(self, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Proxy:
        """Record that it is called."""
        return self.tracer.create_proxy("call_method", "__call__", (self, *args), kwargs)

    def __getitem__(self, index: Any) -> Proxy:
        """Record that it is indexed."""
        return self.tracer.create_proxy("call_function", operator.getitem, (self, index), {})

    def __setitem__(self, index: Any, value: Any) -> None:
        """Record that a part is overwritten."""
        self.tracer.create_proxy("call_function", operator.setitem, (self, index, value), {})

    def __bool__(self) -> bool:
        """Refuse: which way Python goes would be frozen."""
        raise TraceError(
            f"{self!r}: symbolically traced variables cannot be used as inputs to control flow; what it is will be "
            "known only when the graph runs. Choose with og.where, or make the module a leaf (Tracer.is_leaf_module)"
        )

    def __iter__(self) -> Iterator[Any]:
        """Refuse: how many there are will be known only when the graph runs."""
        raise TraceError(
            f"{self!r}: a traced value cannot be iterated, how many parts it has is known only when the graph runs; "
            "index it, or make the module a leaf (Tracer.is_leaf_module)"
        )

    def __len__(self) -> int:
        """Refuse: the length is a number that only running brings."""
        raise TraceError(f"{self!r}: 'len' of a traced value is known only when the graph runs; use x.size(0)")


class Attribute(Proxy):
    """An attribute of a traced value; a node of its own only where it is used otherwise than by a call."""

    def __init__(self, root: Proxy, attr: str) -> None:
        """Name an attribute."""
        self.root, self.attr, self.tracer = root, attr, root.tracer
        self._node: Node | None = None

    @property
    def node(self) -> Node:  # type: ignore[override]
        """The node that reads it."""
        if self._node is None:
            self._node = self.tracer.create_proxy("call_function", getattr, (self.root, self.attr), {}).node
        return self._node

    def __call__(self, *args: Any, **kwargs: Any) -> Proxy:
        """Record the call of the method."""
        return self.tracer.create_proxy("call_method", self.attr, (self.root, *args), kwargs)


def _forward(function: Any) -> Any:
    def method(self: Proxy, *args: Any) -> Proxy:
        return self.tracer.create_proxy("call_function", function, (self, *args), {})

    return method


def _backward(function: Any) -> Any:
    def method(self: Proxy, other: Any) -> Proxy:
        return self.tracer.create_proxy("call_function", function, (other, self), {})

    return method


_BINARY = "add sub mul truediv floordiv mod pow matmul and_ or_ xor lshift rshift"
_UNARY = "lt le gt ge eq ne neg pos invert abs"
for _name in _BINARY.split():
    _plain = _name.rstrip("_")
    setattr(Proxy, f"__{_plain}__", _forward(getattr(operator, _name)))
    setattr(Proxy, f"__r{_plain}__", _backward(getattr(operator, _name)))
for _name in _UNARY.split():
    setattr(Proxy, f"__{_name}__", _forward(getattr(operator, _name)))
Proxy.__hash__ = object.__hash__  # type: ignore[method-assign]
