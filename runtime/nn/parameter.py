"""Tensors that a module registers when they become its attributes."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..tensor.tensor import Tensor


class Parameter(Tensor):
    """A Tensor that a module trains; assigning one to an attribute of a module registers it.

    Args:
        data: an array or Tensor, whose memory is shared; empty by default.
        requires_grad: whether gradients flow to it.
    """

    def __init__(self, data: Any = None, requires_grad: bool = True) -> None:
        super().__init__(np.empty(0, Tensor.default_dtype) if data is None else data, requires_grad)

    def __repr__(self) -> str:
        """Return it as PyTorch prints it."""
        return f"Parameter containing:\n{super().__repr__()}"


class Buffer(Tensor):
    """A Tensor that is state and not trained; assigning one to an attribute of a module registers it.

    Args:
        data: an array or Tensor, whose memory is shared; empty by default.
        persistent: whether the state dict holds it.
    """

    def __init__(self, data: Any = None, *, persistent: bool = True) -> None:
        super().__init__(np.empty(0, Tensor.default_dtype) if data is None else data)
        self.persistent = persistent
