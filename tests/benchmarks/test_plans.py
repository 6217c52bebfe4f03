"""What networks like the suite's cost on CUDA, as far as plans tell: launches, and nothing on array kernels."""

from __future__ import annotations

import numpy as np
import pytest

import onnxgrad as og
from onnxgrad.runtime.cuda import choice
from onnxgrad.runtime.tensor.device import device
from onnxgrad.runtime.tracing.trace import Trace

from ..runtime.cuda.dry_runner import DryRunner, caught, count, launches

pytest.importorskip("torch")
pytest.importorskip("onnxscript", reason="networks are exported with it")

from benchmarks import cuda as suite
from benchmarks.networks import export, resnet, transformer

pytestmark = pytest.mark.oracle

INFERENCE = {
    "resnet50": (26, {"epilogue": 0, "pointwise": 0, "copy": 0}),
    "bert_base": (28, {"cublaslt": 9, "cudnn AttentionForward": 2, "attention_bias": 1, "copy": 0}),
    "vit_b16": (28, {"cublaslt": 9, "cudnn AttentionForward": 2}),
}
"""For each network the most launches, and how many of some kernels there are."""

TRAINING = {
    "resnet50": (184, {"sgd_update": 1, "casts": 1, "batch_norm_train_grad_result": 17, "copy": 0}),
    "bert_base": (120, {"adam_update": 1, "casts": 1, "attention_softmax": 0, "copy": 0}),
}

BATCH = 4


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path):
    """Networks of few layers."""
    monkeypatch.setattr(export, "FOLDER", tmp_path)
    monkeypatch.setattr(resnet, "resnet50", lambda: resnet.ResNet(resnet.Bottleneck, (1, 1, 1, 1)))
    for name, value in {"WIDTH": 128, "HEADS": 2, "DEPTH": 2}.items():
        monkeypatch.setattr(transformer, name, value)


@pytest.fixture
def dry(monkeypatch):
    """Models and compiled functions take the host's arrays for those of a device that does nothing."""
    runner, begin = DryRunner(), Trace.__init__
    monkeypatch.setattr(choice, "runner_of", lambda index: runner)

    def starts(self, **how):
        begin(self, **how)
        self.device = device("cuda:0")

    monkeypatch.setattr(Trace, "__init__", starts)


def check(program, most, kernels):
    assert not program.compiler.refused
    assert launches(program) <= most, str(program)
    assert {name: count(program, name) for name in kernels} == kernels, str(program)


@pytest.mark.parametrize("name", INFERENCE)
def test_inference(name, dry, monkeypatch):
    network = suite.NETWORKS[name]
    model = og.load(export.export(network)).eval()
    model._device, model.precision = device("cuda:0"), "bf16"
    program = caught(monkeypatch, lambda: model.run(network.example(BATCH)))
    check(program, *INFERENCE[name])


@pytest.mark.parametrize("name", TRAINING)
def test_training(name, dry, monkeypatch):
    """In half precision no activation is written in float32 but where a norm or a residual wants it."""
    case = suite.Case("training", name, BATCH, "bfloat16", 1.0)
    program = caught(monkeypatch, lambda: suite.training(case, "cpu"))
    check(program, *TRAINING[name])
    wide = {s.ops for s in program.steps for p in s.writes() if _is_activation(p) and p.operand.dtype == np.float32}
    assert name != "resnet50" or not wide


def _is_activation(p):
    o = p.operand
    return p.storage.kind == "arena" and o.ndim == 4 and o.shape[0] == BATCH and o.shape[2:] != (1, 1)
