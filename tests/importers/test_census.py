"""Every operator version that has a binding is compared with something, by a derived row or by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import EXERCISED
from .versions import COMPARED, bound


def test_every_bound_version_is_compared(request: pytest.FixtureRequest, summary: Callable[[str], None]) -> None:
    ran = {item.path for item in request.session.items}
    options = request.config.option
    if options.keyword or options.markexpr or not set(Path(__file__).parent.glob("test_*.py")) <= ran:
        pytest.skip("counts what the whole folder compares")
    by_hand = {key for key in bound() if key not in COMPARED and key in EXERCISED}
    summary(f"versions: {len(by_hand)} more by hand: {len(COMPARED | by_hand)} of {len(list(bound()))} are compared")
    left = [
        f"{domain}:{op}-{version}" for domain, op, version in bound() if (domain, op, version) not in COMPARED | by_hand
    ]
    assert not left, ", ".join(left)
