"""Rules for steps of optimizers: one pass over a parameter, its gradient and its state; one launch for many of them.

A launch over many parameters finds its tensors in a table of addresses in device memory: a block has a *chunk* of one
of them. Rates, the loss scale, whether the step is skipped and how far gradients are clipped are in device memory too,
so that a captured graph serves every step.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Protocol

import numpy as np

from ...optimize import ADAM_NUMBERS, SGD_NUMBERS
from ...types import DType, TensorType
from .kernel import Argument, Kernel, Parameter, Ref, blocks
from .lowering import Site, lowers
from .prelude import c_type, computed
from .reduction_text import folds_text

THREADS = 256
CHUNK = 1 << 14
"""Elements of a block's part of a tensor, where many tensors are one launch."""

_POINTER: list[Parameter] = ["pointer"]

FLOATS = ("float32", "float64", "float16", "bfloat16")


class Tables(Protocol):
    """What a site offers beside `Site` where many nodes become one launch."""

    def table(self, refs: Sequence[Ref], *, writes: Sequence[int] = ()) -> Ref:
        """Return a vector of int64 in device memory: the addresses of the first elements of tensors.

        A launch that reads the table counts as reading the tensors, and as writing those at the indices `writes`.
        """


@dataclass(frozen=True)
class Formula:
    """What the text of a step depends on.

    Attributes:
        adam: whether it is Adam's.
        dtype: of everything.
        state: how many tensors of state there are.
        decays, nesterov, decoupled: the ops' attributes.
        scaled, clipped: whether gradients are multiplied by a number in memory, the inverse loss scale or a clip.
        skips: whether a number in memory other than 0 means that nothing changes.
    """

    adam: bool
    dtype: DType
    state: int
    decays: bool
    nesterov: bool
    decoupled: bool
    scaled: bool = False
    clipped: bool = False
    skips: bool = False

    @property
    def tensors(self) -> int:
        """How many tensors are read and written: the parameter, its gradient, state, and what is new."""
        return 3 + 2 * self.state

    @property
    def name(self) -> str:
        """The kernel's."""
        return "adam_update" if self.adam else "sgd_update"

    @property
    def registers(self) -> int:
        """How many a thread may take."""
        return 80 if self.dtype.itemsize == 4 else 112

    def text(self) -> str:
        """Return the functions that both kernels call."""
        numbers = ADAM_NUMBERS if self.adam else SGD_NUMBERS
        idle = ["1" if self.decoupled else "0", "0", "1", "0", "1", "1", "0"] if self.adam else ["0", "0", "1", "0"]
        load = "".join(
            f"        {n} = idle ? (Computed){v} : widen(from[{i}]);\n"
            for i, (n, v) in enumerate(zip(numbers, idle, strict=True))
        )
        return _WALK.format(
            stored=c_type(self.dtype), computed=computed(self.dtype), width=16 // self.dtype.itemsize,
            unroll=2 if self.dtype.itemsize == 4 and not self.adam else 1, state=self.state,
            numbers=", ".join(numbers), load=load, step=_adam(self) if self.adam else _sgd(self),
            tensors=self.tensors, threads=THREADS,
        ).replace("<%", "{").replace("%>", "}")  # fmt: skip

    def factors(self) -> tuple[str, str]:
        """Return the parameters of the numbers in memory, and the argument of `Numbers` and the factor of gradients."""
        names = [n for n, there in (("inverse", self.scaled), ("clip", self.clipped), ("skip", self.skips)) if there]
        given = "".join(f", const float* {n}" for n in names)
        factor = " * ".join([f"(Computed){n}[0]" for n in names if n != "skip"]) or "(Computed)1"
        return given, f"Numbers(numbers, {'skip[0] != 0.0f' if self.skips else 'false'}), {factor}"


