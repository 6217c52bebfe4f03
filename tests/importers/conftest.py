"""Notes which operators, at which versions, the tests of this folder put through the importer."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

EXERCISED: dict[tuple[str, str, int], set[str]] = {}
"""The test files that translated each (domain, operator, version) and compared what it gave."""

COMPARES_NOTHING = frozenset({"test_bad_nodes", "test_damaged", "test_read", "test_session", "test_versions"})
"""Files whose models are broken on purpose, or compared elsewhere."""

CENSUS = "test_every_bound_version_is_compared"


@pytest.fixture(scope="session", autouse=True)
def census() -> Iterator[None]:
    from onnxgrad.importers.onnx import late, translate

    original = translate.translate

    def noted(node: Any, inputs: Any) -> Any:
        file = os.environ.get("PYTEST_CURRENT_TEST", "").partition("::")[0].rpartition("/")[2].removesuffix(".py")
        result = original(node, inputs)
        if file and file not in COMPARES_NOTHING:
            EXERCISED.setdefault((node.domain, node.op_type, node.since_version), set()).add(file)
        return result

    with pytest.MonkeyPatch.context() as patch:
        for module in (translate, late):
            patch.setattr(module, "translate", noted)
        yield


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.name == CENSUS)  # it counts what the others did
