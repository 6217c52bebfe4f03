"""Where the largest and smallest are, and running sums: compiled kernels against the array kernels and NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from onnxgrad.ops.dims import Dim
from onnxgrad.ops.errors import OpError
from onnxgrad.ops.kernels.cpu import cumulative, rank  # noqa: F401 (registers the rules)
from onnxgrad.ops.op import OPS

from .site import run_op

ORDERS = ["plain", "channels_last"]
SHAPES = st.lists(st.integers(1, 40), min_size=1, max_size=4).filter(lambda s: np.prod(s) < 20000)


def values(shape: Any, dtype: Any, special: bool) -> np.ndarray[Any, Any]:
    """Return few distinct numbers, so that many are equal."""
    rng = np.random.default_rng(int(np.prod(shape)))
    x = rng.integers(-4, 4, shape).astype(dtype)
    if special and np.dtype(dtype).kind == "f":
        x = np.where(rng.random(shape) < 0.05, np.nan, x)
        x = np.where(rng.random(shape) < 0.1, -0.0, x).astype(dtype)
    return x


def symbols(shape: Any) -> tuple[Any, ...]:
    return tuple(Dim.symbol(f"n{i}") for i in range(len(shape)))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    SHAPES, st.integers(0, 3), st.sampled_from(["float32", "float64", "int32", "int64"]), st.booleans(),
    st.booleans(), st.booleans(), st.sampled_from(["argmax", "argmin"]), st.booleans(), st.sampled_from(ORDERS),
)  # fmt: skip
def test_first(
    shape: list[int], axis: int, dtype: str, special: bool, keepdims: bool, last: bool, op: str, symbolic: bool,
    order: str,
) -> None:  # fmt: skip
    x, axis = values(shape, dtype, special), axis % len(shape)
    names = {0: symbols(shape)} if symbolic else {}
    attrs = {"axis": axis, "keepdims": keepdims, "select_last": last}
    got = run_op(op, [x], symbols=names, order="plain" if symbolic else order, **attrs)
    np.testing.assert_array_equal(got, OPS[op].array_kernel(x, **attrs))
    assert got.dtype == np.int64
    if not last:
        np.testing.assert_array_equal(got, getattr(np, op)(x, axis=axis, keepdims=keepdims))


@pytest.mark.parametrize("n", [1000, 50257])
@pytest.mark.parametrize("threads", [1, 2])
def test_rows_of_scores(n: int, threads: int) -> None:
    x = np.random.default_rng(0).standard_normal((5, n)).astype(np.float32)
    np.testing.assert_array_equal(run_op("argmax", [x], threads=threads, axis=-1), x.argmax(-1))


def test_an_empty_axis_is_an_error() -> None:
    x = np.zeros((3, 0), np.float32)
    with pytest.raises(OpError, match="size 0"):
        run_op("argmax", [x], symbols={0: symbols(x.shape)}, axis=1)
    assert run_op("argmax", [x], axis=1) is None


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    SHAPES, st.integers(0, 3), st.sampled_from(["float32", "float64", "int32", "int64"]), st.booleans(),
    st.booleans(), st.sampled_from(["cumsum", "cumprod"]), st.booleans(), st.sampled_from(ORDERS),
)  # fmt: skip
def test_running(
    shape: list[int], axis: int, dtype: str, exclusive: bool, reverse: bool, op: str, symbolic: bool, order: str
) -> None:
    x, axis = values(shape, dtype, special=False), axis % len(shape)
    names = {0: symbols(shape)} if symbolic else {}
    attrs = {"axis": axis, "exclusive": exclusive, "reverse": reverse}
    order = "plain" if symbolic else order
    one, two = (run_op(op, [x], symbols=names, order=order, threads=n, **attrs) for n in (1, 2))
    np.testing.assert_array_equal(one, two)
    with np.errstate(all="ignore"):
        wanted = OPS[op].array_kernel(x, **attrs)
    assert one.tobytes() == np.ascontiguousarray(wanted).tobytes()
    if not exclusive and not reverse:
        np.testing.assert_array_equal(one, getattr(np, op)(x, axis=axis, dtype=x.dtype))


def test_signs_of_zero_stay() -> None:
    x = np.full((4, 3), -0.0, np.float32)
    got = run_op("cumsum", [x], axis=0)
    assert np.signbit(got).all()
