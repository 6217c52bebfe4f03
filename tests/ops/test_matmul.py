"""Products of matrices: equations, errors, symbolic sizes, PyTorch as the oracle."""

from __future__ import annotations

import numpy as np
import pytest

from onnxgrad.ops.dims import Dim
from onnxgrad.ops.errors import ShapeError
from onnxgrad.ops.matmul import det, einsum, explicit, inverse, matmul
from onnxgrad.ops.types import TensorType, type_of
from onnxgrad.runtime.autograd import tape
from onnxgrad.runtime.tensor.tensor import Tensor

from .case import rand

F32 = np.dtype("float32")


@pytest.mark.oracle
@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("...ij,...jk->...ik", [(2, 1, 3, 4), (5, 4, 2)]),
        ("bhid,bhjd->bhij", [(2, 3, 4, 5), (2, 3, 6, 5)]),
        ("ij,ij->i", [(3, 4), (3, 4)]),
        ("ii,i", [(3, 3), (3,)]),
        ("a,b,c->abc", [(2,), (3,), (4,)]),
        ("ij,jk,kl,lm->im", [(2, 3), (3, 4), (4, 5), (5, 2)]),
        ("bijk->bki", [(2, 3, 4, 5)]),
    ],
)
def test_einsum_equals_pytorch(equation: str, shapes: list[tuple[int, ...]]) -> None:
    torch = pytest.importorskip("torch")
    xs = [rand(*s, seed=i) for i, s in enumerate(shapes)]
    txs = [torch.tensor(x, requires_grad=True) for x in xs]
    ty = torch.einsum(equation, *txs)
    g = rand(*ty.shape, seed=9)
    ty.backward(torch.tensor(g))
    ts = [Tensor(x, requires_grad=True) for x in xs]
    y = einsum(*ts, equation=explicit(equation, [x.ndim for x in xs]))
    np.testing.assert_allclose(y.array, ty.detach(), atol=1e-10)
    for found, t in zip(tape.grad(y, ts, Tensor(g)), txs, strict=True):
        np.testing.assert_allclose(found.array, t.grad, atol=1e-10)


@pytest.mark.oracle
@pytest.mark.parametrize("op", [det, inverse])
def test_gradients_of_inverse_and_determinant(op) -> None:
    torch = pytest.importorskip("torch")
    x = rand(2, 4, 4)
    tx, t = torch.tensor(x, requires_grad=True), Tensor(x, requires_grad=True)
    ty, y = (torch.linalg.inv if op is inverse else torch.linalg.det)(tx), op(t)
    g = rand(*ty.shape, seed=1)
    ty.backward(torch.tensor(g))
    (found,) = tape.grad(y, [t], Tensor(g))
    np.testing.assert_allclose(found.array, tx.grad, rtol=1e-8, atol=1e-8)


def test_explicit_equations() -> None:
    assert explicit("ij,jk", (2, 2)) == "ij,jk->ik"
    assert explicit("ii", (2,)) == "ii->"
    assert explicit("ba", (2,)) == "ba->ab"
    assert explicit("...i,i->...", (3, 1)) == "ABi,i->AB"
    assert explicit("...i,...i->...", (3, 2)) == "ABi,Bi->AB"
    with pytest.raises(ShapeError, match="2 inputs, found 1"):
        explicit("i,j->ij", (1,))
    with pytest.raises(ShapeError, match="ranks"):
        explicit("ij->ji", (3,))
    with pytest.raises(ShapeError, match="'k'"):
        explicit("ij->ik", (2,))


def test_sizes_of_a_label_must_agree() -> None:
    with pytest.raises(ShapeError, match="label 'j' is 3 and 4"):
        einsum.infer_types(type_of(rand(2, 3)), type_of(rand(4, 2)), equation="ij,jk->ik")


def test_matmul_symbolic_and_wrong_shapes() -> None:
    n = Dim.symbol("n")
    assert matmul.infer_types(TensorType(F32, (n, 3, 4)), TensorType(F32, (4, 5))).shape == (n, 3, 5)
    assert matmul.infer_types(TensorType(F32, (n,)), TensorType(F32, (n,))).shape == ()
    with pytest.raises(ShapeError, match="inner sizes 3 and 4 differ"):
        matmul.infer_types(TensorType(F32, (n, 3)), TensorType(F32, (4, 5)))
    with pytest.raises(ShapeError, match="at least one axis"):
        matmul.infer_types(TensorType(F32, ()), TensorType(F32, (4, 5)))


def test_half_accumulates_in_float32() -> None:
    a = np.full((1, 4096), 0.01, np.float16)
    y = matmul(a, np.ones((4096, 1), np.float16))
    assert y.dtype == np.float16
    np.testing.assert_allclose(y, a.astype(np.float32).sum().astype(np.float16).reshape(1, 1))
