"""Whole models and training steps as programs, against onnxruntime's answers and against what runs on the CPU."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import onnxgrad as og
from onnxgrad import nn, optim
from onnxgrad.nn import functional as F
from onnxgrad.runtime.cuda.buckets import Buckets
from onnxgrad.runtime.cuda.capture import WARM_UPS
from onnxgrad.runtime.model.running import fed
from onnxgrad.runtime.tensor.device import device

from ...ops.kernels.cuda import host
from ...shared_data import find_shared
from .host_runner import HostRunner, aligned, run_checked, shifted

SHARED = find_shared()
FILES = ("mnist8-cntk", "rl-g1-mjx", "rl-ships-godot", "kws-micro-fp32", "imageclassifier-cifar10-winml",
         "cct2-32-opset20-deeploy", "tinybert-tribuo", "ort-scan-1")  # fmt: skip
LARGER = ("gpt2-past-ort", "gtcrn", "fsanet-var", "vespa-random-decoder", "person-reid-0248",
          "mnist-int8-qop", "swift-f0", "silero-vad", "silero-vad-v4-legacy")  # fmt: skip
WHOLE = ("dtln-1", "byte-sb-bidi-lstm", "silero-vad-half", "ndm-gonnx", "g2p-en-arpabet", "swift-f0", "gtcrn",
         "ort-test-rnn-bidirectional-one-layer-relu", "kws-micro-qoperator",
         "mnist-int8-qop")  # fmt: skip
RNG = np.random.default_rng(0)


def floats(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def read(name):
    if SHARED is None or not (SHARED / "models" / name).exists():
        pytest.skip(f"no {name} in shared/models")
    folder = SHARED / "models" / name
    with np.load(folder / "io.npz") as io:
        arrays = {k: io[k] for k in io.files}
    model = og.load(folder / "model.onnx")
    feeds = {k[3:]: v for k, v in arrays.items() if k.startswith("in:")}
    return model, feeds, [arrays[f"out:{o.name}"] for o in model.outputs]


def close(found, wanted, tolerance=1e-3):
    for a, b in zip(found, wanted, strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        scale = max(float(np.abs(b).max()), 1e-3) if b.size and b.dtype.kind == "f" else 0.0
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * scale)


def check_file(name):
    model, feeds, wanted = read(name)
    runner = HostRunner()
    buckets = Buckets(model.graph, runner)
    entries = fed(model._bind((), feeds), model.graph)
    for _ in range(WARM_UPS + 2):
        close(buckets.run(entries, model._state)[0], wanted)
    (program,) = buckets.programs
    close(run_checked(program, entries, model._state), wanted)
    runner.check()
    return program


@pytest.mark.parametrize("name", FILES)
def test_files_answer_as_onnxruntime_does(name):
    check_file(name)


@pytest.mark.parametrize("name", WHOLE)
def test_files_of_recurrent_layers_spectra_and_integers_run_as_kernels_alone(name):
    program = check_file(name)
    assert not program.compiler.refused


@pytest.mark.parametrize("name", LARGER)
def test_larger_files_answer_so_with_array_kernels(name, no_kernels):
    check_file(name)


def test_a_model_on_cuda_runs_as_programs(on_cuda):
    model, feeds, wanted = read("mnist8-cntk")
    (x,) = feeds.values()
    many = [np.concatenate([x * k for k in range(n)]) for n in (1, 2, 3)]
    answers = [model.run({"Input3": m}) for m in many]
    model._device = device("cuda:0")
    for _ in range(WARM_UPS + 2):
        close(model.run(feeds), wanted)
        for m, answer in zip(many, answers, strict=True):
            found = model.run({"Input3": m})
            close(found, answer)
            assert isinstance(found[0], np.ndarray)
    text = str(model.plan())
    assert "3 programs" in text
    assert "max_pool" in text
    rows = model.profile(feeds, runs=2)
    assert [r.kernel for r in rows if "pool" in r.kernel] == ["max_pool", "max_pool"]
    model._state["Parameter193"].data = 0 * model._state["Parameter193"].data
    assert np.ptp(model.run(feeds)[0]) < np.ptp(wanted[0])


def test_a_model_that_has_no_program_says_why(on_cuda):
    model, feeds, wanted = read("voicevox-intonation")
    model._device = device("cuda:0")
    close(model.run(feeds), wanted)
    assert "run node by node: the sizes of" in str(model.plan())


class Residual(nn.Module):
    """A small network of convolutions with a residual, pools and a head."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.second, self.third = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 16, 1, stride=2)
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        x = F.relu(self.norm(self.first(x)))
        x = F.max_pool2d(F.relu(x + self.second(x)), 2)
        return self.head(self.third(x).mean(dim=(2, 3)))


