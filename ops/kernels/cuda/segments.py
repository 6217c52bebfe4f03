"""Scatters whose results are the same from run to run: updates at places that may repeat are combined in their order.

Where few updates can meet, one thread goes through all of them. Otherwise the places are sorted (a stable radix sort:
only integers are counted with atomics), and runs of equal places are combined, split at fixed points so that long runs
are shared. Writes that combine nothing take the last of equals: its number wins by an atomic maximum.

Axes: updates are (A, U, B) with U = (O, I, R), the result is (A, P, B); update u goes to place `keys[u]`, and places of
P or more are dropped. Only updates along I may have equal places.
Source: Satish, Harris & Garland 2009 (radix sort); Merrill & Grimshaw 2010.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...types import DType
from .kernel import Ref, blocks
from .lowering import Site
from .prelude import c_type, computed
from .signature import DTYPES, Signature, indented, is_wide, lanes_of_rows

SERIAL = 32
"""Up to so many updates that may meet, one thread combines them."""

_DIGIT = 8
_TILE = 2048
_CHUNK = 32
"""Sorted updates that a thread combines."""

UINT32, INT32 = np.dtype(np.uint32), np.dtype(np.int32)

_COMBINE = {
    "none": "a = b;",
    "add": "a += b;",
    "mul": "a *= b;",
    "max": "if (b > a || b != b) a = b;",
    "min": "if (b < a || b != b) a = b;",
}


@dataclass(frozen=True)
class Scatter:
    """Updates and where they go.

    Attributes:
        updates: row-major, (A, U, B).
        y: row-major, (A, P, B), with what they are combined with.
        keys: the place of each update, u32.
        ahead: A.
        outer: O.
        meeting: I.
        inner: R.
        places: P.
        row: B.
        reduction: `none`, `add`, `mul`, `max` or `min`.
    """

    updates: Ref
    y: Ref
    keys: Ref
    ahead: int
    outer: int
    meeting: int
    inner: int
    places: int
    row: int
    reduction: str

    @property
    def count(self) -> int:
        """U."""
        return self.outer * self.meeting * self.inner


def scatter(site: Site, p: Scatter, *, distinct: bool = False) -> None:
    """Launch what combines updates with a result that is there; `distinct` says that no place repeats."""
    if p.ahead * p.count * p.row == 0 or p.places == 0:
        return
    if p.reduction == "none" and (distinct or p.meeting > SERIAL):
        _write(site, p, distinct)
    elif p.meeting <= SERIAL:
        _serial(site, p)
    else:
        keys, order = sort(site, p.keys, p.count, p.places)
        _runs(site, p, keys, order)


def _begin(p: Scatter) -> tuple[Signature, str, str, int]:
    """Return a signature with y and the updates, the types of elements, and the width of vectors."""
    s = Signature(is_wide(p.updates.operand, p.y.operand))
    moved = p.reduction == "none"
    dtype = p.y.operand.dtype
    stored = bits(dtype) if moved else None
    width = lanes_of_rows(p.row, p.updates.operand, p.y.operand)
    s.reads("updates", p.updates, stored or "")
    s.writes("y", p.y, stored or "")
    return s, stored or c_type(dtype), stored or computed(dtype), width


def bits(dtype: DType) -> str:
    """Return the unsigned type of the width of an element."""
    return {1: "u8", 2: "u16", 4: "u32", 8: "u64"}[dtype.itemsize]


def _lane(width: int, body: str) -> str:
    return f"#pragma unroll\nfor (int lane = 0; lane < {width}; ++lane) {{\n{indented(body)}\n}}"


def _vector(name: str, ctype: str, width: int, pointer: str, at: str) -> str:
    return f"const pack<{ctype}, {width}> {name} = *(const pack<{ctype}, {width}>*)({pointer} + ({at}));"


def _finish(stored: str, number: str, width: int, reduction: str, value: str, key: str) -> str:
    """Return text that combines `value[lane]` with the row of y at a place."""
    combine = f"{number} a = widen(old.at[lane]);\nconst {number} b = {value}[lane];\n{_COMBINE[reduction]}\n"
    old = (
        f"pack<{stored}, {width}>* target = (pack<{stored}, {width}>*)(y + (lead * y_a + (index){key} * row + column));"
    )
    return (
        f"{old}\npack<{stored}, {width}> old = *target;\n"
        + _lane(width, combine + f"narrow(({number})a, &old.at[lane]);")
        + "\n*target = old;"
    )


def _sizes(s: Signature, p: Scatter) -> None:
    s.size("row", p.row)
    s.size("updates_a", p.count * p.row)
    s.size("y_a", p.places * p.row)
    s.integer("places", p.places)


def _serial(site: Site, p: Scatter) -> None:
    """Launch a thread for each (a, o, r, b) that goes through the updates along I in their order."""
    s, stored, number, width = _begin(p)
    s.reads("keys", p.keys)
    _sizes(s, p)
    s.size("meeting", p.meeting)
    s.size("inner", p.inner)
    walk = s.unravel("t", [("lead", p.ahead), ("o", p.outer), ("r", p.inner), ("b", p.row // width)])
    body = f"""
{walk}
const index column = b * {width};
for (index i = 0; i < meeting; ++i) {{
    const index u = (o * meeting + i) * inner + r;
    const u32 key = keys[u];
    if (key >= (u32)places) continue;
{indented(_vector("e", stored, width, "updates", "lead * updates_a + u * row + column"))}
    {number} value[{width}];
{indented(_lane(width, "value[lane] = widen(e.at[lane]);"))}
{indented(_finish(stored, number, width, p.reduction, "value", "key"))}
}}
"""
    work = p.ahead * p.outer * p.inner * (p.row // width)
    s.launch(site, f"scatter_{p.reduction}_serial", body, work)


def _write(site: Site, p: Scatter, distinct: bool) -> None:
    """Launch what writes updates that combine nothing: those with the last number of each place."""
    winners = None
    if not distinct:
        winners = site.temporary(INT32, (p.places,))
        s = Signature()
        s.writes("winners", winners)
        s.launch(site, "scatter_clear", "winners[t] = -1;", p.places)
        s = Signature()
        s.reads("keys", p.keys)
        s.writes("winners", winners)
        s.integer("places", p.places)
        s.launch(site, "scatter_winners", "if (keys[t] < (u32)places) atomicMax(&winners[keys[t]], (int)t);", p.count)
    s, stored, _, width = _begin(p)
    s.reads("keys", p.keys)
    if winners is not None:
        s.reads("winners", winners)
    _sizes(s, p)
    walk = s.unravel("t", [("lead", p.ahead), ("u", p.count), ("b", p.row // width)])
    lost = " || winners[key] != (i32)u" if winners is not None else ""
    body = f"""
{walk}
const u32 key = keys[u];
if (key >= (u32)places{lost}) return;
*(pack<{stored}, {width}>*)(y + (lead * y_a + (index)key * row + b * {width})) =
    *(const pack<{stored}, {width}>*)(updates + (lead * updates_a + u * row + b * {width}));
