"""Optimizers and schedules against PyTorch over ten steps."""

import copy

import numpy as np
import pytest

import onnxgrad as og
from onnxgrad import nn, optim
from onnxgrad.ops.errors import AutogradError, InputError, TrainingError

SETTINGS = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.9}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.01}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    ("SGD", {"lr": 0.1, "maximize": True}),
    ("Adam", {"lr": 0.05}),
    ("Adam", {"lr": 0.05, "betas": (0.8, 0.9), "eps": 1e-4, "weight_decay": 0.1}),
    ("Adam", {"lr": 0.05, "amsgrad": True, "maximize": True}),
    ("AdamW", {"lr": 0.05}),
    ("AdamW", {"lr": 0.05, "weight_decay": 0.2, "amsgrad": True}),
]
START = np.random.default_rng(0).standard_normal((3, 4))
FACTORS = np.random.default_rng(1).standard_normal((10, 3, 4))


def run(lib, optimizer, ps, steps=FACTORS):
    for factors in steps:
        optimizer.zero_grad()
        loss = sum((p.sin() * lib.tensor(factors, dtype=p.dtype)).sum() for p in ps)
        loss.backward()
        optimizer.step()


@pytest.mark.oracle
@pytest.mark.parametrize(("name", "settings"), SETTINGS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_ten_steps_equal_pytorch(name, settings, dtype):
    torch = pytest.importorskip("torch")
    p, q = (
        og.tensor(START, dtype=dtype, requires_grad=True),
        og.tensor(START.T.copy().T, dtype=dtype, requires_grad=True),
    )
    tp, tq = (torch.tensor(START, dtype=getattr(torch, dtype), requires_grad=True) for _ in range(2))
    array = p.array
    ours = getattr(optim, name)([{"params": [p]}, {"params": [q], "lr": 0.01}], **settings)
    theirs = getattr(torch.optim, name)([{"params": [tp]}, {"params": [tq], "lr": 0.01}], **settings)
    run(og, ours, [p, q])
    run(torch, theirs, [tp, tq])
    for a, b in ((p, tp), (q, tq)):
        np.testing.assert_allclose(
            a.detach().numpy(),
            b.detach().numpy(),
            rtol=1e-6 if dtype == "float32" else 1e-12,
            atol=1e-6 if dtype == "float32" else 1e-14,
        )
    assert p.array is array and p._version == 10


@pytest.mark.parametrize(("name", "settings"), SETTINGS)
def test_a_saved_state_goes_on_the_same(name, settings):
    p = og.tensor(START, requires_grad=True)
    one = getattr(optim, name)([p], **settings)
    run(og, one, [p], FACTORS[:5])
    q = og.tensor(p.detach().numpy(), requires_grad=True)
    two = getattr(optim, name)([q], lr=1.0)
    two.load_state_dict(copy.deepcopy(one.state_dict()))
    run(og, one, [p], FACTORS[5:])
    run(og, two, [q], FACTORS[5:])
    np.testing.assert_array_equal(p.detach().numpy(), q.detach().numpy())


def test_a_parameter_without_gradient_stays():
    p, q = og.ones(2, requires_grad=True), og.ones(2, requires_grad=True)
    optimizer = optim.Adam([p, q])
    p.sum().backward()
    optimizer.step()
    assert q.tolist() == [1.0, 1.0] and p.tolist() != [1.0, 1.0] and q not in optimizer.state


def test_closure_and_zero_grad():
    p = og.ones(2, requires_grad=True)
    optimizer = optim.SGD([p], lr=0.1)

    def closure():
        optimizer.zero_grad(set_to_none=False)
        loss = (p * p).sum()
        loss.backward()
        return loss

    with og.no_grad():
        assert optimizer.step(closure).item() == 2.0
    assert p.tolist() == pytest.approx([0.8, 0.8])
    optimizer.zero_grad(set_to_none=False)
    assert p.grad.tolist() == [0.0, 0.0]
    optimizer.zero_grad()
    assert p.grad is None


def test_a_step_makes_the_saved_graph_stale():
    p = og.ones(2, requires_grad=True)
    optimizer = optim.SGD([p], lr=0.1)
    y = (p * p).sum()
    y.backward(retain_graph=True)
    optimizer.step()
    with pytest.raises(AutogradError, match="inplace"):
        y.backward()


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda p: optim.SGD([], lr=0.1), InputError, "empty parameter list"),
        (lambda p: optim.SGD(p, lr=0.1), InputError, "iterable"),
        (lambda p: optim.SGD([p, p], lr=0.1), InputError, "more than one parameter group"),
        (lambda p: optim.SGD([p * 2], lr=0.1), AutogradError, "non-leaf"),
        (lambda p: optim.SGD([p], lr=-1), InputError, "Invalid learning_rate"),
        (lambda p: optim.SGD([p], nesterov=True), InputError, "Nesterov"),
        (lambda p: optim.Adam([p], betas=(1.0, 0.9)), InputError, "beta parameter at index 0"),
        (lambda p: optim.SGD([1.0]), InputError, "one of the params is float"),
    ],
)
def test_wrong_settings(make, error, message):
    with pytest.raises(error, match=message):
        make(og.ones(1, requires_grad=True))


