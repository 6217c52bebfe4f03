"""A kernel: a piece of native code, what it is told at run time, and into how many chunks its work splits."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...dims import Dim, DimLike
from ...errors import KernelError
from ...expr import Call, Const, Expr, Var

if TYPE_CHECKING:
    from .emitter import Emitter


@dataclass(frozen=True)
class Kernel:
    """What `kernel()` makes.

    Attributes:
        name: what people read in plans and profiles.
        emit: writes the body: `emit(emitter, params)`.
        params: everything static that the code depends on, nested tuples and dataclasses; sizes may be `Dim`s.
        operands: how many addresses it is passed.
        dims: the symbolic sizes among the parameters, in the order in which they are passed.
        chunks: into how many pieces the work splits. They may run in any order, on any thread; which piece does what
            depends on shapes alone, so that results do not depend on the number of threads.
        scratch: bytes of memory that each thread needs for itself.
        flops: floating-point operations of the whole work.
        bytes: what it moves to and from memory.
        key: the code's identity: equal keys are equal code.
    """

    name: str
    emit: Callable[[Emitter, Any], None]
    params: Any
    operands: int
    dims: tuple[Dim, ...]
    chunks: DimLike
    scratch: DimLike
    flops: DimLike
    bytes: DimLike
    key: str


def kernel(
    name: str,
    emit: Callable[[Emitter, Any], None],
    params: Any,
    *,
    operands: int,
    chunks: DimLike = 1,
    scratch: DimLike = 0,
    flops: DimLike = 0,
    bytes: DimLike = 0,
) -> Kernel:
    """Return a kernel; see `Kernel`. `emit` must be a function of a module, and all that it depends on in `params`."""
    dims: dict[Dim, int] = {}
    text = _canonical(params, dims)
    code = f"{emit.__module__.rpartition('.')[2]}.{emit.__qualname__}({text})x{operands}"
    key = hashlib.sha256(code.encode()).hexdigest()[:32]
    return Kernel(name, emit, params, operands, tuple(dims), chunks, scratch, flops, bytes, key)


@functools.cache
def _fields(kind: type) -> tuple[str, ...]:
    return tuple(f.name for f in dataclasses.fields(kind))


def _canonical(value: Any, dims: dict[Dim, int]) -> str:
    """Return a text that is equal exactly for parameters of equal code; sizes that run time knows are numbered."""
    if type(value) is int:
        return repr(value)
    if isinstance(value, Dim):
        return f"${dims.setdefault(value, len(dims))}"
    if value is None or isinstance(value, bool | int | float | str | np.integer):
        return repr(value)
    if isinstance(value, np.dtype):
        return value.name
    if isinstance(value, tuple | list):
        return f"({','.join([_canonical(v, dims) for v in value])})"
    if isinstance(value, Expr):
        return f"<{expression_key(value)}>"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [f"{name}={_canonical(getattr(value, name), dims)}" for name in _fields(type(value))]
        return f"{type(value).__name__}({','.join(fields)})"
    raise KernelError(f"a kernel's parameter must be static data, found {type(value).__name__}")


def expression_key(e: Expr) -> str:
    """Return a text that is equal for expressions of equal structure; shared parts are written once."""
    seen: dict[int, int] = {}
    parts: list[str] = []

    def visit(n: Expr) -> int:
        if id(n) in seen:
            return seen[id(n)]
        if isinstance(n, Var):
            text = n.name
        elif isinstance(n, Const):
            text = repr(n.value)
        else:
            assert isinstance(n, Call)
            text = f"{n.fn}({','.join(str(visit(a)) for a in n.args)})"
        parts.append(text)
        seen[id(n)] = len(parts) - 1
        return seen[id(n)]

    visit(e)
    return ";".join(parts)


def nodes_of(e: Expr) -> Iterator[Expr]:
    """Yield the distinct nodes of an expression, arguments first."""
    done: set[int] = set()

    def visit(n: Expr) -> Iterator[Expr]:
        if id(n) in done:
            return
        if isinstance(n, Call):
            for a in n.args:
                yield from visit(a)
        done.add(id(n))
        yield n

    yield from visit(e)
