"""Attention against PyTorch, and where it takes its keys a tile at a time."""

from __future__ import annotations

import numpy as np
import pytest

from onnxgrad.ops import reduce
from onnxgrad.ops.attention import attention, attention_grad, attention_weights
from onnxgrad.ops.errors import OpError, ShapeError
from onnxgrad.ops.kernels.array import attention as kernels
from onnxgrad.ops.linear_attention import linear_attention
from onnxgrad.ops.types import type_of
from onnxgrad.runtime.autograd import tape
from onnxgrad.runtime.graph.autodiff import differentiate
from onnxgrad.runtime.graph.execute import run_graph
from onnxgrad.runtime.graph.graph import Graph
from onnxgrad.runtime.tensor.tensor import Tensor

from .case import rand
from .cases.attention import attended, grad_of


@pytest.mark.oracle
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("shared", [4, 2])
def test_values_and_gradients_agree_with_pytorch(causal, shared):
    torch = pytest.importorskip("torch")
    arrays = rand(2, 4, 5, 8), rand(2, shared, 5, 8, seed=1), rand(2, shared, 5, 6, seed=2)
    theirs = [torch.tensor(a, requires_grad=True) for a in arrays]
    ours = [Tensor(a, requires_grad=True) for a in arrays]
    y = attention(*ours, scale=8**-0.5, right=0 if causal else -1)
    z = torch.nn.functional.scaled_dot_product_attention(*theirs, is_causal=causal, enable_gqa=True)
    np.testing.assert_allclose(y.array, z.detach().numpy(), rtol=1e-10, atol=1e-12)
    g = rand(*y.shape, seed=3)
    for a, b in zip(tape.grad(y, ours, Tensor(g)), torch.autograd.grad(z, theirs, torch.tensor(g)), strict=True):
        np.testing.assert_allclose(a.array, b.numpy(), rtol=1e-9, atol=1e-12)


WINDOWS = [{}, {"right": 0}, {"left": 7, "right": 3}, {"left": 5, "right": 0, "offset": 9}, {"right": 0, "offset": -8}]


@pytest.mark.parametrize("window", WINDOWS, ids=str)
@pytest.mark.parametrize("limit", [1 << 8, 1 << 12, 1 << 15])
def test_tiles_do_not_matter(window, limit, monkeypatch):
    monkeypatch.setattr(kernels, "TILE_BYTES", limit)
    q, k, v = rand(3, 4, 40, 5), rand(3, 2, 33, 5, seed=1), rand(3, 2, 33, 3, seed=2)
    mask, sink = rand(3, 1, 40, 33, seed=3), rand(4, seed=4)
    attrs = {"scale": 0.4, "softcap": 2.0, **window}
    wanted = attended(q, k, v, mask, None, None, sink, **attrs)
    np.testing.assert_allclose(attention(q, k, v, mask, None, None, sink, **attrs), wanted, rtol=1e-10, atol=1e-12)
    args = q, k, v, mask, None, None, sink
    g = rand(*wanted.shape, seed=5)
    for f, w in zip(attention_grad(g, wanted, *args, **attrs), grad_of(g, wanted, *args, **attrs), strict=True):
        np.testing.assert_allclose(f, w, rtol=1e-9, atol=1e-11)
    p = attention_weights(q, k, mask, None, None, sink, **attrs)
    np.testing.assert_allclose(p[:, 3] @ v[:, 1], wanted[:, 3], rtol=1e-10, atol=1e-12)


def test_half_precision_is_rounded_once():
    q, k, v = (rand(1, 2, 6, 8, seed=i).astype(np.float16) for i in range(3))
    y = attention(q, k, v, scale=0.35)
    wide = attention(*(a.astype(np.float32) for a in (q, k, v)), scale=0.35)
    assert y.dtype == np.float16
    np.testing.assert_array_equal(y, wide.astype(np.float16))


def test_backward_keeps_no_scores():
    q, k, v = (Tensor(rand(1, 1, 64, 2, seed=i), requires_grad=True) for i in range(3))
    node = attention(q, k, v, scale=1.0).grad_fn
    kept = [a for a in (*node.args, *node.outputs) if hasattr(a, "tensor") or hasattr(a, "array")]
    assert all(getattr(a, "tensor", a).array.size == 128 for a in kept)


def test_empty_sizes():
    q, k, v = rand(2, 2, 3, 4), rand(2, 2, 0, 4), rand(2, 2, 0, 5)
    assert (attention(q, k, v, scale=1.0) == np.zeros((2, 2, 3, 5))).all()
    assert attention(q[:, :, :0], q, q, scale=1.0).shape == (2, 2, 0, 4)
    assert attention(q[:0], q[:0], q[:0], scale=1.0).shape == (0, 2, 3, 4)


def test_gradients_on_a_graph():
    arrays = [rand(2, 2, 3, 4, seed=i) for i in range(3)]
    graph = Graph("g")
    xs = [graph.input(n, type_of(a)) for n, a in zip("qkv", arrays, strict=True)]
    with graph.building():
        graph.outputs = [reduce.sum_(attention(*xs, scale=0.5, right=0))]
    found = run_graph(differentiate(graph, ["q", "k", "v"]), arrays)[1:]
    ours = [Tensor(a, requires_grad=True) for a in arrays]
    for f, w in zip(found, tape.grad(attention(*ours, scale=0.5, right=0).sum(), ours), strict=True):
        np.testing.assert_allclose(f, w.array, rtol=1e-10)


def test_what_does_not_fit_is_refused():
    q = rand(1, 3, 2, 4)
    with pytest.raises(ShapeError, match="3 query heads"):
        attention.infer_types(type_of(q), type_of(rand(1, 2, 2, 4)), type_of(rand(1, 2, 2, 4)), scale=1.0)
    with pytest.raises(ShapeError, match="2 keys, 5 values"):
        attention.infer_types(type_of(q), type_of(q), type_of(rand(1, 3, 5, 4)), scale=1.0)
    with pytest.raises(OpError, match="wants decay"):
        linear_attention(q, q, q, scale=1.0, rule="gated")
