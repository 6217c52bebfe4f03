"""Quantisation and products of bytes, compiled: against integer NumPy, the array kernels and onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import onnxgrad.ops.conv
import onnxgrad.ops.quantize  # noqa: F401 (their ops)
from onnxgrad.ops.dims import Dim
from onnxgrad.ops.expr import Var
from onnxgrad.ops.kernels.cpu import quantized_products  # noqa: F401 (its rules)
from onnxgrad.ops.kernels.cpu.jit import compiled_modules
from onnxgrad.ops.kernels.cpu.lowering import Epilogue
from onnxgrad.ops.kernels.cpu.operand import Operand
from onnxgrad.ops.kernels.cpu.quantize import expression
from onnxgrad.ops.op import OPS
from onnxgrad.ops.window import Window

from .site import run_op

BYTES = st.sampled_from(["uint8", "int8"])


def whole(rng: np.random.Generator, dtype: str, shape: tuple[int, ...], extreme: bool = False) -> np.ndarray[Any, Any]:
    info = np.iinfo(dtype)
    if extreme:
        return rng.choice([info.min, info.max], shape).astype(dtype)
    return rng.integers(info.min, info.max + 1, shape).astype(dtype)


@settings(max_examples=15, deadline=None)
@given(
    batch=st.integers(0, 2), m=st.integers(1, 40), k=st.integers(1, 70), n=st.integers(1, 70), a=BYTES, b=BYTES,
    zeros=st.sampled_from(["none", "known", "late", "rows", "columns"]), at_end=st.booleans(), extreme=st.booleans(),
    symbolic=st.booleans(),
)  # fmt: skip
def test_matmul_integer(
    batch: int, m: int, k: int, n: int, a: str, b: str, zeros: str, at_end: bool, extreme: bool, symbolic: bool
) -> None:
    rng = np.random.default_rng(0)
    x, w = whole(rng, a, (batch, m, k), extreme), whole(rng, b, (k, n), extreme)
    args: list[Any] = [x, w]
    if zeros != "none":
        args += [whole(rng, a, (m, 1) if zeros == "rows" else ()), whole(rng, b, (n,) if zeros == "columns" else ())]
    symbols = {0: (Dim.symbol("b"), Dim.symbol("m"), k)} if symbolic and zeros != "rows" else None
    weights = (1, 3) if zeros in ("late", "rows") else (1, 2, 3)
    got = run_op("matmul_integer", args, weights=weights, at_end=at_end, symbols=symbols)
    left, right = (v.astype(np.int64) for v in (x, w))
    if zeros != "none":
        left, right = left - args[2], right - args[3].astype(np.int64)
    assert got.dtype == np.int32
    assert np.array_equal(got, left @ right)
    assert np.array_equal(got, OPS["matmul_integer"].run(*args))


@settings(max_examples=15, deadline=None)
@given(
    c=st.integers(1, 9), f=st.integers(1, 40), size=st.integers(1, 12), k=st.integers(1, 3), stride=st.integers(1, 2),
    dilation=st.integers(1, 2), pads=st.tuples(st.integers(0, 2), st.integers(0, 2)), x=BYTES, w=BYTES,
    zeros=st.sampled_from(["none", "zero", "known", "filters"]), order=st.sampled_from(["plain", "channels_last"]),
    at_end=st.booleans(), group=st.sampled_from([1, 1, 2]),
)  # fmt: skip
def test_conv_integer(
    c: int, f: int, size: int, k: int, stride: int, dilation: int, pads: tuple[int, int], x: str, w: str, zeros: str,
    order: str, at_end: bool, group: int,
) -> None:  # fmt: skip
    win = Window((stride, stride), ((pads[0], pads[1]), (pads[1], pads[0])), (dilation, dilation), group)
    if size + sum(pads) < dilation * (k - 1) + 1:
        return
    if group > 1:
        c, f, w = 4 * c, 2 * f, "int8"
    rng = np.random.default_rng(1)
    args: list[Any] = [whole(rng, x, (2, c * group, size, size)), whole(rng, w, (f, c, k, k))]
    if zeros != "none":
        column = (f, 1, 1, 1) if zeros == "filters" and group == 1 else ()
        zero = np.zeros(column, w) if group > 1 or zeros == "zero" else whole(rng, w, column)
        args += [np.zeros((), x) if zeros == "zero" else whole(rng, x, ()), zero]
    got = run_op("conv_integer", args, weights=(1, 2, 3), order=order, at_end=at_end, win=win)
    left, right = (v.astype(np.float64) for v in args[:2])
    if zeros != "none":
        left, right = left - args[2], right - args[3]
    assert np.array_equal(got, OPS["conv"].run(left, right, win=win))
    assert np.array_equal(got, OPS["conv_integer"].run(*args, win=win))


def test_sums_that_would_saturate_16_bits() -> None:
    x, w = np.full((3, 64), 255, np.uint8), np.full((64, 20), -128, np.int8)
    assert np.array_equal(run_op("matmul_integer", [x, w], weights=(1,)), np.full((3, 20), -255 * 128 * 64))


def test_a_late_zero_point_with_padding_is_refused() -> None:
    rng = np.random.default_rng(2)
    x, w = whole(rng, "uint8", (1, 4, 5, 5)), whole(rng, "int8", (3, 4, 3, 3))
    win = Window((1, 1), ((1, 1), (1, 1)), (1, 1), 1)
    assert run_op("conv_integer", [x, w, np.array(3, np.uint8)], weights=(1,), win=win) is None
    win = Window((1, 1), ((0, 0), (0, 0)), (1, 1), 1)
    got = run_op("conv_integer", [x, w, np.array(3, np.uint8)], weights=(1,), win=win)
    assert np.array_equal(got, OPS["conv_integer"].run(x, w, np.array(3, np.uint8), win=win))


@pytest.mark.parametrize("order", ["plain", "channels_last"])
@pytest.mark.parametrize("filters", [5, 32])
def test_requantisation_is_an_epilogue(order: str, filters: int) -> None:
    """QLinearConv: the sums, a bias, the scale of the result."""
    ort = pytest.importorskip("onnxruntime")
    helper = pytest.importorskip("onnx").helper
    rng = np.random.default_rng(3)
    x, w = whole(rng, "uint8", (2, 8, 7, 9)), whole(rng, "int8", (filters, 8, 3, 3))
    bias = rng.integers(-3000, 3000, filters).astype(np.int32)
    scales = rng.uniform(0.001, 0.01, filters).astype(np.float32)
    win = Window((1, 1), ((1, 1), (1, 1)), (1, 1), 1)
    shape = (2, filters, 7, 9)
    args = [Var("x") + Var("a0"), Var("a1"), Var("a2")]
    tail = expression("requantize", {"dtype": "uint8"}, ["int32", "float32", "uint8"], np.uint8, args)
    assert tail is not None
    factor = (np.float32(0.02) * scales / np.float32(0.05)).astype(np.float32)
    column = (0, 1, 0, 0)
    operands = (
        Operand(np.dtype(np.int32), shape, column), Operand(np.dtype(np.float32), shape, column),
        Operand(np.dtype(np.uint8), shape, (0, 0, 0, 0)),
    )  # fmt: skip
    zero, y_zero = np.array(7, np.uint8), np.array(128, np.uint8)
    got = run_op(
        "conv_integer", [x, w, zero, np.zeros((), np.int8)], weights=(1, 2, 3), order=order, win=win,
        epilogue=Epilogue(tail, operands, np.dtype(np.uint8)), extra=[bias, factor, y_zero],
    )  # fmt: skip
    sums = OPS["conv_integer"].run(x, w, zero, win=win) + bias[:, None, None]
    assert np.array_equal(got, OPS["requantize"].run(sums, factor[:, None, None], y_zero, dtype="uint8"))
    names = ["x", "xs", "xz", "w", "ws", "wz", "ys", "yz", "b"]
    arrays = [x, np.float32(0.02), zero, w, scales, np.zeros(filters, np.int8), np.float32(0.05), y_zero, bias]
    node = helper.make_node("QLinearConv", names, ["y"], pads=[1, 1, 1, 1])
    about = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(np.asarray(a).dtype), np.shape(a))
        for n, a in zip(names, arrays, strict=True)
    ]
    out = helper.make_tensor_value_info("y", helper.np_dtype_to_tensor_dtype(np.dtype(np.uint8)), shape)
    model = helper.make_model(
        helper.make_graph([node], "g", about, [out]), opset_imports=[helper.make_opsetid("", 13)], ir_version=8
    )
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    wanted = session.run(None, {n: np.asarray(a) for n, a in zip(names, arrays, strict=True)})[0]
    assert np.abs(got.astype(int) - wanted.astype(int)).max() <= 1


@settings(max_examples=15, deadline=None)
@given(
    op=st.sampled_from(["quantize_linear", "dequantize_linear", "requantize"]), dtype=BYTES,
    shape=st.lists(st.integers(0, 20), min_size=0, max_size=4).map(tuple), channel=st.booleans(), zero=st.booleans(),
    at_end=st.booleans(), order=st.sampled_from(["plain", "channels_last"]), symbolic=st.booleans(),
)  # fmt: skip
def test_element_by_element(
    op: str, dtype: str, shape: tuple[int, ...], channel: bool, zero: bool, at_end: bool, order: str, symbolic: bool
) -> None:
    rng = np.random.default_rng(4)
    own = (shape[1], *(1,) * (len(shape) - 2)) if channel and len(shape) > 1 else ()
    scale = np.asarray(rng.uniform(0.01, 0.5, own), np.float32)
    x: Any = {
        "quantize_linear": (rng.standard_normal(shape) * 20).astype(np.float32),
        "dequantize_linear": whole(rng, dtype, shape),
        "requantize": rng.integers(-500, 500, shape).astype(np.int32),
    }[op]
    if op == "quantize_linear" and x.size:
        x.reshape(-1)[: x.size // 2] = np.round(x.reshape(-1)[: x.size // 2] * 2) / 2 * 0.25
        scale[...] = 0.25 if channel else scale
    args = [np.asarray(x), scale] + ([whole(rng, dtype, own)] if zero else [])
    attrs = {"dtype": "float32" if op == "dequantize_linear" else dtype}
    symbols = {0: (Dim.symbol("n"), *shape[1:])} if symbolic and shape else None
    got = run_op(op, args, at_end=at_end, order=order, symbols=symbols, **attrs)
    wanted = OPS[op].run(*args, **attrs)
    assert got.dtype == wanted.dtype
    assert np.array_equal(got, wanted)


@pytest.mark.parametrize("zero", [False, True])
def test_fake_quantisation(zero: bool) -> None:
    rng = np.random.default_rng(6)
    x, scale = rng.standard_normal((3, 5, 7)).astype(np.float32), np.full((5, 1), 0.02, np.float32)
    zeros = [whole(rng, "int8", (5, 1))] * 2 if zero else []
    got = run_op("fake_quantize", [x, scale, scale, *zeros], dtype="int8", to="float32")
    wanted = OPS["fake_quantize"].run(x, scale, scale, *zeros, dtype="int8", to="float32")
    assert np.array_equal(got, wanted)


@pytest.mark.parametrize("shape", [(), (3,), (2, 5, 31), (40, 1000), (0, 4)])
@pytest.mark.parametrize("kind", ["both", "positive", "zeros"])
def test_dynamic_quantisation(shape: tuple[int, ...], kind: str) -> None:
    x = np.random.default_rng(7).standard_normal(shape).astype(np.float32)
    x = np.asarray({"both": x, "positive": np.abs(x), "zeros": x * 0}[kind], np.float32)
    for symbols in (None, {0: (Dim.symbol("n"), *shape[1:])} if shape else None):
        for a, b in zip(
            run_op("dynamic_quantize_linear", [x], symbols=symbols), OPS["dynamic_quantize_linear"].run(x), strict=True
        ):
            assert a.dtype == b.dtype
            assert np.array_equal(a, b)


def test_rounds_halves_to_even_and_saturates() -> None:
    x = np.array([0.5, 1.5, 2.5, -0.5, -1.5, 1e9, -1e9, np.inf, -np.inf], np.float32)
    got = run_op("quantize_linear", [x, np.array(1, np.float32)], dtype="int8")
    assert got.tolist() == [0, 2, 2, 0, -2, 127, -128, 127, -128]


def test_results_do_not_depend_on_threads_and_new_sizes_need_no_compiler() -> None:
    rng = np.random.default_rng(5)
    w, symbols = whole(rng, "int8", (32, 40)), {0: (Dim.symbol("b"), Dim.symbol("m"), 32)}
    before = None
    for b, m in ((1, 1), (2, 33), (3, 100), (0, 4)):
        x = whole(rng, "uint8", (b, m, 32))
        one, four = (
            run_op("matmul_integer", [x, w, np.array(9, np.uint8)], weights=(1,), symbols=symbols, threads=n)
            for n in (1, 4)
        )
        assert np.array_equal(one, (x.astype(np.int64) - 9) @ w.astype(np.int64))
        assert np.array_equal(one, four)
        before = before if before is not None else compiled_modules()
    assert compiled_modules() == before
