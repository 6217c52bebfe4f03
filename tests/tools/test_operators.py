"""The page of operators says what the tree has."""

from __future__ import annotations

from pathlib import Path

from onnxgrad.tools.operators import bindings, ops_of, orders_checked, page

ROOT = Path(__file__).resolve().parents[2]
COMMAND = "python -m onnxgrad.tools.operators > docs/operators.md"


def test_page_is_up_to_date():
    assert (ROOT / "docs" / "operators.md").read_text() == page(orders_checked(ROOT)), f"run: {COMMAND}"


def test_ops_of_a_binding():
    assert ops_of(bindings()["", "Conv", 11], "Conv") >= {"conv", "add"}
    assert ops_of(bindings()["", "Softmax", 13], "Softmax") == {"softmax"}
    assert "argmax" not in ops_of(bindings()["", "Relu", 14], "Relu")
