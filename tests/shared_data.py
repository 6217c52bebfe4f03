"""Finds the folder of real models and data that lies outside the repository."""

import os
from pathlib import Path


def find_shared() -> Path | None:
    """`$ONNXGRAD_SHARED`, else `../shared` beside the checkout; None where there is neither."""
    named = os.environ.get("ONNXGRAD_SHARED")
    folder = Path(named) if named else Path(__file__).resolve().parents[2] / "shared"
    return folder if folder.is_dir() else None
