"""Convolution with one filter a channel, and its two gradients. The rules of convolutions call these first.

Channels last: a block has some vectors of channels, whose filters lie in shared memory, and a thread a few neighbouring
output columns, which share what they read. Row-major: a thread an output. The gradient of the input is the forward
kernel with the filter turned round, or, where windows step, a sum over the windows that cover an element. The gradient
of the weights sums over parts of the pixels, then over the parts in order.

Axes: N batch, C channel, S input sizes, O output sizes, K kernel; one or two spatial axes, the second of size 1 then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from ...types import is_float
from ...window import Window
from .fusion import finish, only_stores
from .indexing import view
from .kernel import Ref, blocks
from .lowering import Order, Site
from .operand import Operand
from .pool import each, like, read_either, vector
from .prelude import C_TYPES, c_type, computed
from .signature import DTYPES, Signature, indented, is_wide, lanes, store

_ACROSS = 32
"""The most vectors of channels of a block."""

_SHARED_BYTES = 48 << 10
_MOST_TAPS = 64
_COLUMNS = 4
"""Neighbouring outputs that a thread makes where windows step by 1."""


@dataclass(frozen=True)
class _Slide:
    """A window over two axes: sizes of what is read and written, kernel, strides, low pads, dilations."""

    size: tuple[int, int]
    out: tuple[int, int]
    kernel: tuple[int, int]
    strides: tuple[int, int]
    low: tuple[int, int]
    dilations: tuple[int, int]


def is_depthwise(x: Any, w: Any, win: Window) -> bool:
    """Return whether a convolution of these types (input, filters) has one filter a channel and kernels here."""
    return (
        x.dtype == w.dtype
        and is_float(x.dtype)
        and x.dtype.name in C_TYPES
        and x.ndim in (3, 4)
        and win.group == x.shape[1] == w.shape[0]
        and w.shape[1] == 1
        and prod(w.shape[2:]) <= _MOST_TAPS
    )


def _pair(values: Sequence[Any], one: int) -> tuple[int, int]:
    first, second = (*(int(v) for v in values), one)[:2]
    return first, second


def _slide(size: Sequence[Any], out: Sequence[Any], kernel: Sequence[Any], win: Window) -> _Slide:
    return _Slide(
        _pair(size, 1), _pair(out, 1), _pair(kernel, 1), _pair(win.strides, 1), _pair([lo for lo, _ in win.pads], 0),
        _pair(win.dilations, 1),
    )  # fmt: skip


def _steps(o: Operand) -> tuple[int, int, int, int]:
    """Return the strides of (N, C, H, W)."""
    n, c, *space = o.strides
    return n, c, space[0], space[1] if len(space) > 1 else 0


def depthwise_conv(site: Site) -> bool:
    """Lower `conv` with one filter a channel."""
    x, w, win = site.types[0], site.types[1], site.attrs["win"]
    if not is_depthwise(x, w, win):
        return False
    source, filters = read_either(site, 0), site.read(1, order="plain")
    y = site.write(order=like(source))
    p = _slide(source.operand.shape[2:], y.operand.shape[2:], filters.operand.shape[2:], win)
    _forward(site, "depthwise", source, filters, y, p, turned=False)
    return True


def depthwise_input_grad(site: Site) -> bool:
    """Lower `conv_input_grad` with one filter a channel."""
    g, w, win = site.types[0], site.types[1], site.attrs["win"]
    if not is_depthwise(g, w, win):
        return False
    source, filters = read_either(site, 0), site.read(1, order="plain")
    y = site.write(order=like(source))
    p = _slide(y.operand.shape[2:], source.operand.shape[2:], filters.operand.shape[2:], win)
    if p.strides == (1, 1):
        low = tuple(d * (k - 1) - lo for d, k, lo in zip(p.dilations, p.kernel, p.low, strict=True))
        back = replace(p, size=p.out, out=p.size, low=(low[0], low[1]))
        _forward(site, "depthwise_input_grad", source, filters, y, back, turned=True)
    else:
        _covering(site, source, filters, y, p)
    return True


def _declare(s: Signature, p: _Slide) -> str:
    """Declare the window, and return text for what is static: its size."""
    for i, a in enumerate("hw"):
        s.size(f"size_{a}", p.size[i])
        s.size(f"stride_{a}", p.strides[i])
        s.size(f"low_{a}", p.low[i])
        s.size(f"dilation_{a}", p.dilations[i])
    return f"const int KH = {p.kernel[0]}, KW = {p.kernel[1]};"


@dataclass(frozen=True)
class _Block:
    """How a block is laid over vectors of channels and groups of pixels."""

    across: int
    down: int
    width: int

    @property
    def channels(self) -> int:
        return self.across * self.width


def _block(channels: int, width: int, taps: int, itemsize: int) -> _Block:
    """Return a block that has room for its filters in shared memory."""
    across = _ACROSS
    while across > 1 and (across // 2 * width >= channels or taps * across * width * itemsize > _SHARED_BYTES):
        across //= 2
    return _Block(across, 256 // across, width)


def _filters(b: _Block, number: str, taps: int) -> str:
    """Return text that brings the filters of a block's channels to shared memory, as (taps, channels)."""
    return f"""
__shared__ {number} filters[{taps * b.channels}];
const index first_c = (index)blockIdx.y * {b.channels};
for (int i = threadIdx.x; i < {taps * b.channels}; i += {b.across * b.down}) {{
    const int c = i / {taps}, tap = i % {taps};
    if (first_c + c < channels) filters[tap * {b.channels} + c] = widen(w[(first_c + c) * {taps} + tap]);
}}
__syncthreads();
""".strip()


