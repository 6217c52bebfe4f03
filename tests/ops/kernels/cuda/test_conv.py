"""Convolutions and their gradients: rules against the array kernels in float64, through what cuDNN is asked for."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
import pytest

from onnxgrad.ops.errors import KernelError
from onnxgrad.ops.expr import Var, call, maximum, minimum, sigmoid, substitute
from onnxgrad.ops.kernels.cuda import conv as _rules, conv_grad as _grad_rules  # noqa: F401
from onnxgrad.ops.kernels.cuda.cublaslt import MatMul
from onnxgrad.ops.kernels.cuda.cudnn_graphs import Convolution
from onnxgrad.ops.kernels.cuda.kernel import Launch, LibraryCall
from onnxgrad.ops.kernels.cuda.lowering import Epilogue
from onnxgrad.ops.kernels.cuda.operand import Operand, channels_last_strides, packed
from onnxgrad.ops.op import OPS
from onnxgrad.ops.pointwise import compile_array, gelu, hard_sigmoid
from onnxgrad.ops.types import BFLOAT16
from onnxgrad.ops.window import Window

from .site import TestSite, lower, make_site, refuses, run_op

RNG = np.random.default_rng(8)
F32, F64, F16 = (np.dtype(t) for t in ("float32", "float64", "float16"))
TOLERANCE = {"float64": 1e-12, "float32": 1e-5, "float16": 4e-3, "bfloat16": 3e-2}
X, A0, A1 = Var("x"), Var("a0"), Var("a1")
WIDE = call("cast:float16:float32", X)


def draw(shape: tuple[int, ...], dtype: Any = F32) -> np.ndarray[Any, Any]:
    """Return numbers around 0."""
    return RNG.standard_normal(shape).astype(dtype)


def close(found: Any, wanted: Any) -> None:
    """Compare at the accuracy of the element type found."""
    assert found.shape == wanted.shape
    tolerance = TOLERANCE[found.dtype.name]
    np.testing.assert_allclose(found.astype(F64), wanted.astype(F64), rtol=tolerance, atol=8 * tolerance)


def window(rank: int, strides: Any = 1, pads: Any = 0, dilations: Any = 1, group: int = 1) -> Window:
    """Return a window; numbers stand for all axes, pads for both sides."""

    def each(v: Any) -> tuple[Any, ...]:
        return v if isinstance(v, tuple) else (v,) * rank

    return Window(
        each(strides), tuple(p if isinstance(p, tuple) else (p, p) for p in each(pads)), each(dilations), group
    )


CASES: dict[str, tuple[tuple[int, ...], tuple[int, ...], Window]] = {
    "3x3": ((2, 4, 7, 6), (5, 4, 3, 3), window(2, pads=1)),
    "stride": ((2, 3, 9, 8), (4, 3, 3, 3), window(2, strides=2, pads=1)),
    "7x7": ((1, 3, 14, 14), (4, 3, 7, 7), window(2, strides=2, pads=3)),
    "dilated": ((1, 3, 9, 9), (2, 3, 3, 2), window(2, pads=(2, 1), dilations=(2, 3))),
    "same upper": ((1, 3, 8, 8), (4, 3, 3, 3), window(2, strides=2, pads=((0, 1), (0, 1)))),
    "same lower": ((1, 3, 8, 7), (4, 3, 4, 2), window(2, pads=((2, 1), (1, 0)))),
    "far": ((2, 2, 5, 5), (3, 2, 3, 3), window(2, pads=((3, 0), (0, 4)))),
    "loose": ((1, 2, 8, 8), (3, 2, 2, 2), window(2, strides=3)),
    "groups": ((2, 6, 5, 5), (4, 3, 3, 3), window(2, pads=1, group=2)),
    "groups 1x1": ((2, 6, 5, 5), (4, 3, 1, 1), window(2, group=2)),
    "1x1": ((2, 5, 4, 3), (6, 5, 1, 1), window(2)),
    "1x1 stride": ((2, 5, 5, 4), (6, 5, 1, 1), window(2, strides=2)),
    "one pixel": ((3, 5, 1, 1), (4, 5, 1, 1), window(2)),
    "one channel": ((2, 1, 6, 6), (1, 1, 3, 3), window(2, pads=1)),
    "1-D": ((2, 4, 9), (3, 4, 3), window(1, strides=2, pads=1)),
    "1-D uneven": ((2, 4, 9), (3, 4, 4), window(1, pads=((2, 1),))),
    "1-D 1": ((2, 4, 9), (3, 4, 1), window(1)),
    "3-D": ((1, 2, 5, 4, 6), (3, 2, 3, 2, 3), window(3, strides=(2, 1, 1), pads=((1, 1), (0, 1), (1, 1)))),
    "depthwise": ((2, 4, 6, 6), (4, 1, 3, 3), window(2, pads=1, group=4)),
    "doubled": ((2, 3, 6, 6), (6, 1, 3, 3), window(2, pads=1, group=3)),
}


def arguments(name: str, dtype: Any = F32) -> tuple[Any, Any, Any, Window]:
    """Return image, filters, a gradient of the result, and the window."""
    x, w, win = CASES[name]
    out = (x[0], w[0], *win.out(x[2:], w[2:]))
    return draw(x, dtype), draw(w, dtype), draw(out, dtype), win


@pytest.mark.parametrize("order", ["plain", "channels_last"])
@pytest.mark.parametrize("name", CASES)
def test_forms(name: str, order: str) -> None:
    """The convolution and its two gradients."""
    x, w, g, win = arguments(name)
    sizes = {"size": x.shape[2:]}, {"kernel": w.shape[2:]}
    for op, args, more in (
        ("conv", [x, w], {}),
        ("conv_input_grad", [g, w], sizes[0]),
        ("conv_weight_grad", [g, x], sizes[1]),
    ):
        wanted = OPS[op](*(a.astype(F64) for a in args), win=win, **more)
        close(run_op(op, args, {"win": win, **more}, order=order)[0], wanted)


@pytest.mark.parametrize("dtype", [F64, F16, BFLOAT16], ids=str)
@pytest.mark.parametrize("name", ["stride", "same upper", "1x1"])
def test_types(name: str, dtype: Any) -> None:
    """Every element type."""
    x, w, g, win = arguments(name, dtype)
    close(run_op("conv", [x, w], {"win": win})[0], OPS["conv"](x.astype(F64), w.astype(F64), win=win))
    attrs = {"win": win, "size": x.shape[2:]}
    wanted = OPS["conv_input_grad"](g.astype(F64), w.astype(F64), **attrs)
    close(run_op("conv_input_grad", [g, w], attrs)[0], wanted)


def test_transposed() -> None:
    """A transposed convolution of a size that its windows do not fill, and one that leaves a stride out."""
    g, w = draw((2, 3, 4, 5)), draw((3, 2, 3, 3))
    win = window(2, strides=2, pads=1)
    for size in ((7, 9), (8, 10), (7, 10), (9, 11)):
        wanted = OPS["conv_input_grad"](g.astype(F64), w.astype(F64), win=win, size=size)
        close(run_op("conv_input_grad", [g, w], {"win": win, "size": size})[0], wanted)
    assert refuses("conv_input_grad", [g, w], {"win": win, "size": (10, 12)})
    uneven = window(2, strides=2, pads=((0, 1), (1, 0)))
    wanted = OPS["conv_input_grad"](g.astype(F64), w.astype(F64), win=uneven, size=(8, 10))
    close(run_op("conv_input_grad", [g, w], {"win": uneven, "size": (8, 10)})[0], wanted)


def test_refuses() -> None:
    """Integers, images that are cut, nothing at all, four spatial axes."""
    x, w, _, win = arguments("3x3")
    assert refuses("conv", [x.astype(np.int32), w.astype(np.int32)], {"win": win})
    assert refuses("conv", [x, w], {"win": window(2, pads=((-1, 0), (0, 0)))})
    assert refuses("conv", [x[:0], w], {"win": win})
    assert refuses("conv", [draw((1, 1, 2, 2, 2, 2)), draw((1, 1, 1, 1, 1, 1))], {"win": window(4)})


def work(op: str, arrays: list[Any], attrs: dict[str, Any], **how: Any) -> list[Any]:
    """Return the work of a rule."""
    site = make_site(op, arrays, attrs, **how)
    assert lower(site)
    return site.work


def test_copies() -> None:
    """Padding copies nothing, even or not; 1x1 kernels are products; what begins at an odd address is copied."""
    x, w, _, win = arguments("stride")
    (call,) = work("conv", [x, w], {"win": win}, order="channels_last")
    assert isinstance(call.description, Convolution) and call.description.pads == ((1, 1), (1, 1))
    (call,) = work("conv", [*arguments("1x1")[:2]], {"win": window(2)}, order="channels_last")
    assert isinstance(call.description, MatMul)
    (call,) = work("conv", [*arguments("same upper")[:2]], {"win": CASES["same upper"][2]})
    assert call.description.pads == ((0, 1), (0, 1))
    *copied, call = work("conv", [x, w], {"win": win}, order="channels_last", shift=1)
    assert not copied or isinstance(call.description, Convolution)
    close(
        run_op("conv", [x, w], {"win": win}, order="channels_last", shift=1)[0],
        OPS["conv"](x.astype(F64), w.astype(F64), win=win),
    )


def test_precision() -> None:
    """TF32 only where it is allowed."""
    x, w, _, win = arguments("3x3")
    for tf32 in (False, True):
        (call,) = work("conv", [x, w], {"win": win}, tf32=tf32)
        assert call.description.exact is not tf32
        (call,) = work("conv", [*arguments("1x1")[:2]], {"win": window(2)}, tf32=tf32)
        assert call.description.compute == ("tf32" if tf32 else "f32")


SHAPE = (2, 5, 7, 6)
BIAS = Operand(F32, SHAPE, (0, 1, 0, 0))
LAST = Operand(F32, SHAPE, channels_last_strides(SHAPE))


@pytest.mark.parametrize("name", ["3x3", "1x1 wide"])
@pytest.mark.parametrize(
    ("expression", "operands", "own"),
    [
        (X + A0, (BIAS,), True),
        (maximum(X + A0, 0), (BIAS,), True),
        (maximum(A1 + (X + A0), 0), (BIAS, LAST), True),
        (minimum(maximum(X + A0, 0), 6), (BIAS,), True),
        ((X + A0) * sigmoid(X + A0), (BIAS,), True),
        (substitute(gelu.expression, {"x": X}), (), True),
        (maximum(X + A0, 0), (packed(F32, SHAPE),), False),
        (X * A0 + A1, (BIAS, BIAS), False),
        (X + A0, (Operand(F32, SHAPE, (1, 0, 0, 0)),), False),
    ],
)
def test_epilogues(name: str, expression: Any, operands: tuple[Operand, ...], own: bool) -> None:
    """Biases, sums and activations are the library's; the rest is a kernel behind it."""
    x, w = (draw((2, 4, 7, 6)), draw((5, 4, 3, 3))) if name == "3x3" else (draw((2, 4, 7, 6)), draw((5, 4, 1, 1)))
    win = window(2, pads=1 if name == "3x3" else 0)
    extra = [draw(tuple(1 if s == 0 else n for n, s in zip(SHAPE, o.strides, strict=True))) for o in operands]
    made = Epilogue(expression, operands, F32)
    calls = work("conv", [x, w], {"win": win}, epilogue=made, extra=extra)
    assert isinstance(calls[0], LibraryCall) or not own
    if name == "3x3":
        assert (len(calls) == 1) == own
        assert own or isinstance(calls[-1], Launch)
    raw = OPS["conv"](x.astype(F64), w.astype(F64), win=win)
    names = ("x", *(f"a{i}" for i in range(len(extra))))
    wanted = compile_array(expression, names)(raw, *(e.astype(F64) for e in extra))
    close(run_op("conv", [x, w], {"win": win}, epilogue=made, extra=extra)[0], wanted)