def test_load_refuses_other_groups():
    optimizer = optim.SGD([og.ones(1, requires_grad=True)])
    other = optim.SGD([og.ones(1, requires_grad=True), og.ones(1, requires_grad=True)])
    with pytest.raises(InputError, match="doesn't match the size"):
        optimizer.load_state_dict(other.state_dict())


SCHEDULES = [
    ("LambdaLR", {"lr_lambda": lambda n: 0.9**n}),
    ("StepLR", {"step_size": 3, "gamma": 0.5}),
    ("MultiStepLR", {"milestones": [2, 2, 7], "gamma": 0.5}),
    ("ExponentialLR", {"gamma": 0.9}),
    ("LinearLR", {"start_factor": 0.25, "total_iters": 6}),
    ("CosineAnnealingLR", {"T_max": 8, "eta_min": 0.001}),
    ("CosineAnnealingWarmRestarts", {"T_0": 3, "T_mult": 2}),
    ("OneCycleLR", {"max_lr": 0.5, "total_steps": 25}),
    ("OneCycleLR", {"max_lr": [0.5, 0.1], "epochs": 5, "steps_per_epoch": 5, "anneal_strategy": "linear"}),
]


@pytest.mark.oracle
@pytest.mark.parametrize(("name", "settings"), SCHEDULES)
@pytest.mark.parametrize("kind", ["SGD", "AdamW"])
def test_schedules_equal_pytorch(name, settings, kind):
    torch = pytest.importorskip("torch")

    def rates(lib, lr_scheduler):
        ps = [lib.ones(1, requires_grad=True) for _ in range(2)]
        momentum = {"momentum": 0.9} if kind == "SGD" else {}
        optimizer = getattr(lib.optim, kind)([{"params": ps[:1]}, {"params": ps[1:], "lr": 0.3}], lr=0.1, **momentum)
        schedule = getattr(lr_scheduler, name)(optimizer, **settings)
        seen = []
        for _ in range(20):
            optimizer.step()
            schedule.step()
            extra = [g.get("momentum", g.get("betas", (0,))) for g in optimizer.param_groups]
            seen.append([*schedule.get_last_lr(), *np.ravel(extra)])
        return np.array(seen)

    np.testing.assert_allclose(rates(og, optim.lr_scheduler), rates(torch, torch.optim.lr_scheduler), rtol=1e-9)


@pytest.mark.oracle
@pytest.mark.parametrize(
    "settings",
    [{"patience": 1}, {"patience": 0, "cooldown": 2, "threshold_mode": "abs"}, {"mode": "max", "patience": 1}],
)
def test_plateau_equals_pytorch(settings):
    torch = pytest.importorskip("torch")
    values = [5, 4, 4, 4, 3.9999, 3, 3, 3, 3, 3, 2, 2, 2, 2]

    def rates(lib, lr_scheduler):
        optimizer = lib.optim.SGD([lib.ones(1, requires_grad=True)], lr=0.1)
        schedule = lr_scheduler.ReduceLROnPlateau(optimizer, **settings)
        seen = []
        for v in values:
            schedule.step(v)
            seen.append(optimizer.param_groups[0]["lr"])
        return seen

    assert rates(og, optim.lr_scheduler) == pytest.approx(rates(torch, torch.optim.lr_scheduler))


def test_a_schedule_goes_on_from_its_state():
    optimizer = optim.SGD([og.ones(1, requires_grad=True)], lr=0.1)
    one = optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
    for _ in range(4):
        one.step()
    state = copy.deepcopy((optimizer.state_dict(), one.state_dict()))
    one.step()
    other = optim.SGD([og.ones(1, requires_grad=True)], lr=0.1)
    two = optim.lr_scheduler.CosineAnnealingLR(other, 10)
    other.load_state_dict(state[0])
    two.load_state_dict(state[1])
    two.step()
    assert two.get_last_lr() == one.get_last_lr()


@pytest.mark.oracle
@pytest.mark.parametrize("norm", [1.0, 2.0, float("inf")])
def test_clipping_equals_pytorch(norm):
    torch = pytest.importorskip("torch")

    def clipped(lib, clip):
        ps = [
            lib.tensor(START, dtype=lib.float64, requires_grad=True),
            lib.ones(3, dtype=lib.float64, requires_grad=True),
        ]
        sum((p * p).sum() for p in ps).backward()
        total = clip.clip_grad_norm_(ps, 0.5, norm)
        clip.clip_grad_value_(ps, 0.05)
        return [float(total), *(p.grad.numpy() for p in ps)]

    for a, b in zip(clipped(og, nn.utils), clipped(torch, torch.nn.utils), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9)


def test_clipping_says_when_the_norm_is_not_finite():
    p = og.ones(2, requires_grad=True)
    (p * float("inf")).sum().backward()
    with pytest.raises(TrainingError, match="non-finite"):
        nn.utils.clip_grad_norm_([p], 1.0, error_if_nonfinite=True)


def test_training_leaves_nothing_behind():
    import gc

    net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
    optimizer = optim.AdamW(net.parameters())
    x, y = og.randn(4, 8), og.tensor([0, 1, 0, 1])

    def objects_after(steps):
        for _ in range(steps):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            optimizer.step()
        return len(gc.get_objects())

    gc.collect()
    gc.disable()
    try:
        before = objects_after(10)
        assert objects_after(100) - before < 20  # reference counts alone free everything
    finally:
        gc.enable()
