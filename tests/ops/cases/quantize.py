"""Quantisation: the rows of the op table."""

from __future__ import annotations

from typing import Any

import numpy as np

from onnxgrad.ops import quantize as q
from onnxgrad.ops.window import Window

from ..case import OpCase, rand
from .conv import loops


def quantized(x: np.ndarray, scale: Any, zero: Any, low: int, high: int) -> np.ndarray:
    """Round half to even and saturate, one number at a time."""
    at = np.broadcast(x, scale, zero)
    return np.array([min(high, max(low, round(v / s) + int(z))) for v, s, z in at]).reshape(at.shape)


def range_of(x: np.ndarray) -> tuple[np.ndarray, ...]:
    low, high = min(x.min(), 0), max(x.max(), 0)
    scale = np.float32((high - low) / 255)
    zero = round(float(-low / scale))
    return quantized(x, scale, zero, 0, 255), scale, np.uint8(zero)


def ints(*shape: int, dtype: Any, seed: int = 0) -> np.ndarray:
    info = np.iinfo(dtype)
    return np.random.default_rng([seed, *shape]).integers(info.min, info.max, shape, dtype, endpoint=True)


X = rand(3, 4, low=-20, high=20)
ROWS = np.array([[0.25], [0.5], [0.1]])
ROW_ZEROS = np.array([[3], [0], [-9]], np.int8)
U8, I8, I32 = ints(3, 4, dtype=np.uint8), ints(3, 4, dtype=np.int8), ints(3, 4, dtype=np.int32)
LEFT, RIGHT = ints(2, 3, 700, dtype=np.uint8), ints(700, 4, dtype=np.int8, seed=1)
IMAGE, FILTERS = ints(2, 4, 5, 5, dtype=np.uint8), ints(6, 2, 3, 3, dtype=np.int8, seed=1)
ZEROS = np.arange(6, dtype=np.int8).reshape(6, 1, 1, 1) - 3
WIN = Window((2, 1), ((1, 0), (1, 1)), (1, 1), 2)
QUARTER, HUNDRED = np.array(0.25), np.array(100, np.uint8)


def product(a: np.ndarray, b: np.ndarray, a_zero: Any = 0, b_zero: Any = 0) -> np.ndarray:
    return (a.astype(np.int64) - np.int64(a_zero)) @ (b.astype(np.int64) - np.int64(b_zero))


def correlation(x: np.ndarray, w: np.ndarray, x_zero: Any = 0, w_zero: Any = 0) -> np.ndarray:
    return loops(x.astype(float) - float(x_zero), w.astype(float) - w_zero, WIN)


def fields(bits: int) -> Any:
    """Read each row of bytes as one long number, and cut small ones off its end."""

    def cut(row: np.ndarray) -> list[int]:
        whole = int.from_bytes(row.tobytes(), "little")
        return [(whole >> k * bits) % 2**bits for k in range(8 * row.size // bits)]

    return lambda x: np.array([cut(row) for row in x], np.uint8)


def requantized(low: int, high: int) -> Any:
    return lambda acc, factor, zero: quantized(acc * np.float32(factor), 1, zero, low, high)


CASES = [
    OpCase(
        q.quantize_linear,
        (X, QUARTER, HUNDRED),
        lambda *a: quantized(*a, 0, 255),
        {"dtype": "uint8"},
        order=0,
    ),
    OpCase(
        q.quantize_linear,
        (X, ROWS, ROW_ZEROS),
        lambda *a: quantized(*a, -128, 127),
        {"dtype": "int8"},
        order=0,
    ),
    OpCase(
        q.quantize_linear,
        (np.array([0.5, 1.5, 2.5, -0.5, 1e9, -1e9]), np.array(1.0)),
        lambda *a: np.array([0, 2, 2, 0, 32767, -32768]),
        {"dtype": "int16"},
        order=0,
    ),
    OpCase(q.dequantize_linear, (U8, QUARTER, HUNDRED), lambda x, s, z: (x - 100.0) * s, {"dtype": "float64"}),
    OpCase(q.dequantize_linear, (I8, ROWS, ROW_ZEROS), lambda x, s, z: (x - 1.0 * z) * s, {"dtype": "float64"}),
    OpCase(q.dequantize_linear, (I32, QUARTER), lambda x, s: x * s, {"dtype": "float64"}, grad_tol=1e-3),
    OpCase(
        q.fake_quantize,
        (X, ROWS, ROWS, ROW_ZEROS, ROW_ZEROS),
        lambda x, s, b, z, w: (quantized(x, s, z, -128, 127) - w) * b,
        {"dtype": "int8", "to": "float64"},
        order=None,
    ),
    OpCase(
        q.fake_quantize,
        (X, QUARTER, np.array(0.5)),
        lambda x, s, b: quantized(x, s, 0, 0, 255) * b,
        {"dtype": "uint8", "to": "float64"},
        order=None,
    ),
    OpCase(q.dynamic_quantize_linear, (X,), range_of, order=0, tol=1e-6),
    OpCase(q.dynamic_quantize_linear, (np.abs(X),), range_of, order=0, tol=1e-6),
    OpCase(
        q.dynamic_fake_quantize,
        (X,),
        lambda x: (range_of(x)[0] - range_of(x)[2].astype(float)) * range_of(x)[1],
        order=None,
        tol=1e-6,
    ),
    OpCase(q.unpack_bits, (U8,), lambda x: x, {"bits": 8}, order=0),
    OpCase(q.unpack_bits, (U8,), fields(4), {"bits": 4}, order=0),
    OpCase(q.unpack_bits, (U8,), fields(2), {"bits": 2}, order=0),
    OpCase(q.unpack_bits, (U8,), fields(3), {"bits": 3}, order=0),
    OpCase(q.matmul_integer, (LEFT, RIGHT), product, order=0),
    OpCase(q.matmul_integer, (LEFT, RIGHT, np.uint8(7), np.array([1, 2, 3, -4], np.int8)), product, order=0),
    OpCase(q.conv_integer, (IMAGE, FILTERS), correlation, {"win": WIN}, order=0),
    OpCase(q.conv_integer, (IMAGE, FILTERS, HUNDRED, ZEROS), correlation, {"win": WIN}, order=0),
    OpCase(
        q.requantize,
        (I32 // 1000, np.float32([0.001, 0.0001, 0.01, 1e-5]), HUNDRED),
        requantized(0, 255),
        {"dtype": "uint8"},
        order=0,
    ),
]
