"""Pillow, where it is installed."""

from __future__ import annotations

import sys
from typing import Any

from ...ops.errors import MissingExtraError


def pillow() -> Any:
    """Return `PIL.Image`.

    Raises:
        MissingExtraError: if Pillow is not installed.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingExtraError("pictures need Pillow: pip install 'onnxgrad[explain]'") from error
    return Image


def is_picture(value: Any) -> bool:
    """Whether a value is a Pillow image."""
    return "PIL.Image" in sys.modules and isinstance(value, sys.modules["PIL.Image"].Image)
