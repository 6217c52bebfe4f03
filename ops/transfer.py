"""Moving arrays between devices, as an op, so that gradients move back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .op import op
from .types import TensorType


@op()
def transfer(x: TensorType, *, device: str, source: str) -> TensorType:
    """Return x on a device, `cpu` or `cuda:N`; `source` is where it lies.

    Shapes: any, unchanged.
    """
    return x


@transfer.defvjp
def _transfer_vjp(g: Any, y: Any, x: Any, *, device: str, source: str) -> tuple[Callable[[], Any] | None, ...]:
    return (lambda: transfer(g, device=source, source=device),)
