"""Products of matrices through cuBLASLt: `matmul`, and sums of products (`einsum`) that are one.

What lies as the library reads it is passed as it is, transposed or batched by strides; anything else is copied first.
Biases, sums with a tensor of the result's shape, relu and gelu (by tanh) belong to the product; other epilogues are a
kernel behind it. Products of half precision whose epilogue makes float32 are written in float32 and never rounded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from ...matmul import parts
from ...types import TensorType
from .cublaslt import TYPES, Activation, MatMul, Side, describe
from .fusion import Tail, copy, finish, fuses, tail_of, vector
from .indexing import View, merged, view
from .kernel import Ref
from .lowering import Site, lowers
from .operand import Sizes, row_major

_ACTIVATIONS: dict[str, Activation] = {"": "", "relu": "relu", "gelu_tanh": "gelu_tanh"}

_COPY = 8
"""A copy costs as much as so many calls for a product that would otherwise be made matrix by matrix."""


@dataclass(frozen=True)
class Ending:
    """What a product applies to its result.

    Attributes:
        bias: vectors that are added to each row, of any float type, as many elements as there are columns.
        added: a view of the result's shape and type that is added.
        activation: applied last.
    """

    bias: tuple[View, ...] = ()
    added: View | None = None
    activation: Activation = ""


def _name(tail: Tail) -> str:
    return tail.activation.name if tail.activation else ""


# products -------------------------------------------------------------------------------------------------------------


def multiply(
    site: Site, left: View, right: View, result: View, ending: Ending | None = None, *, alpha: float = 1.0
) -> None:
    """Call for result = activation(alpha left right + added + bias); factors that cannot be read are copied before.

    The views begin at the first element of their tensors.

    Args:
        site: where.
        left: (*batch, m, k), broadcast axes 0 apart.
        right: (*batch, k, n).
        result: (*batch, m, n); its columns, or without a bias its rows, are neighbours.
        ending: what is applied.
        alpha: factor.
    """
    ending = ending or Ending()
    best: tuple[int, MatMul, bool, bool] | None = None
    for first, second in ((False, False), (True, False), (False, True), (True, True)):
        made = _described(site, left, right, result, ending.added, (first, second))
        if made is not None:
            cost = len(made.places) + _COPY * (first + second)
            if best is None or cost < best[0]:
                best = cost, made, first, second
    assert best is not None, f"the result of a product lies {result.strides}"
    _, made, first, second = best
    refs = [copied(site, left).ref if first else left.ref, copied(site, right).ref if second else right.ref]
    refs += [vector(site, ending.bias, result.ref.operand.dtype)] if ending.bias else []
    refs += [ending.added.ref] if ending.added else []
    made = replace(made, alpha=alpha, bias=bool(ending.bias), activation=ending.activation)
    site.call(made, [*refs, result.ref], writes=(len(refs),))


def _described(
    site: Site, left: View, right: View, result: View, added: View | None, copies: tuple[bool, bool]
) -> MatMul | None:
    *batch, m, n = result.shape
    a, b = (_packed(v) if c else _side(v) for v, c in zip((left, right), copies, strict=True))
    beside = _side(added) if added else None
    return describe(tuple(batch), m, n, left.shape[-1], a, b, _side(result), added=beside, tf32=site.tf32)


def _side(v: View) -> Side:
    *batch, row, column = v.strides
    return Side(v.ref.operand.dtype, tuple(batch), row, column, v.ref.operand.offset)


def _packed(v: View) -> Side:
    """Return how a copy of a view lies."""
    *batch, row, column = _copy_strides(v, len(v.shape) - 2)
    return Side(v.ref.operand.dtype, tuple(batch), row, column)


def copied(site: Site, v: View, batch: int | None = None) -> View:
    """Return a copy without gaps of what a view shows; its first axes, all but two, stay broadcast."""
    first = len(v.shape) - 2 if batch is None else batch
    kept = _kept(v, first)
    made = site.temporary(v.ref.operand.dtype, kept)
    copy(site, View(v.ref, kept, v.strides), v.ref.operand.dtype, view(made))
    return View(made, v.shape, _copy_strides(v, first))


def _kept(v: View, batch: int) -> Sizes:
    return tuple(1 if s == 0 and i < batch else n for i, (n, s) in enumerate(zip(v.shape, v.strides, strict=True)))


def _copy_strides(v: View, batch: int) -> Sizes:
    kept = _kept(v, batch)
    return tuple(0 if k < n else step for k, n, step in zip(kept, v.shape, row_major(kept), strict=True))


def served(*types: TensorType) -> bool:
    """Whether there are products of these element types, and none of these tensors is empty."""
    return all(t.dtype == types[0].dtype and t.dtype.name in TYPES and 0 not in t.shape for t in types)


# the ending of a site -------------------------------------------------------------------------------------------------


def ending_of(site: Site, result: View, full: Callable[[Sizes], Sizes | None]) -> Ending | None:
    """Return what a product applies for the epilogue of a site, or None where it cannot.

    Args:
        site: whose epilogue it is.
        result: of the product, (*batch, m, n).
        full: strides of an operand of the epilogue as those of the result.
    """
    epilogue = site.epilogue
    if epilogue is None:
        return Ending()
    tail = tail_of(epilogue.expression)
    dtype = result.ref.operand.dtype
    if tail is None or _name(tail) not in _ACTIVATIONS or result.strides[-1] != 1:
        return None
    bias: list[View] = []
    added: View | None = None
    for variable in tail.added:
        i = int(variable[1:])
        o, ref = epilogue.operands[i], site.epilogue_refs[i]
        strides = full(o.strides)
        if o.dtype.name not in TYPES or strides is None:
            return None
        across = [s for s, n in zip(strides[:-1], result.shape, strict=False) if n != 1]
        if not any(across):
            bias.append(View(ref, result.shape[-1:], strides[-1:]))
            continue
        apart = result.shape[-2] == 1 or strides[-2] >= result.shape[-1]
        if added is not None or o.dtype != dtype or strides[-1] != 1 or min(across) <= 0 or not apart:
            return None
        added = View(ref, result.shape, strides)
    return Ending(tuple(bias), added, _ACTIVATIONS[_name(tail)])


def into(site: Site, y: Ref, left: View, right: View, shape: Sizes, full: Callable[[Sizes], Sizes | None]) -> None:
    """Call for the product that is the first output of a site, with its epilogue.

    Args:
        site: where.
        y: the output, without gaps.
        left: (*batch, m, k).
        right: (*batch, k, n).
        shape: (*batch, m, n).
        full: strides of the output, or of an operand of the epilogue, as those of this shape; None where it has none.
    """
    dtype, stored = site.results[0].dtype, y.operand.dtype

    steps = full(y.operand.strides)
    assert steps is not None
    target = View(y, shape, steps)
    if site.epilogue is None:
        multiply(site, left, right, target)
        return
    unrounded = dtype.itemsize == 2 and stored == np.float32
    ending = ending_of(site, target, full) if unrounded or stored == dtype else None
    if ending is not None and site.attempt(lambda: multiply(site, left, right, target, ending)):
        return
    made = y
    if not unrounded or not site.attempt(lambda: multiply(site, left, right, target)):
        made = y if stored == dtype else site.temporary(dtype, y.operand.shape)
        multiply(site, left, right, replace(target, ref=made))
    finish(site, site.epilogue, View(made, y.operand.shape, y.operand.strides), made.operand.dtype, view(y))


# rules ----------------------------------------------------------------------------------------------------------------


@lowers("matmul", fuses=fuses)
def _matmul(site: Site) -> bool:
    a, b, out = site.types[0], site.types[1], site.results[0]
    if not served(a, b, out):
        return False
    row, column = a.ndim == 1, b.ndim == 1
    shape = tuple(int(n) for n in out.shape)
    lead = shape if row and column else shape[:-1] if row or column else shape[:-2]

    def full(strides: Sizes) -> Sizes:
        """Put in the axes that the result of vectors lacks."""
        strides = (*strides, 1) if column else strides
        return (*strides[:-1], 0, strides[-1]) if row else strides

    left, right = site.read(0), site.read(1)
    x, w = left.operand, right.operand
    x = replace(x, shape=(1, *x.shape), strides=(0, *x.strides)) if row else x
    w = replace(w, shape=(*w.shape, 1), strides=(*w.strides, 0)) if column else w
    views = [
        View(ref, (*lead, *o.shape[-2:]), o.broadcast_to((*lead, *o.shape[-2:])).strides)
        for ref, o in ((left, x), (right, w))
    ]
    y = site.write(0, order="plain")
    into(site, y, views[0], views[1], (*lead, x.shape[-2], w.shape[-1]), full)
    return True


@lowers("einsum", fuses=fuses)
def _einsum(site: Site) -> bool:
    """Lower a sum over the common labels of two inputs to one product of matrices."""
    terms, out = parts(site.attrs["equation"])
    if len(terms) != 2 or site.attrs.get("sizes") or not served(*site.types, site.results[0]):
        return False
    if any(len(set(labels)) != len(labels) for labels in (*terms, out)):
        return False
    sizes = [dict(zip(labels, map(int, t.shape), strict=True)) for labels, t in zip(terms, site.types, strict=True)]
    size = {**sizes[0], **sizes[1]}
    if any(size[c] != n for c, n in sizes[0].items()):
        return False
    both = [c for c in terms[0] if c in terms[1]]
    batch, inner = [c for c in out if c in both], [c for c in both if c not in out]
    rows, columns = ([c for c in out if c in t and c not in both] for t in terms)
    if not inner or len(batch) + len(rows) + len(columns) != len(out):
        return False
    if len(both) + len(rows) != len(terms[0]) or len(both) + len(columns) != len(terms[1]):
        return False
    left, right = (
        _matrix(site, _labelled(site.read(i), terms[i], (*batch, *first, *last)), len(batch), len(first))
        for i, (first, last) in enumerate(((rows, inner), (inner, columns)))
    )
    y = site.write(0, order="plain")
    shape = (*(size[c] for c in batch), prod(size[c] for c in rows), prod(size[c] for c in columns))
    order = (*batch, *rows, *columns)

    def full(strides: Sizes) -> Sizes | None:
        steps = dict(zip(out, strides, strict=True))
        return _joined(tuple(size[c] for c in order), tuple(steps[c] for c in order), len(batch), len(rows))

    steps = full(y.operand.strides)
    if steps is not None and 1 in steps[-2:]:
        into(site, y, left, right, shape, full)
        return True
    dtype = site.results[0].dtype
    made = site.temporary(dtype, tuple(size[c] for c in order))
    multiply(site, left, right, View(made, shape, row_major(shape)))
    source = _labelled(made, order, out)
    if site.epilogue:
        finish(site, site.epilogue, source, dtype, view(y))
    else:
        copy(site, source, dtype, view(y))
    return True


def _labelled(ref: Ref, labels: Sequence[str], order: Sequence[str]) -> View:
    """Return a tensor with labelled axes, the axes in another order."""
    axes = [labels.index(c) for c in order]
    o = ref.operand.transposed(axes)
    return View(ref, o.shape, o.strides)


def _matrix(site: Site, v: View, batch: int, rows: int) -> View:
    """Return a view whose axes behind the batch are rows and then columns as (*batch, rows, columns), or a copy."""
    strides = _joined(v.shape, v.strides, batch, rows)
    if strides is None:
        v = copied(site, v, batch)
        strides = _joined(v.shape, v.strides, batch, rows)
        assert strides is not None
    tail = v.shape[batch:]
    return View(v.ref, (*v.shape[:batch], prod(tail[:rows]), prod(tail[rows:])), strides)


def _joined(shape: Sizes, strides: Sizes, batch: int, rows: int) -> Sizes | None:
    """Return the strides of (*batch, rows, columns) where each of the two is walked at one step."""
    found = list(strides[:batch])
    for part in (slice(batch, batch + rows), slice(batch + rows, None)):
        axes = [(n, s) for n, s in zip(shape[part], strides[part], strict=True) if n != 1]
        _, steps = merged(tuple(n for n, _ in axes), [tuple(s for _, s in axes)])
        if len(steps[0]) > 1:
            return None
        found.append(steps[0][0] if steps[0] else 1)
    return tuple(found)
