"""Padded and packed sequences against PyTorch, and there and back."""

from __future__ import annotations

import numpy as np
import pytest

import onnxgrad as og
from onnxgrad.nn.utils.rnn import (
    PackedSequence,
    invert_permutation,
    pack_padded_sequence,
    pack_sequence,
    pad_packed_sequence,
    pad_sequence,
    unpack_sequence,
    unpad_sequence,
)

from .parity import both

RNG = np.random.default_rng(0)
X = RNG.standard_normal((5, 3, 2))
LENGTHS = [[5, 3, 1], [3, 5, 1], [2, 2, 2], [1, 3, 2]]
PARTS = [RNG.standard_normal((n, 2)) for n in (2, 4, 1)]


@pytest.mark.oracle
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("total", [None, 6])
def test_packing_and_padding_are_pytorchs(compared, lengths, batch_first, total, dtype):
    def call(lib, _, x):
        rnn = lib.nn.utils.rnn
        packed = rnn.pack_padded_sequence(x, lengths, batch_first, enforce_sorted=False)
        back = rnn.pad_packed_sequence(packed, batch_first, 1.5, total)
        return [*packed, *back, rnn.unpack_sequence(packed)]

    x = X.transpose(1, 0, 2).copy() if batch_first else X
    both(compared, "PackedSequence", lambda lib: lib, (x,), dtype, call=call)


@pytest.mark.oracle
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("side", ["right", "left"])
def test_lists_of_sequences_are_pytorchs(compared, batch_first, side):
    def call(lib, _, *parts):
        rnn = lib.nn.utils.rnn
        packed = rnn.pack_sequence(parts, enforce_sorted=False)
        return [
            rnn.pad_sequence(list(parts), batch_first, 2.5, padding_side=side),
            *packed,
            rnn.unpack_sequence(packed),
        ]

    both(compared, "pad_sequence", lambda lib: lib, PARTS, "float64", call=call)


@pytest.mark.parametrize("lengths", LENGTHS)
def test_there_and_back(lengths):
    x = og.tensor(X, requires_grad=True)
    back, found = pad_packed_sequence(pack_padded_sequence(x, lengths, enforce_sorted=False))
    live = np.arange(max(lengths)).reshape(-1, 1) < lengths
    np.testing.assert_array_equal(back.detach().numpy(), np.where(live[..., None], X[: max(lengths)], 0))
    assert found.tolist() == lengths
    back.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy()[: max(lengths)], np.broadcast_to(live[..., None], (*live.shape, 2)))


def test_the_order_of_a_packed_sequence():
    x = og.tensor([[1, 2, 0], [3, 0, 0], [4, 5, 6]])
    packed = pack_padded_sequence(x, og.tensor([2, 1, 3]), batch_first=True, enforce_sorted=False)
    assert packed.data.tolist() == [4, 1, 3, 5, 2, 6] and packed.batch_sizes.tolist() == [3, 2, 1]
    assert packed.sorted_indices.tolist() == [2, 0, 1] and packed.unsorted_indices.tolist() == [1, 2, 0]
    assert pack_sequence([og.tensor([1, 2]), og.tensor([3])]).sorted_indices is None
    assert [s.tolist() for s in unpack_sequence(packed)] == [[1, 2], [3], [4, 5, 6]]
    assert [s.tolist() for s in unpad_sequence(x, og.tensor([2, 1, 3]), batch_first=True)] == [[1, 2], [3], [4, 5, 6]]
    padded, lengths = pad_packed_sequence(packed, batch_first=True, padding_value=9)
    assert padded.tolist() == [[1, 2, 9], [3, 9, 9], [4, 5, 6]] and lengths.dtype == og.int64 == padded.dtype
    assert invert_permutation(None) is None


def test_conversions_keep_what_is_no_data():
    packed = pack_padded_sequence(og.tensor(X), [3, 5, 1], enforce_sorted=False)
    single = packed.float()
    assert isinstance(single, PackedSequence) and single.data.dtype == og.float32 and packed.double() is packed
    assert single.batch_sizes is packed.batch_sizes and not single.cpu().is_cuda
    assert PackedSequence((packed.data, packed.batch_sizes)).sorted_indices is None


WRONG = [
    (lambda: pack_padded_sequence(og.tensor(X), [3, 4, 2]), "`lengths` array must be sorted in decreasing order when"),
    (
        lambda: pack_padded_sequence(og.tensor(X), [3, 2, 0]),
        "Length of all samples has to be greater than 0, but found",
    ),
    (
        lambda: pack_padded_sequence(og.tensor(X), [3, 2]),
        r"Expected `len\(lengths\)` to be equal to batch_size, but got 2",
    ),
    (lambda: pack_padded_sequence(og.tensor(X), [[3, 2, 1]]), "'lengths' argument should be a 1D CPU int64 tensor"),
    (lambda: pack_padded_sequence(og.tensor(X), [7, 2, 1]), "a length is 7, the input has 5 steps"),
    (
        lambda: pad_packed_sequence(pack_padded_sequence(og.tensor(X), [4, 2, 1]), total_length=3),
        "Expected total_length to be at least the length of the longest sequence in input, but got total_length=3",
    ),
    (lambda: pad_sequence([]), "received an empty list of sequences"),
    (
        lambda: pad_sequence([og.ones(2), og.ones(3)], padding_side="x"),
        "Expected padding_side to be one of left or right",
    ),
    (
        lambda: pad_sequence([og.ones(2, 3), og.ones(3, 2)]),
        r"sequence 1 has steps of shape \(2,\), the first of \(3,\)",
    ),
    (lambda: pad_sequence(5), "pad_sequence: Expected iterable for input sequences, but got arg of type"),
]


@pytest.mark.parametrize(("call", "says"), WRONG, ids=[says[:40] for _, says in WRONG])
def test_errors_say_what_is_wrong(call, says):
    with pytest.raises(ValueError, match=says):
        call()