"""
    s.launch(site, "scatter_write", body, p.ahead * p.count * (p.row // width))


# sorting --------------------------------------------------------------------------------------------------------------


def sort(site: Site, keys: Ref, count: int, bound: int) -> tuple[Ref, Ref]:
    """Return keys of at most `bound` in order, and the number that each had: equal keys keep theirs in order."""
    tiles = blocks(count, _TILE)
    digits = 1 << _DIGIT
    table = site.temporary(INT32, (digits, tiles))
    totals = site.temporary(INT32, (digits,))
    pairs = [(site.temporary(UINT32, (count,)), site.temporary(INT32, (count,))) for _ in range(2)]
    order: Ref | None = None
    for turn in range(max(1, -(-bound.bit_length() // _DIGIT))):
        shift = turn * _DIGIT
        _count(site, keys, table, count, tiles, shift)
        _scan(site, table, totals, tiles)
        there, numbers = pairs[turn % 2]
        _place(site, keys, order, there, numbers, table, totals, count, tiles, shift)
        keys, order = there, numbers
    assert order is not None
    return keys, order


def _count(site: Site, keys: Ref, table: Ref, count: int, tiles: int, shift: int) -> None:
    s = Signature()
    s.reads("keys", keys)
    s.writes("table", table)
    s.size("count", count)
    s.size("tiles", tiles)
    s.integer("shift", shift)
    body = f"""