_WALK = r"""
typedef {stored} Stored;
typedef {computed} Computed;
static constexpr int WIDTH = {width}, UNROLL = {unroll}, STATE = {state}, TENSORS = {tensors};

/* What is the same for all elements; nothing changes by a gradient of 0 where a step is idle. */
struct Numbers <%
    Computed {numbers};
    bool idle;
    __device__ __forceinline__ Numbers(const Stored* from, bool idle) : idle(idle) <%
{load}    %>
%>;

static __device__ __forceinline__ void step(Computed& p, Computed g, Computed* s, const Numbers& n) <%
{step}%>

/* The tensors: the parameter, its gradient and its state, then the new parameter and state. */
struct Tensors <%
    Stored* at[TENSORS];
    __device__ __forceinline__ bool aligned() const <%
        u64 all = 0;
        #pragma unroll
        for (int i = 0; i < TENSORS; ++i) all |= (u64)at[i];
        return all % 16 == 0;
    %>
%>;

template <int W> static __device__ __forceinline__ void piece(
    const Tensors& t, const pack<Stored, W>* x, i64 at, const Numbers& n, Computed factor
) <%
    pack<Stored, W> y[1 + STATE];
    #pragma unroll
    for (int i = 0; i < W; ++i) <%
        Computed p = widen(x[0].at[i]), s[STATE + 1];
        const Computed g = n.idle ? (Computed)0 : widen(x[1].at[i]) * factor;
        #pragma unroll
        for (int k = 0; k < STATE; ++k) s[k] = widen(x[2 + k].at[i]);
        step(p, g, s, n);
        narrow(p, &y[0].at[i]);
        #pragma unroll
        for (int k = 0; k < STATE; ++k) narrow(s[k], &y[1 + k].at[i]);
    %>
    #pragma unroll
    for (int k = 0; k <= STATE; ++k) *(pack<Stored, W>*)(t.at[2 + STATE + k] + at) = y[k];
%>

template <int W> static __device__ __forceinline__ void read(const Tensors& t, pack<Stored, W>* x, i64 at) <%
    #pragma unroll
    for (int k = 0; k < 2 + STATE; ++k) x[k] = *(const pack<Stored, W>*)(t.at[k] + at);
%>

static __device__ __forceinline__ void walk(
    const Tensors& t, i64 low, i64 high, const Numbers& n, Computed factor
) <%
    i64 begin = low;
    if (t.aligned()) <%
        const i64 end = high - (high - low) % WIDTH;
        #pragma unroll 1
        for (; begin < end; begin += {threads} * WIDTH * UNROLL) <%
            pack<Stored, WIDTH> x[UNROLL][2 + STATE];
            #pragma unroll
            for (int u = 0; u < UNROLL; ++u) <%
                const i64 at = begin + (u * {threads} + (int)threadIdx.x) * WIDTH;
                if (at < end) read<WIDTH>(t, x[u], at);
            %>
            #pragma unroll
            for (int u = 0; u < UNROLL; ++u) <%
                const i64 at = begin + (u * {threads} + (int)threadIdx.x) * WIDTH;
                if (at < end) piece<WIDTH>(t, x[u], at, n, factor);
            %>
        %>
        begin = end;
    %>
    #pragma unroll 1
    for (i64 at = begin + threadIdx.x; at < high; at += {threads}) <%
        pack<Stored, 1> x[2 + STATE];
        read<1>(t, x, at);
        piece<1>(t, x, at, n, factor);
    %>
%>
"""


def _sgd(f: Formula) -> str:
    lines = ["g = n.weight_decay * p + g;"] if f.decays else []
    if f.state:
        lines += ["s[0] = n.momentum * s[0] + n.keep * g;"]
        lines += ["g = n.momentum * s[0] + g;" if f.nesterov else "g = s[0];"]
    return "".join(f"    {line}\n" for line in [*lines, "p -= n.lr * g;"])


def _adam(f: Formula) -> str:
    lines = []
    if f.decays:
        lines.append("p *= n.decay;" if f.decoupled else "g = n.decay * p + g;")
    lines += ["s[0] += n.grow_mean * (g - s[0]);", "s[1] = n.keep_square * s[1] + n.grow_square * (g * g);"]
    largest = "s[1]"
    if f.state > 2:
        lines.append("if (s[1] > s[2] || s[1] != s[1]) s[2] = s[1];")
        largest = "s[2]"
    root = "sqrtf" if computed(f.dtype) == "float" else "sqrt"
    lines.append(f"p -= n.rate * (s[0] / ({root}({largest}) / n.square_scale + n.eps));")
    return "".join(f"    {line}\n" for line in lines)


