"""Masks that are windows, by brute force."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from onnxgrad.ops.kernels.cuda.band import Band, band
from onnxgrad.ops.types import BFLOAT16


def window(b: Band, queries: int, keys: int) -> np.ndarray:
    """Return what a window lets be seen."""
    place, key = np.arange(queries)[:, None] + b.offset, np.arange(keys)
    seen = np.ones((queries, keys), bool)
    if b.left >= 0:
        seen &= key >= place - b.left
    if b.right >= 0:
        seen &= key <= place + b.right
    return seen


@pytest.mark.parametrize(("queries", "keys"), [(1, 1), (1, 5), (4, 4), (3, 6), (6, 3)])
def test_windows_are_found(queries: int, keys: int) -> None:
    """Those that stand at the first or the last key, and no query is blind."""
    for left, right, offset in itertools.product((-1, 0, 1, 3), (-1, 0, 2), {0, max(keys - queries, 0)}):
        wanted = window(Band(left, right, offset), queries, keys)
        found = band(wanted, queries, keys)
        if not wanted.any(axis=1).all():
            assert found is None
        else:
            assert found is not None
            np.testing.assert_array_equal(window(found, queries, keys), wanted)


def test_causal() -> None:
    """By truth values, by numbers, along heads, of a part of the queries."""
    lower = np.tri(5, dtype=bool)
    assert band(lower, 5, 5) == band(lower[None, None].repeat(3, 1), 5, 5) == Band(-1, 0, 0)
    assert band(lower[3:], 2, 5) == Band(-1, 0, 3)
    assert band(lower[:2], 2, 5) == Band(-1, 0, 0)
    for low in (-np.inf, -65504.0, -1e5, np.finfo(np.float32).min):
        for dtype in (np.float32, np.float16, BFLOAT16):
            with np.errstate(over="ignore"):
                assert band(np.where(lower, 0, low).astype(dtype), 5, 5) == Band(-1, 0, 0)
    assert band(np.ones((1, 1), bool), 5, 7) == band(np.zeros((), np.float32), 5, 7) == Band(-1, -1, 2)


def test_others_are_no_windows() -> None:
    """Holes, heads apart, blind rows, numbers that are added, queries that see unequally far."""
    lower = np.tri(5, dtype=bool)
    hole = lower.copy()
    hole[4, 2] = False
    heads = np.stack([lower, np.ones_like(lower)])
    ragged = np.tri(5, dtype=bool)
    ragged[2, 3] = True
    for mask in (
        hole,
        heads,
        ragged,
        np.tri(5, k=-1, dtype=bool),
        np.where(lower, 0.0, -10.0),
        np.where(lower, 1.0, -np.inf),
    ):
        assert band(mask, 5, 5) is None
    keys = np.array([True, True, False])
    assert band(keys, 4, 3) is None
