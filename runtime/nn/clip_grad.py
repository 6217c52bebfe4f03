"""Gradients kept within bounds, in place."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable

from ...ops.errors import TraceError, TrainingError
from ...ops.op import namespace
from ..grad_mode import MODE
from ..tensor import Tensor


def _with_gradients(parameters: Tensor | Iterable[Tensor]) -> list[Tensor]:
    return [p.grad for p in ([parameters] if isinstance(parameters, Tensor) else parameters) if p.grad is not None]


def get_total_norm(tensors: Iterable[Tensor], norm_type: float = 2.0, error_if_nonfinite: bool = False) -> Tensor:
    """Return the norm of all elements of several Tensors together.

    Raises:
        TrainingError: if it is not finite and `error_if_nonfinite`.
    """
    if MODE.trace is not None:
        return _traced_norm([t.detach() for t in tensors], norm_type, error_if_nonfinite)
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


def _traced_norm(tensors: list[Tensor], norm_type: float, error_if_nonfinite: bool) -> Tensor:
    if error_if_nonfinite:
        raise TraceError("error_if_nonfinite inside a compiled function would hang on values; check the norm outside")
    if not tensors:
        return Tensor(0.0)
    wide = [t if t.dtype.itemsize >= 4 else t.float() for t in tensors]
    if norm_type in (math.inf, -math.inf):
        ends = [t.abs().max() if norm_type > 0 else t.abs().min() for t in wide]
        largest: Tensor = functools.reduce(Tensor.maximum if norm_type > 0 else Tensor.minimum, ends)
        return largest
    powers = [(t * t if norm_type == 2 else t.abs() ** norm_type).sum() for t in wide]
    total: Tensor = functools.reduce(Tensor.__add__, powers)
    return total.sqrt() if norm_type == 2 else total ** (1 / norm_type)


def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor], max_norm: float, norm_type: float = 2.0, error_if_nonfinite: bool = False
) -> Tensor:
    """Scale the gradients so that their norm, all together, is at most `max_norm`; return the norm before.

    Raises:
        TrainingError: if the norm is not finite and `error_if_nonfinite`.
    """
    grads = _with_gradients(parameters)
    total = get_total_norm(grads, norm_type, error_if_nonfinite)
    if MODE.trace is not None:
        scale = (max_norm / (total + 1e-6)).clamp(max=1.0)
        for g in grads:
            g.mul_(scale if g.dtype == scale.dtype else scale.to(g.dtype))
        return total
    factor = total.array.dtype.type(max_norm) / (total.array + total.array.dtype.type(1e-6))
    for g in grads:
        g.mul_(namespace(factor).minimum(factor, 1.0).astype(g.dtype))
    return total


def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float) -> None:
    """Keep every element of the gradients between -clip_value and clip_value."""
    for g in _with_gradients(parameters):
        g.clamp_(-clip_value, clip_value)
