"""What is said where CUDA cannot be used: what is missing, and what to do about it."""

import re
import subprocess
import sys
import types

import pytest

import onnxgrad as og
from onnxgrad.ops.errors import DeviceError, MissingExtraError
from onnxgrad.runtime.cuda import availability

from .fake_driver import CUDARuntimeError


@pytest.fixture(autouse=True)
def _anew():
    availability.look.cache_clear()
    yield
    availability.look.cache_clear()


def without_cupy(monkeypatch, driver):
    monkeypatch.setattr(availability, "find_spec", lambda name: None)
    monkeypatch.setattr(availability, "driver_version", lambda: driver)


def with_cupy(monkeypatch, driver, count, built=13020):
    def counted():
        if isinstance(count, Exception):
            raise count
        return count

    runtime = types.SimpleNamespace(getDeviceCount=counted, runtimeGetVersion=lambda: built)
    module = types.ModuleType("cupy")
    module.cuda = types.SimpleNamespace(runtime=runtime)
    monkeypatch.setattr(availability, "find_spec", lambda name: object())
    monkeypatch.setattr(availability, "driver_version", lambda: driver)
    monkeypatch.setitem(sys.modules, "cupy", module)


@pytest.mark.parametrize(
    ("driver", "said"),
    [
        (None, r"needs CuPy and an NVIDIA driver.*onnxgrad\[cuda13\]' \(drivers from 580 on\).*onnxgrad\[cuda12\]"),
        (13000, r"the driver here runs CUDA 13.0: pip install 'onnxgrad\[cuda13\]'$"),
        (12040, r"the driver here runs CUDA 12.4: pip install 'onnxgrad\[cuda12\]'$"),
        (11080, r"the driver here runs CUDA 11.8: .*onnxgrad\[cuda12\]' \(drivers from 525 on\)"),
    ],
)
def test_without_cupy(monkeypatch, driver, said):
    without_cupy(monkeypatch, driver)
    assert og.cuda.is_available() is False and og.cuda.device_count() == 0 and og.cuda.memory_allocated() == 0
    og.cuda.synchronize()
    og.cuda.empty_cache()
    for use in (lambda: og.ones(1).to("cuda"), og.ones(1).cuda, lambda: og.zeros(2, device="cuda:1"), og.cuda.init,
                og.nn.Linear(1, 1).cuda, og.cuda.Stream, og.cuda.current_device, og.cuda.get_device_name):  # fmt: skip
        with pytest.raises(MissingExtraError, match=said):
            use()
    assert og.ones(2).pin_memory().tolist() == [1, 1] and og.device("cuda") == "cuda:0"


@pytest.mark.parametrize(
    ("driver", "count", "said"),
    [
        (None, CUDARuntimeError("cudaErrorInsufficientDriver"), r"no NVIDIA driver: .*from 580 on for CUDA 13.2"),
        (12040, CUDARuntimeError("cudaErrorInsufficientDriver"),
         r"too old: it runs CUDA 12.4, CuPy is built for 13.2.*pip uninstall cupy-cuda13x; pip install .*cuda12"),
        (13020, CUDARuntimeError("cudaErrorNoDevice"), r"no CUDA device that CUDA_VISIBLE_DEVICES='' leaves: cudaE"),
        (13020, 0, r"there is no CUDA device"),
    ],
)  # fmt: skip
def test_with_cupy_and_no_device(monkeypatch, driver, count, said):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with_cupy(monkeypatch, driver, count)
    assert not og.cuda.is_available()
    with pytest.raises(DeviceError, match=said):
        og.ones(1).to("cuda")
    assert re.search(said, og.cuda.why_unavailable())


def test_a_broken_installation(monkeypatch):
    monkeypatch.setattr(availability, "find_spec", lambda name: object())
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(MissingExtraError, match=r"cannot be imported.*Install it anew: pip install"):
        og.ones(1).cuda()


def test_nothing_is_imported_before_it_is_used():
    code = "import onnxgrad as og, sys; og.ones(2).sum().item(); og.cuda.Stream; print('cupy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"
