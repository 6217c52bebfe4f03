"""Transformers: layers of attention and a network over each step, stacked.

Axes: N batch, S steps of the source, T of the target, E elements.
Source: Vaswani et al. 2017; Xiong et al. 2020 (norms first).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np

from ....ops.errors import OpError, ShapeError
from ...autograd.grad_mode import MODE
from ...tensor.creation import tensor
from ...tensor.tensor import Tensor
from .. import functional as F, init
from ..functional.attention import canonical_mask
from ..module import Module
from .attention import MultiheadAttention
from .container import ModuleList
from .dense import Linear
from .dropout import Dropout
from .norm import LayerNorm


def _causal(size: int, dtype: Any) -> np.ndarray[Any, Any]:
    return np.triu(np.full((size, size), -np.inf, dtype), 1)


def _is_causal(mask: Any, hint: bool | None, size: int) -> bool:
    """Return whether a mask is the causal one: what the hint says, else by its values; no where a trace hides them."""
    if hint is not None or mask is None:
        return bool(hint)
    if MODE.trace is not None or tuple(mask.shape) != (size, size):
        return False
    wanted = _causal(size, np.float64) if mask.dtype.kind != "b" else np.triu(np.ones((size, size), bool), 1)
    return bool((mask.detach().cpu().array == wanted).all())


def _function(activation: str | Callable[[Any], Any]) -> Callable[[Any], Any]:
    if not isinstance(activation, str):
        return activation
    if activation not in ("relu", "gelu"):
        raise OpError(f"activation should be relu/gelu, not {activation}")
    found: Callable[[Any], Any] = getattr(F, activation)
    return found


def _clones(layer: Module, count: int) -> ModuleList:
    return ModuleList([copy.deepcopy(layer) for _ in range(count)])


class TransformerEncoderLayer(Module):
    """Attention of a sequence to itself, then a network over each step, each added to its input and normalised.

    Args:
        d_model: E.
        nhead: heads.
        dim_feedforward: elements between the two maps of the network.
        dropout: the probability of dropout, after the attention and in the network.
        activation: of the network: `relu`, `gelu` or a function.
        layer_norm_eps: eps of the norms.
        batch_first: whether batches are (N, S, E) instead of (S, N, E).
        norm_first: whether the norms come before attention and network instead of after the sums.
        bias: whether maps and norms have biases.
        device: where the parameters lie.
        dtype: their element type.

    Raises:
        OpError: if there is no such activation.
    """

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: str | Callable[[Any], Any] = F.relu,
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        given = {"bias": bias, "device": device, "dtype": dtype}
        self.self_attn = MultiheadAttention(d_model, nhead, dropout, batch_first=batch_first, **given)
        self.linear1 = Linear(d_model, dim_feedforward, **given)
        self.dropout = Dropout(dropout)
        self.linear2 = Linear(dim_feedforward, d_model, **given)
        self.norm_first = norm_first
        self.norm1 = LayerNorm(d_model, layer_norm_eps, **given)
        self.norm2 = LayerNorm(d_model, layer_norm_eps, **given)
        self.dropout1 = Dropout(dropout)
        self.dropout2 = Dropout(dropout)
        self.activation = _function(activation)

    def forward(self, src: Any, src_mask: Any = None, src_key_padding_mask: Any = None, is_causal: bool = False) -> Any:
        """Return the sequence after the layer.

        Args:
            src: (S, N, E), (N, S, E) where `batch_first`, or (S, E).
            src_mask: what is not seen (True), or numbers to be added to the scores, (S, S) or (N * heads, S, S).
            src_key_padding_mask: steps that are not seen (True), or numbers to be added, (N, S) or (S,).
            is_causal: a hint that `src_mask` is the causal mask.
        """
        padding = canonical_mask(src_key_padding_mask, "src_key_padding_mask", src, src_mask, "src_mask")
        mask = canonical_mask(src_mask, "src_mask", src)
        x = src
        if self.norm_first:
            x = x + self._sa_block(self.norm1(x), mask, padding, is_causal)
            return x + self._ff_block(self.norm2(x))
        x = self.norm1(x + self._sa_block(x, mask, padding, is_causal))
        return self.norm2(x + self._ff_block(x))

    def _sa_block(self, x: Any, mask: Any, padding: Any, is_causal: bool) -> Any:
        y, _ = self.self_attn(
            x, x, x, attn_mask=mask, key_padding_mask=padding, need_weights=False, is_causal=is_causal
        )
        return self.dropout1(y)

    def _ff_block(self, x: Any) -> Any:
        return self.dropout2(self.linear2(self.dropout(self.activation(self.linear1(x)))))


class TransformerDecoderLayer(Module):
    """As an encoder layer, with attention to the encoder's result between attention to itself and the network.

    Args:
        d_model: E.
        nhead: heads.
        dim_feedforward: elements between the two maps of the network.
        dropout: the probability of dropout, after each attention and in the network.
        activation: of the network: `relu`, `gelu` or a function.
        layer_norm_eps: eps of the norms.
        batch_first: whether batches are (N, T, E) instead of (T, N, E).
        norm_first: whether the norms come before attention and network instead of after the sums.
        bias: whether maps and norms have biases.
        device: where the parameters lie.
        dtype: their element type.

    Raises:
        OpError: if there is no such activation.
    """

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: str | Callable[[Any], Any] = F.relu,
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        given = {"bias": bias, "device": device, "dtype": dtype}
        self.self_attn = MultiheadAttention(d_model, nhead, dropout, batch_first=batch_first, **given)
        self.multihead_attn = MultiheadAttention(d_model, nhead, dropout, batch_first=batch_first, **given)
        self.linear1 = Linear(d_model, dim_feedforward, **given)
        self.dropout = Dropout(dropout)
        self.linear2 = Linear(dim_feedforward, d_model, **given)
        self.norm_first = norm_first
        self.norm1 = LayerNorm(d_model, layer_norm_eps, **given)
        self.norm2 = LayerNorm(d_model, layer_norm_eps, **given)
        self.norm3 = LayerNorm(d_model, layer_norm_eps, **given)
        self.dropout1 = Dropout(dropout)
        self.dropout2 = Dropout(dropout)
        self.dropout3 = Dropout(dropout)
        self.activation = _function(activation)

    def forward(
        self,
        tgt: Any,
        memory: Any,
        tgt_mask: Any = None,
        memory_mask: Any = None,
        tgt_key_padding_mask: Any = None,
        memory_key_padding_mask: Any = None,
        tgt_is_causal: bool = False,
        memory_is_causal: bool = False,
    ) -> Any:
        """Return the target after the layer.

        Args:
            tgt: (T, N, E), (N, T, E) where `batch_first`, or (T, E).
            memory: the encoder's result.
            tgt_mask: what the target does not see of itself (True), or numbers to be added, (T, T) or (N * heads, T, T)
            memory_mask: what of the memory it does not see, (T, S) or (N * heads, T, S).
            tgt_key_padding_mask: steps of the target that are not seen, (N, T) or (T,).
            memory_key_padding_mask: steps of the memory that are not seen, (N, S) or (S,).
            tgt_is_causal: a hint that `tgt_mask` is the causal mask.
            memory_is_causal: a hint that `memory_mask` is the causal mask.
        """
        of_tgt = tgt_mask, tgt_key_padding_mask, tgt_is_causal
        of_memory = memory_mask, memory_key_padding_mask, memory_is_causal
        x = tgt
        if self.norm_first:
            x = x + self._sa_block(self.norm1(x), *of_tgt)
            x = x + self._mha_block(self.norm2(x), memory, *of_memory)
            return x + self._ff_block(self.norm3(x))
        x = self.norm1(x + self._sa_block(x, *of_tgt))
        x = self.norm2(x + self._mha_block(x, memory, *of_memory))
        return self.norm3(x + self._ff_block(x))

    def _sa_block(self, x: Any, mask: Any, padding: Any, is_causal: bool) -> Any:
        y, _ = self.self_attn(
            x, x, x, attn_mask=mask, key_padding_mask=padding, is_causal=is_causal, need_weights=False
        )
        return self.dropout1(y)

    def _mha_block(self, x: Any, memory: Any, mask: Any, padding: Any, is_causal: bool) -> Any:
        y, _ = self.multihead_attn(
            x, memory, memory, attn_mask=mask, key_padding_mask=padding, is_causal=is_causal, need_weights=False
        )
        return self.dropout2(y)

    def _ff_block(self, x: Any) -> Any:
        return self.dropout3(self.linear2(self.dropout(self.activation(self.linear1(x)))))


class TransformerEncoder(Module):
    """Encoder layers one after the other.

    Args:
        encoder_layer: the first; the others are copies of it.
        num_layers: how many.
        norm: applied to the result, or None.
        enable_nested_tensor: taken and not used: padded steps are computed like others.
        mask_check: taken and not used.
    """

    def __init__(
        self,
        encoder_layer: Module,
        num_layers: int,
        norm: Module | None = None,
        enable_nested_tensor: bool = True,
        mask_check: bool = True,
    ) -> None:
        super().__init__()
        self.layers = _clones(encoder_layer, num_layers)
        self.num_layers, self.norm = num_layers, norm
        self.enable_nested_tensor, self.mask_check = enable_nested_tensor, mask_check

    def forward(
        self, src: Any, mask: Any = None, src_key_padding_mask: Any = None, is_causal: bool | None = None
    ) -> Any:
        """Return the sequence after all layers; the arguments are those of a layer."""
        padding = canonical_mask(src_key_padding_mask, "src_key_padding_mask", src, mask, "mask")
        mask = canonical_mask(mask, "mask", src)
        causal = _is_causal(mask, is_causal, _length(src, self.layers[0]))
        for layer in self.layers:
            src = layer(src, src_mask=mask, is_causal=causal, src_key_padding_mask=padding)
        return src if self.norm is None else self.norm(src)


class TransformerDecoder(Module):
    """Decoder layers one after the other.

    Args:
        decoder_layer: the first; the others are copies of it.
        num_layers: how many.
        norm: applied to the result, or None.
    """

    def __init__(self, decoder_layer: Module, num_layers: int, norm: Module | None = None) -> None:
        super().__init__()
        self.layers = _clones(decoder_layer, num_layers)
        self.num_layers, self.norm = num_layers, norm

    def forward(
        self,
        tgt: Any,
        memory: Any,
        tgt_mask: Any = None,
        memory_mask: Any = None,
        tgt_key_padding_mask: Any = None,
        memory_key_padding_mask: Any = None,
        tgt_is_causal: bool | None = None,
        memory_is_causal: bool = False,
    ) -> Any:
        """Return the target after all layers; the arguments are those of a layer."""
        causal = _is_causal(tgt_mask, tgt_is_causal, _length(tgt, self.layers[0]))
        for layer in self.layers:
            tgt = layer(
                tgt,
                memory,
                tgt_mask=tgt_mask,
                memory_mask=memory_mask,
                tgt_key_padding_mask=tgt_key_padding_mask,
                memory_key_padding_mask=memory_key_padding_mask,
                tgt_is_causal=causal,
                memory_is_causal=memory_is_causal,
            )
        return tgt if self.norm is None else self.norm(tgt)


def _length(x: Any, layer: Any) -> Any:
    """Return the number of steps."""
    return x.shape[1] if x.ndim == 3 and layer.self_attn.batch_first else x.shape[0]


class Transformer(Module):
    """An encoder of the source, and a decoder of the target that attends to its result.

    Args:
        d_model: E.
        nhead: heads.
        num_encoder_layers: layers of the encoder.
        num_decoder_layers: layers of the decoder.
        dim_feedforward: elements between the two maps of a layer's network.
        dropout: the probability of dropout.
        activation: of the networks: `relu`, `gelu` or a function.
        custom_encoder: in the place of the encoder.
        custom_decoder: in the place of the decoder.
        layer_norm_eps: eps of the norms.
        batch_first: whether batches are (N, S, E) instead of (S, N, E).
        norm_first: whether the norms come before attention and network instead of after the sums.
        bias: whether maps and norms have biases.
        device: where the parameters lie.
        dtype: their element type.
    """

    def __init__(
        self,
        d_model: int = 512,
        nhead: int = 8,
        num_encoder_layers: int = 6,
        num_decoder_layers: int = 6,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: str | Callable[[Any], Any] = F.relu,
        custom_encoder: Any = None,
        custom_decoder: Any = None,
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        given: dict[str, Any] = {"bias": bias, "device": device, "dtype": dtype}
        sizes = (d_model, nhead, dim_feedforward, dropout, activation, layer_norm_eps, batch_first, norm_first)
        if custom_encoder is None:
            norm = LayerNorm(d_model, layer_norm_eps, **given)
            self.encoder = TransformerEncoder(TransformerEncoderLayer(*sizes, **given), num_encoder_layers, norm)
        else:
            self.encoder = custom_encoder
        if custom_decoder is None:
            norm = LayerNorm(d_model, layer_norm_eps, **given)
            self.decoder = TransformerDecoder(TransformerDecoderLayer(*sizes, **given), num_decoder_layers, norm)
        else:
            self.decoder = custom_decoder
        self._reset_parameters()
        self.d_model, self.nhead, self.batch_first = d_model, nhead, batch_first

    def _reset_parameters(self) -> None:
        """Draw the weights anew, by Glorot's formula."""
        for p in self.parameters():
            if p.ndim > 1:
                init.xavier_uniform_(p)

    def forward(
        self,
        src: Any,
        tgt: Any,
        src_mask: Any = None,
        tgt_mask: Any = None,
        memory_mask: Any = None,
        src_key_padding_mask: Any = None,
        tgt_key_padding_mask: Any = None,
        memory_key_padding_mask: Any = None,
        src_is_causal: bool | None = None,
        tgt_is_causal: bool | None = None,
        memory_is_causal: bool = False,
    ) -> Any:
        """Return the target after the decoder; the arguments are those of the layers.

        Raises:
            ShapeError: if source and target do not fit.
        """
        axis = 0 if self.batch_first else 1
        if src.ndim == 3 and src.shape[axis] != tgt.shape[axis]:
            raise ShapeError("the batch number of src and tgt must be equal")
        if src.shape[-1] != self.d_model or tgt.shape[-1] != self.d_model:
            raise ShapeError("the feature number of src and tgt must be equal to d_model")
        memory = self.encoder(src, mask=src_mask, src_key_padding_mask=src_key_padding_mask, is_causal=src_is_causal)
        return self.decoder(
            tgt,
            memory,
            tgt_mask=tgt_mask,
            memory_mask=memory_mask,
            tgt_key_padding_mask=tgt_key_padding_mask,
            memory_key_padding_mask=memory_key_padding_mask,
            tgt_is_causal=tgt_is_causal,
            memory_is_causal=memory_is_causal,
        )

    @staticmethod
    def generate_square_subsequent_mask(sz: int, device: Any = None, dtype: Any = None) -> Tensor:
        """Return the causal mask: -inf above the diagonal of zeros, (sz, sz)."""
        return tensor(_causal(sz, Tensor.default_dtype if dtype is None else np.dtype(dtype)), device=device)
