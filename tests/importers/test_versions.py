"""Every bound operator at every version: compared with onnxruntime, or with who else knows what that version means.

The oracle of a row is the first that computes it:
    onnxruntime      at the same opset;
    reference        the standard's own evaluator, at the same opset;
    newest version   the standard's values for the same node at its newest version (what was taken back is only how a node
                     is written).
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
from .versions import COMPARED, Row, bound, rows

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
