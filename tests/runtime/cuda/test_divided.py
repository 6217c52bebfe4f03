"""Graphs whose sizes hang on elements: of small inputs, a program a combination; of others, a program and the rest."""

from __future__ import annotations

import numpy as np
import pytest

from onnxgrad.ops import conv, index, layout, matmul, pointwise as pw, reduce as red
from onnxgrad.runtime.cuda.buckets import WAYS, Buckets
from onnxgrad.runtime.cuda.divided import divide
from onnxgrad.runtime.passes.pin_inputs import deciding_inputs, pin_inputs
from onnxgrad.runtime.tensor.tensor import Tensor

from ..compiled.graphs import build, feeds_for, reference
from ..compiled.test_program import SAME, weights
from .host_runner import HostRunner, verify

STATE = weights(w=(4, 3, 3, 3), v=(4, 5))


def detector(x, w, v):
    """A convolution, then the places of what is positive, and what lies there."""
    seen = red.mean(pw.relu(conv.conv(x, w, win=SAME)), axes=(2, 3))
    scores = matmul.matmul(seen, v)
    places = index.nonzero(pw.greater(scores, 0.0))
    return places, index.gather_nd(scores, layout.transpose(places, perm=(1, 0))), scores


def shaped(x, shape, v):
    """A product whose operand is reshaped to what is fed."""
    return matmul.matmul(layout.reshape_to(x, shape), v)


def close(found, wanted):
    for a, b in zip(found, wanted, strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("host", [True, False])
def test_what_comes_before_is_a_program(host):
    graph = build({"x": ("n", 3, 6, 6)}, STATE, detector)
    runner = HostRunner()
    buckets = Buckets(graph, runner)
    tensors = {n: Tensor(a) for n, a in STATE.items()}
    for run, n in enumerate((2, 2, 2, 3)):
        feeds = feeds_for(graph, {"n": n}, seed=run)
        close(buckets.run(feeds, tensors, host=host)[0], reference(graph, feeds, STATE)[0])
    assert not buckets.refused
    assert len(buckets.programs) == 2
    for program in buckets.programs:
        verify(program)
        assert any("conv" in s.ops for s in program.steps)
    text = str(buckets)
    assert "nodes behind it run node by node: the sizes of" in text
    tensors["v"].data = -STATE["v"]
    close(buckets.run(feeds, tensors)[0], reference(graph, feeds, {**STATE, "v": -STATE["v"]})[0])
    runner.check()


def test_the_parts_of_a_graph():
    graph = build({"x": (2, 3, 6, 6), "y": (2, 5)}, STATE, lambda x, y, w, v: (*detector(x, w, v), pw.add(y, 1.0)))
    parts = divide(graph)
    assert {n.op.name for n in parts.behind.nodes} == {"nonzero", "transpose", "gather_nd"}
    assert [v.shape for v in parts.before.outputs] == [(2, 5), (2, 5), (2, 5)]  # greater, scores, y + 1
    assert parts.before.inputs == graph.inputs
    assert not parts.fed
    assert not parts.behind.state
    light = build({"x": (4, 3)}, {}, lambda x: index.nonzero(pw.exp(x)))
    assert divide(light) is None


def test_nothing_heavy_runs_node_by_node():
    graph = build({"x": (4, 3)}, {}, lambda x: index.nonzero(pw.relu(x)))
    buckets = Buckets(graph, HostRunner())
    feeds = feeds_for(graph)
    close(buckets.run(feeds, {})[0], reference(graph, feeds, {})[0])
    assert "known only when it has been computed" in next(iter(buckets.refused.values()))


def test_small_inputs_that_decide_have_programs():
    graph = build({"x": (24,), "shape": (2,)}, weights(v=(4, 5)), shaped, {"shape": np.int64})
    assert deciding_inputs(graph) == [1]
    state = weights(v=(4, 5))
    tensors = {n: Tensor(a) for n, a in state.items()}
    buckets = Buckets(graph, HostRunner())
    x = feeds_for(graph)[0]
    for _ in range(2):
        for sizes in ([6, 4], [-1, 4]):
            feeds = [x, np.array(sizes)]
            close(buckets.run(feeds, tensors)[0], reference(graph, feeds, state)[0])
    assert len(buckets.programs) == 2
    assert not buckets.refused


def test_only_the_first_ways_have_programs():
    state = weights(v=(4, 5))
    graph = build({"x": (96,), "shape": (3,)}, state, shaped, {"shape": np.int64})
    tensors = {n: Tensor(a) for n, a in state.items()}
    buckets = Buckets(graph, HostRunner())
    x = feeds_for(graph)[0]
    for _ in range(2):
        for n in (1, 2, 3, 4, 6, 8, 12):
            feeds = [x, np.array([n, -1, 4])]
            close(buckets.run(feeds, tensors)[0], reference(graph, feeds, state)[0])
    assert len(buckets.programs) == WAYS
    assert len(buckets.refused) == 1


def test_inputs_that_are_pinned_are_not_read():
    graph = build({"x": (24,), "shape": (2,)}, weights(v=(4, 5)), shaped, {"shape": np.int64})
    pinned = pin_inputs(graph, {1: np.array([6, 4])})
    assert [v.name for v in pinned.inputs] == ["x", "shape"]
    assert pinned.inputs[1] not in {v for n in pinned.nodes for v in n.inputs()}
    assert graph.inputs[1] in {v for n in graph.nodes for v in n.inputs()}
    feeds = feeds_for(graph)
    wanted = reference(graph, [feeds[0], np.array([6, 4])], weights(v=(4, 5)))[0]
    close(reference(pinned, [feeds[0], np.array([0, 0])], weights(v=(4, 5)))[0], wanted)


def test_data_is_not_pinned():
    """What floats are made of, and inputs that are all there is, decide nothing ahead."""
    ids = {"ids": np.int64}
    graph = build({"ids": (3,)}, weights(v=(4, 5)), lambda ids, v: index.nonzero(index.gather(v, ids)), ids)
    assert deciding_inputs(graph) == []
    graph = build({"ids": (3,)}, {}, index.nonzero, ids)
    buckets = Buckets(graph, HostRunner())
    close(buckets.run([np.array([0, 1, 2])], {})[0], [np.array([[1, 2]])])
    assert not buckets.programs
