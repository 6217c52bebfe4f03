"""Running sums, products, logarithms of sums, and linear recurrences along one axis.

Where the axis lies without gaps, a block walks along a row: threads scan their own few elements, then each other's
sums. Along any other axis neighbouring threads have neighbouring rows and walk them one element after the other; so do
linear recurrences always, as products of their factors may overflow where results do not.
"""

from __future__ import annotations

from math import prod

from ...types import TensorType
from .kernel import Kernel, blocks
from .lowering import Site, lowers
from .prelude import C_TYPES, computed
from .reduction_text import folds_text
from .row_kernel import floats, function, sizes
from .signature import Signature, is_wide

_EACH = 4
"""Elements that a thread has of a block's part of a row."""

_SCAN = r"""
INLINE float behind(float x, int by) { return __shfl_up_sync(0xffffffffu, x, by); }
INLINE double behind(double x, int by) { return __shfl_up_sync(0xffffffffu, x, by); }
INLINE u32 behind(u32 x, int by) { return (u32)__shfl_up_sync(0xffffffffu, (i32)x, by); }
INLINE u64 behind(u64 x, int by) { return (u64)__shfl_up_sync(0xffffffffu, (i64)x, by); }
template <typename C> INLINE Sum<C> behind(Sum<C> s, int by) { return Sum<C>{behind(s.value, by)}; }
"""

_BEHIND = {
    "Sum": "",
    "Product": "template <typename C> INLINE Product<C> behind(Product<C> s, int by) "
    "{ return Product<C>{behind(s.value, by)}; }\n",
    "Online": "template <typename C> INLINE Online<C> behind(Online<C> s, int by) "
    "{ return Online<C>{behind(s.top, by), behind(s.total, by)}; }\n",
}

_ALONG = """
__shared__ Fold sums[WARPS];
const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
Fold carry = Fold::none();
for (index base = 0; base < n; base += WARPS * 32 * EACH) {
    Fold own[EACH];
    Fold sum = Fold::none();
    #pragma unroll
    for (int i = 0; i < EACH; ++i) {
        const index at = base + threadIdx.x * EACH + i;
        own[i] = Fold::none();
        if (at < n) own[i].add((C)widen(x[x_row + PLACE * x_step]));
        sum.merge(own[i]);
    }
    Fold run = sum;
    #pragma unroll
    for (int by = 1; by < 32; by <<= 1) {
        Fold before = behind(run, by);
        before.merge(run);
        if (lane >= by) run = before;
    }
    if (lane == 31) sums[warp] = run;
    Fold before = behind(run, 1);
    if (lane == 0) before = Fold::none();
    __syncthreads();
    Fold here = carry;
    for (int i = 0; i < WARPS; ++i) {
        if (i < warp) here.merge(sums[i]);
        carry.merge(sums[i]);
    }
    here.merge(before);
    __syncthreads();
    #pragma unroll
    for (int i = 0; i < EACH; ++i) {
        const index at = base + threadIdx.x * EACH + i;
        const Fold last = here;
        here.merge(own[i]);
        const Fold result = EXCLUSIVE ? last : here;
        if (at < n) narrow((OUT)(RESULT), &y[y_row + PLACE * y_step]);
    }
}
"""

_ACROSS = """
Fold here = Fold::none();
for (index at = 0; at < n; ++at) {
    const Fold last = here;
    here.add((C)widen(x[x_row + PLACE * x_step]));
    const Fold result = EXCLUSIVE ? last : here;
    narrow((OUT)(RESULT), &y[y_row + PLACE * y_step]);
}
"""

_RECURRENCE = """
C y_last = 0;
for (index at = 0; at < n; ++at) {
    const C now = (C)widen(x[x_row + PLACE * x_step]);
    y_last = at == 0 ? now : now + (C)widen(a[a_row + PLACE * a_step]) * y_last;
    narrow((OUT)y_last, &y[y_row + PLACE * y_step]);
}
"""


@lowers("cumsum", "cumprod", "logcumsumexp", "linear_scan")
def _cumulative(site: Site) -> bool:
    t = site.types[-1]
    if not all(isinstance(s, TensorType) and s.ndim and s.dtype.name in C_TYPES for s in site.types):
        return False
    real = floats(*(s.dtype for s in site.types))
    if t.dtype.kind == "b" or (not real and site.op not in ("cumsum", "cumprod")):
        return False
    shape, axis = sizes(t), site.attrs["axis"] % t.ndim
    c = computed(t.dtype) if real else "u64" if t.dtype.itemsize == 8 else "u32"
    fold = {"cumprod": "Product", "logcumsumexp": "Online"}.get(site.op, "Sum")
    recurs = site.op == "linear_scan"
    tensors = {"x": site.read(int(recurs)), **({"a": site.read(0)} if recurs else {}), "y": site.write()}
    if not prod(shape):
        return True
    s = Signature(wide=is_wide(*(ref.operand for ref in tensors.values())))
    for name, ref in tensors.items():
        (s.writes if name == "y" else s.reads)(name, ref)
    s.size("n", shape[axis])
    along = not recurs and abs(tensors["x"].operand.strides[axis]) == 1 and shape[axis] > 8
    others = sorted(
        (i for i, n in enumerate(shape) if i != axis and n != 1), key=lambda i: -abs(tensors["x"].operand.strides[i])
    )
    rows = prod(shape[i] for i in others)
    threads = (32 if shape[axis] <= 32 * _EACH * 4 else 256) if along else 128
    lines = [s.unravel("row", [(f"i{i}", shape[i]) for i in others])]
    for name, ref in tensors.items():
        strides = ref.operand.strides
        s.size(f"{name}_step", strides[axis])
        lines.append(f"const index {name}_row = {s.offset(f'{name}_at', [(f'i{i}', strides[i]) for i in others])};")
    head = "const index row = (index)blockIdx.x;\n"
    if not along:
        s.size("rows", rows)
        head = "const i64 thread = (i64)blockIdx.x * blockDim.x + threadIdx.x;\nif (thread >= rows) return;\n"
        head += "const index row = (index)thread;\n"
    body = _RECURRENCE if recurs else _ALONG if along else _ACROSS
    result = f"{function('log', c)}(result.total) + result.top" if fold == "Online" else "result.value"
    words = {
        "PLACE": "(n - 1 - at)" if site.attrs.get("reverse", False) else "at", "RESULT": result,
        "EXCLUSIVE": str(int(site.attrs.get("exclusive", False))), "OUT": computed(tensors["y"].operand.dtype),
    }  # fmt: skip
    for word, text in words.items():
        body = body.replace(word, text)
    before = folds_text(dict.fromkeys(("Sum<C>", f"{fold}<C>"))) + _SCAN + _BEHIND[fold]
    before += f"typedef {c} C;\ntypedef {fold}<C> Fold;\nenum {{ EACH = {_EACH}, WARPS = {threads // 32} }};\n"
    kernel: Kernel = s.kernel(site.op, head + "\n".join(lines) + body, threads=threads, before=before)
    grid = rows if along else blocks(rows, threads)
    site.launch(kernel, (grid, 1, 1), (threads, 1, 1), s.arguments, writes=s.written)
    return True
