"""Bindings: attention, rotary embedding, linear attention and the causal convolution that goes with it.

Heads come apart here: the ops take (batch, heads, sequence, head size).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ....ops import attention as att, conv as conv_ops, layout, linear_attention as linear, normalize, pointwise as pw
from ....ops.create import shape_of
from ....ops.dims import DimLike, at_least
from ....ops.errors import UnsupportedAttributeError
from ....ops.index import gather
from ....ops.matmul import matmul
from ....ops.types import TensorType
from ....ops.window import Window
from ..node import NodeView
from ..registry import binds
from .control import outer

BOOL = np.dtype(bool)
FLOATS = {1: "float32", 10: "float16", 11: "float64", 16: "bfloat16"}
"""Names of ONNX element types, by their numbers."""


def split_heads(x: Any, heads: int) -> Any:
    """Return (B, L, heads * E) as (B, heads, L, E)."""
    return layout.transpose(layout.reshape(x, shape=(x.shape[0], x.shape[1], heads, -1)), perm=(0, 2, 1, 3))


def join_heads(x: Any) -> Any:
    """Return (B, heads, L, E) as (B, L, heads * E)."""
    b, h, n, e = x.shape
    return layout.reshape(layout.transpose(x, perm=(0, 2, 1, 3)), shape=(b, n, h * e))


def scale_of(node: NodeView, q: Any, *, zero: bool = False) -> float:
    """Return the node's `scale`, or 1 / sqrt(head size); with `zero`, 0 stands for that too."""
    scale = node.attr("scale")
    if scale is None or (zero and scale == 0):
        return 1 / math.sqrt(int(q.shape[3]))
    return float(scale)


def with_past(past: Any, new: Any) -> Any:
    """Return the keys or values of a cache, then the new ones."""
    return new if past is None else layout.concat(past, new, axis=2)


def longer_mask(mask: Any, keys: DimLike) -> Any:
    """Return a mask grown to this many keys: the rest is not seen."""
    if mask is None or mask.shape[-1] == keys:
        return mask
    value = None if mask.dtype == BOOL else -math.inf
    return layout.pad(mask, value, pads=((0, at_least(keys - mask.shape[-1], 0)),), axes=(mask.ndim - 1,))


@binds("Attention", 23, 24, 25)
def attention(
    node: NodeView,
    q: Any,
    k: Any,
    v: Any,
    mask: Any = None,
    past_key: Any = None,
    past_value: Any = None,
    lengths: Any = None,
) -> Any:
    """Attention: 3-D and 4-D forms, grouped heads, both kinds of cache, masks, windows, and the scores as an output.

    The softmax is computed in float32 at least, whatever `softmax_precision` asks for.
    """
    node.ignore("softmax_precision")
    heads, shared = node.attr("q_num_heads"), node.attr("kv_num_heads")
    flat = q.ndim == 3
    if flat:
        if heads is None or shared is None:
            raise UnsupportedAttributeError(f"{node}: 3-D inputs want q_num_heads and kv_num_heads")
        q, k, v = split_heads(q, heads), split_heads(k, shared), split_heads(v, shared)
    if (past_key is None) != (past_value is None) or (past_key is not None and lengths is not None):
        raise UnsupportedAttributeError(f"{node}: past_key and past_value come together, without nonpad_kv_seqlen")
    k, v = with_past(past_key, k), with_past(past_value, v)
    left, right = node.attr("left_window_size", -1), node.attr("right_window_size", -1)
    if node.attr("is_causal", 0):
        right = 0
    window: dict[str, Any] = {"left": left, "right": right, "offset": 0}
    starts = None
    if past_key is not None:
        window["offset"] = past_key.shape[2]
    elif lengths is not None:
        starts = pw.sub(lengths, sequence_length(q, lengths))
    scale, softcap = scale_of(node, q), node.attr("softcap", 0.0)
    mask = longer_mask(mask, k.shape[2])
    y = att.attention(q, k, v, mask, lengths, starts, scale=scale, softcap=softcap, **window)
    mode = node.attr("qk_matmul_output_mode", 0)
    shown = None
    if any(node.outputs[3:4]):
        match mode:
            case 0 | 1:
                shown = att.scores(q, k, scale=scale, softcap=softcap if mode else 0.0)
            case 2:
                shown = att.scores(q, k, scale=scale, softcap=softcap)
                if mask is not None:
                    shown = pw.where(mask, shown, -math.inf) if mask.dtype == BOOL else pw.add(shown, mask)
                hidden = att.hidden_keys(q, lengths, starts, keys=k.shape[2], **window)
                shown = pw.where(hidden, -math.inf, shown)
            case 3:
                shown = att.attention_weights(q, k, mask, lengths, starts, scale=scale, softcap=softcap, **window)
            case _:
                raise UnsupportedAttributeError(f"{node}: qk_matmul_output_mode is {mode}, wanted 0 to 3")
    return (join_heads(y) if flat else y, k, v, shown)[: len(node.outputs)]


