"""Products of one operand and weights become one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnxgrad.ops import layout, pointwise as pw
from onnxgrad.ops.matmul import matmul
from onnxgrad.runtime.passes.merge_products import COLUMNS, merge_products

from .graphs import Built, built, normal


def products(graph: Any) -> int:
    return sum(n.op is matmul for n in graph.nodes)


def qkv(b: Built) -> Any:
    x = b.input(normal(2, 5, 8))
    return tuple(pw.add(matmul(x, b.weight(normal(8, n))), b.weight(normal(n))) for n in (8, 8, 6))


def without_biases(b: Built) -> Any:
    x = b.input(normal(5, 8), ("n", 8))
    return tuple(pw.tanh(matmul(x, b.weight(normal(8, 4)))) for _ in range(2))


def some_with(b: Built) -> Any:
    """Keys without a bias, as in Whisper; a bias in front of its product."""
    x = b.input(normal(5, 8))
    return matmul(x, b.weight(normal(8, 4))), pw.add(b.weight(normal(3)), matmul(x, b.weight(normal(8, 3))))


def of_weights(b: Built) -> Any:
    """Weights that are made behind the first product."""
    x = b.input(normal(5, 8))
    first = matmul(x, layout.transpose(b.weight(normal(4, 8)), perm=(1, 0)))
    second = matmul(x, pw.mul(layout.transpose(b.weight(normal(3, 8)), perm=(1, 0)), 2.0))
    return first, pw.add(second, pw.exp(b.weight(normal(3))))


def in_a_chain(b: Built) -> Any:
    """Two groups, the second of what the first made."""
    x = b.input(normal(5, 8))
    one, two = (matmul(x, b.weight(normal(8, 8))) for _ in range(2))
    y = pw.mul(one, pw.relu(two))
    return pw.sub(matmul(y, b.weight(normal(8, 2))), matmul(y, b.weight(normal(8, 2))))


def also_read(b: Built) -> Any:
    """A product that is read beside its bias stays without it."""
    x = b.input(normal(5, 8))
    one, two = (matmul(x, b.weight(normal(8, 8))) for _ in range(2))
    return one, pw.add(one, b.weight(normal(8))), two


@pytest.mark.parametrize(
    ("make", "left"),
    [(qkv, 1), (without_biases, 1), (some_with, 1), (of_weights, 1), (in_a_chain, 2), (also_read, 1)],
)
def test_merged(make: Any, left: int) -> None:
    b = built(make)
    wanted = b.run(b.graph)
    result = merge_products(b.graph)
    result.graph.verify()
    assert result.changed == left
    assert products(result.graph) == left
    for found, right, v in zip(b.run(result.graph), wanted, b.graph.outputs, strict=True):
        np.testing.assert_allclose(found, right, rtol=1e-12)
        assert found.dtype == v.dtype
    assert not merge_products(result.graph).changed


def of_different_operands(b: Built) -> Any:
    x, y = b.input(normal(5, 8)), b.input(normal(5, 8))
    return matmul(x, b.weight(normal(8, 4))), matmul(y, b.weight(normal(8, 4)))


def of_activations(b: Built) -> Any:
    x, y = b.input(normal(5, 8)), b.input(normal(8, 4))
    return matmul(x, y), matmul(x, pw.exp(y))


def of_weights_alone(b: Built) -> Any:
    w = b.weight(normal(5, 8))
    return matmul(w, b.weight(normal(8, 4))), matmul(w, b.weight(normal(8, 4)))


def of_batches(b: Built) -> Any:
    x = b.input(normal(3, 5, 8))
    return matmul(x, b.weight(normal(3, 8, 4))), matmul(x, b.weight(normal(3, 8, 4)))


def too_wide(b: Built) -> Any:
    x = b.input(normal(1, 2))
    return matmul(x, b.weight(normal(2, COLUMNS))), matmul(x, b.weight(normal(2, 1)))


@pytest.mark.parametrize("make", [of_different_operands, of_activations, of_weights_alone, of_batches, too_wide])
def test_refused(make: Any) -> None:
    b = built(make)
    assert merge_products(b.graph).graph is b.graph
