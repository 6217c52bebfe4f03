"""Arithmetic with numbers is done once, and only where it stays the same; NumPy is the oracle."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from onnxgrad.ops import layout, pointwise as pw
from onnxgrad.ops.dims import Dim
from onnxgrad.runtime.graph.graph import Value
from onnxgrad.runtime.passes.simplify_arithmetic import simplify_arithmetic

from .graphs import F32, Built, built, checked, op_names, positive, unchanged

n = Dim.symbol("n")
X = positive(2, 3, 4)


def of_x(f: Callable[[Built, Value], Any]) -> Built:
    return built(lambda b: f(b, b.input(X, (n, 3, 4))))


CASES: list[tuple[Callable[[Built, Value], Any], Any, list[str]]] = [
    (lambda b, x: pw.exp(pw.mul(1.0, x)), np.exp(X), ["exp"]),
    (lambda b, x: pw.exp(pw.add(x, b.graph.constant(np.zeros((3, 1))))), np.exp(X), ["exp"]),
    (lambda b, x: pw.exp(pw.sub(pw.div(x, 1.0), 0.0)), np.exp(X), ["exp"]),
    (lambda b, x: pw.exp(pw.neg(pw.neg(x))), np.exp(X), ["exp"]),
    (lambda b, x: pw.sub(0.0, x), -X, ["neg"]),
    (lambda b, x: pw.pow_(x, b.graph.constant(np.array(2.0))), X * X, ["mul"]),
    (lambda b, x: pw.pow_(x, 3.0), X**3, ["mul", "mul"]),
    (lambda b, x: pw.pow_(x, 0.5), np.sqrt(X), ["sqrt"]),
    (lambda b, x: pw.pow_(x, -0.5), 1 / np.sqrt(X), ["sqrt", "reciprocal"]),
    (lambda b, x: pw.pow_(x, -1.0), 1 / X, ["reciprocal"]),
    (lambda b, x: pw.exp(pw.pow_(x, 1.0)), np.exp(X), ["exp"]),
    (lambda b, x: pw.div(x, 8.0), X / 8, ["mul"]),
    (lambda b, x: pw.div(pw.mul(pw.mul(x, 3.0), 0.7), 1.7), X * 3 * 0.7 / 1.7, ["mul"]),
    (lambda b, x: pw.add(pw.add(1.5, x), 2.0), X + 3.5, ["add"]),
    (lambda b, x: pw.sub(pw.sub(x, 1.5), 2.0), X - 3.5, ["add"]),
    (lambda b, x: pw.add(x, layout.expand(b.input(X[0, 0]), shape=(1, 3, 4))), X + X[0, 0], ["add"]),
    (lambda b, x: pw.exp(pw.where(b.graph.constant(np.ones((3, 4), bool)), x, 0.0)), np.exp(X), ["exp"]),
    (lambda b, x: pw.exp(pw.where(b.graph.constant(np.zeros((3, 4), bool)), 0.0, x)), np.exp(X), ["exp"]),
]


@pytest.mark.parametrize(("f", "wanted", "names"), CASES)
def test_cases(f: Callable[[Built, Value], Any], wanted: Any, names: list[str]) -> None:
    assert op_names(checked(of_x(f), simplify_arithmetic, [wanted])) == names


@given(st.floats(1e-30, 1e30), st.floats(1e-30, 1e30))
def test_products_stay_in_range(a: float, c: float) -> None:
    x = positive(5, dtype=F32)
    b = built(lambda b: pw.mul(pw.mul(b.input(x), a), c))
    with np.errstate(over="ignore", under="ignore"):
        merged = bool(np.finfo(F32).tiny <= a * c <= np.finfo(F32).max)
        result = simplify_arithmetic(b.graph)
        assert result.changed == merged
        if merged:
            np.testing.assert_allclose(b.run(result.graph)[0], x.astype(float) * a * c, rtol=1e-5)


NEAR: list[Callable[[Built, Value], Any]] = [
    lambda b, x: pw.mul(x, 1.0),  # an output stays a value of its own
    lambda b, x: pw.exp(pw.mul(x, b.graph.constant(np.ones((5, 1, 1, 1))))),
    lambda b, x: pw.sub(pw.add(x, 1e8), 1e8),
    lambda b, x: pw.div(x, 3.0),
    lambda b, x: pw.div(x, b.weight(np.full((4,), 2.0))),
    lambda b, x: pw.div(1.0, x),
    lambda b, x: pw.pow_(x, 2.5),
    lambda b, x: pw.pow_(x, b.input(np.array(2.0))),
    lambda b, x: pw.pow_(2.0, x),
    lambda b, x: (lambda y: (pw.mul(y, 3.0), pw.exp(y)))(pw.mul(x, 5.0)),
    lambda b, x: pw.exp(layout.expand(b.input(X[0, :1]), shape=(3, 4))),
    lambda b, x: pw.add(layout.expand(b.input(X[0, 0]), shape=(5, 1, 1, 4)), x),
    lambda b, x: pw.where(b.input(X > 1), x, 0.0),
]


@pytest.mark.parametrize("f", NEAR)
def test_near_misses_stay(f: Callable[[Built, Value], Any]) -> None:
    unchanged(of_x(f), simplify_arithmetic)


def test_integers_stay_integers() -> None:
    x = np.arange(6)
    unchanged(built(lambda b: pw.div(pw.mul(pw.mul(b.input(x), 3), 5), 4)), simplify_arithmetic)
