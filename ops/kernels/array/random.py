"""Random draws; they are made on the host, so that they are the same on every device."""

from __future__ import annotations

import numpy as np

from ...budget import check_size
from ...errors import OpError
from ...op import namespace
from ...places import to_numpy
from ...random import bernoulli, fold_key, multinomial, random_normal, random_uniform
from ...types import Array


def generator(key: Array) -> np.random.Generator:
    """Return the generator of a key."""
    return np.random.Generator(np.random.Philox(key=to_numpy(key)))


def _sizes(shape: Array) -> tuple[int, ...]:
    sizes = tuple(int(n) for n in shape.tolist())
    check_size("random", sizes, 8)
    return sizes


def _precision(dtype: str) -> type[np.floating]:
    return np.float64 if dtype == "float64" else np.float32


@fold_key.kernel("array", half="native")
def _fold_key(key: Array, *, number: int) -> Array:
    words = np.random.Philox(key=to_numpy(key), counter=number).random_raw(2)
    return namespace(key).asarray(words)


@random_uniform.kernel("array", half="native")
def _random_uniform(key: Array, shape: Array, *, low: float, high: float, dtype: str) -> Array:
    drawn = generator(key).random(_sizes(shape), _precision(dtype))
    return namespace(key).asarray((low + (high - low) * drawn).astype(dtype))


@random_normal.kernel("array", half="native")
def _random_normal(key: Array, shape: Array, *, mean: float, std: float, dtype: str) -> Array:
    drawn = generator(key).standard_normal(_sizes(shape), _precision(dtype))
    return namespace(key).asarray((mean + std * drawn).astype(dtype))


@bernoulli.kernel("array", half="native")
def _bernoulli(p: Array, key: Array, *, dtype: str) -> Array:
    xp = namespace(p)
    return (xp.asarray(generator(key).random(p.shape)) < p.astype(np.float64)).astype(dtype)


@multinomial.kernel("array", half="native")
def _multinomial(scores: Array, key: Array, *, count: int, dtype: str) -> Array:
    xp = namespace(scores)
    rows, classes = scores.shape
    if not classes:
        raise OpError("multinomial: there is no class to draw")
    wide = scores.astype(np.float64)
    ends = xp.cumsum(xp.exp(wide - wide.max(axis=1, keepdims=True)), axis=1)
    row = xp.arange(rows)[:, None]
    at = xp.asarray(generator(key).random((rows, count))) + row
    found = xp.searchsorted((ends / ends[:, -1:] + row).reshape(-1), at.reshape(-1), side="right")
    return xp.clip(found.reshape(rows, count) - row * classes, 0, classes - 1).astype(dtype)
