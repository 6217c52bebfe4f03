"""Bindings: text generation (com.microsoft). How a file's encoder and decoder are called ends here.

Source: onnxruntime's contrib operators BeamSearch-1, GreedySearch-1 and NGramRepeatBlock-1.
"""

from __future__ import annotations

from typing import Any

from ....ops import create, generation, index, layout, pointwise as pw
from ....ops.errors import UnsupportedAttributeError
from ....ops.types import TensorType
from ....runtime.graph.body import Body
from ..node import NodeView
from ..registry import binds
from .control import outer

MICROSOFT = "com.microsoft"
GPT, T5 = 0, 1


def _bodies(node: NodeView, wanted: int) -> dict[str, Body | None]:
    kind = node.attr("model_type", GPT)
    if kind != wanted and kind not in (GPT, wanted):
        raise UnsupportedAttributeError(f"{node}: model_type {kind} is not supported; {GPT} (GPT) and {wanted} are")
    found: dict[str, Body | None] = {
        name: node.body(attr) if node.has(attr) and (attr == "decoder" or (attr == "encoder") == (kind == T5)) else None
        for name, attr in (("encoder", "encoder"), ("first", "init_decoder"), ("decoder", "decoder"))
    }
    if kind == T5 and found["encoder"] is None:
        raise UnsupportedAttributeError(f"{node}: model_type {kind} wants an encoder")
    node.ignore("encoder", "init_decoder", "vocab_size")
    for name, body in found.items():
        if body is not None and body.graph.key is not None:
            raise UnsupportedAttributeError(f"{node}: its {name} draws random numbers, which is not supported")
    return found


def _rules(node: NodeView, bodies: dict[str, Body | None]) -> generation.Decoding:
    """Read off the decoder what it remembers and wants to be given."""
    encoder, decoder = bodies["encoder"], bodies["decoder"]
    assert decoder is not None
    inputs = decoder.graph.inputs
    gpt = encoder is None
    hidden = not gpt and len(inputs) > 2 and inputs[2].name == "encoder_hidden_states"
    past = inputs[3 if gpt or hidden else 2 :]
    shape = past[0].shape if past else ()
    remembered = len(decoder.output_types) - 1
    if len(shape) != (5 if gpt else 4) or len(past) != (remembered if gpt else 2 * remembered):
        raise UnsupportedAttributeError(
            f"{node}: the decoder takes {len(inputs)} inputs and gives {remembered + 1} outputs; wanted are "
            + ("tokens, positions, mask and a past of each layer" if gpt else "tokens, mask and a past of each layer")
        )
    heads, size = (int(shape[i]) if isinstance(shape[i], int) else 0 for i in (-3, -1))
    prepared = encoder is None or len(encoder.graph.inputs) == 3
    if not (heads and size) and (gpt or not prepared):
        raise UnsupportedAttributeError(f"{node}: the decoder's past has shape {shape}; its heads and size are wanted")
    return generation.Decoding(
        end=int(node.attr("eos_token_id")),
        pad=int(node.attr("pad_token_id")),
        start=int(node.attr("decoder_start_token_id", -1)),
        ngram=int(node.attr("no_repeat_ngram_size", 0)),
        early=bool(node.attr("early_stopping", 0)),
        cache=(heads, size, str(past[0].dtype)),
        layers=len(past) if prepared else 0,
        whole=not gpt and inputs[0].shape[1] != 1,
        hidden=hidden,
    )


def _search(node: NodeView, bodies: dict[str, Body | None], op: Any, args: list[Any], **attrs: Any) -> Any:
    captures = [outer(body) if body is not None else [] for body in bodies.values()]
    splits = (len(captures[0]), len(captures[1]))
    flat = [v for part in captures for v in part]
    return op(*args, *flat, first=bodies["first"], decoder=bodies["decoder"], splits=splits, rules=_rules(node, bodies),
              **attrs)  # fmt: skip


@binds("BeamSearch", 1, domain=MICROSOFT)
def beam_search(node: NodeView, *inputs: Any) -> Any:
    """BeamSearch: for decoders of the kind of GPT, and with an encoder of that of T5."""
    args = [*inputs, *[None] * (12 - len(inputs))]
    if args[10] is not None or args[11] is not None:
        raise UnsupportedAttributeError(f"{node}: decoder_input_ids and logits_processor are not supported")
    bodies = _bodies(node, T5)
    outs = _search(node, bodies, generation.beam_search, args[:10], encoder=bodies["encoder"])
    kinds = [v.dtype for v in args[5:7] if v is not None]
    if kinds and isinstance(outs[1].type, TensorType):
        outs = (outs[0], *(pw.cast(v, dtype=str(kinds[0])) if v.dtype != kinds[0] else v for v in outs[1:]))
    return outs[: len(node.outputs)]


@binds("GreedySearch", 1, domain=MICROSOFT)
def greedy_search(node: NodeView, *inputs: Any) -> Any:
    """GreedySearch: for decoders of the kind of GPT."""
    args = [*inputs, *[None] * (7 - len(inputs))]
    return _search(node, _bodies(node, GPT), generation.greedy_search, args)


@binds("NGramRepeatBlock", 1, domain=MICROSOFT)
def ngram_repeat_block(node: NodeView, tokens: Any, scores: Any) -> Any:
    """NGramRepeatBlock: -inf for the tokens that would end n tokens which came in this order before."""
    n, length = int(node.attr("ngram_size")), tokens.shape[1]
    if isinstance(length, int) and length < n:
        return layout.identity(scores)
    windows = length - n + 1

    def part(start: Any, size: Any) -> Any:
        return layout.slice_(tokens, starts=(start,), stops=(start + size,), steps=(1,), axes=(1,))

    ends = part(n - 1, windows)
    same = pw.equal(ends, ends)
    for i in range(n - 1):
        same = pw.logical_and(same, pw.equal(part(i, windows), part(windows + i, 1)))
    dtype = str(scores.dtype)
    none = create.full_like(scores, shape=tuple(scores.shape), value=0)
    hit = index.scatter_elements(none, ends, pw.cast(same, dtype=dtype), axis=1, reduction="max")
    return pw.where(pw.greater(hit, 0.0), float("-inf"), scores)
