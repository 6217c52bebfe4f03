"""A module that leaves as a file: checked, run by onnxruntime and by og.load, and compared with the module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx

import onnxgrad as og
from onnxgrad.importers.onnx.export import to_onnx_model
from onnxgrad.importers.onnx.model import load_bytes

RTOL = 1e-5


def arrays_of(result: Any) -> list[np.ndarray]:
    """Return the arrays of a result, in order."""
    if isinstance(result, dict):
        return [a for v in result.values() for a in arrays_of(v)]
    if isinstance(result, tuple | list):
        return [a for v in result for a in arrays_of(v)]
    return [np.asarray(result.detach().numpy() if hasattr(result, "detach") else result)]


def same(found: Any, wanted: Any, rtol: float = RTOL) -> None:
    """Compare results: relative to the largest element."""
    a, b = arrays_of(found), arrays_of(wanted)
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        assert x.shape == y.shape and x.dtype == y.dtype, f"{x.dtype}{x.shape}, wanted {y.dtype}{y.shape}"
        if y.dtype.kind != "f":
            np.testing.assert_array_equal(x, y)
            continue
        finite = np.isfinite(y)
        np.testing.assert_array_equal(np.isfinite(x), finite)
        np.testing.assert_array_equal(x[~finite], y[~finite])
        np.testing.assert_allclose(
            x[finite], y[finite], rtol=rtol, atol=rtol * max(1e-3, np.abs(y[finite]).max(initial=0))
        )


def ort_run(proto: onnx.ModelProto, feeds: Mapping[str, Any]) -> list[np.ndarray]:
    """Return what onnxruntime computes, without its rewriting."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, dict(feeds)))


def tensors(inputs: Sequence[Any]) -> list[Any]:
    """Return arguments with Tensors in the place of arrays."""
    return [og.tensor(x) if isinstance(x, np.ndarray) else x for x in inputs]


def exported(
    module: Any,
    inputs: Sequence[Any],
    *,
    dynamic: Any = None,
    others: Sequence[Sequence[Any]] = (),
    runtime: bool = True,
    rtol: float = RTOL,
    **options: Any,
) -> onnx.ModelProto:
    """Export a module and check all that a file promises.

    Args:
        module: in evaluation mode.
        inputs: what it is called with.
        dynamic: `dynamic_axes`.
        others: further inputs, of other sizes where axes are dynamic.
        runtime: whether onnxruntime has kernels for it.
        rtol: relative to the largest element.
        options: further arguments of `to_onnx_model`.
    """
    proto = to_onnx_model(module, tuple(tensors(inputs)), dynamic_axes=dynamic, **options)
    onnx.checker.check_model(proto, full_check=True)
    onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True, data_prop=True)
    names = [i.name for i in proto.graph.input]
    back = load_bytes(proto.SerializeToString())
    for given in (inputs, *others):
        with og.no_grad():
            wanted = module(*tensors(given))
        arrays = [x for x in given if isinstance(x, np.ndarray)]
        feeds = dict(zip(names, arrays, strict=True))
        if runtime:
            same(ort_run(proto, feeds), wanted, rtol)
        same(back.run(feeds), wanted, rtol)
    return proto
