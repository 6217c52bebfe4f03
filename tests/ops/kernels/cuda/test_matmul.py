"""Products of matrices: rules against NumPy, through what is passed to cuBLASLt."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from onnxgrad.ops.errors import KernelError
from onnxgrad.ops.expr import Call, Var, call, maximum, tanh
from onnxgrad.ops.kernels.cuda import matmul as _rules  # noqa: F401
from onnxgrad.ops.kernels.cuda.cublaslt import MatMul
from onnxgrad.ops.kernels.cuda.kernel import Launch, LibraryCall
from onnxgrad.ops.kernels.cuda.lowering import Epilogue
from onnxgrad.ops.kernels.cuda.operand import Operand, packed
from onnxgrad.ops.op import OPS
from onnxgrad.ops.pointwise import compile_array, gelu, gelu_tanh, relu
from onnxgrad.ops.types import BFLOAT16

from .site import TestSite, lower, make_site, refuses, run_op

RNG = np.random.default_rng(7)
F32, F64, F16 = (np.dtype(t) for t in ("float32", "float64", "float16"))
TOLERANCE = {"float64": 1e-12, "float32": 1e-5, "float16": 2e-3, "bfloat16": 1.6e-2}


def draw(shape: tuple[int, ...], dtype: Any = F32) -> np.ndarray[Any, Any]:
    """Return numbers around 0."""
    return RNG.standard_normal(shape).astype(dtype)


def close(found: Any, wanted: Any) -> None:
    """Compare at the accuracy of the element type found."""
    assert found.shape == wanted.shape
    tolerance = TOLERANCE[found.dtype.name]
    np.testing.assert_allclose(found.astype(F64), wanted.astype(F64), rtol=tolerance, atol=tolerance * 4)


def calls(name: str, arrays: list[Any], attrs: dict[str, Any] | None = None, **how: Any) -> list[Any]:
    """Return the work of a rule."""
    site = make_site(name, arrays, attrs, **how)
    assert lower(site)
    return site.work


SHAPES = [
    ((3, 4), (4, 5)),
    ((1, 7), (7, 1)),
    ((4, 1), (1, 6)),
    ((2, 3, 4), (4, 5)),
    ((2, 3, 4), (2, 4, 5)),
    ((2, 1, 3, 4), (5, 4, 6)),
    ((3, 4), (2, 5, 4, 6)),
    ((2, 3, 1, 4), (1, 1, 4, 3)),
    ((5,), (5,)),
    ((5,), (5, 3)),
    ((3, 5), (5,)),
    ((5,), (2, 3, 5, 4)),
    ((2, 3, 4, 5), (5,)),
    ((1, 1), (1, 1)),
]


@pytest.mark.parametrize("order", ["plain", "transposed"])
@pytest.mark.parametrize(("a", "b"), SHAPES, ids=str)
def test_shapes(a: tuple[int, ...], b: tuple[int, ...], order: str) -> None:
    """Vectors, batches that broadcast, transposes: as NumPy has them."""
    x, y = draw(a), draw(b)
    close(run_op("matmul", [x, y], order=order)[0], np.asarray(np.matmul(x.astype(F64), y.astype(F64))))


@pytest.mark.parametrize("dtype", [F64, F16, BFLOAT16], ids=str)
def test_types(dtype: Any) -> None:
    """Every element type, rounded once."""
    x, y = draw((4, 9), dtype), draw((9, 6), dtype)
    close(run_op("matmul", [x, y])[0], x.astype(F64) @ y.astype(F64))


def test_refuses() -> None:
    """Integers, empty products, mixed types."""
    assert refuses("matmul", [np.ones((2, 2), np.int64)] * 2)
    assert refuses("matmul", [np.ones((2, 0), F32), np.ones((0, 2), F32)])
    assert refuses("matmul", [np.ones((2, 2), F32), np.ones((2, 2), F64)])


def test_lying() -> None:
    """Slices, steps, reversals and broadcasts of larger tensors; what cannot be read is copied."""
    big = draw((3, 8, 10))
    for x, y in (
        (big[:, 1:5, 2:9], big[:, 1:8, 3:6]),
        (big[:, ::2, ::3], draw((4, 5))),
        (big[0, ::-1, :7], draw((7, 2))),
        (np.broadcast_to(big[0, :1], (6, 10)), draw((10, 3))),
        (np.broadcast_to(big[:, :, :1], (3, 8, 4)), draw((4, 3))),
        (big.transpose(2, 0, 1), draw((10, 8, 2))),
        (np.broadcast_to(draw((8, 5)), (3, 8, 5)).swapaxes(1, 2), big),
        (draw((2, 3, 4, 5)).transpose(0, 2, 1, 3), draw((2, 4, 5, 6))),
    ):
        close(run_op("matmul", [x, y], order="own")[0], x.astype(F64) @ y.astype(F64))


def test_one_call() -> None:
    """A batch with one matrix for all is one product; batches at one step are one call; nothing is copied."""
    for a, b, batch, rows in (
        ((2, 3, 4, 5), (5, 6), 1, 24),
        ((2, 3, 4, 5), (2, 3, 5, 6), 6, 4),
        ((4, 5), (7, 5, 6), 7, 4),
    ):
        (work,) = calls("matmul", [draw(a), draw(b)])
        assert isinstance(work, LibraryCall) and isinstance(work.description, MatMul)
        assert (work.description.batch, work.description.d.columns) == (batch, rows)
    (work,) = calls("matmul", [draw((5, 6)), draw((4, 6)).T], order="own")
    assert work.description.turned_a and not work.description.turned_b
    (work,) = calls("matmul", [draw((2, 1, 3, 4)), draw((1, 5, 4, 6))])
    assert len(work.description.places) == 2 and work.description.batch == 5


def epilogue(expression: Any, *operands: Operand, dtype: Any = F32) -> Epilogue:
    """Return an epilogue."""
    return Epilogue(expression, operands, np.dtype(dtype))


X, A0, A1 = Var("x"), Var("a0"), Var("a1")


def of(op: Any, x: Any) -> Any:
    """Return an op's expression of an expression."""
    from onnxgrad.ops.expr import substitute

    return substitute(op.expression, {"x": x})


