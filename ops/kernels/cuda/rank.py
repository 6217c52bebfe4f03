"""The k largest or smallest along an axis, in order, and where they are; of equal ones the first come first.

Elements become unsigned keys of the same order (NaN beyond all, both zeros one). A warp takes the largest of a short
row one by one; else a block finds the k-th key digit by digit, collects what is before it and the first of those equal
to it, and sorts these in shared memory.

Source: Alabi et al. 2012 (radix selection); Batcher 1968 (bitonic sort).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...types import DType
from .kernel import Ref, blocks
from .lowering import Site, lowers
from .prelude import C_TYPES, c_type, computed
from .signature import Signature, is_wide

LARGEST_K = 1024
"""More than this are left to the array kernel, which sorts."""

_SHORT, _FEW = 256, 16
"""Rows of at most so many elements of which so few are wanted go to a warp."""

_THREADS = 256

_LONG = 4096
"""Longer rows have blocks of 1024 threads."""

_KEYS = {
    "float": ("u32", """
    const u32 bits = __float_as_uint(x == 0.0f ? 0.0f : x);
    if (x != x) return 0xffffffffu;
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;"""),
    "double": ("u64", """
    const u64 bits = (u64)__double_as_longlong(x == 0.0 ? 0.0 : x);
    if (x != x) return ~0ull;
    return bits >> 63 ? ~bits : bits | (1ull << 63);"""),
    "signed": ("u32", "\n    return (u32)(i32)x ^ 0x80000000u;"),
    "unsigned": ("u32", "\n    return (u32)x;"),
    "i64": ("u64", "\n    return (u64)x ^ (1ull << 63);"),
    "u64": ("u64", "\n    return x;"),
}  # fmt: skip


def _key_text(dtype: DType, largest: bool) -> tuple[str, str]:
    """Return the type of keys, and the function that makes one: larger ones come first."""
    number = computed(dtype)
    kind = number if number in _KEYS else "unsigned" if number == "bool" or dtype.kind == "u" else "signed"
    ctype, body = _KEYS[kind]
    turned = "key" if largest else f"({ctype})~key"
    text = f"""
typedef {ctype} key_t;
static __device__ __forceinline__ key_t ascending({number} x) {{{body}
}}
static __device__ __forceinline__ key_t key_of({number} x) {{
    const key_t key = ascending(x);
    return {turned};
}}
"""
    return ctype, text


@lowers("topk")
def _topk(site: Site) -> bool:
    x = site.types[0]
    k, axis = site.attrs["k"], site.attrs["axis"] % x.ndim
    n = int(x.shape[axis])
    if x.dtype.name not in C_TYPES or not isinstance(k, int) or not 0 < k <= min(n, LARGEST_K):
        return False
    source, values, places = site.read(0), site.write(0), site.write(1)
    rows = x.size // n if n else 0
    if rows == 0:
        return True
    s = Signature(is_wide(source.operand, values.operand))
    s.reads("x", source)
    s.writes("values", values)
    s.writes("places", places)
    beside = [i for i in range(x.ndim) if i != axis]
    sizes = [(f"c{i}", int(x.shape[i])) for i in beside]
    walk = s.unravel("row", sizes)

    def base(name: str, ref: Ref) -> str:
        strides: Sequence[int] = ref.operand.strides
        s.size(f"{name}_step", strides[axis])
        return s.offset(f"{name}_row", [(f"c{i}", strides[i]) for i in beside])

    head = f"{walk}\nconst {c_type(x.dtype)}* from = x + ({base('x', source)});\n"
    head += f"{c_type(values.operand.dtype)}* best = values + ({base('values', values)});\n"
    head += f"i64* where = places + ({base('places', places)});\n"
    s.integer("n", n)
    s.integer("k", k)
    ctype, keys = _key_text(x.dtype, site.attrs.get("largest", True))
    if ctype == "u32" and n <= _SHORT and k <= _FEW:
        _by_warp(site, s, head, keys, rows, n)
    else:
        _by_block(site, s, head, keys, rows, n, k, ctype)
    return True


def _by_warp(site: Site, s: Signature, head: str, keys: str, rows: int, n: int) -> None:
    """Launch a warp a row: each lane holds a few elements; the best of all is taken and forgotten k times."""
    each = 1 << (-(-n // 32) - 1).bit_length()
    s.size("rows", rows)
    body = f"""
