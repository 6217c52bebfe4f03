"""Memory of a GPU over many runs, and what happens where there is too little."""

from __future__ import annotations

import gc

import numpy as np
import pytest

import onnxgrad as og
from onnxgrad.nn import functional as F
from onnxgrad.ops.errors import OutOfMemoryError

from .test_models import Residual

pytestmark = pytest.mark.gpu

MEBI = 1 << 20


def in_use() -> int:
    gc.collect()
    og.cuda.synchronize()
    return og.cuda.memory_allocated()


def stays_flat(run, warm: int, runs: int) -> None:
    for _ in range(warm):
        run()
    before = in_use()
    for _ in range(runs):
        run()
    assert in_use() <= before


def test_a_thousand_runs_of_a_model_leave_nothing():
    module = Residual().eval().to("cuda")
    compiled, x = og.compile(module), og.tensor(np.ones((2, 3, 8, 8), np.float32), device="cuda")

    def run() -> None:
        with og.no_grad():
            compiled(x)

    stays_flat(run, 8, 1000)


@pytest.mark.parametrize(("compiled", "runs"), [(True, 1000), (False, 200)], ids=["compiled", "eager"])
def test_training_steps_leave_nothing(compiled, runs):
    module = Residual().to("cuda")
    optimizer = og.optim.AdamW(module.parameters(), lr=1e-3)
    x = og.tensor(np.ones((2, 3, 8, 8), np.float32), device="cuda")
    y = og.tensor(np.array([0, 1]), device="cuda")

    def step(x, y):
        optimizer.zero_grad()
        loss = F.cross_entropy(module(x), y)
        loss.backward()
        optimizer.step()
        return loss

    f = og.compile(step) if compiled else step
    stays_flat(lambda: f(x, y), 8, runs)


def test_programs_give_their_memory_back():
    before = in_use()
    module = Residual().eval().to("cuda")
    compiled = og.compile(module)
    with og.no_grad():
        for n in (1, 2, 3, 4):
            compiled(og.ones(n, 3, 64, 64, device="cuda"))
    assert in_use() > before
    del module, compiled
    assert in_use() - before < MEBI


@pytest.fixture
def limited():
    """64 MiB beyond what is held now."""
    gc.collect()
    og.cuda.empty_cache()
    og.cuda.set_memory_limit(og.cuda.memory_reserved() + 64 * MEBI)
    yield
    og.cuda.set_memory_limit(None)


def test_an_op_that_finds_no_memory_says_what_it_wanted(limited):
    x = og.ones(4 * MEBI, device="cuda")
    with pytest.raises(OutOfMemoryError, match=r"mul asked for 1\.00 GiB on cuda:0") as error:
        x.reshape(-1, 1) * og.ones(1, 64, device="cuda")
    assert "limit" in str(error.value) and "16.00 MiB" in str(error.value)
    assert (x + 1).sum().item() == 8 * MEBI


def test_a_program_that_finds_no_memory_says_so_and_others_run_on(limited):
    f = og.compile(lambda x: (x.reshape(-1, 1) * x.reshape(1, -1)).softmax(-1))
    for n in (8192, 8192):
        with pytest.raises(OutOfMemoryError, match=r"asked for .* on cuda:0"):
            f(og.ones(n, device="cuda"))
    small = f(og.ones(16, device="cuda"))
    np.testing.assert_allclose(small.cpu().numpy(), np.full((16, 16), 1 / 16), rtol=1e-6)
    og.cuda.set_memory_limit(None)
    big = f(og.ones(8192, device="cuda"))
    np.testing.assert_allclose(big[:2, :2].cpu().numpy(), np.full((2, 2), 1 / 8192), rtol=1e-5)
