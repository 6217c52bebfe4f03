"""Programs for CUDA on the host: what runs them, and with which kernels."""

from __future__ import annotations

import pytest

from onnxgrad.ops.errors import KernelError
from onnxgrad.ops.kernels.cuda import copy as copy_kernels
from onnxgrad.runtime.cuda import choice, compiler
from onnxgrad.runtime.tensor.device import device
from onnxgrad.runtime.tracing.trace import Trace

from ...ops.kernels.cuda import host
from .fake_driver import two_devices as two_devices
from .host_runner import HostRunner


def _refuse(source, target):
    raise KernelError("switched off")


@pytest.fixture
def no_kernels(monkeypatch):
    """Every op runs its array kernel."""
    compiler.load_rules()
    monkeypatch.setattr(compiler, "LOWERINGS", {})
    monkeypatch.setattr(copy_kernels, "copying", _refuse)


@pytest.fixture(params=["kernels", "arrays"])
def either(request):
    """Kernels where there are rules, and array kernels alone."""
    if request.param == "arrays":
        request.getfixturevalue("no_kernels")
    elif host.why_not():
        pytest.skip(host.why_not())
    return request.param


@pytest.fixture
def on_cuda(monkeypatch):
    """Models and compiled functions take the arrays of the host for those of `cuda:0`; returns the runner."""
    runner = HostRunner()
    monkeypatch.setattr(choice, "runner_of", lambda index: runner)
    begin = Trace.__init__

    def starts(self, **how):
        begin(self, **how)
        self.device = device("cuda:0")

    monkeypatch.setattr(Trace, "__init__", starts)
    return runner
