"""CUDA Fourier transforms, frames and their sums against NumPy in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnxgrad.ops.expr import Var
from onnxgrad.ops.kernels.cuda import spectra as _rules
from onnxgrad.ops.kernels.cuda.cublaslt import MatMul
from onnxgrad.ops.kernels.cuda.kernel import LibraryCall
from onnxgrad.ops.kernels.cuda.lowering import Epilogue
from onnxgrad.ops.kernels.cuda.operand import packed
from onnxgrad.ops.op import OPS
from onnxgrad.ops.types import BFLOAT16

from .site import lower, make_site, refuses, run_op

assert _rules
RNG = np.random.default_rng(0)
WAYS = [(i, o) for i in (False, True) for o in (False, True)]


def drawn(*shape: int, dtype: Any = np.float32) -> Any:
    return RNG.standard_normal(shape).astype(dtype)


def close(found: Any, wanted: Any, relative: float) -> None:
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, rtol=0, atol=relative * max(np.abs(wanted).max(initial=0), 1e-30))


def check(op: str, x: Any, attrs: dict[str, Any], **how: Any) -> None:
    (y,) = run_op(op, [x], attrs, **how)
    assert y.dtype == x.dtype
    close(y, OPS[op].run(x.astype(np.float64), **attrs), 1e-6 if x.dtype == np.float32 else 1e-13)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize(("inverse", "onesided"), WAYS)
@pytest.mark.parametrize("length", [None, 7, 8, 16, 5])
def test_transforms(dtype: Any, parts: int, inverse: bool, onesided: bool, length: int | None) -> None:
    attrs = {"axis": 1, "length": length, "inverse": inverse, "onesided": onesided}
    x = drawn(3, 9, parts, dtype=dtype)
    check("dft", x, attrs)
    g = drawn(*OPS["dft"].run(x, **attrs).shape, dtype=dtype)
    check("dft_grad", g, attrs | {"size": 9, "parts": parts})


@pytest.mark.parametrize("n", [512, 1000, 2048])
@pytest.mark.parametrize(("inverse", "onesided"), WAYS)
def test_transforms_of_many_numbers_are_exact_to_a_millionth(n: int, inverse: bool, onesided: bool) -> None:
    x = drawn(2, n, 1 if onesided and not inverse else 2)
    if inverse and onesided:
        x = x[:, : n // 2 + 1]
    if x.shape[2] == 2 and not onesided and n > 1024:
        assert refuses("dft", [x], {"axis": 1, "inverse": inverse})
        return
    attrs = {"axis": 1, "inverse": inverse, "onesided": onesided}
    check("dft", x, attrs)
    z = (x[..., 0] + 1j * x[..., 1]) if x.shape[2] == 2 else x[..., 0]
    way = {(0, 0): np.fft.fft, (0, 1): np.fft.rfft, (1, 0): np.fft.ifft, (1, 1): np.fft.irfft}[inverse, onesided]
    wanted = way(z.astype(np.complex128) if x.shape[2] == 2 else z.astype(np.float64), axis=1)
    parts = [wanted] if np.isrealobj(wanted) else [wanted.real, wanted.imag]
    close(run_op("dft", [x], attrs, compiles=False)[0], np.stack(parts, -1), 1e-6)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("order", ["plain", "transposed", "channels_last"])
def test_axes_and_layouts(axis: int, order: str) -> None:
    for parts in (1, 2):
        check("dft", drawn(4, 5, 6, parts), {"axis": axis}, order=order, shift=1)
        check(
            "dft_grad",
            drawn(4, 5, 6, 2),
            {"axis": axis, "size": 9, "parts": parts, "length": (4, 5, 6)[axis % 3]},
            order=order,
        )


def test_products_are_never_rounded() -> None:
    site = make_site("dft", [drawn(3, 64, 1)], {"axis": 1, "onesided": True}, tf32=True)
    assert lower(site)
    (call,) = site.work
    assert isinstance(call, LibraryCall) and isinstance(call.description, MatMul)
    assert call.description.compute == "f32"


def test_refusals() -> None:
    assert refuses("dft", [drawn(2, 8, 1, dtype=np.float16)], {"axis": 1})
    assert refuses("dft", [drawn(1, 8192, 1)], {"axis": 1, "onesided": True})


FRAMES = [
    ((2, 20), 6, 3),
    ((1, 17), 5, 5),
    ((3, 16), 4, 7),
    ((2, 9, 2), 9, 1),
    ((2, 12, 3), 4, 2),
    ((1, 400, 1), 64, 16),
]


@pytest.mark.parametrize(("shape", "length", "step"), FRAMES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, BFLOAT16, np.int16])
def test_frames(shape: tuple[int, ...], length: int, step: int, dtype: Any) -> None:
    x = (RNG.standard_normal(shape) * 9).astype(dtype)
    (y,) = run_op("frames", [x], {"length": length, "step": step})
    np.testing.assert_array_equal(y, OPS["frames"].run(x, length=length, step=step))


def test_frames_under_a_window() -> None:
    x, window = drawn(2, 40, 1), drawn(8, 1)
    shape = (2, 9, 8, 1)
    epilogue = Epilogue(Var("x") * Var("a0"), (packed(window.dtype, (1, 1, 8, 1)).broadcast_to(shape),), window.dtype)
    (y,) = run_op("frames", [x], {"length": 8, "step": 4}, epilogue=epilogue, extra=[window])
    np.testing.assert_array_equal(y, OPS["frames"].run(x, length=8, step=4) * window)


@pytest.mark.parametrize(("shape", "length", "step"), FRAMES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, np.int32])
def test_sums_of_overlapping_frames(shape: tuple[int, ...], length: int, step: int, dtype: Any) -> None:
    count = (shape[1] - length) // step + 1
    g = (RNG.standard_normal((shape[0], count, length, *shape[2:])) * 9).astype(dtype)
    for order in ("plain", "transposed"):
        (y,) = run_op("overlap_add", [g], {"step": step, "size": shape[1]}, order=order)
        wanted = OPS["overlap_add"].run(g.astype(np.float64), step=step, size=shape[1])
        np.testing.assert_allclose(
            y, wanted, rtol=1e-3 if dtype == np.float16 else 1e-5, atol=1e-5 if dtype != np.float16 else 0.02
        )
