"""A node of a graph of Python calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ...ops.errors import GraphError

if TYPE_CHECKING:
    from .graph import Graph

KINDS = ("placeholder", "get_attr", "call_function", "call_method", "call_module", "output")


class Node:
    """One call, or an input, attribute or output of the graph.

    Attributes:
        graph: whose it is.
        name: of its result; no other node of the graph has it.
        op: `placeholder`, `get_attr`, `call_function`, `call_method`, `call_module` or `output`.
        target: what is called: a function, or the name of an attribute, method, module or argument.
        args, kwargs: what it is called with; nodes stand for their results, in tuples, lists, dicts and slices too.
        users: the nodes that take its result, in order of insertion.
        meta: anything that somebody notes about it.
    """

    def __init__(
        self, graph: Graph, name: str, op: str, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        """Make a node; `Graph.create_node` puts it in its place."""
        if op not in KINDS:
            raise GraphError(f"a node's op is one of {', '.join(KINDS)}; found {op!r}")
        self.graph, self.name, self.op, self.target = graph, name, op, target
        self.users: dict[Node, None] = {}
        self.meta: dict[str, Any] = {}
        self.type: Any = None
        self._args: tuple[Any, ...] = ()
        self._kwargs: dict[str, Any] = {}
        self._inputs: dict[Node, None] = {}
        self._erased = False
        self._set(args, kwargs)

    @property
    def args(self) -> tuple[Any, ...]:
        """The positional arguments."""
        return self._args

    @args.setter
    def args(self, args: tuple[Any, ...]) -> None:
        self._set(tuple(args), self._kwargs)

    @property
    def kwargs(self) -> dict[str, Any]:
        """The keyword arguments."""
        return self._kwargs

    @kwargs.setter
    def kwargs(self, kwargs: dict[str, Any]) -> None:
        self._set(self._args, dict(kwargs))

    def _set(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        for node in self._inputs:
            node.users.pop(self, None)
        self._args, self._kwargs = args, kwargs
        self._inputs = {}
        map_arg((args, kwargs), lambda n: self._inputs.setdefault(n))
        for node in self._inputs:
            node.users.setdefault(self)

    @property
    def all_input_nodes(self) -> list[Node]:
        """The nodes whose results it takes, each once."""
        return list(self._inputs)

    @property
    def next(self) -> Node:
        """The node behind it."""
        return self.graph._beside(self, 1)

    @property
    def prev(self) -> Node:
        """The node before it."""
        return self.graph._beside(self, -1)

    def prepend(self, x: Node) -> None:
        """Move a node to the place before this one."""
        self.graph._move(x, self, 0)

    def append(self, x: Node) -> None:
        """Move a node to the place behind this one."""
        self.graph._move(x, self, 1)

    def update_arg(self, idx: int, arg: Any) -> None:
        """Put another positional argument in the place of one."""
        args = list(self._args)
        args[idx] = arg
        self.args = tuple(args)

    def update_kwarg(self, key: str, arg: Any) -> None:
        """Put another keyword argument in the place of one, or add it."""
        self.kwargs = {**self._kwargs, key: arg}

    def insert_arg(self, idx: int, arg: Any) -> None:
        """Insert a positional argument."""
        self.args = (*self._args[:idx], arg, *self._args[idx:])

    def replace_input_with(self, old_input: Node, new_input: Any) -> None:
        """Take another node's result where one node's was taken."""
        swap: Callable[[Node], Any] = lambda n: new_input if n is old_input else n  # noqa: E731 - one expression
        self._set(map_arg(self._args, swap), map_arg(self._kwargs, swap))

    def replace_all_uses_with(
        self, replace_with: Node, delete_user_cb: Callable[[Node], bool] = lambda user: True
    ) -> list[Node]:
        """Let the users of this node take another node's result; return them.

        Args:
            replace_with: the other node.
            delete_user_cb: which users; all by default.
        """
        users = [u for u in self.users if delete_user_cb(u)]
        for user in users:
            user.replace_input_with(self, replace_with)
        return users

    def is_impure(self) -> bool:
        """Return whether it has to stay though nobody takes its result."""
        return self.op in ("placeholder", "output")

    def format_node(self) -> str:
        """Return a line that describes it."""
        if self.op == "placeholder":
            return f"%{self.name} : [num_users={len(self.users)}] = placeholder[target={self.target}]"
        if self.op == "output":
            return f"return {_shown(self._args[0])}"
        kwargs = "{" + ", ".join(f"{k}: {_shown(v)}" for k, v in self._kwargs.items()) + "}"
        calls = "" if self.op == "get_attr" else f"(args = {_shown(self._args)}, kwargs = {kwargs})"
        return f"%{self.name} : [num_users={len(self.users)}] = {self.op}[target={target_name(self.target)}]{calls}"

    def __repr__(self) -> str:
        """Return its name."""
        return self.name


def map_arg(a: Any, fn: Callable[[Node], Any]) -> Any:
    """Return arguments with fn(node) in the place of each node."""
    return map_aggregate(a, lambda x: fn(x) if isinstance(x, Node) else x)


def map_aggregate(a: Any, fn: Callable[[Any], Any]) -> Any:
    """Return arguments with fn(x) in the place of everything in tuples, lists, dicts and slices."""
    if isinstance(a, tuple):
        made = [map_aggregate(x, fn) for x in a]
        return type(a)(*made) if hasattr(a, "_fields") else tuple(made)
    if isinstance(a, list):
        return [map_aggregate(x, fn) for x in a]
    if isinstance(a, dict):
        return {k: map_aggregate(v, fn) for k, v in a.items()}
    if isinstance(a, slice):
        return slice(*(map_aggregate(x, fn) for x in (a.start, a.stop, a.step)))
    return fn(a)


def target_name(target: Any) -> str:
    """Return what is called, as code names it."""
    if isinstance(target, str):
        return target
    name = getattr(target, "__name__", repr(target))
    module = getattr(target, "__module__", "") or ""
    home = {"_operator": "operator"}.get(module, module)
    for private, public in (
        ("onnxgrad.runtime.nn.functional", "onnxgrad.nn.functional"), ("onnxgrad.runtime.tensor.functions", "onnxgrad"),
        ("onnxgrad.runtime.tensor.creation", "onnxgrad"), ("builtins", ""),
    ):  # fmt: skip
        if home == private or home.startswith(private + "."):
            home = public
    return f"{home}.{name}" if home else name


def _shown(a: Any) -> str:
    if isinstance(a, Node):
        return f"%{a.name}"
    if isinstance(a, tuple):
        return "(" + ", ".join(map(_shown, a)) + ("," if len(a) == 1 else "") + ")"
    if isinstance(a, list):
        return "[" + ", ".join(map(_shown, a)) + "]"
    if isinstance(a, dict):
        return "{" + ", ".join(f"{k}: {_shown(v)}" for k, v in a.items()) + "}"
    return repr(a)
