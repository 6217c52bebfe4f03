"""Conditions over small inputs are asked before a run: one native program a way, and the same results."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from onnxgrad.importers.onnx.model import load, load_bytes
from onnxgrad.ops.errors import OnnxGradError
from onnxgrad.ops.kernels.cpu.target import available
from onnxgrad.runtime.autograd.grad_mode import no_grad
from onnxgrad.runtime.compiled.branches import PROGRAMS
from onnxgrad.runtime.model.model import Model

from ...shared_data import find_shared

SHARED = find_shared()

pytestmark = pytest.mark.skipif(not available(), reason="the compiled engine is off")

rng = np.random.default_rng(0)
W = {n: rng.standard_normal((4, 4)).astype(np.float32) for n in ("w1", "w2", "w3")}
INT, FLOAT, BOOL = TensorProto.INT64, TensorProto.FLOAT, TensorProto.BOOL


def named(name: str, kind: int = FLOAT, shape: Any = None) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def node(kind: str, inputs: str, output: str, **attrs: Any) -> Any:
    return helper.make_node(kind, inputs.split(), output.split(), **attrs)


def branch(name: str, *nodes: Any) -> Any:
    return helper.make_graph(nodes, name, [], [named(o) for o in nodes[-1].output])


def model(nodes: list[Any], inputs: list[Any], *outputs: Any, **constants: Any) -> Model:
    arrays = {**W, "rate": np.array(16000, np.int64), "three": np.array([3], np.int64), **constants}
    used = {i for n in nodes for i in _read(n)}
    graph = helper.make_graph(
        nodes, "g", inputs, list(outputs) or [named("out")],
        [numpy_helper.from_array(a, n) for n, a in arrays.items() if n in used],
    )  # fmt: skip
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    return load_bytes(made.SerializeToString())


def _read(n: Any) -> list[str]:
    inner = [i for a in n.attribute if a.type == AttributeProto.GRAPH for m in a.g.node for i in _read(m)]
    return [*n.input, *inner]


def picking(rate_shape: tuple[Any, ...] = ()) -> Model:
    """If the rate is 16000, x @ w1 and another column of ones; else relu(x @ w2)."""
    one = numpy_helper.from_array(np.ones((1, 4), np.float32), "one")
    then = branch("then", node("MatMul", "x w1", "a0"), node("Concat", "a0 one", "a", axis=0))
    then.initializer.append(one)
    other = branch("other", node("MatMul", "x w2", "b0"), node("Relu", "b0", "b"))
    nodes = [
        node("Equal", "sr rate", "c"),
        node("If", "c", "y", then_branch=then, else_branch=other),
        node("MatMul", "y w3", "out"),
    ]
    return model(nodes, [named("x", FLOAT, ["n", 4]), named("sr", INT, rate_shape)])


def picked(x: Any, rate: int) -> Any:
    y = np.concatenate([x @ W["w1"], np.ones((1, 4))]) if rate == 16000 else np.maximum(x @ W["w2"], 0)
    return y @ W["w3"]


def made(n: int, seed: int = 1) -> Any:
    return np.random.default_rng(seed).standard_normal((n, 4)).astype(np.float32)


def programs(m: Model) -> list[Any]:
    branches = m._compiled().branches  # type: ignore[union-attr]
    return [] if branches is None else [p for _, p in branches.programs()]


@pytest.mark.usefixtures("all_threads")
@pytest.mark.parametrize("shape", [(), (1,), ("k",)])
def test_each_way_has_a_native_program(shape: tuple[Any, ...]) -> None:
    m, plain, alone = picking(shape), picking(shape), picking(shape)
    m.threads, alone.threads = 2, 1
    plain._compiled().branches = None  # type: ignore[union-attr]
    for rate, n in [(16000, 3), (8000, 3), (16000, 5), (44100, 5), (8000, 1), (16000, 3), (-1, 2), (16000, 3)]:
        feeds = {"x": made(n), "sr": np.full((1,) * len(shape), rate, np.int64)}
        (found,) = m.run(feeds)
        np.testing.assert_allclose(found, picked(feeds["x"], rate), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found, plain.run(feeds)[0], rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(found, alone.run(feeds)[0])
    assert len(programs(m)) == 2, "what is kept hangs on the condition, not on the rate"
    assert all(p.native for p in programs(m))


def test_the_short_way_compares_what_was_asked() -> None:
    m = picking()
    feeds = {"x": made(3), "sr": np.array(16000, np.int64)}
    for _ in range(3):
        m.run(feeds)
    assert m._shortcut is not None
    assert m._shortcut.run(feeds) is not None
    feeds["sr"][...] = 8000
    assert m._shortcut.run(feeds) is None
    np.testing.assert_allclose(m.run(feeds)[0], picked(feeds["x"], 8000), rtol=1e-4, atol=1e-5)


def test_threads_of_python_with_different_rates() -> None:
    m, errors = picking(), []

    def many(rate: int) -> None:
        for i in range(40):
            x = made(1 + (i + rate) % 4, i)
            try:
                found = m.run({"x": x, "sr": np.array(rate, np.int64)})[0]
                np.testing.assert_allclose(found, picked(x, rate), rtol=1e-4, atol=1e-5)
            except AssertionError as error:
                errors.append(error)

    running = [threading.Thread(target=many, args=(r,)) for r in (16000, 8000, 16000, 11025)]
    for t in running:
        t.start()
    for t in running:
        t.join()
    assert not errors
    assert len(programs(m)) == 2


def test_new_weights_reach_every_way() -> None:
    m = picking()
    x = made(2)
    for rate in (16000, 8000, 16000, 8000):
        m.run({"x": x, "sr": np.array(rate, np.int64)})
    with no_grad():
        dict(m.named_parameters())["w3"].mul_(2)
    for rate in (16000, 8000):
        found = m.run({"x": x, "sr": np.array(rate, np.int64)})[0]
        np.testing.assert_allclose(found, 2 * picked(x, rate), rtol=1e-4, atol=1e-5)


def test_calls_differentiate_through_the_branch_that_is_taken() -> None:
    m = picking()
    x = made(2)
    for rate, name in ((16000, "w1"), (8000, "w2")):
        for _ in range(3):
            m.run({"x": x, "sr": np.array(rate, np.int64)})
        m.zero_grad()
        m(x, np.array(rate, np.int64)).sum().backward()
        reached = {n for n, p in m.named_parameters() if p.grad is not None and np.any(p.grad.numpy())}
        assert reached == {name, "w3"}


def combined() -> Model:
    """Three flags, each of which adds a weight or multiplies by it; the last only where the second holds."""
    inner = branch("inner", node("Mul", "b x", "c0"))
    inner_else = branch("inner_else", node("Sub", "b x", "c1"))
    nodes = [
        node("Split", "flags", "f0 f1 f2", axis=0),
        node(
            "If", "f0", "a", then_branch=branch("t0", node("Add", "x x", "a0")),
            else_branch=branch("e0", node("Mul", "x x", "a1")),
        ),
        node(
            "If", "f1", "out",
            then_branch=branch(
                "t1", node("Exp", "a", "b"), node("If", "f2", "b0", then_branch=inner, else_branch=inner_else)
            ),
            else_branch=branch("e1", node("Neg", "a", "b1")),
        ),
    ]  # fmt: skip
    return model(nodes, [named("x", FLOAT, ["n", 4]), named("flags", BOOL, [3])])


def test_only_so_many_ways_are_kept_and_nested_ones_are_asked_behind_the_first() -> None:
    m = combined()
    x = made(3)
    for _ in range(2):
        for bits in range(8):
            f = np.array([bits & 1, bits & 2, bits & 4], bool)
            a = x + x if f[0] else x * x
            b = np.exp(a)
            wanted = (b * x if f[2] else b - x) if f[1] else -a
            np.testing.assert_allclose(m.run({"x": x, "flags": f})[0], wanted, rtol=1e-4, atol=1e-5)
    assert len(programs(m)) == PROGRAMS
    assert all(p.native for p in programs(m))


def test_sizes_may_take_part_in_a_condition() -> None:
    nodes = [
        node("Shape", "x", "s", start=0, end=1),
        node("Equal", "s three", "e"),
        node("And", "e flag", "c"),
        node(
            "If", "c", "out", then_branch=branch("t", node("Relu", "x", "a")),
            else_branch=branch("e", node("Neg", "x", "b")),
        ),
    ]  # fmt: skip
    m = model(nodes, [named("x", FLOAT, ["n", 4]), named("flag", BOOL, [1])])
    for n, flag in [(3, True), (3, False), (2, True), (4, False), (3, True)]:
        x = made(n)
        wanted = np.maximum(x, 0) if flag and n == 3 else -x
        np.testing.assert_array_equal(m.run({"x": x, "flag": np.array([flag])})[0], wanted)
    assert len(programs(m)) == 2
    assert all(p.native for p in programs(m))


CONDITIONS = {
    "computed": [node("ReduceSum", "x", "s", keepdims=0), node("Greater", "s zero", "c")],
    "mixed": [
        node("ReduceSum", "x", "s", keepdims=0), node("Greater", "s zero", "d"), node("Equal", "sr rate", "e"),
        node("Or", "d e", "c"),
    ],
    "float input": [node("Greater", "t zero", "c")],
    "weight": [node("ReduceSum", "w1", "s", keepdims=0), node("Greater", "s t", "c")],
}  # fmt: skip


@pytest.mark.parametrize("what", CONDITIONS)
def test_what_is_computed_is_not_asked_before(what: str) -> None:
    nodes = [
        *CONDITIONS[what],
        node(
            "If", "c", "y", then_branch=branch("t", node("Relu", "x", "a")),
            else_branch=branch("e", node("Neg", "x", "b")),
        ),
        node("MatMul", "y w1", "out"),
    ]  # fmt: skip
    inputs = [named("x", FLOAT, ["n", 4]), named("sr", INT, ()), named("t", FLOAT, ())]
    m = model(nodes, inputs, zero=np.array(0, np.float32))
    for seed in range(6):
        x, t = made(2, seed), np.array(seed - 3, np.float32)
        s = {"computed": x.sum(), "mixed": x.sum(), "float input": t, "weight": W["w1"].sum() - t}[what]
        y = np.maximum(x, 0) if s > 0 else -x
        found = m.run({"x": x, "sr": np.array(8000, np.int64), "t": t})[0]
        np.testing.assert_allclose(found, y @ W["w1"], rtol=1e-4, atol=1e-5)
    assert not programs(m)


def test_a_condition_that_cannot_be_asked_says_what_it_always_said() -> None:
    m, plain = picking(("k",)), picking(("k",))
    plain._compiled().branches = None  # type: ignore[union-attr]
    feeds = {"x": made(2), "sr": np.array([16000, 8000], np.int64)}
    said = []
    for each in (m, plain):
        with pytest.raises(OnnxGradError) as error:
            each.run(feeds)
        said.append(str(error.value))
    assert said[0] == said[1]
    assert "one element" in said[0]


def test_a_cache_of_growing_size_compiles_nothing_again() -> None:
    then = branch(
        "then", node("Concat", "past k", "all", axis=1), node("Transpose", "all", "kt", perm=[0, 2, 1]),
        node("MatMul", "k kt", "s"), node("Softmax", "s", "p", axis=-1), node("MatMul", "p all", "y0"),
        node("Identity", "all", "kept0"),
    )  # fmt: skip
    then.output.insert(0, named("y0"))
    other = branch(
        "other", node("Transpose", "k", "kt2", perm=[0, 2, 1]), node("MatMul", "k kt2", "s2"),
        node("Softmax", "s2", "p2", axis=-1), node("MatMul", "p2 k", "y1"), node("Identity", "k", "kept1"),
    )  # fmt: skip
    other.output.insert(0, named("y1"))
    nodes = [
        node("MatMul", "x w1", "k"),
        node("If", "cached", "y present", then_branch=then, else_branch=other),
        node("Shape", "present", "ps"),
        node("Reshape", "present ps", "kept"),
        node("Relu", "y", "out"),
    ]
    inputs = [named("x", FLOAT, ["b", "n", 4]), named("past", FLOAT, ["b", "p", 4]), named("cached", BOOL, [1])]
    m = model(nodes, inputs, named("out"), named("kept"))
    past = np.zeros((2, 1, 4), np.float32)
    for step in range(6):
        x = np.random.default_rng(step).standard_normal((2, 3 if step == 0 else 1, 4)).astype(np.float32)
        k = x @ W["w1"]
        every = k if step == 0 else np.concatenate([past, k], 1)
        s = np.exp(k @ every.transpose(0, 2, 1))
        out, past = m.run({"x": x, "past": past, "cached": np.array([step > 0])})
        np.testing.assert_allclose(past, every, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(out, np.maximum(s / s.sum(-1, keepdims=True) @ every, 0), rtol=1e-3, atol=1e-4)
    assert len(programs(m)) == 2
    assert all(p.native and not p._specials for p in programs(m))


def test_a_body_asks_its_own_conditions() -> None:
    body = helper.make_graph(
        [
            node("Equal", "i first", "c"),
            node(
                "If", "c", "v1", then_branch=branch("t", node("Add", "v x", "a")),
                else_branch=branch("e", node("Mul", "v x", "b")),
            ),
            node("Identity", "going", "going1"),
        ],
        "body", [named("i", INT, ()), named("going", BOOL, ()), named("v", FLOAT, ["n", 4])],
        [named("going1", BOOL, ()), named("v1", FLOAT, ["n", 4])],
    )  # fmt: skip
    inputs = [named("x", FLOAT, ["n", 4]), named("times", INT, ())]
    loop = helper.make_node("Loop", ["times", "", "x"], ["out"], body=body)
    m = model([loop], inputs, first=np.array(0, np.int64))
    for times in (1, 3, 0):
        x = made(2, times)
        wanted = {0: x, 1: x + x, 3: (x + x) * x * x}[times]
        found = m.run({"x": x, "times": np.array(times, np.int64)})[0]
        np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_outputs_that_no_input_reaches_are_fresh_arrays() -> None:
    nodes = [
        node(
            "If", "flag", "out", then_branch=branch("t", node("Neg", "three_f", "a")),
            else_branch=branch("e", node("Abs", "three_f", "b")),
        )
    ]  # fmt: skip
    m = model(nodes, [named("flag", BOOL, ())], three_f=np.array([3], np.float32))
    for flag, wanted in [(True, -3), (True, -3), (False, 3), (True, -3), (True, -3)]:
        (found,) = m.run({"flag": np.array(flag)})
        np.testing.assert_array_equal(found, [wanted])
        found += 1


@pytest.mark.skipif(SHARED is None, reason="the shared real models are not beside this checkout")
@pytest.mark.parametrize("name", ["silero-vad", "silero-vad-half", "silero-vad-v4-legacy"])
def test_voice_detectors_run_without_python(name: str) -> None:
    """Their branches hang on the sampling rate, and inside on ranks and sizes."""
    assert SHARED is not None
    folder = SHARED / "models" / name
    with np.load(folder / "io.npz") as io:
        arrays = {k: io[k] for k in io.files}
    feeds = {k[3:]: v for k, v in arrays.items() if k.startswith("in:")}
    m = load(folder / "model.onnx")
    program = m._compiled()  # not one that another process has kept
    assert program is not None
    for _ in range(4):
        for found, o in zip(m.run(feeds), m.outputs, strict=True):
            np.testing.assert_allclose(found, arrays[f"out:{o.name}"], rtol=1e-3, atol=1e-4)
    chosen, _ = program.chosen([feeds[i.name] for i in m.inputs])
    assert chosen.native
    assert m._shortcut is not None
