"""Text generation: a decoder that is run again and again, on the tokens that it chose itself.

The decoder, and the encoder before it, are bodies that run on plain arrays. Choosing tokens has no derivative, so
nothing here is differentiable: what a loss wants are the logits of the decoder on given tokens.

Source: onnxruntime's contrib operators BeamSearch-1 and GreedySearch-1; Hugging Face's `generate`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .control import Body
from .dims import Dim, DimLike
from .op import op
from .types import TensorType

INT32, FLOAT32 = np.dtype(np.int32), np.dtype(np.float32)


@dataclass(frozen=True)
class Decoding:
    """What a search keeps to.

    Attributes:
        end, pad, start: the tokens that end, fill and (with an encoder) begin a text.
        ngram: how many tokens in a row do not come twice; 0 for no limit.
        early: a text is done as soon as there are enough hypotheses.
        cache: heads, their size and the element type of what the decoder remembers.
        layers: how many layers remember something.
        whole: the decoder is given all tokens so far rather than the last one.
        hidden: the decoder is given the encoder's hidden states.
    """

    end: int
    pad: int
    start: int = -1
    ngram: int = 0
    early: bool = False
    cache: tuple[int, int, str] = (0, 0, "float32")
    layers: int = 0
    whole: bool = False
    hidden: bool = False


@op()
def beam_search(
    tokens: TensorType,
    max_length: TensorType,
    min_length: TensorType | None,
    beams: TensorType,
    returned: TensorType,
    length_penalty: TensorType | None,
    repetition_penalty: TensorType | None,
    vocabulary: TensorType | None,
    first_vocabulary: TensorType | None,
    mask: TensorType | None,
    *captures: Any,
    encoder: Body | None,
    first: Body | None,
    decoder: Body,
    splits: tuple[int, int],
    rules: Decoding,
) -> tuple[TensorType, ...]:
    """Return the most likely texts that a decoder continues, by beam search.

    With an encoder (T5) it takes (tokens, mask[, start]) and the decoder (tokens, mask, [hidden,] *past); without one
    (GPT) the decoder takes (tokens, positions, mask, *past), and `first`, where it is given, takes its place in the
    first run.

    Shapes: (B, L) tokens; one element each: the longest and the shortest text, the beams, the texts returned, the
    penalties; (V,) and (B, V) tokens that are allowed, always and in the first step; (B, L); the captures of the
    encoder, of `first` and of the decoder, of which `splits` counts the first two
    -> texts (B, returned, longest), their scores (B, returned), the scores of each step
    (longest - start, B, beams, V).
    """
    batch, length = tokens.shape
    longest, width, count = _count(max_length), _count(beams), _count(returned)
    start = 1 if encoder is not None else length
    words = _words(decoder)
    return (
        TensorType(INT32, (batch, count, longest)),
        TensorType(FLOAT32, (batch, count)),
        TensorType(FLOAT32, (longest - start, batch, width, words)),
    )


@op(dtype="int32")
def greedy_search(
    tokens: TensorType,
    max_length: TensorType,
    min_length: TensorType | None,
    repetition_penalty: TensorType | None,
    vocabulary: TensorType | None,
    first_vocabulary: TensorType | None,
    mask: TensorType | None,
    *captures: Any,
    first: Body | None,
    decoder: Body,
    splits: tuple[int, int],
    rules: Decoding,
) -> TensorType:
    """Return the text that a decoder (GPT) continues with the likeliest token at each step; see `beam_search`.

    Shapes: (B, L), ... -> (B, longest).
    """
    return TensorType(INT32, (tokens.shape[0], _count(max_length)))


def _count(t: TensorType) -> DimLike:
    return t.contents[0] if t.contents else Dim.fresh()


def _words(decoder: Body) -> DimLike:
    logits = decoder.output_types[0]
    shape = logits.known_shape if isinstance(logits, TensorType) else None
    return shape[-1] if shape and isinstance(shape[-1], int) else Dim.fresh()
