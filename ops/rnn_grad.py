"""Gradients of the recurrent layers, by one walk back over time a direction.

The forward walk keeps nothing but what it returns. From the states h of all steps the gates are computed anew, at once,
and their derivatives with them: what is left for the walk is one product with the recurrent weights a step. It gives
the gradients of the gates (before their activations), from which those of the inputs and weights are plain products.

Axes: T steps, B batch, I input, H hidden, D directions, G gates times H. A direction runs in its own order of steps: an
entry's live steps come first, and steps after its length hand the gradients of the state on.
Source: Werbos 1990 (backpropagation through time).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeAlias

from . import control, layout, pointwise as pw, reduce as red
from .cumulative import linear_scan
from .dims import DimLike
from .matmul import matmul, swapped
from .op import op
from .quantize import dynamic_fake_quantize
from .rnn import BACKWARD, Cells, activate, gru, lstm, rnn
from .rnn_train import gru_train, lstm_train
from .rnn_walk import (
    Walk,
    backwards,
    cell_walk,
    directions_of,
    flat,
    in_order,
    joined,
    of_direction,
    parts_of,
    plus,
    project,
    shifted,
    slope,
    state_of,
    state_walk,
    turned,
)
from .types import TensorType

Entries: TypeAlias = tuple[Callable[[], Any] | None, ...]


def _gate_types(y: TensorType, r: TensorType, gates: int) -> tuple[TensorType, TensorType]:
    steps, directions, batch, hidden = y.shape
    width: DimLike = gates * hidden
    return TensorType(y.dtype, (directions, steps, batch, width)), TensorType(y.dtype, (directions, batch, hidden))


@op()
def rnn_grad(
    gy: Any, gh: Any, y: TensorType, x: TensorType, w: TensorType, r: TensorType, b: Any, lengths: Any, h0: Any,
    *, direction: str, cells: Cells, clip: float | None = None,
) -> tuple[TensorType, ...]:  # fmt: skip
    """Return the gradients of `rnn` in x W^T of each step (D, T, B, H) and in h0.

    Shapes: gradients of the steps (T, D, B, H) or None and of the last state (D, B, H) or None, the steps; the rest as
    `rnn`.
    """
    return _gate_types(y, r, 1)


@op()
def gru_grad(
    gy: Any, gh: Any, y: TensorType, x: TensorType, w: TensorType, r: TensorType, b: Any, lengths: Any, h0: Any,
    kept: Any, *, direction: str, cells: Cells, clip: float | None = None, linear_before_reset: bool = False,
) -> tuple[TensorType, ...]:  # fmt: skip
    """Return the gradients of `gru` in x W^T of each step (D, T, B, 3H) and in h0, and what that of R takes.

    That is, with `linear_before_reset`, the gradient in h R^T of each step (D, T, B, 3H), else what the candidate's
    weights multiply in each step, r h (D, T, B, H).

    Shapes: gradients of the steps (T, D, B, H) or None and of the last state (D, B, H) or None, the steps; then as
    `gru`; `kept` is what `gru_train` gives beside, or None.
    """
    gates, for_h = _gate_types(y, r, 3)
    return gates, for_h, gates if linear_before_reset else _gate_types(y, r, 1)[0]


@op()
def lstm_grad(
    gy: Any, gh: Any, gc: Any, y: TensorType, x: TensorType, w: TensorType, r: TensorType, b: Any, lengths: Any,
    h0: Any, c0: Any, p: Any, kept: Any, kept_cells: Any, *, direction: str, cells: Cells, clip: float | None = None,
    input_forget: bool = False, quantized: bool = False,
) -> tuple[TensorType, ...]:  # fmt: skip
    """Return the gradients of `lstm` in x W^T of each step (D, T, B, 4H), in h0, c0, and in p where there is one.

    With `quantized` there is also what R multiplies in each step (D, T, B, H).

    Shapes: gradients of the steps (T, D, B, H) or None and of the last states (D, B, H) or None, the steps; then as
    `lstm`; `kept` and `kept_cells` are what `lstm_train` gives beside, or None.
    """
    gates, state = _gate_types(y, r, 4)
    return (gates, state, state, *(() if p is None else (p,)), *((_gate_types(y, r, 1)[0],) if quantized else ()))


@rnn_grad.compose
def _rnn_grad(
    gy: Any, gh: Any, y: Any, x: Any, w: Any, r: Any, b: Any, lengths: Any, h0: Any, *, direction: str, cells: Cells,
    clip: float | None = None,
) -> tuple[Any, ...]:  # fmt: skip
    runs = []
    for d, back in enumerate(BACKWARD[direction]):
        walk, rd = Walk(y, lengths, back), of_direction(r, d)
        bias = plus(*parts_of(of_direction(b, d), 2))
        hs = walk.turned(of_direction(y, d, 1))
        before = shifted(hs, state_of(h0, y, d))
        a = plus(pw.add(project(walk.turned(x), of_direction(w, d)), project(before, rd)), bias)
        factor = walk.masked(slope(a, hs, cells[d][0], clip))
        gates, _, dh = state_walk(walk.arriving(gy, d), factor, walk.ended(y), rd, state_of(gh, y, d))
        runs.append((walk.turned(gates), dh))
    return directions_of(runs)


@gru_grad.compose
def _gru_grad(
    gy: Any, gh: Any, y: Any, x: Any, w: Any, r: Any, b: Any, lengths: Any, h0: Any, kept: Any, *, direction: str,
    cells: Cells, clip: float | None = None, linear_before_reset: bool = False,
) -> tuple[Any, ...]:  # fmt: skip
    runs = []
    for d, back in enumerate(BACKWARD[direction]):
        walk, rd, (f, g) = Walk(y, lengths, back), of_direction(r, d), cells[d]
        wb, rb = parts_of(of_direction(b, d), 2)
        before = shifted(walk.turned(of_direction(y, d, 1)), state_of(h0, y, d))
        xz, xr, xn = parts_of(plus(project(walk.turned(x), of_direction(w, d)), wb), 3)
        hidden = walk.hidden
        two, rn = layout.split(rd, axis=0, sizes=(2 * hidden, hidden))
        bz, br, bn = parts_of(rb, 3)
        hz, hr = parts_of(project(before, two), 2)
        az, ar = plus(pw.add(xz, hz), bz), plus(pw.add(xr, hr), br)
        z, reset = activate(az, f, clip), activate(ar, f, clip)
        inner = plus(project(before if linear_before_reset else pw.mul(reset, before), rn), bn)
        an = pw.add(xn, pw.mul(reset, inner) if linear_before_reset else inner)
        n = activate(an, g, clip)
        by_n = pw.mul(pw.sub(1.0, z), slope(an, n, g, clip))
        by_z = pw.mul(pw.sub(before, n), slope(az, z, f, clip))
        by_r = pw.mul(inner if linear_before_reset else before, slope(ar, reset, f, clip))
        stays, arriving, dh = walk.masked(z, 1.0), walk.arriving(gy, d), state_of(gh, y, d)
        if linear_before_reset:
            factor = walk.masked(joined(by_z, pw.mul(by_r, by_n), pw.mul(by_n, reset)))
            beside, states, dh = state_walk(arriving, factor, stays, rd, dh)
            gates = joined(*parts_of(beside, 3)[:2], pw.mul(states, walk.masked(by_n)))
        else:
            made = []
            factors = (walk.masked(v) for v in (by_z, by_r, by_n, reset))
            for gt, kz, kr, kn, through, held in backwards(arriving, *factors, stays):
                dh = plus(gt, dh)
                dn = pw.mul(dh, kn)
                inside = matmul(dn, rn)
                zr = joined(pw.mul(dh, kz), pw.mul(inside, kr))
                made.append(joined(zr, dn))
                dh = pw.add(pw.add(pw.mul(dh, held), pw.mul(inside, through)), matmul(zr, two))
            gates, beside = in_order(made), pw.mul(reset, before)
        runs.append((walk.turned(gates), dh, walk.turned(beside)))
    return directions_of(runs)


@lstm_grad.compose
def _lstm_grad(
    gy: Any, gh: Any, gc: Any, y: Any, x: Any, w: Any, r: Any, b: Any, lengths: Any, h0: Any, c0: Any, p: Any,
    kept: Any, kept_cells: Any, *, direction: str, cells: Cells, clip: float | None = None, input_forget: bool = False,
    quantized: bool = False,
) -> tuple[Any, ...]:  # fmt: skip
    runs = []
    for d, back in enumerate(BACKWARD[direction]):
        walk, rd, (f, g, act) = Walk(y, lengths, back), of_direction(r, d), cells[d]
        pi, po, pf = parts_of(of_direction(p, d), 3)
        before = shifted(walk.turned(of_direction(y, d, 1)), state_of(h0, y, d))
        if quantized:
            before = control.stacked([dynamic_fake_quantize(h) for h in walk.held(before)], 0)
        bias = plus(*parts_of(of_direction(b, d), 2))
        projected = plus(pw.add(project(walk.turned(x), of_direction(w, d)), project(before, rd)), bias)
        ai, ao, af, an = parts_of(projected, 4)
        n = activate(an, g, clip)
        cell = state_of(c0, y, d)
        if p is None:
            i = activate(ai, f, clip)
            forget = pw.sub(1.0, i) if input_forget else activate(af, f, clip)
            first = layout.unsqueeze(cell, axes=(0,))
            scanned = linear_scan(
                layout.concat(first, forget, axis=0), layout.concat(first, pw.mul(i, n), axis=0), axis=0
            )
            old = layout.slice_(scanned, starts=(0,), stops=(walk.steps,), steps=(1,), axes=(0,))
            after = layout.slice_(scanned, starts=(1,), stops=(walk.steps + 1,), steps=(1,), axes=(0,))
        else:
            cs = []
            for si, sf, sn in zip(*(control.unstack(v, 0) for v in (ai, af, n)), strict=True):
                cs.append(cell)
                i = activate(pw.add(si, pw.mul(pi, cell)), f, clip)
                forget = pw.sub(1.0, i) if input_forget else activate(pw.add(sf, pw.mul(pf, cell)), f, clip)
                cell = pw.add(pw.mul(forget, cell), pw.mul(i, sn))
            old, after = control.stacked(cs, 0), control.stacked([*cs[1:], cell], 0)
            ai, ao, af = (pw.add(a, pw.mul(v, c)) for a, v, c in ((ai, pi, old), (ao, po, after), (af, pf, old)))
            i = activate(ai, f, clip)
            forget = pw.sub(1.0, i) if input_forget else activate(af, f, clip)
        o, shown = activate(ao, f, clip), activate(after, act, None)
        by_i = pw.mul(pw.sub(n, old) if input_forget else n, slope(ai, i, f, clip))
        by_f = pw.mul(old, 0.0 if input_forget else slope(af, forget, f, clip))
        by_o, by_n = pw.mul(shown, slope(ao, o, f, clip)), pw.mul(i, slope(an, n, g, clip))
        into, through = pw.mul(o, slope(after, shown, act, None)), forget
        if p is not None:
            into = pw.add(into, pw.mul(by_o, po))
            through = pw.add(through, pw.add(pw.mul(by_i, pi), pw.mul(by_f, pf)))
        gates, dh, dc = cell_walk(
            walk.arriving(gy, d), walk.masked(joined(by_i, by_o, by_f, by_n)), walk.masked(into),
            walk.masked(through, 1.0), walk.ended(y), rd, state_of(gh, y, d), state_of(gc, y, d),
        )  # fmt: skip
        results = [walk.turned(gates), dh, dc]
        if p is not None:
            seen = joined(old, after, old)
            results.append(red.sum_(pw.mul(joined(*parts_of(gates, 4)[:3]), seen), axes=(0, 1)))
        if quantized:
            results.append(walk.turned(before))
        runs.append(tuple(results))
    return directions_of(runs)


def _of_input(gates: Any, x: Any, w: Any) -> Any:
    """Return the gradient in x."""
    directions = gates.shape[0]
    flat = matmul(layout.reshape(gates, shape=(directions, -1, gates.shape[3])), w)
    total = layout.squeeze(flat, axes=(0,)) if directions == 1 else red.sum_(flat, axes=(0,))
    return layout.reshape(total, shape=tuple(x.shape))


def _of_weight(gates: Any, x: Any) -> Any:
    """Return the gradient in W, (D, G, I)."""
    return matmul(swapped(layout.reshape(gates, shape=(gates.shape[0], -1, gates.shape[3]))), flat(x))


def _of_recurrent(gates: Any, before: Any) -> Any:
    """Return the gradient in R, (D, G, H), of the gradients of the gates and what R multiplies, (D, T, B, *)."""
    deep = (gates.shape[0], -1)
    rows, columns = (layout.reshape(v, shape=(*deep, v.shape[3])) for v in (gates, before))
    return matmul(swapped(rows), columns)


def _before(y: Any, h0: Any, lengths: Any, direction: str) -> Any:
    """Return the state before each step, (D, T, B, H); behind an entry's length it means nothing."""
    found = []
    for d, back in enumerate(BACKWARD[direction]):
        own, start = of_direction(y, d, 1), state_of(h0, y, d)
        if not back:
            found.append(shifted(own, start))
        elif lengths is None or h0 is None:
            rest = layout.slice_(own, starts=(1,), stops=(y.shape[0],), steps=(1,), axes=(0,))
            found.append(layout.concat(rest, layout.unsqueeze(start, axes=(0,)), axis=0))
        else:
            found.append(turned(shifted(turned(own, lengths), start), lengths))
    return control.stacked(found, 0)


