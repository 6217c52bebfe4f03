"""Methods that overwrite elements in place, by PyTorch's trailing underscore."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from ....ops.errors import AutogradError, DeviceError, DTypeError, ShapeError
from ....ops.op import namespace
from ...autograd.grad_mode import MODE
from ...autograd.saved import Late
from .arithmetic import matched
from .misplaced import misplaced

Self = TypeVar("Self", bound="InPlace")

NAMES = (
    "abs acos acosh asin asinh atan atanh bitwise_and bitwise_not bitwise_or bitwise_xor ceil clamp_max clamp_min clip "
    "copysign cos cosh cumprod cumsum deg2rad digamma erf erfc erfinv exp exp2 expm1 floor floor_divide fmod frac "
    "hypot index_add index_copy index_fill index_put lerp lgamma log log10 log1p log2 logical_and logical_not "
    "logical_or logical_xor masked_fill masked_scatter nan_to_num neg pow rad2deg reciprocal relu remainder renorm "
    "round rsqrt scatter scatter_add scatter_reduce sgn sigmoid sign sin sinc sinh sqrt square tan tanh tril triu "
    "trunc xlogy atan2 addmm addmv addr addbmm baddbmm absolute arccos arccosh arcsin arcsinh arctan arctan2 arctanh "
    "bitwise_left_shift bitwise_right_shift divide fix float_power heaviside index_reduce ldexp logit multiply "
    "negative put subtract true_divide"
)
"""Methods that have one with an underscore behind, which puts the result in the place of the Tensor."""


def _plain(value: Any) -> Any:
    """Return the array of a Tensor; under a trace the Tensor, without its past."""
    if MODE.trace is not None:
        return value.detach() if hasattr(value, "detach") else value
    return getattr(value, "_array", value)


class InPlace:
    """Every change counts as a new version, so that a backward that needs the old elements refuses.

    Gradients flow through changes: `runtime/autograd/rebase.py` records them.
    """

    _array: Any
    _base: Any
    requires_grad: bool

    def _records(self, *values: Any) -> bool:
        return MODE.enabled and (
            self.requires_grad
            or (self._base is not None and self._base.requires_grad)
            or any(getattr(v, "requires_grad", False) for v in values)
        )

    def _changed(self: Self, compute: Callable[[Any], Any], *values: Any) -> Self:
        """Put what a function of the Tensor computes in its place."""
        from ...autograd.rebase import change

        if MODE.trace is not None:
            MODE.trace.change(self, compute, self._records(*values))
        elif self._records(*values):
            change(self, compute)  # type: ignore[arg-type]
        else:
            out = compute(self)
            self._checked(out)
            self._write(out)
        return self

    def _checked(self, out: Any) -> None:
        if tuple(out.shape) != tuple(self._array.shape):
            raise ShapeError(
                f"output with shape {list(self._array.shape)} doesn't match the broadcast shape {list(out.shape)}: an "
                "in-place change keeps the shape"
            )
        if not np.can_cast(out.dtype, self._array.dtype, "same_kind"):
            raise DTypeError(f"result type {out.dtype} can't be cast to the desired output type {self._array.dtype}")

    def _write(self: Self, value: Any, where: Any = ...) -> Self:
        """Overwrite the elements at an index."""
        if MODE.trace is not None:
            MODE.trace.overwrite(self, value, where, self._records(value))
            return self
        if self._records(value):
            from ...autograd.rebase import change_part

            change_part(self, where, value)  # type: ignore[arg-type]
            return self
        try:
            if Late.guard is None:
                self._array[where] = _plain(value)
            else:
                Late.guard.change("an in-place change", operator.setitem, self._array, where, _plain(value))
        except ValueError as error:
            raise self._unwritten(error, "in-place change") from None
        except IndexError as error:
            raise misplaced(error, where, tuple(self._array.shape)) from None
        self._bump()  # type: ignore[attr-defined]
        return self

    def _unwritten(self, error: ValueError, what: str) -> Exception:
        if not getattr(self._array.flags, "writeable", True):
            return AutogradError(
                "unsupported operation: more than one element of the written-to tensor refers to a single memory "
                "location, or the memory is read-only. Please clone() the tensor before performing the operation."
            )
        shown = list(self._array.shape)
        return ShapeError(f"output with shape {shown} doesn't match the broadcast shape in {what}: {error}")

    def _update(self: Self, function: str, method: str, value: Any) -> Self:
        """Put function(self, value) in the place of self, by the array library's function or, recorded, the method."""
        if MODE.trace is not None or self._records(value):
            return self._changed(lambda t: getattr(t, method)(value), value)
        x, other = self._array, _plain(value)
        f = getattr(namespace(x), function)
        try:
            if Late.guard is None:
                f(x, other, out=x, casting="same_kind")
            else:
                Late.guard.update(f"in-place {function}", f, x, other, out=x, casting="same_kind")
        except DeviceError:
            raise
        except TypeError:
            found = getattr(other, "dtype", type(other).__name__)
            raise DTypeError(f"result type {found} can't be cast to the desired output type {x.dtype}") from None
        except ValueError as error:
            raise self._unwritten(error, f"in-place {function}") from None
        self._bump()  # type: ignore[attr-defined]
        return self

    def __setitem__(self, index: Any, value: Any) -> None:
        """Overwrite the elements at the index."""
        from .indexing import plain_index

        self._write(value, index if MODE.trace is not None else plain_index(index))

    def copy_(self: Self, other: Any, non_blocking: bool = False) -> Self:
        """Overwrite the elements with those of another."""
        return self._write(other)

    def fill_(self: Self, value: float) -> Self:
        """Overwrite every element with a number.

        Raises:
            ShapeError: if it is given several.
        """
        if getattr(value, "ndim", 0):
            raise ShapeError(
                f"fill_ only supports 0-dimension value tensor but got tensor with {value.ndim} dimensions."  # type: ignore[attr-defined]
            )
        return self._write(value)

    def zero_(self: Self) -> Self:
        """Overwrite every element with 0."""
        return self._write(0)

    def fill_diagonal_(self: Self, fill_value: float, wrap: bool = False) -> Self:
        """Overwrite the diagonal with a number; of a tall matrix also those below it, one row apart, where `wrap`."""
        rows = self._array.shape[0]
        at = np.arange(min(self._array.shape))
        if wrap and self._array.ndim == 2:
            columns = self._array.shape[1]
            places = np.arange(0, rows * columns, columns + 1)
            return self._write(fill_value, (places // columns, places % columns))
        return self._write(fill_value, (at,) * self._array.ndim)

    def add_(self: Self, other: Any, *, alpha: float = 1) -> Self:
        """Add alpha * other."""
        return self._update("add", "add", other if alpha == 1 else other * alpha)

    def sub_(self: Self, other: Any, *, alpha: float = 1) -> Self:
        """Subtract alpha * other."""
        return self._update("subtract", "sub", other if alpha == 1 else other * alpha)

    def mul_(self: Self, other: Any) -> Self:
        """Multiply by other."""
        return self._update("multiply", "mul", other)

    def div_(self: Self, other: Any, *, rounding_mode: str | None = None) -> Self:
        """Divide by other."""
        if rounding_mode is not None:
            return self._changed(lambda t: t.div(other, rounding_mode=rounding_mode), other)
        return self._update("true_divide", "div", other)

    def addcmul_(self: Self, tensor1: Any, tensor2: Any, *, value: float = 1) -> Self:
        """Add value * tensor1 * tensor2."""
        return self.add_(value * (tensor1 * tensor2))

    def addcdiv_(self: Self, tensor1: Any, tensor2: Any, *, value: float = 1) -> Self:
        """Add value * tensor1 / tensor2."""
        return self.add_(value * (tensor1 / tensor2))

    def clamp_(self: Self, min: Any = None, max: Any = None) -> Self:
        """Keep the elements between min and max."""
        return self._changed(lambda t: t.clamp(min, max), min, max)

    def uniform_(self: Self, low: float = 0.0, high: float = 1.0, *, generator: Any = None) -> Self:
        """Draw every element uniformly from [low, high)."""
        from ..random import uniform

        return self._write(uniform(self._array, low, high, generator))

    def normal_(self: Self, mean: float = 0.0, std: float = 1.0, *, generator: Any = None) -> Self:
        """Draw every element from a normal distribution."""
        from ..random import normal

        return self._write(normal(self._array, mean, std, generator))

    def bernoulli_(self: Self, p: float = 0.5, *, generator: Any = None) -> Self:
        """Draw every element: 1 with probability p, else 0."""
        from ..random import uniform

        return self._write(uniform(np.empty(self._array.shape, np.float32), 0.0, 1.0, generator) < p)

    def random_(self: Self, low: int = 0, high: int | None = None, *, generator: Any = None) -> Self:
        """Draw every element from the integers of [low, high); [0, low) where only one number is given.

        Without any, integers below 2^24 for floats, or what the element type holds.
        """
        from ..random import integers

        dtype = self._array.dtype
        if high is None:
            top = 1 << 24 if dtype.kind not in "iu" else int(np.iinfo(dtype).max)
            low, high = (0, low) if low else (0, top)
        return self._write(integers(low, high, self._array.shape, generator))

    def __iadd__(self: Self, other: Any) -> Self:
        """Add in place."""
        return self.add_(_operand(self, other))

    def __isub__(self: Self, other: Any) -> Self:
        """Subtract in place."""
        return self.sub_(_operand(self, other))

    def __imul__(self: Self, other: Any) -> Self:
        """Multiply in place."""
        return self.mul_(_operand(self, other))

    def __itruediv__(self: Self, other: Any) -> Self:
        """Divide in place."""
        return self.div_(_operand(self, other))

    def __ipow__(self: Self, other: Any) -> Self:
        """Raise to a power in place."""
        return self._changed(lambda t: t.pow(other), other)

    def __ifloordiv__(self: Self, other: Any) -> Self:
        """Divide in place and round down."""
        return self._changed(lambda t: t // other, other)

    def __imod__(self: Self, other: Any) -> Self:
        """Take the remainder in place."""
        return self._changed(lambda t: t % other, other)


def _operand(x: Any, other: Any) -> Any:
    return matched(x, other)[1] if isinstance(other, list | tuple) else other


def _in_place(name: str) -> Callable[..., Any]:
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return self._changed(lambda t: getattr(t, name)(*args, **kwargs), *args, *kwargs.values())

    method.__name__, method.__qualname__ = f"{name}_", f"Tensor.{name}_"
    method.__doc__ = f"Put the result of `{name}` in the place of the elements."
    return method


COMPARISONS = "eq ge greater greater_equal gt le less less_equal lt ne not_equal"
"""Methods whose truth values an underscore behind the name turns into 1 and 0 of the Tensor's element type."""


def _compared(name: str) -> Callable[..., Any]:
    def method(self: Any, other: Any) -> Any:
        return self._changed(lambda t: getattr(t, name)(other).to(t.dtype), other)

    method.__name__, method.__qualname__ = f"{name}_", f"Tensor.{name}_"
    method.__doc__ = f"Put 1 where `{name}` holds and 0 elsewhere in the place of the elements."
    return method


def add_in_place(cls: type) -> None:
    """Give a class the in-place names of the methods that it has."""
    for name in COMPARISONS.split():
        setattr(cls, f"{name}_", _compared(name))
    for name in NAMES.split():
        if hasattr(cls, name):
            setattr(cls, f"{name}_", _in_place(name))
