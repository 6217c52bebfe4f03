"""Fixtures of the compiler's tests."""

from __future__ import annotations

import pytest

from onnxgrad.runtime.compiled import running


@pytest.fixture
def all_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let programs run on all their threads, however little they do."""
    monkeypatch.setattr(running, "WAKING_S", 0.0)
