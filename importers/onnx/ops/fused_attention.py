"""Bindings: the attention layers that onnxruntime's optimizer and generative exporters write (com.microsoft).

Their masks are of many kinds; all but causal ones and lengths become numbers that are added to the scores.
"""

from __future__ import annotations

from typing import Any

from ....ops import attention as att, layout, pointwise as pw
from ....ops.create import full_like
from ....ops.cumulative import cumsum
from ....ops.dims import DimLike, at_least
from ....ops.errors import UnsupportedAttributeError
from ....ops.index import tensor_scatter
from ....ops.matmul import matmul
from ....runtime.graph.contents import dims_of
from ..node import NodeView
from ..registry import binds
from .attention import join_heads, scale_of, sequence_length, split_heads, turned, with_past

MICROSOFT = "com.microsoft"


def _counted(like: Any, count: DimLike) -> Any:
    """Return 0, 1, ... up to before `count` as one row, of the integers and the device of `like`."""
    return cumsum(full_like(like, shape=(1, count), value=1), axis=1, exclusive=True)


def _unless(seen: Any, like: Any, filler: float) -> Any:
    """Return 0 where it is true, else the filler, of the element type of `like`."""
    return pw.mul(pw.sub(1.0, pw.cast(seen, dtype=str(like.dtype))), filler)


def _before(ends: Any, keys: DimLike, starts: Any = None) -> Any:
    """Return which keys come before each entry's end, and not before its start: (B, keys)."""
    at = _counted(ends, keys)
    seen = pw.less(at, layout.unsqueeze(ends, axes=(1,)))
    if starts is None:
        return seen
    return pw.logical_and(seen, pw.less_equal(layout.unsqueeze(starts, axes=(1,)), at))


def padding_bias(node: NodeView, mask: Any, q: Any, keys: DimLike, filler: float) -> Any:
    """Return what a padding mask adds to the scores, broadcasting to (B, H, L, S).

    Kinds: (B,) lengths; (2 B,) ends, then starts; (3 B + 2,) lengths, then offsets that do not matter here; (B, S) and
    (B, L, S) truth values as integers.
    """
    if mask is None:
        return None
    if mask.ndim > 1:
        seen = pw.less(0, mask)
        if mask.ndim == 4:
            raise UnsupportedAttributeError(f"{node}: masks of rank 4 are not supported")
        return layout.unsqueeze(_unless(seen, q, filler), axes=(1, 2) if mask.ndim == 2 else (1,))
    b = q.shape[0]
    ends, starts = mask, None
    if mask.shape[0] != b and int(mask.shape[0]) != int(b):  # symbols that differ are decided at run time
        ends = layout.slice_(mask, starts=(0,), stops=(b,), steps=(1,), axes=(0,))
        if mask.shape[0] == 2 * b:
            starts = layout.slice_(mask, starts=(b,), stops=(2 * b,), steps=(1,), axes=(0,))
    return layout.unsqueeze(_unless(_before(ends, keys, starts), q, filler), axes=(1, 2))


def _added(*parts: Any) -> Any:
    """Return the sum of those that are there, or None."""
    total = None
    for part in parts:
        if part is not None:
            total = part if total is None else pw.add(total, part)
    return total


def _entry(x: Any, index: int, axis: int) -> Any:
    """Return one entry along an axis, without the axis."""
    part = layout.slice_(x, starts=(index,), stops=(index + 1,), steps=(1,), axes=(axis,))
    return layout.squeeze(part, axes=(axis,))


