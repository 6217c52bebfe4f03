"""The walk back through recurrent layers, compiled: against compositions in float64, torch, and differences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import onnxgrad.ops.rnn_grad  # noqa: F401 (its ops)
from onnxgrad.ops.dims import Dim
from onnxgrad.ops.kernels.cpu import rnn_grad  # noqa: F401 (its rules)
from onnxgrad.ops.kernels.cpu.jit import compiled_modules
from onnxgrad.ops.op import OPS

from .site import run_op
from .test_rnn import layer

STATES = {"rnn": 1, "gru": 1, "lstm": 2}


def wide(arrays: list[Any]) -> list[Any]:
    return [a.astype(np.float64) if a is not None and a.dtype.kind == "f" else a for a in arrays]


def arguments(op: str, args: list[Any], attrs: dict[str, Any], *, kept: bool, shown: bool = True) -> list[Any]:
    """Return what the gradient is given: what arrives, the steps, the layer's inputs, what its forward pass kept."""
    rng, dtype = np.random.default_rng(3), args[0].dtype
    made = OPS[op if op == "rnn" else f"{op}_train"].run(*wide(args), **attrs)
    made = [a.astype(dtype) for a in made]
    results, beside = made[: 1 + STATES[op]], made[1 + STATES[op] :]
    arriving = [rng.standard_normal(a.shape).astype(dtype) for a in results]
    if not shown:
        arriving[0] = None
    return [*arriving, results[0], *args, *(beside if kept else [None] * len(beside))]


def check(op: str, given_: list[Any], attrs: dict[str, Any], **how: Any) -> list[Any]:
    got: list[Any] = run_op(f"{op}_grad", given_, **how, **attrs)
    wanted = OPS[f"{op}_grad"].run(*wide(given_), **attrs)
    lengths = given_[2 + STATES[op] + 4]
    assert len(got) == len(wanted)
    for i, (a, b) in enumerate(zip(got, wanted, strict=True)):
        if i == 2 and op == "gru" and lengths is not None and not attrs["linear_before_reset"]:
            live = np.arange(a.shape[1])[:, None] < lengths  # behind the end it means nothing
            a, b = (np.where(live[None, :, :, None], v, 0) for v in (a, b))
        assert a.dtype == given_[2 + STATES[op]].dtype
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-4 if a.dtype == np.float32 else 1e-11)
    return got


@settings(max_examples=15, deadline=None)
@given(
    op=st.sampled_from(["rnn", "gru", "lstm"]), steps=st.integers(1, 4), batch=st.integers(1, 40),
    hidden=st.integers(1, 40), bias=st.booleans(), states=st.booleans(), shown=st.booleans(), lengths=st.booleans(),
    direction=st.sampled_from(["forward", "reverse", "bidirectional"]), dtype=st.sampled_from(["float32", "float64"]),
    option=st.booleans(), kept=st.booleans(), at_end=st.booleans(), symbolic=st.booleans(), constant=st.booleans(),
)  # fmt: skip
def test_any_layer(
    op: str, steps: int, batch: int, hidden: int, bias: bool, states: bool, shown: bool, lengths: bool, direction: str,
    dtype: str, option: bool, kept: bool, at_end: bool, symbolic: bool, constant: bool,
) -> None:  # fmt: skip
    args, attrs = layer(op, steps, batch, 5, hidden, direction, dtype, bias=bias, states=states, lengths=lengths)
    if op != "rnn":
        attrs["linear_before_reset" if op == "gru" else "input_forget"] = option
    first = 2 + STATES[op]
    symbols: Any = None
    if symbolic:
        t, b, d = Dim.symbol("t"), Dim.symbol("b"), len(attrs["cells"])
        y, state = (t, d, b, hidden), (d, b, hidden)
        symbols = {0: y, 1: state, first - 1: y, first: (t, b, 5), first + 4: (b,), first + 5: state}
        if op == "lstm":
            symbols |= {2: state, first + 6: state, first + 8: (t, d, b, 4 * hidden), first + 9: y}
        if op == "gru":
            symbols[first + 6] = (t, d, b, (4 if option else 3) * hidden)
    weights = tuple(range(first + 1, first + 4)) if constant else ()
    given_ = arguments(op, args, attrs, kept=kept, shown=shown)
    check(op, given_, attrs, at_end=at_end, symbols=symbols, weights=weights)


