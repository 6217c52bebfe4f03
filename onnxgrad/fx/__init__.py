"""Modules as graphs of Python calls that can be read, changed and run."""

from ..runtime.fx.graph import Graph
from ..runtime.fx.graph_module import GraphModule
from ..runtime.fx.interpreter import Interpreter, Transformer
from ..runtime.fx.node import Node, map_arg
from ..runtime.fx.proxy import Proxy
from ..runtime.fx.rewriter import replace_pattern
from ..runtime.fx.tracer import Tracer, symbolic_trace, wrap

__all__ = [
    "Graph",
    "GraphModule",
    "Interpreter",
    "Node",
    "Proxy",
    "Tracer",
    "Transformer",
    "map_arg",
    "replace_pattern",
    "symbolic_trace",
    "wrap",
]
