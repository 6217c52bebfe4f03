"""Encoders: tables looked up by search where keys are numbers, by dictionary where they are text."""

from __future__ import annotations

import numpy as np

from ...encode import Key, Table, label_encode, one_hot_encode
from ...errors import OpError
from ...op import namespace
from ...places import to_numpy
from ...types import STRING, Array


@label_encode.kernel("array", half="native")
def _label_encode(x: Array, *, table: Table) -> Array:
    keys = table.keys
    if keys.dtype == STRING:
        places = {k: i for i, k in reversed(list(enumerate(keys.tolist())))}
        flat = np.array([places.get(v, -1) for v in x.reshape(-1).tolist()], np.int64)
        return np.where(flat < 0, table.default, table.values[flat]).astype(table.values.dtype).reshape(x.shape)
    xp = namespace(x)
    order = np.argsort(keys, kind="stable")
    ascending = xp.asarray(keys[order])
    at = xp.clip(xp.searchsorted(ascending, x), 0, len(keys) - 1)
    found = ascending[at] == x
    if keys.dtype.kind == "f":
        found |= xp.isnan(ascending[at]) & xp.isnan(x)
    values = table.values[order]
    if values.dtype == STRING:
        found, at = map(to_numpy, (found, at))
        return np.where(found, values[at], table.default)
    return xp.where(found, xp.asarray(values)[at], xp.asarray(table.default, values.dtype))


@one_hot_encode.kernel("array", half="native")
def _one_hot_encode(x: Array, *, categories: tuple[Key, ...], zeros: bool = True) -> Array:
    xp = namespace(x)
    if x.dtype == STRING:
        cats = np.empty(len(categories), object)
        cats[:] = categories
    else:
        cats, x = xp.asarray(categories, np.int64), x.astype(np.int64)
    hits = (x[..., None] == cats).astype(np.float32)
    if not zeros and not bool(hits.any(axis=-1).all()):
        raise OpError(f"one_hot_encode: an element is none of the {len(categories)} categories")
    return hits
