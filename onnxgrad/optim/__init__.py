"""Optimizers and schedules of the learning rate."""

from ..runtime.optim import (
    SGD,
    Adam,
    AdamW,
    Optimizer,
)
from . import lr_scheduler

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "Optimizer",
    "lr_scheduler",
]
