"""Emitters: resizing."""

from __future__ import annotations

from typing import Any

import numpy as np

from ....ops import resize as ops
from ....ops.dims import DimLike, Shape
from ....runtime.graph.graph import Value
from ..ops.resize import scaled_size
from .registry import emits
from .writer import Writer

PYTORCH: dict[str, tuple[str, dict[str, str]]] = {
    "torch_half_pixel": ("half_pixel", {}),
    "torch_asymmetric": ("asymmetric", {}),
    "torch_half_pixel_for_nn": ("half_pixel", {"floor": "round_prefer_ceil"}),
}
"""PyTorch's coordinates by ONNX's names, and which element of two is nearest then."""


@emits(ops.resize)
def resize(
    w: Writer, x: Value, scales: Any = None, roi: Any = None, *, axes: tuple[int, ...], how: ops.Interpolation,
    size: Shape = (), factors: ops.Factors = (), fit: str = "", outside: float | None = None,
) -> Any:  # fmt: skip
    """Resize: by its factors where they make the size, else to the size."""
    by = _by_factors(x, scales, axes, size, factors, fit)
    coordinates, nearer = PYTORCH.get(how.coordinates, (how.coordinates, {}))
    nearest_mode = nearer.get(how.nearest, "floor" if how.nearest == "simple" else how.nearest)
    if coordinates == "align_scaled_corners" and by is not None:
        coordinates = "align_corners"
    if by is None and (coordinates == "align_scaled_corners" or not _implied(x, axes, size, factors, coordinates)):
        return None
    some = fit or roi is not None or scales is not None
    every = tuple(range(x.ndim))
    wanted: dict[int, Any] = dict(zip(axes, size if by is None else by if isinstance(by, tuple) else (), strict=False))
    inputs: tuple[Any, ...]
    if by is None:
        sizes = w.ints(size) if some else w.ints(wanted.get(i, n) for i, n in enumerate(x.shape))
        inputs = (x, roi, None, sizes)
    elif isinstance(by, tuple):
        inputs = (x, roi, np.array(by if some else [wanted.get(i, 1.0) for i in every], np.float32))
    else:
        inputs = (x, roi, by)
    cubic, nearest = how.mode == "cubic", how.mode == "nearest"
    return w.add(
        "Resize", *inputs, mode=how.mode, coordinate_transformation_mode=coordinates,
        axes=axes if some and axes != every else None,
        keep_aspect_ratio_policy=fit or None,
        antialias=1 if how.antialias else None,
        cubic_coeff_a=how.cubic_a if cubic else None,
        nearest_mode=nearest_mode if nearest else None,
        exclude_outside=1 if how.exclude_outside else None,
        extrapolation_value=outside if coordinates == "tf_crop_and_resize" else None,
    )  # fmt: skip


def _by_factors(
    x: Value, scales: Any, axes: tuple[int, ...], size: Shape, factors: ops.Factors, fit: str
) -> Value | tuple[float, ...] | None:
    """Return what the axes are multiplied by, None where only the size says it."""
    if scales is not None:
        return scales  # type: ignore[no-any-return]
    known = tuple(f for f in factors if f is not None)
    if fit or len(known) != len(axes):
        return None
    made: Shape = tuple(scaled_size(x.shape[a], f) for a, f in zip(axes, known, strict=True))
    return known if made == tuple(size) else None


def _implied(x: Value, axes: tuple[int, ...], size: Shape, factors: ops.Factors, coordinates: str) -> bool:
    """Whether coordinates computed with these factors are those computed with what the sizes make of them."""

    def same(old: DimLike, new: DimLike, factor: float | None) -> bool:
        return factor is None or (isinstance(old, int) and isinstance(new, int) and new == old * factor)

    pairs = zip(axes, size, factors, strict=False)
    return coordinates == "align_corners" or all(same(x.shape[a], n, f) for a, n, f in pairs)
