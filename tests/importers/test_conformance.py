"""The standard's own tests: every generated node test, and the models that ship with the onnx package.

Half precision is computed as the file says (`widen_half=False`), and may differ from the file's values by two units in
the last place. All else is compared with the case's own tolerance, element types and shapes too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from onnx.backend.test.case.node import collect_testcases

from onnxgrad.importers.onnx.backend import prepare

from .conformance import (
    Case,
    compare,
    node_modules,
    node_tests,
    stored_names,
    stored_test,
    unused_waivers,
    waiver,
)
from .drawn import check_draw, is_random

PASSED: Counter[str] = Counter()
SEEN: Counter[str] = Counter()
STORED = ("simple", "pytorch-operator", "pytorch-converted", "real")


@pytest.fixture(scope="module", autouse=True)
def totals(summary: Callable[[str], None]) -> Any:
    yield
    for suite, seen in SEEN.items():
        shown = "light (real networks)" if suite == "real" else suite
        summary(f"conformance: {PASSED[suite]} of {seen} {shown} tests")


def check(case: Case) -> None:
    """Run a case and compare; a case that is waived has to fail."""
    SEEN[case.suite] += 1
    reason = waiver(case)
    try:
        _run(case)
    except Exception as error:
        if reason is None:
            raise
        assert not isinstance(error, MemoryError)
        return
    assert reason is None, f"{case.name} passes: take its waiver out ({reason})"
    PASSED[case.suite] += 1


def _run(case: Case) -> None:
    if is_random(case):
        check_draw(case, lambda model: prepare(model).run)
        return
    model = prepare(case.model)
    for feeds, wanted in case.data_sets:
        found = model.run(feeds)
        assert len(found) == len(wanted)
        for f, w in zip(found, wanted, strict=True):
            compare(f, w, case)


@pytest.mark.parametrize("module", node_modules(), ids=lambda m: m.rpartition(".")[2])
def test_node(module: str, subtests: pytest.Subtests) -> None:
    for case in node_tests(module):
        with subtests.test(case.name):
            check(case)


@pytest.mark.parametrize(("suite", "name"), [(s, n) for s in STORED for n in stored_names(s)])
def test_stored(suite: str, name: str) -> None:
    check(stored_test(suite, name))


def test_every_case_of_the_standard_is_here() -> None:
    ours = [c.name for m in node_modules() for c in node_tests(m)]
    assert sorted(ours) == sorted(c.name for c in collect_testcases())


def test_every_waiver_is_of_a_case() -> None:
    assert unused_waivers("node", [c.name for m in node_modules() for c in node_tests(m)]) == []
    for suite in STORED:
        assert unused_waivers(suite, stored_names(suite)) == []
