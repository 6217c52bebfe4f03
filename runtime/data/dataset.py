"""Data sets: examples by number, or one after the other."""

from __future__ import annotations

import bisect
import itertools
import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar

import numpy as np

from ...ops.errors import InputError
from ..autograd.grad_mode import MODE
from ..tensor import random
from ..tensor.tensor import Tensor, wrap

T_co = TypeVar("T_co", covariant=True)


class Dataset(Generic[T_co]):
    """Examples by number; a subclass defines `__getitem__`, and `__len__` where it knows how many there are."""

    def __getitem__(self, index: Any) -> T_co:
        """Return an example."""
        raise NotImplementedError("Subclasses of Dataset should implement __getitem__.")

    def __add__(self, other: Any) -> ConcatDataset:
        """Return both, one after the other."""
        return ConcatDataset([self, other])


class IterableDataset(Dataset[T_co]):
    """Examples one after the other; a subclass defines `__iter__`.

    A loader with workers iterates over it in each of them: `get_worker_info()` tells a worker which part is its own.
    """

    def __iter__(self) -> Iterator[T_co]:
        """Yield the examples."""
        raise NotImplementedError("Subclasses of IterableDataset should implement __iter__.")

    def __add__(self, other: Any) -> ChainDataset:  # type: ignore[override]
        """Return both, one after the other."""
        return ChainDataset([self, other])


class TensorDataset(Dataset[tuple[Tensor, ...]]):
    """Examples that are the rows of several Tensors or arrays.

    Raises:
        InputError: if their first sizes differ.
    """

    def __init__(self, *tensors: Any) -> None:
        self.tensors = tuple(t if isinstance(t, Tensor) else Tensor(t) for t in tensors)
        if len({t.shape[0] for t in self.tensors}) != 1:
            raise InputError(f"Size mismatch between tensors: {[t.shape for t in self.tensors]}")

    def __getitem__(self, index: Any) -> tuple[Tensor, ...]:
        """Return a row of each."""
        return tuple(t[index] for t in self.tensors)

    def __len__(self) -> int:
        """Return the number of rows."""
        return self.tensors[0].shape[0]


class StackDataset(Dataset[Any]):
    """Data sets side by side: an example is a tuple of theirs, or a dictionary where they are given by name.

    Raises:
        InputError: if their lengths differ.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if args and kwargs:
            raise InputError(
                "Supported either ``tuple``- (via ``args``) or ``dict``- (via ``kwargs``) like input/output, but both "
                "types are given."
            )
        self.datasets: tuple[Any, ...] | dict[str, Any] = args or kwargs
        lengths = [len(d) for d in (args or kwargs.values())]
        if not lengths:
            raise InputError("At least one dataset should be passed")
        if len(set(lengths)) != 1:
            raise InputError(f"Size mismatch between datasets: {lengths}")

    def __getitem__(self, index: Any) -> Any:
        """Return an example of each."""
        if isinstance(self.datasets, dict):
            return {name: d[index] for name, d in self.datasets.items()}
        return tuple(d[index] for d in self.datasets)

    def __getitems__(self, indices: list[int]) -> list[Any]:
        """Return several examples of each."""
        named = isinstance(self.datasets, dict)
        columns = [examples_of(d, indices) for d in (self.datasets.values() if named else self.datasets)]  # type: ignore[union-attr]
        rows = zip(*columns, strict=True)
        return [dict(zip(self.datasets, row, strict=True)) for row in rows] if named else list(rows)

    def __len__(self) -> int:
        """Return how many there are."""
        return len(next(iter(self.datasets.values())) if isinstance(self.datasets, dict) else self.datasets[0])


class ConcatDataset(Dataset[Any]):
    """Data sets one after the other.

    Raises:
        InputError: if there are none, or one has no numbers.
    """

    def __init__(self, datasets: Iterable[Any]) -> None:
        self.datasets = list(datasets)
        if not self.datasets:
            raise InputError("datasets should not be an empty iterable")
        if any(isinstance(d, IterableDataset) for d in self.datasets):
            raise InputError("ConcatDataset does not support IterableDataset")
        self.cumulative_sizes = list(itertools.accumulate(len(d) for d in self.datasets))

    def __getitem__(self, index: int) -> Any:
        """Return an example."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} of {len(self)} examples")
        at = index % len(self)
        which = bisect.bisect_right(self.cumulative_sizes, at)
        return self.datasets[which][at - (self.cumulative_sizes[which - 1] if which else 0)]

    def __len__(self) -> int:
        """Return how many there are."""
        return self.cumulative_sizes[-1]


