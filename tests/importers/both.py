"""The same model through onnxgrad and through onnxruntime."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper

from onnxgrad.importers.onnx.model import load_bytes


def model(
    nodes: Sequence[Any],
    inputs: dict[str, Any],
    outputs: Sequence[str | onnx.ValueInfoProto],
    *,
    opset: int,
    initializers: dict[str, np.ndarray] | None = None,
    domains: Sequence[tuple[str, int]] = (),
) -> onnx.ModelProto:
    """Return a model whose inputs have the types of these arrays (or are declared)."""
    graph = helper.make_graph(
        list(nodes),
        "test",
        [info(n, a) for n, a in inputs.items()],
        [o if not isinstance(o, str) else onnx.ValueInfoProto(name=o) for o in outputs],
        [onnx.numpy_helper.from_array(a, n) for n, a in (initializers or {}).items()],
    )
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, v) for d, v in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10 if opset < 23 else 11)


def info(name: str, a: Any, shape: Sequence[Any] | None = None) -> onnx.ValueInfoProto:
    """Return the declaration of an array, or of its element type and another shape."""
    kind = onnx.TensorProto.STRING if a.dtype == object else helper.np_dtype_to_tensor_dtype(a.dtype)
    return helper.make_tensor_value_info(name, kind, a.shape if shape is None else shape)


def ours(proto: onnx.ModelProto, feeds: dict[str, Any]) -> list[Any]:
    return load_bytes(proto.SerializeToString()).run(feeds)


def theirs(proto: onnx.ModelProto, feeds: dict[str, Any]) -> list[Any]:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, feeds))


def agree(proto: onnx.ModelProto, feeds: dict[str, Any], *, tol: float = 1e-5) -> list[Any]:
    """Check that both give the same, and return it."""
    found, wanted = ours(proto, feeds), theirs(proto, feeds)
    assert len(found) == len(wanted)
    for f, w in zip(found, wanted, strict=True):
        same(f, w, tol)
    return found


def same(found: Any, wanted: Any, tol: float = 1e-5) -> None:
    """Check a value: an array, a list of values, or a dictionary of numbers."""
    if isinstance(wanted, list) and isinstance(found, list):
        assert len(found) == len(wanted)
        for f, w in zip(found, wanted, strict=True):
            same(f, w, tol)
        return
    if isinstance(wanted, dict):
        assert found.keys() == wanted.keys()
        for k in wanted:
            same(np.asarray(found[k]), np.asarray(wanted[k]), tol)
        return
    found, wanted = np.asarray(found), np.asarray(wanted)
    assert found.shape == wanted.shape
    if wanted.dtype.kind == "f":
        np.testing.assert_allclose(found, wanted, rtol=tol, atol=tol)
    else:
        np.testing.assert_array_equal(found, wanted)
