"""Bindings: normalisation."""

from __future__ import annotations

from typing import Any

from ....ops import index, layout, normalize as norm, pointwise as pw, reduce as red
from ....ops.errors import ShapeError, UnsupportedAttributeError
from ....ops.extent import axis_of
from ....ops.types import HALF
from ..node import NodeView
from ..registry import binds
from .reduce import flattened, from_front


@binds("Softmax", 1, 11)
def softmax_of_matrix(node: NodeView, x: Any) -> Any:
    """Softmax as it was: over all axes from `axis` on, 1 by default."""
    return flattened(x, node.attr("axis", 1), lambda v, axis: norm.softmax(v, axis=axis))


@binds("Softmax", 13)
def softmax(node: NodeView, x: Any) -> Any:
    return norm.softmax(x, axis=from_front((node.attr("axis", -1),), x)[0])


@binds("LogSoftmax", 1, 11)
def log_softmax_of_matrix(node: NodeView, x: Any) -> Any:
    """LogSoftmax as it was: over all axes from `axis` on, 1 by default."""
    return flattened(x, node.attr("axis", 1), lambda v, axis: norm.log_softmax(v, axis=axis))


@binds("LogSoftmax", 13)
def log_softmax(node: NodeView, x: Any) -> Any:
    return norm.log_softmax(x, axis=from_front((node.attr("axis", -1),), x)[0])


@binds("BatchNormalization", 1, 6, 7, 9)
def batch_norm_by_outputs(node: NodeView, x: Any, scale: Any, bias: Any, mean: Any, var: Any) -> Any:
    """BatchNormalization as it was: it trains where more than one output is named."""
    node.ignore("consumed_inputs")
    test, spatial = node.attr("is_test", 0), node.attr("spatial", 1)
    epsilon, momentum = node.attr("epsilon", 1e-5), node.attr("momentum", 0.9)
    trains = not test and any(node.outputs[1:])
    if not spatial and x.ndim > 2:
        if trains:
            raise UnsupportedAttributeError(f"{node}: spatial=0 in training is not understood")
        r = pw.reciprocal(pw.sqrt(pw.add(var, epsilon)))
        return pw.add(pw.mul(pw.mul(pw.sub(x, mean), r), scale), bias)
    if not trains:
        return _batch_norm(x, scale, bias, mean, var, epsilon=epsilon, momentum=momentum)
    y, mean, var = norm.batch_norm_train(x, scale, bias, mean, var, epsilon=epsilon, momentum=momentum)
    if not any(node.outputs[3:]):
        return y, mean, var
    axes = (0, *range(2, x.ndim))
    m = red.mean(x, axes=axes, keepdims=True)
    c = pw.sub(x, m)
    return y, mean, var, red.mean(x, axes=axes), red.mean(pw.mul(c, c), axes=axes)


@binds("BatchNormalization", 14, 15)
def batch_norm(node: NodeView, x: Any, scale: Any, bias: Any, mean: Any, var: Any) -> Any:
    epsilon, momentum = node.attr("epsilon", 1e-5), node.attr("momentum", 0.9)
    if node.attr("training_mode", 0):
        return norm.batch_norm_train(x, scale, bias, mean, var, epsilon=epsilon, momentum=momentum)
    return _batch_norm(x, scale, bias, mean, var, epsilon=epsilon, momentum=momentum)


def _batch_norm(x: Any, scale: Any, bias: Any, mean: Any, var: Any, **attrs: float) -> Any:
    if x.ndim > 1:
        return norm.batch_norm(x, scale, bias, mean, var, **attrs)
    y = norm.batch_norm(layout.unsqueeze(x, axes=(1,)), scale, bias, mean, var, **attrs)
    return layout.squeeze(y, axes=(1,))


@binds("InstanceNormalization", 1, 6, 22)
def instance_norm(node: NodeView, x: Any, scale: Any, bias: Any) -> Any:
    node.ignore("consumed_inputs")
    return norm.instance_norm(x, scale, bias, epsilon=node.attr("epsilon", 1e-5))


@binds("GroupNormalization", 18, 21)
def group_norm(node: NodeView, x: Any, scale: Any, bias: Any) -> Any:
    """GroupNormalization: 18 has a scale and bias a group, 21 a channel."""
    node.ignore("stash_type")
    groups = node.attr("num_groups")
    epsilon = node.attr("epsilon", 1e-5)
    if node.since_version < 21:
        scale, bias = (_per_channel(v, x.shape[1], groups) for v in (scale, bias))
    return norm.group_norm(x, scale, bias, groups=groups, epsilon=epsilon)


