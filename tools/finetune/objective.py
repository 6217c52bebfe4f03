"""What finetuning makes smaller, and how well the model does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ...ops.errors import InputError
from ...ops.types import Array, is_float
from ...runtime.nn import functional as F
from ...runtime.tensor.tensor import Tensor

NAMED: dict[str, Callable[..., Tensor]] = {
    "cross_entropy": F.cross_entropy,
    "mse": F.mse_loss,
    "l1": F.l1_loss,
    "smooth_l1": F.smooth_l1_loss,
    "bce": F.binary_cross_entropy,
    "bce_with_logits": F.binary_cross_entropy_with_logits,
}


class Objective:
    """A loss, and what it is a loss of.

    Args:
        loss: a name in `NAMED`; `auto`, which is `cross_entropy` for integer targets and `mse` for floats; or a
            function of the model's output and the targets. `cross_entropy` sees what comes before a final softmax,
            all others the output.
        targets: some targets.

    Raises:
        InputError: if the loss is unknown.
    """

    def __init__(self, loss: str | Callable[..., Any], targets: Array) -> None:
        if loss == "auto":
            loss = "mse" if is_float(targets.dtype) else "cross_entropy"
        if isinstance(loss, str) and loss not in NAMED:
            raise InputError(f"loss is 'auto', {', '.join(map(repr, NAMED))} or a function; found {loss!r}")
        self.function = NAMED[loss] if isinstance(loss, str) else loss
        self.logits = loss == "cross_entropy"
        self.named = isinstance(loss, str)
        self.classes = self.logits and not is_float(targets.dtype)

    def __call__(self, output: Any, targets: Array) -> Tensor:
        """Return the loss, averaged over the batch.

        Raises:
            InputError: if the targets do not fit the output.
        """
        if self.named:
            if isinstance(output, tuple):
                output = output[0]
            output = _fitted(output, targets, self.classes)
        found = self.function(output, Tensor(targets))
        if not isinstance(found, Tensor) or found.numel() != 1:
            raise InputError(f"the loss is {getattr(found, 'shape', type(found).__name__)}, wanted one number")
        return found

    def correct(self, output: Any, targets: Array) -> int:
        """Return how many classes are right."""
        scores = _fitted(output, targets, True).array
        return int((scores.argmax(axis=1) == targets).sum())


def _fitted(output: Tensor, targets: Array, classes: bool) -> Tensor:
    """Return the output without trailing axes of size 1 that the targets lack."""
    wanted = targets.ndim + classes
    shape = output.shape
    while len(shape) > wanted and shape[-1] == 1:
        shape = shape[:-1]
    if classes:
        if len(shape) != wanted or shape[0] != targets.shape[0] or shape[2:] != targets.shape[1:]:
            raise InputError(f"scores of shape {output.shape} do not fit classes of shape {targets.shape}")
        if isinstance(targets, Tensor):  # inside a compiled step, whose caller has checked them
            return output if shape == output.shape else output.reshape(shape)
        low, high = int(targets.min(initial=0)), int(targets.max(initial=0))
        if low < 0 or high >= shape[1]:
            wrong = low if low < 0 else high
            raise InputError(
                f"there is a target {wrong}, the model has {shape[1]} classes: use replace_head({high + 1})"
            )
    elif shape != targets.shape:
        raise InputError(f"the output has shape {output.shape}, the targets {targets.shape}")
    return output if shape == output.shape else output.reshape(shape)


def finite(value: Any) -> bool:
    """Return whether a number is neither NaN nor infinite."""
    return bool(np.isfinite(value))
