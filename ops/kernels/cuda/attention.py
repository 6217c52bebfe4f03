"""Attention: cuDNN's, which keeps no scores, for float16 and bfloat16; else two products with a softmax between them.

Masks, lengths and windows become one tensor that is added to the scores, but for windows that cuDNN knows itself. There
it holds a number so low that its weight is 0 in place of -inf, and queries that see no key are set to 0 behind it.

Axes: B batch, H query heads, K key heads, G query heads that share one, L queries, S keys, E, V sizes of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from ...expr import Const, Var, where
from ...types import DType, TensorType
from .cudnn_graphs import AttentionBackward, AttentionForward
from .elementwise import elementwise
from .fusion import copy
from .indexing import View, view
from .kernel import Ref
from .lowering import Site, lowers
from .matmul import multiply
from .operand import Operand, Sizes, row_major
from .row_kernel import RowKernel, function
from .rows import Along, whole
from .signature import Signature, is_wide

TYPES = ("float32", "float64", "float16", "bfloat16")

LOW = {"float16": (-65504.0, -65472.0), "bfloat16": (-1e38, -9e37)}
"""What is added to scores in place of -inf, and the least that is added otherwise."""

LIMIT_BYTES = 4 << 30
"""Scores that take more are not kept; the array kernel makes them tile by tile."""

_INFINITE = "__int_as_float(0x7f800000)"


@dataclass(frozen=True)
class Given:
    """The inputs of an op of attention by their numbers, None where they are left out, and its attributes."""

    q: int
    k: int
    v: int | None
    mask: int | None
    lengths: int | None
    starts: int | None
    sink: int | None
    scale: float
    softcap: float
    left: int
    right: int
    offset: int
    shape: Sizes
    """(B, H, L, S)."""
    shared: int
    """K."""

    @property
    def windowed(self) -> bool:
        """Whether queries see only keys near them."""
        return self.left >= 0 or self.right >= 0

    @property
    def biased(self) -> bool:
        """Whether something is added to the scores, or hides keys."""
        return self.windowed or any(i is not None for i in (self.mask, self.lengths, self.starts))


def given(site: Site, first: int, *, values: bool = True) -> Given | None:
    """Return what an op of attention is given, its queries being argument `first`; None where it has no kernel."""
    numbers = [i if i < len(site.types) and site.types[i] is not None else None for i in range(first, first + 7)]
    names = ("q", "k", "v", "mask", "lengths", "starts", "sink")
    if not values:
        numbers = [*numbers[:2], None, *numbers[2:6]]
    by_name = dict(zip(names, numbers, strict=True))

    def of(name: str) -> Any:
        i = by_name[name]
        return None if i is None else site.types[i]

    q, k = of("q"), of("k")
    floats = [t for t in (q, k, of("v")) if t is not None]
    mask, sink = of("mask"), of("sink")
    if any(t.dtype != q.dtype or 0 in t.shape for t in floats) or q.dtype.name not in TYPES:
        return None
    if mask is not None and (mask.dtype.name not in (*TYPES, "bool") or mask.ndim > 4 or 0 in mask.shape):
        return None
    if sink is not None and sink.dtype.name not in TYPES:
        return None
    if any(t is not None and t.dtype.name not in ("int32", "int64") for t in (of("lengths"), of("starts"))):
        return None
    b, h, n, _ = map(int, q.shape)
    a = site.attrs
    return Given(
        **by_name,  # type: ignore[arg-type]
        scale=float(a["scale"]),
        softcap=float(a.get("softcap", 0.0)),
        left=int(a.get("left", -1)),
        right=int(a.get("right", -1)),
        offset=int(a.get("offset", 0)),
        shape=(b, h, n, int(k.shape[2])),
        shared=int(k.shape[1]),
    )


# what is added to the scores ------------------------------------------------------------------------------------------


def bias(site: Site, p: Given, dtype: DType) -> View:
    """Return what masks, lengths and windows add to the scores, (1 or B, 1 or H, L, S) and in full along L and S.

    Args:
        site: where.
        p: what is given.
        dtype: of its elements; float16 and bfloat16 have a low number for -inf.
    """
    b, h, n, keys = p.shape
    mask = None if p.mask is None else site.read(p.mask)
    steps = (0, 0, 0, 0) if mask is None else mask.operand.broadcast_to(p.shape).strides
    batched = bool(steps[0]) or p.lengths is not None or p.starts is not None
    shape = (b if batched else 1, h if steps[1] else 1, n, keys)
    made = site.temporary(dtype, shape)
    s = Signature(is_wide(made.operand, *([mask.operand] if mask else [])))
    s.writes("bias", made)
    if mask is not None:
        s.reads("mask", mask)
    places = s.unravel("t", list(zip(("b", "h", "l", "s"), shape, strict=True)))
    lines, seen = [places, "const i64 key = s;"], []
    real = "double" if dtype == np.float64 else "float"
    infinite = f"-({real}){_INFINITE}"
    low, least = (f"({real})({x!r})" for x in LOW[dtype.name]) if dtype.name in LOW else (infinite, infinite)
    value = f"({real})0"
    for i, name in ((p.lengths, "lengths"), (p.starts, "starts")):
        if i is not None:
            s.reads(name, site.read(i, order="plain"))
    if p.lengths is not None:
        seen.append("key < (i64)lengths[b]")
    if p.windowed:
        if p.starts is None:
            s.integer("offset", p.offset)
        lines.append(f"const i64 place = (i64)l + {'offset' if p.starts is None else '(i64)starts[b]'};")
        for name, test in (("left", "key >= place - left"), ("right", "key <= place + right")):
            if (bound := getattr(p, name)) >= 0:
                s.integer(name, min(bound, 2**31 - 1))
                seen.append(test)
    if mask is not None:
        at = s.offset("mask", list(zip(("b", "h", "l", "s"), steps, strict=True)))
        if mask.operand.dtype == bool:
            seen.append(f"widen(mask[{at}])")
        else:
            lines.append(f"const {real} added = ({real})widen(mask[{at}]);")
            value = f"(added == {infinite} ? {low} : added < {least} ? {least} : added)"
    lines.append(f"const {real} value = {' && '.join(seen) or 'true'} ? {value} : {low};")
    lines.append("narrow(value, &bias[t]);")
    s.launch(site, "attention_bias", "\n".join(lines), prod(shape))
    return View(made, shape, row_major(shape))


def along(p: Given, v: View) -> Sizes:
    """Return the strides of a bias along (B, H, L, S)."""
    return tuple(0 if n == 1 else s for n, s in zip(v.shape, v.strides, strict=True))


# scores kept ----------------------------------------------------------------------------------------------------------


def heads(site: Site, i: int, p: Given) -> View:
    """Return an input (B, H, L, E) as (B, K, G L, E)."""
    ref = site.read(i)
    o = ref.operand
    b, h, n, e = o.shape
    group = h // p.shared
    if group > 1 and n > 1 and o.strides[1] != n * o.strides[2]:
        ref = site.read(i, order="plain")
        o = ref.operand
    sb, sh, sn, se = o.strides
    return View(ref, (b, p.shared, group * n, e), (sb, group * sh, sn if n > 1 else sh, se))


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
    keys = view(site.read(p.k))
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
    k.state("top", f"{top} == -({c}){_INFINITE} ? ({c})0 : {top}")
    if k.held:
        k.fold([(("sum",), f"Sum<{c}>", "x")], update=("x", f"{exp}(x - top)"))
    else:
        k.state("sum", f"most == -({c}){_INFINITE} ? ({c})0 : online * {exp}(most - top)")
    k.state("whole", f"sum + {exp}(sink - top)" if p.sink is not None else "sum")
    k.state("by", f"({c})1 / (whole == 0 ? ({c})1 : whole)")
    weight = "x * by" if k.held else f"{exp}({term} - top) * by"
    k.map({w.name: weight for w in writes})
    k.launch()


def _wide(dtype: DType) -> DType:
    return np.dtype(np.float64 if dtype == np.float64 else np.float32)


def _kept(p: Given, wide: DType) -> bool:
    """Whether there is room for the scores."""
    return prod(p.shape) * wide.itemsize <= LIMIT_BYTES


def _forward(site: Site, p: Given) -> None:
    assert p.v is not None
    dtype = site.results[0].dtype
    wide = _wide(dtype)
    s = scores(site, p, wide)
    weights = site.temporary(dtype, p.shape)
    softmax(site, p, s, [weights])
    multiply(site, matrices(weights, p), view(site.read(p.v)), matrices(site.write(0, order="plain"), p))


def _backward(site: Site, p: Given, g: int) -> None:
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
    multiply(site, above, turned(view(site.read(p.v))), matrices(products, p))

    c = "double" if wide == np.float64 else "float"
    by_mask = p.mask is not None and site.types[p.mask].dtype != bool
    writes = [whole("ds", ds)]
    for_mask = site.temporary(wide, p.shape) if by_mask else None
    for_sink = site.temporary(wide, p.shape[:3]) if p.sink is not None else None
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

    queries, keys = heads(site, p.q, p), view(site.read(p.k))
    slopes = matrices(ds, p)
    dq, dk, dv = (site.write(i, order="plain") for i in range(3))
    multiply(site, slopes, keys, matrices(dq, p))
    multiply(site, turned(slopes), queries, view(dk))
    multiply(site, turned(matrices(rounded, p)), above, view(dv))
    if for_mask is not None:
        _summed(site, for_mask, site.write(3, order="plain"), c)
    if for_sink is not None:
        _summed(site, for_sink, site.write(len(site.results) - 1, order="plain"), c, axes=(1,))


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


# without scores: cuDNN ------------------------------------------------------------------------------------------------


def flash(site: Site, p: Given) -> bool:
    """Whether cuDNN's attention computes it."""
    types = [site.types[i] for i in (p.q, p.k, p.v) if i is not None]
    fit = all(t.dtype.name in LOW and int(t.shape[3]) % 8 == 0 and int(t.shape[3]) <= 128 for t in types)
    return fit and not p.softcap and p.sink is None and p.shape[2:] != (1, 1)


