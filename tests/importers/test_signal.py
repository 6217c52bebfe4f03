"""Signal bindings against onnxruntime."""

from __future__ import annotations

import numpy as np
import pytest

from .free_node import agree, normal
from .one_node import run_node


@pytest.mark.parametrize("op_type", ["HannWindow", "HammingWindow", "BlackmanWindow"])
@pytest.mark.parametrize("periodic", [0, 1])
@pytest.mark.parametrize("size", [8, 9])
def test_windows(op_type: str, periodic: int, size: int) -> None:
    agree(op_type, [np.array(size)], opset=17, periodic=periodic, free=False)
    agree(op_type, [np.array(size)], opset=17, periodic=periodic, constants=(0,), output_datatype=11, free=False)


@pytest.mark.parametrize("numbers", [(8, 16, 8192, 0, 4096), (20, 512, 16000, 20, 8000), (40, 128, 16000, 0, 8000)])
def test_mel_weights(numbers: tuple[int, ...]) -> None:
    bins, length, rate = (np.array(v) for v in numbers[:3])
    low, high = (np.array(v, np.float32) for v in numbers[3:])
    agree("MelWeightMatrix", [bins, length, rate, low, high], opset=17, free=False)


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("length", [None, 6, 11])
@pytest.mark.parametrize("inverse", [0, 1])
@pytest.mark.parametrize("onesided", [0, 1])
def test_dft(parts: int, length: int | None, inverse: int, onesided: int) -> None:
    if onesided and (inverse or parts == 2):
        pytest.skip("onesided transforms go from real signals, or to them")
    for axis in (1, 2):
        x = normal(2, 8, 3, parts)
        n = None if length is None else np.array(length)
        agree("DFT", [x] if n is None else [x, n], opset=17, inverse=inverse, onesided=onesided, axis=axis)
        agree("DFT", [x, n, np.array(axis)], opset=20, inverse=inverse, onesided=onesided, constants=(2,))
        agree("DFT", [x, n, np.array(axis - 4)], opset=20, inverse=inverse, onesided=onesided)


@pytest.mark.parametrize("length", [6, 7, 8])
def test_onesided_inverse(length: int) -> None:
    signal = normal(2, length, 3)
    z = np.fft.rfft(signal, axis=1)
    x = np.stack([z.real, z.imag], -1).astype(np.float32)
    agree("DFT", [x, np.array(length), np.array(1)], opset=20, inverse=1, onesided=1, constants=(2,))
    (y,) = run_node("DFT", [x, np.array(length), np.array(1)], opset=20, inverse=1, onesided=1, constants=(2,))
    np.testing.assert_allclose(y[..., 0], signal, atol=1e-5)


@pytest.mark.parametrize("shape", [(2, 64, 1), (2, 64, 2), (2, 64)])
@pytest.mark.parametrize("onesided", [0, 1])
@pytest.mark.parametrize("step", [4, 5, 16])
@pytest.mark.parametrize(("length", "window"), [(16, None), (16, 16), (None, 16), (15, 15)])
def test_stft(shape: tuple[int, ...], onesided: int, step: int, length: int | None, window: int | None) -> None:
    if onesided and shape[-1] == 2:
        pytest.skip("a complex signal has both sides")
    args = [
        normal(*shape), np.array(step), None if window is None else normal(window),
        None if length is None else np.array(length),
    ]  # fmt: skip
    agree("STFT", args, opset=17, onesided=onesided, tol=1e-4, constants=(1,) if length is None else (1, 3))
    agree("STFT", args, opset=17, onesided=onesided, tol=1e-4)
