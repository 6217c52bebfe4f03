"""One-node models: the same node through onnxgrad and through onnxruntime."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper


def one_node_model(
    op_type: str,
    inputs: Sequence[Any],
    *,
    opset: int,
    domain: str = "",
    n_out: int = 1,
    constants: Sequence[int] = (),
    out_types: Sequence[int] | None = None,
    **attrs: Any,
) -> onnx.ModelProto:
    """Return a model of one node.

    Args:
        op_type: the operator.
        inputs: arrays; None leaves an optional input out.
        opset: of the domain.
        domain: of the operator.
        n_out: how many outputs it has.
        constants: which inputs are initializers rather than graph inputs.
        out_types: ONNX element types of the outputs, where inference cannot find them.
        attrs: attributes.
    """
    names = [f"x{i}" if a is not None else "" for i, a in enumerate(inputs)]
    node = helper.make_node(op_type, names, [f"y{i}" for i in range(n_out)], name="node", domain=domain, **attrs)
    given = [(n, a) for i, (n, a) in enumerate(zip(names, inputs, strict=True)) if a is not None and i not in constants]
    outputs = [onnx.ValueInfoProto(name=f"y{i}") for i in range(n_out)]
    for info, kind in zip(outputs, out_types or (), strict=False):
        info.type.CopyFrom(helper.make_tensor_type_proto(kind, None))
    weights = [onnx.numpy_helper.from_array(np.asarray(inputs[i]), names[i]) for i in constants]
    graph = helper.make_graph([node], "one_node", [_info(n, a) for n, a in given], outputs, weights)
    opsets = [helper.make_opsetid(domain, opset)] + ([helper.make_opsetid("", 17)] if domain else [])
    return helper.make_model(graph, opset_imports=opsets, ir_version=10 if opset < 23 else 11)


def _info(name: str, a: Any) -> onnx.ValueInfoProto:
    array = np.asarray(a)
    kind = onnx.TensorProto.STRING if array.dtype == object else helper.np_dtype_to_tensor_dtype(array.dtype)
    return helper.make_tensor_value_info(name, kind, array.shape)


def _feeds(inputs: Sequence[Any], constants: Sequence[int]) -> dict[str, Any]:
    return {f"x{i}": np.asarray(a) for i, a in enumerate(inputs) if a is not None and i not in constants}


def run_node(op_type: str, inputs: Sequence[Any], **how: Any) -> list[Any]:
    """Return what onnxgrad computes for one node."""
    from onnxgrad.importers.onnx.model import load_bytes

    model = load_bytes(one_node_model(op_type, inputs, **how).SerializeToString())
    return model.run(_feeds(inputs, how.get("constants", ())))


def ort_node(op_type: str, inputs: Sequence[Any], **how: Any) -> list[Any]:
    """Return what onnxruntime computes for one node."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(
        one_node_model(op_type, inputs, **how).SerializeToString(),
        options,
        providers=["CPUExecutionProvider"],
    )
    return list(session.run(None, _feeds(inputs, how.get("constants", ()))))
