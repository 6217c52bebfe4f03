"""A graph of Python calls that can be read, changed and run."""

from __future__ import annotations

import builtins
import difflib
import keyword
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ...ops.errors import GraphError
from .code import python_code
from .node import Node, map_arg, target_name

if TYPE_CHECKING:
    from ..nn.module import Module


class Graph:
    """Nodes in the order in which they run.

    Attributes:
        owning_module: the module whose attributes and submodules it names.
    """

    def __init__(self, owning_module: Module | None = None) -> None:
        """Start empty."""
        self.owning_module = owning_module
        self._nodes: list[Node] = []
        self._names: set[str] = set()
        self._at: int | None = None

    @property
    def nodes(self) -> list[Node]:
        """The nodes in order; a list of its own, so that nodes may be erased while it is gone through."""
        return list(self._nodes)

    def find_nodes(self, *, op: str, target: Any = None) -> list[Node]:
        """Return the nodes of a kind, of one target where one is given."""
        return [n for n in self._nodes if n.op == op and (target is None or n.target == target)]

    def find(self, name: str) -> Node:
        """Return the node of a name: its own, or a layer's of the file that it was imported from, whose result it is.

        Raises:
            GraphError: if there is none; it suggests similar names.
        """
        names = {n.meta.get("onnx_name", n.name): n for n in self._nodes}
        names |= {n.name: n for n in self._nodes}
        if name not in names:
            close = difflib.get_close_matches(name, names, 3, 0.3)
            raise GraphError(f"no node is named {name!r}" + (f"; did you mean {close}?" if close else ""))
        return names[name]

    # making ------------------------------------------------------------------------------------------------------

    def create_node(
        self, op: str, target: Any, args: tuple[Any, ...] | None = None, kwargs: dict[str, Any] | None = None,
        name: str | None = None, type_expr: Any = None,
    ) -> Node:  # fmt: skip
        """Put a node at the place where insertion is (`inserting_before`), at the end by default.

        Raises:
            GraphError: if it takes the result of another graph's node.
        """
        args, kwargs = tuple(args or ()), dict(kwargs or {})

        def own(n: Node) -> Node:
            if n.graph is not self or n._erased:
                where = "that was erased" if n.graph is self else "of another graph; use node_copy or graph_copy"
                raise GraphError(f"{op} {target_name(target)}: takes the result of {n.name}, a node {where}")
            return n

        map_arg((args, kwargs), own)
        node = Node(self, self._free_name(name or _candidate(op, target)), op, target, args, kwargs)
        node.type = type_expr
        if self._at is None:
            self._nodes.append(node)
        else:
            self._nodes.insert(self._at, node)
            self._at += 1
        return node

    def placeholder(self, name: str, type_expr: Any = None, default_value: Any = ...) -> Node:
        """Add an input."""
        return self.create_node("placeholder", name, () if default_value is ... else (default_value,))

    def get_attr(self, qualified_name: str, type_expr: Any = None) -> Node:
        """Add a parameter, buffer or attribute of the module."""
        return self.create_node("get_attr", qualified_name)

    def call_module(self, module_name: str, args: tuple[Any, ...] | None = None, kwargs: Any = None) -> Node:
        """Add a call of a submodule.

        Raises:
            GraphError: if the module has no such submodule.
        """
        owner = self.owning_module
        if owner is not None and module_name not in dict(owner.named_modules()):
            raise GraphError(f"call_module: the module has no submodule {module_name!r}; add_submodule adds it")
        return self.create_node("call_module", module_name, args, kwargs)

    def call_function(self, the_function: Callable[..., Any], args: Any = None, kwargs: Any = None) -> Node:
        """Add a call of a function."""
        return self.create_node("call_function", the_function, args, kwargs)

    def call_method(self, method_name: str, args: Any = None, kwargs: Any = None) -> Node:
        """Add a call of a method of the first argument."""
        return self.create_node("call_method", method_name, args, kwargs)

    def output(self, result: Any, type_expr: Any = None) -> Node:
        """Add what is returned."""
        return self.create_node("output", "output", (result,))

    def node_copy(self, node: Node, arg_transform: Callable[[Node], Any] = lambda x: x) -> Node:
        """Add a copy of a node of any graph.

        Args:
            node: what is copied.
            arg_transform: what stands in this graph for the nodes that it takes.
        """
        args, kwargs = map_arg(node.args, arg_transform), map_arg(node.kwargs, arg_transform)
        made = self.create_node(node.op, node.target, args, kwargs, node.name, node.type)
        made.meta = dict(node.meta)
        return made

    def graph_copy(self, g: Graph, val_map: dict[Node, Any]) -> Any:
        """Add copies of all nodes of a graph, and return what stands for its output.

        Args:
            g: what is copied.
            val_map: what stands for its nodes; those that are in it already are not copied.
        """
        for node in g._nodes:
            if node in val_map:
                continue
            if node.op == "output":
                return map_arg(node.args[0], lambda n: val_map[n])
            val_map[node] = self.node_copy(node, lambda n: val_map[n])
        return None

    # changing ----------------------------------------------------------------------------------------------------

    @contextmanager
    def inserting_before(self, n: Node | None = None) -> Iterator[None]:
        """Create nodes before one, or at the beginning."""
        with self._inserting(0 if n is None else self._place(n)):
            yield

    @contextmanager
    def inserting_after(self, n: Node | None = None) -> Iterator[None]:
        """Create nodes behind one, or at the end."""
        with self._inserting(len(self._nodes) if n is None else self._place(n) + 1):
            yield

    @contextmanager
    def _inserting(self, at: int) -> Iterator[None]:
        before, self._at = self._at, at
        try:
            yield
        finally:
            self._at = before

    def erase_node(self, to_erase: Node) -> None:
        """Take a node away.

        Raises:
            GraphError: if its result is still taken.
        """
        if to_erase.users:
            raise GraphError(
                f"Tried to erase Node {to_erase.name} but it still had {len(to_erase.users)} users in the graph: "
                f"{list(to_erase.users)}!"
            )
        self._nodes.pop(self._place(to_erase))
        to_erase._set((), {})
        to_erase._erased = True

    def eliminate_dead_code(self, is_impure_node: Callable[[Node], bool] | None = None) -> bool:
        """Erase nodes whose results nobody takes; return whether there were any.

        Args:
            is_impure_node: which have to stay; inputs and outputs by default.
        """
        stays = is_impure_node or Node.is_impure
        changed = False
        for node in reversed(self.nodes):
            if not node.users and not stays(node):
                self.erase_node(node)
                changed = True
        return changed

    def lint(self) -> None:
        """Check that names are unique, that results exist before they are taken, and that what is named is there.

        Raises:
            GraphError: naming the node.
        """
        seen: dict[str, Node] = {}
        modules = None if self.owning_module is None else dict(self.owning_module.named_modules())
        for node in self._nodes:
            if node.name in seen:
                raise GraphError(f"Node redefined name {node.name}!")
            for arg in node.all_input_nodes:
                if arg.graph is not self:
                    raise GraphError(f"Argument '{arg}' of Node '{node}' does not belong to this Graph")
                if seen.get(arg.name) is not arg:
                    raise GraphError(
                        f"Argument '{arg}' of Node '{node}' was used before it has been defined! Please check that "
                        "Nodes in the graph are topologically ordered"
                    )
            seen[node.name] = node
            if modules is not None and node.op == "call_module" and node.target not in modules:
                raise GraphError(f"Node {node} target {node.target} references nonexistent submodule")
            if self.owning_module is not None and node.op == "get_attr":
                attribute(self.owning_module, node.target)

    # reading -----------------------------------------------------------------------------------------------------

    def input_names(self) -> list[str]:
        """Return the names of the inputs, those of the file where it was imported."""
        return [n.meta.get("onnx_name", str(n.target)) for n in self.find_nodes(op="placeholder")]

    def output_node(self) -> Node:
        """Return the node that returns.

        Raises:
            GraphError: if there is none.
        """
        found = next((n for n in reversed(self._nodes) if n.op == "output"), None)
        if found is None:
            raise GraphError("the graph has no output node; Graph.output adds one")
        return found

    def python_code(self, root_module: str = "self") -> str:
        """Return the graph as Python code, for reading: it is not what runs."""
        return python_code(self._nodes, root_module)

    def print_tabular(self) -> None:
        """Print a row a node."""
        rows = [("opcode", "name", "target", "args", "kwargs")]
        rows += [(n.op, n.name, target_name(n.target), str(n.args), str(n.kwargs)) for n in self._nodes]
        widths = [max(len(r[i]) for r in rows) for i in range(5)]
        lines = ["  ".join(cell.ljust(w) for cell, w in zip(r, widths, strict=True)).rstrip() for r in rows]
        lines.insert(1, "  ".join("-" * w for w in widths))
        print("\n".join(lines))

    def __str__(self) -> str:
        """Return a line a node."""
        inputs = [n for n in self._nodes if n.op == "placeholder"]
        shown = ", ".join(f"%{n.name}" for n in inputs)
        return f"graph({shown}):\n" + "\n".join(f"    {n.format_node()}" for n in self._nodes)

    # inside ------------------------------------------------------------------------------------------------------

    def _place(self, node: Node) -> int:
        for i, n in enumerate(self._nodes):
            if n is node:
                return i
        raise GraphError(f"node {node.name} is not in this graph")

    def _beside(self, node: Node, step: int) -> Node:
        at = self._place(node) + step
        if not 0 <= at < len(self._nodes):
            raise GraphError(f"there is no node {'behind' if step > 0 else 'before'} {node.name}")
        return self._nodes[at]

    def _move(self, node: Node, beside: Node, offset: int) -> None:
        if node is beside:
            return
        if node.graph is not self:
            raise GraphError(f"node {node.name} belongs to another graph; use node_copy")
        self._nodes.pop(self._place(node))
        self._nodes.insert(self._place(beside) + offset, node)

    def _free_name(self, candidate: str) -> str:
        base = re.sub(r"\W", "_", candidate)
        if not base or base[0].isdigit():
            base = f"_{base}"
        name, count = base, 0
        if match := re.match(r"(.*)_(\d+)$", base):
            base, count = match.group(1), int(match.group(2))
        while name in self._names or keyword.iskeyword(name) or (hasattr(builtins, name) and name != "input"):
            count += 1
            name = f"{base}_{count}"
        self._names.add(name)
        return name


def _candidate(op: str, target: Any) -> str:
    if isinstance(target, str):
        return target.lstrip("*")
    return str(getattr(target, "__name__", "fn")).strip("_")


def attribute(module: Any, path: str) -> Any:
    """Return a parameter, buffer, submodule or attribute of a dotted name.

    Raises:
        GraphError: if there is none, saying how far it goes.
    """
    for registry in (module._parameters, module._buffers):
        if path in registry:
            return registry[path]
    found = module
    parts = path.split(".")
    for i, part in enumerate(parts):
        if not hasattr(found, part):
            raise GraphError(f"get_attr {path}: {'.'.join(parts[:i]) or 'the module'} has no attribute {part!r}")
        found = getattr(found, part)
    return found
