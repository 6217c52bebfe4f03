"""Methods that count elements or relate rows; `runtime/tensor/functions.py` says how."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..tensor import Tensor


class Counting:
    """Histograms and covariances."""

    def bincount(self, weights: Tensor | None = None, minlength: int = 0) -> Tensor:
        """Return how often each number from 0 up is an element."""
        from ..functions import bincount

        return bincount(self, weights, minlength)  # type: ignore[arg-type]

    def histc(self, bins: int = 100, min: float = 0, max: float = 0) -> Tensor:
        """Return how many elements fall into each of several equal bins."""
        from ..functions import histc

        return histc(self, bins, min, max)  # type: ignore[arg-type]

    def histogram(self, bins: Any, **named: Any) -> Any:
        """Return how many elements fall into each bin, and the edges of the bins."""
        from ..functions import histogram

        return histogram(self, bins, **named)  # type: ignore[arg-type]

    def cov(self, **named: Any) -> Tensor:
        """Return the covariances of variables, one a row."""
        from ..functions import cov

        return cov(self, **named)  # type: ignore[arg-type]

    def corrcoef(self) -> Tensor:
        """Return the correlations of variables, one a row."""
        from ..functions import corrcoef

        return corrcoef(self)  # type: ignore[arg-type]
