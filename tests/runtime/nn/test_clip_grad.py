"""Gradients kept within bounds: against PyTorch's, eager and compiled."""

import numpy as np
import pytest

import onnxgrad as og
from onnxgrad import nn, optim
from onnxgrad.errors import TraceError, TrainingError

from .parity import RTOL, apart

RNG = np.random.default_rng(0)
STARTS = [RNG.standard_normal((3, 4)), RNG.standard_normal(3), np.zeros(2)]
NORMS = [1.0, 2.0, 3.5, float("inf"), -float("inf"), 0]


def parameters(lib, dtype, starts=STARTS):
    ps = [lib.tensor(a, dtype=getattr(lib, dtype), requires_grad=True) for a in starts]
    sum((p * p).sum() for p in ps).backward()
    return [*ps, lib.ones(2, requires_grad=True)]


@pytest.mark.oracle
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("max_norm", [0.5, 1e6])
@pytest.mark.parametrize("norm", NORMS)
def test_clipping_is_pytorchs(compared, norm, max_norm, dtype):
    import torch

    starts = STARTS if norm != -float("inf") else STARTS[:2]
    found = []
    for lib in (og, torch):
        ps = parameters(lib, dtype, starts)
        u = lib.nn.utils
        total = u.clip_grad_norm_(ps, max_norm, norm)
        again = u.get_total_norm([p.grad for p in ps if p.grad is not None], norm)
        u.clip_grads_with_norm_(ps[0], 0.1, total)
        u.clip_grad_value_(ps, 0.05)
        found.append([total, again, *(p.grad for p in ps[:-1])])
    worst = max(apart(a, b) for a, b in zip(*found, strict=True))
    assert worst <= RTOL[dtype]
    compared.note("clip_grad_norm_", dtype, worst)


@pytest.mark.parametrize("norm", [n for n in NORMS if n])
def test_all_gradients_together_are_scaled(norm):
    ps = parameters(og, "float64", STARTS[:2])[:-1]
    flat = np.concatenate([p.grad.numpy().ravel() for p in ps])
    total = nn.utils.clip_grad_norm_(ps, 0.25, norm)
    assert total.item() == pytest.approx(np.linalg.norm(flat, norm))
    after = np.concatenate([p.grad.numpy().ravel() for p in ps])
    np.testing.assert_allclose(after, flat * min(1.0, 0.25 / (total.item() + 1e-6)))


def test_a_norm_that_is_not_finite():
    p = og.ones(2, requires_grad=True)
    (p * float("inf")).sum().backward()
    message = "The total norm of order 2.0 for gradients from `parameters` is non-finite, so it cannot be clipped"
    with pytest.raises(TrainingError, match=message):
        nn.utils.clip_grad_norm_([p], 1.0, error_if_nonfinite=True)
    assert nn.utils.clip_grad_norm_(p, 1.0).item() == float("inf")


def test_nothing_to_clip():
    assert nn.utils.clip_grad_norm_([], 1.0).item() == 0.0
    with pytest.warns(UserWarning, match="empty generator, no gradient clipping will occur"):
        nn.utils.clip_grad_norm_((p for p in ()), 1.0)


@pytest.mark.parametrize("norm", NORMS)
def test_it_compiles(norm):
    def step(p, optimizer, x):
        optimizer.zero_grad()
        (p * p * x).sum().backward()
        total = nn.utils.clip_grad_norm_([p], 0.5, norm)
        optimizer.step()
        return total

    p, q = og.tensor([1.0, -2.0, 3.0], requires_grad=True), og.tensor([1.0, -2.0, 3.0], requires_grad=True)
    x = og.tensor([1.0, 0.5, 2.0])
    compiled = og.compile(step)
    mine, other = optim.SGD([p], lr=0.1), optim.SGD([q], lr=0.1)
    for _ in range(3):
        assert compiled(p, mine, x).item() == pytest.approx(step(q, other, x).item(), rel=1e-5)
    assert apart(p, q) < 1e-5


def test_a_check_for_finite_norms_does_not_compile():
    p = og.ones(2, requires_grad=True)

    @og.compile
    def step(x):
        (p * x).sum().backward()
        return nn.utils.clip_grad_norm_([p], 1.0, error_if_nonfinite=True)

    with pytest.raises(TraceError, match="check the norm outside"):
        step(og.ones(2))
