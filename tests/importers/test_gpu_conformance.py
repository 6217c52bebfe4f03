"""The standard's node tests on a GPU; tolerances are those of the cases, and rounding of small numbers is allowed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from onnxgrad.importers.onnx.backend import prepare

from .conformance import Case, compare, node_modules, node_tests, waiver
from .drawn import check_draw, is_random

pytestmark = pytest.mark.gpu

ATOL = 2e-6
"""What is added up in another order differs so much near 0."""


def check(case: Case) -> None:
    if waiver(case) is not None:
        return
    if is_random(case):
        check_draw(case, lambda model: prepare(model, "CUDA").run)
        return
    model = prepare(case.model, "CUDA")
    for feeds, wanted in case.data_sets:
        found = model.run(feeds)
        assert len(found) == len(wanted)
        for f, w in zip(found, wanted, strict=True):
            compare(f, w, replace(case, atol=max(case.atol, ATOL)))


@pytest.mark.parametrize("module", node_modules(), ids=lambda m: m.rpartition(".")[2])
def test_node(module: str, subtests: pytest.Subtests) -> None:
    for case in node_tests(module):
        with subtests.test(case.name):
            check(case)
