"""Products, diagonals and `og.linalg` against PyTorch, NumPy and differences."""

import math

import numpy as np
import pytest

import onnxgrad as og
from onnxgrad.errors import AutogradError, DTypeError, OpError, ShapeError

from .row import Row, normal, tables

A, B, V, W = normal(3, 4), normal(4, 2), normal(4), normal(3)
BATCH, OTHER = normal(2, 3, 4), normal(2, 4, 2)
SQUARE = normal(3, 3) + 3 * np.eye(3)
STACK = normal(2, 3, 3) + 3 * np.eye(3)
POSITIVE = STACK @ STACK.swapaxes(1, 2)


def symmetric(x):
    return x + x.mT


PRODUCTS = [
    Row("mm", lambda t, a, b: t.mm(a, b), (A, B), np.matmul),
    Row("mv", lambda t, a, v: t.mv(a, v), (A, V), np.matmul),
    Row("bmm", lambda t, a, b: t.bmm(a, b), (BATCH, OTHER), np.matmul),
    Row("dot", lambda t, v, w: t.dot(v, w), (V, V + 1), np.dot),
    Row("vdot", lambda t, v, w: t.vdot(v, w), (V, V + 1), np.vdot),
    Row("inner", lambda t, a, b: t.inner(a, b), (BATCH, A), np.inner),
    Row("outer", lambda t, v, w: t.outer(v, w), (V, W), np.outer),
    Row("ger", lambda t, v, w: v.ger(w), (V, W), np.outer),
    Row(
        "addmm",
        lambda t, c, a, b: t.addmm(c, a, b, beta=0.5, alpha=2),
        (B[0], A, B),
        lambda c, a, b: 0.5 * c + 2 * a @ b,
    ),
    Row("addmv", lambda t, c, a, v: c.addmv(a, v, alpha=2), (W, A, V), lambda c, a, v: c + 2 * a @ v),
    Row("addr", lambda t, c, v, w: c.addr(v, w, beta=3), (A.T.copy(), V, W), lambda c, v, w: 3 * c + np.outer(v, w)),
    Row("baddbmm", lambda t, c, a, b: t.baddbmm(c, a, b), (normal(3, 2), BATCH, OTHER), lambda c, a, b: c + a @ b),
    Row(
        "addbmm",
        lambda t, c, a, b: t.addbmm(c, a, b, beta=0.5),
        (normal(3, 2), BATCH, OTHER),
        lambda c, a, b: 0.5 * c + (a @ b).sum(0),
    ),
    Row("cross", lambda t, a, b: t.cross(a, b, dim=0), (A, A[::-1].copy()), lambda a, b: np.cross(a, b, axis=0)),
    Row("linalg.cross", lambda t, a, b: t.linalg.cross(a, b), (A[:, :3].copy(), W[None]), np.cross),
    Row("tensordot", lambda t, a, b: t.tensordot(a, b, dims=1), (BATCH, B), lambda a, b: np.tensordot(a, b, 1)),
    Row(
        "tensordot-axes",
        lambda t, a, b: t.tensordot(a, b, dims=([0, 2], [0, 1])),
        (BATCH, OTHER),
        lambda a, b: np.tensordot(a, b, ([0, 2], [0, 1])),
    ),
    Row("kron", lambda t, a, b: t.kron(a, b), (A, B), np.kron),
    Row("kron-ranks", lambda t, a, b: t.kron(a, b), (V, B), np.kron),
    Row(
        "einsum",
        lambda t, a, b: t.einsum("bij,bjk->ik", a, b),
        (BATCH, OTHER),
        lambda a, b: np.einsum("bij,bjk->ik", a, b),
    ),
    Row("chain_matmul", lambda t, a, b: t.linalg.multi_dot((a, b, b.T)), (A, B), lambda a, b: a @ b @ b.T),
    Row("multi_dot-vectors", lambda t, w, a, v: t.linalg.multi_dot((w, a, v)), (W, A, V), lambda w, a, v: w @ a @ v),
    Row(
        "cdist", lambda t, a, b: t.cdist(a, b), (A, normal(5, 4)), lambda a, b: np.linalg.norm(a[:, None] - b, axis=-1)
    ),
    Row(
        "cdist-1", lambda t, a, b: t.cdist(a, b, p=1.0), (A, normal(5, 4)), lambda a, b: np.abs(a[:, None] - b).sum(-1)
    ),
    Row("matrix_power", lambda t, a: t.matrix_power(a, 5), (SQUARE / 3,), lambda a: np.linalg.matrix_power(a, 5)),
    Row("matrix_power-0", lambda t, a: a.matrix_power(0) + a, (STACK,), lambda a: np.linalg.matrix_power(a, 0) + a),
    Row("matrix_power-negative", lambda t, a: a.matrix_power(-2), (STACK,), lambda a: np.linalg.matrix_power(a, -2)),
    Row("trace", lambda t, a: t.trace(a), (A,), np.trace),
    Row("diag", lambda t, a: t.diag(a, 1), (A,), lambda a: np.diag(a, 1)),
    Row("diag-vector", lambda t, v: t.diag(v, -2), (V,), lambda v: np.diag(v, -2)),
    Row("diagflat", lambda t, a: t.diagflat(a, 1), (A,), lambda a: np.diagflat(a, 1)),
    *(
        Row(f"diagonal-{k}", lambda t, a, k=k: a.diagonal(k, 1, 2), (BATCH,), lambda a, k=k: a.diagonal(k, 1, 2))
        for k in (-3, -1, 0, 2, 3)
    ),
    Row("diagonal-axes", lambda t, a: t.diagonal(a, 1, 2, 0), (BATCH,), lambda a: a.diagonal(1, 2, 0)),
    *(Row(f"diag_embed-{k}", lambda t, a, k=k: t.diag_embed(a, k), (A,)) for k in (-2, 0, 1)),
    Row("diag_embed-axes", lambda t, a: t.diag_embed(a, 1, 0, 2), (A,)),
    Row("cov", lambda t, a: t.cov(a), (A,), np.cov),
    Row("corrcoef", lambda t, a: t.corrcoef(a), (A,), np.corrcoef),
    Row("matmul-broadcast", lambda t, a, b: a @ b, (BATCH, B), np.matmul),
]
LINALG = [
    Row("det", lambda t, a: t.det(a), (STACK,), np.linalg.det),
    Row("logdet", lambda t, a: t.logdet(a), (POSITIVE,), lambda a: np.log(np.linalg.det(a))),
    Row("slogdet", lambda t, a: t.linalg.slogdet(a)[1], (STACK,), lambda a: np.linalg.slogdet(a)[1]),
    Row("inv", lambda t, a: t.linalg.inv(a), (STACK,), np.linalg.inv),
    Row("solve", lambda t, a, b: t.linalg.solve(a, b), (STACK, normal(2, 3, 2)), np.linalg.solve),
    Row("solve-vector", lambda t, a, b: t.linalg.solve(a, b), (SQUARE, W), np.linalg.solve),
    Row(
        "solve-right",
        lambda t, a, b: t.linalg.solve(a, b, left=False),
        (SQUARE, normal(2, 3)),
        lambda a, b: b @ np.linalg.inv(a),
    ),
    Row(
        "cholesky",
        lambda t, a: t.linalg.cholesky(a @ a.mT),
        (STACK,),
        lambda a: np.linalg.cholesky(a @ a.swapaxes(1, 2)),
    ),
    Row("cholesky-upper", lambda t, a: t.linalg.cholesky(a @ a.mT, upper=True), (STACK,)),
    Row(
        "eigvalsh",
        lambda t, a: t.linalg.eigvalsh(symmetric(a)),
        (STACK,),
        lambda a: np.linalg.eigvalsh(a + a.swapaxes(1, 2)),
    ),
    Row("eigh", lambda t, a: t.linalg.eigh(symmetric(a))[1].abs(), (STACK,), tol=1e-3),
    Row("svdvals", lambda t, a: t.linalg.svdvals(a), (BATCH,), lambda a: np.linalg.svd(a, compute_uv=False), tol=1e-4),
    *(
        Row(
            f"svd-{i}",
            lambda t, a: tuple(v.abs() for v in t.linalg.svd(a, full_matrices=False)),
            (a,),
            lambda a: tuple(map(np.abs, np.linalg.svd(a, full_matrices=False))),
            order=1,
            tol=1e-4,
        )
        for i, a in enumerate((BATCH, BATCH.swapaxes(1, 2).copy(), SQUARE))
    ),
    *(
        Row(f"qr-{i}", lambda t, a: tuple(t.linalg.qr(a)), (a,), order=1, tol=1e-4)
        for i, a in enumerate((BATCH, BATCH.swapaxes(1, 2).copy(), SQUARE))
    ),
    *(
        Row(f"pinv-{i}", lambda t, a: t.linalg.pinv(a), (a,), np.linalg.pinv, tol=1e-4)
        for i, a in enumerate((BATCH, SQUARE))
    ),
    Row("matrix_exp", lambda t, a: t.matrix_exp(a), (STACK / 2,), order=1),
    Row("matrix_exp-large", lambda t, a: t.linalg.matrix_exp(a), (SQUARE * 2,), order=1, tol=1e-3),
    Row("norm", lambda t, a: t.linalg.norm(a), (A,), np.linalg.norm),
    *(
        Row(
            f"norm-{p}",
            lambda t, a, p=p: t.linalg.norm(a, p),
            (A,),
            lambda a, p=p: np.linalg.norm(a, p),
            order=1,
            tol=1e-4,
        )
        for p in ("fro", "nuc", 1, -1, 2, -2, math.inf, -math.inf)
    ),
    Row("vector_norm", lambda t, a: t.linalg.vector_norm(a, 3, dim=(0, 1), keepdim=True), (A,)),
    Row(
        "matrix_norm",
        lambda t, a: t.linalg.matrix_norm(a, "nuc", dim=(0, 1), keepdim=True),
        (BATCH,),
        order=1,
        tol=1e-4,
    ),
    Row("norm-vectors", lambda t, a: t.linalg.norm(a, 1, dim=1), (A,), lambda a: np.abs(a).sum(1)),
    Row("cond", lambda t, a: t.linalg.cond(a), (STACK,), np.linalg.cond, order=1, tol=1e-3),
    Row(
        "cond-1",
        lambda t, a: t.linalg.cond(a, 1),
        (SQUARE,),
        lambda a: np.linalg.cond(a, 1),
        order=1,
        tol=1e-3,
        dtypes=(),
    ),  # PyTorch raises
    Row(
        "lstsq",
        lambda t, a, b: t.linalg.lstsq(a, b).solution,
        (A.T.copy(), normal(4, 2)),
        lambda a, b: np.linalg.lstsq(a, b)[0],
        tol=1e-4,
    ),
    Row("vecdot", lambda t, a, b: t.linalg.vecdot(a, b), (A, A + 1), lambda a, b: (a * b).sum(-1)),
    Row(
        "matrix_rank", lambda t, a: t.linalg.matrix_rank(a.detach()), (np.outer(W, V),), np.linalg.matrix_rank, order=0
    ),
]
test_products_are_pytorchs, test_products_are_numpys, test_gradients_of_products = tables("products", PRODUCTS)
test_linalg_is_pytorchs, test_linalg_is_numpys, test_gradients_of_linalg = tables("linalg", LINALG)


