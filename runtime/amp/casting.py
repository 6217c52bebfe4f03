"""What autocast does to the arguments of an op that is called with Tensors.

`record` hands a call over where a context is active in its thread; the casts are ops, so gradients flow through them
and arrive in the type of what was cast: parameters stay float32, and so do their gradients.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...ops.op import OPS, Op
from ...ops.pointwise import add, cast
from ...ops.types import HALF, DType, is_float
from ..autograd import record as _record
from ..autograd.grad_mode import MODE
from .lists import AS_GIVEN, FLOAT32, LOWER, PRODUCTS, UNTOUCHED

FLOAT_32: DType = np.dtype(np.float32)
FLOAT_64: DType = np.dtype(np.float64)

Cache = dict[Any, tuple[Any, Any, int, Any]]
"""A weight's cast by the weight: who it is, its array and version then, and the cast."""

_kinds: dict[Op, frozenset[str] | None] = {}


def _kind(op: Op) -> frozenset[str] | None:
    """Return the list that an op is on."""
    try:
        return _kinds[op]
    except KeyError:
        found = next((names for names in (LOWER, FLOAT32, AS_GIVEN, UNTOUCHED) if op.name in names), None)
        # an op by another function's name is not the one that is on the list
        _kinds[op] = found if OPS.get(op.name) is op else None
        return _kinds[op]


class Casts:
    """An active context.

    Attributes:
        dtypes: the half precision of each kind of device, `cpu` and `cuda`; a kind that is not there is left alone.
        cache: casts of weights, shared by the contexts inside the outermost; None to keep none.
    """

    def __init__(self, dtypes: dict[str, DType], cache: Cache | None) -> None:
        """Make a context; see the class."""
        self.dtypes, self.cache = dtypes, cache
        self.key = tuple(sorted((device, str(dtype)) for device, dtype in dtypes.items()))

    def again(self) -> Casts:
        """Return the same for computing something again; its casts of weights are its own."""
        return Casts(self.dtypes, None if self.cache is None else {})

    def record(self, op: Op, args: Sequence[Any], attrs: dict[str, Any]) -> Any:
        """Compute an op on Tensors in the element types of its list."""
        kind = _kind(op)
        if kind is None and op.structural and not (MODE.trace is not None and MODE.trace.whole):
            assert op.composition is not None
            return op.composition(*args, **attrs)
        half = None if kind is UNTOUCHED else self.half_of(args)
        MODE.autocast = None
        try:
            if half is None:
                return _record.record(op, args, attrs)
            if kind is LOWER:
                made = _record.record(op, [self._lowered(a, half) for a in args], attrs)
                if op.name in PRODUCTS:
                    made._is_product = True
                return made
            if kind is FLOAT32:
                return _record.record(op, [_raised(a) for a in args], attrs)
            if kind is AS_GIVEN:
                return _answered_in(_record.record(op, [_raised(a) for a in args], attrs), args[0].dtype)
            if op is add and (found := _with_bias(args)) is not None:
                product, bias = found
                args = (product, self._lowered(bias, product.dtype))
            return _record.record(op, _matched(args), attrs)
        finally:
            MODE.autocast = self

    def in_half(self, tensors: Sequence[Any]) -> tuple[Any, ...]:
        """Return Tensors of float32 in half precision where this context is for their device."""
        half = self.half_of(tensors)
        return tuple(tensors) if half is None else tuple(self._lowered(t, half) for t in tensors)

    def in_widest(self, tensors: Sequence[Any]) -> tuple[Any, ...]:
        """Return Tensors in the widest of their float types where this context is for their device."""
        return tuple(tensors if self.half_of(tensors) is None else _matched(tensors))

    def in_float32(self, tensors: Sequence[Any]) -> tuple[Any, ...]:
        """Return Tensors of half precision as float32 where this context is for their device."""
        return tuple(tensors) if self.half_of(tensors) is None else tuple(_raised(t) for t in tensors)

    def half_of(self, args: Sequence[Any]) -> DType | None:
        """Return the half precision of the device where the first Tensor among the arguments lies."""
        if len(self.dtypes) == 1 or len(set(self.dtypes.values())) > 1:
            return self.dtypes.get(_device_kind(args))
        return next(iter(self.dtypes.values()))

    def _lowered(self, a: Any, half: DType) -> Any:
        if type(a) is list:
            return [self._lowered(v, half) for v in a]
        dtype = getattr(a, "dtype", None)
        if dtype is None or dtype == half or not _casts(dtype):
            return a
        if self.cache is None or dtype != FLOAT_32 or MODE.trace is not None or not _is_weight(a):
            return cast(a, dtype=str(half))
        key = (id(a), half, MODE.enabled)
        found = self.cache.get(key)
        if found is not None and found[0]() is a and found[1] is a._array and found[2] == a._version:
            return found[3]
        made, cache = cast(a, dtype=str(half)), self.cache
        self.cache[key] = (weakref.ref(a, lambda gone: _drop(cache, key, gone)), a._array, a._version, made)
        return made


