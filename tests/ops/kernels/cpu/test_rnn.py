"""Recurrent layers, compiled: against the array kernels in float64, torch and onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import onnxgrad.ops.rnn  # noqa: F401 (its ops)
from onnxgrad.ops.dims import Dim
from onnxgrad.ops.kernels.cpu import rnn  # noqa: F401 (its rules)
from onnxgrad.ops.kernels.cpu.jit import compiled_modules
from onnxgrad.ops.op import OPS

from .site import run_op

GATES = {"rnn": 1, "gru": 3, "lstm": 4}
CELLS: dict[str, Any] = {
    "rnn": (("Tanh", 0.0, 0.0),),
    "gru": (("Sigmoid", 0.0, 0.0), ("Tanh", 0.0, 0.0)),
    "lstm": (("Sigmoid", 0.0, 0.0), ("Tanh", 0.0, 0.0), ("Tanh", 0.0, 0.0)),
}


def layer(
    op: str, steps: int, batch: int, inputs: int, hidden: int, direction: str, dtype: str = "float32", *,
    bias: bool = True, states: bool = True, lengths: bool = False, peepholes: bool = False,
) -> tuple[list[Any], dict[str, Any]]:  # fmt: skip
    rng = np.random.default_rng(steps + hidden)
    d, gates = 2 if direction == "bidirectional" else 1, GATES[op] * hidden

    def drawn(*shape: int) -> Any:
        return (rng.standard_normal(shape) * 0.4).astype(dtype)

    args = [drawn(steps, batch, inputs), drawn(d, gates, inputs), drawn(d, gates, hidden)]
    args.append(drawn(d, 2 * gates) if bias else None)
    args.append(rng.integers(0, steps + 1, batch).astype(np.int32) if lengths else None)
    args.append(drawn(d, batch, hidden) if states else None)
    if op == "lstm":
        args += [drawn(d, batch, hidden) if states else None, drawn(d, 3 * hidden) if peepholes else None]
    return args, {"direction": direction, "cells": (CELLS[op],) * d}


def check(
    op: str, args: list[Any], attrs: dict[str, Any], weights: tuple[int, ...] = (1, 2, 3), **how: Any
) -> list[Any]:
    got: list[Any] = run_op(op, args, weights=weights, **how, **attrs)
    wide = [a.astype(np.float64) if a is not None and a.dtype.kind == "f" else a for a in args]
    wanted = OPS[op].run(*wide, **attrs)
    assert len(got) == len(wanted)
    for a, b in zip(got, wanted, strict=True):
        assert a.dtype == args[0].dtype
        np.testing.assert_allclose(a, b, rtol=0, atol=3e-5 if a.dtype == np.float32 else 1e-12)
    return got


@settings(max_examples=12, deadline=None)
@given(
    op=st.sampled_from(["rnn", "gru", "lstm"]), steps=st.integers(1, 4), batch=st.integers(0, 60),
    inputs=st.integers(1, 20), hidden=st.integers(1, 40), bias=st.booleans(), states=st.booleans(),
    direction=st.sampled_from(["forward", "reverse", "bidirectional"]), dtype=st.sampled_from(["float32", "float64"]),
    lengths=st.booleans(), option=st.booleans(), at_end=st.booleans(), symbolic=st.booleans(),
    weights=st.sampled_from([(), (1, 2, 3), (1, 3)]), train=st.booleans(),
)  # fmt: skip
def test_any_layer(
    op: str, steps: int, batch: int, inputs: int, hidden: int, bias: bool, states: bool, direction: str, dtype: str,
    lengths: bool, option: bool, at_end: bool, symbolic: bool, weights: tuple[int, ...], train: bool,
) -> None:  # fmt: skip
    """Constant weights are packed beforehand, others in every run; in training the gates are kept."""
    args, attrs = layer(
        op, steps, batch, inputs, hidden, direction, dtype, bias=bias, states=states, lengths=lengths,
        peepholes=option,
    )  # fmt: skip
    if op == "gru":
        attrs["linear_before_reset"] = option
    symbols: Any = None
    if symbolic:
        t, b, d = Dim.symbol("t"), Dim.symbol("b"), len(attrs["cells"])
        symbols = {0: (t, b, inputs), 4: (b,), 5: (d, b, hidden), 6: (d, b, hidden)}
    name = f"{op}_train" if train and op != "rnn" else op
    check(name, args, attrs, weights, at_end=at_end, symbols=symbols)


@pytest.mark.parametrize("op", ["rnn", "gru", "lstm"])
def test_agrees_with_torch(op: str) -> None:
    torch = pytest.importorskip("torch")
    args, attrs = layer(op, 7, 3, 10, 20, "bidirectional")
    if op == "gru":
        attrs["linear_before_reset"] = True
    order = {"rnn": [0], "gru": [1, 0, 2], "lstm": [0, 2, 3, 1]}[op]  # of torch's gates in ONNX's
    module = {"rnn": torch.nn.RNN, "gru": torch.nn.GRU, "lstm": torch.nn.LSTM}[op](10, 20, bidirectional=True)
    turned = [a.reshape(2, len(order), 20, -1)[:, order].reshape(a.shape) for a in args[1:3]]
    b = args[3].reshape(2, 2, len(order), 20)[:, :, order].reshape(2, 2, -1)
    for i, suffix in enumerate(("", "_reverse")):
        values = {
            "weight_ih_l0": turned[0][i],
            "weight_hh_l0": turned[1][i],
            "bias_ih_l0": b[i, 0],
            "bias_hh_l0": b[i, 1],
        }
        for name, value in values.items():
            getattr(module, name + suffix).data = torch.from_numpy(np.ascontiguousarray(value))
    first = torch.from_numpy(args[5])
    with torch.no_grad():
        y, _ = module(torch.from_numpy(args[0]), (first, torch.from_numpy(args[6])) if op == "lstm" else first)
    got = check(op, args, attrs)
    wanted = y.numpy().reshape(7, 3, 2, 20).transpose(0, 2, 1, 3)
    np.testing.assert_allclose(got[0], wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("lengths", [False, True])
@pytest.mark.parametrize(("op", "linear"), [("rnn", 0), ("gru", 0), ("gru", 1), ("lstm", 0)])
def test_agrees_with_onnxruntime(op: str, linear: int, lengths: bool) -> None:
    ort, onnx = pytest.importorskip("onnxruntime"), pytest.importorskip("onnx")
    args, attrs = layer(op, 6, 5, 8, 17, "bidirectional", lengths=lengths)
    if op == "gru":
        attrs["linear_before_reset"] = bool(linear)
    names = ["x", "w", "r", "b", "lengths", "h0", "c0"]
    feeds = {n: a for n, a in zip(names, args, strict=False) if a is not None}
    about = [
        onnx.helper.make_tensor_value_info(n, onnx.helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
        for n, a in feeds.items()
    ]
    more = {"linear_before_reset": linear} if op == "gru" else {}
    inputs = [n if n in feeds else "" for n in names[: 7 if op == "lstm" else 6]]
    node = onnx.helper.make_node(op.upper(), inputs, ["y"], hidden_size=17, direction="bidirectional", **more)
    y = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
    graph = onnx.helper.make_graph([node], "g", about, [y])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(check(op, args, attrs)[0], session.run(None, feeds)[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "activation",
    [("Relu", 0.0, 0.0), ("Affine", 0.5, 0.1), ("LeakyRelu", 0.1, 0.0), ("ThresholdedRelu", 0.2, 0.0),
     ("ScaledTanh", 0.8, 1.2), ("HardSigmoid", 0.2, 0.5), ("Elu", 0.7, 0.0), ("Softsign", 0.0, 0.0),
     ("Softplus", 0.0, 0.0), ("Sigmoid", 0.0, 0.0)],
)  # fmt: skip
def test_other_activations_and_clip(activation: tuple[str, float, float]) -> None:
    args, attrs = layer("rnn", 3, 2, 4, 9, "forward")
    check("rnn", args, {**attrs, "cells": ((activation,),)})
    check("rnn", args, {**attrs, "cells": ((activation,),), "clip": 0.3})


def test_coupled_gates() -> None:
    args, attrs = layer("lstm", 3, 2, 4, 9, "forward", peepholes=True)
    check("lstm", args, {**attrs, "input_forget": True})


def test_refuses_what_it_has_no_code_for() -> None:
    args, attrs = layer("lstm", 3, 2, 4, 9, "forward")
    assert run_op("lstm", args, weights=(1, 2, 3), quantized=True, **attrs) is None
    assert run_op("lstm", args, symbols={2: (1, Dim.symbol("g"), 9)}, **attrs) is None


def test_results_do_not_depend_on_threads_and_new_sizes_need_no_compiler() -> None:
    t, b = Dim.symbol("t"), Dim.symbol("b")
    before = None
    for steps, batch in ((1, 1), (5, 70), (2, 24), (9, 0)):
        args, attrs = layer("lstm", steps, batch, 6, 33, "bidirectional", states=False)
        how = {"weights": (1, 2, 3), "symbols": {0: (t, b, 6)}, **attrs}
        args[1:4] = layer("lstm", 1, 1, 6, 33, "bidirectional")[0][1:4]
        one, two, four = (run_op("lstm", args, threads=n, **how) for n in (1, 2, 4))
        assert all(np.array_equal(x, y) and np.array_equal(x, z) for x, y, z in zip(one, two, four, strict=True))
        check("lstm", args, attrs, symbols={0: (t, b, 6)})
        before = before if before is not None else compiled_modules()
    assert compiled_modules() == before
