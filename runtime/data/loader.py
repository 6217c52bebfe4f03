"""The loader: a data set in batches."""

from __future__ import annotations

import copy
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import repeat
from typing import Any, Generic, TypeVar

from ...ops.errors import InputError
from ..cuda.availability import is_available
from ..cuda.pinned import pin_batch
from ..tensor import random
from .collate import default_collate, default_convert
from .dataset import Dataset, IterableDataset, examples_of, rows_of
from .sampler import BatchSampler, RandomSampler, SequentialSampler
from .workers import Ahead, Ended, Epoch, Stopped, Workers, checked_method

T_co = TypeVar("T_co", covariant=True)

_NOTHING_TO_PIN_FOR = (
    "'pin_memory' argument is set as true but no accelerator is found, then device pinned memory won't be used."
)
_FIXED = frozenset({"batch_size", "batch_sampler", "sampler", "drop_last", "dataset", "persistent_workers"})


class DataLoader(Generic[T_co]):
    """Batches of a data set: iterate over it once an epoch.

    Workers are threads, which decode and transform while the caller computes (Pillow and NumPy let other threads run
    meanwhile): nothing is pickled or forked, and `worker_init_fn` and `collate_fn` may be any function. Batches come in
    the same order whatever the number of workers. Each worker has a shallow copy of a `Dataset`, and a generator of its
    own that `manual_seed` reproduces and that everything here draws from; Python's `random` and `numpy.random` are
    shared by all threads. Batches that nobody takes are not made: at most `prefetch_factor` a worker lie ready.

    Args:
        dataset: examples by number, or an `IterableDataset` or another iterable.
        batch_size: examples a batch; None yields them one by one.
        shuffle: draw a new order every epoch.
        sampler: yields numbers of examples, in place of `shuffle`.
        batch_sampler: yields lists of numbers, in place of `batch_size`, `shuffle`, `sampler` and `drop_last`.
        num_workers: how many threads read ahead; 0 reads when a batch is asked for.
        collate_fn: makes a batch of a list of examples: `default_collate`, or for single ones `default_convert`.
        pin_memory: copy batches to page-locked memory, from which a CUDA device copies while the host goes on; the
            Tensors in tuples, lists and mappings, and what has a method of that name.
        drop_last: leave out a last batch that is not full.
        timeout: seconds to wait for a batch of a worker; 0 for as long as it takes.
        worker_init_fn: called in each worker with its number, before it reads.
        multiprocessing_context: accepted and checked; workers are threads.
        generator: of the orders and of the workers' seeds; the process's by default.
        prefetch_factor: batches under way for each worker; 2 by default.
        persistent_workers: keep workers and their data sets from epoch to epoch.
        pin_memory_device: accepted; page-locked memory serves all devices.
        in_order: False hands out workers' batches as they are done.

    Raises:
        InputError: if the arguments contradict each other.
    """

    _initialized = False

    def __init__(
        self,
        dataset: Any,
        batch_size: int | None = 1,
        shuffle: bool | None = None,
        sampler: Iterable[Any] | None = None,
        batch_sampler: Iterable[Sequence[Any]] | None = None,
        num_workers: int = 0,
        collate_fn: Callable[[Any], Any] | None = None,
        pin_memory: bool = False,
        drop_last: bool = False,
        timeout: float = 0,
        worker_init_fn: Callable[[int], Any] | None = None,
        multiprocessing_context: Any = None,
        generator: random.Generator | None = None,
        *,
        prefetch_factor: int | None = None,
        persistent_workers: bool = False,
        pin_memory_device: str = "",
        in_order: bool = True,
    ) -> None:
        _check_workers(num_workers, timeout, prefetch_factor, persistent_workers, multiprocessing_context)
        self.dataset, self.num_workers, self.timeout = dataset, num_workers, timeout
        self.prefetch_factor = 2 if num_workers and prefetch_factor is None else prefetch_factor
        self.pin_memory, self.pin_memory_device, self.in_order = pin_memory, pin_memory_device, in_order
        self.worker_init_fn, self.persistent_workers, self.generator = worker_init_fn, persistent_workers, generator
        self.multiprocessing_context = checked_method(multiprocessing_context)
        self._iterable = isinstance(dataset, IterableDataset) or not hasattr(dataset, "__getitem__")
        if self._iterable:
            for name, value in (("shuffle", shuffle or None), ("sampler", sampler), ("batch_sampler", batch_sampler)):
                if value is not None:
                    raise InputError(
                        f"DataLoader with IterableDataset: expected unspecified {name} option, but got {name}={value}"
                    )
            if num_workers > 1 and isinstance(dataset, Iterator):
                raise InputError(f"num_workers={num_workers}: an iterator can be read by one worker only")
        if sampler is not None and shuffle:
            raise InputError("sampler option is mutually exclusive with shuffle")
        if batch_sampler is not None:
            if batch_size != 1 or shuffle or sampler is not None or drop_last:
                raise InputError(
                    "batch_sampler option is mutually exclusive with batch_size, shuffle, sampler, and drop_last"
                )
            batch_size = None
        elif batch_size is None and drop_last:
            raise InputError("batch_size=None option disables auto-batching and is mutually exclusive with drop_last")
        if sampler is None:
            if self._iterable:
                sampler = repeat(None)
            else:
                sampler = RandomSampler(dataset, generator=generator) if shuffle else SequentialSampler(dataset)
        if batch_size is not None:
            batch_sampler = BatchSampler(sampler, batch_size, drop_last)
        self.batch_size, self.drop_last, self.sampler, self.batch_sampler = (
            batch_size,
            drop_last,
            sampler,
            batch_sampler,
        )
        self.collate_fn = collate_fn or (default_convert if batch_sampler is None else default_collate)
        self._workers: Workers | None = None
        self._initialized = True

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute that may still be changed."""
        if self._initialized and name in _FIXED:
            raise InputError(f"{name} attribute should not be set after {type(self).__name__} is initialized")
        super().__setattr__(name, value)

    def __iter__(self) -> Iterator[T_co]:
        """Return the batches of an epoch, as they are asked for."""
        return _Batches(self)

    def __len__(self) -> int:
        """Return the number of batches."""
        if not self._iterable:
            return len(self.sampler if self.batch_sampler is None else self.batch_sampler)  # type: ignore[arg-type]
        n = len(self.dataset)
        if self.batch_size is None:
            return n
        return n // self.batch_size if self.drop_last else -(-n // self.batch_size)

    def _fetcher(self, dataset: Any, epoch: Epoch | None) -> Callable[[Any], Any]:
        """Return what makes a batch of what the sampler yielded."""
        fetch: Callable[[Any], Any] = (
            _Reader(iter(dataset), self.collate_fn, self.batch_sampler is not None, self.drop_last)
            if self._iterable
            else _Fetcher(dataset, self.collate_fn, self.batch_sampler is not None, epoch)
        )
        if self.pin_memory and is_available():
            return lambda numbers: pin_batch(fetch(numbers))
        return fetch

    def _started(self, seed: int) -> Workers:
        """Return threads that are ready to read."""
        if self._workers is not None:
            return self._workers
        copied = isinstance(self.dataset, Dataset)
        datasets = [copy.copy(self.dataset) if copied else self.dataset for _ in range(self.num_workers)]
        made = Workers(datasets, seed, self.worker_init_fn, _weakly(self))
        if self.persistent_workers:
            self._workers = made
            weakref.finalize(self, made.stop)
        return made


def _weakly(loader: DataLoader[Any]) -> Callable[[Any, Epoch], Callable[[Any], Any]]:
    """Return the loader's `_fetcher`, for threads that must not keep the loader alive."""
    reference = weakref.ref(loader)

    def fetcher(dataset: Any, epoch: Epoch) -> Callable[[Any], Any]:
        found = reference()
        if found is None:
            raise Stopped
        return found._fetcher(dataset, epoch)

    return fetcher


