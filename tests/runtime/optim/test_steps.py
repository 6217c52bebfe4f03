"""Steps of every optimizer: against PyTorch's, against closed forms, and compiled against eager."""

import math

import numpy as np
import pytest

import onnxgrad as og
from onnxgrad import optim

from ..nn.parity import RTOL, apart

SETTINGS = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.9}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.01}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    ("SGD", {"lr": 0.1, "maximize": True, "foreach": True}),
    ("Adam", {"lr": 0.05}),
    ("Adam", {"lr": 0.05, "betas": (0.8, 0.9), "eps": 1e-4, "weight_decay": 0.1}),
    ("Adam", {"lr": 0.05, "amsgrad": True, "maximize": True}),
    ("Adam", {"lr": 0.05, "weight_decay": 0.1, "decoupled_weight_decay": True}),
    ("AdamW", {"lr": 0.05}),
    ("AdamW", {"lr": 0.05, "weight_decay": 0.2, "amsgrad": True}),
    ("NAdam", {}),
    ("NAdam", {"lr": 0.05, "betas": (0.8, 0.9), "weight_decay": 0.1, "momentum_decay": 0.01, "maximize": True}),
    ("NAdam", {"lr": 0.05, "weight_decay": 0.1, "decoupled_weight_decay": True}),
    ("RAdam", {"lr": 0.05}),
    ("RAdam", {"lr": 0.05, "betas": (0.8, 0.99), "weight_decay": 0.1, "maximize": True}),
    ("RAdam", {"lr": 0.05, "weight_decay": 0.1, "decoupled_weight_decay": True}),
    ("Adamax", {}),
    ("Adamax", {"lr": 0.05, "betas": (0.8, 0.9), "eps": 1e-4, "weight_decay": 0.1, "maximize": True}),
    ("RMSprop", {}),
    ("RMSprop", {"lr": 0.05, "alpha": 0.9, "momentum": 0.5, "weight_decay": 0.1}),
    ("RMSprop", {"lr": 0.05, "centered": True, "eps": 1e-4}),
    ("RMSprop", {"lr": 0.05, "centered": True, "eps": 1e-4, "momentum": 0.5, "maximize": True}),
    ("Adagrad", {"lr": 0.1}),
    ("Adagrad", {"lr": 0.1, "lr_decay": 0.1, "weight_decay": 0.1, "initial_accumulator_value": 0.5, "eps": 1e-3}),
    ("Adagrad", {"maximize": True}),
    ("Adadelta", {}),
    ("Adadelta", {"lr": 0.5, "rho": 0.8, "eps": 1e-4, "weight_decay": 0.1, "maximize": True}),
    ("Rprop", {"lr": 0.05}),
    ("Rprop", {"lr": 0.05, "etas": (0.3, 1.4), "step_sizes": (1e-3, 0.1), "maximize": True}),
    ("ASGD", {"lr": 0.05}),
    ("ASGD", {"lr": 0.05, "lambd": 0.1, "alpha": 0.5, "t0": 3, "weight_decay": 0.1, "maximize": True}),
]
LION = [("Lion", {"lr": 0.05}), ("Lion", {"lr": 0.05, "betas": (0.8, 0.95), "weight_decay": 0.2, "maximize": True})]
RNG = np.random.default_rng(0)
STARTS = [RNG.standard_normal(shape) for shape in ((3, 4), (5,), (), (2, 1, 3))]
FACTORS = [[RNG.standard_normal(a.shape) for a in STARTS] for _ in range(10)]


def parameters(lib, dtype, of=STARTS):
    return [lib.tensor(a, dtype=getattr(lib, dtype), requires_grad=True) for a in of]


def groups(ps):
    return [{"params": ps[:3]}, {"params": ps[3:], "lr": 0.01}]


def run(lib, optimizer, ps, steps=FACTORS):
    for factors in steps:
        optimizer.zero_grad()
        loss = sum((p.sin() * lib.tensor(f, dtype=p.dtype)).sum() for p, f in zip(ps, factors, strict=True))
        loss.backward()
        optimizer.step()


def arrays(ps):
    return [p.detach().numpy() for p in ps]


