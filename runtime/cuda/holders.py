"""What takes a device's memory: Tensors that are alive, by their memory, and programs; for errors and summaries."""

from __future__ import annotations

import gc
import weakref
from dataclasses import dataclass
from typing import Any, Protocol

from ...ops.errors import OutOfMemoryError
from ...ops.places import place_of
from ...ops.types import dtype_name
from ..autograd.saved import Late

SHOWN = 8
"""How many holders an error names."""


@dataclass(frozen=True)
class Held:
    """A piece of memory that something holds.

    Attributes:
        nbytes: its size.
        what: who holds it, for people.
    """

    nbytes: int
    what: str


class Holder(Protocol):
    """What holds memory of a device besides Tensors."""

    def held(self) -> list[tuple[int, int, str]]:
        """Return (device, bytes, what it is for) of each piece."""


_holders: weakref.WeakSet[Any] = weakref.WeakSet()


def note_holder(holder: Holder) -> None:
    """Let errors and summaries name something that holds memory, as long as it is alive."""
    _holders.add(holder)


def holders(device: int, most: int = SHOWN) -> list[Held]:
    """Return what takes most of a device's memory, the largest first; views count with what they show."""
    found = [Held(n, what) for h in list(_holders) for place, n, what in h.held() if place == device]
    owners: dict[int, list[Any]] = {}
    for t in gc.get_objects():
        if issubclass(type(t), Late.tensor_class) and "_array" in t.__dict__:  # isinstance asks what may be proxies
            array = t.__dict__["_array"]
            if place_of(array) == f"cuda:{device}":
                owner = array if array.base is None else array.base
                owners.setdefault(id(owner), []).append((owner, t))
    grads = {id(t.grad) for sharing in owners.values() for _, t in sharing if t.grad is not None}
    for sharing in owners.values():
        owner, t = max(sharing, key=lambda s: _rank(s[1], grads))
        found.append(Held(owner.nbytes, _described(t, owner, grads)))
    return sorted(found, key=lambda h: (-h.nbytes, h.what))[:most]


def _rank(t: Any, grads: set[int]) -> int:
    """Return how much a Tensor says about memory that several share."""
    return 4 * (t.name is not None) + 2 * (id(t) in grads) + bool(t.requires_grad and t.is_leaf)


def _described(t: Any, owner: Any, grads: set[int]) -> str:
    kind = f"{dtype_name(owner.dtype)}{list(owner.shape)}"
    if t.name is not None:
        return f"{t.name}: {kind}"
    if id(t) in grads:
        return f"gradient {kind}"
    if not t.is_leaf:
        return f"{kind}, made by {t.grad_fn.name()}"
    return f"{'parameter' if t.requires_grad else 'Tensor'} {kind}"


def out_of_memory(cupy: Any, name: str, error: BaseException) -> OutOfMemoryError:
    """Return the error of an op that found no memory on the current device: what it wanted, and what takes it all."""
    from .memory import in_units

    asked = getattr(error, "_size", None)
    wanted = "memory" if asked is None else in_units(asked)
    device = int(cupy.cuda.runtime.getDevice())
    pool = cupy.get_default_memory_pool()
    free, total = cupy.cuda.runtime.memGetInfo()
    used, reserved, limit = pool.used_bytes(), pool.total_bytes(), pool.get_limit()
    have = f"{in_units(free)} of {in_units(total)} are free" + (
        f" and the limit is {in_units(limit)} (cuda.set_memory_limit)" if limit else ""
    )
    lines = [
        f"CUDA out of memory: {name} asked for {wanted} on cuda:{device}, where {have}. "
        f"In use are {in_units(used)}; {in_units(reserved - used)} more lie in the pool, in pieces that are too small."
    ]
    largest = holders(device)
    if largest:
        lines.append("What takes most:")
        lines += [f"  {in_units(h.nbytes):>10}  {h.what}" for h in largest]
    return OutOfMemoryError("\n".join(lines))
