"""Grad-CAM: where a layer speaks for a class.

    map = relu( sum over channels c of  mean over positions(d score / d A_c) * A_c ),   A: the layer's output (N, C, *S)

Source: Selvaraju et al. 2017, arXiv:1610.02391.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ...ops.errors import InputError
from ...runtime.graph.graph import Node
from ...runtime.model.model import Model
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
        layer: the name of a layer (`model.layers()`) with channels and positions; by default the last convolution that
            the score depends on.
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
    wanted = spread(target, scores.examples)
    with evaluating(model):
        if layer is None:
            last = name = last_convolution(model)
            for name in _convolutions(model):
                found = _Map(scores, name, wanted)
                if found.depends:
                    break
            else:
                found = _Map(scores, name := last, wanted)
        else:
            found = _Map(scores, name := layer, wanted)
    values = np.concatenate(found.maps)
    if relu:
        values = np.maximum(values, 0)
    score = np.concatenate(found.scores)
    return Explanation(values, tuple(found.targets), score, "Grad-CAM", on_host(scores.x), layer=name)


class _Map:
    """What a layer says of the target scores; `depends` is False where their gradient by it is zero everywhere."""

    def __init__(self, scores: Scores, layer: str, wanted: list[Any]) -> None:
        self.maps: list[Any] = []
        self.scores: list[Any] = []
        self.targets: list[Index] = [()] * scores.examples
        self.depends = False

        def explain(rows: Any) -> None:
            inside, gradient, now, mine = scores.layer_gradient(layer, rows, [wanted[row] for row in rows])
            if inside.ndim < 3 or len(inside) != len(rows):
                raise InputError(f"layer {layer!r} makes {inside.shape}: Grad-CAM wants (N, channels, *positions)")
            weights = gradient.mean(axis=tuple(range(2, gradient.ndim)), keepdims=True)
            self.depends |= bool(gradient.any())
            self.maps.append(on_host((weights * inside).sum(axis=1, keepdims=True)))
            self.scores.append(picked(now, mine))
            for row, index in zip(rows, mine, strict=True):
                self.targets[row] = index

        scores.in_rows(scores.examples, explain)


def last_convolution(model: Model) -> str:
    """Return the name of the last convolution that still has positions to tell apart.

    Raises:
        InputError: if there is none.
    """
    if (name := next(_convolutions(model), None)) is not None:
        return name
    raise InputError("the model has no convolution; say which layer to look at (`model.layers()` lists them)")


def _convolutions(model: Model) -> Iterator[str]:
    """Yield the names of convolutions with positions, the last first."""
    return (n.name for n in reversed(model.graph.nodes) if n.op.name == "conv" and _has_positions(n))


def _has_positions(node: Node) -> bool:
    shape = node.outputs[0].tensor_type.known_shape
    return shape is None or any(d != 1 for d in shape[2:])
