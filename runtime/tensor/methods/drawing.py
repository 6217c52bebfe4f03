"""Methods that overwrite every element with a draw from a distribution."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np

from ....ops.errors import OpError

Self = TypeVar("Self", bound="Drawing")


class Drawing:
    """Draws by the inverse of the distribution function, or from a normal distribution."""

    _array: Any

    def _uniform(self, generator: Any) -> Any:
        """Return draws from (0, 1), float64."""
        from ..random import uniform

        drawn = uniform(np.empty(self._array.shape, np.float64), 0.0, 1.0, generator)
        return np.clip(drawn, 2.0**-60, 1 - 2.0**-53)

    def _drawn(self: Self, array: Any) -> Self:
        return self._write(array.astype(self._array.dtype))  # type: ignore[attr-defined, no-any-return]

    def exponential_(self: Self, lambd: float = 1.0, *, generator: Any = None) -> Self:
        """Draw every element from an exponential distribution.

        Raises:
            OpError: unless the rate is positive.
        """
        if lambd <= 0:
            raise OpError(f"exponential_ expects lambda > 0.0, but found lambda={lambd}")
        return self._drawn(-np.log(self._uniform(generator)) / lambd)

    def geometric_(self: Self, p: float, *, generator: Any = None) -> Self:
        """Draw every element from a geometric distribution: how many trials until the first success.

        Raises:
            OpError: unless p is between 0 and 1.
        """
        if not 0 < p < 1:
            raise OpError(f"geometric_ expects p to be in (0, 1), but got p={p}")
        return self._drawn(np.ceil(np.log(self._uniform(generator)) / np.log1p(-p)))

    def cauchy_(self: Self, median: float = 0.0, sigma: float = 1.0, *, generator: Any = None) -> Self:
        """Draw every element from a Cauchy distribution.

        Raises:
            OpError: unless sigma is positive.
        """
        if sigma <= 0:
            raise OpError(f"cauchy_ expects sigma > 0.0, but found sigma={sigma}")
        return self._drawn(median + sigma * np.tan(np.pi * (self._uniform(generator) - 0.5)))

    def log_normal_(self: Self, mean: float = 1.0, std: float = 2.0, *, generator: Any = None) -> Self:
        """Draw every element as e to a draw from a normal distribution.

        Raises:
            OpError: unless std is positive.
        """
        if std <= 0:
            raise OpError(f"log_normal_ expects std > 0.0, but found std={std}")
        from ..random import normal

        return self._drawn(np.exp(normal(np.empty(self._array.shape, np.float64), mean, std, generator)))

    def apply_(self: Self, callable: Any) -> Self:
        """Overwrite every element with what a Python function of its number returns; slow."""
        self._readable("apply_()")  # type: ignore[attr-defined]
        host = self.detach().cpu()._array  # type: ignore[attr-defined]
        made = np.array([callable(v) for v in host.reshape(-1).tolist()], host.dtype)
        return self._write(made.reshape(host.shape))  # type: ignore[attr-defined, no-any-return]
