"""Mixed precision in programs: casts to float32 that are not written, epilogues that round, statistics in place."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import onnxgrad as og
from onnxgrad import nn
from onnxgrad.nn import functional as F
from onnxgrad.ops import conv, layout, matmul, normalize, pointwise as pw, reduce as red
from onnxgrad.ops.kernels.cuda.kernel import Launch
from onnxgrad.ops.kernels.cuda.operand import Operand
from onnxgrad.ops.types import BFLOAT16
from onnxgrad.ops.window import Window
from onnxgrad.runtime.cuda import compiler
from onnxgrad.runtime.cuda.buckets import Buckets
from onnxgrad.runtime.cuda.capture import WARM_UPS
from onnxgrad.runtime.cuda.program import CudaProgram

from ...ops.kernels.cuda import host, nvrtc
from ..compiled.graphs import build, feeds_for, reference, with_state_fed
from ..compiled.test_program import SAME, weights
from .host_runner import HostRunner, aligned, run_checked, shifted, verify

pytestmark = pytest.mark.skipif(host.why_not() is not None, reason=str(host.why_not()))
RNG = np.random.default_rng(0)
POINT = Window((1, 1), ((0, 0), (0, 0)), (1, 1))
NORM = {"epsilon": 1e-5, "momentum": 0.9}


def floats(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def narrow(x):
    return pw.cast(x, dtype="bfloat16")


def wide(x):
    return pw.cast(x, dtype="float32")


def check(graph, state, tolerance=2e-2):
    """Run a graph as a program, recorded and not, compare with array kernels, compile it, and return it."""
    runner = HostRunner()
    buckets = Buckets(graph, runner)
    tensors = {n: og.Tensor(a) for n, a in state.items()}
    for seed in range(WARM_UPS + 2):
        feeds = feeds_for(graph, {}, seed)
        wanted = reference(graph, feeds, state)[0]
        (found, _), (program,) = buckets.run(feeds, tensors), buckets.programs
        for outs in (found, run_checked(program, feeds, tensors)):
            for a, b in zip(outs, wanted, strict=True):
                assert (a.shape, a.dtype) == (b.shape, b.dtype)
                a, b = a.astype(np.float64), b.astype(np.float64)
                np.testing.assert_allclose(a, b, atol=tolerance * max(np.abs(b).max(), 1e-3))
    assert not program.compiler.refused
    verify(program)
    runner.check()
    for checked in nvrtc.begin_checks(s.work.kernel for s in program.steps if isinstance(s.work, Launch)):
        checked.result()
    return program


def ops(program):
    return [s.ops for s in program.steps]


def wide_tensors(program, size):
    """Return the steps that touch float32 of at least so many elements in the arena."""
    return [
        s for s in program.steps
        if any(p.storage.kind == "arena" and p.operand.size >= size and p.operand.dtype.itemsize == 4
               for p in (*s.reads(), *s.writes()))
    ]  # fmt: skip


ROWS = {
    "layer_norm": lambda x, v: normalize.layer_norm(x, v, v, axis=-1, epsilon=1e-5),
    "rms_norm": lambda x, v: normalize.rms_norm(x, v, axis=-1, epsilon=1e-5),
    "softmax": lambda x, v: normalize.softmax(x, axis=-1),
    "log_softmax": lambda x, v: normalize.log_softmax(x, axis=1),
    "sum": lambda x, v: red.sum_(x, axes=(0,)),
    "logsumexp": lambda x, v: red.logsumexp(x, axes=(1,), keepdims=True),
    "standardize": lambda x, v: normalize.standardize(x, axes=(0,), epsilon=1e-5),
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_rows_are_read_as_they_lie(name):
    state = weights(w=(16, 24), v=(24,))
    graph = build(
        {"x": (40, 16)}, state, lambda x, w, v: ROWS[name](wide(matmul.matmul(narrow(x), narrow(w))), v)
    )  # fmt: skip
    program = check(graph, state)
    assert not any("cast" in o and "matmul" in o for o in ops(program)), str(program)
    made = next(s for s in program.steps if s.ops == ("matmul",))
    assert made.writes()[0].operand.dtype == BFLOAT16


def test_a_reader_that_wants_float32_gets_it():
    """A product of float32 cannot read half precision, so the cast is written, by the kernel before it."""
    state = weights(w=(16, 24), u=(24, 8), v=(24,))

    def body(x, w, u, v):
        h = wide(matmul.matmul(narrow(x), narrow(w)))
        return normalize.layer_norm(h, v, v, axis=-1, epsilon=1e-5), matmul.matmul(h, u), pw.exp(h)

    program = check(build({"x": (40, 16)}, state, body), state)
    assert [o for o in ops(program) if "cast" in o and "matmul" in o], str(program)


def test_pointwise_readers_read_half_precision_beside_rows():
    state = weights(w=(16, 24), v=(24,))

    def body(x, w, v):
        h = wide(matmul.matmul(narrow(x), narrow(w)))
        g = normalize.layer_norm_grad(h, h, v, axis=-1, epsilon=1e-5)
        return g[0], normalize.softmax(h, axis=-1), pw.exp(h)

    program = check(build({"x": (40, 16)}, state, body), state, 3e-2)
    assert [s.reads()[0].operand.dtype for s in program.steps if s.ops == ("exp",)] == [BFLOAT16], str(program)


def test_a_rule_that_refuses_leaves_the_cast_to_array_kernels(monkeypatch):
    compiler.load_rules()
    rule = compiler.LOWERINGS["softmax"]
    declines = rule.__class__(lambda site: bool(site.read(0)) and False, None, rule.narrow)
    monkeypatch.setattr(compiler, "LOWERINGS", {**compiler.LOWERINGS, "softmax": declines})
    state = weights(w=(16, 24))
    graph = build(
        {"x": (40, 16)}, state, lambda x, w: normalize.softmax(wide(matmul.matmul(narrow(x), narrow(w))), axis=-1)
    )
    runner = HostRunner()
    program = CudaProgram(graph, runner)
    (x,) = feeds_for(graph)
    (found,) = program.run([x], {n: og.Tensor(a) for n, a in state.items()})
    np.testing.assert_allclose(found, reference(graph, [x], state)[0][0], atol=1e-2)
    assert [s.ops for s in program.steps][-2:] == [("cast",), ("softmax",)], str(program)
    assert len(program.compiler.refused) == 1


def test_feeds_are_widened_before_they_are_overwritten():
    def body(h, x):
        total = red.sum_(wide(x), axes=(1,))
        new = pw.mul(x, h)
        return new, pw.add(total, red.sum_(wide(new), axes=(1,)))

    h = np.full((3, 4), 2, BFLOAT16)
    x = np.arange(12).reshape(3, 4).astype(BFLOAT16)
    graph = build({"h": (3, 4)}, {"x": x}, body, {"h": BFLOAT16})
    program = CudaProgram(with_state_fed(graph), HostRunner(), in_place={0: 1})
    verify(program)
    held = aligned(x)
    for run in range(1, WARM_UPS + 3):
        total = program.run([h, held])[1]
        np.testing.assert_array_equal(total, (x * 2.0 ** (run - 1) + x * 2.0**run).astype(np.float32).sum(1))


@pytest.mark.parametrize("order", ["the first", "the last"])
def test_half_precision_in_the_middle_of_an_epilogue_is_rounded(order):
    """Two normalisations that are added: one applies the addition, the other writes half precision."""
    state = weights(w=(8, 3, 3, 3), u=(8, 3, 1, 1), v=(8,), m=(8,))

    def body(x, w, u, v, m):
        def normal(kernel, win):
            h = conv.conv(narrow(x), narrow(kernel), win=win)
            return narrow(normalize.batch_norm_train(wide(h), v, v, m, m, **NORM)[0])

        a, b = normal(w, SAME), normal(u, POINT)
        return pw.relu(pw.add(a, b) if order == "the first" else pw.add(b, a))

    program = check(build({"x": (4, 3, 6, 6)}, state, body), state)
    found = [o for o in ops(program) if "batch_norm_train" in o]
    assert set(found) == {("batch_norm_train", "cast"), ("batch_norm_train", "cast", "add", "relu")}, str(program)
    assert not wide_tensors(program, 4 * 8 * 36), str(program)


# prologues -----------------------------------------------------------------------------------------------------------


PROLOGUES = {
    "a product, over all but the last": lambda x, y, v: red.sum_to(pw.mul(x, y), shape=(24,)),
    "with a vector": lambda x, y, v: red.sum_(pw.mul(pw.add(x, v), pw.exp(y)), axes=(1,), keepdims=True),
    "a mean of squares": lambda x, y, v: red.mean(pw.mul(pw.sub(x, y), pw.sub(x, y)), axes=(0, 1)),
    "the largest": lambda x, y, v: red.max_(pw.abs_(pw.sub(x, y)), axes=(0,)),
    "half precision": lambda x, y, v: red.sum_(wide(pw.mul(narrow(x), narrow(y))), axes=(0,)),
    "and an epilogue": lambda x, y, v: pw.sqrt(red.sum_(pw.mul(x, x), axes=(1,))),
}


@pytest.mark.parametrize("name", PROLOGUES)
@pytest.mark.parametrize("rows", [5, 3000])
def test_reductions_compute_what_they_reduce(name, rows):
    state = {"v": floats(24)}
    graph = build({"x": (rows, 24), "y": (rows, 24)}, state, PROLOGUES[name])
    program = check(graph, state, 2e-2 if name == "half precision" else 1e-4)
    assert len(set(ops(program))) == 1, str(program)


def test_what_lies_across_is_computed_first():
    def body(x, y):
        product = pw.mul(x, layout.transpose(y, perm=(1, 0)))
        return red.sum_(product, axes=(0,))

    program = check(build({"x": (40, 24), "y": (24, 40)}, {}, body), {}, 1e-4)
    assert [s.ops for s in program.steps] == [("mul",), ("sum",)], str(program)


def test_what_others_read_is_written():
    def body(x, y):
        product = pw.mul(x, y)
        return red.sum_(product, axes=(0,)), product

    program = check(build({"x": (40, 24), "y": (40, 24)}, {}, body), {}, 1e-4)
    assert [s.ops for s in program.steps] == [("mul",), ("sum",)], str(program)


def test_state_that_a_prologue_reads_is_not_overwritten_before():
    """The sum reads the old a, though the product that it is of stands before the new one."""

    def body(x, a):
        product = pw.mul(x, a)
        new = pw.add(a, x)
        return new, pw.add(red.sum_(product, axes=(0,)), red.sum_(new, axes=(0,)))

    state = {"a": floats(6, 4)}
    graph = build({"x": (6, 4)}, state, body)
    program = CudaProgram(with_state_fed(graph), HostRunner(), in_place={0: 1})
    verify(program)
    held, wanted, x = aligned(state["a"]), state, floats(6, 4)
    for _ in range(WARM_UPS + 2):
        new, total = reference(graph, [x], wanted)[0]
        wanted = {"a": new}
        np.testing.assert_allclose(program.run([x, held])[1], total, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(held, new, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(2, 8, 4, 4), (8, 8, 40, 40)])
@pytest.mark.parametrize("half", [False, True])
def test_the_gradient_of_a_rectifier_is_part_of_the_one_of_batch_norm(shape, half):
    state = weights(w=(8, 8, 3, 3), v=(8,))
    kind = narrow if half else lambda x: x

    def body(g, x, y, w, v):
        gradient = conv.conv_input_grad(kind(g), kind(w), size=shape[2:], win=SAME)
        h, y = conv.conv(kind(x), kind(w), win=SAME), pw.relu(conv.conv(kind(y), kind(w), win=SAME))
        masked = pw.relu.gradient("x")[0](gradient, y)
        return normalize.batch_norm_train_grad(*((wide(masked), wide(h)) if half else (masked, h)), v, epsilon=1e-5)

    graph = build(dict.fromkeys("gxy", shape), state, body)
    program = check(graph, state, 3e-2 if half else 1e-3)
    assert any("relu_grad_x" in o and "batch_norm_train_grad" in o for o in ops(program)), str(program)
    assert not any("relu_grad_x" in o and "conv_input_grad" in o for o in ops(program)), str(program)


@pytest.mark.parametrize(
    ("shape", "strides", "last", "plain"),
    [
        ((2, 8, 3, 3), (72, 1, 24, 8), True, False),
        ((2, 4, 3, 3), (72, 1, 24, 8), True, False),  # some channels of it
        ((2, 4, 3, 3), (36, 9, 3, 1), False, True),
        ((2, 4, 2, 3), (36, 9, 3, 1), False, True),  # some rows
        ((2, 4, 3, 2), (72, 18, 6, 2), False, False),  # each second element
        ((2, 1, 1, 1), (5, 3, 7, 2), False, False),
        ((1, 6, 1, 1), (9, 1, 9, 9), True, True),
        ((2, 4, 3, 3), (0, 9, 3, 1), False, False),
    ],
)
def test_the_order_of_elements_may_have_gaps(shape, strides, last, plain):
    operand = Operand(np.dtype(np.float32), shape, strides)
    assert (operand.in_order(last=True), operand.in_order(last=False)) == (last, plain)


def test_parts_of_tensors_are_operands_where_they_lie():
    """Channels of a tensor that lies channels last have gaps between them, which epilogues and prologues step over."""
    state = weights(w=(16, 3, 3, 3), v=(8,), m=(8,))

    def body(x, w, v, m):
        h = conv.conv(x, w, win=SAME)
        a, b = layout.split(h, axis=1, sizes=(8, 8))
        y = pw.add(normalize.batch_norm_train(a, v, v, m, m, **NORM)[0], b)
        return y, red.sum_(pw.mul(a, b), axes=(0, 2, 3))

    program = check(build({"x": (4, 3, 6, 6)}, state, body), state, 1e-3)
    assert len([o for o in ops(program) if o == ("copy",)]) <= 1, str(program)  # the input
    assert ("batch_norm_train", "add") in ops(program) and ("mul", "sum") in ops(program), str(program)


def twice(half):
    """Read a tensor two times, so that it has to be in memory."""
    return pw.add(red.sum_(half, axes=(1,)), red.max_(half, axes=(1,)))


TWICE = {
    "rows that fit registers": ((40, 24), lambda x, v: normalize.layer_norm(x, v, v, axis=-1, epsilon=1e-5)),
    "an epilogue": ((40, 24), lambda x, v: pw.add(normalize.rms_norm(x, v, axis=-1, epsilon=1e-5), x)),
    "a gradient": ((40, 24), lambda x, v: normalize.layer_norm_grad(x, pw.exp(x), v, axis=-1, epsilon=1e-5)[0]),
    "softmax": ((40, 24), lambda x, v: normalize.softmax(x, axis=0)),
    "pieces": ((64, 24, 40, 40), lambda x, v: normalize.batch_norm_train(x, v, v, v, v, **NORM)[0]),
}


@pytest.mark.parametrize("name", TWICE)
def test_kernels_write_what_is_wanted_in_two_types(name):
    shape, body = TWICE[name]
    state = {"v": floats(24), "w": floats(24, 8)}

    def both(x, v, w):
        y = body(x, v)
        half = narrow(y)
        return (matmul.matmul(half, narrow(w)) if y.ndim == 2 else twice(half)), pw.mul(y, x)

    program = check(build({"x": shape}, state, both), state)
    assert [o for o in ops(program) if o[-1] == "cast" and len(o) > 1], str(program)
    assert not [o for o in ops(program) if o == ("cast",)][1:], str(program)  # the weights'


def test_what_has_no_kernel_is_rounded_by_one_of_its_own(monkeypatch):
    compiler.load_rules()
    rule = compiler.LOWERINGS["softmax"]
    declines = replace(rule, rule=lambda site: bool(site.rounded() or site.write()) and False)
    monkeypatch.setattr(compiler, "LOWERINGS", {**compiler.LOWERINGS, "softmax": declines})

    def body(x):
        y = normalize.softmax(x, axis=-1)
        return twice(narrow(y)), pw.mul(y, 2.0)

    graph = build({"x": (4, 24)}, {}, body)
    program = CudaProgram(graph, HostRunner())
    (x,) = feeds_for(graph)
    for a, b in zip(program.run([x]), reference(graph, [x], {})[0], strict=True):
        np.testing.assert_allclose(a.astype(np.float32), b.astype(np.float32), rtol=1e-2)
    assert {("softmax",), ("cast",)} <= set(ops(program)), str(program)


# statistics ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [aligned, shifted])
@pytest.mark.parametrize("shape", [(6, 8, 5, 5), (64, 8, 40, 40)])
def test_statistics_are_moved_where_they_lie(shape, place):
    state = {"scale": floats(8), "bias": floats(8), "mean": floats(8), "var": np.abs(floats(8))}
    graph = build(
        {"x": shape}, state, lambda x, *given: normalize.batch_norm_train(x, *given, epsilon=1e-5, momentum=0.8)
    )
    runner = HostRunner()
    program = CudaProgram(with_state_fed(graph), runner, in_place={1: 3, 2: 4})
    verify(program)
    assert ("copy",) not in ops(program), str(program)
    held, wanted = [place(a) for a in state.values()], state
    for run in range(WARM_UPS + 3):
        x = np.random.default_rng(run).standard_normal(shape).astype(np.float32)
        y, mean, var = reference(graph, [x], wanted)[0]
        wanted = {**wanted, "mean": mean, "var": var}
        found = program.run([x, *held])
        if place is shifted:
            held = [*held[:2], *map(shifted, found[1:])]
        np.testing.assert_allclose(found[0], y, rtol=1e-3, atol=1e-4)
        for a, b in zip(held[2:], (mean, var), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert "replay" in runner.log
    runner.check()


def test_statistics_that_change_places_are_copied():
    state = {n: np.abs(floats(8)) for n in ("scale", "bias", "mean", "var")}
    graph = build(
        {"x": (6, 8, 5, 5)}, state, lambda x, *given: normalize.batch_norm_train(x, *given, epsilon=1e-5, momentum=0.8)
    )
    program = CudaProgram(with_state_fed(graph), HostRunner(), in_place={1: 4, 2: 3})
    x, held = floats(6, 8, 5, 5), [aligned(a) for a in state.values()]
    y, mean, var = reference(graph, [x], state)[0]
    np.testing.assert_allclose(program.run([x, *held])[0], y, rtol=1e-3, atol=1e-4)
    for a, b in zip(held[2:], (var, mean), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


# training ------------------------------------------------------------------------------------------------------------


class Block(nn.Module):
    """Convolutions with batch norm, a residual whose other way has one too, and a head."""

    def __init__(self):
        super().__init__()
        self.first, self.n1 = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.second, self.n2 = nn.Conv2d(8, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.other, self.n3 = nn.Conv2d(8, 16, 1, bias=False), nn.BatchNorm2d(16)
        self.third, self.n4 = nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.head = nn.Linear(16, 4)

    def forward(self, x):
        x = self.n1(self.first(x)).relu()
        x = (self.n2(self.second(x)) + self.n3(self.other(x))).relu()
        x = (self.n4(self.third(x)) + x).relu()
        return self.head(x.mean(dim=(2, 3)))


def torch_block():
    import torch

    class Block(torch.nn.Module):
        def __init__(self):
            super().__init__()
            t = torch.nn
            self.first, self.n1 = t.Conv2d(3, 8, 3, padding=1, bias=False), t.BatchNorm2d(8)
            self.second, self.n2 = t.Conv2d(8, 16, 3, padding=1, bias=False), t.BatchNorm2d(16)
            self.other, self.n3 = t.Conv2d(8, 16, 1, bias=False), t.BatchNorm2d(16)
            self.third, self.n4 = t.Conv2d(16, 16, 3, padding=1, bias=False), t.BatchNorm2d(16)
            self.head = t.Linear(16, 4)

        forward = globals()["Block"].forward

    return Block()


def test_training_touches_activations_in_half_precision_and_answers_as_pytorch(on_cuda):
    torch = pytest.importorskip("torch")
    og.manual_seed(0)
    ours, theirs = Block(), torch_block()
    theirs.load_state_dict({n: torch.tensor(np.array(v.numpy())) for n, v in ours.state_dict().items()})

    def step(x, y):
        ours.zero_grad()
        with og.amp.autocast("bfloat16"):
            loss = F.cross_entropy(ours(x), y)
        loss.backward()
        return loss, *(p.grad for p in ours.parameters())

    compiled = og.compile(step)
    x, y = floats(8, 3, 12, 12), RNG.integers(0, 4, 8)
    for _ in range(WARM_UPS + 2):
        loss, *grads = compiled(og.tensor(x), og.tensor(y))
    with torch.autocast("cpu", torch.bfloat16):
        wanted = torch.nn.functional.cross_entropy(theirs(torch.tensor(x)), torch.tensor(y))
    wanted.backward()
    np.testing.assert_allclose(loss.item(), wanted.item(), rtol=2e-2)
    for (name, p), g in zip(theirs.named_parameters(), grads, strict=True):
        w = p.grad.numpy()
        assert np.linalg.norm(g.numpy() - w) < 5e-2 * np.linalg.norm(w), name
    (program,) = compiled.programs[0].engine._buckets.programs
    assert not program.compiler.refused
    activation = 8 * 8 * 12 * 12
    assert not wide_tensors(program, activation), str(program)
    together = [o for o in ops(program) if "batch_norm_train" in o]
    assert ("batch_norm_train", "cast", "relu") in together
    assert ("batch_norm_train", "cast", "add", "relu") in together
    on_cuda.check()
