"""Casts of many tensors in one launch: mixed precision casts every parameter in every step."""

from __future__ import annotations

from collections.abc import Sequence

from ...types import DType
from .kernel import Kernel, Ref
from .lowering import Site
from .optimize import CHUNK, THREADS, Chunks
from .prelude import c_type, computed
from .signature import VECTOR_BYTES

_PACKS = 4
"""That a thread reads before it writes one."""

_TEXT = """
extern "C" __global__ void __launch_bounds__({threads}) {name}(
    const i64* table, const i64* counts, const i32* owner, const i32* first, i64 chunk
) {{
    const int own = owner[blockIdx.x];
    const {source}* x = (const {source}*)table[2 * (i64)own];
    {target}* y = ({target}*)table[2 * (i64)own + 1];
    const i64 low = (i64)((int)blockIdx.x - first[own]) * chunk, end = low + chunk;
    const i64 high = end < counts[own] ? end : counts[own];
    const bool aligned = (((u64)x | (u64)y) & {mask}) == 0;
    const i64 packed = aligned ? low + (high - low) / {width} * {width} : low;
    for (i64 at = low + threadIdx.x * {width}; at < packed; at += {threads} * {width} * {packs}) {{
        pack<{source}, {width}> held[{packs}];
        #pragma unroll
        for (int k = 0; k < {packs}; ++k) {{
            const i64 i = at + k * {threads} * {width};
            if (i < packed) held[k] = *(const pack<{source}, {width}>*)(x + i);
        }}
        #pragma unroll
        for (int k = 0; k < {packs}; ++k) {{
            const i64 i = at + k * {threads} * {width};
            if (i < packed) {{
                pack<{target}, {width}> out;
                #pragma unroll
                for (int e = 0; e < {width}; ++e) narrow(({computed})widen(held[k].at[e]), &out.at[e]);
                *(pack<{target}, {width}>*)(y + i) = out;
            }}
        }}
    }}
    for (i64 i = packed + threadIdx.x; i < high; i += {threads}) narrow(({computed})widen(x[i]), &y[i]);
}}
"""


def kernel(source: DType, target: DType) -> Kernel:
    """Return the kernel that casts elements of one type to another, both of them real numbers."""
    of, to = c_type(source), c_type(target)
    name = f"casts_{of}_{to}"
    text = _TEXT.format(
        name=name, threads=THREADS, source=of, target=to, mask=VECTOR_BYTES - 1, packs=_PACKS,
        computed=computed(target), width=VECTOR_BYTES // max(source.itemsize, target.itemsize),
    )  # fmt: skip
    return Kernel(name, text, ("pointer", "pointer", "pointer", "pointer", "i64"), THREADS)


def cast_several(site: Site, sources: Sequence[Ref], targets: Sequence[Ref]) -> None:
    """Launch the casts of tensors to others, each of which lies as its source does.

    Args:
        site: where.
        sources: tensors without gaps, of one element type.
        targets: of one other type.
    """
    pairs = [r for pair in zip(sources, targets, strict=True) for r in pair]
    cut = Chunks.of(site, [r.operand.size for r in sources])
    made = kernel(sources[0].operand.dtype, targets[0].operand.dtype)
    table = site.table(pairs, writes=range(1, len(pairs), 2))
    site.launch(made, (cut.blocks, 1, 1), (THREADS, 1, 1), [table, *cut.arguments, CHUNK], writes=())
