"""PyTorch's settings of determinism and precision.

Everything here is deterministic and float32 products are computed in float32: the settings are kept, so that programs
that ask for this run and can read what they set.
"""

from __future__ import annotations

from ...ops.errors import OpError

_PRECISIONS = ("highest", "high", "medium")
_settings: dict[str, bool | str] = {"deterministic": False, "warn_only": False, "precision": "highest"}


def use_deterministic_algorithms(mode: bool, *, warn_only: bool = False) -> None:
    """Ask for deterministic algorithms; all are."""
    _settings["deterministic"], _settings["warn_only"] = bool(mode), bool(mode and warn_only)


def are_deterministic_algorithms_enabled() -> bool:
    """Return what `use_deterministic_algorithms` was told."""
    return bool(_settings["deterministic"])


def is_deterministic_algorithms_warn_only_enabled() -> bool:
    """Return what `use_deterministic_algorithms` was told about warnings."""
    return bool(_settings["warn_only"])


def set_float32_matmul_precision(precision: str) -> None:
    """Allow less precision in products of float32, which are computed in float32 all the same.

    Raises:
        OpError: unless it is `highest`, `high` or `medium`.
    """
    if precision not in _PRECISIONS:
        raise OpError(f"set_float32_matmul_precision: found {precision!r}, wanted one of {', '.join(_PRECISIONS)}")
    _settings["precision"] = precision


def get_float32_matmul_precision() -> str:
    """Return what `set_float32_matmul_precision` was told."""
    return str(_settings["precision"])
