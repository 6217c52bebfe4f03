"""Quantised bindings against onnxruntime: exact where the arithmetic is, else within one quantum."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxgrad.importers.onnx.model import load_bytes
from onnxgrad.ops.errors import UnsupportedAttributeError
from onnxgrad.runtime.tensor.tensor import Tensor

from .one_node import one_node_model, ort_node, run_node

ort = pytest.importorskip("onnxruntime")
MICROSOFT = "com.microsoft"
rng = np.random.default_rng(0)
X = rng.uniform(-8, 8, (2, 3, 4)).astype(np.float32)


def f32(*v: float) -> np.ndarray:
    return np.array(v[0] if len(v) == 1 else v, np.float32)


def whole(dtype: Any, *shape: int) -> np.ndarray:
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max, shape, dtype, endpoint=True)


def agree(op_type: str, inputs: list[Any], *, opset: int, quanta: int = 0, **how: Any) -> None:
    wanted = ort_node(op_type, inputs, opset=opset, **how)
    for f, w in zip(run_node(op_type, inputs, opset=opset, **how), wanted, strict=True):
        assert f.dtype == w.dtype
        assert f.shape == w.shape
        if f.dtype.kind == "f":
            np.testing.assert_allclose(f, w, rtol=1e-6, atol=1e-6)
        else:
            assert np.abs(f.astype(np.int64) - w.astype(np.int64)).max() <= quanta


@pytest.mark.parametrize("opset", [10, 13, 19, 21, 23, 24, 25])
@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
def test_quantize_and_dequantize_a_tensor(opset: int, dtype: Any) -> None:
    scale, zero = f32(0.05), np.array(3, dtype)
    agree("QuantizeLinear", [X, scale, zero], opset=opset)
    agree("DequantizeLinear", [whole(dtype, 2, 3, 4), scale, zero], opset=opset)


@pytest.mark.parametrize("opset", [13, 21])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_quantize_and_dequantize_an_axis(opset: int, axis: int) -> None:
    n = X.shape[axis]
    scale, zero = rng.uniform(0.02, 0.1, n).astype(np.float32), whole(np.int8, n)
    agree("QuantizeLinear", [X, scale, zero], opset=opset, axis=axis)
    agree("DequantizeLinear", [whole(np.int8, 2, 3, 4), scale, zero], opset=opset, axis=axis)


def test_without_a_zero_point() -> None:
    agree("QuantizeLinear", [X, f32(0.05)], opset=13)
    agree("DequantizeLinear", [whole(np.int32, 5), f32(0.001)], opset=13)
    agree("QuantizeLinear", [X, f32(0.05)], opset=21, output_dtype=TensorProto.INT16)


def test_halves_go_to_even_and_the_rest_saturates() -> None:
    agree(
        "QuantizeLinear",
        [f32(0.5, 1.5, 2.5, -0.5, 1e6, -1e6, np.inf), f32(1.0), np.array(0, np.int8)],
        opset=13,
    )


@pytest.mark.parametrize("dtype", [np.uint16, np.int16])
def test_sixteen_bits(dtype: Any) -> None:
    zero = np.array(11, dtype)
    agree("QuantizeLinear", [X, f32(0.001), zero], opset=21)
    agree("DequantizeLinear", [whole(dtype, 2, 3), f32(0.001), zero], opset=21)


def test_blocks() -> None:
    x = rng.uniform(-8, 8, (3, 8)).astype(np.float32)
    scale, zero = rng.uniform(0.05, 0.2, (3, 2)).astype(np.float32), whole(np.int8, 3, 2) // 8
    agree("QuantizeLinear", [x, scale, zero], opset=21, axis=1, block_size=4)
    agree("DequantizeLinear", [whole(np.int8, 3, 8), scale, zero], opset=21, axis=1, block_size=4)
    with pytest.raises(UnsupportedAttributeError, match="do not fill"):
        run_node("QuantizeLinear", [x, scale, zero], opset=21, axis=1, block_size=3)


@pytest.mark.parametrize("name", ["INT4", "UINT4"])
def test_four_bits(name: str) -> None:
    to = getattr(TensorProto, name)
    (found,) = run_node("QuantizeLinear", [f32(-9, -1, 0.4, 3, 99), f32(1.0)], opset=21, output_dtype=to)
    wanted = [-8, -1, 0, 3, 7] if name == "INT4" else [0, 0, 0, 3, 15]
    np.testing.assert_array_equal(found.astype(int), wanted)


def test_float8() -> None:
    (found,) = run_node(
        "QuantizeLinear", [f32(1, -2, 1e6), f32(0.5)], opset=19 + 2, output_dtype=TensorProto.FLOAT8E4M3FN
    )
    np.testing.assert_array_equal(found.astype(np.float32), [2, -4, 448])


@pytest.mark.parametrize(
    "x", [X, np.abs(X), -np.abs(X), np.zeros((3,), np.float32)], ids=["both", "up", "down", "zero"]
)
def test_dynamic_quantize(x: np.ndarray) -> None:
    agree("DynamicQuantizeLinear", [x], opset=11, n_out=3)


@pytest.mark.parametrize("left", [np.uint8, np.int8])
@pytest.mark.parametrize("k", [5, 700])
def test_matmul_integer(left: Any, k: int) -> None:
    a, b = whole(left, 2, 3, k), whole(np.int8 if left == np.int8 else np.uint8, k, 4)
    agree("MatMulInteger", [a, b], opset=10)
    agree("MatMulInteger", [a, b, np.array(3, left), np.array(2, b.dtype)], opset=10)
    agree("MatMulInteger", [a, b, np.array(3, left), np.array([1, 2, 3, 4], b.dtype)], opset=10)


def test_matmul_integer_with_a_zero_point_a_row() -> None:
    a, b, zeros = whole(np.uint8, 3, 5), whole(np.uint8, 5, 4), np.array([1, 2, 3], np.uint8)
    (found,) = run_node("MatMulInteger", [a, b, zeros], opset=10)
    np.testing.assert_array_equal(found, (a.astype(int) - zeros[:, None]) @ b.astype(int))


WINDOW = {"pads": [1, 0, 1, 2], "strides": [2, 1], "group": 2}
IMAGE, FILTERS = whole(np.uint8, 2, 4, 6, 5), whole(np.int8, 6, 2, 3, 3)


def test_conv_integer() -> None:
    w = whole(np.uint8, 6, 2, 3, 3)
    agree("ConvInteger", [IMAGE, w], opset=10, **WINDOW)
    agree("ConvInteger", [IMAGE, w, np.array(7, np.uint8), np.array(9, np.uint8)], opset=10, **WINDOW)
    agree("ConvInteger", [IMAGE, w], opset=10, auto_pad="SAME_UPPER", group=2)


@pytest.mark.parametrize("opset", [10, 21])
def test_qlinear_matmul(opset: int) -> None:
    a, b = whole(np.uint8, 3, 32), whole(np.uint8, 32, 4)
    scales = f32(0.02), f32(0.03), f32(1.5)
    zeros = [np.array(z, np.uint8) for z in (120, 130, 100)]
    inputs = [a, scales[0], zeros[0], b, scales[1], zeros[1], scales[2], zeros[2]]
    agree("QLinearMatMul", inputs, opset=opset, quanta=1)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("channels", [False, True], ids=["tensor", "channel"])
def test_qlinear_conv(bias: bool, channels: bool) -> None:
    w_scale = rng.uniform(0.01, 0.02, 6).astype(np.float32) if channels else f32(0.015)
    w_zero = np.zeros(6, np.int8) if channels else np.array(0, np.int8)
    inputs = [
        IMAGE,
        f32(0.02),
        np.array(128, np.uint8),
        FILTERS,
        w_scale,
        w_zero,
        f32(0.1),
        np.array(100, np.uint8),
    ]
    inputs += [rng.integers(-9000, 9000, 6, np.int32)] if bias else []
    agree("QLinearConv", inputs, opset=10, quanta=1, constants=range(3, 6), **WINDOW)


def pair(op_type: str, dtype: Any, more: list[Any], **attrs: Any) -> None:
    inputs = [whole(dtype, 2, 3, 4), f32(0.03), np.array(5, dtype), *more]
    agree(op_type, inputs, opset=1, domain=MICROSOFT, quanta=1, **attrs)


def as_defined(op_type: str, inputs: list[Any], wanted: np.ndarray, **attrs: Any) -> None:
    """Compare what onnxruntime has no kernel for with the floats that the definition gives."""
    (found,) = run_node(op_type, inputs, opset=1, domain=MICROSOFT, **attrs)
    np.testing.assert_allclose(found, wanted, atol=1.01)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
@pytest.mark.parametrize("op_type", ["QLinearAdd", "QLinearMul"])
def test_two_operands(op_type: str, dtype: Any) -> None:
    pair(op_type, dtype, [whole(dtype, 4), f32(0.02), np.array(9, dtype), f32(0.05), np.array(20, dtype)])


def test_zero_points_may_be_left_out() -> None:
    a, b = whole(np.uint8, 2, 3), whole(np.uint8, 3)
    wanted = np.clip(a * 0.03 + (b - 5.0) * 0.02, 0, 255 * 0.05) / 0.05
    as_defined("QLinearAdd", [a, f32(0.03), None, b, f32(0.02), np.array(5, np.uint8), f32(0.05)], wanted)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
@pytest.mark.parametrize("op_type", ["QLinearSigmoid", "QLinearLeakyRelu"])
def test_one_operand(op_type: str, dtype: Any) -> None:
    pair(op_type, dtype, [f32(0.01), np.array(0, dtype)])
    pair("QLinearLeakyRelu", dtype, [f32(0.02), np.array(3, dtype)], alpha=0.2)


@pytest.mark.parametrize("opset", [12, 13])
@pytest.mark.parametrize("axis", [1, -1])
def test_softmax(opset: int, axis: int) -> None:
    x = whole(np.uint8, 2, 3, 4)
    inputs = [x, f32(0.03), np.array(5, np.uint8), f32(1 / 256), np.array(0, np.uint8)]
    model = one_node_model("QLinearSoftmax", inputs, opset=1, domain=MICROSOFT, axis=axis)
    model.graph.node[0].attribute.append(helper.make_attribute("opset", opset))
    feeds = {f"x{i}": a for i, a in enumerate(inputs)}
    data = model.SerializeToString()
    (found,) = load_bytes(data).run(feeds)
    (wanted,) = ort.InferenceSession(data, providers=["CPUExecutionProvider"]).run(None, feeds)
    assert np.abs(found.astype(int) - wanted).max() <= 1


def test_reduce_mean() -> None:
    x = whole(np.uint8, 2, 3, 4)
    inputs = [x, f32(0.03), np.array(5, np.uint8), f32(0.03), np.array(5, np.uint8)]
    as_defined("QLinearReduceMean", inputs, x.mean(axis=-1), axes=[-1], keepdims=0)


@pytest.mark.parametrize("channels_last", [0, 1])
def test_global_average_pool(channels_last: int) -> None:
    inputs = [whole(np.uint8, 2, 5, 6, 3), f32(0.03), np.array(5, np.uint8), f32(0.02), np.array(3, np.uint8)]
    agree("QLinearGlobalAveragePool", inputs, opset=1, domain=MICROSOFT, quanta=1, channels_last=channels_last)


@pytest.mark.parametrize(
    "attrs",
    [
        {"kernel_shape": [2, 2], "strides": [2, 2]},
        {"kernel_shape": [3, 2], "pads": [1, 0, 1, 1]},
        {"kernel_shape": [3, 2], "pads": [1, 0, 1, 1], "count_include_pad": 1},
        {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1},
    ],
)
def test_average_pool(attrs: dict[str, Any]) -> None:
    inputs = [whole(np.uint8, 2, 3, 6, 6), f32(0.03), np.array(5, np.uint8), f32(0.02), np.array(3, np.uint8)]
    agree("QLinearAveragePool", inputs, opset=1, domain=MICROSOFT, quanta=1, **attrs)


def test_concat() -> None:
    parts = [
        whole(np.uint8, 2, 3),
        f32(0.03),
        np.array(5, np.uint8),
        whole(np.uint8, 2, 2),
        f32(0.01),
        np.array(9, np.uint8),
    ]
    agree(
        "QLinearConcat",
        [f32(0.02), np.array(7, np.uint8), *parts],
        opset=1,
        domain=MICROSOFT,
        quanta=1,
        axis=1,
    )


def test_where() -> None:
    parts = [
        whole(np.uint8, 2, 3),
        f32(0.03),
        np.array(5, np.uint8),
        whole(np.uint8, 2, 3),
        f32(0.01),
        np.array(9, np.uint8),
    ]
    condition = rng.uniform(size=(2, 3)) > 0.5
    inputs = [condition, *parts, f32(0.02), np.array(7, np.uint8)]
    agree("QLinearWhere", inputs, opset=1, domain=MICROSOFT, quanta=1, constants=[2, 3, 5, 6, 7, 8])


@pytest.mark.parametrize("transposed", [0, 1])
def test_gemm(transposed: int) -> None:
    a, b, c = whole(np.uint8, 3, 32), whole(np.uint8, 32, 4), rng.integers(-999, 999, 4, np.int32)
    b = np.ascontiguousarray(b.T) if transposed else b
    inputs = [a, f32(0.02), np.array(120, np.uint8), b, f32(0.03), np.array(130, np.uint8), c]
    agree("QGemm", inputs, opset=1, domain=MICROSOFT, transB=transposed)
    more = [f32(1.5), np.array(100, np.uint8)]
    agree("QGemm", [*inputs, *more], opset=1, domain=MICROSOFT, transB=transposed, alpha=0.5, quanta=1)


def test_products_as_floats() -> None:
    a, b = whole(np.uint8, 3, 8), whole(np.int8, 8, 4)
    inputs = [a, b, f32(0.02), f32(0.03, 0.04, 0.05, 0.06), np.array(120, np.uint8), np.array(3, np.int8)]
    agree("MatMulIntegerToFloat", inputs, opset=1, domain=MICROSOFT)
    x, bias = rng.uniform(-3, 3, (3, 8)).astype(np.float32), rng.uniform(-1, 1, 4).astype(np.float32)
    agree("DynamicQuantizeMatMul", [x, b, f32(0.03), np.array(3, np.int8), bias], opset=1, domain=MICROSOFT)


def test_quantize_of_microsoft() -> None:
    agree("QuantizeLinear", [X, f32(0.05), np.array(3, np.uint8)], opset=1, domain=MICROSOFT)
    agree(
        "DequantizeLinear",
        [whole(np.uint8, 2, 3), f32(0.05), np.array(3, np.uint8)],
        opset=1,
        domain=MICROSOFT,
    )


def chain(*nodes: tuple[Any, ...], opset: int = 21, **weights: np.ndarray) -> bytes:
    """Return a model of nodes (operator, inputs, output, attributes) from x to the last output."""
    made = [helper.make_node(op, i, o if isinstance(o, list) else [o], **attrs) for op, i, o, attrs in nodes]
    graph = helper.make_graph(
        made,
        "chain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, X.shape)],
        [helper.make_tensor_value_info(nodes[-1][2], TensorProto.FLOAT, None)],
        [numpy_helper.from_array(a, n) for n, a in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    return model.SerializeToString()


def through(data: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Return what both runtimes compute, which has to be the same bits, and the gradient of a weighted sum."""
    (wanted,) = ort.InferenceSession(data, providers=["CPUExecutionProvider"]).run(None, {"x": X})
    model, t = load_bytes(data), Tensor(X, requires_grad=True)
    np.testing.assert_array_equal(model.run({"x": X})[0], wanted)
    weights = np.arange(wanted.size, dtype=np.float32).reshape(wanted.shape)
    (model(t) * Tensor(weights)).sum().backward()
    return weights, t.grad.numpy()


def test_gradient_between_quantisation_and_back() -> None:
    """What moves elements may stand between the two, as optimisers write it."""
    data = chain(
        ("QuantizeLinear", ["x", "scale", "zero"], "q", {}),
        ("Transpose", ["q"], "t", {"perm": [2, 0, 1]}),
        ("Reshape", ["t", "shape"], "r", {}),
        ("DequantizeLinear", ["r", "scale", "zero"], "y", {}),
        scale=np.array(0.015625, np.float32),
        zero=np.array(3, np.int8),
        shape=np.array([0, -1]),
    )
    weights, grad = through(data)
    at = np.round(X / 0.015625) + 3
    inside = (at >= -128) & (at <= 127)
    assert 0 < inside.sum() < X.size
    moved = weights.reshape(X.shape[2], *X.shape[:2]).transpose(1, 2, 0)
    np.testing.assert_array_equal(grad, np.where(inside, moved, 0))


def test_gradient_through_dynamic_quantisation() -> None:
    data = chain(
        ("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero"], {}),
        ("DequantizeLinear", ["q", "scale", "zero"], "y", {}),
    )
    weights, grad = through(data)
    np.testing.assert_array_equal(grad, weights)
