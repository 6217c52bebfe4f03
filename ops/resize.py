"""Resizing by interpolation: along each axis a linear map, so `resize` and `resize_grad` are a closed family.

Source: ONNX Resize-19, Upsample-9; Keys 1981 (cubic convolution).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from .dims import Dim, Shape, show
from .errors import ShapeError
from .op import op
from .types import TensorType

Entries: TypeAlias = tuple[Callable[[], Any] | None, ...]
Factors: TypeAlias = tuple[float | None, ...]


@dataclass(frozen=True)
class Interpolation:
    """How the elements of the output are read from the input.

    Attributes:
        mode: `nearest`, `linear` or `cubic`.
        coordinates: ONNX's coordinate_transformation_mode; `align_scaled_corners` is `align_corners` where the size
            that a factor asks for is not rounded (Resize-19). PyTorch multiplies by old / new size where ONNX divides
            by new / old, and rounding can decide which element is nearest: `torch_half_pixel`, `torch_asymmetric` and
            `torch_half_pixel_for_nn` are its.
        nearest: `round_prefer_floor`, `round_prefer_ceil`, `floor`, `ceil`, or `simple` (Upsample: floor, and
            ceil where the axis shrinks).
        cubic_a: the free parameter of the cubic kernel.
        exclude_outside: weights outside the input are dropped, the rest scaled to 1; else the edge repeats.
        antialias: widen the filter where the axis shrinks.
        precision: the element type that coordinates are computed in.
    """

    mode: str = "nearest"
    coordinates: str = "half_pixel"
    nearest: str = "round_prefer_floor"
    cubic_a: float = -0.75
    exclude_outside: bool = False
    antialias: bool = False
    precision: str = "float32"


@op()
def resize(
    x: TensorType,
    scales: TensorType | None = None,
    roi: TensorType | None = None,
    *,
    axes: tuple[int, ...],
    how: Interpolation,
    size: Shape = (),
    factors: Factors = (),
    fit: str = "",
    outside: float | None = None,
) -> TensorType:
    """Resample x along axes.

    Shapes: any -> the same with the sizes of `axes` replaced.

    Args:
        x: the input.
        scales: one factor an axis, where only run time knows them; the sizes follow from them.
        roi: the starts, then the ends, of the part of each axis that `tf_crop_and_resize` reads, from 0 to 1.
        axes: which axes.
        how: the interpolation.
        size: the new sizes, without `scales`.
        factors: what coordinates are computed with; None or nothing stands for new size / old size.
        fit: `not_larger` or `not_smaller` than `size`, keeping the aspect ratio.
        outside: what `tf_crop_and_resize` gives where it reads outside the input.

    Raises:
        ShapeError: if sizes and axes do not fit.
    """
    if scales is not None:
        size = tuple(Dim.fresh() for _ in axes)
    if len(size) != len(axes) or any(not 0 <= a < x.ndim for a in axes):
        raise ShapeError(f"resize: sizes {show(size)} for axes {axes} of {show(x.shape)}")
    if fit:
        size = fitted(fit, tuple(x.shape[a] for a in axes), size)[0]
    return TensorType(x.dtype, _replaced(x.shape, axes, size))


def fitted(fit: str, old: Shape, wanted: Shape) -> tuple[Shape, float]:
    """Return the sizes, and the factor, that come closest to the wanted ones and keep the aspect ratio."""
    if any(isinstance(n, Dim) for n in (*old, *wanted)):
        return tuple(Dim.fresh() for _ in old), 1.0
    ratios = [int(w) / int(n) for w, n in zip(wanted, old, strict=True)]
    factor = min(ratios) if fit == "not_larger" else max(ratios)
    return tuple(math.floor(factor * int(n) + 0.5) for n in old), factor


def _replaced(shape: Shape, axes: tuple[int, ...], size: Shape) -> Shape:
    new = dict(zip(axes, size, strict=True))
    return tuple(new.get(a, n) for a, n in enumerate(shape))


@op()
def resize_grad(
    g: TensorType,
    scales: TensorType | None = None,
    roi: TensorType | None = None,
    *,
    axes: tuple[int, ...],
    how: Interpolation,
    size: Shape,
    factors: Factors = (),
    fit: str = "",
    wanted: Shape = (),
) -> TensorType:
    """Return the adjoint of `resize`.

    `size` holds the sizes of the axes of its input; `wanted` what `resize` was to fit, if it was.
    """
    return TensorType(g.dtype, _replaced(g.shape, axes, size))


@resize.defvjp
def _resize_vjp(
    g: Any,
    y: Any,
    x: Any,
    scales: Any = None,
    roi: Any = None,
    *,
    size: Shape = (),
    fit: str = "",
    outside: float | None = None,
    **how: Any,
) -> Entries:
    old = tuple(x.shape[a] for a in how["axes"])
    return lambda: resize_grad(g, scales, roi, size=old, fit=fit, wanted=size if fit else (), **how), None, None


@resize_grad.defvjp
def _resize_grad_vjp(
    u: Any, y: Any, g: Any, scales: Any = None, roi: Any = None, *, size: Shape, wanted: Shape = (), **how: Any
) -> Entries:
    new = () if scales is not None else wanted or tuple(g.shape[a] for a in how["axes"])
    return lambda: resize(u, scales, roi, size=new, **how), None, None
