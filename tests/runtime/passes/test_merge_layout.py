"""Layout that is not needed goes away; NumPy is the oracle."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from onnxgrad.ops import layout, pointwise as pw, pool, reduce as red
from onnxgrad.ops.conv import conv
from onnxgrad.ops.dims import Dim
from onnxgrad.ops.dropout import dropout
from onnxgrad.ops.window import Window
from onnxgrad.runtime.graph.graph import Value
from onnxgrad.runtime.passes.merge_layout import merge_layout

from .graphs import Built, built, checked, normal, op_names, unchanged
from .test_fold_norms import correlated, window

n = Dim.symbol("n")
X = normal(2, 3, 4, 5)
FIRST, LAST = (0, 3, 1, 2), (0, 2, 3, 1)


def of_x(f: Callable[[Built, Value], Any]) -> Built:
    return built(lambda b: f(b, b.input(X, (n, 3, 4, 5))))


def turned(x: Any, perm: tuple[int, ...]) -> Any:
    return layout.transpose(x, perm=perm)


NOTHING: list[Callable[[Value], Any]] = [
    layout.identity,
    lambda x: dropout(x, ratio=0.5),
    lambda x: pw.cast(x, dtype="float64"),
    lambda x: turned(x, (0, 1, 2, 3)),
    lambda x: layout.reshape(x, shape=(n, 3, 4, 5)),
    lambda x: layout.slice_(x, starts=(0,), stops=(2**31,), steps=(1,), axes=(2,)),
    lambda x: layout.pad(x, pads=((0, 0),) * 4),
    lambda x: layout.expand(x, shape=(1, 4, 1)),
    lambda x: layout.tile(x, repeats=(1, 1, 1, 1)),
    lambda x: layout.concat(x, axis=1),
    lambda x: layout.squeeze(layout.unsqueeze(x, axes=(1,)), axes=(1,)),
    lambda x: turned(turned(x, FIRST), LAST),
]


@pytest.mark.parametrize("f", NOTHING)
def test_what_does_nothing_goes(f: Callable[[Value], Any]) -> None:
    found = checked(of_x(lambda b, x: pw.exp(f(x))), merge_layout, [np.exp(X)])
    assert op_names(found) == ["exp"]


def test_an_output_is_not_an_input() -> None:
    unchanged(of_x(lambda b, x: layout.identity(x)), merge_layout)


@given(st.permutations(range(4)), st.permutations(range(4)))
def test_two_transposes_are_one_or_none(p: list[int], q: list[int]) -> None:
    found = checked(of_x(lambda b, x: pw.exp(turned(turned(x, tuple(p)), tuple(q)))), merge_layout)
    assert op_names(found).count("transpose") <= 1


@given(st.lists(st.sampled_from([(n, 60), (n, 12, 5), (n * 3, 20), (-1, 4, 5), (n, 3, 1, 20)]), min_size=2, max_size=4))
def test_reshapes_are_one(shapes: list[Any]) -> None:
    def make(b: Built, x: Value) -> Any:
        for shape in shapes:
            x = layout.reshape(x, shape=shape)
        return pw.exp(x)

    assert op_names(checked(of_x(make), merge_layout)) == ["reshape", "exp"]


def test_a_transpose_of_ones_is_a_reshape() -> None:
    x = normal(2, 1, 4, 5)
    b = built(lambda b: pw.exp(layout.reshape(turned(b.input(x, (n, 1, 4, 5)), LAST), shape=(n, 20))))
    assert op_names(checked(b, merge_layout, [np.exp(x.reshape(2, 20))])) == ["reshape", "exp"]


def test_squeeze_and_flatten_merge() -> None:
    b = of_x(lambda b, x: layout.flatten(layout.squeeze(red.mean(x, axes=(2, 3), keepdims=True), axes=(2, 3)), axis=1))
    assert op_names(checked(b, merge_layout, [X.mean((2, 3))])) == ["mean", "squeeze"]


def test_concat_of_concat() -> None:
    b = of_x(lambda b, x: layout.concat(layout.concat(x, pw.exp(x), axis=1), x, axis=1))
    assert op_names(checked(b, merge_layout, [np.concatenate([X, np.exp(X), X], 1)])) == ["exp", "concat"]


def test_channels_last_network_loses_its_transposes() -> None:
    w, v, bias = normal(6, 3, 3, 3), normal(6, 6, 1, 1), normal(6)

    def make(b: Built, x: Value) -> Any:
        y = turned(conv(turned(x, FIRST), b.weight(w), win=window()), LAST)
        y = pw.relu(pw.add(y, b.weight(bias)))
        z = turned(conv(turned(y, FIRST), b.weight(v), win=window(0)), LAST)
        z = layout.concat(pw.add(y, pw.mul(z, pw.sigmoid(z))), y, axis=3)
        return red.mean(z, axes=(1, 2))

    x = np.ascontiguousarray(X.transpose(LAST))
    y = np.maximum(correlated(X, w) + bias[:, None, None], 0)
    z = correlated(y, v, 0)
    wanted = np.concatenate([y + z / (1 + np.exp(-z)), y], 1).mean((2, 3))
    found = checked(built(lambda b: make(b, b.input(x, (n, 4, 5, 3)))), merge_layout, [wanted])
    assert op_names(found).count("transpose") == 1


def test_operands_of_transposed_values() -> None:
    w, s = normal(1, 4, 5, 3), normal(1, 1, 1, 1)

    def make(b: Built, x: Value) -> Any:
        y = pw.mul(pw.add(turned(x, LAST), b.weight(w)), b.input(s))
        return turned(pw.clip(layout.pad(y, 2.0, pads=((0, 0), (1, 0), (0, 2), (0, 0))), -1.0, 1.0), FIRST)

    wanted = np.pad((X + w.transpose(FIRST)) * s, ((0, 0), (0, 0), (1, 0), (0, 2)), constant_values=2.0).clip(-1, 1)
    assert "transpose" not in op_names(checked(of_x(make), merge_layout, [wanted]))


@pytest.mark.parametrize("pads", [((0, 0), (0, 0), (1, 1), (1, 1)), ((0, 0), (0, 0), (0, 2), (1, 0))])
def test_pads_go_into_conv(pads: Any) -> None:
    w = normal(4, 3, 3, 3)
    b = of_x(lambda b, x: conv(layout.pad(x, 0.0, pads=pads), b.weight(w), win=window(0)))
    found = checked(b, merge_layout, [correlated(np.pad(X, pads), w, 0)])
    assert op_names(found) == ["conv"]


@pytest.mark.parametrize("counted", [None, ((0, 0), (0, 0)), ((1, 1), (1, 1))])
def test_pads_go_into_averages(counted: Any) -> None:
    win = Window((2, 2), ((1, 1), (1, 1)), (1, 1))

    def make(b: Built, x: Value) -> Any:
        return pool.sum_pool(layout.pad(x, pads=((1, 0), (0, 2)), axes=(2, 3)), kernel=(2, 2), win=win, counted=counted)

    assert op_names(checked(of_x(make), merge_layout)) == ["sum_pool"]


def _pad_of_ones(b: Built, x: Value) -> Any:
    return conv(layout.pad(x, 1.0, pads=((0, 0), (0, 0), (1, 1), (1, 1))), b.weight(normal(4, 3, 1, 1)), win=window(0))


def _pad_of_channels(b: Built, x: Value) -> Any:
    return conv(layout.pad(x, pads=((0, 0), (1, 0), (0, 0), (0, 0))), b.weight(normal(4, 4, 1, 1)), win=window(0))


def _pad_by_reflection(b: Built, x: Value) -> Any:
    padded = layout.pad(x, pads=((0, 0), (0, 0), (1, 1), (1, 1)), mode="reflect")
    return conv(padded, b.weight(normal(4, 3, 1, 1)), win=window(0))


def _crop(b: Built, x: Value) -> Any:
    cropped = layout.pad(x, pads=((0, 0), (0, 0), (-1, 1), (0, 0)))
    return conv(cropped, b.weight(normal(4, 3, 1, 1)), win=window(0))


def _pad_before_max_pool(b: Built, x: Value) -> Any:
    return pool.max_pool(layout.pad(x, pads=((0, 0), (0, 0), (1, 1), (1, 1))), kernel=(2, 2), win=window(0))


def _concat_read_twice(b: Built, x: Value) -> Any:
    inner = layout.concat(x, x, axis=1)
    return layout.concat(inner, x, axis=1), pw.exp(inner)


def _concat_of_another_axis(b: Built, x: Value) -> Any:
    return layout.concat(layout.concat(x, x, axis=1), layout.concat(x, x, axis=1), axis=2)


def _slice_of_a_part(b: Built, x: Value) -> Any:
    return layout.slice_(x, starts=(0,), stops=(3,), steps=(1,), axes=(2,))


def _slice_backwards(b: Built, x: Value) -> Any:
    return layout.slice_(x, starts=(-1,), stops=(-(2**31),), steps=(-1,), axes=(2,))


def _transpose_that_others_read(b: Built, x: Value) -> Any:
    y = turned(x, LAST)
    return pw.exp(y), red.sum_(y, axes=(3,))


def _reshape_between_transposes(b: Built, x: Value) -> Any:
    return turned(layout.reshape(turned(x, (0, 2, 3, 1)), shape=(n, 20, 3)), (0, 2, 1))


def _mean_that_reorders(b: Built, x: Value) -> Any:
    return red.mean(turned(x, LAST), axes=(2,))


@pytest.mark.parametrize(
    "f",
    [
        _pad_of_ones, _pad_of_channels, _pad_by_reflection, _crop, _pad_before_max_pool, _concat_read_twice,
        _concat_of_another_axis, _slice_of_a_part, _slice_backwards, _transpose_that_others_read,
        _reshape_between_transposes, _mean_that_reorders,
    ],
)  # fmt: skip
def test_near_misses_stay(f: Callable[[Built, Value], Any]) -> None:
    unchanged(of_x(f), merge_layout)
