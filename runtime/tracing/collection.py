"""Python's collector of cycles, held off while a graph is built or compiled.

Loading and compiling make many objects that stay; looking through them again and again for garbage would take a sixth
of the time, and find none.
"""

from __future__ import annotations

import contextlib
import gc
import threading
from collections.abc import Iterator

_lock = threading.Lock()
_holding = 0


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Hold the collector off inside; it is on again when the last of several threads leaves, if it was before."""
    global _holding
    with _lock:
        if _holding or gc.isenabled():
            _holding += 1
            mine = True
            gc.disable()
        else:
            mine = False
    try:
        yield
    finally:
        with _lock:
            if mine:
                _holding -= 1
                if not _holding:
                    gc.enable()
