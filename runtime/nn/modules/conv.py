"""Convolutions and their transposes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from ....ops.errors import OpError, ShapeError
from .. import functional as F
from ..functional.spatial import sizes
from ..module import Module
from .dense import blank, reset

PADDING_MODES = ("zeros", "reflect", "replicate", "circular")


class _Conv(Module):
    """A convolution with a weight and a bias.

    Its input is (N, C, *S) or (C, *S).

    Args:
        in_channels, out_channels: channels of the input and of the result.
        kernel_size, stride, padding, dilation: one integer, or one an axis; padding may be `same` or `valid`.
        groups: in so many groups channels see only their own.
        bias: whether there is one.
        padding_mode: what stands outside: `zeros`, `reflect`, `replicate` or `circular`.
        device: where the parameters lie.
        dtype: their element type.
    """

    rank: ClassVar[int]
    function: ClassVar[Callable[..., Any]]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        n = self.rank
        if groups <= 0:
            raise OpError("groups must be a positive integer")
        for name, channels in (("in_channels", in_channels), ("out_channels", out_channels)):
            if channels % groups:
                raise OpError(f"{name} must be divisible by groups")
        if isinstance(padding, str):
            if padding not in ("valid", "same"):
                raise OpError(f"Invalid padding string {padding!r}, should be one of {{'valid', 'same'}}")
            if padding == "same" and any(s != 1 for s in sizes(stride, n, "stride")):
                raise OpError("padding='same' is not supported for strided convolutions")
        if padding_mode not in PADDING_MODES:
            raise OpError(
                f"padding_mode must be one of {{{', '.join(map(repr, PADDING_MODES))}}}, but got "
                f"padding_mode={padding_mode!r}"
            )
        self.in_channels, self.out_channels, self.groups, self.padding_mode = (
            in_channels,
            out_channels,
            groups,
            padding_mode,
        )
        self.kernel_size, self.stride = sizes(kernel_size, n, "kernel_size"), sizes(stride, n, "stride")
        self.padding = padding if isinstance(padding, str) else sizes(padding, n, "padding")
        self.dilation = sizes(dilation, n, "dilation")
        self.weight = blank(self._weight_shape(), dtype, device)
        self.register_parameter("bias", blank((out_channels,), dtype, device) if bias else None)
        self.reset_parameters()

    def _weight_shape(self) -> tuple[int, ...]:
        return (self.out_channels, self.in_channels // self.groups, *self.kernel_size)

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        reset(self.weight, self.bias)

    def forward(self, input: Any) -> Any:
        """Convolve."""
        padding: Any = self.padding
        if self.padding_mode != "zeros":
            grow = [
                side
                for p, d, k in reversed(list(zip(self._pads(), self.dilation, self.kernel_size, strict=True)))
                for side in p
            ]
            input, padding = F.pad(input, grow, self.padding_mode), 0
        return type(self).function(input, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)

    def _pads(self) -> list[tuple[int, int]]:
        if self.padding == "valid":
            return [(0, 0)] * self.rank
        if self.padding == "same":
            whole = [d * (k - 1) for d, k in zip(self.dilation, self.kernel_size, strict=True)]
            return [(w // 2, w - w // 2) for w in whole]
        return [(int(p), int(p)) for p in self.padding]

    def extra_repr(self) -> str:
        """Return the settings that PyTorch shows."""
        parts = [f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"]
        if self.padding != (0,) * self.rank:
            parts.append(f"padding={self.padding}")
        if self.dilation != (1,) * self.rank:
            parts.append(f"dilation={self.dilation}")
        if any(getattr(self, "output_padding", ())):
            parts.append(f"output_padding={self.output_padding}")
        if self.groups != 1:
            parts.append(f"groups={self.groups}")
        if self.bias is None:
            parts.append("bias=False")
        if self.padding_mode != "zeros":
            parts.append(f"padding_mode={self.padding_mode}")
        return ", ".join(parts)


class Conv1d(_Conv):
    """Convolution over one spatial axis."""

    rank, function = 1, staticmethod(F.conv1d)


class Conv2d(_Conv):
    """Convolution over two spatial axes."""

    rank, function = 2, staticmethod(F.conv2d)


class Conv3d(_Conv):
    """Convolution over three spatial axes."""

    rank, function = 3, staticmethod(F.conv3d)


class _ConvTranspose(_Conv):
    """A transposed convolution with a weight and a bias; `output_padding` adds to one side of the result."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any = 1, padding: Any = 0,
        output_padding: Any = 0, groups: int = 1, bias: bool = True, dilation: Any = 1, padding_mode: str = "zeros",
        device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        if padding_mode != "zeros":
            raise OpError(f'Only "zeros" padding mode is supported for {type(self).__name__}')
        more = sizes(output_padding, self.rank, "output_padding")
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device, dtype
        )
        self.output_padding = more

    def _weight_shape(self) -> tuple[int, ...]:
        return (self.in_channels, self.out_channels // self.groups, *self.kernel_size)

    def forward(self, input: Any, output_size: Any = None) -> Any:
        """Convolve, transposed.

        Args:
            input: the input.
            output_size: the sizes of the result, which decide `output_padding`, with or without batch and channels.

        Raises:
            ShapeError: if the result cannot have these sizes.
        """
        more = self.output_padding if output_size is None else self._output_padding(input, output_size)
        return type(self).function(
            input, self.weight, self.bias, self.stride, self.padding, more, self.groups, self.dilation
        )

    def _output_padding(self, input: Any, output_size: Any) -> tuple[int, ...]:
        n, wanted = self.rank, tuple(output_size)
        lead = input.ndim - n
        if len(wanted) == lead + n:
            wanted = wanted[lead:]
        if len(wanted) != n:
            raise ShapeError(
                f"ConvTranspose{n}D: for {input.ndim}D input, output_size must have {n} or {lead + n} elements "
                f"(got {len(output_size)})"
            )
        least = [
            (s - 1) * step - 2 * p + d * (k - 1) + 1
            for s, step, (p, _), d, k in zip(
                input.shape[lead:], self.stride, self._pads(), self.dilation, self.kernel_size, strict=True
            )
        ]
        most = [low + step - 1 for low, step in zip(least, self.stride, strict=True)]
        if any(not low <= size <= high for low, size, high in zip(least, wanted, most, strict=True)):
            raise ShapeError(
                f"requested an output size of {wanted}, but valid sizes range from {least} to {most} (for an input of "
                f"torch.Size({list(input.shape[lead:])}))"
            )
        return tuple(size - low for size, low in zip(wanted, least, strict=True))


class ConvTranspose1d(_ConvTranspose):
    """Transposed convolution over one spatial axis."""

    rank, function = 1, staticmethod(F.conv_transpose1d)


class ConvTranspose2d(_ConvTranspose):
    """Transposed convolution over two spatial axes."""

    rank, function = 2, staticmethod(F.conv_transpose2d)


class ConvTranspose3d(_ConvTranspose):
    """Transposed convolution over three spatial axes."""

    rank, function = 3, staticmethod(F.conv_transpose3d)
