"""`autograd.Variable`, which old lessons wrap Tensors in."""

from __future__ import annotations

from typing import Any

from .tensor import Tensor


class _IsTensor(type):
    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, Tensor)


class Variable(metaclass=_IsTensor):
    """A Tensor: `Variable(x)` returns one that shares the memory, and every Tensor is an instance."""

    def __new__(cls, data: Any = (), requires_grad: bool = False, volatile: bool = False) -> Any:
        """Return a Tensor of the data, a leaf.

        Raises:
            TypeError: unless the data are a Tensor.
        """
        if not isinstance(data, Tensor):
            raise TypeError(f"Variable data has to be a tensor, but got {type(data).__name__}")
        out = data.detach()
        return out.requires_grad_() if requires_grad and not volatile else out
