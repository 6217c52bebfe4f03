"""The adjoints of pooling. All but `pool_scatter` gather: each input element sums over the windows that cover it.

The gradient of a maximum first finds each window's tap, then gathers. `pool_scatter` and `max_unpool` take indices that
may be anything: those sort, or let the last writer win, so that results are the same from run to run.

Axes: N batch, C channel, S input sizes, O output sizes.
"""

from __future__ import annotations

from math import prod

import numpy as np

from ...types import is_float
from .kernel import Ref
from .lowering import Site, every, lowers
from .operand import Operand
from .pool import Taps, channel_lanes, each, like, places, read_either, shares, spatial, taps_of, vector
from .prelude import c_type, computed
from .signature import Signature, indented, is_wide, store


def _windows(taps: Taps, body: str) -> str:
    """Return loops over the windows (o0, ...) that cover the place (i0, ...), and the tap (k0, ...) that meets it."""
    for a in reversed(range(taps.rank)):
        dilated = taps.win.dilations[a] != 1
        tap = f"const index ahead{a} = i{a} + low{a} - o{a} * stride{a};\n"
        if dilated:
            tap += f"if (ahead{a} % dilation{a} != 0) continue;\nconst index k{a} = ahead{a} / dilation{a};"
        else:
            tap += f"const index k{a} = ahead{a};"
        head = f"#pragma unroll 1\nfor (index o{a} = first{a}; o{a} <= last{a}; ++o{a}) {{"
        body = f"{head}\n{indented(tap)}\n{indented(body)}\n}}"
    return body


def _covering(s: Signature, taps: Taps) -> str:
    """Return text for the first and last window that may cover the place (i0, ...), along each axis."""
    lines = []
    for a in range(taps.rank):
        s.size(f"O{a}", taps.out[a])
        s.divisor(f"step{a}", taps.win.strides[a])
        lines += [
            f"const index past{a} = i{a} + low{a} - (K{a} - 1) * dilation{a};",
            f"index first{a} = past{a} <= 0 ? 0 : quotient(past{a} + stride{a} - 1, step{a}, step{a}_m, step{a}_s);",
            f"index last{a} = i{a} + low{a} < 0 ? -1 : quotient(i{a} + low{a}, step{a}, step{a}_m, step{a}_s);",
            f"if (last{a} >= O{a}) last{a} = O{a} - 1;",
        ]
    return "\n".join(lines)


