"""Signals: the rows of the op table."""

from __future__ import annotations

import cmath
import math
from typing import Any

import numpy as np

from onnxgrad.ops.signal import cosine_window, dft, dft_grad, frames, mel_weights, overlap_add

from ..case import OpCase, rand


def transformed(x: np.ndarray, axis: int, length: int, inverse: bool, onesided: bool) -> np.ndarray:
    """Transform by the definition, one coefficient at a time."""
    x = np.moveaxis(x, axis, 0)
    z = x[..., 0] + (1j * x[..., 1] if x.shape[-1] == 2 else 0)
    read = length // 2 + 1 if inverse and onesided else length
    z = np.concatenate([z[:read], np.zeros((max(0, read - len(z)), *z.shape[1:]))])
    if inverse and onesided:
        z = np.concatenate(
            [
                z[:1].real,
                z[1 : (length + 1) // 2],
                z[length // 2 : read].real[: 1 - length % 2],
                z[1 : (length + 1) // 2][::-1].conj(),
            ]
        )
    turn = 2j * cmath.pi / length * (1 if inverse else -1)
    bins = length // 2 + 1 if onesided and not inverse else length
    y = np.array([sum(z[n] * cmath.exp(turn * n * k) for n in range(length)) for k in range(bins)])
    y = y / length if inverse else y
    pairs = np.stack([y.real, y.imag], axis=-1)[..., : 1 if inverse and onesided else 2]
    return np.moveaxis(pairs, 0, axis)


def row(shape: tuple[int, ...], axis: int, length: int, inverse: bool = False, onesided: bool = False) -> list[OpCase]:
    """Return the transform and its adjoint, by inner products."""
    how: dict[str, Any] = {"axis": axis, "length": length, "inverse": inverse, "onesided": onesided}
    x = rand(*shape)
    g = rand(*transformed(x, **how).shape, seed=1)

    def adjoint(g: np.ndarray) -> np.ndarray:
        basis = np.eye(x.size).reshape(x.size, *shape)
        return np.array([(transformed(e, **how) * g).sum() for e in basis]).reshape(shape)

    name = f"{'x'.join(map(str, shape))}-{length}" + "-inverse" * inverse + "-onesided" * onesided
    return [
        OpCase(dft, (x,), lambda x: transformed(x, **how), how, name=f"dft-{name}", symbolic=False),
        OpCase(
            dft_grad,
            (g,),
            adjoint,
            {**how, "size": shape[axis], "parts": shape[-1]},
            name=f"dft_grad-{name}",
            symbolic=False,
        ),
    ]


def cut(x: np.ndarray, length: int, step: int) -> np.ndarray:
    starts = range(0, x.shape[1] - length + 1, step)
    return np.stack([x[:, s : s + length] for s in starts], axis=1)


def added(g: np.ndarray, step: int, size: int) -> np.ndarray:
    y = np.zeros((g.shape[0], size, *g.shape[3:]))
    for f in range(g.shape[1]):
        y[:, f * step : f * step + g.shape[2]] += g[:, f]
    return y


def mel(bins: int, length: int, rate: int, low: float, high: float) -> np.ndarray:
    """Return triangles whose corners are evenly spaced in mel, rounded down to bins of the spectrum."""
    ends = [2595 * math.log10(1 + hertz / 700) for hertz in (low, high)]
    step = (ends[1] - ends[0]) / (bins + 2)
    corner = [int((length + 1) * 700 * (10 ** ((ends[0] + i * step) / 2595) - 1) // rate) for i in range(bins + 2)]
    y = np.zeros((length // 2 + 1, bins), np.float32)
    for i, (left, peak, right) in enumerate(zip(corner, corner[1:], corner[2:], strict=False)):
        for j in range(left, peak):
            y[j, i] = (j - left) / (peak - left)
        y[peak, i] = 1
        for j in range(peak + 1, right):
            y[j, i] = (right - j) / (right - peak)
    return y


def hann(size: np.ndarray) -> np.ndarray:
    n = int(size)
    return np.array([math.sin(math.pi * i / n) ** 2 for i in range(n)], np.float32)


CASES = [
    *row((2, 4, 1), 1, 4),
    *row((2, 4, 1), 1, 4, onesided=True),
    *row((3, 2, 2), 0, 5),
    *row((2, 5, 2), 1, 4, inverse=True),
    *row((1, 5, 1), 1, 3, onesided=True),
    *row((1, 3, 2), 1, 4, inverse=True, onesided=True),
    *row((1, 3, 2), 1, 5, inverse=True, onesided=True),
    OpCase(frames, (rand(2, 9),), lambda x: cut(x, 4, 2), {"length": 4, "step": 2}),
    OpCase(frames, (rand(1, 8, 2),), lambda x: cut(x, 3, 4), {"length": 3, "step": 4}),
    OpCase(overlap_add, (rand(2, 3, 4),), lambda g: added(g, 2, 9), {"step": 2, "size": 9}, symbolic=False),
    OpCase(overlap_add, (rand(1, 3, 5, 2),), lambda g: added(g, 3, 11), {"step": 3, "size": 11}, symbolic=False),
    OpCase(
        cosine_window,
        (np.array(8),),
        hann,
        {"coefficients": (0.5, 0.5)},
        order=0,
        tol=1e-6,
        name="cosine_window",
    ),
    OpCase(
        mel_weights,
        tuple(np.array(v) for v in (8, 64, 8000, 20.0, 4000.0)),
        mel,
        order=0,
        tol=1e-6,
        symbolic=False,
        name="mel_weights",
    ),
]
