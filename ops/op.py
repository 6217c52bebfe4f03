"""The shape of an op: a pure function of arrays whose arguments decide what a call means.

Arrays are positional, attributes are keyword, static and hashable. A plain array computes; an argument whose class has
`__interpret__` (a Tensor, a graph Value) takes the call over, the one with the highest `interpret_priority` first. So a
gradient written once, with ops, serves the tape, every higher order, and the compiled graph.

Conventions:
    infer       types in, type (or tuple of types) out: the function under `@op`, and the op's docstring.
    kernel      arrays in, arrays out: registered by backend, chosen by `select` from types and attributes alone.
    vjp         `(g, y, *args, **attrs)` -> one entry an input: None where it is declared non-differentiable, else a
                function of no arguments, called only when that gradient is needed. Several outputs: g and y are tuples,
                and an entry of g is None where that output takes no part.
    composition the same function written with other ops: the oracle, the fallback kernel and the gradient of an op that
                has none of its own. An op with nothing but a composition is structural: it runs as that, always.
    saving      an op that returns more, for its gradient alone, and how many of its results are this op's: what runs
                where a gradient may be asked for.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from .budget import check_size
from .dims import symbols_in
from .errors import DTypeError, KernelError, OnnxGradError, SymbolicError
from .places import beside, disagreement, several
from .types import HALF, Array, DType, TensorType, ValueType, contents_array, is_integer, with_contents

Infer: TypeAlias = Callable[..., Any]
Kernel: TypeAlias = Callable[..., Any]
Vjp: TypeAlias = Callable[..., tuple[Callable[[], Any] | None, ...]]
When: TypeAlias = Callable[..., bool]

OPS: dict[str, Op] = {}
"""Every op by its name."""


class _Eagerly(threading.local):
    on = False


eagerly = _Eagerly()
"""Whether this thread's ops on plain arrays use their eager kernels: `on` is set while gradients flow back."""


class Op:
    """A named pure function of arrays, with its type inference, kernels and gradient."""

    interpret_priority = 0

    def __init__(self, name: str, infer: Infer, *, symbolic: bool = False, dtype: str | None = None) -> None:
        """Make an op; see `op` for the arguments."""
        if name in OPS:
            raise ValueError(f"op {name!r} is defined twice")
        self.name = name
        self.infer = infer
        self.symbolic = symbolic
        self.several = str(infer.__annotations__.get("return", "")).startswith(("tuple", "Types"))
        self.fixed_dtype = np.dtype(dtype) if dtype else None
        self.kernels: dict[str, list[tuple[When | None, Kernel]]] = {}
        self.array_kernel: Kernel | None = None
        self.eager_kernel: Kernel | None = None
        self.vjp: Vjp | None = None
        self.composition: Callable[..., Any] | None = None
        self.saving: tuple[Op, int] | None = None
        self.__doc__ = infer.__doc__
        self.__name__ = name
        OPS[name] = self

    def __call__(self, *args: Any, **attrs: Any) -> Any:
        """Compute, record or trace, as the arguments decide."""
        best, priority = None, 0
        for a in args:
            p = getattr(a, "interpret_priority", 0)
            if p > priority:
                best, priority = a, p
            elif type(a) is list:
                for item in a:
                    p = getattr(item, "interpret_priority", 0)
                    if p > priority:
                        best, priority = item, p
        if best is not None:
            return type(best).__interpret__(self, args, attrs)
        if several.devices:
            with beside(args):
                return self.run(*args, **attrs)
        return self.run(*args, **attrs)

    def __deepcopy__(self, memo: dict[int, Any]) -> Op:
        """Return itself: graphs that are copied call the same ops."""
        return self

    def run(self, *args: Any, **attrs: Any) -> Any:
        """Compute on plain arrays.

        Raises:
            DeviceError: if they lie on several devices.
        """
        try:
            if self.eager_kernel is not None and eagerly.on:
                return self.eager_kernel(*args, **attrs)
            if self.array_kernel is not None:
                return self.array_kernel(*args, **attrs)
        except (TypeError, ValueError, AttributeError) as error:
            found = disagreement(self.name, args)
            if found is None:
                raise
            raise found from error
        if self.composition is not None:
            return self.composition(*args, **attrs)
        raise KernelError(f"{self.name}: no array kernel is registered")

    def kernel(self, backend: str, *, when: When | None = None, half: str = "widen") -> Callable[[Kernel], Kernel]:
        """Register a kernel for a backend (`array`, later `cpu` and `cuda`).

        Args:
            backend: the family of kernels it belongs to.
            when: accepts or refuses from types and attributes alone.
            half: `widen` computes float16 and bfloat16 in float32 and rounds once; `native` hands them on as they are.
        """

        def register(f: Kernel) -> Kernel:
            ready = _widened(f) if half == "widen" and backend == "array" else f
            self.kernels.setdefault(backend, []).append((when, ready))
            if backend == "array" and when is None:
                self.array_kernel = ready
            return f

        return register

    def select(self, types: Sequence[Any], attrs: dict[str, Any], backends: Sequence[str] = ("array",)) -> Kernel:
        """Return the first kernel, in the order of backends, that accepts these types.

        Raises:
            KernelError: if none does.
        """
        for backend in backends:
            for when, kernel in self.kernels.get(backend, ()):
                if when is None or when(*types, **attrs):
                    return kernel
        if self.composition is not None:
            return self.composition
        raise KernelError(
            f"{self.name}: no kernel for ({', '.join(map(str, types))}) on {list(backends)}; "
            f"registered: {sorted(self.kernels)}"
        )

    def defvjp(self, f: Vjp) -> Vjp:
        """Register the gradient."""
        self.vjp = f
        return f

    def compose(self, f: Callable[..., Any]) -> Callable[..., Any]:
        """Register the composition that this op stands for."""
        self.composition = f
        return f

    @property
    def structural(self) -> bool:
        """Whether it always runs as its composition (control flow, sequences)."""
        return self.array_kernel is None and self.composition is not None

    def infer_types(self, *types: Any, **attrs: Any) -> ValueType | tuple[ValueType, ...]:
        """Return the output types, with the contents of small integer tensors where they are known.

        Where inference needs a rank or size that only run time knows, the result is a tensor of unknown rank.

        Raises:
            SymbolicError: if an op of several outputs needs such a rank: not even their number may be known.
            ShapeError: if a size is negative, or a result larger than `budget.BYTES`.
        """
        try:
            out = self.infer(*types, **attrs)
        except SymbolicError:
            if self.several:
                raise
            return TensorType(self._dtype(types, attrs), None)
        for t in out if type(out) is tuple else (out,):
            if type(t) is TensorType and t.known_shape is not None:
                check_size(self.name, t.known_shape, t.dtype.itemsize)
        if self.symbolic and isinstance(out, TensorType) and (is_integer(out.dtype) or out.dtype.kind == "b"):
            return self._fold(out, types, attrs)
        return out  # type: ignore[no-any-return]

    def _dtype(self, types: Sequence[Any], attrs: dict[str, Any]) -> DType:
        if self.fixed_dtype is not None:
            return self.fixed_dtype
        if "dtype" in attrs:
            named: DType = np.dtype(attrs["dtype"])
            return named
        for t in types:
            if isinstance(t, TensorType):
                return t.dtype
        raise DTypeError(f"{self.name}: the result's element type cannot be inferred from {types}")

    def _fold(self, out: TensorType, types: Sequence[Any], attrs: dict[str, Any]) -> TensorType:
        if out.contents is not None:
            return out
        args = []
        for t in types:
            if not isinstance(t, TensorType):
                args.append(t)
                continue
            known = contents_array(t)
            if known is None:
                return out
            args.append(known)
        if any(True for a in attrs.values() for _ in symbols_in(a)):
            return out
        try:
            return with_contents(out, self.run(*args, **attrs))
        except (OnnxGradError, TypeError, ValueError):
            return out

    def __repr__(self) -> str:
        """Return `<op name>`."""
        return f"<op {self.name}>"


