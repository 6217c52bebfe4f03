"""Decompositions of matrices, and the equations that they solve.

Every op works on the last two axes of a stack of matrices. The gradients are those of the exact functions: of
eigenvectors and singular vectors they exist where the values are distinct.

Source: Giles 2008, "Collected matrix derivative results"; Golub & Pereyra 1973 for the pseudo-inverse; Walter & Lehmann
2010 for QR; Ionescu et al. 2015 for the singular value decomposition.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from . import layout, pointwise as pw
from .create import full_like
from .dims import broadcast, show
from .errors import ShapeError
from .matmul import inverse, matmul, swapped
from .op import op
from .pointwise import sum_to_like
from .types import TensorType

Entries: TypeAlias = tuple[Callable[[], Any] | None, ...]


def _matrices(name: str, a: TensorType, square: bool = False) -> None:
    if a.ndim < 2:
        raise ShapeError(f"{name}: The input tensor A must have at least 2 dimensions, found {show(a.shape)}")
    n, m = a.shape[-2:]
    if square and isinstance(n, int) and isinstance(m, int) and n != m:
        raise ShapeError(f"{name}: A must be batches of square matrices, but they are {n} by {m} matrices")


def _diagonal(a: Any) -> Any:
    return layout.trilu(layout.trilu(a, upper=True, k=0), upper=False, k=0)


def _unit(like: Any, size: Any) -> Any:
    return _diagonal(full_like(like, shape=(size, size), value=1))


def _columns(v: Any) -> Any:
    """Return vectors as what scales the columns of matrices."""
    return layout.unsqueeze(v, axes=(v.ndim - 1,))


def _rows(v: Any) -> Any:
    """Return vectors as what scales the rows of matrices."""
    return layout.unsqueeze(v, axes=(v.ndim,))


@op()
def solve(a: TensorType, b: TensorType) -> TensorType:
    """Return x with a x = b.

    Shapes: (*L, n, n), (*M, n, k) -> (*broadcast(L, M), n, k).
    """
    _matrices("linalg.solve", a, square=True)
    if isinstance(a.shape[-1], int) and isinstance(b.shape[-2], int) and a.shape[-1] != b.shape[-2]:
        raise ShapeError(
            f"linalg.solve: Incompatible shapes of A and B for the equation AX = B: {show(a.shape)} and {show(b.shape)}"
        )
    return TensorType(a.dtype, (*broadcast(a.shape[:-2], b.shape[:-2]), *b.shape[-2:]))


@solve.defvjp
def _solve_vjp(g: Any, y: Any, a: Any, b: Any) -> Entries:
    def turned() -> Any:
        return solve(swapped(a), g)

    return (
        lambda: sum_to_like(pw.neg(matmul(turned(), swapped(y))), a),
        lambda: sum_to_like(turned(), b),
    )


@op()
def cholesky(a: TensorType) -> TensorType:
    """Return the lower triangular L with L L^T = a, of symmetric positive definite matrices.

    Shapes: (*L, n, n) -> (*L, n, n).
    """
    _matrices("linalg.cholesky", a, square=True)
    return TensorType(a.dtype, a.shape)


@cholesky.defvjp
def _cholesky_vjp(g: Any, y: Any, a: Any) -> Entries:
    def entry() -> Any:
        inner = matmul(swapped(y), g)
        half = pw.mul(
            pw.add(layout.trilu(inner, upper=False, k=0), layout.trilu(inner, upper=False, k=-1)),
            0.5,
        )
        left = solve(swapped(y), half)
        both = swapped(solve(swapped(y), swapped(left)))
        return pw.mul(pw.add(both, swapped(both)), 0.5)

    return (entry,)


@op()
def eigh(a: TensorType, *, upper: bool = False) -> tuple[TensorType, TensorType]:
    """Return the eigenvalues, ascending, and eigenvectors of symmetric matrices, of which one triangle is read.

    Shapes: (*L, n, n) -> (*L, n), (*L, n, n).
    """
    _matrices("linalg.eigh", a, square=True)
    return TensorType(a.dtype, a.shape[:-1]), TensorType(a.dtype, a.shape)


@eigh.defvjp
def _eigh_vjp(g: Any, y: Any, a: Any, *, upper: bool = False) -> Entries:
    values, vectors = y

    def entry() -> Any:
        unit = _unit(values, values.shape[-1])
        inner = full_like(vectors, shape=tuple(vectors.shape), value=0)
        if g[1] is not None:
            apart = pw.add(pw.sub(_columns(values), _rows(values)), unit)
            turned = matmul(swapped(vectors), g[1])
            inner = pw.div(pw.sub(turned, _diagonal(turned)), apart)
        if g[0] is not None:
            inner = pw.add(inner, pw.mul(unit, _columns(g[0])))
        return matmul(matmul(vectors, inner), swapped(vectors))

    return (entry,)


@op()
def svd(a: TensorType) -> tuple[TensorType, TensorType, TensorType]:
    """Return u, s, v^T with a = u diag(s) v^T, s descending; u and v have as many columns as s has values.

    Shapes: (*L, m, n) -> (*L, m, k), (*L, k), (*L, k, n), where k is the smaller of m and n.
    """
    _matrices("linalg.svd", a)
    m, n = a.shape[-2:]
    k = m if m <= n else n
    lead = a.shape[:-2]
    return TensorType(a.dtype, (*lead, m, k)), TensorType(a.dtype, (*lead, k)), TensorType(a.dtype, (*lead, k, n))


def _skew(x: Any) -> Any:
    return pw.sub(x, swapped(x))


@svd.defvjp
def _svd_vjp(g: Any, y: Any, a: Any) -> Entries:
    u, s, vh = y
    gu, gs, gvh = g

    def entry() -> Any:
        m, n, k = u.shape[-2], vh.shape[-1], s.shape[-1]
        unit = _unit(s, k)
        square = pw.mul(s, s)
        apart = pw.add(pw.sub(_columns(square), _rows(square)), unit)
        inner = pw.mul(unit, _columns(full_like(s, shape=tuple(s.shape), value=0) if gs is None else gs))
        if gu is not None:
            inner = pw.add(inner, pw.mul(pw.div(_skew(matmul(swapped(u), gu)), apart), _columns(s)))
        if gvh is not None:
            inner = pw.add(inner, pw.mul(_rows(s), pw.div(_skew(matmul(vh, swapped(gvh))), apart)))
        total = matmul(matmul(u, inner), vh)
        if gu is not None and m > k:
            rest = pw.sub(gu, matmul(u, matmul(swapped(u), gu)))
            total = pw.add(total, matmul(pw.div(rest, _columns(s)), vh))
        if gvh is not None and n > k:
            rest = pw.sub(gvh, matmul(matmul(gvh, swapped(vh)), vh))
            total = pw.add(total, matmul(u, pw.div(rest, _rows(s))))
        return total

    return (entry,)


@op()
def qr(a: TensorType) -> tuple[TensorType, TensorType]:
    """Return q with orthonormal columns and the upper triangular r, with q r = a.

    Shapes: (*L, m, n) -> (*L, m, k), (*L, k, n), where k is the smaller of m and n. The gradient wants m >= n.
    """
    _matrices("linalg.qr", a)
    m, n = a.shape[-2:]
    k = m if m <= n else n
    return TensorType(a.dtype, (*a.shape[:-2], m, k)), TensorType(a.dtype, (*a.shape[:-2], k, n))


@qr.defvjp
def _qr_vjp(g: Any, y: Any, a: Any) -> Entries:
    q, r = y
    gq, gr = g

    def entry() -> Any:
        if gr is None:
            inner = pw.neg(matmul(swapped(gq), q))
        else:
            inner = matmul(r, swapped(gr))
            if gq is not None:
                inner = pw.sub(inner, matmul(swapped(gq), q))
        low = layout.trilu(inner, upper=False, k=-1)
        mirrored = pw.add(pw.add(low, swapped(low)), _diagonal(inner))
        left = matmul(q, mirrored)
        left = left if gq is None else pw.add(left, gq)
        return swapped(solve(r, swapped(left)))

    return (entry,)


@op()
def slogdet(a: TensorType) -> tuple[TensorType, TensorType]:
    """Return the sign of the determinant of each matrix and the logarithm of its absolute value.

    Shapes: (*L, n, n) -> L, L.
    """
    _matrices("linalg.slogdet", a, square=True)
    return TensorType(a.dtype, a.shape[:-2]), TensorType(a.dtype, a.shape[:-2])


@slogdet.defvjp
def _slogdet_vjp(g: Any, y: Any, a: Any) -> Entries:
    def entry() -> Any:
        if g[1] is None:
            return full_like(a, shape=tuple(a.shape), value=0)
        return pw.mul(layout.reshape(g[1], shape=(*g[1].shape, 1, 1)), swapped(inverse(a)))

    return (entry,)


@op()
def pinv(a: TensorType, *, rcond: float | None = None) -> TensorType:
    """Return the Moore-Penrose inverse; singular values below rcond times the largest count as 0.

    Shapes: (*L, m, n) -> (*L, n, m).
    """
    _matrices("linalg.pinv", a)
    return TensorType(a.dtype, (*a.shape[:-2], a.shape[-1], a.shape[-2]))


@pinv.defvjp
def _pinv_vjp(g: Any, y: Any, a: Any, *, rcond: float | None = None) -> Entries:
    def entry() -> Any:
        turned, back = swapped(y), swapped(g)
        total = pw.neg(matmul(matmul(turned, g), turned))
        right = matmul(back, matmul(y, turned))
        total = pw.add(total, pw.sub(right, matmul(matmul(a, y), right)))
        left = matmul(matmul(turned, y), back)
        return pw.add(total, pw.sub(left, matmul(left, matmul(y, a))))

    return (entry,)
