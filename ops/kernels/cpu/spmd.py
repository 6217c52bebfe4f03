"""The native executor: stages of chunks that several threads share, one program on all of them.

A *program* is a table of stages; a stage is kernels that may run side by side; its chunks are taken from one ticket.
The ticket is a 64-bit word: a sequence number, how many chunks the stage has, and which is next. A thread takes a
chunk by compare-and-swap, so one that was asleep since an earlier stage takes nothing of this one. Whoever finishes
the last chunk of a stage opens the next: nobody waits for a thread that has taken nothing. Who finds no chunk spins
briefly, then sleeps.

Words of a program: stages, entries. A stage: first entry, number of entries, tickets, chunks a ticket. An entry:
function, arguments, number of the stage's chunks up to and with its own.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import os
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from ...errors import KernelError
from .target import Target, host_target

TICKETS = 1 << 15
"""A stage of more chunks than this hands out several a ticket."""

_SPIN = 1500
_SYSCALLS = {"x86_64": 202, "amd64": 202, "aarch64": 98, "arm64": 98}

_CODE = """
declare i64 @syscall(i64, ...)
declare i32 @usleep(i32)
{pause_declaration}

define internal void @wait(ptr %pool, i32 %seen) {{
entry:
  %sleepers = getelementptr i8, ptr %pool, i64 128
  %seq = getelementptr i8, ptr %pool, i64 4
  br label %spin
spin:
  %i = phi i64 [ 0, %entry ], [ %i1, %again ]
  %now = load atomic i32, ptr %seq seq_cst, align 4
  %changed = icmp ne i32 %now, %seen
  br i1 %changed, label %done, label %again
again:
  {pause}
  %i1 = add i64 %i, 1
  %more = icmp slt i64 %i1, {spin}
  br i1 %more, label %spin, label %sleep
sleep:
  %a = atomicrmw add ptr %sleepers, i64 1 seq_cst
  {sleep}
  %b = atomicrmw sub ptr %sleepers, i64 1 seq_cst
  br label %done
done:
  ret void
}}

define internal void @publish(ptr %pool, i64 %ticket) {{
  %sleepers = getelementptr i8, ptr %pool, i64 128
  %old = atomicrmw xchg ptr %pool, i64 %ticket seq_cst
  %n = load atomic i64, ptr %sleepers seq_cst, align 8
  %any = icmp ne i64 %n, 0
  br i1 %any, label %wake, label %done
wake:
  %seq = getelementptr i8, ptr %pool, i64 4
  {wake}
  br label %done
done:
  ret void
}}

; open stage %stage, or the next that has chunks, or none
define internal void @open(ptr %pool, i64 %from, i64 %seq) {{
entry:
  %done = getelementptr i8, ptr %pool, i64 64
  %pprogram = getelementptr i8, ptr %pool, i64 192
  %pstage = getelementptr i8, ptr %pool, i64 200
  %pend = getelementptr i8, ptr %pool, i64 208
  %program = load ptr, ptr %pprogram, align 8
  %stages = load ptr, ptr %program, align 8
  %end = load i64, ptr %pend, align 8
  %high = shl i64 %seq, 32
  br label %search
search:
  %s = phi i64 [ %from, %entry ], [ %s1, %skip ]
  %over = icmp sge i64 %s, %end
  br i1 %over, label %finish, label %look
look:
  %at = mul i64 %s, 4
  %pt = getelementptr i64, ptr %stages, i64 %at
  %ptn = getelementptr i64, ptr %pt, i64 2
  %n = load i64, ptr %ptn, align 8
  %s1 = add i64 %s, 1
  %empty = icmp eq i64 %n, 0
  br i1 %empty, label %skip, label %go
skip:
  br label %search
go:
  store i64 %s, ptr %pstage, align 8
  store atomic i64 0, ptr %done seq_cst, align 8
  %mid = shl i64 %n, 16
  %ticket = or i64 %high, %mid
  call void @publish(ptr %pool, i64 %ticket)
  ret void
finish:
  call void @publish(ptr %pool, i64 %high)
  ret void
}}