__shared__ int found[256];
found[threadIdx.x] = 0;
__syncthreads();
for (int j = threadIdx.x; j < {_TILE}; j += 256) {{
    const i64 i = (i64)blockIdx.x * {_TILE} + j;
    if (i < count) atomicAdd(&found[(keys[i] >> shift) & 255u], 1);
}}
__syncthreads();
table[(i64)threadIdx.x * tiles + blockIdx.x] = found[threadIdx.x];
"""
    made = s.kernel("sort_count", body)
    site.launch(made, (tiles, 1, 1), (256, 1, 1), s.arguments, writes=s.written)


_SUMS = r"""
/* The sum of what the threads before this one have; `slots` holds 2 * 256 numbers. */
static __device__ __forceinline__ int before(int x, int* slots) {
    int* from = slots;
    int* to = slots + 256;
    from[threadIdx.x] = x;
    __syncthreads();
    for (int step = 1; step < 256; step *= 2) {
        to[threadIdx.x] = from[threadIdx.x] + (threadIdx.x >= step ? from[threadIdx.x - step] : 0);
        __syncthreads();
        int* other = from;
        from = to;
        to = other;
    }
    const int all = from[threadIdx.x];
    __syncthreads();
    return all - x;
}
"""


def _scan(site: Site, table: Ref, totals: Ref, tiles: int) -> None:
    """Launch the kernel that makes each digit's counts how many lie in earlier tiles, a block a digit."""
    s = Signature()
    s.writes("table", table)
    s.writes("totals", totals)
    s.size("tiles", tiles)
    body = """
__shared__ int slots[512];
__shared__ int last;
int total = 0;
for (index first = 0; first < tiles; first += 256) {
    const i64 at = (i64)blockIdx.x * tiles + first + threadIdx.x;
    const int x = first + threadIdx.x < tiles ? table[at] : 0;
    const int ahead = before(x, slots);
    if (first + threadIdx.x < tiles) table[at] = total + ahead;
    if (threadIdx.x == 255) last = ahead + x;
    __syncthreads();
    total += last;
    __syncthreads();
}
if (threadIdx.x == 0) totals[blockIdx.x] = total;
"""
    made = s.kernel("sort_scan", body, before=_SUMS)
    site.launch(made, (256, 1, 1), (256, 1, 1), s.arguments, writes=s.written)


def _place(
    site: Site, keys: Ref, order: Ref | None, there: Ref, numbers: Ref, table: Ref, totals: Ref, count: int, tiles: int,
    shift: int,
) -> None:  # fmt: skip
    """Launch the kernel that moves keys and their numbers; a warp has 256 neighbours, 32 at a time."""
    s = Signature()
    s.reads("keys", keys)
    if order is not None:
        s.reads("order", order)
    s.writes("there", there)
    s.writes("numbers", numbers)
    s.reads("table", table)
    s.reads("totals", totals)
    s.size("count", count)
    s.size("tiles", tiles)
    s.integer("shift", shift)
    rounds = _TILE // 256
    body = f"""
__shared__ int slots[512];
__shared__ int next[8][256];
const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
for (int w = 0; w < 8; ++w) next[w][threadIdx.x] = 0;
const int base = before(totals[threadIdx.x], slots) + table[(i64)threadIdx.x * tiles + blockIdx.x];
const i64 first = (i64)blockIdx.x * {_TILE} + warp * {_TILE // 8} + lane;
u32 held[{rounds}];
#pragma unroll
for (int j = 0; j < {rounds}; ++j) {{
    const i64 i = first + j * 32;
    held[j] = i < count ? keys[i] : 0u;
    if (i < count) atomicAdd(&next[warp][(held[j] >> shift) & 255u], 1);
}}
__syncthreads();
int ahead = base;
for (int w = 0; w < 8; ++w) {{
    const int own = next[w][threadIdx.x];
    next[w][threadIdx.x] = ahead;
    ahead += own;
}}
__syncthreads();
#pragma unroll
for (int j = 0; j < {rounds}; ++j) {{
    const i64 i = first + j * 32;
    const bool active = i < count;
    const u32 digit = (held[j] >> shift) & 255u;
    u32 peers = __ballot_sync(0xffffffffu, active);
    #pragma unroll
    for (int bit = 0; bit < {_DIGIT}; ++bit) {{
        const bool one = (digit >> bit) & 1u;
        const u32 with = __ballot_sync(0xffffffffu, one);
        peers &= one ? with : ~with;
    }}
    const int rank = __popc(peers & ((1u << lane) - 1u));
    const int to = next[warp][digit] + rank;
    __syncwarp();
    if (active && rank == 0) next[warp][digit] += __popc(peers);
    __syncwarp();
    if (active) {{
        there[to] = held[j];
        numbers[to] = {"order[i]" if order is not None else "(i32)i"};
    }}
}}
"""
    made = s.kernel("sort_place", body, before=_SUMS)
    site.launch(made, (tiles, 1, 1), (256, 1, 1), s.arguments, writes=s.written)


