"""Runs the work of a `TestSite` on a GPU, by the `Runner` that programs run on.

What the test's buffers hold goes to the device before each piece of work and comes back behind it, so that all that is
checked on the host is checked of the device too. Each buffer lies between guards there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import pytest

from onnxgrad.ops.kernels.cuda.kernel import Grid, Kernel, Launch, LibraryCall
from onnxgrad.ops.kernels.cuda.operand import packed
from onnxgrad.runtime.cuda.runner import Block, Packed, Runner

from . import host, nvrtc, site
from .memory import Buffer, TestRef

GUARD = 4096
"""Bytes in front of and behind each buffer."""

MARK = 0xA5
"""What guards hold."""


class Device:
    """A device, with the memory of those buffers whose addresses were asked for."""

    def __init__(self, runner: Runner) -> None:
        """Take a device that runs nothing yet."""
        self.runner = runner
        self._blocks: WeakKeyDictionary[Buffer, Block] = WeakKeyDictionary()

    def address(self, ref: TestRef) -> int:
        """Return the address of a tensor's first element on the device."""
        buffer = ref.buffer
        if buffer not in self._blocks:
            self._blocks[buffer] = self.runner.allocate(buffer.room.size + 2 * GUARD)
        return self._blocks[buffer].address + GUARD + ref.operand.offset * ref.operand.dtype.itemsize

    def launch(self, w: Launch) -> None:
        """Launch a kernel and wait for it."""
        values = [self.address(a) if isinstance(a, TestRef) else a for a in w.arguments]
        self.run(w.kernel, w.grid, w.block, values, w.shared_bytes)

    def run(self, kernel: Kernel, grid: Grid, block: Grid, values: Sequence[Any], shared_bytes: int = 0) -> None:
        """Launch a kernel on addresses and numbers and wait for it."""
        with self.runner.running():
            function = self.runner.load(kernel)
            self._send()
            self.runner.launch(function, grid, block, Packed(kernel.parameters, values), shared_bytes)
            self.runner.synchronize()
            self._fetch(kernel.name)

    def call(self, w: LibraryCall) -> None:
        """Call a library and wait for it."""
        pointers = tuple(self.address(a) for a in w.arguments if isinstance(a, TestRef))
        name = f"{w.description.library} {type(w.description).__name__}"
        with self.runner.running():
            prepared = self.runner.prepare(w)
            workspace = self.runner.allocate(max(prepared.workspace_bytes, 1))
            self._send()
            prepared.run(pointers, workspace.address, self.runner.stream)
            self.runner.synchronize()
            self._fetch(name)

    def _view(self, block: Block) -> Any:
        return self.runner.view(block, packed(np.dtype(np.uint8), (block.nbytes,)))

    def _send(self) -> None:
        guard = np.full(GUARD, MARK, np.uint8)
        for buffer, block in self._blocks.items():
            self.runner.write(self._view(block), np.concatenate([guard, buffer.room, guard]))
        self.runner.synchronize()

    def _fetch(self, name: str) -> None:
        for buffer, block in self._blocks.items():
            found = self.runner.download(self._view(block))
            if not ((found[:GUARD] == MARK).all() and (found[-GUARD:] == MARK).all()):
                outside = np.flatnonzero(np.concatenate([found[:GUARD], found[-GUARD:]]) != MARK)
                raise AssertionError(
                    f"{name} writes {outside.size} bytes outside of a buffer of {buffer.nbytes}, the first "
                    f"{_where(int(outside[0]))}"
                )
            buffer.room[:] = found[GUARD:-GUARD]


def _where(i: int) -> str:
    return f"{GUARD - i} before it" if i < GUARD else f"{i - GUARD} behind it"


def run_there(monkeypatch: pytest.MonkeyPatch, runner: Runner) -> Device:
    """Let all that tests of this folder run, run on a device; nothing is compiled for the CPU."""
    device = Device(runner)
    monkeypatch.setattr(site.TestSite, "_launch", lambda self, w, seed: device.launch(w))
    monkeypatch.setattr(site, "_call", device.call)
    monkeypatch.setattr(TestRef, "address", property(device.address))
    monkeypatch.setattr(host, "run", lambda *args, seed=0: device.run(*args))
    monkeypatch.setattr(host, "compile_kernels", lambda kernels: [])
    monkeypatch.setattr(nvrtc, "begin_checks", lambda kernels: [])
    return device
