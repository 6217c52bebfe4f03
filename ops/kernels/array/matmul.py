"""Products of matrices: everything becomes one `matmul` of well-laid-out operands where it can."""

from __future__ import annotations

import math

import numpy as np

from ...dims import Shape, show
from ...errors import ShapeError
from ...matmul import det, einsum, inverse, matmul, parts
from ...op import namespace
from ...types import Array
from .host import on_host


@matmul.kernel("array")
def _matmul(a: Array, b: Array) -> Array:
    xp = namespace(a, b)
    if b.ndim == 2 and a.ndim > 2 and a.flags.c_contiguous:
        return xp.matmul(a.reshape(-1, a.shape[-1]) if a.size else a, b).reshape(*a.shape[:-1], b.shape[1])
    return xp.asarray(xp.matmul(a, b))


def _unrepeated(x: Array, labels: str) -> tuple[Array, str]:
    """Return x with each label once: the diagonal of those that repeat."""
    unique = "".join(dict.fromkeys(labels))
    return (x, labels) if unique == labels else (namespace(x).einsum(f"{labels}->{unique}", x), unique)


def _summed(x: Array, labels: str, kept: set[str]) -> tuple[Array, str]:
    """Return x summed over the labels that are not kept."""
    gone = tuple(i for i, c in enumerate(labels) if c not in kept)
    return (x.sum(axis=gone, dtype=x.dtype), "".join(c for c in labels if c in kept)) if gone else (x, labels)


def _arranged(x: Array, labels: str, order: str) -> Array:
    """Return x with its axes in this order of labels, size 1 where it lacks one."""
    present = [c for c in order if c in labels]
    x = x.transpose([labels.index(c) for c in present])
    size = dict(zip(present, x.shape, strict=True))
    return x.reshape(tuple(size.get(c, 1) for c in order))


def _pair(a: Array, la: str, b: Array, lb: str, kept: set[str]) -> tuple[Array, str]:
    """Contract two operands by one batched matrix product."""
    xp = namespace(a, b)
    size_a, size_b = dict(zip(la, a.shape, strict=True)), dict(zip(lb, b.shape, strict=True))
    shared = [c for c in la if c in lb]
    # A size that broadcasts is summed on the side that has more, or kept as a batch axis of matmul.
    for c in shared:
        if size_a[c] != size_b[c] and 1 not in (size_a[c], size_b[c]):
            raise ShapeError(
                f"einsum: subscript {c} has size {size_b[c]} for an operand which does not broadcast with previously "
                f"seen size {size_a[c]}: shapes {show(a.shape)} and {show(b.shape)}"
            )
        if c not in kept and size_a[c] != size_b[c]:
            a, la = _summed(a, la, set(la) - {c}) if size_a[c] != 1 else (a.squeeze(la.index(c)), la.replace(c, ""))
            b, lb = _summed(b, lb, set(lb) - {c}) if size_b[c] != 1 else (b.squeeze(lb.index(c)), lb.replace(c, ""))
    a, la = _summed(a, la, kept | set(lb))
    b, lb = _summed(b, lb, kept | set(la))
    batch = "".join(c for c in la if c in lb and c in kept)
    inner = "".join(c for c in la if c in lb and c not in kept)
    left = "".join(c for c in la if c not in lb)
    right = "".join(c for c in lb if c not in la)
    size = {**size_b, **{c: size_b.get(c, 1) if n == 1 else n for c, n in size_a.items()}}

    def count(labels: str) -> int:
        return math.prod(size[c] for c in labels)

    rows = _arranged(a, la, batch + left + inner)
    columns = _arranged(b, lb, batch + inner + right)
    if len(inner) == 0:
        product = _arranged(rows, batch + left, batch + left + right) * _arranged(
            columns, batch + right, batch + left + right
        )
        return product, batch + left + right
    rows = rows.reshape(*rows.shape[: len(batch)], count(left), count(inner))
    columns = columns.reshape(*columns.shape[: len(batch)], count(inner), count(right))
    y = xp.matmul(rows, columns)
    return y.reshape((*y.shape[:-2], *(size[c] for c in left + right))), batch + left + right


@einsum.kernel("array")
def _einsum(*xs: Array, equation: str, sizes: Shape = ()) -> Array:
    xp = namespace(*xs)
    terms, out = parts(equation)
    operands = [_unrepeated(x, t) for x, t in zip(xs, terms, strict=True)]
    while len(operands) > 1:
        (a, la), (b, lb), *rest = operands
        kept = set(out).union(*(t for _, t in rest))
        operands = [_pair(a, la, b, lb, kept), *rest]
    x, labels = _summed(*operands[0], set(out))
    unique = "".join(dict.fromkeys(out))
    y = _arranged(x, labels, unique)
    if sizes:
        wanted = dict(zip(out, sizes, strict=True))
        y = xp.broadcast_to(y, tuple(max(n, int(wanted[c])) for c, n in zip(unique, y.shape, strict=True)))
    return xp.asarray(y) if unique == out else _spread(y, unique, out)


def _spread(y: Array, unique: str, out: str) -> Array:
    """Return zeros with y on the diagonal of the repeated labels."""
    xp = namespace(y)
    size = dict(zip(unique, y.shape, strict=True))
    for c in unique:
        if out.count(c) > 1:
            # The extra axes of the label come last, one by one, each tied to the first by a unit matrix.
            for _ in range(out.count(c) - 1):
                unit = xp.eye(size[c], dtype=y.dtype)
                axis = unique.index(c)
                y = xp.expand_dims(y, -1) * unit.reshape(
                    [size[c] if i == axis else 1 for i in range(y.ndim)] + [size[c]]
                )
                unique += c
    positions: dict[str, list[int]] = {}
    for i, c in enumerate(unique):
        positions.setdefault(c, []).append(i)
    return y.transpose([positions[c].pop(0) for c in out])


@inverse.kernel("array")
@on_host
def _inverse(a: Array) -> Array:
    return np.linalg.inv(a)


@det.kernel("array")
@on_host
def _det(a: Array) -> Array:
    return np.asarray(np.linalg.det(a))
