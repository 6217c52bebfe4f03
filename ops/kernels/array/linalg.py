"""Decompositions, by NumPy's LAPACK."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ...errors import OpError
from ...linalg import cholesky, eigh, pinv, qr, slogdet, solve, svd
from ...types import Array
from .host import on_host


def _done(name: str, f: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    try:
        return f(*args, **kwargs)
    except np.linalg.LinAlgError as error:
        raise OpError(f"{name}: {error}") from None


@solve.kernel("array")
@on_host
def _solve(a: Array, b: Array) -> Array:
    return _done("linalg.solve: A is singular", np.linalg.solve, a, b)


@cholesky.kernel("array")
@on_host
def _cholesky(a: Array) -> Array:
    return _done("linalg.cholesky: the input is not positive-definite", np.linalg.cholesky, a)


@eigh.kernel("array")
@on_host
def _eigh(a: Array, *, upper: bool = False) -> tuple[Array, Array]:
    values, vectors = _done("linalg.eigh", np.linalg.eigh, a, UPLO="U" if upper else "L")
    return values, vectors


@svd.kernel("array")
@on_host
def _svd(a: Array) -> tuple[Array, Array, Array]:
    u, s, vh = _done("linalg.svd", np.linalg.svd, a, full_matrices=False)
    return u, s, vh


@qr.kernel("array")
@on_host
def _qr(a: Array) -> tuple[Array, Array]:
    q, r = np.linalg.qr(a, mode="reduced")
    return q, r


@slogdet.kernel("array")
@on_host
def _slogdet(a: Array) -> tuple[Array, Array]:
    sign, logabs = np.linalg.slogdet(a)
    return np.asarray(sign), np.asarray(logabs)


@pinv.kernel("array")
@on_host
def _pinv(a: Array, *, rcond: float | None = None) -> Array:
    bound = max(a.shape[-2:]) * float(np.finfo(a.dtype).eps) if rcond is None else rcond
    return _done("linalg.pinv", np.linalg.pinv, a, rcond=bound)
