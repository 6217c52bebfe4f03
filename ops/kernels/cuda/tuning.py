"""Which of several ways to compute the same is fastest on this device: timed once, on scratch memory, kept on disk."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from ..cpu import cache

Candidate: TypeAlias = Callable[[tuple[int, ...], int, int], None]
"""`candidate(pointers, workspace, stream)`."""

VARIABLE = "ONNXGRAD_CUDA_TUNE"
"""The environment variable: `off` takes what the libraries propose, `all` also times the plans of cuDNN."""

LIMIT_BYTES = 4 << 30
"""Work on more memory than this is not timed: its scratch might not fit beside the plan."""

_KIND = ".tuned"
_WARM, _TIMED = 2, 5


def wanted(library: str) -> bool:
    """Whether the calls of a library (`cudnn` or `cublaslt`) are timed."""
    setting = os.environ.get(VARIABLE, "")
    return setting == "all" or (setting != "off" and library == "cublaslt")


def fastest(candidates: Sequence[Candidate], sizes: Sequence[int], workspace: int) -> int | None:
    """Return the index of the fastest candidate on the current device; None where none can be timed.

    Args:
        candidates: that compute the same; one that fails is passed over.
        sizes: the bytes of each tensor that they are passed.
        workspace: the bytes of the workspace that they are passed.
    """
    if len(candidates) < 2 or sum(sizes) + workspace > LIMIT_BYTES:
        return None
    import cupy

    stream = cupy.cuda.Stream(non_blocking=True)
    memory: list[Any] = []
    try:
        with stream:  # memory of its own pool: what other streams have let go may still be read there
            memory += [cupy.cuda.alloc(max(n, 1)) for n in (*sizes, workspace)]
        for i, n in enumerate((*sizes, workspace)):
            memory[i].memset_async(0x3C, max(n, 1), stream)  # a small number in every floating-point type
        *pointers, scratch = (each.ptr for each in memory)
        times = [_milliseconds(cupy, c, tuple(pointers), scratch, stream) for c in candidates]
    except cupy.cuda.memory.OutOfMemoryError:
        return None
    finally:
        stream.synchronize()
        memory.clear()
        cupy.get_default_memory_pool().free_all_blocks(stream)
    return times.index(min(times)) if min(times) < float("inf") else None


def _milliseconds(cupy: Any, candidate: Candidate, pointers: tuple[int, ...], scratch: int, stream: Any) -> float:
    begin, end = cupy.cuda.Event(), cupy.cuda.Event()
    try:
        for _ in range(_WARM):
            candidate(pointers, scratch, stream.ptr)
        begin.record(stream)
        for _ in range(_TIMED):
            candidate(pointers, scratch, stream.ptr)
        end.record(stream)
        end.synchronize()
    except Exception:  # a library's own error types: what cannot run is not chosen
        return float("inf")
    return float(cupy.cuda.get_elapsed_time(begin, end))


def recall(*identity: str) -> Any:
    """Return what was kept for this description, device and version, or None."""
    data = cache.read(_key(identity), _KIND)
    try:
        return None if data is None else json.loads(data)
    except ValueError:
        return None


def keep(value: Any, *identity: str) -> None:
    """Keep a choice (JSON) for a description, device and version."""
    cache.write(_key(identity), json.dumps(value).encode(), _KIND)


def _key(identity: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(identity).encode()).hexdigest()


def device_name() -> str:
    """Return the name of the current device, as choices are kept under it."""
    import cupy

    name = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.runtime.getDevice())["name"]
    return str(name.decode() if isinstance(name, bytes) else name)
