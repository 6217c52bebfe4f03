"""Bad indices and labels are errors: of the run where the host waits for it, else where it next waits."""

from __future__ import annotations

import ctypes
import gc
import types

import numpy as np
import pytest
from onnx import TensorProto, helper

import onnxgrad as og
from onnxgrad import nn, optim
from onnxgrad.errors import InputError, OpError
from onnxgrad.importers.onnx.model import load_bytes
from onnxgrad.nn import functional as F
from onnxgrad.ops import cumulative, index, layout, loss, pointwise as pw
from onnxgrad.runtime.cuda import checks, compiler
from onnxgrad.runtime.cuda.buckets import Buckets
from onnxgrad.runtime.cuda.capture import WARM_UPS
from onnxgrad.runtime.cuda.program import CudaProgram
from onnxgrad.runtime.cuda.runner import _Pinned
from onnxgrad.runtime.tensor.device import device

from ...importers.models import model, tensor
from ...ops.kernels.cuda import host
from ..compiled.graphs import build, reference
from .fake_driver import driving
from .host_runner import HostRunner, aligned, run_checked

emulated = pytest.mark.skipif(host.why_not() is not None, reason=str(host.why_not()))

LATE = "found after the run had returned"

BODIES = {
    "gather": ((6, 4), (3,), lambda x, at: pw.relu(index.gather(x, at))),
    "gather_nd": ((6, 4), (3, 1), lambda x, at: index.gather_nd(x, at)),
    "scatter_elements": (
        (6, 3), (1, 3),
        lambda x, at: index.scatter_elements(
            pw.exp(x), at, layout.slice_(x, starts=(0,), stops=(1,), steps=(1,), axes=(0,)), axis=0
        ),
    ),
    "softmax_cross_entropy": ((3, 6), (3,), lambda x, at: loss.softmax_cross_entropy(x, at)),
}  # fmt: skip
"""What is indexed by places in an axis of 6."""


@pytest.fixture(autouse=True)
def nothing_pending():
    assert not checks.PENDING
    yield
    checks.PENDING.clear()


def feeds_of(op, last):
    shape, places, _ = BODIES[op]
    at = np.array([0, 5, last]).reshape(places)
    return [np.random.default_rng(0).standard_normal(shape).astype(np.float32), at]


def made(op, **how):
    """Return the graph of an op, the runner and the program; the node has a name."""
    shape, places, body = BODIES[op]
    graph = build({"x": shape, "at": places}, {}, body, {"at": np.int64})
    next(n for n in graph.nodes if n.op.name == op).name = "/body/node"
    runner = HostRunner()
    return graph, runner, CudaProgram(graph, runner, **how)


@pytest.mark.parametrize("capture", [True, False])
@pytest.mark.parametrize("op", BODIES)
@emulated
def test_the_run_raises_that_the_host_waits_for(op, capture):
    graph, runner, program = made(op, capture=capture)
    good = feeds_of(op, -6)
    for run in range(WARM_UPS + 2):
        for _ in range(2):
            (y,) = program.run(good, host=True)
            np.testing.assert_allclose(y, reference(graph, good, {})[0][0], rtol=1e-5)
        wrong = feeds_of(op, (6, -7)[run % 2])
        with pytest.raises(OpError) as cpu:
            reference(graph, wrong, {})
        with pytest.raises(OpError, match=rf"^/body/node: {op}\(float32.*, int64.*\): {op}: an? \w+ is ") as found:
            program.run(wrong, host=True)
        assert type(found.value) is type(cpu.value)
        assert str(cpu.value).startswith(f"/body/node: {op}(")
        assert LATE not in str(found.value)
        assert not checks.PENDING
    assert bool(program.capture.graphs) == capture
    run_checked(program, good)
    runner.check()


