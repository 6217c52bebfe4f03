"""Errors of a device, and where the host waits for it."""

import warnings

import pytest

import onnxgrad as og
from onnxgrad.ops import pointwise
from onnxgrad.ops.errors import DeviceError
from onnxgrad.runtime.cuda.availability import cupy
from onnxgrad.runtime.cuda.guard import begin

from .fake_driver import CUDARuntimeError, driving

BROKEN = CUDARuntimeError("cudaErrorIllegalAddress: an illegal memory access was encountered")


def test_an_error_of_the_device_says_how_to_find_its_op(two_devices, monkeypatch):
    def broken(*_):
        raise BROKEN

    x = og.ones(2, device="cuda")
    monkeypatch.setattr(pointwise.exp, "array_kernel", broken)
    with pytest.raises(DeviceError, match=r"^exp: .*CUDA_LAUNCH_BLOCKING=1.*cannot use the device any more"):
        x.exp()


def test_launch_names_the_op_that_made_the_error(two_devices):
    x = og.ones(2, device="cuda")
    og.cuda.set_sync_debug_mode("launch")
    assert og.cuda.get_sync_debug_mode() == 3
    y = x + x
    two_devices.pending = BROKEN
    with pytest.raises(DeviceError, match=r"^exp: cudaErrorIllegalAddress") as caught:
        y.exp()
    assert "CUDA_LAUNCH_BLOCKING" not in str(caught.value)


def test_launch_names_the_node_of_backward(two_devices):
    x = og.ones(2, device="cuda", requires_grad=True)
    y, g = x.exp(), og.ones(2, device="cuda")
    og.cuda.set_sync_debug_mode(3)
    two_devices.pending = BROKEN
    with pytest.raises(DeviceError, match=r"^ExpBackward0: cudaErrorIllegalAddress"):
        y.backward(g)


def test_the_environment_asks_for_launch(monkeypatch):
    monkeypatch.setenv("CUDA_LAUNCH_BLOCKING", "1")
    with driving():
        begin(cupy())
        assert og.cuda.get_sync_debug_mode() == 3


def test_waiting_can_be_warned_of_or_refused(two_devices):
    x = og.ones(2, device="cuda")
    og.cuda.set_sync_debug_mode("error")
    x + x
    for read in (lambda: x.sum().item(), x.cpu, x.tolist, x.numpy, lambda: bool(x[0] > 0), lambda: float(x[0])):
        with pytest.raises(DeviceError, match="makes the host wait for the device"):
            read()
    og.cuda.set_sync_debug_mode(1)
    with pytest.warns(UserWarning, match=r"item\(\) makes the host wait"):
        x.sum().item()
    og.cuda.set_sync_debug_mode("default")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert x.sum().item() == 2 and og.cuda.get_sync_debug_mode() == 0
    og.ones(1).item()
    with pytest.raises(DeviceError, match="expected one of default, warn, error, launch"):
        og.cuda.set_sync_debug_mode("loud")
