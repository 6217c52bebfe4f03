"""Parameters, offsets and vectors of kernels over strided tensors; every family also with offsets of 64 bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnxgrad.ops.errors import KernelError
from onnxgrad.ops.expr import Var
from onnxgrad.ops.kernels.cuda import depthwise, dropout, index, pool, pool_grad, random, rank, resize, segments
from onnxgrad.ops.kernels.cuda.lowering import LOWERINGS, Epilogue, Lowering
from onnxgrad.ops.kernels.cuda.operand import Operand, channels_last_strides, packed
from onnxgrad.ops.kernels.cuda.signature import Signature, is_wide, lanes, lanes_of_rows
from onnxgrad.ops.op import OPS
from onnxgrad.ops.resize import Interpolation
from onnxgrad.ops.types import TensorType
from onnxgrad.ops.window import Window

from .site import make_site, run_op

F16, F32 = np.dtype(np.float16), np.dtype(np.float32)
RNG = np.random.default_rng(0)


def test_widths_of_vectors() -> None:
    shape = (2, 24, 5, 5)
    last = Operand(F32, shape, channels_last_strides(shape))
    assert lanes(1, last) == 4
    assert lanes(1, Operand(F16, shape, channels_last_strides(shape))) == 8
    assert lanes(1, last, Operand(np.dtype(np.float64), shape, channels_last_strides(shape))) == 2
    assert lanes(1, packed(F32, shape)) == 1, "no neighbours"
    assert lanes(3, packed(F32, (2, 3, 4, 6))) == 2, "6 is no multiple of 4"
    assert lanes(1, Operand(F32, shape, channels_last_strides(shape), 2)) == 2, "begins in the middle of a vector"
    assert lanes(1, Operand(F32, (2, 24), (25, 1))) == 1, "rows begin anywhere"
    assert lanes_of_rows(12, packed(F16, (5, 12))) == 4
    assert lanes_of_rows(12, packed(F16, (5, 12)), Operand(F16, (5, 12), (12, 1), 3)) == 1


def test_when_offsets_are_wide() -> None:
    assert not is_wide(packed(F32, (2**30,)))
    assert is_wide(packed(F32, (2**31,)))
    assert is_wide(Operand(F32, (2, 3), (2**31, 1)))
    assert is_wide(Operand(F32, (2**20, 2**12), (0, 1))), "so many elements, broadcast or not"


def test_parameters_and_arguments_belong_together() -> None:
    site = make_site("max_pool", [np.zeros((1, 2, 3, 3), F32)], {"kernel": (1, 1), "win": pool_window()})
    s = Signature()
    s.reads("x", site.read(0))
    s.writes("y", site.write())
    s.divisor("n", 2**31 - 1)
    s.real("scale", 0.5, "float")
    kernel = s.kernel("probe", "y[0] = scale;", registers=32)
    assert kernel.parameters == ("pointer", "pointer", "i32", "i32", "i32", "f32")
    assert (s.written, len(s.arguments)) == ([1], 6)
    assert "__launch_bounds__(256, 8) probe(" in kernel.code
    with pytest.raises(KernelError):
        site.launch(kernel, (1, 1, 1), (512, 1, 1), s.arguments, writes=s.written)


def pool_window(pad: int = 0, stride: int = 1, group: int = 1) -> Window:
    """Return a window over two axes."""
    return Window((stride,) * 2, ((pad, pad),) * 2, (1, 1), group)


def test_an_epilogue_whose_operands_lie_anyhow() -> None:
    x = RNG.standard_normal((2, 8, 4, 4)).astype(np.float32)
    extra = [RNG.standard_normal(s).astype(np.float32) for s in ((2, 8, 4, 4), (4,), (8, 1, 1), ())]
    operands = (
        packed(F32, (2, 8, 4, 4)),
        packed(F32, (4,)).broadcast_to((2, 8, 4, 4)),
        Operand(F32, (8, 1, 1), (3, 1, 1)).broadcast_to((2, 8, 4, 4)),
        packed(F32, ()).broadcast_to((2, 8, 4, 4)),
    )
    expression = Var("x") + Var("a0") * Var("a1") + Var("a2") * Var("a3")
    epilogue = Epilogue(expression, operands, F32)
    attrs: dict[str, Any] = {"kernel": (1, 1), "win": pool_window()}
    for order in ("plain", "channels_last"):
        (y,) = run_op("sum_pool", [x], attrs, order=order, epilogue=epilogue, extra=extra)
        want = x + extra[0] * extra[1] + extra[2] * extra[3]
        np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-5)


def wide_cases() -> list[tuple[str, list[Any], dict[str, Any], str]]:
    """Return ops with arguments, attributes and an order, one for each kernel."""
    x, g = RNG.standard_normal((2, 8, 6, 6)).astype(F32), RNG.standard_normal((2, 8, 3, 3)).astype(F32)
    w, key = RNG.standard_normal((8, 1, 3, 3)).astype(F32), np.array([1, 2], np.uint64)
    at = RNG.integers(-9, 9, 70)
    strided = {"kernel": (3, 3), "win": pool_window(1, 2)}
    close, far = pool_window(1, 1, 8), pool_window(1, 2, 8)
    how: dict[str, Any] = {"axes": (2, 3), "how": Interpolation("linear")}
    found: list[tuple[str, list[Any], dict[str, Any], str]] = []
    for order in ("plain", "channels_last"):
        found += [
            ("max_pool", [x], strided, order),
            ("sum_pool", [x], {**strided, "counted": ((0, 0), (0, 0))}, order),
            ("max_pool_indices", [x], strided, order),
            ("max_pool_grad", [g, x], strided, order),
            ("sum_pool_grad", [g], {**strided, "size": (6, 6)}, order),
            ("conv", [x, w], {"win": close}, order),
            ("conv_input_grad", [x, w], {"win": close, "size": (6, 6)}, order),
            ("conv_input_grad", [g, w], {"win": far, "size": (6, 6)}, order),
            ("conv_weight_grad", [g, x], {"win": far, "kernel": (3, 3)}, order),
            ("resize", [x, None, None], {**how, "size": (9, 12)}, order),
        ]
    return [
        *found,
        ("sum_pool", [x], {"kernel": (6, 6), "win": pool_window()}, "channels_last"),
        ("gather", [x, at % 6], {"axis": 2}, "plain"),
        ("gather_nd", [x, np.array([[1, 3], [0, -2]])], {}, "plain"),
        ("scatter_elements", [x[0, 0], at.reshape(1, 70) % 6, at.reshape(1, 70).astype(F32)], {"axis": 1}, "plain"),
        ("gather_grad", [RNG.standard_normal((70, 4)).astype(F32), at], {"axis": 0, "size": 9}, "plain"),
        ("one_hot", [at], {"depth": 9, "dtype": "float32"}, "plain"),
        ("dropout_train", [x, key], {"ratio": 0.5}, "plain"),
        ("dropout_mask", [x, key], {"ratio": 0.5}, "plain"),
        ("bernoulli", [np.abs(x), key], {"dtype": "float32"}, "plain"),
        ("topk", [x], {"k": 3, "axis": 3}, "plain"),
        ("topk", [x.reshape(2, 288)], {"k": 40, "axis": 1}, "plain"),
    ]


@pytest.mark.parametrize("case", wide_cases(), ids=lambda c: f"{c[0]} {c[3]}")
def test_wide_offsets(case: tuple[str, list[Any], dict[str, Any], str], monkeypatch: pytest.MonkeyPatch) -> None:
    op, arrays, attrs, order = case
    for module in (depthwise, dropout, index, pool, pool_grad, random, rank, resize, segments):
        monkeypatch.setattr(module, "is_wide", lambda *operands: True)
    for name in ("conv", "conv_input_grad", "conv_weight_grad"):
        rule = getattr(depthwise, f"depthwise_{name}".replace("conv_", "") if name != "conv" else "depthwise_conv")
        monkeypatch.setitem(LOWERINGS, name, Lowering(rule, None))
    site = make_site(op, arrays, attrs, order=order)
    assert LOWERINGS[op].rule(site)
    assert any("typedef i64 index" in w.kernel.code for w in site.work)
    found = run_op(op, arrays, attrs, order=order)
    want = OPS[op].run(*(a for a in arrays if a is not None), **attrs)
    for a, b in zip(found, want if isinstance(want, tuple) else (want,), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_draws_of_wide_offsets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "is_wide", lambda *operands: True)
    key, shape = np.array([5, 6], np.uint64), np.array([3, 7])
    attrs = {"low": -1.0, "high": 1.0, "dtype": "float32"}
    (y,) = run_op("random_uniform", [key, shape], attrs, results=[TensorType(F32, (3, 7))])
    np.testing.assert_array_equal(y, OPS["random_uniform"].run(key, shape, **attrs))
