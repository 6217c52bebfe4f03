"""Attention: of queries, keys and values as they are, and of several heads with projections before and after.

Axes: N batch, H heads, L queries, S keys, E elements.
Source: Vaswani et al. 2017; Ainslie et al. 2023 (grouped queries).
"""

from __future__ import annotations

import math
import warnings
from typing import Any

from ....ops import attention as attention_ops, create, layout, matmul, normalize as norm_ops, pointwise as pw, reduce
from ....ops.dims import broadcast, product
from ....ops.errors import DTypeError, OpError, ShapeError
from ....ops.types import is_float
from ...amp.casting import in_half
from .dense import linear
from .dropout import dropout


def scaled_dot_product_attention(
    query: Any, key: Any, value: Any, attn_mask: Any = None, dropout_p: float = 0.0, is_causal: bool = False,
    scale: float | None = None, enable_gqa: bool = False,
) -> Any:  # fmt: skip
    """Return softmax(q k^T scale + mask) v; a query that sees no key gives zeros.

    Args:
        query: (*, L, E), or (*, H, L, E).
        key: (*, S, E), or (*, K, S, E).
        value: (*, S, V), or (*, K, S, V).
        attn_mask: truth values (True is seen) or numbers that are added to the scores; broadcasts to (*, L, S).
        dropout_p: the probability that a weight is dropped, also in evaluation.
        is_causal: whether query i sees the keys up to i.
        scale: of the scores; 1 / sqrt(E) by default.
        enable_gqa: whether each of K key heads serves a group of H / K query heads.

    Raises:
        ShapeError: if sizes do not fit.
        DTypeError: if element types do not fit.
        OpError: if there are both a mask and `is_causal`, or the probability is none.
    """
    if min(query.ndim, key.ndim, value.ndim) < 2:
        raise ShapeError(
            "Expected query, key, and value to all be  at least 2 dimensional, but got query.dim: "
            f"{query.ndim} key.dim: {key.ndim} and value.dim: {value.ndim} instead."
        )
    query, key, value = in_half(query, key, value)
    if not query.dtype == key.dtype == value.dtype:
        raise DTypeError(
            "Expected query, key, and value to have the same dtype, but got query.dtype: "
            f"{query.dtype} key.dtype: {key.dtype} and value.dtype: {value.dtype} instead."
        )
    if not 0 <= dropout_p <= 1:
        raise OpError(f"dropout probability has to be between 0 and 1, but got {dropout_p}")
    if attn_mask is not None:
        if is_causal:
            raise OpError("_scaled_dot_product_attention: Explicit attn_mask should not be set when is_causal=True")
        if attn_mask.dtype.kind != "b" and not is_float(attn_mask.dtype):
            raise DTypeError(
                "Expected attn_mask dtype to be bool or float or to match query dtype, but got attn_mask.dtype: "
                f"{attn_mask.dtype} and  query.dtype: {query.dtype} instead."
            )
        if is_float(attn_mask.dtype) and attn_mask.dtype != query.dtype:
            attn_mask = pw.cast(attn_mask, dtype=str(query.dtype))
    heads = query.ndim > 3
    rank = max(x.ndim for x in (query, key, value))
    lead = broadcast(*(tuple(x.shape[: -3 if heads and enable_gqa else -2]) for x in (query, key, value)))
    q, k, v = (_four(x, lead, heads and enable_gqa) for x in (query, key, value))
    mask = None if attn_mask is None else _mask_of_four(attn_mask, (*lead, *query.shape[-3:-2])[: rank - 2], q.shape)
    settings: dict[str, Any] = {"scale": 1 / math.sqrt(query.shape[-1]) if scale is None else float(scale)}
    if is_causal:
        settings["right"] = 0
    if dropout_p == 0:
        y = attention_ops.attention(q, k, v, mask, None, None, None, **settings)
    else:
        weights = dropout(attention_ops.attention_weights(q, k, mask, None, None, None, **settings), dropout_p)
        y = matmul.matmul(attention_ops.grouped(weights, k), v)
    front = (*lead, query.shape[-3]) if heads and enable_gqa else lead
    return layout.reshape(y, shape=(*front, query.shape[-2], value.shape[-1]))


def _four(x: Any, lead: tuple[Any, ...], grouped: bool) -> Any:
    """Return x with four axes: batch, heads, rows, elements; all axes before the last two are the batch's `lead`.

    Where heads are `grouped` they are no part of the lead and keep their number.
    """
    own = tuple(x.shape[-3 if grouped else -2 :])
    if tuple(x.shape) != (*lead, *own):
        x = layout.expand(x, shape=(*lead, *own))
    if grouped:
        return layout.reshape(x, shape=(product(lead), *own))
    if len(lead) == 2:
        return x
    front = (1, 1) if not lead else (lead[0], 1) if len(lead) == 1 else (product(lead[:-1]), lead[-1])
    return layout.reshape(x, shape=(*front, *own))


