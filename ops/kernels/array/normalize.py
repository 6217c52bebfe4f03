"""Normalisation kernels: few passes, in place on what they made themselves."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...normalize import (
    batch_norm,
    batch_norm_train,
    batch_norm_train_grad,
    group_norm,
    instance_norm,
    layer_norm,
    layer_norm_grad,
    log_softmax,
    log_softmax_grad,
    rms_norm,
    rms_norm_grad,
    softmax,
    softmax_grad,
    standardize,
    standardize_grad,
)
from ...op import namespace
from ...types import HALF, Array


@softmax.kernel("array")
def _softmax(x: Array, *, axis: int) -> Array:
    xp = namespace(x)
    if x.shape[axis] == 0:
        return x
    with np.errstate(all="ignore"):
        y = x - x.max(axis=axis, keepdims=True)
        xp.exp(y, out=y)
        y /= y.sum(axis=axis, keepdims=True)
    return y


@log_softmax.kernel("array")
def _log_softmax(x: Array, *, axis: int) -> Array:
    xp = namespace(x)
    if x.shape[axis] == 0:
        return x
    with np.errstate(all="ignore"):
        y = x - x.max(axis=axis, keepdims=True)
        y -= xp.log(xp.exp(y).sum(axis=axis, keepdims=True))
    return y


@softmax_grad.kernel("array")
def _softmax_grad(g: Array, y: Array, *, axis: int) -> Array:
    with np.errstate(all="ignore"):
        d = g * y
        d = g - d.sum(axis=axis, keepdims=True)
        d *= y
    return d


@log_softmax_grad.kernel("array")
def _log_softmax_grad(g: Array, y: Array, *, axis: int) -> Array:
    with np.errstate(all="ignore"):
        d = namespace(y).exp(y)
        d *= g.sum(axis=axis, keepdims=True)
    return g - d


def _mean(x: Array, axes: tuple[int, ...]) -> Array:
    count = math.prod(x.shape[a] for a in axes)
    return x.sum(axis=axes, keepdims=True, dtype=x.dtype) / x.dtype.type(count)


def _split(x: Array, axes: tuple[int, ...], epsilon: float, center: bool) -> tuple[Array, Array]:
    """Return x without its mean, and the inverse deviation."""
    xp = namespace(x)
    c = x - _mean(x, axes) if center else x
    return c, 1 / xp.sqrt(_mean(xp.square(c), axes) + x.dtype.type(epsilon))


def _affine(y: Array, scale: Array, bias: Array | None, dtype: Any) -> Array:
    """Scale and shift y, in place where the types allow."""
    if scale.dtype != y.dtype or (bias is not None and bias.dtype != y.dtype):
        y = y * scale
        return (y if bias is None else y + bias).astype(dtype, copy=False)
    y *= scale
    if bias is not None:
        y += bias
    return y


def _channels(v: Array, ndim: int) -> Array:
    return v.reshape(-1, *(1,) * (ndim - 2))


@standardize.kernel("array")
def _standardize(x: Array, *, axes: tuple[int, ...], epsilon: float, center: bool = True) -> Array:
    with np.errstate(all="ignore"):
        c, r = _split(x, axes, epsilon, center)
        return c * r


@standardize_grad.kernel("array")
def _standardize_grad(g: Array, x: Array, *, axes: tuple[int, ...], epsilon: float, center: bool = True) -> Array:
    with np.errstate(all="ignore"):
        c, r = _split(x, axes, epsilon, center)
        y = c * r
        y *= _mean(g * y, axes)
        d = g - y
        if center:
            d -= _mean(g, axes)
        d *= r
    return d


@layer_norm.kernel("array")
def _layer_norm(x: Array, scale: Array, bias: Array | None = None, *, axis: int, epsilon: float) -> Array:
    axes = tuple(range(axis % x.ndim, x.ndim))
    return _affine(_standardize(x, axes=axes, epsilon=epsilon), scale, bias, x.dtype)


@rms_norm.kernel("array")
def _rms_norm(x: Array, scale: Array, *, axis: int, epsilon: float) -> Array:
    axes = tuple(range(axis % x.ndim, x.ndim))
    return _affine(_standardize(x, axes=axes, epsilon=epsilon, center=False), scale, None, x.dtype)


def _affine_grad(
    g: Array, x: Array, scale: Array, axes: tuple[int, ...], rest: tuple[int, ...], epsilon: float, center: bool = True
) -> tuple[Array, Array, Array]:
    """Return the gradients of scale * standardize(x) + bias in x, scale and bias.

    Args:
        g: of the result.
        x: what was normalised.
        scale: lined up with x.
        axes: that were normalised.
        rest: that scale and bias were broadcast along.
        epsilon: added to the variance.
        center: whether the mean was taken out.
    """
    dtype, own = x.dtype, scale.dtype
    g, x, scale = (v.astype(np.float32) if v.dtype in HALF else v for v in (g, x, scale))
    with np.errstate(all="ignore"):
        c, r = _split(x, axes, epsilon, center)
        y = c * r
        products = g * y
        dscale, dbias = products.sum(axis=rest), g.sum(axis=rest)
        products *= scale
        d = g * scale
        shift = _mean(d, axes) if center else None
        y *= _mean(products, axes)
        d -= y
        if shift is not None:
            d -= shift
        d *= r
    return d.astype(dtype, copy=False), dscale.astype(own, copy=False), dbias.astype(own, copy=False)


@layer_norm_grad.kernel("array", half="native")
def _layer_norm_grad(g: Array, x: Array, scale: Array, *, axis: int, epsilon: float) -> tuple[Array, Array, Array]:
    axis %= x.ndim
    return _affine_grad(g, x, scale, tuple(range(axis, x.ndim)), tuple(range(axis)), epsilon)


@rms_norm_grad.kernel("array", half="native")
def _rms_norm_grad(g: Array, x: Array, scale: Array, *, axis: int, epsilon: float) -> tuple[Array, Array]:
    axis %= x.ndim
    return _affine_grad(g, x, scale, tuple(range(axis, x.ndim)), tuple(range(axis)), epsilon, center=False)[:2]


@batch_norm_train_grad.kernel("array", half="native")
def _batch_norm_train_grad(g: Array, x: Array, scale: Array, *, epsilon: float) -> tuple[Array, Array, Array]:
    axes = (0, *range(2, x.ndim))
    return _affine_grad(g, x, _channels(scale, x.ndim), axes, axes, epsilon)


@instance_norm.kernel("array")
def _instance_norm(x: Array, scale: Array, bias: Array, *, epsilon: float) -> Array:
    y = _standardize(x, axes=tuple(range(2, x.ndim)), epsilon=epsilon)
    return _affine(y, _channels(scale, x.ndim), _channels(bias, x.ndim), x.dtype)


@group_norm.kernel("array")
def _group_norm(x: Array, scale: Array, bias: Array, *, groups: int, epsilon: float) -> Array:
    apart = x.reshape(x.shape[0], groups, x.shape[1] // groups, *x.shape[2:])
    y = _standardize(apart, axes=tuple(range(2, apart.ndim)), epsilon=epsilon).reshape(x.shape)
    return _affine(y, _channels(scale, x.ndim), _channels(bias, x.ndim), x.dtype)


@batch_norm.kernel("array")
def _batch_norm(
    x: Array, scale: Array, bias: Array, mean: Array, var: Array, *, epsilon: float, momentum: float = 0.9
) -> Array:
    xp = namespace(x)
    with np.errstate(all="ignore"):
        slope = scale / xp.sqrt(var + var.dtype.type(epsilon))
        offset = bias - mean * slope
    y = x * _channels(slope.astype(x.dtype, copy=False), x.ndim)
    y += _channels(offset.astype(x.dtype, copy=False), x.ndim)
    return y


@batch_norm_train.kernel("array", half="native")
def _batch_norm_train(
    x: Array, scale: Array, bias: Array, mean: Array, var: Array, *, epsilon: float, momentum: float
) -> tuple[Array, Array, Array]:
    # Statistics may be float32 beside a float16 x, so each result has its own element type to round to.
    xp = namespace(x)
    dtype, stats = x.dtype, (mean.dtype, var.dtype)
    x, scale, bias, mean, var = (v.astype(np.float32) if v.dtype in HALF else v for v in (x, scale, bias, mean, var))
    axes = (0, *range(2, x.ndim))
    with np.errstate(all="ignore"):
        batch_mean = _mean(x, axes)
        y = x - batch_mean
        batch_var = _mean(xp.square(y), axes)
        y *= 1 / xp.sqrt(batch_var + x.dtype.type(epsilon))
    y = _affine(y, _channels(scale, x.ndim), _channels(bias, x.ndim), x.dtype)
    moved = (
        (old * momentum + batch.reshape(-1) * (1 - momentum)).astype(t, copy=False)
        for old, batch, t in zip((mean, var), (batch_mean, batch_var), stats, strict=True)
    )
    return (y.astype(dtype, copy=False), *moved)