def _gathering(site: Site, name: str, s: Signature, taps: Taps, y: Ref, width: int, tap: str, number: str) -> None:
    """Launch a kernel that adds `tap` up over the windows that cover each element, and stores through the epilogue."""
    o = y.operand
    names = [f"i{a}" for a in range(taps.rank)]
    static = taps.declare(s)
    walk = s.unravel("t", places(o, width, names))
    covering = _covering(s, taps)
    end = store(site, s, y, number, ["n", "c", *names], along=1, width=width)
    body = (
        f"{static}\n{walk}\nconst index c = cv * {width};\n{covering}\n{number} result[{width}];\n"
        + each(width, "result[lane] = 0;")
        + f"\n{_windows(taps, tap)}\n{end.prepare}\n{end.body}"
    )
    s.launch(site, name, body, o.size // width)


def _output_offset(s: Signature, name: str, o: Operand, channel: str = "c") -> str:
    """Return an expression for the offset of the window (n, c, o0, ...)."""
    axes = [("n", o.strides[0]), (channel, o.strides[1])]
    return s.offset(name, [*axes, *((f"o{a}", step) for a, step in enumerate(o.strides[2:]))])


@lowers("sum_pool_grad", fuses=every)
def _sum_pool_grad(site: Site) -> bool:
    dtype = site.types[0].dtype
    if not is_float(dtype) or not spatial(site, dtype):
        return False
    g = read_either(site, 0)
    y = site.write(order=like(g))
    width = channel_lanes(g.operand, y.operand)
    taps = taps_of(site, y.operand.shape[2:], g.operand.shape[2:])
    s = Signature(is_wide(g.operand, y.operand))
    s.reads("g", g)
    s.writes("y", y)
    number = computed(dtype)
    at = _output_offset(s, "g_at", g.operand)
    pads = site.attrs.get("counted")
    value, mean = "widen(e.at[lane])", ""
    if pads is not None:
        mean = f"const {number} share = {shares(site, s, taps, pads, number)};\n"
        value += " * share"
    tap = f"{mean}{vector('e', c_type(dtype), width, 'g', at)}\n" + each(width, f"result[lane] += {value};")
    _gathering(site, "sum_pool_grad", s, taps, y, width, tap, number)
    return True


@lowers("max_pool_grad", fuses=every)
def _max_pool_grad(site: Site) -> bool:
    dtype = site.types[1].dtype
    if site.types[0].dtype != dtype or not is_float(dtype) or not spatial(site, dtype):
        return False
    x = read_either(site, 1)
    order = like(x)
    g, y = site.read(0, order=order), site.write(order=order)
    taps = taps_of(site, x.operand.shape[2:], g.operand.shape[2:])
    width = channel_lanes(x.operand, g.operand, y.operand)
    small = prod(taps.kernel) <= 255
    chosen = site.temporary(np.dtype(np.uint8 if small else np.int32), (g.operand.size,))
    _choose(site, x, g.operand, chosen, taps, width)

    s = Signature(is_wide(g.operand, y.operand, x.operand))
    s.reads("g", g)
    s.reads("chosen", chosen)
    s.writes("y", y)
    number, kind = computed(dtype), c_type(chosen.operand.dtype)
    at = _output_offset(s, "g_at", g.operand)
    tap = (
        f"const index at = {at};\n"
        f"{vector('which', kind, width, 'chosen', 'at')}\n{vector('e', c_type(dtype), width, 'g', 'at')}\n"
        + each(width, f"if (which.at[lane] == ({kind})({taps.number})) result[lane] += widen(e.at[lane]);")
    )
    _gathering(site, "max_pool_grad", s, taps, y, width, tap, number)
    return True


def _choose(site: Site, x: Ref, g: Operand, chosen: Ref, taps: Taps, width: int) -> None:
    """Launch the kernel that writes which tap of each window the maximum is at, lying as g lies."""
    s = Signature(is_wide(x.operand, g))
    s.reads("x", x)
    s.writes("chosen", chosen)
    dtype, kind = x.operand.dtype, c_type(chosen.operand.dtype)
    number = computed(dtype)
    names = [f"o{a}" for a in range(taps.rank)]
    static = taps.declare(s)
    walk = s.unravel("t", places(g, width, names))
    plane = s.offset("x_plane", [("n", x.operand.strides[0]), ("c", x.operand.strides[1])])
    place = s.offset("x_place", [(f"i{a}", step) for a, step in enumerate(x.operand.strides[2:])])
    tap = f"{vector('e', c_type(dtype), width, 'source', place)}\nconst int here = {taps.number};\n" + each(
        width,
        f"const {number} v = widen(e.at[lane]);\n"
        "if (which[lane] < 0 || v > best[lane] || (v != v && best[lane] == best[lane])) {\n    best[lane] = v;\n"
        "    which[lane] = here;\n}",
    )
    end = (
        f"pack<{kind}, {width}> out;\n"
        + each(width, f"out.at[lane] = ({kind})(which[lane] < 0 ? 0 : which[lane]);")
        + f"\n*(pack<{kind}, {width}>*)(chosen + ({_output_offset(s, 'g_at', g)})) = out;"
    )
    body = (
        f"{static}\n{walk}\nconst index c = cv * {width};\n{taps.begins()}\n"
        f"const {c_type(dtype)}* source = x + ({plane});\n{number} best[{width}];\nint which[{width}];\n"
        + each(width, "best[lane] = 0;\nwhich[lane] = -1;")
        + f"\n{taps.loop(tap)}\n{end}"
    )
    s.launch(site, "max_pool_taps", body, g.size // width)