define internal void @chunks(ptr %stages, ptr %entries, i64 %stage, i64 %low, i64 %high, ptr %scratch) {{
entry:
  %at = mul i64 %stage, 4
  %pt = getelementptr i64, ptr %stages, i64 %at
  %first = load i64, ptr %pt, align 8
  %nothing = icmp sge i64 %low, %high
  br i1 %nothing, label %out, label %find
find:
  %c = phi i64 [ %low, %entry ], [ %c1, %ran ]
  %e0 = phi i64 [ %first, %entry ], [ %e, %ran ]
  %b0 = phi i64 [ 0, %entry ], [ %before, %ran ]
  br label %scan
scan:
  %e = phi i64 [ %e0, %find ], [ %e1, %next ]
  %before = phi i64 [ %b0, %find ], [ %upto, %next ]
  %ea = mul i64 %e, 3
  %pe = getelementptr i64, ptr %entries, i64 %ea
  %pu = getelementptr i64, ptr %pe, i64 2
  %upto = load i64, ptr %pu, align 8
  %e1 = add i64 %e, 1
  %mine = icmp slt i64 %c, %upto
  br i1 %mine, label %ran, label %next
next:
  br label %scan
ran:
  %fn = load ptr, ptr %pe, align 8
  %pa = getelementptr i64, ptr %pe, i64 1
  %args = load ptr, ptr %pa, align 8
  %local = sub i64 %c, %before
  call void %fn(ptr %args, i64 %local, ptr %scratch)
  %c1 = add i64 %c, 1
  %again = icmp slt i64 %c1, %high
  br i1 %again, label %find, label %out
out:
  ret void
}}

; take chunks until there are none left to take; returns the ticket that had none. Where scratch memory lies is looked
; up for each chunk: a thread that was asleep in here since another run has to use what this run was given
define internal i64 @take(ptr %pool, ptr %pscratch) {{
entry:
  %done = getelementptr i8, ptr %pool, i64 64
  %pprogram = getelementptr i8, ptr %pool, i64 192
  %pstage = getelementptr i8, ptr %pool, i64 200
  br label %look
look:
  %t = load atomic i64, ptr %pool seq_cst, align 8
  %idx = and i64 %t, 65535
  %sh = lshr i64 %t, 16
  %n = and i64 %sh, 65535
  %some = icmp ult i64 %idx, %n
  br i1 %some, label %try, label %none
try:
  %t1 = add i64 %t, 1
  %pair = cmpxchg ptr %pool, i64 %t, i64 %t1 seq_cst seq_cst
  %won = extractvalue {{ i64, i1 }} %pair, 1
  br i1 %won, label %work, label %look
work:
  %scratch = load ptr, ptr %pscratch, align 8
  %program = load ptr, ptr %pprogram, align 8
  %stages = load ptr, ptr %program, align 8
  %pentries = getelementptr i64, ptr %program, i64 1
  %entries = load ptr, ptr %pentries, align 8
  %stage = load i64, ptr %pstage, align 8
  %at = mul i64 %stage, 4
  %pt = getelementptr i64, ptr %stages, i64 %at
  %pg = getelementptr i64, ptr %pt, i64 3
  %group = load i64, ptr %pg, align 8
  %pf = getelementptr i64, ptr %pt, i64 0
  %pc = getelementptr i64, ptr %pt, i64 1
  %first = load i64, ptr %pf, align 8
  %count = load i64, ptr %pc, align 8
  %le = add i64 %first, %count
  %le1 = sub i64 %le, 1
  %la = mul i64 %le1, 3
  %pl = getelementptr i64, ptr %entries, i64 %la
  %pl2 = getelementptr i64, ptr %pl, i64 2
  %total = load i64, ptr %pl2, align 8
  %low = mul i64 %idx, %group
  %high0 = add i64 %low, %group
  %cut = icmp slt i64 %high0, %total
  %high = select i1 %cut, i64 %high0, i64 %total
  call void @chunks(ptr %stages, ptr %entries, i64 %stage, i64 %low, i64 %high, ptr %scratch)
  %d = atomicrmw add ptr %done, i64 1 seq_cst
  %d1 = add i64 %d, 1
  %last = icmp eq i64 %d1, %n
  br i1 %last, label %advance, label %look
advance:
  %next = add i64 %stage, 1
  %seq = lshr i64 %t, 32
  %seq1 = add i64 %seq, 1
  call void @open(ptr %pool, i64 %next, i64 %seq1)
  br label %look
none:
  ret i64 %t
}}

define void @worker(ptr %pool, ptr %pscratch, i64 %number) {{
entry:
  %pstop = getelementptr i8, ptr %pool, i64 216
  %plimit = getelementptr i8, ptr %pool, i64 224
  br label %loop
loop:
  %stop = load atomic i64, ptr %pstop seq_cst, align 8
  %leave = icmp ne i64 %stop, 0
  br i1 %leave, label %out, label %stay
stay:
  %t0 = load atomic i64, ptr %pool seq_cst, align 8
  %limit = load atomic i64, ptr %plimit seq_cst, align 8
  %in = icmp slt i64 %number, %limit
  br i1 %in, label %join, label %rest
join:
  %t1 = call i64 @take(ptr %pool, ptr %pscratch)
  br label %rest
rest:
  %t = phi i64 [ %t0, %stay ], [ %t1, %join ]
  %sq = lshr i64 %t, 32
  %sq32 = trunc i64 %sq to i32
  call void @wait(ptr %pool, i32 %sq32)
  br label %loop
out:
  ret void
}}

