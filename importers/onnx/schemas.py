"""What the standard says of an operator: the version that introduced it, and the function body that it may have."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from ...ops.errors import UnsupportedOperatorError

if TYPE_CHECKING:
    import onnx

NEWEST = 2**31 - 1
"""The largest version that `onnx` can be asked for."""


@functools.cache
def since_version(domain: str, op_type: str, opset: int) -> int:
    """Return the version that introduced the operator as this opset has it; 1 where no schema is known."""
    from onnx import defs

    try:
        return int(defs.get_schema(op_type, min(max(opset, 0), NEWEST), domain).since_version)
    except defs.SchemaError:
        return 1


def check_opset(opset: int, where: str) -> None:
    """Refuse an operator set of the standard that this does not know.

    Raises:
        UnsupportedOperatorError: if there is none of this version.
    """
    from onnx import defs

    newest = defs.onnx_opset_version()
    if not 1 <= opset <= newest:
        raise UnsupportedOperatorError(
            f"{where} imports operator set {opset} of ai.onnx; known are 1 to {newest} (a newer `onnx` may know more)"
        )


def schema_function(domain: str, proto: onnx.NodeProto, opset: int) -> onnx.FunctionProto | None:
    """Return the body that the standard gives an operator, if it gives one."""
    return _function(domain, proto.op_type, opset)


@functools.cache
def _function(domain: str, op_type: str, opset: int) -> onnx.FunctionProto | None:
    import onnx
    from onnx import defs

    try:
        schema = defs.get_schema(op_type, min(max(opset, 0), NEWEST), domain)
    except defs.SchemaError:
        return None
    if not schema.has_function:  # type: ignore[attr-defined]  # missing from onnx's stubs
        return None
    function = onnx.FunctionProto()
    function.CopyFrom(schema.function_body)
    function.attribute_proto.extend(a.default_value for a in schema.attributes.values() if a.default_value.type)
    return function


FLOATS = ("float16", "bfloat16", "float", "double")
INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")


def element_types(domain: str, op_type: str, version: int) -> tuple[str, ...]:
    """Return the element types that the standard allows for an operator's first input; none where it says nothing."""
    from onnx import defs

    try:
        schema = defs.get_schema(op_type, version, domain)
    except defs.SchemaError:
        return ()
    if not schema.inputs:
        return ()
    first = schema.inputs[0].type_str
    allowed = {c.type_param_str: list(c.allowed_type_strs) for c in schema.type_constraints}.get(first, [first])
    found = {t.removeprefix("tensor(").removesuffix(")") for t in allowed if t.startswith("tensor(")}
    known = [t for t in (*FLOATS, *INTEGERS) if t in found]
    return (*known, *sorted(found - set(known)))
