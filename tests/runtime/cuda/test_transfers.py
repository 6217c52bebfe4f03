"""Copies between the CPU and devices: Tensors, modules, models, files, pinned memory."""

import numpy as np
import pytest

import onnxgrad as og
from onnxgrad import nn
from onnxgrad.ops.errors import AutogradError, DeviceError

from ...ops.device_arrays import SYNCS, ndarray

pytestmark = pytest.mark.usefixtures("two_devices")


def test_there_and_back():
    x = og.tensor([[1.0, 2.0]], requires_grad=True)
    y = x.to("cuda:1", dtype="float64")
    assert (y.device, y.dtype, y.is_cuda, y.get_device()) == ("cuda:1", np.float64, True, 1)
    assert y.to("cuda:1") is y and x.to("cpu") is x and x.cpu() is x
    assert y.cpu().tolist() == [[1.0, 2.0]] and y.to("cuda:0").device == "cuda:0"
    assert og.ones(1, dtype="int64", device=1).to(y).dtype == np.float64
    y.sum().backward()
    assert x.grad.device == "cpu" and x.grad.dtype == np.float32
    assert "device='cuda:1'" in repr(y) and y.type() == "torch.cuda.DoubleTensor"


@pytest.mark.parametrize("make", [
    lambda d: og.zeros(2, 3, device=d), lambda d: og.ones((2, 3), device=d), lambda d: og.empty(2, device=d),
    lambda d: og.full((2,), 7, device=d), lambda d: og.arange(3, device=d), lambda d: og.linspace(0, 1, 3, device=d),
    lambda d: og.eye(2, device=d), lambda d: og.rand(2, device=d), lambda d: og.randn(2, device=d),
    lambda d: og.randint(0, 3, (2,), device=d), lambda d: og.randperm(4, device=d), lambda d: og.tensor([1], device=d),
    lambda d: og.as_tensor(np.ones(2), device=d), lambda d: og.tril_indices(2, 2, device=d),
    lambda d: og.ones_like(og.ones(2, device=d)), lambda d: og.empty_like(og.ones(2), device=d),
    lambda d: og.rand_like(og.ones(2, device=d)), lambda d: og.ones(2, device=d).new_zeros(3),
    lambda d: og.zeros_like(og.ones(2), device=d), lambda d: og.ones(2, device=d).clone(),
    lambda d: og.normal(0.0, 1.0, (2,), device=d),
])  # fmt: skip
def test_functions_that_make_tensors(make):
    assert make("cuda:1").device == "cuda:1" and isinstance(make("cuda:1").array, ndarray)
    with og.cuda.device(1):
        assert make("cuda").device == "cuda:1"


def test_zeros_are_made_where_they_lie():
    SYNCS.clear()
    og.zeros(1000, device="cuda")
    og.ones(2, device="cuda").zero_()
    assert not SYNCS


def test_numpy_and_items_come_back():
    x = og.arange(3.0, device="cuda")
    assert x.numpy().tolist() == [0, 1, 2] and x.sum().item() == 3 and float(x[1]) == 1 and x.tolist() == [0, 1, 2]
    assert bool(x[2] > 1) and list(map(float, x)) == [0, 1, 2]


def test_arrays_that_lie_on_a_device_are_shared():
    array = og.ones(3, device="cuda:1").array
    t = og.Tensor(array)
    assert t.array is array and t.device == "cuda:1" and og.as_tensor(array).array is array
    assert og.tensor(array).array is not array and og.tensor(array).device == "cuda:1"
    assert t.__cuda_array_interface__["data"] == array.__cuda_array_interface__["data"]
    assert not hasattr(og.ones(1), "__cuda_array_interface__")
    with pytest.raises(AutogradError, match=r"share tensor.detach\(\)"):
        _ = og.ones(1, device="cuda", requires_grad=True).__cuda_array_interface__


def test_pinned_memory():
    x = og.arange(6.0).reshape(2, 3)
    p = x.pin_memory()
    assert p.is_pinned() and not x.is_pinned() and p.pin_memory() is p and p[1:].is_pinned()
    assert p.tolist() == x.tolist() and og.zeros(2, pin_memory=True).is_pinned()
    assert og.tensor([1.0], pin_memory=True).is_pinned()
    with pytest.raises(DeviceError, match="cannot pin a Tensor on cuda:0"):
        x.cuda().pin_memory()
    SYNCS.clear()
    p.to("cuda", non_blocking=True)
    x.to("cuda")  # copied to pinned memory first, so that nobody has to wait
    assert SYNCS["upload"] == 0
    p.to("cuda")
    assert SYNCS["upload"] == 1
    back = p.cuda().to("cpu", non_blocking=True)
    assert back.is_pinned() and SYNCS["get"] == 0 and back.tolist() == x.tolist()


def test_modules():
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    assert net.to("cuda:1") is net
    assert {t.device for t in (*net.parameters(), *net.buffers())} == {"cuda:1"}
    net(og.rand(2, 3, device="cuda:1")).sum().backward()
    assert {p.grad.device for p in net.parameters()} == {"cuda:1"}
    assert {p.device for p in net.cpu().parameters()} == {"cpu"} == {p.grad.device for p in net.parameters()}
    assert {p.device for p in net.cuda().parameters()} == {"cuda:0"}
    assert {p.device for p in net.to_empty(device="cuda:1").parameters()} == {"cuda:1"}
    state = net.state_dict()
    fresh = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    fresh.load_state_dict(state)
    assert fresh[0].weight.device == "cpu"
    with pytest.raises(DeviceError, match="its arguments lie on cpu and cuda:1"):
        net(og.rand(2, 3))


def test_state_files(tmp_path):
    state = {"w": og.arange(3.0, device="cuda:1"), "step": 3}
    og.save(state, tmp_path / "state.pt")
    assert og.load(tmp_path / "state.pt")["w"].device == "cuda:1"
    for where in ("cpu", "cuda", {"cuda:1": "cuda:0"}):
        found = og.load(tmp_path / "state.pt", map_location=where)["w"]
        assert found.device == ("cpu" if where == "cpu" else "cuda:0") and found.tolist() == [0, 1, 2]


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "Adadelta", "NAdam", "Rprop"])
def test_training_gives_the_same_numbers(name):
    def train(device):
        og.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
            nn.Dropout(0.1), nn.Linear(36, 3),
        )  # fmt: skip
        x, y = og.randn(5, 1, 8, 8), og.randint(0, 3, (5,))
        net, x, y = net.to(device), x.to(device), y.to(device)
        optimizer = getattr(og.optim, name)(net.parameters(), lr=0.01)
        for _ in range(3):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(net(x), y, label_smoothing=0.1)
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
        return [loss.detach().cpu().numpy(), *(p.detach().cpu().numpy() for p in net.parameters())]

    for a, b in zip(train("cpu"), train("cuda:1"), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
