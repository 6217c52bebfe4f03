"""Programs against array kernels: fusion, layouts, views, weights, state that is overwritten, shapes."""

from __future__ import annotations

import numpy as np
import pytest

from onnxgrad.errors import DeviceError, InputError
from onnxgrad.ops import conv, layout, matmul, normalize, optimize, pointwise as pw, pool, reduce as red
from onnxgrad.ops.broadcast import broadcast_to
from onnxgrad.ops.window import Window
from onnxgrad.runtime.autograd.saved import Late
from onnxgrad.runtime.cuda import choice, compiler, updates, weights as store
from onnxgrad.runtime.cuda.buckets import Buckets
from onnxgrad.runtime.cuda.capture import WARM_UPS
from onnxgrad.runtime.cuda.guard import Guard
from onnxgrad.runtime.cuda.program import WANDERS, CudaProgram
from onnxgrad.runtime.cuda.steps import ArrayCall, Copy
from onnxgrad.runtime.tensor.tensor import Tensor

from ...ops.kernels.cuda import host
from ..compiled.graphs import build, feeds_for, reference, with_state_fed
from ..compiled.test_program import CASES, CONVS, SAME, weights
from .host_runner import HostRunner, aligned, run_checked, shifted, verify

HALF = Window((2, 2), ((0, 0), (0, 0)), (1, 1))


def close(found, wanted, tolerance=1e-4):
    assert len(found) == len(wanted)
    for a, b in zip(found, wanted, strict=True):
        b = np.asarray(b)
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        scale = float(np.abs(b).max()) if b.size and b.dtype.kind == "f" else 1.0
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * max(scale, 1e-3))


def compare(graph, state, env=None, *, runs=4, tolerance=1e-4, **how):
    """Run a graph as programs, recorded and step by step on poisoned memory, and return the programs."""
    runner = HostRunner()
    buckets = Buckets(graph, runner, **how)
    tensors = {n: Tensor(a) for n, a in state.items()}
    for run in range(runs):
        feeds = feeds_for(graph, env, seed=run)
        close(buckets.run(feeds, tensors)[0], reference(graph, feeds, state)[0], tolerance)
    assert not buckets.refused
    program = buckets.programs[-1]
    close(run_checked(program, feeds, tensors), reference(graph, feeds, state)[0], tolerance)
    runner.check()
    return buckets