def _summed(gates: Any) -> Any:
    """Return the sums over steps and entries, (D, G)."""
    return red.sum_(gates, axes=(1, 2))


def _entries(
    walked: Callable[[], tuple[Any, ...]], x: Any, w: Any, b: Any, states: tuple[Any, ...],
    for_r: Callable[[], Any], for_b: Callable[[], Any] | None = None,
) -> Entries:  # fmt: skip
    """Return the entries of x, w, r, b, the lengths and the states, given what the walk gives.

    Args:
        walked: the gradients of the gates, then those of the states.
        x: the input.
        w: its weights.
        b: the biases.
        states: the initial states.
        for_r: makes the gradient in R.
        for_b: makes that in Rb, where it is not that in Wb.
    """

    def for_bias() -> Any:
        of_wb = _summed(walked()[0])
        return joined(of_wb, of_wb if for_b is None else for_b())

    def for_state(at: int) -> Callable[[], Any]:
        return lambda: walked()[1 + at]

    return (
        lambda: _of_input(walked()[0], x, w),
        lambda: _of_weight(walked()[0], x),
        for_r,
        None if b is None else for_bias,
        None,
        *(None if s is None else for_state(i) for i, s in enumerate(states)),
    )


@rnn.defvjp
def _rnn_vjp(g: Any, y: Any, x: Any, w: Any, r: Any, b: Any, lengths: Any, h0: Any, **attrs: Any) -> Entries:
    @functools.cache
    def walked() -> tuple[Any, ...]:
        return rnn_grad(g[0], g[1], y[0], x, w, r, b, lengths, h0, **attrs)  # type: ignore[no-any-return]

    def for_r() -> Any:
        return _of_recurrent(walked()[0], _before(y[0], h0, lengths, attrs["direction"]))

    return _entries(walked, x, w, b, (h0,), for_r)


