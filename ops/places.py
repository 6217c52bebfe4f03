"""Where the arrays of a call lie: all on the host, or all on one device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from .errors import DeviceError
from .types import Array, dtype_name

HOST = "cpu"


class _Several:
    devices = False


several = _Several()
"""Whether there are several devices: the one of an op's arrays then has to be made the current one."""


def beside(args: Sequence[Any]) -> AbstractContextManager[Any]:
    """Return a context in which the device of the first array that lies on one is the current one."""
    there = next((a for a in arrays_in(args) if place_of(a) != HOST and hasattr(a.device, "id")), None)
    return nullcontext() if there is None else there.device


def place_of(array: Array) -> str:
    """Return where an array lies: `cpu` or `cuda:N`."""
    if type(array) is np.ndarray:
        return HOST
    found: Any = getattr(array, "device", None)
    return f"cuda:{found.id}" if hasattr(found, "id") else str(found) if isinstance(found, str) else HOST


def to_numpy(array: Any) -> Any:
    """Return an array of a device as NumPy's, once it is computed; anything else as it is."""
    return array.get() if hasattr(array, "get") else array


def arrays_in(args: Sequence[Any]) -> Iterator[Array]:
    """Yield the arrays among arguments, also those in lists."""
    for a in args:
        if isinstance(a, list | tuple):
            yield from arrays_in(a)
        elif hasattr(a, "dtype") and hasattr(a, "shape") and not isinstance(a, np.generic):
            yield a


def disagreement(name: str, args: Sequence[Any]) -> DeviceError | None:
    """Return the error of an op whose arrays lie on several devices, None where they do not."""
    arrays = list(arrays_in(args))
    places = [place_of(a) for a in arrays]
    if len(set(places)) < 2:
        return None
    shown = ", ".join(
        f"{dtype_name(a.dtype)}{list(a.shape)} on {place}" for a, place in zip(arrays, places, strict=True)
    )
    *others, last = sorted(set(places))
    target = next(p for p in (last, *others) if p != HOST)
    return DeviceError(
        f"{name}: its arguments lie on {', '.join(others)} and {last}, wanted one device: found {shown}; move them "
        f"with .to('{target}')"
    )


def brought_together(args: Sequence[Any]) -> list[Any] | None:
    """Return arguments with the host's arrays copied to the device of the others; None where one device holds all."""
    from .transfer import transfer

    places = {place_of(a) for a in arrays_in(args)}
    if len(places) != 2 or HOST not in places:
        return None
    (there,) = places - {HOST}

    def moved(a: Any) -> Any:
        if isinstance(a, list | tuple):
            return type(a)(moved(v) for v in a)
        if not hasattr(a, "dtype") or a.dtype.kind == "O" or place_of(a) != HOST:
            return a
        return transfer(a, device=there, source=HOST)

    return [moved(a) for a in args]
