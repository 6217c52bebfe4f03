"""Steps of optimizers: the rows of the op table, against the formulas of the papers, element by element."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from onnxgrad.ops.optimize import adam_update, sgd_update

from ..case import OpCase, rand

P, G, M, V, U = (rand(3, 4, seed=i, low=low) for i, low in enumerate((-2.0, -2.0, -2.0, 0.1, 0.1)))
SGD = np.array([0.1, 0.01, 0.9, 0.7])
STEP, LR, BETAS, EPS, DECAY = 3, 0.05, (0.9, 0.99), 1e-3, 0.2


def adam_numbers(decay: float) -> np.ndarray:
    b1, b2 = BETAS
    return np.array([decay, 1 - b1, b2, 1 - b2, math.sqrt(1 - b2**STEP), EPS, LR / (1 - b1**STEP)])


def sgd(decays: bool, nesterov: bool) -> Any:
    def one(p: float, g: float, b: float) -> tuple[float, float]:
        g = g + 0.01 * p if decays else g
        b = 0.9 * b + 0.7 * g
        return p - 0.1 * (g + 0.9 * b if nesterov else b), b

    return lambda p, g, b, _: tuple(np.vectorize(one)(p, g, b))


def adam(decays: bool, decoupled: bool, largest: bool) -> Any:
    def one(p: float, g: float, m: float, v: float, u: float) -> tuple[float, ...]:
        if decays and decoupled:
            p *= 1 - LR * DECAY
        elif decays:
            g += DECAY * p
        m = BETAS[0] * m + (1 - BETAS[0]) * g
        v = BETAS[1] * v + (1 - BETAS[1]) * g * g
        u = max(u, v) if largest else v
        m_hat, u_hat = m / (1 - BETAS[0] ** STEP), u / (1 - BETAS[1] ** STEP)
        return p - LR * m_hat / (math.sqrt(u_hat) + EPS), m, v, u

    def reference(p: Any, g: Any, m: Any, v: Any, u: Any, _: Any) -> tuple[Any, ...]:
        found = tuple(np.vectorize(one)(p, g, m, v, v if u is None else u))
        return found if largest else found[:3]

    return reference


CASES = [
    OpCase(
        sgd_update, (P, G, None, SGD), lambda p, g, *_: (p - 0.1 * (g + 0.01 * p),),
        {"decays": True, "nesterov": False},
        order=0, symbolic=False, name="sgd_update-plain",
    ),
    *(
        OpCase(
            sgd_update, (P, G, M, SGD), sgd(d, n), {"decays": d, "nesterov": n}, order=0, symbolic=False,
            name=f"sgd_update-{d}-{n}",
        )
        for d in (False, True)
        for n in (False, True)
    ),
    *(
        OpCase(
            adam_update, (P, G, M, V, U if largest else None, adam_numbers(1 - LR * DECAY if decoupled else DECAY)),
            adam(d, decoupled, largest), {"decays": d, "decoupled": decoupled}, order=0, symbolic=False,
            name=f"adam_update-{d}-{decoupled}-{largest}",
        )
        for d in (False, True)
        for decoupled in (False, True)
        for largest in (False, True)
    ),
]  # fmt: skip
