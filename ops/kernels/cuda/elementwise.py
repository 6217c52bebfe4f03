"""The kernel of an expression over tensors of one shape and any strides, in one pass over memory.

Elements are walked over in the order in which the target lies (or an input, where that is better), a pack of up to 16
bytes at a time and several packs a thread. How each tensor is read is static in the text; see `Role`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from ...expr import Expr
from ...types import DType
from .expression import REALS, Written, write
from .indexing import View, is_wide, merged, ordered
from .kernel import Launch, blocks
from .operand import Sizes, row_major
from .prelude import c_type, computed
from .signature import THREADS, VECTOR_BYTES, Signature, indented

_ENOUGH_BLOCKS = 512
"""From so many blocks on a thread takes several packs: fewer would leave multiprocessors without work."""

Role: TypeAlias = Literal["beside", "pack", "splat", "each", "once", "number"]
"""How a tensor is read or written.

`beside`: a pack at the linear index itself. `pack`: at an offset of its own. `splat`: one element at its own offset,
for the whole pack. `each`: element by element. `once`: one element for all. `number`: no tensor, a parameter.
"""


@dataclass
class _Tensor:
    """What the text says about a tensor: its name, elements and role, its strides along the walked axes, its place."""

    name: str
    stored: str
    role: Role
    ctype: str
    strides: Sizes = ()
    place: str = field(default="i")
    step: str = field(default="")

    def held(self, width: int, packs: int) -> str:
        """Return the declaration of what a thread holds of it."""
        element = self.stored if self.role == "splat" else f"pack<{self.stored}, {width}>"
        return f"{element} {self.name}s[{packs}];"

    @property
    def value(self) -> str:
        """Element e of pack k, widened."""
        if self.role in ("number", "once"):
            return f"{self.name}_value"
        return f"widen({self.name}s[k]{'' if self.role == 'splat' else '.at[e]'})"

    @property
    def along(self) -> str:
        """The offset of element e of the pack whose first one lies at `at`."""
        last = self.strides[-1]
        return f"{self.name}_at" + ("" if last == 0 else " + e" if last == 1 else f" + e * {self.step}")


@dataclass(frozen=True)
class _Walk:
    """How elements are walked over.

    Attributes:
        shape: of the axes along which offsets are computed; none where every tensor lies beside the target.
        width: elements of a pack.
        packs: that a thread takes.
        whole: whether a pack lies within a row, so that places are computed once for all of it.
        ragged: whether the last elements may not fill a pack.
    """

    shape: Sizes
    width: int
    packs: int
    whole: bool
    ragged: bool


def elementwise(
    name: str,
    expression: Expr,
    inputs: Mapping[str, View | int | float],
    target: View,
    *,
    types: Mapping[str, DType],
    stored: DType,
    by: str | None = None,
) -> Launch:
    """Return the launch that computes an expression for each element.

    The target may be one of the inputs: a thread reads its elements before it writes them.

    Args:
        name: of the kernel.
        expression: over the names of the inputs.
        inputs: of the target's shape, or numbers, by names such as `x`, `a0`, `a1` ...; `y` is the target.
        target: what is written.
        types: the element types of the inputs, numbers' as well.
        stored: that of the target.
        by: the input in whose order elements are walked over; the target's where it is left out.

    Raises:
        KernelError: if there is no code for the expression.
    """
    views = {n: v for n, v in inputs.items() if isinstance(v, View)} | {"y": target}
    sizes = {n: (stored if n == "y" else types[n]).itemsize for n in views}
    leader = by or "y"
    shape, strides = ordered(target.shape, [v.strides for v in views.values()], views[leader].strides)
    lying = dict(zip(views, strides, strict=True))
    dense = lying[leader] == row_major(shape)
    once = [n for n in views if n != "y" and not any(lying[n])]
    beside = [n for n in views if dense and n not in once and lying[n] == lying[leader]]
    apart = [n for n in views if n not in once and n not in beside]
    axes, steps = merged(shape, [lying[n] for n in apart]) if apart else ((), [])
    own = dict(zip(apart, steps, strict=True))
    width, whole = _width(views, sizes, beside, own, axes)
    size = target.size
    packs = _packs(size // width, len(views) - 1 - len(once), width * max(sizes[n] for n in views)) if whole else 1
    walk = _Walk(axes, width, packs, whole, width > 1 and not (whole and axes))

    signature = Signature(wide=is_wide(list(views.values()), size))
    tensors = []
    for n, v in (*inputs.items(), ("y", target)):
        dtype = stored if n == "y" else types[n]
        t = _Tensor(n, c_type(dtype), "number", computed(dtype))
        tensors.append(t)
        if not isinstance(v, View):
            _declare_number(signature, n, v, t.ctype)
            continue
        signature.writes(n, v.ref, t.stored) if n == "y" else signature.reads(n, v.ref, t.stored)
        if n in own:
            t.strides = own[n]
        t.role = "once" if n in once else "beside" if n in beside else _role(v, t.strides, walk)
    signature.size("size", size)
    body = _body(signature, tensors, views, walk)
    values = {t.name: t.name for t in tensors[:-1]}
    written = write(expression, values, {t.name: t.ctype for t in tensors[:-1]}, stored=stored)
    kernel = signature.kernel(name, body, registers=128, before=_function(written, tensors))
    grid = (blocks(-(-size // width), THREADS * packs), 1, 1)
    return Launch(kernel, grid, (THREADS, 1, 1), tuple(signature.arguments), tuple(signature.written))


def _declare_number(s: Signature, name: str, value: int | float, ctype: str) -> None:
    if ctype in REALS:
        s.real(name, value, ctype)
        return
    s.declared.append(f"i64 {name}")
    s.kinds.append("i64")
    s.arguments.append(int(value))


def _width(
    views: Mapping[str, View],
    sizes: Mapping[str, int],
    beside: Sequence[str],
    own: Mapping[str, Sizes],
    axes: Sizes,
) -> tuple[int, bool]:
    """Return the elements of a pack, and whether packs lie within rows."""
    width = max(1, VECTOR_BYTES // max(sizes[n] for n in (*beside, *own)))
    while width > 1 and not all(views[n].aligned(width) for n in beside):
        width //= 2
    if not own:
        return width, True
    within = width
    while within > 1 and (
        axes[-1] % within or not (beside or any(_packable(views[n], s, within) for n, s in own.items()))
    ):
        within //= 2
    if within > 1 or not beside:
        return within, True
    return width, width == 1


def _packable(v: View, strides: Sizes, width: int) -> bool:
    """Whether packs of a tensor that lie within rows are aligned."""
    return strides[-1] == 1 and v.aligned(width) and all(s % width == 0 for s in strides[:-1])


def _role(v: View, strides: Sizes, walk: _Walk) -> Role:
    if walk.width == 1 or not walk.whole:
        return "each"
    if strides[-1] == 0:
        return "splat"
    return "pack" if _packable(v, strides, walk.width) else "each"


def _packs(packs: int, inputs: int, pack_bytes: int) -> int:
    """Return how many packs a thread takes: so many that about 64 bytes are on their way."""
    wanted = 4 if inputs <= 1 or (pack_bytes < VECTOR_BYTES and inputs <= 3) else 2 if inputs <= 3 else 1
    while wanted > 1 and packs < _ENOUGH_BLOCKS * THREADS * wanted:
        wanted //= 2
    return wanted


# text -----------------------------------------------------------------------------------------------------------------


def _function(written: Written, tensors: Sequence[_Tensor]) -> str:
    """Return the function of one element."""
    arguments = ", ".join(f"const {t.ctype} {t.name}" for t in tensors[:-1])
    body = f"{written.statements}\nreturn {written.result};"
    return f"\nstatic __device__ __forceinline__ {written.ctype} apply({arguments}) {{\n{indented(body)}\n}}\n"


def _body(s: Signature, tensors: Sequence[_Tensor], views: Mapping[str, View], walk: _Walk) -> str:
    """Return the kernel's statements: p counts packs, b is the first element of one, i any element."""
    *inputs, target = tensors
    lines = []
    for t in tensors:
        if t.name in views and views[t.name].start:
            s.size(f"{t.name}_start", views[t.name].start)
            lines.append(f"{t.name} += {t.name}_start;")
        if t.role == "number":
            lines.append(f"const {t.ctype} {t.name}_value = ({t.ctype}){t.name};")
        elif t.role == "once":
            lines.append(f"const {t.ctype} {t.name}_value = size ? widen(*{t.name}) : {t.ctype}();")
        elif t is not target:
            lines.append(t.held(walk.width, walk.packs))
    coordinates = [f"c{axis}" for axis in range(len(walk.shape))]
    for t in tensors:
        if t.strides:
            t.place = s.offset(f"{t.name}_step", list(zip(coordinates, t.strides, strict=True)))
            t.step = f"{t.name}_step_{len(coordinates) - 1}"
    places = s.unravel("i", list(zip(coordinates, walk.shape, strict=True)))
    placed = target.role in ("pack", "each") and walk.whole
    if placed:
        lines.append(f"index ys[{walk.packs}];")
    lines.append(f"const index count = {'size' if walk.width == 1 else f'size / {walk.width}'};")
    lines.append(f"const index first = (index)blockIdx.x * {THREADS * walk.packs} + threadIdx.x;")
    for part in (_loads(inputs, target, walk, places, placed), _stores(inputs, target, walk, places)):
        if part:
            base = "const index b = p;" if walk.width == 1 else f"const index b = p * {walk.width};"
            turn = f"const index p = first + k * {THREADS};\nif (p < count) {{\n{indented(base)}\n{indented(part)}\n}}"
            lines.append(_unrolled("k", walk.packs, turn))
    if walk.ragged:
        lines.append(_tail(inputs, target, walk, places))
    return "\n".join(lines)


