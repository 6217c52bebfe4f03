"""Heat maps resized bilinearly, as by PyTorch's `interpolate(mode="bilinear", align_corners=False)`, and blurred."""

from __future__ import annotations

import numpy as np

from ...ops.types import Array


def resize(values: Array, size: tuple[int, ...]) -> Array:
    """Return an array of this size, interpolated linearly along every axis; pixel centres stand at halves."""
    for axis, (found, wanted) in enumerate(zip(values.shape, size, strict=True)):
        at = np.clip((np.arange(wanted) + 0.5) * found / wanted - 0.5, 0, found - 1)
        low = np.floor(at).astype(np.int64)
        high = np.minimum(low + 1, found - 1)
        part = (at - low).reshape(-1, *[1] * (values.ndim - axis - 1))
        values = np.take(values, low, axis) * (1 - part) + np.take(values, high, axis) * part
    return values


def blur(values: Array, sigma: float) -> Array:
    """Return a picture smoothed by a Gaussian of this standard deviation in pixels; borders repeat."""
    reach = int(np.ceil(3 * sigma))
    if reach < 1:
        return values
    bell = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    bell /= bell.sum()
    for axis in range(values.ndim):
        padding = [(reach, reach) if a == axis else (0, 0) for a in range(values.ndim)]
        windows = np.lib.stride_tricks.sliding_window_view(np.pad(values, padding, mode="edge"), bell.size, axis)
        values = windows @ bell
    return values


def spread_of(values: Array) -> float:
    """Return the 99th percentile of magnitudes, or the largest where that is zero."""
    high = float(np.percentile(values, 99))
    return high if high > 0 else float(values.max(initial=0.0))
