"""Scatters that sort: places of several digits, runs longer than a thread's share, updates that may not count."""

from __future__ import annotations

import numpy as np
import pytest

from onnxgrad.ops.kernels.cuda import index as _rules, segments
from onnxgrad.ops.kernels.cuda.segments import SERIAL
from onnxgrad.ops.op import OPS

from .site import make_site, run_op

assert _rules
RNG = np.random.default_rng(0)


def added(at: np.ndarray, size: int, row: int) -> None:
    """Compare with the array kernel in float64."""
    g = RNG.standard_normal((at.size, row)).astype(np.float32)
    (y,) = run_op("gather_grad", [g, at], {"axis": 0, "size": size})
    want = OPS["gather_grad"].run(g.astype(np.float64), at, axis=0, size=size)
    np.testing.assert_allclose(y, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [255, 256, 65535, 70000])
def test_places_of_several_digits(size: int) -> None:
    ends = np.array([0, size - 1, size - 1, 255 % size, size // 2])
    added(np.concatenate([RNG.integers(0, size, 4300), ends]), size, 1)


def test_more_tiles_than_a_block_has_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "_TILE", 256)
    added(RNG.integers(0, 200, 257 * 256), 200, 1)


@pytest.mark.parametrize("count", [SERIAL + 1, 64, 2048, 2049])
def test_runs_that_reach_over_chunks(count: int) -> None:
    added(np.full(count, 5), 9, 3)
    added(np.sort(RNG.integers(0, 4, count)), 9, 8)
    added(np.where(np.arange(count) % 7 < 6, 0, np.arange(count) % 9), 9, 3)


def test_updates_are_added_in_their_order() -> None:
    g = np.array([1e8, 1.0, -1e8, 1.0] * 50, np.float32)[:, None]
    (y,) = run_op("gather_grad", [g[:SERIAL], np.zeros(SERIAL, np.int64)], {"axis": 0, "size": 1})
    total = np.float32(0)
    for value in g[:SERIAL, 0]:
        total += value
    assert y[0, 0] == total
    (y,) = run_op("gather_grad", [g, np.zeros(200, np.int64)], {"axis": 0, "size": 1})
    parts = [np.add.accumulate(p, dtype=np.float32)[-1] for p in np.split(g[:, 0], range(32, 200, 32))]
    assert y[0, 0] == np.add.accumulate(np.array(parts, np.float32))[-1]


def test_the_last_of_equal_places_is_written() -> None:
    x, at = np.zeros((4, 5), np.float32), RNG.integers(0, 4, (900, 1))
    updates = np.arange(4500, dtype=np.float32).reshape(900, 5)
    (y,) = run_op("scatter_nd", [x, at, updates])
    for place in range(4):
        np.testing.assert_array_equal(y[place], updates[np.flatnonzero(at[:, 0] == place)[-1]])


def test_float_atomics_are_never_used() -> None:
    from .site import lower

    for op, arrays, attrs in (
        ("gather_grad", [np.zeros((99, 4), np.float32), np.zeros(99, np.int64)], {"axis": 0, "size": 7}),
        ("scatter_nd", [np.zeros((9, 4)), np.zeros((99, 1), np.int64), np.zeros((99, 4))], {"reduction": "add"}),
    ):
        site = make_site(op, arrays, attrs)
        assert lower(site)
        texts = [w.kernel.code for w in site.work]
        assert sum("atomic" in t for t in texts) == 2, "the counts of the sort"
        assert all("int found[256]" in t or "int next[8][256]" in t for t in texts if "atomic" in t)
