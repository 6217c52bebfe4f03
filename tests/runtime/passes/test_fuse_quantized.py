"""Products of quantised tensors become integer products, within one quantum."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnxgrad.ops import conv as conv_ops, pointwise as pw, quantize as q
from onnxgrad.ops.matmul import matmul
from onnxgrad.ops.window import Window
from onnxgrad.runtime.graph.graph import Graph, Value
from onnxgrad.runtime.passes.drop_dead import drop_dead
from onnxgrad.runtime.passes.fuse_quantized import fuse_quantized

from .graphs import F32, Built, built, normal, op_names, rng, unchanged

SAME = Window((1, 1), ((1, 1), (1, 1)), (1, 1), 1)


def fake(b: Built, x: Value, scale: float, zero: int | None, dtype: str = "uint8") -> Value:
    """Quantise and dequantise, as QuantizeLinear and DequantizeLinear are imported."""
    s = b.weight(np.array(scale, F32))
    zeros = [] if zero is None else [b.graph.constant(np.array(zero, dtype))] * 2
    return q.fake_quantize(x, s, s, *zeros, dtype=dtype, to="float32")  # type: ignore[no-any-return]


def quantised_weight(
    b: Built, shape: tuple[int, ...], axis: int | None, dtype: str = "int8", zero: bool = False
) -> Value:
    info = np.iinfo(dtype)
    w = b.graph.constant(rng.integers(info.min, info.max + 1, shape).astype(dtype))
    along = () if axis is None else tuple(n if i == axis else 1 for i, n in enumerate(shape))
    zeros = [b.graph.constant(rng.integers(0, 9, along).astype(dtype))] if zero else []
    scale = b.weight(rng.uniform(0.001, 0.01, along).astype(F32))
    return q.dequantize_linear(w, scale, *zeros, dtype="float32")  # type: ignore[no-any-return]


def fused(b: Built, quantum: float = 0.0) -> Graph:
    """Return what the pass makes, once it computes the same within a quantum."""
    before = b.run(b.graph)
    result = fuse_quantized(b.graph)
    result.graph.verify()
    clean = drop_dead(result.graph).graph
    clean.verify()
    for found, was in zip(b.run(clean), before, strict=True):
        assert found.dtype == was.dtype
        apart = np.abs(found.astype(np.float64) - was.astype(np.float64))
        assert apart.max() <= quantum * 1.001 + 2e-5 * np.abs(was).max()
        assert (apart > 1e-4).mean() < 0.05
    return clean


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize(("dtype", "zero"), [("uint8", 0), ("uint8", 117), ("int8", -5), ("uint8", None)])
@pytest.mark.parametrize("axis", [None, 0])
def test_a_quantised_convolution(relu: bool, dtype: str, zero: int | None, axis: int | None) -> None:
    def make(b: Built) -> Any:
        x = fake(b, b.input(normal(2, 8, 5, 6, dtype=F32)), 0.03, zero, dtype)
        y = conv_ops.conv(x, quantised_weight(b, (4, 8, 3, 3), axis), win=SAME)
        y = pw.add(y, b.weight(normal(4, 1, 1, dtype=F32)))
        y = pw.relu(y) if relu else y
        return fake(b, y, 0.1, zero, dtype)

    names = op_names(fused(built(make), 0.1))
    assert names.count("conv_integer") == names.count("requantize") == 1
    assert "conv" not in names and "fake_quantize" not in names
    assert ("relu" in names) == (relu and zero in (117, -5))


def test_what_is_quantised_between_two_convolutions_stays_bytes() -> None:
    def make(b: Built) -> Any:
        x = fake(b, b.input(normal(1, 4, 6, 6, dtype=F32)), 0.03, 0)
        y = fake(b, conv_ops.conv(x, quantised_weight(b, (8, 4, 3, 3), 0), win=SAME), 0.05, 128)
        z = conv_ops.conv(y, quantised_weight(b, (4, 8, 3, 3), 0, "uint8", zero=True), win=SAME)
        return fake(b, pw.add(fake(b, z, 0.2, 128), x), 0.2, 128)

    names = op_names(fused(built(make), 0.6))
    assert names.count("conv_integer") == names.count("requantize") == 2
    assert names.count("quantize_linear") == 1


@pytest.mark.parametrize("axis", [None, 1])
def test_a_quantised_product_of_matrices_with_a_float_result(axis: int | None) -> None:
    def make(b: Built) -> Any:
        x = fake(b, b.input(normal(2, 3, 10, dtype=F32)), 0.02, 100)
        return pw.add(matmul(x, quantised_weight(b, (10, 7), axis, zero=True)), b.weight(normal(7, dtype=F32)))

    names = op_names(fused(built(make)))
    assert "matmul_integer" in names and "matmul" not in names and "requantize" not in names


def test_bytes_come_in_and_go_out() -> None:
    def make(b: Built) -> Any:
        scale, zero = b.weight(np.array(0.02, F32)), b.graph.constant(np.array(9, np.uint8))
        x = b.input(rng.integers(0, 256, (2, 10)).astype(np.uint8))
        y = matmul(q.dequantize_linear(x, scale, zero, dtype="float32"), quantised_weight(b, (10, 7), 1))
        return q.quantize_linear(pw.relu(y), scale, zero, dtype="uint8")

    names = op_names(fused(built(make), 1))
    assert names.count("matmul_integer") == names.count("requantize") == 1
    assert not {"quantize_linear", "dequantize_linear", "matmul"} & set(names)


def test_a_bias_counted_in_sums_is_exact() -> None:
    def make(b: Built) -> Any:
        x = fake(b, b.input(np.zeros((1, 4, 3, 3), F32)), 0.5, 0)
        w = b.graph.constant(np.ones((2, 4, 1, 1), np.int8))
        unit = np.array([0.25, 0.125], F32)
        whole = q.dequantize_linear(w, b.weight(unit.reshape(2, 1, 1, 1)), dtype="float32")
        bias = q.dequantize_linear(
            b.graph.constant(np.array([[[123457]], [[-7]]], np.int32)),
            b.weight(0.5 * unit.reshape(2, 1, 1)),
            dtype="float32",
        )
        return pw.add(conv_ops.conv(x, whole, win=Window((1, 1), ((0, 0), (0, 0)), (1, 1), 1)), bias)

    b = built(make)
    clean = drop_dead(fuse_quantized(b.graph).graph).graph
    assert np.array_equal(b.run(clean)[0][0, :, 0, 0], np.array([123457 * 0.125, -7 * 0.0625], F32))


@pytest.mark.parametrize("case", ["floats", "depthwise", "scale from inputs", "rows", "unequal scales", "int16"])
def test_refused(case: str) -> None:
    def make(b: Built) -> Any:
        x = b.input(normal(2, 4, 5, 5, dtype=F32))
        if case == "depthwise":
            win = Window((1, 1), ((1, 1), (1, 1)), (1, 1), 4)
            return conv_ops.conv(fake(b, x, 0.1, 0), quantised_weight(b, (4, 1, 3, 3), 0), win=win)
        if case == "rows":
            s = b.weight(np.full((5, 1), 0.1, F32))
            x = q.fake_quantize(x, s, s, dtype="int8", to="float32")
            return matmul(x, quantised_weight(b, (5, 3), None))
        if case == "scale from inputs":
            s = b.input(np.array(0.1, F32))
            return matmul(q.fake_quantize(x, s, s, dtype="int8", to="float32"), quantised_weight(b, (5, 3), None))
        if case == "unequal scales":
            s, t = b.weight(np.array(0.1, F32)), b.weight(np.array(0.1, F32))
            return matmul(q.fake_quantize(x, s, t, dtype="int8", to="float32"), quantised_weight(b, (5, 3), None))
        if case == "int16":
            return matmul(fake(b, x, 0.1, 0, "int16"), quantised_weight(b, (5, 3), None))
        return matmul(x, quantised_weight(b, (5, 3), None))

    unchanged(built(make), fuse_quantized)


def test_sums_that_something_else_reads_stay_floats() -> None:
    def make(b: Built) -> Any:
        y = matmul(fake(b, b.input(normal(4, 8, dtype=F32)), 0.1, 0), quantised_weight(b, (8, 3), None))
        return y, fake(b, y, 0.1, 128)

    names = op_names(fused(built(make), 0.1))
    assert "matmul_integer" in names