def _drop(cache: Cache, key: Any, gone: Any) -> None:
    """Forget the cast of a weight that is gone, unless another has its place by now."""
    if key in cache and cache[key][0] is gone:
        del cache[key]


def _with_bias(args: Sequence[Any]) -> tuple[Any, Any] | None:
    """Return a product in half precision and its float32 bias, a number for each place along one axis, if it is that.

    Layers of imported models are a product and an addition, which PyTorch's are not.
    """
    for product, bias in (args, args[::-1]):
        if getattr(product, "_is_product", False) and getattr(bias, "dtype", None) == FLOAT_32:
            lengths = [n for n in bias.shape if n != 1]
            if product.dtype in HALF and len(lengths) <= 1 and bias.ndim <= product.ndim:
                return product, bias
    return None


def _is_weight(a: Any) -> bool:
    return getattr(a, "requires_grad", False) and a._edge is None and a._base is None


def _casts(dtype: DType) -> bool:
    """Whether autocast changes floats of this type: those of 16 and of 32 bits."""
    return dtype == FLOAT_32 or dtype in HALF


def _raised(a: Any) -> Any:
    """Return float32 in the place of half precision."""
    if type(a) is list:
        return [_raised(v) for v in a]
    return cast(a, dtype="float32") if getattr(a, "dtype", None) in HALF else a


def _answered_in(result: Any, dtype: DType) -> Any:
    """Return the results of an op, the first in an element type."""
    if dtype not in HALF:
        return result
    if type(result) is tuple:
        return (cast(result[0], dtype=str(dtype)), *result[1:])
    return cast(result, dtype=str(dtype))


def _matched(args: Sequence[Any]) -> Sequence[Any]:
    """Return arguments whose floats are of one type, the widest, where half precision is among different ones.

    As in PyTorch's arithmetic a 0-d array does not widen one with axes.
    """
    flat = [v for a in args for v in (a if type(a) is list else (a,)) if hasattr(v, "dtype")]
    floats = [v for v in flat if v.dtype in HALF or v.dtype in (FLOAT_32, FLOAT_64)]
    if len(floats) < 2 or not any(v.dtype in HALF for v in floats) or len({v.dtype for v in floats}) == 1:
        return args
    wide = {v.dtype for v in floats if v.ndim} or {v.dtype for v in floats}
    target = wide.pop() if len(wide) == 1 else FLOAT_64 if FLOAT_64 in wide else FLOAT_32
    name = str(target)

    def place(a: Any) -> Any:
        if type(a) is list:
            return [place(v) for v in a]
        dtype = getattr(a, "dtype", None)
        if dtype is None or dtype == target or not is_float(dtype):
            return a
        return cast(a, dtype=name)

    return [place(a) for a in args]


def _device_kind(args: Sequence[Any]) -> str:
    for a in args:
        for v in a if type(a) is list else (a,):
            array = getattr(v, "_array", v)
            if type(array) is np.ndarray:
                if array.ndim:
                    return "cpu"
            elif type(array).__module__.partition(".")[0] == "cupy":
                return "cuda"
    return "cpu" if MODE.trace is None else str(MODE.trace.device).partition(":")[0]


def in_half(*tensors: Any) -> tuple[Any, ...]:
    """Return Tensors in half precision where autocast is active; for functions that multiply.

    Args:
        tensors: Tensors, or what else a function is given, which is returned as it is.
    """
    casts = MODE.autocast
    return tensors if casts is None else casts.in_half(tensors)


def in_widest(*tensors: Any) -> tuple[Any, ...]:
    """Return Tensors in the widest of their float types where autocast is active; for functions that want one type."""
    casts = MODE.autocast
    return tensors if casts is None else casts.in_widest(tensors)


def alike_in_half(*tensors: Any) -> bool:
    """Whether autocast is active and makes one type of the float types of Tensors."""
    casts = MODE.autocast
    return casts is not None and casts.half_of(tensors) is not None and all(_casts(t.dtype) for t in tensors)


def in_float32(*tensors: Any) -> tuple[Any, ...]:
    """Return Tensors as float32 where autocast is active and they are of half precision; for losses.

    Args:
        tensors: Tensors, or what else a function is given, which is returned as it is.
    """
    casts = MODE.autocast
    return tensors if casts is None else casts.in_float32(tensors)


def half_for(kind: str) -> DType | None:
    """Return the half precision that autocast asks for in this thread, None where it asks for none.

    Args:
        kind: of device, `cpu` or `cuda`.
    """
    casts = MODE.autocast
    return None if casts is None else casts.dtypes.get(kind)
