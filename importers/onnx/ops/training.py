"""Bindings: the gradient operators of training graphs, as onnxruntime-training and Deeploy write them.

Source: onnxruntime's orttraining/core/graph/training_op_defs.cc; Deeploy's training exporter.
"""

from __future__ import annotations

from typing import Any

from ....ops import index, layout, normalize as norm, pointwise as pw, reduce as red
from ....ops.loss import REDUCTIONS
from ..node import NodeView
from ..registry import binds
from .reduce import from_front

MICROSOFT = "com.microsoft"


@binds("ReluGrad", 1, domain=MICROSOFT)
def relu_grad(node: NodeView, g: Any, y: Any) -> Any:
    return pw.where(pw.greater(y, 0.0), g, 0.0)


@binds("GeluGrad", 1)
@binds("GeluGrad", 1, domain=MICROSOFT)
def gelu_grad(node: NodeView, g: Any, x: Any) -> Any:
    return _gradient(pw.gelu, g, x)


@binds("FastGeluGrad", 1, domain=MICROSOFT)
def fast_gelu_grad(node: NodeView, g: Any, x: Any) -> Any:
    return _gradient(pw.gelu_tanh, g, x)


def _gradient(f: Any, g: Any, x: Any) -> Any:
    (entry,) = f.vjp(g, f(x), x)
    return entry()


def _axes_from(node: NodeView, x: Any, default: int) -> tuple[int, ...]:
    (axis,) = from_front((node.attr("axis", default),), x)
    return tuple(range(axis, x.ndim))


def _softmax_grad(g: Any, y: Any, axes: tuple[int, ...]) -> Any:
    return pw.mul(pw.sub(g, red.sum_(pw.mul(g, y), axes=axes, keepdims=True)), y)


def _log_softmax_grad(g: Any, y: Any, axes: tuple[int, ...]) -> Any:
    return pw.sub(g, pw.mul(pw.exp(y), red.sum_(g, axes=axes, keepdims=True)))


@binds("SoftmaxGrad", 1, domain=MICROSOFT)
def softmax_grad_of_matrix(node: NodeView, g: Any, y: Any) -> Any:
    """SoftmaxGrad: over all axes from `axis` on, as Softmax before opset 13."""
    return _softmax_grad(g, y, _axes_from(node, y, 1))


@binds("SoftmaxGrad_13", 1, domain=MICROSOFT)
def softmax_grad(node: NodeView, g: Any, y: Any) -> Any:
    return _softmax_grad(g, y, from_front((node.attr("axis", -1),), y))


@binds("LogSoftmaxGrad", 1, domain=MICROSOFT)
def log_softmax_grad_of_matrix(node: NodeView, g: Any, y: Any) -> Any:
    """LogSoftmaxGrad: over all axes from `axis` on, as LogSoftmax before opset 13."""
    return _log_softmax_grad(g, y, _axes_from(node, y, 1))


@binds("LogSoftmaxGrad_13", 1, domain=MICROSOFT)
def log_softmax_grad(node: NodeView, g: Any, y: Any) -> Any:
    return _log_softmax_grad(g, y, from_front((node.attr("axis", -1),), y))


@binds("LayerNormalizationGrad", 1, domain=MICROSOFT)
def layer_norm_grad(node: NodeView, g: Any, x: Any, scale: Any, *rest: Any) -> Any:
    """LayerNormalizationGrad: given the mean and inverse deviation (onnxruntime), or the bias (Deeploy)."""
    node.ignore("stash_type")
    axes, epsilon = _axes_from(node, x, -1), node.attr("epsilon", 1e-5)
    scaled = pw.mul(g, scale)
    if len(rest) == 2:
        mean, r = rest
        y = pw.mul(pw.sub(x, mean), r)
        inner = pw.mul(y, red.mean(pw.mul(scaled, y), axes=axes, keepdims=True))
        dx = pw.mul(r, pw.sub(pw.sub(scaled, red.mean(scaled, axes=axes, keepdims=True)), inner))
    else:
        y = norm.standardize(x, axes=axes, epsilon=epsilon)
        dx = norm.standardize_grad(scaled, x, axes=axes, epsilon=epsilon)
    if len(node.outputs) == 1:
        return dx
    return dx, pw.sum_to_like(pw.mul(g, y), scale), pw.sum_to_like(g, scale)


@binds("SoftmaxCrossEntropyLossGrad", 1, domain=MICROSOFT)
def softmax_cross_entropy_grad(node: NodeView, *inputs: Any) -> Any:
    """SoftmaxCrossEntropyLossGrad: (g, log_prob, labels[, weights]); Deeploy leaves g out, which is 1."""
    reduction = node.one_of("reduction", "mean", REDUCTIONS)
    ignore_index = node.attr("ignore_index")
    g, (log_prob, labels, *weights) = (None, inputs) if len(inputs) == 2 else (inputs[0], inputs[1:])
    log_prob = _log_probabilities(log_prob)
    dtype = str(log_prob.dtype)
    factor = None
    chosen = labels
    if ignore_index is not None:
        ignored = pw.equal(labels, ignore_index)
        chosen = pw.where(ignored, 0, labels)
    if weights and weights[0] is not None:
        factor = index.gather(weights[0], chosen, axis=0)
    if ignore_index is not None:
        kept = pw.cast(pw.logical_not(ignored), dtype=dtype)
        factor = kept if factor is None else pw.mul(factor, kept)
    if reduction == "mean":
        if factor is None:
            factor = pw.cast(pw.equal(labels, labels), dtype=dtype)
        factor = pw.div(factor, red.sum_(factor))
    if g is not None:
        factor = g if factor is None else pw.mul(factor, g)
    hit = index.one_hot(chosen, depth=log_prob.shape[1], axis=1, dtype=dtype)
    d = pw.sub(pw.exp(log_prob), hit)
    if factor is None:
        return d
    return pw.mul(d, layout.unsqueeze(factor, axes=(1,)) if factor.ndim else factor)


def _log_probabilities(value: Any) -> Any:
    """Return the log-probabilities; Deeploy takes them from the loss's first output, which is the loss."""
    made = value.node
    if value.ndim == 0 and made is not None and made.op.name == "softmax_cross_entropy":
        return norm.log_softmax(made.args[0], axis=1)
    return value


@binds("SGD", 1)
def sgd(node: NodeView, w: Any, g: Any) -> Any:
    """SGD as Deeploy writes it: one step of plain gradient descent."""
    return pw.sub(w, pw.mul(g, node.attr("lr")))


@binds("InPlaceAccumulatorV2", 1, domain=MICROSOFT)
def accumulate(node: NodeView, buffer: Any, value: Any, overwrite: Any = None) -> Any:
    """InPlaceAccumulatorV2: a flag that says that the buffer was updated, then the new buffer."""
    total = pw.add(buffer, value)
    if overwrite is not None:
        total = pw.where(overwrite, value, total)
    flag = pw.equal(
        layout.slice_(layout.reshape(buffer, shape=(-1,)), starts=(0,), stops=(1,), steps=(1,), axes=(0,)),
        0.0,
    )
    done = pw.logical_or(flag if overwrite is None else overwrite, True)
    return (done, total) if len(node.outputs) > 1 else done
