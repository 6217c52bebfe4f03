"""Reductions among the threads of a block, as CUDA C++: what is folded, and how members of a group come together.

A *fold* is a struct with `none()`, `add(...)` of an element, `settled()`, the state that is merged, which has `merge`
and `across`: the state of the thread whose number differs in the bits of a mask. Sums have a fixed shape, so that
results are the same from run to run.

Source of merging moments: Chan, Golub & LeVeque 1983; of the running softmax: Milakov & Gimelshein 2018.
"""

from __future__ import annotations

from collections.abc import Iterable

_TOGETHER = r"""
#define INLINE static __device__ __forceinline__
#define MEMBER __device__ __forceinline__

INLINE float across(float x, int mask) { return __shfl_xor_sync(0xffffffffu, x, mask); }
INLINE double across(double x, int mask) { return __shfl_xor_sync(0xffffffffu, x, mask); }
INLINE i32 across(i32 x, int mask) { return __shfl_xor_sync(0xffffffffu, x, mask); }
INLINE u32 across(u32 x, int mask) { return (u32)__shfl_xor_sync(0xffffffffu, (i32)x, mask); }
INLINE i64 across(i64 x, int mask) { return __shfl_xor_sync(0xffffffffu, x, mask); }
INLINE u64 across(u64 x, int mask) { return (u64)__shfl_xor_sync(0xffffffffu, (i64)x, mask); }

INLINE float exponential(float x) { return expf(x); }
INLINE double exponential(double x) { return exp(x); }
INLINE float magnitude(float x) { return fabsf(x); }
INLINE double magnitude(double x) { return fabs(x); }

/* Merges the states of the MEMBERS threads of a group, STEP threads apart; each gets the whole. Groups of more than a
   warp fill the block and have MEMBERS * STEP / max(STEP, 32) * STEP slots in shared memory. */
template <int STEP, int MEMBERS, typename S> INLINE void together(S& s, S* slots) {
    constexpr int each = STEP < 32 ? 32 / STEP : 1;
    constexpr int near = MEMBERS < each ? MEMBERS : each;
    constexpr int slices = MEMBERS / near;
    #pragma unroll
    for (int m = 1; m < near; m <<= 1) s.merge(s.across(m * STEP));
    if (slices > 1) {
        constexpr int wide = STEP < 32 ? 32 : STEP;
        const int slice = threadIdx.x / wide, place = threadIdx.x % wide;
        if (place < STEP) slots[slice * STEP + place] = s;
        __syncthreads();
        if (STEP == 1) {
            s = slots[place % slices];
            #pragma unroll
            for (int m = 1; m < slices; m <<= 1) s.merge(s.across(m));
        } else {
            s = slots[place % STEP];
            #pragma unroll
            for (int i = 1; i < slices; ++i) s.merge(slots[i * STEP + place % STEP]);
        }
        __syncthreads();
    }
}
"""

