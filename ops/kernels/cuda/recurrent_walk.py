"""Recurrent layers whose recurrent weights are small: one kernel that walks over time.

A block has some entries of the batch and a direction. Each thread multiplies the states, in shared memory, by a row of
the weights, or by a part of one with its neighbours. It holds these in registers where they fit; elsewhere it reads
them in every step, turned round, so that neighbours read neighbours. Then all threads make the new states of what the
rows gave.
"""

from __future__ import annotations

from .copy import copied
from .indexing import View, view
from .kernel import Kernel, Ref, blocks
from .lowering import Site
from .prelude import c_type
from .recurrent_arrangement import MOST_THREADS, Arrangement, faster, holding, tile_of
from .recurrent_cells import Layer, Stage, Tensors, activations, constants, declare, ending, placed, unit
from .signature import Signature, indented

_STEP_CLOCKS = 800
"""How long a step of the walk takes that has nothing to multiply: barriers, and functions of few numbers."""


def arranged(layer: Layer) -> Arrangement | None:
    """Return how one kernel walks over a layer; None where launches for each step may be faster."""
    rows, tile = layer.gates * layer.hidden, tile_of(layer)
    if rows > MOST_THREADS:
        return None
    made = holding(tile, rows, layer.hidden) or Arrangement(tile, 1, 0, -(-rows // 32) * 32)
    return made if faster(layer, made, _shared_bytes(layer, made), _STEP_CLOCKS) else None


def _room(layer: Layer, a: Arrangement) -> dict[str, tuple[str, int]]:
    """Return the arrays in shared memory: how many numbers an entry has in each, as text and as a number."""
    depth = "depth", a.depth(layer.hidden)
    unit = "(int)hidden", layer.hidden
    room = {"h": depth, **({"reset_h": depth} if layer.cell == "gru" else {})}
    room["sums"] = "rows", layer.gates * layer.hidden
    if layer.cell in ("gru_linear", "lstm"):
        room["fresh_n" if layer.cell == "gru_linear" else "c"] = unit
    return room


def _shared_bytes(layer: Layer, a: Arrangement) -> int:
    return a.tile * sum(n for _, n in _room(layer, a).values()) * layer.exact.itemsize


def walk(site: Site, layer: Layer, tensors: Tensors, weights: Ref, a: Arrangement) -> None:
    """Add the kernel of a layer, and the copy of its weights that it reads.

    Args:
        site: where.
        layer: what.
        tensors: what is read and written.
        weights: R, (D, G H, H), without gaps.
        a: how.
    """
    rows, h = layer.gates * layer.hidden, layer.hidden
    if not a.each:
        turned = site.temporary(layer.dtype, (layer.directions, h, rows))
        made = copied(View(weights, turned.operand.shape, (rows * h, 1, h)), view(turned))
        site.launch(made.kernel, made.grid, made.block, made.arguments, writes=made.writes)
        weights = turned
    s = Signature(wide=tensors.wide)
    declare(s, layer, tensors, ("b", "lengths", "h0", "c0", "peepholes"))
    s.reads("r", weights)
    for name in ("h", "c"):
        if name in tensors.results:
            s.writes(f"{name}_last", tensors.results[name])
    s.divisor("hidden", h)
    s.integer("depth", a.depth(h))
    numbers = f"enum {{ TILE = {a.tile}, PARTS = {a.parts}, EACH = {a.each}, THREADS = {a.threads} }};\n"
    before = f"typedef {c_type(layer.dtype)} W;\n" + numbers + constants(layer) + activations(layer)
    name = f"{layer.cell}_walk" + ("_held" if a.each else "")
    kernel: Kernel = s.kernel(name, _text(layer, tensors, a), threads=a.threads, registers=a.registers, before=before)
    grid = (blocks(layer.batch, a.tile), layer.directions, 1)
    site.launch(kernel, grid, (a.threads, 1, 1), s.arguments, writes=s.written, shared_bytes=_shared_bytes(layer, a))


# text -----------------------------------------------------------------------------------------------------------------

_HEAD = """
extern __shared__ __align__(16) C room[];
const int tid = threadIdx.x, row = tid / PARTS, part = tid % PARTS;
const int d = blockIdx.y, first = blockIdx.x * TILE;
const int rows = GATES * (int)hidden;
const bool owns = row < rows;
{arrays}
{ends}
for (int i = tid; i < TILE * {states} * depth; i += THREADS) room[i] = 0;
{biases}
{hold}
C next[TILE];
__syncthreads();
{initial}
{fetch}
__syncthreads();
for (i32 step = 0; step < steps; ++step) {{
{loop}
}}
{last}
"""

ENDS = """
__shared__ i32 ends[TILE];
if (tid < TILE) ends[tid] = first + tid < batch ? {end} : 0;
"""

_BIASES = """
C wb = 0, rb = 0;
if (owns && part == 0) {
    wb = widen(b[d * 2 * rows + row]);
    rb = widen(b[d * 2 * rows + rows + row]);
}
"""

_HOLD = """
C held[EACH];
#pragma unroll
for (int i = 0; i < EACH; ++i) {
    const int k = (i / 4 * PARTS + part) * 4 + i % 4;
    held[i] = owns && k < hidden ? (C)widen(r[((index)d * rows + row) * hidden + k]) : (C)0;
}
"""

_FETCH = """
#pragma unroll
for (int e = 0; e < TILE; ++e) {{
    const int entry = first + e;
    next[e] = 0;
    if (owns && part == 0 && entry < batch && {step} < steps) {{
        const index place = {place};
        next[e] = x[place * x_step + entry * x_entry + d * rows + row];
    }}
}}
"""

HELD_PRODUCT = """
#pragma unroll
for (int i = 0; i < EACH / 4; ++i) {{
    #pragma unroll
    for (int e = 0; e < TILE; ++e) {{
        const pack<C, 4> s = *(const pack<C, 4>*)({source} + e * depth + (i * PARTS + part) * 4);
        #pragma unroll
        for (int u = 0; u < 4; ++u) total[e] += held[i * 4 + u] * s.at[u];
    }}
}}
"""

_READ_PRODUCT = """
const W* w = r + (index)d * hidden * rows + row;
#pragma unroll {unroll}
for (int k = 0; k < hidden / 4 * 4; k += 4) {{
    C own[4];
    #pragma unroll
    for (int u = 0; u < 4; ++u) own[u] = widen(w[(index)(k + u) * rows]);
    #pragma unroll
    for (int e = 0; e < TILE; ++e) {{
        const pack<C, 4> s = *(const pack<C, 4>*)({source} + e * depth + k);
        #pragma unroll
        for (int u = 0; u < 4; ++u) total[e] += own[u] * s.at[u];
    }}
}}
for (int k = hidden / 4 * 4; k < hidden; ++k) {{
    const C own = widen(w[(index)k * rows]);
    #pragma unroll
    for (int e = 0; e < TILE; ++e) total[e] += own * {source}[e * depth + k];
}}
"""

_SHARED_SUM = """
#pragma unroll
for (int m = 1; m < PARTS; m *= 2) {
    #pragma unroll
    for (int e = 0; e < TILE; ++e) total[e] += __shfl_xor_sync(0xffffffffu, total[e], m);
}
"""

_MINE = {
    "whole": "owns",
    "reset": "owns && row < 2 * (int)hidden",
    "candidate": "owns && row >= 2 * (int)hidden",
}
"""Which threads multiply."""

UNITS = """
for (int at = tid; at < TILE * (int)hidden; at += THREADS) {{
    const int e = quotient(at, (i32)hidden, hidden_m, hidden_s), j = at - e * (int)hidden;
    const int entry = first + e;
    if (entry < batch) {{
{body}
    }}
}}
"""


def _text(layer: Layer, tensors: Tensors, a: Arrangement) -> str:
    """Return the text of the kernel."""
    given, room = tensors.given, _room(layer, a)
    arrays, before = [], ""
    for name, (size, _) in room.items():
        arrays.append(f"C* const {name} = room{before};")
        before += f" + TILE * {size}"
    end = "ends[e]" if "lengths" in given else "steps"
    stages: tuple[Stage, ...] = ("reset", "candidate") if layer.cell == "gru" else ("whole",)

    def fetch(step: str) -> str:
        return _FETCH.format(step=step, place=placed(layer, f"({step})", end))

    parts = []
    for stage in stages:
        source = "reset_h" if stage == "candidate" else "h"
        parts.append(_multiplied(layer, a, _MINE[stage], source, "b" in given))
        parts += [fetch("step + 1")] if stage == stages[-1] else []
        parts += ["__syncthreads();", UNITS.format(body=indented(_unit(layer, tensors, stage, end), 2))]
        parts.append("__syncthreads();")
    return _HEAD.format(
        arrays="\n".join(arrays), states=1 + ("reset_h" in room),
        ends=ENDS.format(end=ending(given, "first + tid")) if "lengths" in given else "",
        biases=_BIASES if "b" in given else "", hold=_HOLD if a.each else "", initial=_initial(layer, tensors),
        fetch=fetch("0"), loop=indented("\n".join(parts)), last=_last(tensors),
    )  # fmt: skip


def _multiplied(layer: Layer, a: Arrangement, mine: str, source: str, biased: bool) -> str:
    """Return the statements by which threads multiply their rows and store what the gates are computed of."""
    product = (HELD_PRODUCT if a.each else _READ_PRODUCT).format(source=source, unroll=4 if a.tile == 1 else 2)
    fresh, rest = ("next[e] + wb", "total[e] + rb") if biased else ("next[e]", "total[e]")
    stored = f"sums[e * rows + row] = {fresh} + {rest};"
    if layer.cell == "gru_linear":
        apart = f"fresh_n[e * (int)hidden + row - 2 * (int)hidden] = {fresh};\nsums[e * rows + row] = {rest};"
        stored = f"if (row >= 2 * (int)hidden) {{\n{indented(apart)}\n}} else {{\n{indented(stored)}\n}}"
    loop = f"#pragma unroll\nfor (int e = 0; e < TILE; ++e) {{\n{indented(stored)}\n}}"
    return (
        f"{{\n    C total[TILE];\n    #pragma unroll\n    for (int e = 0; e < TILE; ++e) total[e] = 0;\n"
        f"    if ({mine}) {{\n{indented(product, 2)}\n    }}\n{indented(_SHARED_SUM if a.parts > 1 else '')}\n"
        f"    if ({mine} && part == 0) {{\n{indented(loop, 2)}\n    }}\n}}"
    )


def _unit(layer: Layer, tensors: Tensors, stage: Stage, end: str) -> str:
    """Return the statements of one unit."""
    gates = {"whole": range(layer.gates), "reset": range(2), "candidate": range(2, 3)}[stage]
    lines = [f"const bool live = {f'step < {end}' if 'lengths' in tensors.given else 'true'};"]
    lines.append(f"const index place = {placed(layer, 'step', end)};")
    lines += [f"const C a{g} = sums[e * rows + {g} * (int)hidden + j];" for g in gates]
    lines.append("const C h_old = h[e * depth + j];")
    lines += ["const C fresh = fresh_n[at];"] if layer.cell == "gru_linear" else []
    lines += ["const C c_old = c[at];"] if layer.cell == "lstm" else []
    lines += ["const C z = sums[e * rows + j];"] if stage == "candidate" else []
    lines.append(unit(layer, tensors, stage))
    if stage == "reset":
        lines += ["sums[e * rows + j] = z;", "reset_h[e * depth + j] = reset * h_old;"]
    else:
        lines.append("h[e * depth + j] = live ? h_new : h_old;")
        lines += ["c[at] = live ? c_new : c_old;"] if layer.cell == "lstm" else []
    return "\n".join(lines)


def _initial(layer: Layer, tensors: Tensors) -> str:
    """Return the statements that fill the states."""
    read = "{0}[((index)d * batch + entry) * hidden + j]"
    lines = [f"h[e * depth + j] = widen({read.format('h0')});"] if "h0" in tensors.given else []
    if layer.cell == "lstm":
        c0 = f"widen({read.format('c0')})" if "c0" in tensors.given else "0"
        lines.append(f"c[at] = {c0};")
    return UNITS.format(body=indented("\n".join(lines), 2)) if lines else ""


def _last(tensors: Tensors) -> str:
    """Return the statements that store the last states."""
    states = {"h": "h[e * depth + j]", "c": "c[at]"}
    lines = [
        f"narrow({value}, &{name}_last[((index)d * batch + entry) * hidden + j]);"
        for name, value in states.items()
        if name in tensors.results
    ]
    return UNITS.format(body=indented("\n".join(lines), 2)) if lines else ""
