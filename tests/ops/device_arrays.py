"""Arrays of a device that is not there: what CuPy 14 allows on NumPy's memory, and nothing else.

`library` stands for the module `cupy` where `installed()` puts it. Its arrays never meet NumPy's: mixing raises, as do
implicit copies to the host, functions and arguments that CuPy lacks, and element types that it does not know. Only
`get()` and reading one element go to the host; `SYNCS` counts them.
"""

from __future__ import annotations

import contextlib
import importlib.machinery
import math
import sys
import types
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import ml_dtypes
import numpy as np

from .cupy_gaps import ABSENT, LACKING, LACKING_METHODS

SYNCS: Counter[str] = Counter()
"""How often the host waited for the device, by what made it wait."""

allocated: list[Callable[[ndarray], None]] = []
"""Called with every array that has memory of its own."""

SUPPORTED = {np.dtype(c) for c in "?bhilqBHILQefdFD"} | {np.dtype(ml_dtypes.bfloat16)}
SCALARS = (bool, int, float, complex, np.number, np.bool_)
ALIGNMENT, POISON = 512, 0xFF
UPLOADS = {"array", "asarray", "asanyarray", "ascontiguousarray", "asfortranarray"}
VIEWS = {"broadcast_to", "diagonal", "expand_dims", "moveaxis", "squeeze", "swapaxes", "transpose"}
WAITING = {"argwhere", "bincount", "extract", "flatnonzero", "nonzero", "unique"}
AT = {
    "add": "ilfdeILqQ", "subtract": "iI", "maximum": "ilfdILqQ", "minimum": "ilfdILqQ",
    "bitwise_and": "ilILqQ", "bitwise_or": "ilILqQ", "bitwise_xor": "ilILqQ",
}  # fmt: skip
"""The ufuncs that scatter, and the element types that they scatter."""


class Device:
    """A device by its number; entering it makes it the current one."""

    current = 0
    count = 2

    def __init__(self, id: int | None = None) -> None:
        self.id = Device.current if id is None else id
        self._before: list[int] = []

    def use(self) -> None:
        Device.current = self.id

    def __enter__(self) -> Device:
        self._before.append(Device.current)
        Device.current = self.id
        return self

    def __exit__(self, *_: object) -> None:
        Device.current = self._before.pop()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device) and other.id == self.id

    def __hash__(self) -> int:
        return self.id


class Pointer:
    """Where an array's elements lie."""

    def __init__(self, array: ndarray) -> None:
        self.ptr, self.device_id, self.device = array._host.ctypes.data, array.device.id, array.device
        self.mem = array if array.base is None else array.base


class Flags:
    """How an array lies; there is no `writeable`."""

    def __init__(self, array: ndarray) -> None:
        f = array._host.flags
        self.c_contiguous, self.f_contiguous, self.forc = f.c_contiguous, f.f_contiguous, f.forc
        self.owndata = array.base is None


def host_of(x: Any) -> Any:
    """Return NumPy's array behind a device array, also inside lists and tuples; raise for a NumPy array."""
    if isinstance(x, ndarray):
        return x._host
    if isinstance(x, np.ndarray):
        raise TypeError(f"Unsupported type {type(x)}")
    if isinstance(x, list | tuple):
        return type(x)(host_of(v) for v in x)
    return x


def arrays_in(x: Any) -> Iterator[ndarray]:
    if isinstance(x, ndarray):
        yield x
    elif isinstance(x, list | tuple):
        for v in x:
            yield from arrays_in(v)


def check_place(found: list[ndarray]) -> None:
    """Raise where an array lies on another device than the current one: these devices have no peer access."""
    for a in found:
        if a.device.id != Device.current:
            raise ValueError(
                f"The device where the array resides ({a.device.id}) is different from the current device "
                f"({Device.current}). Peer access is unavailable between these devices."
            )