class Attention(nn.Module):
    """A block of attention written out, with layer norm and a residual."""

    def __init__(self):
        super().__init__()
        self.norm, self.qkv, self.out = nn.LayerNorm(16), nn.Linear(16, 48, bias=False), nn.Linear(16, 16)

    def forward(self, x):
        n, s, _ = x.shape
        q, k, v = (t.reshape(n, s, 2, 8).transpose(1, 2) for t in self.qkv(self.norm(x)).chunk(3, 2))
        weights = ((q @ k.transpose(-2, -1)) * 8**-0.5).softmax(-1)
        return x + self.out(F.gelu((weights @ v).transpose(1, 2).reshape(n, s, 16)))


class Recurrent(nn.Module):
    """Two layers over time, the first in both directions, and a head."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.LSTM(6, 5, bidirectional=True), nn.GRU(10, 7)
        self.head = nn.Linear(7, 4)

    def forward(self, x):
        y, _ = self.second(self.first(x.transpose(0, 1))[0])
        return self.head(y[-1])


class Wide(nn.Module):
    """Layers over time whose steps are launches of their own."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.LSTM(6, 160), nn.GRU(160, 180, bidirectional=True)

    def forward(self, x):
        return self.second(self.first(x)[0])[0]


MODULES = [(Residual, (2, 3, 8, 8)), (Attention, (2, 5, 16)), (Wide, (1, 2, 6)), (Wide, (3, 2, 6))]


@pytest.mark.parametrize(("kind", "shape"), MODULES)
def test_compiled_modules_answer_as_they_do(kind, shape, on_cuda):
    og.manual_seed(0)
    module = kind().eval()
    compiled = og.compile(module)
    with og.no_grad():
        for _ in range(WARM_UPS + 2):
            x = og.tensor(floats(*shape))
            np.testing.assert_allclose(compiled(x).numpy(), module(x).numpy(), rtol=1e-3, atol=1e-4)
    assert "replay" in on_cuda.log
    on_cuda.check()


class Perceptron(nn.Module):
    """Two layers."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(6, 16), nn.Linear(16, 4)

    def forward(self, x):
        return self.second(F.tanh(self.first(x)))


TRAINING = [
    (Recurrent, (5, 3, 6), "Adam", {"lr": 0.01}),
    (Perceptron, (8, 6), "SGD", {"lr": 0.1}),
    (Perceptron, (8, 6), "SGD", {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}),
    (Perceptron, (8, 6), "AdamW", {"lr": 0.01, "weight_decay": 0.1}),
    (Residual, (4, 3, 8, 8), "AdamW", {"lr": 0.01}),
    (Attention, (2, 5, 16), "Adam", {"lr": 0.01}),
]


@pytest.mark.skipif(host.why_not() is not None, reason=str(host.why_not()))
@pytest.mark.parametrize(("kind", "shape", "name", "settings"), TRAINING)
@pytest.mark.parametrize("place", [aligned, shifted])
def test_training_steps_leave_what_eager_ones_do(kind, shape, name, settings, place, on_cuda):
    og.manual_seed(0)
    module = kind()
    eager = copy.deepcopy(module)
    for p in module.parameters():
        p._array = place(p._array)
    optimizers = [getattr(optim, name)(m.parameters(), **settings) for m in (module, eager)]

    def step_of(m, o):
        def step(x, y):
            o.zero_grad()
            out = m(x)
            loss = F.cross_entropy(out, y) if out.ndim == 2 else (out * y).square().mean()
            loss.backward()
            o.step()
            return loss

        return step

    compiled, plain = og.compile(step_of(module, optimizers[0])), step_of(eager, optimizers[1])
    for run in range(WARM_UPS + 4):
        x = floats(*shape)
        y = RNG.integers(0, 4, shape[0]) if kind is not Attention else floats(*shape)
        if run == 3:
            for o in optimizers:
                o.param_groups[0]["lr"] *= 0.5
        a, b = compiled(og.tensor(x), og.tensor(y)), plain(og.tensor(x), og.tensor(y))
        np.testing.assert_allclose(a.item(), b.item(), rtol=2e-4, atol=1e-6)
    for (n, p), q in zip(module.named_parameters(), eager.parameters(), strict=True):
        np.testing.assert_allclose(p._array, q._array, rtol=2e-3, atol=2e-5, err_msg=n)
    for p, q in zip(module.buffers(), eager.buffers(), strict=True):
        np.testing.assert_allclose(p._array, q._array, rtol=1e-3, atol=1e-5)
    (program,) = compiled.programs[0].engine._buckets.programs
    assert not program.compiler.refused
    assert f"_update of {len(list(module.parameters()))}: " in str(program)
    late = [s for s in program.steps if s.ops == ("copy",) and s.node is None]
    assert not late, str(program)  # what is new lies where what was old lay
    assert "replay" in on_cuda.log
    on_cuda.check()