def _lie(*operands: Operand) -> int:
    """Return how many channels a thread takes: 0 where they do not lie channels last."""
    return lanes(1, *operands) if all(o.channels_last for o in operands) else 0


def _forward(site: Site, name: str, x: Ref, w: Ref, y: Ref, p: _Slide, *, turned: bool) -> None:
    if y.operand.size == 0:
        return
    width = _lie(x.operand, y.operand)
    if width and y.operand.shape[1] > 1:
        _forward_last(site, name, x, w, y, p, width, turned)
    else:
        _forward_rows(site, name, x, w, y, p, turned)


def _coordinates(y: Operand) -> list[str]:
    return ["n", "c", "oh", "ow"][: y.ndim]


def _forward_last(site: Site, name: str, x: Ref, w: Ref, y: Ref, p: _Slide, width: int, turned: bool) -> None:
    """Launch blocks of (vectors of channels) x (groups of output columns)."""
    dtype, o = x.operand.dtype, y.operand
    stored, number = c_type(dtype), computed(dtype)
    taps = prod(p.kernel)
    b = _block(o.shape[1], width, taps, 8 if number == "double" else 4)
    columns = min(_COLUMNS, p.out[1]) if p.strides[1] == 1 and p.dilations[1] == 1 and taps <= 25 else 1
    if number == "double" or width > 4:
        columns = min(columns, 2)
    groups = blocks(p.out[1], columns)
    s = Signature(is_wide(x.operand, o))
    s.reads("x", x)
    s.reads("w", w)
    s.writes("y", y)
    s.size("channels", o.shape[1])
    s.size("width", p.out[1])
    static = _declare(s, p)
    n, _, h, across = _steps(x.operand)
    walk = s.unravel("pixel", [("n", o.shape[0]), ("oh", p.out[0]), ("group", groups)])
    s.size("pixels", o.shape[0] * p.out[0] * groups)
    at = s.offset("x_at", [("n", n), ("ih", h), ("iw", across)])
    reach = columns - 1 + p.kernel[1]
    tap = "(KH - 1 - kh) * KW + (KW - 1 - kw)" if turned else "kh * KW + kw"
    if columns > 1:
        row = f"""
#pragma unroll
for (int j = 0; j < {reach}; ++j) {{
    const index iw = begin_w + j;
    if (iw < 0 || iw >= size_w) continue;
{indented(vector("e", stored, width, "x", f"{at} + c"))}
    #pragma unroll
    for (int i = 0; i < {columns}; ++i) {{
        const int kw = j - i;
        if (kw < 0 || kw >= KW) continue;
{indented(each(width, f"sums[i][lane] += ({number})widen(e.at[lane]) * filter[({tap}) * {b.channels} + lane];"), 2)}
    }}
}}"""
    else:
        row = f"""
#pragma unroll
for (int kw = 0; kw < KW; ++kw) {{
    const index iw = begin_w + kw * dilation_w;
    if (iw < 0 || iw >= size_w) continue;
{indented(vector("e", stored, width, "x", f"{at} + c"))}
{indented(each(width, f"sums[0][lane] += ({number})widen(e.at[lane]) * filter[({tap}) * {b.channels} + lane];"))}
}}"""
    end = store(site, s, y, number, _coordinates(o), along=1, width=width, value="sums[i]")
    unroll_rows = "#pragma unroll\n" if taps <= 9 else "#pragma unroll 1\n"
    body = f"""
{static}
{_filters(b, number, taps)}
const index c = first_c + threadIdx.x % {b.across} * {width};
const i64 numbered = (i64)blockIdx.x * {b.down} + threadIdx.x / {b.across};
if (c >= channels || numbered >= pixels) return;
const {number}* filter = filters + threadIdx.x % {b.across} * {width};
const index pixel = (index)numbered;
{walk}
const index begin_h = oh * stride_h - low_h, begin_w = group * {columns} * stride_w - low_w;
{number} sums[{columns}][{width}];
#pragma unroll
for (int i = 0; i < {columns}; ++i) {{
{indented(each(width, "sums[i][lane] = 0;"))}
}}
{unroll_rows}for (int kh = 0; kh < KH; ++kh) {{
    const index ih = begin_h + kh * dilation_h;
    if (ih < 0 || ih >= size_h) continue;
{indented(row)}
}}
#pragma unroll
for (int i = 0; i < {columns}; ++i) {{
    const index ow = group * {columns} + i;
    if (ow >= width) continue;
{indented(end.prepare)}
{indented(end.body)}
}}
"""
    _launch_blocks(site, s, name, body, b, o, o.shape[0] * p.out[0] * groups)