@pytest.mark.parametrize("runs", [0, WARM_UPS + 1])
@pytest.mark.parametrize("op", BODIES)
@emulated
def test_the_next_run_raises_what_is_known_by_then(op, runs):
    graph, _, program = made(op)
    good, wrong = feeds_of(op, 5), feeds_of(op, 6)
    for _ in range(runs):
        program.run(good)
    program.run(wrong)
    for how in ({}, {"host": True}):
        with pytest.raises(OpError, match=rf"^/body/node: {op}\(.*{LATE}"):
            program.run(good, **how)
        program.run(good)
        np.testing.assert_allclose(program.run(good)[0], reference(graph, good, {})[0][0], rtol=1e-5)
        program.run(wrong)


@emulated
def test_nobody_waits_for_what_is_on_its_way():
    _, runner, program = made("gather")
    runner.late = True
    good = feeds_of("gather", 5)
    program.run(feeds_of("gather", 6))
    runner.log.clear()
    program.run(good)
    assert "wait" not in runner.log
    with pytest.raises(OpError, match=LATE):
        checks.settle(0)
    assert not checks.PENDING
    for _ in range(2):
        program.run(good)
        checks.settle(0)
    program.run(feeds_of("gather", 6))
    with pytest.raises(OpError, match=LATE):
        program.run(good, host=True)  # nobody can say which of both it was
    program.run(good, host=True)


@emulated
def test_reading_raises_and_waiting_too():
    _, runner, program = made("gather")
    good, wrong = feeds_of("gather", 5), feeds_of("gather", 6)
    with driving():
        there, elsewhere, here = og.ones(1, device="cuda"), og.ones(1, device="cuda:1"), og.ones(1)
        readers = [there.item, there.cpu, there.numpy, there.tolist, lambda: bool(there), og.cuda.synchronize]
        for read in readers:
            program.run(wrong)
            assert elsewhere.item() == here.item() == 1
            og.cuda.synchronize("cuda:1")
            with pytest.raises(OpError, match=rf"^/body/node: gather\(.*{LATE}"):
                read()
            read()
            program.run(good)
            read()
        og.cuda.set_sync_debug_mode("launch")
        with pytest.raises(OpError, match="/body/node: ") as found:
            program.run(wrong)
        assert LATE not in str(found.value)
        program.run(good)
    runner.check()


@emulated
def test_the_first_node_is_named_and_no_other():
    def body(x, a, b):
        return index.gather(index.gather(x, a), b)

    graph = build({"x": (6, 4), "a": (5,), "b": (3,)}, {}, body, {"a": np.int64, "b": np.int32})
    for n, name in zip(graph.nodes, ("first", "second"), strict=True):
        n.name = name
    program = CudaProgram(graph, HostRunner())
    x, inside = np.ones((6, 4), np.float32), [np.zeros(5, np.int64), np.zeros(3, np.int32)]
    outside = [inside[0] + 6, inside[1] - 6]
    for a, b, name in ((1, 0, "first"), (0, 1, "second"), (1, 1, "first"), (0, 0, None)):
        feeds = [x, (inside, outside)[a][0], (inside, outside)[b][1]]
        if name is None:
            program.run(feeds, host=True)
            continue
        with pytest.raises(OpError, match=f"^{name}: "):
            program.run(feeds, host=True)


@emulated
def test_what_a_program_found_outlives_it():
    _, _, program = made("gather")
    program.run(feeds_of("gather", 6))
    del program
    gc.collect()
    with pytest.raises(OpError, match="/body/node"):
        checks.settle(0)


@emulated
def test_a_run_that_fails_leaves_nothing_behind(monkeypatch):
    """The array kernel behind the gather fails in the run in which an index is outside."""
    graph = build(
        {"x": (6, 4), "at": (3,)}, {}, lambda x, at: cumulative.cumsum(index.gather(x, at), axis=0), {"at": np.int64}
    )
    compiler.load_rules()
    monkeypatch.setattr(compiler, "LOWERINGS", {k: v for k, v in compiler.LOWERINGS.items() if k != "cumsum"})
    runner = HostRunner(late=True)
    program = CudaProgram(graph, runner)
    (step,) = (s for s in program.steps if s.ops == ("cumsum",))
    kernel = step.work.kernel

    def failing(*args, **attrs):
        raise OpError("no")

    for earlier in (5, 6):
        program.run(feeds_of("gather", earlier))
        object.__setattr__(step.work, "kernel", failing)
        with pytest.raises(OpError, match=r"no$"):
            program.run(feeds_of("gather", 6), host=True)
        object.__setattr__(step.work, "kernel", kernel)
        if earlier == 6:
            with pytest.raises(OpError, match=LATE):
                program.run(feeds_of("gather", 5))
        program.run(feeds_of("gather", 5), host=True)


