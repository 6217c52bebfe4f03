"""Dimensions: arithmetic agrees with integers under every binding."""

from __future__ import annotations

import operator
from typing import Any

import pytest
from hypothesis import given, strategies as st

from onnxgrad.ops.dims import Dim, at_least, bind, broadcast, evaluate, product, show, substitute, symbols_in
from onnxgrad.ops.errors import ShapeError, SymbolicError
from onnxgrad.ops.window import Window

n, h = Dim.symbol("n"), Dim.symbol("h")
envs = st.fixed_dictionaries({"n": st.integers(1, 40), "h": st.integers(1, 40)})
OPERATORS = [operator.add, operator.sub, operator.mul, operator.floordiv, operator.mod]


@st.composite
def expressions(draw: Any, depth: int = 3) -> Any:
    """Build the same expression twice: as a dimension, and as a function of an environment."""
    if depth == 0 or draw(st.booleans()):
        leaf = draw(st.sampled_from(["n", "h", 1, 2, 3, 7]))
        return (Dim.symbol(leaf), lambda env: env[leaf]) if isinstance(leaf, str) else (leaf, lambda env: leaf)
    op = draw(st.sampled_from(OPERATORS))
    a, fa = draw(expressions(depth=depth - 1))
    if op in (operator.floordiv, operator.mod):
        k = draw(st.integers(1, 9))
        return op(a, k), lambda env: op(fa(env), k)
    b, fb = draw(expressions(depth=depth - 1))
    return op(a, b), lambda env: op(fa(env), fb(env))


@given(expressions(), envs)
def test_arithmetic_is_that_of_integers(pair: Any, env: dict[str, int]) -> None:
    dim, value = pair
    assert evaluate(dim, env) == value(env)
    assert set(symbols_in(dim)) <= set(env)


def test_normal_form_makes_equal_things_equal() -> None:
    assert (n + 1) * 2 - n == n + 2
    assert n - n == 0
    assert (n * h * 12) // (h * 12) == n
    assert (4 * n + 6) // 2 == 2 * n + 3
    assert (4 * n) % 2 == 0
    assert n != h


def test_inequalities_use_that_sizes_are_positive() -> None:
    assert n > 0
    assert n + 3 > 3
    assert not n < 1
    with pytest.raises(SymbolicError):
        assert n > h
    with pytest.raises(SymbolicError):
        range(n)  # type: ignore[call-overload]


def test_unbound_symbol_says_which() -> None:
    with pytest.raises(SymbolicError, match="n"):
        evaluate(n + h, {"h": 1})


@pytest.mark.parametrize(
    ("shapes", "wanted"),
    [
        ([(n, 1, 3), (h, 3)], (n, h, 3)),
        ([(1,), (n,)], (n,)),
        ([(), (2, 1)], (2, 1)),
        ([(n, 4), (1, 1)], (n, 4)),
    ],
)
def test_broadcast(shapes: Any, wanted: Any) -> None:
    assert broadcast(*shapes) == wanted


def test_broadcast_of_two_symbols_is_neither() -> None:
    (d,) = broadcast((n,), (h,))
    assert isinstance(d, Dim)
    assert d not in (n, h)


def test_broadcast_refuses() -> None:
    with pytest.raises(ShapeError, match="axis -1"):
        broadcast((2, 3), (2, 4))


def test_bind_reaches_into_attributes() -> None:
    win = Window((1, 1), ((n, 0), (0, h // 2)), (1, 1))
    assert bind((win, n * 2, "x"), {"n": 3, "h": 5}) == (Window((1, 1), ((3, 0), (0, 2)), (1, 1)), 6, "x")


def test_substitute_replaces_some_symbols() -> None:
    win = Window((1, 1), ((n, 0), (0, h // 2)), (1, 1))
    assert substitute((win, n * 2, 7), {"h": 4 * n}) == (Window((1, 1), ((n, 0), (0, 2 * n)), (1, 1)), n * 2, 7)
    assert substitute(at_least(n - h, 1), {"h": n}) == 1
    assert substitute(at_least(n - h, 1), {"n": h + 3}) == 3
    assert substitute(h, {"n": 2}) == h


def test_text() -> None:
    assert show((n, 3, 2 * h + 1)) == "(n, 3, 2*h + 1)"
    assert show((n,)) == "(n,)"
    assert str((h + 1) // 2) == "(h + 1)//2"
    assert product((n, 3, h)) == 3 * n * h


@given(expressions(), expressions(), envs)
def test_at_least_is_max(a: Any, b: Any, env: dict[str, int]) -> None:
    larger = at_least(a[0], b[0])
    assert evaluate(larger, env) == max(a[1](env), b[1](env))
    if isinstance(larger, Dim) and (low := larger.lower_bound()) is not None:
        assert larger.evaluate(env) >= low


def test_at_least_decides_what_it_can() -> None:
    assert at_least(2, 3) == 3
    assert at_least(n, 0) == n
    assert at_least(n - h, 0) == at_least(0, n - h)
    assert str(at_least(n - 3, 0)) == "max(0, n - 3)"
    assert set(symbols_in(at_least(n, 2 * h))) == {"n", "h"}
