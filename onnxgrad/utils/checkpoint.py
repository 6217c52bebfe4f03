"""Memory for time: functions that are computed again in backward."""

from ..runtime.autograd.checkpoint import checkpoint, checkpoint_sequential

__all__ = [
    "checkpoint",
    "checkpoint_sequential",
]
