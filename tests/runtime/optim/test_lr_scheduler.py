"""Schedules of the learning rate against PyTorch's, from their states, and what they warn of and refuse."""

import copy
import math

import numpy as np
import pytest

import onnxgrad as og
from onnxgrad import optim
from onnxgrad.errors import InputError, TrainingError
from onnxgrad.optim import lr_scheduler

EPOCHS = 30
NESTED = pytest.mark.filterwarnings("ignore:Detected call of")  # as PyTorch's, where a sequence begins with one


def sequence(lib, o):
    s = lib.optim.lr_scheduler
    first, then = s.LinearLR(o, 0.1, total_iters=5), s.CosineAnnealingLR(o, 10)
    return s.SequentialLR(o, [first, then, s.ExponentialLR(o, 0.9)], [5, 15])


def nested(lib, o):
    s = lib.optim.lr_scheduler
    inner = s.SequentialLR(o, [s.ConstantLR(o, 0.5, 3), s.StepLR(o, 2)], [4])
    return s.SequentialLR(o, [inner, s.PolynomialLR(o, 8, 2.0)], [12])


def chain(lib, o):
    s = lib.optim.lr_scheduler
    return s.ChainedScheduler([s.ConstantLR(o, 0.1, 4), s.ExponentialLR(o, 0.9)], o)


def of(name, **settings):
    return lambda lib, o: getattr(lib.optim.lr_scheduler, name)(o, **settings)


SCHEDULES = {
    "LambdaLR": of("LambdaLR", lr_lambda=lambda n: 0.9**n),
    "LambdaLR-two": of("LambdaLR", lr_lambda=[lambda n: 0.9**n, lambda n: 1 / (1 + n)]),
    "MultiplicativeLR": of("MultiplicativeLR", lr_lambda=lambda n: 0.95 if n % 2 else 1.01),
    "StepLR": of("StepLR", step_size=3, gamma=0.5),
    "MultiStepLR": of("MultiStepLR", milestones=[2, 2, 7, 20], gamma=0.5),
    "ConstantLR": of("ConstantLR", factor=0.25, total_iters=7),
    "LinearLR": of("LinearLR", start_factor=0.25, end_factor=0.75, total_iters=6),
    "ExponentialLR": of("ExponentialLR", gamma=0.9),
    "PolynomialLR": of("PolynomialLR", total_iters=25, power=2.0),
    "CosineAnnealingLR": of("CosineAnnealingLR", T_max=8, eta_min=0.001),
    "CosineAnnealingWarmRestarts": of("CosineAnnealingWarmRestarts", T_0=3, T_mult=2, eta_min=0.01),
    "CosineAnnealingWarmRestarts-1": of("CosineAnnealingWarmRestarts", T_0=7),
    "CyclicLR": of("CyclicLR", base_lr=0.01, max_lr=0.1, step_size_up=4, step_size_down=7),
    "CyclicLR-triangular2": of("CyclicLR", base_lr=0.01, max_lr=[0.1, 0.2], step_size_up=5, mode="triangular2"),
    "CyclicLR-exp_range": of(
        "CyclicLR", base_lr=0.01, max_lr=0.1, step_size_up=4, mode="exp_range", gamma=0.95, cycle_momentum=False
    ),
    "CyclicLR-scale_fn": of(
        "CyclicLR", base_lr=0.01, max_lr=0.1, step_size_up=4, scale_fn=lambda x: 1 / (1 + x), scale_mode="iterations"
    ),
    "OneCycleLR": of("OneCycleLR", max_lr=0.5, total_steps=32),
    "OneCycleLR-linear": of(
        "OneCycleLR", max_lr=[0.5, 0.1], epochs=8, steps_per_epoch=4, anneal_strategy="linear", three_phase=True
    ),
    "SequentialLR": sequence,
    "SequentialLR-nested": nested,
    "ChainedScheduler": chain,
}


