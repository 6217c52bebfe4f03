"""Whether computations on Tensors are recorded, a setting of each thread."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class Mode(threading.local):
    """The setting.

    Attributes:
        enabled: read on every op.
        keeper: what nodes hand the values to that they keep (`runtime/autograd/checkpoint.py`); None where they keep
            them.
        recompute_loops: whether the bodies of control flow are computed again in backward.
        anomaly: whether nodes keep the lines that made them (`runtime/autograd/anomaly.py`).
        check_nan: whether a NaN in backward is an error then.
        trace: what turns computations into a graph (`runtime/tracing/trace.py`); None where they are computed.
        autocast: what casts the arguments of ops (`runtime/amp/casting.py`); None where they stay what they are.
    """

    enabled = True
    keeper: Any = None
    recompute_loops = False
    anomaly = False
    check_nan = True
    trace: Any = None
    autocast: Any = None


MODE = Mode()


def is_grad_enabled() -> bool:
    """Whether computations on Tensors are recorded in this thread."""
    return MODE.enabled


class _Setting:
    """A context manager and a decorator that sets the mode and puts back what was."""

    mode = False

    def __init__(self) -> None:
        self.before: list[bool] = []

    def __enter__(self) -> None:
        self.before.append(MODE.enabled)
        MODE.enabled = self.mode

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        MODE.enabled = self.before.pop()

    def __call__(self, f: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(f)
        def under(*args: P.args, **kwargs: P.kwargs) -> R:
            with self:
                return f(*args, **kwargs)

        return under


class set_grad_enabled(_Setting):  # noqa: N801 - PyTorch's name
    """Record computations, or do not: at once, and until the end of a `with` block or of a decorated function."""

    def __init__(self, mode: bool) -> None:
        """Set the mode at once."""
        super().__init__()
        self.mode = bool(mode)
        self.outside: bool | None = MODE.enabled
        MODE.enabled = self.mode

    def __enter__(self) -> None:
        """Set the mode; the one before the call is put back at the end."""
        super().__enter__()
        if self.outside is not None:
            self.before[-1], self.outside = self.outside, None

    def __call__(self, f: Callable[P, R]) -> Callable[P, R]:
        """Decorate a function; outside it the mode is what it was."""
        if self.outside is not None:
            MODE.enabled, self.outside = self.outside, None
        return super().__call__(f)


class no_grad(_Setting):  # noqa: N801 - PyTorch's name
    """Record nothing; a context manager and a decorator, with or without parentheses."""

    def __new__(cls, f: Callable[..., Any] | None = None) -> Any:
        """Decorate the function where one is given."""
        made = super().__new__(cls)
        if f is None:
            return made
        made.__init__()  # type: ignore[misc]
        return made(f)


class enable_grad(no_grad):  # noqa: N801 - PyTorch's name
    """Record, inside `no_grad` too; a context manager and a decorator, with or without parentheses."""

    mode = True


class inference_mode(no_grad):  # noqa: N801 - PyTorch's name
    """Record nothing, as `no_grad`."""
