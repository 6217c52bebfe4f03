"""Every op's table row as a CUDA program: run plainly, recorded, and replayed, against what NumPy answers."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

from onnxgrad.ops.attention import attention
from onnxgrad.ops.types import BFLOAT16, TensorType, is_float, type_of
from onnxgrad.runtime.cuda.buckets import Buckets
from onnxgrad.runtime.cuda.capture import WARM_UPS
from onnxgrad.runtime.graph.graph import Graph

from ...ops.case import OpCase
from ...ops.test_cases import CASES, flat

pytestmark = pytest.mark.gpu

RUNS = WARM_UPS + 2
TOLERANCE = {"float64": 1e-9, "float32": 3e-4, "float16": 6e-3, "bfloat16": 5e-2}
"""Relative to the largest magnitude; a row's own tolerance where that is wider."""

HALF = [*{c.op.name: c for c in reversed(CASES)}.values()][::-1]
"""One row an op."""

ROWS = [(c, d) for d in (np.dtype(np.float64), np.dtype(np.float32)) for c in CASES]
ROWS += [(c, d) for d in (np.dtype(np.float16), BFLOAT16) for c in HALF]


def cast(a: Any, dtype: Any) -> Any:
    return a.astype(dtype) if isinstance(a, np.ndarray) and a.dtype == np.float64 else a


def takes(case: OpCase, args: list[Any]) -> bool:
    """Whether a row is one of other floats too."""
    if all(a is b for a, b in zip(args, case.args, strict=True)):
        return False
    types = [TensorType(a.dtype, a.shape) if isinstance(a, np.ndarray) and is_float(a.dtype)
             else type_of(a) if isinstance(a, np.ndarray) else a for a in args]  # fmt: skip
    try:
        made = flat(case.op.infer_types(*types, **case.attrs))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = flat(case.op(*args, **case.attrs))
    except Exception:
        return False
    return [t.dtype for t in made] == [getattr(a, "dtype", None) for a in found]


def graph_of(case: OpCase, args: list[Any]) -> Graph:
    graph = Graph("case")

    def place(a: Any) -> Any:
        if not isinstance(a, np.ndarray):
            return a
        t = type_of(a) if a.dtype.kind in "iu" else TensorType(a.dtype, a.shape)
        return graph.input(f"x{len(graph.inputs)}", t)

    with graph.building():
        graph.outputs = flat(case.op(*map(place, args), **case.attrs))
    return graph


def close(found: Any, wanted: Any, tolerance: float) -> None:
    if isinstance(wanted, list):
        for f, w in zip(flat(found), wanted, strict=True):
            close(f, w, tolerance)
        return
    found, wanted = np.asarray(found), np.asarray(wanted)
    assert (found.shape, found.dtype) == (wanted.shape, wanted.dtype)
    if not is_float(wanted.dtype):
        np.testing.assert_array_equal(found, wanted)
        return
    found, wanted = found.astype(np.float64), wanted.astype(np.float64)
    scale = max(1.0, float(np.abs(np.where(np.isfinite(wanted), wanted, 0)).max(initial=0)))
    np.testing.assert_allclose(found, wanted, rtol=tolerance, atol=tolerance * scale)


@pytest.mark.parametrize(("case", "dtype"), ROWS, ids=str)
def test_programs_answer_as_numpy_does(case: OpCase, dtype: Any) -> None:
    from onnxgrad.runtime.cuda.choice import runner_of

    if case.op.structural or any(isinstance(a, list | dict) for a in case.args):
        pytest.skip("lists, dictionaries and bodies have tests of their own")
    args = [cast(a, dtype) for a in case.args]
    if case.op.name == "attention_grad":  # kernels use that y is the result
        args[1] = attention(*args[2:], **case.attrs)
    if dtype != np.float64 and not takes(case, args):
        pytest.skip(f"not of {dtype}")
    wanted = flat(case.op(*args, **case.attrs))
    buckets = Buckets(graph_of(case, args), runner_of(0))
    feeds = [a for a in args if isinstance(a, np.ndarray)]
    for _ in range(RUNS):
        found, _ = buckets.run(feeds, host=True)
        assert len(found) == len(wanted)
        for f, w in zip(found, wanted, strict=True):
            close(f, w, max(TOLERANCE[dtype.name], case.tol))
