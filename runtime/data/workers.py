"""Workers: threads that read examples ahead of who asks for them.

Batches are numbered, and the workers take turns with them, so that what a worker draws at random hangs on nothing but
its seed. They are handed out in the order of their numbers.
"""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

from ...ops.errors import InputError, TrainingError
from ..tensor import random

JOIN_SECONDS = 5.0
"""How long who stops workers waits for the example that each is reading."""


@dataclass(frozen=True)
class WorkerInfo:
    """What a worker knows about itself.

    Attributes:
        id: its number, from 0 on.
        num_workers: how many there are.
        seed: of its random numbers.
        dataset: its data set: a shallow copy of a `Dataset`, so that an attribute that is set is the worker's own.
        worker_method: `thread`.
    """

    id: int
    num_workers: int
    seed: int
    dataset: Any
    worker_method: str = "thread"


class _Here(threading.local):
    info: WorkerInfo | None = None


_HERE = _Here()


def get_worker_info() -> WorkerInfo | None:
    """Return what the worker that asks knows about itself; None outside workers."""
    return _HERE.info


class Stopped(Exception):  # noqa: N818 - nothing went wrong
    """Nobody wants the batch any more."""


class Ended(Exception):  # noqa: N818 - nothing went wrong
    """The worker's iterable has no more examples."""


class Epoch:
    """The batches of one iteration, by number.

    Attributes:
        stopped: whether nobody wants them any more.
    """

    def __init__(self) -> None:
        self.stopped = False
        self._done: dict[int, tuple[bool, Any]] = {}
        self._changed = threading.Condition()

    def put(self, number: int, good: bool, result: Any) -> None:
        """Hand in a batch, or what went wrong."""
        with self._changed:
            self._done[number] = good, result
            self._changed.notify_all()

    def take(self, number: int | None, timeout: float) -> tuple[int, bool, Any]:
        """Wait for a batch, the next that is there without a number, and return (number, whether it is good, it).

        Raises:
            TrainingError: if it takes longer than the timeout, where that is not 0.
        """

        def found() -> int | None:
            if number is None:
                return min(self._done, default=None)
            return number if number in self._done else None

        with self._changed:
            if not self._changed.wait_for(lambda: found() is not None, timeout or None):
                raise TrainingError(f"DataLoader timed out after {timeout:g} seconds")
            at = found()
            assert at is not None
            return at, *self._done.pop(at)


@dataclass(frozen=True)
class Job:
    """A batch that a worker is to make.

    Attributes:
        epoch: which iteration it is of.
        number: its number there.
        indices: what the sampler yielded.
    """

    epoch: Epoch
    number: int
    indices: Any


class Workers:
    """Threads that make batches; `stop` ends them.

    Args:
        datasets: one for each worker.
        seed: of the workers' random numbers: worker i draws from `seed + i`.
        init: called in each worker with its number, before it reads.
        fetcher: returns the function of indices that makes batches of a data set; called once an epoch in each worker.
    """

    def __init__(
        self,
        datasets: list[Any],
        seed: int,
        init: Callable[[int], Any] | None,
        fetcher: Callable[[Any, Epoch], Callable[[Any], Any]],
    ) -> None:
        self._jobs: list[SimpleQueue[Job | None]] = [SimpleQueue() for _ in datasets]
        self.stopping = threading.Event()
        self._threads = []
        for i, (dataset, jobs) in enumerate(zip(datasets, self._jobs, strict=True)):
            info = WorkerInfo(i, len(datasets), seed + i, dataset)
            thread = threading.Thread(
                target=_work, args=(info, jobs, init, fetcher), name=f"DataLoader worker {i}", daemon=True
            )
            self._threads.append(thread)
            thread.start()

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._threads)

    def give(self, worker: int, job: Job) -> None:
        """Have a worker make a batch."""
        self._jobs[worker].put(job)

    def stop(self) -> None:
        """End the threads, and wait for the example that each is reading."""
        for jobs in self._jobs:
            jobs.put(None)
        if threading.current_thread() in self._threads:  # collecting garbage: the others may wait for what it holds
            return
        for thread in self._threads:
            thread.join(JOIN_SECONDS)


