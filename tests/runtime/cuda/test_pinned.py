"""Batches of loaders in page-locked memory, on a driver that is not there."""

from collections import OrderedDict, namedtuple
from types import MappingProxyType

import numpy as np
import pytest

import onnxgrad as og
from onnxgrad.ops.errors import DeviceError
from onnxgrad.runtime.cuda.availability import is_available
from onnxgrad.runtime.cuda.pinned import pin_batch
from onnxgrad.utils.data import DataLoader, IterableDataset

from ...ops.device_arrays import SYNCS

ROWS = [(np.full(3, i, np.float32), {"label": i, "name": str(i)}) for i in range(6)]
Pair = namedtuple("Pair", "x y")


class Own:
    """What pins itself."""

    pinned = False

    def pin_memory(self):
        self.pinned = True
        return self


class Stream(IterableDataset):
    """Rows one by one."""

    def __iter__(self):
        return iter(ROWS)


@pytest.mark.usefixtures("two_devices")
@pytest.mark.parametrize("dataset", [ROWS, Stream()], ids=["rows", "stream"])
@pytest.mark.parametrize("workers", [0, 1])
def test_batches_of_a_loader_are_pinned(dataset, workers):
    batches = list(DataLoader(dataset, 2, num_workers=workers, pin_memory=True))
    assert [b[0].tolist() for b in batches] == [[[i] * 3, [i + 1] * 3] for i in (0, 2, 4)]
    for x, rest in batches:
        assert x.is_pinned() and rest["label"].is_pinned() and type(rest["name"]) is list
        SYNCS.clear()
        assert x.to("cuda", non_blocking=True).device == "cuda:0" and SYNCS["upload"] == 0
    assert not any(b[0].is_pinned() for b in DataLoader(dataset, 2, num_workers=workers))


@pytest.mark.usefixtures("two_devices")
def test_containers_keep_their_types():
    x, own = og.ones(2), Own()
    found = pin_batch(
        [Pair(x, "text"), (x, None), OrderedDict(a=x), MappingProxyType({"b": x}), b"bytes", 3, own, range(2)]
    )
    pair, plain, ordered, frozen, *rest = found
    assert type(pair) is Pair and pair.x.is_pinned() and pair.y == "text" and type(plain) is tuple
    assert plain[0].is_pinned() and type(ordered) is OrderedDict and ordered["a"].is_pinned()
    assert type(frozen) is MappingProxyType and frozen["b"].is_pinned()
    assert rest == [b"bytes", 3, own, [0, 1]] and own.pinned and not x.is_pinned()


@pytest.mark.usefixtures("two_devices")
def test_a_batch_on_a_device_cannot_be_pinned():
    with pytest.raises(DeviceError, match="cannot pin a Tensor on cuda:0"):
        next(iter(DataLoader([1, 2], 2, collate_fn=lambda batch: og.tensor(batch, device="cuda"), pin_memory=True)))


@pytest.mark.skipif(is_available(), reason="there is a CUDA device")
def test_without_a_device_batches_stay_where_they_are():
    loader = DataLoader(ROWS, 2, pin_memory=True)
    with pytest.warns(UserWarning, match="'pin_memory' argument is set as true but no accelerator is found"):
        batches = list(loader)
    assert len(batches) == 3 and not batches[0][0].is_pinned()
