"""Every number type that the standard allows for an operator's first input runs, and gives results of that type."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import defs, helper

from onnxgrad.importers.onnx.model import load_bytes
from onnxgrad.importers.onnx.schemas import FLOATS, INTEGERS, element_types

from .conformance import Case, node_modules, node_tests

WIDTH_MATTERS = {"BitCast"}
"""Operators whose other types depend on the width of the first."""

COUNT = [0]


@pytest.fixture(scope="module", autouse=True)
def totals(summary: Callable[[str], None]) -> Iterator[None]:
    """Print how many combinations ran."""
    yield
    summary(f"types: {COUNT[0]} combinations of operator and number type run")


def dtype_of(name: str) -> np.dtype[Any]:
    """Return the element type of a name of the standard's."""
    spelled = {"float": "FLOAT", "double": "DOUBLE"}.get(name, name.upper())
    return np.dtype(helper.tensor_dtype_to_np_dtype(onnx.TensorProto.DataType.Value(spelled)))


def first_cases() -> list[Case]:
    """Return one case an operator: of one node, whose first input is an array of numbers."""
    found: dict[tuple[str, str], Case] = {}
    for module in node_modules():
        for case in node_tests(module):
            nodes = case.model.graph.node
            if len(nodes) != 1 or case.model.functions or not nodes[0].input or not nodes[0].input[0]:
                continue
            first = case.data_sets[0][0][0] if case.data_sets[0][0] else None
            if isinstance(first, np.ndarray) and first.dtype.kind in "fiu":
                found.setdefault((nodes[0].domain, nodes[0].op_type), case)
    return list(found.values())


def retyped(case: Case, dtype: np.dtype[Any]) -> tuple[onnx.ModelProto, dict[str, Any], list[int]]:
    """Return the case with this type wherever the first input's type stands, and the outputs that have it."""
    node = case.model.graph.node[0]
    version = next(o.version for o in case.model.opset_import if o.domain in (node.domain, node.domain or "ai.onnx"))
    schema = defs.get_schema(node.op_type, version, node.domain)
    variable = schema.inputs[0].type_str

    def shares(formals: Any, k: int) -> bool:
        return bool(formals[min(k, len(formals) - 1)].type_str == variable)

    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    kind = helper.np_dtype_to_tensor_dtype(dtype)
    same = {name for k, name in enumerate(node.input) if name and shares(schema.inputs, k)}
    feeds: dict[str, Any] = {}
    for info, value in zip(model.graph.input, case.data_sets[0][0], strict=True):
        array = np.asarray(value) if isinstance(value, np.generic | int | float) else value
        if info.name in same and isinstance(array, np.ndarray):
            array = np.nan_to_num(array, posinf=1, neginf=-1) if dtype.kind in "iu" else array
            array = (np.abs(array) if dtype.kind == "u" else array).astype(dtype)
            info.type.tensor_type.elem_type = kind
        feeds[info.name] = array
    outputs = [k for k, _ in enumerate(model.graph.output) if shares(schema.outputs, k)]
    for k in outputs:
        if model.graph.output[k].type.HasField("tensor_type"):
            model.graph.output[k].type.tensor_type.elem_type = kind
    return model, feeds, outputs


@pytest.mark.parametrize("case", first_cases(), ids=lambda c: c.model.graph.node[0].op_type)
def test_number_types(case: Case) -> None:
    node = case.model.graph.node[0]
    if node.op_type in WIDTH_MATTERS:
        pytest.skip("its other types depend on the width")
    version = next(o.version for o in case.model.opset_import if o.domain in (node.domain, node.domain or "ai.onnx"))
    for name in element_types(node.domain, node.op_type, version):
        if name not in FLOATS + INTEGERS:
            continue
        dtype = dtype_of(name)
        model, feeds, outputs = retyped(case, dtype)
        results = load_bytes(model.SerializeToString(), widen_half=False).run(feeds)
        for k in outputs:
            if isinstance(results[k], np.ndarray):
                assert results[k].dtype == dtype, name
        COUNT[0] += 1