@gru.defvjp
@gru_train.defvjp
def _gru_vjp(g: Any, y: Any, x: Any, w: Any, r: Any, b: Any, lengths: Any, h0: Any, **attrs: Any) -> Entries:
    kept = y[2] if len(y) > 2 else None
    linear, hidden = attrs.get("linear_before_reset"), r.shape[2]

    @functools.cache
    def walked() -> tuple[Any, ...]:
        return gru_grad(g[0], g[1], y[0], x, w, r, b, lengths, h0, kept, **attrs)  # type: ignore[no-any-return]

    def for_r() -> Any:
        gates, _, beside = walked()
        before = _before(y[0], h0, lengths, attrs["direction"])
        if linear:
            return _of_recurrent(beside, before)
        both, candidate = layout.split(gates, axis=3, sizes=(2 * hidden, hidden))
        return layout.concat(_of_recurrent(both, before), _of_recurrent(candidate, beside), axis=1)

    return _entries(walked, x, w, b, (h0,), for_r, (lambda: _summed(walked()[2])) if linear else None)


@lstm.defvjp
@lstm_train.defvjp
def _lstm_vjp(
    g: Any, y: Any, x: Any, w: Any, r: Any, b: Any, lengths: Any, h0: Any, c0: Any, p: Any, **attrs: Any
) -> Entries:
    kept = y[3:] if len(y) > 3 else (None, None)

    @functools.cache
    def walked() -> tuple[Any, ...]:
        found: tuple[Any, ...] = lstm_grad(*g[:3], y[0], x, w, r, b, lengths, h0, c0, p, *kept, **attrs)
        return found

    def for_r() -> Any:
        if attrs.get("quantized"):
            return _of_recurrent(walked()[0], walked()[-1])
        return _of_recurrent(walked()[0], _before(y[0], h0, lengths, attrs["direction"]))

    return *_entries(walked, x, w, b, (h0, c0), for_r), None if p is None else lambda: walked()[3]


__all__ = ["gru_grad", "lstm_grad", "rnn_grad"]
