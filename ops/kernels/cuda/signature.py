"""What kernels over strided tensors share: parameters gathered with their arguments, index arithmetic, epilogues.

A `Signature` is filled while the text is written, so that what the text declares and what a launch passes cannot
differ. Offsets are 32-bit where every tensor allows it; the text then divides by multiplication.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ...types import DType
from .expression import write
from .indexing import NARROW, reciprocal
from .kernel import Argument, Kernel, Parameter, Ref, blocks
from .lowering import Site
from .operand import Operand
from .prelude import c_type, computed

VECTOR_BYTES = 16
"""What a thread reads or writes at once."""

THREADS = 256

DTYPES: dict[str, DType] = {
    "float": np.dtype(np.float32),
    "double": np.dtype(np.float64),
    "bool": np.dtype(np.bool_),
    **{f"{k}{8 * n}": np.dtype(f"{k}{n}") for k in "iu" for n in (1, 2, 4, 8)},
}
"""The element type of each type that is calculated with."""

REGISTERS = 1 << 16
"""Of a multiprocessor."""

_QUOTIENT = """
/* n / d for 0 <= n < 2^31; m and s are the reciprocal of d. */
static __device__ __forceinline__ i32 quotient(i32 n, i32 d, i32 m, i32 s) {
    return d == 1 ? n : (i32)(__umulhi((u32)n, (u32)m) >> s);
}
static __device__ __forceinline__ i64 quotient(i64 n, i64 d, i32 m, i32 s) { return n / d; }
"""


def reach(operand: Operand) -> int:
    """Return the largest offset of an element, plus 1."""
    return 1 + sum(max(n - 1, 0) * abs(s) for n, s in zip(operand.shape, operand.strides, strict=True))


def is_wide(*operands: Operand) -> bool:
    """Return whether offsets into one of these, or a count of its elements, need 64 bits."""
    return any(max(reach(o), o.size) >= NARROW - 2**24 for o in operands)


def lanes(axis: int, *operands: Operand, most: int = VECTOR_BYTES) -> int:
    """Return how many neighbours along an axis can be read or written at once, in each of the operands.

    Each of these has stride 1 there (or is broadcast, which asks for nothing); everything else is a multiple.
    """
    width = max(1, min(most // o.dtype.itemsize for o in operands))
    while width > 1 and not all(_aligned(o, axis, width) for o in operands):
        width //= 2
    return width


def _aligned(o: Operand, axis: int, width: int) -> bool:
    if o.shape[axis] % width or o.offset % width:
        return False
    others = [s for i, s in enumerate(o.strides) if i != axis and o.shape[i] != 1]
    return o.strides[axis] == 1 and all(s % width == 0 for s in others)


@dataclass
class Signature:
    """The parameters of one kernel with the arguments of one launch.

    Attributes:
        wide: whether offsets are 64-bit; `index` in the text is their type.
    """

    wide: bool = False
    declared: list[str] = field(default_factory=list)
    kinds: list[Parameter] = field(default_factory=list)
    arguments: list[Argument] = field(default_factory=list)
    written: list[int] = field(default_factory=list)

    def _add(self, declaration: str, kind: Parameter, argument: Argument) -> None:
        self.declared.append(declaration)
        self.kinds.append(kind)
        self.arguments.append(argument)

    def reads(self, name: str, ref: Ref, ctype: str = "") -> None:
        """Declare a tensor that is read."""
        self._add(f"const {ctype or c_type(ref.operand.dtype)}* __restrict__ {name}", "pointer", ref)

    def writes(self, name: str, ref: Ref, ctype: str = "") -> None:
        """Declare a tensor that is written, or read and written."""
        self.written.append(len(self.arguments))
        self._add(f"{ctype or c_type(ref.operand.dtype)}* __restrict__ {name}", "pointer", ref)

    def size(self, name: str, value: int) -> None:
        """Declare a size, stride or offset, of type `index`."""
        self._add(f"index {name}", "i64" if self.wide else "i32", int(value))

    def integer(self, name: str, value: int) -> None:
        """Declare a 32-bit integer."""
        self._add(f"i32 {name}", "i32", int(value))

    def real(self, name: str, value: float, ctype: str) -> None:
        """Declare a number of type float or double."""
        self._add(f"{ctype} {name}", "f64" if ctype == "double" else "f32", float(value))

    def divisor(self, name: str, value: int) -> None:
        """Declare a size that is divided by: `name`, `name_m` and `name_s`."""
        multiplier, shift = reciprocal(value) if value > 1 else (0, 0)
        self.size(name, max(value, 1))
        self.integer(f"{name}_m", multiplier)
        self.integer(f"{name}_s", shift)

    def unravel(self, linear: str, axes: Sequence[tuple[str, int]]) -> str:
        """Declare the sizes of axes and return text that makes their coordinates of a linear index, outermost first.

        Args:
            linear: an expression of type `index`.
            axes: the name of each coordinate, and its size.
        """
        if not axes:
            return ""
        lines, rest = [], linear
        for name, size in reversed(axes[1:]):
            self.divisor(f"{name}_n", size)
            lines.append(f"const index {name}_q = quotient({rest}, {name}_n, {name}_n_m, {name}_n_s);")
            lines.append(f"const index {name} = {rest} - {name}_q * {name}_n;")
            rest = f"{name}_q"
        lines.append(f"const index {axes[0][0]} = {rest};")
        return "\n".join(lines)

    def offset(self, name: str, axes: Sequence[tuple[str, int]]) -> str:
        """Declare strides and return an expression: each coordinate times its stride, summed up."""
        terms = []
        for i, (coordinate, stride) in enumerate(axes):
            if stride == 0:
                continue
            if stride == 1:
                terms.append(coordinate)
                continue
            self.size(f"{name}_{i}", stride)
            terms.append(f"{coordinate} * {name}_{i}")
        return " + ".join(terms) or "0"

    def kernel(self, name: str, body: str, *, threads: int = THREADS, registers: int = 64, before: str = "") -> Kernel:
        """Return the kernel with this body; `before` stands in front of it."""
        index = "i64" if self.wide else "i32"
        # Without a number of blocks ptxas spills to make room for more of them than these registers leave.
        bounds = f"{threads}, {max(1, REGISTERS // (threads * registers))}"
        parameters = ",\n    ".join(self.declared)
        code = (
            f"\ntypedef {index} index;\n{_QUOTIENT}{before}\n"
            f'extern "C" __global__ void __launch_bounds__({bounds}) {name}(\n    {parameters}) {{\n'
            f"{indented(body)}\n}}\n"
        )
        return Kernel(name, code, tuple(self.kinds), threads, registers)

    def launch(
        self,
        site: Site,
        name: str,
        body: str,
        work: int,
        *,
        registers: int = 64,
        before: str = "",
        threads: int = THREADS,
    ) -> None:
        """Launch a kernel whose body runs once for each `t` below the work, a thread each."""
        self.size("work", work)
        head = "const i64 thread = (i64)blockIdx.x * blockDim.x + threadIdx.x;\nif (thread >= work) return;\n"
        body = f"{head}const index t = (index)thread;\n{body}"
        made = self.kernel(name, body, threads=threads, registers=registers, before=before)
        site.launch(made, (blocks(work, threads), 1, 1), (threads, 1, 1), self.arguments, writes=self.written)


def indented(text: str, by: int = 1) -> str:
    """Return text with each line that is not empty moved in."""
    return "\n".join("    " * by + line if line.strip() else "" for line in text.strip("\n").split("\n"))


@dataclass(frozen=True)
class Store:
    """How a kernel stores its first result: as it is, or through the epilogue of its site.

    Attributes:
        prepare: text before the lanes are computed: offsets and vectors of the epilogue's operands.
        body: text that stores `result[lane]` of type `ctype` for each lane.
    """

    prepare: str
    body: str


def store(
    site: Site, s: Signature, y: Ref, ctype: str, coordinates: Sequence[str], *, along: int = -1, width: int = 1,
    value: str = "result", output: str = "y",
) -> Store:  # fmt: skip
    """Return text that stores `value[0 .. width)` at these coordinates of output 0, its epilogue applied.

    Args:
        site: for its epilogue.
        s: what operands and strides are declared in; `output` is declared already.
        y: the output.
        ctype: of the values.
        coordinates: of the first lane, by axis of the output.
        along: the axis along which lanes are neighbours, of stride 1 in y.
        width: how many lanes there are.
        value: the name of an array of the values.
        output: the name of the output's pointer.
    """
    target = y.operand
    stored, epilogue = c_type(target.dtype), site.epilogue
    place = s.offset(f"{output}_at", list(zip(coordinates, target.strides, strict=True)))
    prepare: list[str] = []
    inner: list[str] = []
    result = f"{value}[lane]"
    if epilogue is not None:
        names, types = {"x": "x"}, {"x": ctype}
        inner.append(f"const {ctype} x = {value}[lane];")
        for i, (o, ref) in enumerate(zip(epilogue.operands, site.epilogue_refs, strict=True)):
            kind, number = c_type(o.dtype), computed(o.dtype)
            s.reads(f"a{i}", ref)
            at = s.offset(f"a{i}_at", list(zip(coordinates, o.strides, strict=True)))
            step = o.strides[along] if o.strides else 0
            names[f"a{i}"], types[f"a{i}"] = f"v{i}", number
            if width > 1 and step == 1 and _aligned(o, along % o.ndim, width):
                prepare.append(f"const pack<{kind}, {width}> p{i} = *(const pack<{kind}, {width}>*)(a{i} + ({at}));")
                inner.append(f"const {number} v{i} = widen(p{i}.at[lane]);")
            elif width == 1 or step == 0:
                prepare.append(f"const {number} w{i} = widen(a{i}[{at}]);")
                inner.append(f"const {number} v{i} = w{i};")
            else:
                s.size(f"a{i}_step", step)
                prepare.append(f"const index b{i} = {at};")
                inner.append(f"const {number} v{i} = widen(a{i}[b{i} + lane * a{i}_step]);")
        made = write(epilogue.expression, names, types, stored=target.dtype)
        inner.append(made.statements)
        result = made.result
    inner.append(f"narrow(({computed(target.dtype)})({result}), &out.at[lane]);")
    body = (
        f"pack<{stored}, {width}> out;\n#pragma unroll\nfor (int lane = 0; lane < {width}; ++lane) {{\n"
        + indented("\n".join(inner))
        + f"\n}}\n*(pack<{stored}, {width}>*)({output} + ({place})) = out;"
    )
    return Store("\n".join(prepare), body)


def element_limits(dtype: DType) -> tuple[str, str]:
    """Return C expressions of the smallest and largest value of a type: infinities where it has them."""
    ctype = computed(dtype)
    if ctype == "float":
        return "(-__uint_as_float(0x7f800000u))", "__uint_as_float(0x7f800000u)"
    if ctype == "double":
        return "(-__longlong_as_double(0x7ff0000000000000LL))", "__longlong_as_double(0x7ff0000000000000LL)"
    if ctype == "bool":
        return "false", "true"
    info = np.iinfo(dtype)
    suffix = ("u" if dtype.kind == "u" else "") + ("ll" if dtype.itemsize == 8 else "")
    low = f"(-{-(info.min + 1)}{suffix} - 1)" if info.min < 0 else f"0{suffix}"
    return low, f"{info.max}{suffix}"


def lanes_of_rows(row: int, *operands: Operand) -> int:
    """Return how many elements are read or written at once in row-major tensors of rows of this length."""
    width = max(1, min(VECTOR_BYTES // o.dtype.itemsize for o in operands))
    while width > 1 and (row % width or any(o.offset % width for o in operands)):
        width //= 2
    return width
