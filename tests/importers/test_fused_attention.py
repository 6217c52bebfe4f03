"""onnxruntime's own attention layers against onnxruntime."""

from __future__ import annotations

import numpy as np
import pytest

from onnxgrad.ops.errors import UnsupportedAttributeError

from .one_node import ort_node, run_node
from .test_attention import agree, f32, loosely

MICROSOFT = {"domain": "com.microsoft", "opset": 1}
B, L, H, E = 2, 5, 4, 16
MASKS = {
    "none": None,
    "lengths": np.array([5, 3], np.int32),
    "ends and starts": np.array([5, 4, 0, 2], np.int32),
    "2d": np.array([[1, 1, 1, 1, 1], [1, 1, 0, 1, 0]], np.int32),
    "3d": (f32(B, L, L, seed=9) > -0.5).astype(np.int32),
}


@pytest.mark.parametrize("mask", sorted(MASKS))
@pytest.mark.parametrize("causal", [0, 1])
def test_attention(mask, causal):
    args = [f32(B, L, 16), f32(16, 3 * H * E), f32(3 * H * E), MASKS[mask]]
    agree("Attention", args, num_heads=H, unidirectional=causal, **MICROSOFT)


@pytest.mark.parametrize("causal", [0, 1])
def test_attention_with_a_cache(causal):
    args = [f32(B, L, 16), f32(16, 3 * H * E), f32(3 * H * E), None, f32(2, B, H, 3, E)]
    agree("Attention", args, num_heads=H, unidirectional=causal, n_out=2, **MICROSOFT)


def test_attention_with_a_bias():
    args = [f32(B, L, 16), f32(16, 3 * H * E), f32(3 * H * E), None, None, f32(B, H, L, L)]
    agree("Attention", args, num_heads=H, **MICROSOFT)


def test_attention_of_unequal_sizes():
    args = [f32(B, L, 16), f32(16, 2 * H * E + H * 3), f32(2 * H * E + H * 3)]
    agree("Attention", args, num_heads=H, qkv_hidden_sizes=[H * E, H * E, H * 3], scale=0.2, **MICROSOFT)


def test_attention_refuses_what_it_does_not_do():
    with pytest.raises(UnsupportedAttributeError, match="do_rotary"):
        run_node("Attention", [f32(B, L, 16), f32(16, 96)], num_heads=H, do_rotary=1, **MICROSOFT)


PARTS = f32(B, L, H * E), f32(B, 6, H * E, seed=1), f32(B, 6, H * E, seed=2)


@pytest.mark.parametrize("mask", [None, np.array([6, 3], np.int32), (f32(B, 6) > -0.5).astype(np.int32)])
@pytest.mark.parametrize("bias", [None, f32(3 * H * E, seed=3)], ids=["plain", "bias"])
def test_multi_head_attention(mask, bias):
    agree("MultiHeadAttention", [*PARTS, bias, mask], num_heads=H, **MICROSOFT)


def test_multi_head_attention_packed():
    packed = f32(B, L, H, 3, E)
    q, k, v = (packed[:, :, :, i].reshape(B, L, H * E) for i in range(3))
    (wanted,) = run_node("MultiHeadAttention", [q, k, v], num_heads=H, **MICROSOFT)
    for args in ([packed], [q, packed[:, :, :, 1:]]):
        (found,) = run_node("MultiHeadAttention", args, num_heads=H, **MICROSOFT)
        np.testing.assert_array_equal(found, wanted)


def test_multi_head_attention_with_a_cache():
    new = f32(B, 2, H * E), f32(B, 2, H * E, seed=1), f32(B, 2, H * E, seed=2)
    past = f32(B, H, 3, E, seed=4), f32(B, H, 3, E, seed=5)
    args = [*new, f32(3 * H * E), None, f32(1, H, 2, 5), *past]
    agree("MultiHeadAttention", args, num_heads=H, n_out=3, unidirectional=1, **MICROSOFT)


def test_multi_head_attention_across():
    args = [PARTS[0], f32(B, H, 6, E, seed=4), f32(B, H, 6, E, seed=5)]
    agree("MultiHeadAttention", args, num_heads=H, **MICROSOFT)


K = 2
CACHES = f32(16, E // 2, seed=5), f32(16, E // 2, seed=6)


def grouped(new, total, size, last, *, packed=False):
    parts = f32(B, new, H * E), f32(B, new, K * E, seed=1), f32(B, new, K * E, seed=2)
    parts = (np.concatenate(parts, axis=2), None, None) if packed else parts
    past = f32(B, K, size, E, seed=3), f32(B, K, size, E, seed=4)
    return [*parts, *past, np.array(last, np.int32), np.array(total, np.int32)]


HEADS = {"num_heads": H, "kv_num_heads": K, "n_out": 3, **MICROSOFT}


@pytest.mark.parametrize("rotary", [0, 1])
@pytest.mark.parametrize("packed", [False, True])
def test_group_query_attention_prompt(rotary, packed):
    args = grouped(L, L, 0, [L - 1, L - 1], packed=packed)
    agree("GroupQueryAttention", [*args, *(CACHES if rotary else ())], do_rotary=rotary, **HEADS)


@pytest.mark.parametrize("rotary", [0, 1])
def test_group_query_attention_step(rotary):
    args = [*grouped(1, 7, 6, [6, 4]), *(CACHES if rotary else ())]
    found = run_node("GroupQueryAttention", args, do_rotary=rotary, **HEADS)
    wanted = ort_node("GroupQueryAttention", args, do_rotary=rotary, **HEADS)
    np.testing.assert_allclose(found[0], wanted[0], rtol=1e-4, atol=2e-6)
    for f, w in zip(found[1:], wanted[1:], strict=True):
        for entry, length in enumerate((7, 5)):  # what is behind them says nothing
            np.testing.assert_allclose(f[entry, :, :length], w[entry, :, :length], rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize(
    "attrs", [{"softcap": 1.0}, {"local_window_size": 3}, {"smooth_softmax": 1}, {"scale": 0.2}], ids=str
)
def test_group_query_attention_variants(attrs):
    agree("GroupQueryAttention", grouped(1, 7, 6, [6, 6]), **HEADS, **attrs)
    agree("GroupQueryAttention", grouped(L, L, 0, [L - 1, L - 1]), **HEADS, **attrs)


def test_group_query_attention_with_a_sink():
    args = [*grouped(1, 7, 6, [6, 6]), None, None, None, None, f32(H)]
    agree("GroupQueryAttention", args, **HEADS)


def test_sizes_may_be_known_only_at_run_time():
    new = f32(B, 2, H * E), f32(B, 2, H * E, seed=1), f32(B, 2, H * E, seed=2)
    past = f32(B, H, 3, E, seed=4), f32(B, H, 3, E, seed=5)
    for op, inputs, how in (
        (
            "Attention",
            [f32(B, L, 16), f32(16, 3 * H * E), None, MASKS["ends and starts"]],
            {"num_heads": H, **MICROSOFT},
        ),
        ("MultiHeadAttention", [*new, None, None, None, *past], {"num_heads": H, "n_out": 3, **MICROSOFT}),
        ("GroupQueryAttention", [*grouped(1, 7, 6, [6, 6]), *CACHES], {"do_rotary": 1, **HEADS}),
    ):
        for f, w in zip(loosely(op, inputs, **how), run_node(op, inputs, **how), strict=True):
            np.testing.assert_allclose(f, w, rtol=1e-5, atol=1e-6)