def test_diagonal_is_a_view():
    x = og.zeros(3, 4)
    x.diagonal(1).fill_(5)
    assert x.tolist() == [[0, 5, 0, 0], [0, 0, 5, 0], [0, 0, 0, 5]]
    assert og.diag(og.tensor([math.inf, 1.0])).tolist() == [[math.inf, 0.0], [0.0, 1.0]]


def test_what_has_no_gradient_says_so():
    a = og.tensor(BATCH[0].T.copy(), requires_grad=True)
    q, r = og.linalg.qr(a, mode="complete")
    assert q.shape == (4, 4) and r.shape == (4, 3)
    with pytest.raises(AutogradError, match="complete"):
        q.backward(og.ones(4, 4))
    u, s, vh = og.linalg.svd(a)
    assert u.shape == (4, 4) and vh.shape == (3, 3)
    s.sum().backward()
    np.testing.assert_allclose((u[:, :3] * s @ vh).detach().numpy(), a.detach().numpy(), atol=1e-12)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: og.ones(2, 3) @ og.ones(2, 3),
            ShapeError,
            r"mat1 and mat2 shapes cannot be multiplied \(2x3 and 2x3\)",
        ),
        (lambda: og.ones(2, 5, 3) @ og.ones(4, 3), RuntimeError, r"\(10x3 and 4x3\)"),
        (lambda: og.ones(2, 2) @ og.ones(2, 2).double(), DTypeError, "same dtype, but got: float32 != float64"),
        (lambda: og.ones(2, 2).mm(og.ones(2)), ShapeError, r"mm: expected 2D tensors, but got 1D.*\(2, 2\), \(2,\)"),
        (lambda: og.bmm(og.ones(2, 3, 4), og.ones(3, 4, 5)), ShapeError, r"\[2, 4\] but got: \[3, 4\]"),
        (lambda: og.ones(3).dot(og.ones(4)), ShapeError, r"\[3\] and src \[4\]"),
        (lambda: og.ones(3).dot(og.ones(2, 2)), ShapeError, "1D tensors expected, but got 1D and 2D"),
        (lambda: og.ones(2, 2).inner(og.ones(3)), ShapeError, r"\[2, 2\] and \[3\]"),
        (lambda: og.ones(2, 4).cross(og.ones(2, 4)), ShapeError, "no dimension of size 3"),
        (lambda: og.linalg.inv(og.zeros(2, 2)), OpError, "singular"),
        (lambda: og.linalg.inv(og.ones(2, 3)), ShapeError, "square"),
        (lambda: og.linalg.cholesky(-og.eye(2)), OpError, "not positive-definite"),
        (lambda: og.linalg.solve(og.zeros(2, 2), og.ones(2)), OpError, "singular"),
        (lambda: og.linalg.norm(og.ones(2), "fro"), ShapeError, "must be 1D or 2D"),
        (lambda: og.linalg.matrix_norm(og.ones(2, 2), 3), OpError, "Order 3 not supported"),
        (lambda: og.linalg.svd(og.ones(2, 2, dtype=og.int64)), DTypeError, "int64"),
        (lambda: og.eye(2).diagonal(0, 1, 1), OpError, "identical 1, 1"),
        (lambda: og.tensordot(og.ones(2, 3), og.ones(2, 3)[:, :2], 1), ShapeError, "first has size 3 in dim 1"),
        (lambda: og.einsum("ij,jk->ik", og.ones(2, 3), og.ones(2, 3)), ShapeError, "subscript j has size 2 .* size 3"),
    ],
)
def test_wrong_use_says_what_is_wrong(call, error, message):
    with pytest.raises(error, match=message):
        call()
