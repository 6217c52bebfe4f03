"""Rules for steps of optimizers: one pass over a parameter, its gradient and its state; one launch for many of them.

A launch over many parameters finds its tensors in a table of addresses in device memory: a block has a *chunk* of one
of them. Rates, the loss scale, whether the step is skipped and how far gradients are clipped are in device memory too,
so that a captured graph serves every step.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from ...optimize import ADAM_NUMBERS, SGD_IDLE, SGD_NUMBERS, adam_idle
from ...types import DType, TensorType
from .kernel import Argument, Kernel, Parameter, Ref, blocks
from .lowering import Site, lowers
from .prelude import c_type, computed

THREADS = 256
CHUNK = 1 << 14
"""Elements of a block's part of a tensor, where many tensors are one launch."""

_POINTER: list[Parameter] = ["pointer"]

FLOATS = ("float32", "float64", "float16", "bfloat16")


@dataclass(frozen=True)
class Formula:
    """What the text of a step depends on.

    Attributes:
        adam: whether it is Adam's.
        dtype: of everything.
        state: how many tensors of state there are.
        decays, nesterov, decoupled: the ops' attributes.
        factors: how many numbers in memory gradients are multiplied by: the inverse loss scale, a clip.
        skips: whether a number in memory other than 0 means that nothing changes.
    """

    adam: bool
    dtype: DType
    state: int
    decays: bool
    nesterov: bool
    decoupled: bool
    factors: int = 0
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
        idle = adam_idle(self.decoupled) if self.adam else SGD_IDLE
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

    @property
    def numbers(self) -> int:
        """How many numbers in memory there are, beside the vector."""
        return self.skips + self.factors

    def given(self) -> tuple[str, str]:
        """Return the parameters of these numbers, and the argument of `Numbers` and the factor of gradients."""
        factors = [f"f{i}" for i in range(self.factors)]
        parameters = "".join(f", const float* {n}" for n in [*(["skip"] if self.skips else []), *factors])
        factor = " * ".join(f"(Computed){f}[0]" for f in factors) or "(Computed)1"
        return parameters, f"Numbers(numbers, {'skip[0] != 0.0f' if self.skips else 'false'}), {factor}"


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
        lines.append("if (!n.idle && (s[1] > s[2] || s[1] != s[1])) s[2] = s[1];")
        largest = "s[2]"
    root = "sqrtf" if computed(f.dtype) == "float" else "sqrt"
    lines.append(f"p -= n.rate * (s[0] / ({root}({largest}) / n.square_scale + n.eps));")
    return "".join(f"    {line}\n" for line in lines)


def single(f: Formula) -> Kernel:
    """Return the kernel of one tensor: its pointers, numbers, elements, and elements of a block."""
    pointers = ", ".join(f"Stored* t{i}" for i in range(f.tensors))
    given, factors = f.given()
    code = f.text() + (
        f'extern "C" __global__ void __launch_bounds__({THREADS}) {f.name}(\n'
        f"    {pointers}, const Stored* numbers{given}, i64 count, i64 chunk\n) {{\n"
        f"    const Tensors t = {{{{{', '.join(f't{i}' for i in range(f.tensors))}}}}};\n"
        "    const i64 low = (i64)blockIdx.x * chunk;\n"
        f"    walk(t, low, min(low + chunk, count), {factors});\n}}\n"
    )
    parameters: list[Parameter] = [*_POINTER * (f.tensors + 1 + f.numbers), "i64", "i64"]
    return Kernel(f.name, code, tuple(parameters), THREADS, f.registers)


def several(f: Formula) -> Kernel:
    """Return the kernel of many tensors: addresses, elements of each, whose a block is, numbers, elements of a block.

    A tensor's row in the table has its `f.tensors` addresses; `first` is the first block of each.
    """
    given, factors = f.given()
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
    parameters: list[Parameter] = [*_POINTER * (5 + f.numbers), "i64"]
    return Kernel(name, code, tuple(parameters), THREADS, f.registers)


