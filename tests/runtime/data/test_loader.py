"""Loaders, with and without workers."""

import gc
import threading
import time

import numpy as np
import pytest

import onnxgrad as og
from onnxgrad.ops.errors import InputError, TrainingError
from onnxgrad.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset, get_worker_info

ROWS = TensorDataset(og.arange(10), og.arange(20).reshape(10, 2).float())

WORKERS = pytest.mark.parametrize("workers", [0, 1, 3])


class Noisy(Dataset):
    """Examples with a random number each."""

    def __init__(self, n=20):
        self.n = n

    def __getitem__(self, index):
        return index, og.rand(1)

    def __len__(self):
        return self.n


class Counted(IterableDataset):
    def __init__(self, n=5):
        self.first, self.last = 0, n

    def __iter__(self):
        return iter(range(self.first, self.last))

    def __len__(self):
        return self.last - self.first


@pytest.fixture(autouse=True)
def no_thread_is_left():
    before = set(threading.enumerate())
    yield
    if set(threading.enumerate()) > before:
        gc.collect()
    assert set(threading.enumerate()) <= before


@WORKERS
def test_batches_in_order(workers):
    how = {"batch_size": 4, "num_workers": workers}
    batches = list(DataLoader(ROWS, **how))
    assert [b[0].tolist() for b in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert batches[2][1].tolist() == [[16.0, 17.0], [18.0, 19.0]]
    assert len(DataLoader(ROWS, **how)) == 3 and len(DataLoader(ROWS, **how, drop_last=True)) == 2
    assert [b[0].shape for b in DataLoader(ROWS, **how, drop_last=True)] == [(4,), (4,)]
    assert len(iter(DataLoader(ROWS, **how))) == 3


@WORKERS
def test_shuffling_is_seeded_and_differs_from_epoch_to_epoch(workers):
    def epochs(seed, count):
        loader = DataLoader(ROWS, batch_size=10, shuffle=True, generator=og.Generator(seed), num_workers=count)
        return [next(iter(loader))[0].tolist() for _ in range(2)]

    first, second = epochs(1, workers)
    assert first != second and sorted(first) == list(range(10)) and epochs(1, 0) == [first, second]


def test_the_order_hangs_on_the_seed_and_not_on_the_workers():
    def order(workers, **how):
        og.manual_seed(3)
        return [b[0].tolist() for b in DataLoader(Noisy(), 3, shuffle=True, num_workers=workers, **how)]

    assert order(0) == order(1) == order(4) == order(2, persistent_workers=True, prefetch_factor=1)
    assert sorted(order(2, in_order=False)) == sorted(order(0))


def test_what_workers_draw_is_reproducible_and_differs():
    def drawn(workers):
        og.manual_seed(3)
        loader = DataLoader(Noisy(), 4, num_workers=workers)
        return [np.concatenate([b[1].numpy() for b in loader]).ravel().tolist() for _ in range(2)]

    first, second = drawn(2)
    assert drawn(2) == [first, second] and len({*first, *second}) == 40


def test_workers_leave_the_process_generator_alone():
    og.manual_seed(0)
    list(DataLoader(Noisy(), 4))
    og.manual_seed(0)
    expected = [list(DataLoader(Noisy(0), 4)), og.rand(3).tolist()][1]
    og.manual_seed(0)
    list(DataLoader(Noisy(), 4, num_workers=2))
    assert og.rand(3).tolist() == expected


@WORKERS
def test_any_sequence_or_iterable_of_examples(workers):
    pairs = [(np.ones(2, np.float32) * i, i) for i in range(3)]
    x, y = next(iter(DataLoader(pairs, batch_size=3, num_workers=workers)))
    assert x.shape == (3, 2) and x.dtype == og.float32 and y.dtype == og.int64
    assert list(DataLoader(["a", "b"], batch_size=2, num_workers=workers)) == [["a", "b"]]
    assert list(DataLoader([1, 2], batch_size=None, num_workers=workers)) == [1, 2]
    assert [b.tolist() for b in DataLoader((float(i) for i in range(3)), 2, num_workers=min(workers, 1))] == [
        [0.0, 1.0],
        [2.0],
    ]


@WORKERS
def test_samplers(workers):
    how = {"num_workers": workers}
    assert [b[0].tolist() for b in DataLoader(ROWS, batch_size=2, sampler=[3, 1, 2], **how)] == [[3, 1], [2]]
    loader = DataLoader(ROWS, batch_sampler=[[0, 9], [5]], **how)
    assert [b[0].tolist() for b in loader] == [[0, 9], [5]] and len(loader) == 2 and loader.batch_size is None
    assert [b for b in DataLoader([1, 2, 3], batch_size=3, collate_fn=sum, **how)] == [6]


def test_rows_of_tensors_are_what_examples_one_by_one_are():
    class OneByOne(TensorDataset):
        pass

    parts = Subset(Subset(ROWS, [5, 3, 1, 0]), [2, 1, 3])
    slow = Subset(OneByOne(*ROWS.tensors), [1, 3, 0])
    for a, b in zip(DataLoader(parts, 2), DataLoader(slow, 2), strict=True):
        assert type(a) is type(b) is list and [t.tolist() for t in a] == [t.tolist() for t in b]
    batch = next(iter(DataLoader(ROWS, 4)))
    batch[1][:] = -1.0
    assert ROWS[0][1].tolist() == [0, 1]
    weight = og.ones(4, requires_grad=True)
    next(iter(DataLoader(TensorDataset(weight), 2)))[0].sum().backward()
    assert weight.grad.tolist() == [1, 1, 0, 0]


def test_an_iterable_is_read_by_each_worker():
    assert [b.tolist() for b in DataLoader(Counted(), 2)] == [[0, 1], [2, 3], [4]]
    assert [b.tolist() for b in DataLoader(Counted(), 2, drop_last=True)] == [[0, 1], [2, 3]]
    assert len(DataLoader(Counted(), 2)) == 3 and len(DataLoader(Counted(), 2, drop_last=True)) == 2
    assert len(DataLoader(Counted(), None)) == 5 and list(DataLoader(Counted(), None)) == [0, 1, 2, 3, 4]
    assert sorted(DataLoader(Counted(2), None, num_workers=2)) == [0, 0, 1, 1]


@pytest.mark.parametrize("persistent", [False, True])
def test_workers_divide_an_iterable(persistent):
    asked = []

    def divide(worker):
        info = get_worker_info()
        asked.append((worker, info.id, info.num_workers, info.worker_method))
        info.dataset.first, info.dataset.last = 5 * worker, 5 * worker + 5 - worker

    data = Counted()
    loader = DataLoader(data, 2, num_workers=2, worker_init_fn=divide, persistent_workers=persistent)
    for _ in range(2):
        assert [b.tolist() for b in loader] == [[0, 1], [5, 6], [2, 3], [7, 8], [4]]
    assert len(asked) == (2 if persistent else 4)
    assert sorted(asked)[0] == (0, 0, 2, "thread") and (data.first, data.last) == (0, 5)
    assert get_worker_info() is None


def test_seeds_of_workers_follow_each_other():
    seeds = {}

    def note(worker):
        seeds[worker] = get_worker_info().seed, og.initial_seed()

    og.manual_seed(1)
    list(DataLoader(ROWS, 2, num_workers=3, worker_init_fn=note))
    assert [seeds[i] for i in range(3)] == [(seeds[0][0] + i,) * 2 for i in range(3)]
    assert og.initial_seed() == 1


def test_workers_read_ahead_and_no_further():
    read = []

    class Noting(Noisy):
        def __getitem__(self, index):
            read.append(index)
            return index

    batches = iter(DataLoader(Noting(100), 1, num_workers=2, prefetch_factor=3))
    next(batches)
    for _ in range(100):
        if len(read) == 7:
            break
        time.sleep(0.01)
    time.sleep(0.03)
    assert sorted(read) == list(range(7))
    del batches


def test_workers_read_at_the_same_time():
    together = threading.Barrier(3, timeout=20)

    class Meeting(Noisy):
        def __getitem__(self, index):
            together.wait()
            return index

    assert [b.tolist() for b in DataLoader(Meeting(6), 1, num_workers=3)] == [[i] for i in range(6)]


def leave(loader):
    for _ in loader:
        break


@pytest.mark.parametrize("persistent", [False, True])
def test_leaving_early(persistent):
    before = threading.active_count()
    loader = DataLoader(Noisy(1000), 2, num_workers=3, persistent_workers=persistent)
    leave(loader)
    assert threading.active_count() == before + 3 * persistent
    assert sum(len(b[0]) for b in loader) == 1000
    assert threading.active_count() == before + 3 * persistent


class Failing(Noisy):
    def __init__(self, error):
        super().__init__()
        self.error = error

    def __getitem__(self, index):
        if index == 13:
            raise self.error
        return index


class PickyError(Exception):
    def __init__(self, a, b):
        super().__init__(a, b)


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (ValueError("thirteen"), ValueError, "ValueError: thirteen"),
        (KeyError("thirteen"), KeyError, "KeyError: 'thirteen'"),
        (PickyError(1, 2), RuntimeError, "PickyError: (1, 2)"),
        (InputError("bad"), InputError, "InputError: bad"),
    ],
)
def test_an_error_of_a_worker_tells_where_it_was(error, kind, text):
    batches = iter(DataLoader(Failing(error), 5, num_workers=2))
    assert [next(batches).tolist(), next(batches).tolist()] == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]
    with pytest.raises(kind) as caught:
        next(batches)
    message = str(caught.value)
    assert message.startswith(f"Caught {type(error).__name__} in DataLoader worker 0.\nOriginal Traceback (most recent")
    assert "test_loader.py" in message and text in message
    with pytest.raises(type(error)):
        list(DataLoader(Failing(error), 5))


