"""Gradients of recurrent layers whose recurrent weights are small: one kernel that walks back over time.

A block has some entries of the batch and a direction. In each step all threads make the gradients of the gates, in
shared memory, of what arrives at the states. Then a thread multiplies a part of these by its part of a column of the
weights, which it holds in registers where they fit, and reads in every step elsewhere; the parts are added up in the
next step.
"""

from __future__ import annotations

from .kernel import Kernel, blocks
from .lowering import Site
from .prelude import c_type
from .recurrent_arrangement import MOST_THREADS, Arrangement, faster, holding, tile_of
from .recurrent_cells import Layer, ending
from .recurrent_grad_cells import Half, Slopes, Tensors, declare, functions, head, unit
from .recurrent_walk import ENDS, HELD_PRODUCT, UNITS
from .signature import Signature, indented

_STEP_CLOCKS = 1600
"""How long a step takes that has nothing to multiply: what was kept of it is read, and two barriers."""


def arranged_back(layer: Layer) -> Arrangement | None:
    """Return how one kernel walks back over a layer; None where launches for each step may be faster."""
    rows, tile = layer.gates * layer.hidden, tile_of(layer)
    width = -(-layer.hidden // 32) * 32
    if width > MOST_THREADS:
        return None
    parts = max(1, MOST_THREADS // width)
    made = holding(tile, layer.hidden, rows, warps=True) or Arrangement(tile, parts, 0, width * parts)
    products = 2 if layer.cell == "gru" else 1
    return made if faster(layer, made, _shared_bytes(layer, made), _STEP_CLOCKS, products=products) else None


def _room(layer: Layer, a: Arrangement) -> dict[str, tuple[str, int]]:
    """Return the arrays in shared memory: how many numbers an entry has in each, as text and as a number."""
    own = "(int)hidden", layer.hidden
    room = {"factors": ("depth", a.depth(layer.gates * layer.hidden))}
    room |= {"sums": ("PARTS * (int)hidden", a.parts * layer.hidden), "carried": own}
    if layer.cell in ("gru", "lstm"):
        room["update" if layer.cell == "gru" else "cell"] = own
    return room


def _shared_bytes(layer: Layer, a: Arrangement) -> int:
    return a.tile * sum(n for _, n in _room(layer, a).values()) * layer.exact.itemsize


def walk_back(site: Site, layer: Layer, tensors: Tensors, slopes: Slopes, a: Arrangement) -> None:
    """Add the kernel of a layer's gradient.

    Args:
        site: where.
        layer: what.
        tensors: what is read and written.
        slopes: of the activations.
        a: how.
    """
    s = Signature(wide=tensors.wide)
    declare(s, layer, tensors, ("gh", "gc", "r"), ("gates", "beside", "dh", "dc"))
    s.divisor("hidden", layer.hidden)
    s.integer("depth", a.depth(layer.gates * layer.hidden))
    numbers = f"enum {{ TILE = {a.tile}, PARTS = {a.parts}, EACH = {a.each}, THREADS = {a.threads} }};\n"
    before = f"typedef {c_type(layer.dtype)} W;\n" + numbers + functions(layer, slopes)
    name = f"{layer.cell}_walk_back" + ("_held" if a.each else "")
    kernel: Kernel = s.kernel(name, _text(layer, tensors, a), threads=a.threads, registers=a.registers, before=before)
    grid = (blocks(layer.batch, a.tile), layer.directions, 1)
    site.launch(kernel, grid, (a.threads, 1, 1), s.arguments, writes=s.written, shared_bytes=_shared_bytes(layer, a))


# text -----------------------------------------------------------------------------------------------------------------

_TEXT = """
extern __shared__ __align__(16) C room[];
const int tid = threadIdx.x, part = tid / (THREADS / PARTS), own = tid % (THREADS / PARTS);
const int d = blockIdx.y, first = blockIdx.x * TILE;
const int rows = GATES * (int)hidden;
{arrays}
{ends}
for (int i = tid; i < TILE * depth; i += THREADS) factors[i] = 0;
for (int i = tid; i < TILE * PARTS * (int)hidden; i += THREADS) sums[i] = 0;
{hold}
{initial}
__syncthreads();
for (i32 step = steps - 1; step >= 0; --step) {{
{loop}
}}
{last}
"""

_HOLD = """
C held[EACH];
#pragma unroll
for (int i = 0; i < EACH; ++i) {
    const int k = (i / 4 * PARTS + part) * 4 + i % 4;
    held[i] = own < hidden && k < rows ? (C)widen(r[((index)d * rows + k) * hidden + own]) : (C)0;
}
"""

_READ_PRODUCT = """
const W* w = r + (index)d * rows * hidden + own;
#pragma unroll {unroll}
for (int k = part * 4; k + 3 < rows; k += PARTS * 4) {{
    C mine[4];
    #pragma unroll
    for (int u = 0; u < 4; ++u) mine[u] = widen(w[(index)(k + u) * hidden]);
    #pragma unroll
    for (int e = 0; e < TILE; ++e) {{
        const pack<C, 4> s = *(const pack<C, 4>*)({source} + e * depth + k);
        #pragma unroll
        for (int u = 0; u < 4; ++u) total[e] += mine[u] * s.at[u];
    }}
}}
for (int k = rows / 4 * 4 + part; k < rows; k += PARTS) {{
    const C mine = widen(w[(index)k * hidden]);
    #pragma unroll
    for (int e = 0; e < TILE; ++e) total[e] += mine * {source}[e * depth + k];
}}
"""

_MULTIPLIED = """
__syncthreads();
if (own < hidden) {{
    C total[TILE];
    #pragma unroll
    for (int e = 0; e < TILE; ++e) total[e] = 0;
{product}
    #pragma unroll
    for (int e = 0; e < TILE; ++e) sums[(e * PARTS + part) * (int)hidden + own] = total[e];
}}
__syncthreads();
"""

_SUMMED = """
C summed = 0;
#pragma unroll
for (int p = 0; p < PARTS; ++p) summed += sums[(e * PARTS + p) * (int)hidden + j];
"""

_PLACE = "const index t = ((index)d * batch + entry) * hidden + j;"


def _text(layer: Layer, tensors: Tensors, a: Arrangement) -> str:
    """Return the text of the kernel."""
    given, arrays, before = tensors.given, [], ""
    for name, (size, _) in _room(layer, a).items():
        arrays.append(f"C* const {name} = room{before};")
        before += f" + TILE * {size}"
    product = (HELD_PRODUCT if a.each else _READ_PRODUCT).format(source="factors", unroll=4 if a.tile == 1 else 2)
    halves: tuple[Half, ...] = ("candidate", "reset") if layer.cell == "gru" else ("whole",)
    parts = []
    for half in halves:
        parts.append(UNITS.format(body=indented(_step(layer, tensors, half), 2)))
        parts.append(_MULTIPLIED.format(product=indented(product)))
    return _TEXT.format(
        arrays="\n".join(arrays), ends=ENDS.format(end=ending(given, "first + tid")) if "lengths" in given else "",
        hold=_HOLD if a.each else "", initial=UNITS.format(body=indented(_initial(layer, tensors), 2)),
        loop=indented("\n".join(parts)), last=_last(tensors),
    )  # fmt: skip


def _step(layer: Layer, tensors: Tensors, half: Half) -> str:
    """Return the statements of a step back of one unit, or of half of it."""
    lines = [_PLACE, head(layer, tensors, "ends[e]" if "lengths" in tensors.given else "steps"), _SUMMED]
    lines.append(f"const C arrived = carried[at]{'' if half == 'reset' else ' + summed'};")
    lines += ["const C inside = summed;"] if half == "reset" else []
    lines += ["const C waiting = cell[at];"] if layer.cell == "lstm" else []
    made, factors = unit(layer, tensors, half)
    lines += [*made, "carried[at] = carry;", *(["cell[at] = cell_now;"] if layer.cell == "lstm" else [])]
    stored = {g: f"live ? {value} : (C)0" for g, value in factors.items()}
    if half == "candidate":  # the product of this half reads the candidate alone, that of the other half the rest
        lines.append(f"update[at] = {stored[0]};")
        stored = {0: "(C)0", 1: "(C)0", 2: stored[2]}
    elif half == "reset":
        stored = {0: "update[at]", 1: stored[1], 2: "(C)0"}
    lines += [f"factors[e * depth + {g} * (int)hidden + j] = {value};" for g, value in stored.items()]
    return "\n".join(lines)


def _initial(layer: Layer, tensors: Tensors) -> str:
    """Return the statements that fill what arrives at the last states."""
    states = {"carried": "gh"} | ({"cell": "gc"} if layer.cell == "lstm" else {})
    lines = [_PLACE]
    lines += [f"{name}[at] = {f'widen({g}[t])' if g in tensors.given else '0'};" for name, g in states.items()]
    return "\n".join(lines)


def _last(tensors: Tensors) -> str:
    """Return the statements that store what arrives at the initial states."""
    states = {"dh": "carried[at] + summed", "dc": "cell[at]"}
    lines = [f"narrow({value}, &{name}[t]);" for name, value in states.items() if name in tensors.results]
    return UNITS.format(body=indented("\n".join([_PLACE, _SUMMED, *lines]), 2)) if lines else ""
