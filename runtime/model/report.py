"""What each tensor of an imported model is: the table behind `model.report()`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ...ops.dims import show


@dataclass(frozen=True)
class Role:
    """`parameter`, `buffer` or `constant`, and why."""

    kind: str
    reason: str


@dataclass(frozen=True)
class Row:
    """One tensor of the file."""

    name: str
    kind: str
    shape: tuple[int, ...]
    dtype: str
    reason: str
    trainable: bool
    size: int


@dataclass(frozen=True)
class Report:
    """The tensors of a model with their roles; printing it gives a table."""

    rows: tuple[Row, ...]
    batch: str

    def __iter__(self) -> Iterator[Row]:
        """Iterate over the rows."""
        return iter(self.rows)

    def __len__(self) -> int:
        """Return the number of tensors."""
        return len(self.rows)

    def total(self, kind: str) -> int:
        """Return the number of elements of all tensors of a kind."""
        return sum(r.size for r in self.rows if r.kind == kind)

    @property
    def trainable_share(self) -> float:
        """The share of float elements that a training step would change, 0 to 1."""
        floats = sum(r.size for r in self.rows if "float" in r.dtype)
        return sum(r.size for r in self.rows if r.trainable) / floats if floats else 0.0

    def __str__(self) -> str:
        """Return the table as text."""
        header = ("tensor", "is a", "type", "trains", "because")
        lines = [
            (r.name, r.kind, f"{r.dtype}{show(r.shape)}", "yes" if r.trainable else "no", r.reason) for r in self.rows
        ]
        widths = [max(len(line[i]) for line in [header, *lines]) for i in range(4)]
        text = [
            "  ".join([*(c.ljust(w) for c, w in zip(line[:4], widths, strict=True)), line[4]])
            for line in [header, *lines]
        ]
        kinds = ", ".join(f"{self.total(k):,} in {k}s" for k in ("parameter", "buffer", "constant"))
        text.append(f"{kinds}; {self.trainable_share:.1%} of all float elements train")
        text.append(f"batch: {self.batch}")
        return "\n".join(text)
