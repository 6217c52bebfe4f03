"""Settings of optimizers, and the numbers that their state counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ...ops.errors import InputError
from ...ops.places import HOST, place_of
from ..tensor.tensor import Tensor, wrap

COUNTS = ("step", "mu_product", "eta", "mu")
"""What of an optimizer's state counts steps, one number a parameter, rather than elements."""


def count(value: float) -> Tensor:
    """Return a number as PyTorch keeps it in an optimizer's state: a Tensor of the default element type."""
    return wrap(np.asarray(value, Tensor.default_dtype))


def steps(state: Mapping[str, Any], unless: float = 0) -> Any:
    """Return how many steps a state has counted, and what else where it counts none."""
    return number(state.get("step", unless))


def number(value: Any) -> Any:
    """Return a setting or a counted number, which may be a Tensor of one element, as a float; expressions stay."""
    return value._array.item() if isinstance(value, Tensor) else value


def recount(state: dict[str, Any], name: str, value: float) -> None:
    """Set a counted number. It lies on the host from now on, in an array that no other parameter counts by."""
    found = state.get(name)
    if isinstance(found, Tensor):
        found._array = np.asarray(value, found._array.dtype)
    else:
        state[name] = count(value)


def age(value: Any) -> Any:
    """Return what counted numbers share that are the same: the number, or where only a device knows it, its place."""
    if isinstance(value, Tensor) and place_of(value._array) != HOST:
        return "device", id(value._array)
    return number(value)


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