const i64 warp = (i64)blockIdx.x * {_THREADS // 32} + threadIdx.x / 32;
const int lane = threadIdx.x % 32;
if (warp >= rows) return;
const index row = (index)warp;
{head}
/* Key above, the place turned round below: the larger is the better, of equal keys the first. 0 is nothing. */
u64 held[{each}];
#pragma unroll
for (int j = 0; j < {each}; ++j) {{
    const int i = j * 32 + lane;
    held[j] = i < n ? ((u64)key_of(widen(from[i * x_step])) << 32) | (0xffffffffu - (u32)i) : 0;
}}
for (int taken = 0; taken < k; ++taken) {{
    u64 top = 0;
    #pragma unroll
    for (int j = 0; j < {each}; ++j) top = held[j] > top ? held[j] : top;
    #pragma unroll
    for (int m = 16; m > 0; m /= 2) {{
        const u64 other = (u64)__shfl_xor_sync(0xffffffffu, (i64)top, m);
        top = other > top ? other : top;
    }}
    #pragma unroll
    for (int j = 0; j < {each}; ++j) if (held[j] == top) held[j] = 0;
    const u32 place = 0xffffffffu - (u32)top;
    if (lane == 0) {{
        best[taken * values_step] = from[(index)place * x_step];
        where[taken * places_step] = place;
    }}
}}
"""
    made = s.kernel("topk_warp", body, before=keys)
    grid = (blocks(rows, _THREADS // 32), 1, 1)
    site.launch(made, grid, (_THREADS, 1, 1), s.arguments, writes=s.written)


def _by_block(site: Site, s: Signature, head: str, keys: str, rows: int, n: int, k: int, ctype: str) -> None:
    """Launch a block a row: radix selection of the k-th key, an ordered collection, a bitonic sort."""
    bits = 8 * np.dtype(np.uint32 if ctype == "u32" else np.uint64).itemsize
    threads = _THREADS if n <= _LONG else 1024
    room = 1 << (k - 1).bit_length()
    body = f"""
__shared__ int found[256];
__shared__ int counts[2][{threads // 32}];
__shared__ int chosen, left;
__shared__ key_t kept[{room}];
__shared__ i32 at[{room}];
const index row = blockIdx.x;
const int thread = threadIdx.x, warp = thread / 32, lane = thread % 32;
{head}
/* Digits from the top: how many keys are larger than the k-th, and which are like it so far. */
key_t prefix = 0;
int wanted = k;
for (int shift = {bits - 8}; shift >= 0; shift -= 8) {{
    if (thread < 256) found[thread] = 0;
    __syncthreads();
    for (int i = thread; i < n; i += {threads}) {{
        const key_t key = key_of(widen(from[i * x_step]));
        const bool like = shift == {bits - 8} || (key >> (shift + 8)) == (prefix >> (shift + 8));
        if (like) atomicAdd(&found[255 - ((key >> shift) & 255)], 1);
    }}
    __syncthreads();
    /* Sums of what has a larger digit, and this one. */
    for (int step = 1; step < 256; step *= 2) {{
        const int more = thread < 256 && thread >= step ? found[thread - step] : 0;
        __syncthreads();
        if (thread < 256) found[thread] += more;
        __syncthreads();
    }}
    if (thread < 256) {{
        const int ahead = thread > 0 ? found[thread - 1] : 0;
        if (ahead < wanted && wanted <= found[thread]) {{
            chosen = 255 - thread;
            left = wanted - ahead;
        }}
    }}
    __syncthreads();
    prefix |= (key_t)chosen << shift;
    wanted = left;
    __syncthreads();
}}
/* The k-th key is `prefix`; of those equal to it the first `wanted` are taken. */
for (int i = thread; i < {room}; i += {threads}) {{
    kept[i] = 0;
    at[i] = 0x7fffffff;
}}
int larger = 0, equal = 0;
const u32 below = (1u << lane) - 1u;
for (int first = 0; first < n && (larger < k - wanted || equal < wanted); first += {threads}) {{
    const int i = first + thread;
    const key_t key = i < n ? key_of(widen(from[i * x_step])) : 0;
    const bool more = i < n && key > prefix, same = i < n && key == prefix;
    const u32 mores = __ballot_sync(0xffffffffu, more), sames = __ballot_sync(0xffffffffu, same);
    if (lane == 0) {{
        counts[0][warp] = __popc(mores);
        counts[1][warp] = __popc(sames);
    }}
    __syncthreads();
    int to_more = larger + __popc(mores & below), to_same = equal + __popc(sames & below);
    #pragma unroll
    for (int w = 0; w < {threads // 32}; ++w) {{
        if (w < warp) {{
            to_more += counts[0][w];
            to_same += counts[1][w];
        }}
        larger += counts[0][w];
        equal += counts[1][w];
    }}
    if (more) {{
        kept[to_more] = key;
        at[to_more] = i;
    }}
    if (same && to_same < wanted) {{
        kept[k - wanted + to_same] = key;
        at[k - wanted + to_same] = i;
    }}
    __syncthreads();
}}
__syncthreads();
/* Largest keys first, then smallest places; what fills up to a power of two comes last. */
for (int size = 2; size <= {room}; size *= 2) {{
    for (int step = size / 2; step > 0; step /= 2) {{
        for (int i = thread; i < {room}; i += {threads}) {{
            const int j = i ^ step;
            if (j > i) {{
                const bool after = kept[i] < kept[j] || (kept[i] == kept[j] && at[i] > at[j]);
                if (after == ((i & size) == 0)) {{
                    const key_t key = kept[i];
                    const i32 place = at[i];
                    kept[i] = kept[j];
                    at[i] = at[j];
                    kept[j] = key;
                    at[j] = place;
                }}
            }}
        }}
        __syncthreads();
    }}
}}
for (int i = thread; i < k; i += {threads}) {{
    best[i * values_step] = from[at[i] * x_step];
    where[i * places_step] = at[i];
}}
"""
    made = s.kernel("topk_block", body, threads=threads, before=keys)
    site.launch(made, (rows, 1, 1), (threads, 1, 1), s.arguments, writes=s.written)
