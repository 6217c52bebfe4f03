"""CUDA recurrent layers against the array kernels in float64 and PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import onnxgrad.ops.rnn_train  # noqa: F401 (its ops)
from onnxgrad.ops.kernels.cuda import recurrent as _rules, recurrent_arrangement
from onnxgrad.ops.kernels.cuda.kernel import Launch
from onnxgrad.ops.op import OPS
from onnxgrad.ops.types import BFLOAT16

from . import nvrtc
from .site import lower, make_site, refuses, run_op

GATES = {"rnn": 1, "gru": 3, "lstm": 4}
S, T = ("Sigmoid", 0.0, 0.0), ("Tanh", 0.0, 0.0)
CELLS: dict[str, Any] = {"rnn": (T,), "gru": (S, T), "lstm": (S, T, T)}
KINDS = [("rnn", False), ("gru", False), ("gru", True), ("lstm", False)]
CLOSE = {"float64": 1e-12, "float32": 1e-5, "float16": 4e-3, "bfloat16": 4e-2}


assert _rules


def layer(
    op: str, steps: int, batch: int, inputs: int, hidden: int, direction: str = "forward", dtype: Any = np.float32, *,
    bias: bool = True, states: bool = True, lengths: bool = False, peepholes: bool = False, linear: bool = False,
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
    attrs: dict[str, Any] = {"direction": direction, "cells": (CELLS[op],) * d}
    return args, attrs | ({"linear_before_reset": linear} if op == "gru" else {})


@pytest.fixture(params=["one kernel", "a step a launch"])
def way(request: Any, monkeypatch: Any) -> str:
    if request.param != "one kernel":
        monkeypatch.setattr(recurrent_arrangement, "_LAUNCH_CLOCKS", 0)
    return str(request.param)


def check(op: str, args: list[Any], attrs: dict[str, Any], **how: Any) -> list[Any]:
    got = run_op(op, args, attrs, **how)
    wide = [a.astype(np.float64) if a is not None and a.dtype.kind not in "iu" else a for a in args]
    wanted = OPS[op].run(*wide, **attrs)
    close = CLOSE[args[0].dtype.name]
    assert len(got) == len(wanted) - len(how.get("unread", ()))
    for a, b in zip(got, [w for i, w in enumerate(wanted) if i not in how.get("unread", ())], strict=True):
        assert a.dtype == args[0].dtype
        np.testing.assert_allclose(a.astype(np.float64), b, rtol=0, atol=close * max(1, np.abs(b).max()))
    return got


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize(("op", "linear"), KINDS)
@pytest.mark.parametrize("lengths", [False, True])
def test_layers(op: str, linear: bool, direction: str, lengths: bool, way: str) -> None:
    args, attrs = layer(op, 5, 6, 3, 10, direction, lengths=lengths, linear=linear)
    check(op, args, attrs, compiles=direction != "reverse")


@pytest.mark.parametrize("dtype", [np.float64, np.float16, BFLOAT16])
@pytest.mark.parametrize(("op", "linear"), KINDS)
@pytest.mark.parametrize("states", [False, True])
def test_floats_of_other_widths(op: str, linear: bool, dtype: Any, states: bool, way: str) -> None:
    args, attrs = layer(op, 4, 3, 5, 8, "bidirectional", dtype, linear=linear, states=states, lengths=states)
    check(op, args, attrs, compiles=states)


@pytest.mark.parametrize("direction", ["reverse", "bidirectional"])
@pytest.mark.parametrize(("op", "linear"), KINDS[1:])
def test_what_training_keeps(op: str, linear: bool, direction: str, way: str) -> None:
    args, attrs = layer(op, 4, 3, 5, 7, direction, linear=linear, lengths=True)
    check(f"{op}_train", args, attrs)


@pytest.mark.parametrize(("op", "linear"), KINDS)
@pytest.mark.parametrize("peepholes", [False, True])
def test_bare_layers(op: str, linear: bool, peepholes: bool, way: str) -> None:
    args, attrs = layer(op, 3, 2, 4, 9, bias=False, states=False, linear=linear, peepholes=peepholes)
    check(op, args, attrs | ({"input_forget": True} if op == "lstm" and peepholes else {}))


def test_peepholes_and_coupled_gates(way: str) -> None:
    args, attrs = layer("lstm", 3, 2, 4, 9, "bidirectional", peepholes=True)
    check("lstm", args, attrs)
    check("lstm", args, attrs | {"input_forget": True, "clip": 0.3})


ACTIVATIONS = [
    ("Relu", 0.0, 0.0), ("Affine", 0.5, 0.1), ("LeakyRelu", 0.1, 0.0), ("ThresholdedRelu", 0.2, 0.0),
    ("ScaledTanh", 0.8, 1.2), ("HardSigmoid", 0.2, 0.5), ("Elu", 0.7, 0.0), ("Softsign", 0.0, 0.0),
    ("Softplus", 0.0, 0.0), ("Sigmoid", 0.0, 0.0),
]  # fmt: skip


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations(activation: Any, way: str) -> None:
    args, attrs = layer("rnn", 3, 2, 4, 6, "bidirectional")
    check("rnn", args, attrs | {"cells": ((activation,), (T,))}, compiles=activation[0] in ("Elu", "Softplus"))
    args, attrs = layer("gru", 3, 2, 4, 6, linear=True)
    check("gru", args, attrs | {"cells": ((S, activation),), "clip": 0.5}, compiles=False)


@pytest.mark.parametrize("op", ["rnn", "gru", "lstm"])
def test_weights_that_are_read_in_every_step(op: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(recurrent_arrangement, "_OTHER_REGISTERS", 1000)
    for dtype in (np.float32, np.float16):
        for hidden in (10, 12):
            args, attrs = layer(op, 3, 3, 4, hidden, "bidirectional", dtype)
            check(op, args, attrs)


@pytest.mark.parametrize("processors", [8, 4, 3, 1])
def test_blocks_of_several_entries(processors: int, monkeypatch: Any) -> None:
    monkeypatch.setattr(recurrent_arrangement, "PROCESSORS", processors)
    monkeypatch.setattr(recurrent_arrangement, "_LAUNCH_CLOCKS", 10**6)
    for op, linear in KINDS:
        args, attrs = layer(op, 3, 11, 4, 20, lengths=True, linear=linear)
        check(op, args, attrs)


@pytest.mark.parametrize("op", ["rnn", "gru", "lstm"])
def test_inputs_of_any_strides(op: str, way: str) -> None:
    args, attrs = layer(op, 4, 3, 5, 8, "bidirectional")
    batch_first = np.ascontiguousarray(args[0].transpose(1, 0, 2)).transpose(1, 0, 2)
    backwards = np.ascontiguousarray(args[0][::-1])[::-1]
    features_outside = np.ascontiguousarray(args[0].transpose(2, 0, 1)).transpose(1, 2, 0)
    gaps = np.stack([args[0], args[0]], 2)[:, :, 0]
    wanted = check(op, args, attrs, compiles=False)
    for x in (batch_first, features_outside, gaps, backwards):
        for a, b in zip(check(op, [x, *args[1:]], attrs, order="own", compiles=False), wanted, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)
    check(op, args, attrs, out_order="heads", shift=1, compiles=False)


@pytest.mark.parametrize("sizes", [(1, 1, 1, 1), (1, 4, 3, 5), (3, 1, 1, 6), (2, 5, 1, 1)])
@pytest.mark.parametrize("op", ["rnn", "gru", "lstm"])
def test_single_steps_entries_and_units(op: str, sizes: tuple[int, ...], way: str) -> None:
    args, attrs = layer(op, *sizes, "bidirectional", lengths=True)
    check(op, args, attrs, compiles=False)


@pytest.mark.parametrize("unread", [(0,), (1,), (1, 2), (0, 2)])
def test_results_that_nothing_reads(unread: tuple[int, ...], way: str) -> None:
    for dtype in (np.float32, np.float16):
        args, attrs = layer("lstm", 3, 2, 4, 6, "bidirectional", dtype, lengths=True)
        check("lstm", args, attrs, unread=unread, compiles=False)


def test_lengths_outside_of_the_steps_touch_nothing_else(way: str) -> None:
    args, attrs = layer("lstm", 3, 4, 4, 6, "bidirectional")
    args[4] = np.array([-5, 2, 3, 3], np.int64)
    inside = check("lstm", [*args[:4], np.array([0, 2, 3, 3], np.int32), *args[5:]], attrs, compiles=False)
    args[4][3] = 99
    for a, b in zip(run_op("lstm", args, attrs, compiles=False), inside, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("op", ["rnn", "gru", "lstm"])
def test_agrees_with_torch(op: str, way: str) -> None:
    torch = pytest.importorskip("torch")
    args, attrs = layer(op, 7, 3, 10, 20, "bidirectional", linear=True)
    order = {"rnn": [0], "gru": [1, 0, 2], "lstm": [0, 2, 3, 1]}[op]  # of torch's gates in ONNX's
    module = {"rnn": torch.nn.RNN, "gru": torch.nn.GRU, "lstm": torch.nn.LSTM}[op](10, 20, bidirectional=True)
    turned = [a.reshape(2, len(order), 20, -1)[:, order].reshape(a.shape) for a in args[1:3]]
    b = args[3].reshape(2, 2, len(order), 20)[:, :, order].reshape(2, 2, -1)
    for i, suffix in enumerate(("", "_reverse")):
        values = {"weight_ih": turned[0][i], "weight_hh": turned[1][i], "bias_ih": b[i, 0], "bias_hh": b[i, 1]}
        for name, value in values.items():
            getattr(module, f"{name}_l0{suffix}").data = torch.from_numpy(np.ascontiguousarray(value))
    first = torch.from_numpy(args[5])
    with torch.no_grad():
        y, _ = module(torch.from_numpy(args[0]), (first, torch.from_numpy(args[6])) if op == "lstm" else first)
    got = check(op, args, attrs, compiles=False)
    wanted = y.numpy().reshape(7, 3, 2, 20).transpose(0, 2, 1, 3)
    np.testing.assert_allclose(got[0], wanted, rtol=0, atol=1e-5)


WIDEST = [
    ("lstm", 64, 1), ("lstm", 96, 1), ("lstm", 112, 1), ("lstm", 128, 1), ("lstm", 100, 300), ("lstm", 64, 1000),
    ("gru", 100, 1), ("gru", 128, 1), ("gru", 80, 1000), ("gru", 32, 5000), ("rnn", 200, 1), ("rnn", 128, 1000),
    ("rnn", 230, 3), ("lstm", 7, 90),
]  # fmt: skip


@pytest.mark.parametrize(("op", "hidden", "batch"), WIDEST)
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_walks_of_real_sizes_compile(op: str, hidden: int, batch: int, dtype: Any) -> None:
    args, attrs = layer(op, 20, batch, 4, hidden, lengths=True, dtype=dtype)
    site = make_site(op, args, attrs)
    assert lower(site)
    kernels = [w.kernel for w in site.work if isinstance(w, Launch)]
    assert any("walk" in k.name for k in kernels)
    for checked in nvrtc.begin_checks(kernels):
        checked.result()


def test_launches() -> None:
    """A step costs two of them, a small layer two or three in all."""
    args, attrs = layer("lstm", 10, 4, 8, 512, "bidirectional")
    site = make_site("lstm", args, attrs)
    assert lower(site) and len(site.work) == 1 + 2 * 10
    args, attrs = layer("lstm", 10, 4, 8, 64, "bidirectional", states=False)
    site = make_site("lstm", args, attrs)
    assert lower(site) and len(site.work) == 2


def test_refusals() -> None:
    args, attrs = layer("lstm", 3, 2, 4, 6)
    assert refuses("lstm", args, attrs | {"quantized": True})
    assert refuses("lstm", [*args[:3], args[3].astype(np.float64), *args[4:]], attrs)
    args, attrs = layer("gru", _rules.MOST_STEPS + 1, 1, 2, 400)
    assert refuses("gru", args, attrs)
    args, attrs = layer("gru", _rules.MOST_STEPS + 1, 1, 2, 40)
    assert not refuses("gru", args, attrs)
