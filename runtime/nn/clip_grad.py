"""Gradients kept within bounds, in place."""

from __future__ import annotations

import functools
import math
import types
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ...ops.errors import TraceError, TrainingError
from ...ops.op import namespace
from ...ops.optimize import gradient_norm
from ...ops.types import Array
from ..autograd.grad_mode import MODE, no_grad
from ..cuda.guard import placed
from ..tensor.device import to_device
from ..tensor.tensor import Tensor, wrap


def _listed(tensors: Tensor | Iterable[Tensor]) -> list[Tensor]:
    return [tensors] if isinstance(tensors, Tensor) else list(tensors)


def _gradients(parameters: Sequence[Tensor]) -> list[Tensor]:
    return [p.grad for p in parameters if p.grad is not None]


def get_total_norm(
    tensors: Tensor | Iterable[Tensor], norm_type: float = 2.0, error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:  # fmt: skip
    """Return the norm of the norms of several Tensors: for p > 0 that of all their elements together.

    Args:
        tensors: whose norm it is.
        norm_type: p, inf, -inf, or 0, which counts.
        error_if_nonfinite: whether a norm that is not finite is an error.
        foreach: how PyTorch computes the same; it changes nothing here.

    Raises:
        TrainingError: if it is not finite and `error_if_nonfinite`.
    """
    given, p = _listed(tensors), float(norm_type)
    if MODE.trace is not None:
        return _traced_norm([t.detach() for t in given], p, error_if_nonfinite)
    arrays = [t.array for t in given]
    if not arrays:
        return Tensor(0.0)
    xp = namespace(*arrays)
    norms = [to_device(_norm(a, p), given[0].device) for a in arrays]
    with placed(norms[0]):
        total = _norm(xp.stack(norms), p)
    if error_if_nonfinite and not math.isfinite(float(total)):
        raise TrainingError(
            f"The total norm of order {p} for gradients from `parameters` is non-finite, so it cannot be clipped. To "
            "disable this error and scale the gradients by the non-finite norm anyway, set `error_if_nonfinite=False`"
        )
    return wrap(total)


def _norm(a: Array, p: float) -> Array:
    """Return the p-norm of an array's elements, where it lies; CuPy's own needs cuSOLVER."""
    xp = namespace(a)
    with placed(a, "clip_grad_norm_"):
        a = (a if a.dtype.itemsize >= 4 else a.astype("float32")).reshape(-1)
        if xp is np:
            return np.asarray(np.linalg.norm(a, p))
        if p == 2:
            return xp.sqrt(xp.square(a).sum())
        if p == 0:
            return (a != 0).sum().astype(a.dtype)
        if math.isinf(p):
            return abs(a).max() if p > 0 else abs(a).min()
        return (abs(a) ** p).sum() ** (1 / p)


def _traced_norm(tensors: list[Tensor], p: float, error_if_nonfinite: bool) -> Tensor:
    if error_if_nonfinite:
        raise TraceError("error_if_nonfinite inside a compiled function would hang on values; check the norm outside")
    if not tensors:
        return Tensor(0.0)
    if p in (2, math.inf):
        norm: Tensor = gradient_norm(tensors, [], p=p)[0]
        return norm
    wide: list[Any] = [t if t.dtype.itemsize >= 4 else t.float() for t in tensors]
    if p == -math.inf:
        return functools.reduce(Tensor.minimum, [t.abs().amin() for t in wide])  # type: ignore[no-any-return]
    if p == 0:
        return functools.reduce(Tensor.__add__, [(t != 0).any().to(dtype=t.dtype) for t in wide])  # type: ignore[no-any-return]
    total: Tensor = functools.reduce(Tensor.__add__, [(t.abs() ** p).sum() for t in wide])
    return total ** (1 / p)


def clip_grads_with_norm_(
    parameters: Tensor | Iterable[Tensor], max_norm: float, total_norm: Tensor, foreach: bool | None = None
) -> None:
    """Scale the gradients by max_norm / total_norm where that is below 1.

    Args:
        parameters: whose gradients they are.
        max_norm: the largest norm.
        total_norm: what `get_total_norm` gives.
        foreach: how PyTorch computes the same; it changes nothing here.
    """
    with no_grad(), np.errstate(all="ignore"):
        scale = (float(max_norm) / (total_norm + 1e-6)).clamp(max=1.0)
        for g in _gradients(_listed(parameters)):
            g.mul_(scale if g.dtype == scale.dtype else scale.to(dtype=g.dtype))


def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor], max_norm: float, norm_type: float = 2.0, error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:  # fmt: skip
    """Scale the gradients so that their norm, all together, is at most `max_norm`; return the norm before.

    Args:
        parameters: whose gradients they are.
        max_norm: the largest norm.
        norm_type: see `get_total_norm`.
        error_if_nonfinite: whether a norm that is not finite is an error.
        foreach: how PyTorch computes the same; it changes nothing here.

    Raises:
        TrainingError: if the norm is not finite and `error_if_nonfinite`.
    """
    given = _listed(parameters)
    if not given and isinstance(parameters, types.GeneratorType):
        warnings.warn("`parameters` is an empty generator, no gradient clipping will occur.", stacklevel=2)
    total = get_total_norm(_gradients(given), norm_type, error_if_nonfinite)
    clip_grads_with_norm_(given, max_norm, total)
    return total


def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float, foreach: bool | None = None) -> None:
    """Keep every element of the gradients between -clip_value and clip_value."""
    with no_grad():
        for g in _gradients(_listed(parameters)):
            g.clamp_(-float(clip_value), float(clip_value))
