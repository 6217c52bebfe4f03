"""Rotary embedding: vectors along the angles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import llvmlite.ir as ir
import numpy as np

from ...dims import product
from ...types import TensorType
from .emitter import I32, Emitter, V
from .kernel import kernel
from .lowering import Ref, Site, lowers
from .operand import Operand


@dataclass(frozen=True)
class Rotary:
    """What the code depends on; `cos` and `sin` are broadcast to the rows of x."""

    x: Operand
    cos: Operand
    sin: Operand
    y: Operand
    interleaved: bool


@lowers("rotary_embedding")
def _rotary_embedding(site: Site) -> bool:
    x, *angles = site.types
    if x.dtype not in (np.float32, np.float64) or x.ndim < 2 or not isinstance(x.shape[-1], int):
        return False
    refs = [_read(site, 0, x)]
    operands = [refs[0].operand]
    for i, t in enumerate(angles, start=1):
        shape = (*x.shape[:-1], t.shape[-1])
        lined = (1,) * (x.ndim - t.ndim) + tuple(t.shape)
        fits = t.ndim <= x.ndim and all(d in (1, n) for d, n in zip(lined, shape, strict=True))
        if not fits or t.dtype != x.dtype or not isinstance(t.shape[-1], int) or t.shape[-1] != angles[0].shape[-1]:
            return False
        refs.append(_read(site, i, t))
        operands.append(refs[-1].operand.broadcast_to(shape))
    out = site.write(0)
    if out.operand.strides[-1] != 1:
        out = site.write(0, order="plain")
    turned, cos, sin = operands
    params = Rotary(turned, cos, sin, out.operand, bool(site.attrs.get("interleaved", False)))
    size = np.dtype(x.dtype).itemsize
    made = kernel(
        "rotary", emit, params, operands=4, chunks=product(x.shape[:-2]), flops=x.size * 3, bytes=x.size * 3 * size
    )
    site.call(made, [*refs, out])
    return True


def _read(site: Site, i: int, t: TensorType) -> Ref:
    ref = site.read(i)
    return ref if ref.operand.strides[-1] == 1 or t.shape[-1] == 1 else site.read(i, order="plain")


def emit(e: Emitter, p: Rotary) -> None:
    """Write the rows that share all but the last of the leading coordinates."""
    outer = e.unravel(e.chunk, p.x.shape[:-2])
    places = [
        e.at(e.pointer(i), e.add(*(e.mul(c, s) for c, s in zip(outer, o.strides, strict=False))), o.dtype)
        for i, o in enumerate((p.x, p.cos, p.sin, p.y))
    ]
    with e.loop(0, p.x.shape[-2]) as row:
        operands = (p.x, p.cos, p.sin, p.y)
        _row(e, p, *(e.at(a, e.mul(row.index, o.strides[-2]), o.dtype) for a, o in zip(places, operands, strict=True)))


def _row(e: Emitter, p: Rotary, x: V, cos: V, sin: V, y: V) -> None:
    dtype, lanes = p.x.dtype, e.target.lanes(p.x.dtype)
    angles, size = int(p.cos.shape[-1]), int(p.x.shape[-1])

    def turn(at: Any, count: int) -> None:
        mask = e.tail_mask(count, lanes) if count < lanes else None
        c, s = (e.load(e.at(a, at, dtype), dtype, lanes, mask=mask) for a in (cos, sin))
        if p.interleaved:
            first = e.mul(at, 2)
            parts = [(first, count * 2), (e.add(first, lanes), count * 2 - lanes)]
            ends = [e.tail_mask(n, lanes) if n < lanes else None for _, n in parts]
            both = [e.load(e.at(x, i, dtype), dtype, lanes, mask=end) for (i, _), end in zip(parts, ends, strict=True)]
            a, b = (_pick(e, both[0], both[1], range(half, 2 * lanes, 2)) for half in (0, 1))
        else:
            a, b = (e.load(e.at(x, e.add(at, i), dtype), dtype, lanes, mask=mask) for i in (0, angles))
        one = e.b.fsub(e.b.fmul(a, c), e.b.fmul(b, s))
        other = e.b.fadd(e.b.fmul(a, s), e.b.fmul(b, c))
        if p.interleaved:
            order = [i // 2 + lanes * (i % 2) for i in range(2 * lanes)]
            for (i, n), end, half in zip(parts, ends, (order[:lanes], order[lanes:]), strict=True):
                if n > 0:
                    e.store(_pick(e, one, other, half), e.at(y, i, dtype), dtype, mask=end)
        else:
            e.store(one, e.at(y, at, dtype), dtype, mask=mask)
            e.store(other, e.at(y, e.add(at, angles), dtype), dtype, mask=mask)

    for start, count in _vectors(angles, lanes):
        turn(start, count)
    for start, count in _vectors(size - 2 * angles, lanes):
        mask = e.tail_mask(count, lanes) if count < lanes else None
        at = start + 2 * angles
        e.store(e.load(e.at(x, at, dtype), dtype, lanes, mask=mask), e.at(y, at, dtype), dtype, mask=mask)


def _vectors(size: int, lanes: int) -> list[tuple[int, int]]:
    """Return how many elements there are from where on, a vector at a time."""
    return [(i, min(lanes, size - i)) for i in range(0, size, lanes)]


def _pick(e: Emitter, a: V, b: V, lanes: Any) -> V:
    return e.b.shuffle_vector(a, b, ir.Constant(ir.VectorType(I32, len(lanes)), list(lanes)))
