"""Memory for time: functions that are computed again in backward."""

from ..runtime.checkpoint import checkpoint

__all__ = [
    "checkpoint",
]