def single(f: Formula) -> Kernel:
    """Return the kernel of one tensor: its pointers, numbers, elements, and elements of a block."""
    pointers = ", ".join(f"Stored* t{i}" for i in range(f.tensors))
    given, factors = f.factors()
    code = f.text() + (
        f'extern "C" __global__ void __launch_bounds__({THREADS}) {f.name}(\n'
        f"    {pointers}, const Stored* numbers{given}, i64 count, i64 chunk\n) {{\n"
        f"    const Tensors t = {{{{{', '.join(f't{i}' for i in range(f.tensors))}}}}};\n"
        "    const i64 low = (i64)blockIdx.x * chunk;\n"
        f"    walk(t, low, min(low + chunk, count), {factors});\n}}\n"
    )
    extra = f.scaled + f.clipped + f.skips
    parameters: list[Parameter] = [*_POINTER * (f.tensors + 1 + extra), "i64", "i64"]
    return Kernel(f.name, code, tuple(parameters), THREADS, f.registers)


def several(f: Formula) -> Kernel:
    """Return the kernel of many tensors: addresses, elements of each, whose a block is, numbers, elements of a block.

    A tensor's row in the table has its `f.tensors` addresses; `first` is the first block of each.
    """
    given, factors = f.factors()
    name = f"{f.name}_several"
    code = f.text() + (
        f'extern "C" __global__ void __launch_bounds__({THREADS}) {name}(\n'
        "    const i64* table, const i64* counts, const i32* owner, const i32* first, const Stored* numbers"
        f"{given}, i64 chunk\n) {{\n"
        "    const int own = owner[blockIdx.x];\n"
        "    Tensors t;\n"
        "    #pragma unroll\n"
        "    for (int i = 0; i < TENSORS; ++i) t.at[i] = (Stored*)table[(i64)own * TENSORS + i];\n"
        "    const i64 low = (i64)((int)blockIdx.x - first[own]) * chunk;\n"
        f"    walk(t, low, min(low + chunk, counts[own]), {factors});\n}}\n"
    )
    extra = f.scaled + f.clipped + f.skips
    parameters: list[Parameter] = [*_POINTER * (5 + extra), "i64"]
    return Kernel(name, code, tuple(parameters), THREADS, f.registers)


def formula(site: Site) -> Formula | None:
    """Return what a site's step is, None where kernels do not compute it."""
    t = site.results[0]
    given = [x for x in site.types if x is not None]
    if t.dtype.name not in FLOATS or any(not isinstance(x, TensorType) or x.dtype != t.dtype for x in given):
        return None
    attrs = site.attrs
    return Formula(
        site.op == "adam_update", t.dtype, len(site.results) - 1, attrs["decays"], attrs.get("nesterov", False),
        attrs.get("decoupled", False),
    )  # fmt: skip