define void @together(ptr %pool, ptr %program, i64 %begin, i64 %end, ptr %pscratch) {{
entry:
  %pprogram = getelementptr i8, ptr %pool, i64 192
  %pend = getelementptr i8, ptr %pool, i64 208
  store ptr %program, ptr %pprogram, align 8
  store i64 %end, ptr %pend, align 8
  %old = load atomic i64, ptr %pool seq_cst, align 8
  %seq = lshr i64 %old, 32
  %seq1 = add i64 %seq, 1
  call void @open(ptr %pool, i64 %begin, i64 %seq1)
  br label %loop
loop:
  %t = call i64 @take(ptr %pool, ptr %pscratch)
  %sh = lshr i64 %t, 16
  %n = and i64 %sh, 65535
  %idle = icmp eq i64 %n, 0
  br i1 %idle, label %out, label %rest
rest:
  %sq = lshr i64 %t, 32
  %sq32 = trunc i64 %sq to i32
  call void @wait(ptr %pool, i32 %sq32)
  br label %loop
out:
  ret void
}}

define void @alone(ptr %program, i64 %begin, i64 %end, ptr %scratch) {{
entry:
  %stages = load ptr, ptr %program, align 8
  %pentries = getelementptr i64, ptr %program, i64 1
  %entries = load ptr, ptr %pentries, align 8
  %none = icmp sge i64 %begin, %end
  br i1 %none, label %out, label %loop
loop:
  %s = phi i64 [ %begin, %entry ], [ %s1, %ran ]
  %at = mul i64 %s, 4
  %pt = getelementptr i64, ptr %stages, i64 %at
  %pc = getelementptr i64, ptr %pt, i64 1
  %first = load i64, ptr %pt, align 8
  %count = load i64, ptr %pc, align 8
  %le = add i64 %first, %count
  %le1 = sub i64 %le, 1
  %la = mul i64 %le1, 3
  %pl = getelementptr i64, ptr %entries, i64 %la
  %pl2 = getelementptr i64, ptr %pl, i64 2
  %total = load i64, ptr %pl2, align 8
  call void @chunks(ptr %stages, ptr %entries, i64 %s, i64 0, i64 %total, ptr %scratch)
  br label %ran
ran:
  %s1 = add i64 %s, 1
  %again = icmp slt i64 %s1, %end
  br i1 %again, label %loop, label %out
out:
  ret void
}}
"""


def _text() -> str:
    import platform

    machine = platform.machine().lower()
    number = _SYSCALLS.get(machine) if sys.platform.startswith("linux") else None
    x86 = machine in ("x86_64", "amd64")
    pause = "call void @llvm.x86.sse2.pause()" if x86 else 'call void asm sideeffect "yield", ""()'
    if number is None:
        sleep, wake = "%r = call i32 @usleep(i32 100)", ""
    else:
        call = f"call i64 (i64, ...) @syscall(i64 {number}, ptr %seq"
        sleep = f"%r = {call}, i32 128, i32 %seen, ptr null, ptr null, i32 0)"
        wake = f"%r = {call}, i32 129, i32 2147483647, ptr null, ptr null, i32 0)"
    return _CODE.format(
        pause=pause, pause_declaration="declare void @llvm.x86.sse2.pause()" if x86 else "", spin=_SPIN, sleep=sleep,
        wake=wake,
    )  # fmt: skip


@functools.cache
def _functions(target: Target) -> dict[str, Any]:
    from .jit import load_text

    addresses = load_text(_text(), ("worker", "together", "alone"), target)
    word, pointer = ctypes.c_int64, ctypes.c_void_p
    return {
        "worker": ctypes.CFUNCTYPE(None, pointer, pointer, word)(addresses["worker"]),
        "together": ctypes.CFUNCTYPE(None, pointer, pointer, word, word, pointer)(addresses["together"]),
        "alone": ctypes.CFUNCTYPE(None, pointer, word, word, pointer)(addresses["alone"]),
    }


def physical_cores() -> int:
    """Return how many physical cores this process may use: its affinity, its cgroup's quota, hyperthreads once."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    cores = set()
    for cpu in allowed:
        siblings = f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"
        try:
            with open(siblings, encoding="ascii") as file:
                cores.add(file.read().strip())
        except OSError:
            cores.add(str(cpu))
    return max(1, min(len(cores), _quota()))


