"""Running a graph node by node: subclasses see, time or change what each node does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ...ops.errors import GraphError, InputError
from .graph import Graph, attribute
from .node import Node, map_arg

if TYPE_CHECKING:
    from ..nn.module import Module
    from .graph_module import GraphModule


class Interpreter:
    """Runs a graph; override `run_node`, or what it calls for one kind of node.

    Args:
        module: whose graph runs, and whose attributes and submodules it names.
        garbage_collect_values: forget results as soon as nobody takes them any more.
        graph: another graph than the module's.

    Attributes:
        env: the results that are there, by node.
    """

    def __init__(self, module: Module, garbage_collect_values: bool = True, graph: Graph | None = None) -> None:
        self.module = module
        self.graph: Graph = module.graph if graph is None else graph
        self.submodules = dict(module.named_modules())
        self.env: dict[Node, Any] = {}
        self.garbage_collect_values = garbage_collect_values
        self._inputs: Iterator[Any] = iter(())
        self._kwargs: dict[str, Any] = {}

    def run(self, *args: Any, initial_env: dict[Node, Any] | None = None, **kwargs: Any) -> Any:
        """Run the graph on arguments.

        Args:
            args: for the placeholders, in order.
            initial_env: results that are there already.
            kwargs: for placeholders by name.

        Raises:
            InputError: if an input is missing or there are too many.
        """
        self.env = dict(initial_env or {})
        self._inputs, self._kwargs = iter(args), dict(kwargs)
        last = self._last_uses() if self.garbage_collect_values else {}
        for node in self.graph.nodes:
            if node in self.env:
                continue
            self.env[node] = self.run_node(node)
            if node.op == "output":
                if self._kwargs or next(self._inputs, self) is not self:
                    raise InputError(
                        f"the graph takes {[n.target for n in self.graph.find_nodes(op='placeholder')]}; found more"
                        + (f": {sorted(self._kwargs)}" if self._kwargs else "")
                    )
                return self.env.pop(node)
            for done in last.get(node, ()):
                self.env.pop(done, None)
        return None

    def _last_uses(self) -> dict[Node, list[Node]]:
        last: dict[Node, Node] = {}
        for node in self.graph.nodes:
            for taken in node.all_input_nodes:
                last[taken] = node
        found: dict[Node, list[Node]] = {}
        for taken, user in last.items():
            found.setdefault(user, []).append(taken)
        return found

    def run_node(self, n: Node) -> Any:
        """Run one node; subclasses override this to see every node."""
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        return getattr(self, n.op)(n.target, args, kwargs)

    def placeholder(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the next argument.

        Raises:
            InputError: if there is none, and no default.
        """
        if target in self._kwargs:
            return self._kwargs.pop(target)
        missing = object()
        found = next(self._inputs, missing)
        if found is not missing:
            return found
        if args:
            return args[0]
        raise InputError(f"Expected positional argument for parameter {target}, but one was not passed in!")

    def get_attr(self, target: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return an attribute of the module."""
        return attribute(self.module, target)

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a function."""
        return target(*args, **kwargs)

    def call_method(self, target: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a method of the first argument."""
        return getattr(args[0], target)(*args[1:], **kwargs)

    def call_module(self, target: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a submodule."""
        if target not in self.submodules:
            raise GraphError(f"call_module {target}: the module has no such submodule")
        return self.submodules[target](*args, **kwargs)

    def output(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the result."""
        return args[0]

    def fetch_attr(self, target: str) -> Any:
        """Return an attribute of the module."""
        return attribute(self.module, target)

    def fetch_args_kwargs_from_env(self, n: Node) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments of a node, with results in the place of nodes."""
        return self.map_nodes_to_values(n.args, n), self.map_nodes_to_values(n.kwargs, n)

    def map_nodes_to_values(self, args: Any, n: Node) -> Any:
        """Return arguments with results in the place of nodes.

        Raises:
            GraphError: if one is not there yet.
        """

        def value(node: Node) -> Any:
            if node not in self.env:
                raise GraphError(
                    f"Node {n} referenced nonexistent value {node}! Run Graph.lint() to diagnose such issues"
                )
            return self.env[node]

        return map_arg(args, value)


class Transformer(Interpreter):
    """An interpreter that makes another graph: override what it calls for one kind of node, then `transform()`.

    Args:
        module: whose graph is transformed.
    """

    def __init__(self, module: GraphModule) -> None:
        super().__init__(module)
        from .tracer import Tracer

        self.tracer = Tracer()
        self.tracer.root = module
        self.tracer.graph = Graph(module)
        self.tracer._parameters = {id(p): n for n, p in (*module.named_parameters(), *module.named_buffers())}

    def placeholder(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Add an input."""
        return self.tracer.create_proxy("placeholder", target, args, {})

    def get_attr(self, target: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Add the reading of an attribute."""
        return self.tracer.create_proxy("get_attr", target, args, kwargs)

    def call_module(self, target: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Add a call of a submodule."""
        return self.tracer.create_proxy("call_module", target, args, kwargs)

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Add a call of a function."""
        return self.tracer.create_proxy("call_function", target, args, kwargs)

    def call_method(self, target: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Add a call of a method."""
        return self.tracer.create_proxy("call_method", target, args, kwargs)

    def transform(self) -> GraphModule:
        """Return the module of the new graph."""
        from .graph_module import GraphModule

        result = self.run()
        self.tracer.graph.output(self.tracer.create_arg(result))
        return GraphModule(self.module, self.tracer.graph, getattr(self.module, "_class_name", "GraphModule"))
