"""The loss scale against torch.amp.GradScaler, eager and in compiled steps."""

from __future__ import annotations

import copy
import gc
import weakref

import numpy as np
import pytest

import onnxgrad as og
import onnxgrad.nn as nn
import onnxgrad.nn.functional as F
from onnxgrad.amp import GradScaler
from onnxgrad.errors import InputError, TraceError, TrainingError
from onnxgrad.runtime.tensor.tensor import Tensor

OPTIMIZERS = {
    "sgd": ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    "plain": ("SGD", {"lr": 0.1}),
    "dampened": ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.5}),
    "adam": ("Adam", {"lr": 0.01, "weight_decay": 0.01}),
    "adamw": ("AdamW", {"lr": 0.01, "amsgrad": True}),
    "rmsprop": ("RMSprop", {"lr": 0.01, "momentum": 0.5}),
    "adagrad": ("Adagrad", {"lr": 0.05}),
}
BAD = {0: np.inf, 3: np.nan, 4: -np.inf}


def inputs(steps=9):
    rng = np.random.default_rng(0)
    made = [rng.standard_normal((6, 5)).astype(np.float32) for _ in range(steps)]
    for i, value in BAD.items():
        made[i][2, 1] = value
    return made


LABELS = np.array([0, 1, 2, 0, 1, 2])


def network(lib):
    return lib.Sequential(lib.Linear(5, 8), lib.Tanh(), lib.Linear(8, 3))


def ours(kind, weights, compiled, half=False):
    """Return parameters, scales, and optimizer state after some steps, of which some are skipped."""
    model = network(nn)
    model.load_state_dict({k: og.tensor(v) for k, v in weights.items()})
    name, settings = OPTIMIZERS[kind]
    optimizer = getattr(og.optim, name)(model.parameters(), **settings)
    scaler = GradScaler(init_scale=2.0**10, growth_interval=2)
    labels = og.tensor(LABELS)

    def step(x):
        optimizer.zero_grad()
        with og.amp.autocast("float16", enabled=half):
            loss = F.cross_entropy(model(x), labels)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        return loss

    run, scales = (og.compile(step) if compiled else step), []
    with np.errstate(invalid="ignore"):
        for x in inputs():
            run(og.tensor(x))
            scales.append((scaler.get_scale(), scaler._get_growth_tracker()))
    state = {
        i: {k: (v.numpy() if isinstance(v, Tensor) else v) for k, v in s.items()}
        for i, s in optimizer.state_dict()["state"].items()
    }
    return [p.detach().numpy().copy() for p in model.parameters()], scales, state, run


def theirs(torch, kind):
    torch.manual_seed(0)
    model = network(torch.nn)
    weights = {k: v.numpy().copy() for k, v in model.state_dict().items()}
    name, settings = OPTIMIZERS[kind]
    optimizer = getattr(torch.optim, name)(model.parameters(), **settings)
    scaler, scales = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=2), []
    for x in inputs():
        optimizer.zero_grad()
        scaler.scale(torch.nn.functional.cross_entropy(model(torch.tensor(x)), torch.tensor(LABELS))).backward()
        scaler.step(optimizer)
        scaler.update()
        scales.append((scaler.get_scale(), scaler._get_growth_tracker()))
    return [p.detach().numpy() for p in model.parameters()], scales, optimizer.state_dict()["state"], weights


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_steps_and_scales_are_torchs(kind, compiled):
    torch = pytest.importorskip("torch")
    wanted, scales, state, weights = theirs(torch, kind)
    found, own_scales, own_state, run = ours(kind, weights, compiled)
    assert own_scales == scales
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-6)
    for i, pieces in state.items():
        if "step" in pieces:
            assert float(own_state[i]["step"]) == float(pieces["step"]) == len(inputs()) - len(BAD)
    if compiled:
        assert run.compilations == 1


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_with_autocast_compiled_and_eager_agree(kind):
    weights = {k: v.numpy() for k, v in network(nn).state_dict().items()}
    eager, compiled = (ours(kind, weights, c, half=True) for c in (False, True))
    assert eager[1] == compiled[1]
    for a, b in zip(eager[0], compiled[0], strict=True):
        np.testing.assert_allclose(a, b, atol=5e-3)


def made(**how):
    p = og.tensor([1.0, 2.0], requires_grad=True)
    return p, og.optim.SGD([p], lr=1.0), GradScaler(**how)


def test_unscaled_gradients_can_be_clipped():
    p, optimizer, scaler = made(init_scale=8.0)
    scaler.scale((p * og.tensor([3.0, 4.0])).sum()).backward()
    assert p.grad.tolist() == [24, 32]
    scaler.unscale_(optimizer)
    assert p.grad.tolist() == [3, 4]
    nn.utils.clip_grad_norm_([p], 0.5)
    scaler.step(optimizer)
    scaler.update()
    np.testing.assert_allclose(p.detach().numpy(), [1 - 0.3, 2 - 0.4], rtol=1e-6)


