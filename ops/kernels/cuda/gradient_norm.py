"""The rule for the norm of many gradients, which also finds elements that are not finite: in two stages of fixed shape.

The first is one launch for all gradients of an element type: a block adds up a chunk of one of them, which it finds in
a table of addresses. The second is one block, which adds up what the chunks gave.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ...types import DType, TensorType
from .kernel import Argument, Kernel, Parameter, Ref
from .lowering import Site, lowers
from .optimize import CHUNK, FLOATS, THREADS, Chunks
from .prelude import c_type, computed
from .reduction_text import folds_text

_POINTER: list[Parameter] = ["pointer"]

_REALS = {
    "float": ("fabsf", "__int_as_float(0x7f800000)"),
    "double": ("fabs", "__longlong_as_double(0x7ff0000000000000ll)"),
}
"""The absolute value and infinity of a type that is calculated with."""


@lowers("gradient_norm")
def _gradient_norm(site: Site) -> bool:
    types, p = site.types[0], site.attrs["p"]
    if any(not isinstance(t, TensorType) or t.dtype.name not in FLOATS for t in types):
        return False
    factors = [site.read(1, order="plain", item=k) for k in range(len(site.types[1]))]
    kinds: dict[DType, list[Ref]] = {}
    for i in range(len(types)):
        g = site.read(0, order="plain", item=i)
        if g.operand.size:
            kinds.setdefault(g.operand.dtype, []).append(g)
    wide = site.results[0].dtype
    cuts = {dtype: Chunks.of(site, [g.operand.size for g in gradients]) for dtype, gradients in kinds.items()}
    count = sum(cut.blocks for cut in cuts.values())
    parts, marks = site.temporary(wide, (max(count, 1),)), site.temporary(np.dtype(np.int32), (max(count, 1),))
    begin = 0
    for dtype, gradients in kinds.items():
        cut = cuts[dtype]
        arguments: list[Argument] = [site.table(gradients), *cut.arguments, parts, marks, *factors, begin, CHUNK]
        site.launch(
            chunks_kernel(dtype, wide, p, len(factors)), (cut.blocks, 1, 1), (THREADS, 1, 1), arguments, writes=(4, 5)
        )  # fmt: skip
        begin += cut.blocks
    norm, found = site.write(0, order="plain"), site.write(1, order="plain")
    site.launch(
        whole_kernel(wide, p), (1, 1, 1), (THREADS, 1, 1), [parts, marks, norm, found, count], writes=(2, 3)
    )  # fmt: skip
    return True


def _fold(ctype: str, p: float) -> str:
    return f"Extreme<{ctype}, 1>" if p == math.inf else f"Sum<{ctype}>"


def _text(folds: Sequence[str]) -> str:
    return folds_text([*folds, "Sum<i32>"])


def chunks_kernel(dtype: DType, wide: DType, p: float, factors: int) -> Kernel:
    """Return the first stage: what the elements of each chunk give, and in how many threads one was not finite."""
    c, width = computed(dtype), 16 // dtype.itemsize
    absolute, infinity = _REALS[c]
    given = "".join(f", const float* f{i}" for i in range(factors))
    factor = " * ".join(f"({c})f{i}[0]" for i in range(factors)) or f"({c})1"
    term = f"{absolute}(g * factor)" if p == math.inf else "g * factor * (g * factor)"
    fold = _fold(c, p)
    code = _text([fold]) + (
        f'extern "C" __global__ void __launch_bounds__({THREADS}) gradient_chunks(\n'
        f"    const i64* table, const i64* counts, const i32* owner, const i32* first, {c_type(wide)}* parts,\n"
        f"    i32* marks{given}, i64 begin, i64 chunk\n"
        ") {\n"
        f"    __shared__ {fold} slots[{THREADS // 32}];\n"
        f"    __shared__ Sum<i32> marked[{THREADS // 32}];\n"
        "    const int own = owner[blockIdx.x];\n"
        f"    const {c_type(dtype)}* x = (const {c_type(dtype)}*)table[own];\n"
        "    const i64 low = (i64)((int)blockIdx.x - first[own]) * chunk, high = min(low + chunk, counts[own]);\n"
        f"    const {c} factor = {factor};\n"
        f"    {fold} s = {fold}::none();\n"
        "    bool wild = false;\n"
        "    i64 rest = low;\n"
        "    if ((u64)x % 16 == 0) {\n"
        f"        rest = high - (high - low) % {width};\n"
        "        #pragma unroll 4\n"
        f"        for (i64 at = low + threadIdx.x * {width}; at < rest; at += {THREADS * width}) {{\n"
        f"            const auto v = *(const pack<{c_type(dtype)}, {width}>*)(x + at);\n"
        "            #pragma unroll\n"
        f"            for (int i = 0; i < {width}; ++i) {{\n"
        f"                const {c} g = widen(v.at[i]);\n"
        f"                wild |= !({absolute}(g) < {infinity});\n"
        f"                s.add({term});\n"
        "            }\n"
        "        }\n"
        "    }\n"
        f"    for (i64 at = rest + threadIdx.x; at < high; at += {THREADS}) {{\n"
        f"        const {c} g = widen(x[at]);\n"
        f"        wild |= !({absolute}(g) < {infinity});\n"
        f"        s.add({term});\n"
        "    }\n"
        "    Sum<i32> m{wild ? 1 : 0};\n"
        f"    together<1, {THREADS}>(s, slots);\n"
        f"    together<1, {THREADS}>(m, marked);\n"
        "    if (threadIdx.x == 0) {\n"
        f"        parts[begin + blockIdx.x] = ({c_type(wide)})s.value;\n"
        "        marks[begin + blockIdx.x] = m.value;\n"
        "    }\n"
        "}\n"
    )
    parameters: list[Parameter] = [*_POINTER * (6 + factors), "i64", "i64"]
    return Kernel("gradient_chunks", code, tuple(parameters), THREADS, 64)


def whole_kernel(wide: DType, p: float) -> Kernel:
    """Return the second stage, of one block: the norm of all chunks, and whether an element was not finite."""
    fold = _fold("double", p)
    code = _text([fold]) + (
        f'extern "C" __global__ void __launch_bounds__({THREADS}) gradient_norm(\n'
        f"    const {c_type(wide)}* parts, const i32* marks, {c_type(wide)}* norm, float* found, i64 count\n"
        ") {\n"
        f"    __shared__ {fold} slots[{THREADS // 32}];\n"
        f"    __shared__ Sum<i32> marked[{THREADS // 32}];\n"
        f"    {fold} s = {fold}::none();\n"
        "    Sum<i32> m{0};\n"
        f"    for (i64 at = threadIdx.x; at < count; at += {THREADS}) {{\n"
        "        s.add((double)parts[at]);\n"
        "        m.add(marks[at] != 0 ? 1 : 0);\n"
        "    }\n"
        f"    together<1, {THREADS}>(s, slots);\n"
        f"    together<1, {THREADS}>(m, marked);\n"
        "    if (threadIdx.x == 0) {\n"
        f"        norm[0] = ({c_type(wide)}){'s.value' if p == math.inf else 'sqrt(s.value)'};\n"
        "        found[0] = m.value != 0 ? 1.0f : 0.0f;\n"
        "    }\n"
        "}\n"
    )
    return Kernel("gradient_norm", code, (*_POINTER * 4, "i64"), THREADS, 64)
