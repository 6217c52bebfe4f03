"""Bodies of control flow: graphs that are called like functions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ...ops import dims
from ...ops.dims import Env
from ...ops.types import ValueType
from ..autograd.checkpoint import checkpoint
from ..autograd.grad_mode import MODE
from ..tensor.tensor import Tensor
from .autodiff import of_body
from .execute import run_graph
from .graph import Graph


class Body:
    """A body of control flow: a graph that is called with its inputs, then its captures.

    It runs on whatever it is given: arrays compute, Tensors record, Values add nodes.
    """

    def __init__(self, graph: Graph, env: Mapping[str, int] | None = None) -> None:
        """Wrap a finished graph; `env` binds symbols of the enclosing graph."""
        self.graph = graph
        self.env: Mapping[str, int] = env or {}

    @property
    def output_types(self) -> tuple[ValueType, ...]:
        """The types of what it returns."""
        return tuple(v.type for v in self.graph.outputs)

    def free_symbols(self) -> Iterator[str]:
        """Yield the symbols that its attributes mention."""
        for node in self.graph.nodes:
            for a in node.attrs.values():
                yield from dims.symbols_in(a)

    def bind(self, env: Env) -> Body:
        """Return the body with symbols of the enclosing graph bound."""
        return Body(self.graph, {**self.env, **env})

    def with_graph(self, graph: Graph) -> Body:
        """Return the body with another graph in its place, as a pass made it."""
        return Body(graph, self.env)

    def __call__(self, *args: Any) -> tuple[Any, ...]:
        """Run it, and return its outputs."""
        if MODE.recompute_loops and any(isinstance(a, Tensor) for a in args):
            outs: tuple[Any, ...] = checkpoint(run_graph, self.graph, args, env=self.env, preserve_rng_state=False)
            return outs
        return run_graph(self.graph, args, env=self.env)

    def vjp(
        self, given: tuple[bool, ...], wanted: tuple[int, ...], before: Sequence[ValueType], after: Sequence[ValueType]
    ) -> Body:
        """Return the body of its gradient; see `ops.control.Body`."""
        return Body(of_body(self.graph, given, wanted, before, after), self.env)

    def __repr__(self) -> str:
        """Return `<body name>`."""
        return f"<body {self.graph.name}>"
