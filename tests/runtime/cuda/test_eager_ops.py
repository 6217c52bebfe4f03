"""Eager ops on a device against the array kernels on the CPU: each row of the ops' table that has a kernel there."""

from __future__ import annotations

import pytest

from onnxgrad.runtime.cuda.eager_calls import ON_DEVICE

from ...ops.case import OpCase
from ...ops.device_arrays import ndarray, upload
from ...ops.test_cases import each
from ...ops.test_device_arrays import here, same
from .eager_runner import EagerRunner, eager as eager
from .test_gradients import derivatives

OPS = {op for ops in ON_DEVICE.values() for op in ops}


@each
def test_gradients(case: OpCase, eager: EagerRunner) -> None:
    if not case.order or case.op.name == "transfer":
        pytest.skip("no gradient, or its own test")
    for f, w in zip(derivatives(case, upload), derivatives(case, lambda a: a), strict=True):
        assert (f is None) == (w is None)
        if w is not None:
            assert isinstance(f, ndarray)
            same(here(f), w, 1e-9)
