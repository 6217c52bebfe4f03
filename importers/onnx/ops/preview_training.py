"""Bindings: ai.onnx.preview.training, which writes a step of training as a graph."""

from __future__ import annotations

from typing import Any

from ....ops import pointwise as pw
from ....ops.errors import AutogradError, InvalidGraphError
from ....runtime.graph.autodiff import gradients
from ....runtime.graph.graph import Value
from ..node import NodeView
from ..registry import binds

TRAINING = "ai.onnx.preview.training"


@binds("Gradient", 1, domain=TRAINING)
def gradient(node: NodeView, *values: Any) -> Any:
    """Gradient: of the sum of `y`, by `xs`, at the values that the node is given for `xs` and then `zs`."""
    xs, zs = node.attr("xs"), node.attr("zs") or []
    if len(values) != len(xs) + len(zs):
        raise InvalidGraphError(f"{node}: {len(values)} inputs for {len(xs)} xs and {len(zs)} zs")
    named = [node.find(name) for name in (*xs, *zs)]
    try:
        return tuple(gradients(node.find(node.attr("y")), named[: len(xs)], dict(zip(named, values, strict=True))))
    except AutogradError as error:
        raise InvalidGraphError(f"{node}: {error}") from error


def _lists(node: NodeView, values: tuple[Any, ...], kinds: int) -> list[tuple[Any, ...]]:
    """Return for each optimized tensor its value, gradient and state; the node lists all values first, and so on."""
    if len(values) % kinds:
        raise InvalidGraphError(f"{node}: {len(values)} inputs, wanted {kinds} for each optimized tensor")
    n = len(values) // kinds
    return list(zip(*(values[k * n : (k + 1) * n] for k in range(kinds)), strict=True))


def _listed(results: list[tuple[Any, ...]]) -> tuple[Any, ...]:
    return tuple(v for kind in zip(*results, strict=True) for v in kind)


def _regularized(node: NodeView, x: Any, g: Any) -> Any:
    return pw.add(pw.mul(x, node.attr("norm_coefficient", 0.0)), g)


def _float(count: Value, rate: Value) -> Any:
    return pw.cast(count, dtype=str(rate.dtype))


@binds("Adagrad", 1, domain=TRAINING)
def adagrad(node: NodeView, rate: Any, count: Any, *values: Any) -> Any:
    """Adagrad: new values, then new sums of squared gradients."""
    epsilon, decay = node.attr("epsilon", 1e-6), node.attr("decay_factor", 0.0)
    step = pw.div(rate, pw.add(pw.mul(_float(count, rate), decay), 1.0))
    made = []
    for x, g, h in _lists(node, values, 3):
        g = _regularized(node, x, g)
        h = pw.add(h, pw.mul(g, g))
        made.append((pw.sub(x, pw.div(pw.mul(g, step), pw.add(pw.sqrt(h), epsilon))), h))
    return _listed(made)


@binds("Momentum", 1, domain=TRAINING)
def momentum(node: NodeView, rate: Any, count: Any, *values: Any) -> Any:
    """Momentum: new values, then new momenta; in the first step the gradient counts in full."""
    alpha, nesterov = node.attr("alpha"), node.one_of("mode", "standard", ("standard", "nesterov")) == "nesterov"
    beta = pw.where(pw.greater(count, 0), node.attr("beta"), pw.add(pw.mul(rate, 0.0), 1.0))
    made = []
    for x, g, v in _lists(node, values, 3):
        g = _regularized(node, x, g)
        v = pw.add(pw.mul(v, alpha), pw.mul(g, beta))
        direction = pw.add(g, pw.mul(v, alpha)) if nesterov else v
        made.append((pw.sub(x, pw.mul(direction, rate)), v))
    return _listed(made)


@binds("Adam", 1, domain=TRAINING)
def adam(node: NodeView, rate: Any, count: Any, *values: Any) -> Any:
    """Adam: new values, then new averages of gradients, then of their squares."""
    alpha, beta, epsilon = node.attr("alpha", 0.9), node.attr("beta", 0.999), node.attr("epsilon", 1e-6)
    after = node.attr("norm_coefficient_post", 0.0)
    t = _float(count, rate)
    first = pw.less_equal(t, 0.0)
    correction = pw.div(pw.sqrt(pw.sub(1.0, pw.pow_(beta, t))), pw.sub(1.0, pw.pow_(alpha, t)))
    step = pw.mul(rate, pw.where(first, 1.0, correction))
    made = []
    for x, g, v, h in _lists(node, values, 4):
        g = _regularized(node, x, g)
        v = pw.add(pw.mul(v, alpha), pw.mul(g, 1 - alpha))
        h = pw.add(pw.mul(h, beta), pw.mul(pw.mul(g, g), 1 - beta))
        x = pw.sub(x, pw.div(pw.mul(v, step), pw.add(pw.sqrt(h), epsilon)))
        made.append((pw.mul(x, 1 - after), v, h))
    return _listed(made)