@pytest.mark.parametrize(
    ("expression", "activation"), [(X + A0, ""), (of(relu, A0 + X), "relu"), (of(gelu_tanh, X + A0), "gelu_tanh")]
)
def test_bias(expression: Any, activation: str) -> None:
    """A bias and an activation are cuBLASLt's."""
    x, y, bias = draw((2, 4, 5)), draw((5, 6)), draw((6,))
    made = epilogue(expression, Operand(F32, (2, 4, 6), (0, 0, 1)))
    (work,) = calls("matmul", [x, y], epilogue=made, extra=[bias])
    assert work.description.bias and work.description.activation == activation
    found = run_op("matmul", [x, y], epilogue=made, extra=[bias])[0]
    wanted = x.astype(F64) @ y.astype(F64) + bias
    if activation:
        wanted = OPS[activation](wanted)
    close(found, wanted)


def test_bias_and_sum() -> None:
    """A bias and a tensor of the result's shape are cuBLASLt's, whichever comes first."""
    x, y, bias, more = draw((2, 4, 5)), draw((2, 5, 6)), draw((6,)), draw((2, 4, 6))
    full, row = packed(F32, (2, 4, 6)), Operand(F32, (2, 4, 6), (0, 0, 1))
    wanted = np.maximum(x.astype(F64) @ y + bias + more, 0)
    for operands, extra in (((row, full), [bias, more]), ((full, row), [more, bias])):
        made = epilogue(maximum(X + A0 + A1, 0), *operands)
        (work,) = calls("matmul", [x, y], epilogue=made, extra=extra)
        assert work.description.bias and work.description.c is not None
        close(run_op("matmul", [x, y], epilogue=made, extra=extra)[0], wanted)


@pytest.mark.parametrize(
    ("expression", "operand", "extra"),
    [
        (of(gelu, X + A0), Operand(F32, (3, 4, 6), (0, 0, 1)), (6,)),
        (X + A0, Operand(F32, (3, 4, 6), (0, 1, 0)), (4, 1)),
        (X + A0, Operand(F32, (3, 4, 6), (1, 0, 0)), (3, 1, 1)),
        (X * A0, Operand(F32, (3, 4, 6), (0, 0, 0)), ()),
        (tanh(X + A0), Operand(F32, (3, 4, 6), (1, 3, 12)), (3, 4, 6)),
        (X - A0, packed(F32, (3, 4, 6)), (3, 4, 6)),
    ],
)
def test_other_epilogues(expression: Any, operand: Operand, extra: tuple[int, ...]) -> None:
    """Whatever cuBLASLt does not apply is a kernel behind the product."""
    x, y, a = draw((3, 4, 5)), draw((5, 6)), draw(extra)
    made = epilogue(expression, operand)
    work = calls("matmul", [x, y], epilogue=made, extra=[a])
    assert [type(w) for w in work] == [LibraryCall, Launch]
    raw = (x.astype(F64) @ y.astype(F64)).astype(F32)
    wanted = compile_array(expression, ("x", "a0"))(raw, np.broadcast_to(a, raw.shape))
    close(run_op("matmul", [x, y], epilogue=made, extra=[a])[0], wanted)


