"""Optimizers, by PyTorch's names and formulas."""

from __future__ import annotations

from .adam import Adam, AdamW
from .groups import group_parameters
from .lbfgs import LBFGS
from .moments import Adamax, Lion, NAdam, RAdam
from .optimizer import Optimizer
from .rates import ASGD, Adadelta, Adagrad, RMSprop, Rprop
from .sgd import SGD

__all__ = [
    "ASGD",
    "LBFGS",
    "SGD",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Lion",
    "NAdam",
    "Optimizer",
    "RAdam",
    "RMSprop",
    "Rprop",
    "group_parameters",
]
