"""Normalisation as modules."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from ....ops.errors import OpError, ShapeError
from ...device import to_device
from ...module import Module, Parameter
from ...tensor import Tensor
from .. import functional as F


def _filled(shape: tuple[int, ...], value: float, dtype: Any, device: Any) -> Any:
    array = np.full(shape, value, np.float32 if dtype is None else np.dtype(dtype))
    return array if device is None else to_device(array, str(device))


def _scale_and_shift(m: Module, size: tuple[int, ...], affine: bool, bias: bool, dtype: Any, device: Any) -> None:
    m.register_parameter("weight", Parameter(_filled(size, 1, dtype, device)) if affine else None)
    m.register_parameter("bias", Parameter(_filled(size, 0, dtype, device)) if affine and bias else None)


class _BatchNorm(Module):
    """Standardise each channel by the batch while training, by the running statistics in evaluation.

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

    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = True,
        track_running_stats: bool = True, device: Any = None, dtype: Any = None, *, bias: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.affine, self.track_running_stats = affine, track_running_stats
        size = (num_features,)
        _scale_and_shift(self, size, affine, bias, dtype, device)
        tracked = track_running_stats
        self.register_buffer("running_mean", Tensor(_filled(size, 0, dtype, device)) if tracked else None)
        self.register_buffer("running_var", Tensor(_filled(size, 1, dtype, device)) if tracked else None)
        self.register_buffer("num_batches_tracked", Tensor(np.zeros((), np.int64)) if tracked else None)

    def forward(self, input: Any) -> Any:
        """Normalise."""
        if input.ndim not in self.ranks:
            raise ShapeError(f"expected {' or '.join(f'{r}D' for r in self.ranks)} input (got {input.ndim}D input)")
        momentum = self.momentum
        if self.training and self.track_running_stats:
            self.num_batches_tracked.add_(1)
            if momentum is None:
                momentum = 1.0 / self.num_batches_tracked.item()
        training = self.training or self.running_mean is None
        return F.batch_norm(
            input, self.running_mean, self.running_var, self.weight, self.bias, training, momentum, self.eps
        )

    def extra_repr(self) -> str:
        """Return the settings."""
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"bias={self.bias is not None}, track_running_stats={self.track_running_stats}"
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


class LayerNorm(Module):
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
        size = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        self.normalized_shape, self.eps, self.elementwise_affine = size, eps, elementwise_affine
        _scale_and_shift(self, size, elementwise_affine, bias, dtype, device)

    def forward(self, input: Any) -> Any:
        """Normalise."""
        return F.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        """Return the settings."""
        return (
            f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}, "
            f"bias={self.bias is not None}"
        )


class RMSNorm(Module):
    """Divide by the root mean square over the last axes, then scale."""

    def __init__(
        self, normalized_shape: Any, eps: float | None = None, elementwise_affine: bool = True, device: Any = None,
        dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__()
        size = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        self.normalized_shape, self.eps, self.elementwise_affine = size, eps, elementwise_affine
        self.register_parameter("weight", Parameter(_filled(size, 1, dtype, device)) if elementwise_affine else None)

    def forward(self, input: Any) -> Any:
        """Normalise."""
        return F.rms_norm(input, self.normalized_shape, self.weight, self.eps)

    def extra_repr(self) -> str:
        """Return the settings."""
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"


class GroupNorm(Module):
    """Standardise each group of channels of each example, then scale and shift the channels."""

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__()
        if num_channels % num_groups:
            raise OpError(f"num_channels ({num_channels}) must be divisible by num_groups ({num_groups})")
        self.num_groups, self.num_channels, self.eps, self.affine = num_groups, num_channels, eps, affine
        _scale_and_shift(self, (num_channels,), affine, bias, dtype, device)

    def forward(self, input: Any) -> Any:
        """Normalise."""
        return F.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        """Return the settings."""
        return (
            f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}, "
            f"bias={self.bias is not None}"
        )


class _InstanceNorm(Module):
    """Standardise each channel of each example."""

    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float = 0.1, affine: bool = False,
        track_running_stats: bool = False, device: Any = None, dtype: Any = None, *, bias: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        if track_running_stats:
            raise OpError(f"{type(self).__name__}: track_running_stats=True is not supported")
        self.num_features, self.eps, self.momentum, self.affine = num_features, eps, momentum, affine
        self.track_running_stats = track_running_stats
        _scale_and_shift(self, (num_features,), affine, bias, dtype, device)

    def forward(self, input: Any) -> Any:
        """Normalise."""
        return F.instance_norm(input, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        """Return the settings."""
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"bias={self.bias is not None}, track_running_stats={self.track_running_stats}"
        )


class InstanceNorm1d(_InstanceNorm):
    """Instance normalisation of (N, C, L)."""


class InstanceNorm2d(_InstanceNorm):
    """Instance normalisation of (N, C, H, W)."""


class InstanceNorm3d(_InstanceNorm):
    """Instance normalisation of (N, C, D, H, W)."""
