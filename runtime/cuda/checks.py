"""What kernels found wrong with what they were given: an index outside its axis, a label that is no class.

A kernel that meets such a thing sets a word of its program's (`Site.flag`), which stays set until it has been raised.
Behind the steps of each run the words are copied to page-locked memory. A run that returns arrays of the host waits for
them; other runs let the host go on, and what they found is raised where it next waits for the device (`settle`), or by
the next run of the program. `eager_checks` are those of ops that are called one at a time.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from ...ops.errors import InputError, OnnxGradError, OpError

if TYPE_CHECKING:
    from .arena import Storage
    from .runner import Block, Mirror, Runner


class Pending(Protocol):
    """What nobody has waited for yet."""

    runner: Runner

    def settle(self) -> None:
        """Wait, and raise what was found."""


PENDING: dict[Pending, None] = {}
"""Of what has run and nobody has waited for. It is held here: what was found is not lost with a program, and memory to
which a copy is on its way is not given to anybody else."""

_pending = threading.Lock()


class Checks:
    """The flags of one program, side by side.

    Attributes:
        runner: the device.
        nbytes: what they take.
    """

    def __init__(self, runner: Runner, flags: Sequence[Storage], *, updates: bool) -> None:
        """Take flags; their memory is taken by the first run.

        Args:
            runner: the device.
            flags: at least one.
            updates: whether a run overwrites what it is given.
        """
        from ...ops.kernels.cuda.operand import packed

        self.runner, self.nbytes = runner, sum(f.nbytes for f in flags)
        self._messages, self._updates = [f.message for f in flags], updates
        self._operand = packed(np.dtype(np.int32), (len(flags),))
        self._mirror: Mirror | None = None
        self._open = self._late = False

    def _found(self) -> bool:
        return self._mirror is not None and bool(self._mirror.words.any())

    def begin(self) -> Block:
        """Begin a run, inside `Runner.running`, and return the memory of the flags; nothing is waited for.

        Raises:
            OnnxGradError: saying what an earlier run found, if that is known by now.
        """
        if self._mirror is None:
            self._block = self.runner.allocate(self.nbytes)
            self._mirror = self.runner.mirror(self._block)
            self._clear()
        elif self._open:
            self._mirror.wait()
        if self._found():
            raise self._error(late=True)
        if self._open:  # the last run did not come to its end; what it has set is not the next one's
            self._clear()
        self._open = True
        return self._block

    def send(self) -> None:
        """Let the host have the flags as they are behind the steps, inside `Runner.running`."""
        assert self._mirror is not None
        self._late = self in PENDING
        expect(self)
        self._mirror.send()
        self._open = False

    def end(self) -> None:
        """Wait for a run, inside `Runner.running`.

        Raises:
            OnnxGradError: saying what it found.
        """
        self._wait()
        if self._found():
            raise self._error(late=self._late)

    def settle(self) -> None:
        """Wait for the runs that there were.

        Raises:
            OnnxGradError: saying what they found.
        """
        self._wait()
        if self._found():
            with self.runner.running():
                if self._found():
                    raise self._error(late=True)

    def _wait(self) -> None:
        forget(self)
        assert self._mirror is not None
        self._mirror.wait()

    def _clear(self) -> None:
        """Set all flags to 0, and the host's copy when everything has arrived there that was sent."""
        assert self._mirror is not None
        self._mirror.wait()
        view = self.runner.view(self._block, self._operand)
        self.runner.write(view, np.zeros(self._operand.shape, self._operand.dtype))
        self._mirror.words[:] = 0
        self._open = False

    def _error(self, *, late: bool) -> OnnxGradError:
        """Return what is wrong, with all flags cleared."""
        assert self._mirror is not None
        text = self._messages[int(np.flatnonzero(self._mirror.words)[0])]
        self._clear()
        if self._updates:
            text += (
                ". The run went on: parameters and other state that it overwrites hold what came of this and have to "
                "be loaded again"
            )
        if late:
            text += (
                ". This was found after the run had returned, when later work may have been queued; "
                "cuda.set_sync_debug_mode('launch') raises it in the run"
            )
        error: OnnxGradError = InputError(text) if self._updates else OpError(text)
        error.located = True  # type: ignore[attr-defined]
        return error


def expect(checks: Pending) -> None:
    """Let the host look at them when it next waits for their device."""
    with _pending:
        PENDING[checks] = None


def forget(checks: Pending) -> None:
    """Note that somebody has looked at them."""
    with _pending:
        PENDING.pop(checks, None)


def settle(device: int) -> None:
    """Wait for those runs on a device that nobody has waited for.

    Raises:
        OnnxGradError: saying what the first of them found that found something.
    """
    with _pending:
        found = [c for c in PENDING if c.runner.index == device]
    for checks in found:
        checks.settle()
