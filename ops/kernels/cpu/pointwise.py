"""Fused pointwise expressions: one pass over memory.

The op `pointwise` has the attribute `expression`, a scalar expression over its inputs `a0`, `a1`, ..., which broadcast.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import llvmlite.ir as ir
import numpy as np

from ...dims import DimLike, Shape, product
from ...errors import KernelError
from ...expr import Call, Expr, Var, substitute, variables
from ...types import BFLOAT16, DType, TensorType
from .casts import round_to_bfloat16, stored_as
from .emitter import I1, I32, Emitter, V, scalar_type
from .expression import dtype_of, evaluate, value_of
from .kernel import Kernel, expression_key, kernel, nodes_of
from .lowering import Ref, Site, lowers
from .operand import Operand
from .target import Target, host_target
from .walk import Axis, axes_of, bounds_of, chunks_of, descend, tiled, typical

ELEMENTS = frozenset({"float32", "float64", "int32", "int64", "bool", "uint8", "int8", "float16", "bfloat16"})
"""Types that inputs and results may have; those of 8 and 16 bits are cast where they are read."""

_CHUNK = 1 << 16
"""Elements of a chunk whose expression costs little."""

_COSTLY = 8
"""From this cost on a part that is small gets a kernel of its own."""

_COSTS = {
    "div": 4, "sqrt": 4, "mod": 40, "fmod": 40, "exp": 13, "expm1": 18, "log": 22, "log1p": 34, "tanh": 26,
    "sigmoid": 24, "softplus": 48, "erf": 30, "sin": 40, "cos": 40, "tan": 90, "asin": 80, "acos": 80, "atan": 80,
    "sinh": 100, "cosh": 60, "asinh": 110, "acosh": 110, "atanh": 100, "pow": 120,
}  # fmt: skip
"""About how many vector instructions a primitive takes; others one."""


@dataclass(frozen=True)
class Walk:
    """What the code of a pointwise kernel depends on.

    Attributes:
        expression: over `a0`, `a1`, ...
        axes: outermost first, with the strides of the inputs and, last, of the output.
        dtypes: of the inputs and, last, of the output.
        lanes: of a vector.
        unroll: how many vectors an iteration works on.
    """

    expression: Expr
    axes: tuple[Axis, ...]
    dtypes: tuple[DType, ...]
    lanes: int
    unroll: int


def cost(expression: Expr) -> int:
    """Return about how many vector instructions an expression takes."""
    return sum(_COSTS.get(n.fn, 1) for n in nodes_of(expression) if isinstance(n, Call))


def supports(expression: Expr, dtypes: Sequence[Any] | Mapping[str, Any], result: Any = None) -> bool:
    """Return whether there is vector code for an expression.

    Args:
        expression: what is to be computed.
        dtypes: the element types of `a0`, `a1`, ..., or of variables by name.
        result: the element type of what is stored; None where it follows from the expression.
    """
    named = dtypes if isinstance(dtypes, Mapping) else {f"a{i}": t for i, t in enumerate(dtypes)}
    names = tuple((k, np.dtype(t).name) for k, t in sorted(named.items()))
    wanted = np.dtype(result).name if result is not None else ""
    if any(t not in ELEMENTS for _, t in names) or (wanted and wanted not in ELEMENTS):
        return False
    return _type_of(_Keyed(expression), names, wanted, host_target()) != ""


class _Keyed:
    """An expression that equals others of its structure."""

    def __init__(self, expression: Expr) -> None:
        self.expression, self.key = expression, expression_key(expression)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Keyed) and other.key == self.key

    def __hash__(self) -> int:
        return hash(self.key)


@functools.lru_cache(4096)
def _type_of(keyed: _Keyed, names: tuple[tuple[str, str], ...], result: str, target: Target) -> str:
    """Return the element type of an expression, stored as `result` if that is given; "" where there is no code.

    Code for one lane is written and thrown away.
    """
    e = Emitter(ir.Module("trial"), "trial", target, 0, ())
    values = {
        name: ir.Constant(I1 if dtype == "bool" else scalar_type(stored_as(dtype)), ir.Undefined)
        for name, dtype in names
    }
    try:
        if result:
            evaluate(e, keyed.expression, values, 1, result)
            return result
        return dtype_of(value_of(e, keyed.expression, values, 1))
    except KernelError:
        return ""


@lowers("pointwise")
def pointwise(site: Site) -> bool:
    """Lower a fused pointwise expression."""
    expression, shape = site.attrs["expression"], site.result.shape
    if not all(isinstance(t, TensorType) and t.known_shape is not None for t in (*site.types, site.result)):
        return False
    dtypes = [t.dtype for t in site.types]
    if not all(_broadcasts(t.shape, shape) for t in site.types):
        return False
    if not supports(expression, dtypes, site.result.dtype):
        return False
    inputs: list[Ref] = [site.read(i, elements="stored") for i in range(len(dtypes))]
    output = site.write()
    narrow = [i for i, (r, t) in enumerate(zip(inputs, dtypes, strict=True)) if r.operand.dtype != t]
    expression = substitute(expression, {f"a{i}": Call("cast:bfloat16:float32", (Var(f"a{i}"),)) for i in narrow})
    replaced: dict[int, Expr] = {}
    for part in _small_parts(expression, [r.operand for r in inputs], output.operand):
        read = sorted(variables(part), key=lambda n: int(n[1:]))
        refs = [inputs[int(n[1:])] for n in read]
        names = tuple((n, np.dtype(r.operand.dtype).name) for n, r in zip(read, refs, strict=True))
        dtype = _type_of(_Keyed(part), names, "", site.target)
        temporary = site.temporary(np.dtype(dtype), _together([r.operand.shape for r in refs]))
        renamed = substitute(part, {n: Var(f"a{i}") for i, n in enumerate(read)})
        made = make_kernel(site.target, renamed, [r.operand for r in refs], temporary.operand)
        site.call(made, [*refs, temporary])
        replaced[id(part)] = Var(f"a{len(inputs)}")
        inputs.append(temporary)
    expression, inputs = _without_unread(_replace(expression, replaced), inputs)
    site.call(make_kernel(site.target, expression, [r.operand for r in inputs], output.operand), [*inputs, output])
    return True


def _small_parts(expression: Expr, inputs: Sequence[Operand], output: Operand) -> list[Expr]:
    """Return the costly parts that are far smaller than the whole, and that a row would compute for each element.

    They get kernels of their own: a gate of each channel is not computed again for each pixel.
    """
    total = typical(output.size)
    inner = next((i for i in range(output.ndim) if output.strides[i] == 1 and output.shape[i] != 1), None)

    def small(n: Expr) -> bool:
        read = [inputs[int(v[1:])] for v in variables(n)]
        if inner is None or not read or cost(n) < _COSTLY:
            return False
        size = typical(product(_together([o.shape for o in read])))
        return size * 4 <= total and any(o.broadcast_to(output.shape).strides[inner] != 0 for o in read)

    return _largest(expression, small)


def _together(shapes: Sequence[Shape]) -> Shape:
    """Return the shape that these broadcast to, known to agree where they are not 1."""
    rank = max(map(len, shapes))
    aligned = [(1,) * (rank - len(s)) + s for s in shapes]
    return tuple(next((d for d in sizes if d != 1), 1) for sizes in zip(*aligned, strict=True))


def _largest(expression: Expr, wanted: Callable[[Expr], bool]) -> list[Expr]:
    """Return the largest calls inside an expression of which something holds."""
    found: dict[int, Expr] = {}
    seen: set[int] = set()

    def visit(n: Expr) -> None:
        if id(n) in seen or not isinstance(n, Call):
            return
        seen.add(id(n))
        if wanted(n):
            found[id(n)] = n
            return
        for a in n.args:
            visit(a)

    visit(expression)
    return list(found.values())


def _replace(expression: Expr, by: Mapping[int, Expr]) -> Expr:
    """Return an expression with nodes, by their identity, replaced."""
    done: dict[int, Expr] = dict(by)

    def visit(n: Expr) -> Expr:
        if id(n) not in done:
            done[id(n)] = Call(n.fn, tuple(visit(a) for a in n.args)) if isinstance(n, Call) else n
        return done[id(n)]

    return visit(expression) if by else expression


def _without_unread(expression: Expr, inputs: list[Ref]) -> tuple[Expr, list[Ref]]:
    """Return the expression and inputs without those that it does not read."""
    read = variables(expression)
    kept = [i for i in range(len(inputs)) if f"a{i}" in read]
    renamed: dict[str, Expr] = {f"a{i}": Var(f"a{k}") for k, i in enumerate(kept)}
    return substitute(expression, renamed) if len(kept) < len(inputs) else expression, [inputs[i] for i in kept]


def _broadcasts(shape: Shape, to: Shape) -> bool:
    """Whether it is known already which axes of a shape are broadcast."""
    return all(d in (1, wanted) for d, wanted in zip(shape[::-1], to[::-1], strict=False))


def make_kernel(target: Target, expression: Expr, inputs: Sequence[Operand], output: Operand) -> Kernel:
    """Return the kernel of an expression over operands that broadcast to the output."""
    operands = [*(o.broadcast_to(output.shape) for o in inputs), output]
    shape = _over_slack(output, inputs, operands)
    dtypes = tuple(np.dtype(o.dtype) for o in operands)
    wide = any(t.itemsize == 8 for t in dtypes) or any(
        isinstance(n, Call) and n.fn.startswith("cast:") and "64" in n.fn for n in nodes_of(expression)
    )
    lanes = target.vector_bits // (64 if wide else 32)
    work = cost(expression) * (2 if wide else 1)
    axes = axes_of(shape, *(o.strides for o in operands))
    unroll = 4 if work <= 8 else 2 if work <= 40 else 1
    if axes and not hasattr(axes[-1].size, "terms"):
        unroll = max(1, min(unroll, int(axes[-1].size) // lanes))
    elements = max(2048, _CHUNK * 16 // max(16, work))
    walk = Walk(expression, tiled(axes, elements, (lanes * unroll,)), dtypes, lanes, unroll)
    size = output.size
    moved: DimLike = sum((o.size * np.dtype(o.dtype).itemsize for o in (*inputs, output)), start=0)
    name = "+".join(dict.fromkeys(n.fn for n in nodes_of(expression) if isinstance(n, Call))) or "copy"
    return kernel(
        f"pointwise[{name}]" if len(name) < 60 else f"pointwise[{name[:57]}...]",
        _emit,
        walk,
        operands=len(operands),
        chunks=chunks_of(walk.axes),
        flops=size * cost(expression),
        bytes=moved,
    )


def _over_slack(output: Operand, inputs: Sequence[Operand], broadcast: Sequence[Operand]) -> Shape:
    """Return the shape to work on: with the slack behind the innermost axis, where all operands have it."""
    slack, shape = output.slack, list(output.shape)
    inner = next((i for i in range(output.ndim) if output.strides[i] == 1 and shape[i] != 1), None)
    if slack <= 0 or inner is None or slack > 2 * int(shape[inner]):
        return output.shape
    for own, o in zip(inputs, broadcast, strict=False):
        stride = o.strides[inner]
        if stride != 0 and (stride != 1 or own.slack < slack):
            return output.shape
    shape[inner] = shape[inner] + slack
    return tuple(shape)


def _emit(e: Emitter, walk: Walk) -> None:
    pointers = [e.pointer(i) for i in range(len(walk.dtypes))]
    if not walk.axes:
        _Row(e, walk, pointers, (0,) * len(pointers)).scalar(0)
        return
    bounds = bounds_of(e, walk.axes)

    def row(places: Sequence[V]) -> None:
        axis, (low, high) = walk.axes[-1], bounds[-1]
        _Row(e, walk, places, axis.strides).between(low, high, axis)

    descend(e, walk.axes[:-1], bounds[:-1], pointers, walk.dtypes, row)


class _Row:
    """The innermost loop: vectors along one axis."""

    def __init__(self, e: Emitter, walk: Walk, places: Sequence[V], strides: Shape) -> None:
        self.e, self.walk, self.places, self.strides = e, walk, places, strides
        self.regular = all(s in (0, 1) for s in strides[:-1]) and strides[-1] == 1
        fixed = {f"a{i}": self._load_one(i, 0) for i, s in enumerate(strides[:-1]) if s == 0}
        parts = _largest(walk.expression, lambda n: bool(fixed) and variables(n) <= fixed.keys())
        self.expression = _replace(walk.expression, {id(n): Var(f"once{k}") for k, n in enumerate(parts)})
        for k, n in enumerate(parts):
            fixed[f"once{k}"] = value_of(e, n, fixed, 1)
        read = variables(self.expression)
        self.fixed = {name: (x, e.splat(x, walk.lanes)) for name, x in fixed.items() if name in read}

    def between(self, low: Any, high: Any, axis: Axis) -> None:
        """Write the loops over the part of the axis from low to before high."""
        e, lanes, unroll = self.e, self.walk.lanes, self.walk.unroll
        static = not axis.tile and isinstance(axis.size, int)
        length: Any = axis.size if static else e.sub(high, low)
        # a static size tells what is left behind the whole vectors, also where chunks cut it at multiples of them
        rest = axis.size % lanes if isinstance(axis.size, int) and axis.tile % lanes == 0 else None
        step = lanes * unroll
        begin = low
        for count in (step, lanes) if unroll > 1 else (lanes,):
            if static:
                end: Any = begin + (high - begin) // count * count
            else:
                end = e.add(low, e.mul(e.div(length, count), count))
            if not (static and begin == end) and not (count < step and self._divides(axis, step)):
                with e.loop(begin, end, count) as loop:
                    self.vectors(loop.index, count // lanes)
                begin = end
        if rest == 0:
            return
        if static:
            self.tail(begin, high, rest)
        elif e.target.masks and self.regular:
            left = e.sub(high, begin)
            with e.when(e.b.icmp_signed(">", left, e.index(0))):
                self.vector(begin, lanes, e.tail_mask(left, lanes))
        else:
            with e.loop(begin, high) as loop:
                self.scalar(loop.index)

    def _divides(self, axis: Axis, step: int) -> bool:
        """Whether every chunk's part of the axis is a multiple of a step."""
        return isinstance(axis.size, int) and axis.size % step == 0 and axis.tile % step == 0

    def tail(self, low: int, high: int, rest: int | None) -> None:
        """Write what is left of a row of static size."""
        e, lanes = self.e, self.walk.lanes
        if e.target.masks and self.regular:
            mask = ir.Constant(ir.VectorType(I1, lanes), [int(i < high - low) for i in range(lanes)])
            self.vector(low, lanes, mask)
            return
        while low < high and lanes > 2 and cost(self.walk.expression) <= 8:
            lanes //= 2
            if low + lanes <= high:
                self.vector(low, lanes)
                low += lanes
        if low < high:
            with e.loop(low, high) as loop:
                self.scalar(loop.index)

    def vectors(self, at: V, count: int) -> None:
        """Write several vectors; all are loaded before the first is stored."""
        lanes = self.walk.lanes
        places = [self.e.add(at, k * lanes) for k in range(count)]
        loaded = [self.load(p, lanes, None) for p in places]
        for place, values in zip(places, loaded, strict=True):
            self.store(values, place, lanes, None)

    def vector(self, at: Any, lanes: int, mask: V = None) -> None:
        """Write one vector."""
        self.store(self.load(at, lanes, mask), at, lanes, mask)

    def scalar(self, at: Any) -> None:
        """Write one element."""
        self.vector(at, 1)

    def load(self, at: Any, lanes: int, mask: V) -> dict[str, V]:
        """Return the inputs at a place of the row."""
        e, values = self.e, {}
        for name, (one, vector) in self.fixed.items():
            values[name] = one if lanes == 1 else vector if lanes == self.walk.lanes else e.splat(one, lanes)
        for i, dtype in enumerate(self.walk.dtypes[:-1]):
            stride, stored = self.strides[i], stored_as(dtype)
            if stride == 0:
                continue
            if lanes == 1:
                x = self._load_one(i, at)
            elif stride == 1:
                x = self._read(e.load(e.at(self.places[i], at, stored), stored, lanes, mask=mask), dtype)
            else:
                ones = [self._load_one(i, e.add(at, k)) for k in range(lanes)]
                x = ir.Constant(ir.VectorType(ones[0].type, lanes), ir.Undefined)
                for k, one in enumerate(ones):
                    x = e.b.insert_element(x, one, I32(k))
            values[f"a{i}"] = x
        return values

    def _load_one(self, i: int, at: Any) -> V:
        e, stored = self.e, stored_as(self.walk.dtypes[i])
        return self._read(e.load(e.at(self.places[i], e.mul(at, self.strides[i]), stored), stored), self.walk.dtypes[i])

    def _read(self, x: V, dtype: DType) -> V:
        return self.e.b.icmp_unsigned("!=", x, self.e.constant(0, x.type)) if dtype.kind == "b" else x

    def store(self, values: dict[str, V], at: Any, lanes: int, mask: V) -> None:
        """Compute and store."""
        e, dtype, stride = self.e, self.walk.dtypes[-1], self.strides[-1]
        narrow = dtype == BFLOAT16
        y = evaluate(e, self.expression, values, lanes, np.float32 if narrow else dtype)
        y = round_to_bfloat16(e, y) if narrow else y
        if lanes == 1 or stride == 1:
            e.store(y, e.at(self.places[-1], e.mul(at, stride), dtype), dtype, mask=mask)
            return
        for k in range(lanes):
            place = e.at(self.places[-1], e.mul(e.add(at, k), stride), dtype)
            e.store(e.b.extract_element(y, I32(k)), place, dtype)
