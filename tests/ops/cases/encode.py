"""Encoders: the rows of the op table."""

from __future__ import annotations

from typing import Any

import numpy as np

from onnxgrad.ops.encode import Table, cast_map, dict_vectorize, label_encode, one_hot_encode, zip_map

from ..case import OpCase, rand


def texts(*values: str) -> np.ndarray:
    out = np.empty(len(values), object)
    out[:] = values
    return out


def row(op: Any, args: tuple[Any, ...], wanted: Any, **attrs: Any) -> OpCase:
    return OpCase(op, args, lambda *_: wanted, attrs, order=0, symbolic=False, name=f"{op.name}-{args}"[:60])


NAMES = texts("cat", "dog", "eel")
NUMBERS = np.array([7, 3, 5])
X = np.array([[3, 4], [7, 5]])
NAN = np.array([np.nan, 2.0, 1.0])
PETS = texts("eel", "ox", "cat", "dog").reshape(2, 2)
HALVES = rand(2, 3).astype(np.float32)

CASES = [
    row(
        label_encode,
        (X,),
        np.array([[1.5, -1.0], [0.5, 2.5]]),
        table=Table(NUMBERS, np.array([0.5, 1.5, 2.5]), -1.0),
    ),
    row(
        label_encode,
        (X,),
        texts("dog", "none", "cat", "eel").reshape(2, 2),
        table=Table(NUMBERS, NAMES, "none"),
    ),
    row(label_encode, (PETS,), np.array([[5, -1], [7, 3]]), table=Table(NAMES, NUMBERS, -1)),
    row(
        label_encode,
        (PETS,),
        texts("b", "z", "c", "a").reshape(2, 2),
        table=Table(NAMES, texts("c", "a", "b"), "z"),
    ),
    row(
        label_encode,
        (np.array([1.0, np.nan, 9.0]),),
        np.array([30, 10, 0]),
        table=Table(NAN, np.array([10, 20, 30]), 0),
    ),
    row(one_hot_encode, (X,), (X[..., None] == [3, 5]).astype(np.float32), categories=(3, 5)),
    row(
        one_hot_encode,
        (np.array([5.9, 3.2]),),
        np.array([[0, 1], [1, 0]], np.float32),
        categories=(3, 5),
        zeros=False,
    ),
    row(
        one_hot_encode,
        (texts("dog", "ox"),),
        np.array([[0, 1], [0, 0]], np.float32),
        categories=("cat", "dog"),
    ),
    row(
        dict_vectorize,
        ({"a": 1.5, "c": 2.5},),
        np.array([[0, 1.5, 2.5]], np.float32),
        vocabulary=("b", "a", "c"),
    ),
    row(dict_vectorize, ({3: np.int64(4)},), np.array([[0, 4]]), vocabulary=(2, 3)),
    row(dict_vectorize, ({1: "x"},), texts("", "x").reshape(1, 2), vocabulary=(0, 1)),
    row(cast_map, ({3: 0.5, 1: 2.0},), np.array([[2.0, 0.5]], np.float32), dtype="float32"),
    row(cast_map, ({3: 0.5, 1: 2.0},), np.array([[0, 2, 0, 0.5, 0]], np.float32), dtype="float32", size=5),
    row(cast_map, ({3: "5", 1: "2"},), np.array([[2, 5]]), dtype="int64"),
    row(zip_map, (HALVES,), [dict(zip("abc", r, strict=True)) for r in HALVES], keys=("a", "b", "c")),
]
