"""Every op, by the one table in `cases/`: values, types, gradients, purity, and the traced plan."""

from __future__ import annotations

import copy
import importlib
import pkgutil
from typing import Any

import numpy as np
import pytest

from onnxgrad.ops.dims import Dim, evaluate, symbols_in
from onnxgrad.ops.op import OPS
from onnxgrad.ops.types import TensorType, is_float, type_of
from onnxgrad.runtime.autograd.gradcheck import check_grads
from onnxgrad.runtime.graph.execute import run_graph
from onnxgrad.runtime.graph.graph import Graph
from onnxgrad.runtime.tensor.tensor import Tensor

from . import cases
from .case import OpCase

CASES: list[OpCase] = [
    case
    for module in sorted(m.name for m in pkgutil.iter_modules(cases.__path__))
    for case in importlib.import_module(f"{cases.__name__}.{module}").CASES
]
each = pytest.mark.parametrize("case", CASES, ids=str)


def flat(result: Any) -> list[Any]:
    return list(result) if isinstance(result, tuple | list) else [result]


def arrays_in(args: Any) -> list[np.ndarray]:
    return [a for x in args for a in (x if isinstance(x, list) else [x]) if isinstance(a, np.ndarray)]


@each
def test_value(case: OpCase) -> None:
    before = copy.deepcopy(arrays_in(case.args))
    found = flat(case.op(*case.args, **case.attrs))
    for a, b in zip(arrays_in(case.args), before, strict=True):
        np.testing.assert_array_equal(a, b, err_msg="the op changed its input")
    if case.reference is None:
        return
    wanted = flat(case.reference(*case.args))
    assert len(found) == len(wanted)
    for f, w in zip(found, wanted, strict=True):
        f, w = np.asarray(f), np.asarray(w)
        assert f.shape == w.shape
        if is_float(f.dtype):
            scale = max(1.0, float(np.abs(np.where(np.isfinite(w), w, 0)).max(initial=0)))
            np.testing.assert_allclose(f.astype(float), w.astype(float), rtol=0, atol=case.tol * scale)
        else:
            np.testing.assert_array_equal(f, w)


@each
def test_layout_does_not_matter(case: OpCase) -> None:
    def strided(a: Any) -> Any:
        if isinstance(a, list):
            return [strided(v) for v in a]
        if not isinstance(a, np.ndarray) or a.ndim == 0:
            return a
        wide = np.zeros((*a.shape[:-1], a.shape[-1] * 2), a.dtype)
        wide[..., ::2] = a
        return wide[..., ::2]

    found = flat(case.op(*map(strided, case.args), **case.attrs))
    for f, w in zip(found, flat(case.op(*case.args, **case.attrs)), strict=True):
        if isinstance(f, np.ndarray) and is_float(f.dtype):
            np.testing.assert_allclose(f, w, rtol=1e-9, atol=1e-12)


@each
def test_types(case: OpCase) -> None:
    types = [type_of(a) if isinstance(a, np.ndarray) else a for a in case.args]
    if any(isinstance(a, list) for a in case.args) or case.op.structural:
        pytest.skip("lists have no tensor type")
    inferred = flat(case.op.infer_types(*types, **case.attrs))
    found = flat(case.op(*case.args, **case.attrs))
    for t, f in zip(inferred, found, strict=True):
        assert t.dtype == f.dtype
        if t.known_shape is not None:
            sizes = tuple(d for d in t.shape)
            assert len(sizes) == f.ndim
            assert all(isinstance(d, Dim) or d == n for d, n in zip(sizes, f.shape, strict=True)), (
                sizes,
                f.shape,
            )
        if t.contents is not None and not any(True for c in t.contents for _ in symbols_in(c)):
            np.testing.assert_array_equal(np.array(t.contents).reshape(f.shape), f)


@each
def test_symbolic_types(case: OpCase) -> None:
    if not case.symbolic or case.op.structural or any(isinstance(a, list) for a in case.args):
        pytest.skip("declared")
    env: dict[str, int] = {}
    types: list[Any] = []
    for i, a in enumerate(case.args):
        if isinstance(a, np.ndarray) and is_float(a.dtype) and i == 0:
            env.update({f"d{i}_{k}": n for k, n in enumerate(a.shape)})
            types.append(TensorType(a.dtype, tuple(Dim.symbol(f"d{i}_{k}") for k in range(a.ndim))))
        else:
            types.append(type_of(a) if isinstance(a, np.ndarray) else a)
    found = flat(case.op(*case.args, **case.attrs))
    for t, f in zip(flat(case.op.infer_types(*types, **case.attrs)), found, strict=True):
        assert t.dtype == f.dtype
        if t.known_shape is None:
            continue
        assert len(t.shape) == f.ndim
        for d, n in zip(t.shape, f.shape, strict=True):
            if all(s in env for s in symbols_in(d)):
                assert evaluate(d, env) == n


@each
def test_plan_agrees(case: OpCase) -> None:
    graph = Graph("case")

    def place(a: Any) -> Any:
        if isinstance(a, np.ndarray):
            return graph.input(
                f"x{len(graph.inputs)}", type_of(a) if a.dtype.kind in "iu" else TensorType(a.dtype, a.shape)
            )
        return a

    if any(isinstance(a, list | dict) for a in case.args):
        pytest.skip("lists and dictionaries are bound by their own tests")
    with graph.building():
        graph.outputs = flat(case.op(*map(place, case.args), **case.attrs))
    graph.verify()
    found = run_graph(graph, [a for a in case.args if isinstance(a, np.ndarray)])
    wanted = case.op(*case.args, **case.attrs)
    for f, w in zip(
        found, [wanted] if isinstance(wanted, list) and len(graph.outputs) == 1 else flat(wanted), strict=True
    ):
        for a, b in zip(flat(f), flat(w), strict=True) if isinstance(w, list) else [(f, w)]:
            np.testing.assert_array_equal(a, b)


@each
def test_gradients(case: OpCase) -> None:
    if case.order is None:
        pytest.skip("a test of its own")
    if case.order == 0:
        tensors = [Tensor(a, requires_grad=is_float(a.dtype)) if isinstance(a, np.ndarray) else a for a in case.args]
        outs = flat(case.op(*tensors, **case.attrs))
        assert not any(isinstance(t, Tensor) and t.requires_grad for t in outs)
        return
    check_grads(lambda *xs: case.op(*xs, **case.attrs), case.args, order=case.order, tol=case.grad_tol)


def test_every_op_has_a_case() -> None:
    covered = {c.op.name for c in CASES}
    missing = sorted(n for n in OPS if n not in covered and "_grad_" not in n)
    assert not missing, f"ops without a row in tests/ops/cases: {missing}"


def test_copies_of_graphs_call_the_same_ops() -> None:
    assert all(copy.deepcopy(op) is op for op in OPS.values())
