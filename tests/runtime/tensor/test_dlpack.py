"""Memory shared with other libraries through DLPack."""

import gc

import numpy as np
import pytest

import onnxgrad as og
from onnxgrad.ops.errors import AutogradError, InputError
from onnxgrad.utils import dlpack


class Older:
    """An array whose library knows the protocol without versions."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, stream=None):
        return self.array.__dlpack__()

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int64", "uint8", "bool"])
@pytest.mark.parametrize("make", [np.asarray, Older, lambda a: a.__dlpack__(), lambda a: og.from_numpy(a)])
def test_memory_is_shared(dtype, make):
    array = np.arange(6).reshape(2, 3).astype(dtype)
    t = og.from_dlpack(make(array))
    assert t.dtype == dtype and t.tolist() == array.tolist() and t.device == "cpu"
    t[0, 0] = 1
    assert array[0, 0] == 1
    back = np.from_dlpack(t)
    back[1, 1] = 0
    assert array[1, 1] == 0 and t.tolist() == array.tolist()


def test_strides_stay():
    array = np.arange(24.0).reshape(4, 6)[::2, 1::2].T
    assert og.from_dlpack(Older(array)).tolist() == array.tolist()
    assert np.from_dlpack(og.arange(6.0).reshape(2, 3).T).tolist() == np.arange(6.0).reshape(2, 3).T.tolist()


def test_memory_lives_as_long_as_somebody_sees_it():
    t = og.from_dlpack(np.arange(100000.0).__dlpack__())
    gc.collect()
    t += 1
    assert t.sum().item() == 100000 * 100001 / 2


def test_copies_and_devices():
    array = np.ones(2)
    assert og.from_dlpack(array, copy=True).array is not array and not np.shares_memory(
        og.from_dlpack(array, copy=True).array, array
    )
    assert og.from_dlpack(array, device="cpu").device == "cpu"


def test_a_write_by_the_other_side_is_seen_by_compiled_models():
    layer = og.nn.Linear(2, 1)
    other = np.from_dlpack(layer.weight.detach())
    f = og.compile(lambda x: layer(x))
    with og.no_grad():
        f(og.ones(1, 2))
        other[...] = 5
        np.testing.assert_allclose(f(og.ones(1, 2)).numpy(), layer(og.ones(1, 2)).numpy())


def test_what_cannot_be_shared():
    with pytest.raises(AutogradError, match=r"share tensor.detach\(\)"):
        og.ones(1, requires_grad=True).__dlpack__()
    with pytest.raises(InputError, match="found list, wanted an array with __dlpack__"):
        og.from_dlpack([1])
    capsule = dlpack.to_dlpack(og.ones(1))
    dlpack.from_dlpack(capsule)
    with pytest.raises(InputError, match="was taken before"):
        dlpack.from_dlpack(capsule)


@pytest.mark.oracle
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_pytorch(dtype):
    import torch

    theirs = torch.arange(4).to(getattr(torch, dtype))
    for given in (theirs, torch.utils.dlpack.to_dlpack(theirs)):
        ours = og.from_dlpack(given)
        assert ours.dtype == np.dtype(getattr(og, dtype)) and ours.tolist() == [0, 1, 2, 3]
        ours[0] = 3
        assert theirs[0] == 3
        theirs[0] = 0
    for shared in (torch.from_dlpack(og.from_dlpack(theirs)), torch.utils.dlpack.from_dlpack(dlpack.to_dlpack(ours))):
        assert shared.dtype == theirs.dtype and shared.data_ptr() == theirs.data_ptr()
    with pytest.raises(InputError, match="Unsupported dtype"):
        og.from_dlpack(torch.ones(2, dtype=torch.float8_e4m3fn))
