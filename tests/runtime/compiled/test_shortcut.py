"""The short way is taken for shapes that this very program has run, and left where anything may have changed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnxgrad.ops import matmul, pointwise as pw
from onnxgrad.runtime.compiled.program import Program
from onnxgrad.runtime.compiled.shortcut import shortcut
from onnxgrad.runtime.tensor.tensor import Tensor, changes

from .graphs import build

W = np.random.default_rng(0).standard_normal((4, 4)).astype(np.float32)


def made() -> tuple[Program, dict[str, Tensor]]:
    graph = build({"x": ("n", 4)}, {"w": W}, lambda x, w: pw.relu(matmul.matmul(x, w)))
    return Program(graph), {"w": Tensor(W.copy())}


def ones(n: int) -> Any:
    return np.ones((n, 4), np.float32)


def test_shapes_that_another_engine_ran_have_none() -> None:
    program, _ = made()
    assert shortcut(program, ["x"], [ones(2)], changes[0]) is None


def test_it_computes_the_same_and_refuses_other_inputs() -> None:
    program, tensors = made()
    program.run([ones(2)], tensors)
    way = shortcut(program, ["x"], [ones(2)], changes[0])
    assert way is not None
    found = way.run({"x": ones(2)})
    assert found is not None
    np.testing.assert_allclose(found[0], np.maximum(ones(2) @ W, 0), rtol=1e-5)
    for feeds in ({"x": ones(3)}, {"x": ones(2).astype(np.float64)}, {"y": ones(2)}, {"x": ones(4)[::2]}, {}):
        assert way.run(feeds) is None
    elsewhere = Tensor(W.copy())
    handed = elsewhere.numpy()
    assert way.run({"x": ones(2)}) is not None, "another Tensor's array does not matter"
    del handed
    tensors["w"].mul_(2)
    assert way.run({"x": ones(2)}) is None


@pytest.mark.parametrize("kind", ["read-only", "no elements", "a view"])
def test_arrays_of_every_kind_are_found(kind: str) -> None:
    program, tensors = made()
    x = np.arange(24, dtype=np.float32).reshape(6, 4)
    x = x[:0] if kind == "no elements" else x[2:4]
    x.flags.writeable = kind != "read-only"
    (wanted,), _ = program.run([x], tensors)
    way = shortcut(program, ["x"], [x], changes[0])
    assert way is not None
    found = way.run({"x": x})
    assert found is not None
    np.testing.assert_array_equal(found[0], wanted)
    np.testing.assert_allclose(wanted, np.maximum(x @ W, 0), rtol=1e-5)


def test_a_constant_result_is_a_fresh_array() -> None:
    graph = build({"x": (2, 4)}, {}, lambda x: (pw.relu(x), x.graph.constant(np.ones(3, np.float32))))
    program, x = Program(graph), ones(2)
    program.run([x])
    way = shortcut(program, ["x"], [x], changes[0])
    assert way is not None
    for _ in range(2):
        for outs in (way.run({"x": x}), program.run([x])[0]):
            assert outs is not None
            np.testing.assert_array_equal(outs[1], np.ones(3))
            outs[1] += 1


def test_an_array_handed_out_is_read_again() -> None:
    program, tensors = made()
    program.run([ones(2)], tensors)
    way = shortcut(program, ["x"], [ones(2)], changes[0])
    assert way is not None
    handed = tensors["w"].numpy()
    assert way.run({"x": ones(2)}) is None
    handed *= 2
    np.testing.assert_allclose(program.run([ones(2)], tensors)[0][0], np.maximum(ones(2) @ (2 * W), 0), rtol=1e-5)