def native(p: Given) -> bool | None:
    """Return whether cuDNN's window stands at the last key (True) or at the first; None where it has none like it."""
    n, keys = p.shape[2:]
    if any(i is not None for i in (p.mask, p.lengths, p.starts)):
        return None
    if not p.windowed:
        return False
    # From these places on, every query sees a key: the one where it stands.
    return p.offset != 0 if n <= keys and p.offset in (0, keys - n) else None


def lying(site: Site, i: int) -> Ref:
    """Return an input whose rows cuDNN reads 16 bytes at a time."""
    ref = site.read(i)
    o = ref.operand
    steps = [s for s, n in zip(o.strides[:3], o.shape[:3], strict=True) if n != 1]
    if (o.strides[3] == 1 or o.shape[3] == 1) and all(s > 0 and s % 8 == 0 for s in steps) and o.offset % 8 == 0:
        return ref
    return site.read(i, order="plain")


def still(ref: Ref) -> Operand:
    """Return how a tensor lies behind its own address."""
    o = ref.operand
    steps = row_major(o.shape)
    return Operand(
        o.dtype, o.shape, tuple(t if n == 1 else s for n, s, t in zip(o.shape, o.strides, steps, strict=True))
    )


def _window(site: Site, p: Given) -> tuple[dict[str, Any], View | None]:
    """Return how the description says which keys are seen, and what is added to the scores."""
    bottom = native(p)
    if bottom is not None:
        return {"left": p.left, "right": p.right, "bottom": bottom, "bias": None}, None
    added = bias(site, p, site.types[p.q].dtype)
    return {"bias": Operand(added.ref.operand.dtype, added.shape, added.strides)}, added


