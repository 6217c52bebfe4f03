"""What scales and shifts channels goes into weights; NumPy's definition of each is the oracle."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from onnxgrad.ops import layout, matmul, normalize, pointwise as pw
from onnxgrad.ops.conv import conv, conv_input_grad
from onnxgrad.ops.dims import Dim
from onnxgrad.ops.window import Window
from onnxgrad.runtime.graph.graph import Value
from onnxgrad.runtime.passes.enter_training import enter_training
from onnxgrad.runtime.passes.fold_norms import fold_norms

from .graphs import F32, Built, built, checked, normal, op_names, positive, unchanged

n = Dim.symbol("n")


def window(pad: int = 1, group: int = 1) -> Window:
    return Window((1, 1), ((pad, pad), (pad, pad)), (1, 1), group)


def correlated(x: Any, w: Any, pad: int = 1, group: int = 1) -> Any:
    """The definition of `conv`, one output channel and place at a time."""
    x = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    f, per, kh, kw = w.shape
    out = np.zeros((x.shape[0], f, x.shape[2] - kh + 1, x.shape[3] - kw + 1))
    for o in range(f):
        first = o // (f // group) * per
        for i in range(out.shape[2]):
            for j in range(out.shape[3]):
                out[:, o, i, j] = (x[:, first : first + per, i : i + kh, j : j + kw] * w[o]).sum(axis=(1, 2, 3))
    return out


def statistics(channels: int) -> list[Any]:
    return [normal(channels), normal(channels), normal(channels), positive(channels)]


def normed(y: Any, scale: Any, bias: Any, mean: Any, var: Any, epsilon: float = 1e-3) -> Any:
    lay = (slice(None), *(None,) * (y.ndim - 2))
    return (y - mean[lay]) / np.sqrt(var[lay] + epsilon) * scale[lay] + bias[lay]


def norm(b: Built, y: Value, stats: list[Any]) -> Any:
    return normalize.batch_norm(y, *(b.weight(v) for v in stats), epsilon=1e-3)


def add_bias(b: Built, y: Value, bias: Any) -> Any:
    return pw.add(y, layout.reshape(b.weight(bias), shape=(-1, *(1,) * (y.ndim - 2))))


@pytest.mark.parametrize("group", [1, 2, 4])
@pytest.mark.parametrize("biased", [False, True])
def test_batch_norm_of_conv(group: int, biased: bool) -> None:
    x, w, bias, stats = normal(2, 4, 5, 6), normal(8, 4 // group, 3, 3), normal(8), statistics(8)

    def make(b: Built) -> Any:
        y = conv(b.input(x, (n, 4, 5, 6)), b.weight(w), win=window(group=group))
        return norm(b, add_bias(b, y, bias) if biased else y, stats)

    y = correlated(x, w, group=group) + (bias[:, None, None] if biased else 0)
    found = checked(built(make), fold_norms, [normed(y, *stats)])
    assert op_names(found) == ["conv", "add"]


@pytest.mark.parametrize("group", [1, 2])
def test_batch_norm_of_transposed_conv(group: int) -> None:
    torch = pytest.importorskip("torch")
    x, w, bias, stats = normal(2, 4, 5, 6), normal(4, 3, 3, 3), normal(3 * group), statistics(3 * group)

    def make(b: Built) -> Any:
        y = conv_input_grad(b.input(x), b.weight(w), win=window(group=group), size=(5, 6))
        return norm(b, add_bias(b, y, bias), stats)

    y = torch.nn.functional.conv_transpose2d(*map(torch.from_numpy, (x, w, bias)), padding=1, groups=group).numpy()
    assert op_names(checked(built(make), fold_norms, [normed(y, *stats)])) == ["conv_input_grad", "add"]


def test_batch_norm_of_matmul() -> None:
    x, w, bias, stats = normal(5, 4), normal(4, 3), normal(3), statistics(3)

    def make(b: Built) -> Any:
        return norm(b, pw.add(b.weight(bias), matmul.matmul(b.input(x), b.weight(w))), stats)

    assert op_names(checked(built(make), fold_norms, [normed(x @ w + bias, *stats)])) == ["matmul", "add"]


CHANNEL = normal(6, 1, 1)
OPERATIONS: dict[str, tuple[Callable[[Any, Any], Any], Callable[[Any, Any], Any]]] = {
    "mul": (pw.mul, np.multiply),
    "mul, turned": (lambda y, v: pw.mul(v, y), np.multiply),
    "div": (pw.div, np.divide),
    "add, twice": (lambda y, v: pw.add(v, pw.add(y, v)), lambda y, v: y + 2 * v),
    "sub": (pw.sub, np.subtract),
    "sub, turned": (lambda y, v: pw.sub(v, y), lambda y, v: v - y),
    "chain": (lambda y, v: pw.add(pw.mul(pw.sub(pw.div(y, v), v), v), v), lambda y, v: (y / v - v) * v + v),
}


@pytest.mark.parametrize("operand", [CHANNEL, CHANNEL[None], np.array(0.7), np.array([[0.3]])], ids=lambda v: v.shape)
@pytest.mark.parametrize("name", OPERATIONS)
def test_arithmetic_with_weights(name: str, operand: Any) -> None:
    x, w = normal(2, 3, 4, 4), normal(6, 3, 3, 3)
    apply, define = OPERATIONS[name]

    def make(b: Built) -> Any:
        return apply(conv(b.input(x), b.weight(w), win=window()), b.weight(operand))

    names = op_names(checked(built(make), fold_norms, [define(correlated(x, w), operand)]))
    assert names == (["conv"] if name.startswith(("mul", "div")) else ["conv", "add"])


def test_numbers_and_the_last_axis_of_matmul() -> None:
    x, w, v = normal(2, 3, 4), normal(4, 5), normal(5)

    def make(b: Built) -> Any:
        y = pw.mul(pw.add(pw.mul(matmul.matmul(b.input(x), b.weight(w)), 0.5), 3.0), b.weight(v))
        return pw.div(y, b.graph.constant(np.array(4.0)))

    found = checked(built(make), fold_norms, [(x @ w * 0.5 + 3) * v / 4])
    assert op_names(found) == ["matmul", "add"]


@pytest.mark.parametrize("group", [1, 2])
def test_batch_norm_before_conv_without_padding(group: int) -> None:
    x, w, stats = normal(2, 4, 5, 5), normal(6, 4 // group, 2, 2), statistics(4)

    def make(b: Built) -> Any:
        return conv(norm(b, pw.exp(b.input(x)), stats), b.weight(w), win=window(0, group))

    wanted = correlated(normed(np.exp(x), *stats), w, 0, group)
    assert op_names(checked(built(make), fold_norms, [wanted])) == ["exp", "conv", "add"]


def test_batch_norm_before_matmul() -> None:
    x, w, stats = normal(5, 4), normal(4, 3), statistics(4)
    b = built(lambda b: matmul.matmul(norm(b, b.input(x), stats), b.weight(w)))
    assert op_names(checked(b, fold_norms, [normed(x, *stats) @ w])) == ["matmul", "add"]


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 4), (2, 3, 4, 5)])
def test_batch_norm_alone_becomes_pointwise(shape: tuple[int, ...]) -> None:
    x, stats = normal(*shape), statistics(3)
    b = built(lambda b: norm(b, b.input(x, (n, *shape[1:])), stats))
    assert op_names(checked(b, fold_norms, [normed(x, *stats)])) == ["mul", "add"]


def test_padded_conv_after_batch_norm_keeps_it_apart() -> None:
    x, w, stats = normal(2, 3, 4, 4), normal(3, 3, 3, 3), statistics(3)
    b = built(lambda b: conv(norm(b, b.input(x), stats), b.weight(w), win=window(1)))
    assert op_names(checked(b, fold_norms, [correlated(normed(x, *stats), w)])) == ["mul", "add", "conv"]


def test_two_layers_in_a_row_in_float32() -> None:
    x, w, v = normal(2, 3, 6, 6, dtype=F32), normal(4, 3, 3, 3, dtype=F32), normal(5, 4, 3, 3, dtype=F32)
    first, second = ([s.astype(F32) for s in statistics(c)] for c in (4, 5))

    def make(b: Built) -> Any:
        y = norm(b, conv(b.input(x), b.weight(w), win=window()), first)
        return norm(b, conv(pw.relu(y), b.weight(v), win=window()), second)

    y = np.maximum(normed(correlated(x, w), *first), 0)
    found = checked(built(make), fold_norms, [normed(correlated(y, v), *second)], rtol=3e-4)
    assert op_names(found) == ["conv", "add", "relu", "conv", "add"]


def _read_twice(b: Built) -> Any:
    y = conv(b.input(normal(2, 3, 4, 4)), b.weight(normal(4, 3, 1, 1)), win=window(0))
    return pw.mul(y, b.weight(normal(4, 1, 1))), y


def _weights_of_inputs(b: Built) -> Any:
    y = conv(b.input(normal(2, 3, 4, 4)), b.input(normal(4, 3, 1, 1)), win=window(0))
    return pw.mul(y, b.weight(normal(4, 1, 1)))


def _scaled_by_an_input(b: Built) -> Any:
    y = conv(b.input(normal(2, 3, 4, 4)), b.weight(normal(4, 3, 1, 1)), win=window(0))
    return pw.mul(y, b.input(normal(4, 1, 1)))


def _along_another_axis(b: Built) -> Any:
    y = conv(b.input(normal(2, 4, 4, 4)), b.weight(normal(4, 4, 1, 1)), win=window(0))
    return pw.mul(y, b.weight(normal(4)))


def _made_larger(b: Built) -> Any:
    y = conv(b.input(normal(2, 4, 4, 4)), b.weight(normal(1, 4, 1, 1)), win=window(0))
    return pw.mul(y, b.weight(normal(3, 1, 1)))


def _divided_into(b: Built) -> Any:
    y = conv(b.input(positive(2, 4, 4, 4)), b.weight(positive(4, 4, 1, 1)), win=window(0))
    return pw.div(b.weight(normal(4, 1, 1)), y)


def _plain_bias(b: Built) -> Any:
    return add_bias(b, conv(b.input(normal(2, 4, 4, 4)), b.weight(normal(3, 4, 1, 1)), win=window(0)), normal(3))


def _of_another_type(b: Built) -> Any:
    y = conv(b.input(normal(2, 4, 4, 4, dtype=F32)), b.weight(normal(3, 4, 1, 1, dtype=F32)), win=window(0))
    return pw.mul(y, b.weight(normal(3, 1, 1)))


def _rows_of_a_matmul(b: Built) -> Any:
    return pw.mul(matmul.matmul(b.input(normal(3, 3)), b.weight(normal(3, 3))), b.weight(normal(3, 1)))


def _statistics_of_an_input(b: Built) -> Any:
    y = conv(b.input(normal(2, 4, 4, 4)), b.weight(normal(3, 4, 1, 1)), win=window(0))
    return normalize.batch_norm(y, *(b.input(positive(3)) for _ in range(4)), epsilon=1e-3)


@pytest.mark.parametrize(
    "make",
    [
        _read_twice, _weights_of_inputs, _scaled_by_an_input, _along_another_axis, _made_larger, _divided_into,
        _plain_bias, _of_another_type, _rows_of_a_matmul, _statistics_of_an_input,
    ],
)  # fmt: skip
def test_near_misses_stay(make: Callable[[Built], Any]) -> None:
    unchanged(built(make), fold_norms)


def test_training_form_passes_through() -> None:
    def make(b: Built) -> Any:
        y = conv(b.input(normal(4, 3, 5, 5)), b.weight(normal(3, 3, 3, 3)), win=window())
        return norm(b, y, statistics(3))

    b = built(make)
    b.graph = enter_training(b.graph).graph
    unchanged(b, fold_norms)
    assert set(b.graph.updates) == {"w4", "w5"}
