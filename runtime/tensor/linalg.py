"""`og.linalg`: norms, equations and decompositions of matrices; every function works on stacks of matrices too."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...ops import linalg as ops, matmul as mm_ops, pointwise as pw, reduce as red
from ...ops.errors import DTypeError, OpError, ShapeError
from ...ops.types import is_float
from .methods.axes import every, places
from .methods.returned import Eigen, LeastSquares, LogDet, Qr, Svd
from .tensor import Tensor


def _floats(name: str, a: Any, dtype: Any = None) -> Any:
    x = a if dtype is None else a.to(dtype=dtype)
    if not is_float(x.dtype):
        raise DTypeError(f"{name}: Expected a floating point or complex tensor as input. Got {x.dtype}")
    return x


def _square(name: str, a: Any) -> None:
    if a.ndim < 2 or a.shape[-1] != a.shape[-2]:
        raise ShapeError(f"{name}: A must be batches of square matrices, but has shape {tuple(a.shape)}")


def vector_norm(x: Any, ord: float = 2, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """Return the norm of the elements over the axes, all by default.

    Args:
        x: the elements.
        ord: any number: 0 counts what is not 0, the infinities give the largest and the smallest.
        dim: the axes.
        keepdim: keep them, with size 1.
        dtype: the element type to compute in.
    """
    x = _floats("linalg.vector_norm", x, dtype)
    axes = every(dim, x.ndim, "linalg.vector_norm")
    size = pw.abs_(x)
    if ord == 2:
        return red.l2_norm(x, axes=axes, keepdims=keepdim)  # type: ignore[no-any-return]
    if abs(ord) == math.inf:
        return (red.max_ if ord > 0 else red.min_)(size, axes=axes, keepdims=keepdim)  # type: ignore[no-any-return]
    if ord == 0:
        hit = pw.cast(pw.logical_not(pw.equal(x, 0)), dtype=str(x.dtype))
        return red.sum_(hit, axes=axes, keepdims=keepdim)  # type: ignore[no-any-return]
    if ord == 1:
        return red.sum_(size, axes=axes, keepdims=keepdim)  # type: ignore[no-any-return]
    total = red.sum_(pw.pow_(size, float(ord)), axes=axes, keepdims=keepdim)
    # A sum of 0 has the gradient 0, as the norm at 0 has in PyTorch, not the infinite one of the root.
    zero = pw.equal(total, 0.0)
    root = pw.pow_(pw.where(zero, 1.0, total), 1 / ord)
    return pw.where(zero, math.inf if ord < 0 else 0.0, root)  # type: ignore[no-any-return]


def matrix_norm(A: Any, ord: Any = "fro", dim: Any = (-2, -1), keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """Return the norm of each matrix.

    Args:
        A: the matrices.
        ord: `fro`, `nuc`, 1, -1, 2, -2, inf or -inf.
        dim: the axes of the rows and of the columns.
        keepdim: keep them, with size 1.
        dtype: the element type to compute in.

    Raises:
        OpError: for another norm.
    """
    x = _floats("linalg.matrix_norm", A, dtype)
    if x.ndim < 2:
        raise ShapeError(f"linalg.matrix_norm: The input tensor A must have at least 2 dimensions, found {x.shape}")
    rows, columns = places(dim, x.ndim, "linalg.matrix_norm")
    if ord == "fro":
        return vector_norm(x, 2, (rows, columns), keepdim)
    if ord in ("nuc", 2, -2):
        values = svdvals(x.movedim((rows, columns), (-2, -1)))
        found = values.sum(-1) if ord == "nuc" else values.amax(-1) if ord == 2 else values.amin(-1)
        if keepdim:
            for axis in sorted((rows, columns)):
                found = found.unsqueeze(axis)
        return found  # type: ignore[no-any-return]
    if ord in (1, -1, math.inf, -math.inf):
        along, across = (rows, columns) if abs(ord) == 1 else (columns, rows)
        total = pw.abs_(x).sum(along, True)
        found = total.amax(across, True) if ord > 0 else total.amin(across, True)
        return found if keepdim else found.squeeze((rows, columns))  # type: ignore[no-any-return]
    raise OpError(f"linalg.matrix_norm: Order {ord} not supported.")


def norm(A: Any, ord: Any = None, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """Return a vector or matrix norm, as the axes or, without them, the rank decides; see `vector_norm`.

    Args:
        A: the elements.
        ord: which norm; without it that of all elements as one vector.
        dim: one axis for vectors, two for matrices.
        keepdim: keep them, with size 1.
        dtype: the element type to compute in.
    """
    if ord is None:
        return vector_norm(A, 2, dim, keepdim, dtype=dtype)
    count = A.ndim if dim is None else len(dim) if isinstance(dim, tuple | list) else 1
    if isinstance(ord, str) or count == 2:
        if count != 2:
            raise ShapeError("linalg.norm: If ord is specified, the input must be 1D or 2D if dim is not specified.")
        return matrix_norm(A, ord, (-2, -1) if dim is None else dim, keepdim, dtype=dtype)
    if count != 1:
        raise ShapeError(f"linalg.norm: If dim is not specified but ord is, the input must be 1D or 2D. Got {A.ndim}D.")
    return vector_norm(A, ord, dim, keepdim, dtype=dtype)


def det(A: Any) -> Tensor:
    """Return the determinant of each matrix."""
    return mm_ops.det(_floats("linalg.det", A))  # type: ignore[no-any-return]


def slogdet(A: Any) -> LogDet:
    """Return the sign of the determinant of each matrix and the logarithm of its absolute value."""
    return LogDet(*ops.slogdet(_floats("linalg.slogdet", A)))


def inv(A: Any) -> Tensor:
    """Return the inverse of each matrix.

    Raises:
        OpError: if there is none.
    """
    x = _floats("linalg.inv", A)
    _square("linalg.inv", x)
    try:
        return mm_ops.inverse(x)  # type: ignore[no-any-return]
    except OpError as error:
        if not isinstance(error.__cause__, np.linalg.LinAlgError):
            raise
        raise OpError(
            "linalg.inv: The diagonal element is zero, the inversion could not be completed because the input matrix "
            "is singular."
        ) from None


def pinv(A: Any, *, atol: float | None = None, rtol: float | None = None, hermitian: bool = False) -> Tensor:
    """Return the Moore-Penrose inverse of each matrix; singular values below rtol times the largest count as 0.

    Raises:
        OpError: with `atol`, which is not there.
    """
    if atol is not None:
        raise OpError("linalg.pinv: atol= is not there, only rtol=")
    return ops.pinv(_floats("linalg.pinv", A), rcond=rtol)  # type: ignore[no-any-return]


def solve(A: Any, B: Any, *, left: bool = True) -> Tensor:
    """Return X with A X = B, or X A = B.

    Raises:
        OpError: if a matrix is singular.
    """
    a = _floats("linalg.solve", A)
    vector = B.ndim == 1 or (B.ndim == a.ndim - 1 and tuple(B.shape) == tuple(a.shape[:-1]))
    if not left:
        if vector:
            raise ShapeError("linalg.solve: vectors solve A x = b alone; pass left=True")
        return ops.solve(a.mT, B.mT).mT  # type: ignore[no-any-return]
    found = ops.solve(a, B.unsqueeze(-1) if vector else B)
    return found.squeeze(-1) if vector else found  # type: ignore[no-any-return]


def cholesky(A: Any, *, upper: bool = False) -> Tensor:
    """Return the triangular L with L L^T = A, or its transpose.

    Raises:
        OpError: if a matrix is not positive definite.
    """
    found = ops.cholesky(_floats("linalg.cholesky", A))
    return found.mT if upper else found  # type: ignore[no-any-return]


def qr(A: Any, mode: str = "reduced") -> Qr:
    """Return Q with orthonormal columns and the upper triangular R with Q R = A.

    Args:
        A: the matrices.
        mode: `reduced`; `complete` completes Q to a square matrix and `r` leaves it out, both without a gradient
            where there are more rows than columns.

    Raises:
        OpError: for another mode.
    """
    a = _floats("linalg.qr", A)
    m, n = a.shape[-2:]
    if mode not in ("reduced", "complete", "r"):
        raise OpError(
            f"qr received unrecognized mode '{mode}' but expected one of 'reduced' (default), 'r', or 'complete'"
        )
    if mode == "complete" and m > n:
        a._readable("linalg.qr(mode='complete')")
        q, r = (Tensor(v) for v in np.linalg.qr(a.detach().cpu()._array, mode="complete"))
        q._cut = r._cut = "linalg.qr(mode='complete')" if a.requires_grad else None
        return Qr(q, r)
    if m < n and a.requires_grad:
        # What is beyond the square part follows from Q.
        q, square = ops.qr(a[..., :m])
        from .joining import cat

        r = cat([square, q.mT @ a[..., m:]], -1)
    else:
        q, r = ops.qr(a)
    return Qr(q.new_empty(0), r) if mode == "r" else Qr(q, r)


def svd(A: Any, full_matrices: bool = True, *, driver: str | None = None) -> Svd:
    """Return U, S, Vh with U diag(S) Vh = A, S descending.

    Args:
        A: the matrices.
        full_matrices: complete U and V to square matrices; of what is added there is no gradient.
        driver: taken and ignored.
    """
    a = _floats("linalg.svd", A)
    if not full_matrices or a.shape[-1] == a.shape[-2]:
        return Svd(*ops.svd(a))
    a._readable("linalg.svd(full_matrices=True)")
    _, s, _ = ops.svd(a)
    u, _, vh = (Tensor(v) for v in np.linalg.svd(a.detach().cpu()._array, full_matrices=True))
    u._cut = vh._cut = "linalg.svd(full_matrices=True)" if a.requires_grad else None
    return Svd(u, s, vh)


def svdvals(A: Any, *, driver: str | None = None) -> Any:
    """Return the singular values of each matrix, descending."""
    return ops.svd(_floats("linalg.svdvals", A))[1]


def eigh(A: Any, UPLO: str = "L") -> Eigen:
    """Return the eigenvalues, ascending, and eigenvectors of symmetric matrices, of which one triangle is read."""
    if UPLO.upper() not in ("L", "U"):
        raise OpError(f"Expected UPLO argument to be 'L' or 'U', but got {UPLO}")
    return Eigen(*ops.eigh(_floats("linalg.eigh", A), upper=UPLO.upper() == "U"))


def eigvalsh(A: Any, UPLO: str = "L") -> Tensor:
    """Return the eigenvalues of symmetric matrices, ascending."""
    return eigh(A, UPLO).eigenvalues  # type: ignore[no-any-return]


def matrix_rank(A: Any, *, atol: float | None = None, rtol: float | None = None, hermitian: bool = False) -> Tensor:
    """Return how many singular values of each matrix count as more than 0."""
    values = svdvals(A).detach()
    least = (0.0 if atol is not None else max(A.shape[-2:]) * float(np.finfo(A.dtype).eps)) if rtol is None else rtol
    bound = pw.maximum(values.amax(-1, True) * least, 0.0 if atol is None else float(atol))
    return (values > bound).sum(-1)  # type: ignore[no-any-return]


def cond(A: Any, p: Any = None) -> Tensor:
    """Return the condition number of each matrix: by singular values, or by a norm."""
    if p is None or p in (2, -2):
        values = svdvals(A)
        low, high = values.amin(-1), values.amax(-1)
        return low / high if p == -2 else high / low  # type: ignore[no-any-return]
    return matrix_norm(A, p) * matrix_norm(inv(A), p)


def lstsq(A: Any, B: Any, rcond: float | None = None, *, driver: str | None = None) -> LeastSquares:
    """Return X for which A X is nearest to B, how far it is, and the rank of A.

    Args:
        A: the matrices.
        B: the right-hand sides.
        rcond: singular values below it, times the largest, count as 0.
        driver: taken and ignored: the Moore-Penrose inverse gives the solution.
    """
    m, n = A.shape[-2:]
    x = pinv(A, rtol=rcond) @ B
    rank = matrix_rank(A, rtol=rcond)
    over = m > n and bool((rank == n).all())
    residuals = ((A @ x - B) ** 2).sum(-2) if over else A.new_empty(0)
    return LeastSquares(x, residuals, rank, A.new_empty(0))


def cross(input: Any, other: Any, *, dim: int = -1) -> Tensor:
    """Return the vector products along an axis of size 3."""
    from .joining import broadcast_tensors

    a, b = broadcast_tensors(input, other)
    return a.cross(b, dim)


def vecdot(x: Any, y: Any, *, dim: int = -1) -> Tensor:
    """Return the sum of products along an axis."""
    return (x * y).sum(dim)  # type: ignore[no-any-return]


def diagonal(A: Any, *, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    """Return the diagonals of matrices, sharing memory."""
    return A.diagonal(offset, dim1, dim2)  # type: ignore[no-any-return]


def matrix_power(A: Any, n: int) -> Tensor:
    """Return the product of n copies of each matrix; of its inverse where n is negative."""
    return A.matrix_power(n)  # type: ignore[no-any-return]


def matrix_exp(A: Any) -> Tensor:
    """Return the exponential of each matrix.

    It is scaled down until its series converges at once, and what comes out is squared up again; so the gradient is
    that of the products.

    Source: Moler & Van Loan 2003, method 3.
    """
    a = _floats("linalg.matrix_exp", A)
    _square("linalg.matrix_exp", a)
    a._readable("linalg.matrix_exp()")
    n = a.shape[-1]
    unit = Tensor(np.eye(n, dtype=a.dtype)).to(device=a.device)
    if not a.numel():
        return a.clone()  # type: ignore[no-any-return]
    largest = float(a.detach().abs().sum(-2).amax().item())
    halvings = max(0, math.ceil(math.log2(largest)) + 1) if 0 < largest < math.inf else 0
    small = a / 2.0**halvings
    found = unit + small / 18
    for k in range(17, 0, -1):
        found = unit + (small / k) @ found
    for _ in range(halvings):
        found = found @ found
    return found  # type: ignore[no-any-return]


def multi_dot(tensors: Sequence[Any]) -> Tensor:
    """Return the product of several matrices, multiplied in the cheapest order; the ends may be vectors.

    Source: Cormen, Leiserson, Rivest & Stein, "Introduction to Algorithms", 14.2.
    """
    parts = list(tensors)
    if len(parts) < 2:
        raise OpError(f"multi_dot(): expected at least 2 tensors but got {len(parts)}")
    row, column = parts[0].ndim == 1, parts[-1].ndim == 1
    parts[0] = parts[0].unsqueeze(0) if row else parts[0]
    parts[-1] = parts[-1].unsqueeze(1) if column else parts[-1]
    sizes = [parts[0].shape[0], *(p.shape[1] for p in parts)]
    count = len(parts)
    cost: dict[tuple[int, int], tuple[int, int]] = {(i, i): (0, i) for i in range(count)}
    for length in range(1, count):
        for i in range(count - length):
            j = i + length
            cost[i, j] = min(
                (cost[i, k][0] + cost[k + 1, j][0] + sizes[i] * sizes[k + 1] * sizes[j + 1], k) for k in range(i, j)
            )

    def product(i: int, j: int) -> Any:
        if i == j:
            return parts[i]
        k = cost[i, j][1]
        return product(i, k) @ product(k + 1, j)

    found = product(0, count - 1)
    found = found.squeeze(0) if row else found
    return found.squeeze(-1) if column else found  # type: ignore[no-any-return]
