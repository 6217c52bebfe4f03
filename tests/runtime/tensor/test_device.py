"""Devices: the CPU alone, and CUDA where there is one."""

import numpy as np
import pytest

import onnxgrad as og
from onnxgrad import nn, optim
from onnxgrad.ops.errors import InputError, MissingExtraError


@pytest.mark.skipif(og.cuda.is_available(), reason="a CUDA device is there")
def test_without_cuda():
    assert og.cuda.is_available() is False and og.cuda.device_count() == 0
    with pytest.raises((MissingExtraError, InputError), match=r"cuda|CUDA"):
        og.ones(1).cuda()


def test_devices():
    assert og.device("cuda", 1) == "cuda:1" and og.device("cuda").index == 0 and og.device("cpu").type == "cpu"
    assert repr(og.device("cuda:1")) == "device(type='cuda', index=1)" and og.ones(1).device == og.device("cpu")
    with pytest.raises(ValueError, match="no device 'tpu'"):
        og.device("tpu")


@pytest.mark.gpu
def test_gradients_flow_back_from_the_device():
    x = og.tensor([1.0, 2.0], requires_grad=True)
    y = (x.cuda() * 3).sum()
    assert y.device == "cuda:0" and "device='cuda:0'" in repr(y)
    y.backward()
    assert x.grad.device == "cpu" and x.grad.tolist() == [3.0, 3.0]


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["SGD", "AdamW"])
def test_training_on_the_device_gives_the_same_numbers(name):
    def train(device):
        og.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(1, 4, 3, bias=False),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(36, 3),
        )
        x, y = og.randn(5, 1, 8, 8), og.randint(0, 3, (5,))
        net, x, y = net.to(device), x.to(device), y.to(device)
        optimizer = getattr(optim, name)(net.parameters(), lr=0.01)
        for _ in range(3):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(net(x), y, label_smoothing=0.1)
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
        return [loss.detach().cpu().numpy(), *(p.detach().cpu().numpy() for p in net.parameters())]

    for a, b in zip(train("cpu"), train("cuda"), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.gpu
def test_indexing_and_reductions_on_the_device():
    x = np.random.default_rng(0).standard_normal((4, 5)).astype(np.float32)
    here, there = og.tensor(x, requires_grad=True), og.tensor(x, device="cuda", requires_grad=True)
    for t in (here, there):
        total = (
            t[1:, ::2].sum() + t[t > 0].mean() + t.max(1).values.sum() + t.softmax(0)[[0, 2]].std() + (t @ t.T).norm()
        )
        total.backward()
    np.testing.assert_allclose(there.grad.cpu().numpy(), here.grad.numpy(), rtol=1e-4, atol=1e-5)