class ChainDataset(IterableDataset[Any]):
    """Iterable data sets one after the other."""

    def __init__(self, datasets: Iterable[Any]) -> None:
        self.datasets = datasets

    def _each(self) -> Iterator[Any]:
        for d in self.datasets:
            if not isinstance(d, IterableDataset):
                raise InputError(f"ChainDataset only supports IterableDataset, found {type(d).__name__}")
            yield d

    def __iter__(self) -> Iterator[Any]:
        """Yield the examples."""
        for d in self._each():
            yield from d

    def __len__(self) -> int:
        """Return how many there are."""
        return sum(len(d) for d in self._each())


class Subset(Dataset[T_co]):
    """Some examples of a data set, by their numbers."""

    def __init__(self, dataset: Any, indices: Sequence[int]) -> None:
        self.dataset, self.indices = dataset, indices
        overridden = type(self).__getitem__ is not Subset.__getitem__
        if overridden and type(self).__getitems__ is Subset.__getitems__:
            raise NotImplementedError(
                f"{type(self).__name__} overrides __getitem__ but not __getitems__, which a DataLoader calls: define "
                "def __getitems__(self, indices): return [self[i] for i in indices]"
            )

    def __getitem__(self, index: Any) -> T_co:
        """Return an example, or what the data set has for a list of numbers."""
        if isinstance(index, list):
            return self.dataset[[self.indices[i] for i in index]]  # type: ignore[no-any-return]
        return self.dataset[self.indices[index]]  # type: ignore[no-any-return]

    def __getitems__(self, indices: list[int]) -> list[T_co]:
        """Return several examples."""
        return examples_of(self.dataset, [self.indices[i] for i in indices])

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.indices)


def examples_of(dataset: Any, indices: list[int]) -> list[Any]:
    """Return examples by their numbers, at once where the data set can.

    Raises:
        InputError: if the data set returns more or fewer.
    """
    if not callable(getattr(dataset, "__getitems__", None)):
        return [dataset[i] for i in indices]
    found: list[Any] = dataset.__getitems__(indices)
    if len(found) != len(indices):
        raise InputError(f"Nested dataset's output size mismatch. Expected {len(indices)}, got {len(found)}")
    return found


def rows_of(dataset: Any, indices: list[int]) -> list[Tensor] | None:
    """Return rows of a data set of Tensors that `default_collate` would stack, or None for other data sets."""
    while type(dataset) is Subset:
        indices, dataset = [dataset.indices[i] for i in indices], dataset.dataset
    if type(dataset) is not TensorDataset or MODE.trace is not None:
        return None
    if any(t.requires_grad or not isinstance(t._array, np.ndarray) for t in dataset.tensors):
        return None
    at = np.asarray(indices, np.intp)
    return [wrap(t._array[at]) for t in dataset.tensors] if at.ndim == 1 else None


def random_split(
    dataset: Any, lengths: Sequence[float], generator: random.Generator | None = None
) -> list[Subset[Any]]:
    """Split a data set at random into parts that do not overlap.

    Args:
        dataset: what is split.
        lengths: sizes that add up to its size, or shares that add up to 1: the sizes are rounded down, and what is left
            goes to the first parts.
        generator: of the draw; the process's by default.

    Raises:
        InputError: if they do not add up.
    """
    n = len(dataset)
    if math.isclose(sum(lengths), 1) and sum(lengths) <= 1:
        for i, share in enumerate(lengths):
            if not 0 <= share <= 1:
                raise InputError(f"Fraction at index {i} is not between 0 and 1")
        sizes = [math.floor(n * share) for share in lengths]
        for i in range(n - sum(sizes)):
            sizes[i % len(sizes)] += 1
        for i, size in enumerate(sizes):
            if not size:
                warnings.warn(
                    f"Length of split at index {i} is 0. This might result in an empty dataset.", stacklevel=2
                )
    else:
        sizes = [int(size) for size in lengths]
    if sum(sizes) != n:
        raise InputError(
            f"Sum of input lengths does not equal the length of the input dataset! Found {list(lengths)} and {n}"
        )
    order = random.permutation(n, generator).tolist()
    ends = itertools.accumulate(sizes)
    return [Subset(dataset, order[end - size : end]) for end, size in zip(ends, sizes, strict=True)]
