"""Optimizers whose step is a formula of each element, written once with ops: for arrays and for compiled steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from ...ops import layout, pointwise as pw
from ...ops.op import namespace
from ...ops.types import Array
from ..cuda.guard import placed
from ..tensor.tensor import wrap
from .optimizer import Optimizer
from .settings import count, number, steps

Stepped: TypeAlias = "tuple[Any, ...]"
"""A new parameter, and its new state in the order of `_names`."""


class Elementwise(Optimizer):
    """Subclasses say what state there is (`_names`), what a step reads of settings (`_numbers`), and the step.

    What of the state counts steps rather than elements is in `_counts` and `_counted`.
    """

    def _names(self, group: dict[str, Any]) -> tuple[str, ...]:
        """Return the names of the state that has the parameter's shape."""
        raise NotImplementedError

    def _step(self, p: Any, g: Any, s: Sequence[Any], n: Sequence[Any], group: dict[str, Any]) -> Stepped:
        """Return the new parameter and the new state.

        Args:
            p: the parameter.
            g: its gradient.
            s: the state, in the order of `_names`.
            n: what `_numbers` gives.
            group: the settings; of numbers only whether they are 0 may be read.
        """
        raise NotImplementedError

    def _update(self, p: Array, g: Array, state: dict[str, Any], group: dict[str, Any]) -> None:
        names = self._names(group)
        if not state:
            state.update((name, count(value)) for name, value in self._counts(state, group).items())
        numbers = self._numbers(state, group)
        for name in names:
            if state.get(name) is None:
                state[name] = wrap(self._initial(p, name, group))
        held = [state[name]._array for name in names]
        for old, new in zip((p, *held), self._step(p, g, held, numbers, group), strict=True):
            old[...] = new
        self._advance(state, group)

    def _trace(
        self, p: Any, g: Any, state: Callable[[str], Any], group: dict[str, Any], numbers: Any, skip: Any
    ) -> tuple[Any, dict[str, Any]]:
        names = self._names(group)
        parts = layout.split(numbers, axis=0, sizes=(1,) * int(numbers.shape[0]))
        scalars = [layout.squeeze(part, axes=(0,)) for part in parts]
        held = [state(name) for name in names]
        made = self._step(p, g, held, scalars, group)
        if skip is not None:
            skipped = pw.logical_not(pw.equal(skip, 0.0))
            made = tuple(pw.where(skipped, old, new) for old, new in zip((p, *held), made, strict=True))
        return made[0], dict(zip(names, made[1:], strict=True))

    def _counts(self, state: Mapping[str, Any], group: Mapping[str, Any]) -> dict[str, float]:
        return {"step": 0.0}

    def _counted(self, state: Mapping[str, Any], group: Mapping[str, Any]) -> dict[str, Any]:
        return {"step": steps(state) + 1}


def blended(old: Any, new: Any, share: Any) -> Any:
    """Return old + share (new - old)."""
    return pw.add(old, pw.mul(pw.sub(new, old), share))


def mean_square(old: Any, g: Any, keep: Any, grow: Any) -> Any:
    """Return keep old + grow g^2."""
    return pw.add(pw.mul(old, keep), pw.mul(pw.mul(g, g), grow))


def decayed(p: Any, g: Any, decay: Any, group: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return the parameter and the gradient after weight decay.

    Args:
        p: the parameter.
        g: its gradient.
        decay: what `decay_number` gives.
        group: the settings.
    """
    if not group["weight_decay"]:
        return p, g
    if group.get("decoupled_weight_decay"):
        return pw.mul(p, decay), g
    return p, pw.add(g, pw.mul(p, decay))


def decay_number(group: Mapping[str, Any]) -> Any:
    """Return the factor of p that `decayed` wants."""
    decay = group["weight_decay"]
    return 1 - number(group["lr"]) * decay if group.get("decoupled_weight_decay") else decay


def filled(p: Array, value: float) -> Array:
    """Return an array like the parameter, every element the value."""
    with placed(p):
        return namespace(p).full_like(p, value)
