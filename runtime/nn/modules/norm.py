"""Normalisation as modules."""

from __future__ import annotations

import warnings
from typing import Any, ClassVar

import numpy as np

from ....ops import layout
from ....ops.errors import OpError, ShapeError
from ...tensor.creation import constant, type_or_default
from ...tensor.tensor import Tensor
from .. import functional as F, init
from ..module import Module, Parameter


def _filled(shape: tuple[int, ...], value: float, dtype: Any, device: Any) -> Any:
    return constant(shape, value, type_or_default(dtype), device, False)


class _Affine(Module):
    """What scales and shifts: `weight` and `bias`, which may be None."""

    weight: Any
    bias: Any

    def _scale_and_shift(self, size: tuple[int, ...], affine: bool, bias: bool, dtype: Any, device: Any) -> None:
        self.register_parameter("weight", Parameter(_filled(size, 1, dtype, device)) if affine else None)
        self.register_parameter("bias", Parameter(_filled(size, 0, dtype, device)) if affine and bias else None)

    def reset_parameters(self) -> None:
        """Set the scale to 1 and the shift to 0."""
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)


class _Running(_Affine):
    """A norm of channels that may keep running statistics.

    Args:
        num_features: channels.
        eps: added to the variance.
        momentum: how far a batch moves the running statistics; None averages all batches alike.
        affine: whether to scale and shift.
        track_running_stats: whether there are running statistics.
        device: where parameters and statistics lie.
        dtype: their element type.
        bias: whether to shift, where it scales.
    """

    ranks: ClassVar[tuple[int, ...]]
    running_mean: Any
    running_var: Any
    num_batches_tracked: Any

    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = True,
        track_running_stats: bool = True, device: Any = None, dtype: Any = None, *, bias: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.affine, self.track_running_stats = affine, track_running_stats
        size = (num_features,)
        self._scale_and_shift(size, affine, bias, dtype, device)
        tracked = track_running_stats
        self.register_buffer("running_mean", Tensor(_filled(size, 0, dtype, device)) if tracked else None)
        self.register_buffer("running_var", Tensor(_filled(size, 1, dtype, device)) if tracked else None)
        self.register_buffer("num_batches_tracked", Tensor(_filled((), 0, "int64", device)) if tracked else None)

    def reset_running_stats(self) -> None:
        """Set the running statistics to mean 0 and variance 1."""
        if self.track_running_stats:
            self.running_mean.zero_()
            self.running_var.fill_(1)
            self.num_batches_tracked.zero_()

    def reset_parameters(self) -> None:
        """Set the running statistics to mean 0 and variance 1, the scale to 1 and the shift to 0."""
        self.reset_running_stats()
        super().reset_parameters()

    def _check_rank(self, input: Any) -> None:
        if input.ndim not in self.ranks:
            raise ShapeError(f"expected {' or '.join(f'{r}D' for r in self.ranks)} input (got {input.ndim}D input)")

    def extra_repr(self) -> str:
        """Return the settings."""
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"bias={self.bias is not None}, track_running_stats={self.track_running_stats}"
        )


class _BatchNorm(_Running):
    """Standardise each channel by the batch while training, by the running statistics in evaluation."""

    def forward(self, input: Any) -> Any:
        """Normalise."""
        self._check_rank(input)
        momentum = self.momentum
        if self.training and self.track_running_stats:
            self.num_batches_tracked.add_(1)
            if momentum is None:
                momentum = 1.0 / self.num_batches_tracked.item()
        training = self.training or self.running_mean is None
        tracked = not self.training or self.track_running_stats
        return F.batch_norm(
            input,
            self.running_mean if tracked else None,
            self.running_var if tracked else None,
            self.weight,
            self.bias,
            training,
            momentum,
            self.eps,
        )


class BatchNorm1d(_BatchNorm):
    """Batch normalisation of (N, C) or (N, C, L)."""

    ranks = (2, 3)


class BatchNorm2d(_BatchNorm):
    """Batch normalisation of (N, C, H, W)."""

    ranks = (4,)


class BatchNorm3d(_BatchNorm):
    """Batch normalisation of (N, C, D, H, W)."""

    ranks = (5,)


