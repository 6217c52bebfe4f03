"""Products of matrices: `matmul`, `einsum`, and the inverse and determinant that belong to them.

`einsum` is closed under its own adjoint: an output may repeat a label (it fills the diagonal), and may be
broadcast to `sizes` (it repeats along labels that no input has).
Source: ONNX MatMul-13, Einsum-12, Det-22; NumPy's matmul and einsum.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from . import layout
from .dims import DimLike, Shape, broadcast, product, show
from .errors import ShapeError
from .op import op
from .pointwise import mul, neg, sum_to_like
from .types import TensorType

Entries: TypeAlias = tuple[Callable[[], Any] | None, ...]


def swapped(x: Any) -> Any:
    """Return x with its last two axes exchanged."""
    n = x.ndim
    return layout.transpose(x, perm=(*range(n - 2), n - 1, n - 2))


@op()
def matmul(a: TensorType, b: TensorType) -> TensorType:
    """Matrix product, batched over leading axes.

    Shapes: (*L, m, k), (*M, k, n) -> (*broadcast(L, M), m, n); a 1-D input is a row (a) or a column (b), and
    its axis is left out of the result.

    Raises:
        ShapeError: if an input is a scalar or the inner sizes differ.
    """
    dtype = a.dtype if a.dtype == b.dtype else np.result_type(a.dtype, b.dtype)
    if a.ndim == 0 or b.ndim == 0:
        raise ShapeError(f"matmul: wants at least one axis each, found {show(a.shape)} and {show(b.shape)}")
    inner = a.shape[-1], b.shape[-2 if b.ndim > 1 else -1]
    if isinstance(inner[0], int) and isinstance(inner[1], int) and inner[0] != inner[1]:
        raise ShapeError(
            f"matmul: {_unfit(a.shape, b.shape)}inner sizes {inner[0]} and {inner[1]} differ: "
            f"{show(a.shape)} @ {show(b.shape)}"
        )
    try:
        batch = broadcast(a.shape[:-2], b.shape[:-2])
    except ShapeError as error:
        raise ShapeError(f"matmul: {error}") from None
    return TensorType(dtype, (*batch, *(a.shape[-2:-1]), *(b.shape[-1:] if b.ndim > 1 else ())))


def _unfit(a: Shape, b: Shape) -> str:
    """Return what does not fit in PyTorch's words, where it multiplies two matrices."""
    if len(b) != 2 or len(a) < 2:
        return ""
    rows = product(a[:-1])
    return f"mat1 and mat2 shapes cannot be multiplied ({rows}x{a[-1]} and {b[0]}x{b[1]}); "


@matmul.defvjp
def _matmul_vjp(g: Any, y: Any, a: Any, b: Any) -> Entries:
    if a.ndim == 1 or b.ndim == 1:
        return _vector_vjp(g, a, b)
    if b.ndim == 2 and a.ndim > 2:
        return lambda: matmul(g, swapped(b)), lambda: matmul(swapped(_rows(a)), _rows(g))
    return (
        lambda: sum_to_like(matmul(g, swapped(b)), a),
        lambda: sum_to_like(matmul(swapped(a), g), b),
    )


def _rows(x: Any) -> Any:
    """Return x as a matrix of its last axis's rows."""
    return layout.reshape(x, shape=(product(x.shape[:-1]), x.shape[-1]))


def _vector_vjp(g: Any, a: Any, b: Any) -> Entries:
    """Return the gradients where an input is 1-D: those of the same product with the missing axes put in."""
    row = layout.reshape(a, shape=(1, *a.shape)) if a.ndim == 1 else a
    column = layout.reshape(b, shape=(*b.shape, 1)) if b.ndim == 1 else b
    batch = broadcast(tuple(row.shape[:-2]), tuple(column.shape[:-2]))
    wide = layout.reshape(g, shape=(*batch, row.shape[-2], column.shape[-1]))
    return (
        lambda: layout.reshape(sum_to_like(matmul(wide, swapped(column)), row), shape=tuple(a.shape)),
        lambda: layout.reshape(sum_to_like(matmul(swapped(row), wide), column), shape=tuple(b.shape)),
    )


def parts(equation: str) -> tuple[list[str], str]:
    """Return the labels of the inputs and of the output of `ij,jk->ik`."""
    left, _, right = equation.partition("->")
    return left.split(","), right


