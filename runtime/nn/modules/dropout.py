"""Dropout as modules; in evaluation each returns its input."""

from __future__ import annotations

from typing import Any

from ....ops.errors import OpError
from .. import functional as F
from ..module import Module


class _Dropout(Module):
    """Something dropped with probability p while training."""

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        super().__init__()
        if not 0 <= p <= 1:
            raise OpError(f"dropout probability has to be between 0 and 1, but got {p}")
        self.p, self.inplace = p, inplace

    def extra_repr(self) -> str:
        """Return the probability."""
        return f"p={self.p}, inplace={self.inplace}"


class Dropout(_Dropout):
    """Zero elements at random while training, and scale the others."""

    def forward(self, input: Any) -> Any:
        """Drop elements."""
        return F.dropout(input, self.p, self.training, self.inplace)


class Dropout1d(_Dropout):
    """Zero whole channels of (N, C, L) or (C, L) at random while training."""

    def forward(self, input: Any) -> Any:
        """Drop channels."""
        return F.dropout1d(input, self.p, self.training, self.inplace)


class Dropout2d(_Dropout):
    """Zero whole channels of (N, C, H, W) at random while training."""

    def forward(self, input: Any) -> Any:
        """Drop channels."""
        return F.dropout2d(input, self.p, self.training, self.inplace)


class Dropout3d(_Dropout):
    """Zero whole channels of (N, C, D, H, W) or (C, D, H, W) at random while training."""

    def forward(self, input: Any) -> Any:
        """Drop channels."""
        return F.dropout3d(input, self.p, self.training, self.inplace)


class AlphaDropout(_Dropout):
    """Dropout that keeps mean and variance of what SELU gives."""

    def forward(self, input: Any) -> Any:
        """Drop elements."""
        return F.alpha_dropout(input, self.p, self.training)


class FeatureAlphaDropout(_Dropout):
    """Dropout of whole channels that keeps mean and variance of what SELU gives."""

    def forward(self, input: Any) -> Any:
        """Drop channels."""
        return F.feature_alpha_dropout(input, self.p, self.training)
