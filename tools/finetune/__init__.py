"""Finetuning: a model trained on a user's own examples."""

from .loop import evaluate, finetune
from .result import FinetuneResult

__all__ = ["FinetuneResult", "evaluate", "finetune"]
