"""Compiled steps of optimizers against their array kernels in float64."""

from __future__ import annotations

import numpy as np
import pytest

from onnxgrad.ops.kernels.cpu import optimize  # noqa: F401 - its rules
from onnxgrad.ops.op import OPS

from .site import run_op

FLAGS = [(False, False), (True, False), (False, True), (True, True)]
SHAPES = [(), (1,), (7,), (3, 5), (16,), (33,), (2, 3, 4, 5), (65536 + 21,), (0, 3)]


def arrays(shape, dtype, count):
    rng = np.random.default_rng([*shape, 1])
    return [
        np.asarray(rng.uniform(0.1, 1, shape) * (1 if i > 1 else rng.choice([-1, 1]))).astype(dtype)
        for i in range(count)
    ]


def wide(a):
    return [*map(wide, a)] if isinstance(a, list) else None if a is None else a.astype(np.float64)


def check(op, args, attrs, **how):
    found = run_op(op, args, **how, **attrs)
    wanted = OPS[op].run(*map(wide, args), **attrs)
    tol = 2e-6 if args[0].dtype == np.float32 else 1e-14
    for f, w in zip(found if len(wanted) > 1 else [found], wanted, strict=True):
        np.testing.assert_allclose(f, w, rtol=tol, atol=tol)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("decays", "nesterov"), FLAGS)
@pytest.mark.parametrize("at_end", [True, False])
def test_sgd(shape, dtype, decays, nesterov, at_end):
    p, g, b = arrays(shape, dtype, 3)
    numbers = np.array([0.1, 0.01, 0.9, 0.7], dtype)
    for buffer in (None, b):
        check("sgd_update", [p, g, buffer, numbers], {"decays": decays, "nesterov": nesterov}, at_end=at_end)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("decays", "decoupled"), FLAGS)
@pytest.mark.parametrize("at_end", [True, False])
def test_adam(shape, dtype, decays, decoupled, at_end):
    p, g, m, v, u = arrays(shape, dtype, 5)
    numbers = np.array([0.9, 0.1, 0.99, 0.01, 0.3, 1e-8, 0.02], dtype)
    for largest in (None, u):
        attrs = {"decays": decays, "decoupled": decoupled}
        check("adam_update", [p, g, m, v, largest, numbers], attrs, at_end=at_end)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("op", ["sgd_update", "adam_update"])
@pytest.mark.parametrize("flag", [None, 0.0, 1.0])
def test_gradients_are_scaled_and_steps_skipped(op, dtype, flag):
    count = 3 if op == "sgd_update" else 5
    given = arrays((2049,), dtype, count)
    given[1][[0, 1500]] = (np.nan, np.inf) if flag else (1e4, 1e5)
    numbers = [0.1, 0.01, 0.9, 0.7] if count == 3 else [0.9, 0.1, 0.99, 0.01, 0.3, 1e-8, 0.02]
    skip = None if flag is None else np.array(flag, np.float32)
    factors = [np.array(v, np.float32) for v in (1 / 1024, 0.25)]
    args = [*given, np.array(numbers, dtype), skip, factors]
    attrs = {"decays": True, **({"nesterov": True} if count == 3 else {"decoupled": True})}
    check(op, args, attrs)
    if flag:
        kept = [a for i, a in enumerate(given) if i != 1]
        for found, before in zip(run_op(op, args, **attrs), kept, strict=True):
            np.testing.assert_array_equal(found, before)


def test_threads_change_nothing_and_nan_stays():
    p, g, m, v = arrays((200_000,), "float32", 4)
    g[[0, 777, 199_999]] = np.nan, np.inf, -np.inf
    numbers = np.array([0.9, 0.1, 0.99, 0.01, 0.3, 1e-8, 0.02], np.float32)
    attrs = {"decays": True, "decoupled": True}
    one, four = (run_op("adam_update", [p, g, m, v, None, numbers], threads=n, **attrs) for n in (1, 4))
    with np.errstate(all="ignore"):
        wanted = OPS["adam_update"].run(p, g, m, v, None, numbers, **attrs)
    for a, b, w in zip(one, four, wanted, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(np.isnan(a), np.isnan(w))
