"""Settings of optimizers, and the numbers that their state counts."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...ops.errors import InputError
from ..tensor.tensor import Tensor, wrap


def count(value: float) -> Tensor:
    """Return a number as PyTorch keeps it in an optimizer's state: a Tensor of the default element type."""
    return wrap(np.asarray(value, Tensor.default_dtype))


def steps(state: dict[str, Any]) -> float:
    """Return how many steps a state has counted."""
    return number(state.get("step", 0))


def number(value: Any) -> float:
    """Return a setting or a counted number, which may be a Tensor of one element, as a float."""
    return value._array.item() if isinstance(value, Tensor) else value  # type: ignore[no-any-return]


def advance(state: dict[str, Any]) -> None:
    """Count a step."""
    found = state.get("step")
    if not isinstance(found, Tensor):
        found = state["step"] = count(0 if found is None else found)
    found._array += 1


def checked(lr: Any, betas: Any = (), **settings: Any) -> None:
    """Refuse settings out of range.

    Raises:
        InputError: naming the first.
    """
    if isinstance(lr, Tensor) and lr.numel() != 1:
        raise InputError("Tensor lr must be 1-element")
    if not number(lr) >= 0:
        raise InputError(f"Invalid learning rate: {lr}")
    for name, value in settings.items():
        if not value >= 0:
            raise InputError(f"Invalid {name} value: {value}")
    for i, beta in enumerate(betas):
        if not 0 <= beta < 1:
            raise InputError(f"Invalid beta parameter at index {i}: {beta}")