def _blind(site: Site, p: Given, added: View) -> View:
    """Return the largest number added to the scores of each query, as (B, H, L, V) broadcast."""
    shape = added.shape
    most = site.temporary(np.dtype(np.float32), shape[:3])
    tops = Along("top", most, (*row_major(shape[:3]), 0))
    k = RowKernel(site, "attention_seen", shape, (False,) * 3 + (True,), [Along("m", added.ref, added.strides)], [tops])
    k.fold([(("most",), "Top<float>", "m")])
    k.put({"top": "most"})
    k.launch()
    return View(most, p.shape, tuple(0 if n == 1 else s for n, s in zip((*shape[:3], 1), tops.strides, strict=True)))


def _cleared(site: Site, source: Ref, target: Ref, tops: View) -> None:
    """Launch a copy that is 0 where a query sees no key; the target may be the source."""
    dtype = source.operand.dtype
    shape = source.operand.shape
    seen = Const(sum(LOW[dtype.name]) / 2) < Var("top")
    made = elementwise(
        "attention_clear",
        where(seen, Var("x"), 0.0),
        {"x": view(source), "top": View(tops.ref, shape, tops.strides)},
        view(target),
        types={"x": dtype, "top": np.dtype(np.float32)},
        stored=dtype,
    )
    site.launch(made.kernel, made.grid, made.block, made.arguments, writes=made.writes)