@pytest.mark.parametrize("dtypes", [(F16, F32), (F16, F16), (F32, F16), (F64, F32)], ids=str)
def test_cast(dtypes: tuple[Any, Any]) -> None:
    """A result of another type, with vectors too."""
    first, stored = dtypes
    for a, b in (((4, 5), (5, 6)), ((5,), (5, 6)), ((2, 4, 5), (5,))):
        x, y = draw(a, first), draw(b, first)
        wanted = np.maximum(x.astype(F64) @ y.astype(F64), 0)
        made = epilogue(maximum(X, 0), dtype=stored)
        found = run_op("matmul", [x, y], epilogue=made)[0]
        assert found.dtype == stored
        tolerance = max(TOLERANCE[first.name], TOLERANCE[stored.name])
        np.testing.assert_allclose(found.astype(F64), wanted, rtol=tolerance, atol=tolerance)


# what is not rounded --------------------------------------------------------------------------------------------------


def wide(x: Any) -> Any:
    """Return an expression of half precision as float32, as graphs say it."""
    return call("cast:bfloat16:float32", x)


FULL, ROW = packed(F32, (2, 4, 6)), Operand(F32, (2, 4, 6), (0, 0, 1))


def half(o: Operand) -> Operand:
    """Return the operand in half precision."""
    return replace(o, dtype=BFLOAT16)


