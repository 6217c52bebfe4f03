"""Attention that keeps its scores: two products with a softmax between them, and the products of the gradients.

Axes: B batch, H query heads, K key heads, G query heads that share one, L queries, S keys, E sizes of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from ...types import DType
from .attention_given import INFINITE, Given, along, bias
from .fusion import copy
from .indexing import View, view
from .kernel import Ref
from .lowering import Site
from .matmul import multiply
from .operand import Operand, Sizes, row_major
from .row_kernel import RowKernel, function
from .rows import Along, whole

_FEW = 4
"""Products of so many entries are called one by one where heads lie inside of rows; those of more have copies."""


def batched(site: Site, i: int) -> Ref:
    """Return an input (B, K, L, E) whose matrices lie at one step, or that has few entries; else a copy.

    The copy is one for all products that read it, also those of the other direction.
    """
    ref = site.read(i)
    o = ref.operand
    (b, h, _, _), (sb, sh, _, _) = o.shape, o.strides
    return ref if b <= _FEW or h == 1 or sb == h * sh else site.read(i, order="plain")


def heads(site: Site, i: int, p: Given) -> View:
    """Return an input (B, H, L, E) as (B, K, G L, E)."""
    ref = batched(site, i)
    o = ref.operand
    b, h, n, e = o.shape
    group = h // p.shared
    if group > 1 and n > 1 and o.strides[1] != n * o.strides[2]:
        ref = site.read(i, order="plain")
        o = ref.operand
    sb, sh, sn, se = o.strides
    return View(ref, (b, p.shared, group * n, e), (sb, group * sh, sn if n > 1 else sh, se))


def written(site: Site, i: int, p: Given) -> View:
    """Return an output (B, H, L, X) as (B, K, G L, X), or one that has K heads itself."""
    shape = tuple(map(int, site.results[i].shape))
    if shape[0] > _FEW or (shape[1] != p.shared and shape[2] > 1):
        ref = site.write(i, order="plain")
        return view(ref) if shape[1] == p.shared else matrices(ref, p)
    ref = site.write(i, order="permuted")
    b, h, n, x = shape
    sb, sh, sn, sx = ref.operand.strides
    group = h // p.shared
    return View(ref, (b, p.shared, group * n, x), (sb, group * sh, sn if group == 1 else sh, sx))


def matrices(ref: Ref, p: Given) -> View:
    """Return a tensor (B, H, L, X) that is row-major as (B, K, G L, X)."""
    b, h, n, x = ref.operand.shape
    shape = (b, p.shared, h // p.shared * n, x)
    return View(ref, shape, row_major(shape))


def turned(v: View) -> View:
    """Return a view with its last two axes exchanged."""
    return View(v.ref, (*v.shape[:-2], v.shape[-1], v.shape[-2]), (*v.strides[:-2], v.strides[-1], v.strides[-2]))


def scores(site: Site, p: Given, wide: DType) -> Ref:
    """Call for scale q k^T, (B, H, L, S)."""
    made = site.temporary(wide, p.shape)
    keys = view(batched(site, p.k))
    multiply(site, heads(site, p.q, p), turned(keys), matrices(made, p), alpha=p.scale)
    return made


def softmax(site: Site, p: Given, source: Ref, targets: Sequence[Ref]) -> None:
    """Launch the softmax of scores, capped, with what is added to them; a query that sees no key weighs nothing."""
    reads, term = [whole("x", source)], "x"
    c = "double" if source.operand.dtype == np.float64 else "float"
    if p.softcap:
        term = f"({function('tanh', c)}(x / cap) * cap)"
    if p.biased:
        added = bias(site, p, source.operand.dtype)
        reads.append(Along("m", added.ref, along(p, added)))
        term = f"({term} + m)"
    if p.sink is not None:
        sink = site.read(p.sink, order="plain")
        reads.append(Along("sink", sink, (0, sink.operand.strides[0] if sink.operand.size > 1 else 0, 0, 0)))
    writes = [whole(f"y{i}", r) for i, r in enumerate(targets)]
    k = RowKernel(site, "attention_softmax", p.shape, (False,) * 3 + (True,), reads, writes, hold=("x",), ctype=c)
    if p.softcap:
        k.number("cap", p.softcap)
    exp = function("exp", c)
    if k.held:
        k.fold([(("most",), f"Top<{c}>", "x")], update=("x", term))
        term = "x"
    else:
        k.fold([(("most", "online"), f"Online<{c}>", term)])
    top = "(most > sink ? most : sink)" if p.sink is not None else "most"
    k.state("top", f"{top} == -({c}){INFINITE} ? ({c})0 : {top}")
    if k.held:
        k.fold([(("sum",), f"Sum<{c}>", "x")], update=("x", f"{exp}(x - top)"))
    else:
        k.state("sum", f"most == -({c}){INFINITE} ? ({c})0 : online * {exp}(most - top)")
    k.state("whole", f"sum + {exp}(sink - top)" if p.sink is not None else "sum")
    k.state("by", f"({c})1 / (whole == 0 ? ({c})1 : whole)")
    weight = "x * by" if k.held else f"{exp}({term} - top) * by"
    k.map({w.name: weight for w in writes})
    k.launch()


def _wide(dtype: DType) -> DType:
    return np.dtype(np.float64 if dtype == np.float64 else np.float32)


def bytes_kept(site: Site, p: Given, *, gradient: bool) -> int:
    """Return how much memory the scores and what is made of them take where they take most.

    Args:
        site: where.
        p: what is given.
        gradient: whether they are those of `kept_backward`.
    """
    dtype = site.types[p.q].dtype
    wide = _wide(dtype).itemsize
    each = wide + dtype.itemsize
    if gradient:
        rounded = dtype.itemsize if wide > dtype.itemsize else 0
        each += rounded + wide * (1 + bool(p.softcap) + slopes_wanted(site, p))
    b, h, n, keys = p.shape
    mask: Sizes = () if p.mask is None else tuple(map(int, site.types[p.mask].shape))
    batched = p.lengths is not None or p.starts is not None or (len(mask) == 4 and mask[0] != 1)
    added = (b if batched else 1) * (h if len(mask) >= 3 and mask[-3] != 1 else 1) * n * keys
    return int(prod(p.shape) * each + added * wide * p.biased)


def slopes_wanted(site: Site, p: Given) -> bool:
    """Whether the gradient of a mask of numbers is wanted."""
    return p.mask is not None and site.types[p.mask].dtype != bool and site.wanted(3)


def kept_weights(site: Site, p: Given) -> None:
    """Call for the weights, the first output."""
    softmax(site, p, scores(site, p, _wide(site.types[p.q].dtype)), [site.write(0, order="plain")])


def kept_forward(site: Site, p: Given) -> None:
    """Call for the result of attention."""
    assert p.v is not None
    dtype = site.results[0].dtype
    wide = _wide(dtype)
    s = scores(site, p, wide)
    weights = site.temporary(dtype, p.shape)
    softmax(site, p, s, [weights])
    multiply(site, matrices(weights, p), view(batched(site, p.v)), written(site, 0, p))


def kept_backward(site: Site, p: Given, g: int) -> None:
    """Call for the gradients from weights that are made again."""
    assert p.v is not None
    dtype = site.results[0].dtype
    wide = _wide(dtype)
    s = scores(site, p, wide)
    weights = site.temporary(wide, p.shape)
    rounded = weights if wide == dtype else site.temporary(dtype, p.shape)
    softmax(site, p, s, [weights] if rounded is weights else [weights, rounded])
    above = heads(site, g, p)
    products, ds = site.temporary(wide, p.shape), site.temporary(dtype, p.shape)
    multiply(site, above, turned(view(batched(site, p.v))), matrices(products, p))

    c = "double" if wide == np.float64 else "float"
    last = len(site.results) - 1
    writes = [whole("ds", ds)]
    for_mask = site.temporary(wide, p.shape) if slopes_wanted(site, p) else None
    for_sink = site.temporary(wide, p.shape[:3]) if p.sink is not None and site.wanted(last) else None
    writes += [whole("dm", for_mask)] if for_mask else []
    writes += [Along("du", for_sink, (*for_sink.operand.strides, 0))] if for_sink else []
    reads = [whole("weight", weights), whole("above", products), *([whole("score", s)] if p.softcap else [])]
    k = RowKernel(
        site, "attention_slopes", p.shape, (False,) * 3 + (True,), reads, writes, hold=("weight", "above"), ctype=c
    )
    folds = [(("total",), f"Sum<{c}>", "weight * above"), *([(("seen",), f"Sum<{c}>", "weight")] if for_sink else [])]
    k.fold(folds)
    slope = f" * {k.number('scale', p.scale)}"
    if p.softcap:
        capped = f"{function('tanh', c)}(score / {k.number('cap', p.softcap)})"
        slope += f" * (1 - {capped} * {capped})"
    if for_sink:
        k.put({"du": "(seen - 1) * total"})
    k.map({"ds": f"weight * (above - total){slope}", **({"dm": "weight * (above - total)"} if for_mask else {})})
    k.launch()

    queries, keys = heads(site, p.q, p), view(batched(site, p.k))
    slopes = matrices(ds, p)
    if site.wanted(0):
        multiply(site, slopes, keys, written(site, 0, p))
    if site.wanted(1):
        multiply(site, turned(slopes), queries, written(site, 1, p))
    if site.wanted(2):
        multiply(site, turned(matrices(rounded, p)), above, written(site, 2, p))
    if for_mask is not None:
        _summed(site, for_mask, site.write(3, order="plain"), c)
    if for_sink is not None:
        _summed(site, for_sink, site.write(last, order="plain"), c, axes=(1,))


def _summed(site: Site, source: Ref, target: Ref, ctype: str, axes: Sequence[int] | None = None) -> None:
    """Launch the sum over the axes that a target lacks: those of size 1, or all but `axes`."""
    shape = source.operand.shape
    o = target.operand
    if axes is None:
        full = Operand(o.dtype, (1,) * (len(shape) - o.ndim) + o.shape, (0,) * (len(shape) - o.ndim) + o.strides)
        strides = tuple(0 if n == 1 else s for n, s in zip(full.shape, full.strides, strict=True))
        reduced = [n == 1 for n in full.shape]
    else:
        strides = tuple(o.strides[axes.index(i)] if i in axes else 0 for i in range(len(shape)))
        reduced = [i not in axes for i in range(len(shape))]
    if not any(reduced):
        copy(site, view(source), source.operand.dtype, View(target, shape, strides), stored=o.dtype)
        return
    k = RowKernel(
        site, "attention_sums", shape, reduced, [whole("x", source)], [Along("y", target, strides)], ctype=ctype
    )
    k.fold([(("sum",), f"Sum<{ctype}>", "x")])
    k.put({"y": "sum"})
    k.launch()
