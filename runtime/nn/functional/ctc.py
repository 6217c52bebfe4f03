"""Connectionist temporal classification."""

from __future__ import annotations

from typing import Any

import numpy as np

from ....ops import ctc as ctc_ops, layout, pointwise as pw, reduce as red
from ....ops.errors import OpError, ShapeError, TraceError
from ....ops.places import to_numpy
from .loss import elements, reduced
from .spatial import beside


def ctc_loss(
    log_probs: Any, targets: Any, input_lengths: Any, target_lengths: Any, blank: int = 0, reduction: str = "mean",
    zero_infinity: bool = False,
) -> Any:  # fmt: skip
    """Return minus the log-probability of sequences of labels whose alignment to frames is not known.

    Its gradient is PyTorch's: e^log_probs is added to the derivative, as if they came from `log_softmax`, behind which
    the two are one. There are first derivatives only.

    Args:
        log_probs: logarithms of probabilities (T, N, C), or (T, C).
        targets: classes (N, S), padded, or all targets joined (sum of their lengths,); (S,) where there is no batch.
        input_lengths: frames of each example (N,), or ().
        target_lengths: labels of each target (N,), or ().
        blank: the class that says nothing.
        reduction: `mean` divides each loss by the length of its target, and takes the mean of these.
        zero_infinity: make infinite losses, where there are too few frames, and their gradients 0.

    Raises:
        OpError: if shapes or lengths do not fit, or a target is no class.
        TraceError: in compiled functions, where targets are joined.
    """
    if reduction not in ("mean", "sum", "none"):
        raise OpError(f"{reduction} is not a valid value for reduction")
    if log_probs.ndim not in (2, 3):
        raise ShapeError(f"ctc_loss: wants log_probs (T, N, C) or (T, C), found {list(log_probs.shape)}")
    single = log_probs.ndim == 2
    x = layout.unsqueeze(log_probs, axes=(1,)) if single else log_probs
    if not 0 <= blank < x.shape[2]:
        raise OpError("blank must be in label range")
    frames = _lengths("input_lengths", input_lengths, x)
    labels = _lengths("target_lengths", target_lengths, x)
    losses = ctc_ops.ctc_loss(x, _padded(targets, labels, x, single), frames, labels, blank=blank)
    if getattr(x, "requires_grad", False):
        inside = pw.less(beside(x, np.arange(x.shape[0])[:, None]), layout.unsqueeze(frames, axes=(0,)))
        total = red.sum_(pw.where(layout.unsqueeze(inside, axes=(2,)), pw.exp(x), 0.0), axes=(0, 2))
        losses = pw.add(losses, pw.sub(total, total.detach()))
    if zero_infinity:
        losses = pw.where(pw.equal(losses, np.inf), 0.0, losses)
    if reduction == "mean":
        losses = pw.div(losses, pw.cast(pw.maximum(labels, 1), dtype=str(x.dtype)))
    return layout.squeeze(losses, axes=(0,)) if single and reduction == "none" else reduced(losses, reduction)


def _lengths(name: str, given: Any, x: Any) -> Any:
    """Return lengths as int64 (N,)."""
    if not hasattr(given, "dtype"):
        given = beside(x, np.asarray(given, np.int64))
    given = layout.reshape(pw.cast(given, dtype="int64"), shape=(-1,))
    if tuple(given.shape) != (x.shape[1],):
        raise ShapeError(f"{name} must be of size batch_size: wanted {x.shape[1]}, found {list(given.shape)}")
    array = elements(given)
    if array is not None and name == "input_lengths" and array.size and array.max() > x.shape[0]:
        raise ShapeError(f"Expected input_lengths to have value at most {x.shape[0]}, but got value {int(array.max())}")
    return given


def _padded(targets: Any, labels: Any, x: Any, single: bool) -> Any:
    """Return targets as int64 (N, S)."""
    targets = pw.cast(targets, dtype="int64")
    if targets.ndim == 2:
        return targets
    if targets.ndim != 1:
        raise ShapeError(f"ctc_loss: wants targets (N, S) or all of them joined, found {list(targets.shape)}")
    if single:
        return layout.unsqueeze(targets, axes=(0,))
    joined, lengths = (getattr(t, "_array", t) for t in (targets, labels))
    if any(hasattr(a, "interpret_priority") for a in (joined, lengths)):
        raise TraceError(
            "ctc_loss: targets that are joined cannot be told apart in a compiled function; pass them padded, (N, S)"
        )
    joined, lengths = map(to_numpy, (joined, lengths))
    if int(lengths.sum()) != joined.size:
        raise ShapeError(
            f"Expected tensor to have size {int(lengths.sum())} at dimension 0, but got size {joined.size} for "
            "argument #2 'targets'"
        )
    out = np.zeros((len(lengths), int(lengths.max(initial=0))), np.int64)
    start = 0
    for row, n in zip(out, lengths.tolist(), strict=True):
        row[:n] = joined[start : start + n].tolist()
        start += n
    return beside(x, out)


__all__ = ["ctc_loss"]
