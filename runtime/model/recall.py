"""Programs that other processes have compiled, for a model: looked for at its first run, kept after later ones."""

from __future__ import annotations

import copy
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...ops.kernels.cpu.target import available
from .built import Built, Recalled

if TYPE_CHECKING:
    from ..compiled.kept import KeptProgram
    from ..compiled.program import Program

ATTEMPTS = 8
"""How often a run of the same shapes may fail to bring a program that can be kept."""

KEPT = 16
"""For how many combinations of shapes the programs of a model are kept."""


class Recall:
    """What is kept of one model.

    Attributes:
        program: the kept program that runs, if one does.
    """

    def __init__(self, built: Built | Recalled) -> None:
        """Begin with what an importer has handed over."""
        self.program: KeptProgram | None = None
        self._built = built
        self._shapes: Any = None
        self._attempts: dict[Any, int] = {}
        self._lock = threading.Lock()

    def run(self, feeds: Sequence[Any], tensors: Mapping[str, Any], **settings: Any) -> list[Any] | None:
        """Return the outputs, or None where nothing is kept for such feeds; from then on the model compiles.

        Args:
            feeds: the inputs.
            tensors: the state.
            settings: as `compile_program` takes them.

        Raises:
            AssumptionError: if a kernel met bad input.
        """
        with self._lock:
            if self._shapes is None:
                self._find(feeds, settings)
        program = self.program
        if program is not None and _shapes(feeds, settings) == self._shapes:
            found = program.run(feeds, tensors)
            if found is not None:
                return found[0]
        self.program = None
        return None

    def _find(self, feeds: Sequence[Any], settings: Mapping[str, Any]) -> None:
        self._shapes = _shapes(feeds, settings)
        if not isinstance(self._built, Recalled) or not available():
            return
        from ..compiled.kept import entry_key, recall

        key = entry_key(self._built.note.identity, feeds, **settings)
        self.program = None if key is None else recall(key, settings["threads"])

    def keep(self, program: Program, feeds: Sequence[Any], **settings: Any) -> None:
        """Keep a program that has just run these feeds, if it can be and is not kept yet."""
        shapes = _shapes(feeds, settings)
        tried = self._attempts.get(shapes, 0)
        if tried >= ATTEMPTS or (not tried and len(self._attempts) >= KEPT):
            return
        from ..compiled.kept import entry_key, keep

        note = self._built.note
        key = None if note is None else entry_key(note.identity, feeds, **settings)
        done = note is None or key is None or keep(key, program, feeds, note.write)
        self._attempts[shapes] = ATTEMPTS if done else tried + 1

    def __deepcopy__(self, memo: dict[int, Any]) -> Recall:
        """Return what a copy of the model begins with."""
        return Recall(copy.deepcopy(self._built, memo))


def _shapes(feeds: Sequence[Any], settings: Mapping[str, Any]) -> Any:
    return tuple([(getattr(f, "shape", None), getattr(f, "dtype", None)) for f in feeds]), *settings.values()
