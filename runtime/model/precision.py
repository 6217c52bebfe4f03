"""What autocast asks of a model's own engine: products, or everything, in half precision."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..amp.casting import half_for
from ..compiled.choice import HALF_PRECISIONS, multiplies_bfloat16

if TYPE_CHECKING:
    from .running import RunningModel


def asked_precision(model: RunningModel) -> str | None:
    """Return the precision that a model computes in under the autocast of this thread; None where that is its own."""
    if model.precision != "float32":
        return None
    kind = str(model._device).partition(":")[0]
    half = half_for(kind)
    found = next((name for name, dtype in HALF_PRECISIONS.items() if dtype == half), None)
    if kind == "cpu" and (found != "bf16" or model._hooked or not multiplies_bfloat16()):
        return None
    return found


def in_precision(model: RunningModel, precision: str) -> RunningModel:
    """Return a model as one of another precision: the same in all but what is compiled."""
    graph, found = model.graph, model._lowered  # a copy that built its own graph would never be this model's again
    if (
        found is None or found.precision != precision or found._device != model._device
        or found._state is not model._state or found._graph is not graph
    ):  # fmt: skip
        found = object.__new__(type(model))
        found.__dict__.update(model.__dict__)
        found._program = found._buckets = found._shortcut = found._recall = found._lowered = None
        found.precision = precision
        model._lowered = found
    found.training, found.threads, found._hooked = model.training, model.threads, model._hooked
    return found
