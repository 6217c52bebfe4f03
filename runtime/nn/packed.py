"""Sequences of several lengths in one Tensor: padded to the longest, or packed step after step without padding."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ...ops import index, layout, pointwise as pw
from ...ops.errors import OpError, ShapeError
from ..tensor.tensor import Tensor


class _Fields(NamedTuple):
    data: Tensor
    batch_sizes: Tensor
    sorted_indices: Tensor | None
    unsorted_indices: Tensor | None


class PackedSequence(_Fields):
    """Steps of several sequences, the first of all, then the second of those that have one, and so on.

    The sequences stand in the order of their lengths, the longest first.

    Attributes:
        data: the steps, (sum of lengths, *).
        batch_sizes: how many sequences have each step, int64 on the CPU.
        sorted_indices: which of the sequences that were given stands at each place, None where they came sorted.
        unsorted_indices: at which place each of them stands.
    """

    def __new__(
        cls, data: Any, batch_sizes: Any = None, sorted_indices: Any = None, unsorted_indices: Any = None
    ) -> PackedSequence:
        """Make it of its attributes, the first two of which may come as a pair."""
        if batch_sizes is None:
            if not isinstance(data, list | tuple) or len(data) != 2:
                raise OpError("Expected data to be a list or tuple of length 2")
            data, batch_sizes = data
        elif batch_sizes.device.type != "cpu":
            raise OpError("batch_sizes should always be on CPU.")
        if unsorted_indices is None:
            unsorted_indices = invert_permutation(sorted_indices)
        return super().__new__(cls, data, batch_sizes, sorted_indices, unsorted_indices)

    def to(self, *args: Any, **kwargs: Any) -> PackedSequence:
        """Return it with data of another element type or on another device."""
        data = self.data.to(*args, **kwargs)
        if data is self.data:
            return self
        places = (None if t is None else t.to(device=data.device) for t in (self.sorted_indices, self.unsorted_indices))
        return type(self)(data, self.batch_sizes, *places)

    def cpu(self) -> PackedSequence:
        """Return it on the CPU."""
        return self.to(device="cpu")

    def cuda(self, index: int = 0) -> PackedSequence:
        """Return it on a CUDA device."""
        return self.to(device=f"cuda:{index}")

    def double(self) -> PackedSequence:
        """Return it with float64 data."""
        return self.to(dtype="float64")

    def float(self) -> PackedSequence:
        """Return it with float32 data."""
        return self.to(dtype="float32")

    def half(self) -> PackedSequence:
        """Return it with float16 data."""
        return self.to(dtype="float16")

    def long(self) -> PackedSequence:
        """Return it with int64 data."""
        return self.to(dtype="int64")

    def int(self) -> PackedSequence:
        """Return it with int32 data."""
        return self.to(dtype="int32")

    def short(self) -> PackedSequence:
        """Return it with int16 data."""
        return self.to(dtype="int16")

    def char(self) -> PackedSequence:
        """Return it with int8 data."""
        return self.to(dtype="int8")

    def byte(self) -> PackedSequence:
        """Return it with uint8 data."""
        return self.to(dtype="uint8")

    @property
    def is_cuda(self) -> bool:
        """Whether the data lie on a GPU."""
        return self.data.device.type == "cuda"


def invert_permutation(permutation: Any) -> Tensor | None:
    """Return the permutation that undoes one; None of None."""
    if permutation is None:
        return None
    return Tensor(np.argsort(np.asarray(permutation.tolist(), np.int64))).to(device=permutation.device)


def _numbers(lengths: Any) -> np.ndarray[Any, Any]:
    """Return lengths as a NumPy array of int64."""

    def plain(x: Any) -> Any:
        return x.tolist() if hasattr(x, "tolist") else [plain(v) for v in x] if isinstance(x, list | tuple) else x

    return np.asarray(plain(lengths)).astype(np.int64)


def lengths_of(batch_sizes: Any) -> np.ndarray[Any, Any]:
    """Return the lengths of packed sequences, longest first."""
    sizes = _numbers(batch_sizes)
    lengths: np.ndarray[Any, Any] = (sizes.reshape(-1, 1) > np.arange(sizes[0])).sum(0)
    return lengths


def _on(array: Any, like: Any) -> Tensor:
    """Return a Tensor of an array on the device of another."""
    return Tensor(array).to(device=like.device)


def pack_padded_sequence(
    input: Any, lengths: Any, batch_first: bool = False, enforce_sorted: bool = True
) -> PackedSequence:
    """Return the first `lengths[b]` steps of each sequence, packed.

    Args:
        input: padded sequences, (T, B, *).
        lengths: how many steps of each count.
        batch_first: whether the input is (B, T, *).
        enforce_sorted: demand that the longest comes first; else they are sorted here.

    Raises:
        ShapeError: if the lengths do not fit the input, or are not sorted where they have to be.
    """
    sizes = _numbers(lengths)
    if sizes.ndim != 1:
        raise ShapeError(f"'lengths' argument should be a 1D CPU int64 tensor, but got {sizes.ndim}D cpu Long tensor")
    if input.ndim < 2:
        raise ShapeError(f"pack_padded_sequence: wants an input of at least 2 dimensions, found {input.ndim}")
    x = layout.transpose(input, perm=(1, 0, *range(2, input.ndim))) if batch_first else input
    steps, batch = x.shape[:2]
    if sizes.size != batch:
        raise ShapeError(
            f"Expected `len(lengths)` to be equal to batch_size, but got {sizes.size} (batch_size={batch})"
        )
    order = None
    if not enforce_sorted:
        order = np.argsort(-sizes, kind="stable")
        sizes = sizes[order]
    if sizes.size and sizes[-1] <= 0:
        raise ShapeError(
            "Length of all samples has to be greater than 0, but found an element in 'lengths' that is <= 0"
        )
    if (np.diff(sizes) > 0).any():
        raise ShapeError(
            "`lengths` array must be sorted in decreasing order when `enforce_sorted` is True. You can pass "
            "`enforce_sorted=False` to pack_padded_sequence and/or pack_sequence to sidestep this requirement if you "
            "do not need ONNX exportability."
        )
    if sizes[0] > steps:
        raise ShapeError(f"pack_padded_sequence: a length is {sizes[0]}, the input has {steps} steps")
    t, place = np.nonzero(np.arange(sizes[0]).reshape(-1, 1) < sizes)
    rows = t * batch + (place if order is None else order[place])
    flat = layout.reshape(x, shape=(steps * batch, *x.shape[2:]))
    data = index.gather(flat, _on(rows, x), axis=0)
    batch_sizes = Tensor((np.arange(sizes[0]).reshape(-1, 1) < sizes).sum(1))
    return PackedSequence(data, batch_sizes, None if order is None else _on(order, x))


def padded(data: Any, batch_sizes: Any, padding_value: float = 0.0, steps: int | None = None) -> Any:
    """Return packed steps as (T, B, *), in the order in which they are packed."""
    sizes = _numbers(batch_sizes)
    steps = sizes.size if steps is None else steps
    counts = np.zeros(steps, np.int64)
    counts[: sizes.size] = sizes
    live = np.arange(sizes[0]) < counts.reshape(-1, 1)
    if live.all():
        return layout.reshape(data, shape=(steps, int(sizes[0]), *data.shape[1:]))
    first = np.concatenate([[0], np.cumsum(sizes)])[: sizes.size]
    starts = np.zeros(steps, np.int64)
    starts[: sizes.size] = first
    rows = np.where(live, starts.reshape(-1, 1) + np.arange(sizes[0]), 0)
    taken = index.gather(data, _on(rows, data), axis=0)
    mask = _on(live.reshape(*live.shape, *[1] * (data.ndim - 1)), data)
    return pw.where(mask, taken, np.asarray(padding_value).astype(data.dtype))


def packed(x: Any, batch_sizes: Any) -> Any:
    """Return the steps of (T, B, *) that count, packed; B in the order in which they are packed."""
    sizes = _numbers(batch_sizes)
    live = np.arange(sizes[0]) < sizes.reshape(-1, 1)
    flat = layout.reshape(x, shape=(x.shape[0] * x.shape[1], *x.shape[2:]))
    return flat if live.all() else index.gather(flat, _on(np.flatnonzero(live), x), axis=0)


def pad_packed_sequence(
    sequence: PackedSequence, batch_first: bool = False, padding_value: float = 0.0, total_length: int | None = None
) -> tuple[Tensor, Tensor]:
    """Return packed sequences padded to the longest, in the order in which they were given, and their lengths.

    Args:
        sequence: what `pack_padded_sequence` gives.
        batch_first: return (B, T, *) instead of (T, B, *).
        padding_value: what stands after a sequence's last step.
        total_length: pad to this many steps.

    Raises:
        ShapeError: if a sequence is longer than `total_length`.
    """
    longest = sequence.batch_sizes.shape[0]
    if total_length is not None and total_length < longest:
        raise ShapeError(
            "Expected total_length to be at least the length of the longest sequence in input, but got "
            f"total_length={total_length} and max sequence length being {longest}"
        )
    x = padded(sequence.data, sequence.batch_sizes, padding_value, total_length)
    lengths = lengths_of(sequence.batch_sizes)
    if sequence.unsorted_indices is not None:
        x = index.gather(x, sequence.unsorted_indices, axis=1)
        lengths = lengths[_numbers(sequence.unsorted_indices)]
    return layout.transpose(x, perm=(1, 0, *range(2, x.ndim))) if batch_first else x, Tensor(lengths)


def pad_sequence(
    sequences: Any, batch_first: bool = False, padding_value: float = 0.0, padding_side: str = "right"
) -> Tensor:
    """Return sequences (L, *) of several lengths stacked, padded to the longest.

    Args:
        sequences: Tensors that agree in all sizes but the first.
        batch_first: return (B, T, *) instead of (T, B, *).
        padding_value: what fills them up.
        padding_side: `right` or `left`.

    Raises:
        OpError: if there are none, or there is no such side.
        ShapeError: if other sizes differ.
    """
    if not isinstance(sequences, Iterable):
        raise OpError(f"pad_sequence: Expected iterable for input sequences, but got arg of type: {type(sequences)}")
    given = list(sequences)
    if not given:
        raise OpError("received an empty list of sequences")
    if padding_side not in ("left", "right"):
        raise OpError(f"Expected padding_side to be one of left or right, but got {padding_side}.")
    rest = tuple(given[0].shape[1:])
    for i, s in enumerate(given):
        if tuple(s.shape[1:]) != rest:
            raise ShapeError(f"pad_sequence: sequence {i} has steps of shape {tuple(s.shape[1:])}, the first of {rest}")
    longest = max(s.shape[0] for s in given)
    fill = np.asarray(padding_value).astype(given[0].dtype)
    rows = []
    for s in given:
        missing = longest - s.shape[0]
        pads = ((missing, 0) if padding_side == "left" else (0, missing), *((0, 0),) * len(rest))
        row = layout.pad(s, fill, pads=pads, mode="constant") if missing else s
        rows.append(layout.unsqueeze(pw.cast(row, dtype=str(given[0].dtype)), axes=(0 if batch_first else 1,)))
    return layout.concat(*rows, axis=0 if batch_first else 1)  # type: ignore[no-any-return]


def unpad_sequence(padded_sequences: Any, lengths: Any, batch_first: bool = False) -> list[Tensor]:
    """Return the first `lengths[b]` steps of each sequence."""
    x = padded_sequences if batch_first else padded_sequences.transpose(0, 1)
    sizes = [int(n) for n in _numbers(lengths)]
    if len(sizes) != x.shape[0]:
        raise ShapeError(f"unpad_sequence: {len(sizes)} lengths, {x.shape[0]} sequences")
    return [x[i][:n] for i, n in enumerate(sizes)]


def pack_sequence(sequences: Sequence[Any], enforce_sorted: bool = True) -> PackedSequence:
    """Return sequences (L, *) of several lengths, packed.

    Args:
        sequences: Tensors that agree in all sizes but the first.
        enforce_sorted: demand that the longest comes first; else they are sorted here.
    """
    lengths = [s.shape[0] for s in sequences]
    return pack_padded_sequence(pad_sequence(sequences), lengths, enforce_sorted=enforce_sorted)


def unpack_sequence(packed_sequences: PackedSequence) -> list[Tensor]:
    """Return packed sequences one by one, in the order in which they were given."""
    x, lengths = pad_packed_sequence(packed_sequences, batch_first=True)
    return unpad_sequence(x, lengths, batch_first=True)
