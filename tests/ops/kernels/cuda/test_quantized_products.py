"""CUDA products and convolutions of small integers against exact ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnxgrad.ops.expr import Var
from onnxgrad.ops.kernels.cuda import quantized_products as _rules
from onnxgrad.ops.kernels.cuda.lowering import Epilogue
from onnxgrad.ops.kernels.cuda.operand import packed
from onnxgrad.ops.op import OPS
from onnxgrad.ops.window import Window

from .site import refuses, run_op

assert _rules
RNG = np.random.default_rng(0)


def drawn(shape: tuple[int, ...], dtype: Any) -> Any:
    about = np.iinfo(dtype)
    return RNG.integers(about.min, about.max + 1, shape).astype(dtype)


def check(op: str, arrays: list[Any], attrs: dict[str, Any] | None = None, **how: Any) -> None:
    (y,) = run_op(op, arrays, attrs, **how)
    assert y.dtype == np.int32
    np.testing.assert_array_equal(y, OPS[op].run(*arrays, **(attrs or {})))


SHAPES = [
    ((3, 5), (5, 4)),
    ((70, 33), (33, 130)),
    ((2, 3, 6, 20), (20, 7)),
    ((2, 1, 4, 17), (3, 17, 5)),
    ((1, 1), (1, 1)),
]


@pytest.mark.parametrize("shapes", SHAPES)
@pytest.mark.parametrize("types", [("uint8", "int8"), ("int8", "uint8"), ("int16", "uint16")])
@pytest.mark.parametrize("order", ["plain", "transposed"])
def test_products(shapes: Any, types: tuple[str, str], order: str) -> None:
    a, b = (drawn(s, t) for s, t in zip(shapes, types, strict=True))
    if types[0] == "int16":
        a, b = a // 64, b // 64
    check("matmul_integer", [a, b], order=order)
    zeros = [drawn((), types[0]), drawn((b.shape[-1],), types[1])]
    check("matmul_integer", [a, b, *zeros], order=order)
    check("matmul_integer", [a, b, drawn((a.shape[-2], 1), types[0]), None], compiles=False)


def test_long_sums_are_exact() -> None:
    a, b = np.full((3, 4000), 255, np.uint8), np.full((4000, 3), -128, np.int8)
    check("matmul_integer", [a, b, np.array(0, np.uint8), np.array(127, np.int8)])


WINDOWS = [
    ((2, 3, 7, 8), (5, 3, 3, 2), Window((1, 1), ((1, 0), (0, 1)), (1, 1))),
    ((1, 4, 9, 6), (6, 2, 2, 2), Window((2, 1), ((0, 0), (2, 1)), (1, 2), 2)),
    ((2, 6, 5, 5), (6, 1, 3, 3), Window((1, 1), ((1, 1), (1, 1)), (1, 1), 6)),
    ((3, 2, 11), (70, 2, 4), Window((3,), ((2, 2),), (1,))),
    ((1, 2, 3, 4, 5), (3, 2, 2, 2, 2), Window((1, 1, 1), ((0, 0), (1, 0), (0, 1)), (1, 1, 1))),
]


@pytest.mark.parametrize(("x", "w", "win"), WINDOWS)
@pytest.mark.parametrize("types", [("uint8", "int8"), ("int8", "int8")])
@pytest.mark.parametrize("order", ["plain", "channels_last"])
def test_convolutions(x: Any, w: Any, win: Window, types: tuple[str, str], order: str) -> None:
    arrays = [drawn(x, types[0]), drawn(w, types[1])]
    check("conv_integer", arrays, {"win": win}, order=order)
    each = (w[0], *[1] * (len(w) - 1))
    check("conv_integer", [*arrays, drawn((), types[0]), drawn(each, types[1])], {"win": win}, order=order)


def test_epilogues() -> None:
    a, b, scale = drawn((5, 9), "uint8"), drawn((9, 6), "int8"), RNG.random(6).astype(np.float32)
    expression = Var("x") * Var("a0")
    epilogue = Epilogue(expression, (packed(scale.dtype, (6,)).broadcast_to((5, 6)),), scale.dtype)
    (y,) = run_op("matmul_integer", [a, b], epilogue=epilogue, extra=[scale])
    np.testing.assert_allclose(y, (a.astype(int) @ b.astype(int)) * scale, rtol=1e-6)


def test_refusals() -> None:
    assert refuses("matmul_integer", [drawn((4,), "int8"), drawn((4, 3), "int8")])
