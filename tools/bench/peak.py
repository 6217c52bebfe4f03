"""The machine's peak: how many floating-point operations a second its cores do when nothing holds them up.

A native function keeps twelve vectors of the CPU's widest kind in registers and adds a product to each, again and
again: `a_i = a_i x + y`, fused where the CPU can. Twelve independent chains cover the latency of two multiply-add
units; nothing is read from memory. As many Python threads as are asked for run it at once (a native call releases the
interpreter's lock) on 10 ms of work each; the peak is the best of several rounds of all threads' work divided by the
longest thread's time.
"""

from __future__ import annotations

import ctypes
import threading
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ...ops.kernels.cpu.emitter import Emitter

CHAINS, STEPS = 12, 1 << 20


def peak_flops(threads: int = 1, rounds: int = 9) -> float | None:
    """Return the float32 operations a second that this many threads reach, or None where code cannot be emitted."""
    from ...ops.kernels.cpu.target import available, host_target

    if not available():
        return None
    from ...ops.kernels.cpu.jit import compile_kernels
    from ...ops.kernels.cpu.kernel import kernel

    lanes = host_target().lanes("float32")
    made = kernel("peak", _emit, (lanes, CHAINS, STEPS), operands=1)
    (address,) = compile_kernels([made]).values()
    function = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p)(address)
    work = 2.0 * lanes * CHAINS * STEPS
    return max(threads * work / _round(function, threads, lanes) for _ in range(rounds))


def _round(function: Any, threads: int, lanes: int) -> float:
    """Return the seconds of the slowest of threads that start together."""
    seconds = [0.0] * threads
    start = threading.Barrier(threads)

    def work(i: int) -> None:
        sums = (ctypes.c_float * lanes)()
        words = (ctypes.c_uint64 * 1)(ctypes.addressof(sums))
        start.wait()
        begun = time.perf_counter()
        function(ctypes.addressof(words), 0, None)
        seconds[i] = time.perf_counter() - begun

    others = [threading.Thread(target=work, args=(i,)) for i in range(1, threads)]
    for t in others:
        t.start()
    work(0)
    for t in others:
        t.join()
    return max(seconds)


def _emit(e: Emitter, params: tuple[int, int, int]) -> None:
    lanes, chains, steps = params
    kind = e.zero("float32", lanes).type
    x, y = e.constant(0.5, kind), e.constant(1.0, kind)
    with e.loop(0, steps, carry=[e.constant(float(i), kind) for i in range(chains)]) as loop:
        loop.next([e.fma(a, x, y) for a in loop.carried])
    total = loop.results[0]
    for a in loop.results[1:]:
        total = e.combine("add", total, a)
    e.store(total, e.pointer(0), "float32")
