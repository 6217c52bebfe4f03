"""Text: normalising, splitting, joining and matching strings, and counting n-grams.

Strings are object arrays. None of these is differentiable.
Source: ONNX StringNormalizer-10, StringSplit-20, StringConcat-20, RegexFullMatch-20, TfIdfVectorizer-9.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .dims import Dim, broadcast, show
from .errors import DTypeError, ShapeError
from .op import op
from .types import STRING, Array, TensorType

CASES = ("LOWER", "UPPER", "NONE")
WEIGHTINGS = ("TF", "IDF", "TFIDF")


def _text(name: str, x: TensorType) -> None:
    if x.dtype != STRING:
        raise DTypeError(f"{name}: wants strings, found {x.dtype}")


@op()
def string_normalize(
    x: TensorType, *, stopwords: tuple[str, ...] = (), case: str = "NONE", case_sensitive: bool = False
) -> TensorType:
    """Drop the elements that are stop words, then change the case of the others.

    Shapes: (C,) or (1, C) -> one of that rank with the elements that stay; a single empty string where none does.

    Raises:
        DTypeError: if x is no text.
        ShapeError: if x has another shape.
    """
    _text("string_normalize", x)
    if x.ndim not in (1, 2) or (x.ndim == 2 and isinstance(x.shape[0], int) and x.shape[0] != 1):
        raise ShapeError(f"string_normalize: wants shape (C,) or (1, C), found {show(x.shape)}")
    return TensorType(STRING, (Dim.fresh(),) if x.ndim == 1 else (1, Dim.fresh()))


@op()
def string_split(x: TensorType, *, delimiter: str = "", maxsplit: int = -1) -> tuple[TensorType, TensorType]:
    """Cut each element at a delimiter (at runs of white space where it is empty), at most so often.

    Shapes: any -> one axis more, as long as the longest list of parts, others filled up with empty strings; the
    number of parts of each element.

    Raises:
        DTypeError: if x is no text.
    """
    _text("string_split", x)
    return TensorType(STRING, (*x.shape, Dim.fresh())), TensorType(np.dtype(np.int64), x.shape)


@op()
def string_concat(x: TensorType, y: TensorType) -> TensorType:
    """Join strings, element by element.

    Shapes: two that broadcast -> what they broadcast to.

    Raises:
        DTypeError: if one is no text.
    """
    _text("string_concat", x)
    _text("string_concat", y)
    return TensorType(STRING, broadcast(x.shape, y.shape))


@op(dtype="bool")
def regex_full_match(x: TensorType, *, pattern: str) -> TensorType:
    r"""Return which elements a pattern in RE2's syntax matches from start to end.

    The pattern is rewritten for Python's `re`, which searches by backtracking: a pattern with nested repetitions
    (`(a+)+b`) can take time exponential in the length of an element, which RE2 never does. What RE2 has and `re` has
    not (`\p{Greek}`, `(?U)`) is refused, and so is what RE2 refuses (back references, looking around).

    Shapes: any, unchanged.

    Raises:
        DTypeError: if x is no text.
    """
    _text("regex_full_match", x)
    return TensorType(np.dtype(bool), x.known_shape)


@dataclass(frozen=True, eq=False)
class NGrams:
    """The n-grams that are counted.

    Attributes:
        pools: for each length n, the n-grams as rows of tokens.
        columns: for each length n, where the count of each n-gram goes.
        width: the number of columns.
        weights: of the columns; None for 1.
    """

    pools: dict[int, Array]
    columns: dict[int, Array]
    width: int
    weights: Array | None = None


@op()
def tfidf_vectorize(
    x: TensorType, *, ngrams: NGrams, sizes: tuple[int, int], max_skip: int = 0, mode: str = "TF"
) -> TensorType:
    """Count the n-grams of each row, also those whose tokens stand up to `max_skip` + 1 apart, evenly.

    `TF` gives the counts, `IDF` the weights of the n-grams that occur, `TFIDF` counts times weights.

    Shapes: (C,) or (N, C), integers or text -> (width,) or (N, width).

    Raises:
        ShapeError: if x has another rank.
        DTypeError: if x is text and the n-grams are numbers, or the other way round.
    """
    if x.ndim not in (1, 2):
        raise ShapeError(f"tfidf_vectorize: wants rank 1 or 2, found {x.ndim}")
    for pool in ngrams.pools.values():
        if (pool.dtype == STRING) != (x.dtype == STRING):
            raise DTypeError(f"tfidf_vectorize: x is {x.dtype}, the n-grams are {pool.dtype}")
    return TensorType(np.dtype(np.float32), (*x.shape[:-1], ngrams.width))
