"""The native executor: every chunk once, in stage order, whatever the threads do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
from typing import Any

import numpy as np
import pytest

from onnxgrad.ops.kernels.cpu import spmd
from onnxgrad.ops.kernels.cpu.emitter import Emitter
from onnxgrad.ops.kernels.cpu.jit import compile_kernels
from onnxgrad.ops.kernels.cpu.kernel import Kernel, kernel
from onnxgrad.ops.kernels.cpu.spmd import TICKETS, Pool, check_chunks, physical_cores, pool


def _append(e: Emitter, params: Any) -> None:
    """Chunk c does y[c] = 3 y[c] + k, with the scratch memory written in between."""
    (k,) = params
    place = e.at(e.pointer(0), e.chunk, "int64")
    e.store(e.add(e.mul(e.load(place, "int64"), 3), k), e.scratch, "int64")
    e.store(e.load(e.scratch, "int64"), place, "int64")


class Program:
    """Stages of `_append` over one array."""

    def __init__(self, chunks: list[int], size: int) -> None:
        self.kernels: list[Kernel] = [kernel(f"append{k}", _append, (k,), operands=1) for k in range(len(chunks))]
        code = compile_kernels(self.kernels)
        self.y = np.zeros(size, np.int64)
        self.args = np.array([self.y.ctypes.data], np.int64)
        self.entries = np.array(
            [[code[k.key], self.args.ctypes.data, n] for k, n in zip(self.kernels, chunks, strict=True)], np.int64
        )
        self.stages = np.array([[i, 1, *check_chunks(n)] for i, n in enumerate(chunks)], np.int64)
        self.words = np.array([self.stages.ctypes.data, self.entries.ctypes.data], np.int64)
        self.wanted = np.zeros(size, np.int64)
        for k, n in enumerate(chunks):
            self.wanted[:n] = 3 * self.wanted[:n] + k

    def run(self, threads: int, on: Pool | None = None, scratch: int = 64) -> None:
        self.y[:] = 0
        (on or pool()).run(self.words.ctypes.data, 0, len(self.stages), scratch, threads)
        np.testing.assert_array_equal(self.y, self.wanted)


@pytest.mark.parametrize("threads", [1, 2, 4, 7])
@pytest.mark.parametrize("chunks", [[1], [5, 1, 0, 9], [0, 0], [300] * 40, [TICKETS + 3, 2 * TICKETS + 1]])
def test_every_chunk_runs_once_and_stages_follow_each_other(threads: int, chunks: list[int]) -> None:
    p = Program(chunks, max(*chunks, 1))
    for _ in range(5):
        p.run(threads)


def _fill(e: Emitter, params: Any) -> None:
    """Write all of the scratch memory."""
    with e.loop(0, params[0] // 8) as loop:
        e.store(e.chunk, e.at(e.scratch, loop.index, "int64"), "int64")


def test_a_thread_that_comes_late_uses_the_scratch_memory_of_the_run_that_it_comes_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    small, large, on = Program([64] * 30, 64), 1 << 17, Pool()
    behind: list[Any] = []

    def aligned(nbytes: int) -> Any:
        raw = np.zeros(nbytes + 64 + large, np.uint8)
        start = -raw.ctypes.data % 64
        behind.append(raw[start + nbytes :])
        return raw[start : start + nbytes]

    filling = kernel("fill", _fill, (large,), operands=1)
    args = np.zeros(1, np.int64)
    entries = np.array([[compile_kernels([filling])[filling.key], args.ctypes.data, 64]], np.int64)
    stages = np.array([[0, 1, *check_chunks(64)]], np.int64)
    words = np.array([stages.ctypes.data, entries.ctypes.data], np.int64)
    monkeypatch.setattr(spmd, "aligned", aligned)
    monkeypatch.setattr(spmd, "_pool", on)
    try:
        for i in range(200):
            on._scratch.clear()
            small.run(4, on)
            on.run(words.ctypes.data, 0, 1, large, 2 + i % 3)
        assert not any(b.any() for b in behind)
    finally:
        spmd._stop()


def test_kernels_of_one_stage_share_its_chunks() -> None:
    p, n = Program([7, 5], 8), 7
    other = np.zeros(8, np.int64)
    args = np.array([other.ctypes.data], np.int64)
    entries = p.entries.copy()
    entries[1, 1], entries[1, 2] = args.ctypes.data, n + 5
    stages = np.array([[0, 2, *check_chunks(n + 5)]], np.int64)
    words = np.array([stages.ctypes.data, entries.ctypes.data], np.int64)
    for threads in (1, 3):
        p.y[:], other[:] = 1, 1
        pool().run(words.ctypes.data, 0, 1, 64, threads)
        assert p.y.tolist() == [3] * 7 + [1]
        assert other.tolist() == [4] * 5 + [1] * 3


def test_several_python_threads_run_at_once() -> None:
    programs = [Program([40, 3, 40], 40) for _ in range(4)]
    failed: list[BaseException] = []

    def many(p: Program) -> None:
        try:
            for _ in range(100):
                p.run(2)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=many, args=(p,)) for p in programs]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failed


def test_scratch_grows_with_what_a_program_needs() -> None:
    own = Pool()
    for scratch in (64, 1 << 20, 1 << 12):
        Program([50], 50).run(2, own, scratch)
    assert all(s.size >= 1 << 20 for s in own._scratch)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_has_a_pool_of_its_own() -> None:
    p = Program([20, 20], 20)
    p.run(2)
    child = os.fork()
    if child == 0:
        try:
            p.run(2)
            os._exit(0)
        except BaseException:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0


def _script(body: str) -> subprocess.Popen[str]:
    code = "from tests.ops.kernels.cpu.test_spmd import Program\n" + textwrap.dedent(body)
    root = os.path.abspath(os.path.join(os.path.dirname(__file__), *[os.pardir] * 4))
    return subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=root
    )


def test_a_process_ends_while_workers_wait() -> None:
    process = _script("Program([9, 9], 9).run(3); print('ran')")
    out, err = process.communicate(timeout=60)
    assert (out.strip(), err, process.returncode) == ("ran", "", 0)


def test_control_c_interrupts_between_runs_and_leaves_the_pool_usable() -> None:
    process = _script(
        """
        import signal
        signal.signal(signal.SIGINT, signal.default_int_handler)
        p = Program([200] * 30, 200)
        p.run(2)
        try:
            print("ready", flush=True)
            while True:
                p.run(2)
        except KeyboardInterrupt:
            p.run(2)
            print("interrupted", flush=True)
        """
    )
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "ready"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (out.strip(), err, process.returncode) == ("interrupted", "", 0)


def test_threads_are_the_cores_that_the_process_may_use() -> None:
    if not hasattr(os, "sched_getaffinity"):
        pytest.skip("no affinity here")
    assert 1 <= physical_cores() <= len(os.sched_getaffinity(0))
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert physical_cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)
