"""Examples become batches."""

from collections import OrderedDict, namedtuple

import numpy as np
import pytest

import onnxgrad as og
from onnxgrad.ops.errors import InputError, ShapeError
from onnxgrad.utils.data import default_collate, default_convert

Pair = namedtuple("Pair", "x y")


def plain(value):
    """Nested values with lists and element types in the place of Tensors, of either library."""
    if hasattr(value, "detach"):
        return str(value.dtype).removeprefix("torch."), value.tolist()
    if isinstance(value, dict):
        return type(value).__name__, {k: plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value).__name__, [plain(v) for v in value]
    return value


EXAMPLES = {
    "floats": [1.5, 2.5],
    "ints": [1, 2],
    "bools": [True, False],
    "strings": ["a", "b"],
    "bytes": [b"a", b"b"],
    "arrays": [np.ones((2, 1), np.float32), np.zeros((2, 1), np.float32)],
    "numbers of numpy": [np.float32(1), np.float32(2)],
    "scalars": [np.array(1), np.array(2)],
    "tuples": [(1, 2.0), (3, 4.0)],
    "lists": [[1, "a"], [2, "b"]],
    "named": [Pair(1, 2), Pair(3, 4)],
    "dicts": [{"x": 1, "y": (1.0, True)}, {"x": 2, "y": (2.0, False)}],
    "ordered": [OrderedDict(a=1), OrderedDict(a=2)],
}


@pytest.mark.oracle
@pytest.mark.parametrize("name", EXAMPLES)
def test_batches_are_torchs(name):
    from torch.utils import data

    batch = EXAMPLES[name]
    assert plain(default_collate(batch)) == plain(data.default_collate(batch))
    assert plain(default_convert(batch[0])) == plain(data.default_convert(batch[0]))


def test_collate():
    batch = default_collate([{"x": np.zeros(2), "y": (1, True)}, {"x": np.ones(2), "y": (2, False)}])
    assert batch["x"].shape == (2, 2) and batch["x"].dtype == og.float64
    assert batch["y"][0].tolist() == [1, 2] and batch["y"][1].dtype == og.bool
    assert default_collate(Pair(og.ones(2), og.zeros(2))).tolist() == [[1, 1], [0, 0]]
    assert default_collate([1.0, 2.0]).dtype == og.float64 and default_collate([1, 2]).dtype == og.int64


def test_gradients_flow_through_a_batch():
    x = og.ones(2, requires_grad=True)
    default_collate([x, x * 2]).sum().backward()
    assert x.grad.tolist() == [3, 3]


def test_convert():
    found = default_convert({"x": np.zeros(2, np.float32), "y": (np.int64(3), "a"), "z": np.array(["s"])})
    assert found["x"].dtype == og.float32 and found["y"][0].item() == 3 and found["y"][1] == "a"
    assert isinstance(found["z"], np.ndarray)


@pytest.mark.parametrize(
    ("batch", "error", "message"),
    [
        ([object()], TypeError, "must contain tensors, numpy arrays, numbers, dicts or lists; found <class 'object'>"),
        ([None], TypeError, "found <class 'NoneType'>"),
        ([np.array(["a"])], TypeError, "found <U1"),
        ([[1, 2], [3]], InputError, "each element in list of batch should be of equal size"),
        ([og.ones(3, 2), og.ones(3, 3)], ShapeError, r"but got \[3, 2\] at entry 0 and \[3, 3\] at entry 1"),
    ],
)
def test_what_is_no_batch(batch, error, message):
    with pytest.raises(error, match=message):
        default_collate(batch)
