"""Eager code on a GPU: what runs it, against the CPU, on several streams and threads, and the memory that it takes."""

from __future__ import annotations

import gc
import threading
from typing import Any

import numpy as np
import pytest

import onnxgrad as og
from onnxgrad.nn import functional as F

from .test_eager import BERT, CASES, LABELS, RESNET, Encoder, Residual, floats, programs, refusals

pytestmark = pytest.mark.gpu

NETWORKS = {
    "resnet": (Residual, floats(4, 3, 8, 8), RESNET),
    "bert": (Encoder, np.arange(28).reshape(4, 7) % 11, BERT),
}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", NETWORKS)
def test_training_is_that_of_the_cpu_and_runs_kernels(name, dtype):
    network, x, wanted = NETWORKS[name]

    def trained(device: str) -> tuple[list[float], list[Any]]:
        og.manual_seed(0)
        module = network().to(device)
        method = og.optim.SGD(module.parameters(), lr=0.1)
        losses = []
        for _ in range(8):
            method.zero_grad()
            with og.amp.autocast(device, dtype="bfloat16", enabled=dtype == "bfloat16"):
                y = module(og.tensor(x, device=device))
            loss = F.cross_entropy(y.float(), og.tensor(LABELS, device=device))
            loss.backward()
            method.step()
            losses.append(loss.item())
        return losses, [p.detach().cpu().numpy() for p in module.parameters()]

    og.cuda.synchronize()
    before = set(refusals())  # of the tests before
    found, expected = trained("cuda"), trained("cpu")
    close = {"rtol": 2e-3, "atol": 1e-4} if dtype == "float32" else {"rtol": 0.1, "atol": 0.05}
    np.testing.assert_allclose(found[0], expected[0], **close)
    if dtype == "float32":
        for a, b in zip(found[1], expected[1], strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-2, atol=2e-3)
    assert wanted <= set(programs()) and not set(refusals()) - before


@pytest.mark.parametrize("name", CASES)
def test_streams_and_threads_agree(name):
    f, shapes = CASES[name]
    arrays = [floats(*s, seed=i) if isinstance(s, tuple) else s for i, s in enumerate(shapes)]
    there = [og.tensor(a, device="cuda", requires_grad=a.dtype == np.float32) for a in arrays]
    leaves = [t for t in there if t.requires_grad]
    og.cuda.synchronize()

    def run() -> list[np.ndarray[Any, Any]]:
        y = f(F, *there)
        return [t.detach().cpu().numpy() for t in (y, *og.autograd.grad(y.square().sum(), leaves))]

    wanted, found = run(), []

    def repeat() -> None:
        with og.cuda.stream(og.cuda.Stream()):
            found.extend(run() for _ in range(20))

    threads = [threading.Thread(target=repeat) for _ in range(2)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(found) == 40
    for results in found:
        for a, b in zip(results, wanted, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_a_convolution_takes_a_few_times_what_it_reads_and_writes():
    x, w = og.randn(8, 64, 128, 128, device="cuda"), og.randn(64, 64, 3, 3, device="cuda")
    F.conv2d(x, w, padding=1)
    og.cuda.synchronize()
    og.cuda.reset_peak_memory_stats()
    before = og.cuda.memory_allocated()
    F.conv2d(x, w, padding=1)
    assert og.cuda.max_memory_allocated() - before < 8 * x.nbytes  # unfolded it would be ten times that


def test_a_second_call_compiles_nothing_and_leaves_nothing():
    x = og.randn(4, 3, 16, 16, device="cuda")
    module = Residual().to("cuda")
    for _ in range(3):
        module(x).square().sum().backward()
    gc.collect()
    counts, before = {k: len(v) for k, v in programs().items()}, og.cuda.memory_allocated()
    for _ in range(5):
        module(x).square().sum().backward()
    gc.collect()
    assert {k: len(v) for k, v in programs().items()} == counts and og.cuda.memory_allocated() == before


def test_an_index_outside_is_found_where_the_host_waits():
    w = og.randn(5, 4, device="cuda")
    y = F.embedding(og.tensor([0, 5], device="cuda"), w)
    with pytest.raises(RuntimeError, match=r"gather.*: an index is outside its axis"):
        y.cpu()
    assert np.isfinite(F.embedding(og.tensor([0, 4], device="cuda"), w).cpu().numpy()).all()
