"""Signals: overlapping frames, the discrete Fourier transform, windows and mel weights.

Complex numbers are pairs along the last axis. `frames` and `overlap_add`, `dft` and `dft_grad` are adjoint.
Source: ONNX DFT-20, STFT-17, HannWindow-17, MelWeightMatrix-17.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from . import layout
from .dims import Dim, DimLike, show
from .errors import ShapeError
from .op import op
from .pointwise import mul
from .types import TensorType

Entries: TypeAlias = tuple[Callable[[], Any] | None, ...]


@op()
def frames(x: TensorType, *, length: DimLike, step: DimLike) -> TensorType:
    """Cut axis 1 into overlapping frames; a rest that fills none is dropped.

    Shapes: (B, L, *R) -> (B, (L - length) // step + 1, length, *R).

    Raises:
        ShapeError: if x is shorter than one frame.
    """
    room = x.shape[1] - length
    if isinstance(room, int) and room < 0:
        raise ShapeError(f"frames: a frame of {length} is longer than the signal, {show(x.shape)}")
    return TensorType(x.dtype, (x.shape[0], room // step + 1, length, *x.shape[2:]))


@op()
def overlap_add(g: TensorType, *, step: DimLike, size: DimLike) -> TensorType:
    """Add frames up where they were cut from: the adjoint of `frames`.

    Shapes: (B, F, length, *R) -> (B, size, *R).
    """
    return TensorType(g.dtype, (g.shape[0], size, *g.shape[3:]))


@frames.defvjp
def _frames_vjp(g: Any, y: Any, x: Any, *, length: DimLike, step: DimLike) -> Entries:
    return (lambda: overlap_add(g, step=step, size=x.shape[1]),)


@overlap_add.defvjp
def _overlap_add_vjp(u: Any, y: Any, g: Any, *, step: DimLike, size: DimLike) -> Entries:
    return (lambda: frames(u, length=g.shape[2], step=step),)


@op()
def dft(
    x: TensorType, *, axis: int, length: DimLike | None = None, inverse: bool = False, onesided: bool = False
) -> TensorType:
    """Discrete Fourier transform along an axis, which is cut or padded with zeros to a length first.

    Shapes: (..., n, ..., 1 or 2) -> (..., m, ..., 2); m is length, or length // 2 + 1 where it is onesided.
    A onesided inverse reads length // 2 + 1 coefficients of a real signal: -> (..., length, ..., 1).

    Raises:
        ShapeError: if the last axis does not hold numbers or pairs.
    """
    parts = x.shape[-1]
    if isinstance(parts, int) and parts not in (1, 2):
        raise ShapeError(f"dft: the last axis has size 1 (real) or 2 (complex), found {show(x.shape)}")
    length = dft_length(x.shape[axis], length, inverse and onesided)
    shape = list(x.shape)
    shape[axis] = length // 2 + 1 if onesided and not inverse else length
    shape[-1] = 1 if onesided and inverse else 2
    return TensorType(x.dtype, tuple(shape))


def dft_length(n: DimLike, length: DimLike | None, from_half: bool) -> DimLike:
    """Return the length of a transform of n elements: as given, else all of them and their mirror where it counts."""
    return length if length is not None else 2 * (n - 1) if from_half else n


@op()
def dft_grad(
    g: TensorType,
    *,
    axis: int,
    size: DimLike,
    parts: DimLike,
    length: DimLike | None = None,
    inverse: bool = False,
    onesided: bool = False,
) -> TensorType:
    """Return the adjoint of `dft`, for an input of `size` elements of `parts` numbers."""
    shape = list(g.shape)
    shape[axis], shape[-1] = size, parts
    return TensorType(g.dtype, tuple(shape))


@dft.defvjp
def _dft_vjp(g: Any, y: Any, x: Any, *, axis: int, **how: Any) -> Entries:
    return (lambda: dft_grad(g, axis=axis, size=x.shape[axis], parts=x.shape[-1], **how),)


@dft_grad.defvjp
def _dft_grad_vjp(u: Any, y: Any, g: Any, *, size: DimLike, parts: DimLike, **how: Any) -> Entries:
    return (lambda: dft(u, **how),)


def stft(x: Any, window: Any = None, *, length: DimLike, step: DimLike, onesided: bool = True) -> Any:
    """Return the Fourier transforms of overlapping frames under a window.

    Shapes: (B, L, 1 or 2), (length,) -> (B, F, length // 2 + 1 or length, 2).
    """
    cut = frames(x, length=length, step=step)
    if window is not None:
        cut = mul(cut, layout.unsqueeze(window, axes=(1,)))
    return dft(cut, axis=2, length=length, onesided=onesided)


def _known(t: Any) -> DimLike:
    """Return the value of an integer scalar where it is known, else a fresh symbol."""
    return t.contents[0] if getattr(t, "contents", None) else Dim.fresh()


@op()
def cosine_window(
    size: TensorType, *, coefficients: tuple[float, ...], periodic: bool = True, dtype: str = "float32"
) -> TensorType:
    """Return a window that is a sum of cosines, sum_k (-1)^k c_k cos(2 pi k i / N).

    N is size where it is periodic, else size - 1.
    """
    return TensorType(np.dtype(dtype), (_known(size),))


@op()
def mel_weights(
    bins: TensorType,
    length: TensorType,
    rate: TensorType,
    low: TensorType,
    high: TensorType,
    *,
    dtype: str = "float32",
) -> TensorType:
    """Return the weights that turn a onesided spectrum of `length` samples into triangular mel bands.

    Shapes: scalars -> (length // 2 + 1, bins).
    """
    return TensorType(np.dtype(dtype), (_known(length) // 2 + 1, _known(bins)))