def _unrolled(name: str, count: int, body: str) -> str:
    return f"#pragma unroll\nfor (int {name} = 0; {name} < {count}; ++{name}) {{\n{indented(body)}\n}}"


def _loads(inputs: Sequence[_Tensor], target: _Tensor, walk: _Walk, places: str, placed: bool) -> str:
    """Return the statements that read pack p of each input."""
    pack = f"*(const pack<{{}}, {walk.width}>*)({{}} + {{}})"
    lines = [f"{t.name}s[k] = {pack.format(t.stored, t.name, 'b')};" for t in inputs if t.role == "beside"]
    apart = [t for t in inputs if t.role in ("pack", "splat", "each")]
    if apart and not walk.whole:
        moved = "\n".join(f"{t.name}s[k].at[e] = {t.name}[{t.place}];" for t in apart)
        lines.append(_unrolled("e", walk.width, f"const index i = b + e;\n{places}\n{moved}"))
    elif apart or placed:
        lines.append(f"const index i = b;\n{places}")
        for t in apart:
            if t.role == "pack":
                lines.append(f"{t.name}s[k] = {pack.format(t.stored, t.name, t.place)};")
            elif t.role == "splat":
                lines.append(f"{t.name}s[k] = {t.name}[{t.place}];")
            else:
                lines.append(f"const index {t.name}_at = {t.place};")
                lines.append(_unrolled("e", walk.width, f"{t.name}s[k].at[e] = {t.name}[{t.along}];"))
        if placed:
            lines.append(f"ys[k] = {target.place};")
    return "\n".join(lines)


