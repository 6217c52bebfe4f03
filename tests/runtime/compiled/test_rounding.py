"""Programs that multiply bfloat16: what lies rounded, against array kernels, torch and rounded operands."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from onnxgrad.importers.onnx.model import load_bytes
from onnxgrad.ops import conv, layout, matmul, normalize, pointwise as pw, pool, reduce as red
from onnxgrad.ops.errors import InputError, KernelError
from onnxgrad.ops.kernels.cpu.target import host_target
from onnxgrad.ops.window import Window
from onnxgrad.runtime.compiled.program import Program
from onnxgrad.runtime.graph.graph import Graph
from onnxgrad.runtime.tensor.tensor import Tensor

from ...ops.kernels.cpu.site import guarded
from .graphs import build, feeds_for, kernels, on_host, reference

able = pytest.mark.skipif(not host_target().bf16, reason="the target has no products of bfloat16")

STEP = Window((2, 2), ((1, 1), (1, 1)), (1, 1))
SKIP = Window((2, 2), ((0, 0), (0, 0)), (1, 1))
POINT = Window((1, 1), ((0, 0), (0, 0)), (1, 1))


def weights(seed: int = 0, **shapes: tuple[int, ...]) -> dict[str, Any]:
    """Return random weights."""
    rng = np.random.default_rng(seed)
    return {n: (rng.standard_normal(s) / max(np.prod(s[1:]), 1) ** 0.5).astype(np.float32) for n, s in shapes.items()}


FILTERS = weights(w=(16, 16, 1, 1), b=(1, 16, 1, 1), v=(16, 16, 1, 1), s=(16, 16, 3, 3), f=(7, 16, 1, 1))
TURNED = weights(t=(16, 7, 1, 1))
MATRICES = weights(w=(24, 48), c=(48, 24), g=(24,), b=(24,))


def _residual(x: Any, w: Any, b: Any, v: Any, s: Any, f: Any) -> Any:
    y = pw.relu(pw.add(conv.conv(x, w, win=POINT), b))
    z = pw.relu(pw.add(conv.conv(pw.relu(conv.conv(y, s, win=STEP)), v, win=POINT), conv.conv(y, w, win=SKIP)))
    return red.mean(conv.conv(z, f, win=POINT), axes=(2, 3))


def _pools(x: Any, w: Any, b: Any, v: Any, s: Any, f: Any) -> Any:
    y = pw.relu(conv.conv(x, w, win=POINT))
    y = pool.max_pool(y, win=Window((2, 2), ((0, 0), (0, 0)), (1, 1)), kernel=(2, 2))
    return conv.conv(y, s, win=STEP)


def _concat(x: Any, w: Any, b: Any, v: Any, s: Any, f: Any) -> Any:
    y = pw.relu(conv.conv(x, w, win=POINT))
    both = layout.concat(y, pw.sigmoid(conv.conv(y, v, win=POINT)), axis=1)
    left = layout.slice_(both, starts=(8,), stops=(24,), steps=(1,), axes=(1,))
    return conv.conv(left, s, win=STEP), pw.sigmoid(both)


def _mixed(x: Any, w: Any, b: Any, v: Any, s: Any, f: Any) -> Any:
    y = conv.conv(x, w, win=POINT)
    return y, normalize.softmax(y, axis=-1), conv.conv(y, v, win=POINT), layout.transpose(y, perm=(3, 1, 0, 2))


def _encoder(x: Any, w: Any, c: Any, g: Any, b: Any) -> Any:
    y = normalize.layer_norm(x, g, b, axis=-1, epsilon=1e-5)
    flat = layout.reshape(y, shape=(x.shape[0] * x.shape[1], 24))
    z = matmul.matmul(pw.tanh(matmul.matmul(flat, w)), c)
    return pw.add(layout.reshape(z, shape=(x.shape[0], x.shape[1], 24)), y)


def _shrinking(x: Any, w: Any, b: Any, v: Any, s: Any, f: Any) -> Any:
    y = conv.conv(pw.relu(conv.conv(x, s, win=STEP)), w, win=POINT)
    few = conv.conv(conv.conv(y, f, win=SKIP), TURNED["t"], win=POINT)
    return conv.conv(few, s, win=STEP)


CASES: dict[str, tuple[dict[str, Any], dict[str, Any], Any]] = {
    "residual": ({"x": ("n", 16, 10, 8)}, FILTERS, _residual),
    "pools": ({"x": ("n", 16, 10, 8)}, FILTERS, _pools),
    "concatenation and slices": ({"x": ("n", 16, 6, 5)}, FILTERS, _concat),
    "readers of float32 beside others": ({"x": (2, 16, 6, 5)}, FILTERS, _mixed),
    "sizes that follow from symbols": ({"x": ("n", 16, "s", "s")}, FILTERS, _shrinking),
    "encoder": ({"x": ("n", "s", 24)}, MATRICES, _encoder),
}


def graph_of(name: str) -> tuple[Graph, dict[str, Any]]:
    """Return a case's graph and weights."""
    inputs, state, body = CASES[name]
    return build(inputs, state, body), state