def wrapped(result: Any, of: list[ndarray]) -> Any:
    """Return a result as device arrays: scalars become arrays of rank 0, views know their base."""
    if isinstance(result, tuple):
        parts = [wrapped(r, of) for r in result]
        return type(result)(*parts) if hasattr(result, "_fields") else tuple(parts)
    if isinstance(result, list):
        return [wrapped(r, of) for r in result]
    if isinstance(result, np.generic):
        result = np.asarray(result)
    if not isinstance(result, np.ndarray):
        return result
    for a in of:
        if result is a._host:
            return a
    base = next((a for a in of if np.may_share_memory(a._host, result)), None)
    return made(result, None if base is None else base if base.base is None else base.base)


def made(host: np.ndarray, base: ndarray | None = None) -> ndarray:
    """Return a device array of NumPy memory that is the array's own, or its base's."""
    if host.dtype not in SUPPORTED:
        raise ValueError(f"Unsupported dtype {host.dtype}")
    out = object.__new__(ndarray)
    out._host, out.base = host, base
    out.device = Device() if base is None else base.device
    if base is None:
        for note in allocated:
            note(out)
    return out


def pooled(shape: Any, dtype: Any) -> np.ndarray:
    """Return memory as a pool hands it out: aligned, with something in it."""
    count, item = math.prod(shape), np.dtype(dtype).itemsize
    buffer = np.full(count * item + ALIGNMENT, POISON, np.uint8)
    start = -buffer.ctypes.data % ALIGNMENT
    return buffer[start : start + count * item].view(dtype).reshape(shape)


def upload(x: Any) -> ndarray:
    """Return a copy of a NumPy array on the current device."""
    return made(np.array(x))


def called(f: Callable[..., Any], name: str, lacking: dict[str, str], args: Any, kwargs: dict[str, Any]) -> Any:
    """Call NumPy's function as CuPy's of that name."""
    for key in kwargs:
        if key in lacking.get(name, "").split():
            raise TypeError(f"{name}() got an unexpected keyword argument {key!r}")
    if name in ("sort", "argsort") and kwargs.get("kind") not in (None, "stable"):
        raise ValueError("only stable sorts")
    found = [*arrays_in(args), *arrays_in(tuple(kwargs.values()))]
    if name not in VIEWS:
        check_place(found)
    with np.errstate(all="ignore"):
        result = f(*host_of(args), **{k: host_of(v) for k, v in kwargs.items()})
    return wrapped(result, found)


def scalar_or_array(x: Any) -> None:
    if not isinstance(x, (ndarray, *SCALARS)):
        raise TypeError(f"Unsupported type {type(x)}")


class Ufunc:
    """One of NumPy's ufuncs, with the methods that CuPy has of it."""

    def __init__(self, numpy: np.ufunc) -> None:
        self.numpy, self.__name__, self.nin, self.nout = numpy, numpy.__name__, numpy.nin, numpy.nout

    def __call__(self, *args: Any, out: Any = None, dtype: Any = None, casting: str = "same_kind") -> Any:
        for a in args:
            scalar_or_array(a)
        if not any(isinstance(a, ndarray) for a in args):
            args = tuple(np.asarray(a) if isinstance(a, np.generic) else a for a in args)
            return wrapped(np.asarray(self.numpy(*args, dtype=dtype)), [])
        given = {} if out is None else {"out": out}
        return called(self.numpy, self.__name__, {}, args, {**given, "dtype": dtype, "casting": casting})

    def at(self, a: Any, indices: Any, b: Any = None) -> None:
        if self.__name__ not in AT:
            raise NotImplementedError(f"`cupy_{self.__name__}.at` is not supported yet")
        kind = a.dtype.char
        if kind not in AT[self.__name__]:
            raise TypeError(f"cupy.{self.__name__}.at does not support {a.dtype}")
        called(self.numpy.at, "at", {}, (a, indices, b), {})

    def reduce(self, array: Any, axis: Any = 0, dtype: Any = None, out: Any = None, keepdims: bool = False) -> Any:
        if self.__name__ not in ("add", "multiply"):
            raise NotImplementedError(f"`cupy_{self.__name__}.reduce` is not supported yet")
        return called(self.numpy.reduce, "reduce", {}, (array, axis, dtype), {"keepdims": keepdims})

    def outer(self, a: Any, b: Any) -> Any:
        return called(self.numpy.outer, "outer", {}, (a, b), {})


