"""Data sets and their splits."""

import numpy as np
import pytest

import onnxgrad as og
from onnxgrad.ops.errors import InputError
from onnxgrad.utils.data import (
    ChainDataset,
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    StackDataset,
    Subset,
    TensorDataset,
    random_split,
)

ROWS = TensorDataset(og.arange(10), og.arange(20).reshape(10, 2).float())


class Squares(Dataset):
    def __getitem__(self, index):
        return index**2

    def __len__(self):
        return 4


class Counted(IterableDataset):
    def __init__(self, n):
        self.n = n

    def __iter__(self):
        return iter(range(self.n))


def test_tensors_and_arrays_by_row():
    rows = TensorDataset(np.arange(6).reshape(3, 2), og.ones(3))
    assert len(rows) == 3 and isinstance(rows, Dataset)
    assert [t.tolist() for t in rows[1]] == [[2, 3], 1.0]
    assert [t.tolist() for t in rows[1:]] == [[[2, 3], [4, 5]], [1.0, 1.0]]


def test_what_a_subclass_has_to_define():
    with pytest.raises(NotImplementedError, match="__getitem__"):
        Dataset()[0]
    with pytest.raises(NotImplementedError, match="__iter__"):
        iter(IterableDataset())
    with pytest.raises(TypeError, match="has no len"):
        len(Dataset())


def test_splits_cover_everything_once():
    parts = random_split(ROWS, [0.75, 0.25], og.Generator(0))
    assert [len(p) for p in parts] == [8, 2]
    assert sorted(int(p[i][0]) for p in parts for i in range(len(p))) == list(range(10))
    assert [len(p) for p in random_split(ROWS, [7, 3])] == [7, 3]
    assert [len(p) for p in random_split(ROWS, [1 / 3, 1 / 3, 1 / 3])] == [4, 3, 3]
    with pytest.warns(UserWarning, match=r"Length of split at index [12] is 0"):
        assert [len(p) for p in random_split(Squares(), [0.9, 0.1, 0.0])] == [4, 0, 0]


@pytest.mark.oracle
@pytest.mark.parametrize("lengths", [[0.3, 0.3, 0.4], [0.5, 0.5], [0.9, 0.05, 0.05], [1.0], [3, 97]])
def test_sizes_of_splits_are_torchs(lengths):
    from torch.utils import data

    sizes = [len(p) for p in random_split(range(100), lengths)]
    assert sizes == [len(p) for p in data.random_split(range(100), lengths)]


def test_one_after_the_other():
    both = ConcatDataset([Subset(ROWS, [1, 2]), ROWS])
    assert both.cumulative_sizes == [2, 12]
    assert len(both) == 12 and int(both[1][0]) == 2 and int(both[2][0]) == 0 and int(both[-1][0]) == 9
    assert next(iter(DataLoader(Squares() + Squares(), batch_size=8))).tolist() == [0, 1, 4, 9] * 2
    chained = Counted(2) + Counted(3)
    assert isinstance(chained, ChainDataset) and list(chained) == [0, 1, 0, 1, 2]
    with pytest.raises(IndexError, match="index 12 of 12"):
        both[12]


def test_side_by_side():
    pair, named = StackDataset(Squares(), [5, 6, 7, 8]), StackDataset(x=Squares(), y=Subset(Squares(), [3, 2, 1, 0]))
    assert pair[1] == (1, 6) and len(pair) == 4 and pair.__getitems__([0, 3]) == [(0, 5), (9, 8)]
    assert named[1] == {"x": 1, "y": 4} and named.__getitems__([0]) == [{"x": 0, "y": 9}]
    assert [[t.tolist() for t in b] for b in DataLoader(pair, batch_size=4)] == [[[0, 1, 4, 9], [5, 6, 7, 8]]]


def test_a_data_set_may_return_several_at_once():
    asked = []

    class Together(Squares):
        def __getitems__(self, indices):
            asked.append(indices)
            return [i**2 for i in indices]

    assert [b.tolist() for b in DataLoader(Together(), batch_size=3)] == [[0, 1, 4], [9]]
    assert Subset(Together(), [3, 1]).__getitems__([0, 1]) == [9, 1]
    assert asked == [[0, 1, 2], [3], [3, 1]]


def test_a_subset_with_its_own_examples_says_so():
    class Own(Subset):
        def __getitem__(self, index):
            return -self.indices[index]

    with pytest.raises(NotImplementedError, match="overrides __getitem__ but not __getitems__"):
        Own(Squares(), [1])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: random_split(ROWS, [5, 4]), "Sum of input lengths"),
        (lambda: random_split(ROWS, [1.5, -0.5]), "Fraction at index 0 is not between 0 and 1"),
        (lambda: TensorDataset(og.zeros(2), og.zeros(3)), "Size mismatch"),
        (lambda: StackDataset(ROWS, Squares()), "Size mismatch"),
        (lambda: StackDataset(), "At least one"),
        (lambda: StackDataset(ROWS, x=ROWS), "both types"),
        (lambda: ConcatDataset([]), "should not be an empty iterable"),
        (lambda: ConcatDataset([Counted(1)]), "does not support IterableDataset"),
        (lambda: list(ChainDataset([Squares()])), "only supports IterableDataset"),
    ],
)
def test_wrong_use_says_what_is_wrong(call, message):
    with pytest.raises(InputError, match=message):
        call()
