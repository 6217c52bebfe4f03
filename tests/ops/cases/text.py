"""Text: the rows of the op table."""

from __future__ import annotations

from typing import Any

import numpy as np

from onnxgrad.ops.text import (
    NGrams,
    regex_full_match,
    string_concat,
    string_normalize,
    string_split,
    tfidf_vectorize,
)

from ..case import OpCase


def texts(*values: str) -> np.ndarray:
    out = np.empty(len(values), object)
    out[:] = values
    return out


def row(op: Any, args: tuple[Any, ...], wanted: Any, **attrs: Any) -> OpCase:
    return OpCase(op, args, lambda *_: wanted, attrs, order=0, symbolic=False, name=f"{op.name}-{attrs}"[:70])


DAYS = texts("Monday", "tuesday", "MONDAY", "Mönch")
PATHS = texts("a.b..c", "", "x").reshape(3, 1)
POOL = NGrams(
    {1: np.array([[2], [5]]), 2: np.array([[5, 5], [5, 6], [2, 5]])},
    {1: np.array([1, 0]), 2: np.array([2, 3, 5])},
    6,
    np.array([0.5, 2, 3, 4, 5, 6], np.float32),
)
TOKENS = np.array([[2, 5, 5, 6, 2], [5, 9, 5, 6, 1]])
WORDS = NGrams({2: texts("b", "a", "a", "b").reshape(2, 2)}, {2: np.array([0, 1])}, 2)

CASES = [
    row(string_normalize, (DAYS,), texts("TUESDAY", "MÖNCH"), stopwords=("monday",), case="UPPER"),
    row(
        string_normalize, (DAYS[None],), texts("monday", "tuesday", "mönch")[None], stopwords=("MONDAY",),
        case="LOWER", case_sensitive=True,
    ),
    row(string_normalize, (DAYS[:1][None],), texts("")[None], stopwords=("Monday",)),
    row(
        string_split, (PATHS,),
        (texts("a", "b", "", "c", "", "", "", "", "x", "", "", "").reshape(3, 1, 4), np.array([[4], [1], [1]])),
        delimiter=".",
    ),
    row(
        string_split, (texts(" a  b c ", "d"),), (texts("a", "b c", "d", "").reshape(2, 2), np.array([2, 1])),
        maxsplit=1,
    ),
    row(string_split, (texts(),), (np.empty((0, 0), object), np.zeros(0, np.int64))),
    row(string_concat, (PATHS, texts("1", "2")), texts("a.b..c1", "a.b..c2", "1", "2", "x1", "x2").reshape(3, 2)),
    row(regex_full_match, (PATHS,), np.array([[True], [False], [True]]), pattern=r"[[:alpha:]]+(\.\w?)*"),
    row(regex_full_match, (texts("٣", "3", "3\n"),), np.array([False, True, False]), pattern=r"\d$"),
    row(
        tfidf_vectorize, (TOKENS,), np.array([[2, 2, 1, 1, 0, 1], [2, 0, 0, 1, 0, 0]], np.float32), ngrams=POOL,
        sizes=(1, 2),
    ),
    row(
        tfidf_vectorize, (TOKENS,), np.array([[0, 0, 3, 4, 0, 6], [0, 0, 3, 4, 0, 0]], np.float32), ngrams=POOL,
        sizes=(2, 2), max_skip=1, mode="IDF",
    ),
    row(
        tfidf_vectorize, (TOKENS[0],), np.array([0, 0, 3, 8, 0, 12], np.float32), ngrams=POOL, sizes=(2, 2),
        max_skip=1, mode="TFIDF",
    ),
    row(tfidf_vectorize, (texts("a", "b", "a", "b"),), np.array([1, 2], np.float32), ngrams=WORDS, sizes=(2, 2)),
]  # fmt: skip
