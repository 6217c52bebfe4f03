"""Casts from half precision to float32 that write nothing, because what reads them widens each element itself.

Autocast puts such a cast before every op that computes in float32. Where the kernels of all its readers read half
precision as well, they are given the tensor that was cast; a reader that turns out to want float32 gets it then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ...ops.kernels.cuda.lowering import Lowering
from ...ops.pointwise import cast
from ...ops.types import HALF, DType
from ..compiled.groups import Group, pointwise_call
from ..graph.graph import Node, Value
from .arena import Placed
from .readers import Readers

FLOAT_32: DType = np.dtype(np.float32)


class Widenings:
    """The casts of a graph that need not be written.

    Args:
        nodes: those that run.
        readers: who reads what they make.
        rules: by op name; a cast may wait where all that read it are rules that read narrow tensors, or pointwise.
        elements: the types that kernels are written for.
    """

    def __init__(
        self, nodes: Sequence[Node], readers: Readers, rules: Mapping[str, Lowering], elements: Sequence[DType]
    ) -> None:
        """Find the casts; see the class for the arguments."""
        made = {id(v) for node in nodes for v in node.outputs}

        def may_wait(node: Node) -> bool:
            source, v = node.args[0], node.outputs[0]
            if node.op is not cast or not isinstance(source, Value) or id(source) not in made or readers.is_output(v):
                return False
            return (
                source.dtype in HALF and v.dtype == FLOAT_32
                and all(_reads_narrow(n, v, rules) or pointwise_call(n, elements) for n in readers.nodes(v))
            )  # fmt: skip

        self._may_wait = {node for node in nodes if may_wait(node)}
        self._casts: set[Node] = set()
        self._waiting: dict[int, Node] = {}

    def __contains__(self, node: Node) -> bool:
        """Whether a node is a cast that waits for somebody who wants float32."""
        return node in self._casts

    def found_in(self, groups: Sequence[Group]) -> bool:
        """Let those casts wait whose results groups would write; whether there are any.

        Where a cast is in the middle of a group nothing is written anyway.
        """
        ends = {group.output.node for group in groups}
        self._casts = {node for node in self._may_wait if node in ends}
        return bool(self._casts)

    def wait(self, node: Node, refs: Sequence[Placed]) -> bool:
        """Let a cast wait; whether it can.

        Args:
            node: it.
            refs: where what it reads lies: feeds may be overwritten before somebody reads them.
        """
        if node not in self._casts or any(ref.storage.kind != "arena" for ref in refs):
            return False
        self._waiting[id(node.outputs[0])] = node
        return True

    def source(self, v: Value) -> Value:
        """Return what a cast that waits reads; any other value as it is."""
        node = self._waiting.get(id(v))
        return v if node is None else node.args[0]


def _reads_narrow(reader: Node, v: Value, rules: Mapping[str, Lowering]) -> bool:
    rule = rules.get(reader.op.name)
    places = [i for i, a in enumerate(reader.args) if a is v]
    return rule is not None and bool(places) and rule.narrow.issuperset(places)
