"""What an observer of a finetuning is told, and sums over batches."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from ...ops.types import Array
from .examples import rows_of


class Progress:
    """An observer who does not care; `terminal.Terminal` is one who shows it."""

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """Show it meanwhile."""
        yield

    def head(self, *, accuracy: bool, validation: bool) -> None:
        """Begin to train, with this measured."""

    def begin(self, what: str, steps: int | None) -> None:
        """Begin something of so many steps."""

    def step(self, tally: Tally | None = None) -> None:
        """Finish a step; so far it does like this."""

    def done(self, record: dict[str, Any], best: bool) -> None:
        """Finish an epoch."""


class Tally:
    """Loss and right answers over batches."""

    def __init__(self) -> None:
        """Start at nothing."""
        self.loss, self.examples, self.right, self.answers = 0.0, 0, 0, 0

    def add(self, loss: float, targets: Array, right: int | None) -> None:
        """Add a batch."""
        n = rows_of(targets)
        self.loss += loss * n
        self.examples += n
        if right is not None:
            self.right += right
            self.answers += targets.size

    def record(self) -> dict[str, Any]:
        """Return loss and accuracy."""
        found: dict[str, Any] = {"loss": self.loss / max(1, self.examples)}
        if self.answers:
            found["accuracy"] = self.right / self.answers
        return found