@pytest.mark.oracle
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("name", "settings"), SETTINGS, ids=str)
def test_ten_steps_are_pytorchs(compared, name, settings, dtype):
    import torch

    ours, theirs = (parameters(lib, dtype) for lib in (og, torch))
    held = [p.array for p in ours]
    mine = getattr(optim, name)(groups(ours), **settings)
    other = getattr(torch.optim, name)(groups(theirs), **settings)
    run(og, mine, ours)
    run(torch, other, theirs)
    pairs = list(zip(arrays(ours), arrays(theirs), strict=True))
    for p, q in zip(ours, theirs, strict=True):
        assert list(mine.state.get(p, {})) == list(other.state.get(q, {}))
        pairs += [(v, other.state[q][k]) for k, v in mine.state.get(p, {}).items()]
    assert list(mine.state_dict()["state"]) == list(other.state_dict()["state"])
    worst = max(apart(a, b) for a, b in pairs)
    assert worst <= RTOL[dtype]
    compared.note(name, dtype, worst)
    assert all(p.array is a and p._version == 10 for p, a in zip(ours, held, strict=True))
    assert repr(mine) == repr(other)


@pytest.mark.oracle
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("name", "settings"), SETTINGS, ids=str)
def test_pytorchs_state_goes_on_with_the_same_numbers(name, settings, dtype):
    import torch

    theirs = parameters(torch, dtype)
    other = getattr(torch.optim, name)(groups(theirs), **settings)
    run(torch, other, theirs, FACTORS[:5])
    saved = other.state_dict()
    saved["state"] = {i: {k: v.numpy().copy() for k, v in s.items()} for i, s in saved["state"].items()}
    ours = parameters(og, dtype, arrays(theirs))
    mine = getattr(optim, name)(groups(ours), lr=1.0)
    mine.load_state_dict(saved)
    assert mine.state_dict()["param_groups"] == other.state_dict()["param_groups"]
    resumed = getattr(torch.optim, name)(groups(theirs), lr=1.0)
    resumed.load_state_dict(other.state_dict())
    run(torch, resumed, theirs, FACTORS[5:])
    run(og, mine, ours, FACTORS[5:])
    assert max(apart(a, b) for a, b in zip(arrays(ours), arrays(theirs), strict=True)) <= RTOL[dtype]


@pytest.mark.parametrize(("name", "settings"), SETTINGS + LION, ids=str)
def test_a_saved_state_goes_on_the_same(name, settings):
    ps = parameters(og, "float32")
    one = getattr(optim, name)(groups(ps), **settings)
    run(og, one, ps, FACTORS[:5])
    qs = parameters(og, "float32", arrays(ps))
    two = getattr(optim, name)(groups(qs), lr=1.0)
    two.load_state_dict(one.state_dict())
    run(og, one, ps, FACTORS[5:])
    run(og, two, qs, FACTORS[5:])
    for a, b in zip(arrays(ps), arrays(qs), strict=True):
        np.testing.assert_array_equal(a, b)


def first_steps(g, p=0.7):
    """Return p after the first step of each optimizer from the definition, with a gradient g."""
    m = math.fabs(g)
    mu, after = (0.9 * (1 - 0.5 * 0.96 ** (n * 4e-3)) for n in (1, 2))
    return {
        "SGD": p - 0.1 * g,
        "Adam": p - 0.1 * g / (m + 1e-8),
        "AdamW": p * (1 - 0.1 * 0.01) - 0.1 * g / (m + 1e-8),
        "NAdam": p - 0.1 * g / (m + 1e-8) - 0.1 * after * 0.1 * g / (1 - mu * after) / (m + 1e-8),
        "RAdam": p - 0.1 * g,
        "Adamax": p - 0.1 * g / (m + 1e-8),
        "Lion": p - 0.1 * math.copysign(1, g),
        "RMSprop": p - 0.1 * g / (math.sqrt(0.01) * m + 1e-8),
        "Adagrad": p - 0.1 * g / (m + 1e-10),
        "Adadelta": p - 0.1 * g * math.sqrt(1e-6) / math.sqrt(0.1 * g * g + 1e-6),
        "Rprop": p - 0.1 * math.copysign(1, g),
        "ASGD": p * (1 - 1e-4 * 0.1) - 0.1 * g,
    }