def _launch_blocks(site: Site, s: Signature, name: str, body: str, b: _Block, o: Operand, pixels: int) -> None:
    made = s.kernel(name, body, threads=b.across * b.down, registers=128)
    grid = (blocks(pixels, b.down), blocks(o.shape[1], b.channels), 1)
    site.launch(made, grid, (b.across * b.down, 1, 1), s.arguments, writes=s.written)


def _forward_rows(site: Site, name: str, x: Ref, w: Ref, y: Ref, p: _Slide, turned: bool) -> None:
    """Launch a thread an output, in the order of memory."""
    dtype, o = x.operand.dtype, y.operand
    number = computed(dtype)
    s = Signature(is_wide(x.operand, o))
    s.reads("x", x)
    s.reads("w", w)
    s.writes("y", y)
    static = _declare(s, p)
    walk = s.unravel("t", [("n", o.shape[0]), ("c", o.shape[1]), ("oh", p.out[0]), ("ow", p.out[1])])
    at = s.offset("x_at", list(zip(("n", "c", "ih", "iw"), _steps(x.operand), strict=True)))
    tap = "(KH - 1 - kh) * KW + (KW - 1 - kw)" if turned else "kh * KW + kw"
    end = store(site, s, y, number, _coordinates(o))
    unroll = "#pragma unroll\n" if prod(p.kernel) <= 25 else ""
    body = f"""
{static}
{walk}
const {c_type(dtype)}* filter = w + c * (KH * KW);
{number} result[1];
result[0] = 0;
{unroll}for (int kh = 0; kh < KH; ++kh) {{
    const index ih = oh * stride_h - low_h + kh * dilation_h;
    if (ih < 0 || ih >= size_h) continue;
    {unroll.strip()}
    for (int kw = 0; kw < KW; ++kw) {{
        const index iw = ow * stride_w - low_w + kw * dilation_w;
        if (iw < 0 || iw >= size_w) continue;
        result[0] += ({number})widen(x[{at}]) * ({number})widen(filter[{tap}]);
    }}
}}
{end.prepare}
{end.body}
"""
    s.launch(site, f"{name}_rows", body, o.size)


