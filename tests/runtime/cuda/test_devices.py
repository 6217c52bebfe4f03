"""Devices by PyTorch's names, on a driver that is not there."""

import numpy as np
import pytest

import onnxgrad as og
from onnxgrad.ops.errors import DeviceError, InputError
from onnxgrad.runtime.cuda.memory import number_of

pytestmark = pytest.mark.usefixtures("two_devices")


def test_what_there_is():
    assert og.cuda.is_available() and og.cuda.is_initialized() and og.cuda.device_count() == 2
    assert og.cuda.why_unavailable() is None and og.cuda.init() is None
    assert og.cuda.get_device_name() == og.cuda.get_device_name("cuda:1") == "Pretended 9000"
    assert og.cuda.get_device_capability(1) == (9, 0) and og.cuda.is_bf16_supported(including_emulation=False)
    found = og.cuda.get_device_properties(0)
    assert (found.total_memory, found.multi_processor_count, found.warp_size) == (1 << 20, 132, 32)
    assert og.cuda.can_device_access_peer(0, 1) is False
    assert og.accelerator.current_accelerator() == "cuda:0" and og.accelerator.device_count() == 2


def test_the_current_device_is_what_cuda_stands_for():
    assert og.cuda.current_device() == 0 and og.ones(1, device="cuda").device == "cuda:0"
    og.cuda.set_device("cuda:1")
    assert og.device("cuda") == "cuda:1" and og.ones(1).cuda().device == og.ones(1).to("cuda").device == "cuda:1"
    og.cuda.set_device(-1)
    with og.cuda.device(0):
        assert og.cuda.current_device() == 0 and og.zeros(2, device="cuda").device.index == 0
        with og.cuda.device(None), og.cuda.device("cuda:1"):
            assert og.cuda.current_device() == 1
        assert og.cuda.current_device() == 0
    assert og.cuda.current_device() == 1
    with og.cuda.device_of(og.ones(1, device="cuda:0")):
        assert og.cuda.current_device() == 0
    with og.cuda.device_of(og.ones(1)):
        assert og.cuda.current_device() == 1


@pytest.mark.parametrize("wrong", [2, "cuda:2"])
def test_devices_that_are_not_there(wrong):
    for call in (og.cuda.set_device, og.cuda.get_device_name, og.ones(1).to, og.set_default_device):
        with pytest.raises(InputError, match="no device cuda:2: 2 CUDA devices found"):
            call(wrong)


def test_names_that_are_none():
    for wrong in ("cpu", "cuda:x", "tpu"):
        with pytest.raises(InputError, match=f"expected a CUDA device, found '{wrong}'"):
            number_of(wrong)


def test_each_op_runs_where_its_arguments_lie():
    x = og.arange(6, dtype="float32", device="cuda:1").reshape(2, 3).requires_grad_()
    assert og.cuda.current_device() == 0
    y = (x * 2 + og.tensor(1.0)).softmax(-1) @ x.T
    assert y.device == "cuda:1"
    y.sum().backward()
    assert x.grad.device == "cuda:1" and og.cuda.current_device() == 0
    here = x.detach().cpu().requires_grad_()
    ((here * 2 + 1).softmax(-1) @ here.T).sum().backward()
    np.testing.assert_allclose(x.grad.cpu().numpy(), here.grad.numpy(), rtol=1e-6)


def test_gradients_cross_devices():
    x = og.ones(3, device="cuda:0", requires_grad=True)
    y = (x * 2).to("cuda:1") * og.tensor([1.0, 2.0, 3.0], device="cuda:1")
    y.cpu().sum().backward()
    assert x.grad.device == "cuda:0" and x.grad.tolist() == [2.0, 4.0, 6.0]


@pytest.mark.parametrize(
    ("compute", "found"),
    [
        (lambda a, b: a + b, "add"),
        (lambda a, b: a @ b, "matmul"),
        (lambda a, b: og.cat([a, b]), "concat"),
        (lambda a, b: og.where(a > 0, a, b), "where"),
        (lambda a, b: og.nn.functional.linear(a, b), "matmul|linear"),
        (lambda a, b: a.add_(b), "in-place add"),
        (lambda a, b: a.sub(b, alpha=2), "sub"),
    ],
)
@pytest.mark.parametrize("places", [("cuda:0", "cpu"), ("cpu", "cuda:1"), ("cuda:0", "cuda:1")])
def test_arguments_on_several_devices(compute, found, places):
    a, b = (og.ones(2, 2, device=p) for p in places)
    with pytest.raises(DeviceError, match=rf"({found}): its arguments lie on .* wanted one device") as caught:
        compute(a, b)
    assert all(p in str(caught.value) for p in places) and "float32[2, 2] on cuda:" in str(caught.value)
    assert isinstance(caught.value, RuntimeError)


def test_arrays_on_several_devices():
    from onnxgrad.ops.pointwise import add

    with pytest.raises(DeviceError, match=r"add: its arguments lie on cpu and cuda:0"):
        add(og.ones(2, device="cuda").array, np.ones(2, np.float32))


def test_numbers_of_the_cpu_meet_tensors_of_a_device():
    x = og.ones(2, device="cuda", requires_grad=True)
    (x * og.tensor(3.0)).sum().backward()
    assert x.grad.tolist() == [3.0, 3.0]
    assert x[og.tensor([1, 0])].tolist() == [1.0, 1.0]


def test_places_and_copies_may_come_from_elsewhere():
    for where, other in (("cuda:0", "cpu"), ("cpu", "cuda:1"), ("cuda:0", "cuda:1")):
        x = og.zeros(3, device=where)
        x[1:] = og.tensor([1.0, 2.0], device=other)
        x += og.tensor(1.0, device=other)
        assert x.device == where and x.tolist() == [1, 2, 3] and x[og.tensor([2], device=other)].tolist() == [3]
        x.copy_(og.ones(3, device=other))
        assert x.tolist() == [1, 1, 1]


def test_the_default_device():
    og.set_default_device("cuda:1")
    try:
        assert {og.ones(2).device, og.tensor([1.0]).device, og.rand(2).device, og.arange(3).device} == {"cuda:1"}
        assert og.nn.Linear(2, 2).weight.device == "cuda:1"
    finally:
        og.set_default_device(None)
    assert og.ones(2).device == "cpu"


def test_synchronize(two_devices):
    og.cuda.synchronize()
    og.cuda.synchronize("cuda:1")
    two_devices.pending = RuntimeError("broken")
    with pytest.raises(RuntimeError, match="broken"):
        og.cuda.synchronize()