def formula(site: Site) -> Formula | None:
    """Return what a site's step is, None where kernels do not compute it."""
    t = site.results[0]
    places = _Places.of(site)
    given = [site.types[i] for i in (*places.tensors, places.numbers)]
    if t.dtype.name not in FLOATS or any(not isinstance(x, TensorType) or x.dtype != t.dtype for x in given):
        return None
    attrs = site.attrs
    return Formula(
        site.op == "adam_update", t.dtype, len(site.results) - 1, attrs["decays"], attrs.get("nesterov", False),
        attrs.get("decoupled", False), places.factors, places.skip is not None,
    )  # fmt: skip


@dataclass(frozen=True)
class _Places:
    """Which arguments of a site are what.

    Attributes:
        tensors: the parameter, its gradient and its state.
        numbers: the vector.
        skip: the flag, None where there is none.
        factors: how many there are in the list behind.
    """

    tensors: tuple[int, ...]
    numbers: int
    skip: int | None
    factors: int

    @classmethod
    def of(cls, site: Site) -> _Places:
        numbers = 5 if site.op == "adam_update" else 3
        tensors = tuple(i for i in range(numbers) if site.types[i] is not None)
        more = [*site.types[numbers + 1 :], None, None]
        return cls(tensors, numbers, None if more[0] is None else numbers + 1, len(more[1] or ()))

    def read(self, site: Site) -> tuple[list[Ref], list[Ref]]:
        """Return the tensors, and the vector with the flag and the factors."""
        single = [self.numbers, *([] if self.skip is None else [self.skip])]
        factors = [site.read(self.numbers + 2, order="plain", item=k) for k in range(self.factors)]
        numbers = [site.read(i, order="plain") for i in single]
        return [site.read(i, order="plain") for i in self.tensors], numbers + factors


@lowers("sgd_update", "adam_update")
def _update(site: Site) -> bool:
    f = formula(site)
    if f is None:
        return False
    tensors, numbers = _Places.of(site).read(site)
    made = [site.write(i, order="plain") for i in range(1 + f.state)]
    count = tensors[0].operand.size
    if count:
        chunk = THREADS * 8 * max(1, -(-count // (THREADS * 8 * 2112)))  # two waves of eight blocks on 132 processors
        arguments: list[Argument] = [*tensors, *made, *numbers, count, chunk]
        writes = range(len(tensors), len(tensors) + len(made))
        site.launch(single(f), (blocks(count, chunk), 1, 1), (THREADS, 1, 1), arguments, writes=writes)
    return True


def together(site: Site) -> Hashable:
    """Return what sites have to share to be one launch of `multi_tensor`, beside their numbers; None for none.

    A plan groups the updates of one run of nodes, none of which reads what another makes, by this and by the values
    that their numbers, flags and factors are.
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

    @property
    def arguments(self) -> list[Argument]:
        """What a launch is given."""
        return [self.counts, self.owner, self.first]

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


def multi_tensor(sites: Sequence[Site]) -> bool:
    """Let the updates of many parameters be one launch, behind the last of them.

    Args:
        sites: whose `together` is equal, and which share their numbers, their flag and their factors.
    """
    f = formula(sites[0])
    if f is None or any(formula(s) != f for s in sites):
        return False
    refs: list[Ref] = []
    writes: list[int] = []
    counts: list[int] = []
    numbers: list[Ref] = []
    for site in sites:
        tensors, numbers = _Places.of(site).read(site)
        made = [site.write(k, order="plain") for k in range(1 + f.state)]
        if tensors[0].operand.size:
            writes += range(len(refs) + len(tensors), len(refs) + f.tensors)
            refs += [*tensors, *made]
            counts.append(tensors[0].operand.size)
    if counts:
        last = sites[-1]
        cut = Chunks.of(last, counts)
        arguments: list[Argument] = [last.table(refs, writes=writes), *cut.arguments, *numbers, CHUNK]
        last.launch(several(f), (cut.blocks, 1, 1), (THREADS, 1, 1), arguments, writes=())
    return True
