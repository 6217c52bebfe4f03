"""Convolution and its transpose over one, two or three spatial axes. Inputs may lack the batch axis."""

from __future__ import annotations

from typing import Any

from ....ops import conv as conv_ops, layout, pointwise as pw
from ....ops.errors import DTypeError, OpError, ShapeError
from ....ops.window import Window
from ...amp.casting import in_half
from ...autograd.node_names import labelled
from .spatial import batched, known, scalar_type, sizes


def conv1d(
    input: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> Any:
    """Correlate with filters along one spatial axis.

    Args:
        input: the signal.
        weight: the filters.
        bias: one number a filter.
        stride: how far the filter moves.
        padding: zeros on both sides; `same` for as many as keep the size, `valid` for none.
        dilation: the distance of the elements under a filter.
        groups: in so many groups filters see only their own channels.

    Shapes: (N, C, L) or (C, L), (F, C / groups, K), (F,) -> (N, F, O) or (F, O).

    Raises:
        ShapeError: if ranks, channels or sizes do not fit.
    """
    return _conv(1, input, weight, bias, stride, padding, dilation, groups)


def conv2d(
    input: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> Any:
    """Correlate with filters over two spatial axes; see `conv1d`.

    Shapes: (N, C, H, W) or (C, H, W), (F, C / groups, *K), (F,) -> (N, F, *O) or (F, *O).
    """
    return _conv(2, input, weight, bias, stride, padding, dilation, groups)


def conv3d(
    input: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> Any:
    """Correlate with filters over three spatial axes; see `conv1d`.

    Shapes: (N, C, D, H, W) or (C, D, H, W), (F, C / groups, *K), (F,) -> (N, F, *O) or (F, *O).
    """
    return _conv(3, input, weight, bias, stride, padding, dilation, groups)


def conv_transpose1d(
    input: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, output_padding: Any = 0,
    groups: int = 1, dilation: Any = 1,
) -> Any:  # fmt: skip
    """Return the transposed convolution along one spatial axis: the gradient of `conv1d` in its input.

    Args:
        input: the signal.
        weight: the filters.
        bias: one number a channel of the result.
        stride: how far the filter moves over the result.
        padding: how much is cut off on both sides of the result.
        output_padding: how much is added on the high side of the result.
        groups: in so many groups channels see only their own.
        dilation: the distance of the elements under a filter.

    Shapes: (N, C, L) or (C, L), (C, F / groups, K), (F,) -> (N, F, O) or (F, O).

    Raises:
        ShapeError: if ranks, channels or sizes do not fit.
    """
    return _conv_transpose(1, input, weight, bias, stride, padding, output_padding, groups, dilation)


def conv_transpose2d(
    input: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, output_padding: Any = 0,
    groups: int = 1, dilation: Any = 1,
) -> Any:  # fmt: skip
    """Return the transposed convolution over two spatial axes; see `conv_transpose1d`."""
    return _conv_transpose(2, input, weight, bias, stride, padding, output_padding, groups, dilation)


def conv_transpose3d(
    input: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, output_padding: Any = 0,
    groups: int = 1, dilation: Any = 1,
) -> Any:  # fmt: skip
    """Return the transposed convolution over three spatial axes; see `conv_transpose1d`."""
    return _conv_transpose(3, input, weight, bias, stride, padding, output_padding, groups, dilation)


def _conv(n: int, input: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any, groups: int) -> Any:
    input, weight, bias = in_half(input, weight, bias)
    _check_ranks(f"conv{n}d", n, input, weight)
    strides, dilations = sizes(stride, n, "stride"), sizes(dilation, n, "dilation")
    _check_window(strides, dilations, groups)
    kernel = tuple(weight.shape[2:])
    named = isinstance(padding, str)
    pads = _named_pads(padding, kernel, strides, dilations) if named else _pads(padding, n)
    _check_filters(input, weight, bias, groups)
    room = tuple(s + lo + hi for s, (lo, hi) in zip(input.shape[-n:], pads, strict=True))
    reach = tuple(d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True))
    if known(room) and known(reach) and any(a < b for a, b in zip(room, reach, strict=True)):
        raise ShapeError(
            f"Calculated padded input size per channel: ({_times(room)}). Kernel size: ({_times(reach)}). "
            "Kernel size can't be greater than actual input size"
        )
    win = Window(strides, pads, dilations, groups)
    return batched(lambda x: _biased(conv_ops.conv(x, weight, win=win), bias, n), n, input)


def _conv_transpose(
    n: int, input: Any, weight: Any, bias: Any, stride: Any, padding: Any, output_padding: Any, groups: int,
    dilation: Any,
) -> Any:  # fmt: skip
    input, weight, bias = in_half(input, weight, bias)
    _check_ranks(f"conv_transpose{n}d", n, input, weight)
    strides, dilations = sizes(stride, n, "stride"), sizes(dilation, n, "dilation")
    _check_window(strides, dilations, groups)
    pads, more = _pads(padding, n), sizes(output_padding, n, "output_padding")
    _check_output_padding(more, strides, dilations)
    _check_transposed(input, weight, bias, groups)
    win = Window(strides, pads, dilations, groups)
    size = tuple(
        (o - 1) * s - 2 * lo + d * (k - 1) + m + 1
        for o, s, (lo, _), d, k, m in zip(
            input.shape[-n:], strides, pads, dilations, weight.shape[2:], more, strict=True
        )
    )
    if known(size) and min(size) < 1:
        raise ShapeError(
            f"Given input size per channel: ({_times(input.shape[-n:])}). Calculated output size per channel: "
            f"({_times(size)}). Output size is too small"
        )
    return batched(lambda x: _biased(conv_ops.conv_input_grad(x, weight, win=win, size=size), bias, n), n, input)


def _biased(y: Any, bias: Any, n: int) -> Any:
    if bias is None:
        return y
    return labelled(pw.add(y, layout.reshape(bias, shape=(-1, *(1,) * n))), "Convolution")


def _times(values: Any) -> str:
    return " x ".join(map(str, values))


def _named_pads(
    padding: str, kernel: tuple[int, ...], strides: tuple[int, ...], dilations: tuple[int, ...]
) -> tuple[tuple[int, int], ...]:
    if padding == "valid":
        return ((0, 0),) * len(kernel)
    if padding != "same":
        raise OpError(f"Invalid padding string: {padding!r}")
    if any(s != 1 for s in strides):
        raise OpError("padding='same' is not supported for strided convolutions")
    whole = [d * (k - 1) for d, k in zip(dilations, kernel, strict=True)]
    return tuple((w // 2, w - w // 2) for w in whole)


def _pads(padding: Any, n: int) -> tuple[tuple[int, int], ...]:
    given = sizes(padding, n, "padding")
    if min(given) < 0:
        raise OpError("negative padding is not supported")
    return tuple((p, p) for p in given)


def _check_ranks(name: str, n: int, input: Any, weight: Any) -> None:
    if input.ndim not in (n + 1, n + 2):
        raise ShapeError(
            f"Expected {n + 1}D (unbatched) or {n + 2}D (batched) input to {name}, but got input of size: "
            f"{list(input.shape)}"
        )
    if weight.ndim != n + 2:
        raise ShapeError(f"Expected a {n + 2}-dimensional weight for {name}, but got weight of size {_listed(weight)}")
    if input.dtype != weight.dtype:
        raise DTypeError(f"expected scalar type {scalar_type(input.dtype)} but found {scalar_type(weight.dtype)}")


def _check_window(strides: tuple[int, ...], dilations: tuple[int, ...], groups: int) -> None:
    if min(strides) < 1:
        raise OpError("non-positive stride is not supported")
    if min(dilations) < 1:
        raise OpError(f"dilation should be greater than zero, but got {list(dilations)}")
    if groups < 1:
        raise OpError("non-positive groups is not supported")


def _listed(x: Any) -> str:
    return str(list(x.shape))


def _batch_shape(input: Any, weight: Any) -> list[Any]:
    return list(input.shape) if input.ndim == weight.ndim else [1, *input.shape]


def _check_filters(input: Any, weight: Any, bias: Any, groups: int) -> None:
    filters, channels = weight.shape[0], weight.shape[1] * groups
    if known((filters,)) and filters % groups:
        raise ShapeError(
            f"Given groups={groups}, expected weight to be divisible by {groups} at dimension 0, but got weight of "
            f"size [{_listed(weight)}] instead"
        )
    found = _batch_shape(input, weight)
    if known((found[1], channels)) and found[1] != channels:
        raise ShapeError(
            f"Given groups={groups}, weight of size {_listed(weight)}, expected input{found} to have {channels} "
            f"channels, but got {found[1]} channels instead"
        )
    if bias is not None and known((filters, *bias.shape)) and tuple(bias.shape) != (filters,):
        raise ShapeError(
            f"Given weight of size {_listed(weight)}, expected bias to be 1-dimensional with {filters} elements, but "
            f"got bias of size {_listed(bias)} instead"
        )


def _check_transposed(input: Any, weight: Any, bias: Any, groups: int) -> None:
    found, channels, filters = _batch_shape(input, weight), weight.shape[0], weight.shape[1] * groups
    if known((found[1], channels)) and found[1] != channels:
        raise ShapeError(
            f"Given transposed=1, weight of size {_listed(weight)}, expected input{found} to have {channels} "
            f"channels, but got {found[1]} channels instead"
        )
    if bias is not None and known((filters, *bias.shape)) and tuple(bias.shape) != (filters,):
        raise ShapeError(
            f"Given transposed=1, weight of size {_listed(weight)}, expected bias to be 1-dimensional with {filters} "
            f"elements, but got bias of size {_listed(bias)} instead"
        )


def _check_output_padding(more: tuple[int, ...], strides: tuple[int, ...], dilations: tuple[int, ...]) -> None:
    if min(more) < 0:
        raise OpError("negative output_padding is not supported")
    if any(m >= s and m >= d for m, s, d in zip(more, strides, dilations, strict=True)):
        raise OpError(
            f"output padding must be smaller than either stride or dilation, but got output_padding: {more}, "
            f"stride: {strides}, dilation: {dilations}"
        )
