"""The final names: what nobody reads is dropped, nodes are called after the module that they are in.

A node of the module `body.0` is `/body/0/Conv`, a second one there `/body/0/Conv_1`; its output is
`/body/0/Conv_output_0`. Nodes of an imported graph keep their names, and their values theirs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from ....runtime.tracing.module import Scope
from ..types import type_proto
from .writer import Inner, Line

if TYPE_CHECKING:
    import onnx


def live(lines: Sequence[Line], wanted: Iterable[str]) -> list[Line]:
    """Return the nodes that these names need."""
    needed, kept = set(wanted), []
    for line in reversed(lines):
        if needed.intersection(line.proto.output):
            for body in line.bodies.values():
                body.lines = live(body.lines, (name for name, _ in body.outputs))
            needed.update(line.reads())
            kept.append(line)
    return kept[::-1]


def read_by(nodes: Iterable[onnx.NodeProto]) -> set[str]:
    """Return the names that nodes and their bodies read."""
    found: set[str] = set()
    for node in nodes:
        found.update(node.input)
        for a in node.attribute:
            if a.HasField("g"):
                found |= read_by(a.g.node) | {o.name for o in a.g.output}
    return found


class Names:
    """Gives names that are not taken.

    Attributes:
        of: the final name of each provisional one.
    """

    def __init__(self, taken: Iterable[str]) -> None:
        """Start with names that stand."""
        self.of: dict[str, str] = {}
        self._taken = set(taken)
        self._nodes: set[str] = set()
        self._counts: Counter[str] = Counter()

    def fix(self, provisional: str, name: str) -> None:
        """Say what a provisional name becomes."""
        self.of[provisional] = name
        self._taken.add(name)

    def give(self, lines: Iterable[Line], tensors: Iterable[str]) -> None:
        """Name nodes and their outputs, and constants."""
        whole: set[int] = set()
        for line in lines:
            line.proto.name = self._node(line, whole)
            outs = list(line.proto.output)
            for i, out in enumerate(outs):
                if out not in self.of:
                    said = line.wanted[i] if line.wanted[i] not in self._taken else ""
                    self.fix(out, said or self._free(f"{line.proto.name}_output_{i}"))
            for body in line.bodies.values():
                for i, (name, _) in enumerate(body.inputs):
                    self.fix(name, self._free(f"{line.proto.name}_input_{i}"))
                self.give(body.lines, ())
        for i, name in enumerate(tensors):
            if name not in self.of:
                self.fix(name, self._free(f"constant_{i}"))

    def put(self, lines: Iterable[Line]) -> list[onnx.NodeProto]:
        """Return the nodes with the names that were given, and with their bodies."""
        from onnx import helper

        for line in lines:
            _rename(line.proto, self.of)
            for key, body in line.bodies.items():
                line.proto.attribute.append(helper.make_attribute(key, self._graph(body)))
        return [line.proto for line in lines]

    def _graph(self, body: Inner) -> onnx.GraphProto:
        from onnx import helper

        inputs, outputs = (
            [helper.make_value_info(self.of.get(name, name), type_proto(t)) for name, t in side]
            for side in (body.inputs, body.outputs)
        )
        return helper.make_graph(self.put(body.lines), body.name, inputs, outputs)

    def _node(self, line: Line, whole: set[int]) -> str:
        source, op_type = line.source, line.proto.op_type
        if isinstance(source, Scope):
            base = "/".join(["", *source.path.split(".")]) if source.path else ""
            return self._counted(f"{base}/{op_type}")
        own = getattr(source, "name", "")
        if own and id(source) not in whole and getattr(source, "op_type", "") == op_type:
            whole.add(id(source))
            return self._counted(own)
        return self._counted(f"{own}/{op_type}")

    def _counted(self, base: str) -> str:
        while True:
            n = self._counts[base]
            self._counts[base] += 1
            name = f"{base}_{n}" if n else base
            if name not in self._nodes:
                self._nodes.add(name)
                return name

    def _free(self, name: str) -> str:
        found, n = name, 0
        while found in self._taken:
            n += 1
            found = f"{name}_{n}"
        return found


def _rename(node: onnx.NodeProto, names: Mapping[str, str]) -> None:
    for field in (node.input, node.output):
        for i, name in enumerate(field):
            field[i] = names.get(name, name)