@emulated
def test_programs_that_check_nothing_send_nothing():
    inside = np.array([0, 5, -6])
    for body in (
        lambda x: pw.relu(x),
        lambda x: index.gather(x, x.graph.constant(inside)),
    ):
        graph, runner = build({"x": (6, 4)}, {}, body), HostRunner()
        program = CudaProgram(graph, runner)
        program.run([np.ones((6, 4), np.float32)])
        assert program.checks is None
        assert not {"mirror", "send", "wait"} & {*runner.log}
        assert not checks.PENDING


@emulated
def test_other_shapes_have_flags_of_their_own():
    graph = build({"x": ("n", 4), "at": ("m",)}, {}, lambda x, at: index.gather(x, at), {"at": np.int64})
    buckets, x = Buckets(graph, HostRunner()), np.ones((6, 4), np.float32)
    buckets.run([x, np.array([6])])
    buckets.run([x, np.array([5, 5])])
    buckets.run([x[:3], np.array([2])], host=True)
    with pytest.raises(OpError, match=r"gather\(float32\(6, 4\), int64\(1,\)\)"):
        checks.settle(0)


@emulated
def test_models_name_the_node_of_the_file(on_cuda):
    nodes = [
        helper.make_node("Cast", ["x"], ["words"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "words"], ["y"], name="/embedding/Gather"),
    ]
    file = model(nodes, {"x": ["N"]}, {"y": None}, [tensor("table", 6, 3)]).SerializeToString()
    here, there = load_bytes(file), load_bytes(file)
    there._device = device("cuda:0")
    for _ in range(WARM_UPS + 2):
        good, wrong = ({"x": np.array([0, n, 5], np.float32)} for n in (-6, 6))
        np.testing.assert_array_equal(there.run(good)[0], here.run(good)[0])
        errors = []
        for m in (here, there):
            with pytest.raises(OpError, match=r"^Gather-13 '/embedding/Gather': gather\(float32") as found:
                m.run(wrong)
            errors.append(type(found.value))
        assert errors[0] is errors[1]
    assert "replay" in on_cuda.log


# training ------------------------------------------------------------------------------------------------------------


class Words(nn.Module):
    """Classifies words of a vocabulary of 6."""

    def __init__(self):
        super().__init__()
        self.table, self.head = nn.Embedding(6, 8), nn.Linear(8, 5)

    def forward(self, words):
        return self.head(self.table(words))


def compiled_step(place=lambda a: a):
    og.manual_seed(0)
    module = Words()
    for p in module.parameters():
        p._array = place(p._array)
    optimizer = optim.SGD(module.parameters(), lr=0.1)

    def step(words, labels):
        optimizer.zero_grad()
        found = F.cross_entropy(module(words), labels)
        found.backward()
        optimizer.step()
        return found

    compiled = og.compile(step)
    return module, lambda *batch: compiled(*(og.tensor(np.array(a)) for a in batch))


GOOD = ([0, 5, 3], [0, 4, 2])
WRONG = {"a label": ([0, 5, 3], [0, 5, 2], "softmax_cross_entropy"), "a word": ([0, 6, 3], [0, 4, 2], "gather")}


