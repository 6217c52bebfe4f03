"""Training on a GPU: compiled steps against eager ones on the CPU, mixed precision, recorded steps, dropout."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import onnxgrad as og
from onnxgrad import nn, optim
from onnxgrad.nn import functional as F
from onnxgrad.runtime.cuda.capture import WARM_UPS
from onnxgrad.runtime.cuda.choice import VARIABLE

from .test_models import Attention, Perceptron, Residual

pytestmark = pytest.mark.gpu

STEPS = WARM_UPS + 6
KINDS = {"cnn": (Residual, (8, 3, 16, 16)), "attention": (Attention, (4, 24, 16)), "dense": (Perceptron, (32, 6))}
OPTIMIZERS = {
    "sgd": ("SGD", {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.01}),
    "adamw": ("AdamW", {"lr": 0.01, "weight_decay": 0.1}),
}


def floats(*shape: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


class Trained:
    """Losses and parameters after some steps, and what ran them."""

    def __init__(
        self, kind: str, optimizer: str, device: str, *, compiled: bool = True, dtype: str | None = None,
        scaler: Any = None, bad: tuple[int, ...] = (), steps: int = STEPS, clip: float | None = None,
    ) -> None:  # fmt: skip
        og.manual_seed(0)
        made, shape = KINDS[kind]
        module = made().to(device)
        name, settings = OPTIMIZERS[optimizer]
        method = getattr(optim, name)(module.parameters(), **settings)

        def step(x: Any, y: Any) -> Any:
            method.zero_grad()
            with og.amp.autocast(dtype or "bfloat16", enabled=dtype is not None):
                out = module(x)
                loss = F.cross_entropy(out, y) if out.ndim == 2 else (out - y).square().mean()
            if scaler is None:
                loss.backward()
                method.step()
            else:
                scaler.scale(loss).backward()
                if clip is not None:
                    scaler.unscale_(method)
                    nn.utils.clip_grad_norm_(module.parameters(), clip)
                scaler.step(method)
                scaler.update()
            return loss

        self.run = og.compile(step) if compiled else step
        self.losses: list[float] = []
        self.scales: list[float] = []
        self.kept: list[list[np.ndarray[Any, Any]]] = []
        for i in range(steps):
            x = floats(*shape, seed=i % 3)
            y = floats(*shape, seed=100) if made is Attention else np.arange(shape[0]) % 4
            if i in bad:
                x.flat[0] = np.inf
            with np.errstate(invalid="ignore"):
                loss = self.run(og.tensor(x, device=device), og.tensor(y, device=device))
            self.losses.append(loss.item())
            self.kept.append([p.detach().cpu().numpy().copy() for p in module.parameters()])
            self.scales.append(scaler.get_scale() if scaler is not None else 1.0)
        self.module, self.parameters, self.optimizer = module, self.kept[-1], method

    @property
    def program(self) -> Any:
        """The program of a compiled step."""
        (program,) = self.run.programs[0].engine._buckets.programs
        return program


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("kind", KINDS)
def test_compiled_steps_leave_what_eager_ones_leave_on_the_cpu(kind, optimizer):
    found = Trained(kind, optimizer, "cuda")
    wanted = Trained(kind, optimizer, "cpu", compiled=False)
    np.testing.assert_allclose(found.losses, wanted.losses, rtol=2e-3, atol=1e-5)
    for a, b in zip(found.parameters, wanted.parameters, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-2, atol=2e-3)
    assert not found.program.compiler.refused, found.program.compiler.refused
    assert found.program.capture.graphs and all(s.capturable for s in found.program.capture.segments)


@pytest.mark.parametrize("kind", KINDS)
def test_eager_steps_do_too(kind):
    found, wanted = (Trained(kind, "adamw", d, compiled=False) for d in ("cuda", "cpu"))
    np.testing.assert_allclose(found.losses, wanted.losses, rtol=2e-3, atol=1e-5)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("kind", KINDS)
def test_recorded_steps_are_those_that_are_not(kind, optimizer, monkeypatch):
    recorded = Trained(kind, optimizer, "cuda")
    assert recorded.program.capture.graphs
    monkeypatch.setenv(VARIABLE, "uncaptured")
    plain = Trained(kind, optimizer, "cuda")
    assert not plain.program.capture.graphs
    assert recorded.losses == plain.losses
    for a, b in zip(recorded.parameters, plain.parameters, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("kind", KINDS)
def test_mixed_precision_learns_as_float32_does(kind, dtype, compiled):
    found = Trained(kind, "sgd", "cuda", compiled=compiled, dtype=dtype)
    wanted = Trained(kind, "sgd", "cpu", compiled=False)
    assert np.isfinite(found.losses).all()
    np.testing.assert_allclose(found.losses, wanted.losses, rtol=0.1, atol=0.05)
    assert all(str(p.dtype) == "float32" for p in found.module.parameters())


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_step_whose_gradients_are_infinite_is_skipped(optimizer, compiled):
    bad = WARM_UPS + 2
    scaler = og.amp.GradScaler(init_scale=2.0**10, growth_interval=100)
    found = Trained("dense", optimizer, "cuda", compiled=compiled, dtype="float16", scaler=scaler, bad=(bad,))
    for before, after in zip(found.kept[bad - 1], found.kept[bad], strict=True):
        np.testing.assert_array_equal(before, after)
    for before, after in zip(found.kept[bad], found.kept[bad + 1], strict=True):
        assert np.isfinite(after).all() and (before != after).any()
    assert found.scales[bad - 1] == 2.0**10 and found.scales[bad] == found.scales[-1] == 2.0**9


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("kind", KINDS)
def test_scaled_and_clipped_steps_leave_what_eager_ones_leave_on_the_cpu(kind, optimizer):
    def trained(device: str, compiled: bool) -> Trained:
        scaler = og.amp.GradScaler(init_scale=2.0**10, growth_interval=3)
        return Trained(kind, optimizer, device, compiled=compiled, scaler=scaler, bad=(0, WARM_UPS + 2), clip=0.1)

    found, wanted = trained("cuda", True), trained("cpu", False)
    assert found.scales == wanted.scales
    for a, b in zip(found.parameters, wanted.parameters, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-2, atol=2e-3)
    names = [s.work.kernel.name for s in found.program.steps if hasattr(s.work, "kernel")]
    assert names.count("gradient_chunks") == names.count("gradient_norm") == 1
    assert not found.program.compiler.refused and all(s.capturable for s in found.program.capture.segments)
    if optimizer == "adamw":
        counts = [s["step"] for s in found.optimizer.state.values()]
        assert all(str(c.device) == "cuda:0" for c in counts) and {c.item() for c in counts} == {STEPS - 2}


def test_replays_see_new_inputs_and_new_sizes():
    og.manual_seed(0)
    module = Residual().eval()
    there = Residual().eval().to("cuda")
    there.load_state_dict(module.state_dict())
    compiled = og.compile(there)
    with og.no_grad():
        for run in range(3 * (WARM_UPS + 3)):
            x = floats(1 + run % 3, 3, 16, 16, seed=run)
            found = compiled(og.tensor(x, device="cuda")).cpu().numpy()
            np.testing.assert_allclose(found, module(og.tensor(x)).numpy(), rtol=1e-3, atol=1e-4)
    programs = [p for traced in compiled.programs for p in traced.engine._buckets.programs]
    assert sum(p.capture.graphs > 0 for p in programs) >= 2, [str(p) for p in programs]


def test_dropout_draws_anew_in_each_replay():
    x = og.ones(64, 1024, device="cuda")

    def draws() -> list[np.ndarray[Any, Any]]:
        og.manual_seed(7)
        f = og.compile(lambda x: F.dropout(x, 0.25, training=True))
        return [f(x).cpu().numpy() for _ in range(WARM_UPS + 4)]

    first, again = draws(), draws()
    for i, a in enumerate(first):
        np.testing.assert_array_equal(a, again[i])
        np.testing.assert_allclose([(a == 0).mean(), a.mean()], [0.25, 1], atol=0.01)
        assert set(np.unique(a)) == {np.float32(0), np.float32(1 / 0.75)}
        assert all((a != b).mean() > 0.3 for b in first[:i])


def test_a_learned_network_goes_back_to_the_cpu():
    trained = Trained("cnn", "adamw", "cuda").module.eval()
    x = floats(2, 3, 16, 16)
    with og.no_grad():
        there = trained(og.tensor(x, device="cuda")).cpu().numpy()
        here = trained.to("cpu")(og.tensor(x)).numpy()
    np.testing.assert_allclose(there, here, rtol=1e-3, atol=1e-4)


class Deep(nn.Module):
    """Layers whose gradients are checked by differences."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(2, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.Linear(16, 3)

    def forward(self, x: Any) -> Any:
        return self.head(F.avg_pool2d(F.gelu(self.norm(self.conv(x))), 2).flatten(1))


def test_gradients_of_gradients_are_the_cpus():
    og.manual_seed(0)
    module = Deep()
    x = floats(2, 2, 4, 4)

    def derivatives(device: str) -> list[np.ndarray[Any, Any]]:
        m = Deep().to(device)
        m.load_state_dict(module.state_dict())
        t = og.tensor(x, device=device, requires_grad=True)
        leaves = [t, *m.parameters()]
        first = og.autograd.grad(m(t).square().sum(), leaves, create_graph=True)
        total = first[0].square().sum()
        for g in first[1:]:
            total = total + g.square().sum()
        second = og.autograd.grad(total, leaves, allow_unused=True)
        return [g.detach().cpu().numpy() for g in (*first, *second) if g is not None]

    for a, b in zip(derivatives("cuda"), derivatives("cpu"), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-3 * np.abs(b).max())
