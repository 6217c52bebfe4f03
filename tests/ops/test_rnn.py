"""Recurrent layers against PyTorch: values and gradients of every input."""

from __future__ import annotations

import numpy as np
import pytest

from onnxgrad.ops import pointwise as pw, reduce
from onnxgrad.ops.dims import Dim
from onnxgrad.ops.errors import ShapeError
from onnxgrad.ops.rnn import BACKWARD, gru, lstm, rnn
from onnxgrad.ops.types import TensorType
from onnxgrad.runtime.autograd import tape
from onnxgrad.runtime.graph.autodiff import differentiate
from onnxgrad.runtime.graph.execute import run_graph
from onnxgrad.runtime.graph.graph import Graph
from onnxgrad.runtime.tensor.tensor import Tensor

from .case import rand

S, T = ("Sigmoid", 0.0, 0.0), ("Tanh", 0.0, 0.0)
LAYERS = {
    "RNN": (rnn, 1, (T,), [0], {}),
    "GRU": (gru, 3, (S, T), [1, 0, 2], {"linear_before_reset": True}),
    "LSTM": (lstm, 4, (S, T, T), [0, 3, 1, 2], {}),
}
"""By PyTorch's name: the op, its gates, its activations, where each of our gates is in PyTorch's order."""


def reordered(w, order):
    parts = np.split(w, len(order))
    return np.concatenate([parts[i] for i in order])


@pytest.mark.oracle
@pytest.mark.parametrize("name", sorted(LAYERS))
@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
def test_values_and_gradients_agree_with_pytorch(name, direction):
    torch = pytest.importorskip("torch")
    op, _gates, cell, order, more = LAYERS[name]
    ways = 1 + (direction == "bidirectional")
    layer = getattr(torch.nn, name)(3, 4, bidirectional=ways == 2).double()
    suffixes = ["", "_reverse"][:ways]

    def ours(kind):
        return np.stack([reordered(getattr(layer, f"{kind}_l0{s}").detach().numpy(), order) for s in suffixes])

    x, starts = rand(5, 2, 3), [rand(ways, 2, 4, seed=1 + i) for i in range(2 if name == "LSTM" else 1)]
    arrays = [
        x,
        ours("weight_ih"),
        ours("weight_hh"),
        np.concatenate([ours("bias_ih"), ours("bias_hh")], 1),
        *starts,
    ]
    tensors = [Tensor(a, requires_grad=True) for a in arrays]
    extra = (None,) if name == "LSTM" else ()
    y, *last = op(*tensors[:4], None, *tensors[4:], *extra, direction=direction, cells=(cell,) * ways, **more)

    inputs = [torch.tensor(a, requires_grad=True) for a in (x, *starts)]
    state = tuple(inputs[1:]) if name == "LSTM" else inputs[1]
    wanted, final = layer(inputs[0], state)
    finals = list(final) if name == "LSTM" else [final]
    np.testing.assert_allclose(y.array.transpose(0, 2, 1, 3).reshape(5, 2, -1), wanted.detach().numpy(), atol=1e-12)
    for a, b in zip(last, finals, strict=True):
        np.testing.assert_allclose(a.array, b.detach().numpy(), atol=1e-12)

    weights = [rand(*t.shape, seed=9) for t in (y, *last)]
    loss = reduce.sum_(pw.mul(y, weights[0]))
    total = (wanted.reshape(5, 2, ways, 4).permute(0, 2, 1, 3) * torch.tensor(weights[0])).sum()
    for a, b, w in zip(last, finals, weights[1:], strict=True):
        loss, total = pw.add(loss, reduce.sum_(pw.mul(a, w))), total + (b * torch.tensor(w)).sum()
    total.backward()
    grads = tape.grad(loss, tensors)

    def grad_of(kind):
        return np.stack([reordered(getattr(layer, f"{kind}_l0{s}").grad.numpy(), order) for s in suffixes])

    theirs = [
        inputs[0].grad.numpy(),
        grad_of("weight_ih"),
        grad_of("weight_hh"),
        np.concatenate([grad_of("bias_ih"), grad_of("bias_hh")], 1),
        *(t.grad.numpy() for t in inputs[1:]),
    ]
    for g, w in zip(grads, theirs, strict=True):
        np.testing.assert_allclose(g.array, w, atol=1e-11)


@pytest.mark.parametrize("name", sorted(LAYERS))
def test_the_kernel_is_the_composition(name):
    op, gates, cell, _, more = LAYERS[name]
    x = rand(4, 3, 2)
    weights = [rand(2, gates * 5, 2), rand(2, gates * 5, 5, seed=1), rand(2, gates * 10, seed=2)]
    lengths = np.array([4, 0, 2])
    rest = [rand(2, 3, 5, seed=3)] + ([rand(2, 3, 5, seed=4), rand(2, 15, seed=5)] if name == "LSTM" else [])
    attrs = {"direction": "bidirectional", "cells": (cell,) * 2, "clip": 0.9, **more}
    for a, b in zip(
        op(x, *weights, lengths, *rest, **attrs),
        op.composition(x, *weights, lengths, *rest, **attrs),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, atol=1e-13)


def test_half_precision_computes_in_single_and_rounds_once():
    arrays = [rand(4, 3, 2), rand(1, 20, 2, seed=1), rand(1, 20, 5, seed=2), rand(1, 40, seed=3)]
    halves = [a.astype(np.float16) for a in arrays]
    attrs = {"direction": "forward", "cells": ((S, T, T),)}
    found = lstm(*halves, None, None, None, None, **attrs)
    wide = lstm(*(h.astype(np.float32) for h in halves), None, None, None, None, **attrs)
    for f, w in zip(found, wide, strict=True):
        assert f.dtype == np.float16
        np.testing.assert_array_equal(f, w.astype(np.float16))


