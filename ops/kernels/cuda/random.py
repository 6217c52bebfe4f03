"""Random draws of a key: the same numbers as NumPy's generator `Philox(key)` gives, whose blocks are counted from 1.

A block is four 64-bit words: four numbers of float64 or eight of float32. Normal draws stay NumPy's: its ziggurat
rejects, so that where a number comes from hangs on those before it.

Source: Salmon et al. 2011 (Philox4x64-10).
"""

from __future__ import annotations

import numpy as np

from .lowering import Site, lowers
from .operand import Operand
from .prelude import C_TYPES, c_type, computed
from .signature import Signature, is_wide

PHILOX = r"""
struct words { u64 at[4]; };

/* Block `number` of a key's stream. */
static __device__ __forceinline__ words philox(u64 number, u64 key0, u64 key1) {
    u64 a = number, b = 0, c = 0, d = 0;
    #pragma unroll
    for (int round = 0; round < 10; ++round) {
        const u64 high0 = __umul64hi(0xD2E7470EE14C6C93ull, a), low0 = 0xD2E7470EE14C6C93ull * a;
        const u64 high1 = __umul64hi(0xCA5A826395121157ull, c), low1 = 0xCA5A826395121157ull * c;
        a = high1 ^ b ^ key0;
        b = low1;
        c = high0 ^ d ^ key1;
        d = low0;
        key0 += 0x9E3779B97F4A7C15ull;
        key1 += 0xBB67AE8584CAA73Bull;
    }
    return words{{a, b, c, d}};
}

/* Number i of the 8 in a block, from [0, 1). */
static __device__ __forceinline__ float even(const words& w, int i) {
    return (float)((u32)(w.at[i / 2] >> (i % 2 * 32)) >> 8) * (1.0f / 16777216.0f);
}

/* Number i of the 4 in a block, from [0, 1). */
static __device__ __forceinline__ double even_double(const words& w, int i) {
    return (double)(w.at[i] >> 11) * (1.0 / 9007199254740992.0);
}
"""
"""Defines `words`, `philox(number, key0, key1)`, `even(words, i)` and `even_double(words, i)`."""

SINGLES, DOUBLES = 8, 4
"""How many numbers a block has."""


def groups(count: int, each: int) -> int:
    """Return how many threads make so many numbers, `each` a block of the generator."""
    return -(-count // each)


def vector_of(each: int, *operands: Operand) -> bool:
    """Return whether row-major tensors can be read and written a block's numbers at a time."""
    return all(o.size % each == 0 and o.offset % each == 0 for o in operands)


@lowers("fold_key")
def _fold_key(site: Site) -> bool:
    number = site.attrs["number"]
    if not isinstance(number, int) or not 0 <= number < 2**63 - 1:
        return False
    key, y = site.read(0, order="plain"), site.write(order="plain")
    s = Signature(wide=True)
    s.reads("key", key)
    s.writes("y", y)
    s.size("number", number)
    body = "const words w = philox((u64)number + 1, key[0], key[1]);\ny[0] = w.at[0];\ny[1] = w.at[1];"
    s.launch(site, "fold_key", body, 1, before=PHILOX, threads=32)
    return True


@lowers("random_uniform")
def _random_uniform(site: Site) -> bool:
    if site.results[0].dtype.name not in C_TYPES:
        return False
    y = site.write(order="plain")
    o = y.operand
    double = o.dtype == np.float64
    number, each = ("double", DOUBLES) if double else ("float", SINGLES)
    low, high = site.attrs["low"], site.attrs["high"]
    s = Signature(is_wide(o))
    s.reads("key", site.read(0, order="plain"))
    s.writes("y", y)
    s.size("count", o.size)
    s.real("low", low, number)
    s.real("range", high - low, number)
    draw = "even_double(w, i)" if double else "even(w, i)"
    # The product and the sum are rounded one by one, as NumPy does.
    add, multiply = ("__dadd_rn", "__dmul_rn") if double else ("__fadd_rn", "__fmul_rn")
    body = f"""
const words w = philox((u64)t + 1, key[0], key[1]);
const index first = t * {each};
#pragma unroll
for (int i = 0; i < {each}; ++i) {{
    if (first + i < count) narrow({add}(low, {multiply}(range, {draw})), &y[first + i]);
}}
"""
    s.launch(site, "random_uniform", body, groups(o.size, each), before=PHILOX)
    return True


@lowers("bernoulli")
def _bernoulli(site: Site) -> bool:
    p = site.types[0]
    if p.dtype.name not in ("float16", "bfloat16", "float32", "float64"):
        return False
    if site.results[0].dtype.name not in C_TYPES:
        return False
    source, key, y = site.read(0, order="plain"), site.read(1, order="plain"), site.write(order="plain")
    o = y.operand
    s = Signature(is_wide(o, source.operand))
    s.reads("p", source)
    s.reads("key", key)
    s.writes("y", y)
    s.size("count", o.size)
    whole = vector_of(DOUBLES, o, source.operand)
    stored, out, number = c_type(p.dtype), c_type(o.dtype), computed(o.dtype)
    draw = f"even_double(w, i) < (double)widen({{0}}) ? ({number})1 : ({number})0"
    if whole:
        inner = f"""
const pack<{stored}, {DOUBLES}> limit = *(const pack<{stored}, {DOUBLES}>*)(p + first);
pack<{out}, {DOUBLES}> drawn;
#pragma unroll
for (int i = 0; i < {DOUBLES}; ++i) narrow(({number})({draw.format("limit.at[i]")}), &drawn.at[i]);
*(pack<{out}, {DOUBLES}>*)(y + first) = drawn;
"""
    else:
        inner = f"""
#pragma unroll
for (int i = 0; i < {DOUBLES}; ++i) {{
    if (first + i >= count) break;
    narrow(({number})({draw.format("p[first + i]")}), &y[first + i]);
}}
"""
    body = f"const words w = philox((u64)t + 1, key[0], key[1]);\nconst index first = t * {DOUBLES};\n{inner.strip()}"
    s.launch(site, "bernoulli", body, groups(o.size, DOUBLES), before=PHILOX)
    return True
