"""Pooling as modules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from ...module import Module
from .. import functional as F


class _MaxPool(Module):
    """The largest under each window; arguments as the function's."""

    function: ClassVar[Callable[..., Any]]

    def __init__(
        self, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, return_indices: bool = False,
        ceil_mode: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.kernel_size, self.stride = kernel_size, kernel_size if stride is None else stride
        self.padding, self.dilation, self.return_indices, self.ceil_mode = padding, dilation, return_indices, ceil_mode

    def forward(self, input: Any) -> Any:
        """Pool."""
        return type(self).function(
            input, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode, self.return_indices
        )

    def extra_repr(self) -> str:
        """Return the window."""
        return (
            f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, "
            f"dilation={self.dilation}, ceil_mode={self.ceil_mode}"
        )


class MaxPool1d(_MaxPool):
    """Max pooling over one spatial axis."""

    function = staticmethod(F.max_pool1d)


class MaxPool2d(_MaxPool):
    """Max pooling over two spatial axes."""

    function = staticmethod(F.max_pool2d)


class MaxPool3d(_MaxPool):
    """Max pooling over three spatial axes."""

    function = staticmethod(F.max_pool3d)


class _AvgPool(Module):
    """The mean under each window; arguments as the function's."""

    function: ClassVar[Callable[..., Any]]

    def __init__(
        self, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
        count_include_pad: bool = True, divisor_override: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.kernel_size, self.stride, self.padding = kernel_size, kernel_size if stride is None else stride, padding
        self.ceil_mode, self.count_include_pad, self.divisor_override = ceil_mode, count_include_pad, divisor_override

    def forward(self, input: Any) -> Any:
        """Pool."""
        return type(self).function(
            input,
            self.kernel_size,
            self.stride,
            self.padding,
            self.ceil_mode,
            self.count_include_pad,
            self.divisor_override,
        )

    def extra_repr(self) -> str:
        """Return the window."""
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class AvgPool1d(_AvgPool):
    """Average pooling over one spatial axis."""

    function = staticmethod(F.avg_pool1d)


class AvgPool2d(_AvgPool):
    """Average pooling over two spatial axes."""

    function = staticmethod(F.avg_pool2d)


class AvgPool3d(_AvgPool):
    """Average pooling over three spatial axes."""

    function = staticmethod(F.avg_pool3d)


class _AdaptiveAvgPool(Module):
    """Means over as many bins as asked for; None keeps a size."""

    function: ClassVar[Callable[..., Any]]

    def __init__(self, output_size: Any) -> None:
        super().__init__()
        self.output_size = output_size

    def forward(self, input: Any) -> Any:
        """Pool."""
        return type(self).function(input, self.output_size)

    def extra_repr(self) -> str:
        """Return the sizes."""
        return f"output_size={self.output_size}"


class AdaptiveAvgPool1d(_AdaptiveAvgPool):
    """Adaptive average pooling over one spatial axis."""

    function = staticmethod(F.adaptive_avg_pool1d)


class AdaptiveAvgPool2d(_AdaptiveAvgPool):
    """Adaptive average pooling over two spatial axes."""

    function = staticmethod(F.adaptive_avg_pool2d)


class AdaptiveAvgPool3d(_AdaptiveAvgPool):
    """Adaptive average pooling over three spatial axes."""

    function = staticmethod(F.adaptive_avg_pool3d)