# runs of equal places -------------------------------------------------------------------------------------------------


def _runs(site: Site, p: Scatter, keys: Ref, order: Ref) -> None:
    """Launch what combines runs of sorted updates: chunk by chunk, then what reaches over the ends of chunks."""
    chunks = blocks(p.count, _CHUNK)
    s, stored, number, width = _begin(p)
    wide = DTYPES[number]
    parts = site.temporary(wide, (p.ahead, chunks, 2, p.row))
    s.reads("keys", keys)
    s.reads("order", order)
    s.writes("parts", parts)
    _sizes(s, p)
    s.size("count", p.count)
    s.size("chunks", chunks)
    if s.wide is False and is_wide(parts.operand):
        s.wide = True
    walk = s.unravel("t", [("lead", p.ahead), ("chunk", chunks), ("b", p.row // width)])
    load = _vector("e", stored, width, "updates", "lead * updates_a + (index)order[at] * row + column")
    combine = (
        f"const {number} b = widen(e.at[lane]);\n{number} a = value[lane];\n"
        f"if (fresh) a = b; else {{ {_COMBINE[p.reduction]} }}\nvalue[lane] = a;"
    )
    finish = _finish(stored, number, width, p.reduction, "value", "key")

    def part(which: str) -> str:
        return _lane(width, f"parts[((lead * chunks + chunk) * 2 + {which}) * row + column + lane] = value[lane];")

    body = f"""
{walk}
const index column = b * {width};
const index first = chunk * {_CHUNK}, end = first + {_CHUNK} < count ? first + {_CHUNK} : count;
u32 key = keys[first];
bool headed = first > 0 && keys[first - 1] == key, fresh = true;
{number} value[{width}];
for (index at = first; at < end; ++at) {{
    const u32 here = keys[at];
    if (here >= (u32)places) break;
    if (here != key) {{
        if (headed) {{
{indented(part("0"), 3)}
        }} else {{
{indented(finish, 3)}
        }}
        key = here;
        headed = false;
        fresh = true;
    }}
{indented(load)}
{indented(_lane(width, combine))}
    fresh = false;
}}
if (fresh) return;
const bool more = end < count && keys[end] == key;
if (headed) {{
{indented(part("0"))}
}} else if (more) {{
{indented(part("1"))}
}} else {{
{indented(finish)}
}}
"""
    s.launch(site, f"scatter_{p.reduction}_chunks", body, p.ahead * chunks * (p.row // width))
    if chunks > 1:
        _joined(site, p, keys, parts, chunks)


def _joined(site: Site, p: Scatter, keys: Ref, parts: Ref, chunks: int) -> None:
    """Launch the kernel in which the chunk where a long run begins combines the parts of the chunks behind it."""
    s, stored, number, width = _begin(p)
    s.wide = s.wide or is_wide(parts.operand)
    s.reads("keys", keys)
    s.reads("parts", parts)
    _sizes(s, p)
    s.size("count", p.count)
    s.size("chunks", chunks)
    walk = s.unravel("t", [("lead", p.ahead), ("chunk", chunks), ("b", p.row // width)])
    combine = f"{number} a = value[lane];\nconst {number} b = parts[(lead * chunks + c) * 2 * row + column + lane];\n"
    body = f"""
{walk}
const index column = b * {width};
const index first = chunk * {_CHUNK}, end = first + {_CHUNK};
if (end >= count) return;
const u32 key = keys[end];
if (key >= (u32)places || keys[end - 1] != key) return;
if (first > 0 && keys[first] == key && keys[first - 1] == key) return;
{number} value[{width}];
{_lane(width, "value[lane] = parts[((lead * chunks + chunk) * 2 + 1) * row + column + lane];")}
for (index c = chunk + 1; c < chunks; ++c) {{
{indented(_lane(width, combine + _COMBINE[p.reduction] + chr(10) + "value[lane] = a;"))}
    if ((c + 1) * {_CHUNK} >= count || keys[(c + 1) * {_CHUNK}] != key) break;
}}
{_finish(stored, number, width, p.reduction, "value", "key")}
"""
    s.launch(site, f"scatter_{p.reduction}_joined", body, p.ahead * chunks * (p.row // width))
