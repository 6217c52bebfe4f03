"""Normalisation: softmax, and the layers that standardise.

One pair carries the layers: `standardize` and its gradient. What differs between batch, layer, instance,
group and RMS normalisation is the axes, whether the mean is taken out, and how scale and bias broadcast.

Axes: N batch, C channels, S whatever follows.
Source: ONNX Softmax-13, BatchNormalization-15, LayerNormalization-17, InstanceNormalization-22,
GroupNormalization-21, RMSNormalization-23, LRN-13, LpNormalization-22; Ioffe & Szegedy 2015; Ba et al. 2016;
Zhang & Sennrich 2019.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from . import cumulative, layout, pointwise as pw, reduce as red
from .dims import DimLike, show
from .errors import ShapeError
from .extent import axis_of
from .op import op
from .types import TensorType

Entries: TypeAlias = tuple[Callable[[], Any] | None, ...]


@op()
def softmax(x: TensorType, *, axis: int) -> TensorType:
    """Return e^x over its sum along the axis, without overflow.

    Shapes: any, unchanged.
    """
    axis_of(axis, x.ndim, "softmax")
    return TensorType(x.dtype, x.shape)


@op()
def softmax_grad(g: TensorType, y: TensorType, *, axis: int) -> TensorType:
    """Return the gradient of `softmax` in x, of its result y: (g - sum(g y)) y.

    Shapes: any, the same for both -> that.
    """
    return TensorType(y.dtype, y.shape)


@softmax_grad.compose
def _softmax_grad(g: Any, y: Any, *, axis: int) -> Any:
    return pw.mul(pw.sub(g, red.sum_(pw.mul(g, y), axes=(axis,), keepdims=True)), y)


@softmax.defvjp
def _softmax_vjp(g: Any, y: Any, x: Any, *, axis: int) -> Entries:
    return (lambda: softmax_grad(g, y, axis=axis),)


@op()
def log_softmax(x: TensorType, *, axis: int) -> TensorType:
    """Return the logarithm of softmax along the axis.

    Shapes: any, unchanged.
    """
    axis_of(axis, x.ndim, "log_softmax")
    return TensorType(x.dtype, x.shape)


@op()
def log_softmax_grad(g: TensorType, y: TensorType, *, axis: int) -> TensorType:
    """Return the gradient of `log_softmax` in x, of its result y: g - e^y sum(g).

    Shapes: any, the same for both -> that.
    """
    return TensorType(y.dtype, y.shape)


@log_softmax_grad.compose
def _log_softmax_grad(g: Any, y: Any, *, axis: int) -> Any:
    return pw.sub(g, pw.mul(pw.exp(y), red.sum_(g, axes=(axis,), keepdims=True)))


@log_softmax.defvjp
def _log_softmax_vjp(g: Any, y: Any, x: Any, *, axis: int) -> Entries:
    return (lambda: log_softmax_grad(g, y, axis=axis),)


@op()
def standardize(x: TensorType, *, axes: tuple[int, ...], epsilon: float, center: bool = True) -> TensorType:
    """Return (x - mean) / sqrt(variance + epsilon) over the axes; without `center` the mean counts as 0.

    The variance is the population's.

    Shapes: any, unchanged.
    """
    red.positive(axes, x.ndim, "standardize")
    return TensorType(x.dtype, x.shape)


@op()
def standardize_grad(
    g: TensorType, x: TensorType, *, axes: tuple[int, ...], epsilon: float, center: bool = True
) -> TensorType:
    """Return the gradient of `standardize` in x: r (g - mean(g) - y mean(g y)), with r the inverse deviation.

    Shapes: any, the same for both -> that.
    """
    return TensorType(x.dtype, x.shape)


@standardize.defvjp
def _standardize_vjp(g: Any, y: Any, x: Any, **attrs: Any) -> Entries:
    return (lambda: standardize_grad(g, x, **attrs),)


@standardize_grad.compose
def _standardize_grad(g: Any, x: Any, *, axes: tuple[int, ...], epsilon: float, center: bool = True) -> Any:
    def mean(v: Any) -> Any:
        return red.mean(v, axes=axes, keepdims=True)

    c = pw.sub(x, mean(x)) if center else x
    r = pw.reciprocal(pw.sqrt(pw.add(mean(pw.mul(c, c)), epsilon)))
    y = pw.mul(c, r)
    projected = pw.sub(g, pw.mul(y, mean(pw.mul(g, y))))
    return pw.mul(r, pw.sub(projected, mean(g)) if center else projected)


def moments(x: Any, *, axes: tuple[int, ...], epsilon: float) -> tuple[Any, Any]:
    """Return the mean and the inverse standard deviation over the axes, which are kept with size 1."""
    m = red.mean(x, axes=axes, keepdims=True)
    c = pw.sub(x, m)
    v = red.mean(pw.mul(c, c), axes=axes, keepdims=True)
    return m, pw.reciprocal(pw.sqrt(pw.add(v, epsilon)))


def _trailing(ndim: int, axis: int) -> tuple[int, ...]:
    return tuple(range(axis % ndim, ndim))


def _spatial(ndim: int) -> tuple[int, ...]:
    return tuple(range(2, ndim))


def _per_channel(v: Any, ndim: int) -> Any:
    """Lay a vector of channels along axis 1 of `ndim` axes."""
    return layout.reshape(v, shape=(-1, *(1,) * (ndim - 2)))


def _fits(name: str, x: TensorType, *vectors: TensorType | None) -> None:
    for v in vectors:
        if v is None:
            continue
        n, c = v.shape[0] if v.ndim == 1 else None, x.shape[1]
        if n is None or (isinstance(n, int) and isinstance(c, int) and n != c):
            raise ShapeError(f"{name}: x is {show(x.shape)}, wants ({c},) a channel, found {show(v.shape)}")


@op()
def layer_norm(
    x: TensorType, scale: TensorType, bias: TensorType | None = None, *, axis: int, epsilon: float
) -> TensorType:
    """Standardise over the axes from `axis` on, then scale and shift.

    Shapes: (*B, *S), what broadcasts to it, the same or None -> (*B, *S).
    """
    axis_of(axis, x.ndim, "layer_norm")
    return TensorType(x.dtype, x.shape)


@op()
def layer_norm_grad(
    g: TensorType, x: TensorType, scale: TensorType, *, axis: int, epsilon: float
) -> tuple[TensorType, TensorType, TensorType]:
    """Return the gradients of `layer_norm` in x, a scale of the shape of the normalised axes, and a bias like it.

    Shapes: (*B, *S), (*B, *S), (*S) -> (*B, *S), (*S), (*S).
    """
    return TensorType(x.dtype, x.shape), TensorType(scale.dtype, scale.shape), TensorType(scale.dtype, scale.shape)


@layer_norm_grad.compose
def _layer_norm_grad(g: Any, x: Any, scale: Any, *, axis: int, epsilon: float) -> tuple[Any, Any, Any]:
    axes = _trailing(len(x.shape), axis)
    dx = standardize_grad(pw.mul(g, scale), x, axes=axes, epsilon=epsilon)
    dscale = pw.sum_to_like(pw.mul(g, standardize(x, axes=axes, epsilon=epsilon)), scale)
    return _typed(dx, x), _typed(dscale, scale), _typed(pw.sum_to_like(g, scale), scale)


def _typed(v: Any, like: Any) -> Any:
    """Return v in the element type of another."""
    return v if v.dtype == like.dtype else pw.cast(v, dtype=str(np.dtype(like.dtype)))


def _normalised(x: Any, v: Any, axis: int) -> bool:
    """Whether a scale or bias has the shape of the normalised axes."""
    return v is None or tuple(v.shape) == tuple(x.shape[axis % len(x.shape) :])


@layer_norm.defvjp
def _layer_norm_vjp(g: Any, y: Any, x: Any, scale: Any, bias: Any = None, *, axis: int, epsilon: float) -> Entries:
    if _normalised(x, scale, axis) and _normalised(x, bias, axis):

        @functools.cache
        def gradients() -> Any:
            return layer_norm_grad(g, x, scale, axis=axis, epsilon=epsilon)

        for_bias = None if bias is None else lambda: _typed(gradients()[2], bias)
        return lambda: gradients()[0], lambda: gradients()[1], for_bias
    axes = _trailing(len(x.shape), axis)
    return (
        lambda: standardize_grad(pw.mul(g, scale), x, axes=axes, epsilon=epsilon),
        lambda: pw.sum_to_like(pw.mul(g, standardize(x, axes=axes, epsilon=epsilon)), scale),
        None if bias is None else lambda: pw.sum_to_like(g, bias),
    )


@op()
def rms_norm(x: TensorType, scale: TensorType, *, axis: int, epsilon: float) -> TensorType:
    """Divide by the root of the mean square over the axes from `axis` on, then scale.

    Shapes: (*B, *S), what broadcasts to it -> (*B, *S).
    """
    axis_of(axis, x.ndim, "rms_norm")
    return TensorType(x.dtype, x.shape)


@op()
def rms_norm_grad(
    g: TensorType, x: TensorType, scale: TensorType, *, axis: int, epsilon: float
) -> tuple[TensorType, TensorType]:
    """Return the gradients of `rms_norm` in x and in a scale of the shape of the normalised axes.

    Shapes: (*B, *S), (*B, *S), (*S) -> (*B, *S), (*S).
    """
    return TensorType(x.dtype, x.shape), TensorType(scale.dtype, scale.shape)


@rms_norm_grad.compose
def _rms_norm_grad(g: Any, x: Any, scale: Any, *, axis: int, epsilon: float) -> tuple[Any, Any]:
    attrs = {"axes": _trailing(len(x.shape), axis), "epsilon": epsilon, "center": False}
    dscale = pw.sum_to_like(pw.mul(g, standardize(x, **attrs)), scale)
    return _typed(standardize_grad(pw.mul(g, scale), x, **attrs), x), _typed(dscale, scale)


@rms_norm.defvjp
def _rms_norm_vjp(g: Any, y: Any, x: Any, scale: Any, *, axis: int, epsilon: float) -> Entries:
    if _normalised(x, scale, axis):

        @functools.cache
        def gradients() -> Any:
            return rms_norm_grad(g, x, scale, axis=axis, epsilon=epsilon)

        return lambda: gradients()[0], lambda: gradients()[1]
    attrs = {"axes": _trailing(len(x.shape), axis), "epsilon": epsilon, "center": False}
    return (
        lambda: standardize_grad(pw.mul(g, scale), x, **attrs),
        lambda: pw.sum_to_like(pw.mul(g, standardize(x, **attrs)), scale),
    )


@op()
def batch_norm(
    x: TensorType,
    scale: TensorType,
    bias: TensorType,
    mean: TensorType,
    var: TensorType,
    *,
    epsilon: float,
    momentum: float = 0.9,
) -> TensorType:
    """Return scale (x - mean) / sqrt(var + epsilon) + bias, channel by channel, with given statistics.

    `momentum` says how running statistics move where training puts `batch_norm_train` in its place.

    Shapes: (N, C, *S), four of (C,) -> (N, C, *S).

    Raises:
        ShapeError: if a vector is not one number a channel.
    """
    _fits("batch_norm", x, scale, bias, mean, var)
    return TensorType(x.dtype, x.shape)


@batch_norm.defvjp
def _batch_norm_vjp(
    g: Any, y: Any, x: Any, scale: Any, bias: Any, mean: Any, var: Any, *, epsilon: float, momentum: float = 0.9
) -> Entries:
    ndim = len(x.shape)
    axes = (0, *_spatial(ndim))

    def inverse() -> Any:
        return pw.reciprocal(pw.sqrt(pw.add(var, epsilon)))

    def total() -> Any:
        return red.sum_(g, axes=axes)

    def weighted() -> Any:
        return red.sum_(pw.mul(g, pw.sub(x, _per_channel(mean, ndim))), axes=axes)

    def for_var() -> Any:
        r = inverse()
        return pw.mul(pw.mul(pw.mul(weighted(), scale), pw.mul(r, pw.mul(r, r))), -0.5)

    return (
        lambda: pw.mul(g, _per_channel(pw.mul(scale, inverse()), ndim)),
        lambda: pw.mul(weighted(), inverse()),
        total,
        lambda: pw.neg(pw.mul(total(), pw.mul(scale, inverse()))),
        for_var,
    )


@op()
def batch_norm_train(
    x: TensorType,
    scale: TensorType,
    bias: TensorType,
    mean: TensorType,
    var: TensorType,
    *,
    epsilon: float,
    momentum: float,
) -> tuple[TensorType, TensorType, TensorType]:
    """Normalise with the batch's own statistics, and return the running ones moved towards them.

    running = running * momentum + batch * (1 - momentum); the variances are the population's.

    Shapes: (N, C, *S), four of (C,) -> (N, C, *S), (C,), (C,).

    Raises:
        ShapeError: if a vector is not one number a channel.
    """
    _fits("batch_norm_train", x, scale, bias, mean, var)
    return TensorType(x.dtype, x.shape), TensorType(mean.dtype, mean.shape), TensorType(var.dtype, var.shape)


@op()
def batch_norm_train_grad(
    g: TensorType, x: TensorType, scale: TensorType, *, epsilon: float
) -> tuple[TensorType, TensorType, TensorType]:
    """Return the gradients of the normalised output of `batch_norm_train` in x, scale and bias.

    Shapes: (N, C, *S), (N, C, *S), (C,) -> (N, C, *S), (C,), (C,).
    """
    return TensorType(x.dtype, x.shape), TensorType(scale.dtype, scale.shape), TensorType(scale.dtype, scale.shape)


@batch_norm_train_grad.compose
def _batch_norm_train_grad(g: Any, x: Any, scale: Any, *, epsilon: float) -> tuple[Any, Any, Any]:
    ndim = len(x.shape)
    axes = (0, *_spatial(ndim))
    dx = standardize_grad(pw.mul(g, _per_channel(scale, ndim)), x, axes=axes, epsilon=epsilon)
    dscale = red.sum_(pw.mul(g, standardize(x, axes=axes, epsilon=epsilon)), axes=axes)
    return _typed(dx, x), _typed(dscale, scale), _typed(red.sum_(g, axes=axes), scale)


@batch_norm_train.defvjp
def _batch_norm_train_vjp(
    g: Any,
    y: Any,
    x: Any,
    scale: Any,
    bias: Any,
    mean: Any,
    var: Any,
    *,
    epsilon: float,
    momentum: float,
) -> Entries:
    ndim, shape = len(x.shape), tuple(x.shape)
    axes = (0, *_spatial(ndim))
    count: DimLike = red.elements(shape, axes)
    g_y, g_mean, g_var = g

    @functools.cache
    def gradients() -> Any:
        return batch_norm_train_grad(g_y, x, scale, epsilon=epsilon)

    def for_x() -> Any:
        parts = []
        if g_y is not None:
            parts.append(gradients()[0])
        if g_mean is not None:
            even = red.divided(pw.mul(g_mean, 1 - momentum), count=count)
            parts.append(red.broadcast_to(_per_channel(even, ndim), shape=shape))
        if g_var is not None:
            slope = red.divided(pw.mul(g_var, 2 * (1 - momentum)), count=count)
            centred = pw.sub(x, red.mean(x, axes=axes, keepdims=True))
            parts.append(pw.mul(centred, _per_channel(slope, ndim)))
        total = parts[0]
        for part in parts[1:]:
            total = pw.add(total, part)
        return total

    return (
        for_x,
        None if g_y is None else lambda: gradients()[1],
        None if g_y is None else lambda: _typed(gradients()[2], bias),
        None if g_mean is None else lambda: pw.mul(g_mean, momentum),
        None if g_var is None else lambda: pw.mul(g_var, momentum),
    )


@op()
def instance_norm(x: TensorType, scale: TensorType, bias: TensorType, *, epsilon: float) -> TensorType:
    """Standardise each channel of each example, then scale and shift the channels.

    Shapes: (N, C, *S), (C,), (C,) -> (N, C, *S).

    Raises:
        ShapeError: if a vector is not one number a channel.
    """
    _fits("instance_norm", x, scale, bias)
    return TensorType(x.dtype, x.shape)


@instance_norm.compose
def _instance_norm(x: Any, scale: Any, bias: Any, *, epsilon: float) -> Any:
    ndim = len(x.shape)
    y = standardize(x, axes=_spatial(ndim), epsilon=epsilon)
    return pw.add(pw.mul(y, _per_channel(scale, ndim)), _per_channel(bias, ndim))


@op()
def group_norm(x: TensorType, scale: TensorType, bias: TensorType, *, groups: int, epsilon: float) -> TensorType:
    """Standardise each group of channels of each example, then scale and shift the channels.

    Shapes: (N, C, *S), (C,), (C,) -> (N, C, *S).

    Raises:
        ShapeError: if the channels do not split into the groups, or a vector is not one number a channel.
    """
    if groups < 1 or (isinstance(x.shape[1], int) and x.shape[1] % groups):
        raise ShapeError(f"group_norm: {x.shape[1]} channels do not split into {groups} groups")
    _fits("group_norm", x, scale, bias)
    return TensorType(x.dtype, x.shape)


@group_norm.compose
def _group_norm(x: Any, scale: Any, bias: Any, *, groups: int, epsilon: float) -> Any:
    ndim, shape = len(x.shape), tuple(x.shape)
    apart = layout.reshape(x, shape=(shape[0], groups, shape[1] // groups, *shape[2:]))
    y = layout.reshape(standardize(apart, axes=tuple(range(2, ndim + 1)), epsilon=epsilon), shape=shape)
    return pw.add(pw.mul(y, _per_channel(scale, ndim)), _per_channel(bias, ndim))


@op()
def lp_norm(x: TensorType, *, p: int, axis: int) -> TensorType:
    """Divide by the p-norm (p 1 or 2) along the axis; where that is 0, return 0.

    Shapes: any, unchanged.
    """
    if p not in (1, 2):
        raise ShapeError(f"lp_norm: wants p of 1 or 2, found {p}")
    axis_of(axis, x.ndim, "lp_norm")
    return TensorType(x.dtype, x.shape)


@lp_norm.compose
def _lp_norm(x: Any, *, p: int, axis: int) -> Any:
    norm = red.l2_norm(x, axes=(axis,), keepdims=True) if p == 2 else red.sum_(pw.abs_(x), axes=(axis,), keepdims=True)
    zero = pw.equal(norm, 0.0)
    return pw.where(zero, 0.0, pw.div(x, pw.where(zero, 1.0, norm)))


@op()
def lrn(x: TensorType, *, size: int, alpha: float, beta: float, bias: float) -> TensorType:
    """Divide by (bias + alpha / size * the sum of squares over `size` neighbouring channels) ** beta.

    Shapes: (N, C, *S), unchanged.

    Raises:
        ShapeError: if size is below 1.

    Source: Krizhevsky et al. 2012.
    """
    axis_of(1, x.ndim, "lrn")
    if size < 1:
        raise ShapeError(f"lrn: size is {size}, wanted 1 or more")
    return TensorType(x.dtype, x.shape)


@lrn.compose
def _lrn(x: Any, *, size: int, alpha: float, beta: float, bias: float) -> Any:
    square = pw.mul(x, x)
    total = square
    before, after = (size - 1) // 2, size - 1 - (size - 1) // 2
    for by in (*range(-after, 0), *range(1, before + 1)):
        total = pw.add(total, cumulative.shift(square, axis=1, by=by))
    return pw.mul(x, pw.pow_(pw.add(pw.mul(total, alpha / size), bias), -beta))


@op()
def mean_variance_norm(x: TensorType, *, axes: tuple[int, ...]) -> TensorType:
    """Take out the mean and divide by the deviation + 1e-9 over the axes.

    Shapes: any, unchanged.
    Source: ONNX MeanVarianceNormalization-13, whose function body has the 1e-9 outside of the root.
    """
    red.positive(axes, x.ndim, "mean_variance_norm")
    return TensorType(x.dtype, x.shape)


@mean_variance_norm.compose
def _mean_variance_norm(x: Any, *, axes: tuple[int, ...]) -> Any:
    c = pw.sub(x, red.mean(x, axes=axes, keepdims=True))
    return pw.div(c, pw.add(pw.sqrt(red.mean(pw.mul(c, c), axes=axes, keepdims=True)), 1e-9))
