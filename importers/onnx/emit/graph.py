"""A whole graph, or some nodes of one, as ONNX."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ....ops.dims import Dim
from ....ops.errors import SaveError
from ....ops.types import Array, TensorType
from ....runtime.graph.graph import Graph, Node, Value
from ....runtime.passes.matching import reader_counts
from ..types import type_proto
from ..weights import ROLE
from .names import Names, live, read_by
from .writer import Writer

if TYPE_CHECKING:
    import onnx

OPSETS = range(18, 27)
"""The operator sets that can be written."""
OPSET = 20
"""The one that is written by default."""


def checked_opset(opset: int | None) -> int:
    """Return an operator set that can be written, the default for None.

    Raises:
        SaveError: if it is another.
    """
    if opset is None:
        return OPSET
    if opset not in OPSETS:
        raise SaveError(f"opset_version is {opset}, wanted {OPSETS[0]} to {OPSETS[-1]}")
    return int(opset)


def nodes_to_onnx(
    nodes: Sequence[Node], names: Mapping[Value, str], outputs: Mapping[Value, str], opset: int | None = None
) -> tuple[list[onnx.NodeProto], dict[str, Array]]:
    """Return some nodes of a graph as ONNX nodes, and the large constants that they take.

    Args:
        nodes: in an order in which they can run.
        names: of what they take from elsewhere.
        outputs: which of their results count, and what these are called.
        opset: the operator set.

    Raises:
        SaveError: if an op has no form in ONNX.
    """
    w = Writer(checked_opset(opset))
    for value, name in names.items():
        w.bind(value, name)
    read: dict[Value, int] = dict.fromkeys(outputs, 1)
    for node in nodes:
        for v in node.inputs():
            read[v] = read.get(v, 0) + 1
    w.write(nodes, read)
    wanted = [w.result(value, set(names.values())) for value in outputs]
    given = Names({*names.values(), *outputs.values()})
    return _finished(w, wanted, list(outputs.values()), given)


def graph_to_proto(
    graph: Graph, *, name: str, opset: int, output_names: Sequence[str], kinds: Mapping[str, str] | None = None,
    shown: Mapping[str, Mapping[int, str]] | None = None,
) -> tuple[onnx.GraphProto, dict[str, Array]]:  # fmt: skip
    """Return a graph as a GraphProto without its initializers, and the large constants that have to become some.

    Args:
        graph: what to write; its inputs and state are called as they are in it.
        name: of the GraphProto.
        opset: the operator set.
        output_names: of its outputs, in order.
        kinds: what each entry of the state is, for the file to say.
        shown: names of open axes of outputs, where they are not those of inputs.

    Raises:
        SaveError: if an op has no form in ONNX.
    """
    from onnx import helper

    w = Writer(opset)
    fixed = [v.name for v in (*graph.inputs, *graph.state.values())]
    for v in (*graph.inputs, *graph.state.values()):
        w.bind(v, v.name)
    w.write(graph.nodes, reader_counts(graph))
    wanted = [w.result(v, fixed) for v in graph.outputs]
    names = Names({*fixed, *output_names})
    nodes, tensors = _finished(w, wanted, output_names, names)
    symbols = {d.name for v in graph.inputs for d in _shape(v.type) if isinstance(d, Dim) and d.name}
    inputs = [_info(v.name, v.type, symbols) for v in graph.inputs]
    outputs = [
        _info(n, v.type, None, (shown or {}).get(n, {})) for n, v in zip(output_names, graph.outputs, strict=True)
    ]
    made = {o for node in nodes for o in node.output}
    inner = [
        _info(names.of[provisional], t, symbols)
        for provisional, t in w.types.items()
        if names.of.get(provisional) in made and names.of[provisional] not in output_names
    ]
    read = read_by(nodes)
    for key, v in graph.state.items():
        if kinds is not None and v.name in read and key in kinds:
            info = _info(v.name, v.type, symbols)
            entry = info.metadata_props.add()
            entry.key, entry.value = ROLE, kinds[key]
            inner.append(info)
    return helper.make_graph(nodes, name, inputs, outputs, value_info=inner), tensors


def _finished(
    w: Writer, wanted: Sequence[str], finals: Sequence[str], names: Names
) -> tuple[list[onnx.NodeProto], dict[str, Array]]:
    lines = live(w.lines, wanted)
    for provisional, final in zip(wanted, finals, strict=True):
        names.fix(provisional, final)
    read = {i for line in lines for i in line.reads()}
    kept = [t for t in w.tensors if t in read]
    names.give(lines, kept)
    return names.put(lines), {names.of[t]: w.tensors[t] for t in kept}


def _shape(t: Any) -> tuple[Any, ...]:
    return (t.known_shape or ()) if isinstance(t, TensorType) else ()


def _info(name: str, t: Any, symbols: set[str] | None, shown: Mapping[int, str] | None = None) -> onnx.ValueInfoProto:
    """Return a declaration; of open sizes those with these symbols are named, for None all."""
    from onnx import helper

    info = helper.make_value_info(name, type_proto(t))
    for axis, d in enumerate(_shape(t)):
        said = (shown or {}).get(axis)
        if said is None and isinstance(d, Dim) and (symbols is None or d.name in symbols) and "?" not in str(d):
            said = str(d)
        if said is not None:
            info.type.tensor_type.shape.dim[axis].dim_param = said
    return info
