"""What finetuning hands back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class FinetuneResult:
    """What happened during finetuning.

    Attributes:
        history: one record an epoch: `epoch`, `loss`, `accuracy` (for classes), `val_loss`, `val_accuracy` (with
            validation), `lr`, `seconds`. The first, epoch 0, is the validation before training.
        best_epoch: the epoch whose weights the model has now; 0 is before training.
        stopped_early: whether fewer epochs ran than were asked for.
        reason: why it ended, in words.
    """

    history: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int = 0
    stopped_early: bool = False
    reason: str = ""

    @property
    def best(self) -> dict[str, Any]:
        """The record of the best epoch."""
        return next((r for r in self.history if r["epoch"] == self.best_epoch), {})

    def __str__(self) -> str:
        """Return a table of the epochs."""
        columns = [
            k
            for k in ("epoch", "loss", "accuracy", "val_loss", "val_accuracy", "seconds")
            if any(k in r for r in self.history)
        ]
        lines = ["  ".join(f"{c:>12}" for c in columns)]
        for record in self.history:
            mark = " *" if record["epoch"] == self.best_epoch else ""
            lines.append("  ".join(f"{_cell(record.get(c)):>12}" for c in columns) + mark)
        return "\n".join([*lines, self.reason])


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)
