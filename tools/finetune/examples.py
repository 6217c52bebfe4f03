"""Training data in the forms that people have them, as batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from ...ops.errors import InputError
from ...ops.op import namespace
from ...ops.types import Array, is_float
from ...runtime.data.dataset import IterableDataset
from ...runtime.data.loader import DataLoader
from ...runtime.tensor.tensor import Tensor

Inputs: TypeAlias = tuple[Any, ...] | dict[str, Any]
"""The inputs of a model, in order or by name, one example a row."""

Batch: TypeAlias = tuple[Inputs, Array]


class Examples:
    """Examples with their targets, by number.

    Args:
        inputs: arrays with one example a row.
        targets: one a row.
    """

    def __init__(self, inputs: Inputs, targets: Any) -> None:
        self.inputs = inputs
        self.targets = target_array(targets)
        sizes = {len(a) for a in arrays_of(inputs)} | {len(self.targets)}
        if len(sizes) != 1:
            shapes = [a.shape for a in arrays_of(inputs)]
            raise InputError(f"inputs and targets differ in length: {shapes} and {self.targets.shape}")
        if 0 in sizes:
            raise InputError("there are no examples")

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.targets)

    def take(self, rows: Array) -> Batch:
        """Return some examples as a batch."""
        return mapped(self.inputs, lambda a: a[rows]), self.targets[rows]

    def subset(self, rows: Array) -> Examples:
        """Return some examples."""
        return Examples(*self.take(rows))

    def batches(self, size: int, rng: np.random.Generator | None = None) -> Iterator[Batch]:
        """Yield all examples in batches, in random order with a generator."""
        order = np.arange(len(self)) if rng is None else rng.permutation(len(self))
        for start in range(0, len(self), size):
            yield self.take(order[start : start + size])

    def count(self, size: int) -> int | None:
        """Return the number of batches, None if unknown."""
        return -(-len(self) // size)


class Items(Examples):
    """A data set that hands out one example a time, such as a `Dataset`."""

    def __init__(self, dataset: Any, rows: Array | None = None) -> None:
        self.dataset = dataset
        self.rows = np.arange(len(dataset)) if rows is None else rows
        if not len(self.rows):
            raise InputError("there are no examples")

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.rows)

    def take(self, rows: Array) -> Batch:
        """Return some examples as a batch."""
        items = [self.dataset[int(i)] for i in self.rows[rows]]
        xs, ys = zip(*(_pair(item) for item in items), strict=True)
        first = as_inputs(xs[0])
        if isinstance(first, dict):
            inputs: Inputs = {k: _stack([x[k] for x in xs]) for k in first}
        else:
            inputs = tuple(_stack(column) for column in zip(*(as_inputs(x) for x in xs), strict=True))
        return inputs, target_array(_stack(ys))

    def subset(self, rows: Array) -> Examples:
        """Return some examples."""
        return Items(self.dataset, self.rows[rows])


class Batches(Examples):
    """Batches in the order in which a `DataLoader` or another iterable makes them; an iterator is kept in memory.

    An `IterableDataset` yields examples, of which batches are made.
    """

    def __init__(self, batches: Any) -> None:
        self.source = list(batches) if isinstance(batches, Iterator) else batches

    def __len__(self) -> int:
        """Return 0: nobody knows how many examples there are."""
        return 0

    def batches(self, size: int, rng: np.random.Generator | None = None) -> Iterator[Batch]:
        """Yield the batches."""
        empty, source = True, self._of(size)
        for batch in source:
            empty = False
            x, y = _pair(batch)
            if isinstance(source, DataLoader) and isinstance(x, list):  # what tuples of inputs are collated to
                x = tuple(x)
            yield as_inputs(x), target_array(y)
        if empty:
            raise InputError("there are no examples")

    def count(self, size: int) -> int | None:
        """Return the number of batches, None if unknown."""
        return len(self._of(size)) if hasattr(self.source, "__len__") else None

    def _of(self, size: int) -> Any:
        return DataLoader(self.source, batch_size=size) if isinstance(self.source, IterableDataset) else self.source


def as_examples(data: Any) -> Examples:
    """Return data as examples.

    Args:
        data: a pair `(x, y)` of arrays, a data set with `len` and `[i]`, an `IterableDataset`, a `DataLoader`, or a
            list or iterable of batches `(x, y)`. `x` is an array, a tuple of them in the order of the model's inputs,
            or a dict by their names.

    Raises:
        InputError: if it is none of these.
    """
    if isinstance(data, Examples):
        return data
    if isinstance(data, tuple):
        x, y = _pair(data)
        return Examples(as_inputs(x), y)
    if (
        hasattr(data, "__getitem__")
        and hasattr(data, "__len__")
        and not isinstance(data, list | np.ndarray | Tensor | Mapping | IterableDataset)
    ):
        return Items(data)
    if hasattr(data, "__iter__") and not isinstance(data, np.ndarray | Tensor | Mapping | str):
        return Batches(data)
    raise InputError(f"data: wanted (x, y), a data set, or batches of (x, y); found {type(data).__name__}")


def divide(examples: Examples, fraction: float, seed: int) -> tuple[Examples, Examples | None]:
    """Return examples for training and for validation: a part of each class, drawn by a seed.

    Batches cannot be divided, and of fewer than 10 examples nothing is taken away.
    """
    n = len(examples)
    if not 0 <= fraction < 1:
        raise InputError(f"val_split is a part from 0 to below 1, found {fraction}")
    if not fraction or n < 10:
        return examples, None
    rng = np.random.default_rng(seed)
    targets = getattr(examples, "targets", None)
    if targets is None or targets.ndim != 1 or is_float(targets.dtype):
        order = rng.permutation(n)
        groups = [order]
    else:
        groups = [rng.permutation(np.flatnonzero(targets == c)) for c in np.unique(targets)]
    held = np.sort(np.concatenate([g[: round(len(g) * fraction)] for g in groups]))
    if not len(held):
        held = np.sort(rng.permutation(n)[: max(1, round(n * fraction))])
    kept = np.setdiff1d(np.arange(n), held)
    return examples.subset(kept), examples.subset(held)


def as_inputs(x: Any) -> Inputs:
    """Return the inputs of a model as a tuple or a dict of arrays."""
    if isinstance(x, Mapping):
        return {k: _plain(v) for k, v in x.items()}
    if isinstance(x, tuple):
        return tuple(_plain(v) for v in x)
    return (_plain(x),)


def call(function: Callable[..., Any], inputs: Inputs) -> Any:
    """Call a model with its inputs."""
    return function(**inputs) if isinstance(inputs, dict) else function(*inputs)


def mapped(inputs: Inputs, change: Callable[[Any], Any]) -> Inputs:
    """Return the inputs with a function applied to each array."""
    if isinstance(inputs, dict):
        return {k: change(v) for k, v in inputs.items()}
    return tuple(change(v) for v in inputs)


def arrays_of(inputs: Inputs) -> list[Any]:
    """Return the arrays of the inputs."""
    return list(inputs.values()) if isinstance(inputs, dict) else list(inputs)


def rows_of(array: Any) -> int:
    """Return the number of rows; a single number is one."""
    return len(array) if array.ndim else 1


def target_array(targets: Any) -> Array:
    """Return targets as int64 classes or float32 values.

    Raises:
        InputError: if they are neither.
    """
    array = _plain(targets)
    if is_float(array.dtype):
        return array if array.dtype == np.float32 else array.astype(np.float32)
    if array.dtype.kind not in "iub":
        raise InputError(f"targets are integers (classes) or floats, found {array.dtype}")
    return array.astype(np.int64)


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.array
    return value if hasattr(value, "dtype") and hasattr(value, "reshape") else np.asarray(value)


def _stack(values: Sequence[Any]) -> Any:
    first = _plain(values[0])
    return namespace(first).stack([_plain(v) for v in values])


def _pair(item: Any) -> tuple[Any, Any]:
    if not isinstance(item, tuple | list) or len(item) != 2:
        raise InputError(
            f"wanted a pair (x, y), found {type(item).__name__}"
            + (f" of {len(item)}" if hasattr(item, "__len__") else "")
        )
    return item[0], item[1]