@pytest.mark.parametrize(
    ("expression", "operands", "names", "c"),
    [
        (wide(X), (), ["MatMul"], False),
        (wide(X) + A0, (FULL,), ["MatMul"], True),
        (wide(X + A0), (half(ROW),), ["bias", "MatMul"], False),
        (wide(X + A0) + A1, (half(ROW), FULL), ["bias", "MatMul"], True),
        (A1 + (wide(X) + A0), (ROW, FULL), ["MatMul"], True),
        (of(relu, wide(X + A0) + A1), (half(ROW), ROW), ["bias", "MatMul"], False),
        (wide(X) * A0, (ROW,), ["MatMul", "epilogue"], False),
        (wide(X) + wide(A0), (half(FULL),), ["MatMul", "epilogue"], False),
        (wide(X) + A0 + wide(A1), (FULL, half(FULL)), ["MatMul", "epilogue"], False),
    ],
)
@pytest.mark.parametrize("refused", ["nothing", "endings", "float32"])
def test_unrounded(
    expression: Any, operands: tuple[Operand, ...], names: list[str], c: bool, refused: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Products of half precision that become float32 are written in float32, with what is added, where they can be."""
    passed = TestSite.call

    def refusing(site: Any, d: Any, refs: Any, *, writes: Any) -> None:
        if (refused != "nothing" and (d.c or d.bias)) or (refused == "float32" and d.d.dtype == F32):
            raise KernelError("there is no such product")
        passed(site, d, refs, writes=writes)

    monkeypatch.setattr(TestSite, "call", refusing)
    x, y = draw((2, 4, 5), BFLOAT16), draw((5, 6), BFLOAT16)
    extra = [draw((2, 4, 6) if o.strides[0] else (6,), o.dtype) for o in operands]
    made = epilogue(expression, *operands)
    work = calls("matmul", [x, y], epilogue=made, extra=extra)
    found = [type(w.description).__name__ if isinstance(w, LibraryCall) else w.kernel.name for w in work]
    (product,) = (w.description for w in work if isinstance(w, LibraryCall))
    if refused == "nothing":
        assert [n.partition("_")[0] for n in found] == names and (product.c is not None) == c
    else:
        direct = operands == () and refused == "endings"
        assert [n.partition("_")[0] for n in found] == ["MatMul", *([] if direct else ["epilogue"])]
    assert product.d.dtype == (BFLOAT16 if refused == "float32" else F32)
    assert (product.c or product.d).dtype == product.d.dtype and product.compute == "f32"
    names_of = ("x", *(f"a{i}" for i in range(len(operands))))
    plain = without_casts(expression)
    wanted = compile_array(plain, names_of)(x.astype(F64) @ y.astype(F64), *(e.astype(F64) for e in extra))
    found_y = run_op("matmul", [x, y], epilogue=made, extra=extra)[0]
    assert found_y.dtype == F32
    tolerance = 1.6e-2 if refused == "float32" else 1e-5
    np.testing.assert_allclose(found_y.astype(F64), wanted, rtol=tolerance, atol=4 * tolerance)


def without_casts(e: Any) -> Any:
    """Return an expression without its casts."""
    if not isinstance(e, Call):
        return e
    args = tuple(map(without_casts, e.args))
    return args[0] if e.fn.startswith("cast:") else Call(e.fn, args)


def test_biases() -> None:
    """Several vectors are added up first; one that is not packed, or begins at an odd address, is copied."""
    x, y = draw((2, 4, 5)), draw((5, 6))
    raw = x.astype(F64) @ y.astype(F64)
    a, b, more = draw((6,)), draw((6,)), draw((2, 4, 6))
    made = epilogue(maximum(X + A0 + A1 + Var("a2"), 0), ROW, ROW, FULL)
    first, second = calls("matmul", [x, y], epilogue=made, extra=[a, b, more])
    assert first.kernel.name == "bias" and second.description.bias and second.description.c is not None
    close(run_op("matmul", [x, y], epilogue=made, extra=[a, b, more])[0], np.maximum(raw + a + b + more, 0))
    for operand, vector in ((replace(ROW, offset=1), a), (replace(ROW, strides=(0, 0, 3)), a), (half(ROW), a)):
        vector = vector.astype(operand.dtype)
        made = epilogue(X + A0, operand)
        assert len(calls("matmul", [x, y], epilogue=made, extra=[vector])) == 2
        close(run_op("matmul", [x, y], epilogue=made, extra=[vector])[0], raw + vector.astype(F64))


EQUATIONS = [
    ("ij,jk->ik", (3, 4), (4, 5)),
    ("ij,jk->ki", (3, 4), (4, 5)),
    ("ij,kj->ik", (3, 4), (5, 4)),
    ("bhqd,bhkd->bhqk", (2, 3, 4, 8), (2, 3, 5, 8)),
    ("bqhd,bkhd->bhqk", (2, 4, 3, 8), (2, 5, 3, 8)),
    ("bhqk,bkhd->bqhd", (2, 3, 4, 5), (2, 5, 3, 8)),
    ("abc,dc->abd", (2, 3, 4), (5, 4)),
    ("abc,cde->abde", (2, 3, 4), (4, 2, 3)),
    ("abcd,bd->ac", (2, 3, 4, 5), (3, 5)),
    ("abc,abc->a", (2, 3, 4), (2, 3, 4)),
    ("ab,b->a", (3, 4), (4,)),
    ("a,ab->b", (3,), (3, 4)),
    ("abc,bda->dc", (2, 3, 4), (3, 5, 2)),
    ("iaj,bji->ab", (3, 2, 4), (5, 4, 3)),
    ("abc,abd->cad", (2, 3, 4), (2, 3, 5)),
    ("acb,db->adc", (2, 3, 4), (5, 4)),
    ("abc,db->adc", (2, 3, 4), (5, 3)),
]


@pytest.mark.parametrize(("equation", "a", "b"), EQUATIONS, ids=lambda v: v if isinstance(v, str) else "")
def test_einsum(equation: str, a: tuple[int, ...], b: tuple[int, ...]) -> None:
    """Sums of products of two tensors."""
    x, y = draw(a), draw(b)
    wanted = np.asarray(np.einsum(equation, x.astype(F64), y.astype(F64)))
    close(run_op("einsum", [x, y], {"equation": equation})[0], wanted)
    close(run_op("einsum", [x, y], {"equation": equation}, order="transposed")[0], wanted)
    bias = draw(wanted.shape[-1:])
    shape = wanted.shape
    made = epilogue(maximum(X + A0, 0), Operand(F32, shape, (*(0,) * (len(shape) - 1), 1)))
    found = run_op("einsum", [x, y], {"equation": equation}, epilogue=made, extra=[bias])[0]
    close(found, np.maximum(wanted + bias, 0))


@pytest.mark.parametrize("equation", ["ij,ik->jk", "ii,ij->j", "ij,k->ik", "ij,jk,kl->il", "ij,jk->iik"])
def test_einsum_refuses(equation: str) -> None:
    """What is no product of two matrices, but for the first."""
    terms = equation.split("->")[0].split(",")
    assert refuses("einsum", [draw((3,) * len(t)) for t in terms], {"equation": equation}) == (equation != "ij,ik->jk")