def _quota() -> int:
    """Return the whole cores that the process's cgroup grants, rounded up."""
    for path, split in (("/sys/fs/cgroup/cpu.max", True), ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", False)):
        with contextlib.suppress(OSError, ValueError):
            with open(path, encoding="ascii") as file:
                text = file.read().split()
            if split:
                quota, period = text[0], text[1]
            else:
                with open("/sys/fs/cgroup/cpu/cpu.cfs_period_us", encoding="ascii") as file:
                    quota, period = text[0], file.read().strip()
            if quota not in ("max", "-1"):
                return max(1, -(-int(quota) // int(period)))
    return os.cpu_count() or 1


def aligned(nbytes: int, alignment: int = 64) -> np.ndarray[Any, Any]:
    """Return fresh bytes at an aligned address."""
    raw = np.empty(nbytes + alignment, np.uint8)
    start = -raw.ctypes.data % alignment
    return raw[start : start + nbytes]


class Pool:
    """The threads that run programs together, made when first needed; one program at a time."""

    def __init__(self) -> None:
        """Make it without threads."""
        self._words = aligned(512)
        self._words[:] = 0
        self._address = self._words.ctypes.data
        self._view = self._words.view(np.int64)
        self._lock = threading.Lock()
        self._scratch: list[np.ndarray[Any, Any]] = []
        self._pointers = np.zeros(256, np.int64)
        self._threads: list[threading.Thread] = []
        self._together: Any = None

    def run(self, program: int, begin: int, end: int, scratch: int, threads: int) -> None:
        """Run stages of a program.

        While another Python thread's program runs on the pool, this one runs on the calling thread alone.

        Args:
            program: address of its words.
            begin: first stage.
            end: behind the last stage.
            scratch: bytes that each thread needs for itself.
            threads: how many threads may take part.
        """
        f = _functions(host_target())
        if threads <= 1 or not self._lock.acquire(blocking=False):
            f["alone"](program, begin, end, own_scratch(scratch))
            return
        try:
            self._grow(threads, scratch, f["worker"], f["together"])
            self._view[28] = threads
            f["together"](self._address, program, begin, end, self._pointers.ctypes.data)
        finally:
            self._lock.release()

    def _grow(self, threads: int, scratch: int, worker: Any, together: Any) -> None:
        while len(self._scratch) < threads or any(s.size < scratch for s in self._scratch):
            for i in range(max(threads, len(self._scratch))):  # a late worker of a run of more threads may take part
                if i >= len(self._scratch):
                    self._scratch.append(aligned(max(scratch, 1 << 16)))
                elif self._scratch[i].size < scratch:
                    self._scratch[i] = aligned(scratch)
                self._pointers[i] = self._scratch[i].ctypes.data
        self._together = together
        while len(self._threads) < threads - 1:
            number = len(self._threads) + 1
            place = self._pointers.ctypes.data + 8 * number
            thread = threading.Thread(
                target=worker, args=(self._address, place, number), name=f"onnxgrad-{number}", daemon=True
            )
            thread.start()
            self._threads.append(thread)


class _Own(threading.local):
    def __init__(self) -> None:
        self.scratch = aligned(1 << 16)
        self.address = int(self.scratch.ctypes.data)


_own = _Own()


def own_scratch(nbytes: int) -> int:
    """Return the address of scratch memory of the calling thread."""
    if _own.scratch.size < nbytes:
        _own.scratch = aligned(nbytes)
        _own.address = int(_own.scratch.ctypes.data)
    return _own.address


_pool = Pool()


def alone_function() -> Callable[[int, int, int, int], None]:
    """Return the function (program, begin, end, scratch) that runs stages on the calling thread; see `Pool.run`."""
    found: Callable[[int, int, int, int], None] = _functions(host_target())["alone"]
    return found


def pool() -> Pool:
    """Return the process's pool."""
    return _pool


def _after_fork() -> None:
    """The child of a fork has none of the threads: start with a new pool."""
    global _pool
    _pool = Pool()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@atexit.register
def _stop() -> None:
    """Tell the workers to leave, so that none runs while the process is taken down."""
    if _pool._threads:
        _pool._view[27] = 1
        if _pool._lock.acquire(timeout=1):
            empty = np.zeros(2, np.int64)
            _pool._together(_pool._address, empty.ctypes.data, 0, 0, 0)
            for t in _pool._threads:
                t.join(timeout=1)


def check_chunks(chunks: int) -> tuple[int, int]:
    """Return (tickets, chunks a ticket) for a stage.

    Raises:
        KernelError: if the number of chunks is negative.
    """
    if chunks < 0:
        raise KernelError(f"a stage has {chunks} chunks")
    group = -(-chunks // TICKETS) or 1
    return -(-chunks // group), group
