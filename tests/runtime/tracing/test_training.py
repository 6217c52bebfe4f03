"""Compiled training steps against eager ones and PyTorch's."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import onnxgrad as og
from onnxgrad import nn, optim
from onnxgrad.errors import OpError, TraceError
from onnxgrad.nn import functional as F
from onnxgrad.nn.utils import clip_grad_norm_, clip_grad_value_
from onnxgrad.ops.kernels.cpu.target import available
from onnxgrad.optim import lr_scheduler

RNG = np.random.default_rng(0)

SETTINGS = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.01}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    ("SGD", {"lr": 0.01, "maximize": True}),
    ("Adam", {"lr": 0.01}),
    ("Adam", {"lr": 0.01, "betas": (0.8, 0.9), "eps": 1e-4, "weight_decay": 0.1}),
    ("AdamW", {"lr": 0.01}),
    ("AdamW", {"lr": 0.01, "weight_decay": 0.2, "amsgrad": True}),
]


@pytest.fixture(params=["compiled", "array"])
def engine(request, monkeypatch):
    """Both engines that a traced graph may run on."""
    if request.param == "array":
        monkeypatch.setenv("ONNXGRAD_CPU", "off")
    return request.param


def floats(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


class Block(nn.Module):
    """Attention over a sequence, written out, with layer norms and a residual."""

    def __init__(self):
        super().__init__()
        self.norm, self.qkv, self.out = nn.LayerNorm(8), nn.Linear(8, 24), nn.Linear(8, 8)

    def forward(self, x):
        q, k, v = (t.reshape(x.shape[0], x.shape[1], 2, 4).transpose(1, 2) for t in self.qkv(self.norm(x)).chunk(3, 2))
        weights = ((q @ k.transpose(-2, -1)) * 0.5).softmax(-1)
        return x + self.out((weights @ v).transpose(1, 2).reshape(x.shape[0], x.shape[1], 8))


class Words(nn.Module):
    """A small transformer."""

    def __init__(self):
        super().__init__()
        self.embedding, self.block, self.head = nn.Embedding(11, 8), Block(), nn.Linear(8, 3)

    def forward(self, x):
        return self.head(F.gelu(self.block(self.embedding(x))).mean(1))


def mlp():
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


def cnn():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3, stride=2),
        nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 3),
    )  # fmt: skip


NETWORKS = {
    "mlp": (mlp, lambda n: floats(n, 6)),
    "cnn": (cnn, lambda n: floats(n, 3, 6, 6)),
    "words": (Words, lambda n: RNG.integers(0, 11, (n, 5))),
}


def made(name, seed=0):
    og.manual_seed(seed)
    return NETWORKS[name][0]()


def train_step(model, optimizer, x, y):
    optimizer.zero_grad()
    loss = F.cross_entropy(model(x), y)
    loss.backward()
    optimizer.step()
    return loss


def same(a, b, tol=2e-6):
    for (name, s), t in zip(a.state_dict().items(), b.state_dict().values(), strict=True):
        np.testing.assert_allclose(s.numpy(), t.numpy(), rtol=tol, atol=tol, err_msg=name)


def same_state(a, b, tol=2e-6):
    one, other = a.state_dict()["state"], b.state_dict()["state"]
    assert one.keys() == other.keys()
    for i, state in one.items():
        assert state.keys() == other[i].keys()
        for key, value in state.items():
            found, wanted = getattr(value, "array", value), getattr(other[i][key], "array", other[i][key])
            np.testing.assert_allclose(found, wanted, rtol=tol, atol=tol)


@pytest.mark.parametrize(("name", "settings"), SETTINGS, ids=str)
def test_five_steps_equal_eager_ones(engine, name, settings):
    a, b = made("mlp"), made("mlp")
    mine, theirs = (getattr(optim, name)(m.parameters(), **settings) for m in (a, b))
    plans = [lr_scheduler.StepLR(o, 2, 0.5) for o in (mine, theirs)]
    step = og.compile(train_step)
    arrays = [p.array for p in a.parameters()]
    for _ in range(5):
        x, y = og.tensor(floats(4, 6)), og.tensor(RNG.integers(0, 3, 4))
        assert abs(step(a, mine, x, y).item() - train_step(b, theirs, x, y).item()) < 1e-5
        for plan in plans:
            plan.step()
    same(a, b)
    same_state(mine, theirs)
    assert step.compilations == 1
    assert all(p.array is q and p.grad is None for p, q in zip(a.parameters(), arrays, strict=True))


@pytest.mark.parametrize("network", NETWORKS)
def test_networks_train_alike_with_any_batch_size(engine, network):
    a, b = made(network), made(network)
    # not Adam: some gradients here are 0 but for rounding, which it would blow up
    mine, theirs = (optim.SGD(m.parameters(), lr=0.05, momentum=0.9) for m in (a, b))
    step = og.compile(train_step)
    for n in (4, 6, 3, 5):
        x, y = og.tensor(NETWORKS[network][1](n)), og.tensor(RNG.integers(0, 3, n))
        assert abs(step(a, mine, x, y).item() - train_step(b, theirs, x, y).item()) < 1e-4
    same(a, b, 1e-5)
    assert step.compilations == 2


@pytest.mark.oracle
@pytest.mark.parametrize(("name", "settings"), SETTINGS, ids=str)
def test_five_steps_equal_pytorchs(name, settings):
    torch = pytest.importorskip("torch")
    a = made("mlp")
    t = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    t.load_state_dict({k: torch.tensor(v.numpy()) for k, v in a.state_dict().items()})
    mine = getattr(optim, name)(a.parameters(), **settings)
    theirs = getattr(torch.optim, name)(t.parameters(), **settings)
    step = og.compile(train_step)
    for _ in range(5):
        x, y = floats(4, 6), RNG.integers(0, 3, 4)
        step(a, mine, x, y)
        theirs.zero_grad()
        torch.nn.functional.cross_entropy(t(torch.tensor(x)), torch.tensor(y)).backward()
        theirs.step()
    for p, q in zip(a.parameters(), t.parameters(), strict=True):
        np.testing.assert_allclose(p.array, q.detach().numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("name", "settings"), SETTINGS, ids=str)
def test_compiled_and_eager_steps_may_alternate(name, settings):
    a, b = made("mlp"), made("mlp")
    mine, theirs = (getattr(optim, name)(m.parameters(), **settings) for m in (a, b))
    step = og.compile(train_step)
    for i in range(6):
        x, y = og.tensor(floats(4, 6)), og.tensor(RNG.integers(0, 3, 4))
        (step if i % 3 else train_step)(a, mine, x, y)
        train_step(b, theirs, x, y)
        if i == 3:
            mine.load_state_dict(copy.deepcopy(mine.state_dict()))
    same(a, b)
    same_state(mine, theirs)


def test_dropout_draws_the_numbers_of_eager_steps(engine):
    results = []
    for compiled in (True, False):
        m = nn.Sequential(made("mlp"), nn.Dropout(0.5))
        o = optim.SGD(m.parameters(), lr=0.1)
        step = og.compile(train_step) if compiled else train_step
        og.manual_seed(7)
        rng = np.random.default_rng(1)
        data = [(rng.standard_normal((4, 6)).astype(np.float32), rng.integers(0, 3, 4)) for _ in range(3)]
        results.append([step(m, o, og.tensor(x), og.tensor(y)).item() for x, y in data])
    np.testing.assert_allclose(*results, rtol=1e-5)
    assert len({round(v, 6) for v in results[0]}) == 3


def test_frozen_parameters_stay_and_thawing_compiles_anew():
    a = made("mlp")
    o = optim.SGD(a.parameters(), lr=0.1, momentum=0.9)
    first = next(iter(a.parameters()))
    first.requires_grad_(False)
    before = first.array.copy()
    step, x, y = og.compile(train_step), floats(4, 6), RNG.integers(0, 3, 4)
    step(a, o, x, y)
    np.testing.assert_array_equal(first.array, before)
    assert first not in o.state
    first.requires_grad_(True)
    step(a, o, x, y)
    assert not np.array_equal(first.array, before) and step.compilations == 2


def test_gradients_where_the_function_ends_after_backward(engine):
    a, b = made("mlp"), made("mlp")

    def backward(m, x, y):
        loss = F.cross_entropy(m(x), y)
        loss.backward()
        return loss

    compiled = og.compile(backward)
    for _ in range(3):  # they add up
        x, y = og.tensor(floats(4, 6)), og.tensor(RNG.integers(0, 3, 4))
        compiled(a, x, y)
        backward(b, x, y)
        for p, q in zip(a.parameters(), b.parameters(), strict=True):
            np.testing.assert_allclose(p.grad.array, q.grad.array, rtol=1e-5, atol=1e-6)
    assert compiled.compilations == 2
    a.zero_grad()
    b.zero_grad()
    compiled(a, x, y)
    backward(b, x, y)
    np.testing.assert_allclose(
        next(iter(a.parameters())).grad.array, next(iter(b.parameters())).grad.array, rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("keep", [False, True])
def test_gradients_that_a_step_has_used(keep):
    a = made("mlp")
    o = optim.SGD(a.parameters(), lr=0.1)
    og.compile(train_step, keep_grads=keep)(a, o, floats(4, 6), RNG.integers(0, 3, 4))
    assert all((p.grad is not None) is keep for p in a.parameters())


def test_gradients_that_nobody_drops_add_up_as_in_eager_steps():
    def step(m, o, x, y):
        loss = F.cross_entropy(m(x), y)
        loss.backward()
        o.step()
        return loss

    a, b = made("mlp"), made("mlp")
    mine, theirs = (optim.SGD(m.parameters(), lr=0.1) for m in (a, b))
    compiled = og.compile(step)
    for _ in range(4):
        x, y = og.tensor(floats(4, 6)), og.tensor(RNG.integers(0, 3, 4))
        compiled(a, mine, x, y)
        step(b, theirs, x, y)
    same(a, b, 1e-5)


@pytest.mark.parametrize(
    "clip",
    [
        lambda ps: clip_grad_norm_(ps, 0.1),
        lambda ps: clip_grad_norm_(ps, 100.0),
        lambda ps: clip_grad_norm_(ps, 0.1, float("inf")),
        lambda ps: clip_grad_norm_(ps, 0.1, 1.0),
        lambda ps: clip_grad_norm_(ps, 0.1, 3.0),
        lambda ps: clip_grad_value_(ps, 0.01),
    ],
)
def test_clipped_gradients(clip):
    def step(m, o, x, y):
        o.zero_grad()
        F.cross_entropy(m(x), y).backward()
        norm = clip(list(m.parameters()))
        o.step()
        return norm

    a, b = made("mlp"), made("mlp")
    mine, theirs = (optim.SGD(m.parameters(), lr=0.5) for m in (a, b))
    compiled = og.compile(step)
    for _ in range(3):
        x, y = og.tensor(floats(4, 6)), og.tensor(RNG.integers(0, 3, 4))
        found, wanted = compiled(a, mine, x, y), step(b, theirs, x, y)
        assert found is None or abs(found.item() - wanted.item()) < 1e-5
    same(a, b)


def test_a_bad_label_leaves_everything_as_it_was():
    a = made("mlp")
    o = optim.SGD(a.parameters(), lr=0.1, momentum=0.9)
    step, x = og.compile(train_step), floats(4, 6)
    step(a, o, x, np.array([0, 1, 2, 0]))
    before = {k: t.array.copy() for k, t in a.state_dict().items()}
    with pytest.raises(OpError, match="index"):
        step(a, o, x, np.array([0, 1, 7, 0]))
    for key, t in a.state_dict().items():
        np.testing.assert_array_equal(t.array, before[key])
    assert np.isfinite(step(a, o, x, np.array([0, 1, 2, 0])).item())


def test_an_optimizer_without_a_compiled_step_says_so():
    class Mine(optim.SGD):
        def _trace(self, *args):
            return super(optim.SGD, self)._trace(*args)

    a = made("mlp")
    with pytest.raises(TraceError, match="Mine has no compiled step"):
        og.compile(train_step)(a, Mine(a.parameters(), lr=0.1), floats(4, 6), RNG.integers(0, 3, 4))


def test_two_steps_inside_one_function_are_refused():
    def twice(m, o, x, y):
        train_step(m, o, x, y)
        return train_step(m, o, x, y)

    a = made("mlp")
    with pytest.raises(TraceError, match="steps twice"):
        og.compile(twice)(a, optim.Adam(a.parameters()), floats(4, 6), RNG.integers(0, 3, 4))


def test_parameters_are_written_in_place():
    if not available():
        pytest.skip("the compiled engine is off")
    a = made("cnn")
    o = optim.Adam(a.parameters())
    program = og.compile(train_step).program(a, o, floats(4, 3, 6, 6), RNG.integers(0, 3, 4))
    trained = {id(p) for p in a.parameters()}
    assert all(u.in_place for u in program.updates if not isinstance(u.target, og.Tensor) or id(u.target) in trained)
    assert program.engine.program.compiler.refused == []


@pytest.mark.parametrize("batches", [(2, 2, 2), (2, 3, 4)])
def test_imported_models_train_alike(engine, batches):
    from ...importers.models import cnn as file
    from ..model.test_model import image, loaded

    a, b = loaded(file()), loaded(file())
    for m in (a, b):
        m.train()
    mine, theirs = (optim.SGD(m.parameters(), lr=0.05, momentum=0.9) for m in (a, b))

    def step(m, o, feeds):
        o.zero_grad()
        out = m(**feeds)
        loss = (out * out).mean()
        loss.backward()
        o.step()
        return loss, out

    compiled = og.compile(step)
    name = a.inputs[0].name
    for i, n in enumerate(batches):
        x = image(n, i)
        og.manual_seed(i)
        loss, out = compiled(a, mine, {name: x})
        og.manual_seed(i)
        wanted, other = step(b, theirs, {name: og.tensor(x)})
        assert abs(loss.item() - wanted.item()) < 1e-4
        np.testing.assert_allclose(out.numpy(), other.detach().numpy(), rtol=1e-3, atol=1e-4)
    same(a, b, 1e-4)
    assert compiled.compilations <= 2
    x = image(2, 9)
    a.eval()
    np.testing.assert_allclose(a.run({name: x})[0], a(x).detach().numpy(), rtol=1e-3, atol=1e-4)


def test_logits_and_frozen_parts_of_imported_models(engine):
    from ...importers.models import cnn as file
    from ..model.test_model import image, loaded

    a, b = loaded(file()), loaded(file())
    for m in (a, b):
        m.train()
        first = next(n for n, _ in m.named_parameters())
        m.freeze(first)

    def step(m, o, x, y):
        o.zero_grad()
        loss = F.cross_entropy(m.logits(x).flatten(1), y)
        loss.backward()
        o.step()
        return loss

    mine, theirs = (optim.SGD(m.parameters(), lr=0.05) for m in (a, b))
    frozen = dict(a.named_parameters())[first].array.copy()
    compiled = og.compile(step)
    for i in range(3):
        x, y = image(3, i), np.array([0, 1, 0])
        og.manual_seed(i)
        found = compiled(a, mine, x, y).item()
        og.manual_seed(i)
        assert found == pytest.approx(step(b, theirs, og.tensor(x), og.tensor(y)).item(), rel=1e-4)
    same(a, b, 1e-4)
    np.testing.assert_array_equal(dict(a.named_parameters())[first].array, frozen)
