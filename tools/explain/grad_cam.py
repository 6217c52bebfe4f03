"""Grad-CAM: where a layer speaks for a class.

    map = relu( sum over channels c of  mean over positions(d score / d A_c) * A_c ),   A: the layer's output (N, C, *S)

Source: Selvaraju et al. 2017, arXiv:1610.02391.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...ops.errors import InputError
from ...runtime.graph import Node
from ...runtime.model import Model
from .explanation import Explanation
from .scores import Index, Scores, Target, evaluating, on_host, picked, spread


def grad_cam(
    model: Any,
    x: Any,
    target: Target = None,
    *,
    layer: str | None = None,
    relu: bool = True,
    wrt: str | None = None,
    output: str = "logits",
    output_index: int = 0,
) -> Explanation:
    """Explain a score by where in the image a layer speaks for it.

    The model is used in evaluation mode and left as it was. Frozen models and inputs that are not floats work too.

    Args:
        model: an imported model.
        x: the input, one example a row; or all inputs by name.
        target: a class for all examples, or one each; the highest score by default.
        layer: the name of a layer (`model.layers()`) with channels and positions; the last convolution by default.
        relu: keep only what speaks for the target.
        wrt: which input is the image, when `x` has several.
        output: `logits`, what comes before a final softmax, or `output`, what the model returns.
        output_index: which output, of several.

    Returns:
        An explanation whose values have the positions of the layer, (N, 1, *S); `heatmap()` brings them to the
        image's size.

    Raises:
        InputError: if there is no such layer or target, or the layer has no positions.
    """
    if not isinstance(model, Model):
        raise InputError(f"grad_cam wants a model from og.load, found {type(model).__name__}")
    scores = Scores(model, x, wrt=wrt, output=output, output_index=output_index)
    name = layer if layer is not None else last_convolution(model)
    wanted = spread(target, scores.examples)
    targets: list[Index] = [()] * scores.examples
    maps: list[Any] = []
    found: list[Any] = []

    def explain(rows: Any) -> None:
        inside, gradient, now, mine = scores.layer_gradient(name, rows, [wanted[row] for row in rows])
        if inside.ndim < 3 or len(inside) != len(rows):
            raise InputError(f"layer {name!r} makes {inside.shape}: Grad-CAM wants (N, channels, *positions)")
        weights = gradient.mean(axis=tuple(range(2, gradient.ndim)), keepdims=True)
        maps.append(on_host((weights * inside).sum(axis=1, keepdims=True)))
        found.append(picked(now, mine))
        for row, index in zip(rows, mine, strict=True):
            targets[row] = index

    with evaluating(model):
        scores.in_rows(scores.examples, explain)
    values = np.concatenate(maps)
    if relu:
        values = np.maximum(values, 0)
    return Explanation(values, tuple(targets), np.concatenate(found), "Grad-CAM", on_host(scores.x), layer=name)


def last_convolution(model: Model) -> str:
    """Return the name of the last convolution that still has positions to tell apart.

    Raises:
        InputError: if there is none.
    """
    for node in reversed(model.graph.nodes):
        if node.op.name == "conv" and _has_positions(node):
            return node.name
    raise InputError("the model has no convolution; say which layer to look at (`model.layers()` lists them)")


def _has_positions(node: Node) -> bool:
    shape = node.outputs[0].tensor_type.known_shape
    return shape is None or any(d != 1 for d in shape[2:])
