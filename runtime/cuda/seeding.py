"""PyTorch's names for the seeds of devices. One generator serves all of them, the package's own.

`manual_seed` of the package seeds it; seeding a device changes nothing, so that a program that seeds both draws the
same numbers on the CPU and on a device.
"""

from __future__ import annotations

from typing import Any

from ..tensor import random


def manual_seed(seed: int) -> None:
    """Seed nothing: one generator serves all devices, and `manual_seed` of the package seeds it."""


def manual_seed_all(seed: int) -> None:
    """Seed nothing: one generator serves all devices, and `manual_seed` of the package seeds it."""


def seed() -> None:
    """Seed nothing: one generator serves all devices, and `seed` of the package seeds it."""


def seed_all() -> None:
    """Seed nothing: one generator serves all devices, and `seed` of the package seeds it."""


def initial_seed() -> int:
    """Return the seed that the process's generator started from."""
    return random.initial_seed()


def get_rng_state(device: Any = None) -> dict[str, Any]:
    """Return the state of the process's generator."""
    return random.get_rng_state()


def get_rng_state_all() -> list[dict[str, Any]]:
    """Return the state of the process's generator, once a device."""
    from .availability import device_count

    return [random.get_rng_state() for _ in range(device_count())]


def set_rng_state(new_state: dict[str, Any], device: Any = None) -> None:
    """Go on from a state that `get_rng_state` has returned."""
    random.set_rng_state(new_state)


def set_rng_state_all(new_states: list[dict[str, Any]]) -> None:
    """Go on from the last of the states that `get_rng_state_all` has returned."""
    for state in new_states:
        random.set_rng_state(state)
