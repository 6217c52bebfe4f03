"""Samplers."""

from collections import Counter

import numpy as np
import pytest

import onnxgrad as og
from onnxgrad.ops.errors import InputError
from onnxgrad.utils.data import (
    BatchSampler,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)


def test_in_order_and_in_batches():
    assert list(SequentialSampler("abc")) == [0, 1, 2] and len(SequentialSampler("abc")) == 3
    for drop, batches in ((False, [[0, 1], [2, 3], [4]]), (True, [[0, 1], [2, 3]])):
        made = BatchSampler(SequentialSampler(range(5)), 2, drop)
        assert list(made) == batches and len(made) == len(batches)
    assert list(BatchSampler(iter([7, 8, 9]), 2, False)) == [[7, 8], [9]]
    with pytest.raises(NotImplementedError):
        iter(Sampler())


def test_at_random():
    made = RandomSampler(range(20), generator=og.Generator(0))
    first, second = list(made), list(made)
    assert sorted(first) == sorted(second) == list(range(20)) and first != second
    assert list(RandomSampler(range(20), generator=og.Generator(0))) == first
    og.manual_seed(5)
    a = list(RandomSampler(range(20)))
    og.manual_seed(5)
    assert list(RandomSampler(range(20))) == a


def test_more_or_fewer_than_there_are():
    counts = Counter(RandomSampler(range(4), num_samples=10))
    assert sum(counts.values()) == 10 and set(counts.values()) <= {2, 3}
    assert len(set(RandomSampler(range(9), num_samples=5))) == 5
    drawn = list(RandomSampler(range(10), replacement=True, num_samples=5000, generator=og.Generator(1)))
    assert len(drawn) == 5000 and all(400 < n < 600 for n in Counter(drawn).values())


def test_a_part():
    assert sorted(SubsetRandomSampler([3, 5, 9])) == [3, 5, 9] and len(SubsetRandomSampler([3, 5])) == 2


def test_weights():
    weights = [0.0, 1.0, 3.0, 0.0]
    drawn = Counter(WeightedRandomSampler(weights, 20_000, generator=og.Generator(0)))
    assert set(drawn) == {1, 2} and drawn[2] / 20_000 == pytest.approx(0.75, abs=0.02)
    assert sorted(WeightedRandomSampler(og.tensor(weights), 2, replacement=False)) == [1, 2]


def test_weights_without_replacement_draw_the_first_by_weight():
    weights, n = np.array([1.0, 2.0, 5.0]), 6000
    generator = og.Generator(0)
    first = Counter(next(iter(WeightedRandomSampler(weights, 2, False, generator))) for _ in range(n))
    np.testing.assert_allclose([first[i] / n for i in range(3)], weights / 8, atol=0.02)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: RandomSampler([]), "num_samples should be a positive integer value, but got num_samples=0"),
        (lambda: BatchSampler([1], 0, False), "batch_size should be a positive integer value, but got batch_size=0"),
        (lambda: BatchSampler([1], True, False), "batch_size should be a positive integer"),
        (lambda: BatchSampler([1], 1, 0), "drop_last should be a boolean value, but got drop_last=0"),
        (lambda: WeightedRandomSampler([1.0], -1), "num_samples should be a positive integer"),
        (lambda: WeightedRandomSampler([[1.0]], 1), "weights should be a 1d sequence"),
        (lambda: WeightedRandomSampler([0.0], 1), "not all 0"),
        (lambda: WeightedRandomSampler([-1.0, 2.0], 1), "not negative"),
        (lambda: WeightedRandomSampler([0.0, 2.0], 2, False), "cannot draw 2 numbers without replacement from 1"),
    ],
)
def test_wrong_use_says_what_is_wrong(call, message):
    with pytest.raises(InputError, match=message):
        call()
    with pytest.raises(TypeError, match="replacement should be a boolean value"):
        RandomSampler([1], replacement=1)
