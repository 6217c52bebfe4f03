"""Arrays that somebody else may write to are known, as long as somebody has them."""

from __future__ import annotations

import numpy as np

import onnxgrad as og
from onnxgrad.runtime.tensor.exposed import is_exposed


def exposed(t: og.Tensor) -> bool:
    """Ask in a frame of its own: pytest keeps what an assertion evaluates."""
    return is_exposed(t._array)


def test_numpy_hands_out_until_the_last_view_is_gone() -> None:
    t = og.tensor([1.0, 2.0, 3.0])
    assert not exposed(t)
    array = t.numpy()
    assert exposed(t)
    view = array[1:]
    del array
    assert exposed(t)
    del view
    assert not exposed(t)


def test_data_and_assigned_arrays_are_shared() -> None:
    t = og.tensor([1.0, 2.0])
    data = t.data
    assert exposed(t)
    del data
    assert not exposed(t)
    mine = np.ones(3, np.float32)
    t.data = mine
    assert exposed(t)
    del mine
    assert not exposed(t)


def test_another_array_at_the_same_address_is_not_taken_for_the_first() -> None:
    for _ in range(100):
        t = og.tensor(np.zeros(4, np.float32))
        held = t.numpy()
        assert exposed(t)
        del held, t
    fresh = og.tensor(np.zeros(4, np.float32))
    assert not exposed(fresh)
