"""Attention, rotary embedding and linear attention against onnxruntime: every form of their inputs."""

from __future__ import annotations

import numpy as np
import pytest

from onnxgrad.importers.onnx.model import load_bytes
from onnxgrad.ops.errors import UnsupportedAttributeError
from onnxgrad.runtime.autograd import tape
from onnxgrad.runtime.tensor.tensor import Tensor

from .one_node import one_node_model, ort_node, run_node

MICROSOFT = "com.microsoft"


def f32(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).uniform(-1, 1, shape).astype(np.float32)


def agree(op, inputs, *, tol=2e-6, **how):
    found, wanted = run_node(op, inputs, **how), ort_node(op, inputs, **how)
    assert len(found) == len(wanted)
    for f, w in zip(found, wanted, strict=True):
        assert f.shape == w.shape and f.dtype == w.dtype
        np.testing.assert_allclose(f, w, rtol=1e-4, atol=tol)


def qkv(heads=4, shared=4, queries=5, keys=6, e=8, v=6):
    return f32(2, heads, queries, e), f32(2, shared, keys, e, seed=1), f32(2, shared, keys, v, seed=2)


def flat(x):
    return x.transpose(0, 2, 1, 3).reshape(x.shape[0], x.shape[2], -1)


def loosely(op, inputs, **how):
    """Return what a model gives whose inputs have ranks but no sizes."""
    proto = one_node_model(op, inputs, **how)
    for v in proto.graph.input:
        for k, d in enumerate(v.type.tensor_type.shape.dim):
            d.dim_param = f"{v.name}_{k}"
    feeds = {v.name: np.asarray(inputs[int(v.name[1:])]) for v in proto.graph.input}
    return load_bytes(proto.SerializeToString()).run(feeds)


