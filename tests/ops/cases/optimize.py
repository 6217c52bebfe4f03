"""Steps of optimizers: the rows of the op table, against the formulas of the papers, element by element."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from onnxgrad.ops.expr import Const, Var, where
from onnxgrad.ops.optimize import adam_update, gradient_norm, sgd_update, step_numbers

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

    return lambda p, g, b, *_: tuple(np.vectorize(one)(p, g, b))


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

    def reference(p: Any, g: Any, m: Any, v: Any, u: Any, *_: Any) -> tuple[Any, ...]:
        found = tuple(np.vectorize(one)(p, g, m, v, v if u is None else u))
        return found if largest else found[:3]

    return reference


def single(value: float) -> np.ndarray:
    return np.array(value, np.float32)


def norm(p: float) -> Any:
    def reference(gradients: list[Any], factors: list[Any]) -> tuple[Any, Any]:
        flat = np.concatenate([g.reshape(-1) for g in gradients])
        scale = math.prod(float(f) for f in factors)
        length = max(map(abs, flat)) if p == math.inf else math.sqrt(math.fsum(x * x for x in flat))
        return np.asarray(length * scale), single(float(any(not math.isfinite(x) for x in flat)))

    return reference


LEFT = {"decays": True, "nesterov": True}
WILD = np.array([1.0, np.inf, -3.0])
SETTINGS, COUNT = np.array([LR, *BETAS]), np.array(2.0)
NUMBERS = {
    "numbers": (Var("s0") / (1 - Var("s1") ** (Var("c0") + 1)), 1 - Var("s2"), Const(2.0),
                where(Var("c0") < 1, 1.0, Var("s0"))),
    "counted": (Var("c0") + 1,),
    "dtype": "float64",
}  # fmt: skip
MADE = np.array([LR / (1 - BETAS[0] ** 3), 1 - BETAS[1], 2.0, LR])

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
    OpCase(
        sgd_update, (P, G, M, SGD, single(0), [single(0.5), single(0.25)]),
        lambda p, g, b, *_: sgd(True, True)(p, g / 8, b, None), LEFT, order=0, symbolic=False, name="sgd_update-scaled",
    ),
    OpCase(
        sgd_update, (P, WILD[1] * G, M, SGD, single(2)), lambda p, g, b, *_: (p, b), LEFT, order=0, symbolic=False,
        name="sgd_update-skipped",
    ),
    *(
        OpCase(
            adam_update,
            (P, G, M, V, U, adam_numbers(1 - LR * DECAY), single(skip), [single(0.5)]),
            (lambda p, g, m, v, u, *_: (p, m, v, u)) if skip
            else lambda p, g, m, v, u, *_: adam(True, True, True)(p, g / 2, m, v, u),
            {"decays": True, "decoupled": True}, order=0, symbolic=False, name=f"adam_update-scaled-{skip}",
        )
        for skip in (0, 1)
    ),
    *(
        OpCase(
            gradient_norm, ([P, G, *more], factors), norm(p), {"p": p}, order=0, symbolic=False, tol=1e-7,
            name=f"gradient_norm-{p}-{len(more)}",
        )
        for p in (2.0, math.inf)
        for more, factors in (([], []), ([WILD], [single(0.5)]))
    ),
    *(
        OpCase(
            step_numbers, (SETTINGS, single(skip), [COUNT]),
            lambda _, skip, counts: (MADE, counts[0] + (skip == 0)), NUMBERS, order=0, symbolic=False,
            name=f"step_numbers-{skip}",
        )
        for skip in (0, 1)
    ),
]  # fmt: skip