def op(*, symbolic: bool = False, dtype: str | None = None, name: str | None = None) -> Callable[[Infer], Op]:
    """Make an op of a type-inference function.

    Args:
        symbolic: the array kernel also works on object arrays of dimensions, so that small integer results stay known.
        dtype: the element type of the result whatever the inputs, for results of unknown rank.
        name: the op's name, where it is not the function's (a trailing underscore is dropped).
    """

    def make(infer: Infer) -> Op:
        return Op(name or infer.__name__.rstrip("_"), infer, symbolic=symbolic, dtype=dtype)

    return make


def _widened(f: Kernel) -> Kernel:
    """Compute in float32 where an argument is float16 or bfloat16, and round the results once."""

    def kernel(*args: Any, **attrs: Any) -> Any:
        half: DType | None = None
        for a in args:
            d = getattr(a, "dtype", None)
            if d is not None and d.itemsize == 2 and d in HALF:
                half = d
                break
        if half is None:
            return f(*args, **attrs)
        wide = [a.astype(np.float32) if getattr(a, "dtype", None) in HALF else a for a in args]
        return _narrow(f(*wide, **attrs), half)

    kernel.__doc__, kernel.__name__ = f.__doc__, f.__name__
    kernel.__wrapped__ = f  # type: ignore[attr-defined]
    return kernel


def _narrow(result: Any, half: DType) -> Any:
    if isinstance(result, tuple):
        return tuple(_narrow(r, half) for r in result)
    return result.astype(half) if getattr(result, "dtype", None) == np.float32 else result


class _Quiet(threading.local):
    """For each thread a context in which NumPy warns of no overflow: entering it is cheaper than `np.errstate`."""

    def __init__(self) -> None:
        with np.errstate(all="ignore"):
            self.run = contextvars.copy_context().run


quiet = _Quiet()


def quietly(f: Callable[..., Any], *args: Any) -> Any:
    """Call a function that calls no kernel itself, without warnings of overflow, division by zero and NaN."""
    return quiet.run(f, *args)


def namespace(*arrays: Array) -> Any:
    """Return the module whose functions take these arrays: NumPy, or CuPy where one of them is a CuPy array."""
    for a in arrays:
        if type(a) is not np.ndarray and type(a).__module__.partition(".")[0] == "cupy":
            import cupy

            return cupy
    return np
