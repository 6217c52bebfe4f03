"""Products of matrices: the rows of the op table."""

from __future__ import annotations

import itertools

import numpy as np

from onnxgrad.ops.matmul import det, einsum, inverse, matmul

from ..case import OpCase, rand


def product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Multiply by the definition, one element of the result at a time."""
    wide_a = a[None] if a.ndim == 1 else a
    wide_b = b[:, None] if b.ndim == 1 else b
    batch = np.broadcast_shapes(wide_a.shape[:-2], wide_b.shape[:-2])
    wide_a = np.broadcast_to(wide_a, (*batch, *wide_a.shape[-2:]))
    wide_b = np.broadcast_to(wide_b, (*batch, *wide_b.shape[-2:]))
    y = np.zeros((*batch, wide_a.shape[-2], wide_b.shape[-1]))
    for at in itertools.product(*map(range, y.shape)):
        y[at] = sum(wide_a[(*at[:-1], k)] * wide_b[(*at[:-2], k, at[-1])] for k in range(wide_a.shape[-1]))
    return y.reshape((*batch, *a.shape[:-1][-1:], *(b.shape[-1:] if b.ndim > 1 else ())))


def sums(equation: str, *xs: np.ndarray) -> np.ndarray:
    """Sum by the definition: over every choice of all labels."""
    left, right = equation.split("->")
    terms = left.split(",")
    size: dict[str, int] = {}
    for term, x in zip(terms, xs, strict=True):
        for label, n in zip(term, x.shape, strict=True):
            size[label] = max(n, size.get(label, 1))
    y = np.zeros([size[c] for c in right])
    for values in itertools.product(*(range(n) for n in size.values())):
        at = dict(zip(size, values, strict=True))
        factor = 1.0
        for term, x in zip(terms, xs, strict=True):
            factor *= x[tuple(at[c] if n > 1 else 0 for c, n in zip(term, x.shape, strict=True))]
        y[tuple(at[c] for c in right)] += factor
    return y


def row(equation: str, *shapes: tuple[int, ...]) -> OpCase:
    """Return a case of einsum on inputs of these shapes."""
    xs = tuple(rand(*s, seed=i) for i, s in enumerate(shapes))
    return OpCase(einsum, xs, lambda *xs: sums(equation, *xs), {"equation": equation}, name=f"einsum-{equation}")


def regular(*shape: int) -> np.ndarray:
    return rand(*shape) + 4 * np.eye(shape[-1])


def cofactors(a: np.ndarray) -> float:
    """Return the determinant by Laplace's expansion."""
    if len(a) == 1:
        return float(a[0, 0])
    minors = (np.delete(a[1:], j, axis=1) for j in range(len(a)))
    return sum((-1) ** j * a[0, j] * cofactors(m) for j, m in enumerate(minors))


def adjugate(a: np.ndarray) -> np.ndarray:
    """Return the inverse by Cramer's rule."""
    n = len(a)
    minors = [[cofactors(np.delete(np.delete(a, i, 0), j, 1)) * (-1) ** (i + j) for i in range(n)] for j in range(n)]
    return np.array(minors) / cofactors(a)


CASES = [
    *(
        OpCase(matmul, (rand(*a), rand(*b, seed=1)), product)
        for a, b in [
            ((2, 3), (3, 4)),
            ((2, 2, 3), (3, 4)),
            ((2, 1, 2, 3), (3, 3, 2)),
            ((2, 3), (2, 3, 1)),
            ((3,), (3,)),
            ((3,), (2, 3, 2)),
            ((2, 2, 3), (3,)),
            ((3,), (3, 2)),
            ((2, 0), (0, 3)),
        ]
    ),
    row("ij,jk->ik", (2, 3), (3, 4)),
    row("bij,bjk->bik", (2, 3, 2), (2, 2, 3)),
    row("bhid,bhjd->bhij", (2, 2, 2, 3), (2, 1, 3, 3)),
    row("ij,ij->", (2, 3), (2, 3)),
    row("i,j->ij", (2,), (3,)),
    row("ii->i", (3, 3)),
    row("ii->", (3, 3)),
    row("iij,jk->ki", (2, 2, 3), (3, 2)),
    row("ij->j", (2, 3)),
    row("ijk->kji", (2, 3, 2)),
    row("ij,kl->il", (2, 3), (2, 2)),
    row("ij,jk,kl->il", (2, 3), (3, 2), (2, 2)),
    row("ij,jk->ik", (2, 1), (3, 4)),
    OpCase(
        einsum,
        (rand(3),),
        lambda x: np.diag(x)[None].repeat(2, 0),
        {"equation": "i->bii", "sizes": (2, 3, 3)},
        name="einsum-spread",
    ),
    OpCase(inverse, (regular(3, 3),), adjugate, symbolic=False),
    OpCase(inverse, (regular(2, 2, 2),), lambda a: np.array([adjugate(m) for m in a]), symbolic=False),
    OpCase(det, (regular(3, 3),), cofactors),
    OpCase(det, (regular(2, 2, 2),), lambda a: np.array([cofactors(m) for m in a])),
]
