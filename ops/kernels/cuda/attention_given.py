"""What ops of attention are given, and what masks, lengths and windows add to the scores.

Axes: B batch, H query heads, K key heads, L queries, S keys.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np

from ...types import DType
from .band import band
from .indexing import View
from .lowering import Site
from .operand import Sizes, row_major
from .signature import Signature, is_wide

TYPES = ("float32", "float64", "float16", "bfloat16")

LOW = {"float16": (-65504.0, -65472.0), "bfloat16": (-1e38, -9e37)}
"""What is added to scores in place of -inf, and the least that is added otherwise."""

INFINITE = "__int_as_float(0x7f800000)"


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
        return self.windowed or any(i is not None for i in self.hiding)

    @property
    def hiding(self) -> tuple[int | None, int | None, int | None]:
        """The inputs that say which keys are hidden: mask, lengths and starts."""
        return self.mask, self.lengths, self.starts

    @property
    def told(self) -> Hashable:
        """What says beside inputs which keys are hidden."""
        return self.shape, self.left, self.right, self.offset

    @property
    def seeing(self) -> bool:
        """Whether every query surely sees a key."""
        if any(i is not None for i in self.hiding):
            return False
        n, keys = self.shape[2:]
        return (self.left < 0 or self.offset + n - 1 - self.left < keys) and (
            self.right < 0 or self.offset + self.right >= 0
        )


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
    found = Given(
        **by_name,  # type: ignore[arg-type]
        scale=float(a["scale"]),
        softcap=float(a.get("softcap", 0.0)),
        left=int(a.get("left", -1)),
        right=int(a.get("right", -1)),
        offset=int(a.get("offset", 0)),
        shape=(b, h, n, int(k.shape[2])),
        shared=int(k.shape[1]),
    )
    array = None if found.mask is None else site.known(found.mask)
    if array is None or any(i is not None for i in (found.lengths, found.starts)) or found.windowed:
        return found
    if site.op == "attention_grad" and array.dtype != bool and site.wanted(3):
        return found
    window = site.shared(("attention_band", found.shape[2:]), (found.mask,), lambda: band(array, *found.shape[2:]))
    if window is None:
        return found
    return replace(found, mask=None, left=window.left, right=window.right, offset=window.offset)


def bias(site: Site, p: Given, dtype: DType) -> View:
    """Return what masks, lengths and windows add to the scores, (1 or B, 1 or H, L, S) and in full along L and S.

    Args:
        site: where.
        p: what is given.
        dtype: of its elements; float16 and bfloat16 have a low number for -inf.
    """
    return site.shared(("attention_bias", dtype.name, p.told), p.hiding, lambda: _bias(site, p, dtype))


def _bias(site: Site, p: Given, dtype: DType) -> View:
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
    infinite = f"-({real}){INFINITE}"
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