@pytest.mark.parametrize("op", ["rnn", "gru", "lstm"])
def test_agrees_with_torch(op: str) -> None:
    torch = pytest.importorskip("torch")
    args, attrs = layer(op, 6, 5, 7, 20, "forward")
    if op == "gru":
        attrs["linear_before_reset"] = True
    order = {"rnn": [0], "gru": [1, 0, 2], "lstm": [0, 2, 3, 1]}[op]  # of the op's gates in torch's
    module = {"rnn": torch.nn.RNN, "gru": torch.nn.GRU, "lstm": torch.nn.LSTM}[op](7, 20)
    own, inner = np.split(args[3][0], 2)
    for name, a in (("weight_ih_l0", args[1][0]), ("weight_hh_l0", args[2][0]), ("bias_ih_l0", own),
                    ("bias_hh_l0", inner)):  # fmt: skip
        turned = a.reshape(len(order), 20, *a.shape[1:])[order].reshape(a.shape)
        getattr(module, name).data = torch.from_numpy(turned.copy())
    starts = [torch.from_numpy(a).requires_grad_() for a in args[5 : 5 + STATES[op]]]
    y, last = module(torch.from_numpy(args[0]), tuple(starts) if op == "lstm" else starts[0])
    given_ = arguments(op, args, attrs, kept=True)
    finals = list(last) if op == "lstm" else [last]
    total = sum((a * torch.from_numpy(g.reshape(a.shape))).sum() for a, g in zip((y, *finals), given_, strict=False))
    total.backward()
    gates, *states = run_op(f"{op}_grad", given_, **attrs)
    for a, b in zip(states, starts, strict=False):
        np.testing.assert_allclose(a, b.grad.numpy(), rtol=0, atol=2e-5)
    of_bias = gates[0].sum((0, 1)).reshape(len(order), 20)[order].reshape(-1)
    np.testing.assert_allclose(of_bias, module.bias_ih_l0.grad.numpy(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("activation", [("Relu", 0.0, 0.0), ("Affine", 0.5, 0.1), ("Sigmoid", 0.0, 0.0)])
def test_other_activations(activation: tuple[str, float, float]) -> None:
    args, attrs = layer("rnn", 3, 2, 4, 9, "forward")
    attrs["cells"] = ((activation,),)
    check("rnn", arguments("rnn", args, attrs, kept=True), attrs)


def test_refuses_what_it_has_no_code_for() -> None:
    args, attrs = layer("lstm", 3, 2, 4, 9, "forward", peepholes=True)
    assert run_op("lstm_grad", arguments("lstm", args, attrs, kept=True), **attrs) is None
    args, attrs = layer("rnn", 3, 2, 4, 9, "forward")
    assert run_op("rnn_grad", arguments("rnn", args, attrs, kept=True), clip=0.5, **attrs) is None
    attrs["cells"] = ((("Softplus", 0.0, 0.0),),)
    assert run_op("rnn_grad", arguments("rnn", args, attrs, kept=True), **attrs) is None


@pytest.mark.parametrize("op", ["gru", "lstm"])
def test_results_do_not_depend_on_threads_and_new_sizes_need_no_compiler(op: str) -> None:
    t, b = Dim.symbol("t"), Dim.symbol("b")
    weights = layer(op, 1, 1, 6, 33, "bidirectional")[0][1:4]
    first, before = 2 + STATES[op], None
    for steps, batch in ((1, 1), (5, 70), (2, 24)):
        args, attrs = layer(op, steps, batch, 6, 33, "bidirectional", states=False)
        args[1:4] = weights
        given_ = arguments(op, args, attrs, kept=False, shown=False)
        state = (2, b, 33)
        symbols = {i: state for i in range(1, 1 + STATES[op])} | {first - 1: (t, 2, b, 33), first: (t, b, 6)}
        how = {"symbols": symbols, **attrs}
        one, two, four = (run_op(f"{op}_grad", given_, threads=n, **how) for n in (1, 2, 4))
        assert all(np.array_equal(x, y) and np.array_equal(x, z) for x, y, z in zip(one, two, four, strict=True))
        before = before if before is not None else compiled_modules()
    assert compiled_modules() == before