def function(name: str, f: Callable[..., Any], lacking: dict[str, str] = LACKING) -> Callable[..., Any]:
    """Return CuPy's function of a name."""

    def call(*args: Any, **kwargs: Any) -> Any:
        if name in UPLOADS and kwargs.pop("blocking", False):
            SYNCS["upload"] += 1
        if name in UPLOADS and not any(True for _ in arrays_in(args[0])):
            return made(np.array(f(*args, **kwargs)))
        if name in WAITING or (name == "where" and len(args) == 1):
            SYNCS[name] += 1
        if name == "repeat" and any(isinstance(a, ndarray) for a in args[1:]):
            SYNCS[name] += 1
        if name == "lexsort" and not isinstance(args[0], ndarray):
            raise AttributeError("'tuple' object has no attribute 'ndim'")
        return called(f, name, lacking, args, kwargs)

    call.__name__ = name
    return call


class ndarray:  # noqa: N801 - CuPy's name
    """An array that lies on a device."""

    __module__ = "cupy"
    __array_priority__ = 100
    __hash__ = None  # type: ignore[assignment]
    _host: np.ndarray
    base: ndarray | None
    device: Device

    def __init__(self, shape: Any, dtype: Any = float) -> None:
        self.__dict__.update(made(pooled(shape, dtype)).__dict__)

    dtype = property(lambda self: self._host.dtype)
    ndim = property(lambda self: self._host.ndim)
    size = property(lambda self: self._host.size)
    itemsize = property(lambda self: self._host.itemsize)
    nbytes = property(lambda self: self._host.nbytes)
    strides = property(lambda self: self._host.strides)
    shape = property(lambda self: self._host.shape)
    data = property(Pointer)
    flags = property(Flags)
    T = property(lambda self: wrapped(self._host.T, [self]))
    real = property(lambda self: wrapped(self._host.real, [self]))
    imag = property(lambda self: wrapped(self._host.imag, [self]))

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        strides = None if self._host.flags.c_contiguous else self.strides
        return {
            "shape": self.shape, "typestr": self.dtype.str, "descr": self.dtype.descr, "stream": 1, "version": 3,
            "strides": strides, "data": (self.data.ptr if self.size else 0, False),
        }  # fmt: skip

    def get(self, stream: Any = None, order: str = "C", out: Any = None, blocking: bool = True) -> np.ndarray:
        SYNCS["get"] += blocking
        if out is None:
            return np.array(self._host, order=order)
        out[...] = self._host
        return out

    def set(self, arr: np.ndarray, stream: Any = None) -> None:
        if not isinstance(arr, np.ndarray):
            raise TypeError("Only numpy.ndarray can be set to cupy.ndarray")
        if arr.dtype != self.dtype or arr.shape != self.shape:
            raise TypeError(f"{arr.dtype} array cannot be set to {self.dtype} array")
        self._host[...] = arr

    def _only(self, what: str) -> Any:
        SYNCS[what] += 1
        return self._host.item()

    def item(self) -> Any:
        return self._only("item")

    def tolist(self) -> Any:
        SYNCS["tolist"] += 1
        return self._host.tolist()

    def tobytes(self) -> bytes:
        SYNCS["tobytes"] += 1
        return self._host.tobytes()

    def astype(self, dtype: Any, order: str = "K", casting: Any = None, subok: Any = None, copy: bool = True) -> Any:
        if casting is not None or subok is not None:
            raise TypeError("casting is not supported yet")
        check_place([self])
        with np.errstate(all="ignore"):
            return wrapped(self._host.astype(dtype, order=order, copy=copy), [self])

    def reshape(self, *shape: Any, order: str = "C", copy: bool | None = None) -> Any:
        return wrapped(self._host.reshape(*host_of(shape), order=order), [self])

    def view(self, dtype: Any = None) -> Any:
        return wrapped(self._host.view(self.dtype if dtype is None else dtype), [self])

    def copy(self, order: str = "C") -> Any:
        return wrapped(self._host.copy(order), [])

    def sort(self, axis: int = -1, kind: Any = None) -> None:
        if not self._host.flags.c_contiguous:
            raise NotImplementedError("Sorting non-contiguous array is not supported.")
        self._host.sort(axis, kind="stable")

    def fill(self, value: Any) -> None:
        self._host.fill(host_of(value))

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. Please use `.get()` to construct a NumPy array "
            "explicitly."
        )

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, out: Any = None, **kwargs: Any) -> Any:
        f = getattr(library, ufunc.__name__, None)
        if f is None or (method != "__call__" and not hasattr(f, method)):
            return NotImplemented
        given = {} if out is None else {"out": out[0]}
        return (f if method == "__call__" else getattr(f, method))(*inputs, **given, **kwargs)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        home = func.__module__.removeprefix("numpy").strip(".")
        f = getattr(getattr(library, home) if home else library, func.__name__, None)
        return NotImplemented if f is None else f(*args, **kwargs)

    def __getitem__(self, at: Any) -> Any:
        check_place([self, *arrays_in(at)])
        self._masks(at)
        return wrapped(self._host[host_of(at)], [self])

    def __setitem__(self, at: Any, value: Any) -> None:
        check_place([self, *arrays_in(at), *arrays_in(value)])
        self._masks(at)
        with np.errstate(all="ignore"):
            self._host[host_of(at)] = host_of(value)

    def _masks(self, at: Any) -> None:
        masks = sum(a.dtype == bool for a in (at if isinstance(at, tuple) else (at,)) if isinstance(a, ndarray))
        if masks > 1:
            raise NotImplementedError("indices of more than one array of truth values")
        if masks:
            SYNCS["mask"] += 1

    def __len__(self) -> int:
        return len(self._host)

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self._host)))

    def __bool__(self) -> bool:
        if self.size != 1:
            raise ValueError("The truth value of an array with more than one element is ambiguous.")
        return bool(self._only("bool"))

    def __int__(self) -> int:
        return int(self._only("int"))

    def __float__(self) -> float:
        return float(self._only("float"))

    def __deepcopy__(self, memo: Any) -> ndarray:
        return made(self._host.copy())

    def __repr__(self) -> str:
        return f"device {self._host!r}"


