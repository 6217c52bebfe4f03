"""RNN, GRU and LSTM against onnxruntime: directions, activations, lengths, layouts, versions."""

from __future__ import annotations

import numpy as np
import pytest

from .one_node import ort_node, run_node

rng = np.random.default_rng(0)


def f32(*shape):
    return rng.uniform(-1, 1, shape).astype(np.float32)


GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
LENGTHS = np.array([5, 2, 4], np.int32)


def inputs(op, ways, *, full=True, lengths=None, first="time"):
    g, steps, batch, size, hidden = GATES[op], 5, 3, 4, 6
    x = f32(steps, batch, size)
    states = [f32(ways, batch, hidden) for _ in range(2 if op == "LSTM" else 1)]
    if first == "batch":
        x, states = x.swapaxes(0, 1).copy(), [s.swapaxes(0, 1).copy() for s in states]
    made = [x, f32(ways, g * hidden, size), f32(ways, g * hidden, hidden)]
    if full:
        made += [f32(ways, 2 * g * hidden), lengths, *states]
        if op == "LSTM":
            made.append(f32(ways, 3 * hidden))
    return made


def compare(op, args, **attrs):
    n_out = 3 if op == "LSTM" else 2
    attrs = {"hidden_size": 6, "opset": 14, "n_out": n_out, **attrs}
    found, wanted = run_node(op, args, **attrs), ort_node(op, args, **attrs)
    for f, w in zip(found, wanted, strict=True):
        assert f.shape == w.shape
        np.testing.assert_allclose(f, w, rtol=1e-5, atol=2e-6)


each_op = pytest.mark.parametrize("op", sorted(GATES))


@each_op
@pytest.mark.parametrize("opset", [7, 14, 22])
@pytest.mark.parametrize("full", [True, False])
def test_versions(op, opset, full):
    compare(op, inputs(op, 1, full=full), opset=opset)


@each_op
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["whole", "lengths"])
def test_directions(op, direction, lengths):
    compare(op, inputs(op, 1 + (direction == "bidirectional"), lengths=lengths), direction=direction)


@each_op
@pytest.mark.parametrize("clip", [0.3, 2.0])
def test_clip(op, clip):
    args = inputs(op, 1)
    compare(op, args[:-1] if op == "LSTM" else args, clip=clip)


def test_gru_resets_before_or_after_the_product():
    compare("GRU", inputs("GRU", 2, lengths=LENGTHS), linear_before_reset=1, direction="bidirectional")


def test_lstm_couples_its_gates():
    compare("LSTM", inputs("LSTM", 1, full=False), input_forget=1)


@pytest.mark.parametrize("name", ["Relu", "LeakyRelu", "HardSigmoid", "Elu", "Softsign", "Softplus"])
def test_activations(name):
    compare("RNN", inputs("RNN", 1), activations=[name])


@pytest.mark.parametrize("name", ["Affine", "LeakyRelu", "ThresholdedRelu", "ScaledTanh", "HardSigmoid", "Elu"])
def test_activation_parameters(name):
    compare("RNN", inputs("RNN", 1), activations=[name], activation_alpha=[0.4], activation_beta=[0.3])


def test_activation_parameters_go_to_those_that_take_them():
    compare(
        "GRU",
        inputs("GRU", 2),
        direction="bidirectional",
        activations=["Sigmoid", "LeakyRelu", "HardSigmoid", "Elu"],
        activation_alpha=[0.1, 0.3, 0.7],
        activation_beta=[0.4],
    )


@each_op
def test_batch_first(op):
    args = inputs(op, 1, first="batch")
    time_first = [np.swapaxes(a, 0, 1).copy() if i in (0, 5, 6) else a for i, a in enumerate(args)]
    n_out = 3 if op == "LSTM" else 2
    y, *last = run_node(op, args, opset=14, n_out=n_out, hidden_size=6, layout=1)
    y0, *last0 = run_node(op, time_first, opset=14, n_out=n_out, hidden_size=6)
    np.testing.assert_array_equal(y, y0.transpose(2, 0, 1, 3))
    for a, b in zip(last, last0, strict=True):
        np.testing.assert_array_equal(a, b.swapaxes(0, 1))


@pytest.mark.parametrize("ways", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("scales", ["tensor", "gate"])
def test_dynamic_quantize_lstm(ways, signed, scales):
    """A batch of 1: onnxruntime splits larger ones among threads, and quantises each part by its own range."""
    count, hidden, size = (2 if ways == "bidirectional" else 1), 6, 4
    kind = np.int8 if signed else np.uint8
    low, high = np.iinfo(kind).min, np.iinfo(kind).max
    w, r = (rng.integers(low, high, (count, n, 4 * hidden)).astype(kind) for n in (size, hidden))
    each = (count,) if scales == "tensor" else (count, 4 * hidden)
    zero = np.zeros(each, kind) if signed else np.full(each, 128, kind)
    scale = [(0.005 + 0.003 * f32(*each)).astype(np.float32) for _ in range(2)]
    states = [f32(count, 1, hidden) for _ in range(2)]
    args = [f32(5, 1, size), w, r, f32(count, 8 * hidden), None, *states, None, scale[0], zero, scale[1], zero]
    how = {"opset": 1, "domain": "com.microsoft", "n_out": 3, "hidden_size": hidden, "direction": ways}
    how["constants"] = [1, 2, 3, 8, 9, 10, 11]
    for f, w in zip(run_node("DynamicQuantizeLSTM", args, **how), ort_node("DynamicQuantizeLSTM", args, **how),
                    strict=True):  # fmt: skip
        np.testing.assert_allclose(f, w, atol=2e-6)


@pytest.mark.parametrize(("op", "gates", "outputs"), [("LSTM", 4, 3), ("GRU", 3, 2), ("RNN", 1, 2)])
def test_a_sequence_of_no_steps_keeps_the_initial_state(op, gates, outputs):
    w, r = np.ones((1, gates * 4, 3), np.float32), np.ones((1, gates * 4, 4), np.float32)
    h0 = np.arange(8, dtype=np.float32).reshape(1, 2, 4)
    y, last, *_ = run_node(
        op, [np.zeros((0, 2, 3), np.float32), w, r, None, None, h0], opset=14, n_out=outputs, hidden_size=4
    )
    assert y.shape == (0, 1, 2, 4)
    np.testing.assert_array_equal(last, h0)
