"""What the standard's schemas say of a node's inputs, outputs and attributes, checked before it is translated."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from ...ops.errors import DTypeError, InvalidGraphError
from ...ops.types import TensorType, dtype_name

if TYPE_CHECKING:
    from .node import NodeView

MIXED = frozenset({("Tile", 1)})
"""Versions whose schema wants one type and whose files have two: Tile-1's counts are integers."""
LEFT_OUT = frozenset({("Resize", 11)})
"""Versions that declare an input as required and whose files leave it out: Resize-11's roi and scales."""


@dataclass(frozen=True)
class Formal:
    """An input that a schema declares; `variable` names the type that it shares with others, if it does."""

    name: str
    required: bool
    variable: str


@dataclass(frozen=True)
class Signature:
    """A schema, as plain Python.

    Attributes:
        rest: the variadic input that stands for all further ones, or None.
        attributes: the kind of each attribute, as AttributeProto numbers it.
    """

    inputs: tuple[Formal, ...]
    rest: Formal | None
    max_outputs: int
    attributes: dict[str, int]


@functools.cache
def signature(domain: str, op_type: str, version: int) -> Signature | None:
    """Return what the standard says of an operator, or None where it does not know it."""
    from onnx import defs

    try:
        schema = defs.get_schema(op_type, version, domain)
    except defs.SchemaError:
        return None
    variables = {c.type_param_str for c in schema.type_constraints}
    optional, variadic = defs.OpSchema.FormalParameterOption.Optional, defs.OpSchema.FormalParameterOption.Variadic
    formals, rest = [], None
    for k, p in enumerate(schema.inputs):
        shared = p.type_str in variables and (p.option != variadic or p.is_homogeneous)
        formal = Formal(p.name, p.option != optional and k < schema.min_input, p.type_str if shared else "")
        if p.option == variadic:
            rest = formal
        else:
            formals.append(formal)
    kinds = {name: int(cast(Any, a.type).value) for name, a in schema.attributes.items()}
    return Signature(tuple(formals), rest, int(schema.max_output), kinds)


def check_node(view: NodeView, inputs: Sequence[Any]) -> None:
    """Check a node against its schema.

    Raises:
        InvalidGraphError: for missing or surplus inputs and outputs, and attributes of another kind.
        DTypeError: for inputs that have to be of one element type and are not.
    """
    known = signature(view.domain, view.op_type, view.since_version)
    if known is None:
        return
    formals = (*known.inputs, *(known.rest,) * (len(inputs) - len(known.inputs))) if known.rest else known.inputs
    if len(inputs) > len(formals):
        raise InvalidGraphError(f"{view}: takes at most {len(formals)} inputs, found {len(inputs)}")
    if len(view.outputs) > known.max_outputs:
        raise InvalidGraphError(f"{view}: gives at most {known.max_outputs} outputs, found {len(view.outputs)}")
    optional = (view.op_type, view.since_version) in LEFT_OUT
    for k, formal in enumerate(known.inputs):
        if formal.required and not optional and (k >= len(inputs) or not view.proto.input[k]):
            raise InvalidGraphError(f"{view}: input {k} ({formal.name}) is missing")
    for a in view.proto.attribute:
        wanted = known.attributes.get(a.name)
        if wanted is not None and a.type not in (wanted, 0):
            name = type(a).AttributeType.Name
            raise InvalidGraphError(f"{view}: attribute {a.name!r} is {name(a.type)}, wanted {name(wanted)}")
    if (view.op_type, view.since_version) not in MIXED:
        _check_types(view, formals, inputs)


def _check_types(view: NodeView, formals: Sequence[Formal], inputs: Sequence[Any]) -> None:
    first: dict[str, tuple[str, Any]] = {}
    for formal, value in zip(formals, inputs, strict=False):
        t = getattr(value, "type", None)
        if not formal.variable or not isinstance(t, TensorType):
            continue
        name, dtype = first.setdefault(formal.variable, (formal.name, t.dtype))
        if t.dtype != dtype:
            raise DTypeError(
                f"{view}: input {formal.name} is {dtype_name(t.dtype)} and input {name} is {dtype_name(dtype)}; the "
                "operator wants one element type"
            )