@pytest.mark.parametrize("g", [0.3, -2.0])
@pytest.mark.parametrize("name", first_steps(1.0))
def test_the_first_step_is_what_the_definition_says(name, g):
    p = og.tensor(0.7, dtype=og.float64, requires_grad=True)
    optimizer = getattr(optim, name)([p], lr=0.1)
    (p * g).backward()
    optimizer.step()
    assert p.item() == pytest.approx(first_steps(g)[name], rel=1e-7)


@pytest.mark.parametrize(("name", "settings"), LION, ids=str)
def test_lion_is_its_papers_algorithm(compared, name, settings):
    lr, (b1, b2) = settings["lr"], settings.get("betas", (0.9, 0.99))
    decay, sign = settings.get("weight_decay", 0), -1 if settings.get("maximize") else 1
    for dtype in RTOL:
        p = og.tensor(STARTS[0], dtype=dtype, requires_grad=True)
        run(og, optim.Lion([p], **settings), [p], [f[:1] for f in FACTORS])
        x, m = STARTS[0].astype(dtype), np.zeros((3, 4), dtype)
        for f in FACTORS:
            g = sign * np.cos(x) * f[0].astype(dtype)
            x = x - lr * (np.sign(b1 * m + (1 - b1) * g) + decay * x)
            m = b2 * m + (1 - b2) * g
        worst = apart(p, x.astype(dtype))
        assert worst <= RTOL[dtype]
        compared.note("Lion (its paper's formula)", dtype, worst)


@pytest.mark.parametrize("engine", ["compiled", "array"])
@pytest.mark.parametrize(("name", "settings"), SETTINGS[11:] + LION, ids=str)
def test_compiled_steps_equal_eager_ones(monkeypatch, engine, name, settings):
    if engine == "array":
        monkeypatch.setenv("ONNXGRAD_CPU", "off")
    ps, qs = parameters(og, "float32"), parameters(og, "float32")
    mine, other = (getattr(optim, name)(groups(x), **settings) for x in (ps, qs))

    def step(ps, optimizer, factors):
        optimizer.zero_grad()
        loss = sum((p.sin() * f).sum() for p, f in zip(ps, factors, strict=True))
        loss.backward()
        optimizer.step()
        return loss

    compiled = og.compile(step)
    for factors in FACTORS[:6]:
        given = [og.tensor(f, dtype=og.float32) for f in factors]
        compiled(ps, mine, given)
        step(qs, other, given)
    assert compiled.compilations == 1
    for p, q in zip(ps, qs, strict=True):
        assert apart(p, q) <= 1e-5
        assert set(mine.state[p]) == set(other.state[q])
        assert all(apart(v, other.state[q][k]) <= 1e-5 for k, v in mine.state[p].items())


@pytest.mark.parametrize("name", sorted({name for name, _ in SETTINGS + LION}))
def test_a_rate_that_is_a_tensor_may_change_in_place(name):
    ps, qs = parameters(og, "float32"), parameters(og, "float32")
    rate = og.tensor(0.1)
    mine, other = getattr(optim, name)(ps, lr=rate), getattr(optim, name)(qs, lr=0.1)
    run(og, mine, ps, FACTORS[:2])
    run(og, other, qs, FACTORS[:2])
    rate.fill_(0.01)
    other.param_groups[0]["lr"] = 0.01
    run(og, mine, ps, FACTORS[2:4])
    run(og, other, qs, FACTORS[2:4])
    for a, b in zip(arrays(ps), arrays(qs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", sorted({name for name, _ in SETTINGS + LION}))
def test_half_precision_steps_are_near_those_in_float64(name, dtype):
    ps, qs = (parameters(og, kind, STARTS[:1]) for kind in (dtype, "float64"))
    for these in (ps, qs):
        optimizer = getattr(optim, name)(
            these, lr=0.05, **({} if name in ("SGD", "Rprop", "ASGD", "Lion") else {"eps": 1e-3})
        )
        run(og, optimizer, these, [f[:1] for f in FACTORS[:3]])
    assert ps[0].dtype == getattr(og, dtype)
    np.testing.assert_allclose(ps[0].detach().numpy().astype(float), qs[0].detach().numpy(), atol=0.05)
