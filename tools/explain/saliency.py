"""Saliency: the gradient of a score by the input.

Source: Simonyan, Vedaldi, Zisserman 2013, arXiv:1312.6034.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .explanation import Explanation
from .scores import Index, Scores, Target, chosen, evaluating, on_host, picked, spread


def saliency(
    model: Any,
    x: Any,
    target: Target = None,
    *,
    absolute: bool = True,
    wrt: str | None = None,
    output: str = "logits",
    output_index: int = 0,
) -> Explanation:
    """Explain a score by its gradient: how much it would change with each element of the input.

    The model is used in evaluation mode and left as it was.

    Args:
        model: an imported model, or any module.
        x: the input, one example a row; or all inputs by name.
        target: a class for all examples, or one each; the highest score by default.
        absolute: the size of the gradient without its sign.
        wrt: which input, when `x` has several.
        output: `logits`, what comes before a final softmax, or `output`, what the model returns.
        output_index: which output, of several.

    Raises:
        InputError: if the target does not exist or the input is not of floats.
    """
    scores = Scores(model, x, wrt=wrt, output=output, output_index=output_index)
    data = scores.floats()
    values = np.empty(data.shape, data.dtype)
    wanted = spread(target, scores.examples)
    targets: list[Index] = [()] * scores.examples
    found = np.empty(scores.examples, data.dtype)

    def explain(rows: Any) -> None:
        some = data[rows]
        now = scores.values(some, rows)
        mine = chosen(now, [wanted[row] for row in rows])
        found[rows] = picked(now, mine)
        values[rows] = on_host(scores.gradient(some, rows, mine))
        for row, index in zip(rows, mine, strict=True):
            targets[row] = index

    with evaluating(model):
        scores.in_rows(scores.examples, explain)
    if absolute:
        values = np.abs(values)
    return Explanation(values, tuple(targets), found, "saliency", on_host(scores.x))