MORE = {
    "a stretch of channels last": (
        {"x": (2, 16, 9, 7)}, CONVS,
        lambda x, w, b, v: red.mean(
            pool.max_pool(pw.relu(pw.add(conv.conv(pw.relu(conv.conv(x, w, win=SAME)), v, win=SAME), x)), kernel=(2, 2),
                          win=HALF), axes=(2, 3),
        ),
    ),
    "broadcasts are views": (
        {"x": (3, 1, 5), "y": (3, 4, 5)}, {},
        lambda x, y: (pw.mul(broadcast_to(x, shape=(3, 4, 5)), y), broadcast_to(x, shape=(2, 3, 4, 5))),
    ),
    "slices of slices, split and joined": (
        {"x": (6, 10)}, {},
        lambda x: layout.concat(
            *layout.split(
                layout.slice_(x, starts=(1, 2), stops=(5, 10), steps=(1, 2), axes=(0, 1)), axis=1, sizes=(1, 3)
            ),
            pw.neg(layout.slice_(x, starts=(-4,), stops=(6,), steps=(1,), axes=(0,))), axis=1,
        ),
    ),
    "a permutation that becomes a reshape": (
        {"x": (2, 3, 4)}, {}, lambda x: layout.reshape(layout.transpose(x, perm=(2, 0, 1)), shape=(4, 6)),
    ),
    "weights of weights": (
        {"x": (2, 8)}, weights(w=(8, 8)),
        lambda x, w: matmul.matmul(x, layout.transpose(pw.mul(w, 2.0), perm=(1, 0))),
    ),
    "a constant, a weight and an input as outputs": (
        {"x": (2, 3)}, weights(w=(3, 3)), lambda x, w: (x, w, layout.transpose(w, perm=(1, 0)), pw.add(x, 1.0)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", [*CASES, *MORE])
def test_programs_compute_what_array_kernels_do(name, either):
    inputs, state, body = {**CASES, **MORE}[name]
    graph = build(inputs, state, body)
    buckets = compare(graph, state, {"n": 3, "s": 7}, runs=4)
    if either == "arrays":
        assert all(isinstance(s.work, ArrayCall | Copy) for s in buckets.programs[-1].steps)


def test_pointwise_chains_are_one_kernel():
    graph = build({"x": (4, 33), "y": (33,)}, {}, lambda x, y: pw.mul(pw.sigmoid(pw.add(x, y)), pw.tanh(x)))
    (program,) = compare(graph, {}).programs
    assert [s.ops for s in program.steps] == [("add", "sigmoid", "tanh", "mul")]


def test_half_precision_is_rounded_where_it_is_stored():
    def body(x):
        half = pw.cast(pw.mul(x, 3.0), dtype="float16")
        return pw.cast(pw.exp(half), dtype="float32"), half

    graph = build({"x": (40, 3)}, {}, body)
    (program,) = compare(graph, {}, tolerance=1e-3).programs
    assert not program.compiler.refused


def test_convolutions_stay_channels_last():
    inputs, state, body = MORE["a stretch of channels last"]
    program = compare(build(inputs, state, body), state).programs[-1]
    copies = [s for s in program.steps if s.ops == ("copy",)]
    assert len(copies) == 1, str(program)  # the input
    wide = [p.operand for s in program.steps for p in s.writes() if p.operand.ndim == 4]
    assert all(o.channels_last for o in wide), str(program)


def test_views_move_nothing():
    inputs, state, body = CASES["attention heads are views"]
    program = compare(build(inputs, state, body), state, {"n": 2, "s": 3}).programs[-1]
    assert "transpose" not in [op for s in program.steps for op in s.ops]


def test_a_rule_that_stumbles_costs_a_kernel(monkeypatch):
    compiler.load_rules()

    def stumbles(site):
        site.temporary(np.dtype(np.float32), (1000,))
        raise ZeroDivisionError

    broken = compiler.LOWERINGS["pointwise"].__class__(stumbles, None)
    monkeypatch.setattr(compiler, "LOWERINGS", {"pointwise": broken})
    graph = build({"x": (4, 4)}, {}, lambda x: pw.exp(x))
    with pytest.warns(RuntimeWarning, match="ZeroDivisionError"):
        (program,) = compare(graph, {}).programs
    assert "its rule failed" in program.compiler.refused[0]
    assert not [s for s in program.compiler.storages if s.nbytes == 4000]


def test_a_program_prints_its_steps():
    state = weights(w=(33, 5))
    graph = build({"x": (4, 33)}, state, lambda x, w: normalize.softmax(matmul.matmul(pw.exp(x), w), axis=-1))
    for node in graph.nodes:
        node.name = f"the_{node.op.name}"
    text = str(compare(graph, state))
    assert "exp: pointwise_exp grid 1x1x1 block 256x1x1 -> float32[4, 33] at arena+" in text
    assert "1,056 B  # the_exp" in text
    assert "3 steps" in text


# weights -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [aligned, shifted, np.array])
def test_weights_that_change_are_seen(place):
    state = {"w": place(weights(w=(8, 8))["w"])}
    graph = build({"x": (2, 8)}, state, lambda x, w: (pw.mul(x, 1.0), matmul.matmul(x, pw.mul(w, 2.0)), w))
    buckets, (x,) = Buckets(graph, HostRunner()), feeds_for(graph)
    t = Tensor(state["w"])

    def check():
        for _ in range(2):
            found = buckets.run([x], {"w": t})[0]
            np.testing.assert_allclose(found[1], x @ (2 * t._array), rtol=1e-4, atol=1e-5)
            np.testing.assert_array_equal(found[2], t._array)

    check()
    t.mul_(3)
    check()
    t.data = place(np.ones((8, 8), np.float32))
    check()
    t[0] = 5
    check()
    if place is np.array:  # others do not own their memory, so that nothing tells who else has them
        outside = t.numpy()
        outside[:] = 7
        check()
        outside[:] = 8
        check()


def test_programs_of_other_shapes_share_weights():
    w = aligned(weights(w=(64, 64))["w"])
    graph = build({"x": ("n", 64)}, {"w": w}, lambda x, w: matmul.matmul(x, pw.mul(w, 2.0)))
    buckets, tensors = Buckets(graph, HostRunner()), {"w": Tensor(w)}
    for n in (1, 2, 3):
        x = np.ones((n, 64), np.float32)
        close(buckets.run([x], tensors)[0], [x @ (2 * w)])
    assert len(buckets.programs) == 3
    assert buckets.store.nbytes == w.nbytes


def test_a_refresh_that_fails_is_done_again(monkeypatch):
    w = weights(w=(64, 64))["w"]
    graph = build({"x": ("n", 64)}, {"w": w}, lambda x, w: matmul.matmul(x, pw.mul(w, 2.0)))
    buckets, tensor = Buckets(graph, HostRunner()), Tensor(w)
    x = np.ones((2, 64), np.float32)
    buckets.run([x], {"w": tensor})
    tensor.mul_(3.0)
    with monkeypatch.context() as m, pytest.raises(MemoryError):
        m.setattr(store, "execute", lambda *_: (_ for _ in ()).throw(MemoryError()))
        buckets.run([x], {"w": tensor})
    close(buckets.run([x], {"w": tensor})[0], [x @ (2 * tensor._array)], 1e-3)


@pytest.mark.parametrize("programs", [0, None])
def test_results_are_nobody_elses(programs):
    constant = np.arange(3, dtype=np.float32)
    graph = build({"x": ("n", 3)}, {}, lambda x: (layout.reshape(x, shape=(-1,)), pw.mul(x, constant)))
    buckets = Buckets(graph, HostRunner(), programs=programs)
    x = buckets.runner.array(np.ones((2, 3), np.float32))
    for _ in range(2):
        flat, product = buckets.run([x])[0]
        flat += 1
        product += 1
        np.testing.assert_array_equal(x, np.ones((2, 3)))


def test_only_memory_that_is_taken_is_held():
    graph = build({"x": ("n", 64)}, {}, lambda x: pw.exp(red.sum_(pw.exp(x), axes=(1,))))
    buckets = Buckets(graph, HostRunner())
    x = np.ones((2, 64), np.float32)
    assert buckets.program_for([x]) is not None and buckets.held() == []
    buckets.run([x])
    assert sum(n for _, n, _ in buckets.held()) > 0


# shapes --------------------------------------------------------------------------------------------------------------


def test_programs_are_kept_by_shapes_the_latest_few():
    graph = build({"x": ("n", 3)}, {}, lambda x: pw.relu(x))
    buckets = Buckets(graph, HostRunner(), programs=2)
    for n in (1, 2, 1, 3):
        buckets.run([np.ones((n, 3), np.float32)])
    assert [p.graph.inputs[0].shape[0] for p in buckets.programs] == [1, 3]


def test_memory_limits_the_programs():
    graph = build({"x": ("n", 64)}, {}, lambda x: pw.exp(red.sum_(pw.exp(x), axes=(1,))))
    buckets = Buckets(graph, HostRunner(), limit_bytes=1 << 16)
    for n in (100, 120, 1000):
        buckets.run([np.ones((n, 64), np.float32)])
    assert [p.graph.inputs[0].shape[0] for p in buckets.programs] == [1000]
    assert buckets.nbytes > 1 << 16


def test_programs_can_be_switched_off(monkeypatch, on_cuda):
    graph = build({"x": (2, 3)}, weights(a=(2, 3)), lambda x, a: (pw.add(x, a), pw.exp(a)))
    a, x = weights(a=(2, 3))["a"], np.ones((2, 3), np.float32)
    monkeypatch.setenv(choice.VARIABLE, "off")
    buckets = choice.compile_buckets(with_state_fed(graph), "cuda:0", in_place={0: 1})
    new = a.copy()
    found, _ = buckets.run([x, new])
    assert found[0] is None
    close([new, found[1]], [a + x, np.exp(a)])
    assert not buckets.programs
    assert "switched off" in str(buckets)
    monkeypatch.setenv(choice.VARIABLE, "uncaptured")
    assert not choice.compile_buckets(graph, "cuda:0").capture
    monkeypatch.setenv(choice.VARIABLE, "sometimes")
    with pytest.raises(InputError, match="wanted 'uncaptured' or 'off'"):
        choice.compile_buckets(graph, "cuda:0")


def test_inputs_of_another_type_are_refused():
    program = CudaProgram(build({"x": (2, 3)}, {}, pw.exp), HostRunner())
    with pytest.raises(InputError, match=r"'x': found float64\(2, 3\)"):
        program.run([np.ones((2, 3))])


@pytest.mark.parametrize("mode", ["launch", "default"])
def test_an_error_of_the_device_is_said_of_its_step(mode, monkeypatch, no_kernels):
    """In the mode `launch` every step is waited for, recorded or not; without it nothing is said of a step."""

    class CUDARuntimeError(RuntimeError):
        __module__ = "cupy_backends.cuda.api.runtime"

    graph = build({"x": (4, 3)}, {}, lambda x: normalize.softmax(red.mean(pw.exp(x), axes=(1,)), axis=0))
    graph.nodes[-1].name = "/head/Softmax"
    runner = HostRunner()
    program, x = CudaProgram(graph, runner), np.ones((4, 3), np.float32)
    for _ in range(WARM_UPS + 2):
        program.run([x])
    guard = object.__new__(Guard)
    guard.mode = mode
    monkeypatch.setattr(Late, "guard", guard)
    waits, wait = [], runner.synchronize

    def synchronize():
        waits.append(1)
        wait()
        if len(waits) == len(program.steps):
            raise CUDARuntimeError("cudaErrorIllegalAddress")

    monkeypatch.setattr(runner, "synchronize", synchronize)
    if mode == "default":
        program.run([x])
        assert not waits
        return
    said = rf"'/head/Softmax', step {len(program.steps) - 1} of its program \(softmax\): cudaErrorIllegalAddress"
    with pytest.raises(DeviceError, match=said):
        program.run([x])


def test_results_are_the_callers():
    graph = build({"x": (2, 3)}, {}, lambda x: (x, pw.exp(x)))
    program = CudaProgram(graph, HostRunner())
    x = np.ones((2, 3), np.float32)
    first = program.run([x])
    kept = [a.copy() for a in first]
    program.run([2 * x])
    for a, b in zip(first, kept, strict=True):
        np.testing.assert_array_equal(a, b)
        a += 1
    np.testing.assert_array_equal(program.run([x])[1], kept[1])


# state that is overwritten -------------------------------------------------------------------------------------------


def adam_graph():
    def body(x, w, mean, square, numbers):
        y = matmul.matmul(x, w)
        g = matmul.matmul(layout.transpose(x, perm=(1, 0)), y)
        new = optimize.adam_update(w, g, mean, square, None, numbers, decays=False, decoupled=False)
        return (red.sum_(y), *new)

    shapes = {"x": (5, 8), "w": (8, 4), "mean": (8, 4), "square": (8, 4), "numbers": (7,)}
    state = {n: np.zeros(s, np.float32) for n, s in shapes.items() if n not in ("x", "numbers")}
    graph = build({n: shapes[n] for n in ("x", "numbers")}, state, lambda x, n, w, m, s: body(x, w, m, s, n))
    return graph, {1: 2, 2: 3, 3: 4}  # outputs and the feeds that they replace


def step_by_step(graph, feeds, count):
    names = [v.name for v in graph.state.values()]
    losses = []
    for _ in range(count):
        outs, _ = reference(graph, feeds[:2], dict(zip(names, feeds[2:], strict=True)))
        losses.append(outs[0])
        feeds = [*feeds[:2], *outs[1:]]
    return losses, feeds[2:]


@pytest.mark.parametrize("place", [aligned, shifted])
def test_state_is_overwritten(place, either):
    graph, pairs = adam_graph()
    rng = np.random.default_rng(0)
    numbers = np.array([0, 0.1, 0.999, 0.001, 1, 1e-8, 0.1], np.float32)
    feeds = [rng.standard_normal((5, 8)).astype(np.float32), numbers]
    state = [rng.standard_normal((8, 4)).astype(np.float32), *(np.zeros((8, 4), np.float32) for _ in range(2))]
    losses, wanted = step_by_step(graph, [*feeds, *state], 5)
    runner = HostRunner()
    program = CudaProgram(with_state_fed(graph), runner, in_place=pairs)
    verify(program)
    held = [place(a) for a in state]
    for loss in losses:
        outs = program.run([*feeds, *held])
        close(outs[:1], [loss])
        assert all((o is None) == (place is aligned) for o in outs[1:])
        if place is shifted:
            held = [*map(shifted, outs[1:])]
    close(held, wanted)
    assert "copy" not in [op for s in program.steps for op in s.ops]
    runner.check()


@pytest.mark.parametrize("sizes", [[(3, 5), (7,)], [(3, 5), (7,), (1,), (600, 500), (4, 4)]])
def test_small_parameters_are_updated_in_one_launch(sizes):
    """What shares its numbers and settings goes together; a large parameter goes alone."""
    if host.why_not():
        pytest.skip(host.why_not())

    def body(numbers, *params):
        step = {"decays": False, "nesterov": False}
        return tuple(optimize.sgd_update(p, pw.mul(p, 2.0), None, numbers, **step)[0] for p in params)

    state = weights(**{f"p{i}": s for i, s in enumerate(sizes)})
    graph = build({"numbers": (4,)}, state, body)
    numbers = np.array([0.25, 0, 0, 0], np.float32)
    runner = HostRunner()
    program = CudaProgram(with_state_fed(graph), runner, in_place={i: i + 1 for i in range(len(sizes))})
    verify(program)
    held = [aligned(a) for a in state.values()]
    for run in range(5):
        if run == 4:
            held[1] = aligned(held[1])  # the table of addresses follows
        assert program.run([numbers, *held]) == [None] * len(sizes)
    close(held, [a / 32 for a in state.values()])
    small = len([s for s in sizes if np.prod(s) < updates.SMALL])
    assert f"sgd_update of {small}: sgd_update_several" in str(program)
    steps = [s for s in program.steps if "sgd_update" in s.ops[0]]
    assert len(steps) == 1 + len(sizes) - small
    assert "copy" not in [op for s in program.steps for op in s.ops]
    runner.check()


def test_what_is_read_later_is_not_overwritten_early():
    """The new value of a is wanted before its old one is read for the last time; a and b change places."""

    def body(x, a, b):
        new = pw.add(a, x)
        return new, pw.mul(pw.exp(new), a), b, a

    graph = build({"x": (3, 4)}, weights(a=(3, 4), b=(3, 4)), body)
    state = weights(a=(3, 4), b=(3, 4))
    x = np.ones((3, 4), np.float32)
    program = CudaProgram(with_state_fed(graph), HostRunner(), in_place={0: 1})
    a, b = aligned(state["a"]), aligned(state["b"])
    found = program.run([x, a, b])
    assert found[0] is None
    close([a, *found[1:]], reference(graph, [x], state)[0])
    swapped = CudaProgram(with_state_fed(graph), HostRunner(), in_place={2: 1, 3: 2})
    a, b = aligned(state["a"]), aligned(state["b"])
    found = swapped.run([x, a, b])
    assert found[2:] == [None, None]
    close([*found[:2], a, b], reference(graph, [x], state)[0])


def test_state_that_wanders_is_copied():
    graph = build({"x": (3, 4)}, weights(a=(3, 4)), lambda x, a: (pw.add(a, x), pw.mul(a, 2.0)))
    runner = HostRunner()
    program = CudaProgram(with_state_fed(graph), runner, in_place={0: 1})
    a, x = weights(a=(3, 4))["a"], np.ones((3, 4), np.float32)
    kept = []
    for run in range(WANDERS + 4):
        kept.append(aligned(a))
        found = program.run([x, kept[-1]])
        assert (found[0] is None) == (run < WANDERS)
        close([kept[-1] if found[0] is None else found[0], found[1]], [a + x, 2 * a])
        a = a + x
    runner.log.clear()
    program.run([x, aligned(a)])
    program.run([x, aligned(a)])
    assert runner.log.count("replay") == 2


# on a device ---------------------------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.parametrize("name", [*CASES, *MORE])
@pytest.mark.parametrize("capture", [True, False])
def test_programs_compute_the_same_on_a_device(name, capture):
    from onnxgrad.runtime.cuda.choice import runner_of

    inputs, state, body = {**CASES, **MORE}[name]
    graph = build(inputs, state, body)
    buckets = Buckets(graph, runner_of(0), capture=capture)
    tensors = {n: Tensor(runner_of(0).array(a)) for n, a in state.items()}
    for run in range(4):
        feeds = feeds_for(graph, {"n": 3, "s": 7}, seed=run)
        close(buckets.run(feeds, tensors, host=True)[0], reference(graph, feeds, state)[0])
    assert not buckets.refused


@pytest.mark.gpu
def test_state_is_overwritten_on_a_device():
    from onnxgrad.runtime.cuda.choice import runner_of

    graph, pairs = adam_graph()
    rng = np.random.default_rng(0)
    numbers = np.array([0, 0.1, 0.999, 0.001, 1, 1e-8, 0.1], np.float32)
    feeds = [rng.standard_normal((5, 8)).astype(np.float32), numbers]
    state = [rng.standard_normal((8, 4)).astype(np.float32), *(np.zeros((8, 4), np.float32) for _ in range(2))]
    losses, wanted = step_by_step(graph, [*feeds, *state], 6)
    runner = runner_of(0)
    program = CudaProgram(with_state_fed(graph), runner, in_place=pairs)
    held = [runner.array(a) for a in state]
    for loss in losses:
        outs = program.run([*feeds, *held], host=True)
        close(outs[:1], [loss])
        assert outs[1:] == [None, None, None]
    assert program.capture.graphs
    close([runner.download(a) for a in held], wanted)
