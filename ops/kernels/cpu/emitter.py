"""A small builder over `llvmlite.ir`: loops, vectors of the target's width, tails by masks.

A kernel is a native function `void kernel(ptr args, i64 chunk, ptr scratch)`. `args` is an array of 64-bit words: first
the addresses of its operands, then the sizes that only run time knows (`Kernel.dims`). An `Emitter` writes its body.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import llvmlite.ir as ir
import numpy as np

from ...dims import Dim, DimLike, Quotient
from ...errors import KernelError
from .target import Target

V: TypeAlias = Any
"""A value of the IR: a scalar, vector or pointer."""

I1, I8, I32, I64 = (ir.IntType(n) for n in (1, 8, 32, 64))
F32, F64 = ir.FloatType(), ir.DoubleType()
PTR = ir.PointerType()
VOID = ir.VoidType()

_SCALARS = {
    "float32": F32, "float64": F64, "bool": I8, "uint8": I8, "int8": I8, "int16": ir.IntType(16),
    "uint16": ir.IntType(16), "bfloat16": ir.IntType(16), "float16": ir.HalfType(), "int32": I32, "uint32": I32,
    "int64": I64, "uint64": I64,
}  # fmt: skip
_CODES = {
    "float": "f32",
    "double": "f64",
    "half": "f16",
    "i1": "i1",
    "i8": "i8",
    "i16": "i16",
    "i32": "i32",
    "i64": "i64",
}

_ZERO = I32(0)

KERNEL_TYPE = ir.FunctionType(VOID, [PTR, I64, PTR])


class _Bfloat(ir.Type):  # type: ignore[misc]  # llvmlite has no types
    """bfloat16 as LLVM's intrinsics name it; in memory it lies as its 16 bits."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Bfloat)

    def __hash__(self) -> int:
        return hash(_Bfloat)


BFLOAT = _Bfloat()


class Written(ir.Constant):  # type: ignore[misc]  # llvmlite has no types
    """A constant vector that is written shorter than element by element; `constant` are its elements, where needed."""

    def __init__(self, kind: ir.Type, text: str, elements: Sequence[V] = ()) -> None:
        """Make it of what LLVM reads."""
        super().__init__(kind, None)
        self.constant, self._text = elements, text

    def get_reference(self) -> str:
        """Return the text."""
        return self._text


@functools.cache
def vector_type(one: ir.Type, lanes: int) -> ir.Type:
    """Return the type of vectors."""
    return ir.VectorType(one, lanes)


@functools.cache
def undefined(kind: ir.Type) -> V:
    """Return a value of a type that is nothing in particular."""
    return Written(kind, "poison")


def uniform(kind: ir.Type, scalar: V) -> V:
    """Return the constant vector with this constant in every lane."""
    return Written(kind, f"splat ({scalar.type} {scalar.get_reference()})")


def lanes_of(one: ir.Type, numbers: Iterable[int]) -> V:
    """Return the constant vector of these integers."""
    return _lanes_of(one, tuple(numbers))


@functools.lru_cache(1024)
def _lanes_of(one: ir.Type, numbers: tuple[int, ...]) -> V:
    text = ", ".join(f"{one} {n}" for n in numbers)
    return Written(vector_type(one, len(numbers)), f"<{text}>", [one(n) for n in numbers])


@functools.cache
def _zeros(lanes: int) -> V:
    return Written(vector_type(I32, lanes), "zeroinitializer", [_ZERO] * lanes)


def scalar_type(dtype: Any) -> ir.Type:
    """Return how one element of this type lies in memory; bfloat16 as its 16 bits, truth values as bytes."""
    name = np.dtype(dtype).name
    if name not in _SCALARS:
        raise KernelError(f"the compiled engine has no elements of type {name}")
    return _SCALARS[name]


class Loop:
    """A loop that is being written: its index, the values carried into this iteration, and `next` for the following."""

    def __init__(self, index: V, carried: list[V]) -> None:
        """Make it; `Emitter.loop` does."""
        self.index, self.carried = index, carried
        self.following: list[V] = list(carried)
        self.results: list[V] = []

    def next(self, values: Sequence[V]) -> None:
        """Say what the next iteration is given."""
        if len(values) != len(self.carried):
            raise KernelError(f"a loop carries {len(self.carried)} values and was given {len(values)}")
        self.following = list(values)


