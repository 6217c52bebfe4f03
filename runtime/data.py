"""Data sets and batches."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np

from ..ops.errors import InputError
from . import random
from .tensor import Tensor

T_co = TypeVar("T_co", covariant=True)


@runtime_checkable
class Dataset(Protocol[T_co]):
    """Examples by number: anything with `__getitem__` and `__len__`."""

    def __getitem__(self, index: int) -> T_co:
        """Return an example."""
        ...

    def __len__(self) -> int:
        """Return how many there are."""
        ...


class TensorDataset:
    """Examples that are the rows of several Tensors or arrays.

    Raises:
        InputError: if their first sizes differ.
    """

    def __init__(self, *tensors: Any) -> None:
        """Keep the Tensors."""
        self.tensors = tuple(t if isinstance(t, Tensor) else Tensor(t) for t in tensors)
        if len({t.shape[0] for t in self.tensors}) != 1:
            raise InputError(f"Size mismatch between tensors: {[t.shape for t in self.tensors]}")

    def __getitem__(self, index: Any) -> tuple[Tensor, ...]:
        """Return a row of each."""
        return tuple(t[index] for t in self.tensors)

    def __len__(self) -> int:
        """Return the number of rows."""
        return self.tensors[0].shape[0]


class Subset:
    """Some examples of a data set, by their numbers."""

    def __init__(self, dataset: Any, indices: Sequence[int]) -> None:
        """Keep the data set and the numbers."""
        self.dataset, self.indices = dataset, indices

    def __getitem__(self, index: int) -> Any:
        """Return an example."""
        return self.dataset[self.indices[index]]

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.indices)


class ConcatDataset:
    """Data sets one after the other."""

    def __init__(self, datasets: Iterable[Any]) -> None:
        """Keep the data sets."""
        self.datasets = list(datasets)
        self.ends = list(itertools.accumulate(len(d) for d in self.datasets))

    def __getitem__(self, index: int) -> Any:
        """Return an example."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} of {len(self)} examples")
        at = index % len(self)
        which = bisect.bisect_right(self.ends, at)
        return self.datasets[which][at - (self.ends[which - 1] if which else 0)]

    def __len__(self) -> int:
        """Return how many there are."""
        return self.ends[-1] if self.ends else 0


def random_split(dataset: Any, lengths: Sequence[float], generator: random.Generator | None = None) -> list[Subset]:
    """Split a data set at random into parts that do not overlap.

    Args:
        dataset: what is split.
        lengths: sizes that add up to its size, or shares that add up to 1.
        generator: of the draw; the process's by default.

    Raises:
        InputError: if they do not add up.
    """
    n = len(dataset)
    sizes = [int(v) for v in lengths]
    if abs(sum(lengths) - 1) < 1e-9 and not all(isinstance(v, int) for v in lengths):
        sizes = [int(n * v) for v in lengths]
        for i in range(n - sum(sizes)):
            sizes[i % len(sizes)] += 1
    if sum(sizes) != n:
        raise InputError(f"Sum of input lengths does not equal the length of the input dataset: {sizes} and {n}")
    order = random.permutation(n, generator).tolist()
    ends = list(itertools.accumulate(sizes))
    return [Subset(dataset, order[end - size : end]) for end, size in zip(ends, sizes, strict=True)]


def default_collate(batch: Sequence[Any]) -> Any:
    """Return examples stacked along a new first axis: Tensors, arrays and numbers; tuples and dictionaries by entry."""
    first = batch[0]
    if isinstance(first, Tensor):
        from .creation import stack

        return stack(batch)
    if isinstance(first, np.ndarray | np.generic):
        return Tensor(np.stack([np.asarray(v) for v in batch]))
    if isinstance(first, bool | int | float):
        from .creation import tensor

        return tensor(list(batch), dtype="float64" if isinstance(first, float) else None)
    if isinstance(first, Mapping):
        return {key: default_collate([v[key] for v in batch]) for key in first}
    if isinstance(first, tuple) and hasattr(first, "_fields"):
        return type(first)(*(default_collate(column) for column in zip(*batch, strict=True)))
    if isinstance(first, tuple | list):
        columns = [default_collate(column) for column in zip(*batch, strict=True)]
        return tuple(columns) if isinstance(first, tuple) else columns
    return list(batch)


class DataLoader:
    """Batches of a data set: iterate over it once an epoch.

    Args:
        dataset: examples by number, or any iterable of examples.
        batch_size: examples a batch; None yields them one by one.
        shuffle: draw a new order every epoch.
        sampler: yields numbers of examples, in place of `shuffle`.
        batch_sampler: yields lists of numbers, in place of `batch_size`.
        num_workers: only 0: examples are read in this process.
        collate_fn: makes a batch of a list of examples; `default_collate` by default.
        drop_last: leave out a last batch that is not full.
        generator: of the orders; the process's by default.

    Raises:
        InputError: if the arguments contradict each other.
    """

    def __init__(
        self, dataset: Any, batch_size: int | None = 1, shuffle: bool = False, sampler: Iterable[int] | None = None,
        batch_sampler: Iterable[Sequence[int]] | None = None, num_workers: int = 0,
        collate_fn: Callable[[list[Any]], Any] | None = None, drop_last: bool = False,
        generator: random.Generator | None = None,
    ) -> None:  # fmt: skip
        """Check and keep the settings; see the class."""
        if num_workers:
            raise InputError(f"num_workers={num_workers}: examples are read in this process; pass 0")
        if sampler is not None and shuffle:
            raise InputError("sampler option is mutually exclusive with shuffle")
        if batch_size is not None and batch_size < 1:
            raise InputError(f"batch_size should be a positive integer value, but got batch_size={batch_size}")
        if shuffle and not hasattr(dataset, "__getitem__"):
            raise InputError("shuffle wants a dataset with __getitem__ and __len__, found an iterable")
        self.dataset, self.batch_size, self.shuffle, self.drop_last = dataset, batch_size, shuffle, drop_last
        self.sampler, self.batch_sampler, self.generator = sampler, batch_sampler, generator
        self.collate_fn = collate_fn or default_collate

    def _examples(self) -> Iterator[Any]:
        if self.sampler is None and not hasattr(self.dataset, "__getitem__"):
            return iter(self.dataset)
        numbers: Iterable[int] = range(len(self.dataset))
        if self.sampler is not None:
            numbers = self.sampler
        elif self.shuffle:
            numbers = random.permutation(len(self.dataset), self.generator).tolist()
        return (self.dataset[i] for i in numbers)

    def __iter__(self) -> Iterator[Any]:
        """Yield the batches of an epoch."""
        if self.batch_sampler is not None:
            for numbers in self.batch_sampler:
                yield self.collate_fn([self.dataset[i] for i in numbers])
            return
        examples = self._examples()
        if self.batch_size is None:
            yield from examples
            return
        while batch := list(itertools.islice(examples, self.batch_size)):
            if len(batch) == self.batch_size or not self.drop_last:
                yield self.collate_fn(batch)

    def __len__(self) -> int:
        """Return the number of batches."""
        if self.batch_sampler is not None:
            return len(self.batch_sampler)  # type: ignore[arg-type]
        n = len(self.dataset if self.sampler is None else self.sampler)  # type: ignore[arg-type]
        if self.batch_size is None:
            return n
        return n // self.batch_size if self.drop_last else -(-n // self.batch_size)
