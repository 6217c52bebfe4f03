"""Samplers: in which order a loader asks for examples."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence, Sized
from typing import Any, Generic, TypeVar

import numpy as np

from ...ops.errors import InputError
from ..tensor import random
from ..tensor.tensor import Tensor

T_co = TypeVar("T_co", covariant=True)


class Sampler(Generic[T_co]):
    """Numbers of examples, or lists of them, in some order; a subclass defines `__iter__`, and perhaps `__len__`."""

    def __iter__(self) -> Iterator[T_co]:
        """Yield the numbers."""
        raise NotImplementedError


class SequentialSampler(Sampler[int]):
    """All numbers in order."""

    def __init__(self, data_source: Sized) -> None:
        self.data_source = data_source

    def __iter__(self) -> Iterator[int]:
        """Yield the numbers."""
        return iter(range(len(self.data_source)))

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.data_source)


class RandomSampler(Sampler[int]):
    """All numbers in random order, or draws with replacement.

    Args:
        data_source: the data set.
        replacement: draw each number independently.
        num_samples: how many numbers; as many as there are examples by default.
        generator: of the draws; one that is seeded by the process's by default.

    Raises:
        InputError: if there is nothing to draw.
    """

    def __init__(
        self,
        data_source: Sized,
        replacement: bool = False,
        num_samples: int | None = None,
        generator: random.Generator | None = None,
    ) -> None:
        self.data_source, self.replacement, self.generator = data_source, replacement, generator
        self._num_samples = num_samples
        _check_flag("replacement", replacement, TypeError)
        _check_count("num_samples", self.num_samples)

    @property
    def num_samples(self) -> int:
        """How many numbers are drawn."""
        return len(self.data_source) if self._num_samples is None else self._num_samples

    def __iter__(self) -> Iterator[int]:
        """Yield the numbers."""
        n, left = len(self.data_source), self.num_samples
        generator = self.generator or random.Generator(int(random.integers(0, 2**62, ())))
        while left > 0:
            drawn = random.integers(0, n, (min(left, 4096),), generator) if self.replacement else None
            numbers = random.permutation(n, generator)[:left] if drawn is None else drawn
            left -= len(numbers)
            yield from numbers.tolist()

    def __len__(self) -> int:
        """Return how many numbers are drawn."""
        return self.num_samples


class SubsetRandomSampler(Sampler[int]):
    """The given numbers in random order."""

    def __init__(self, indices: Sequence[int], generator: random.Generator | None = None) -> None:
        self.indices, self.generator = indices, generator

    def __iter__(self) -> Iterator[int]:
        """Yield the numbers."""
        for i in random.permutation(len(self.indices), self.generator).tolist():
            yield self.indices[i]

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.indices)


class WeightedRandomSampler(Sampler[int]):
    """Numbers drawn with given weights.

    Args:
        weights: one a number; they need not add up to 1.
        num_samples: how many numbers are drawn.
        replacement: whether a number may be drawn again.
        generator: of the draws; the process's by default.

    Raises:
        InputError: if the weights cannot be drawn from.
    """

    def __init__(
        self,
        weights: Sequence[float],
        num_samples: int,
        replacement: bool = True,
        generator: random.Generator | None = None,
    ) -> None:
        _check_count("num_samples", num_samples)
        _check_flag("replacement", replacement, InputError)
        values = np.asarray(weights.detach().numpy() if isinstance(weights, Tensor) else weights, np.float64)
        if values.ndim != 1:
            raise InputError(f"weights should be a 1d sequence but given weights have shape {values.shape}")
        if not np.isfinite(values).all() or (values < 0).any() or not values.sum():
            raise InputError("weights are finite, not negative, and not all 0")
        if not replacement and num_samples > np.count_nonzero(values):
            raise InputError(
                f"cannot draw {num_samples} numbers without replacement from {np.count_nonzero(values)} with a weight"
            )
        self.weights = Tensor(values)
        self.num_samples, self.replacement, self.generator = num_samples, replacement, generator

    def __iter__(self) -> Iterator[int]:
        """Yield the numbers."""
        values = self.weights.numpy()
        if self.replacement:
            ends = np.cumsum(values)
            drawn = random.uniform(np.empty(self.num_samples), 0.0, ends[-1], self.generator)
            last = int(np.flatnonzero(values)[-1])
            return iter(np.minimum(np.searchsorted(ends, drawn, side="right"), last).tolist())
        # The numbers with the smallest exponential variates of rate `weight` are a draw without replacement (Efraimidis
        # and Spirakis 2006).
        drawn = random.uniform(np.empty(len(values)), 0.0, 1.0, self.generator)
        with np.errstate(divide="ignore"):
            times = np.where(values > 0, -np.log1p(-drawn) / values, np.inf)
        return iter(np.argsort(times, kind="stable")[: self.num_samples].tolist())

    def __len__(self) -> int:
        """Return how many numbers are drawn."""
        return self.num_samples


class BatchSampler(Sampler[list[int]]):
    """Lists of the numbers that another sampler yields.

    Args:
        sampler: what to group.
        batch_size: numbers a list.
        drop_last: leave out a last list that is not full.

    Raises:
        InputError: if the arguments are of another type.
    """

    def __init__(self, sampler: Iterable[Any], batch_size: int, drop_last: bool) -> None:
        _check_count("batch_size", batch_size)
        _check_flag("drop_last", drop_last, InputError)
        self.sampler, self.batch_size, self.drop_last = sampler, batch_size, drop_last

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the lists."""
        numbers = iter(self.sampler)
        while batch := list(itertools.islice(numbers, self.batch_size)):
            if len(batch) == self.batch_size or not self.drop_last:
                yield batch

    def __len__(self) -> int:
        """Return how many there are."""
        n = len(self.sampler)  # type: ignore[arg-type]
        return n // self.batch_size if self.drop_last else -(-n // self.batch_size)


def _check_count(name: str, value: Any) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        raise InputError(f"{name} should be a positive integer value, but got {name}={value}")


def _check_flag(name: str, value: Any, error: type[Exception]) -> None:
    if not isinstance(value, bool):
        raise error(f"{name} should be a boolean value, but got {name}={value}")
