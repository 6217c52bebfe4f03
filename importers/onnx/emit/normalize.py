"""Emitters: softmax, and the layers that standardise."""

from __future__ import annotations

from typing import Any

import numpy as np

from ....ops import create, layout, normalize as ops, pointwise as pw, reduce as red
from ....runtime.graph.graph import Value
from .registry import emits, expands
from .writer import Writer


@emits(ops.softmax)
def softmax(w: Writer, x: Value, *, axis: int) -> Any:
    return w.add("Softmax", x, axis=axis)


@emits(ops.log_softmax)
def log_softmax(w: Writer, x: Value, *, axis: int) -> Any:
    return w.add("LogSoftmax", x, axis=axis)


@emits(ops.batch_norm)
def batch_norm(
    w: Writer, x: Value, scale: Value, bias: Value, mean: Value, var: Value, *, epsilon: float, momentum: float = 0.9
) -> Any:
    own = None if momentum == 0.9 else momentum
    return w.add("BatchNormalization", x, scale, bias, mean, var, epsilon=epsilon, momentum=own)


@emits(ops.layer_norm)
def layer_norm(w: Writer, x: Value, scale: Value, bias: Value | None = None, *, axis: int, epsilon: float) -> Any:
    at = axis - x.ndim if axis >= 0 else axis
    return w.add("LayerNormalization", x, scale, bias, axis=at, epsilon=epsilon)


@emits(ops.standardize)
def standardize(w: Writer, x: Value, *, axes: tuple[int, ...], epsilon: float, center: bool = True) -> Any:
    """LayerNormalization with a scale of ones, where the axes are the last."""
    at = red.positive(axes, x.ndim)
    size = x.shape[at[0] :] if at else ()
    if not center or at != tuple(range(x.ndim - len(at), x.ndim)) or not all(isinstance(d, int) for d in size):
        return None
    return w.add("LayerNormalization", x, np.ones([int(d) for d in size], x.dtype), axis=-len(at), epsilon=epsilon)


@expands(ops.standardize)
def standardized(x: Any, *, axes: tuple[int, ...], epsilon: float, center: bool = True) -> Any:
    """Take out the mean, and divide by the deviation."""
    c = pw.sub(x, red.mean(x, axes=axes, keepdims=True)) if center else x
    return pw.div(c, pw.sqrt(pw.add(red.mean(pw.mul(c, c), axes=axes, keepdims=True), epsilon)))


@expands(ops.batch_norm_train)
def batch_norm_train(
    x: Any, scale: Any, bias: Any, mean: Any, var: Any, *, epsilon: float, momentum: float
) -> tuple[Any, Any, Any]:
    """Normalise by the batch's own statistics."""
    axes = (0, *range(2, x.ndim))
    m = red.mean(x, axes=axes, keepdims=True)
    c = pw.sub(x, m)
    v = red.mean(pw.mul(c, c), axes=axes, keepdims=True)

    def laid(vector: Any) -> Any:
        return layout.reshape(vector, shape=(1, -1, *(1,) * (x.ndim - 2)))

    def moved(running: Any, batch: Any) -> Any:
        return pw.add(pw.mul(running, momentum), pw.mul(layout.reshape(batch, shape=(-1,)), 1 - momentum))

    y = pw.add(pw.mul(pw.div(c, pw.sqrt(pw.add(v, epsilon))), laid(scale)), laid(bias))
    return y, moved(mean, m), moved(var, v)


@emits(ops.rms_norm)
def rms_norm(w: Writer, x: Value, scale: Value, *, axis: int, epsilon: float) -> Any:
    return w.add("RMSNormalization", x, scale, axis=axis, epsilon=epsilon) if w.opset >= 23 else None


@expands(ops.rms_norm)
def divided_by_rms(x: Any, scale: Any, *, axis: int, epsilon: float) -> Any:
    """Divide by the root of the mean square."""
    axes = tuple(range(axis % x.ndim, x.ndim))
    mean = red.mean(pw.mul(x, x), axes=axes, keepdims=True)
    return pw.mul(pw.div(x, pw.sqrt(pw.add(mean, epsilon))), scale)


@emits(ops.instance_norm)
def instance_norm(w: Writer, x: Value, scale: Value, bias: Value, *, epsilon: float) -> Any:
    return w.add("InstanceNormalization", x, scale, bias, epsilon=epsilon)


@emits(ops.group_norm)
def group_norm(w: Writer, x: Value, scale: Value, bias: Value, *, groups: int, epsilon: float) -> Any:
    if w.opset < 21:
        return None
    return w.add("GroupNormalization", x, scale, bias, num_groups=groups, epsilon=epsilon)


@expands(ops.group_norm)
def group_normalised(x: Any, scale: Any, bias: Any, *, groups: int, epsilon: float) -> Any:
    """Normalise groups as the channels of longer rows."""
    shape, rank = tuple(x.shape), x.ndim
    ones = create.full_like(scale, shape=(groups,), value=1)
    rows = layout.reshape(x, shape=(shape[0], groups, -1))
    y = ops.instance_norm(rows, ones, create.full_like(scale, shape=(groups,), value=0), epsilon=epsilon)

    def laid(vector: Any) -> Any:
        return layout.reshape(vector, shape=(-1, *(1,) * (rank - 2)))

    return pw.add(pw.mul(layout.reshape(y, shape=shape), laid(scale)), laid(bias))


@emits(ops.lrn)
def lrn(w: Writer, x: Value, *, size: int, alpha: float, beta: float, bias: float) -> Any:
    return w.add("LRN", x, size=size, alpha=alpha, beta=beta, bias=bias)


@emits(ops.mean_variance_norm)
def mean_variance_norm(w: Writer, x: Value, *, axes: tuple[int, ...]) -> Any:
    return w.add("MeanVarianceNormalization", x, axes=axes)
