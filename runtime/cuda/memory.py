"""The memory of a device: what CuPy's pool holds of it, how much there ever was, and limits.

`allocated` is what arrays and programs take, `reserved` what the pool has of the device: freed memory stays in the pool
for the next array until `empty_cache`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

from ...ops.errors import InputError
from .availability import cupy, device_count, is_available, look

ROUNDED_TO = 512
"""What CuPy's pool hands out is a multiple of so many bytes."""


class Peaks:
    """The most that was allocated and reserved, by the number of the device; kept by the allocator.

    The pool counts what is in use by going through it. It is asked only where the sum of what has been handed out since
    it was last asked may have passed the peak.
    """

    allocated: ClassVar[dict[int, int]] = {}
    reserved: ClassVar[dict[int, int]] = {}
    _most: ClassVar[dict[int, int]] = {}
    _watched: Any = None
    _lock = threading.Lock()

    @classmethod
    def watch(cls, cupy: Any) -> None:
        """Count what the default pool hands out from now on; a pool that the user has set is left alone."""
        pool = cupy.get_default_memory_pool()
        if cls._watched is cupy or cupy.cuda.get_allocator() != pool.malloc:
            return
        cls._watched = cupy
        current = cupy.cuda.runtime.getDevice

        def malloc(size: int) -> Any:
            memory = pool.malloc(size)
            cls.note(current(), size, pool)
            return memory

        cupy.cuda.set_allocator(malloc)

    @classmethod
    def note(cls, device: int, size: int, pool: Any) -> None:
        """Note that a pool has handed out memory."""
        total = pool.total_bytes()
        with cls._lock:
            cls._most[device] = most = cls._most.get(device, 0) + -(-size // ROUNDED_TO) * ROUNDED_TO
            cls.reserved[device] = max(total, cls.reserved.get(device, 0))
            if most > cls.allocated.get(device, 0):
                cls._most[device] = used = pool.used_bytes()
                cls.allocated[device] = max(used, cls.allocated.get(device, 0))

    @classmethod
    def restart(cls, device: int, used: int, total: int) -> None:
        """Count from what is in use now."""
        with cls._lock:
            cls._most[device] = cls.allocated[device] = used
            cls.reserved[device] = total


def number_of(device: Any) -> int:
    """Return the number of a device: a number, `cuda`, `cuda:N`, or None for the current one.

    Raises:
        InputError: for the CPU, and for a device that is not there.
    """
    if device is None or device == "cuda":
        return int(cupy().cuda.runtime.getDevice())
    if isinstance(device, int):
        number = device
    else:
        kind, _, tail = str(device).partition(":")
        if kind != "cuda" or not tail.isdigit():
            raise InputError(f"expected a CUDA device, found {str(device)!r}")
        number = int(tail)
    count = device_count()
    if count == 0:
        cupy()
    if not 0 <= number < count:
        raise InputError(f"no device cuda:{number}: {count} CUDA device{'s' * (count != 1)} found")
    return number


@contextmanager
def current(device: Any) -> Iterator[Any]:
    """Make a device the current one for the time of a `with` block, and give CuPy."""
    library = cupy()
    with library.cuda.Device(number_of(device)):
        yield library


def memory_allocated(device: Any = None) -> int:
    """Return how many bytes of a device arrays and programs take; 0 without one."""
    if not is_available():
        return 0
    with current(device) as library:
        return int(library.get_default_memory_pool().used_bytes())


def memory_reserved(device: Any = None) -> int:
    """Return how many bytes of a device the pool holds, in use or not; 0 without one."""
    if not is_available():
        return 0
    with current(device) as library:
        return int(library.get_default_memory_pool().total_bytes())


def max_memory_allocated(device: Any = None) -> int:
    """Return the most that `memory_allocated` was since the start or the last reset."""
    return 0 if not is_available() else max(Peaks.allocated.get(number_of(device), 0), memory_allocated(device))


def max_memory_reserved(device: Any = None) -> int:
    """Return the most that `memory_reserved` was since the start or the last reset."""
    return 0 if not is_available() else max(Peaks.reserved.get(number_of(device), 0), memory_reserved(device))


def reset_peak_memory_stats(device: Any = None) -> None:
    """Let `max_memory_allocated` and `max_memory_reserved` count from now on."""
    if is_available():
        number = number_of(device)
        Peaks.restart(number, memory_allocated(number), memory_reserved(number))


def memory_stats(device: Any = None) -> dict[str, int]:
    """Return what is allocated and reserved, now and at most, by PyTorch's names."""
    return {
        "allocated_bytes.all.current": memory_allocated(device),
        "allocated_bytes.all.peak": max_memory_allocated(device),
        "reserved_bytes.all.current": memory_reserved(device),
        "reserved_bytes.all.peak": max_memory_reserved(device),
    }


def mem_get_info(device: Any = None) -> tuple[int, int]:
    """Return the free and all bytes of a device, as the driver sees them."""
    with current(device) as library:
        free, total = library.cuda.runtime.memGetInfo()
        return int(free), int(total)


def empty_cache() -> None:
    """Give the memory that the pools keep, of devices and page-locked, back to the system."""
    found = look()
    for number in range(found.devices):
        with found.cupy.cuda.Device(number):
            found.cupy.get_default_memory_pool().free_all_blocks()
    if found.devices:
        found.cupy.get_default_pinned_memory_pool().free_all_blocks()


def set_per_process_memory_fraction(fraction: float, device: Any = None) -> None:
    """Let the pool take at most this part of a device's memory.

    Raises:
        InputError: unless it is between 0 and 1.
    """
    if not 0 <= fraction <= 1:
        raise InputError(f"Invalid fraction value: {fraction}. Allowed range: 0 to 1")
    set_memory_limit(int(fraction * mem_get_info(device)[1]) or 1, device)


def set_memory_limit(nbytes: int | None, device: Any = None) -> None:
    """Let the pool take at most so many bytes of a device; None for all that there are."""
    with current(device) as library:
        library.get_default_memory_pool().set_limit(size=int(nbytes or 0))


def get_memory_limit(device: Any = None) -> int | None:
    """Return what `set_memory_limit` set, None where there is no limit."""
    with current(device) as library:
        return int(library.get_default_memory_pool().get_limit()) or None


def in_units(nbytes: float) -> str:
    """Return bytes as people read them: `1.50 GiB`."""
    for unit in ("B", "KiB", "MiB"):
        if nbytes < 1024:
            return f"{nbytes:.0f} {unit}" if unit == "B" else f"{nbytes:.2f} {unit}"
        nbytes /= 1024
    return f"{nbytes:.2f} GiB"


def memory_summary(device: Any = None, abbreviated: bool = False) -> str:
    """Return a table of what is allocated and reserved, and of what takes most.

    Args:
        device: which; the current one by default.
        abbreviated: leave out what takes most.
    """
    from .holders import holders

    number = number_of(device)
    free, total = mem_get_info(number)
    limit = get_memory_limit(number)
    rows = [
        ("allocated", memory_allocated(number), max_memory_allocated(number)),
        ("reserved", memory_reserved(number), max_memory_reserved(number)),
    ]
    lines = [f"cuda:{number}: {in_units(free)} of {in_units(total)} free"]
    if limit is not None:
        lines[0] += f", limited to {in_units(limit)}"
    lines += [f"  {name:<10}{in_units(now):>12}{'most':>8}{in_units(most):>12}" for name, now, most in rows]
    if not abbreviated:
        lines += [f"  {in_units(h.nbytes):>12}  {h.what}" for h in holders(number)]
    return "\n".join(lines)
