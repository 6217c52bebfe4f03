"""What a step reads of settings and of what counts steps, as expressions, for a device to compute.

The formulas of optimizers are Python over numbers. Given variables in the place of numbers they return expressions. So
a device that decides whether a step is taken, and counts it, also computes what follows from the count.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np

from ...ops.expr import Expr, Var, maximum, where, wrap
from ...ops.types import Array
from ..tensor.tensor import Tensor
from .settings import count, number

if TYPE_CHECKING:
    from .optimizer import Optimizer


def chosen(condition: Any, x: Any, y: Any) -> Any:
    """Return x where a comparison of numbers, or of expressions, holds, else y."""
    return where(condition, x, y) if isinstance(condition, Expr) else x if condition else y


def larger(x: Any, y: Any) -> Any:
    """Return the larger of two numbers or expressions."""
    return maximum(x, y) if isinstance(x, Expr) or isinstance(y, Expr) else max(x, y)


def rounded(x: Any) -> Any:
    """Return a number as an optimizer's state would hold it; an expression is rounded where it is stored."""
    return x if isinstance(x, Expr) else number(count(x))


@dataclass(frozen=True, eq=False)
class Formulas:
    """The formulas of one group of an optimizer's parameters.

    Attributes:
        settings: the names of the settings that are numbers, and how many they are; None for one by itself.
        counts: the names of what counts steps.
        numbers: what a step reads, over the settings `s0`, `s1` ... and the counts `c0`, `c1` ...
        counted: the counts behind the step.
    """

    settings: tuple[tuple[str, int | None], ...]
    counts: tuple[str, ...]
    numbers: tuple[Expr, ...]
    counted: tuple[Expr, ...]

    @classmethod
    def of(cls, optimizer: Optimizer, state: Mapping[str, Any], group: Mapping[str, Any]) -> Formulas:
        """Return the formulas for a group, of parameters whose state is like this one.

        Args:
            optimizer: whose formulas.
            state: that a parameter has.
            group: the settings.
        """
        symbols, settings, taken = dict(group), [], 0
        for name, value in group.items():
            if _is_number(value):
                symbols[name], size = Var(f"s{taken}"), None
            elif isinstance(value, list | tuple) and value and all(map(_is_number, value)):
                symbols[name], size = tuple(Var(f"s{taken + i}") for i in range(len(value))), len(value)
            else:
                continue
            settings.append((name, size))
            taken += 1 if size is None else size
        counts = tuple(optimizer._counts(state, group))
        counting: dict[str, Any] = {name: Var(f"c{i}") for i, name in enumerate(counts)}
        behind = optimizer._counted(counting, symbols)
        numbers = tuple(wrap(n) for n in optimizer._numbers(counting, symbols))
        return cls(tuple(settings), counts, numbers, tuple(wrap(behind[name]) for name in counts))

    @property
    def size(self) -> int:
        """How many settings there are."""
        return sum(1 if size is None else size for _, size in self.settings)

    def values(self, group: Mapping[str, Any]) -> Array:
        """Return the settings as they are now.

        Args:
            group: which has them.
        """
        found: list[float] = []
        for name, size in self.settings:
            found += [number(group[name])] if size is None else map(number, group[name])
        return np.array(found, np.float64)


def _is_number(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.numel() == 1
    return isinstance(value, Real) and not isinstance(value, bool)