def _work(
    info: WorkerInfo,
    jobs: SimpleQueue[Job | None],
    init: Callable[[int], Any] | None,
    fetcher: Callable[[Any, Epoch], Callable[[Any], Any]],
) -> None:
    """Make batches until told to stop."""
    _HERE.info = info
    with random.drawing_from(random.Generator(info.seed)):
        wrong = None
        if init is not None:
            try:
                init(info.id)
            except BaseException as error:
                wrong = told(error, f"in DataLoader worker {info.id}")
        epoch, fetch = None, None
        while (job := jobs.get()) is not None:
            if job.epoch.stopped:
                epoch = fetch = None
                continue
            try:
                if wrong is not None:
                    job.epoch.put(job.number, False, wrong)
                    continue
                if fetch is None or epoch is not job.epoch:
                    epoch, fetch = job.epoch, fetcher(info.dataset, job.epoch)
                result = fetch(job.indices)
            except Stopped:
                continue
            except Ended as error:
                job.epoch.put(job.number, False, error)
            except BaseException as error:
                job.epoch.put(job.number, False, told(error, f"in DataLoader worker {info.id}"))
            else:
                job.epoch.put(job.number, True, result)
                del result
            del job


def told(error: BaseException, where: str) -> BaseException:
    """Return an exception of the same type whose message tells where it was caught, with its traceback.

    One that ends loops silently becomes a RuntimeError.
    """
    kind = type(error)
    message = f"Caught {kind.__name__} {where}.\nOriginal {''.join(traceback.format_exception(error))}"
    try:
        if isinstance(error, StopIteration):
            return RuntimeError(message)
        made = kind(_Verbatim(message)) if issubclass(kind, KeyError) else kind(message)
    except Exception:  # a constructor of its own, with other arguments
        made = RuntimeError(message)
    return made


class _Verbatim(str):
    """A text that is its own repr, which is what a KeyError shows."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


class Ahead:
    """The batches of one epoch, made by workers ahead of time.

    Args:
        workers: who make them.
        epoch: where they are handed in.
        indices: what the sampler yields.
        factor: how many batches are under way for each worker.
        timeout: seconds that one may take; 0 for any time.
        in_order: hand out batches by number, rather than as they are done.
    """

    def __init__(
        self, workers: Workers, epoch: Epoch, indices: Iterator[Any], factor: int, timeout: float, in_order: bool
    ) -> None:
        self.workers, self.epoch, self.indices, self.timeout, self.in_order = workers, epoch, indices, timeout, in_order
        self.sent = self.taken = 0
        self._waiting: dict[int, int] = {}
        self._active = [True] * len(workers)
        self._next = 0
        for _ in range(factor * len(workers)):
            self._send()

    def _send(self) -> None:
        """Have the next worker that has something left make the next batch."""
        for _ in self._active:
            worker, self._next = self._next, (self._next + 1) % len(self._active)
            if self._active[worker]:
                break
        else:
            return
        try:
            found = next(self.indices)
        except StopIteration:
            return
        self.workers.give(worker, Job(self.epoch, self.sent, found))
        self._waiting[self.sent] = worker
        self.sent += 1

    def __next__(self) -> Any:
        """Return the next batch.

        Raises:
            StopIteration: if there are no more.
            TrainingError: if one takes longer than the timeout.
        """
        while self._waiting:
            wanted = min(self._waiting) if self.in_order else None
            number, good, result = self.epoch.take(wanted, self.timeout)
            worker = self._waiting.pop(number)
            if isinstance(result, Ended) and not good:
                self._active[worker] = False
                self._send()
                continue
            if not good:
                raise result
            self._send()
            return result
        raise StopIteration


def checked_method(context: Any) -> Any:
    """Return what was given as `multiprocessing_context`.

    Raises:
        InputError: if it is no start method and no context of `multiprocessing`.
    """
    import multiprocessing
    from multiprocessing.context import BaseContext

    if isinstance(context, str):
        methods = multiprocessing.get_all_start_methods()
        if context not in methods:
            raise InputError(
                f"multiprocessing_context option should specify a valid start method in {methods!r}, but got "
                f"multiprocessing_context={context!r}"
            )
    elif context is not None and not isinstance(context, BaseContext):
        raise InputError(
            "multiprocessing_context option should be a valid context object or a string specifying the start method, "
            f"but got multiprocessing_context={context}"
        )
    return context
