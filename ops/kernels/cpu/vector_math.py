"""Elementary functions as vector code, without calls.

float32: within 2 ulp over the whole range, float64 within 4; special values as C defines them. What is rarely hot
computes float32 in float64.
"""

from __future__ import annotations

from collections.abc import Callable

from ...errors import KernelError
from . import vector_math_angles as angles, vector_math_exponential as exponential
from .emitter import F64, Emitter, V
from .vector_math_floats import Floats

_BOTH: dict[str, Callable[[Floats, V], V]] = {
    "exp": exponential.exp,
    "expm1": exponential.expm1,
    "log": exponential.log,
    "log1p": exponential.log1p,
    "tanh": exponential.tanh,
    "tanh_softplus": exponential.tanh_softplus,
    "sigmoid": exponential.sigmoid,
    "softplus": exponential.softplus,
    "erf": exponential.erf,
    "sin": angles.sin,
    "cos": angles.cos,
    "sqrt": Floats.sqrt,
}
_IN_DOUBLE: dict[str, Callable[[Floats, V], V]] = {
    "tan": angles.tan,
    "asin": exponential.asin,
    "acos": exponential.acos,
    "atan": exponential.atan,
    "sinh": exponential.sinh,
    "cosh": exponential.cosh,
    "asinh": exponential.asinh,
    "acosh": exponential.acosh,
    "atanh": exponential.atanh,
}
_ROUNDINGS = frozenset({"floor", "ceil", "trunc", "round"})

FUNCTIONS = frozenset({*_BOTH, *_IN_DOUBLE, *_ROUNDINGS, "pow"})
"""What `call` knows. `tanh_softplus` is tanh(softplus(x)), without cancellation and at one exponential."""


def call(e: Emitter, fn: str, *args: V) -> V:
    """Return a function of float32 or float64 vectors or scalars.

    Raises:
        KernelError: if there is no vector code for it.
    """
    m = Floats(e, args[0])
    if fn in _BOTH:
        return _BOTH[fn](m, *args)
    if fn in _ROUNDINGS:
        return m.round(args[0], fn)
    if fn not in FUNCTIONS:
        raise KernelError(f"{e.prefix}: no vector code for {fn}")
    wide = args if m.double else tuple(m.b.fpext(a, m.like(F64)) for a in args)
    d = Floats(e, wide[0])
    y = exponential.power(d, *wide, precise=m.double) if fn == "pow" else _IN_DOUBLE[fn](d, *wide)
    return y if m.double else m.b.fptrunc(y, m.kind)
