"""A runner for eager ops on the arrays of `tests/ops/device_arrays.py`: kernels run in the emulator, all is checked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from onnxgrad.runtime.cuda import availability

from ...ops.kernels.cuda import host
from .fake_driver import driver, driving
from .host_runner import HostRunner


@dataclass(eq=False)
class EagerRunner(HostRunner):
    """Does what it is asked on the caller's stream.

    Attributes:
        streams: that launches went to, in order.
    """

    streams: list[int] = field(default_factory=list)

    @property
    def stream(self) -> int:  # type: ignore[override]
        return driver().cuda().get_current_stream().ptr

    def launch(self, kernel, grid, block, arguments, shared_bytes, stream=None):
        assert stream == self.stream
        self.streams.append(stream)
        super().launch(kernel, grid, block, arguments, shared_bytes)


@pytest.fixture
def eager() -> Iterator[EagerRunner]:
    """Two devices of 1 GiB whose eager ops run the device's kernels, in the emulator."""
    if host.why_not():
        pytest.skip(host.why_not() or "")
    runner = EagerRunner()
    with driving(1 << 30, runner):
        availability.cupy()
        yield runner
