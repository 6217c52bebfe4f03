"""Averages of weights: against PyTorch's, and by hand."""

import copy

import numpy as np
import pytest

import onnxgrad as og
from onnxgrad import nn, optim
from onnxgrad.errors import InputError
from onnxgrad.optim import swa_utils

from ..nn.parity import RTOL, apart

RNG = np.random.default_rng(0)
BATCHES = [RNG.standard_normal((6, 3)) for _ in range(4)]


def network(lib):
    net = lib.nn.Sequential(lib.nn.Linear(3, 4), lib.nn.BatchNorm1d(4), lib.nn.Linear(4, 2))
    rng = np.random.default_rng(1)
    with lib.no_grad():
        for p in net.parameters():
            p.copy_(lib.tensor(rng.standard_normal(tuple(p.shape)), dtype=p.dtype))
    return net.double() if lib is og else net.to(lib.float64)


def settings(lib):
    u = lib.optim.swa_utils
    return {
        "equal": {},
        "exponential": {"avg_fn": u.get_ema_avg_fn(0.9)},
        "exponential, all together": {"multi_avg_fn": u.get_ema_multi_avg_fn(0.9)},
        "equal, all together": {"multi_avg_fn": u.get_swa_multi_avg_fn()},
        "equal, buffers too": {"use_buffers": True},
        "own": {"avg_fn": lambda average, now, count: average * 0.5 + now * 0.5 + count},
    }


def averaged(lib, name):
    net = network(lib)
    mean = lib.optim.swa_utils.AveragedModel(net, **settings(lib)[name])
    optimizer = lib.optim.SGD(net.parameters(), lr=0.1)
    for x in BATCHES:
        optimizer.zero_grad()
        (net(lib.tensor(x)) ** 2).mean().backward()
        optimizer.step()
        mean.update_parameters(net)
    return mean


@pytest.mark.oracle
@pytest.mark.parametrize("name", settings(og))
def test_averages_are_pytorchs(compared, name):
    import torch

    ours, theirs = averaged(og, name), averaged(torch, name)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    worst = max(apart(a, b) for a, b in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True))
    assert worst <= RTOL["float64"]
    compared.note("AveragedModel", "float64", worst)
    x = BATCHES[0]
    assert apart(ours.eval()(og.tensor(x)), theirs.eval()(torch.tensor(x))) <= RTOL["float64"]


def test_an_average_is_the_mean_of_what_it_was_shown():
    net = nn.Linear(2, 1, bias=False)
    mean = swa_utils.AveragedModel(net)
    for value in (1.0, 2.0, 6.0):
        nn.init.constant_(net.weight, value)
        mean.update_parameters(net)
    assert mean.module.weight.tolist() == [[3.0, 3.0]] and mean.n_averaged.item() == 3
    assert net.weight.tolist() == [[6.0, 6.0]]


@pytest.mark.oracle
def test_statistics_computed_anew_are_pytorchs():
    import torch

    def statistics(lib):
        net = network(lib).eval()
        lib.optim.swa_utils.update_bn([(lib.tensor(x), 0) for x in BATCHES], net)
        assert not net.training and net[1].momentum == 0.1
        return net.state_dict().values()

    assert max(apart(a, b) for a, b in zip(statistics(og), statistics(torch), strict=True)) <= RTOL["float64"]


def test_statistics_of_a_model_without_any():
    assert swa_utils.update_bn([], nn.Linear(2, 2)) is None


@pytest.mark.oracle
@pytest.mark.parametrize(
    "how", [{"swa_lr": 0.05}, {"swa_lr": [0.05, 0.2], "anneal_epochs": 5, "anneal_strategy": "linear"},
            {"swa_lr": 0.05, "anneal_epochs": 0}],
)  # fmt: skip
def test_rates_are_pytorchs(compared, how):
    import torch

    def rates(lib):
        ps = [lib.ones(1, requires_grad=True) for _ in range(2)]
        optimizer = lib.optim.SGD([{"params": ps[:1]}, {"params": ps[1:], "lr": 0.3}], lr=0.1)
        schedule, seen = lib.optim.swa_utils.SWALR(optimizer, **how), []
        for n in range(30):
            seen.append(schedule.get_last_lr())
            if n == 3:
                saved = copy.deepcopy((optimizer.state_dict(), schedule.state_dict()))
                schedule = lib.optim.swa_utils.SWALR(optimizer, **how)
                optimizer.load_state_dict(saved[0])
                schedule.load_state_dict(saved[1])
            optimizer.step()
            schedule.step()
        return np.array(seen)

    np.testing.assert_allclose(rates(og), rates(torch), rtol=1e-10)
    compared.note("SWALR", "float64", float(np.abs(rates(og) - rates(torch)).max()))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda o: swa_utils.get_ema_avg_fn(1.5), InputError, "Invalid decay value 1.5 provided"),
        (lambda o: swa_utils.SWALR(o, 0.1, anneal_strategy="x"), InputError, "anneal_strategy must be one of"),
        (lambda o: swa_utils.SWALR(o, 0.1, anneal_epochs=-1), InputError, "anneal_epochs must be equal or greater"),
        (
            lambda o: swa_utils.AveragedModel(nn.Linear(1, 1), avg_fn=abs, multi_avg_fn=abs),
            AssertionError,
            "Only one of avg_fn and multi_avg_fn should be provided",
        ),
    ],
)
def test_what_is_refused(make, error, message):
    with pytest.raises(error, match=message):
        make(optim.SGD([og.ones(1, requires_grad=True)], lr=0.1))