@pytest.mark.parametrize("runs", [1, WARM_UPS + 2])
@pytest.mark.parametrize("what", WRONG)
@emulated
def test_training_steps_raise_as_on_the_cpu(what, runs, request):
    *wrong, op = WRONG[what]
    _, step = compiled_step()
    for _ in range(runs):
        step(*GOOD)
    with pytest.raises(InputError) as cpu:
        step(*wrong)
    assert str(cpu.value).startswith(f"{op}: {op}: a")
    runner = request.getfixturevalue("on_cuda")
    module, step = compiled_step(aligned)
    kept = {}
    for run in range(runs):
        if run == runs - 1:
            kept = {n: p._array.copy() for n, p in module.named_parameters()}
        first = step(*GOOD).item()
        checks.settle(0)
    assert ("replay" in runner.log) == (runs > WARM_UPS)
    for wait in (lambda: checks.settle(0), lambda: step(*GOOD)):
        assert np.isnan(step(*wrong).item())
        with pytest.raises(InputError, match=rf"^{op}: {op}\(.*: {op}: an? .*\. The run went on: .*{LATE}") as found:
            wait()
        assert type(found.value) is type(cpu.value)
        with og.no_grad():
            for n, p in module.named_parameters():
                p._array[...] = kept[n]
        assert step(*GOOD).item() == first
        checks.settle(0)
    runner.check()


@emulated
def test_calls_of_compiled_modules_raise_as_on_the_cpu(request):
    """Nothing is overwritten, so the error is the one of the op."""
    og.manual_seed(0)
    table = nn.Embedding(6, 8)
    wrong, good = og.tensor([1, 6]), og.tensor([1, 5])
    with pytest.raises(OpError) as cpu:
        og.compile(table)(wrong)
    request.getfixturevalue("on_cuda")
    compiled = og.compile(table)
    compiled(wrong)
    with pytest.raises(OpError, match=rf"^gather: gather\(float32\(6, 8\), int64\(2,\)\): .*{LATE}") as found:
        compiled(good)
    assert type(found.value) is type(cpu.value)
    np.testing.assert_array_equal(compiled(good).detach().numpy(), table.weight.detach().numpy()[[1, 5]])


# how a device sends ---------------------------------------------------------------------------------------------------


def test_a_mirror_has_what_was_sent():
    """The block is copied on the stream behind which the event is, into page-locked memory."""
    asked = []

    def copy(target, source, nbytes, kind, stream):
        asked.append((nbytes, kind, stream))
        ctypes.memmove(target, source, nbytes)

    with driving():
        from onnxgrad.runtime.cuda.availability import cupy

        library = cupy()
        library.cuda.runtime.memcpyAsync = copy
        words, stream = np.array([0, 7, 0], np.int32), library.cuda.Stream()
        block = types.SimpleNamespace(address=words.ctypes.data, nbytes=words.nbytes)
        mirror = _Pinned(library, stream, block)
        mirror.wait()
        assert not mirror.words.any()
        mirror.send()
        mirror.wait()
        np.testing.assert_array_equal(mirror.words, words)
        assert asked == [(12, 2, stream.ptr)]
        assert mirror._sent.at is stream


@pytest.mark.gpu
@pytest.mark.parametrize("capture", [True, False])
@pytest.mark.parametrize("op", BODIES)
def test_a_device_says_what_is_outside(op, capture):
    from onnxgrad.runtime.cuda.choice import runner_of

    shape, places, body = BODIES[op]
    graph = build({"x": shape, "at": places}, {}, body, {"at": np.int64})
    program = CudaProgram(graph, runner_of(0), capture=capture)
    good, wrong = feeds_of(op, -6), feeds_of(op, 6)
    for _ in range(WARM_UPS + 2):
        np.testing.assert_allclose(program.run(good, host=True)[0], reference(graph, good, {})[0][0], rtol=1e-5)
        with pytest.raises(OpError, match=f"{op}: an? .* is "):
            program.run(wrong, host=True)
        (y,) = program.run(wrong)
        with pytest.raises(OpError, match=LATE):
            og.tensor(y).sum().item()
        program.run(wrong)
        with pytest.raises(OpError, match=LATE):
            og.cuda.synchronize()
        program.run(good)
        og.cuda.synchronize()
