"""Moving arrays between devices, as an op, so that gradients move back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .op import op
from .types import TensorType


@op()
def transfer(x: TensorType, *, device: str, source: str, wait: bool = True) -> TensorType:
    """Return x on a device, `cpu` or `cuda:N`; `source` is where it lies.

    Without `wait` the host goes on before the elements are there: what runs on the device's stream finds them, the
    host has to synchronize first.

    Shapes: any, unchanged.
    """
    return x


@transfer.defvjp
def _transfer_vjp(
    g: Any, y: Any, x: Any, *, device: str, source: str, wait: bool = True
) -> tuple[Callable[[], Any] | None, ...]:
    return (lambda: transfer(g, device=source, source=device),)