def _per_channel(v: Any, channels: Any, groups: int) -> Any:
    if groups < 1:
        raise ShapeError(f"num_groups is {groups}, wanted 1 or more")
    wide = red.broadcast_to(layout.unsqueeze(v, axes=(1,)), shape=(groups, channels // groups))
    return layout.reshape(wide, shape=(channels,))


def _statistics(node: NodeView, x: Any, axis: int, epsilon: float, *, center: bool) -> tuple[Any, ...]:
    """Return the outputs after a layer norm's first: the mean and the inverse deviation in float32."""
    wanted = len(node.outputs) - 1
    if wanted < 1:
        return ()
    wide = pw.cast(x, dtype="float32") if x.dtype in HALF else x
    axes = tuple(range(axis, x.ndim))
    if not center:
        square = red.mean(pw.mul(wide, wide), axes=axes, keepdims=True)
        return (pw.reciprocal(pw.sqrt(pw.add(square, epsilon))),)
    return norm.moments(wide, axes=axes, epsilon=epsilon)


@binds("LayerNormalization", 1, 17)
@binds("LayerNormalization", 1, domain="com.microsoft")
def layer_norm(node: NodeView, x: Any, scale: Any, bias: Any = None) -> Any:
    """LayerNormalization: `stash_type` asks for float32 statistics, which they are at least."""
    node.ignore("stash_type")
    axis, epsilon = axis_of(node.attr("axis", -1), x.ndim, "axis"), node.attr("epsilon", 1e-5)
    y = norm.layer_norm(x, scale, bias, axis=axis, epsilon=epsilon)
    return (y, *_statistics(node, x, axis, epsilon, center=True))


@binds("RMSNormalization", 23)
@binds("SimplifiedLayerNormalization", 1)
@binds("SimplifiedLayerNormalization", 1, domain="com.microsoft")
def rms_norm(node: NodeView, x: Any, scale: Any) -> Any:
    """RMSNormalization, and the SimplifiedLayerNormalization that exporters wrote before it."""
    node.ignore("stash_type")
    axis, epsilon = axis_of(node.attr("axis", -1), x.ndim, "axis"), node.attr("epsilon", 1e-5)
    y = norm.rms_norm(x, scale, axis=axis, epsilon=epsilon)
    return (y, *_statistics(node, x, axis, epsilon, center=False))


def _skipped(node: NodeView, x: Any, skip: Any, bias: Any) -> Any:
    """Return x + skip + bias; a skip of one batch entry or without the batch axis broadcasts."""
    total = pw.add(x, skip)
    return total if bias is None else pw.add(total, bias)


def _with_sum(node: NodeView, y: Any, total: Any, axis: int, epsilon: float, *, center: bool) -> tuple[Any, ...]:
    """Return the four outputs of the skip norms: y, mean, inverse deviation, the sum that was normalised."""
    if len(node.outputs) == 1:
        return (y,)
    if not any(node.outputs[1:3]):
        return y, None, None, total
    mean, deviation = norm.moments(total, axes=(axis,), epsilon=epsilon)
    if not center:
        deviation = _statistics(node, total, axis, epsilon, center=False)[0]
    return y, mean, deviation, total


@binds("SkipLayerNormalization", 1, domain="com.microsoft")
def skip_layer_norm(node: NodeView, x: Any, skip: Any, scale: Any, shift: Any = None, bias: Any = None) -> Any:
    epsilon, axis = node.attr("epsilon", 1e-12), x.ndim - 1
    total = _skipped(node, x, skip, bias)
    y = norm.layer_norm(total, scale, shift, axis=axis, epsilon=epsilon)
    return _with_sum(node, y, total, axis, epsilon, center=True)


@binds("SkipSimplifiedLayerNormalization", 1, domain="com.microsoft")
def skip_rms_norm(node: NodeView, x: Any, skip: Any, scale: Any, bias: Any = None) -> Any:
    epsilon, axis = node.attr("epsilon", 1e-12), x.ndim - 1
    total = _skipped(node, x, skip, bias)
    y = norm.rms_norm(total, scale, axis=axis, epsilon=epsilon)
    return _with_sum(node, y, total, axis, epsilon, center=False)


@binds("EmbedLayerNormalization", 1, domain="com.microsoft")
def embed_layer_norm(
    node: NodeView, ids: Any, segments: Any, words: Any, positions: Any, kinds: Any, scale: Any, shift: Any,
    mask: Any = None, position_ids: Any = None,
) -> Any:  # fmt: skip
    """EmbedLayerNormalization: the sum of three embeddings, normalised; the mask's count; the sum."""
    epsilon = node.attr("epsilon", 1e-12)
    node.ignore("mask_index_type")
    total = index.gather(words, ids, axis=0)
    if position_ids is None:
        n = ids.shape[1]
        here = layout.slice_(positions, starts=(0,), stops=(n,), steps=(1,), axes=(0,))
    else:
        here = index.gather(positions, position_ids, axis=0)
    total = pw.add(total, here)
    if kinds is not None and segments is not None:
        total = pw.add(total, index.gather(kinds, segments, axis=0))
    y = norm.layer_norm(total, scale, shift, axis=2, epsilon=epsilon)
    if len(node.outputs) == 1:
        return y
    counted = red.sum_(pw.mul(ids, 0) if mask is None else mask, axes=(1,))
    return y, pw.cast(counted, dtype="int32"), total


@binds("LpNormalization", 1, 22)
def lp_norm(node: NodeView, x: Any) -> Any:
    return norm.lp_norm(x, p=node.attr("p", 2), axis=from_front((node.attr("axis", -1),), x)[0])


@binds("LRN", 1, 13)
def lrn(node: NodeView, x: Any) -> Any:
    alpha, beta, bias = node.attr("alpha", 1e-4), node.attr("beta", 0.75), node.attr("bias", 1.0)
    return norm.lrn(x, size=node.attr("size"), alpha=alpha, beta=beta, bias=bias)


@binds("MeanVarianceNormalization", 9, 13)
def mean_variance_norm(node: NodeView, x: Any) -> Any:
    return norm.mean_variance_norm(x, axes=from_front(tuple(node.attr("axes", [0, 2, 3])), x))
