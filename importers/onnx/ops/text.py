"""Bindings: text."""

from __future__ import annotations

from typing import Any

import numpy as np

from ....ops import text as ops
from ....ops.errors import UnsupportedAttributeError
from ..node import NodeView
from ..registry import binds
from .ml import texts


@binds("StringNormalizer", 10)
def string_normalizer(node: NodeView, x: Any) -> Any:
    """StringNormalizer: the locale changes nothing, as Unicode's own case mapping is used."""
    node.ignore("locale")
    return ops.string_normalize(
        x,
        stopwords=tuple(node.attr("stopwords", ())),
        case=node.one_of("case_change_action", "NONE", ops.CASES),
        case_sensitive=bool(node.attr("is_case_sensitive", 0)),
    )


@binds("StringSplit", 20)
def string_split(node: NodeView, x: Any) -> Any:
    return ops.string_split(x, delimiter=node.attr("delimiter", ""), maxsplit=int(node.attr("maxsplit", -1)))


@binds("StringConcat", 20)
def string_concat(node: NodeView, x: Any, y: Any) -> Any:
    return ops.string_concat(x, y)


@binds("RegexFullMatch", 20)
def regex_full_match(node: NodeView, x: Any) -> Any:
    return ops.regex_full_match(x, pattern=node.attr("pattern", ""))


@binds("TfIdfVectorizer", 9)
def tfidf_vectorizer(node: NodeView, x: Any) -> Any:
    """TfIdfVectorizer: the pool holds the n-grams of length 1, then 2, ..., each length from its own start."""
    numbers, strings = node.attr("pool_int64s"), node.attr("pool_strings")
    if bool(numbers) == bool(strings):
        raise UnsupportedAttributeError(f"{node}: wants one of pool_int64s and pool_strings")
    pool = texts(strings) if strings else np.asarray(numbers, np.int64)
    starts, columns = node.attr("ngram_counts"), np.asarray(node.attr("ngram_indexes"), np.int64)
    pools, places, seen = {}, {}, 0
    for n, (a, b) in enumerate(zip(starts, [*starts[1:], len(pool)], strict=True), 1):
        if not 0 <= a <= b <= len(pool) or (b - a) % n:
            raise UnsupportedAttributeError(f"{node}: ngram_counts {starts} do not fit a pool of {len(pool)}")
        if b > a:
            pools[n] = pool[a:b].reshape(-1, n)
            places[n] = columns[seen : seen + len(pools[n])]
            seen += len(pools[n])
    if seen != len(columns) or columns.min(initial=0) < 0:
        raise UnsupportedAttributeError(f"{node}: {len(columns)} ngram_indexes for {seen} n-grams")
    width = int(columns.max(initial=-1)) + 1
    weights = node.attr("weights")
    if weights and len(weights) != len(columns):
        raise UnsupportedAttributeError(f"{node}: {len(weights)} weights for {len(columns)} n-grams")
    by_column = None
    if weights:
        by_column = np.zeros(width, np.float32)
        by_column[columns] = weights
    return ops.tfidf_vectorize(
        x,
        ngrams=ops.NGrams(pools, places, width, by_column),
        sizes=(int(node.attr("min_gram_length")), int(node.attr("max_gram_length"))),
        max_skip=int(node.attr("max_skip_count")),
        mode=node.one_of("mode", "TF", ops.WEIGHTINGS),
    )
