"""Tables of vectors that are looked up by index."""

from __future__ import annotations

from typing import Any

from ....ops.errors import OpError, ShapeError
from ...autograd.grad_mode import no_grad
from .. import init
from ..functional.embedding import embedding, embedding_bag, row_of
from ..module import Module, Parameter
from .dense import blank


class _Table(Module):
    """A table, (num_embeddings, embedding_dim)."""

    num_embeddings: int
    embedding_dim: int
    padding_idx: int | None

    def _begin(
        self, rows: int, size: int, padding_idx: int | None, word: str, sparse: bool, weight: Any, device: Any,
        dtype: Any,
    ) -> None:  # fmt: skip
        """Take the sizes, and the table or draw one."""
        if sparse:
            raise OpError(f"{type(self).__name__}: sparse=True is not supported: gradients are dense")
        self.num_embeddings, self.embedding_dim = rows, size
        self.padding_idx = row_of(padding_idx, rows, word)
        if weight is not None and tuple(weight.shape) != (rows, size):
            raise ShapeError("Shape of weight does not match num_embeddings and embedding_dim")
        self.weight = blank((rows, size), dtype, device) if weight is None else Parameter(weight)
        if weight is None:
            self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the table anew, from the standard normal distribution."""
        init.normal_(self.weight)
        if self.padding_idx is not None:
            with no_grad():
                self.weight[self.padding_idx] = 0


def _as_table(embeddings: Any) -> tuple[int, int]:
    if embeddings.ndim != 2:
        raise ShapeError("Embeddings parameter is expected to be 2-dimensional")
    return embeddings.shape[0], embeddings.shape[1]


class Embedding(_Table):
    """Rows of a table at indices.

    Args:
        num_embeddings: rows.
        embedding_dim: their size.
        padding_idx: a row that is 0 at first and gets no gradient.
        max_norm: shorten in place the rows that are taken and longer than this.
        norm_type: p of that norm.
        scale_grad_by_freq: divide each row's gradient by how often it is taken.
        sparse: not supported.
        _weight: the table, instead of one that is drawn.
        _freeze: whether it is not trained.
        device: where the table lies.
        dtype: its element type.

    Raises:
        OpError: if `padding_idx` is outside the table, or a sparse gradient is asked for.
        ShapeError: if the table that is given is of another shape.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
        _weight: Any = None,
        _freeze: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self._begin(num_embeddings, embedding_dim, padding_idx, "Padding_idx", sparse, _weight, device, dtype)
        self.weight.requires_grad_(not _freeze)
        self.max_norm, self.norm_type = max_norm, norm_type
        self.scale_grad_by_freq, self.sparse = scale_grad_by_freq, sparse

    @classmethod
    def from_pretrained(
        cls,
        embeddings: Any,
        freeze: bool = True,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
    ) -> Embedding:
        """Return one with a table that is given, which is not trained where it is frozen.

        Raises:
            ShapeError: if the table is no matrix.
        """
        rows, size = _as_table(embeddings)
        return cls(rows, size, padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse, embeddings, freeze)

    def forward(self, input: Any) -> Any:
        """Return the rows."""
        return embedding(
            input, self.weight, self.padding_idx, self.max_norm, self.norm_type, self.scale_grad_by_freq, self.sparse
        )

    def extra_repr(self) -> str:
        """Return the sizes, and the settings that are not the defaults."""
        defaults = {"padding_idx": None, "max_norm": None, "norm_type": 2, "scale_grad_by_freq": False}
        shown = [f"{k}={getattr(self, k)}" for k, default in defaults.items() if getattr(self, k) != default]
        return ", ".join([str(self.num_embeddings), str(self.embedding_dim), *shown])


class EmbeddingBag(_Table):
    """Sums, means or maxima of the rows of a table in bags of indices.

    Args:
        num_embeddings: rows.
        embedding_dim: their size.
        max_norm: shorten in place the rows that are taken and longer than this.
        norm_type: p of that norm.
        scale_grad_by_freq: divide each row's gradient by how often it is taken; not for `max`.
        mode: `sum`, `mean` or `max`.
        sparse: not supported.
        _weight: the table, instead of one that is drawn.
        include_last_offset: whether the last offset is where the last bag ends.
        padding_idx: an index that counts for nothing.
        device: where the table lies.
        dtype: its element type.

    Raises:
        OpError: if `padding_idx` is outside the table, or a sparse gradient is asked for.
        ShapeError: if the table that is given is of another shape.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        mode: str = "mean",
        sparse: bool = False,
        _weight: Any = None,
        include_last_offset: bool = False,
        padding_idx: int | None = None,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self._begin(num_embeddings, embedding_dim, padding_idx, "padding_idx", sparse, _weight, device, dtype)
        self.max_norm, self.norm_type, self.scale_grad_by_freq = max_norm, norm_type, scale_grad_by_freq
        self.mode, self.sparse, self.include_last_offset = mode, sparse, include_last_offset

    @classmethod
    def from_pretrained(
        cls,
        embeddings: Any,
        freeze: bool = True,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        mode: str = "mean",
        sparse: bool = False,
        include_last_offset: bool = False,
        padding_idx: int | None = None,
    ) -> EmbeddingBag:
        """Return one with a table that is given, which is not trained where it is frozen.

        Raises:
            ShapeError: if the table is no matrix.
        """
        rows, size = _as_table(embeddings)
        settings = (max_norm, norm_type, scale_grad_by_freq, mode, sparse, embeddings, include_last_offset, padding_idx)
        made = cls(rows, size, *settings)
        made.weight.requires_grad_(not freeze)
        return made

    def forward(self, input: Any, offsets: Any = None, per_sample_weights: Any = None) -> Any:
        """Return a row a bag, (B, D).

        Args:
            input: the indices, (B, N), or of all bags in a row, (N,).
            offsets: where each bag starts in a row of indices.
            per_sample_weights: factors of the rows, shaped as the input; for `sum`.
        """
        return embedding_bag(
            input,
            self.weight,
            offsets,
            self.max_norm,
            self.norm_type,
            self.scale_grad_by_freq,
            self.mode,
            self.sparse,
            per_sample_weights,
            self.include_last_offset,
            self.padding_idx,
        )

    def extra_repr(self) -> str:
        """Return the sizes, and the settings that are not the defaults."""
        shown = [str(self.num_embeddings), str(self.embedding_dim)]
        defaults = {"max_norm": None, "norm_type": 2, "scale_grad_by_freq": False}
        shown += [f"{k}={getattr(self, k)!r}" for k, default in defaults.items() if getattr(self, k) != default]
        shown.append(f"mode={self.mode!r}")
        return ", ".join(shown if self.padding_idx is None else [*shown, f"padding_idx={self.padding_idx}"])
