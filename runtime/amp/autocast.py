"""`autocast`: a context in which ops choose their element types, by PyTorch's names and rules."""

from __future__ import annotations

import functools
import threading
import warnings
from collections.abc import Callable
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

import numpy as np

from ...ops.errors import InputError
from ...ops.types import BFLOAT16, HALF, DType
from ..autograd.grad_mode import MODE
from ..autograd.saved import switch_autocast
from ..tensor.device import is_available
from .casting import Cache, Casts

P = ParamSpec("P")
R = TypeVar("R")

DEVICES = ("cpu", "cuda")


class _State(threading.local):
    """What autocast is set to in this thread.

    Attributes:
        depth: how many contexts are open.
        cache: the casts of weights that they share.
        caching: whether they share any.
        dtypes: the half precision of each kind of device: that of the innermost context that named one.
    """

    def __init__(self) -> None:
        self.depth = 0
        self.cache: Cache = {}
        self.caching = True
        self.dtypes: dict[str, DType] = {"cpu": BFLOAT16, "cuda": np.dtype(np.float16)}


_state = _State()


class autocast:  # noqa: N801 - PyTorch's name
    """Let ops choose their element types: products compute in half precision, what needs range or digits in float32.

    A context manager and a decorator, for the forward pass and the loss. Parameters stay float32 and so do their
    gradients: casts are recorded. `docs/amp.md` has the lists.

    ```
    with og.amp.autocast("cpu", dtype=og.bfloat16):
        loss = criterion(model(x), y)
    loss.backward()
    ```

    Args:
        device_type: `cpu` or `cuda`, whose ops it is for; or an element type (`"bfloat16"`, `og.float16`), which is for
            both.
        dtype: `bfloat16` or `float16`; by default bfloat16 on the CPU and float16 on CUDA. Any other is a warning, and
            the context does nothing.
        enabled: False to switch it off inside another context.
        cache_enabled: whether a weight is cast once inside the outermost context instead of at each use.

    Raises:
        InputError: for a device that there is not.
    """

    def __init__(
        self, device_type: Any = "cuda", dtype: Any = None, enabled: bool = True, cache_enabled: bool | None = None
    ) -> None:
        """Make the context; see the class."""
        name = str(getattr(device_type, "type", device_type))
        half = None if name in DEVICES else _element_type(device_type)
        devices: tuple[str, ...] = (name,)
        if half is not None:
            if dtype is not None:
                raise InputError(f"autocast({device_type!r}, dtype={dtype!r}): the element type is given twice")
            self.device, dtype = "cuda" if is_available() else "cpu", half
            devices = DEVICES
        elif name in DEVICES:
            self.device = name
        else:
            raise InputError(f"autocast: no device type {device_type!r}; there are 'cpu' and 'cuda'")
        self.fast_dtype: DType = _state.dtypes[self.device] if dtype is None else np.dtype(dtype)
        if enabled and self.fast_dtype not in HALF:
            warnings.warn(
                f"In {self.device.upper()} autocast, but the target dtype is not supported. Disabling autocast.\n"
                f"{self.device.upper()} Autocast only supports dtypes of bfloat16, float16 currently.",
                stacklevel=2,
            )
            enabled = False
        self._devices, self._enabled, self._cached = devices, bool(enabled), cache_enabled
        self._before: list[tuple[Casts | None, bool, dict[str, DType]]] = []

    def __enter__(self) -> autocast:
        """Switch it on in this thread."""
        before = MODE.autocast
        self._before.append((before, _state.caching, _state.dtypes))
        _state.dtypes = {**_state.dtypes, **dict.fromkeys(self._devices, self.fast_dtype)}
        if self._cached is not None:
            _state.caching = bool(self._cached)
        dtypes = {} if before is None else dict(before.dtypes)
        for device in self._devices:
            dtypes.pop(device, None)
            if self._enabled:
                dtypes[device] = self.fast_dtype
        _state.depth += 1
        _activate(dtypes)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Put back what was before; with the outermost context the casts of weights go."""
        before, _state.caching, _state.dtypes = self._before.pop()
        switch_autocast(before)
        _state.depth -= 1
        if _state.depth == 0:
            _state.cache.clear()

    def __call__(self, f: Callable[P, R]) -> Callable[P, R]:
        """Decorate a function, which then runs inside such a context."""

        @functools.wraps(f)
        def under(*args: P.args, **kwargs: P.kwargs) -> R:
            with self:
                return f(*args, **kwargs)

        return under


def _element_type(given: Any) -> DType | None:
    if given is None:
        return None
    try:
        found: DType = np.dtype(given)
        return found
    except TypeError:
        return None


def _activate(dtypes: dict[str, DType]) -> None:
    switch_autocast(Casts(dtypes, _state.cache if _state.caching else None) if dtypes else None)


def _device_type(given: Any) -> str:
    name = str(getattr(given, "type", given))
    if name not in DEVICES:
        raise InputError(f"autocast: no device type {given!r}; there are 'cpu' and 'cuda'")
    return name


def is_autocast_enabled(device_type: Any = "cuda") -> bool:
    """Return whether autocast is on in this thread for a kind of device."""
    device, casts = _device_type(device_type), MODE.autocast
    return casts is not None and device in casts.dtypes


def set_autocast_enabled(device_type: Any, enabled: bool | None = None) -> None:
    """Switch autocast on or off in this thread for a kind of device; `autocast` does so for a while.

    Args:
        device_type: `cpu` or `cuda`; with one argument that says whether, CUDA is meant.
        enabled: whether.
    """
    if enabled is None:
        device_type, enabled = "cuda", device_type
    device = _device_type(device_type)
    dtypes = {} if MODE.autocast is None else dict(MODE.autocast.dtypes)
    dtypes.pop(device, None)
    if enabled:
        dtypes[device] = _state.dtypes[device]
    _activate(dtypes)
    if MODE.autocast is None and _state.depth == 0:
        _state.cache.clear()


def get_autocast_dtype(device_type: Any) -> DType:
    """Return the half precision of a kind of device: that of the context that is open, else the default."""
    return _state.dtypes[_device_type(device_type)]


def set_autocast_dtype(device_type: Any, dtype: Any) -> None:
    """Set the half precision of a kind of device in this thread, for contexts that name none.

    Raises:
        InputError: unless it is bfloat16 or float16.
    """
    device, half = _device_type(device_type), np.dtype(dtype)
    if half not in HALF:
        raise InputError(f"set_autocast_dtype: found {half}, wanted bfloat16 or float16")
    _state.dtypes = {**_state.dtypes, device: half}
    if is_autocast_enabled(device):
        _activate({**MODE.autocast.dtypes, device: half})


def is_autocast_cache_enabled() -> bool:
    """Return whether a weight is cast once inside the outermost context."""
    return _state.caching


def set_autocast_cache_enabled(enabled: bool) -> None:
    """Say whether a weight is cast once inside the outermost context."""
    _state.caching = bool(enabled)
    if MODE.autocast is not None:
        _activate(MODE.autocast.dtypes)


def clear_autocast_cache() -> None:
    """Forget the casts of weights."""
    _state.cache.clear()


def is_autocast_available(device_type: str) -> bool:
    """Return whether autocast knows a kind of device."""
    return device_type in DEVICES


def custom_fwd(
    fwd: Callable[..., Any] | None = None, *, device_type: str = "cuda", cast_inputs: Any = None
) -> Callable[..., Any]:
    """Decorate the `forward` of an `autograd.Function`, so that its backward runs as it ran.

    Args:
        fwd: the forward.
        device_type: `cpu` or `cuda`.
        cast_inputs: where autocast is on, cast floats among the arguments to this element type and run forward without
            autocast; None to run forward as it is.
    """
    if fwd is None:
        return functools.partial(custom_fwd, device_type=device_type, cast_inputs=cast_inputs)

    @functools.wraps(fwd)
    def forward(*args: Any, **kwargs: Any) -> Any:
        on = is_autocast_enabled(device_type)
        args[0]._dtype = get_autocast_dtype(device_type)
        if cast_inputs is None or not on:
            args[0]._fwd_used_autocast = on
            return fwd(*args, **kwargs)
        args[0]._fwd_used_autocast = False
        with autocast(device_type, enabled=False):
            return fwd(*_cast(args, device_type, cast_inputs), **_cast(kwargs, device_type, cast_inputs))

    return forward


def custom_bwd(bwd: Callable[..., Any] | None = None, *, device_type: str = "cuda") -> Callable[..., Any]:
    """Decorate the `backward` of an `autograd.Function` whose forward is decorated with `custom_fwd`."""
    if bwd is None:
        return functools.partial(custom_bwd, device_type=device_type)

    @functools.wraps(bwd)
    def backward(*args: Any, **kwargs: Any) -> Any:
        with autocast(device_type, dtype=args[0]._dtype, enabled=args[0]._fwd_used_autocast):
            return bwd(*args, **kwargs)

    return backward


def _cast(x: Any, device_type: str, dtype: Any) -> Any:
    """Return containers with the floats of a device, but those of 64 bits, in an element type."""
    if isinstance(x, dict):
        return {k: _cast(v, device_type, dtype) for k, v in x.items()}
    if isinstance(x, list | tuple):
        return type(x)(_cast(v, device_type, dtype) for v in x)
    if not hasattr(x, "_array") or not x.is_floating_point() or x.dtype == np.float64 or x.device.type != device_type:
        return x
    return x.to(dtype=dtype)
