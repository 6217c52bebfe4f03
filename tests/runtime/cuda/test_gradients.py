"""Gradients of every op's table row, with Tensors on a device that is not there, against those on the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from onnxgrad.ops.types import is_float
from onnxgrad.runtime.autograd.tape import grad
from onnxgrad.runtime.tensor.tensor import Tensor

from ...ops.case import OpCase, rand
from ...ops.device_arrays import ndarray, upload
from ...ops.test_cases import each, flat
from ...ops.test_device_arrays import here, same
from .fake_driver import driving


@pytest.fixture(autouse=True)
def _device() -> Iterator[None]:
    with driving(memory=1 << 30):
        yield


def derivatives(case: OpCase, place: Any) -> list[Any]:
    """Return the gradients of a case's floats, and those of their squares where its second order is checked."""
    wide = [a for x in case.args for a in (x if isinstance(x, list) else [x])]
    tensors = [
        Tensor(place(a), requires_grad=is_float(a.dtype)) if isinstance(a, np.ndarray) and a.dtype != object else a
        for a in wide
    ]
    given = iter(tensors)
    args = [[next(given) for _ in x] if isinstance(x, list) else next(given) for x in case.args]
    outs = [t for t in flat(case.op(*args, **case.attrs)) if isinstance(t, Tensor) and t.requires_grad]
    leaves = [t for t in tensors if isinstance(t, Tensor) and t.requires_grad]
    if not outs:
        return []
    seeds = [Tensor(place(rand(*t.shape, seed=7).astype(t.dtype))) for t in outs]
    second = (case.order or 0) > 1
    found = grad(outs, leaves, seeds, create_graph=second, allow_unused=True)
    if second:
        again = [g for g in found if g is not None and g.requires_grad]
        if again:
            found += grad([(g * g).sum() for g in again], leaves, allow_unused=True)
    return [None if g is None else g.array for g in found]


@each
def test_gradients(case: OpCase) -> None:
    if not case.order or case.op.name == "transfer":
        pytest.skip("no gradient, or its own test")
    for f, w in zip(derivatives(case, upload), derivatives(case, lambda a: a), strict=True):
        assert (f is None) == (w is None)
        if w is not None:
            assert isinstance(f, ndarray)
            same(here(f), w, 1e-9)
