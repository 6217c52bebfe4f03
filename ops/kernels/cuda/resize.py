"""Resizing and its adjoint: each element is a few weighted reads along every resized axis, from tables of the plan.

The tables are the array kernel's, so that coordinates are rounded alike. Channels last, vectors lie along the channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from ...dims import Shape
from ...resize import Factors, fitted
from ...types import Array, TensorType, is_float
from ..array.resize import axis_keys, reads, turned
from .kernel import Ref
from .lowering import Order, Site, every, lowers
from .operand import Operand, channels_last_strides, packed
from .pool import each, read_either, vector
from .prelude import C_TYPES, c_type, computed
from .signature import DTYPES, Signature, indented, is_wide, lanes, store

_TOGETHER = 64
"""Up to this many reads an element all axes are resized at once."""

_UNROLLED = 8
"""Up to this many reads along an axis are written out."""


@dataclass(frozen=True)
class _Map:
    """The linear map along one axis: (taps, out) indices and weights."""

    axis: int
    indices: Array
    weights: Array

    @property
    def taps(self) -> int:
        return len(self.indices)

    @property
    def out(self) -> int:
        return int(self.indices.shape[1])

    @property
    def moves(self) -> bool:
        """Whether each element is one of the input."""
        return self.taps == 1 and bool((self.weights == 1).all())


@lowers("resize", "resize_grad", fuses=every)
def _resize(site: Site) -> bool:
    x = site.types[0]
    if not isinstance(x, TensorType) or x.dtype.name not in C_TYPES or x.ndim < 1:
        return False
    if any(t is not None for t in site.types[1:]) or site.attrs["how"].coordinates == "tf_crop_and_resize":
        return False
    if any(int(n) == 0 for n in (*x.shape, *site.results[0].shape)):
        return False
    maps = _maps(site, x)
    if any(not m.moves for m in maps) and not is_float(x.dtype):
        return False
    # Vectors lie along the channels where these are not resized.
    kept = 1 not in [m.axis for m in maps]
    source = read_either(site, 0) if kept else site.read(0, order="plain")
    last = source.operand.channels_last and not source.operand.contiguous
    order: Order = "channels_last" if last else "plain"
    target = site.write(order=order)
    passes = [maps] if prod(m.taps for m in maps) <= _TOGETHER else [[m] for m in maps]
    operand = source.operand
    for i, part in enumerate(passes):
        if i == len(passes) - 1:
            _pass(site, source, operand, target, target.operand, part, final=True)
            continue
        made, lies = _between(site, operand, part, last)
        _pass(site, source, operand, made, lies, part, final=False)
        source, operand = made, lies
    return True


def _sizes(site: Site, x: TensorType) -> tuple[Shape, Shape, Factors]:
    """Return the sizes of the resized axes, before and after as `resize` sees them, and the factors."""
    a, y = site.attrs, site.results[0]
    factors: Factors = a.get("factors", ())
    forward = site.op == "resize"
    old, new = (tuple(t.shape[k] for k in a["axes"]) for t in ((x, y) if forward else (y, x)))
    if a.get("fit"):
        wanted = a["size"] if forward else a["wanted"]
        factors = (fitted(a["fit"], old, wanted)[1],) * len(a["axes"])
    return old, new, factors


def _maps(site: Site, x: TensorType) -> list[_Map]:
    """Return the map along each axis that changes; axes that shrink go first, then inner ones."""
    a = site.attrs
    old, new, factors = _sizes(site, x)
    found = []
    for axis, key in axis_keys(None, None, a["axes"], a["how"], old, new, factors):
        indices, weights = reads(*key)[:2] if site.op == "resize" else turned(*key)
        found.append(_Map(axis, indices, weights))
    shape = x.shape
    return sorted(found, key=lambda m: (m.out / int(shape[m.axis]), -m.axis))


def _between(site: Site, x: Operand, maps: list[_Map], last: bool) -> tuple[Ref, Operand]:
    """Return memory for x with some axes resized, of the type that is calculated with, and how it lies."""
    shape = list(x.shape)
    for m in maps:
        shape[m.axis] = m.out
    dtype = DTYPES[computed(x.dtype)]
    ref = site.temporary(dtype, shape)
    strides = channels_last_strides(shape) if last else packed(dtype, shape).strides
    return ref, Operand(dtype, tuple(shape), strides)


def _pass(site: Site, source: Ref, x: Operand, target: Ref, y: Operand, maps: list[_Map], *, final: bool) -> None:
    """Resize some axes with one kernel."""
    number = computed(x.dtype)
    along = 1 if x.channels_last and not x.contiguous else y.ndim - 1
    width = lanes(along, x, y) if along not in [m.axis for m in maps] else 1
    s = Signature(is_wide(x, y))
    s.reads("x", source, c_type(x.dtype))
    s.writes("y", target)
    axes = list(range(y.ndim))
    order = [a for a in axes if a != 1] + [1] if along == 1 and y.ndim > 2 else axes
    walk = s.unravel(
        "t", [(f"v{a}" if a == along else f"c{a}", y.shape[a] // (width if a == along else 1)) for a in order]
    )
    changed = {m.axis: m for m in maps}
    at = s.offset("x_at", [(f"i{a}" if a in changed else f"c{a}", step) for a, step in enumerate(x.strides)])
    weighted = not all(m.moves for m in maps)
    product = " * ".join(f"w{m.axis}" for m in maps if not m.moves)
    load = vector("e", c_type(x.dtype), width, "x", at)
    if weighted:
        body = f"const {number} weight = {product};\n{load}\n" + each(
            width, f"result[lane] += weight * ({number})widen(e.at[lane]);"
        )
    else:
        body = f"{load}\n" + each(width, "result[lane] = widen(e.at[lane]);")
    for m in reversed(maps):
        body = _taps(site, s, m, number, body)
    end = _end(site, s, target, y, number, [f"c{a}" for a in axes], along, width, final=final)
    text = (
        f"{walk}\nconst index c{along} = v{along} * {width};\n{number} result[{width}];\n"
        + each(width, "result[lane] = 0;")
        + f"\n{body}\n{end}"
    )
    s.launch(site, site.op, text, y.size // width)


def _taps(site: Site, s: Signature, m: _Map, number: str, body: str) -> str:
    """Declare the tables of an axis and return its loop over the reads, around text."""
    a = m.axis
    s.reads(f"indices{a}", site.constant(np.ascontiguousarray(m.indices.T, np.int32)))
    lines = [f"const index i{a} = indices{a}[c{a} * T{a} + k{a}];"]
    if not m.moves:
        s.reads(f"weights{a}", site.constant(np.ascontiguousarray(m.weights.T, DTYPES[number])))
        lines.append(f"const {number} w{a} = weights{a}[c{a} * T{a} + k{a}];")
    if m.taps <= _UNROLLED:
        head = f"const int T{a} = {m.taps};\n#pragma unroll\n"
    else:
        s.integer(f"T{a}", m.taps)
        head = ""
    inside = "\n".join([*lines, body])
    return f"{head}for (int k{a} = 0; k{a} < T{a}; ++k{a}) {{\n{indented(inside)}\n}}"


def _end(
    site: Site, s: Signature, target: Ref, y: Operand, number: str, coordinates: list[str], along: int, width: int, *,
    final: bool,
) -> str:  # fmt: skip
    """Return text that stores a vector: of the output, or of what lies between two passes."""
    if final:
        end = store(site, s, target, number, coordinates, along=along, width=width)
        return f"{end.prepare}\n{end.body}"
    at = s.offset("y_at", list(zip(coordinates, y.strides, strict=True)))
    pack = f"pack<{c_type(y.dtype)}, {width}>"
    return f"{pack} out;\n" + each(width, "out.at[lane] = result[lane];") + f"\n*({pack}*)(y + ({at})) = out;"
