"""Progress of a finetuning on a terminal: a bar for the epoch that runs, a line for each that is done."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress as Bar, TaskID, TextColumn, TimeRemainingColumn

from .progress import Progress, Tally


class Terminal(Progress):
    """Shows progress on a console; the bar only where it is a terminal.

    Args:
        console: where to.
        epochs: how many were asked for.
    """

    def __init__(self, console: Console, epochs: int) -> None:
        self.console, self.epochs = console, epochs
        self.accuracy = self.validation = False
        self.bar = Bar(
            TextColumn("  [bold]{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(compact=True),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self.task: TaskID | None = None

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """Show the bar meanwhile."""
        with self.bar:
            yield

    def begin(self, what: str, steps: int | None) -> None:
        """Show a new bar."""
        if self.task is not None:
            self.bar.remove_task(self.task)
        self.task = self.bar.add_task(what, total=steps, note="")

    def step(self, tally: Tally | None = None) -> None:
        """Move the bar on."""
        if self.task is not None:
            self.bar.update(self.task, advance=1, note="" if tally is None else _described(tally.record()))

    def head(self, *, accuracy: bool, validation: bool) -> None:
        """Print the names of the columns."""
        self.accuracy, self.validation = accuracy, validation
        names = ["loss", *(["accuracy"] if accuracy else [])]
        names += [f"val {n}" for n in names] if validation else []
        self._line("epoch", [f"{n:>14}" for n in [*names, "time"]], "dim")

    def done(self, record: dict[str, Any], best: bool) -> None:
        """Print the line of an epoch."""
        cells = []
        for prefix in ("", "val_") if self.validation else ("",):
            loss, accuracy = record.get(f"{prefix}loss"), record.get(f"{prefix}accuracy")
            cells.append(f"{'' if loss is None else f'{loss:.4f}':>14}")
            if self.accuracy:
                cells.append(f"{'' if accuracy is None else f'{accuracy:.1%}':>14}")
        cells.append(f"{record['seconds']:>12.1f} s")
        self._line(f"{record['epoch']}/{self.epochs}" if record["epoch"] else "before", cells, "", best)

    def _line(self, first: str, cells: list[str], style: str, best: bool = False) -> None:
        mark = "  [green]best[/]" if best else ""
        text = f"  {first:>7}{''.join(cells)}"
        self.console.print((f"[{style}]{text}[/]" if style else text) + mark, highlight=False, soft_wrap=True)


def _described(record: dict[str, Any]) -> str:
    accuracy = record.get("accuracy")
    return f"loss {record['loss']:.4f}" + (f"  accuracy {accuracy:6.1%}" if accuracy is not None else "")
