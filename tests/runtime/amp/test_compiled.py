"""Autocast in compiled functions and imported models."""

from __future__ import annotations

import numpy as np
import pytest

import onnxgrad as og
import onnxgrad.nn as nn
import onnxgrad.nn.functional as F
from onnxgrad.ops.kernels.cpu.target import available
from onnxgrad.ops.matmul import matmul
from onnxgrad.ops.types import BFLOAT16, TensorType
from onnxgrad.runtime.amp.widen import Halves
from onnxgrad.runtime.compiled.choice import multiplies_bfloat16
from onnxgrad.runtime.graph.graph import Graph

HALVES = ("bfloat16", "float16")


def array(*shape, seed=0):
    return np.random.default_rng([*shape, seed]).standard_normal(shape).astype(np.float32)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.hidden, self.head = nn.Linear(8 * 36, 32), nn.Linear(32, 4)

    def forward(self, x):
        x = self.norm(self.conv(x)).relu().flatten(1)
        return self.head(F.gelu(self.hidden(x)))


def trained(dtype, compiled, steps=12):
    og.manual_seed(0)
    model = Net()
    optimizer = og.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    t = og.tensor(np.arange(16) % 4)

    def step(x):
        optimizer.zero_grad()
        with og.amp.autocast(dtype or "bfloat16", enabled=dtype is not None):
            y = model(x)
            loss = F.cross_entropy(y, t)
        loss.backward()
        optimizer.step()
        return loss, y

    f, x = (og.compile(step) if compiled else step), og.tensor(array(16, 3, 6, 6))
    runs = [f(x) for _ in range(steps)]
    return [run[0].item() for run in runs], str(runs[-1][1].dtype), f, model


@pytest.mark.parametrize("dtype", HALVES)
def test_a_compiled_step_learns_as_eager_and_float32_do(dtype):
    plain = trained(None, True)
    eager, compiled = trained(dtype, False), trained(dtype, True)
    assert (eager[1], compiled[1]) == (dtype, dtype)
    tol = {"bfloat16": 3e-2, "float16": 5e-3}[dtype]
    np.testing.assert_allclose(compiled[0], eager[0], atol=tol)
    np.testing.assert_allclose(compiled[0], plain[0], atol=tol)
    assert plain[0][-1] < 0.8 * plain[0][0]
    assert {str(p.dtype) for p in compiled[3].parameters()} == {"float32"}


@pytest.mark.skipif(not available(), reason="no compiled engine here")
def test_the_cpu_engine_computes_it_in_native_code():
    for dtype in HALVES:
        f = trained(dtype, True, steps=1)[2]
        (program,) = f.programs
        assert not program.engine.program.compiler.refused
        assert program.engine.program.compiler.precision == (
            "bf16" if dtype == "bfloat16" and multiplies_bfloat16() else "float32"
        )


def test_each_context_has_a_program_of_its_own():
    model = nn.Linear(4, 3)
    f, x = og.compile(lambda x: model(x)), og.tensor(array(2, 4))
    found = []
    for how in ({"enabled": False}, {}, {"dtype": og.float16}, {"enabled": False}, {}):
        with og.amp.autocast("cpu", **how):
            found.append(str(f(x).dtype))
    assert found == ["float32", "bfloat16", "float16", "float32", "bfloat16"]
    assert f.compilations == 3


def test_gradients_of_a_compiled_forward_are_float32():
    model = Net()
    x = og.tensor(array(4, 3, 6, 6))
    f = og.compile(model)
    grads = []
    for run in (f, model):
        model.zero_grad()
        with og.amp.autocast("bfloat16"):
            y = run(x)
        y.float().square().sum().backward()
        grads.append([p.grad.numpy().copy() for p in model.parameters()])
    largest = max(np.abs(g).max() for g in grads[1])
    for a, b in zip(*grads, strict=True):
        assert a.dtype == np.float32
        assert np.abs(a - b).max() < 4e-2 * largest


