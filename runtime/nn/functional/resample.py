"""Images of other sizes, and images read at positions between their elements."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from ....ops import layout, matmul, resize as resize_ops, sampling
from ....ops.errors import DTypeError, OpError, ShapeError
from ....ops.resize import Interpolation
from ....ops.types import is_float
from ...amp.casting import in_widest
from .adaptive import adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d
from .spatial import beside, known, scalar_type, whole

_RANKS = {"linear": 3, "bilinear": 4, "bicubic": 4, "trilinear": 5}
_AREA = (adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d)


def interpolate(
    input: Any, size: Any = None, scale_factor: Any = None, mode: str = "nearest", align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None, antialias: bool = False,
) -> Any:  # fmt: skip
    """Resize the spatial axes.

    Args:
        input: the images.
        size: the new sizes.
        scale_factor: or how many times the old ones, rounded down.
        mode: `nearest` and `nearest-exact`, `linear`, `bilinear` and `trilinear` (for one, two and three axes),
            `bicubic`, `area`.
        align_corners: whether the centres of the outermost elements stay where they are, else their edges do.
        recompute_scale_factor: whether the factor that positions are computed with follows from the sizes.
        antialias: whether filters widen where axes shrink; for `bilinear` and `bicubic`.

    Shapes: (N, C, *S) -> (N, C, *size).

    Raises:
        OpError: if arguments do not go together.
        ShapeError: if ranks or sizes do not fit.
    Source: Keys 1981.
    """
    if mode in ("nearest", "area", "nearest-exact") and align_corners is not None:
        raise OpError(
            "align_corners option can only be set with the interpolating modes: linear | bilinear | bicubic | trilinear"
        )
    sizes, factors = _new_sizes(input, size, scale_factor)
    if recompute_scale_factor and size is not None:
        raise OpError("recompute_scale_factor is not meaningful with an explicit size.")
    if recompute_scale_factor or mode == "area":
        factors = None
    if antialias and not (mode in ("bilinear", "bicubic") and input.ndim == 4):
        raise OpError(
            "Anti-alias option is restricted to bilinear, bicubic, and lanczos modes and requires a 4-D tensor as input"
        )
    _check_rank(input, mode)
    spatial = tuple(input.shape[2:])
    if known(spatial) and known(sizes) and min(*spatial, *sizes) < 1:
        raise ShapeError(
            "Input and output sizes should be greater than 0, but got "
            f"input ({_named(spatial)}) output ({_named(sizes)})"
        )
    if mode == "area":
        return _AREA[input.ndim - 3](input, sizes)
    if not mode.startswith("nearest") and not is_float(input.dtype):
        raise DTypeError(f"interpolate: mode {mode} is not implemented for {input.dtype}")
    how, factors = _interpolation(input, mode, bool(align_corners), antialias, sizes, factors)
    axes = tuple(range(2, input.ndim))
    return resize_ops.resize(input, axes=axes, how=how, size=sizes, factors=factors or ())


def _interpolation(
    input: Any, mode: str, align_corners: bool, antialias: bool, sizes: Sequence[Any], factors: Any
) -> tuple[Interpolation, Any]:
    """Return how elements are read, and what positions are computed with."""
    if mode == "nearest":
        return Interpolation("nearest", "torch_asymmetric", "floor"), factors
    if mode == "nearest-exact":
        return Interpolation("nearest", "torch_half_pixel_for_nn", "floor"), factors
    kind = "cubic" if mode == "bicubic" else "linear"
    precision = "float64" if input.dtype == np.dtype(np.float64) else "float32"
    spans = list(zip(input.shape[2:], sizes, strict=True))
    if factors is not None and (antialias or kind == "linear"):
        # PyTorch copies an axis whose size stays, whatever the factor is.
        factors = tuple(None if s == o else f for (s, o), f in zip(spans, factors, strict=True))
    if antialias:
        if align_corners:
            factors = tuple((o - 1) / (s - 1) if s > 1 < o else math.inf for s, o in spans)
        a = -0.5 if kind == "cubic" else -0.75
        return Interpolation(
            kind, "torch_half_pixel", cubic_a=a, exclude_outside=True, antialias=True, precision=precision
        ), factors
    if align_corners:
        return Interpolation(kind, "align_corners", precision=precision), None
    return Interpolation(kind, "torch_half_pixel", precision=precision), factors


def _new_sizes(input: Any, size: Any, scale_factor: Any) -> tuple[tuple[Any, ...], tuple[float, ...] | None]:
    """Return the new sizes and the factors that were given."""
    old = tuple(input.shape[2:])
    n = len(old)
    if size is not None and scale_factor is not None:
        raise OpError("only one of size or scale_factor should be defined")
    if size is not None:
        if isinstance(size, tuple | list):
            if len(size) != n:
                raise ShapeError(
                    "Input and output must have the same number of spatial dimensions, but got input with spatial "
                    f"dimensions of {list(old)} and output size of {size}. Please provide input tensor in (N, C, d1, "
                    "d2, ...,dK) format and output size in (o1, o2, ...,oK) format."
                )
        else:
            size = (size,) * n
        if any(isinstance(s, float | str) for s in size):
            raise TypeError(
                "expected size to be one of int or Tuple[int] or Tuple[int, int] or Tuple[int, int, int], but got size "
                f"with types {[type(s) for s in size]}"
            )
        return tuple(whole(s) for s in size), None
    if scale_factor is None:
        raise OpError("either size or scale_factor should be defined")
    if isinstance(scale_factor, tuple | list):
        if len(scale_factor) != n:
            raise ShapeError(
                "Input and scale_factor must have the same number of spatial dimensions, but got input with spatial "
                f"dimensions of {list(old)} and scale_factor of shape {scale_factor}. Please provide input tensor in "
                "(N, C, d1, d2, ...,dK) format and scale_factor in (s1, s2, ...,sK) format."
            )
        factors = tuple(float(f) for f in scale_factor)
    else:
        factors = (float(scale_factor),) * n
    return tuple(
        s * int(f) if f.is_integer() else int(float(s) * f) for s, f in zip(old, factors, strict=True)
    ), factors


def _check_rank(input: Any, mode: str) -> None:
    wanted = _RANKS.get(mode)
    if wanted is not None and wanted != input.ndim and input.ndim in (3, 4, 5) and mode != "bicubic":
        raise ShapeError(f"Got {input.ndim}D input, but {mode} mode needs {wanted}D input")
    if input.ndim not in (3, 4, 5) or mode not in ("nearest", "nearest-exact", "area", *_RANKS) or (
        mode == "bicubic" and input.ndim != 4
    ):  # fmt: skip
        raise OpError(
            f"Input Error: Only 3D, 4D and 5D input Tensors supported (got {input.ndim}D) for the modes: nearest | "
            f"linear | bilinear | bicubic | trilinear | lanczos | area | nearest-exact (got {mode})"
        )


def _named(spatial: Sequence[Any]) -> str:
    return ", ".join(f"{name}: {s}" for name, s in zip("DHW"[3 - len(spatial) :], spatial, strict=True))


def upsample(
    input: Any, size: Any = None, scale_factor: Any = None, mode: str = "nearest", align_corners: bool | None = None
) -> Any:
    """Resize the spatial axes, by the name that PyTorch has given up for `interpolate`."""
    warnings.warn("`nn.functional.upsample` is deprecated. Use `nn.functional.interpolate` instead.", stacklevel=2)
    return interpolate(input, size, scale_factor, mode, align_corners)


def upsample_nearest(input: Any, size: Any = None, scale_factor: Any = None) -> Any:
    """Resize the spatial axes by `interpolate` with mode `nearest`."""
    warnings.warn(
        "`nn.functional.upsample_nearest` is deprecated. Use `nn.functional.interpolate` instead.", stacklevel=2
    )
    return interpolate(input, size, scale_factor, mode="nearest")


def upsample_bilinear(input: Any, size: Any = None, scale_factor: Any = None) -> Any:
    """Resize the spatial axes by `interpolate` with mode `bilinear` and aligned corners."""
    warnings.warn(
        "`nn.functional.upsample_bilinear` is deprecated. Use `nn.functional.interpolate` instead.", stacklevel=2
    )
    return interpolate(input, size, scale_factor, mode="bilinear", align_corners=True)


_CORNERS = (
    "Default grid_sample and affine_grid behavior has changed to align_corners=False since 1.3.0. Please specify "
    "align_corners=True if the old behavior is desired. See the documentation of grid_sample for details."
)


def grid_sample(
    input: Any, grid: Any, mode: str = "bilinear", padding_mode: str = "zeros", align_corners: bool | None = None
) -> Any:
    """Read images at the positions of a grid, which names the last axis first and goes from -1 to 1.

    Args:
        input: the images.
        grid: the positions.
        mode: `bilinear`, `nearest` or `bicubic`.
        padding_mode: what is read outside: `zeros`, the `border`, or its `reflection`.
        align_corners: whether -1 and 1 are the centres of the outermost elements, else their edges.

    Shapes: (N, C, *S), (N, *O, D) -> (N, C, *O), of two or three spatial axes.

    Raises:
        OpError: if a mode is not one of these.
        ShapeError: if shapes do not fit.
    Source: Jaderberg et al. 2015.
    """
    if mode not in ("bilinear", "nearest", "bicubic"):
        raise OpError(
            f"nn.functional.grid_sample(): expected mode to be 'bilinear', 'nearest' or 'bicubic', but got: '{mode}'"
        )
    if padding_mode not in ("zeros", "border", "reflection"):
        raise OpError(
            "nn.functional.grid_sample(): expected padding_mode to be 'zeros', 'border', or 'reflection', but got: "
            f"'{padding_mode}'"
        )
    if align_corners is None:
        warnings.warn(_CORNERS, stacklevel=2)
    shapes = f"input with sizes {list(input.shape)} and grid with sizes {list(grid.shape)}"
    if input.ndim not in (4, 5) or grid.ndim != input.ndim:
        raise ShapeError(
            f"grid_sampler(): expected {4 if input.ndim == 4 else 5}D input and grid with same number of dimensions, "
            f"but got {shapes}"
        )
    if known((input.shape[0], grid.shape[0])) and input.shape[0] != grid.shape[0]:
        raise ShapeError(f"grid_sampler(): expected grid and input to have same batch size, but got {shapes}")
    if known(grid.shape[-1:]) and grid.shape[-1] != input.ndim - 2:
        raise ShapeError(
            f"grid_sampler(): expected grid to have size {input.ndim - 2} in last dimension, but got grid with sizes "
            f"{list(grid.shape)}"
        )
    if mode == "bicubic" and input.ndim == 5:
        raise OpError("grid_sampler(): bicubic interpolation only supports 4D input")
    input, grid = in_widest(input, grid)
    if input.dtype != grid.dtype:
        raise DTypeError(
            f"grid_sampler(): expected scalar type {scalar_type(input.dtype)} but found {scalar_type(grid.dtype)}"
        )
    kind = {"bilinear": "linear", "nearest": "nearest", "bicubic": "cubic"}[mode]
    return sampling.grid_sample(input, grid, mode=kind, padding=padding_mode, align_corners=bool(align_corners))


def affine_grid(theta: Any, size: Sequence[int], align_corners: bool | None = None) -> Any:
    """Return the grid at which `grid_sample` reads images moved by affine maps.

    Args:
        theta: the maps, of positions in the result to positions in the image.
        size: of the result: (N, C, H, W) or (N, C, D, H, W).
        align_corners: whether -1 and 1 are the centres of the outermost elements, else their edges.

    Shapes: (N, 2, 3) -> (N, H, W, 2), or (N, 3, 4) -> (N, D, H, W, 3).

    Raises:
        DTypeError: if the maps are no floats.
        ShapeError: if shapes do not fit.
    """
    size = tuple(int(s) for s in size)
    if align_corners is None:
        warnings.warn(_CORNERS, stacklevel=2)
    if not is_float(theta.dtype):
        raise DTypeError(f"Expected theta to have floating point type, but got {theta.dtype}")
    n = len(size) - 2
    if n not in (2, 3):
        raise ShapeError(
            "affine_grid only supports 4D and 5D sizes, for 2D and 3D affine transforms, respectively. "
            f"Got size {size}."
        )
    if theta.ndim != 3 or tuple(theta.shape[1:]) != (n, n + 1):
        raise ShapeError(
            f"Expected a batch of {n}D affine matrices of shape Nx{n}x{n + 1} for size {size}. Got {theta.shape}."
        )
    if min(size) <= 0:
        raise ShapeError(f"Expected non-zero, positive output size. Got {size}")
    if known(theta.shape[:1]) and theta.shape[0] != size[0]:
        raise ShapeError(f"Expected {size[0]} affine matrices for size {size}, but got {theta.shape[0]}")
    spatial = size[2:]
    along = [_positions(s, bool(align_corners)) for s in reversed(spatial)]
    points = [np.broadcast_to(p.reshape(-1, *(1,) * i), spatial) for i, p in enumerate(along)]
    base = np.stack([*points, np.ones(spatial)], axis=-1).reshape(-1, n + 1).astype(theta.dtype)
    grid = matmul.matmul(beside(theta, base), layout.transpose(theta, perm=(0, 2, 1)))
    return layout.reshape(grid, shape=(theta.shape[0], *spatial, n))


def _positions(size: int, align_corners: bool) -> Any:
    """Return the places of the elements of an axis, from -1 to 1."""
    if size == 1:
        return np.zeros(1)
    whole = np.linspace(-1.0, 1.0, size)
    return whole if align_corners else whole * ((size - 1) / size)
