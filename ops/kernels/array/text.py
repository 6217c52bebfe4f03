"""Text, on the host; n-grams are looked up by binary search."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable

import numpy as np

from ...errors import OpError, ShapeError
from ...op import namespace
from ...text import NGrams, regex_full_match, string_concat, string_normalize, string_split, tfidf_vectorize
from ...types import STRING, Array
from ._re2 import to_python


def _strings(values: list[str]) -> Array:
    out = np.empty(len(values), object)
    out[:] = values
    return out


@string_normalize.kernel("array", half="native")
def _string_normalize(
    x: Array, *, stopwords: tuple[str, ...] = (), case: str = "NONE", case_sensitive: bool = False
) -> Array:
    if x.ndim == 2 and x.shape[0] != 1:
        raise ShapeError(f"string_normalize: wants shape (C,) or (1, C), found {x.shape}")
    drop = set(stopwords) if case_sensitive else {w.lower() for w in stopwords}
    left = [s for s in x.reshape(-1).tolist() if (s if case_sensitive else s.lower()) not in drop]
    change: Callable[[str], str] = {"LOWER": str.lower, "UPPER": str.upper}.get(case, str)
    made = _strings([change(s) for s in left] or [""])
    return made if x.ndim == 1 else made[None]


@string_split.kernel("array", half="native")
def _string_split(x: Array, *, delimiter: str = "", maxsplit: int = -1) -> tuple[Array, Array]:
    values = x.reshape(-1).tolist()
    parts = [s.split(delimiter, maxsplit) if delimiter else s.strip().split(None, maxsplit) for s in values]
    counts = np.array([len(p) for p in parts], np.int64)
    out = np.full((len(parts), counts.max(initial=0)), "", object)
    for row, found in zip(out, parts, strict=True):
        row[: len(found)] = found
    return out.reshape(*x.shape, out.shape[1]), counts.reshape(x.shape)


@string_concat.kernel("array", half="native")
def _string_concat(x: Array, y: Array) -> Array:
    return np.asarray(x + y, object)


@functools.lru_cache(64)
def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(to_python(pattern))
    except re.error as error:
        raise OpError(f"regex_full_match: {pattern!r} is not understood: {error}") from error


@regex_full_match.kernel("array", half="native")
def _regex_full_match(x: Array, *, pattern: str) -> Array:
    matches = _compiled(pattern).fullmatch
    return np.array([matches(s) is not None for s in x.reshape(-1).tolist()], bool).reshape(x.shape)


@tfidf_vectorize.kernel("array", half="native")
def _tfidf_vectorize(x: Array, *, ngrams: NGrams, sizes: tuple[int, int], max_skip: int = 0, mode: str = "TF") -> Array:
    xp = namespace(x)
    rows = x.reshape(-1, x.shape[-1])
    counts = xp.zeros(rows.shape[0] * ngrams.width, np.int64)
    for n in range(sizes[0], sizes[1] + 1):
        if n not in ngrams.pools:
            continue
        for apart in range(1, max_skip + 2 if n > 1 else 2):
            first = rows.shape[1] - (n - 1) * apart
            if first > 0:
                windows = [rows[:, k * apart : k * apart + first] for k in range(n)]
                at = _column(windows, ngrams.pools[n], ngrams.columns[n])
                row, _ = xp.nonzero(at >= 0)
                counts += xp.bincount(row * ngrams.width + at[at >= 0], minlength=len(counts))
    found = counts.reshape(*x.shape[:-1], ngrams.width)
    values = (found > 0) if mode == "IDF" else found
    if mode != "TF" and ngrams.weights is not None:
        values = values * xp.asarray(ngrams.weights)
    return values.astype(np.float32)


def _column(windows: list[Array], pool: Array, columns: Array) -> Array:
    """Return the column of each n-gram, whose k-th tokens are in the k-th window, or -1 where none is its own.

    Token by token, each known beginning has a number.
    """
    xp = namespace(*windows)
    code, known = xp.zeros(windows[0].shape, np.int64), np.zeros(len(pool), np.int64)
    for k, tokens in enumerate(windows):
        vocabulary = np.unique(pool[:, k])
        token = _place(tokens, vocabulary)
        pairs = known * len(vocabulary) + np.searchsorted(vocabulary, pool[:, k])
        beginnings, known = np.unique(pairs, return_inverse=True)
        code = _place(xp.where((code < 0) | (token < 0), -1, code * len(vocabulary) + token), beginnings)
    column = np.zeros(known.max(initial=-1) + 1, np.int64)
    column[known] = columns
    return xp.where(code < 0, -1, xp.asarray(column)[code])


def _place(x: Array, ascending: Array) -> Array:
    """Return where each element is in an ascending array, or -1."""
    if x.dtype == STRING:
        places = {v: i for i, v in enumerate(ascending.tolist())}
        return np.array([places.get(v, -1) for v in x.reshape(-1).tolist()], np.int64).reshape(x.shape)
    xp = namespace(x)
    sorted_ = xp.asarray(ascending)
    at = xp.clip(xp.searchsorted(sorted_, x), 0, len(ascending) - 1)
    return xp.where(sorted_[at] == x, at, -1)