def _mask_of_four(mask: Any, lead: tuple[Any, ...], shape: Any) -> Any:
    """Return a mask over (*lead, L, S) as one that broadcasts to four axes."""
    if mask.ndim <= 2:
        return mask
    if len(lead) == 1:
        return layout.unsqueeze(mask, axes=(1,))
    if len(lead) == 2:
        return mask
    rows = tuple(mask.shape[-2:])
    full = layout.expand(mask, shape=(*lead, *rows))
    return layout.reshape(full, shape=(shape[0], shape[1], *rows))


def canonical_mask(mask: Any, name: str, like: Any, other: Any = None, other_name: str = "") -> Any:
    """Return a mask as numbers to be added: where it is True -inf.

    Args:
        mask: truth values (True is not seen), numbers, or None.
        name: of the mask.
        like: has the element type of the numbers.
        other: another mask, which should be of the same type.
        other_name: of that.

    Raises:
        DTypeError: if it is neither.
    """
    if mask is None:
        return None
    if mask.dtype.kind != "b" and not is_float(mask.dtype):
        raise DTypeError(f"only bool and floating types of {name} are supported")
    if other is not None and other.dtype != mask.dtype:
        warnings.warn(
            f"Support for mismatched {name} and {other_name} is deprecated. Use same type for both instead.",
            stacklevel=3,
        )
    if mask.dtype.kind != "b":
        return mask
    return pw.where(mask, -math.inf, create.full_like(like, shape=tuple(mask.shape), value=0))


def _is_batched(query: Any, key: Any, value: Any, key_padding_mask: Any, attn_mask: Any, num_heads: int) -> bool:
    """Check the ranks of the arguments, and return whether they have a batch axis.

    Raises:
        ShapeError: if they do not fit.
    """
    if query.ndim not in (2, 3):
        raise ShapeError(f"query should be unbatched 2D or batched 3D tensor but received {query.ndim}-D query tensor")
    batched: bool = query.ndim == 3
    kind = "batched (3-D)" if batched else "unbatched (2-D)"
    if (key.ndim, value.ndim) != (query.ndim, query.ndim):
        raise ShapeError(
            f"For {kind} `query`, expected `key` and `value` to be {query.ndim}-D but found {key.ndim}-D and "
            f"{value.ndim}-D tensors respectively"
        )
    if key_padding_mask is not None and key_padding_mask.ndim != query.ndim - 1:
        raise ShapeError(
            f"For {kind} `query`, expected `key_padding_mask` to be `None` or {query.ndim - 1}-D but found "
            f"{key_padding_mask.ndim}-D tensor instead"
        )
    if attn_mask is not None and attn_mask.ndim not in (2, 3):
        raise ShapeError(
            f"For {kind} `query`, expected `attn_mask` to be `None`, 2-D or 3-D but found {attn_mask.ndim}-D tensor "
            "instead"
        )
    if not batched and attn_mask is not None and attn_mask.ndim == 3:
        wanted = (num_heads, query.shape[0], key.shape[0])
        if tuple(attn_mask.shape) != wanted:
            raise ShapeError(f"Expected `attn_mask` shape to be {wanted} but got {tuple(attn_mask.shape)}")
    return batched


def _projected(
    query: Any, key: Any, value: Any, in_proj_weight: Any, in_proj_bias: Any, separate: tuple[Any, Any, Any] | None
) -> tuple[Any, Any, Any]:
    """Return what queries, keys and values are projected to; one product does for those that are the same Tensor."""
    embed = query.shape[-1]
    if separate is not None:
        biases = (None,) * 3 if in_proj_bias is None else layout.split(in_proj_bias, axis=0, sizes=(embed,) * 3)
        q, k, v = (linear(x, w, b) for x, w, b in zip((query, key, value), separate, biases, strict=True))
        return q, k, v
    last = query.ndim - 1
    if key is value:
        if query is key:
            q, k, v = layout.split(linear(query, in_proj_weight, in_proj_bias), axis=last, sizes=(embed,) * 3)
            return q, k, v
        sizes = (embed, 2 * embed)
        w_q, w_kv = layout.split(in_proj_weight, axis=0, sizes=sizes)
        b_q, b_kv = (None, None) if in_proj_bias is None else layout.split(in_proj_bias, axis=0, sizes=sizes)
        k, v = layout.split(linear(key, w_kv, b_kv), axis=last, sizes=(embed,) * 2)
        return linear(query, w_q, b_q), k, v
    weights = layout.split(in_proj_weight, axis=0, sizes=(embed,) * 3)
    return _projected(query, key, value, None, in_proj_bias, tuple(weights))