def test_what_a_scale_is_put_on():
    scaler = GradScaler(init_scale=4.0)
    a, (b, c) = scaler.scale((og.tensor(1.0), [og.tensor(2.0), og.tensor(3.0)]))
    assert (a.item(), b.item(), c.item()) == (4, 8, 12)
    with pytest.raises(InputError, match="iterable of Tensors"):
        scaler.scale(1.0)
    half = og.tensor(1.0).to(dtype=og.float16)
    assert GradScaler(init_scale=2.0**17).scale(half).item() == 2.0**17


def test_one_scale_for_several_optimizers():
    p, q = og.tensor([1.0], requires_grad=True), og.tensor([1.0], requires_grad=True)
    first, second = og.optim.SGD([p], lr=1.0), og.optim.SGD([q], lr=1.0)
    scaler = GradScaler(init_scale=4.0)
    scaler.scale((p + q * og.tensor([np.inf])).sum()).backward()
    scaler.step(first)
    scaler.step(second)
    scaler.update()
    assert (p.item(), q.item(), scaler.get_scale()) == (0, 1, 2)


def test_the_order_of_calls_is_checked():
    p, optimizer, scaler = made()
    with pytest.raises(TrainingError, match="No inf checks were recorded prior"):
        scaler.update()
    with pytest.raises(TrainingError, match="No inf checks were recorded for this optimizer"):
        scaler.step(optimizer)
    p, optimizer, scaler = made()
    scaler.scale(p.sum()).backward()
    scaler.unscale_(optimizer)
    with pytest.raises(TrainingError, match="already been called on this optimizer"):
        scaler.unscale_(optimizer)
    with pytest.raises(TrainingError, match="Closure"):
        scaler.step(optimizer, closure=lambda: None)
    scaler.step(optimizer)
    for call, said in ((scaler.step, "step\\(\\) has already"), (scaler.unscale_, "after step")):
        with pytest.raises(TrainingError, match=said):
            call(optimizer)
    with pytest.raises(TrainingError, match="pickled at the beginning"):
        copy.deepcopy(scaler)
    scaler.update()
    assert copy.deepcopy(scaler).get_scale() == scaler.get_scale()


def test_gradients_of_float16_are_refused():
    p = og.tensor([1.0]).to(dtype=og.float16).requires_grad_()
    optimizer, scaler = og.optim.SGD([p], lr=1.0), GradScaler(init_scale=2.0)
    scaler.scale(p.sum()).backward()
    with pytest.raises(InputError, match="Attempting to unscale FP16 gradients"):
        scaler.step(optimizer)


def test_settings_and_state():
    torch = pytest.importorskip("torch")
    scaler, reference = GradScaler(), torch.amp.GradScaler("cpu")
    assert scaler.state_dict() == reference.state_dict()
    scaler.set_growth_factor(3.0)
    scaler.set_backoff_factor(0.25)
    scaler.set_growth_interval(7)
    scaler.update(64.0)
    assert (scaler.get_scale(), scaler.get_growth_factor(), scaler.get_backoff_factor()) == (64, 3, 0.25)
    other = GradScaler()
    other.load_state_dict(scaler.state_dict())
    assert other.state_dict() == scaler.state_dict() and other.get_growth_interval() == 7
    reference.load_state_dict(scaler.state_dict())
    other.update(og.tensor([128.0]))
    assert other.get_scale() == 128
    with pytest.raises(InputError, match="1-element"):
        other.update(og.tensor([1.0, 2.0]))
    with pytest.raises(InputError, match="empty"):
        other.load_state_dict({})
    for settings in ({"growth_factor": 1.0}, {"backoff_factor": 1.0}):
        with pytest.raises(InputError, match="factor must be"):
            GradScaler(**settings)


def test_the_scale_stays_finite():
    p, optimizer, scaler = made(init_scale=2.0**127, growth_interval=1)
    scaler.scale((p * 0.0).sum()).backward()
    scaler.step(optimizer)
    scaler.update()
    assert (scaler.get_scale(), scaler._get_growth_tracker()) == (2.0**127, 0)


def test_one_that_is_not_enabled_does_nothing():
    p, optimizer, scaler = made(enabled=False)
    loss = p.sum()
    assert scaler.scale(loss) is loss
    loss.backward()
    scaler.unscale_(optimizer)
    scaler.step(optimizer)
    scaler.update()
    assert p.tolist() == [0, 1] and scaler.get_scale() == 1 and scaler.state_dict() == {}
    assert not scaler.is_enabled()


def test_a_compiled_step_that_cannot_be_is_said():
    p, _, scaler = made()
    optimizer = og.optim.LBFGS([p])

    @og.compile
    def step():
        scaler.scale(p.sum()).backward()
        scaler.step(optimizer)

    with pytest.raises(TraceError, match="has a step of its own"):
        step()
    assert p.grad is None

    other = og.optim.SGD([p], lr=1.0)

    @og.compile
    def half():
        other.zero_grad()
        scaler.scale(p.sum()).backward()
        scaler.step(other)

    half()
    with pytest.raises(TrainingError, match="No inf checks were recorded prior to update"):
        scaler.update()


