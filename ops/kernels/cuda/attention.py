"""Attention: cuDNN's, which keeps no scores, for float16 and bfloat16; else two products with a softmax between them.

Masks, lengths and windows become one tensor that is added to the scores, but for windows that cuDNN knows itself, which
constant masks may be. There it holds a number so low that its weight is 0 in place of -inf, and queries that see no key
are set to 0 behind it. The layers of a network that are given the same share it, and the gradient finds the stats.

Axes: B batch, H query heads, K key heads, L queries, S keys, E, V sizes of a head.
"""

from __future__ import annotations

from collections.abc import Hashable
from math import prod
from typing import Any

import numpy as np

from ...types import TensorType
from .attention_given import LOW, Given, bias, given
from .attention_scores import bytes_kept, kept_backward, kept_forward, kept_weights, slopes_wanted
from .cudnn_graphs import AttentionBackward, AttentionForward
from .indexing import View
from .kernel import Ref
from .lowering import Site, lowers
from .operand import Operand, row_major
from .row_kernel import RowKernel
from .rows import Along
from .signature import Signature, is_wide

HIGH = 1e30
"""The logarithm of a sum of exponentials that makes every weight 0."""

LIMIT_BYTES = 4 << 30
"""Where scores and what is made of them take more they are not kept; the array kernel makes them tile by tile."""


# without scores: cuDNN ------------------------------------------------------------------------------------------------


def flash(site: Site, p: Given) -> bool:
    """Whether cuDNN's attention computes it."""
    types = [site.types[i] for i in (p.q, p.k, p.v) if i is not None]
    fit = all(t.dtype.name in LOW and int(t.shape[3]) % 8 == 0 and int(t.shape[3]) <= 128 for t in types)
    return fit and not p.softcap and p.sink is None and p.shape[2:] != (1, 1)


def native(p: Given) -> bool | None:
    """Return whether cuDNN's window stands at the last key (True) or at the first; None where it has none like it."""
    n, keys = p.shape[2:]
    if any(i is not None for i in p.hiding):
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


def _tops(site: Site, p: Given, added: View) -> View:
    """Return the largest number added to the scores of each query, as (B, H, L) broadcast."""
    shape = added.shape

    def made() -> Ref:
        most = site.temporary(np.dtype(np.float32), shape[:3])
        tops = Along("top", most, (*row_major(shape[:3]), 0))
        reads = [Along("m", added.ref, added.strides)]
        k = RowKernel(site, "attention_seen", shape, (False,) * 3 + (True,), reads, [tops])
        k.fold([(("most",), "Top<float>", "m")])
        k.put({"top": "most"})
        k.launch()
        return most

    most = site.shared(("attention_seen", added.ref.operand.dtype.name, p.told), p.hiding, made)
    strides = tuple(0 if n == 1 else s for n, s in zip(shape[:3], row_major(shape[:3]), strict=True))
    return View(most, p.shape[:3], strides)


def _cleared(site: Site, p: Given, added: View | None, y: Ref | None, stats: Ref | None) -> None:
    """Launch what sets results to 0, and stats so high that weights are 0, of queries that see no key."""
    if added is None or p.seeing:
        return
    tops = _tops(site, p, added)
    s = Signature(is_wide(tops.ref.operand, *(r.operand for r in (y, stats) if r is not None)))
    s.reads("tops", tops.ref)
    axes = ("b", "h", "l")
    low = sum(LOW[added.ref.operand.dtype.name]) / 2
    lines = [
        s.unravel("t", list(zip(axes, p.shape[:3], strict=True))),
        f"if (tops[{s.offset('top', list(zip(axes, tops.strides, strict=True)))}] > (float)({low!r})) return;",
    ]
    if y is not None:
        s.writes("y", y)
        place = s.offset("y", list(zip(axes, y.operand.strides[:3], strict=True)))
        s.integer("values", y.operand.shape[3])
        lines.append(f"for (i32 i = 0; i < values; ++i) narrow(0.0f, &y[{place} + i]);")
    if stats is not None:
        s.writes("stats", stats)
        lines.append(f"stats[t] = (float)({HIGH!r});")
    s.launch(site, "attention_clear", "\n".join(lines), prod(p.shape[:3]))


def _stats(site: Site, p: Given) -> Ref:
    return site.temporary(np.dtype(np.float32), (*p.shape[:3], 1))


def _of_stats(p: Given) -> tuple[Hashable, tuple[int | None, ...]]:
    """Return the key under which the stats of attention are shared, and the inputs that they are made of."""
    return ("attention_stats", p.scale, p.told), (p.q, p.k, p.v, *p.hiding)


def _flash(site: Site, p: Given) -> None:
    assert p.v is not None
    q, k, v = (lying(site, i) for i in (p.q, p.k, p.v))
    how, added = _window(site, p)
    y = site.write(0, order="permuted")
    stats = _stats(site, p) if "attention_grad" in site.readers(0) else None
    made = AttentionForward(still(q), still(k), still(v), still(y), scale=p.scale, with_stats=stats is not None, **how)
    given = [q, k, v, *([added.ref] if added else [])]
    results = [y, *([stats] if stats else [])]
    site.call(made, [*given, *results], writes=tuple(range(len(given), len(given) + len(results))))
    _cleared(site, p, added, y, stats)
    if stats:
        site.shared(*_of_stats(p), lambda: stats)


def _flash_grad(site: Site, p: Given, g: int, y: int) -> None:
    """Call for the gradients, and before for the stats where the forward pass has not left them."""
    assert p.v is not None
    q, k, v, above, result = (lying(site, i) for i in (p.q, p.k, p.v, g, y))
    how, added = _window(site, p)
    more = [added.ref] if added else []

    def again() -> Ref:
        made, stats = site.temporary(q.operand.dtype, result.operand.shape), _stats(site, p)
        forward = AttentionForward(still(q), still(k), still(v), still(made), scale=p.scale, with_stats=True, **how)
        site.call(forward, [q, k, v, *more, made, stats], writes=(3 + len(more), 4 + len(more)))
        _cleared(site, p, added, None, stats)
        return stats

    stats = site.shared(*_of_stats(p), again)
    outputs = [
        site.write(i, order="permuted") if site.wanted(i) else site.temporary(t.dtype, tuple(map(int, t.shape)))
        for i, t in enumerate(site.results[:3])
    ]
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
    if flash(site, p) and site.attempt(lambda: _flash(site, p)):
        return True
    if bytes_kept(site, p, gradient=False) > LIMIT_BYTES:
        return False
    kept_forward(site, p)
    return True


@lowers("attention_weights")
def _attention_weights(site: Site) -> bool:
    p = given(site, 0, values=False)
    if p is None:
        return False
    kept_weights(site, p)
    return True


@lowers("attention_grad")
def _attention_grad(site: Site) -> bool:
    p = given(site, 2)
    if p is None or any(site.types[i].dtype != site.types[2].dtype for i in (0, 1)):
        return False
    if flash(site, p) and not slopes_wanted(site, p) and site.attempt(lambda: _flash_grad(site, p, 0, 1)):
        return True
    if bytes_kept(site, p, gradient=True) > LIMIT_BYTES:
        return False
    kept_backward(site, p, 0)
    return True
