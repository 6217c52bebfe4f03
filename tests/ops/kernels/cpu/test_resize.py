"""Resizing: compiled kernels against the array kernels, torch and plain definitions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from onnxgrad.ops.dims import Dim
from onnxgrad.ops.kernels.cpu import resize  # noqa: F401 (registers the rules)
from onnxgrad.ops.op import OPS
from onnxgrad.ops.resize import Interpolation

from .site import run_op

COORDINATES = [
    "half_pixel", "pytorch_half_pixel", "half_pixel_symmetric", "align_corners", "asymmetric", "tf_half_pixel_for_nn",
]  # fmt: skip
HOWS = [
    *(Interpolation(mode, c) for mode in ("nearest", "linear", "cubic") for c in COORDINATES),
    *(Interpolation("nearest", "half_pixel", n) for n in ("round_prefer_ceil", "floor", "ceil", "simple")),
    Interpolation("cubic", exclude_outside=True),
    Interpolation("linear", antialias=True),
    Interpolation("cubic", antialias=True),
]


def noise(*shape: int, dtype: Any = np.float32) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).standard_normal(shape).astype(dtype)


def close(got: Any, wanted: Any) -> None:
    assert got is not None
    assert got.shape == wanted.shape and got.dtype == wanted.dtype
    np.testing.assert_allclose(got, wanted, rtol=2e-5, atol=2e-5)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    st.sampled_from(HOWS), st.sampled_from([1, 3, 8, 19]), st.integers(1, 12), st.integers(1, 12), st.integers(1, 25),
    st.integers(1, 25), st.booleans(), st.integers(1, 2),
)  # fmt: skip
def test_images(
    how: Interpolation, channels: int, h: int, w: int, high: int, wide: int, at_end: bool, threads: int
) -> None:
    x = noise(2, channels, h, w)
    attrs: dict[str, Any] = {"axes": (2, 3), "how": how, "size": (high, wide)}
    wanted = OPS["resize"].array_kernel(x, **attrs)
    close(run_op("resize", [x, None, None], at_end=at_end, threads=threads, **attrs), wanted)
    g = noise(2, channels, high, wide)
    attrs["size"] = (h, w)
    got = run_op("resize_grad", [g, None, None], at_end=at_end, threads=threads, **attrs)
    close(got, OPS["resize_grad"].array_kernel(g, **attrs))


@pytest.mark.parametrize("channels", [3, 16, 21])
@pytest.mark.parametrize("mode", ["nearest-exact", "bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(28, 30), (5, 9), (14, 15)])
def test_torch(channels: int, mode: str, size: tuple[int, int]) -> None:
    torch = pytest.importorskip("torch")
    x = noise(2, channels, 14, 15)
    how = {
        "nearest-exact": Interpolation("nearest", "half_pixel", "round_prefer_ceil"),
        "bilinear": Interpolation("linear", "half_pixel"),
        "bicubic": Interpolation("cubic", "half_pixel"),
    }[mode]
    t = torch.tensor(x, requires_grad=True)
    y = torch.nn.functional.interpolate(t, size=size, mode=mode)
    halo = ((0, 0), (0, 0), (1, 1), (1, 1)) if channels >= 8 else ()
    got = run_op("resize", [x, None, None], multiple=4, out_halo=halo, axes=(2, 3), how=how, size=size)
    close(got, y.detach().numpy())
    g = noise(*y.shape)
    y.backward(torch.tensor(g))
    close(run_op("resize_grad", [g, None, None], axes=(2, 3), how=how, size=(14, 15)), t.grad.numpy())


@pytest.mark.parametrize("dtype", [np.float32, np.uint8, np.float16])
@pytest.mark.parametrize("channels", [1, 4, 24])
@pytest.mark.parametrize("symbolic", [False, True])
def test_repeating_pixels_is_a_copy(dtype: Any, channels: int, symbolic: bool) -> None:
    x = (noise(2, channels, 5, 37) * 50).astype(dtype)
    n, h, w = (Dim.symbol(s) for s in "nhw")
    names = {0: (n, channels, h, w)} if symbolic else {}
    for coordinates, nearest in (("asymmetric", "floor"), ("half_pixel", "round_prefer_floor")):
        how = Interpolation("nearest", coordinates, nearest)
        size = (2 * h, 4 * w) if symbolic else (10, 148)
        got = run_op("resize", [x, None, None], symbols=names, axes=(2, 3), how=how, size=size, factors=(2.0, 4.0))
        np.testing.assert_array_equal(got, x.repeat(2, axis=2).repeat(4, axis=3))


@pytest.mark.parametrize("axes,size", [((0,), (5,)), ((1,), (9,)), ((2,), (3,)), ((1, 2, 3), (4, 7, 9))])
@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_other_axes(axes: tuple[int, ...], size: tuple[int, ...], mode: str) -> None:
    x = noise(3, 10, 5, 6, dtype=np.float64)
    attrs: dict[str, Any] = {"axes": axes, "how": Interpolation(mode), "size": size}
    close(run_op("resize", [x, None, None], **attrs), OPS["resize"].array_kernel(x, **attrs))


def test_symbolic_batch_and_fit() -> None:
    x = noise(3, 16, 9, 7)
    names = {0: (Dim.symbol("n"), 16, 9, 7)}
    attrs: dict[str, Any] = {"axes": (2, 3), "how": Interpolation("linear"), "size": (20, 30), "fit": "not_larger"}
    close(run_op("resize", [x, None, None], symbols=names, **attrs), OPS["resize"].array_kernel(x, **attrs))


def test_refusals() -> None:
    x = noise(1, 3, 4, 4)
    scales = np.array([2.0, 2.0], np.float32)
    assert run_op("resize", [x, scales, None], axes=(2, 3), how=Interpolation()) is None
    crop = Interpolation("linear", "tf_crop_and_resize")
    assert run_op("resize", [x, None, None], axes=(2, 3), how=crop, size=(2, 2)) is None
    half = x.astype(np.float16)
    assert run_op("resize", [half, None, None], axes=(2, 3), how=Interpolation("linear"), size=(8, 8)) is None
    h = Dim.symbol("h")
    linear = Interpolation("linear")
    assert run_op("resize", [x, None, None], symbols={0: (1, 3, h, 4)}, axes=(2,), how=linear, size=(8,)) is None
