"""Recurrent layers and cells against PyTorch, against NumPy, and by their gradients."""

from __future__ import annotations

import numpy as np
import pytest

import onnxgrad as og
from onnxgrad import nn
from onnxgrad.autograd import gradcheck, gradgradcheck

from .parity import both

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")  # PyTorch's own

RNG = np.random.default_rng(0)
LAYERS = ["RNN", "LSTM", "GRU"]
X = RNG.standard_normal((4, 3, 5))
SETTINGS = [
    {},
    {"bias": False},
    {"batch_first": True},
    {"num_layers": 3},
    {"bidirectional": True},
    {"num_layers": 2, "bidirectional": True, "batch_first": True},
    {"num_layers": 2, "bias": False, "bidirectional": True},
]
OWN = [
    ("RNN", {"nonlinearity": "relu"}),
    ("RNN", {"nonlinearity": "relu", "num_layers": 2, "bidirectional": True}),
    ("LSTM", {"proj_size": 2}),
    ("LSTM", {"proj_size": 2, "num_layers": 2, "bidirectional": True, "batch_first": True}),
    ("LSTM", {"proj_size": 3, "bias": False}),
]
ALL = [(name, kwargs) for name in LAYERS for kwargs in SETTINGS] + OWN


def states(name, kwargs, batch, hidden=4):
    """Initial states: one array, or two for an LSTM."""
    rows = kwargs.get("num_layers", 1) * (1 + kwargs.get("bidirectional", False))
    shown = kwargs.get("proj_size") or hidden
    shapes = [(rows, *batch, shown), (rows, *batch, hidden)][: 1 + (name == "LSTM")]
    return [np.random.default_rng(i + 1).standard_normal(shape) for i, shape in enumerate(shapes)]


def with_states(lib, layer, x, *given):
    return layer(x, given if type(layer).__name__ == "LSTM" else given[0])


@pytest.mark.oracle
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("name", "kwargs"), ALL)
def test_layers_are_pytorchs(compared, name, kwargs, dtype):
    def make(lib):
        return getattr(lib.nn, name)(5, 4, **kwargs)

    both(compared, name, make, (X,), dtype)
    batch = X.shape[0] if kwargs.get("batch_first") else X.shape[1]
    both(compared, name, make, (X, *states(name, kwargs, (batch,))), dtype, call=with_states)


@pytest.mark.oracle
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("kwargs", [{}, {"batch_first": True, "num_layers": 2, "bidirectional": True}])
def test_a_single_sequence_needs_no_batch(compared, name, kwargs):
    for given in ([], states(name, kwargs, ())):
        both(
            compared, name, lambda lib: getattr(lib.nn, name)(5, 4, **kwargs), (X[:, 0], *given), "float64",
            call=with_states if given else None,
        )  # fmt: skip


@pytest.mark.oracle
@pytest.mark.parametrize("name", LAYERS)
def test_one_step_and_one_entry(compared, name):
    both(compared, name, lambda lib: getattr(lib.nn, name)(5, 1), (X[:1, :1],), "float64")


@pytest.mark.oracle
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("kwargs", [{}, {"num_layers": 2, "bidirectional": True}, {"batch_first": True}])
@pytest.mark.parametrize("lengths", [[4, 2, 1], [2, 4, 1], [3, 3, 3]])
@pytest.mark.parametrize("given", [False, True])
def test_packed_sequences_are_pytorchs(compared, name, kwargs, lengths, given, dtype):
    def call(lib, layer, x, *hx):
        ordered = lengths == sorted(lengths, reverse=True)
        packed = lib.nn.utils.rnn.pack_padded_sequence(x, lengths, enforce_sorted=ordered)
        return with_states(lib, layer, packed, *hx) if hx else layer(packed)

    hx = states(name, kwargs, (3,)) if given else []
    both(compared, name, lambda lib: getattr(lib.nn, name)(5, 4, **kwargs), (X, *hx), dtype, call=call)


@pytest.mark.oracle
def test_packed_sequences_through_a_projection(compared):
    def call(lib, layer, x):
        return layer(lib.nn.utils.rnn.pack_padded_sequence(x, [1, 4, 3], enforce_sorted=False))

    both(
        compared, "LSTM", lambda lib: lib.nn.LSTM(5, 4, 2, bidirectional=True, proj_size=3), (X,), "float64", call=call
    )


CELLS = [
    ("RNNCell", {}), ("RNNCell", {"nonlinearity": "relu"}), ("RNNCell", {"bias": False}),
    ("LSTMCell", {}), ("LSTMCell", {"bias": False}), ("GRUCell", {}), ("GRUCell", {"bias": False}),
]  # fmt: skip