def _method(name: str) -> Any:
    def method(self: ndarray, *args: Any, **kwargs: Any) -> Any:
        if name == "nonzero":
            SYNCS[name] += 1
        return called(lambda me, *a, **k: getattr(me, name)(*a, **k), name, LACKING_METHODS, (self, *args), kwargs)

    method.__name__ = name
    return method


_METHODS = (
    "all any argmax argmin argpartition argsort choose clip compress conj cumprod cumsum diagonal dot flatten max "
    "mean min nonzero prod ravel repeat round searchsorted squeeze std sum swapaxes take trace transpose var "
)
for _name in _METHODS.split():
    setattr(ndarray, _name, _method(_name))


def _operator(ufunc: str, swapped: bool = False, inplace: bool = False) -> Any:
    def operator(self: ndarray, other: Any) -> Any:
        if not isinstance(other, (ndarray, *SCALARS)):
            if isinstance(other, np.ndarray):
                raise TypeError(f"Unsupported type {type(other)}")
            return NotImplemented
        f = getattr(library, ufunc)
        args = (other, self) if swapped else (self, other)
        return f(*args, out=self) if inplace else f(*args)

    return operator


for _symbol, _ufunc in {
    "add": "add", "sub": "subtract", "mul": "multiply", "truediv": "true_divide", "floordiv": "floor_divide",
    "mod": "remainder", "pow": "power", "and": "bitwise_and", "or": "bitwise_or", "xor": "bitwise_xor",
    "lshift": "left_shift", "rshift": "right_shift", "matmul": "matmul",
}.items():  # fmt: skip
    setattr(ndarray, f"__{_symbol}__", _operator(_ufunc))
    setattr(ndarray, f"__r{_symbol}__", _operator(_ufunc, swapped=True))
    if _symbol != "matmul":
        setattr(ndarray, f"__i{_symbol}__", _operator(_ufunc, inplace=True))
