"""One row of the op table: how an op is called, what it should give, how far its gradients are checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class OpCase:
    """One call of one op.

    Attributes:
        op: the op.
        args: arrays (float64 where they are differentiable), Python scalars, None, or lists of arrays.
        reference: the same function by other means (plain NumPy loops, closed form, scipy, torch): `reference(*args)`.
        attrs: the attributes.
        order: highest derivative that is checked; 0 for ops declared non-differentiable; None where differences say
            nothing and a test of its own checks the gradient.
        tol: largest difference from the reference, relative to its largest magnitude.
        symbolic: also infer types with every size of the arrays replaced by a symbol.
        grad_tol: of the gradient check.
        name: shown by pytest.
    """

    op: Any
    args: tuple[Any, ...]
    reference: Callable[..., Any] | None
    attrs: dict[str, Any] = field(default_factory=dict)
    order: int | None = 2
    tol: float = 1e-12
    symbolic: bool = True
    grad_tol: float = 1e-5
    name: str = ""

    def __str__(self) -> str:
        """Return the name, or one made of the op and its shapes."""
        shapes = "-".join("x".join(map(str, a.shape)) or "scalar" for a in self.args if isinstance(a, np.ndarray))
        return self.name or f"{self.op.name}-{shapes}"


def rand(*shape: int, seed: int = 0, low: float = -2.0, high: float = 2.0) -> np.ndarray:
    """Return float64 numbers in [low, high), the same each time."""
    return np.random.default_rng([seed, *shape]).uniform(low, high, shape)
