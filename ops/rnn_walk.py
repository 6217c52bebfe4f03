"""Walks back over time, and what they need: the order of steps, what stands before each, slopes of activations.

Axes: T steps, B batch, H hidden, D directions, G gates times H.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from . import control, create, index, layout, pointwise as pw
from .matmul import matmul
from .op import namespace, op
from .rnn import Activation
from .types import TensorType


def slope(x: Any, y: Any, activation: Activation, clip: float | None) -> Any:
    """Return the derivative of `activate` at x, whose value there is y."""
    name, alpha, beta = activation
    inner = x if clip is None else pw.clip(x, -clip, clip)
    one = create.full_like(x, shape=tuple(x.shape), value=1)
    match name:
        case "Affine":
            d = pw.mul(one, alpha)
        case "ThresholdedRelu":
            d = pw.where(pw.less(inner, alpha), 0.0, one)
        case "ScaledTanh":
            d = pw.sub(alpha * beta, pw.mul(pw.mul(y, y), beta / alpha)) if alpha else pw.mul(one, 0.0)
        case "HardSigmoid":
            d = _pulled(pw.hard_sigmoid, one, y, inner, alpha, beta)
        case "LeakyRelu":
            d = _pulled(pw.leaky_relu, one, y, inner, alpha)
        case "Elu":
            d = _pulled(pw.elu, one, y, inner, alpha)
        case "Tanh":
            d = pw.sub(1.0, pw.mul(y, y))
        case "Sigmoid":
            d = pw.mul(y, pw.sub(1.0, y))
        case _:
            functions = {"Relu": pw.relu, "Softsign": pw.softsign, "Softplus": pw.softplus}
            d = _pulled(functions[name], one, y, inner)
    return d if clip is None else _pulled(pw.clip, d, inner, x, -clip, clip)


def _pulled(f: Any, g: Any, y: Any, *args: Any) -> Any:
    return f.vjp(g, y, *args)[0]()


class Walk:
    """One direction of a layer: its steps in the order in which they run."""

    def __init__(self, y: Any, lengths: Any, back: bool) -> None:
        self.steps, self.batch, self.hidden = y.shape[0], y.shape[2], y.shape[3]
        self.lengths, self.back = lengths, back
        self.live: Any = None
        if lengths is not None:
            array = getattr(lengths, "array", lengths)
            t = (np if array is None else namespace(array)).arange(self.steps).reshape(-1, 1, 1)
            self.live = pw.less(t, layout.reshape(pw.cast(lengths, dtype="int64"), shape=(1, -1, 1)))

    def turned(self, x: Any) -> Any:
        """Put steps (T, B, *) in the order in which they run, or back."""
        return turned(x, self.lengths) if self.back else x

    def masked(self, x: Any, dead: float = 0.0) -> Any:
        """Put a number where an entry has ended."""
        return x if self.live is None else pw.where(self.live, x, dead)

    def held(self, before: Any) -> list[Any]:
        """Return the state before each step; the last one stays where an entry has ended."""
        states = control.unstack(before, 0)
        if self.live is not None:
            for t, live in enumerate(control.unstack(self.live, 0)[:-1]):
                states[t + 1] = pw.where(live, states[t + 1], states[t])
        return states

    def arriving(self, gy: Any, d: int) -> Any:
        """Return what arrives at the state of each step from outside, or None."""
        return None if gy is None else self.masked(self.turned(of_direction(gy, d, 1)))

    def ended(self, like: Any) -> Any:
        """Return 1 where an entry has ended, (T, B, 1), or None."""
        return None if self.live is None else pw.cast(pw.logical_not(self.live), dtype=str(like.dtype))


@op()
def state_walk(
    gy: Any, factor: TensorType, kept: Any, r: TensorType, last: TensorType
) -> tuple[TensorType, TensorType, TensorType]:
    """Flow gradients back through the states of all steps.

    What arrives at the state of step t is s_t = gy_t + c_t, where c_t comes from the step after it (`last` at the last
    one). Its gates get g_t = factor_t s_t, each of them s_t anew, and the step before it c = g_t r + kept_t s_t.

    Shapes: (T, B, H) or None, (T, B, G), (T, B, H) or (T, B, 1) or None, (G, H), (B, H)
    -> g (T, B, G), s (T, B, H), what comes before the first step (B, H).
    """
    steps, batch, _ = factor.shape
    return factor, TensorType(factor.dtype, (steps, batch, r.shape[1])), last


@op()
def cell_walk(
    gy: Any, factor: TensorType, into: TensorType, through: TensorType, kept: Any, r: TensorType, last: TensorType,
    last_cell: TensorType,
) -> tuple[TensorType, TensorType, TensorType]:  # fmt: skip
    """Flow gradients back through the states and cells of all steps of an LSTM.

    At the state of step t arrives s_t = gy_t + c_t, at its cell e_t = f_t + into_t s_t, where c_t and f_t come from the
    step after it. The gates i, o, f, n get g_t = factor_t (e_t, s_t, e_t, e_t), the step before it
    c = g_t r + kept_t s_t and f = through_t e_t.

    Shapes: (T, B, H) or None, (T, B, 4H), (T, B, H) twice, (T, B, 1) or None, (4H, H), (B, H) twice
    -> g (T, B, 4H), what comes before the first step, (B, H) twice.
    """
    return factor, last, last_cell


@state_walk.compose
def _state_walk(gy: Any, factor: Any, kept: Any, r: Any, last: Any) -> tuple[Any, Any, Any]:
    gates, states, s = [], [], last
    count = factor.shape[2] // r.shape[1]
    for arriving, by, stays in backwards(gy, factor, kept):
        s = plus(arriving, s)
        g = pw.mul(joined(*(s,) * count) if count > 1 else s, by)
        gates.append(g)
        states.append(s)
        s = plus(matmul(g, r), None if stays is None else pw.mul(s, stays))
    return in_order(gates), in_order(states), s


@cell_walk.compose
def _cell_walk(
    gy: Any, factor: Any, into: Any, through: Any, kept: Any, r: Any, last: Any, last_cell: Any
) -> tuple[Any, Any, Any]:
    gates, s, e = [], last, last_cell
    for arriving, by, inner, passed, stays in backwards(gy, factor, into, through, kept):
        s = plus(arriving, s)
        e = pw.add(e, pw.mul(s, inner))
        g = pw.mul(joined(e, s, e, e), by)
        gates.append(g)
        s = plus(matmul(g, r), None if stays is None else pw.mul(s, stays))
        e = pw.mul(e, passed)
    return in_order(gates), s, e


def backwards(*xs: Any) -> Iterator[tuple[Any, ...]]:
    """Yield the steps of each, the last first; None of what is None."""
    count = next(x.shape[0] for x in xs if x is not None)
    return zip(*((None,) * count if x is None else reversed(control.unstack(x, 0)) for x in xs), strict=True)


def turned(x: Any, lengths: Any) -> Any:
    """Reverse the live steps of each entry, (T, B, *)."""
    if lengths is None:
        return layout.flip(x, axes=(0,))
    return index.reverse_sequence(x, lengths, time_axis=0, batch_axis=1)


def of_direction(x: Any, d: int, axis: int = 0) -> Any:
    """Return what belongs to a direction."""
    if x is None:
        return None
    picked = layout.slice_(x, starts=(d,), stops=(d + 1,), steps=(1,), axes=(axis,))
    return layout.squeeze(picked, axes=(axis,))


def plus(x: Any, y: Any) -> Any:
    """Return the sum; None counts for nothing."""
    return y if x is None else x if y is None else pw.add(x, y)


def shifted(x: Any, start: Any) -> Any:
    """Return what stood before each step: the start, then all steps but the last."""
    first = layout.unsqueeze(start, axes=(0,))
    rest = layout.slice_(x, starts=(0,), stops=(x.shape[0] - 1,), steps=(1,), axes=(0,))
    return layout.concat(first, rest, axis=0)


def state_of(state: Any, y: Any, d: int) -> Any:
    """Return a direction's part of a state, or of its gradient, (B, H); zeros where it is None."""
    return create.full_like(y, shape=(y.shape[2], y.shape[3]), value=0) if state is None else of_direction(state, d)


def project(x: Any, w: Any) -> Any:
    """Return x W^T."""
    return matmul(x, layout.transpose(w, perm=(1, 0)))


def parts_of(x: Any, parts: int) -> Any:
    """Split the last axis; None stays."""
    if x is None:
        return (None,) * parts
    return layout.split(x, axis=x.ndim - 1, sizes=(x.shape[-1] // parts,) * parts)


def joined(*xs: Any) -> Any:
    """Join along the last axis."""
    return layout.concat(*xs, axis=xs[0].ndim - 1)


def flat(x: Any) -> Any:
    """Lay steps and batch entries under each other."""
    return layout.reshape(x, shape=(-1, x.shape[-1]))


def in_order(made: list[Any]) -> Any:
    """Stack what the walk back gave, last step first."""
    return control.stacked(made[::-1], 0)


def directions_of(runs: list[tuple[Any, ...]]) -> tuple[Any, ...]:
    """Stack what the directions gave."""
    return tuple(control.stacked(list(results), 0) for results in zip(*runs, strict=True))