def _flash(site: Site, p: Given) -> None:
    assert p.v is not None
    q, k, v = (lying(site, i) for i in (p.q, p.k, p.v))
    how, added = _window(site, p)
    y = site.write(0, order="plain")
    made = AttentionForward(still(q), still(k), still(v), still(y), scale=p.scale, **how)
    refs = [q, k, v, *([added.ref] if added else []), y]
    site.call(made, refs, writes=(len(refs) - 1,))
    if added is not None:
        _cleared(site, y, y, _blind(site, p, added))


def _flash_grad(site: Site, p: Given, g: int, y: int) -> None:
    """Call for attention again, for its stats, and for its gradients."""
    assert p.v is not None
    q, k, v, above, result = (lying(site, i) for i in (p.q, p.k, p.v, g, y))
    how, added = _window(site, p)
    again = site.temporary(q.operand.dtype, result.operand.shape)
    stats = site.temporary(np.dtype(np.float32), (*p.shape[:3], 1))
    forward = AttentionForward(still(q), still(k), still(v), still(again), scale=p.scale, with_stats=True, **how)
    more = [added.ref] if added else []
    site.call(forward, [q, k, v, *more, again, stats], writes=(3 + len(more), 4 + len(more)))
    if added is not None:
        cleared = site.temporary(above.operand.dtype, above.operand.shape)
        _cleared(site, above, cleared, _blind(site, p, added))
        above = cleared
    outputs = [site.write(i, order="plain") for i in range(3)]
    dq, dk, dv = map(still, outputs)
    backward = AttentionBackward(
        still(q), still(k), still(v), still(result), scale=p.scale, g=still(above), dq=dq, dk=dk, dv=dv, **how
    )
    refs = [q, k, v, result, above, stats, *more, *outputs]
    site.call(backward, refs, writes=tuple(range(len(refs) - 3, len(refs))))


# rules ----------------------------------------------------------------------------------------------------------------


@lowers("attention")
def _attention(site: Site) -> bool:
    p = given(site, 0)
    if p is None or not isinstance(site.types[0], TensorType):
        return False
    if flash(site, p):
        _flash(site, p)
        return True
    if not _kept(p, _wide(site.types[0].dtype)):
        return False
    _forward(site, p)
    return True


@lowers("attention_weights")
def _attention_weights(site: Site) -> bool:
    p = given(site, 0, values=False)
    if p is None:
        return False
    softmax(site, p, scores(site, p, _wide(site.types[0].dtype)), [site.write(0, order="plain")])
    return True


@lowers("attention_grad")
def _attention_grad(site: Site) -> bool:
    p = given(site, 2)
    if p is None or any(site.types[i].dtype != site.types[2].dtype for i in (0, 1)):
        return False
    if flash(site, p) and (p.mask is None or site.types[p.mask].dtype == bool):
        _flash_grad(site, p, 0, 1)
        return True
    if 2 * prod(p.shape) * 8 > LIMIT_BYTES:
        return False
    _backward(site, p, 0)
    return True
