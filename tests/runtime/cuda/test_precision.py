"""Imported models on CUDA in half precision, asked for by name or by autocast."""

from __future__ import annotations

import numpy as np
import pytest

import onnxgrad as og
from onnxgrad.ops.errors import InputError, KernelError
from onnxgrad.ops.kernels.cuda.kernel import LibraryCall
from onnxgrad.ops.types import BFLOAT16
from onnxgrad.runtime.cuda.capture import WARM_UPS
from onnxgrad.runtime.tensor.device import device

from .test_models import SHARED, read

NEAR = {"float32": 1e-3, "bf16": 3e-2, "fp16": 5e-3}
DTYPES = {"bf16": BFLOAT16, "fp16": np.dtype(np.float16)}


def on_device(name):
    model, feeds, wanted = read(name)
    model._device = device("cuda:0")
    return model, feeds, wanted


def check(found, wanted, precision):
    for a, b in zip(found, wanted, strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        np.testing.assert_allclose(a, b, rtol=NEAR[precision], atol=NEAR[precision] * np.abs(b).max())


@pytest.mark.parametrize("precision", ["float32", "bf16", "fp16"])
@pytest.mark.parametrize("name", ["tinybert-tribuo", "cct2-32-opset20-deeploy"])
def test_run(name, precision, on_cuda):
    model, feeds, wanted = on_device(name)
    model.precision = precision
    for _ in range(WARM_UPS + 2):
        check(model.run(feeds), wanted, precision)
    (program,) = model.plan().programs
    calls = [s.work for s in program.steps if isinstance(s.work, LibraryCall)]
    dtypes = {p.operand.dtype for work in calls for p in work.arguments[:2]}
    assert dtypes == ({DTYPES[precision]} if precision in DTYPES else {np.dtype(np.float32)})
    cast = [s for s in program.steps if s.ops == ("cast",)]
    assert all(p.storage.kind != "weight" for s in cast for p in s.reads())
    on_cuda.check()


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_autocast_asks_for_it(precision, on_cuda):
    """`run`, and calls without gradients, compute as a model of that precision; outside the context as before."""
    model, feeds, wanted = on_device("tinybert-tribuo")
    with og.amp.autocast(str(DTYPES[precision])):
        check(model.run(feeds), wanted, precision)
        rounded = model.run(feeds)
        with og.no_grad():
            called = model(**feeds)
        np.testing.assert_array_equal(np.asarray(called[0] if isinstance(called, tuple) else called), rounded[0])
    plain = model.run(feeds)
    check(plain, wanted, "float32")
    assert np.abs(plain[0] - rounded[0]).max() > 0
    with og.amp.autocast("cpu", dtype=og.bfloat16):
        np.testing.assert_array_equal(model.run(feeds)[0], plain[0])


def test_calls_without_gradients_run_as_programs(on_cuda, monkeypatch):
    """With gradients, in training, where a layer has a hook, and for Tensors that lie elsewhere it is interpreted."""
    model, feeds, wanted = on_device("mnist8-cntk")
    (x,) = feeds.values()
    with og.no_grad():
        found = model(x)
    assert isinstance(found, og.Tensor)
    check([found.numpy()], wanted, "float32")
    assert len(model.plan().programs) == 1
    on_cuda.log.clear()
    interpreted = []
    monkeypatch.setattr(model, "_interpret", lambda *a: interpreted.append(1) or ((found,), {}))
    model(x)
    with og.no_grad():
        model.train()(x)
        handle = next(m for n, m in model.eval().named_modules() if n).register_forward_hook(lambda *a: None)
        model(x)
        handle.remove()
        model(og.tensor(x))  # a Tensor of the CPU, which is an error there
        assert len(interpreted) == 4
        assert not on_cuda.log
        model(x)
    assert len(interpreted) == 4
    assert on_cuda.log


def test_an_autocast_model_sees_new_weights_and_types(on_cuda):
    model, feeds, _ = on_device("mnist8-cntk")
    with og.amp.autocast("bfloat16"):
        before = model.run(feeds)[0]
        state = model._state["Parameter193"]
        state.data = 2 * state.data
        after = model.run(feeds)[0]
        with og.amp.autocast("float16"):
            finer = model.run(feeds)[0]
    assert np.abs(after - before).max() > 0.1 * np.abs(before).max()
    np.testing.assert_allclose(finer, after, atol=3e-2 * np.abs(after).max())
    assert np.abs(finer - after).max() > 0


@pytest.mark.skipif(SHARED is None, reason="no shared models")
def test_what_cannot_be():
    path = SHARED / "models" / "mnist8-cntk" / "model.onnx"
    with pytest.raises(KernelError, match="precision 'fp16' is for CUDA, found device 'cpu'"):
        og.load(path, precision="fp16")
    with pytest.raises(InputError, match="precision is 'half', wanted 'float32', 'bf16', or on CUDA 'fp16'"):
        og.load(path, precision="half")
