"""Attention of several heads."""

from __future__ import annotations

from typing import Any

from ....ops.errors import OpError, ShapeError
from .. import init
from ..functional.attention import canonical_mask, multi_head_attention_forward
from ..module import Module
from .dense import Linear, blank


class NonDynamicallyQuantizableLinear(Linear):
    """A `Linear`, by the name that PyTorch prints for the projection after the heads."""


class MultiheadAttention(Module):
    """Several heads of softmax(q k^T / sqrt(E / H)) v, each over its own projections, joined and projected once more.

    Args:
        embed_dim: E, elements of a query and of the result.
        num_heads: H, among which E is divided.
        dropout: the probability that a weight is dropped while training.
        bias: whether the projections have biases.
        add_bias_kv: whether there is one more key and value, which are trained.
        add_zero_attn: whether there is one more key and value, which are 0.
        kdim: elements of a key; E by default.
        vdim: elements of a value; E by default.
        batch_first: whether batches are (N, L, E) instead of (L, N, E).
        device: where the parameters lie.
        dtype: their element type.

    Raises:
        OpError: if E or H is not positive.
        ShapeError: if H does not divide E.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        if embed_dim <= 0 or num_heads <= 0:
            raise OpError(
                "embed_dim and num_heads must be greater than 0, "
                f"got embed_dim={embed_dim} and num_heads={num_heads} instead"
            )
        super().__init__()
        self.embed_dim, self.num_heads, self.dropout, self.batch_first = embed_dim, num_heads, dropout, batch_first
        self.kdim = embed_dim if kdim is None else kdim
        self.vdim = embed_dim if vdim is None else vdim
        self._qkv_same_embed_dim = self.kdim == self.vdim == embed_dim
        self.head_dim = embed_dim // num_heads
        if self.head_dim * num_heads != embed_dim:
            raise ShapeError("embed_dim must be divisible by num_heads")
        self.add_zero_attn = add_zero_attn
        same = self._qkv_same_embed_dim
        widths = {"q_proj_weight": embed_dim, "k_proj_weight": self.kdim, "v_proj_weight": self.vdim}
        if same:
            self.in_proj_weight = blank((3 * embed_dim, embed_dim), dtype, device)
        for name, width in widths.items():
            self.register_parameter(name, None if same else blank((embed_dim, width), dtype, device))
        if not same:
            self.register_parameter("in_proj_weight", None)
        self.register_parameter("in_proj_bias", blank((3 * embed_dim,), dtype, device) if bias else None)
        self.out_proj = NonDynamicallyQuantizableLinear(embed_dim, embed_dim, bias, device, dtype)
        for name in ("bias_k", "bias_v"):
            self.register_parameter(name, blank((1, 1, embed_dim), dtype, device) if add_bias_kv else None)
        self._reset_parameters()

    def _reset_parameters(self) -> None:
        """Draw the parameters anew, by Glorot's formula; biases are 0."""
        for weight in (self.in_proj_weight, self.q_proj_weight, self.k_proj_weight, self.v_proj_weight):
            if weight is not None:
                init.xavier_uniform_(weight)
        if self.in_proj_bias is not None:
            init.zeros_(self.in_proj_bias)
            init.zeros_(self.out_proj.bias)
        for bias in (self.bias_k, self.bias_v):
            if bias is not None:
                init.xavier_normal_(bias)

    def forward(
        self,
        query: Any,
        key: Any,
        value: Any,
        key_padding_mask: Any = None,
        need_weights: bool = True,
        attn_mask: Any = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Any, Any]:
        """Return what the heads make of queries, keys and values, and the weights, or None.

        Args:
            query: (L, N, E), (N, L, E) where `batch_first`, or (L, E).
            key: as the query, with S and `kdim`.
            value: as the key, with `vdim`.
            key_padding_mask: keys that are not seen (True), or numbers to be added to the scores, (N, S) or (S,).
            need_weights: whether the weights are returned; without them it is faster.
            attn_mask: what is not seen (True), or numbers to be added, (L, S) or (N * H, L, S).
            average_attn_weights: whether the weights are averaged over the heads.
            is_causal: a hint that `attn_mask` is the causal mask.

        Raises:
            ShapeError: if sizes do not fit.
            DTypeError: if a mask is neither of truth values nor of floats.
            OpError: if `is_causal` comes without a mask.
        """
        padding = canonical_mask(key_padding_mask, "key_padding_mask", query, attn_mask, "attn_mask")
        mask = canonical_mask(attn_mask, "attn_mask", query)
        turned = self.batch_first and query.ndim == 3
        if turned:
            same = key is query, value is key
            query = query.transpose(0, 1)
            key = query if same[0] else key.transpose(0, 1)
            value = key if same[1] else value.transpose(0, 1)
        y, weights = multi_head_attention_forward(
            query,
            key,
            value,
            self.embed_dim,
            self.num_heads,
            self.in_proj_weight,
            self.in_proj_bias,
            self.bias_k,
            self.bias_v,
            self.add_zero_attn,
            self.dropout,
            self.out_proj.weight,
            self.out_proj.bias,
            training=self.training,
            key_padding_mask=padding,
            need_weights=need_weights,
            attn_mask=mask,
            use_separate_proj_weight=not self._qkv_same_embed_dim,
            q_proj_weight=self.q_proj_weight,
            k_proj_weight=self.k_proj_weight,
            v_proj_weight=self.v_proj_weight,
            average_attn_weights=average_attn_weights,
            is_causal=is_causal,
        )
        return y.transpose(0, 1) if turned else y, weights
