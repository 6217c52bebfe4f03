"""Normalisation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ....ops import create, layout, normalize as norm_ops, pointwise as pw, pool, reduce as red
from ....ops.dims import Dim, product
from ....ops.errors import OpError, ShapeError
from ....ops.window import Window
from ...amp.casting import in_float32
from ...autograd.grad_mode import no_grad
from ...tensor.dtypes import finfo
from .spatial import known


def _affine(x: Any, size: Any, weight: Any, bias: Any) -> tuple[Any, Any]:
    """Return scale and shift, ones and zeros where they are None."""
    scale = create.full_like(x, shape=size, value=1) if weight is None else weight
    return scale, create.full_like(x, shape=size, value=0) if bias is None else bias


def _size(shape: tuple[Any, ...]) -> str:
    return f"torch.Size({list(shape)})"


def _check_vectors(channels: Any, mean: Any, var: Any, weight: Any, bias: Any) -> None:
    for name, v in (("running_mean", mean), ("running_var", var), ("weight", weight), ("bias", bias)):
        if v is not None and known((channels, v.shape[0])) and v.shape[0] != channels:
            raise ShapeError(f"{name} should contain {channels} elements not {v.shape[0]}")


def batch_norm(
    input: Any, running_mean: Any, running_var: Any, weight: Any = None, bias: Any = None, training: bool = False,
    momentum: float | None = 0.1, eps: float = 1e-5,
) -> Any:  # fmt: skip
    """Standardise each channel: by the batch's statistics while training, which move the running ones, else by those.

    The running variance is the unbiased one, as in PyTorch.

    Raises:
        ShapeError: if there is one value a channel while training, or vectors are not one number a channel.
        OpError: if eps is not positive, or there are no statistics.
    """
    if training and eps <= 0.0:
        raise OpError(f"batch_norm eps must be positive during training, but got {eps}")
    if eps < 0.0:
        raise OpError(f"batch_norm eps must be non-negative, but got {eps}")
    if not training and (running_mean is None or running_var is None):
        name = "running_mean" if running_mean is None else "running_var"
        raise OpError(f"{name} must be defined in evaluation mode")
    _check_vectors(input.shape[1], running_mean, running_var, weight, bias)
    flat = input.ndim == 2
    x = layout.reshape(input, shape=(*input.shape, 1)) if flat else input
    size = (x.shape[1],)
    scale, shift = _affine(x, size, weight, bias)
    if training:
        count: Any = product((x.shape[0], *x.shape[2:]))
        if not isinstance(count, Dim) and count <= 1:
            raise ShapeError(
                f"Expected more than 1 value per channel when training, got input size {_size(tuple(input.shape))}"
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
    """Standardise over the last axes, which are `normalized_shape`, then scale and shift.

    Raises:
        ShapeError: if the last axes or the weights have other sizes.
    """
    size = _trailing(input, normalized_shape, weight, bias)
    if weight is None:
        y = norm_ops.standardize(input, axes=tuple(range(input.ndim - len(size), input.ndim)), epsilon=float(eps))
        return y if bias is None else pw.add(y, bias)
    return norm_ops.layer_norm(input, weight, bias, axis=input.ndim - len(size), epsilon=float(eps))


def rms_norm(input: Any, normalized_shape: Sequence[int], weight: Any = None, eps: float | None = None) -> Any:
    """Divide by the root mean square over the last axes, then scale; eps is the type's own by default.

    Raises:
        ShapeError: if the last axes or the weights have other sizes.
    """
    size = _trailing(input, normalized_shape, weight, None)
    (input,) = in_float32(input)
    tiny = finfo(input.dtype).eps if eps is None else float(eps)
    scale, _ = _affine(input, size, weight, None)
    return norm_ops.rms_norm(input, scale, axis=input.ndim - len(size), epsilon=tiny)


def _trailing(input: Any, normalized_shape: Sequence[int], weight: Any, bias: Any) -> tuple[int, ...]:
    """Return the sizes of the last axes, checked."""
    size = tuple(normalized_shape)
    if not size:
        raise ShapeError(
            "Expected normalized_shape to be at least 1-dimensional, i.e., containing at least one element, but got "
            "normalized_shape = []"
        )
    for name, v in (("weight", weight), ("bias", bias)):
        if v is not None and tuple(v.shape) != size:
            raise ShapeError(
                f"Expected {name} to be of same shape as normalized_shape, but got {name} of shape {list(v.shape)} and "
                f"normalized_shape = {list(size)}"
            )
    if tuple(input.shape[-len(size) :]) != size:
        wanted = ", ".join(map(str, size))
        raise ShapeError(
            f"Given normalized_shape={list(size)}, expected input with shape [*, {wanted}], "
            f"but got input of size{list(input.shape)}"
        )
    return size


def group_norm(input: Any, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Any:
    """Standardise each group of channels of each example, then scale and shift the channels.

    Raises:
        ShapeError: if the channels do not split into the groups, weights are not one a channel, or a group has one
            element.
    """
    if input.ndim < 2:
        raise ShapeError(f"Expected at least 2 dimensions for input tensor but received {input.ndim}")
    n, c, *rest = input.shape
    if known((n, c, *rest)):
        if c % num_groups:
            raise ShapeError(
                "Expected number of channels in input to be divisible by num_groups, but got input of shape "
                f"{list(input.shape)} and num_groups={num_groups}"
            )
        grouped = [n * c // num_groups, num_groups, *rest]
        if math.prod([grouped[0], *rest]) == 1:
            raise ShapeError(f"Expected more than 1 value per channel when training, got input size {grouped}")
    for name, v in (("weight", weight), ("bias", bias)):
        if v is not None and known((c, *v.shape)) and tuple(v.shape) != (c,):
            raise ShapeError(
                f"Expected {name} to be a vector of size equal to the number of channels in input, but got {name} of "
                f"shape {list(v.shape)} and input of shape {list(input.shape)}"
            )
    scale, shift = _affine(input, (c,), weight, bias)
    return norm_ops.group_norm(input, scale, shift, groups=num_groups, epsilon=float(eps))


def instance_norm(
    input: Any, running_mean: Any = None, running_var: Any = None, weight: Any = None, bias: Any = None,
    use_input_stats: bool = True, momentum: float = 0.1, eps: float = 1e-5,
) -> Any:  # fmt: skip
    """Standardise each channel of each example, then scale and shift the channels.

    Args:
        input: (N, C, *S).
        running_mean: moved towards the mean over the examples of their means, where it is given.
        running_var: and of their unbiased variances.
        weight: one number a channel, as the bias.
        bias: None for 0.
        use_input_stats: whether to standardise by the examples' own statistics, else by the running ones.
        momentum: how far the running statistics move.
        eps: added to the variance.

    Raises:
        ShapeError: if there is one spatial element, or vectors are not one number a channel.
    """
    if not use_input_stats:
        return batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    spatial = tuple(input.shape[2:])
    if known(spatial) and math.prod(spatial) == 1:
        raise ShapeError(
            f"Expected more than 1 spatial element when training, got input size {_size(tuple(input.shape))}"
        )
    _check_vectors(input.shape[1], running_mean, running_var, weight, bias)
    if running_mean is not None:
        axes = tuple(range(2, input.ndim))
        with no_grad():
            x = input.detach()
            means = red.mean(x, axes=axes, keepdims=True)
            apart = pw.sub(x, means)
            count = math.prod(spatial)
            each = pw.mul(red.sum_(pw.mul(apart, apart), axes=axes), 1 / (count - 1))
            running_mean.mul_(1 - momentum).add_(red.mean(x, axes=(0, *axes)), alpha=momentum)
            running_var.mul_(1 - momentum).add_(red.mean(each, axes=(0,)), alpha=momentum)
    scale, shift = _affine(input, (input.shape[1],), weight, bias)
    return norm_ops.instance_norm(input, scale, shift, epsilon=float(eps))


def local_response_norm(input: Any, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Any:
    """Divide by (k + alpha * the mean of squares over `size` neighbouring channels) ** beta.

    Raises:
        ShapeError: if there are fewer than three axes.
    Source: Krizhevsky et al. 2012.
    """
    if input.ndim < 3:
        raise ShapeError(f"Expected 3D or higher dimensionality input (got {input.ndim} dimensions)")
    n, c = input.shape[:2]
    squares = layout.reshape(pw.mul(input, input), shape=(n, 1, c, product(input.shape[2:])))
    win = Window((1, 1), ((size // 2, (size - 1) // 2), (0, 0)), (1, 1))
    total = layout.reshape(pool.sum_pool(squares, kernel=(size, 1), win=win), shape=tuple(input.shape))
    return pw.div(input, pw.pow_(pw.add(pw.mul(total, alpha / size), float(k)), float(beta)))
