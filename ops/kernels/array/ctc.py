"""Connectionist temporal classification: forward and backward sums over all paths, in logarithms.

A path moves along the target with blanks between its labels: P = 2 S + 1 places. From one frame to the next it stays,
goes on by one, or by two over a blank between labels that differ. Sums are float64: they are as large as those of the
whole sequence, and what counts are small differences of them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ...ctc import ctc_loss, ctc_visits
from ...errors import ShapeError
from ...index import scatter_elements
from ...op import namespace
from ...types import Array


class Places(NamedTuple):
    """The places of paths.

    Attributes:
        classes: the class of each place, (N, P).
        said: its log-probability in each frame, (T, N, P).
        skips: whether a path may come to it over the blank before it, (N, P).
        last: the last place of each target, (N,).
        frames: how many frames there are, (N,).
    """

    classes: Array
    said: Array
    skips: Array
    last: Array
    frames: Array


def _places(log_probs: Array, targets: Array, frames: Array, labels: Array, blank: int) -> Places:
    xp = namespace(log_probs)
    T, N, C = log_probs.shape
    if not 0 <= blank < C:
        raise ShapeError("blank must be in label range")
    S = targets.shape[1]
    used = xp.arange(S) < labels[:, None]
    if bool((used & ((targets < 0) | (targets >= C))).any()):
        raise ShapeError(f"ctc_loss: a target is no class: wanted 0 to {C - 1}, found {targets[used].tolist()}")
    if bool((labels > S).any()) or bool((labels < 0).any()):
        raise ShapeError(f"ctc_loss: target_lengths are {labels.tolist()}, but targets are {S} long")
    if bool((frames > T).any()) or bool((frames < 0).any()):
        raise ShapeError(f"Expected input_lengths to have value at most {T}, but got value {int(frames.max())}")
    classes = xp.full((N, 2 * S + 1), blank, np.int64)
    classes[:, 1::2] = xp.where(used, targets, blank)
    skips = xp.zeros((N, 2 * S + 1), bool)
    skips[:, 3::2] = classes[:, 3::2] != classes[:, 1:-2:2]
    at = xp.broadcast_to(classes, (T, *classes.shape))
    said = xp.take_along_axis(log_probs, at, 2).astype(np.float64)
    return Places(classes, said, skips, 2 * labels, frames)


def _moved(x: Array, by: int) -> Array:
    """Return x with its last axis moved up (by > 0) or down, and no path where nothing was."""
    out = np.full_like(x, -np.inf) if isinstance(x, np.ndarray) else namespace(x).full_like(x, -np.inf)
    if by > 0:
        out[..., by:] = x[..., :-by]
    else:
        out[..., :by] = x[..., -by:]
    return out


def _forward(p: Places) -> Array:
    """Return the logarithm of the sum over all beginnings that are at a place in a frame, that frame included."""
    xp = namespace(p.said)
    sums = xp.full_like(p.said, -np.inf)
    if not len(sums):
        return sums
    sums[0, :, :2] = p.said[0, :, :2]
    for t in range(1, len(sums)):
        before = sums[t - 1]
        total = xp.logaddexp(before, _moved(before, 1))
        sums[t] = xp.logaddexp(total, xp.where(p.skips, _moved(before, 2), -np.inf)) + p.said[t]
    return sums


def _backward(p: Places) -> Array:
    """Return the logarithm of the sum over all endings of paths that are at a place in a frame, that frame excluded."""
    xp = namespace(p.said)
    sums = xp.full_like(p.said, -np.inf)
    place = xp.arange(sums.shape[2])
    ends = (place == p.last[:, None]) | (place == p.last[:, None] - 1)
    after = sums[0] if len(sums) else None
    for t in range(len(sums) - 1, -1, -1):
        if t + 1 < len(sums):
            coming = sums[t + 1] + p.said[t + 1]
            total = xp.logaddexp(coming, _moved(coming, -1))
            after = xp.logaddexp(total, _moved(xp.where(p.skips, coming, -np.inf), -2))
        sums[t] = xp.where((p.frames == t + 1)[:, None], xp.where(ends, 0.0, -np.inf), after)
    return sums


def _losses(p: Places, forward: Array) -> Array:
    """Return minus the sum over the ends of complete paths."""
    xp = namespace(forward)
    batch = xp.arange(len(p.last))
    if not len(forward):
        return xp.where(p.last == 0, 0.0, np.inf)
    final = forward[xp.maximum(p.frames - 1, 0), batch]
    on_label = xp.where(p.last > 0, final[batch, xp.maximum(p.last - 1, 0)], -np.inf)
    loss = -xp.logaddexp(final[batch, p.last], on_label)
    return xp.where(p.frames > 0, loss, xp.where(p.last == 0, 0.0, np.inf))


@ctc_loss.kernel("array")
def _ctc_loss(log_probs: Array, targets: Array, frames: Array, labels: Array, *, blank: int = 0) -> Array:
    with np.errstate(all="ignore"):
        p = _places(log_probs, targets, frames, labels, blank)
        return _losses(p, _forward(p)).astype(log_probs.dtype)


@ctc_visits.kernel("array")
def _ctc_visits(log_probs: Array, targets: Array, frames: Array, labels: Array, *, blank: int = 0) -> Array:
    xp = namespace(log_probs)
    with np.errstate(all="ignore"):
        p = _places(log_probs, targets, frames, labels, blank)
        forward = _forward(p)
        losses = _losses(p, forward)
        shares = xp.exp(forward + _backward(p) + losses[:, None])
        inside = (xp.arange(len(shares))[:, None] < p.frames)[..., None]
        shares = xp.where(inside & xp.isinf(losses)[:, None], np.nan, xp.where(inside, shares, 0.0))
        at: Any = xp.broadcast_to(p.classes, shares.shape)
        empty = xp.zeros_like(log_probs)
        added: Array = scatter_elements(empty, at, shares.astype(log_probs.dtype), axis=2, reduction="add")
        return xp.where(inside & xp.isinf(losses)[:, None], np.nan, added).astype(log_probs.dtype)
