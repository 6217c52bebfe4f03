"""Gradients kept within bounds, in place."""

from __future__ import annotations

from collections.abc import Iterable

from ...ops.errors import TrainingError
from ...ops.op import namespace
from ..tensor import Tensor


def _with_gradients(parameters: Tensor | Iterable[Tensor]) -> list[Tensor]:
    return [p.grad for p in ([parameters] if isinstance(parameters, Tensor) else parameters) if p.grad is not None]


def get_total_norm(tensors: Iterable[Tensor], norm_type: float = 2.0, error_if_nonfinite: bool = False) -> Tensor:
    """Return the norm of all elements of several Tensors together.

    Raises:
        TrainingError: if it is not finite and `error_if_nonfinite`.
    """
    arrays = [t.array for t in tensors]
    if not arrays:
        return Tensor(0.0)
    xp = namespace(*arrays)
    wide = [a if a.dtype.itemsize >= 4 else a.astype("float32") for a in arrays]
    norms = xp.stack([xp.linalg.norm(a.reshape(-1), norm_type) for a in wide])
    total = xp.asarray(xp.linalg.norm(norms, norm_type))
    if error_if_nonfinite and not bool(xp.isfinite(total)):
        raise TrainingError(
            f"The total norm of order {norm_type} for gradients from `parameters` is non-finite: it cannot be clipped"
        )
    return Tensor(total)


def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor], max_norm: float, norm_type: float = 2.0, error_if_nonfinite: bool = False
) -> Tensor:
    """Scale the gradients so that their norm, all together, is at most `max_norm`; return the norm before.

    Raises:
        TrainingError: if the norm is not finite and `error_if_nonfinite`.
    """
    grads = _with_gradients(parameters)
    total = get_total_norm(grads, norm_type, error_if_nonfinite)
    factor = total.array.dtype.type(max_norm) / (total.array + total.array.dtype.type(1e-6))
    for g in grads:
        g.mul_(namespace(factor).minimum(factor, 1.0).astype(g.dtype))
    return total


def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float) -> None:
    """Keep every element of the gradients between -clip_value and clip_value."""
    for g in _with_gradients(parameters):
        g.clamp_(-clip_value, clip_value)
