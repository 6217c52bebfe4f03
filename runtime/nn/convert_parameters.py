"""Many parameters as one vector."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ...ops.errors import InputError
from ..tensor.joining import cat
from ..tensor.tensor import Tensor
from .module_attributes import typename


def parameters_to_vector(parameters: Iterable[Tensor]) -> Any:
    """Return the elements of all parameters, one after the other; gradients flow back to them.

    Args:
        parameters: in this order, on one device.

    Raises:
        TypeError: if they are on several devices.
    """
    held = [*parameters]
    _on_one_device(held)
    if not held:
        raise InputError("parameters_to_vector(): expected a non-empty list of Tensors")
    return cat([p.reshape(-1) for p in held])


def vector_to_parameters(vec: Tensor, parameters: Iterable[Tensor]) -> None:
    """Take the elements of parameters from a vector, whose memory they share afterwards.

    Args:
        vec: the vector.
        parameters: in this order, on one device.

    Raises:
        TypeError: if it is no Tensor, or they are on several devices.
    """
    if not isinstance(vec, Tensor):
        raise TypeError(f"expected torch.Tensor, but got: {typename(vec)}")
    held = [*parameters]
    _on_one_device(held)
    start, whole = 0, vec.detach()
    for p in held:
        p.data = whole[start : start + p.numel()].reshape(p.shape)
        start += p.numel()


def _on_one_device(parameters: list[Tensor]) -> None:
    if len({p.device for p in parameters}) > 1:
        raise TypeError("Found two parameters on different devices, this is currently not supported.")