@able
@pytest.mark.usefixtures("all_threads")
@pytest.mark.parametrize("guard", [None, "end", "begin"])
@pytest.mark.parametrize("name", CASES)
def test_near_float32(name: str, guard: str | None) -> None:
    """Within 2e-2 of the largest element of what array kernels compute in float32; the same bits for any threads."""
    graph, state = graph_of(name)
    memory = None if guard is None else (lambda n: guarded(n, at_end=guard == "end"))
    program = Program(graph, threads=1, precision="bf16", guard=memory)
    assert not on_host(program)
    tensors = {n: Tensor(a) for n, a in state.items()}
    for n, s in ((3, 17), (1, 5)):
        feeds = feeds_for(graph, {"n": n, "s": s})
        outs = program.run(feeds, tensors)[0]
        for found, want in zip(outs, reference(graph, feeds, state)[0], strict=True):
            assert found.dtype == want.dtype and found.shape == want.shape
            assert np.abs(found - want).max() <= 2e-2 * np.abs(want).max()
        again = Program(graph, threads=2, precision="bf16").run(feeds, tensors)[0]
        for a, b in zip(outs, again, strict=True):
            np.testing.assert_array_equal(a, b)


@able
def test_what_lies_rounded() -> None:
    """Between contractions values lie as bfloat16 and nothing is converted; outputs and other readers get float32."""
    for name, conversions in (("residual", 1), ("encoder", 0)):
        program = Program(graph_of(name)[0], precision="bf16")
        assert program.compiler.arrangement.rounded
        assert kernels(program).count("convert") == conversions
    graph, _ = graph_of("readers of float32 beside others")
    assert not Program(graph, precision="bf16").compiler.arrangement.rounded
    assert not Program(graph).compiler.arrangement.rounded


@able
def test_products_are_exact() -> None:
    """Two products of matrices equal float64 ones of operands that are rounded where the program rounds them."""
    state = weights(w=(24, 48), c=(48, 10))
    graph = build({"x": (5, 24)}, state, lambda x, w, c: matmul.matmul(pw.relu(matmul.matmul(x, w)), c))
    (x,) = feeds_for(graph)
    (found,), _ = Program(graph, precision="bf16").run([x], {n: Tensor(a) for n, a in state.items()})

    def rounded(a: Any) -> Any:
        return a.astype(np.float32).astype(ml_dtypes.bfloat16).astype(np.float64)

    want = rounded(np.maximum(rounded(x) @ rounded(state["w"]), 0)) @ rounded(state["c"])
    assert np.abs(found - want).max() <= 3e-3 * np.abs(want).max()  # a sum next to a tie may round the other way
    torch = pytest.importorskip("torch")
    a, w, c = (torch.from_numpy(v).bfloat16() for v in (x, state["w"], state["c"]))
    other = (torch.relu(a @ w) @ c).float().numpy()
    assert np.abs(found - other).max() <= 1e-2 * np.abs(other).max()


@able
def test_changed_weights() -> None:
    """A weight that changes is rounded and packed again."""
    state = weights(w=(24, 48))
    graph = build({"x": (5, 24)}, state, lambda x, w: matmul.matmul(x, w))
    (x,) = feeds_for(graph)
    tensor = Tensor(state["w"].copy())
    program = Program(graph, precision="bf16")
    (first,), _ = program.run([x], {"w": tensor})
    tensor.data = -2 * state["w"]
    (second,), _ = program.run([x], {"w": tensor})
    np.testing.assert_array_equal(second, -2 * first)


def _file() -> bytes:
    from onnx import TensorProto, helper, numpy_helper

    w = numpy_helper.from_array(weights(w=(64, 32))["w"], "w")
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    kinds = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", d]) for n, d in (("x", 64), ("y", 32))]
    graph = helper.make_graph([node], "g", kinds[:1], kinds[1:], [w])
    data: bytes = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString()
    return data


@able
def test_load() -> None:
    """`precision="bf16"` rounds, `float32` does not."""
    pytest.importorskip("onnx")
    x = np.random.default_rng(0).standard_normal((5, 64)).astype(np.float32)
    near, exact = (load_bytes(_file(), precision=p).run({"x": x})[0] for p in ("bf16", "float32"))
    error = np.abs(near - exact).max() / np.abs(exact).max()
    assert 1e-4 < error < 2e-2


def test_load_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another word, an engine that is off, a CPU without the instructions: an error that says so, no silent float32."""
    pytest.importorskip("onnx")
    with pytest.raises(InputError, match="precision is 'int3', wanted 'float32', 'bf16', or on CUDA 'fp16'"):
        load_bytes(_file(), precision="int3")
    monkeypatch.setenv("ONNXGRAD_CPU", "off")
    with pytest.raises(KernelError, match="needs the compiled engine"):
        load_bytes(_file(), precision="bf16")
    for name in ("avx2", "baseline"):
        monkeypatch.setenv("ONNXGRAD_CPU", name)
        try:
            host_target()
        except KernelError:
            continue
        with pytest.raises(KernelError, match="AVX512_BF16"):
            load_bytes(_file(), precision="bf16")
