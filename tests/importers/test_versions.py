"""Every bound operator at every version: compared with onnxruntime, or with who else knows what that version means.

The oracle of a row is the first that computes it:
    onnxruntime      at the same opset;
    reference        the standard's own evaluator, at the same opset;
    newest version   the standard's values for the same node at its newest version (what was taken back is only how a
                     node is written).
What the standard has no node test for is tested by hand in the other files of this folder; the census counts that.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from onnxgrad.importers.onnx.model import load_bytes

from .conformance import compare
from .one_node import ort_node, run_node
from .versions import COMPARED, Key, Row, bound, rows

ORACLES: Counter[str] = Counter()
BY_OPERATOR: dict[tuple[str, str], list[int]] = {}
for _domain, _op, _version in bound():
    BY_OPERATOR.setdefault((_domain, _op), []).append(_version)

TOLERANCE = 1e-6
"""Of the largest magnitude: onnxruntime's Fourier transforms are off by as much."""
ONLY_NEWEST = {
    "Dropout": "onnxruntime and the reference draw masks that nobody can reproduce",
}
"""Operators whose rows are compared with the newest version alone, and why."""

KNOWN_WRONG = {
    ("reference", "AveragePool", 1): "it counts the padding, the standard says: elements exclude pad",
    **{
        ("onnxruntime", "MaxUnpool", v): "it reads indices in the output shape; the standard in the shape before that"
        for v in (9, 11, 22)
    },
}
"""(oracle, operator, version) that contradicts the standard, and how; the next oracle is asked."""


@pytest.fixture(scope="module", autouse=True)
def released_or_not() -> Any:
    """Have onnxruntime run operator sets that are not released yet."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALLOW_RELEASED_ONNX_OPSET_ONLY", "0")
        yield


@pytest.fixture(scope="module", autouse=True)
def totals(summary: Callable[[str], None]) -> Any:
    yield
    by = ", ".join(f"{n} against {name}" for name, n in ORACLES.most_common())
    summary(f"versions: {len(COMPARED)} of {sum(map(len, BY_OPERATOR.values()))} bound versions by derived rows ({by})")


def onnxruntime(row: Row) -> list[Any] | None:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        session = ort.InferenceSession(row.model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return list(session.run(None, {k: _fed(v) for k, v in row.feeds.items()}))
    except Exception:  # its errors have no common class; whatever it cannot do, the next oracle is asked
        return None


def _largest(value: Any) -> float:
    """Return the largest magnitude of finite numbers, at least 1."""
    parts = value if isinstance(value, list) else [value]
    arrays = [np.asarray(p) for p in parts if p is not None and not isinstance(p, dict)]
    finite = [np.abs(a[np.isfinite(a)]).max(initial=1) for a in arrays if a.dtype.kind in "fc"]
    return max(map(float, finite), default=1.0)


def _fed(v: Any) -> Any:
    return [np.asarray(x) for x in v] if isinstance(v, list) else np.asarray(v)


def reference(row: Row) -> list[Any] | None:
    from onnx.reference import ReferenceEvaluator

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return list(ReferenceEvaluator(row.model).run(None, row.feeds))
    except Exception:  # as above
        return None


def newest(row: Row) -> list[Any] | None:
    return row.newest


def expected(row: Row) -> tuple[str, list[Any]]:
    """Return the oracle's name and what it says."""
    oracles = {"onnxruntime": onnxruntime, "reference": reference, "newest version": newest}
    for name, oracle in oracles.items():
        if (name, row.key[1], row.key[2]) in KNOWN_WRONG or (row.key[1] in ONLY_NEWEST and oracle is not newest):
            continue
        wanted = oracle(row)
        if wanted is not None:
            return name, wanted
    raise AssertionError("unreachable")


