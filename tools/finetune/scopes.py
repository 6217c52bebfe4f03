"""What finetuning changes for its own time only: the model's mode, what trains, and the random generator."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ...ops.errors import InputError
from ...runtime.model.model import Model
from ...runtime.nn.module import Module
from ...runtime.tensor.random import default_generator


@contextmanager
def kept_mode(model: Module) -> Iterator[None]:
    """Put a model into evaluation mode, and give it its mode back."""
    training = model.training
    try:
        model.eval()
        yield
    finally:
        model.train(training)


@contextmanager
def seeded(seed: int | None) -> Iterator[None]:
    """Draw from a seed meanwhile, and leave the process's generator as it was."""
    if seed is None:
        yield
        return
    state = default_generator.get_state()
    default_generator.manual_seed(seed)
    try:
        yield
    finally:
        default_generator.set_state(state)


@contextmanager
def only(model: Module, train: str | Sequence[str], freeze: str | Sequence[str]) -> Iterator[None]:
    """Train only these parameters meanwhile."""
    before = {id(p): (p, p.requires_grad) for p in model.parameters()}
    try:
        if train != "all" or freeze:
            if not isinstance(model, Model):
                raise InputError(f"train and freeze want a model from og.load, found {type(model).__name__}")
            if train == "head":
                head = model.head()
                model.freeze()
                _set(model, {head.weight, head.bias}, True)
            elif train != "all":
                model.freeze()
                model.unfreeze(*_patterns(train))
            if freeze:
                model.freeze(*_patterns(freeze))
        yield
    finally:
        for p, trains in before.values():
            p.requires_grad = trains


def _set(model: Module, names: set[str | None], trains: bool) -> None:
    for name, p in model.named_parameters():
        if name in names:
            p.requires_grad = trains


def _patterns(patterns: str | Sequence[str]) -> list[str]:
    return [patterns] if isinstance(patterns, str) else list(patterns)
