"""L-BFGS against PyTorch's, and on functions whose minimum is known."""

import numpy as np
import pytest

import onnxgrad as og
from onnxgrad import optim
from onnxgrad.errors import TrainingError

from ..nn.parity import RTOL, apart

SETTINGS = [
    {"lr": 0.5, "max_iter": 4},
    {"lr": 1, "max_iter": 4, "history_size": 2, "line_search_fn": "strong_wolfe"},
    {"lr": 1, "max_iter": 5, "max_eval": 4, "line_search_fn": "strong_wolfe"},
    {"lr": 0.3, "max_iter": 3, "tolerance_change": 1e-4, "tolerance_grad": 1e-2},
]
pytestmark = pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad=True")
EXACT = {"tolerance_grad": 1e-12, "tolerance_change": 1e-16}
RNG = np.random.default_rng(0)
A, B = RNG.standard_normal((6, 4)), RNG.standard_normal((6,))


def steps(lib, dtype, settings, of=None, times=2):
    kind = getattr(lib, dtype)
    starts = [np.full(3, 0.5), np.array(-0.2)] if of is None else of
    ps = [lib.tensor(s, dtype=kind, requires_grad=True) for s in starts]
    a, b = lib.tensor(A, dtype=kind), lib.tensor(B, dtype=kind)
    optimizer = lib.optim.LBFGS(ps, **settings)

    def closure():
        optimizer.zero_grad()
        x = lib.cat([ps[0], ps[1].reshape(1)])
        loss = ((a @ x - b) ** 2).sum() + 0.1 * (x**4).sum()
        loss.backward()
        return loss

    losses = [float(optimizer.step(closure)) for _ in range(times)]
    return optimizer, ps, losses, closure


@pytest.mark.oracle
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_steps_are_pytorchs(compared, settings, dtype):
    import torch

    mine, ours, losses, _ = steps(og, dtype, settings)
    other, theirs, wanted, _ = steps(torch, dtype, settings)
    worst = max(apart(a, b) for a, b in zip(ours, theirs, strict=True))
    assert worst <= RTOL[dtype] and losses == pytest.approx(wanted, rel=RTOL[dtype])
    compared.note("LBFGS", dtype, worst)
    a, b = mine.state[ours[0]], other.state[theirs[0]]
    assert {**a, "al": 0}.keys() == {**b, "al": 0}.keys()
    assert (a["n_iter"], a["func_evals"]) == (b["n_iter"], b["func_evals"])


@pytest.mark.oracle
def test_pytorchs_state_goes_on_with_the_same_numbers():
    import torch

    settings = SETTINGS[0]
    other, theirs, _, closure = steps(torch, "float64", settings, times=2)
    saved = other.state_dict()

    def plain(v):
        if isinstance(v, list):
            return [plain(w) for w in v]
        return v.numpy().copy() if hasattr(v, "numpy") else v

    saved["state"] = {i: {k: plain(v) for k, v in s.items()} for i, s in saved["state"].items()}
    starts = [p.detach().numpy().copy() for p in theirs]
    mine, ours, _, mine_closure = steps(og, "float64", settings, starts, times=0)
    mine.load_state_dict(saved)
    mine.step(mine_closure)
    other.step(closure)
    assert max(apart(a, b) for a, b in zip(ours, theirs, strict=True)) < 1e-10


@pytest.mark.parametrize("line_search", [None, "strong_wolfe"])
def test_a_quadratic_is_solved(line_search):
    x = og.zeros(4, dtype=og.float64, requires_grad=True)
    optimizer = optim.LBFGS([x], lr=1 if line_search else 0.5, max_iter=80, line_search_fn=line_search, **EXACT)
    a, b = og.tensor(A, dtype=og.float64), og.tensor(B, dtype=og.float64)

    def closure():
        optimizer.zero_grad()
        loss = ((a @ x - b) ** 2).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    np.testing.assert_allclose(x.detach().numpy(), np.linalg.lstsq(A, B, rcond=None)[0], rtol=1e-5)


def test_rosenbrocks_valley_is_walked_through():
    x = og.tensor([-1.5, 2.0], dtype=og.float64, requires_grad=True)
    optimizer = optim.LBFGS([x], max_iter=100, line_search_fn="strong_wolfe", **EXACT)

    def closure():
        optimizer.zero_grad()
        loss = (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2
        loss.backward()
        return loss

    optimizer.step(closure)
    np.testing.assert_allclose(x.detach().numpy(), [1.0, 1.0], rtol=1e-6)


def test_another_line_search_is_refused():
    x = og.ones(2, requires_grad=True)
    with pytest.raises(TrainingError, match="only 'strong_wolfe' is supported"):
        optim.LBFGS([x], line_search_fn="armijo").step(lambda: (x * x).sum())