def sequence_length(x: Any, like: Any) -> Any:
    """Return the size of axis 2 as an integer tensor of one element, of the element type of `like`."""
    return pw.cast(shape_of(x, start=2, end=3), dtype=str(like.dtype))


@binds("FlexAttention", 1, domain="ai.onnx.preview")
def flex_attention(node: NodeView, q: Any, k: Any, v: Any) -> Any:
    """FlexAttention: the two modifiers are translated in place."""
    precision = node.attr("softmax_precision", 11 if q.dtype == np.dtype(np.float64) else 1)
    if precision not in FLOATS:
        raise UnsupportedAttributeError(f"{node}: softmax_precision is {precision}, wanted one of {sorted(FLOATS)}")
    if not node.has("score_mod") and not node.has("prob_mod"):
        return att.attention(q, k, v, scale=scale_of(node, q))
    if node.has("scale") or isinstance(q.shape[3], int):
        scale = scale_of(node, q)
    else:  # subgraphs have to be translated now, before the head size is known
        size = pw.cast(shape_of(q, start=3, end=4), dtype=str(q.dtype))
        q, scale = pw.div(q, pw.sqrt(size)), 1.0
    s = _modified(node, "score_mod", pw.cast(att.scores(q, k, scale=scale), dtype=FLOATS[precision]))
    p = _modified(node, "prob_mod", normalize.softmax(s, axis=3))
    y = matmul(att.grouped(p, k), pw.cast(v, dtype=FLOATS[precision]))
    return pw.cast(layout.reshape(y, shape=(*q.shape[:3], v.shape[3])), dtype=str(q.dtype))


def _modified(node: NodeView, name: str, x: Any) -> Any:
    if not node.has(name):
        return x
    body = node.body(name, [TensorType(x.dtype, x.shape)])
    (y,) = body(x, *outer(body))
    return y


@binds("RotaryEmbedding", 23)
def rotary_embedding(node: NodeView, x: Any, cos: Any, sin: Any, positions: Any = None) -> Any:
    """RotaryEmbedding: 3-D and 4-D forms, part of a head, with and without position ids."""
    node.ignore("rotary_embedding_dim")
    return turned(
        x, cos, sin, positions, heads=node.attr("num_heads", 0), interleaved=bool(node.attr("interleaved", 0))
    )


def turned(x: Any, cos: Any, sin: Any, positions: Any, *, heads: int, interleaved: bool) -> Any:
    """Return x, (B, H, L, E) or (B, L, H * E), turned by its rows of the caches, or by caches of (B, L, R)."""
    if positions is not None:
        cos, sin = gather(cos, positions, axis=0), gather(sin, positions, axis=0)
    # The heads' axis comes before the sequence in the 4-D form, after it in the other.
    axis = 1 if x.ndim == 4 else 2
    apart = x if x.ndim == 4 else layout.reshape(x, shape=(x.shape[0], x.shape[1], heads, -1))
    cos, sin = layout.unsqueeze(cos, axes=(axis,)), layout.unsqueeze(sin, axes=(axis,))
    y = att.rotary_embedding(apart, cos, sin, interleaved=interleaved)
    return y if x.ndim == 4 else layout.reshape(y, shape=x.shape)


@binds("LinearAttention", 27)
@binds("LinearAttention", 1, domain="com.microsoft")
def linear_attention(
    node: NodeView, q: Any, k: Any, v: Any, state: Any = None, decay: Any = None, beta: Any = None
) -> Any:
    """LinearAttention: the four rules, decay a head or a key channel, beta a head or for all."""
    node.ignore("chunk_size")
    heads, shared = node.attr("q_num_heads"), node.attr("kv_num_heads")
    rule = node.one_of("update_rule", "gated_delta", linear.RULES)
    q, k, v = split_heads(q, heads), split_heads(k, shared), split_heads(v, shared)
    if decay is not None:
        decay = split_heads(decay, shared)
    if beta is not None:
        beta = layout.unsqueeze(layout.transpose(beta, perm=(0, 2, 1)), axes=(3,))
    y, state = linear.linear_attention(q, k, v, state, decay, beta, scale=scale_of(node, q, zero=True), rule=rule)
    return join_heads(y), state


@binds("CausalConvWithState", 27)
@binds("CausalConvWithState", 1, domain="com.microsoft")
def causal_conv_with_state(node: NodeView, x: Any, w: Any, bias: Any = None, state: Any = None) -> Any:
    """CausalConvWithState: a depthwise convolution over the state, then the input."""
    activation = node.one_of("activation", "none", ("none", "silu", "swish"))
    before = w.shape[2] - 1
    x = layout.pad(x, pads=((before, 0),), axes=(2,)) if state is None else layout.concat(state, x, axis=2)
    win = Window((1,), ((0, 0),), (1,), int(w.shape[0]))
    y = conv_ops.conv(x, w, win=win)
    if bias is not None:
        y = pw.add(y, layout.reshape(bias, shape=(-1, 1)))
    if activation != "none":
        y = pw.swish(y, 1.0)
    size = x.shape[2]
    return y, layout.slice_(x, starts=(size - before,), stops=(size,), steps=(1,), axes=(2,))
