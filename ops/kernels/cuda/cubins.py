"""Cubins: compiled once a text, architecture and NVRTC, and kept in memory and in the folder of `cpu.cache`."""

from __future__ import annotations

import hashlib
import threading

from ..cpu import cache
from . import nvrtc
from .kernel import Kernel
from .nvrtc import Cubin

_kept: dict[str, Cubin] = {}
_making: dict[str, threading.Lock] = {}
_lock = threading.Lock()
_compiled = 0


def compiled() -> int:
    """Return how many texts this process has compiled."""
    return _compiled


def key_of(kernel: Kernel, architecture: str) -> str:
    """Return the name of an entry: the text, the architecture, the options and NVRTC's version.

    Raises:
        KernelError: if there is no NVRTC.
    """
    said = "\n".join((kernel.key, architecture, *nvrtc.OPTIONS, *map(str, nvrtc.version())))
    return hashlib.sha256(said.encode()).hexdigest()


def load(kernel: Kernel, architecture: str) -> Cubin:
    """Return a kernel's cubin for an architecture (see `nvrtc.architecture`). Threads that ask for others do not wait.

    Raises:
        KernelError: if the text does not compile, or there is no NVRTC.
    """
    global _compiled
    key = key_of(kernel, architecture)
    with _lock:
        making = _making.setdefault(key, threading.Lock())
    with making:
        found = _kept.get(key) or _read(key)
        if found is None:
            found = nvrtc.compile_text(kernel.text, architecture, name=kernel.name)
            cache.write(key, found.pack(), cache.CUBIN)
            with _lock:
                _compiled += 1
        _kept[key] = found
    return found


def forget() -> None:
    """Forget what is kept in memory."""
    _kept.clear()


def _read(key: str) -> Cubin | None:
    data = cache.read(key, cache.CUBIN)
    if data is None:
        return None
    try:
        return Cubin.unpack(data)
    except ValueError as error:
        cache.warn_once(f"a cubin in {cache.folder()} cannot be used ({error}); it is made again")
        return None