@binds("Attention", 1, domain=MICROSOFT)
def attention(
    node: NodeView, x: Any, w: Any, bias: Any = None, mask: Any = None, past: Any = None, added: Any = None,
    past_length: Any = None,
) -> Any:  # fmt: skip
    """Attention: one projection to queries, keys and values, which may differ in size; a cache; masks."""
    if node.attr("do_rotary", 0) or node.attr("past_present_share_buffer", 0) or past_length is not None:
        raise UnsupportedAttributeError(f"{node}: do_rotary and past_present_share_buffer are not supported")
    heads = node.attr("num_heads")
    sizes = tuple(node.attr("qkv_hidden_sizes", [int(w.shape[1]) // 3] * 3))
    y = matmul(x, w)
    if bias is not None:
        y = pw.add(y, bias)
    q, k, v = (split_heads(part, heads) for part in layout.split(y, axis=2, sizes=sizes))
    offset: DimLike = 0
    if past is not None:
        offset = past.shape[3]
        k, v = with_past(_entry(past, 0, 0), k), with_past(_entry(past, 1, 0), v)
    filler = node.attr("mask_filter_value", -10000.0)
    seen = _added(padding_bias(node, mask, q, k.shape[2], filler), added)
    right = 0 if node.attr("unidirectional", 0) else -1
    y = join_heads(att.attention(q, k, v, seen, scale=scale_of(node, q, zero=True), right=right, offset=offset))
    if len(node.outputs) < 2:
        return y
    return y, layout.concat(*(layout.unsqueeze(part, axes=(0,)) for part in (k, v)), axis=0)


@binds("MultiHeadAttention", 1, domain=MICROSOFT)
def multi_head_attention(
    node: NodeView, q: Any, k: Any = None, v: Any = None, bias: Any = None, mask: Any = None, added: Any = None,
    past_key: Any = None, past_value: Any = None, past_length: Any = None, cache: Any = None,
) -> Any:  # fmt: skip
    """MultiHeadAttention: separate or packed projections, keys of a cross attention as they are, a cache, masks."""
    if past_length is not None or cache is not None:
        raise UnsupportedAttributeError(f"{node}: past_sequence_length and cache_indirection are not supported")
    heads = node.attr("num_heads")
    parts: list[Any]
    if k is None:  # (B, L, H, 3, E)
        parts = [_entry(q, i, 3) for i in range(3)]
    elif v is None:  # (B, S, H, 2, E)
        parts = [_apart(q, heads), *(_entry(k, i, 3) for i in range(2))]
    else:
        parts = [_apart(x, heads) if x.ndim == 3 else x for x in (q, k, v)]
    crossed = v is not None and k.ndim == 4
    if bias is not None:
        widths = [int(heads * (p.shape[3])) for p in parts]
        biases = layout.split(bias, axis=0, sizes=tuple(widths))
        for i, b in enumerate(biases):
            if not (crossed and i):
                parts[i] = pw.add(parts[i], layout.reshape(b, shape=(heads, -1)))
    queries, keys, values = (
        p if crossed and i else layout.transpose(p, perm=(0, 2, 1, 3)) for i, p in enumerate(parts)
    )
    offset: DimLike = 0
    if past_key is not None:
        offset = past_key.shape[2]
        keys, values = with_past(past_key, keys), with_past(past_value, values)
    filler = node.attr("mask_filter_value", -10000.0)
    seen = _added(padding_bias(node, mask, queries, keys.shape[2], filler), added)
    right = 0 if node.attr("unidirectional", 0) else -1
    scale = scale_of(node, queries, zero=True)
    y = join_heads(att.attention(queries, keys, values, seen, scale=scale, right=right, offset=offset))
    shown = None
    if any(node.outputs[3:4]):
        shown = att.scores(queries, keys, scale=scale)
        shown = shown if seen is None else pw.add(shown, seen)
    return (y, keys, values, shown)[: len(node.outputs)]


def _apart(x: Any, heads: int) -> Any:
    return layout.reshape(x, shape=(x.shape[0], x.shape[1], heads, -1))


@binds("GroupQueryAttention", 1, domain=MICROSOFT)
def group_query_attention(
    node: NodeView, q: Any, k: Any, v: Any, past_key: Any, past_value: Any, last: Any, total: Any,
    cos: Any = None, sin: Any = None, places: Any = None, added: Any = None, sink: Any = None,
    k_scale: Any = None, v_scale: Any = None, q_norm: Any = None, k_norm: Any = None,
) -> Any:  # fmt: skip
    """GroupQueryAttention: new keys and values are written into a cache behind those of each entry's own length.

    Without k and v all three are in q. `last` is the place of each entry's last key; `total`, the longest sequence,
    says whether this is a prompt. Quantised caches and normalised heads are refused.
    """
    if any(x is not None for x in (k_scale, v_scale, q_norm, k_norm)):
        raise UnsupportedAttributeError(f"{node}: quantised caches and normalised heads are not supported")
    if node.attr("qk_output", 0) or any(node.outputs[3:]):
        raise UnsupportedAttributeError(f"{node}: qk_output is not supported")
    for name, usual in (("k_quant_type", "NONE"), ("v_quant_type", "NONE"), ("kv_cache_bit_width", 0)):
        if node.attr(name, usual) != usual:
            raise UnsupportedAttributeError(f"{node}: {name} is not supported")
    heads, shared = node.attr("num_heads"), node.attr("kv_num_heads")
    if k is None:
        e = int(q.shape[2]) // (heads + 2 * shared)
        q, k, v = layout.split(q, axis=2, sizes=(heads * e, shared * e, shared * e))
    q, k, v = split_heads(q, heads), split_heads(k, shared), split_heads(v, shared)
    last = pw.cast(last, dtype="int64")
    new = sequence_length(q, last)
    # A prompt starts at 0, whatever its entries' lengths; else the new keys are each entry's last.
    lengths = pw.add(layout.reshape(last, shape=(-1,)), 1)
    prompt = pw.equal(pw.cast(layout.reshape(total, shape=(1,)), dtype="int64"), new)
    starts = pw.where(prompt, 0, pw.sub(lengths, new))
    if node.attr("do_rotary", 0):
        if places is None:
            places = pw.add(layout.unsqueeze(starts, axes=(1,)), _counted(lengths, q.shape[2]))
        interleaved = bool(node.attr("rotary_interleaved", 0))
        q, k = (turned(x, cos, sin, places, heads=0, interleaved=interleaved) for x in (q, k))
    node.ignore("rotary_interleaved")
    if past_key is not None:
        (size,) = dims_of(total)
        k, v = (_cached(cache, x, starts, size) for cache, x in ((past_key, k), (past_value, v)))
    if sink is None and node.attr("smooth_softmax", 0) > 0:
        sink = full_like(q, shape=(heads,), value=0.0)
    window = node.attr("local_window_size", -1)
    if added is not None and added.shape[3] != k.shape[2]:
        added = layout.pad(added, pads=((0, at_least(k.shape[2] - added.shape[3], 0)),), axes=(3,))
    y = att.attention(
        q, k, v, added, lengths, starts, sink, scale=scale_of(node, q, zero=True), softcap=node.attr("softcap", 0.0),
        left=window - 1 if window > 0 else -1, right=0 if node.attr("causal", 1) else -1,
    )  # fmt: skip
    return (join_heads(y), k, v)[: len(node.outputs)]


def _cached(cache: Any, new: Any, starts: Any, size: DimLike) -> Any:
    """Return a cache, grown to the longest sequence, with new entries written from each entry's start on."""
    grown = layout.pad(cache, pads=((0, at_least(size - cache.shape[2], 0)),), axes=(2,))
    return tensor_scatter(grown, new, starts, axis=2)


@binds("RotaryEmbedding", 1, domain=MICROSOFT)
def rotary_embedding(node: NodeView, x: Any, positions: Any, cos: Any, sin: Any) -> Any:
    """RotaryEmbedding: positions of each token, or of the first one of all."""
    if node.attr("is_packed_batching", 0) or node.attr("scale", 1.0) != 1.0:
        raise UnsupportedAttributeError(f"{node}: is_packed_batching and scale are not supported")
    heads, turns = node.attr("num_heads", 0), node.attr("rotary_embedding_dim", 0)
    if not heads and x.ndim == 3:
        heads = int(x.shape[2]) // (turns or 2 * int(cos.shape[1]))
    if positions.ndim == 1:
        n = x.shape[1] if x.ndim == 3 else x.shape[2]
        each = layout.expand(_counted(positions, n), shape=(x.shape[0], n))
        positions = pw.add(layout.reshape(positions, shape=(1, 1)), each)
    return turned(x, cos, sin, positions, heads=heads, interleaved=bool(node.attr("interleaved", 0)))
