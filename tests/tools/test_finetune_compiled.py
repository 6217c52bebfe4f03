"""Finetuning with compiled steps: the same numbers as without, and a warning where steps cannot be compiled."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import onnxgrad as og
from onnxgrad.importers.onnx.build import Layer
from onnxgrad.nn import functional as F
from onnxgrad.ops.errors import InputError
from onnxgrad.tools.finetune import finetune
from onnxgrad.tools.finetune.step import CompiledStep

from .small_models import bars, cnn, state_of

DATA = bars(60)


def tuned(make, compile, monkeypatch, **kwargs):
    """Return the history and the weights, and how many steps ran compiled."""
    steps = []
    call = CompiledStep.__call__

    def counted(self, x, y):
        made = call(self, x, y)
        steps.append(made is not None)
        return made

    monkeypatch.setattr(CompiledStep, "__call__", counted)
    given = {"epochs": 3, "batch_size": 16, "lr": 1e-2, "progress": False, "optimizer": "sgd", "schedule": "cosine"}
    model = make()
    history = finetune(model, DATA, compile=compile, **{**given, **kwargs}).history
    monkeypatch.setattr(CompiledStep, "__call__", call)
    return history, state_of(model), sum(steps), len(steps)


@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"optimizer": lambda ps: og.optim.AdamW(ps, lr=1e-3, eps=1e-2), "schedule": "constant"},
        {"clip_norm": 0.1},
        {"train": "head"},
        {"train": "head", "augment": lambda x, rng: x + rng.normal(0, 0.1, x.shape).astype(x.dtype)},
        {"batch_size": 7},
    ],
    ids=lambda kwargs: ", ".join(kwargs) or "defaults",
)
@pytest.mark.parametrize("engine", ["compiled", "array"])
def test_compiled_steps_train_alike(engine, kwargs, monkeypatch):
    if engine == "array":
        monkeypatch.setenv("ONNXGRAD_CPU", "off")

    def make():
        return cnn(Layer("dropout"), Layer("gemm", 3))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        history, state, compiled, steps = tuned(make, None, monkeypatch, **kwargs)
        wanted, other, none, _ = tuned(make, False, monkeypatch, **kwargs)
    assert compiled == steps > 5 and none == 0
    for a, b in zip(history, wanted, strict=True):
        assert a.get("loss", 0) == pytest.approx(b.get("loss", 0), rel=1e-3, abs=1e-4)
    for name, value in other.items():
        np.testing.assert_allclose(state[name], value, rtol=2e-3, atol=2e-4 * max(1, np.abs(value).max()))


def test_a_loss_of_ones_own_is_compiled_on_request(monkeypatch):
    def loss(out, y):
        return F.cross_entropy(out, y, label_smoothing=0.1)

    assert tuned(cnn, None, monkeypatch, loss=loss)[3] == 0
    _, _, compiled, steps = tuned(cnn, True, monkeypatch, loss=loss)
    assert compiled == steps > 5


def test_a_step_that_is_no_graph_runs_op_by_op_with_a_warning(monkeypatch):
    def loss(out, y):
        return F.cross_entropy(out, y) * (2.0 if out.max() > 1e9 else 1.0)

    with pytest.warns(RuntimeWarning, match="training runs uncompiled.*bool"):
        history, _, compiled, steps = tuned(cnn, True, monkeypatch, loss=loss)
    assert compiled == 0 and steps > 5 and history[-1]["loss"] < history[1]["loss"]


def test_a_wrong_target_of_a_later_batch_is_an_error():
    x, y = DATA
    y = y.copy()
    y[-1] = 9
    with pytest.raises(InputError, match=r"target 9.*3 classes.*replace_head\(10\)"):
        finetune(cnn(), (x, y), val_split=0, epochs=1, batch_size=4, progress=False)


class Net(og.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = og.nn.Linear(int(np.prod(DATA[0].shape[1:])), 3)

    def forward(self, x):
        return self.linear(og.as_tensor(x).flatten(1))


def test_a_module_of_ones_own():
    found = []
    for compile in (True, False):
        og.manual_seed(0)
        model = Net()
        finetune(model, DATA, compile=compile, epochs=2, batch_size=16, progress=False)
        found.append([p.array for p in model.parameters()])
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
