"""Models of one node at every version of its operator, made from the standard's node tests of the newest one.

A node is taken back to an older schema where that takes only what both have: attributes at their defaults are dropped,
inputs that used to be attributes become attributes again. What the older version means is then asked of an oracle.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import defs, helper

from .conformance import Case, node_modules, node_tests, nodes_of
from .drawn import DRAWS

RENAMED = {"K": "k", "constant_value": "value", "depth": "depth", "repeats": "repeats"}
"""Inputs whose attribute was named otherwise."""

OTHER_MEANING = {
    ("GroupNormalization", 18): "scale and bias are one a group, not one a channel",
    ("PRelu", 1): "a slope of one axis is one a channel",
    ("PRelu", 6): "as version 1",
}
"""Versions for which a node that looks the same means something else; they have rows by hand elsewhere."""

Key = tuple[str, str, int]

COMPARED: set[Key] = set()
"""What the rows made here were compared for."""


@dataclass(frozen=True)
class Row:
    """A model of one node at an older version, its inputs, and what the newest version gives for them."""

    key: Key
    name: str
    model: onnx.ModelProto
    feeds: dict[str, Any]
    newest: list[Any]
    case: Case


@functools.cache
def _cases() -> dict[tuple[str, str], list[Case]]:
    found: dict[tuple[str, str], list[Case]] = {}
    for module in node_modules():
        for case in node_tests(module):
            nodes = case.model.graph.node
            if len(nodes) == 1 and nodes[0].op_type not in DRAWS and not case.name.startswith("test_training_dropout"):
                found.setdefault((nodes[0].domain, nodes[0].op_type), []).append(case)
    return found


def rows(key: Key, most: int = 3) -> list[Row]:
    """Return models of an operator at a version, at most so many."""
    domain, op_type, version = key
    try:
        schema = defs.get_schema(op_type, version, domain)
    except defs.SchemaError:
        return []
    if schema.since_version != version or (not domain and (op_type, version) in OTHER_MEANING):
        return []
    found = (_taken_back(case, schema, key) for case in _cases().get((domain, op_type), ()))
    return list(itertools.islice((row for row in found if row is not None), most))


def _taken_back(case: Case, schema: Any, key: Key) -> Row | None:
    node = onnx.NodeProto()
    node.CopyFrom(case.model.graph.node[0])
    newest = defs.get_schema(node.op_type, _imported(case, node.domain), node.domain)
    if newest.since_version < key[2]:
        return None
    feeds = dict(zip([i.name for i in case.inputs], case.data_sets[0][0], strict=True))
    infos = {i.name: i for i in case.inputs}
    if not _older_attributes(node, schema, newest) or not _older_inputs(node, schema, newest, feeds):
        return None
    if not all(_fits(n, key) for n in inner_nodes(node)):
        return None
    types = {v.name: v.type for v in (*case.inputs, *case.model.graph.output)}
    if len(node.output) > schema.max_output or not _types_allowed(schema, types, node):
        return None
    shapes = {np.shape(v) for v in feeds.values() if not isinstance(v, list)}
    if "broadcast" in schema.attributes and len(shapes) > 1:
        node.attribute.append(helper.make_attribute("broadcast", 1))
    graph = helper.make_graph([node], case.name, [infos[n] for n in feeds], list(case.model.graph.output))
    opsets = [helper.make_opsetid(node.domain, key[2])]
    if node.domain:
        opsets.append(helper.make_opsetid("", 17))
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10 if key[2] < 23 else 12)
    return Row(key, case.name, model, feeds, list(case.data_sets[0][1]), case)


def _imported(case: Case, domain: str) -> int:
    return next(int(o.version) for o in case.model.opset_import if o.domain == domain)


def _older_attributes(node: onnx.NodeProto, schema: Any, newest: Any) -> bool:
    """Drop attributes that the older schema lacks where they say the default."""
    kept = []
    for a in node.attribute:
        if a.name in schema.attributes:
            kept.append(a)
            continue
        default = newest.attributes[a.name].default_value
        same = helper.get_attribute_value(a) == helper.get_attribute_value(default) if default.name else False
        if not same and a.name != "seed":
            return False
    del node.attribute[:]
    node.attribute.extend(kept)
    return True


def _older_inputs(node: onnx.NodeProto, schema: Any, newest: Any, feeds: dict[str, Any]) -> bool:
    """Turn inputs back into attributes; `feeds` loses them."""
    names = list(node.input)
    old = {p.name for p in schema.inputs}
    formal = [p.name for p in newest.inputs]
    for place in range(len(names) - 1, -1, -1):
        what = formal[min(place, len(formal) - 1)]
        attribute = RENAMED.get(what, what)
        if what in old or place < schema.min_input or attribute not in schema.attributes:
            continue
        if names[place] and names[place] in feeds:
            value = np.asarray(feeds.pop(names[place]))
            integers = value.dtype.kind in "iub"
            scalar = schema.attributes[attribute].type.name in ("INT", "FLOAT")
            if value.size == 0 or (scalar and value.size != 1):
                return False
            plain = [int(v) if integers else float(v) for v in value.reshape(-1)]
            node.attribute.append(helper.make_attribute(attribute, plain[0] if scalar else plain))
        names[place] = ""
    while names and not names[-1]:
        names.pop()
    del node.input[:]
    node.input.extend(names)
    if not schema.min_input <= len(names) <= schema.max_input:
        return False
    required = [n for n in node.input if n and n not in feeds]
    given = [a.name for a in node.attribute]
    return not required and all(n in given for n, a in schema.attributes.items() if a.required)


def inner_nodes(node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
    """Yield the nodes of a node's subgraphs."""
    for a in node.attribute:
        for g in ([a.g] if a.HasField("g") else []) + list(a.graphs):
            yield from nodes_of(g)


def _fits(node: onnx.NodeProto, key: Key) -> bool:
    """Whether a node of a subgraph is written as this version of the standard has it."""
    try:
        schema = defs.get_schema(node.op_type, key[2], node.domain)
    except defs.SchemaError:
        return False
    known = all(a.name in schema.attributes for a in node.attribute)
    return known and schema.min_input <= len(node.input) <= schema.max_input


def _types_allowed(schema: Any, types: dict[str, onnx.TypeProto], node: onnx.NodeProto) -> bool:
    """Whether the older schema takes these inputs, gives these outputs, and has attributes of these kinds."""
    allowed = {c.type_param_str: set(c.allowed_type_strs) for c in schema.type_constraints}
    for names, formals in ((node.input, list(schema.inputs)), (node.output, list(schema.outputs))):
        for place, name in enumerate(names):
            formal = formals[min(place, len(formals) - 1)]
            if name and _text(types[name]) not in allowed.get(formal.type_str, {formal.type_str}):
                return False
    return all(a.type == schema.attributes[a.name].type.value for a in node.attribute)


def _text(t: onnx.TypeProto) -> str:
    match t.WhichOneof("value"):
        case "tensor_type":
            name = onnx.TensorProto.DataType.Name(t.tensor_type.elem_type).lower()
            return f"tensor({name})"
        case "sequence_type":
            return f"seq({_text(t.sequence_type.elem_type)})"
        case "optional_type":
            return f"optional({_text(t.optional_type.elem_type)})"
    return "map"


def bound() -> Iterator[Key]:
    """Yield every (domain, operator, version) that has a binding, in order."""
    from onnxgrad.importers.onnx import translate
    from onnxgrad.importers.onnx.registry import BINDINGS

    assert translate
    yield from sorted(BINDINGS)