def _covering(site: Site, g: Ref, w: Ref, y: Ref, p: _Slide) -> None:
    """Launch the gradient of the input where windows step: each element sums over the windows that cover it."""
    dtype, o = g.operand.dtype, y.operand
    if o.size == 0:
        return
    stored, number = c_type(dtype), computed(dtype)
    width = max(1, _lie(g.operand, o))
    s = Signature(is_wide(g.operand, o))
    s.reads("g", g)
    s.reads("w", w)
    s.writes("y", y)
    static = _declare(s, p)
    for i, a in enumerate("hw"):
        s.size(f"out_{a}", p.out[i])
        s.divisor(f"step_{a}", p.strides[i])
    axes = [("n", o.shape[0]), ("ih", p.size[0]), ("iw", p.size[1]), ("cv", o.shape[1] // width)]
    if not o.channels_last or o.contiguous:
        axes = [axes[0], axes[3], *axes[1:3]]
    walk = s.unravel("t", axes)
    at = s.offset("g_at", list(zip(("n", "c", "oh", "ow"), _steps(g.operand), strict=True)))
    end = store(site, s, y, number, ["n", "c", "ih", "iw"][: o.ndim], along=1, width=width)

    def window(a: str, k: str) -> str:
        return (
            f"const index ahead_{a} = i{a} + low_{a} - {k} * dilation_{a};\n"
            f"if (ahead_{a} < 0) break;\n"
            f"const index o{a} = quotient(ahead_{a}, step_{a}, step_{a}_m, step_{a}_s);\n"
            f"if (o{a} * stride_{a} != ahead_{a} || o{a} >= out_{a}) continue;"
        )

    product = f"({number})widen(e.at[lane]) * ({number})widen(w[(c + lane) * (KH * KW) + kh * KW + kw])"
    body = f"""
{static}
{walk}
const index c = cv * {width};
{number} result[{width}];
{each(width, "result[lane] = 0;")}
for (int kh = 0; kh < KH; ++kh) {{
{indented(window("h", "kh"))}
    for (int kw = 0; kw < KW; ++kw) {{
{indented(window("w", "kw"), 2)}
{indented(vector("e", stored, width, "g", at), 2)}
{indented(each(width, f"result[lane] += {product};"), 2)}
    }}
}}
{end.prepare}
{end.body}
"""
    s.launch(site, "depthwise_input_grad_strided", body, o.size // width)


# gradient of the weights ----------------------------------------------------------------------------------------------

_PARTS = 132 * 4
"""About so many blocks fill a large GPU."""


def depthwise_weight_grad(site: Site) -> bool:
    """Lower `conv_weight_grad` with one filter a channel: sums over parts of the pixels, then over the parts."""
    x, win, w = site.types[1], site.attrs["win"], site.results[0]
    epilogue = site.epilogue
    if not is_depthwise(x, w, win) or site.types[0].dtype != x.dtype:
        return False
    source = read_either(site, 1)
    order: Order = like(source)
    g, y = site.read(0, order=order), site.write(order="plain")
    p = _slide(source.operand.shape[2:], g.operand.shape[2:], w.shape[2:], win)
    if y.operand.size == 0:
        return True
    if _lie(source.operand, g.operand) and y.operand.shape[0] > 1:
        parts = _parts_last(site, g, source, p)
    else:
        parts = _parts_rows(site, g, source, p)
    if epilogue is None or only_stores(epilogue):
        _add_parts(site, parts, y)
    else:
        total = site.temporary(parts.operand.dtype, y.operand.shape)
        _add_parts(site, parts, total)
        finish(site, epilogue, view(total), total.operand.dtype, view(y))
    return True


def _parts_last(site: Site, g: Ref, x: Ref, p: _Slide) -> Ref:
    """Launch the sums of one row of taps over some pixels; returns (parts, C, K)."""
    dtype = x.operand.dtype
    stored, number = c_type(dtype), computed(dtype)
    channels = x.operand.shape[1]
    width = _lie(x.operand, g.operand)
    while width > 1 and p.kernel[1] * width > 32:
        width //= 2
    b = _block(channels, width, 0, 4)
    # What the threads of a block add up meets in shared memory, a tap at a time.
    pixels = x.operand.shape[0] * p.out[0] * p.out[1]
    tiles = blocks(channels, b.channels) * p.kernel[0]
    count = max(1, min(blocks(pixels, b.down * 4), blocks(_PARTS, tiles), 65535))
    span = blocks(pixels, count)
    parts = site.temporary(DTYPES[number], (count, channels, prod(p.kernel)))
    s = Signature(is_wide(x.operand, g.operand, parts.operand))
    s.reads("g", g)
    s.reads("x", x)
    s.writes("parts", parts)
    s.size("channels", channels)
    s.size("pixels", pixels)
    s.size("span", span)
    static = _declare(s, p)
    walk = s.unravel("pixel", [("n", x.operand.shape[0]), ("oh", p.out[0]), ("ow", p.out[1])])
    n, _, h, across = _steps(x.operand)
    x_at = s.offset("x_at", [("n", n), ("ih", h), ("iw", across)])
    n, _, h, across = _steps(g.operand)
    g_at = s.offset("g_at", [("n", n), ("oh", h), ("ow", across)])
    body = f"""
{static}
__shared__ {number} slots[{b.down * b.channels}];
const int place = threadIdx.x % {b.across} * {width}, member = threadIdx.x / {b.across};
const index c = (index)blockIdx.y * {b.channels} + place;
const int kh = blockIdx.z;
{number} sums[{p.kernel[1]}][{width}];
#pragma unroll
for (int kw = 0; kw < KW; ++kw) {{
{indented(each(width, "sums[kw][lane] = 0;"))}
}}
const index first = (index)blockIdx.x * span, end = first + span < pixels ? first + span : pixels;
if (c < channels) {{
    for (index pixel = first + member; pixel < end; pixel += {b.down}) {{
{indented(walk, 2)}
        const index ih = oh * stride_h - low_h + kh * dilation_h;
        if (ih < 0 || ih >= size_h) continue;
{indented(vector("d", stored, width, "g", f"{g_at} + c"), 2)}
        #pragma unroll
        for (int kw = 0; kw < KW; ++kw) {{
            const index iw = ow * stride_w - low_w + kw * dilation_w;
            if (iw < 0 || iw >= size_w) continue;
{indented(vector("e", stored, width, "x", f"{x_at} + c"), 3)}
{indented(each(width, f"sums[kw][lane] += ({number})widen(d.at[lane]) * ({number})widen(e.at[lane]);"), 3)}
        }}
    }}
}}
#pragma unroll
for (int kw = 0; kw < KW; ++kw) {{
{indented(each(width, f"slots[member * {b.channels} + place + lane] = sums[kw][lane];"))}
    __syncthreads();
    for (int i = threadIdx.x; i < {b.channels}; i += {b.across * b.down}) {{
        const index own = (index)blockIdx.y * {b.channels} + i;
        {number} total = 0;
        for (int m = 0; m < {b.down}; ++m) total += slots[m * {b.channels} + i];
        if (own < channels) parts[((index)blockIdx.x * channels + own) * (KH * KW) + kh * KW + kw] = total;
    }}
    __syncthreads();
}}
"""
    made = s.kernel("depthwise_weight_grad", body, threads=b.across * b.down, registers=128)
    grid = (count, blocks(channels, b.channels), p.kernel[0])
    site.launch(made, grid, (b.across * b.down, 1, 1), s.arguments, writes=s.written)
    return parts


def _parts_rows(site: Site, g: Ref, x: Ref, p: _Slide) -> Ref:
    """Launch a block for each (channel, tap) and part of the pixels; returns (parts, C, K)."""
    dtype = x.operand.dtype
    number = computed(dtype)
    channels, taps = x.operand.shape[1], prod(p.kernel)
    pixels = x.operand.shape[0] * p.out[0] * p.out[1]
    count = max(1, min(blocks(pixels, 2048), blocks(_PARTS * 4, channels * taps), 65535))
    span = blocks(pixels, count)
    parts = site.temporary(DTYPES[number], (count, channels, taps))
    s = Signature(is_wide(x.operand, g.operand, parts.operand))
    s.reads("g", g)
    s.reads("x", x)
    s.writes("parts", parts)
    s.size("pixels", pixels)
    s.size("span", span)
    static = _declare(s, p)
    own = s.unravel("own", [("c", channels), ("kh", p.kernel[0]), ("kw", p.kernel[1])])
    walk = s.unravel("pixel", [("n", x.operand.shape[0]), ("oh", p.out[0]), ("ow", p.out[1])])
    x_at = s.offset("x_at", list(zip(("n", "c", "ih", "iw"), _steps(x.operand), strict=True)))
    g_at = s.offset("g_at", list(zip(("n", "c", "oh", "ow"), _steps(g.operand), strict=True)))
    s.size("taps", channels * taps)
    body = f"""
{static}
__shared__ {number} slots[256];
const index own = blockIdx.x;
{own}
const index first = (index)blockIdx.y * span, end = first + span < pixels ? first + span : pixels;
{number} sum = 0;
for (index pixel = first + threadIdx.x; pixel < end; pixel += 256) {{
{indented(walk)}
    const index ih = oh * stride_h - low_h + kh * dilation_h, iw = ow * stride_w - low_w + kw * dilation_w;
    if (ih < 0 || ih >= size_h || iw < 0 || iw >= size_w) continue;
    sum += ({number})widen(g[{g_at}]) * ({number})widen(x[{x_at}]);
}}
slots[threadIdx.x] = sum;
__syncthreads();
for (int half = 128; half > 0; half /= 2) {{
    if (threadIdx.x < half) slots[threadIdx.x] += slots[threadIdx.x + half];
    __syncthreads();
}}
if (threadIdx.x == 0) parts[(index)blockIdx.y * taps + own] = slots[0];
"""
    made = s.kernel("depthwise_weight_grad_rows", body)
    site.launch(made, (channels * taps, count, 1), (256, 1, 1), s.arguments, writes=s.written)
    return parts


def _add_parts(site: Site, parts: Ref, y: Ref) -> None:
    """Launch what adds the parts up in their order, and rounds once."""
    count, size = parts.operand.shape[0], y.operand.size
    number = computed(y.operand.dtype)
    s = Signature(is_wide(parts.operand))
    s.reads("parts", parts)
    s.writes("y", y)
    s.size("count", count)
    body = (
        f"{number} total = 0;\nfor (index i = 0; i < count; ++i) total += parts[i * work + t];\nnarrow(total, &y[t]);"
    )
    s.launch(site, "depthwise_weight_grad_sums", body, size)