class Emitter:
    """Writes one kernel's function.

    Attributes:
        b: the underlying `ir.IRBuilder`.
        target: what CPU it is for.
        chunk: which piece of the work this call does.
        scratch: memory of the calling thread alone, aligned to 64 bytes, `Kernel.scratch` bytes of it.
    """

    def __init__(
        self, module: ir.Module, name: str, target: Target, operands: int, dims: Sequence[DimLike], prefix: str = ""
    ) -> None:
        """Start the function."""
        self.module, self.target, self.operands = module, target, operands
        self.function = ir.Function(module, KERNEL_TYPE, name)
        self.args, self.chunk, self.scratch = self.function.args
        self.scratch.add_attribute("noalias")
        self.b = ir.IRBuilder(self.function.append_basic_block("entry"))
        self._dims = {d: i for i, d in enumerate(dims)}
        self._pointers: dict[int, V] = {}
        self._loaded: dict[int, V] = {}
        self.prefix = prefix or name

        for i in range(operands):
            self._pointers[i] = self._word(i, PTR)
        for i in range(len(self._dims)):
            self._loaded[i] = self._word(operands + i, I64)

    def _word(self, index: int, kind: ir.Type) -> V:
        place = self.b.gep(self.args, [I64(index)], source_etype=I64) if index else self.args
        return self.b.load(place, typ=kind, align=8)

    def finish(self) -> None:
        """End the function."""
        self.b.ret_void()

    def pointer(self, operand: int) -> V:
        """Return the address of an operand's first element."""
        return self._pointers[operand]

    def dim(self, d: DimLike) -> V:
        """Return a size as a 64-bit integer: a constant, what run time passes, or computed of that.

        Raises:
            KernelError: if a symbol of it is not among the parameters of the kernel.
        """
        if not isinstance(d, Dim):
            return I64(int(d))
        if d in self._dims:
            return self._loaded[self._dims[d]]
        total: V = I64(0)
        for atoms, coefficient in d.terms:
            term: V = I64(coefficient)
            for atom in atoms:
                term = self.mul(term, self._atom(atom, d))
            total = self.add(total, term)
        return total

    def _atom(self, atom: Any, d: Dim) -> V:
        if isinstance(atom, str):
            if Dim.symbol(atom) not in self._dims:
                raise KernelError(f"{self.prefix}: size {d} is not one of the kernel's parameters {list(self._dims)}")
            return self._loaded[self._dims[Dim.symbol(atom)]]
        if isinstance(atom, Quotient):
            return (self.mod if atom.mod else self.div)(self.dim(atom.num), self.dim(atom.den))
        return self.max(self.dim(atom.a), self.dim(atom.b))

    # integers -----------------------------------------------------------------------------------------------------

    def index(self, x: Any) -> V:
        """Return an int, a `Dim` or an IR value as a 64-bit IR value."""
        if isinstance(x, np.integer):
            x = int(x)
        return self.dim(x) if isinstance(x, int | Dim) else x

    def add(self, *terms: Any) -> V:
        """Return the sum of ints, `Dim`s and 64-bit values, constants folded."""
        constant, rest = 0, []
        for t in terms:
            if isinstance(t, int | np.integer):
                constant += int(t)
            elif isinstance(t, ir.Constant):
                constant += int(t.constant)
            else:
                rest.append(self.index(t))
        total = None
        for t in rest:
            total = t if total is None else self.b.add(total, t, flags=("nsw",))
        if total is None:
            return I64(constant)
        return self.b.add(total, I64(constant), flags=("nsw",)) if constant else total

    def mul(self, a: Any, c: Any) -> V:
        """Return a product of 64-bit integers, constants folded."""
        a, c = self.index(a), self.index(c)
        ka, kc = (int(v.constant) if isinstance(v, ir.Constant) else None for v in (a, c))
        if ka is not None and kc is not None:
            return I64(ka * kc)
        if ka == 0 or kc == 0:
            return I64(0)
        if ka == 1:
            return c
        return a if kc == 1 else self.b.mul(a, c, flags=("nsw",))

    def sub(self, a: Any, c: Any) -> V:
        """Return a difference of 64-bit integers."""
        return self.b.sub(self.index(a), self.index(c), flags=("nsw",))

    def div(self, a: Any, c: Any) -> V:
        """Return the quotient of two integers that are not negative, rounded down."""
        a, c = self.index(a), self.index(c)
        if isinstance(c, ir.Constant) and int(c.constant) == 1:
            return a
        return self.b.udiv(a, c)

    def mod(self, a: Any, c: Any) -> V:
        """Return the remainder of two integers that are not negative."""
        a, c = self.index(a), self.index(c)
        if isinstance(c, ir.Constant) and int(c.constant) == 1:
            return I64(0)
        return self.b.urem(a, c)

    def ceil_div(self, a: Any, c: int) -> V:
        """Return a / c rounded up."""
        return self.div(self.add(a, c - 1), c)

    def min(self, a: Any, c: Any) -> V:
        """Return the smaller of two 64-bit integers."""
        a, c = self.index(a), self.index(c)
        return self.b.select(self.b.icmp_signed("<", a, c), a, c)

    def max(self, a: Any, c: Any) -> V:
        """Return the larger of two 64-bit integers."""
        a, c = self.index(a), self.index(c)
        return self.b.select(self.b.icmp_signed(">", a, c), a, c)

    def unravel(self, flat: Any, shape: Sequence[Any]) -> list[V]:
        """Return the coordinates of a row-major flat index in a shape of ints, `Dim`s or values."""
        coordinates: list[V] = []
        rest = self.index(flat)
        for size in reversed(shape[1:]):
            coordinates.append(self.mod(rest, size))
            rest = self.div(rest, size)
        return [rest, *reversed(coordinates)] if shape else []

    # control ------------------------------------------------------------------------------------------------------

    @contextmanager
    def loop(self, low: Any, high: Any, step: int = 1, carry: Sequence[V] = ()) -> Iterator[Loop]:
        """Write a loop over low, low + step, ... below high, which may be run no times.

        Inside, `loop.index` is the index, `loop.carried` what the iteration is given; `loop.next(values)` hands on.
        Afterwards `loop.results` is what the last iteration handed on, or `carry` if there was none.
        """
        low, high = self.index(low), self.index(high)
        b, before = self.b, self.b.block
        known = isinstance(low, ir.Constant) and isinstance(high, ir.Constant)
        if known and int(low.constant) + step >= int(high.constant) > int(low.constant):
            loop = Loop(low, list(carry))
            yield loop
            loop.results = loop.following
            return
        rotated = known and int(low.constant) < int(high.constant)
        head = b.append_basic_block("head")
        b.branch(head)
        b.position_at_end(head)
        index = b.phi(I64)
        index.add_incoming(low, before)
        phis = []
        for value in carry:
            p = b.phi(value.type)
            p.add_incoming(value, before)
            phis.append(p)
        leave = None
        if not rotated:
            body, leave = b.append_basic_block("body"), b.append_basic_block("done")
            b.cbranch(b.icmp_signed("<", index, high), body, leave)
            b.position_at_end(body)
        loop = Loop(index, list(phis))
        yield loop
        after = b.add(index, I64(step), flags=("nsw",))
        index.add_incoming(after, b.block)
        for p, value in zip(phis, loop.following, strict=True):
            p.add_incoming(value, b.block)
        if leave is None:
            leave = b.append_basic_block("done")
            b.cbranch(b.icmp_signed("<", after, high), head, leave)
            loop.results = list(loop.following)
        else:
            b.branch(head)
            loop.results = list(phis)
        b.position_at_end(leave)

    @contextmanager
    def when(self, condition: V) -> Iterator[None]:
        """Write code that runs only where a condition holds."""
        with self.b.if_then(condition):
            yield

    # memory -------------------------------------------------------------------------------------------------------

    def at(self, pointer: V, offset: Any, dtype: Any) -> V:
        """Return the address of the element this many elements behind a pointer."""
        offset = self.index(offset)
        if isinstance(offset, ir.Constant) and int(offset.constant) == 0:
            return pointer
        return self.b.gep(pointer, [offset], inbounds=True, source_etype=scalar_type(dtype))

    def load(self, pointer: V, dtype: Any, lanes: int = 1, mask: V = None, align: int | None = None) -> V:
        """Load one element, or a vector of consecutive ones; lanes that the mask leaves out are 0 and not read."""
        one = scalar_type(dtype)
        kind = one if lanes == 1 else vector_type(one, lanes)
        align = align or np.dtype(dtype).itemsize
        if mask is None:
            return self.b.load(pointer, typ=kind, align=align)
        f = self._intrinsic("llvm.masked.load", kind, [PTR, I32, mask.type, kind], suffix=".p0")
        return self.b.call(f, [pointer, I32(align), mask, Written(kind, "zeroinitializer")])

    def store(self, value: V, pointer: V, dtype: Any, mask: V = None, align: int | None = None) -> None:
        """Store an element or a vector; lanes that the mask leaves out are not written."""
        align = align or np.dtype(dtype).itemsize
        if mask is None:
            self.b.store(value, pointer, align=align)
            return
        f = self._intrinsic("llvm.masked.store", VOID, [value.type, PTR, I32, mask.type], of=value.type, suffix=".p0")
        self.b.call(f, [value, pointer, I32(align), mask])

    def tail_mask(self, count: Any, lanes: int) -> V:
        """Return a mask of the first `count` lanes (all of them if there are more)."""
        return self.b.icmp_signed("<", self.iota(lanes), self.splat(self.index(count), lanes))

    def iota(self, lanes: int, kind: ir.Type = I64) -> V:
        """Return the vector 0, 1, 2, ..."""
        return lanes_of(kind, range(lanes))

    def prefetch(self, pointer: V, locality: int = 3, *, write: bool = False) -> None:
        """Ask for the cache line of an address, to read it or to write it."""
        f = self._named("llvm.prefetch.p0", VOID, [PTR, I32, I32, I32])
        self.b.call(f, [pointer, I32(int(write)), I32(locality), I32(1)])

    # vectors ------------------------------------------------------------------------------------------------------

    def splat(self, value: V, lanes: int) -> V:
        """Return a vector with this scalar in every lane."""
        if lanes == 1:
            return value
        kind = vector_type(value.type, lanes)
        if isinstance(value, ir.Constant):
            return uniform(kind, value)
        nothing = undefined(kind)
        one = self.b.insert_element(nothing, value, _ZERO)
        return self.b.shuffle_vector(one, nothing, _zeros(lanes))

    def constant(self, number: float, kind: ir.Type) -> V:
        """Return a number as a scalar or vector of an IR type."""
        one = kind.element if isinstance(kind, ir.VectorType) else kind
        if isinstance(one, ir.FloatType):
            number = float(np.float32(number))
        scalar = ir.Constant(one, number)
        return uniform(kind, scalar) if isinstance(kind, ir.VectorType) else scalar

    def zero(self, dtype: Any, lanes: int = 1) -> V:
        """Return 0 as a scalar or vector."""
        kind = scalar_type(dtype)
        return self.constant(0, kind if lanes == 1 else vector_type(kind, lanes))

    def fma(self, a: V, c: V, d: V) -> V:
        """Return a c + d, rounded once where the target can."""
        if not self.target.fma:
            return self.b.fadd(self.b.fmul(a, c), d)
        return self.call("llvm.fma", a.type, [a, c, d])

    def call(self, intrinsic: str, result: ir.Type, args: Sequence[V]) -> V:
        """Call an LLVM intrinsic that is overloaded by its result's type, such as `llvm.sqrt` or `llvm.floor`."""
        return self.b.call(self._intrinsic(intrinsic, result, [a.type for a in args]), list(args))

    def reduce(self, fold: str, vector: V) -> V:
        """Fold a vector's lanes by `add`, `max`, `min` or `mul`, as a tree of fixed shape."""
        lanes = vector.type.count
        while lanes > 1:
            lanes //= 2
            nothing = undefined(vector.type)
            low = self.b.shuffle_vector(vector, nothing, lanes_of(I32, range(lanes)))
            high = self.b.shuffle_vector(vector, nothing, lanes_of(I32, range(lanes, 2 * lanes)))
            vector = self.combine(fold, low, high)
        return self.b.extract_element(vector, I32(0))

    def combine(self, fold: str, a: V, c: V) -> V:
        """Return the sum, product, larger or smaller of two values; NaN wins."""
        one = a.type.element if isinstance(a.type, ir.VectorType) else a.type
        real = isinstance(one, ir.FloatType | ir.DoubleType | ir.HalfType)
        if fold == "add":
            return self.b.fadd(a, c) if real else self.b.add(a, c)
        if fold == "mul":
            return self.b.fmul(a, c) if real else self.b.mul(a, c)
        if not real:
            return self.b.select(self.b.icmp_signed(">" if fold == "max" else "<", a, c), a, c)
        chosen = self.b.select(self.b.fcmp_ordered(">" if fold == "max" else "<", a, c), a, c)  # c where either is NaN
        return self.b.select(self.b.fcmp_unordered("uno", a, a), a, chosen)

    def _intrinsic(
        self, name: str, result: ir.Type, params: list[ir.Type], *, of: ir.Type | None = None, suffix: str = ""
    ) -> V:
        kind = of or result
        one = kind.element if isinstance(kind, ir.VectorType) else kind
        code = _CODES[str(one)]
        full = f"{name}.{f'v{kind.count}' if isinstance(kind, ir.VectorType) else ''}{code}{suffix}"
        return self._named(full, result, params)

    def _named(self, name: str, result: ir.Type, params: list[ir.Type]) -> V:
        """Return an external function of the module, declared once."""
        found = self.module.globals.get(name)
        return found if found is not None else ir.Function(self.module, ir.FunctionType(result, params), name)

    external = _named
