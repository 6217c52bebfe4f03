"""Connectionist temporal classification: the loss of a sequence of labels without an alignment.

Axes: T frames, N batch, C classes, S labels of the longest target. Source: Graves et al. 2006.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn, TypeAlias

from . import pointwise as pw
from .dims import show
from .errors import AutogradError, DTypeError, ShapeError
from .layout import unsqueeze
from .op import op
from .types import TensorType, is_float, is_integer

Entries: TypeAlias = tuple[Callable[[], Any] | None, ...]


@op()
def ctc_loss(
    log_probs: TensorType, targets: TensorType, input_lengths: TensorType, target_lengths: TensorType, *, blank: int = 0
) -> TensorType:
    """Return minus the log-probability of each target: the sum over all paths of frames that spell it.

    A path spells what is left of it once repeated classes count once and blanks are dropped. It is infinite where there
    are too few frames. What lies beyond the lengths is not read.

    Shapes: (T, N, C), (N, S), (N,), (N,) -> (N,).

    Raises:
        ShapeError: if shapes do not fit.
        DTypeError: if log_probs are no floats, or targets or lengths no integers.
    """
    _check("ctc_loss", log_probs, targets, input_lengths, target_lengths)
    return TensorType(log_probs.dtype, (log_probs.shape[1],))


@op()
def ctc_visits(
    log_probs: TensorType, targets: TensorType, input_lengths: TensorType, target_lengths: TensorType, *, blank: int = 0
) -> TensorType:
    """Return the share of the paths of `ctc_loss` that are at each class in each frame, weighted by their probability.

    It is minus the gradient of `ctc_loss` in log_probs; 0 beyond the lengths, NaN where there is no path.

    Shapes: (T, N, C), (N, S), (N,), (N,) -> (T, N, C).
    """
    _check("ctc_visits", log_probs, targets, input_lengths, target_lengths)
    return TensorType(log_probs.dtype, log_probs.shape)


@ctc_loss.defvjp
def _ctc_loss_vjp(g: Any, y: Any, log_probs: Any, *labels: Any, blank: int = 0) -> Entries:
    def slope() -> Any:
        share = unsqueeze(pw.neg(g), axes=(0, 2))
        # An unused loss may be infinite, and its visits NaN.
        return pw.where(pw.equal(share, 0.0), 0.0, pw.mul(share, ctc_visits(log_probs, *labels, blank=blank)))

    return slope, None, None, None


@ctc_visits.defvjp
def _ctc_visits_vjp(g: Any, y: Any, *args: Any, blank: int = 0) -> Entries:
    def slope() -> NoReturn:
        raise AutogradError("ctc_loss has first derivatives only")

    return slope, None, None, None


def _check(name: str, x: TensorType, targets: TensorType, frames: TensorType, labels: TensorType) -> None:
    if not is_float(x.dtype) or not all(is_integer(t.dtype) for t in (targets, frames, labels)):
        found = ", ".join(str(t.dtype) for t in (x, targets, frames, labels))
        raise DTypeError(f"{name}: wants floats, and integers as targets and lengths; found {found}")
    if x.ndim != 3 or targets.ndim != 2 or frames.ndim != 1 or labels.ndim != 1:
        found = ", ".join(show(t.shape) for t in (x, targets, frames, labels))
        raise ShapeError(f"{name}: wants (T, N, C), (N, S), (N,), (N,), found {found}")
