"""Data sets and batches."""

import numpy as np
import pytest

import onnxgrad as og
from onnxgrad.ops.errors import InputError
from onnxgrad.utils.data import ConcatDataset, DataLoader, Dataset, Subset, TensorDataset, default_collate, random_split

ROWS = TensorDataset(og.arange(10), og.arange(20).reshape(10, 2).float())


def test_batches_in_order():
    batches = list(DataLoader(ROWS, batch_size=4))
    assert [b[0].tolist() for b in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert batches[2][1].tolist() == [[16.0, 17.0], [18.0, 19.0]]
    assert len(DataLoader(ROWS, batch_size=4)) == 3 and len(DataLoader(ROWS, batch_size=4, drop_last=True)) == 2
    assert [b[0].shape for b in DataLoader(ROWS, batch_size=4, drop_last=True)] == [(4,), (4,)]


def test_shuffling_is_seeded_and_differs_from_epoch_to_epoch():
    def epochs(seed):
        loader = DataLoader(ROWS, batch_size=10, shuffle=True, generator=og.Generator(seed))
        return [next(iter(loader))[0].tolist() for _ in range(2)]

    first, second = epochs(1)
    assert first != second and sorted(first) == list(range(10)) and epochs(1) == [first, second]
    og.manual_seed(3)
    a = [b[0].tolist() for b in DataLoader(ROWS, batch_size=3, shuffle=True)]
    og.manual_seed(3)
    assert a == [b[0].tolist() for b in DataLoader(ROWS, batch_size=3, shuffle=True)]


def test_any_sequence_or_iterable_of_examples():
    pairs = [(np.ones(2, np.float32) * i, i) for i in range(3)]
    x, y = next(iter(DataLoader(pairs, batch_size=3)))
    assert x.shape == (3, 2) and x.dtype == og.float32 and y.dtype == og.int64
    assert [b.tolist() for b in DataLoader((float(i) for i in range(3)), batch_size=2)] == [[0.0, 1.0], [2.0]]
    assert list(DataLoader(["a", "b"], batch_size=2)) == [["a", "b"]]
    assert list(DataLoader([1, 2], batch_size=None)) == [1, 2]
    assert isinstance(ROWS, Dataset)


def test_collate():
    batch = default_collate([{"x": np.zeros(2), "y": (1, True)}, {"x": np.ones(2), "y": (2, False)}])
    assert batch["x"].shape == (2, 2) and batch["x"].dtype == og.float64
    assert batch["y"][0].tolist() == [1, 2] and batch["y"][1].dtype == og.bool


def test_samplers():
    assert [b[0].tolist() for b in DataLoader(ROWS, batch_size=2, sampler=[3, 1, 2])] == [[3, 1], [2]]
    loader = DataLoader(ROWS, batch_sampler=[[0, 9], [5]])
    assert [b[0].tolist() for b in loader] == [[0, 9], [5]] and len(loader) == 2
    assert [b for b in DataLoader([1, 2, 3], batch_size=3, collate_fn=sum)] == [6]


def test_splits_cover_everything_once():
    parts = random_split(ROWS, [0.75, 0.25], og.Generator(0))
    assert [len(p) for p in parts] == [8, 2]
    assert sorted(int(p[i][0]) for p in parts for i in range(len(p))) == list(range(10))
    assert [len(p) for p in random_split(ROWS, [7, 3])] == [7, 3]
    both = ConcatDataset([Subset(ROWS, [1, 2]), ROWS])
    assert len(both) == 12 and int(both[1][0]) == 2 and int(both[2][0]) == 0 and int(both[-1][0]) == 9


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: random_split(ROWS, [5, 4]), "Sum of input lengths"),
        (lambda: TensorDataset(og.zeros(2), og.zeros(3)), "Size mismatch"),
        (lambda: DataLoader(ROWS, batch_size=0), "positive integer"),
        (lambda: DataLoader(ROWS, num_workers=2), "num_workers=2"),
        (lambda: DataLoader(ROWS, sampler=[1], shuffle=True), "mutually exclusive"),
        (lambda: DataLoader(iter([1]), shuffle=True), "wants a dataset"),
    ],
)
def test_wrong_use_says_what_is_wrong(call, message):
    with pytest.raises(InputError, match=message):
        call()