def optimizer_of(lib, kind):
    ps = [lib.ones(1, requires_grad=True) for _ in range(2)]
    momentum = {"momentum": 0.9} if kind == "SGD" else {}
    return getattr(lib.optim, kind)([{"params": ps[:1]}, {"params": ps[1:], "lr": 0.3}], lr=0.1, **momentum)


def epochs(schedule, count):
    """Return the rates and momenta of each epoch."""
    seen = []
    for _ in range(count):
        groups = schedule.optimizer.param_groups
        momenta = [g.get("momentum", g.get("betas", (0,))) for g in groups]
        assert list(schedule.get_last_lr()) == [g["lr"] for g in groups]
        seen.append([*schedule.get_last_lr(), *np.ravel(momenta)])
        schedule.optimizer.step()
        schedule.step()
    return np.array(seen)


@NESTED
@pytest.mark.oracle
@pytest.mark.parametrize("kind", ["SGD", "AdamW"])
@pytest.mark.parametrize("name", SCHEDULES)
def test_thirty_epochs_are_pytorchs(compared, name, kind):
    import torch

    ours, theirs = (epochs(SCHEDULES[name](lib, optimizer_of(lib, kind)), EPOCHS) for lib in (og, torch))
    worst = float((np.abs(ours - theirs) / np.maximum(np.abs(theirs), 1e-12)).max())
    assert worst < 1e-10
    compared.note(name.partition("-")[0], "float64", worst)


@NESTED
@pytest.mark.parametrize("name", SCHEDULES)
def test_it_goes_on_from_its_state(name):
    one = SCHEDULES[name](og, optimizer_of(og, "SGD"))
    epochs(one, 11)
    saved = copy.deepcopy((one.optimizer.state_dict(), one.state_dict()))
    other = SCHEDULES[name](og, optimizer_of(og, "SGD"))
    other.optimizer.load_state_dict(saved[0])
    other.load_state_dict(saved[1])
    np.testing.assert_array_equal(epochs(one, 15), epochs(other, 15))


@NESTED
@pytest.mark.oracle
@pytest.mark.parametrize("name", SCHEDULES)
def test_pytorchs_state_goes_on_with_the_same_rates(name):
    import torch

    theirs = SCHEDULES[name](torch, optimizer_of(torch, "SGD"))
    epochs(theirs, 11)
    ours = SCHEDULES[name](og, optimizer_of(og, "SGD"))
    ours.optimizer.load_state_dict(copy.deepcopy(theirs.optimizer.state_dict()))
    ours.load_state_dict(copy.deepcopy(theirs.state_dict()))
    np.testing.assert_allclose(epochs(ours, 15), epochs(theirs, 15), rtol=1e-10)


@pytest.mark.oracle
@pytest.mark.parametrize(
    "name",
    [
        "StepLR",
        "MultiStepLR",
        "ConstantLR",
        "LinearLR",
        "ExponentialLR",
        "PolynomialLR",
        "CosineAnnealingLR",
        "LambdaLR",
    ],
)
def test_an_epoch_may_be_given(name):
    import torch

    def rates(lib):
        schedule = SCHEDULES[name](lib, optimizer_of(lib, "SGD"))
        schedule.optimizer.step()
        with pytest.warns(UserWarning, match="The epoch parameter"):
            return [schedule.step(n) or schedule.get_last_lr() for n in (4, 2, 9, 25)]

    np.testing.assert_allclose(rates(og), rates(torch), rtol=1e-10)


@pytest.mark.oracle
def test_warm_restarts_take_fractions_of_epochs():
    import torch

    def rates(lib):
        schedule = SCHEDULES["CosineAnnealingWarmRestarts"](lib, optimizer_of(lib, "SGD"))
        schedule.optimizer.step()
        return [schedule.step(n / 3) or schedule.get_last_lr() for n in range(40)]

    np.testing.assert_allclose(rates(og), rates(torch), rtol=1e-10)