class _Batches(Iterator[Any]):
    """The batches of one epoch."""

    def __init__(self, loader: DataLoader[Any]) -> None:
        self._loader = loader
        if loader.pin_memory and not is_available():
            warnings.warn(_NOTHING_TO_PIN_FOR, UserWarning, stacklevel=3)
        seed = int(random.integers(0, 2**62, (), loader.generator))
        indices = iter(loader.sampler if loader.batch_sampler is None else loader.batch_sampler)
        self._finish: Callable[[], Any] | None = None
        if not loader.num_workers:
            self._indices, self._fetch = indices, loader._fetcher(loader.dataset, None)
            return
        workers, epoch = loader._started(seed), Epoch()
        self._finish = weakref.finalize(self, _finish, epoch, None if loader.persistent_workers else workers)
        try:
            factor = loader.prefetch_factor or 0
            self._ahead = Ahead(workers, epoch, indices, factor, loader.timeout, loader.in_order)
        except BaseException:
            self._finish()
            raise

    def __next__(self) -> Any:
        """Return the next batch."""
        if self._loader.num_workers:
            try:
                return next(self._ahead)
            except BaseException:
                if self._finish is not None:
                    self._finish()
                raise
        numbers = next(self._indices)
        try:
            return self._fetch(numbers)
        except Ended:
            raise StopIteration from None
        except StopIteration as error:
            raise RuntimeError("the data set raised StopIteration, which would end the loop silently") from error

    def __len__(self) -> int:
        """Return the number of batches in all."""
        return len(self._loader)