for _symbol, _ufunc in {
    "lt": "less", "le": "less_equal", "gt": "greater", "ge": "greater_equal", "eq": "equal", "ne": "not_equal",
}.items():  # fmt: skip
    setattr(ndarray, f"__{_symbol}__", _operator(_ufunc))
for _symbol, _ufunc in {"neg": "negative", "abs": "absolute", "invert": "invert", "pos": "positive"}.items():
    setattr(ndarray, f"__{_symbol}__", lambda self, f=_ufunc: getattr(library, f)(self))


class Library(types.ModuleType):
    """The module `cupy`."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name in ABSENT or not hasattr(np, name):
            raise AttributeError(f"module 'cupy' has no attribute {name!r}")
        if name in ("linalg", "fft", "random"):  # their libraries are not among the extras cuda12 and cuda13
            raise ImportError(f"libcusolver, libcufft or libcurand: cannot open shared object file (cupy.{name})")
        found = getattr(np, name)
        if isinstance(found, np.ufunc):
            found = Ufunc(found)
        elif callable(found) and not isinstance(found, type):
            found = function(name, found)
        setattr(self, name, found)
        return found


library = Library("cupy")
library.__spec__ = importlib.machinery.ModuleSpec("cupy", None)
library.ndarray = ndarray
library.asnumpy = lambda a, **_: a.get() if isinstance(a, ndarray) else np.asarray(a)
library.cuda = types.SimpleNamespace(Device=Device)
_tricks = np.lib.stride_tricks
library.lib = types.SimpleNamespace(
    stride_tricks=types.SimpleNamespace(
        sliding_window_view=function("sliding_window_view", _tricks.sliding_window_view),
        as_strided=function("as_strided", _tricks.as_strided),
    )
)


def _special() -> types.ModuleType:
    from onnxgrad.ops.kernels.array import _gamma, _special

    made = types.ModuleType("cupyx.scipy.special")
    sources = {
        "erf": _special.erf, "erfc": _gamma.erfc, "erfinv": _gamma.erfinv, "gammaln": _gamma.lgamma,
        "polygamma": _gamma.polygamma, "digamma": lambda x: _gamma.polygamma(0, x),
    }  # fmt: skip
    for name, f in sources.items():
        setattr(made, name, function(name, f))
    return made


@contextlib.contextmanager
def installed() -> Iterator[types.ModuleType]:
    """Let `import cupy` find this library for the time of a `with` block."""
    special = _special()
    names = {
        "cupy": library, "cupyx": types.ModuleType("cupyx"), "cupyx.scipy": types.ModuleType("cupyx.scipy"),
        "cupyx.scipy.special": special,
    }  # fmt: skip
    names["cupyx"].scipy = names["cupyx.scipy"]  # type: ignore[attr-defined]
    names["cupyx.scipy"].special = special  # type: ignore[attr-defined]
    before = {name: sys.modules.get(name) for name in names}
    sys.modules.update(names)
    Device.current = 0
    SYNCS.clear()
    try:
        yield library
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
