"""Compiled graphs against the array kernels: fusion, layouts, views, symbolic sizes, Python steps, changing weights."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from onnxgrad.ops import conv, index, layout, matmul, normalize, pointwise as pw, reduce as red
from onnxgrad.ops.errors import InputError, OnnxGradError
from onnxgrad.ops.kernels.cpu import jit
from onnxgrad.ops.window import Window
from onnxgrad.runtime.compiled.program import BINDINGS, Program
from onnxgrad.runtime.tensor.tensor import Tensor

from ...ops.kernels.cpu.site import guarded
from .graphs import build, compare, feeds_for, kernels, on_host, reference

SAME = Window((1, 1), ((1, 1), (1, 1)), (1, 1))
POINT = Window((1, 1), ((0, 0), (0, 0)), (1, 1))


def weights(seed: int = 0, **shapes: tuple[int, ...]) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {n: (rng.standard_normal(s) / max(np.prod(s[1:]), 1) ** 0.5).astype(np.float32) for n, s in shapes.items()}


CONVS = weights(w=(16, 16, 3, 3), b=(1, 16, 1, 1), v=(16, 16, 3, 3))
CASES: dict[str, tuple[dict[str, Any], dict[str, Any], Callable[..., Any]]] = {
    "conv + bias + relu": (
        {"x": ("n", 16, 9, 7)}, CONVS, lambda x, w, b, v: pw.relu(pw.add(conv.conv(x, w, win=SAME), b)),
    ),
    "residual": (
        {"x": ("n", 16, 9, 7)}, CONVS,
        lambda x, w, b, v: pw.relu(
            pw.add(pw.add(conv.conv(pw.relu(conv.conv(x, w, win=SAME)), v, win=SAME), b), x)
        ),
    ),
    "silu reads its input twice": (
        {"x": (2, 16, 5, 5)}, CONVS,
        lambda x, w, b, v: (lambda y: pw.mul(y, pw.sigmoid(y)))(pw.add(conv.conv(x, w, win=SAME), b)),
    ),
    "a value read by two nodes is stored": (
        {"x": (1, 16, 6, 6)}, CONVS,
        lambda x, w, b, v: (lambda y: (pw.relu(y), red.mean(y, axes=(2, 3))))(conv.conv(x, w, win=SAME)),
    ),
    "concatenation of convolutions": (
        {"x": ("n", 16, 6, 5)}, CONVS,
        lambda x, w, b, v: conv.conv(
            layout.slice_(
                layout.concat(conv.conv(x, w, win=SAME), pw.relu(conv.conv(x, v, win=SAME)), x, axis=1),
                starts=(8,), stops=(24,), steps=(1,), axes=(1,),
            ), w, win=SAME,
        ),
    ),
    "growing concatenations": (
        {"x": (2, 16, 4, 4)}, CONVS,
        lambda x, w, b, v: (
            lambda a: (
                lambda c: layout.concat(a, c, pw.relu(pw.mul(layout.concat(a, c, axis=1), 2.0)), axis=1)
            )(conv.conv(a, v, win=SAME))
        )(conv.conv(x, w, win=SAME)),
    ),
    "an input, views and the same value twice as outputs": (
        {"x": (2, 3)}, {},
        lambda x: (x, layout.transpose(x, perm=(1, 0)), pw.relu(x), pw.relu(x), layout.transpose(x, perm=(1, 0))),
    ),
    "attention heads are views": (
        {"x": ("n", "s", 24)}, weights(w=(24, 72)),
        lambda x, w: matmul.matmul(
            *(lambda h: (layout.transpose(h[0], perm=(0, 2, 1, 3)), layout.transpose(h[1], perm=(0, 2, 3, 1))))(
                [
                    layout.reshape(part, shape=(x.shape[0], x.shape[1], 4, 6))
                    for part in layout.split(matmul.matmul(x, w), axis=2, sizes=(24, 24, 24))
                ]
            )
        ),
    ),
    "softmax of a product": (
        {"x": ("n", 10, 24)}, weights(w=(24, 31), b=(31,)),
        lambda x, w, b: normalize.softmax(pw.mul(pw.add(matmul.matmul(x, w), b), 0.5), axis=-1),
    ),
    "integers and truth values": (
        {"x": (4, 5), "y": (4, 5)}, {},
        lambda x, y: pw.where(
            pw.logical_and(pw.less(x, y), pw.less(0.0, x)), pw.cast(pw.cast(x, dtype="int64"), dtype="float32"), y
        ),
    ),
    "an empty batch": ({"x": (0, 16, 6, 6)}, CONVS, lambda x, w, b, v: pw.relu(conv.conv(x, w, win=SAME))),
    "scalars": ({"x": ()}, {}, lambda x: pw.exp(pw.mul(x, 0.1))),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("guard", [None, "end", "begin"])
def test_compiled_graphs_compute_what_array_kernels_do(name: str, guard: str | None) -> None:
    inputs, state, body = CASES[name]
    graph = build(inputs, state, body)
    memory = None if guard is None else (lambda n: guarded(n, at_end=guard == "end"))
    compare(graph, state, {"n": 3, "s": 7}, guard=memory)


@pytest.mark.usefixtures("all_threads")
@pytest.mark.parametrize("name", CASES)
def test_results_do_not_depend_on_the_number_of_threads(name: str) -> None:
    inputs, state, body = CASES[name]
    graph = build(inputs, state, body)
    feeds = feeds_for(graph, {"n": 4, "s": 40})
    tensors = {n: Tensor(a) for n, a in state.items()}
    runs = [Program(graph, threads=t).run(feeds, tensors)[0] for t in (1, 2, 4, 2)]
    for other in runs[1:]:
        for a, b in zip(runs[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_pointwise_tails_leave_one_kernel() -> None:
    for name in ("conv + bias + relu", "silu reads its input twice"):
        inputs, state, body = CASES[name]
        program = compare(build(inputs, state, body), state, {"n": 1})
        assert not on_host(program)
        assert [k for k in kernels(program) if "copy" not in k and k != "zero_halo"] == [
            k for k in kernels(program) if "conv" in k or "winograd" in k
        ]


def test_the_first_of_several_outputs_takes_the_tail() -> None:
    """Nodes that read the others wait for it, where nothing waits for them."""
    state = {n: a for n, a in weights(scale=(16,), bias=(16,), mean=(16,), var=(16,)).items()}
    sizes: dict[str, Any] = {"x": (2, 16, 8, 8), "r": (2, 16, 8, 8)}

    def forward(x: Any, r: Any, scale: Any, bias: Any, mean: Any, var: Any) -> tuple[Any, ...]:
        y, mean, var = normalize.batch_norm_train(x, scale, bias, mean, var, epsilon=1e-3, momentum=0.9)
        used = pw.mul(var, 2.0)
        return pw.relu(pw.add(y, r)), mean, used

    program = compare(build(sizes, state, forward), state)
    assert "batch_norm_train [batch_norm_train + add + relu]" in str(program)

    def waited_for(x: Any, r: Any, scale: Any, bias: Any, mean: Any, var: Any) -> Any:
        dx, dscale, _ = normalize.batch_norm_train_grad(r, x, scale, epsilon=1e-3)
        return pw.mul(dx, layout.reshape(dscale, shape=(16, 1, 1)))

    program = compare(build(sizes, state, waited_for), state)
    assert "batch_norm_train_grad [" not in str(program)


def test_concatenated_results_are_written_in_place() -> None:
    inputs, state, body = CASES["growing concatenations"]
    program = compare(build(inputs, state, body), state)
    copies = [c for s in program.compiler.stages for c in s.calls if c.kernel.name == "copy"]
    assert len(copies) <= 3, str(program)  # the input, and the output


def test_64_sequence_lengths_compile_once() -> None:
    _, state, body = CASES["softmax of a product"]
    graph = build({"x": ("n", "s", 24)}, state, body)
    program = Program(graph)
    before = jit.compiled_modules()
    for s in range(1, 65):
        compare(graph, state, {"n": 1 + s % 3, "s": s}, program=program)
    assert jit.compiled_modules() == before


def test_bindings_are_bounded() -> None:
    graph = build({"x": ("n", 3)}, {}, lambda x: pw.relu(x))
    program = Program(graph)
    for n in range(BINDINGS + 20):
        program.run([np.ones((n, 3), np.float32)], {})
    assert len(program._bindings) == BINDINGS


def test_growing_sizes_leave_one_arena() -> None:
    _, state, body = CASES["softmax of a product"]
    program = Program(build({"x": ("n", "s", 24)}, state, body))
    for s in range(1, 40):
        program.run([np.ones((2, s, 24), np.float32)], {n: Tensor(a) for n, a in state.items()})
    frames = [f for bound in program._bindings.values() for f in bound.frames]
    assert len(frames) == 39
    assert len({id(f.arena) for f in frames if f.arena is not None}) == 1


def test_steps_without_a_kernel_run_their_array_kernel_between() -> None:
    state = weights(w=(8, 8))

    def body(x: Any, w: Any) -> Any:
        places = layout.reshape(index.nonzero(pw.less(0.0, x)), shape=(-1,))
        return index.gather(matmul.matmul(x, w), places, axis=1)

    graph = build({"x": (5, 8)}, state, body)
    feeds = [np.abs(np.random.default_rng(0).standard_normal((5, 8))).astype(np.float32)]
    program = Program(graph)
    found, _ = program.run(feeds, {n: Tensor(a) for n, a in state.items()})
    wanted, _ = reference(graph, feeds, state)
    np.testing.assert_allclose(found[0], wanted[0], rtol=1e-4, atol=1e-6)
    assert "nonzero" in on_host(program)


def test_packing_that_fails_is_done_again(monkeypatch: pytest.MonkeyPatch) -> None:
    state = weights(w=(8, 8))
    graph = build({"x": (2, 8)}, state, lambda x, w: matmul.matmul(x, pw.mul(w, 2.0)))
    program, (x,), t = Program(graph), feeds_for(graph), Tensor(state["w"])
    program.run([x], {"w": t})
    t.mul_(3)
    with monkeypatch.context() as m, pytest.raises(MemoryError):
        m.setattr(program.weights, "evaluate", lambda *_: (_ for _ in ()).throw(MemoryError()))
        program.run([x], {"w": t})
    np.testing.assert_allclose(program.run([x], {"w": t})[0][0], x @ (2 * t._array), rtol=1e-4, atol=1e-5)


def test_weights_that_change_are_packed_again() -> None:
    state = weights(w=(8, 8))
    graph = build({"x": (2, 8)}, state, lambda x, w: matmul.matmul(x, pw.mul(w, 2.0)))
    program, (x,) = Program(graph), feeds_for(graph)
    t = Tensor(state["w"])

    def check() -> None:
        np.testing.assert_allclose(program.run([x], {"w": t})[0][0], x @ (2 * t._array), rtol=1e-4, atol=1e-5)

    check()
    t.mul_(3)
    check()
    t.data = np.ones((8, 8), np.float32)
    check()
    t[0] = 5
    check()
    outside = t.numpy()
    outside[:] = 7
    check()
    outside[:] = 8
    check()
    generation = program.weights.generation
    del outside
    check()
    check()
    assert program.weights.generation <= generation + 1


def test_sizes_that_contradict_each_other_are_refused_before_anything_runs() -> None:
    graph = build({"x": ("n", "k"), "y": ("m", 4)}, {}, lambda x, y: matmul.matmul(x, y))
    program = Program(graph)
    np.testing.assert_allclose(
        program.run([np.ones((2, 3), "f4"), np.ones((3, 4), "f4")], {})[0][0], np.full((2, 4), 3)
    )
    with pytest.raises(OnnxGradError, match="matmul"):
        program.run([np.ones((2, 3), np.float32), np.ones((5, 4), np.float32)], {})
    with pytest.raises(InputError, match="wanted"):
        program.run([np.ones((2, 3), np.float32), np.ones((3, 5), np.float32)], {})


@pytest.mark.parametrize("small", [True, False])
def test_threads_are_woken_where_they_save_time(small: bool) -> None:
    w = np.zeros((8, 8) if small else (512, 512), np.float32)
    program = Program(build({"x": ("n", len(w))}, {"w": w}, lambda x, w: matmul.matmul(x, w)), threads=2)
    x = np.ones((1 if small else 512, len(w)), np.float32)
    program.run([x], {"w": Tensor(w)})
    bound = program.bound_for([x])
    assert bound is not None
    assert program.threads_for(bound) == (1 if small else 2)


@pytest.mark.usefixtures("all_threads")
def test_one_program_runs_in_several_threads() -> None:
    inputs, state, body = CASES["residual"]
    graph = build(inputs, state, body)
    program, tensors = Program(graph, threads=2), {n: Tensor(a) for n, a in state.items()}
    wrong: list[Any] = []

    def many(n: int) -> None:
        feeds = feeds_for(graph, {"n": n}, seed=n)
        wanted, _ = reference(graph, feeds, state)
        for _ in range(20):
            found, _ = program.run(feeds, tensors)
            if not np.allclose(found[0], wanted[0], rtol=1e-4, atol=1e-4):
                wrong.append(n)

    threads = [threading.Thread(target=many, args=(n,)) for n in (1, 2, 3, 1)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def test_a_kernel_that_fails_to_compile_is_replaced_with_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs, state, body = CASES["softmax of a product"]
    graph = build(inputs, state, body)
    for node in graph.nodes:
        node.name = f"node_{node.op.name}"
    program = Program(graph)
    broken = next(c.kernel for s in program.compiler.stages for c in s.calls if "softmax" in c.kernel.name)
    original = broken.emit

    def fails(e: Any, params: Any) -> None:
        raise ValueError("no such instruction")

    fails.__module__, fails.__qualname__ = original.__module__, original.__qualname__ + "_broken"
    import onnxgrad.ops.kernels.cpu.softmax as module

    name = original.__name__
    monkeypatch.setattr(module, name, fails)
    with pytest.warns(RuntimeWarning, match=r"no such instruction.*node_softmax"):
        replaced = Program(graph)
    assert "softmax" in on_host(replaced)
    compare(graph, state, {"n": 2}, program=replaced)


def test_a_program_prints_its_stages() -> None:
    inputs, state, body = CASES["conv + bias + relu"]
    text = str(Program(build(inputs, state, body)))
    assert "conv + add + relu" in text
    assert "FLOP" in text
    assert "channels last" in text