def explicit(equation: str, ranks: Sequence[int]) -> str:
    """Return an equation with its output written out and every ellipsis replaced by labels.

    Args:
        equation: as NumPy takes it; without an output, that is every label that occurs once, in order.
        ranks: of the inputs.

    Raises:
        ShapeError: if the equation does not fit the inputs.
    """
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(ranks):
        raise ShapeError(f"einsum: {equation!r} has {len(terms)} inputs, found {len(ranks)}")
    hidden = [r - len(t.replace("...", "")) if "..." in t else 0 for t, r in zip(terms, ranks, strict=True)]
    spare = [c for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz" if c not in equation]
    if min(hidden) < 0 or max(hidden) > len(spare):
        raise ShapeError(f"einsum: {equation!r} does not fit inputs of ranks {list(ranks)}")
    dots = "".join(spare[: max(hidden)])
    full = [t.replace("...", dots[len(dots) - h :]) for t, h in zip(terms, hidden, strict=True)]
    for term, rank in zip(full, ranks, strict=True):
        if len(term) != rank:
            raise ShapeError(f"einsum: {equation!r} does not fit inputs of ranks {list(ranks)}")
    if not arrow:
        named = "".join(terms).replace(".", "")
        right = "..." * bool(dots) + "".join(sorted(c for c in set(named) if named.count(c) == 1))
    out = right.replace("...", dots)
    if unknown := set(out) - set("".join(full)):
        raise ShapeError(f"einsum: {equation!r} has output labels {sorted(unknown)} that no input has")
    return f"{','.join(full)}->{out}"


@op()
def einsum(*xs: TensorType, equation: str, sizes: Shape = ()) -> TensorType:
    """Sum products over the labels that the output lacks.

    Args:
        *xs: the inputs; a size of 1 broadcasts.
        equation: `explicit`, as in `ij,jk->ik`. The output may repeat a label: the rest of the square is 0.
        sizes: sizes that the output is broadcast to, label by label; those of labels that no input has.

    Raises:
        ShapeError: if two sizes of a label differ.
    """
    terms, out = parts(equation)
    known: dict[str, DimLike] = {}
    for labels, shape in zip((*terms, out), (*(x.shape for x in xs), sizes or (1,) * len(out)), strict=True):
        if len(labels) != len(shape):
            raise ShapeError(f"einsum: {labels!r} of {equation!r} met shape {show(shape)}")
        for label, size in zip(labels, shape, strict=True):
            try:
                known[label] = broadcast((known.get(label, 1),), (size,))[0]
            except ShapeError:
                raise ShapeError(f"einsum: {equation!r}: label {label!r} is {known[label]} and {size}") from None
    return TensorType(np.result_type(*(x.dtype for x in xs)), tuple(known[label] for label in out))


@einsum.defvjp
def _einsum_vjp(g: Any, y: Any, *xs: Any, equation: str, sizes: Shape = ()) -> Entries:
    terms, out = parts(equation)

    def entry(i: int) -> Any:
        others = [x for k, x in enumerate(xs) if k != i]
        labels = [t for k, t in enumerate(terms) if k != i]
        turned = f"{','.join((out, *labels))}->{terms[i]}"
        return sum_to_like(einsum(g, *others, equation=turned, sizes=tuple(xs[i].shape)), xs[i])

    return tuple(functools.partial(entry, i) for i in range(len(xs)))


@op()
def inverse(a: TensorType) -> TensorType:
    """Inverse of each matrix.

    Shapes: (*L, n, n) -> (*L, n, n).
    Source: com.microsoft Inverse-1.
    """
    _square("inverse", a)
    return TensorType(a.dtype, a.shape)


@inverse.defvjp
def _inverse_vjp(g: Any, y: Any, a: Any) -> Entries:
    return (lambda: neg(matmul(swapped(y), matmul(g, swapped(y)))),)


@op()
def det(a: TensorType) -> TensorType:
    """Determinant of each matrix; the gradient wants invertible ones.

    Shapes: (*L, n, n) -> L.
    """
    _square("det", a)
    return TensorType(a.dtype, a.shape[:-2])


@det.defvjp
def _det_vjp(g: Any, y: Any, a: Any) -> Entries:
    def entry() -> Any:
        scale = layout.reshape(mul(g, y), shape=(*y.shape, 1, 1))
        return mul(scale, swapped(inverse(a)))

    return (entry,)


def _square(name: str, a: TensorType) -> None:
    n, m = a.shape[-2:] if a.ndim > 1 else (0, 1)
    if isinstance(n, int) and isinstance(m, int) and n != m:
        raise ShapeError(f"{name}: wants square matrices, found {show(a.shape)}")