class _InstanceNorm(_Running):
    """Standardise each channel of each example, in evaluation by the running statistics where there are some."""

    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float = 0.1, affine: bool = False,
        track_running_stats: bool = False, device: Any = None, dtype: Any = None, *, bias: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype, bias=bias)

    def forward(self, input: Any) -> Any:
        """Normalise."""
        self._check_rank(input)
        axis = input.ndim - self.ranks[0]
        if input.shape[axis] != self.num_features:
            if self.affine:
                raise ShapeError(
                    f"expected input's size at dim={axis} to match num_features ({self.num_features}), but got: "
                    f"{input.shape[axis]}."
                )
            warnings.warn(
                f"input's size at dim={axis} does not match num_features. You can silence this warning by not passing "
                "in num_features, which is not used because affine=False",
                stacklevel=3,
            )
        x = input if axis else layout.unsqueeze(input, axes=(0,))
        y = F.instance_norm(
            x,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.training or not self.track_running_stats,
            0.0 if self.momentum is None else self.momentum,
            self.eps,
        )
        return y if axis else layout.squeeze(y, axes=(0,))


class InstanceNorm1d(_InstanceNorm):
    """Instance normalisation of (N, C, L) or (C, L)."""

    ranks = (2, 3)


class InstanceNorm2d(_InstanceNorm):
    """Instance normalisation of (N, C, H, W) or (C, H, W)."""

    ranks = (3, 4)


class InstanceNorm3d(_InstanceNorm):
    """Instance normalisation of (N, C, D, H, W) or (C, D, H, W)."""

    ranks = (4, 5)


class LayerNorm(_Affine):
    """Standardise over the last axes, then scale and shift.

    Args:
        normalized_shape: their sizes.
        eps: added to the variance.
        elementwise_affine: whether to scale and shift.
        bias: whether to shift.
        device: where the parameters lie.
        dtype: their element type.
    """

    def __init__(
        self, normalized_shape: Any, eps: float = 1e-5, elementwise_affine: bool = True, bias: bool = True,
        device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__()
        size = _sizes(normalized_shape)
        self.normalized_shape, self.eps, self.elementwise_affine = size, eps, elementwise_affine
        self._scale_and_shift(size, elementwise_affine, bias, dtype, device)

    def forward(self, input: Any) -> Any:
        """Normalise."""
        return F.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        """Return the settings."""
        return (
            f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}, "
            f"bias={self.bias is not None}"
        )


def _sizes(normalized_shape: Any) -> tuple[int, ...]:
    if isinstance(normalized_shape, int | np.integer):
        return (int(normalized_shape),)
    return tuple(int(n) for n in normalized_shape)


class RMSNorm(Module):
    """Divide by the root mean square over the last axes, then scale.

    Args:
        normalized_shape: their sizes.
        eps: added to the mean square; the element type's own by default.
        elementwise_affine: whether to scale.
        device: where the scale lies.
        dtype: its element type.
    """

    def __init__(
        self, normalized_shape: Any, eps: float | None = None, elementwise_affine: bool = True, device: Any = None,
        dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__()
        size = _sizes(normalized_shape)
        self.normalized_shape, self.eps, self.elementwise_affine = size, eps, elementwise_affine
        self.register_parameter("weight", Parameter(_filled(size, 1, dtype, device)) if elementwise_affine else None)

    def reset_parameters(self) -> None:
        """Set the scale to 1."""
        if self.weight is not None:
            init.ones_(self.weight)

    def forward(self, x: Any) -> Any:
        """Normalise."""
        return F.rms_norm(x, self.normalized_shape, self.weight, self.eps)

    def extra_repr(self) -> str:
        """Return the settings."""
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"


class GroupNorm(_Affine):
    """Standardise each group of channels of each example, then scale and shift the channels.

    Args:
        num_groups: how many groups.
        num_channels: how many channels.
        eps: added to the variance.
        affine: whether to scale and shift.
        device: where the parameters lie.
        dtype: their element type.
        bias: whether to shift, where it scales.
    """

    def __init__(
        self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True, device: Any = None,
        dtype: Any = None, *, bias: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        if num_channels % num_groups:
            raise OpError(f"num_channels ({num_channels}) must be divisible by num_groups ({num_groups})")
        self.num_groups, self.num_channels, self.eps, self.affine = num_groups, num_channels, eps, affine
        self._scale_and_shift((num_channels,), affine, bias, dtype, device)

    def forward(self, input: Any) -> Any:
        """Normalise."""
        return F.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        """Return the settings."""
        return (
            f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}, "
            f"bias={self.bias is not None}"
        )


class LocalResponseNorm(Module):
    """Divide by (k + alpha * the mean of squares over `size` neighbouring channels) ** beta."""

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> None:
        super().__init__()
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def forward(self, input: Any) -> Any:
        """Normalise."""
        return F.local_response_norm(input, self.size, self.alpha, self.beta, self.k)

    def extra_repr(self) -> str:
        """Return the settings."""
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"
