"""Decompositions, by the array library's LAPACK."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ...errors import OpError
from ...linalg import cholesky, eigh, pinv, qr, slogdet, solve, svd
from ...op import namespace
from ...types import Array


def _done(name: str, f: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    try:
        return f(*args, **kwargs)
    except np.linalg.LinAlgError as error:
        raise OpError(f"{name}: {error}") from None


@solve.kernel("array")
def _solve(a: Array, b: Array) -> Array:
    return _done("linalg.solve: A is singular", namespace(a, b).linalg.solve, a, b)


@cholesky.kernel("array")
def _cholesky(a: Array) -> Array:
    return _done("linalg.cholesky: the input is not positive-definite", namespace(a).linalg.cholesky, a)


@eigh.kernel("array")
def _eigh(a: Array, *, upper: bool = False) -> tuple[Array, Array]:
    values, vectors = _done("linalg.eigh", namespace(a).linalg.eigh, a, UPLO="U" if upper else "L")
    return values, vectors


@svd.kernel("array")
def _svd(a: Array) -> tuple[Array, Array, Array]:
    u, s, vh = _done("linalg.svd", namespace(a).linalg.svd, a, full_matrices=False)
    return u, s, vh


@qr.kernel("array")
def _qr(a: Array) -> tuple[Array, Array]:
    q, r = namespace(a).linalg.qr(a, mode="reduced")
    return q, r


@slogdet.kernel("array")
def _slogdet(a: Array) -> tuple[Array, Array]:
    xp = namespace(a)
    sign, logabs = xp.linalg.slogdet(a)
    return xp.asarray(sign), xp.asarray(logabs)


@pinv.kernel("array")
def _pinv(a: Array, *, rcond: float | None = None) -> Array:
    bound = max(a.shape[-2:]) * float(np.finfo(a.dtype).eps) if rcond is None else rcond
    return _done("linalg.pinv", namespace(a).linalg.pinv, a, rcond=bound)