@pytest.mark.oracle
@pytest.mark.parametrize(
    "settings",
    [
        {"patience": 1},
        {"patience": 0, "cooldown": 2, "threshold_mode": "abs", "min_lr": [0.01, 0.1]},
        {"mode": "max", "patience": 1, "factor": 0.5},
        {"mode": "max", "patience": 1, "threshold_mode": "abs", "threshold": 0.5},
    ],
)
def test_a_plateau_is_pytorchs(compared, settings):
    import torch

    values = [5, 4, 4, 4, 3.9999, 3, 3, 3, 3, 3, 2, 2, 2, 2, 6, 6, 7, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]

    def rates(lib):
        schedule = lib.optim.lr_scheduler.ReduceLROnPlateau(optimizer_of(lib, "SGD"), **settings)
        seen = []
        for n, v in enumerate(values):
            if n == 8:
                saved = copy.deepcopy(schedule.state_dict())
                held = schedule.optimizer
                schedule = lib.optim.lr_scheduler.ReduceLROnPlateau(held)
                schedule.load_state_dict(saved)
            schedule.step(lib.tensor(float(v)))
            seen.append(schedule.get_last_lr())
        return np.array(seen), {k: v for k, v in schedule.state_dict().items() if k != "mode_worse"}

    (ours, state), (theirs, wanted) = rates(og), rates(torch)
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    assert {k: wanted[k] for k in state} == state
    compared.note("ReduceLROnPlateau", "float64", float(np.abs(ours - theirs).max()))


def test_rates_are_what_the_formulas_say():
    schedule = SCHEDULES["CosineAnnealingLR"](og, optimizer_of(og, "SGD"))
    wanted = [0.001 + (0.1 - 0.001) * (1 + math.cos(math.pi * n / 8)) / 2 for n in range(20)]
    np.testing.assert_allclose(epochs(schedule, 20)[:, 0], wanted, rtol=1e-9)


def test_a_rate_that_is_a_tensor_is_overwritten_in_place():
    rate = og.tensor(0.1, dtype=og.float64)
    optimizer = optim.SGD([og.ones(1, requires_grad=True)], lr=rate)
    schedule = lr_scheduler.ExponentialLR(optimizer, 0.5)
    optimizer.step()
    before = schedule.get_last_lr()[0]
    schedule.step()
    assert optimizer.param_groups[0]["lr"] is rate and rate.item() == pytest.approx(0.05)
    assert before.item() == pytest.approx(0.1)


def test_resuming_wants_the_starting_rates():
    with pytest.raises(KeyError, match="param 'initial_lr' is not specified in param_groups"):
        lr_scheduler.StepLR(optimizer_of(og, "SGD"), 3, last_epoch=4)


@pytest.mark.oracle
@pytest.mark.parametrize("name", [n for n in SCHEDULES if "Sequential" not in n and "Chained" not in n])
def test_resuming_by_last_epoch_is_pytorchs(name):
    import torch

    def rates(lib):
        schedule = SCHEDULES[name](lib, optimizer_of(lib, "SGD"))
        epochs(schedule, 6)
        kept = {k: v for k, v in schedule.optimizer.param_groups[0].items() if k != "params"}
        fresh = optimizer_of(lib, "SGD")
        for group in fresh.param_groups:
            group.update(kept)
        make = getattr(lib.optim.lr_scheduler, type(schedule).__name__)
        names = SCHEDULES[name].__closure__[1].cell_contents
        resumed = make(fresh, **names, last_epoch=6)
        return epochs(resumed, 6)

    np.testing.assert_allclose(rates(og), rates(torch), rtol=1e-10)


def test_stepping_before_the_optimizer_is_warned_of():
    schedule = lr_scheduler.StepLR(optimizer_of(og, "SGD"), 3)
    with pytest.warns(UserWarning, match=r"Detected call of `lr_scheduler.step\(\)` before `optimizer.step\(\)`"):
        schedule.step()
    schedule.step()


def test_an_overridden_step_is_warned_of():
    optimizer = optimizer_of(og, "SGD")
    schedule = lr_scheduler.StepLR(optimizer, 3)
    optimizer.step = lambda: None
    with pytest.warns(UserWarning, match="has been overridden after learning rate scheduler"):
        schedule.step()


