"""How large one value may get. What asks for more is refused before memory is asked for.

A damaged or hostile file says 2**62 as easily as 2; and NumPy hands out memory that the machine does not have.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .dims import show
from .errors import ShapeError

BYTES = 16 << 30
"""The largest size of one result, in bytes."""


def check_size(what: str, shape: Sequence[Any], itemsize: int) -> None:
    """Check the shape of a result; symbols count as 1.

    Raises:
        ShapeError: if a size is negative, or if it takes more than `BYTES`.
    """
    total = itemsize
    for d in shape:
        if isinstance(d, int):
            if d < 0:
                raise ShapeError(f"{what}: {show(shape)} has a negative size")
            total *= d
    if total > BYTES:
        raise ShapeError(
            f"{what}: a result of shape {show(shape)} takes {total / 2**30:.4g} GiB, more than the {BYTES >> 30} GiB "
            "that one value may take"
        )
