"""Pooling as modules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from ....ops.errors import OpError
from .. import functional as F
from ..module import Module


def _tuple(value: Any, n: int) -> tuple[Any, ...]:
    """Return one value an axis, a sequence as it is."""
    return (value,) * n if isinstance(value, int | float | np.integer) else tuple(value)


class _MaxPool(Module):
    """The largest under each window.

    Args:
        kernel_size: the size of the window.
        stride: how far it moves; its size by default.
        padding: how far it reaches over the edges, where nothing is the largest.
        dilation: the distance of the elements under it.
        return_indices: whether to return too where the elements are.
        ceil_mode: whether a last window that reaches beyond the end counts.
    """

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


class _MaxUnpool(Module):
    """Maxima put back where they were, into zeros; the window is that of the pooling."""

    rank: ClassVar[int]
    function: ClassVar[Callable[..., Any]]

    def __init__(self, kernel_size: Any, stride: Any = None, padding: Any = 0) -> None:
        super().__init__()
        n = self.rank
        self.kernel_size, self.padding = _tuple(kernel_size, n), _tuple(padding, n)
        self.stride = _tuple(kernel_size if stride is None else stride, n)

    def forward(self, input: Any, indices: Any, output_size: Any = None) -> Any:
        """Put them back."""
        return type(self).function(input, indices, self.kernel_size, self.stride, self.padding, output_size)

    def extra_repr(self) -> str:
        """Return the window."""
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class MaxUnpool1d(_MaxUnpool):
    """What MaxPool1d has left put back."""

    rank, function = 1, staticmethod(F.max_unpool1d)


class MaxUnpool2d(_MaxUnpool):
    """What MaxPool2d has left put back."""

    rank, function = 2, staticmethod(F.max_unpool2d)


class MaxUnpool3d(_MaxUnpool):
    """What MaxPool3d has left put back."""

    rank, function = 3, staticmethod(F.max_unpool3d)


class AvgPool1d(Module):
    """Average pooling over one spatial axis.

    Args:
        kernel_size: the size of the window.
        stride: how far it moves; its size by default.
        padding: zeros on both sides.
        ceil_mode: whether a last window that reaches beyond the end counts.
        count_include_pad: whether the zeros count as elements.
    """

    def __init__(
        self, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.kernel_size, self.padding = _tuple(kernel_size, 1), _tuple(padding, 1)
        self.stride = _tuple(kernel_size if stride is None else stride, 1)
        self.ceil_mode, self.count_include_pad = ceil_mode, count_include_pad

    def forward(self, input: Any) -> Any:
        """Pool."""
        return F.avg_pool1d(input, self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad)

    def extra_repr(self) -> str:
        """Return the window."""
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class _AvgPool(Module):
    """The mean under each window; see `AvgPool1d`. `divisor_override` divides the sums by a number of its own."""

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


class AvgPool2d(_AvgPool):
    """Average pooling over two spatial axes."""

    function = staticmethod(F.avg_pool2d)


class AvgPool3d(_AvgPool):
    """Average pooling over three spatial axes."""

    function = staticmethod(F.avg_pool3d)


class _LPPool(Module):
    """(sum of x^p)^(1/p) under each window.

    Args:
        norm_type: p.
        kernel_size: the size of the window.
        stride: how far it moves; its size by default.
        ceil_mode: whether a last window that reaches beyond the end counts.
    """

    function: ClassVar[Callable[..., Any]]

    def __init__(self, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False) -> None:
        super().__init__()
        self.norm_type, self.kernel_size, self.stride, self.ceil_mode = norm_type, kernel_size, stride, ceil_mode

    def forward(self, input: Any) -> Any:
        """Pool."""
        return type(self).function(input, float(self.norm_type), self.kernel_size, self.stride, self.ceil_mode)

    def extra_repr(self) -> str:
        """Return the settings."""
        return (
            f"norm_type={self.norm_type}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"ceil_mode={self.ceil_mode}"
        )


class LPPool1d(_LPPool):
    """Power-average pooling over one spatial axis."""

    function = staticmethod(F.lp_pool1d)


class LPPool2d(_LPPool):
    """Power-average pooling over two spatial axes."""

    function = staticmethod(F.lp_pool2d)


class LPPool3d(_LPPool):
    """Power-average pooling over three spatial axes."""

    function = staticmethod(F.lp_pool3d)


class _FractionalMaxPool(Module):
    """The largest under windows that start at steps of random sizes.

    Args:
        kernel_size: the sizes of the window.
        output_size: how many windows.
        output_ratio: or how many in relation to the sizes of the input, between 0 and 1.
        return_indices: whether to return too where the elements are.
        _random_samples: numbers that decide where the windows start; drawn at each call by default.
    """

    rank: ClassVar[int]
    function: ClassVar[Callable[..., Any]]
    _random_samples: Any

    def __init__(
        self, kernel_size: Any, output_size: Any = None, output_ratio: Any = None, return_indices: bool = False,
        _random_samples: Any = None,
    ) -> None:  # fmt: skip
        super().__init__()
        n, name = self.rank, type(self).__name__
        self.kernel_size, self.return_indices = _tuple(kernel_size, n), return_indices
        if min(self.kernel_size) <= 0:
            raise OpError(f"kernel_size must be greater than 0, but got {kernel_size}")
        self.register_buffer("_random_samples", _random_samples)
        self.output_size = None if output_size is None else _tuple(output_size, n)
        self.output_ratio = None if output_ratio is None else _tuple(output_ratio, n)
        if output_size is None and output_ratio is None:
            raise OpError(f"{name} requires specifying either an output size, or a pooling ratio")
        if output_size is not None and output_ratio is not None:
            raise OpError("only one of output_size and output_ratio may be specified")
        if self.output_ratio is not None and not all(0 < r < 1 for r in self.output_ratio):
            raise OpError(f"output_ratio must be between 0 and 1 (got {output_ratio})")

    def forward(self, input: Any) -> Any:
        """Pool."""
        return type(self).function(
            input, self.kernel_size, self.output_size, self.output_ratio, self.return_indices, self._random_samples
        )


class FractionalMaxPool2d(_FractionalMaxPool):
    """Fractional max pooling over two spatial axes."""

    rank, function = 2, staticmethod(F.fractional_max_pool2d)


class FractionalMaxPool3d(_FractionalMaxPool):
    """Fractional max pooling over three spatial axes."""

    rank, function = 3, staticmethod(F.fractional_max_pool3d)


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


class _AdaptiveMaxPool(Module):
    """The largest of as many bins as asked for, with `return_indices` also where they are; None keeps a size."""

    function: ClassVar[Callable[..., Any]]

    def __init__(self, output_size: Any, return_indices: bool = False) -> None:
        super().__init__()
        self.output_size, self.return_indices = output_size, return_indices

    def forward(self, input: Any) -> Any:
        """Pool."""
        return type(self).function(input, self.output_size, self.return_indices)

    def extra_repr(self) -> str:
        """Return the sizes."""
        return f"output_size={self.output_size}"


class AdaptiveMaxPool1d(_AdaptiveMaxPool):
    """Adaptive max pooling over one spatial axis."""

    function = staticmethod(F.adaptive_max_pool1d)


class AdaptiveMaxPool2d(_AdaptiveMaxPool):
    """Adaptive max pooling over two spatial axes."""

    function = staticmethod(F.adaptive_max_pool2d)


class AdaptiveMaxPool3d(_AdaptiveMaxPool):
    """Adaptive max pooling over three spatial axes."""

    function = staticmethod(F.adaptive_max_pool3d)
