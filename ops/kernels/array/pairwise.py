"""Pairwise coupling: a loop over sweeps and classes, over all rows at once."""

from __future__ import annotations

from ...op import namespace
from ...pairwise import pairs, pairwise_coupling
from ...types import Array

SWEEPS, TOLERANCE = 100, 0.005
"""At most so many sweeps, and when to stop: libsvm's own."""


@pairwise_coupling.kernel("array")
def _pairwise_coupling(p: Array, *, classes: int) -> Array:
    xp = namespace(p)
    first, second = (xp.asarray(i) for i in pairs(classes))
    r = xp.zeros((len(p), classes, classes), p.dtype)
    r[:, first, second], r[:, second, first] = p, 1 - p
    q = -r * r.transpose(0, 2, 1)
    diagonal = xp.arange(classes)
    own = (r * r).sum(axis=1)
    q[:, diagonal, diagonal] = own
    out = xp.full((len(p), classes), 1 / classes, p.dtype)
    for _ in range(max(SWEEPS, classes) if classes else 0):
        qp = (q @ out[:, :, None])[:, :, 0]
        total = (out * qp).sum(axis=1)
        going = abs(qp - total[:, None]).max(axis=1) >= TOLERANCE / classes
        if not bool(going.any()):
            break
        for t in range(classes):
            step = xp.where(going, (total - qp[:, t]) / own[:, t], 0)
            out[:, t] += step
            total = (total + step * (step * own[:, t] + 2 * qp[:, t])) / (1 + step) ** 2
            qp = (qp + step[:, None] * q[:, t]) / (1 + step)[:, None]
            out /= (1 + step)[:, None]
    return out