@lowers("sgd_update", "adam_update")
def _update(site: Site) -> bool:
    f = formula(site)
    if f is None:
        return False
    *tensors, numbers = _read(site)
    made = [site.write(i, order="plain") for i in range(1 + f.state)]
    count = tensors[0].operand.size
    if count:
        chunk = THREADS * 8 * max(1, -(-count // (THREADS * 8 * 2112)))  # two waves of eight blocks on 132 processors
        arguments: list[Argument] = [*tensors, *made, numbers, count, chunk]
        writes = range(len(tensors), len(tensors) + len(made))
        site.launch(single(f), (blocks(count, chunk), 1, 1), (THREADS, 1, 1), arguments, writes=writes)
    return True


def _read(site: Site) -> list[Ref]:
    return [site.read(i, order="plain") for i, t in enumerate(site.types) if t is not None]


def together(site: Site) -> Hashable:
    """Return what sites have to share to be one launch of `multi_tensor`, beside their numbers; None for none.

    A plan groups the updates of one run of nodes, none of which reads what another makes, by this and by the value that
    their last argument is.
    """
    return formula(site)


@dataclass(frozen=True)
class Chunks:
    """Which part of which tensor each block of a launch has.

    Attributes:
        counts: elements of each tensor.
        owner: the tensor of each block.
        first: the first block of each tensor.
    """

    counts: Ref
    owner: Ref
    first: Ref
    blocks: int

    @classmethod
    def of(cls, site: Site, counts: Sequence[int]) -> Chunks:
        """Cut tensors of these sizes into chunks."""
        each = [-(-n // CHUNK) for n in counts]
        first = np.cumsum([0, *each[:-1]])
        return cls(
            site.constant(np.array(counts, np.int64)),
            site.constant(np.repeat(np.arange(len(each)), each).astype(np.int32)),
            site.constant(first.astype(np.int32)), sum(each),
        )  # fmt: skip


def multi_tensor(
    sites: Sequence[Site], tables: Tables, *, gradients: Sequence[Ref] | None = None, inverse: Ref | None = None,
    clip: Ref | None = None, skip: Ref | None = None,
) -> bool:  # fmt: skip
    """Let the updates of many parameters be one launch, behind the last of them.

    Args:
        sites: whose `together` is equal, and which share their numbers.
        tables: the last site, as what makes tables.
        gradients: what is read in the place of the sites' own gradients, where the factors below are taken out of them.
        inverse: a float32 that gradients are multiplied with: one over the loss scale.
        clip: another: what `gradient_norm` makes.
        skip: a float32; where it is not 0, parameters and state stay what they are.
    """
    plain = formula(sites[0])
    if plain is None or any(formula(s) != plain for s in sites):
        return False
    f = Formula(
        plain.adam, plain.dtype, plain.state, plain.decays, plain.nesterov, plain.decoupled, inverse is not None,
        clip is not None, skip is not None,
    )  # fmt: skip
    refs: list[Ref] = []
    writes: list[int] = []
    counts: list[int] = []
    numbers: Ref | None = None
    for i, site in enumerate(sites):
        *tensors, numbers = _read(site)
        if gradients is not None:
            tensors[1] = gradients[i]
        made = [site.write(k, order="plain") for k in range(1 + f.state)]
        if tensors[0].operand.size:
            writes += range(len(refs) + len(tensors), len(refs) + f.tensors)
            refs += [*tensors, *made]
            counts.append(tensors[0].operand.size)
    if counts:
        assert numbers is not None
        last = sites[-1]
        cut = Chunks.of(last, counts)
        given = [r for r in (inverse, clip, skip) if r is not None]
        arguments: list[Argument] = [
            tables.table(refs, writes=writes),
            cut.counts,
            cut.owner,
            cut.first,
            numbers,
            *given,
            CHUNK,
        ]
        last.launch(several(f), (cut.blocks, 1, 1), (THREADS, 1, 1), arguments, writes=())
    return True


@dataclass(frozen=True)
class Norm:
    """What `gradient_norm` makes, float32 of one element each.

    Attributes:
        norm: of all gradients together.
        clip: what brings it down to the largest norm, at most 1.
        found: 1 where a gradient is not finite, else 0: a `skip` of `multi_tensor`.
    """

    norm: Ref
    clip: Ref
    found: Ref


def gradient_norm(
    site: Site, tables: Tables, gradients: Sequence[Ref], *, inverse: Ref | None = None, max_norm: float = float("inf")
) -> Norm:
    """Add up the squares of all gradients, in two stages of fixed shape.

    Args:
        site: where the work is added.
        tables: the site, as what makes tables.
        gradients: without gaps, of one element type.
        inverse: a float32 that they are multiplied with first.
        max_norm: how long they may be.
    """
    dtype = gradients[0].operand.dtype if gradients else np.dtype(np.float32)
    counts = [prod(g.operand.shape) for g in gradients]
    chunks = sum(-(-n // CHUNK) for n in counts)
    parts = site.temporary(np.dtype(np.float64 if dtype == np.float64 else np.float32), (chunks,))
    if chunks:
        there = [g for g, n in zip(gradients, counts, strict=True) if n]
        cut = Chunks.of(site, [n for n in counts if n])
        arguments: list[Argument] = [tables.table(there), cut.counts, cut.owner, cut.first]
        arguments += [parts, *([] if inverse is None else [inverse]), CHUNK]
        site.launch(_squares(dtype, inverse is not None), (chunks, 1, 1), (THREADS, 1, 1), arguments, writes=(4,))
    norm, clip, found = (site.temporary(np.dtype(np.float32), (1,)) for _ in range(3))
    site.launch(
        _total(parts.operand.dtype), (1, 1, 1), (THREADS, 1, 1), [parts, norm, clip, found, chunks, float(max_norm)],
        writes=(1, 2, 3),
    )  # fmt: skip
    return Norm(norm, clip, found)


def _squares(dtype: DType, scaled: bool) -> Kernel:
    """Return the first stage: the sum of the squares of each chunk, NaN where an element is not finite."""
    c, width = computed(dtype), 16 // dtype.itemsize
    given, factor = (", const float* inverse", f"({c})inverse[0]") if scaled else ("", f"({c})1")
    absolute, infinity, nan = (
        ("fabsf", "__int_as_float(0x7f800000)", "__int_as_float(0x7fc00000)")
        if c == "float"
        else ("fabs", "__longlong_as_double(0x7ff0000000000000ll)", "__longlong_as_double(0x7ff8000000000000ll)")
    )
    code = folds_text([f"Sum<{c}>"]) + (
        f'extern "C" __global__ void __launch_bounds__({THREADS}) gradient_squares(\n'
        f"    const i64* table, const i64* counts, const i32* owner, const i32* first, {c}* parts{given}, i64 chunk\n"
        ") {\n"
        f"    __shared__ Sum<{c}> slots[{THREADS // 32}];\n"
        "    const int own = owner[blockIdx.x];\n"
        f"    const {c_type(dtype)}* x = (const {c_type(dtype)}*)table[own];\n"
        "    const i64 low = (i64)((int)blockIdx.x - first[own]) * chunk, high = min(low + chunk, counts[own]);\n"
        f"    const {c} factor = {factor};\n"
        f"    Sum<{c}> s = Sum<{c}>::none();\n"
        "    bool wild = false;\n"
        "    i64 begin = low;\n"
        "    if ((u64)x % 16 == 0) {\n"
        f"        begin = high - (high - low) % {width};\n"
        "        #pragma unroll 4\n"
        f"        for (i64 at = low + threadIdx.x * {width}; at < begin; at += {THREADS * width}) {{\n"
        f"            const auto v = *(const pack<{c_type(dtype)}, {width}>*)(x + at);\n"
        "            #pragma unroll\n"
        f"            for (int i = 0; i < {width}; ++i) {{\n"
        f"                const {c} g = widen(v.at[i]);\n"
        f"                wild |= !({absolute}(g) < {infinity});\n"
        "                s.add(g * factor * (g * factor));\n"
        "            }\n"
        "        }\n"
        "    }\n"
        f"    for (i64 at = begin + threadIdx.x; at < high; at += {THREADS}) {{\n"
        f"        const {c} g = widen(x[at]);\n"
        f"        wild |= !({absolute}(g) < {infinity});\n"
        "        s.add(g * factor * (g * factor));\n"
        "    }\n"
        f"    if (wild) s.value = {nan};\n"
        f"    together<1, {THREADS}>(s, slots);\n"
        "    if (threadIdx.x == 0) parts[blockIdx.x] = s.value;\n"
        "}\n"
    )
    parameters: list[Parameter] = [*_POINTER * (5 + scaled), "i64"]
    return Kernel("gradient_squares", code, tuple(parameters), THREADS, 64)


def _total(dtype: DType) -> Kernel:
    """Return the second stage, of one block: the norm, the clip, and whether a gradient was not finite."""
    code = folds_text(["Sum<double>"]) + (
        f'extern "C" __global__ void __launch_bounds__({THREADS}) gradient_norm(\n'
        f"    const {c_type(dtype)}* parts, float* norm, float* clip, float* found, i64 count, double largest\n"
        ") {\n"
        f"    __shared__ Sum<double> slots[{THREADS // 32}];\n"
        "    Sum<double> s = Sum<double>::none();\n"
        f"    for (i64 at = threadIdx.x; at < count; at += {THREADS}) s.add((double)parts[at]);\n"
        f"    together<1, {THREADS}>(s, slots);\n"
        "    if (threadIdx.x == 0) {\n"
        "        const double length = sqrt(s.value), factor = largest / (length + 1e-6);\n"
        "        norm[0] = (float)length;\n"
        "        clip[0] = factor < 1.0 || factor != factor ? (float)factor : 1.0f;\n"
        "        found[0] = s.value != s.value ? 1.0f : 0.0f;\n"
        "    }\n"
        "}\n"
    )
    return Kernel("gradient_norm", code, (*_POINTER * 4, "i64", "f64"), THREADS, 64)
