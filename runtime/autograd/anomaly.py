"""Anomaly detection: an error or a NaN in backward says which line of forward it comes from."""

from __future__ import annotations

import os
import traceback
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np

from ...ops.errors import AutogradError
from .grad_mode import MODE
from .saved import count_special

if TYPE_CHECKING:
    from .node import Flow, Node

_FLOORS = tuple(f"{Path(__file__).parents[2] / floor}{os.sep}" for floor in ("ops", "runtime"))
DEPTH = 12
"""How many lines of the caller's are kept of each node."""


class set_detect_anomaly:  # noqa: N801 - PyTorch's name
    """Switch anomaly detection on or off, at once and until the end of a `with` block; a setting of each thread.

    Args:
        mode: whether backward's errors name the lines of forward.
        check_nan: whether a NaN that backward makes is an error.
    """

    def __init__(self, mode: bool, check_nan: bool = True) -> None:
        """Set it at once; see the class for the arguments."""
        self.before = MODE.anomaly, MODE.check_nan
        _set(mode, check_nan)

    def __enter__(self) -> None:
        """Leave it as it was set."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Put back what was."""
        _set(*self.before)


def _set(mode: bool, check_nan: bool) -> None:
    count_special(int(bool(mode)) - int(MODE.anomaly))
    MODE.anomaly, MODE.check_nan = bool(mode), check_nan


class detect_anomaly(set_detect_anomaly):  # noqa: N801 - PyTorch's name
    """Find where a NaN or an error of backward comes from: forward and backward stand inside the `with` block.

    Each op keeps the lines that called it, so it is slow: switch it on to look for a fault.

    Args:
        check_nan: whether a NaN that backward makes is an error.
    """

    def __init__(self, check_nan: bool = True) -> None:
        """Prepare; see the class for the arguments."""
        self.check_nan = check_nan

    def __enter__(self) -> None:
        """Switch it on."""
        super().__init__(True, self.check_nan)


def is_anomaly_enabled() -> bool:
    """Whether anomaly detection is on in this thread."""
    return MODE.anomaly


def is_anomaly_check_nan_enabled() -> bool:
    """Whether a NaN that backward makes is an error in this thread."""
    return MODE.check_nan


def here() -> str:
    """Return the lines that called the op that is being recorded, outside of this package."""
    frames = [f for f in traceback.extract_stack() if not f.filename.startswith(_FLOORS)]
    return "".join(traceback.format_list(frames[-DEPTH:]))


def explained(error: Exception, node: Node) -> Exception:
    """Return an error of a node's backward, with the lines of its forward."""
    if node.where is None:
        return error
    return AutogradError(f"Error detected in {node.name()}: {error}\n{_called(node)}")


def check(node: Node, grads: list[Flow]) -> None:
    """Refuse gradients that are NaN.

    Raises:
        AutogradError: naming the function and the lines of its forward.
    """
    if not MODE.check_nan:
        return
    for i, g, _ in grads:
        array = getattr(g, "_array", g)
        if isinstance(array, np.ndarray) and array.dtype.kind == "f" and np.isnan(array).any():
            raise AutogradError(f"Function '{node.name()}' returned nan values in its {i}th output.\n{_called(node)}")


def _called(node: Node) -> str:
    if node.where is None:
        return "It was computed before anomaly detection was switched on: put the forward part inside the block too."
    return f"Traceback of forward call that caused the error:\n{node.where}"
