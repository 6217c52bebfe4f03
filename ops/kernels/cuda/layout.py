"""Layout ops as copies between strided views, where they cannot be views themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...layout import all_pads
from ...types import TensorType
from .copy import bits, copied, copying, filled, pattern
from .indexing import View, broadcast, is_wide, view
from .kernel import Launch, Ref
from .lowering import Site, lowers
from .operand import Sizes, row_major
from .prelude import c_type
from .signature import VECTOR_BYTES, Signature, indented

__all__ = ["copying"]

_WIDTHS = (1, 2, 4, 8)


def movable(*types: Any) -> bool:
    """Whether these are tensors whose elements are copied as bits."""
    return all(isinstance(t, TensorType) and t.dtype.itemsize in _WIDTHS and t.dtype.kind != "O" for t in types)


def _launch(site: Site, made: Launch) -> None:
    site.launch(made.kernel, made.grid, made.block, made.arguments, writes=made.writes)


def _copy(site: Site, source: View, target: View) -> bool:
    if target.size:
        _launch(site, copied(source, target, site.op))
    return True


def _fill(site: Site, target: View, value: Any = 0) -> None:
    if target.size:
        _launch(site, filled(target, value))


def _shape(t: TensorType) -> Sizes:
    return tuple(int(n) for n in t.shape)


@lowers("identity", "transpose", "expand", "broadcast_to")
def _materialise(site: Site) -> bool:
    if not movable(site.types[0], *site.results):
        return False
    shape = _shape(site.results[0])
    source, target = site.read(0), site.write(0)
    rank = source.operand.ndim
    if site.op == "transpose":
        perm = [p % rank for p in site.attrs.get("perm") or reversed(range(rank))]
        turned = source.operand.transposed(perm)
        return _copy(site, View(source, turned.shape, turned.strides), view(target))
    return _copy(site, broadcast(source, shape), view(target))


@lowers("reshape", "flatten", "squeeze", "unsqueeze", "bitcast")
def _reshape(site: Site) -> bool:
    if not movable(site.types[0], *site.results) or site.types[0].dtype.itemsize != site.results[0].dtype.itemsize:
        return False
    source, target = site.read(0, order="plain"), site.write(0, order="plain")
    made = copied(view(source), View(target, source.operand.shape, source.operand.strides), site.op, as_bits=True)
    if target.operand.size:
        _launch(site, made)
    return True


@lowers("concat")
def _concat(site: Site) -> bool:
    if not movable(*site.types, *site.results):
        return False
    axis, target, at = site.attrs["axis"] % site.results[0].ndim, site.write(0), 0
    for i, t in enumerate(site.types):
        size = int(t.shape[axis])
        _copy(site, view(site.read(i)), view(target).part(axis, at, size))
        at += size
    return True


@lowers("split")
def _split(site: Site) -> bool:
    if not movable(site.types[0], *site.results):
        return False
    axis, source, at = site.attrs["axis"] % site.types[0].ndim, site.read(0), 0
    for i, size in enumerate(site.attrs["sizes"]):
        if site.wanted(i):
            _copy(site, view(source).part(axis, at, int(size)), view(site.write(i)))
        at += int(size)
    return True


@lowers("tile")
def _tile(site: Site) -> bool:
    if not movable(site.types[0], *site.results):
        return False
    source, target = site.read(0), site.write(0)
    shape: list[int] = []
    of: list[int] = []
    to: list[int] = []
    operands = source.operand, target.operand
    for times, n, s, t in zip(site.attrs["repeats"], operands[0].shape, *(o.strides for o in operands), strict=True):
        shape += [int(times), n]
        of += [0, s]
        to += [t * n, t]
    return _copy(site, View(source, tuple(shape), tuple(of)), View(target, tuple(shape), tuple(to)))


@lowers("flip")
def _flip(site: Site) -> bool:
    if not movable(*site.types, *site.results):
        return False
    turned = view(site.read(0))
    for axis in sorted({a % len(turned.shape) for a in site.attrs["axes"]}):
        n = turned.shape[axis]
        turned = turned.part(axis, n - 1, n, -1)
    return _copy(site, turned, view(site.write(0)))


def _sliced(whole: View, part: Sizes, attrs: dict[str, Any]) -> View:
    """Return the places of a tensor that a slice, whose result has this shape, takes."""
    for start, step, axis in zip(attrs["starts"], attrs["steps"], attrs["axes"], strict=True):
        axis %= len(part)
        first = slice(start, None, step).indices(whole.shape[axis])[0]
        whole = whole.part(axis, first, part[axis], step)
    return whole


@lowers("slice")
def _slice(site: Site) -> bool:
    if not movable(site.types[0], *site.results):
        return False
    found = _sliced(view(site.read(0)), _shape(site.results[0]), site.attrs)
    return _copy(site, found, view(site.write(0)))


@lowers("unslice")
def _unslice(site: Site) -> bool:
    """Lay a tensor into zeros; where it takes neighbouring places, in one pass."""
    if not movable(site.types[0], *site.results):
        return False
    part, whole = _shape(site.types[0]), _shape(site.results[0])
    source, target = view(site.read(0)), view(site.write(0))
    if all(step == 1 for step in site.attrs["steps"]):
        low = [0] * len(whole)
        for start, axis in zip(site.attrs["starts"], site.attrs["axes"], strict=True):
            low[axis] = slice(start, None).indices(whole[axis])[0]
        pads = [(lo, n - k - lo) for lo, n, k in zip(low, whole, part, strict=True)]
        return _padded(site, source, target, pads, "constant", 0)
    _fill(site, target)
    return _copy(site, source, _sliced(target, part, site.attrs))


@lowers("shift")
def _shift(site: Site) -> bool:
    if not movable(*site.types, *site.results):
        return False
    x = _shape(site.types[0])
    axis = site.attrs["axis"] % len(x)
    by = max(-x[axis], min(x[axis], int(site.attrs["by"])))
    pads = [(by, -by) if i == axis else (0, 0) for i in range(len(x))]
    return _padded(site, view(site.read(0)), view(site.write(0)), pads, "constant", 0)


@lowers("pad")
def _pad(site: Site) -> bool:
    x, mode = site.types[0], site.attrs.get("mode", "constant")
    if not movable(x, *site.results):
        return False
    pads = [(int(lo), int(hi)) for lo, hi in all_pads(site.attrs["pads"], site.attrs.get("axes"), x.ndim)]
    kept = [n + min(lo, 0) + min(hi, 0) for n, (lo, hi) in zip(_shape(x), pads, strict=True)]
    if any(n < 0 or (mode != "constant" and n == 0 and max(pair) > 0) for n, pair in zip(kept, pads, strict=True)):
        return False
    value: Any = 0
    if len(site.types) > 1 and site.types[1] is not None and mode == "constant":
        value = site.known(1) if isinstance(site.types[1], TensorType) else site.types[1]
        if value is None:
            if site.types[1].dtype != x.dtype:
                return False
            value = site.read(1)
    return _padded(site, view(site.read(0)), view(site.write(0)), pads, mode, value)


@lowers("full_like", "fill")
def _full(site: Site) -> bool:
    if not movable(*site.results):
        return False
    _fill(site, view(site.write(0)), site.attrs["value"])
    return True


@lowers("range")
def _range(site: Site) -> bool:
    """Write a range of integers."""
    dtype = site.results[0].dtype
    start, step = site.known(0), site.known(2)
    if start is None or step is None or dtype.kind not in "iu":
        return False
    target = site.write(0, order="plain")
    if target.operand.size:
        s = Signature(wide=True)
        s.writes("y", target)
        s.size("start", int(np.asarray(start).reshape(-1)[0]))
        s.size("step", int(np.asarray(step).reshape(-1)[0]))
        s.launch(site, "range", f"y[t] = ({c_type(dtype)})(start + t * step);", target.operand.size)
    return True


@lowers("trilu")
def _trilu(site: Site) -> bool:
    """Write one side of the diagonal of each matrix and zeros on the other."""
    diagonal = site.attrs.get("k", 0)
    if not movable(*site.types, *site.results) or site.types[0].ndim < 2 or not isinstance(diagonal, int | np.integer):
        return False
    source, target = site.read(0, order="plain"), site.write(0, order="plain")
    if target.operand.size == 0:
        return True
    shape, element = target.operand.shape, bits(target.operand.dtype)
    size, width = target.operand.size, VECTOR_BYTES // element.itemsize
    while width > 1 and (size % width or not (view(source).aligned(width) and view(target).aligned(width))):
        width //= 2
    stored = c_type(element)
    s = Signature(wide=is_wide([view(source), view(target)], size))
    s.reads("x", source, stored)
    s.writes("y", target, stored)
    s.size("k", max(-size, min(size, int(diagonal))))
    matrices = size // (shape[-1] * shape[-2])
    places = s.unravel("i", [("matrix", matrices), ("row", shape[-2]), ("column", shape[-1])])
    kept = "column - row >= k" if site.attrs["upper"] else "column - row <= k"
    each = f"const index i = b + e;\n{places}\nif (!({kept})) out.at[e] = 0;"
    pack = f"pack<{stored}, {width}>"
    body = (
        f"const index b = t * {width};\n{pack} out = *(const {pack}*)(x + b);\n#pragma unroll\n"
        f"for (int e = 0; e < {width}; ++e) {{\n{indented(each)}\n}}\n*({pack}*)(y + b) = out;"
    )
    s.launch(site, f"trilu_{stored}", body, size // width)
    return True


# padding --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Axis:
    """An axis that is padded: its size, how many elements lie before the source's, how many the source has."""

    size: int
    low: int
    inside: int
    source: int
    target: int

    @property
    def padded(self) -> bool:
        return self.size != self.inside


