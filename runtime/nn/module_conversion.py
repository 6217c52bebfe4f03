"""Element types and devices of modules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from ...ops.types import is_float
from ..autograd.grad_mode import no_grad
from ..tensor.creation import empty
from ..tensor.device import element_type, named
from ..tensor.tensor import Tensor
from .module_names import Named

Self = TypeVar("Self", bound="Converted")


class Converted(Named):
    """The part of a module that converts what it holds, in place."""

    def _apply(self: Self, fn: Callable[[Any], Any], recurse: bool = True) -> Self:
        """Put fn(Tensor) in the place of the elements of each parameter, gradient and buffer.

        Args:
            fn: returns the Tensor itself where nothing changes.
            recurse: do the same below.
        """
        if recurse:
            for child in self.children():
                child._apply(fn)
        with no_grad():
            for t in (*self.parameters(recurse=False), *self.buffers(recurse=False)):
                _put(t, fn)
                if t.grad is not None:
                    _put(t.grad, fn)
        return self

    def to(
        self: Self, *targets: Any, dtype: Any = None, device: Any = None, tensor: Any = None,
        non_blocking: bool = False, memory_format: Any = None,
    ) -> Self:  # fmt: skip
        """Move parameters and buffers to a device, their floats to an element type, and return the module.

        Args:
            targets: a device, an element type, or a Tensor to be like.
            dtype: the element type.
            device: the device.
            tensor: whose device and element type to take.
            non_blocking: return before copies are done; see `Tensor.to`.
            memory_format: has no effect: the compiled engine lays Tensors out as it needs them.

        Raises:
            InputError: for what is neither a device nor an element type.
            TypeError: for an element type that is no float.
        """
        for target in (*targets, tensor):
            if isinstance(target, Tensor):
                dtype, device = target.dtype, target.device
            elif named(target) or (isinstance(target, int) and not isinstance(target, bool)):
                device = target
            elif target is not None and not isinstance(target, bool):
                dtype = target
        wanted = None if dtype is None else element_type(dtype)
        if wanted is not None and not is_float(wanted):
            raise TypeError(
                f"nn.Module.to only accepts floating point or complex dtypes, but got desired dtype={wanted}"
            )

        def convert(t: Tensor) -> Tensor:
            return t.to(dtype=wanted if is_float(t.dtype) else None, device=device, non_blocking=non_blocking)

        return self._apply(convert)

    def to_empty(self: Self, *, device: Any, recurse: bool = True) -> Self:
        """Move parameters and buffers to a device without their values, and return the module.

        Args:
            device: where to; None keeps the device.
            recurse: do the same below.
        """
        return self._apply(
            lambda t: empty(t.shape, dtype=t.dtype, device=t.device if device is None else device), recurse
        )

    def type(self: Self, dst_type: Any) -> Self:
        """Convert all parameters and buffers to an element type, and return the module."""
        return self._apply(lambda t: t.type(dst_type))

    def cpu(self: Self) -> Self:
        """Move it to the CPU."""
        return self.to(device="cpu")

    def cuda(self: Self, device: Any = None) -> Self:
        """Move it to a CUDA device: a number or a name, the current one by default."""
        return self.to(device="cuda" if device is None else device)

    def half(self: Self) -> Self:
        """Convert floats to float16."""
        return self.to(dtype="float16")

    def bfloat16(self: Self) -> Self:
        """Convert floats to bfloat16."""
        return self.to(dtype="bfloat16")

    def float(self: Self) -> Self:
        """Convert floats to float32."""
        return self.to(dtype="float32")

    def double(self: Self) -> Self:
        """Convert floats to float64."""
        return self.to(dtype="float64")


def _put(t: Tensor, fn: Callable[[Any], Any]) -> None:
    made = fn(t)
    if made is not t and made._array is not t._array:
        t.data = made
