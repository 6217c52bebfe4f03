"""Which Tensors have changed since they were read."""

from __future__ import annotations

import numpy as np
import pytest

import onnxgrad as og
from onnxgrad.runtime.tensor.seen import Seen


def test_what_is_new_has_changed_once() -> None:
    tensors = {"a": og.zeros(3), "b": og.ones(2)}
    seen = Seen()
    assert seen.changed(tensors) == {"a", "b"}
    assert not seen.changed(tensors)
    assert seen.changed({**tensors, "c": og.ones(1)}) == {"c"}
    seen.forget()
    assert seen.changed(tensors) == {"a", "b"}


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.add_(1.0),
        lambda t: setattr(t, "data", t.data * 2),
        lambda t: t.fill_(3.0),
        lambda t: t[0:1].zero_(),
    ],
)
def test_a_change_is_seen_once(change) -> None:
    tensors = {"a": og.zeros(3), "b": og.ones(2)}
    seen = Seen()
    seen.changed(tensors)
    with og.no_grad():
        change(tensors["a"])
    assert seen.changed(tensors) == {"a"}
    assert not seen.changed(tensors)


def test_what_somebody_else_may_write_to_has_changed_until_it_is_let_go() -> None:
    tensors = {"a": og.tensor(np.zeros(3, np.float32))}
    seen = Seen()
    seen.changed(tensors)
    handed_out = tensors["a"].numpy()
    assert seen.changed(tensors) == seen.changed(tensors) == {"a"}
    del handed_out
    assert not seen.changed(tensors)