def _stores(inputs: Sequence[_Tensor], target: _Tensor, walk: _Walk, places: str) -> str:
    """Return the statements that compute and write pack p."""
    value = f"apply({', '.join(t.value for t in inputs)})"
    if target.role in ("beside", "pack"):
        pack = f"pack<{target.stored}, {walk.width}>"
        body = _unrolled("e", walk.width, f"narrow({value}, &out.at[e]);")
        return f"{pack} out;\n{body}\n*({pack}*)(y + {'b' if target.role == 'beside' else 'ys[k]'}) = out;"
    if walk.whole:
        body = _unrolled("e", walk.width, f"narrow({value}, &y[{target.along}]);")
        return f"const index y_at = ys[k];\n{body}"
    return _unrolled("e", walk.width, f"const index i = b + e;\n{places}\nnarrow({value}, &y[{target.place}]);")


def _tail(inputs: Sequence[_Tensor], target: _Tensor, walk: _Walk, places: str) -> str:
    """Return the statements that compute what does not fill a pack, one element a thread of the first block."""
    value = ", ".join(t.value if t.role in ("number", "once") else f"widen({t.name}[{t.place}])" for t in inputs)
    body = f"{places}\nnarrow(apply({value}), &y[{target.place}]);"
    return (
        f"const index i = count * {walk.width} + threadIdx.x;\n"
        f"if (blockIdx.x == 0 && i < size) {{\n{indented(body)}\n}}"
    )