@WORKERS
def test_what_would_end_a_loop_or_a_thread_silently(workers):
    with pytest.raises(RuntimeError, match="StopIteration"):
        list(DataLoader(Failing(StopIteration()), 5, num_workers=workers))
    with pytest.raises(SystemExit):
        list(DataLoader(Failing(SystemExit(3)), 5, num_workers=workers))


@WORKERS
def test_an_error_of_the_sampler_leaves_no_worker(workers):
    def numbers():
        yield 1
        raise OSError("no more")

    with pytest.raises(OSError, match="no more"):
        list(DataLoader(ROWS, sampler=numbers(), num_workers=workers))


def test_an_error_of_the_first_call_in_a_worker():
    def fail(worker):
        raise OSError("no disk")

    with pytest.raises(OSError, match=r"Caught OSError in DataLoader worker 0(?s:.*)no disk"):
        list(DataLoader(ROWS, num_workers=1, worker_init_fn=fail))


def test_a_batch_that_takes_too_long():
    done = threading.Event()

    class Slow(Noisy):
        def __getitem__(self, index):
            done.wait(20)
            return index

    batches = iter(DataLoader(Slow(), num_workers=1, timeout=0.02))
    threading.Timer(0.1, done.set).start()
    with pytest.raises(TrainingError, match=r"DataLoader timed out after 0\.02 seconds"):
        next(batches)