def test_sizes_may_be_known_only_at_run_time():
    past = f32(2, 2, 3, 8, seed=3), f32(2, 2, 3, 6, seed=4)
    for inputs, how in (
        ([*qkv(shared=2), f32(5, 9), *past], {"n_out": 4, "qk_matmul_output_mode": 2, "is_causal": 1}),
        ([*map(flat, qkv(shared=2)), f32(5, 4)], {"q_num_heads": 4, "kv_num_heads": 2}),
        ([*qkv(), None, None, None, np.array([6, 3])], {"is_causal": 1}),
    ):
        found, wanted = loosely("Attention", inputs, opset=24, **how), run_node("Attention", inputs, opset=24, **how)
        for f, w in zip(found, wanted, strict=True):
            np.testing.assert_allclose(f, w, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("opset", [23, 24])
@pytest.mark.parametrize("shared", [4, 2, 1])
@pytest.mark.parametrize("form", ["3d", "4d"])
def test_forms_and_heads(opset, shared, form):
    args, attrs = qkv(shared=shared), {}
    if form == "3d":
        args, attrs = tuple(map(flat, args)), {"q_num_heads": 4, "kv_num_heads": shared}
    agree("Attention", args, opset=opset, **attrs)


MASKS = {
    "none": None,
    "2d": f32(5, 6),
    "4d": f32(2, 1, 5, 6),
    "heads": f32(2, 4, 5, 6),
    "bool": np.random.default_rng(0).random((5, 6)) < 0.7,
}


@pytest.mark.parametrize("mask", sorted(MASKS))
@pytest.mark.parametrize("causal", [0, 1])
def test_masks(mask, causal):
    agree("Attention", [*qkv(), MASKS[mask]], opset=24, is_causal=causal)


@pytest.mark.parametrize("attrs", [{"softcap": 1.5}, {"scale": 0.3}, {"softcap": 0.5, "is_causal": 1}], ids=str)
def test_scores(attrs):
    agree("Attention", [*qkv(), f32(5, 6)], opset=23, **attrs)


@pytest.mark.parametrize("mode", [0, 1, 2, 3])
def test_scores_as_an_output(mode):
    past = f32(2, 2, 3, 8, seed=3), f32(2, 2, 3, 6, seed=4)
    args = [*qkv(shared=2), f32(5, 9), *past]
    agree("Attention", args, opset=23, n_out=4, qk_matmul_output_mode=mode, softcap=2.0)


@pytest.mark.parametrize("causal", [0, 1])
def test_cache_inside(causal):
    past = f32(2, 2, 3, 8, seed=3), f32(2, 2, 3, 6, seed=4)
    args = [*qkv(shared=2, queries=2, keys=2), None, *past]
    agree("Attention", args, opset=24, n_out=3, is_causal=causal)


def test_cache_outside():
    agree("Attention", [*qkv(), None, None, None, np.array([6, 3])], opset=24)


def test_a_query_that_sees_nothing_gives_zeros():
    mask = np.ones((5, 6), bool)
    mask[2] = False
    (y,) = run_node("Attention", [*qkv(), mask], opset=24)
    assert (y[:, :, 2] == 0).all() and np.isfinite(y).all()


def test_a_short_mask_hides_the_rest():
    q, k, v = qkv()
    (found,) = run_node("Attention", [q, k, v, f32(5, 4)], opset=24)
    (wanted,) = run_node("Attention", [q, k[:, :, :4], v[:, :, :4], f32(5, 4)], opset=24)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_three_dimensions_want_heads():
    with pytest.raises(UnsupportedAttributeError, match="num_heads"):
        run_node("Attention", [flat(a) for a in qkv()], opset=23)


def test_gradients_reach_every_float_input():
    args = [*qkv(shared=2), f32(5, 9), f32(2, 2, 3, 8), f32(2, 2, 3, 6)]
    model = load_bytes(
        one_node_model("Attention", args, opset=23, n_out=4, qk_matmul_output_mode=2).SerializeToString()
    )
    tensors = [Tensor(a, requires_grad=True) for a in args]
    y, _, _, scores = model(*tensors)
    for g, t in zip(tape.grad(y.sum() + scores.sum(), tensors), tensors, strict=True):
        assert g.shape == t.shape and np.isfinite(g.array).all()


CACHES = f32(20, 4, seed=5), f32(20, 4, seed=6)
PLACES = np.array([[0, 1, 2, 3, 4], [3, 4, 5, 6, 7]])


@pytest.mark.parametrize("interleaved", [0, 1])
@pytest.mark.parametrize("form", ["3d", "4d"])
@pytest.mark.parametrize("turns", [0, 6])
def test_rotary_embedding(interleaved, form, turns):
    cos, sin = (c[:, : turns // 2 or 4] for c in CACHES)
    x = f32(2, 3, 5, 8)
    attrs = {"interleaved": interleaved, "rotary_embedding_dim": turns}
    if form == "3d" or turns:
        attrs["num_heads"] = 3
    x = flat(x) if form == "3d" else x
    agree("RotaryEmbedding", [x, cos, sin, PLACES], opset=23, **attrs)
    if not turns:
        attrs.pop("rotary_embedding_dim")
        agree("RotaryEmbedding", [x, PLACES, cos, sin], opset=1, domain=MICROSOFT, **attrs)


def test_rotary_embedding_without_places():
    cos, sin = (c[PLACES] for c in CACHES)
    agree("RotaryEmbedding", [f32(2, 3, 5, 8), cos, sin], opset=23)


def test_rotary_embedding_from_a_first_place():
    x = f32(2, 5, 24)
    agree("RotaryEmbedding", [x, np.array([3]), *CACHES], opset=1, domain=MICROSOFT)


RULES = {"linear": (0, 0), "gated": (1, 0), "delta": (0, 1), "gated_delta": (1, 1)}


@pytest.mark.parametrize("rule", sorted(RULES))
@pytest.mark.parametrize("width", ["head", "channel"])
@pytest.mark.parametrize("steps", [1, 40])
def test_linear_attention(rule, width, steps):
    gated, delta = RULES[rule]
    q, k, v = f32(2, steps, 4 * 5), f32(2, steps, 2 * 5, seed=1), f32(2, steps, 2 * 3, seed=2)
    decay = -abs(f32(2, steps, 2 if width == "head" else 10, seed=3)) if gated else None
    beta = abs(f32(2, steps, 2, seed=4)) if delta else None
    args = [q, k / 2, v, f32(2, 2, 5, 3), decay, beta]
    how = {"q_num_heads": 4, "kv_num_heads": 2, "update_rule": rule, "n_out": 2}
    agree("LinearAttention", args, opset=1, domain=MICROSOFT, tol=1e-5, **how)
    found = run_node("LinearAttention", args, opset=27, **how)
    for a, b in zip(found, run_node("LinearAttention", args, opset=1, domain=MICROSOFT, **how), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("activation", ["none", "silu"])
@pytest.mark.parametrize("state", [None, f32(2, 3, 3, seed=3)], ids=["fresh", "state"])
@pytest.mark.parametrize("length", [1, 6])
def test_causal_conv_with_state(activation, state, length):
    args = [f32(2, 3, length), f32(3, 1, 4, seed=1), f32(3, seed=2), state]
    how = {"activation": activation, "n_out": 2}
    agree("CausalConvWithState", args, opset=1, domain=MICROSOFT, **how)
    for a, b in zip(
        run_node("CausalConvWithState", args, opset=27, **how),
        run_node("CausalConvWithState", args, opset=1, domain=MICROSOFT, **how),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)
