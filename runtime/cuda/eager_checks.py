"""What kernels of eager ops found wrong with their arguments; see `checks` for those of programs.

A kernel that meets an index outside its axis sets a word on the device. The host looks at the words where it waits for
the device anyhow, so that eager code stays ahead of it.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from ...ops.errors import OpError
from ..autograd.saved import Late
from .checks import expect, forget

if TYPE_CHECKING:
    from .runner import Runner

WORDS = 1024
"""How many messages have a word of their own; those that come later share the last one."""

LATE = (
    ". This was found when the host waited for the device, later work may have been queued; "
    "cuda.set_sync_debug_mode('launch') raises it in the op"
)


class EagerChecks:
    """The words of all eager ops on one device.

    Attributes:
        runner: the device.
    """

    def __init__(self, runner: Runner, cupy: Any) -> None:
        """Begin without words; their memory is taken with the first one."""
        self.runner, self._cupy = runner, cupy
        self._messages: dict[str, int] = {}
        self._words: Any = None
        self._streams: dict[int, Any] = {}
        self._lock = threading.Lock()

    def address(self, message: str) -> int:
        """Return the address of the word that stands for a message."""
        with self._lock:
            if self._words is None:
                self._words = self._cupy.zeros((WORDS,), np.int32)
                self._cupy.cuda.get_current_stream().synchronize()  # other streams write them
            if message not in self._messages and len(self._messages) == WORDS:
                message = next(reversed(self._messages))
            at = self._messages.setdefault(message, len(self._messages))
            return int(self._words.data.ptr + at * self._words.itemsize)

    def note(self) -> None:
        """Note that kernels which may set words have been launched.

        Raises:
            OpError: in the mode `launch`, if one has set a word.
        """
        stream = self._cupy.cuda.get_current_stream()
        with self._lock:
            self._streams[int(stream.ptr)] = stream
        expect(self)
        if Late.guard is not None and Late.guard.mode == "launch":
            self.settle()

    def settle(self) -> None:
        """Look at the words behind the work of all streams that were given some.

        Raises:
            OpError: saying what was found.
        """
        forget(self)
        with self._lock:
            streams, self._streams = self._streams, {}
        with self._words.device:
            for stream in streams.values():
                stream.synchronize()
            found = np.flatnonzero(self._words.get())
            if found.size:
                self._words[...] = 0
        if found.size:
            launching = Late.guard is not None and Late.guard.mode == "launch"
            error = OpError(list(self._messages)[int(found[0])] + ("" if launching else LATE))
            error.located = True  # type: ignore[attr-defined]
            raise error
