"""Arrangement of buffers: what lives at the same time never overlaps."""

from __future__ import annotations

from hypothesis import given, strategies as st

from onnxgrad.runtime.compiled.memory import ALIGNMENT, Lifetime, arrange

lifetimes = st.builds(
    lambda nbytes, first, length: Lifetime(nbytes, first, first + length),
    st.integers(0, 5000), st.integers(0, 30), st.integers(0, 12),
)  # fmt: skip


@given(st.lists(lifetimes, max_size=40))
def test_buffers_that_live_together_do_not_overlap(buffers: list[Lifetime]) -> None:
    offsets, total = arrange(buffers)
    placed = list(zip(buffers, offsets, strict=True))
    for i, (a, at) in enumerate(placed):
        assert at % ALIGNMENT == 0
        assert at + a.nbytes <= total or not a.nbytes
        for b, bt in placed[:i]:
            apart = a.last < b.first or b.last < a.first
            assert apart or at + a.nbytes <= bt or bt + b.nbytes <= at or not (a.nbytes and b.nbytes)


@given(st.lists(lifetimes, max_size=40))
def test_the_arena_is_no_larger_than_the_sum_and_no_smaller_than_the_peak(buffers: list[Lifetime]) -> None:
    _, total = arrange(buffers)
    rounded = [-(-b.nbytes // ALIGNMENT) * ALIGNMENT for b in buffers]
    peak = max(
        (sum(n for b, n in zip(buffers, rounded, strict=True) if b.first <= t <= b.last) for t in range(50)), default=0
    )
    assert peak <= total <= sum(rounded)


def test_a_chain_reuses_two_buffers() -> None:
    _, total = arrange([Lifetime(1000, i, i + 1) for i in range(50)])
    assert total == 2 * 1024