def _checked_sizes(
    query: Any, key: Any, value: Any, embed_dim: int, num_heads: int, attn_mask: Any, separate: bool
) -> None:
    """Check the sizes of (L, N, E) and (S, N, E).

    Raises:
        ShapeError: if they do not fit.
    """
    length, batch, embed = query.shape
    if embed != embed_dim:
        raise ShapeError(f"was expecting embedding dimension of {embed_dim}, but got {embed}")
    if embed % num_heads:
        raise ShapeError(f"embed_dim {embed} not divisible by num_heads {num_heads}")
    if separate:
        if tuple(key.shape[:2]) != tuple(value.shape[:2]):
            raise ShapeError(
                f"key's sequence and batch dims {tuple(key.shape[:2])} do not match value's {tuple(value.shape[:2])}"
            )
    elif tuple(key.shape) != tuple(value.shape):
        raise ShapeError(f"key shape {tuple(key.shape)} does not match value shape {tuple(value.shape)}")
    if attn_mask is not None:
        wanted: tuple[Any, ...] = (length, key.shape[0])
        if attn_mask.ndim == 3:
            wanted = (batch * num_heads, *wanted)
        if tuple(attn_mask.shape) != wanted:
            raise ShapeError(
                f"The shape of the {attn_mask.ndim}D attn_mask is {tuple(attn_mask.shape)}, but should be {wanted}."
            )


