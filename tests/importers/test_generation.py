"""Text generation against onnxruntime: small decoders with random weights, in the forms that its converter writes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxgrad.importers.onnx.model import load_bytes
from onnxgrad.ops.errors import OpError, UnsupportedAttributeError

from .one_node import ort_node, run_node

WORDS, HEADS, SIZE = 12, 2, 3
WIDTH = HEADS * SIZE
END, PAD, START = 3, 1, 2
MICROSOFT = "com.microsoft"


def table(name: str, *shape: int, seed: int) -> onnx.TensorProto:
    array = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    return numpy_helper.from_array(array, name)


def ints(name: str, *values: int) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(values, np.int64), name)


def info(name: str, *shape: Any, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def whole(name: str, *shape: Any) -> onnx.ValueInfoProto:
    return info(name, *shape, kind=TensorProto.INT32)


def node(op_type: str, inputs: list[str], output: str, **attrs: Any) -> onnx.NodeProto:
    return helper.make_node(op_type, inputs, [output], **attrs)


def gpt(name: str, seed: int = 0) -> onnx.GraphProto:
    """Return a decoder whose logits hang on the tokens, the positions, the mask and what it remembers."""
    nodes = [
        node("Gather", ["tokens_of", "input_ids"], "words"),
        node("Gather", ["places_of", "position_ids"], "places"),
        node("Add", ["words", "places"], "x"),
        node("Reshape", ["x", "split"], "apart"),
        node("Transpose", ["apart"], "new", perm=[0, 2, 1, 3]),
        node("Unsqueeze", ["new", "zero"], "one"),
        node("Concat", ["one", "one"], "both", axis=0),
        node("Concat", ["past_0", "both"], "present_0", axis=3),
        node("Gather", ["present_0", "first"], "seen", axis=0),
        node("Cast", ["attention_mask"], "weights", to=TensorProto.FLOAT),
        node("Unsqueeze", ["weights", "around"], "over"),
        node("Mul", ["seen", "over"], "weighed"),
        node("ReduceMean", ["weighed"], "mean", axes=[2], keepdims=0),
        node("Reshape", ["mean", "joined"], "context"),
        node("Add", ["x", "context"], "both_x"),
        node("Tanh", ["both_x"], "h"),
        node("MatMul", ["h", "out"], "logits"),
    ]
    weights = [
        table("tokens_of", WORDS, WIDTH, seed=seed),
        table("places_of", 32, WIDTH, seed=seed + 1),
        table("out", WIDTH, WORDS, seed=seed + 2),
        ints("split", 0, -1, HEADS, SIZE),
        ints("joined", 0, 1, WIDTH),
        ints("zero", 0),
        ints("around", 1, 3),
        numpy_helper.from_array(np.array(0, np.int64), "first"),
    ]
    inputs = [
        whole("input_ids", "batch_size", "seq_len"),
        whole("position_ids", "batch_size", "seq_len"),
        whole("attention_mask", "batch_size", "total_seq_len"),
        info("past_0", 2, "batch_size", HEADS, "past_seq_len", SIZE),
    ]
    outputs = [
        info("logits", "batch_size", "seq_len", WORDS),
        info("present_0", 2, "batch_size", HEADS, "total_seq_len", SIZE),
    ]
    return helper.make_graph(nodes, name, inputs, outputs, weights)


def encoder(with_decoder: bool = True) -> onnx.GraphProto:
    nodes = [
        node("Gather", ["read", "encoder_input_ids"], "words"),
        node("Cast", ["encoder_attention_mask"], "weights", to=TensorProto.FLOAT),
        node("Unsqueeze", ["weights", "last"], "over"),
        node("Mul", ["words", "over"], "encoder_hidden_states"),
        node("Reshape", ["encoder_hidden_states", "split"], "apart"),
        node("Transpose", ["apart"], "present_key_cross_0", perm=[0, 2, 1, 3]),
        node("Tanh", ["present_key_cross_0"], "present_value_cross_0"),
    ]
    inputs = [
        whole("encoder_input_ids", "batch_size", "length"),
        whole("encoder_attention_mask", "batch_size", "length"),
    ]
    cross = [info(f"present_{k}_cross_0", "batch_size", HEADS, "length", SIZE) for k in ("key", "value")]
    weights = [table("read", WORDS, WIDTH, seed=7), ints("split", 0, -1, HEADS, SIZE), ints("last", 2)]
    if not with_decoder:
        return helper.make_graph(nodes, "encoder", inputs, cross, weights)
    nodes += [
        node("Gather", ["write", "decoder_input_ids"], "start"),
        node("ReduceMean", ["encoder_hidden_states"], "mean", axes=[1]),
        node("Add", ["start", "mean"], "h"),
        node("MatMul", ["h", "out"], "logits"),
        node("Reshape", ["h", "split"], "h_apart"),
        node("Transpose", ["h_apart"], "present_key_self_0", perm=[0, 2, 1, 3]),
        node("Tanh", ["present_key_self_0"], "present_value_self_0"),
    ]
    weights += [table("write", WORDS, WIDTH, seed=8), table("out", WIDTH, WORDS, seed=9)]
    outputs = [
        info("logits", "batch_size", 1, WORDS),
        info("encoder_hidden_states", "batch_size", "length", WIDTH),
        *(info(f"present_{k}_self_0", "batch_size", HEADS, 1, SIZE) for k in ("key", "value")),
        *cross,
    ]
    return helper.make_graph(nodes, "encoder", [*inputs, whole("decoder_input_ids", "batch_size", 1)], outputs, weights)


def decoder(hidden: bool = False, tokens: Any = 1) -> onnx.GraphProto:
    nodes = [
        node("Gather", ["write", "input_ids"], "all_words"),
        node("ReduceMean", ["all_words"], "words", axes=[1], keepdims=1),
        node("ReduceMean", ["past_key_cross_0"], "mean", axes=[2], keepdims=0),
        node("Reshape", ["mean", "joined"], "context"),
        node("Add", ["words", "context"], "sum"),
        node("Reshape", ["sum", "split"], "apart"),
        node("Transpose", ["apart"], "key", perm=[0, 2, 1, 3]),
        node("Tanh", ["key"], "value"),
        node("Concat", ["past_key_self_0", "key"], "present_key_self_0", axis=2),
        node("Concat", ["past_value_self_0", "value"], "present_value_self_0", axis=2),
        node("ReduceSum", ["present_value_self_0", "second"], "all", keepdims=0),
        node("Reshape", ["all", "joined"], "memory"),
        node("Add", ["sum", "memory"], "h"),
        node("MatMul", ["h", "out"], "logits"),
    ]
    weights = [
        table("write", WORDS, WIDTH, seed=18),
        table("out", WIDTH, WORDS, seed=19),
        ints("split", 0, -1, HEADS, SIZE),
        ints("joined", 0, 1, WIDTH),
        ints("second", 2),
    ]
    inputs = [
        whole("input_ids", "batch_size", tokens),
        whole("encoder_attention_mask", "batch_size", "length"),
        *([info("encoder_hidden_states", "batch_size", "length", WIDTH)] if hidden else []),
        *(info(f"past_{k}_self_0", "batch_size", HEADS, "past", SIZE) for k in ("key", "value")),
        *(info(f"past_{k}_cross_0", "batch_size", HEADS, "length", SIZE) for k in ("key", "value")),
    ]
    outputs = [
        info("logits", "batch_size", 1, WORDS),
        *(info(f"present_{k}_self_0", "batch_size", HEADS, "total", SIZE) for k in ("key", "value")),
    ]
    return helper.make_graph(nodes, "decoder", inputs, outputs, weights)


TOKENS = np.array([[4, 5, 6, 4], [1, 1, 8, 9]], np.int32)
FORMS: dict[str, dict[str, Any]] = {
    "gpt": {"decoder": gpt("decoder"), "model_type": 0},
    "gpt first": {"decoder": gpt("decoder"), "init_decoder": gpt("first", seed=5), "model_type": 0},
    "t5": {"encoder": encoder(), "decoder": decoder(), "model_type": 1, "decoder_start_token_id": START},
    "t5 hidden": {"encoder": encoder(), "decoder": decoder(True), "model_type": 1, "decoder_start_token_id": START},
    "t5 all tokens": {
        "encoder": encoder(), "decoder": decoder(tokens="written"), "model_type": 1, "decoder_start_token_id": START
    },
    "t5 without start": {
        "encoder": encoder(False), "decoder": decoder(), "model_type": 1, "decoder_start_token_id": START
    },
}  # fmt: skip


def search(op_type: str, inputs: list[Any], outputs: list[str], **attrs: Any) -> bytes:
    names = ["" if a is None else f"x{i}" for i, a in enumerate(inputs)]
    made = helper.make_node(
        op_type, names, outputs, domain=MICROSOFT, eos_token_id=END, pad_token_id=PAD, name="search", **attrs
    )
    weights = [numpy_helper.from_array(a, n) for n, a in zip(names[1:], inputs[1:], strict=True) if a is not None]
    kinds = {"sequences": TensorProto.INT32}
    graph = helper.make_graph(
        [made],
        "main",
        [whole("x0", "rows", "written")],
        [helper.make_tensor_value_info(o, kinds.get(o, TensorProto.FLOAT), None) for o in outputs],
        weights,
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(MICROSOFT, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()


def both(data: bytes, tokens: np.ndarray) -> tuple[list[Any], list[Any]]:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return load_bytes(data).run({"x0": tokens}), session.run(None, {"x0": tokens})


def one(value: Any, dtype: Any = np.int32) -> np.ndarray:
    return np.array([value], dtype)


CHANGES: dict[str, tuple[dict[int, Any], dict[str, Any]]] = {
    "plain": ({}, {}),
    "one beam": ({3: one(1), 4: one(1)}, {}),
    "early": ({}, {"early_stopping": 1}),
    "penalties": ({5: one(0.3, np.float32), 6: one(1.7, np.float32)}, {}),
    "longer": ({1: one(20), 2: one(9)}, {}),
    "no repeats": ({}, {"no_repeat_ngram_size": 2}),
    "vocabulary": ({7: np.array([1, 0] * (WORDS // 2), np.int32)}, {}),
    "first word": ({8: (np.arange(2 * WORDS).reshape(2, WORDS) % 3 > 0).astype(np.int32)}, {}),
    "mask": ({9: np.array([[0, 1, 1, 1], [1, 1, 1, 1]], np.int32)}, {}),
}


@pytest.mark.parametrize("change", sorted(CHANGES))
@pytest.mark.parametrize("form", sorted(FORMS))
def test_beam_search(form: str, change: str) -> None:
    """Each text alone, as onnxruntime stops a text in a batch by the scores of the one before it."""
    replaced, attrs = CHANGES[change]
    inputs = [TOKENS, one(11), one(0), one(3), one(2), one(1.0, np.float32), one(1.0, np.float32), None, None, None]
    inputs = [replaced.get(i, a) for i, a in enumerate(inputs)]
    outputs = ["sequences", "sequences_scores"]
    together = load_bytes(search("BeamSearch", inputs, outputs, **FORMS[form], **attrs)).run({"x0": TOKENS})
    for b in (slice(0, 1), slice(1, 2)):
        own = [a[b] if i in (0, 8, 9) and a is not None else a for i, a in enumerate(inputs)]
        found, wanted = both(search("BeamSearch", own, outputs, **FORMS[form], **attrs), TOKENS[b])
        np.testing.assert_array_equal(found[0], wanted[0])
        np.testing.assert_allclose(found[1], wanted[1], rtol=1e-5)
        np.testing.assert_array_equal(together[0][b], found[0])
        np.testing.assert_allclose(together[1][b], found[1], rtol=1e-5)


@pytest.mark.parametrize("form", ["gpt", "t5"])
def test_scores_of_each_step(form: str) -> None:
    inputs = [TOKENS, one(8), one(0), one(2), one(1), one(1.0, np.float32)]
    data = search("BeamSearch", inputs, ["sequences", "sequences_scores", "scores"], **FORMS[form])
    found, wanted = both(data, TOKENS)
    assert found[2].shape == wanted[2].shape
    np.testing.assert_allclose(found[2][:2], wanted[2][:2], rtol=1e-4)


@pytest.mark.parametrize("change", ["plain", "longer", "no repeats"])
@pytest.mark.parametrize("form", ["gpt", "gpt first"])
def test_greedy_search(form: str, change: str) -> None:
    """As far as onnxruntime writes: what follows once all texts have ended is not set there."""
    replaced, attrs = CHANGES[change]
    inputs = [TOKENS, *(replaced.get(i, a) for i, a in ((1, one(11)), (2, one(0)))), one(1.3, np.float32)]
    found, wanted = both(search("GreedySearch", inputs, ["sequences"], **FORMS[form], **attrs), TOKENS)
    written = 1 + max(4, *(int(np.flatnonzero(row != PAD).max()) for row in found[0]))
    np.testing.assert_array_equal(found[0][:, :written], wanted[0][:, :written])
    assert (found[0][:, written:] == PAD).all()


def test_errors_say_what_is_wanted() -> None:
    inputs = [TOKENS, one(3), None, one(2), one(1)]
    with pytest.raises(OpError, match="nothing to write"):
        load_bytes(search("BeamSearch", inputs, ["sequences"], **FORMS["gpt"])).run({"x0": TOKENS})
    with pytest.raises(UnsupportedAttributeError, match="model_type 2"):
        load_bytes(search("BeamSearch", inputs, ["sequences"], **{**FORMS["t5"], "model_type": 2}))
    with pytest.raises(UnsupportedAttributeError, match="the decoder takes"):
        load_bytes(search("BeamSearch", inputs, ["sequences"], **{**FORMS["t5"], "model_type": 0}))


@pytest.mark.parametrize("n", [1, 2, 3, 7])
def test_ngram_repeat_block(n: int) -> None:
    tokens = np.array([[1, 2, 3, 1, 2], [4, 4, 4, 4, 4], [0, 1, 0, 2, 0]], np.int64)
    scores = np.random.default_rng(0).standard_normal((3, 6)).astype(np.float32)
    how = {"opset": 1, "domain": MICROSOFT, "ngram_size": n}
    np.testing.assert_array_equal(*(f("NGramRepeatBlock", [tokens, scores], **how)[0] for f in (run_node, ort_node)))