def test_types_keep_symbols():
    f64 = np.dtype(np.float64)
    t, b = Dim.symbol("t"), Dim.symbol("b")
    types = [TensorType(f64, (t, b, 3)), TensorType(f64, (2, 20, 3)), TensorType(f64, (2, 20, 5))]
    y, h, c = lstm.infer_types(*types, *[None] * 5, direction="bidirectional", cells=((S, T, T),) * 2)
    assert y.shape == (t, 2, b, 5) and h.shape == c.shape == (2, b, 5)


def test_weights_that_do_not_fit_are_an_error_that_says_so():
    f64 = np.dtype(np.float64)
    types = [TensorType(f64, (4, 2, 3)), TensorType(f64, (1, 20, 4)), TensorType(f64, (1, 20, 5))]
    with pytest.raises(ShapeError, match=r"w has shape \(1, 20, 4\), wanted \(1, 20, 3\)"):
        lstm.infer_types(*types, *[None] * 5, direction="forward", cells=((S, T, T),))


@pytest.mark.parametrize("name", sorted(LAYERS))
def test_the_gradient_on_a_graph_is_that_on_the_tape(name):
    op, gates, cell, _, more = LAYERS[name]
    arrays = [rand(3, 2, 4), rand(2, gates * 5, 4), rand(2, gates * 5, 5, seed=1), rand(2, gates * 10, seed=2)]
    rest, attrs = (None,) * (4 if name == "LSTM" else 2), {"direction": "bidirectional", "cells": (cell,) * 2, **more}
    graph = Graph()
    with graph.building():
        shapes = [(3, Dim.symbol("b"), 4), *(a.shape for a in arrays[1:])]
        xs = [graph.input(f"x{i}", TensorType(np.dtype(np.float64), s)) for i, s in enumerate(shapes)]
        graph.outputs = [op(*xs, *rest, **attrs)[0]]
    _, *found = run_graph(differentiate(graph, [f"x{i}" for i in range(4)]), arrays)
    tensors = [Tensor(a, requires_grad=True) for a in arrays]
    wanted = tape.grad(reduce.sum_(op(*tensors, *rest, **attrs)[0]), tensors)
    for f, w in zip(found, wanted, strict=True):
        np.testing.assert_allclose(f, w.array, atol=1e-12)


FORMS = [
    ("RNN", {}),
    ("RNN", {"cells": ((("ScaledTanh", 0.7, 1.3),), (("Affine", 0.7, 0.3),)), "clip": 0.8}),
    ("RNN", {"cells": ((("ThresholdedRelu", 0.1, 0.0),), (("Softplus", 0.0, 0.0),))}),
    ("GRU", {}),
    ("GRU", {"linear_before_reset": False, "clip": 0.8}),
    ("GRU", {"linear_before_reset": False, "cells": ((("HardSigmoid", 0.2, 0.5), ("Elu", 0.9, 0.0)),) * 2}),
    ("LSTM", {}),
    ("LSTM", {"clip": 0.8, "cells": ((S, ("LeakyRelu", 0.1, 0.0), ("Softsign", 0.0, 0.0)),) * 2}),
    ("LSTM", {"input_forget": True}),
    ("LSTM", {"quantized": True}),
]


@pytest.mark.parametrize(("name", "more"), FORMS, ids=str)
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("lengths", [None, [4, 1, 2]])
@pytest.mark.parametrize("full", [False, True])
def test_the_gradient_is_that_of_the_composition(name, more, direction, lengths, full):
    op, gates, cell, _, usual = LAYERS[name]
    ways = len(BACKWARD[direction])
    attrs = {"cells": (cell,) * 2, **usual, **more, "direction": direction}
    attrs["cells"] = attrs["cells"][:ways]
    lengths = None if lengths is None else np.array(lengths)
    given = [rand(4, 3, 2), rand(ways, gates * 2, 2, seed=1), rand(ways, gates * 2, 2, seed=2)]
    rest = [rand(ways, gates * 4, seed=3), *(rand(ways, 3, 2, seed=4 + i) for i in range(1 + (name == "LSTM")))]
    rest = [*rest, rand(ways, 6, seed=6)] if name == "LSTM" else rest
    tensors = [Tensor(a, requires_grad=True) for a in (*given, *(rest if full else ()))]
    b, *states = tensors[3:] if full else [None] * len(rest)

    def gradients(f):
        outs = f(*tensors[:3], b, lengths, *states, **attrs)
        loss = reduce.sum_(pw.mul(outs[0], rand(*outs[0].shape, seed=9)))
        for last in outs[1:]:
            loss = pw.add(loss, reduce.sum_(pw.mul(last, rand(*last.shape, seed=8))))
        return tape.grad(loss, tensors)

    for found, wanted in zip(gradients(op), gradients(op.composition), strict=True):
        np.testing.assert_allclose(found.array, wanted.array, atol=1e-12)


@pytest.mark.parametrize("name", sorted(LAYERS))
def test_only_the_last_state_may_be_asked_for(name):
    op, gates, cell, _, more = LAYERS[name]
    tensors = [Tensor(rand(*s), requires_grad=True) for s in ((4, 3, 2), (1, gates * 2, 2), (1, gates * 2, 2))]
    rest = (None,) * (5 if name == "LSTM" else 3)
    attrs = {"direction": "forward", "cells": (cell,), **more}
    found, wanted = (tape.grad(reduce.sum_(f(*tensors, *rest, **attrs)[1]), tensors) for f in (op, op.composition))
    for f, w in zip(found, wanted, strict=True):
        np.testing.assert_allclose(f.array, w.array, atol=1e-12)
