"""Pooling: maxima, sums and means under a window, and where the maxima are.

A thread makes a vector of neighbouring channels of one output (channels last) or one output (row-major), and looks at
each tap of its window that is inside the input. Few windows of many taps are shared out among the threads of a block.

Axes: N batch, C channel, S input sizes, O output sizes, K kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from ...types import DType, is_float
from ...window import Window
from .kernel import Ref
from .lowering import Order, Site, every, lowers
from .operand import Operand
from .prelude import C_TYPES, c_type, computed
from .signature import DTYPES, Signature, Store, element_limits, indented, is_wide, lanes, store

UNROLLED = 32
"""Windows of at most so many taps are written out."""

_SHARED = 48
"""Windows of at least so many taps are shared by the threads of a block where there are few windows."""

_MOST_LANES = 8
"""More results a thread would not stay in registers."""

_FEW = 132 * 2048
"""Fewer threads than this leave a large GPU idle."""


@dataclass(frozen=True)
class Taps:
    """A window over `rank` spatial axes in a kernel's text: `k0 ...` are taps, `i0 ...` input places.

    Attributes:
        kernel: its sizes.
        win: its strides, pads and dilations.
        size: of the input.
        out: of the output.
    """

    kernel: tuple[int, ...]
    win: Window
    size: tuple[int, ...]
    out: tuple[int, ...]

    @property
    def rank(self) -> int:
        """How many spatial axes it has."""
        return len(self.kernel)

    def declare(self, s: Signature) -> str:
        """Declare sizes, and return text for what is static."""
        text = []
        for a in range(self.rank):
            if prod(self.kernel) <= UNROLLED:
                text.append(f"const int K{a} = {self.kernel[a]};")
            else:
                s.integer(f"K{a}", self.kernel[a])
            s.size(f"S{a}", self.size[a])
            s.size(f"stride{a}", self.win.strides[a])
            s.size(f"low{a}", int(self.win.pads[a][0]))
            s.size(f"dilation{a}", self.win.dilations[a])
        return "\n".join(text)

    def begins(self) -> str:
        """Return text for where the window of output (o0, ...) begins."""
        return "\n".join(f"const index begin{a} = o{a} * stride{a} - low{a};" for a in range(self.rank))

    def loop(self, body: str) -> str:
        """Return loops over the taps that meet the input, around text that reads `k` and `i` of each axis."""
        for a in reversed(range(self.rank)):
            unroll = f"#pragma unroll{'' if prod(self.kernel) <= UNROLLED else ' 1'}\n"
            body = (
                f"{unroll}for (int k{a} = 0; k{a} < K{a}; ++k{a}) {{\n"
                f"    const index i{a} = begin{a} + k{a} * dilation{a};\n"
                f"    if (i{a} < 0 || i{a} >= S{a}) continue;\n{indented(body)}\n}}"
            )
        return body

    @property
    def number(self) -> str:
        """An expression for the number of a tap, row-major."""
        text = "k0"
        for a in range(1, self.rank):
            text = f"({text}) * K{a} + k{a}"
        return text


def taps_of(site: Site, size: Sequence[Any], out: Sequence[Any]) -> Taps:
    """Return the window of a site."""
    a = site.attrs
    return Taps(tuple(int(k) for k in a["kernel"]), a["win"], tuple(map(int, size)), tuple(map(int, out)))


def spatial(site: Site, *dtypes: DType) -> bool:
    """Return whether there are 1 to 3 spatial axes, and elements that kernels know."""
    rank = len(site.attrs["kernel"])
    return 1 <= rank <= 3 and all(d.name in C_TYPES and d.kind != "b" for d in dtypes)


def like(ref: Ref) -> Order:
    """Return how the output of a kernel that reads this should lie."""
    return "channels_last" if ref.operand.channels_last and not ref.operand.contiguous else "plain"


def read_either(site: Site, i: int) -> Ref:
    """Return an input lying channels last if it does already, else row-major."""
    ref = site.read(i)
    if ref.operand.channels_last or ref.operand.contiguous:
        return ref
    return site.read(i, order="plain")


def places(o: Operand, width: int, spatial_names: Sequence[str]) -> list[tuple[str, int]]:
    """Return the coordinates of a walk over (N, C, ...) in the order of memory, channels in vectors where last."""
    space = list(zip(spatial_names, o.shape[2:], strict=True))
    if o.channels_last and not o.contiguous:
        return [("n", o.shape[0]), *space, ("cv", o.shape[1] // width)]
    return [("n", o.shape[0]), ("cv", o.shape[1] // width), *space]


def channel_lanes(*operands: Operand) -> int:
    """Return how many channels a thread takes at once: 1 unless all lie channels last."""
    if not all(o.channels_last for o in operands):
        return 1
    return min(_MOST_LANES, lanes(1, *operands))


@dataclass
class _Plan:
    site: Site
    s: Signature
    x: Ref
    y: Ref
    taps: Taps
    width: int

    @property
    def stored(self) -> str:
        return c_type(self.x.operand.dtype)

    @property
    def number(self) -> str:
        return computed(self.x.operand.dtype)


def _plan(site: Site) -> _Plan:
    x = read_either(site, 0)
    y = site.write(order=like(x))
    wide = is_wide(x.operand, y.operand)
    s = Signature(wide)
    s.reads("x", x)
    s.writes("y", y)
    taps = taps_of(site, x.operand.shape[2:], y.operand.shape[2:])
    return _Plan(site, s, x, y, taps, channel_lanes(x.operand, y.operand))


def _input_offset(s: Signature, x: Operand, name: str = "x") -> tuple[str, str]:
    """Return expressions for the offset of a plane (n, c), and of a place (i0, ...) in it."""
    plane = s.offset(f"{name}_plane", [("n", x.strides[0]), ("c", x.strides[1])])
    place = s.offset(f"{name}_place", [(f"i{a}", step) for a, step in enumerate(x.strides[2:])])
    return plane, place


def vector(name: str, ctype: str, width: int, pointer: str, at: str) -> str:
    """Return text that reads a vector."""
    return f"const pack<{ctype}, {width}> {name} = *(const pack<{ctype}, {width}>*)({pointer} + ({at}));"


def each(width: int, body: str) -> str:
    """Return a loop over the lanes of a vector."""
    return f"#pragma unroll\nfor (int lane = 0; lane < {width}; ++lane) {{\n{indented(body)}\n}}"


def shares(site: Site, s: Signature, taps: Taps, pads: Sequence[tuple[Any, Any]], number: str) -> str:
    """Declare tables and return an expression for 1 / the number of elements that count in window (o0, ...)."""
    factors = []
    for a, (before, after) in enumerate(pads):
        win = taps.win
        begin = np.arange(taps.out[a])[:, None] * win.strides[a] - int(win.pads[a][0])
        at = begin + np.arange(taps.kernel[a]) * win.dilations[a]
        count = ((at >= -int(before)) & (at < taps.size[a] + int(after))).sum(axis=1)
        s.reads(f"shares{a}", site.constant((1 / np.maximum(count, 1)).astype(DTYPES[number])))
        factors.append(f"shares{a}[o{a}]")
    return " * ".join(factors)


def _combine(kind: str, real: bool) -> str:
    if kind == "sum":
        return "result[lane] += v;"
    # NaN stays, and takes the place of every number.
    return f"if (v > result[lane]{' || v != v' if real else ''}) result[lane] = v;"


@lowers("max_pool", fuses=every)
def _max_pool(site: Site) -> bool:
    return _fold(site, "max")


@lowers("sum_pool", fuses=every)
def _sum_pool(site: Site) -> bool:
    return is_float(site.types[0].dtype) and _fold(site, "sum")


def _fold(site: Site, kind: str) -> bool:
    """Write the maxima or sums of windows."""
    dtype = site.types[0].dtype
    if not spatial(site, dtype):
        return False
    p = _plan(site)
    y = p.y.operand
    outputs = y.size // p.width
    shared = prod(p.taps.kernel) >= _SHARED and outputs * 4 <= _FEW
    names = [f"o{a}" for a in range(p.taps.rank)]
    start = element_limits(dtype)[0] if kind == "max" else "0"
    static = p.taps.declare(p.s)
    walk = p.s.unravel("t", places(y, p.width, names))
    plane, place = _input_offset(p.s, p.x.operand)
    tap = f"{vector('e', p.stored, p.width, 'source', place)}\n" + each(
        p.width, f"const {p.number} v = widen(e.at[lane]);\n{_combine(kind, dtype.kind != 'i' and dtype.kind != 'u')}"
    )
    pads = site.attrs.get("counted")
    mean = ""
    if pads is not None:
        mean = f"const {p.number} share = {shares(site, p.s, p.taps, pads, p.number)};\n"
        mean += each(p.width, "result[lane] *= share;")
    end = store(site, p.s, p.y, p.number, ["n", "c", *names], along=1, width=p.width)
    head = (
        f"{static}\n{walk}\nconst index c = cv * {p.width};\n{p.taps.begins()}\n"
        f"const {p.stored}* source = x + ({plane});\n{p.number} result[{p.width}];\n"
        + each(p.width, f"result[lane] = {start};")
    )
    if shared:
        _launch_shared(p, kind, dtype, head, place, mean, end, outputs)
        return True
    body = f"{head}\n{p.taps.loop(tap)}\n{mean}\n{end.prepare}\n{end.body}"
    p.s.launch(site, f"{kind}_pool", body, outputs)
    return True


_CHANNELS, _PARTS = 32, 8


def _launch_shared(
    p: _Plan, kind: str, dtype: DType, head: str, place: str, mean: str, end: Store, outputs: int
) -> None:
    """Write the kernel in which threads (32, 8) make 32 outputs, each window in 8 parts that are combined in order."""
    real = dtype.kind not in "iu"
    spread = p.s.unravel("tap", [(f"k{a}", k) for a, k in enumerate(p.taps.kernel)])
    p.s.size("taps", prod(p.taps.kernel))
    p.s.size("work", outputs)
    inside = " && ".join(f"i{a} >= 0 && i{a} < S{a}" for a in range(p.taps.rank))
    at = "\n".join(f"const index i{a} = begin{a} + k{a} * dilation{a};" for a in range(p.taps.rank))
    load = vector("e", p.stored, p.width, "source", place)
    combine = each(p.width, f"const {p.number} v = widen(e.at[lane]);\n{_combine(kind, real)}")
    again = each(
        p.width,
        f"const {p.number} v = shared[(part * {_CHANNELS} + threadIdx.x) * {p.width} + lane];\n{_combine(kind, real)}",
    )
    keep = each(p.width, f"shared[(threadIdx.y * {_CHANNELS} + threadIdx.x) * {p.width} + lane] = result[lane];")
    body = f"""
