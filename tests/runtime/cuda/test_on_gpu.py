"""What only a GPU shows: that the library of `fake_driver.py` is like CuPy, and that other libraries share memory."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest

import onnxgrad as og
from onnxgrad.ops.errors import DeviceError, OutOfMemoryError
from onnxgrad.ops.kernels.array.host import HOST_KERNELS, WAITING

from ...ops.case import OpCase
from ...ops.device_arrays import SUPPORTED
from ...ops.test_cases import each, flat
from ...ops.test_device_arrays import HOST_RESULTS, same
from .test_gradients import derivatives

pytestmark = pytest.mark.gpu


def there(a):
    import cupy

    if isinstance(a, list):
        return [there(v) for v in a]
    return cupy.asarray(a) if isinstance(a, np.ndarray) and a.dtype in SUPPORTED else a


def here(a):
    if isinstance(a, list | tuple):
        return type(a)(here(v) for v in a)
    return a.get() if hasattr(a, "get") and not isinstance(a, dict) else a


@each
def test_value(case: OpCase) -> None:
    import cupy

    found = flat(case.op(*map(there, case.args), **case.attrs))
    on_device = any(isinstance(there(a), cupy.ndarray) for a in case.args)
    for f, w in zip(found, flat(case.op(*case.args, **case.attrs)), strict=True):
        same(here(f), w, 1e-9)
        if on_device and case.op.name not in HOST_RESULTS and getattr(w, "dtype", None) in SUPPORTED:
            assert isinstance(f, cupy.ndarray)


@each
def test_gradients(case: OpCase) -> None:
    if not case.order or case.op.name == "transfer":
        pytest.skip("no gradient, or its own test")
    for f, w in zip(derivatives(case, there), derivatives(case, lambda a: a), strict=True):
        if w is not None:
            same(here(f), w, 1e-8)


@each
def test_what_does_not_wait_can_be_captured(case: OpCase) -> None:
    import cupy

    if case.op.name in WAITING | HOST_KERNELS | HOST_RESULTS or case.op.structural or case.op.name == "einsum":
        pytest.skip("waits for the device")
    if any(name in case.op.name for name in ("matmul", "conv", "attention", "rnn", "gru", "lstm", "walk")):
        pytest.skip("CuPy refuses cuBLAS while it captures")
    args = [there(a) for a in case.args]
    if not any(isinstance(a, cupy.ndarray) for a in args):
        pytest.skip("nothing on the device")
    case.op(*args, **case.attrs)
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        case.op(*args, **case.attrs)
        stream.begin_capture()
        case.op(*args, **case.attrs)
        stream.end_capture()


def test_devices():
    assert og.cuda.is_available() and og.cuda.device_count() >= 1 and og.cuda.why_unavailable() is None
    assert og.cuda.get_device_name() and og.cuda.get_device_capability() >= (7, 0)
    found = og.cuda.get_device_properties()
    free, total = og.cuda.mem_get_info()
    assert found.total_memory >= total >= free > 0 and found.warp_size == 32 and found.L2_cache_size > 0


def test_memory():
    og.cuda.empty_cache()
    before = og.cuda.memory_allocated()
    og.cuda.reset_peak_memory_stats()
    x = og.zeros(1 << 20, device="cuda")
    assert og.cuda.memory_allocated() - before == x.nbytes
    del x
    assert og.cuda.memory_allocated() == before and og.cuda.max_memory_allocated() >= before + (4 << 20)
    og.cuda.set_memory_limit(og.cuda.memory_reserved() + (8 << 20))
    try:
        with pytest.raises(OutOfMemoryError, match=r"asked for 64.00 MiB on cuda:0"):
            og.zeros(16 << 20, device="cuda")
    finally:
        og.cuda.set_memory_limit(None)
    assert og.zeros(16 << 20, device="cuda").sum().item() == 0
    assert "allocated" in og.cuda.memory_summary()


def test_arguments_on_several_devices():
    with pytest.raises(DeviceError, match="add: its arguments lie on cpu and cuda:0"):
        og.ones(2, device="cuda") + og.ones(2)


def test_pinned_memory_and_streams():
    x = og.arange(1 << 16, dtype="float32").pin_memory()
    assert x.is_pinned()
    stream, done = og.cuda.Stream(), og.cuda.Event(enable_timing=True)
    begin = og.cuda.Event(enable_timing=True)
    with og.cuda.stream(stream):
        begin.record()
        y = x.to("cuda", non_blocking=True) * 2
        back = y.to("cpu", non_blocking=True)
        done.record()
    done.synchronize()
    assert back.is_pinned() and begin.elapsed_time(done) > 0 and stream.query()
    np.testing.assert_array_equal(back.numpy(), np.arange(1 << 16, dtype=np.float32) * 2)


def test_launch_mode():
    og.cuda.set_sync_debug_mode("launch")
    try:
        assert (og.ones(3, device="cuda") * 2).sum().item() == 6
    finally:
        og.cuda.set_sync_debug_mode("default")


def test_memory_is_shared_with_cupy():
    import cupy

    x = og.arange(4, dtype="float32", device="cuda")
    y = cupy.from_dlpack(x)
    y += 1
    assert x.tolist() == [1, 2, 3, 4] and og.from_dlpack(y).data_ptr() == x.data_ptr()
    assert cupy.asarray(x).data.ptr == x.data_ptr() and og.Tensor(y).device == "cuda:0"


@pytest.mark.skipif(find_spec("torch") is None, reason="PyTorch is not installed")
def test_memory_is_shared_with_pytorch():
    import torch

    if not torch.cuda.is_available():
        pytest.skip("PyTorch has no CUDA here")
    x = og.arange(4, dtype="float32", device="cuda")
    theirs = torch.from_dlpack(x)
    theirs += 1
    torch.cuda.synchronize()
    assert x.tolist() == [1, 2, 3, 4] and og.from_dlpack(theirs).data_ptr() == theirs.data_ptr()
    assert og.tensor(theirs).device == "cuda:0" and torch.as_tensor(x, device="cuda").data_ptr() == x.data_ptr()


def test_two_devices():
    if og.cuda.device_count() < 2:
        pytest.skip("one device")
    x = og.ones(3, device="cuda:1", requires_grad=True)
    ((x * 2).to("cuda:0") * og.ones(3, device="cuda:0")).sum().backward()
    assert x.grad.device == "cuda:1" and x.grad.tolist() == [2, 2, 2]
