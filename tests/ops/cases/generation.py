"""Text generation: the rows of the op table. The decoder is a Markov chain, so that all texts can be tried."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from onnxgrad.ops import index, layout
from onnxgrad.ops.dims import Dim
from onnxgrad.ops.generation import Decoding, beam_search, greedy_search

from ..bodies import body
from ..case import OpCase, rand

WORDS, END, PAD = 4, 3, 0
CHAIN = rand(WORDS, WORDS)
ROWS, SIZE = Dim.symbol("rows"), Dim.symbol("size")
TEXTS = np.array([[1, 2], [2, 1]], np.int32)
DECODER = body(
    lambda tokens, positions, mask, past, chain: (index.gather(chain, tokens, axis=0), layout.identity(past)),
    *(("int32", ROWS, SIZE),) * 3, ("float64", 2, ROWS, 1, 0, 1), ("float64", WORDS, WORDS),
)  # fmt: skip


def number(value: Any, dtype: Any = np.int32) -> np.ndarray:
    return np.array([value], dtype)


def greedy(texts: np.ndarray, longest: np.ndarray, *rest: Any) -> np.ndarray:
    made = np.full((2, int(longest[0])), PAD, np.int32)
    for row, text in zip(made, texts.tolist(), strict=True):
        while len(text) < longest[0] and (chosen := int(CHAIN[text[-1]].argmax())) != END:
            text.append(chosen)
        row[: len(text)] = text
    return made


def tried(texts: np.ndarray, *rest: Any) -> tuple[np.ndarray, ...]:
    """Return the best two of all texts that go on by two words, or end after one."""
    likely = CHAIN - np.log(np.exp(CHAIN).sum(axis=1, keepdims=True))
    made, scores = np.full((2, 2, 4), PAD, np.int32), np.zeros((2, 2), np.float32)
    for n, text in enumerate(texts.tolist()):
        found = [(likely[text[-1], END] / 2, text)]
        for a, b in itertools.product(range(WORDS), repeat=2):
            total = likely[text[-1], a] + likely[a, b]
            if a != END:
                found.append((total / 3, [*text, a]) if b == END else (total / 4, [*text, a, b]))
        for k, (score, best) in enumerate(sorted(found, reverse=True)[:2]):
            made[n, k, : len(best)], scores[n, k] = best, score
    return made, scores


RULES = Decoding(end=END, pad=PAD, cache=(1, 1, "float64"), layers=1)
HOW: dict[str, Any] = {"first": None, "decoder": DECODER, "splits": (0, 0), "rules": RULES}
BEAMS = (TEXTS, number(4), None, number(WORDS), number(2), *(None,) * 5, CHAIN)

CASES = [
    OpCase(greedy_search, (TEXTS, number(6), *(None,) * 5, CHAIN), greedy, HOW, order=0),
    OpCase(beam_search, BEAMS, None, {"encoder": None, **HOW}, order=0),
]