__shared__ {p.number} shared[{_PARTS * _CHANNELS * p.width}];
const i64 thread = (i64)blockIdx.x * {_CHANNELS} + threadIdx.x;
const bool active = thread < work;
const index t = active ? (index)thread : 0;
{head}
#pragma unroll 1
for (index tap = threadIdx.y; tap < taps; tap += {_PARTS}) {{
{indented(spread)}
{indented(at)}
    if ({inside}) {{
{indented(load, 2)}
{indented(combine, 2)}
    }}
}}
{keep}
__syncthreads();
if (threadIdx.y != 0 || !active) return;
for (int part = 1; part < {_PARTS}; ++part) {{
{indented(again)}
}}
{mean}
{end.prepare}
{end.body}
"""
    made = p.s.kernel(f"{kind}_pool_wide", body)
    grid = (-(-outputs // _CHANNELS), 1, 1)
    p.site.launch(made, grid, (_CHANNELS, _PARTS, 1), p.s.arguments, writes=p.s.written)


@lowers("max_pool_indices")
def _max_pool_indices(site: Site) -> bool:
    dtype = site.types[0].dtype
    if not spatial(site, dtype):
        return False
    p = _plan(site)
    size, rank = p.taps.size, p.taps.rank
    names = [f"o{a}" for a in range(rank)]
    static = p.taps.declare(p.s)
    walk = p.s.unravel("t", places(p.y.operand, p.width, names))
    plane, place = _input_offset(p.s, p.x.operand)
    forward = site.attrs.get("column_major", False)
    pitch = [prod(size[:a]) if forward else prod(size[a + 1 :]) for a in range(rank)]
    flat = p.s.offset("pitch", [(f"i{a}", step) for a, step in enumerate(pitch)])
    p.s.size("channels", p.x.operand.shape[1])
    p.s.size("plane", prod(size))
    better = "where[lane] < 0 || v > best[lane]"
    better += " || (v != v && best[lane] == best[lane])" if dtype.kind not in "iu" else ""
    tap = f"{vector('e', p.stored, p.width, 'source', place)}\nconst index here = {flat};\n" + each(
        p.width,
        f"const {p.number} v = widen(e.at[lane]);\nif ({better}) {{\n    best[lane] = v;\n    where[lane] = here;\n}}",
    )
    target = p.s.offset("y_at", list(zip(["n", "c", *names], p.y.operand.strides, strict=True)))
    end = (
        f"pack<i64, {p.width}> out;\n"
        + each(
            p.width,
            "out.at[lane] = ((i64)n * channels + (c + lane)) * plane + (where[lane] < 0 ? 0 : where[lane]);",
        )
        + f"\n*(pack<i64, {p.width}>*)(y + ({target})) = out;"
    )
    head = (
        f"{static}\n{walk}\nconst index c = cv * {p.width};\n{p.taps.begins()}\n"
        f"const {p.stored}* source = x + ({plane});\n{p.number} best[{p.width}];\nindex where[{p.width}];\n"
        + each(p.width, "best[lane] = 0;\nwhere[lane] = -1;")
    )
    p.s.launch(site, "max_pool_indices", f"{head}\n{p.taps.loop(tap)}\n{end}", p.y.operand.size // p.width)
    return True
