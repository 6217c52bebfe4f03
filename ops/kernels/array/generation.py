"""Text generation. The bodies run where their arrays lie; choosing among a few beams is Python on the host."""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...control import Body
from ...errors import OpError
from ...generation import Decoding, beam_search, greedy_search
from ...op import namespace
from ...places import to_numpy
from ...types import Array

LOWEST = np.finfo(np.float32).min
NEVER = np.float32(-1e9)
"""The score with which all beams but the first start, so that they do not all say the same."""


def _number(a: Array | None, default: Any) -> Any:
    return default if a is None else to_numpy(a).reshape(-1)[0].item()


@dataclass
class _Scores:
    """What changes the scores of the next token, in this order."""

    rules: Decoding
    shortest: int
    repetition: float
    vocabulary: Array | None
    first_vocabulary: Array | None

    def change(self, scores: Array, texts: Array, step: int) -> None:
        """Change scores (R, V) in place, for texts (R, L); step counts from 1."""
        rows = np.arange(len(scores))[:, None]
        if self.repetition != 1:
            seen = scores[rows, texts]
            scores[rows, texts] = np.where(seen < 0, seen * self.repetition, seen / self.repetition)
        scores[_repeating(texts, self.rules.ngram, scores.shape[1])] = LOWEST
        if self.vocabulary is not None:
            scores[:, self.vocabulary.reshape(-1) == 0] = LOWEST
        if self.first_vocabulary is not None and step == 1:
            allowed = np.repeat(self.first_vocabulary, len(scores) // len(self.first_vocabulary), axis=0)
            scores[allowed == 0] = LOWEST
        if texts.shape[1] < self.shortest:
            scores[:, self.rules.end] = LOWEST


def _repeating(texts: Array, n: int, words: int) -> Array:
    """Return which next tokens (R, V) would repeat n tokens in a row."""
    rows, length = texts.shape
    found = np.zeros((rows, words), bool)
    if n and length >= n:
        windows = np.lib.stride_tricks.sliding_window_view(texts, n, axis=1)
        same = (windows[:, :, :-1] == texts[:, None, length - n + 1 :]).all(axis=2)
        row, at = np.nonzero(same)
        found[row, windows[row, at, -1]] = True
    return found


def _log_softmax(x: Array) -> Array:
    x = x - x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def _last(logits: Array) -> Array:
    """Return the logits after the last token as float32 on the host."""
    if logits.ndim != 3:
        raise OpError(f"the decoder's first output has rank {logits.ndim}, wanted logits of rank 3")
    return np.asarray(to_numpy(logits[:, -1])).astype(np.float32)


@dataclass
class _Hypotheses:
    """The best finished texts of one entry, best first, and how they compare."""

    size: int
    penalty: float
    texts: list[tuple[np.float32, Array]] = field(default_factory=list)
    done: bool = False

    def score(self, total: np.float32, length: int) -> np.float32:
        return np.float32(total / np.float32(length) ** np.float32(self.penalty))

    def add(self, text: Array, total: np.float32) -> None:
        score = self.score(total, len(text))
        if len(self.texts) == self.size:
            if score <= self.texts[-1][0]:
                return
            self.texts.pop()
        self.texts.insert(bisect.bisect_right(self.texts, -score, key=lambda t: -t[0]), (score, text))

    def enough(self, best: np.float32, length: int, early: bool) -> bool:
        """Whether no text that is still being written can become one of the best."""
        return len(self.texts) == self.size and (early or bool(self.texts[-1][0] >= self.score(best, length)))


class _Beams:
    """The texts that are being written, all beams of all entries, and the finished ones."""

    def __init__(self, texts: Array, beams: int, penalty: float, rules: Decoding) -> None:
        self.texts, self.beams, self.rules = np.repeat(texts, beams, axis=0), beams, rules
        self.scores = np.full((len(texts), beams), NEVER)
        self.scores[:, 0] = 0
        self.finished = [_Hypotheses(beams, penalty) for _ in texts]

    def choose(self, candidates: Array) -> tuple[Array, Array]:
        """Append the best tokens by total scores (B, beams, V); return them, and which beam each continues."""
        entries, beams, words = candidates.shape
        flat = candidates.reshape(entries, -1)
        best = np.argsort(-flat, axis=1, kind="stable")[:, : 2 * beams]
        tokens = np.full((entries, beams), self.rules.pad, np.int32)
        origins = np.zeros((entries, beams), np.int64)
        self.scores = np.zeros((entries, beams), np.float32)
        length = self.texts.shape[1]
        for b, hypotheses in enumerate(self.finished):
            if hypotheses.done:
                continue
            kept = 0
            for rank, place in enumerate(best[b]):
                beam, token = divmod(int(place), words)
                row = b * beams + beam
                if token == self.rules.end:
                    if rank < beams:
                        hypotheses.add(self.texts[row], flat[b, place])
                    continue
                tokens[b, kept], origins[b, kept], self.scores[b, kept] = token, row, flat[b, place]
                kept += 1
                if kept == beams:
                    break
            hypotheses.done = hypotheses.enough(flat[b, best[b, 0]], length, self.rules.early)
        flat_tokens, rows = tokens.reshape(-1, 1), origins.reshape(-1)
        self.texts = np.concatenate([self.texts[rows], flat_tokens], axis=1)
        return flat_tokens, rows

    @property
    def done(self) -> bool:
        return all(h.done for h in self.finished)

    def result(self, count: int, longest: int) -> tuple[Array, Array]:
        texts = np.full((len(self.finished), count, longest), self.rules.pad, np.int32)
        scores = np.zeros((len(self.finished), count), np.float32)
        for b, hypotheses in enumerate(self.finished):
            if not hypotheses.done:
                for k in range(self.beams):
                    hypotheses.add(self.texts[b * self.beams + k], self.scores[b, k])
            for k, (score, text) in enumerate(hypotheses.texts[:count]):
                texts[b, k, : len(text)], scores[b, k] = text, score
        return texts, scores


class _Gpt:
    """A decoder without an encoder: it continues a text."""

    def __init__(
        self, tokens: Array, mask: Array | None, repeats: int, first: Body | None, decoder: Body,
        captures: Sequence[Sequence[Any]], rules: Decoding,
    ) -> None:  # fmt: skip
        self.xp, self.decoder, self.captures = namespace(tokens), decoder, captures[2]
        self.first, self.first_captures = (decoder, captures[2]) if first is None else (first, captures[1])
        self.texts = np.asarray(to_numpy(tokens)).astype(np.int32)
        real = (self.texts != rules.pad).astype(np.int32)
        seen = real if mask is None else np.asarray(to_numpy(mask)).astype(np.int32)
        self.mask, real = (np.repeat(v, repeats, axis=0) for v in (seen, real))
        self.positions = np.where(real != 0, np.cumsum(real, axis=1, dtype=np.int32) - 1, 0).astype(np.int32)
        heads, size, dtype = rules.cache
        empty = self.xp.zeros((2, len(self.mask), heads, 0, size), np.dtype(dtype))
        self.past: tuple[Any, ...] = (empty,) * rules.layers
        self.tokens, self.next = np.repeat(self.texts, repeats, axis=0), real.sum(axis=1, dtype=np.int32)[:, None]

    def logits(self) -> Array:
        put = self.xp.asarray
        fed = (put(self.tokens), put(self.positions), put(self.mask), *self.past)
        logits, *past = self.first(*fed, *self.first_captures)
        self.past, self.first, self.first_captures = tuple(past), self.decoder, self.captures
        return _last(logits)

    def go_on(self, tokens: Array, rows: Array | None) -> None:
        self.tokens, self.positions, self.next = tokens, self.next, self.next + np.int32(1)
        self.mask = np.concatenate([self.mask, np.ones_like(tokens)], axis=1)
        if rows is not None:
            self.past = tuple(self.xp.take(p, self.xp.asarray(rows), axis=1) for p in self.past)


class _T5:
    """A decoder with an encoder: it writes a text about another."""

    def __init__(
        self, tokens: Array, mask: Array | None, repeats: int, encoder: Body, decoder: Body,
        captures: Sequence[Sequence[Any]], rules: Decoding,
    ) -> None:  # fmt: skip
        self.xp, self.decoder, self.captures, self.rules = namespace(tokens), decoder, captures[2], rules
        xp, given = self.xp, np.asarray(to_numpy(tokens))
        if mask is None:
            mask = xp.asarray((np.cumsum(given != rules.pad, axis=1) > 0).astype(np.int32))
        self.texts = np.full((len(given), 1), rules.start, np.int32)
        start = () if not rules.layers else (xp.asarray(self.texts),)
        made = list(encoder(tokens, mask, *start, *captures[0]))
        self.ready = None
        if rules.layers:
            logits, hidden, *made = made
            self.ready = np.repeat(_last(logits), repeats, axis=0)
            made = [hidden, *made] if rules.hidden else made
        else:
            heads, size, dtype = rules.cache
            made = [xp.zeros((len(given), heads, 0, size), np.dtype(dtype))] * len(made) + made
        remembered = [xp.repeat(m, repeats, axis=0) for m in made]
        self.fixed = (xp.repeat(mask, repeats, axis=0), *remembered[: int(rules.hidden)])
        self.past = remembered[int(rules.hidden) :]
        self.tokens = self.written = np.repeat(self.texts, repeats, axis=0)

    def logits(self) -> Array:
        if self.ready is not None:
            logits, self.ready = self.ready, None
            return logits
        fed = self.xp.asarray(self.written if self.rules.whole else self.tokens)
        logits, *past = self.decoder(fed, *self.fixed, *self.past, *self.captures)
        self.past[: len(past)] = past
        return _last(logits)

    def go_on(self, tokens: Array, rows: Array | None) -> None:
        if rows is not None:
            self.written = self.written[rows]
            half, at = len(self.past) // 2, self.xp.asarray(rows)
            self.past[:half] = [self.xp.take(p, at, axis=0) for p in self.past[:half]]
        self.tokens, self.written = tokens, np.concatenate([self.written, tokens], axis=1)


def _cut(captures: Sequence[Any], splits: tuple[int, int]) -> Iterator[Sequence[Any]]:
    first, second = splits
    yield captures[:first]
    yield captures[first : first + second]
    yield captures[first + second :]


def _lengths(start: int, longest: Any) -> int:
    if longest <= start:
        raise OpError(f"the longest text has {longest} tokens, the given one {start}: there is nothing to write")
    return int(longest)


@beam_search.kernel("array", half="native")
def _beam_search(
    tokens: Array,
    max_length: Array,
    min_length: Array | None,
    beams: Array,
    returned: Array,
    length_penalty: Array | None,
    repetition_penalty: Array | None,
    vocabulary: Array | None,
    first_vocabulary: Array | None,
    mask: Array | None,
    *captures: Any,
    encoder: Body | None,
    first: Body | None,
    decoder: Body,
    splits: tuple[int, int],
    rules: Decoding,
) -> tuple[Array, ...]:
    width, count = _number(beams, 1), _number(returned, 1)
    if not 1 <= count <= width:
        raise OpError(f"beam_search: {count} texts of {width} beams are wanted")
    parts = list(_cut(captures, splits))
    model: _T5 | _Gpt
    if encoder is not None:
        model = _T5(tokens, mask, width, encoder, decoder, parts, rules)
    else:
        model = _Gpt(tokens, mask, width, first, decoder, parts, rules)
    changes = _Scores(
        rules,
        _number(min_length, 0),
        _number(repetition_penalty, 1.0),
        to_numpy(vocabulary),
        to_numpy(first_vocabulary),
    )
    state = _Beams(model.texts, width, _number(length_penalty, 1.0), rules)
    start = model.texts.shape[1]
    longest = _lengths(start, _number(max_length, 0))
    steps: Array = None
    for step in range(1, longest - start + 1):
        scores = _log_softmax(model.logits())
        changes.change(scores, state.texts, step)
        totals = scores.reshape(len(model.texts), width, -1) + state.scores[:, :, None]
        if steps is None:
            steps = np.zeros((longest - start, *totals.shape), np.float32)
        steps[step - 1] = totals
        chosen, rows = state.choose(totals)
        if state.done:
            break
        model.go_on(chosen, rows)
    texts, best = state.result(count, longest)
    put = namespace(tokens).asarray
    return put(texts), put(best), put(steps)


@greedy_search.kernel("array", half="native")
def _greedy_search(
    tokens: Array,
    max_length: Array,
    min_length: Array | None,
    repetition_penalty: Array | None,
    vocabulary: Array | None,
    first_vocabulary: Array | None,
    mask: Array | None,
    *captures: Any,
    first: Body | None,
    decoder: Body,
    splits: tuple[int, int],
    rules: Decoding,
) -> Array:
    model = _Gpt(tokens, mask, 1, first, decoder, list(_cut(captures, splits)), rules)
    changes = _Scores(
        rules,
        _number(min_length, 0),
        _number(repetition_penalty, 1.0),
        to_numpy(vocabulary),
        to_numpy(first_vocabulary),
    )
    texts, ended = model.texts, np.zeros(len(model.texts), bool)
    longest = _lengths(texts.shape[1], _number(max_length, 0))
    for step in range(1, longest - texts.shape[1] + 1):
        scores = model.logits()
        changes.change(scores, texts, step)
        chosen = scores.argmax(axis=1).astype(np.int32)
        ended |= chosen == rules.end
        chosen[ended] = rules.pad
        texts = np.concatenate([texts, chosen[:, None]], axis=1)
        if ended.all():
            break
        model.go_on(chosen[:, None], None)
    texts = np.pad(texts, ((0, 0), (0, longest - texts.shape[1])), constant_values=rules.pad)
    return namespace(tokens).asarray(texts)
