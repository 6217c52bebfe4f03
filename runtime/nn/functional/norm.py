"""Normalisation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ....ops import create, layout, normalize as norm_ops, pointwise as pw
from ....ops.dims import Dim, product
from ....ops.errors import ShapeError
from ...grad_mode import no_grad


def _affine(x: Any, size: Any, weight: Any, bias: Any) -> tuple[Any, Any]:
    """Return scale and shift, ones and zeros where they are None."""
    scale = create.full_like(x, shape=size, value=1) if weight is None else weight
    return scale, create.full_like(x, shape=size, value=0) if bias is None else bias


def batch_norm(
    input: Any, running_mean: Any, running_var: Any, weight: Any = None, bias: Any = None, training: bool = False,
    momentum: float | None = 0.1, eps: float = 1e-5,
) -> Any:  # fmt: skip
    """Standardise each channel: by the batch's statistics while training, which move the running ones, else by those.

    The running variance is the unbiased one, as in PyTorch.
    """
    flat = input.ndim == 2
    x = layout.reshape(input, shape=(*input.shape, 1)) if flat else input
    size = (x.shape[1],)
    scale, shift = _affine(x, size, weight, bias)
    if training or running_mean is None:
        count: Any = product((x.shape[0], *x.shape[2:]))
        if training and not isinstance(count, Dim) and count <= 1:
            raise ShapeError(
                f"Expected more than 1 value per channel when training, got input size {tuple(input.shape)}"
            )
        blank = create.full_like(x, shape=size, value=0)
        blank = blank.detach() if hasattr(blank, "detach") else blank
        y, mean, var = norm_ops.batch_norm_train(x, scale, shift, blank, blank, epsilon=float(eps), momentum=0.0)
        if running_mean is not None and momentum is not None:
            with no_grad():
                running_mean.mul_(1 - momentum).add_(mean.detach(), alpha=momentum)
                if isinstance(count, Dim):
                    number = pw.cast(
                        create.size_of(layout.slice_(x, starts=(0,), stops=(1,), steps=(1,), axes=(1,))),
                        dtype=str(var.dtype),
                    )
                    running_var.mul_(1 - momentum).add_(var.detach() * (number / (number - 1)), alpha=momentum)
                else:
                    running_var.mul_(1 - momentum).add_(var.detach(), alpha=momentum * count / (count - 1))
    else:
        y = norm_ops.batch_norm(x, scale, shift, running_mean, running_var, epsilon=float(eps))
    return layout.reshape(y, shape=tuple(input.shape)) if flat else y


def layer_norm(
    input: Any, normalized_shape: Sequence[int], weight: Any = None, bias: Any = None, eps: float = 1e-5
) -> Any:
    """Standardise over the last axes, which are `normalized_shape`, then scale and shift."""
    size = tuple(normalized_shape)
    if tuple(input.shape[-len(size) :]) != size:
        wanted = ", ".join(map(str, size))
        raise ShapeError(
            f"Given normalized_shape={list(size)}, expected input with shape [*, {wanted}], "
            f"but got {tuple(input.shape)}"
        )
    if weight is None:
        return norm_ops.standardize(input, axes=tuple(range(input.ndim - len(size), input.ndim)), epsilon=float(eps))
    return norm_ops.layer_norm(input, weight, bias, axis=input.ndim - len(size), epsilon=float(eps))


def rms_norm(input: Any, normalized_shape: Sequence[int], weight: Any = None, eps: float | None = None) -> Any:
    """Divide by the root mean square over the last axes, then scale; eps is the type's own by default."""
    size = tuple(normalized_shape)
    tiny = float(np.finfo(input.dtype).eps) if eps is None else float(eps)
    scale, _ = _affine(input, size, weight, None)
    return norm_ops.rms_norm(input, scale, axis=input.ndim - len(size), epsilon=tiny)


def group_norm(input: Any, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Any:
    """Standardise each group of channels of each example, then scale and shift the channels."""
    scale, shift = _affine(input, (input.shape[1],), weight, bias)
    return norm_ops.group_norm(input, scale, shift, groups=num_groups, epsilon=float(eps))


def instance_norm(input: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Any:
    """Standardise each channel of each example, then scale and shift the channels."""
    scale, shift = _affine(input, (input.shape[1],), weight, bias)
    return norm_ops.instance_norm(input, scale, shift, epsilon=float(eps))
