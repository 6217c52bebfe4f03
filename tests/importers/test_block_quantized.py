"""Weights of a few bits against onnxruntime, or the definition where it has no kernel."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from onnxgrad.importers.onnx.model import load_bytes
from onnxgrad.ops.errors import UnsupportedAttributeError
from onnxgrad.runtime.tensor.tensor import Tensor

from .one_node import one_node_model, ort_node, run_node

MICROSOFT = {"domain": "com.microsoft", "opset": 1}
rng = np.random.default_rng(0)


def packed(x: np.ndarray, bits: int) -> np.ndarray:
    """Return small integers as a stream of bits along the last axis, low bits first, filled up to whole bytes."""
    stream = (x[..., None] >> np.arange(bits)) & 1
    return np.packbits(stream.reshape(*x.shape[:-1], -1).astype(np.uint8), axis=-1, bitorder="little")


class Weights:
    """Weights (N, K) of a few bits, a scale and a zero point for each block."""

    def __init__(self, n: int, k: int, size: int, bits: int) -> None:
        self.blocks = -(-k // size)
        self.whole = rng.integers(0, 2**bits, (n, self.blocks, size))
        self.scales = rng.uniform(0.01, 0.1, (n, self.blocks)).astype(np.float32)
        self.zero = rng.integers(0, 2**bits, (n, self.blocks))
        self.attrs = {"K": k, "N": n, "block_size": size, "bits": bits, **MICROSOFT}
        self.bytes = packed(self.whole, bits)

    def real(self, zero: Any) -> np.ndarray:
        w = (self.whole - np.float64(zero)) * self.scales[..., None]
        return w.reshape(len(w), -1)[:, : self.attrs["K"]]


SIZES = [(2, 32, 16), (4, 32, 16), (8, 32, 16), (4, 40, 16), (4, 96, 32), (8, 70, 64)]


@pytest.mark.parametrize(("bits", "k", "size"), SIZES)
@pytest.mark.parametrize("zero", ["none", "packed", "floats"])
def test_matmul_nbits(bits: int, k: int, size: int, zero: str) -> None:
    w = Weights(6, k, size, bits)
    a = rng.standard_normal((2, 3, k)).astype(np.float32)
    given = {"none": None, "packed": packed(w.zero, bits), "floats": w.zero.astype(np.float32)}[zero]
    inputs = [a, w.bytes, w.scales.reshape(-1), given if given is None else given.reshape(-1)]
    exact = a @ w.real(2 ** (bits - 1) if given is None else w.zero[..., None]).T
    (found,) = run_node("MatMulNBits", inputs, constants=[i for i in (1, 2, 3) if inputs[i] is not None], **w.attrs)
    np.testing.assert_allclose(found, exact, rtol=1e-4, atol=1e-4)
    if zero == "floats" and bits != 4:
        return  # onnxruntime wants uint8 zero points there
    inputs = [v if v is None or v.dtype != np.uint8 or v.ndim > 1 else v.reshape(6, -1) for v in inputs]
    inputs[2] = w.scales
    (wanted,) = ort_node("MatMulNBits", inputs, constants=[i for i in (1, 2, 3) if inputs[i] is not None], **w.attrs)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("bits", [3, 5, 6, 7])
def test_integers_that_cross_bytes(bits: int) -> None:
    w = Weights(3, 32, 16, bits)
    a = rng.standard_normal((2, 32)).astype(np.float32)
    (found,) = run_node("MatMulNBits", [a, w.bytes, w.scales, packed(w.zero, bits)], **w.attrs)
    np.testing.assert_allclose(found, a @ w.real(w.zero[..., None]).T, rtol=1e-4, atol=1e-4)


def test_groups_and_bias() -> None:
    w = Weights(5, 32, 16, 4)
    a, bias = rng.standard_normal((2, 32)).astype(np.float32), rng.standard_normal(5).astype(np.float32)
    groups = rng.permutation(np.repeat([0, 1], 16)).astype(np.int32)
    inputs = [a, w.bytes, w.scales, packed(w.zero, 4), groups, bias]
    (found,) = run_node("MatMulNBits", inputs, **w.attrs)
    real = (w.whole.reshape(5, -1) - w.zero[:, groups]) * np.float64(w.scales[:, groups])
    np.testing.assert_allclose(found, a @ real.T + bias, rtol=1e-4, atol=1e-4)
    inputs[4] = None
    np.testing.assert_allclose(
        *(f("MatMulNBits", inputs, **w.attrs)[0] for f in (run_node, ort_node)), rtol=1e-4, atol=1e-4
    )
    with pytest.raises(UnsupportedAttributeError, match="one device"):
        run_node("MatMulNBits", inputs, weight_prepacked=1, **w.attrs)


def test_gradient_goes_to_what_the_weights_meet() -> None:
    w = Weights(6, 40, 16, 4)
    a = rng.standard_normal((2, 40)).astype(np.float32)
    proto = one_node_model("MatMulNBits", [a, w.bytes, w.scales], constants=[1, 2], **w.attrs)
    model = load_bytes(proto.SerializeToString())
    assert dict(model.named_parameters()) == {} and [n for n, _ in model.named_buffers()] == ["x2"]
    x, g = Tensor(a, requires_grad=True), rng.standard_normal((2, 6)).astype(np.float32)
    (model(x) * Tensor(g)).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), g @ w.real(8), rtol=1e-4, atol=1e-5)


INDICES = np.array([[0, 3, -1], [2, 2, -5]], np.int64)


def table(bits: int, *shape: int) -> np.ndarray:
    return rng.integers(0, 2**bits, shape)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("zero", [False, True])
def test_gather_of_packed_bytes(bits: int, zero: bool) -> None:
    whole, scales, zeros = table(bits, 5, 48), rng.uniform(0.1, 1, (5, 3)).astype(np.float32), table(bits, 5, 3)
    inputs = [packed(whole, bits), INDICES, scales] + ([packed(zeros, bits)] if zero else [])
    attrs = {"bits": bits, "block_size": 16, "quantize_axis": 1, "gather_axis": 0, **MICROSOFT}
    constants = [0, 2, 3][: 2 + zero]
    (found,) = run_node("GatherBlockQuantized", inputs, constants=constants, **attrs)
    off = np.repeat(zeros, 16, axis=1) if zero else 2 ** (bits - 1)
    np.testing.assert_allclose(found, ((whole - off) * np.repeat(scales, 16, axis=1))[INDICES], rtol=1e-5)
    (wanted,) = ort_node("GatherBlockQuantized", inputs, constants=constants, **attrs)
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


@pytest.mark.parametrize("dtype", [ml_dtypes.int4, ml_dtypes.uint4])
@pytest.mark.parametrize(("gather_axis", "quantize_axis"), [(0, 2), (2, 1), (1, 1), (0, 0)])
@pytest.mark.parametrize("zero", [False, True])
def test_gather_of_four_bits(dtype: Any, gather_axis: int, quantize_axis: int, zero: bool) -> None:
    low = -8 if dtype == ml_dtypes.int4 else 0
    shape = (5, 20, 34)
    blocks = tuple(-(-n // 16) if i == quantize_axis else n for i, n in enumerate(shape))
    whole, zeros = table(4, *shape) + low, (table(4, *blocks) + low if zero else np.zeros(blocks, int))
    scales = rng.uniform(0.1, 1, blocks).astype(np.float32)
    each = np.arange(shape[quantize_axis]) // 16
    real = (whole - zeros.take(each, quantize_axis)) * scales.take(each, quantize_axis)
    inputs = [whole.astype(dtype), INDICES, scales] + ([zeros.astype(dtype)] if zero else [])
    attrs = {"block_size": 16, "quantize_axis": quantize_axis - 3, "gather_axis": gather_axis, **MICROSOFT}
    (found,) = run_node("GatherBlockQuantized", inputs, constants=[0, 2, 3][: 2 + zero], **attrs)
    np.testing.assert_allclose(found, real.take(INDICES, gather_axis), rtol=1e-5)


@pytest.mark.parametrize("scales", [(1, 1), (5, 1), (5, 3)])
def test_gather_of_float8(scales: tuple[int, int]) -> None:
    whole = rng.standard_normal((5, 48)).astype(ml_dtypes.float8_e4m3fn)
    scale = rng.uniform(0.1, 1, scales).astype(np.float32)
    size = 16 if scales[1] == 3 else 0
    (found,) = run_node("GatherBlockQuantized", [whole, INDICES, scale], block_size=size, **MICROSOFT)
    real = whole.astype(np.float32) * np.broadcast_to(np.repeat(scale, 48 // scales[1], axis=1), (5, 48))
    np.testing.assert_allclose(found, real[INDICES], rtol=1e-6)


def test_an_index_outside_gives_zeros() -> None:
    whole, scales = table(8, 5, 32).astype(np.uint8), rng.uniform(0.1, 1, (5, 2)).astype(np.float32)
    inputs = [whole, np.array([1, 7, -6, -2], np.int64), scales]
    attrs = {"bits": 8, "block_size": 16, **MICROSOFT}
    (found,) = run_node("GatherBlockQuantized", inputs, **attrs)
    assert (found[1:3] == 0).all()
    (wanted,) = ort_node("GatherBlockQuantized", inputs, constants=[0, 2], **attrs)
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
