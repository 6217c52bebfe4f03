"""One-node models whose first input has symbols for sizes: results must not depend on knowing them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .one_node import one_node_model, ort_node, run_node


def run_free(op_type: str, inputs: Sequence[Any], **how: Any) -> list[Any]:
    """Return what onnxgrad computes for one node that does not know the sizes of its first input."""
    from onnxgrad.importers.onnx.model import load_bytes

    model = one_node_model(op_type, inputs, **how)
    for axis, dim in enumerate(model.graph.input[0].type.tensor_type.shape.dim):
        dim.dim_param = f"size{axis}"
    fixed = how.get("constants", ())
    feeds = {f"x{i}": np.asarray(a) for i, a in enumerate(inputs) if a is not None and i not in fixed}
    return load_bytes(model.SerializeToString()).run(feeds)


def agree(op_type: str, inputs: Sequence[Any], *, tol: float = 1e-5, free: bool = True, **how: Any) -> None:
    """Compare onnxgrad, with known and with symbolic sizes, with onnxruntime."""
    wanted = ort_node(op_type, inputs, **how)
    for run in (run_node, run_free) if free else (run_node,):
        for f, w in zip(run(op_type, inputs, **how), wanted, strict=True):
            f = np.asarray(f)
            assert f.dtype == w.dtype and f.shape == w.shape
            np.testing.assert_allclose(
                f.astype(float),
                w.astype(float),
                rtol=0,
                atol=tol * max(1.0, np.abs(w.astype(float)).max(initial=0)),
            )


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    """Return float32 normal numbers, the same each time."""
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)