def _finish(epoch: Epoch, workers: Workers | None) -> None:
    epoch.stopped = True
    if workers is not None:
        workers.stop()


class _Fetcher:
    """Makes batches of examples that have numbers."""

    def __init__(self, dataset: Any, collate: Callable[[Any], Any], batched: bool, epoch: Epoch | None) -> None:
        self.dataset, self.collate, self.batched, self.epoch = dataset, collate, batched, epoch
        self.together = callable(getattr(dataset, "__getitems__", None))

    def __call__(self, indices: Any) -> Any:
        """Return a batch, or one example where there are no batches."""
        if not self.batched:
            return self.collate(self.dataset[indices])
        if self.collate is default_collate and (rows := rows_of(self.dataset, indices)) is not None:
            return rows
        if self.together:
            return self.collate(examples_of(self.dataset, indices))
        return self.collate([self._one(i) for i in indices])

    def _one(self, index: Any) -> Any:
        if self.epoch is not None and self.epoch.stopped:
            raise Stopped
        return self.dataset[index]


class _Reader:
    """Makes batches of examples that come one after the other."""

    def __init__(self, examples: Iterator[Any], collate: Callable[[Any], Any], batched: bool, drop_last: bool) -> None:
        self.examples, self.collate, self.batched, self.drop_last = examples, collate, batched, drop_last
        self.ended = False

    def __call__(self, indices: Any) -> Any:
        """Return a batch, or one example where there are no batches.

        Raises:
            Ended: if there are no more.
        """
        if self.ended:
            raise Ended
        batch = []
        for _ in indices if self.batched else (None,):
            try:
                batch.append(next(self.examples))
            except StopIteration:
                self.ended = True
                break
        if not batch or (self.batched and self.drop_last and len(batch) < len(indices)):
            raise Ended
        return self.collate(batch if self.batched else batch[0])


def _check_workers(
    num_workers: int, timeout: float, prefetch_factor: int | None, persistent: bool, context: Any
) -> None:
    """Refuse settings of workers that contradict each other."""
    if num_workers < 0:
        raise InputError("num_workers option should be non-negative; use num_workers=0 to disable multiprocessing.")
    if timeout < 0:
        raise InputError("timeout option should be non-negative")
    if not num_workers and prefetch_factor is not None:
        raise InputError(
            "prefetch_factor option could only be specified in multiprocessing. let num_workers > 0 to enable "
            "multiprocessing, otherwise set prefetch_factor to None."
        )
    if prefetch_factor is not None and prefetch_factor < 1:
        raise InputError(f"prefetch_factor option should be positive, found {prefetch_factor}")
    if persistent and not num_workers:
        raise InputError("persistent_workers option needs num_workers > 0")
    if context is not None and not num_workers:
        raise InputError(
            "multiprocessing_context can only be used with multi-process loading (num_workers > 0), but got "
            f"num_workers={num_workers}"
        )
