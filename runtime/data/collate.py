"""Examples become a batch."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, MutableMapping, MutableSequence, Sequence
from typing import Any

import numpy as np

from ...ops.errors import InputError, ShapeError
from ..autograd.grad_mode import MODE
from ..tensor.creation import as_tensor, tensor
from ..tensor.joining import stack
from ..tensor.tensor import Tensor, wrap

_WANTED = "default_collate: batch must contain tensors, numpy arrays, numbers, dicts or lists; found {}"


def default_collate(batch: Sequence[Any]) -> Any:
    """Return examples as a batch: Tensors, arrays and numbers stacked along a new first axis.

    Mappings, named tuples and sequences are collated by entry (tuples become lists), strings and bytes stay a list.
    Python floats become float64.

    Raises:
        InputError: if sequences differ in length.
        ShapeError: if Tensors differ in shape.
        TypeError: if examples are of another type.
    """
    first = batch[0]
    if isinstance(first, Tensor):
        return _stacked(batch)
    if isinstance(first, str | bytes):
        return batch
    if isinstance(first, np.ndarray | np.generic):
        if first.dtype.kind in "SUO":
            raise TypeError(_WANTED.format(first.dtype))
        return _stacked([wrap(np.asarray(v)) for v in batch])
    if isinstance(first, float):
        return tensor(list(batch), dtype=np.float64)
    if isinstance(first, int):
        return tensor(list(batch))
    if isinstance(first, Mapping):
        return _like_mapping(first, {key: default_collate([v[key] for v in batch]) for key in first})
    if isinstance(first, tuple) and hasattr(first, "_fields"):
        return type(first)(*(default_collate(column) for column in zip(*batch, strict=True)))
    if isinstance(first, Sequence):
        if len({len(v) for v in batch}) != 1:
            raise InputError("each element in list of batch should be of equal size")
        return _like_sequence(first, [default_collate(column) for column in zip(*batch, strict=True)])
    raise TypeError(_WANTED.format(type(first)))


def _stacked(batch: Sequence[Any]) -> Tensor:
    first = batch[0]
    for i, t in enumerate(batch):
        if t.shape != first.shape:
            raise ShapeError(
                f"stack expects each tensor to be equal size, but got {list(first.shape)} at entry 0 and "
                f"{list(t.shape)} at entry {i}"
            )
    if MODE.trace is not None or any(t.requires_grad or not isinstance(t._array, np.ndarray) for t in batch):
        return stack(batch)
    return wrap(np.stack([t._array for t in batch]))


def default_convert(data: Any) -> Any:
    """Return an example with its arrays and NumPy numbers as Tensors; what loaders do that make no batches."""
    if isinstance(data, Tensor | str | bytes):
        return data
    if isinstance(data, np.ndarray | np.generic):
        return data if data.dtype.kind in "SUO" else as_tensor(data)
    if isinstance(data, Mapping):
        return _like_mapping(data, {key: default_convert(v) for key, v in data.items()})
    if isinstance(data, tuple) and hasattr(data, "_fields"):
        return type(data)(*map(default_convert, data))
    if isinstance(data, Sequence):
        return _like_sequence(data, [default_convert(v) for v in data])
    return data


def _like_mapping(like: Any, made: dict[Any, Any]) -> Any:
    """Return a dictionary as the type of another, where that can be made."""

    def filled() -> Any:
        out = copy.copy(like)
        out.update(made)
        return out

    return _attempt(filled if isinstance(like, MutableMapping) else lambda: type(like)(made), made)


def _like_sequence(like: Any, made: list[Any]) -> Any:
    """Return a list as the type of another sequence, where that can be made; for tuples it stays a list."""
    if isinstance(like, tuple):
        return made

    def filled() -> Any:
        out = copy.copy(like)
        for i, v in enumerate(made):
            out[i] = v
        return out

    return _attempt(filled if isinstance(like, MutableSequence) else lambda: type(like)(made), made)


def _attempt(make: Callable[[], Any], plain: Any) -> Any:
    try:
        return make()
    except TypeError:
        return plain
