"""Text operators against onnxruntime."""

from __future__ import annotations

import numpy as np
import pytest

from onnxgrad.ops.errors import OpError, UnsupportedError

from .one_node import ort_node, run_node


def texts(*values: str) -> np.ndarray:
    out = np.empty(len(values), object)
    out[:] = values
    return out


WORDS = texts("Monday", "tuesday", "MONDAY", "a b", "Ünder", "")
LINES = texts("a b", " a  b ", "", "x", "a,b,,c", ",", "ab")
MATCHED = texts(
    "", "a", "ab", "abc", "ABC", "123", "a1", "é", "a.b", "a{,2}", "[b", "ab\n", "a\nb", "x y", "x\u00a0y",
    "foo@bar.com", "٣", "aaa", "b", ']a"', "&", "A", "a&b", "\u2003", "-_", "!?",
)  # fmt: skip
PATTERNS = [
    r"\d+", r"\w+@\w+\.com", r"[[:alpha:]]+\d*", r"[^[:digit:]]+", r"[\D]+", r"[a[]b", "a{,2}", r"\Qa.b\E", "(?i)abc",
    "(?<n>a+)b", "(?P<n>a)|b", '[]a"]+', "[^]a]+", r"\x{e9}", ".*", r"\S+\s\S+", r"[\w-]+", r"a\z", "^a$",
    r"[[:^alpha:]\d]+", "(?s).*", "[a&&b]+", r"\bab\b", "é", r"[\W]+", r"\x41", r"\101", r"[\S]+", "[[:^space:]]+",
    "[[:punct:]]+", "a??b{2,3}?|(?:x)+", r"[\x{61}-\x{63}]+",
]  # fmt: skip
REFUSED = [r"(a)\1", "a(?=b)", "a(?!b)", "(?<=a)b", "a*+", "a**", "a{2}{3}", "(?>a)", "(?P=n)", "(", "[[:what:]]"]


def agree(op_type: str, inputs: list, opset: int, **how) -> None:
    found, wanted = run_node(op_type, inputs, opset=opset, **how), ort_node(op_type, inputs, opset=opset, **how)
    for f, w in zip(found, wanted, strict=True):
        assert f.shape == w.shape and (f.dtype == w.dtype or f.dtype == object)
        assert f.tolist() == w.tolist()


@pytest.mark.parametrize("case", ["LOWER", "UPPER", "NONE"])
@pytest.mark.parametrize("sensitive", [0, 1])
@pytest.mark.parametrize("rank", [1, 2])
def test_normalizer(case, sensitive, rank) -> None:
    x = WORDS if rank == 1 else WORDS[None]
    how = {"case_change_action": case, "is_case_sensitive": sensitive, "locale": "C.UTF-8"}
    agree("StringNormalizer", [x], 10, **how)
    agree("StringNormalizer", [x], 10, stopwords=["monday", "ünder"], **how)
    agree("StringNormalizer", [x[..., 1:2]], 10, stopwords=["tuesday"], **how)


@pytest.mark.parametrize("how", [{}, {"maxsplit": 1}, {"delimiter": ","}, {"delimiter": ",", "maxsplit": 2}])
def test_split(how) -> None:
    lines = LINES[LINES != ""]  # onnxruntime counts no part in an empty string, the standard's reference one
    agree("StringSplit", [lines], 20, n_out=2, **how)
    agree("StringSplit", [lines.reshape(2, 3)], 20, n_out=2, **how)


def test_parts_of_an_empty_string() -> None:
    parts, counts = run_node("StringSplit", [texts("", "a,b")], opset=20, n_out=2, delimiter=",")
    assert parts.tolist() == [["", ""], ["a", "b"]] and counts.tolist() == [1, 2]


def test_concat() -> None:
    agree("StringConcat", [WORDS, WORDS[::-1].copy()], 20)
    agree("StringConcat", [WORDS[:, None], LINES], 20)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_full_match(pattern) -> None:
    agree("RegexFullMatch", [MATCHED], 20, pattern=pattern)


@pytest.mark.parametrize("pattern", [*REFUSED, r"\p{Greek}"])
def test_patterns_that_are_refused(pattern) -> None:
    with pytest.raises(OpError, match="understood"):
        run_node("RegexFullMatch", [MATCHED], opset=20, pattern=pattern)


POOL = {"ngram_counts": [0, 4], "ngram_indexes": [3, 0, 1, 5, 4, 6, 2], "pool_int64s": [2, 3, 5, 4, 5, 6, 7, 8, 6, 7]}
TOKENS = np.array([[1, 1, 3, 3, 3, 7], [8, 6, 7, 5, 6, 8]], np.int64)
WEIGHTS = [0.5, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]


@pytest.mark.parametrize("mode", ["TF", "IDF", "TFIDF"])
@pytest.mark.parametrize(("sizes", "skip"), [((1, 1), 0), ((1, 2), 0), ((2, 2), 3), ((1, 2), 5)])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_tfidf(mode, sizes, skip, weights) -> None:
    how = POOL | {"mode": mode, "min_gram_length": sizes[0], "max_gram_length": sizes[1], "max_skip_count": skip}
    if weights:
        how["weights"] = weights
    agree("TfIdfVectorizer", [TOKENS], 9, **how)
    agree("TfIdfVectorizer", [TOKENS[1].astype(np.int32)], 9, **how)
    names = [str(v) for v in how.pop("pool_int64s")]
    agree("TfIdfVectorizer", [TOKENS.astype(str).astype(object)], 9, **how, pool_strings=names)


def test_a_pool_of_the_wrong_size_is_refused() -> None:
    how = POOL | {"mode": "TF", "min_gram_length": 1, "max_gram_length": 2, "max_skip_count": 0}
    with pytest.raises(UnsupportedError, match="ngram_counts"):
        run_node("TfIdfVectorizer", [TOKENS], opset=9, **how | {"ngram_counts": [0, 3]})