_SOURCES = {
    "edge": "s{i} = s{i} < 0 ? 0 : s{i} >= {n} ? {n} - 1 : s{i};",
    "wrap": "s{i} %= {n};\nif (s{i} < 0) s{i} += {n};",
    "reflect": (
        "const index period{i} = {n} > 1 ? 2 * {n} - 2 : 1;\ns{i} %= period{i};\nif (s{i} < 0) s{i} += period{i};\n"
        "if (s{i} >= {n}) s{i} = period{i} - s{i};"
    ),
}
"""Which element of an axis of n is copied to place s, for each mode of padding."""


def _padded(site: Site, source: View, target: View, pads: Sequence[tuple[int, int]], mode: str, value: Any) -> bool:
    """Grow the axes of a view by (low, high) elements, negative ones crop; value is a number or a tensor of one."""
    for axis, (lo, hi) in enumerate(pads):
        source = source.part(axis, max(-lo, 0), source.shape[axis] + min(lo, 0) + min(hi, 0))
    if target.size == 0:
        return True
    if source.size == 0:
        if isinstance(value, Ref):
            return _copy(site, broadcast(value, target.shape), target)
        _fill(site, target, value)
        return True
    axes = _axes(source, target, [max(lo, 0) for lo, _ in pads], mode)
    if not any(a.padded for a in axes):
        return _copy(site, source, target)
    element = bits(target.ref.operand.dtype)
    stored = c_type(element)
    width, whole = _width(source, target, axes, element.itemsize, mode)
    s = Signature(wide=is_wide([source, target], target.size))
    s.reads("x", source.ref, stored)
    s.writes("y", target.ref, stored)
    if isinstance(value, Ref):
        s.reads("value", value, stored)
        fill = "*value"
    else:
        number = np.asarray(value).reshape(-1)[0]
        s.declared.append("i64 value")
        s.kinds.append("i64")
        s.arguments.append(pattern(number, target.ref.operand.dtype))
        fill = f"({stored})value"
    names = [f"c{i}" for i in range(len(axes))]
    places = [s.unravel("i", [(n, a.size) for n, a in zip(names, axes, strict=True)])]
    inside = []
    for i, a in enumerate(axes):
        if not a.padded:
            places.append(f"const index s{i} = c{i};")
            continue
        s.size(f"low{i}", a.low)
        s.size(f"inside{i}", a.inside)
        if mode == "constant":
            places.append(f"const index s{i} = c{i} - low{i};")
            inside.append(f"s{i} >= 0 && s{i} < inside{i}")
        else:
            places.append(f"index s{i} = c{i} - low{i};\n{_SOURCES[mode].format(i=i, n=f'inside{i}')}")
    of = s.offset("of", [(f"s{i}", a.source) for i, a in enumerate(axes)])
    if source.start:
        s.size("start", source.start)
        of += " + start"
    packed = f"pack<{stored}, {width}>"
    there = " && ".join(inside) or "true"
    lines = [f"const index b = t * {width};", f"const {stored} fill = {fill};", f"{packed} out;"]
    if whole:
        lines += ["const index i = b;", *places]
        lines.append(f"if ({there}) out = *(const {packed}*)(x + {of});")
        lines.append(f"else for (int e = 0; e < {width}; ++e) out.at[e] = fill;")
    else:
        turn = "\n".join(["const index i = b + e;", *places, f"out.at[e] = {there} ? x[{of}] : fill;"])
        lines.append(f"#pragma unroll\nfor (int e = 0; e < {width}; ++e) {{\n{indented(turn)}\n}}")
    dense = tuple(a.target for a in axes) == row_major(tuple(a.size for a in axes))
    to = "b" if dense else s.offset("to", [(f"c{i}", a.target) for i, a in enumerate(axes)])
    if target.start:
        s.size("to_start", target.start)
        to += " + to_start"
    lines.append(f"*({packed}*)(y + {to}) = out;")
    s.launch(site, f"pad_{mode}_{stored}", "\n".join(lines), target.size // width)
    return True


def _axes(source: View, target: View, low: Sequence[int], mode: str) -> list[_Axis]:
    """Return the axes in the order of the target, those that lie together joined."""
    found: list[_Axis] = []
    for i in sorted(range(len(low)), key=lambda i: -abs(target.strides[i])):
        a = _Axis(target.shape[i], low[i], source.shape[i], source.strides[i], target.strides[i])
        if a.size == 1 and not a.padded:
            continue
        last = found[-1] if found else None
        joined = last is not None and not a.padded and (mode == "constant" or not last.padded)
        if last and joined and (last.source, last.target) == (a.source * a.size, a.target * a.size):
            found[-1] = _Axis(last.size * a.size, last.low * a.size, last.inside * a.size, a.source, a.target)
        else:
            found.append(a)
    return found


def _width(source: View, target: View, axes: Sequence[_Axis], itemsize: int, mode: str) -> tuple[int, bool]:
    """Return the elements of a pack, and whether each lies whole inside or outside of the source."""
    last = axes[-1]
    dense = tuple(a.target for a in axes) == row_major(tuple(a.size for a in axes))
    most = VECTOR_BYTES // itemsize
    width = most
    others = [n for a in axes[:-1] for n in (a.source, a.target)]
    while width > 1 and (mode == "constant" or not last.padded):
        numbers = [last.size, last.low, last.inside, *others]
        straight = last.source == last.target == 1 and all(n % width == 0 for n in numbers)
        if straight and source.aligned(width) and target.aligned(width):
            return width, True
        width //= 2
    width = most if dense else 1
    while width > 1 and (target.size % width or not target.aligned(width)):
        width //= 2
    return width, width == 1