_FOLDS = {
    "Sum": r"""
template <typename C> struct Sum {
    C value;
    static MEMBER Sum none() { return Sum{C(0)}; }
    MEMBER void add(C x) { value += x; }
    MEMBER Sum settled() const { return *this; }
    MEMBER void merge(const Sum& o) { value += o.value; }
    MEMBER Sum across(int mask) const { return Sum{::across(value, mask)}; }
};
""",
    "Product": r"""
template <typename C> struct Product {
    C value;
    static MEMBER Product none() { return Product{C(1)}; }
    MEMBER void add(C x) { value *= x; }
    MEMBER Product settled() const { return *this; }
    MEMBER void merge(const Product& o) { value *= o.value; }
    MEMBER Product across(int mask) const { return Product{::across(value, mask)}; }
};
""",
    "Extreme": r"""
/* The largest, or where SIGN is -1 the smallest; a NaN is beyond all. */
template <typename C, int SIGN> struct Extreme {
    C value;
    static MEMBER Extreme none() { return Extreme{(C)LEAST}; }
    MEMBER void add(C x) { if ((SIGN > 0 ? x > value : x < value) || x != x) value = x; }
    MEMBER Extreme settled() const { return *this; }
    MEMBER void merge(const Extreme& o) { add(o.value); }
    MEMBER Extreme across(int mask) const { return Extreme{::across(value, mask)}; }
};
""",
    "Top": r"""
/* The largest, past which NaNs go unseen. */
template <typename C> struct Top {
    C value;
    static MEMBER Top none() { return Top{-(C)INFINITE}; }
    MEMBER void add(C x) { value = x > value ? x : value; }
    MEMBER Top settled() const { return *this; }
    MEMBER void merge(const Top& o) { add(o.value); }
    MEMBER Top across(int mask) const { return Top{::across(value, mask)}; }
};
""",
    "Online": r"""
/* The largest and the sum of exponentials relative to it; a NaN is in the sum alone. */
template <typename C> struct Online {
    C top, total;
    static MEMBER Online none() { return Online{-(C)INFINITE, C(0)}; }
    MEMBER void add(C x) { merge(Online{x == x ? x : top, x == x ? C(1) : x}); }
    MEMBER void add(C t, C s) { merge(Online{t, s}); }
    MEMBER Online settled() const { return *this; }
    MEMBER void merge(const Online& o) {
        const C e = top == o.top ? C(1) : exponential(-magnitude(top - o.top));
        total = o.top > top ? total * e + o.total : total + o.total * e;
        top = o.top > top ? o.top : top;
    }
    MEMBER Online across(int mask) const { return Online{::across(top, mask), ::across(total, mask)}; }
};
""",
    "Best": r"""
/* Where the largest is, or where SIGN is -1 the smallest; a NaN is beyond all. Of equal ones the first, or the LAST. */
template <typename C, int SIGN, int LAST> struct Best {
    C value;
    i64 at;
    static MEMBER Best none() { return Best{C(0), -1}; }
    MEMBER void add(C x, i64 place) { merge(Best{x, place}); }
    MEMBER Best settled() const { return *this; }
    MEMBER void merge(const Best& o) {
        if (o.at < 0) return;
        const bool beyond = SIGN > 0 ? o.value > value : o.value < value;
        const bool nan = o.value != o.value, had = value != value;
        const bool same = o.value == value || (nan && had);
        if (at < 0 || (beyond && !had) || (nan && !had) || (same && (LAST ? o.at > at : o.at < at))) *this = o;
    }
    MEMBER Best across(int mask) const { return Best{::across(value, mask), ::across(at, mask)}; }
};
""",
    "Moments": r"""
/* Count, mean and sum of squared distances from it. */
template <typename C> struct Moments {
    C count, mean, squares;
    static MEMBER Moments none() { return Moments{C(0), C(0), C(0)}; }
    MEMBER void add(C n, C m, C q) { merge(Moments{n, m, q}); }
    MEMBER Moments settled() const { return *this; }
    MEMBER void merge(const Moments& o) {
        if (o.count == C(0)) return;
        if (count == C(0)) { *this = o; return; }
        const C n = count + o.count, d = o.mean - mean, part = o.count / n;
        mean += d * part;
        squares += o.squares + d * d * (count * part);
        count = n;
    }
    MEMBER Moments across(int mask) const {
        return Moments{::across(count, mask), ::across(mean, mask), ::across(squares, mask)};
    }
};

/* Moments of elements, added up relative to the first of them: no mean, however large, is squared. */
template <typename C> struct Shifted {
    C first, sum, squares;
    i32 count;
    static MEMBER Shifted none() { return Shifted{C(0), C(0), C(0), 0}; }
    MEMBER void add(C x) {
        if (count == 0) first = x;
        const C d = x - first;
        sum += d;
        squares += d * d;
        ++count;
    }
    MEMBER Moments<C> settled() const {
        if (count == 0) return Moments<C>::none();
        const C n = (C)count, by = sum / n, q = squares - sum * by;
        return Moments<C>{n, first + by, q < C(0) ? C(0) : q};
    }
};
""",
    "Joint": r"""
/* Moments of x, with the sums of g and of g (x - mean). */
template <typename C> struct Joint {
    C count, mean, squares, products, total;
    static MEMBER Joint none() { return Joint{C(0), C(0), C(0), C(0), C(0)}; }
    MEMBER void add(C n, C m, C q, C p, C t) { merge(Joint{n, m, q, p, t}); }
    MEMBER Joint settled() const { return *this; }
    MEMBER void merge(const Joint& o) {
        if (o.count == C(0)) return;
        if (count == C(0)) { *this = o; return; }
        const C n = count + o.count, d = o.mean - mean, part = o.count / n;
        products += o.products + (o.total - (total + o.total) * part) * d;
        total += o.total;
        mean += d * part;
        squares += o.squares + d * d * (count * part);
        count = n;
    }
    MEMBER Joint across(int mask) const {
        return Joint{::across(count, mask), ::across(mean, mask), ::across(squares, mask), ::across(products, mask),
                     ::across(total, mask)};
    }
};

/* The same of elements, added up relative to the first x. */
template <typename C> struct ShiftedJoint {
    C first, sum, squares, products, total;
    i32 count;
    static MEMBER ShiftedJoint none() { return ShiftedJoint{C(0), C(0), C(0), C(0), C(0), 0}; }
    MEMBER void add(C x, C g) {
        if (count == 0) first = x;
        const C d = x - first;
        sum += d;
        squares += d * d;
        products += g * d;
        total += g;
        ++count;
    }
    MEMBER Joint<C> settled() const {
        if (count == 0) return Joint<C>::none();
        const C n = (C)count, by = sum / n, q = squares - sum * by;
        return Joint<C>{n, first + by, q < C(0) ? C(0) : q, products - by * total, total};
    }
};
""",
}

_NEEDED = {"Shifted": "Moments", "ShiftedJoint": "Joint"}


def folds_text(folds: Iterable[str], *, least: str = "0") -> str:
    """Return the text that folds need, by the names of their structs, and `together`, which merges members of a group.

    Args:
        folds: types such as `Sum<float>`.
        least: what an `Extreme` of nothing is.
    """
    names = dict.fromkeys(_NEEDED.get(n, n) for n in (f.split("<")[0] for f in folds))
    text = "".join(_FOLDS[n] for n in names)
    return _TOGETHER + text.replace("LEAST", least).replace("INFINITE", "__int_as_float(0x7f800000)")


def settled_type(fold: str) -> str:
    """Return the type of a fold's state once it is settled."""
    name, _, rest = fold.partition("<")
    return f"{_NEEDED.get(name, name)}<{rest}"
