"""Places in the arena: alignment, no overlap of what is alive together, reuse of what is dead."""

from __future__ import annotations

import numpy as np
import pytest

from onnxgrad.ops.kernels.cuda.operand import Operand, channels_last_strides
from onnxgrad.runtime.cuda.arena import ALIGNMENT, Storage, place_in_arena, room, span

F32 = np.dtype(np.float32)


def test_storages_that_are_alive_together_lie_apart():
    rng = np.random.default_rng(0)
    for _ in range(50):
        storages = []
        for _ in range(20):
            nbytes, first, steps = (int(rng.integers(0, n)) for n in (3000, 15, 5))
            storages.append(Storage("arena", nbytes, first=first, last=first + steps))
        total = place_in_arena(storages)
        for i, a in enumerate(storages):
            assert a.offset % ALIGNMENT == 0
            assert a.offset + a.nbytes <= total or not a.nbytes
            for b in storages[:i]:
                together = a.first <= b.last and b.first <= a.last and a.nbytes and b.nbytes
                assert not together or a.offset + a.nbytes <= b.offset or b.offset + b.nbytes <= a.offset


def test_what_is_dead_makes_room():
    chain = [Storage("arena", 1000, first=i, last=i + 1) for i in range(10)]
    assert place_in_arena(chain) == 2 * room(1000)


def test_storages_elsewhere_take_no_room():
    assert place_in_arena([Storage("feed", 4096, place=0, first=0, last=3), Storage("arena", 4096)]) == 0


@pytest.mark.parametrize(
    ("operand", "wanted"),
    [
        (Operand(F32, (2, 3), (3, 1)), (0, 6)),
        (Operand(F32, (2, 3), (3, 1), 5), (5, 11)),
        (Operand(F32, (2, 3), (0, 1)), (0, 3)),
        (Operand(F32, (4,), (-2,), 6), (0, 7)),
        (Operand(F32, (0, 3), (3, 1), 7), (7, 7)),
        (Operand(F32, (), ()), (0, 1)),
        (Operand(F32, (2, 3, 4, 5), channels_last_strides((2, 3, 4, 5))), (0, 120)),
    ],
)
def test_the_span_of_a_tensor(operand, wanted):
    assert span(operand) == wanted