def test_asking_get_lr_from_outside_is_warned_of():
    schedule = lr_scheduler.StepLR(optimizer_of(og, "SGD"), 3)
    with pytest.warns(UserWarning, match=r"please use `get_last_lr\(\)`"):
        schedule.get_lr()


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda s, o: s.StepLR(3, 3), TypeError, "int is not an Optimizer"),
        (lambda s, o: s.LambdaLR(o, [abs]), InputError, "Expected 2 lr_lambdas, but got 1"),
        (lambda s, o: s.MultiplicativeLR(o, 3), TypeError, "lr_lambda should be a function, but got int"),
        (lambda s, o: s.ConstantLR(o, 1.5), InputError, "Constant multiplicative factor expected"),
        (lambda s, o: s.LinearLR(o, 0.0), InputError, "Starting multiplicative factor expected"),
        (lambda s, o: s.LinearLR(o, 0.5, 2.0), InputError, "Ending multiplicative factor expected"),
        (lambda s, o: s.CosineAnnealingWarmRestarts(o, 0), InputError, "Expected positive integer T_0, but got 0"),
        (lambda s, o: s.CyclicLR(o, 0.1, [1, 2, 3]), InputError, "max_lr must have the same length"),
        (lambda s, o: s.CyclicLR(o, 0.1, 1, mode="x"), InputError, "mode is invalid and scale_fn is None"),
        (lambda s, o: s.OneCycleLR(o, 0.1), InputError, "You must define either total_steps OR"),
        (lambda s, o: s.OneCycleLR(o, 0.1, 0), InputError, "Expected positive integer total_steps, but got 0"),
        (lambda s, o: s.OneCycleLR(o, 0.1, 5, pct_start=2), InputError, "Expected float between 0 and 1 pct_start"),
        (lambda s, o: s.OneCycleLR(o, 0.1, 5, anneal_strategy="x"), InputError, "anneal_strategy must be one of"),
        (lambda s, o: s.SequentialLR(o, [], []), InputError, "expects at least one scheduler"),
        (lambda s, o: s.SequentialLR(o, [s.StepLR(o, 1)], [1]), InputError, "one more than the number of milestone"),
        (lambda s, o: s.ChainedScheduler([s.ReduceLROnPlateau(o)]), InputError, "does not support `ReduceLROnPlateau`"),
        (
            lambda s, o: s.ChainedScheduler([s.StepLR(o, 1), s.StepLR(optimizer_of(og, "SGD"), 1)]),
            InputError,
            "to belong to the same optimizer",
        ),
        (lambda s, o: s.ReduceLROnPlateau(o, factor=1.0), InputError, "Factor should be < 1.0."),
        (lambda s, o: s.ReduceLROnPlateau(o, mode="x"), InputError, "mode x is unknown!"),
        (lambda s, o: s.ReduceLROnPlateau(o, min_lr=[1]), InputError, "expected 2 min_lrs, got 1"),
    ],
)
def test_what_is_refused(make, error, message):
    with pytest.raises(error, match=message):
        make(lr_scheduler, optimizer_of(og, "SGD"))


def test_one_cycle_ends():
    schedule = lr_scheduler.OneCycleLR(optimizer_of(og, "SGD"), 0.1, 3)
    with pytest.raises(InputError, match=r"Tried to step 4 times\. The specified number of total steps is 3"):
        epochs(schedule, 4)


def test_a_momentum_that_is_not_there_cannot_move():
    with pytest.raises(InputError, match="optimizer must support momentum or beta1"):
        lr_scheduler.CyclicLR(optim.Adagrad([og.ones(1, requires_grad=True)]), 0.1, 1)


def test_a_plateau_with_groups_that_came_later():
    optimizer = optimizer_of(og, "SGD")
    schedule = lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, min_lr=[0.01, 0.01])
    optimizer.add_param_group({"params": [og.ones(1, requires_grad=True)]})
    schedule.step(1.0)
    with pytest.raises(TrainingError, match="The number of param groups in the `optimizer`"):
        schedule.step(1.0)