def test_half_precision_edges_keep_their_type():
    @og.compile
    def f(x, y):
        x.add_(1.0)
        with og.amp.autocast("float16"):
            return x @ y, x * 2

    x, y = og.tensor(array(3, 3)).to(dtype=og.float16), og.tensor(array(3, 3))
    before = x.float().numpy()
    product, double = f(x, y)
    assert str(x.dtype) == str(product.dtype) == str(double.dtype) == "float16"
    np.testing.assert_allclose(x.float().numpy(), before + 1, rtol=1e-3)
    np.testing.assert_allclose(product.float().numpy(), (before + 1) @ y.numpy(), rtol=1e-2, atol=1e-2)


def test_products_round_only_where_all_of_them_are_bfloat16():
    def graph(*dtypes):
        g = Graph("g")
        with g.building():
            made = []
            for i, dtype in enumerate(dtypes):
                a, b = (g.input(f"x{i}{j}", TensorType(np.dtype(dtype), (4, 4))) for j in range(2))
                made.append(matmul(a, b))
        g.outputs = made
        return g

    assert not Halves(graph("float32")).changed
    if available():
        mixed, pure = Halves(graph(BFLOAT16, "float32")), Halves(graph(BFLOAT16, BFLOAT16))
        assert mixed.changed and mixed.precision == "float32" and mixed.outputs == {0: BFLOAT16}
        assert pure.precision == ("bf16" if multiplies_bfloat16() else "float32")


# imported models -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    og.manual_seed(3)
    path = tmp_path_factory.mktemp("amp") / "net.onnx"
    og.onnx.export(Net().eval(), (og.tensor(array(2, 3, 6, 6)),), str(path))
    return str(path)


@pytest.mark.parametrize("dtype", HALVES)
def test_an_imported_model_under_autocast(model_file, dtype):
    model = og.load(model_file)
    x = og.tensor(array(2, 3, 6, 6))
    plain = model(x)
    with og.amp.autocast(dtype):
        half = model(x)
    assert half.dtype == dtype and plain.dtype == "float32"
    scale = np.abs(plain.detach().numpy()).max()
    error = np.abs(half.detach().float().numpy() - plain.detach().numpy()).max() / scale
    assert 0 < error < {"bfloat16": 3e-2, "float16": 4e-3}[dtype]


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_an_imported_model_trains_under_autocast(model_file, compiled):
    losses = {}
    for half in (False, True):
        model = og.load(model_file).train()
        optimizer = og.optim.AdamW(model.parameters(), lr=3e-3)
        x, t = og.tensor(array(2, 3, 6, 6)), og.tensor([0, 3])

        def step(model=model, optimizer=optimizer, x=x, t=t, half=half):
            optimizer.zero_grad()
            with og.amp.autocast("bfloat16", enabled=half):
                loss = F.cross_entropy(model(x), t)
            loss.backward()
            optimizer.step()
            return loss

        f = og.compile(step) if compiled else step
        losses[half] = [f().item() for _ in range(10)]
        assert {str(p.dtype) for p in model.parameters()} == {"float32"}
    assert losses[False][-1] < 0.5 * losses[False][0]
    np.testing.assert_allclose(losses[True], losses[False], atol=4e-2)


@pytest.mark.skipif(not multiplies_bfloat16(), reason="the CPU has no products of bfloat16")
def test_run_multiplies_in_bfloat16_where_the_cpu_does(model_file):
    model = og.load(model_file)
    rounded = og.load(model_file, precision="bf16")
    name = model.inputs[0].name
    feeds = {name: array(2, 3, 6, 6)}
    plain = model.run(feeds)[0]
    with og.amp.autocast("bfloat16"):
        half = model.run(feeds)[0]
        again = model.run(feeds)[0]
    np.testing.assert_array_equal(half, rounded.run(feeds)[0])
    np.testing.assert_array_equal(half, again)
    np.testing.assert_array_equal(model.run(feeds)[0], plain)
    assert not np.array_equal(half, plain) and half.dtype == plain.dtype
    for p in model.parameters():
        p.data = p.array * np.float32(0.5)
    for p in rounded.parameters():
        p.data = p.array * np.float32(0.5)
    with og.amp.autocast("bfloat16"):
        np.testing.assert_array_equal(model.run(feeds)[0], rounded.run(feeds)[0])
    with og.amp.autocast("float16"):
        assert np.abs(model.run(feeds)[0] - plain).max() > 0
