"""A module whose `forward` is a graph."""

from __future__ import annotations

from typing import Any

from ...ops.errors import GraphError
from ..model.model import Model
from ..nn.module import Module, Parameter
from ..tensor.tensor import Tensor
from .graph import Graph, attribute
from .interpreter import Interpreter


class GraphModule(Module):
    """A module that runs a graph, with the parameters and submodules that the graph names.

    Args:
        root: the module that they are taken from, or a dictionary of them by dotted name.
        graph: what runs.
        class_name: shown in the module's tree.
    """

    def __init__(self, root: Module | dict[str, Any], graph: Graph, class_name: str = "GraphModule") -> None:
        super().__init__()
        object.__setattr__(self, "_class_name", class_name)
        if isinstance(root, Module):
            self.training = root.training
        named = root._state if isinstance(root, Model) else {}
        trained = {name for name, _ in root.named_parameters()} if isinstance(root, Model) else set()
        for node in graph.nodes:
            if node.op == "get_attr" and node.target in named:
                (self._parameters if node.target in trained else self._buffers)[node.target] = named[node.target]
            elif node.op in ("get_attr", "call_module"):
                found = attribute(root, node.target) if isinstance(root, Module) else root.get(node.target)
                if found is None:
                    raise GraphError(f"{node.op} {node.target}: the root has nothing of that name")
                _put(self, node.target, found, root if isinstance(root, Module) else None)
        object.__setattr__(self, "_graph", graph)
        self.graph = graph

    @property
    def graph(self) -> Graph:
        """What runs; after a change call `recompile`."""
        return self._graph  # type: ignore[no-any-return]

    @graph.setter
    def graph(self, graph: Graph) -> None:
        object.__setattr__(self, "_graph", graph)
        graph.owning_module = self
        self.recompile()

    def __setattr__(self, name: str, value: Any) -> None:
        """Set the graph, or what a module sets."""
        if name == "graph":
            GraphModule.graph.fset(self, value)  # type: ignore[attr-defined]
        else:
            super().__setattr__(name, value)

    def recompile(self) -> str:
        """Check the graph after a change, and return its code.

        Raises:
            GraphError: if a result is taken before it is there, or something that is named is missing.
        """
        self._graph.lint()
        return self.code

    @property
    def code(self) -> str:
        """The graph as Python code, for reading: it is not what runs."""
        return str(self._graph.python_code())

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the graph."""
        return Interpreter(self).run(*args, **kwargs)

    def print_readable(self, print_output: bool = True) -> str:
        """Print the code of the module, and return it."""
        body = self.code.replace("\n", "\n    ").rstrip()
        shown = f"class {self._class_name}(Module):\n    {body}\n"
        if print_output:
            print(shown)
        return shown

    def add_submodule(self, target: str, m: Module) -> bool:
        """Add a module under a dotted name, with plain modules on the way; return whether that was possible."""
        if not all(part.isidentifier() or part.isdigit() for part in target.split(".")):
            return False
        _put(self, target, m, None)
        return True

    def delete_submodule(self, target: str) -> bool:
        """Take a submodule away; return whether it was there."""
        path, _, name = target.rpartition(".")
        try:
            parent = self.get_submodule(path)
        except AttributeError:
            return False
        if name not in parent._modules:
            return False
        del parent._modules[name]
        return True

    def delete_all_unused_submodules(self) -> None:
        """Take away the submodules that no node calls or reads."""
        used: set[str] = set()
        for node in self._graph.nodes:
            if node.op in ("call_module", "get_attr"):
                parts = node.target.split(".")
                used.update(".".join(parts[:i]) for i in range(1, len(parts) + 1))
                if node.op == "call_module":
                    below = self.get_submodule(node.target).named_modules()
                    used.update(f"{node.target}.{name}" for name, _ in below if name)
        for name in [n for n, _ in self.named_modules() if n and n not in used]:
            self.delete_submodule(name)

    def _get_name(self) -> str:
        return str(self._class_name)


def _put(module: Module, path: str, value: Any, root: Module | None) -> None:
    """Set what a dotted name says, with plain modules on the way."""
    *parts, name = path.split(".")
    at: Any = module
    for i, part in enumerate(parts):
        if part not in at._modules:
            made = Module()
            if root is not None:
                made.training = root.get_submodule(".".join(parts[: i + 1])).training
            at.register_module(part, made)
        at = at._modules[part]
    if isinstance(value, Module):
        at._modules[name] = value
    elif isinstance(value, Tensor) and not isinstance(value, Parameter):
        at._buffers[name] = value
    else:
        setattr(at, name, value)