@pytest.mark.parametrize("name", ["stride", "same lower", "groups", "1-D", "1x1", "depthwise"])
def test_epilogues_of_gradients(name: str) -> None:
    """A transposed convolution with its bias and activation, hard ones included."""
    x, w, g, win = arguments(name)
    attrs = {"win": win, "size": x.shape[2:]}
    raw = OPS["conv_input_grad"](g.astype(F64), w.astype(F64), **attrs)
    bias = draw((x.shape[1], *(1,) * (x.ndim - 2)))
    operand = Operand(F32, x.shape, (0, 1, *(0,) * (x.ndim - 2)))
    hard = substitute(hard_sigmoid.expression, {"x": X + A0, "alpha": Var("x"), "beta": Var("x")})
    for expression in (maximum(X + A0, 0), hard):
        made = Epilogue(expression, (operand,), F32)
        wanted = compile_array(expression, ("x", "a0"))(raw, bias.astype(F64))
        close(run_op("conv_input_grad", [g, w], attrs, epilogue=made, extra=[bias])[0], wanted)


@pytest.mark.parametrize("name", ["3x3", "1x1 wide"])
def test_several_biases(name: str) -> None:
    """Vectors along channels are added up first, so that a sum of three tensors is the library's too."""
    x, w = draw((2, 4, 7, 6), F16), draw((5, 4, *((3, 3) if name == "3x3" else (1, 1))), F16)
    win = window(2, pads=1 if name == "3x3" else 0)
    operands = (replace(BIAS, dtype=F16), replace(LAST, dtype=F16), BIAS)
    extra = [draw((5, 1, 1), F16), draw(SHAPE, F16), draw((5, 1, 1))]
    made = Epilogue(maximum(X + A0 + (A1 + Var("a2")), 0), operands, F16)
    first, second = work("conv", [x, w], {"win": win}, epilogue=made, extra=extra)
    assert first.kernel.name == "bias" and isinstance(second, LibraryCall)
    raw = OPS["conv"](x.astype(F64), w.astype(F64), win=win)
    wanted = np.maximum(raw + sum(e.astype(F64) for e in extra), 0)
    found = run_op("conv", [x, w], {"win": win}, epilogue=made, extra=extra)[0]
    np.testing.assert_allclose(found.astype(F64), wanted, rtol=4e-3, atol=2e-2)