@pytest.mark.parametrize("domain,op", sorted(BY_OPERATOR), ids=lambda p: p.rpartition(".")[2] or "ai.onnx")
def test_versions(domain: str, op: str, subtests: pytest.Subtests) -> None:
    for version in BY_OPERATOR[domain, op]:
        for row in rows((domain, op, version)):
            with subtests.test(f"{op}-{version} {row.name}"):
                name, wanted = expected(row)
                found = load_bytes(row.model.SerializeToString(), widen_half=False).run(row.feeds)
                assert len(found) == len(wanted)
                for f, w in zip(found, wanted, strict=True):
                    compare(f, w, replace(row.case, atol=TOLERANCE * _largest(w)))
                ORACLES[name] += 1
                COMPARED.add(row.key)


MICROSOFT = {"domain": "com.microsoft", "opset": 1}
RNG = np.random.default_rng(0)
X = RNG.standard_normal((2, 3, 4, 4)).astype(np.float32)
C, D = (np.abs(RNG.standard_normal(n)).astype(np.float32) + 0.5 for n in (3, 4))
ROWS = np.array([[0, 2, 1, 0]])


def _q_linear_conv() -> list[Any]:
    x, w = RNG.integers(0, 255, (1, 2, 5, 5), np.uint8), RNG.integers(0, 255, (3, 2, 3, 3), np.uint8)
    scale, zero = np.float32(0.02), np.uint8(128)
    return [x, scale, zero, w, scale, zero, np.float32(0.3), zero]


BY_HAND: dict[Key, tuple[list[Any], dict[str, Any], Callable[..., Any]]] = {
    ("", "BatchNormalization", 1): (
        [X, C, C, C, C],
        {"opset": 1, "consumed_inputs": [0, 0, 0, 1, 1], "is_test": 1, "epsilon": 1e-3},
        lambda *a: ort_node("BatchNormalization", a, opset=15, epsilon=1e-3)[0],
    ),
    ("", "GlobalLpPool", 1): ([X], {"opset": 1, "p": 3.0}, lambda x: ort_node("GlobalLpPool", [x], opset=2, p=3)[0]),
    ("", "GlobalLpPool", 22): ([X], {"opset": 22, "p": 3}, lambda x: ort_node("GlobalLpPool", [x], opset=2, p=3)[0]),
    ("", "Optional", 28): ([X], {"opset": 28}, lambda x: x),
    ("", "PRelu", 1): ([X, C], {"opset": 1}, lambda x, s: np.where(x < 0, x * s[:, None, None], x)),
    ("", "Scatter", 11): (
        [X[0, 0], ROWS, D[None]],
        {"opset": 11, "axis": 0},
        lambda *a: ort_node("ScatterElements", a, opset=11, axis=0)[0],
    ),
    ("", "Upsample", 10): (
        [X, np.array([1, 1, 2, 3], np.float32)],
        {"opset": 10, "mode": "nearest"},
        lambda *a: ort_node("Upsample", a, opset=9, mode="nearest")[0],
    ),
    ("com.microsoft", "LayerNormalization", 1): (
        [X, D, D], MICROSOFT, lambda *a: ort_node("LayerNormalization", a, opset=17)[0]
    ),
    ("com.microsoft", "SimplifiedLayerNormalization", 1): (
        [X, D], MICROSOFT, lambda x, s: x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * s
    ),
    ("com.microsoft", "LogSoftmaxGrad", 1): (
        [X, np.log(D / D.sum()) + 0 * X],
        {**MICROSOFT, "axis": 3},
        lambda g, y: g - np.exp(y) * g.sum(-1, keepdims=True),
    ),
    ("com.microsoft", "QLinearConv", 1): (
        _q_linear_conv(), MICROSOFT, lambda *a: ort_node("QLinearConv", a, opset=10)[0]
    ),
}  # fmt: skip
"""Versions of which nobody has a test: their inputs, and the same by a newer version or in closed form."""


@pytest.mark.parametrize("key", BY_HAND, ids=lambda k: f"{k[0]}-{k[1]}-{k[2]}")
def test_by_hand(key: Key) -> None:
    inputs, how, oracle = BY_HAND[key]
    found, wanted = run_node(key[1], inputs, **how)[0], oracle(*inputs)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
    COMPARED.add(key)