@pytest.mark.oracle
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("name", "kwargs"), CELLS)
@pytest.mark.parametrize("batch", [(3,), ()])
def test_cells_are_pytorchs(compared, name, kwargs, batch, dtype):
    x, h, c = X[0] if batch else X[0, 0], RNG.standard_normal((*batch, 4)), RNG.standard_normal((*batch, 4))

    def call(lib, cell, x, h, c):
        return cell(x), cell(x, (h, c) if name == "LSTMCell" else h)

    both(compared, name, lambda lib: getattr(lib.nn, name)(5, 4, **kwargs), (x, h, c), dtype, call=call)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def stepped(layer, x, hx):
    """Run a layer by the equations, a step at a time."""
    w, r, b, c = (getattr(layer, f"{n}_l0").detach().numpy() for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    h, cell, ys = hx[0], hx[-1], []
    for xt in x:
        a, e = xt @ w.T + b, h @ r.T + c
        if isinstance(layer, nn.LSTM):
            i, f, g, o = np.split(a + e, 4, -1)
            cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(cell)
        elif isinstance(layer, nn.GRU):
            (ar, az, an), (er, ez, en) = np.split(a, 3, -1), np.split(e, 3, -1)
            z = sigmoid(az + ez)
            h = (1 - z) * np.tanh(an + sigmoid(ar + er) * en) + z * h
        else:
            h = np.tanh(a + e)
        ys.append(h)
    return np.stack(ys), h, cell


@pytest.mark.parametrize("name", LAYERS)
def test_the_steps_are_the_equations(name):
    layer = getattr(nn, name)(5, 4, dtype=og.float64)
    hx = states(name, {}, (3,))
    y, last = layer(og.tensor(X), tuple(map(og.tensor, hx)) if name == "LSTM" else og.tensor(hx[0]))
    wanted, h, c = stepped(layer, X, [s[0] for s in hx])
    np.testing.assert_allclose(y.detach().numpy(), wanted, rtol=1e-12)
    found = last if name == "LSTM" else [last]
    for a, b in zip(found, [h, c], strict=False):
        np.testing.assert_allclose(a.detach().numpy()[0], b, rtol=1e-12)


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_is_its_cell_over_the_steps(name):
    layer, cell = getattr(nn, name)(5, 4), getattr(nn, f"{name}Cell")(5, 4)
    cell.load_state_dict({k.removesuffix("_l0"): v for k, v in layer.state_dict().items()})
    state = None
    for xt in (x := og.tensor(X, dtype=og.float32)):
        state = cell(xt, state)
    h = state[0] if name == "LSTM" else state
    np.testing.assert_allclose(layer(x)[0][-1].detach().numpy(), h.detach().numpy(), atol=1e-6)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("lengths", [None, [2, 1]])
def test_gradients_of_both_orders(name, lengths):
    layer = getattr(nn, name)(2, 2, num_layers=2, bidirectional=True, dtype=og.float64)
    weights = [p.detach().requires_grad_() for p in layer.parameters()]

    def run(x, *given):
        for (key, _), p in zip(layer.named_parameters(), given, strict=True):
            layer._parameters[key] = p
        y, last = layer(x if lengths is None else nn.utils.rnn.pack_padded_sequence(x, lengths))
        return (y if lengths is None else y.data), *(last if name == "LSTM" else [last])

    x = og.tensor(X[:3, :2, :2].copy(), requires_grad=True)
    assert gradcheck(run, (x, *weights))
    assert gradgradcheck(lambda x: run(x, *weights)[0].sum(), (x,))


def test_backward_records_one_node_a_layer():
    layer = nn.LSTM(5, 4)
    y, _ = layer(og.tensor(X, dtype=og.float32))
    seen, todo = set(), [y.grad_fn]
    while todo:
        node = todo.pop()
        if node not in seen and node is not None:
            seen.add(node)
            todo += [n for n, _ in node.next_functions]
    assert sum("LstmBackward0" in repr(n) for n in seen) == 1 and len(seen) < 30


@pytest.mark.parametrize("name", LAYERS)
def test_a_compiled_step_gives_the_same(name):
    layer = getattr(nn, name)(5, 4, num_layers=2)
    x = og.tensor(X, dtype=og.float32)

    def step(x):
        layer.zero_grad()
        loss = (layer(x)[0] ** 2).sum()
        loss.backward()
        return loss, [p.grad for p in layer.parameters()]

    (loss, grads), (again, others) = step(x), og.compile(step)(x)
    np.testing.assert_allclose(again.detach().numpy(), loss.detach().numpy(), rtol=1e-5)
    for a, b in zip(others, grads, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-4, atol=1e-5)


def test_dropout_stands_between_layers_while_training():
    layer = nn.GRU(5, 64, 2, dropout=0.5)
    x = og.tensor(X, dtype=og.float32)
    assert not og.equal(layer(x)[0], layer(x)[0])
    layer.eval()
    assert og.equal(layer(x)[0], layer(x)[0])
    with pytest.warns(UserWarning, match="dropout option adds dropout after all but last recurrent layer"):
        nn.GRU(5, 4, dropout=0.5)


def test_names_shapes_and_what_is_printed():
    layer = nn.LSTM(5, 4, 2, bidirectional=True, proj_size=3, bias=False, batch_first=True, dropout=0.1)
    assert repr(layer) == (
        "LSTM(5, 4, proj_size=3, num_layers=2, bias=False, batch_first=True, dropout=0.1, bidirectional=True)"
    )
    assert [(n, tuple(p.shape)) for n, p in layer.named_parameters()][3:7] == [
        ("weight_ih_l0_reverse", (16, 5)), ("weight_hh_l0_reverse", (16, 3)), ("weight_hr_l0_reverse", (3, 4)),
        ("weight_ih_l1", (16, 6)),
    ]  # fmt: skip
    assert layer.flatten_parameters() is None and [len(w) for w in layer.all_weights] == [3] * 4
    assert all(abs(p.detach().numpy()).max() <= 0.5 for p in layer.parameters())
    assert repr(nn.RNN(5, 4, 1, "relu")) == "RNN(5, 4)" and repr(nn.GRUCell(5, 4)) == "GRUCell(5, 4)"
    assert repr(nn.RNNCell(5, 4, False, "relu")) == "RNNCell(5, 4, bias=False, nonlinearity=relu)"


def given(*shape, dtype="float32"):
    return og.zeros(*shape, dtype=dtype)


WRONG = [
    (lambda: nn.RNN(5, 4)(given(4, 3, 6)), r"input.size\(-1\) must be equal to input_size. Expected 5, got 6"),
    (lambda: nn.RNN(5, 4)(given(4, 3, 5, 1)), "RNN: Expected input to be 2D or 3D, got 4D tensor instead"),
    (lambda: nn.GRU(5, 4)(given(5)), "GRU: Expected input to be 2D or 3D, got 1D instead"),
    (lambda: nn.RNN(5, 4)(given(0, 3, 5)), "Expected sequence length to be larger than 0 in RNN"),
    (lambda: nn.GRU(5, 4)(given(4, 3, 5), given(1, 2, 4)), r"Expected hidden size \(1, 3, 4\), got \[1, 2, 4\]"),
    (
        lambda: nn.LSTM(5, 4)(given(4, 3, 5), (given(1, 3, 4), given(1, 3, 5))),
        r"Expected hidden\[1\] size \(1, 3, 4\), got \[1, 3, 5\]",
    ),
    (
        lambda: nn.LSTM(5, 4)(given(4, 5), (given(1, 3, 4), given(1, 3, 4))),
        r"For unbatched 2-D input, hx and cx should also be 2-D but got \(3-D, 3-D\) tensors",
    ),
    (
        lambda: nn.RNN(5, 4)(given(4, 3, 5), given(1, 4)),
        "For batched 3-D input, hx should also be 3-D but got 2-D tensor",
    ),
    (lambda: nn.GRU(5, 4)(given(4, 3, 5, dtype="float64")), "RNN input dtype .*float64.* does not match weight dtype"),
    (lambda: nn.GRU(5, 4)(given(4, 3, 5), given(1, 3, 4, dtype="float64")), "a state is .*float64"),
    (lambda: nn.LSTM(0, 4), "input_size must be greater than zero"),
    (lambda: nn.LSTM(5, 4, proj_size=4), "proj_size has to be smaller than hidden_size"),
    (lambda: nn.GRU(5, 4, proj_size=2), "proj_size argument is only supported for LSTM, not RNN or GRU"),
    (lambda: nn.RNN(5, 4, nonlinearity="x"), "Unknown nonlinearity 'x'. Select from 'tanh' or 'relu'."),
    (lambda: nn.LSTM(5, 4, dropout=2), r"dropout should be a number in range \[0, 1\]"),
    (lambda: nn.RNNCell(5, 4)(given(3, 6)), "input has inconsistent input_size: got 6 expected 5"),
    (lambda: nn.GRUCell(5, 4)(given(3, 5), given(2, 4)), "Input batch size 3 doesn't match hidden0 batch size 2"),
    (lambda: nn.LSTMCell(5, 4)(given(3, 5), (given(3, 4), given(3, 5))), "hidden1 has inconsistent hidden_size"),
    (lambda: nn.LSTMCell(5, 4)(given(3, 5, 1)), "LSTMCell: Expected input to be 1D or 2D, got 3D instead"),
]


@pytest.mark.parametrize(("call", "says"), WRONG, ids=[says[:40] for _, says in WRONG])
def test_errors_say_what_is_wrong(call, says):
    with pytest.raises(ValueError, match=says):
        call()


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ((2.0, 4), "input_size should be of type int, got: float"),
        ((5, 4, 1, 1), "bias should be of type bool, got: int"),
    ],
)
def test_settings_of_another_type(args, says):
    with pytest.raises(TypeError, match=says):
        nn.GRU(*args)