def test_settings():
    context = "spawn"
    loader = DataLoader(ROWS, 2, num_workers=1, multiprocessing_context=context)
    assert (loader.prefetch_factor, loader.batch_size, loader.drop_last, loader.num_workers) == (2, 2, False, 1)
    assert loader.dataset is ROWS and len(loader.sampler) == 10 and len(list(loader)) == 5
    for name in ("batch_size", "dataset", "sampler"):
        with pytest.raises(InputError, match=f"{name} attribute should not be set after DataLoader is initialized"):
            setattr(loader, name, None)
    loader.collate_fn = len
    assert list(loader) == [2] * 5


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: DataLoader(ROWS, batch_size=0), "positive integer"),
        (lambda: DataLoader(ROWS, num_workers=-1), "num_workers option should be non-negative"),
        (lambda: DataLoader(ROWS, timeout=-1), "timeout option should be non-negative"),
        (lambda: DataLoader(ROWS, prefetch_factor=2), "let num_workers > 0"),
        (lambda: DataLoader(ROWS, num_workers=1, prefetch_factor=0), "prefetch_factor option should be positive"),
        (lambda: DataLoader(ROWS, persistent_workers=True), "persistent_workers option needs num_workers > 0"),
        (lambda: DataLoader(ROWS, multiprocessing_context="fork"), "can only be used with multi-process loading"),
        (lambda: DataLoader(ROWS, num_workers=1, multiprocessing_context="x"), "should specify a valid start method"),
        (lambda: DataLoader(ROWS, num_workers=1, multiprocessing_context=3), "should be a valid context object"),
        (lambda: DataLoader(ROWS, sampler=[1], shuffle=True), "mutually exclusive"),
        (lambda: DataLoader(ROWS, batch_sampler=[[1]], batch_size=2), "batch_sampler option is mutually exclusive"),
        (lambda: DataLoader(ROWS, batch_size=None, drop_last=True), "disables auto-batching"),
        (lambda: DataLoader(Counted(), shuffle=True), "expected unspecified shuffle option, but got shuffle=True"),
        (lambda: DataLoader(Counted(), sampler=[1]), "expected unspecified sampler option"),
        (lambda: DataLoader(Counted(), batch_sampler=[[1]]), "expected unspecified batch_sampler option"),
        (lambda: DataLoader(iter([1]), shuffle=True), "expected unspecified shuffle option"),
        (lambda: DataLoader(iter([1]), num_workers=2), "an iterator can be read by one worker only"),
    ],
)
def test_wrong_use_says_what_is_wrong(call, message):
    with pytest.raises(InputError, match=message):
        call()
