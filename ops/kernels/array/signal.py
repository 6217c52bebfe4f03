"""Signals, by NumPy's fast Fourier transform."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...budget import check_size
from ...op import namespace
from ...signal import cosine_window, dft, dft_grad, dft_length, frames, mel_weights, overlap_add
from ...types import Array
from .host import on_host


@frames.kernel("array", half="native")
def _frames(x: Array, *, length: int, step: int) -> Array:
    xp = namespace(x)
    view = xp.lib.stride_tricks.sliding_window_view(x, length, axis=1)[:, ::step]
    return xp.moveaxis(view, -1, 2)


@overlap_add.kernel("array")
def _overlap_add(g: Array, *, step: int, size: int) -> Array:
    xp = namespace(g)
    b, count, length, *rest = g.shape
    hops = -(-length // step)
    y = xp.zeros((b, max(count + hops, -(-size // step)), step, *rest), g.dtype)
    for hop in range(hops):
        part = g[:, :, hop * step : (hop + 1) * step]
        y[:, hop : hop + count, : part.shape[2]] += part
    return y.reshape(b, -1, *rest)[:, :size]


def _complex(x: Array) -> Array:
    """Return pairs along the last axis as complex numbers."""
    return x[..., 0] if x.shape[-1] == 1 else x[..., 0] + 1j * x[..., 1]


def _pairs(z: Array, parts: int, dtype: Any) -> Array:
    return np.stack([z.real, z.imag][:parts], axis=-1).astype(dtype, copy=False)


def _sized(x: Array, axis: int, n: int) -> Array:
    """Return x cut or padded with zeros to n elements along an axis."""
    if x.shape[axis] >= n:
        return x[(slice(None),) * axis + (slice(n),)]
    return np.pad(x, [(0, n - x.shape[axis]) if i == axis else (0, 0) for i in range(x.ndim)])


@dft.kernel("array")
@on_host
def _dft(x: Array, *, axis: int, length: int | None = None, inverse: bool = False, onesided: bool = False) -> Array:
    length = int(dft_length(x.shape[axis], length, inverse and onesided))
    bins = length // 2 + 1
    z = _complex(_sized(x, axis, bins if onesided and inverse else length))
    if inverse:
        if onesided:
            return np.fft.irfft(z, n=length, axis=axis).astype(x.dtype, copy=False)[..., None]
        return _pairs(np.fft.ifft(z, axis=axis), 2, x.dtype)
    if onesided and x.shape[-1] == 1:
        return _pairs(np.fft.rfft(z, axis=axis), 2, x.dtype)
    z = np.fft.fft(z, axis=axis)
    return _pairs(_sized(z, axis, bins) if onesided else z, 2, x.dtype)


@dft_grad.kernel("array")
@on_host
def _dft_grad(
    g: Array,
    *,
    axis: int,
    size: int,
    parts: int,
    length: int | None = None,
    inverse: bool = False,
    onesided: bool = False,
) -> Array:
    length = int(dft_length(size, length, inverse and onesided))
    if inverse and onesided:
        z = np.fft.rfft(g[..., 0], axis=axis)
        # Coefficients stand for their mirror too, but for the first, and the middle one of an even length.
        mirrored = np.full(length // 2 + 1, 2.0)
        mirrored[0] = 1
        if length % 2 == 0:
            mirrored[-1] = 1
        z = z * (mirrored / length).astype(g.dtype).reshape(-1, *(1,) * (z.ndim - 1 - axis))
    elif inverse:
        z = np.fft.fft(_complex(g), axis=axis) / length
    else:
        z = np.fft.ifft(_sized(_complex(g), axis, length), axis=axis) * length
    return _sized(_pairs(z, parts, g.dtype), axis, size)


@cosine_window.kernel("array", half="native")
def _cosine_window(
    size: Array, *, coefficients: tuple[float, ...], periodic: bool = True, dtype: str = "float32"
) -> Array:
    xp = namespace(size)
    n = int(size.reshape(-1)[0])
    check_size("cosine_window", (n,), 8)
    angle = 2 * np.pi * np.arange(n) / max(1, n if periodic else n - 1)
    window = sum((-1) ** k * c * np.cos(k * angle) for k, c in enumerate(coefficients))
    return xp.asarray(window, dtype=dtype)


@mel_weights.kernel("array", half="native")
def _mel_weights(bins: Array, length: Array, rate: Array, low: Array, high: Array, *, dtype: str = "float32") -> Array:
    xp = namespace(bins)
    count, n, hertz = (int(v.reshape(-1)[0]) for v in (bins, length, rate))
    ends = [2595 * np.log10(1 + float(v.reshape(-1)[0]) / 700) for v in (low, high)]
    mel = np.arange(count + 2) * ((ends[1] - ends[0]) / (count + 2)) + ends[0]
    corner = np.floor((n + 1) * (700 * (10 ** (mel / 2595) - 1)) / hertz).astype(np.int64)
    left, peak, right = corner[:-2], corner[1:-1], corner[2:]
    at = np.arange(n // 2 + 1)[:, None]
    rise = np.where((at >= left) & (at <= peak), (at - left) / np.maximum(1, peak - left), 0)
    fall = np.where((at >= peak) & (at < right), (right - at) / np.maximum(1, right - peak), 0)
    weights = np.where((peak == left) & (at == peak), 1, np.where(at >= peak, np.maximum(fall, rise), rise))
    return xp.asarray(weights, dtype=dtype)
