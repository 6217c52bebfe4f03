"""CUDA resizing and its adjoint against the array kernels and torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnxgrad.ops.expr import Var, maximum
from onnxgrad.ops.kernels.cuda import resize as _rules
from onnxgrad.ops.kernels.cuda.lowering import Epilogue
from onnxgrad.ops.op import OPS
from onnxgrad.ops.resize import Interpolation
from onnxgrad.ops.types import BFLOAT16

from .site import refuses, run_op

assert _rules
RNG = np.random.default_rng(0)
ORDERS = ("plain", "channels_last")
COORDINATES = (
    "half_pixel", "pytorch_half_pixel", "half_pixel_symmetric", "align_corners", "align_scaled_corners", "asymmetric",
    "torch_half_pixel", "torch_asymmetric", "torch_half_pixel_for_nn", "tf_half_pixel_for_nn",
)  # fmt: skip


def there_and_back(x: Any, order: str = "plain", **attrs: Any) -> None:
    """Compare a resize and its adjoint with the array kernels in float64."""
    tolerance = {2: 2e-2, 4: 1e-5, 8: 1e-12}[x.dtype.itemsize]
    (y,) = run_op("resize", [x, None, None], attrs, order=order)
    want = OPS["resize"].run(x.astype(np.float64), **attrs)
    np.testing.assert_allclose(y.astype(float), want, rtol=tolerance, atol=tolerance)
    g = RNG.standard_normal(want.shape).astype(x.dtype)
    fitted = {"fit": attrs["fit"], "wanted": attrs["size"]} if attrs.get("fit") else {}
    back: dict[str, Any] = {k: v for k, v in attrs.items() if k not in ("size", "fit")}
    back |= {"size": tuple(x.shape[a] for a in attrs["axes"]), **fitted}
    (d,) = run_op("resize_grad", [g, None, None], back, order=order)
    want = OPS["resize_grad"].run(g.astype(np.float64), **back)
    np.testing.assert_allclose(d.astype(float), want, rtol=tolerance, atol=4 * tolerance)


@pytest.mark.parametrize("coordinates", COORDINATES)
@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_every_coordinate(mode: str, coordinates: str) -> None:
    x = RNG.standard_normal((1, 8, 5, 6)).astype(np.float32)
    how = Interpolation(mode, coordinates)
    there_and_back(x, "channels_last", axes=(2, 3), how=how, size=(9, 4), factors=(1.8, 0.7))


@pytest.mark.parametrize("nearest", ["round_prefer_ceil", "floor", "ceil", "simple"])
def test_every_rounding(nearest: str) -> None:
    x = RNG.standard_normal((1, 3, 5, 6)).astype(np.float32)
    there_and_back(x, axes=(2, 3), how=Interpolation("nearest", "asymmetric", nearest), size=(10, 3))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize(
    ("shape", "axes", "size"),
    [((2, 8, 5, 6), (2, 3), (10, 12)), ((2, 3, 7, 4), (3,), (9,)), ((1, 4, 3, 4, 5), (2, 3, 4), (5, 2, 6)),
     ((1, 4, 9, 12), (2, 3), (3, 50)), ((2, 5), (0, 1), (3, 8)), ((1, 6, 4, 4), (1, 2), (3, 8))],
)  # fmt: skip
def test_every_mode(
    shape: tuple[int, ...], axes: tuple[int, ...], size: tuple[int, ...], mode: str, order: str
) -> None:
    x = RNG.standard_normal(shape).astype(np.float32)
    there_and_back(x, order if len(shape) > 2 else "plain", axes=axes, how=Interpolation(mode), size=size)


def test_options() -> None:
    x = RNG.standard_normal((1, 4, 9, 12)).astype(np.float32)
    there_and_back(x, axes=(2, 3), how=Interpolation("linear", antialias=True), size=(4, 5))
    there_and_back(x, axes=(2, 3), how=Interpolation("cubic", exclude_outside=True, cubic_a=-0.5), size=(4, 20))
    there_and_back(x, axes=(2, 3), how=Interpolation("linear"), size=(18, 18), fit="not_larger")


@pytest.mark.parametrize("dtype", [np.float16, BFLOAT16, np.float64])
@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_every_type(mode: str, dtype: Any) -> None:
    x = RNG.standard_normal((2, 16, 5, 4)).astype(dtype)
    there_and_back(x, "channels_last", axes=(2, 3), how=Interpolation(mode), size=(10, 40))


def test_integers_are_moved_only() -> None:
    x = RNG.integers(0, 255, (1, 3, 4, 5)).astype(np.uint8)
    attrs: dict[str, Any] = {"axes": (2, 3), "how": Interpolation(), "size": (8, 5)}
    (y,) = run_op("resize", [x, None, None], attrs)
    np.testing.assert_array_equal(y, OPS["resize"].run(x, **attrs))
    assert refuses("resize", [x, None, None], {**attrs, "how": Interpolation("linear")})


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_torch_agrees(mode: str) -> None:
    torch = pytest.importorskip("torch")
    x = RNG.standard_normal((2, 8, 6, 7)).astype(np.float32)
    how = Interpolation({"bilinear": "linear", "bicubic": "cubic"}[mode], "half_pixel")
    (y,) = run_op("resize", [x, None, None], {"axes": (2, 3), "how": how, "size": (11, 15)}, order="channels_last")
    want = torch.nn.functional.interpolate(torch.from_numpy(x), (11, 15), mode=mode).numpy()
    np.testing.assert_allclose(y, want, rtol=1e-4, atol=1e-5)


def test_an_epilogue_joins() -> None:
    x = RNG.standard_normal((1, 8, 4, 4)).astype(np.float32)
    epilogue = Epilogue(maximum(Var("x"), 0), (), np.dtype(np.float32))
    for mode in ("nearest", "linear"):
        attrs: dict[str, Any] = {"axes": (2, 3), "how": Interpolation(mode), "size": (8, 8)}
        (y,) = run_op("resize", [x, None, None], attrs, order="channels_last", epilogue=epilogue)
        np.testing.assert_allclose(y, np.maximum(OPS["resize"].run(x, **attrs), 0), rtol=1e-5, atol=1e-6)