def test_refused_endings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where cuDNN has no way to apply an epilogue, or to write its type, a kernel does."""
    passed = TestSite.call

    def refusing(site: Any, d: Any, refs: Any, *, writes: Any) -> None:
        if d.added or d.result.dtype != d.image.dtype:
            raise KernelError("there is no such convolution")
        passed(site, d, refs, writes=writes)

    monkeypatch.setattr(TestSite, "call", refusing)
    x, w, _, win = arguments("3x3", F16)
    raw = OPS["conv"](x.astype(F64), w.astype(F64), win=win)
    shape = raw.shape
    bias = draw((shape[1], 1, 1), F16)
    for expression, operands, extra, stored in (
        (maximum(X + A0, 0), (Operand(F16, shape, (0, 1, 0, 0)),), [bias], F16),
        (WIDE, (), [], F32),
    ):
        made = Epilogue(expression, operands, stored)
        assert [type(w) for w in work("conv", [x, w], {"win": win}, epilogue=made, extra=extra)] == [
            LibraryCall,
            Launch,
        ]
        found = run_op("conv", [x, w], {"win": win}, epilogue=made, extra=extra)[0]
        wanted = np.maximum(raw + bias.astype(F64), 0) if extra else raw
        np.testing.assert_allclose(found.astype(F64), wanted, rtol=4e-3, atol=2e-2)


@pytest.mark.parametrize("order", ["plain", "channels_last"])
@pytest.mark.parametrize("name", ["3x3", "1x1", "1x1 stride", "groups", "1-D", "depthwise", "doubled"])
def test_weight_gradients_in_float32(name: str, order: str) -> None:
    """A gradient in filters of half precision lies as float32 parameters do, in one launch more at most."""
    x, w, g, win = arguments(name, F16)
    attrs = {"win": win, "kernel": w.shape[2:]}
    wanted = OPS["conv_weight_grad"](g.astype(F64), x.astype(F64), **attrs)
    made = Epilogue(WIDE, (), F32)
    site = make_site("conv_weight_grad", [g, x], attrs, order=order, epilogue=made)
    assert lower(site)
    assert site.outputs[0].operand.contiguous and site.outputs[0].operand.dtype == F32
    plain = work("conv_weight_grad", [g, x], attrs, order=order)
    more = isinstance(plain[-1], LibraryCall) and w.shape[1] > 1 and prod(w.shape[2:]) > 1
    assert len(site.work) == len(plain) + more
    found = run_op("conv_weight_grad", [g, x], attrs, order=order, epilogue=made)[0]
    np.testing.assert_allclose(found.astype(F64), wanted, rtol=4e-3, atol=4e-2)
    scaled = Epilogue(WIDE * A0, (Operand(F32, w.shape, (0,) * w.ndim),), F32)
    found = run_op("conv_weight_grad", [g, x], attrs, order=order, epilogue=scaled, extra=[np.float32(0.5)])[0]
    np.testing.assert_allclose(found.astype(F64), wanted / 2, rtol=4e-3, atol=4e-2)


@pytest.mark.parametrize("dtypes", [(F16, F32), (F16, F16), (F32, F16)], ids=str)
@pytest.mark.parametrize("name", ["3x3", "1x1"])
def test_stored_types(name: str, dtypes: tuple[Any, Any]) -> None:
    """A result of another type than the factors."""
    first, stored = dtypes
    x, w, _, win = arguments(name, first)
    made = Epilogue(maximum(X, 0), (), stored)
    found = run_op("conv", [x, w], {"win": win}, epilogue=made)[0]
    assert found.dtype == stored
    wanted = np.maximum(OPS["conv"](x.astype(F64), w.astype(F64), win=win), 0)
    np.testing.assert_allclose(found.astype(F64), wanted, rtol=4e-3, atol=2e-2)