def _heads(x: Any, num_heads: int) -> Any:
    """Return (L, N, H * D) as (N, H, L, D)."""
    length, batch, embed = x.shape
    split = layout.reshape(x, shape=(length, batch, num_heads, embed // num_heads))
    return layout.transpose(split, perm=(1, 2, 0, 3))


def _static(x: Any, name: str, batch: Any, num_heads: int, size: int) -> Any:
    """Return given keys or values (N * H, S, D) as (N, H, S, D)."""
    for axis, wanted in ((0, batch * num_heads), (2, size)):
        if x.shape[axis] != wanted:
            raise ShapeError(f"expecting {name}.size({axis}) of {wanted}, but got {x.shape[axis]}")
    return layout.reshape(x, shape=(batch, num_heads, x.shape[1], size))


def _more(mask: Any) -> Any:
    """Return a mask that lets one more key be seen."""
    if mask is None:
        return None
    return layout.pad(mask, None, pads=((0, 0),) * (mask.ndim - 1) + ((0, 1),), mode="constant")


def multi_head_attention_forward(
    query: Any, key: Any, value: Any, embed_dim_to_check: int, num_heads: int, in_proj_weight: Any, in_proj_bias: Any,
    bias_k: Any, bias_v: Any, add_zero_attn: bool, dropout_p: float, out_proj_weight: Any, out_proj_bias: Any,
    training: bool = True, key_padding_mask: Any = None, need_weights: bool = True, attn_mask: Any = None,
    use_separate_proj_weight: bool = False, q_proj_weight: Any = None, k_proj_weight: Any = None,
    v_proj_weight: Any = None, static_k: Any = None, static_v: Any = None, average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Any, Any]:  # fmt: skip
    """Return what several heads make of queries, keys and values, and the weights where they are wanted.

    Args:
        query: (L, N, E), or (L, E).
        key: (S, N, E), or (S, E).
        value: (S, N, E), or (S, E).
        embed_dim_to_check: E.
        num_heads: H.
        in_proj_weight: the projections of queries, keys and values under each other, (3E, E).
        in_proj_bias: (3E,) or None.
        bias_k: one more key, (1, 1, E), or None.
        bias_v: one more value.
        add_zero_attn: add one more key and value, which are 0.
        dropout_p: the probability that a weight is dropped while training.
        out_proj_weight: (E, E).
        out_proj_bias: (E,) or None.
        training: whether there is dropout.
        key_padding_mask: keys that are not seen (True), or numbers to be added, (N, S), or (S,).
        need_weights: whether the weights are returned.
        attn_mask: what is not seen (True), or numbers to be added, (L, S) or (N * H, L, S).
        use_separate_proj_weight: whether the next three take the place of `in_proj_weight`.
        q_proj_weight: (E, E).
        k_proj_weight: (E, elements of a key).
        v_proj_weight: (E, elements of a value).
        static_k: keys after the projection, (N * H, S, E / H), in the place of those of `key`.
        static_v: values after the projection.
        average_attn_weights: whether the weights are averaged over the heads.
        is_causal: a hint that `attn_mask` is the causal mask.

    Shapes: (L, N, E) and weights (N, L, S), or (N, H, L, S) of each head; without N where there is no batch.

    Raises:
        ShapeError: if sizes do not fit.
        DTypeError: if a mask is neither of truth values nor of floats.
        OpError: if arguments contradict each other.
    """
    batched = _is_batched(query, key, value, key_padding_mask, attn_mask, num_heads)
    if not batched:
        same = key is query, value is key
        query = layout.unsqueeze(query, axes=(1,))
        key = query if same[0] else layout.unsqueeze(key, axes=(1,))
        value = key if same[1] else layout.unsqueeze(value, axes=(1,))
        key_padding_mask = None if key_padding_mask is None else layout.unsqueeze(key_padding_mask, axes=(0,))
    length, batch, embed = query.shape
    padding = canonical_mask(key_padding_mask, "key_padding_mask", query, attn_mask, "attn_mask")
    if is_causal and attn_mask is None:
        raise OpError(
            "Need attn_mask if specifying the is_causal hint. You may use the Transformer module method "
            "`generate_square_subsequent_mask` to create this mask."
        )
    hinted = is_causal and padding is None and not need_weights
    mask = None if hinted else canonical_mask(attn_mask, "attn_mask", query)
    _checked_sizes(query, key, value, embed_dim_to_check, num_heads, mask, use_separate_proj_weight)
    separate = (q_proj_weight, k_proj_weight, v_proj_weight) if use_separate_proj_weight else None
    if (in_proj_weight is None) if separate is None else any(w is None for w in separate):
        raise OpError(f"use_separate_proj_weight is {use_separate_proj_weight} but a projection weight is None")
    q, k, v = _projected(query, key, value, in_proj_weight, in_proj_bias, separate)
    if (bias_k is None) != (bias_v is None):
        raise OpError("bias_k and bias_v have to be given together")
    if bias_k is not None:
        if static_k is not None or static_v is not None:
            raise OpError("bias cannot be added to static key or value.")
        k, v = (
            layout.concat(x, layout.expand(b, shape=(1, batch, embed)), axis=0) for x, b in ((k, bias_k), (v, bias_v))
        )
        mask, padding = _more(mask), _more(padding)
    size = embed // num_heads
    q = _heads(q, num_heads)
    k = _heads(k, num_heads) if static_k is None else _static(static_k, "static_k", batch, num_heads, size)
    v = _heads(v, num_heads) if static_v is None else _static(static_v, "static_v", batch, num_heads, size)
    if add_zero_attn:
        zero = create.full_like(k, shape=(batch, num_heads, 1, size), value=0)
        k, v = layout.concat(k, zero, axis=2), layout.concat(v, zero, axis=2)
        mask, padding = _more(mask), _more(padding)
    mask = _merged(mask, padding, batch, num_heads, k.shape[2])
    chance = dropout_p if training else 0.0
    weights = None
    if need_weights:
        scores = pw.mul(matmul.matmul(q, matmul.swapped(k)), math.sqrt(1 / size))
        weights = dropout(norm_ops.softmax(scores if mask is None else pw.add(scores, mask), axis=-1), chance)
        y = matmul.matmul(weights, v)
        if average_attn_weights:
            weights = reduce.mean(weights, axes=(1,))
        if not batched:
            weights = layout.squeeze(weights, axes=(0,))
    else:
        y = scaled_dot_product_attention(q, k, v, mask, chance, is_causal and hinted)
    y = layout.reshape(layout.transpose(y, perm=(2, 0, 1, 3)), shape=(length, batch, embed))
    y = linear(y, out_proj_weight, out_proj_bias)
    return y if batched else layout.squeeze(y, axes=(1,)), weights


def _merged(mask: Any, padding: Any, batch: Any, num_heads: int, keys: Any) -> Any:
    """Return the masks (L, S) or (N * H, L, S), and (N, S), as one that broadcasts to (N, H, L, S), or None."""
    if mask is not None and mask.ndim == 3:
        mask = layout.reshape(mask, shape=(batch, num_heads, *mask.shape[1:]))
    if padding is None:
        return mask
    for axis, wanted in enumerate((batch, keys)):
        if padding.shape[axis] != wanted:
            raise ShapeError(f"Expected key_padded_mask.shape[{axis}] to be {wanted}, but got {padding.shape[axis]}")
    padding = layout.reshape(padding, shape=(batch, 1, 1, keys))
    return padding if mask is None else pw.add(mask, padding)