def test_clipping_in_a_compiled_step():
    def run(compiled):
        p = og.tensor([1.0, 2.0], requires_grad=True)
        optimizer, scaler = og.optim.Adam([p], lr=0.1), GradScaler(init_scale=64.0, growth_interval=3)

        def step(w):
            optimizer.zero_grad()
            scaler.scale((p * w).sum()).backward()
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_([p], 1.0)
            scaler.step(optimizer)
            scaler.update()

        f = og.compile(step) if compiled else step
        for i in range(5):
            f(og.tensor([3.0, np.inf if i == 1 else -4.0]))
        return p.detach().numpy(), scaler.state_dict()

    eager, compiled = run(False), run(True)
    np.testing.assert_allclose(eager[0], compiled[0], rtol=1e-6)
    assert eager[1] == compiled[1]


def test_factors_that_are_set_later_count_in_compiled_steps():
    p, optimizer, scaler = made(init_scale=64.0, growth_interval=1)

    @og.compile
    def step(w):
        optimizer.zero_grad()
        scaler.scale((p * w).sum()).backward()
        scaler.step(optimizer)
        scaler.update()

    scales = []
    for i, w in enumerate([1.0, 1.0, np.inf, 1.0, np.inf]):
        if i == 1:
            scaler.set_growth_factor(4.0)
        if i == 2:
            scaler.load_state_dict({**scaler.state_dict(), "backoff_factor": 0.25, "growth_interval": 3})
        step(og.tensor([w, 2.0]))
        scales.append(scaler.get_scale())
    assert scales == [128, 512, 128, 128, 32] and step.compilations == 1


def test_optimizers_that_are_gone_are_forgotten():
    p, optimizer, scaler = made(init_scale=4.0)
    gone = weakref.ref(optimizer)

    def half():
        mine = og.optim.SGD([p], lr=1.0)
        scaler.scale((p * np.inf).sum()).backward()
        scaler.step(mine)
        return weakref.ref(mine)

    late = half()
    gc.collect()
    assert late() is not None  # its check counts in the coming update
    scaler.update()
    del optimizer
    gc.collect()
    assert late() is None and gone() is None and len(scaler._progress) == 0
    assert scaler.get_scale() == 2
    for _ in range(3):  # an id may come again
        other = og.optim.SGD([p], lr=1.0)
        p.grad = None
        scaler.scale(p.sum()).backward()
        scaler.step(other)
        scaler.update()
        del other
    assert scaler.get_scale() == 2 and p.tolist() == [-2, -1]


def test_copies_go_on_by_themselves():
    p, optimizer, scaler = made(init_scale=4.0)
    scaler.scale(p.sum()).backward()
    scaler.step(optimizer)
    scaler.update()
    other = copy.deepcopy(scaler)
    other.set_growth_interval(2)
    p.grad = None
    other.scale(p.sum()).backward()
    other.step(optimizer)
    other.update()
    assert (scaler.get_scale(), other.get_scale()) == (4, 8)


def test_a_state_of_steps_that_were_counted_elsewhere_goes_on():
    """Counts are one array for all parameters in a compiled step; copies and eager steps have their own."""
    torch = pytest.importorskip("torch")
    weights = theirs(torch, "adam")[3]
    model = network(nn)
    model.load_state_dict({k: og.tensor(v) for k, v in weights.items()})
    optimizer, scaler = og.optim.Adam(model.parameters(), lr=0.01), GradScaler(init_scale=64.0)

    def step(x):
        optimizer.zero_grad()
        scaler.scale(F.cross_entropy(model(x), og.tensor(LABELS))).backward()
        scaler.step(optimizer)
        scaler.update()

    compiled = og.compile(step)
    with np.errstate(invalid="ignore"):
        for x in inputs()[:3]:
            compiled(og.tensor(x))
    saved = optimizer.state_dict()["state"]
    assert {float(s["step"]) for s in saved.values()} == {2}
    step(og.tensor(inputs()[1]))
    assert {float(s["step"]) for s in saved.values()} == {3}
    assert len({id(s["step"]._array) for s in saved.values()}) == len(saved)
    compiled(og.tensor(inputs()[2]))
    assert {float(s["step"]) for s in saved.values()} == {4}
    assert len({id(s["step"]._array) for s in saved.values()}) == 1


def test_gradients_of_no_elements():
    p = og.tensor(np.zeros((0, 3), np.float32), requires_grad=True)
    q = og.tensor([1.0], requires_grad=True)
    optimizer, scaler = og.optim.SGD([p, q], lr=0.5), GradScaler(init_scale=2.0)
    scaler.scale(p.sum() + q.sum()).backward()
    scaler.step(optimizer)
    scaler.update()
    assert q.item() == 0.5
