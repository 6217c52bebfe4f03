"""Every kernel compiles for every generation, within the registers that it declares."""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from importlib.util import find_spec

from onnxgrad.ops.errors import KernelError
from onnxgrad.ops.kernels.cuda import cubins, nvrtc
from onnxgrad.ops.kernels.cuda.kernel import Kernel

ARCHITECTURES = ("sm_80", "sm_90a", "sm_100")
SHARED_BYTES = 48 << 10


def why_no_nvrtc() -> str | None:
    """Return why NVRTC cannot be asked, or None."""
    if find_spec("cuda") is None or find_spec("cuda.bindings") is None:
        return "cuda-bindings is not installed"
    try:
        nvrtc.version()
    except KernelError as error:
        return str(error)
    return None


def compile_all(kernel: Kernel) -> dict[str, tuple[int, int]]:
    """Compile for `ARCHITECTURES`, or take it from the cache; return {architecture: (registers, spilled bytes)}."""
    made = {a: cubins.load(kernel, a) for a in ARCHITECTURES}
    return {a: (c.registers, c.spill_bytes) for a, c in made.items()}


def check(kernel: Kernel) -> None:
    """Check that a kernel compiles without spills, within its registers and the static shared memory of a block."""
    for a in ARCHITECTURES:
        c = cubins.load(kernel, a)
        if c.spill_bytes:
            raise AssertionError(f"{kernel.name} spills {c.spill_bytes} bytes on {a} ({c.registers} registers)")
        if c.registers > kernel.registers:
            raise AssertionError(f"{kernel.name} takes {c.registers} registers on {a}, declares {kernel.registers}")
        if c.registers * kernel.threads > 1 << 16:
            raise AssertionError(
                f"{kernel.name}: {kernel.threads} threads of {c.registers} registers on {a} do not fit"
            )
        if c.shared_bytes > SHARED_BYTES:
            raise AssertionError(f"{kernel.name} has {c.shared_bytes} bytes of static shared memory on {a}")


_threads = ThreadPoolExecutor(os.cpu_count())


def begin_checks(kernels: Iterable[Kernel]) -> list[Future[None]]:
    """Begin to check kernels beside what this thread does; `Future.result` raises what `check` does."""
    if why_no_nvrtc() is not None:
        return []
    return [_threads.submit(check, kernel) for kernel in dict.fromkeys(kernels)]
