"""Recurrent layers: the plain cell, GRU and LSTM, in one or both directions.

Every kernel multiplies all steps by the input weights at once and then loops over time; the composition
beside each op does the same with ops, which is where gradients come from.

Axes: T steps, B batch, I input, H hidden, D directions. `direction` is forward, reverse or bidirectional;
`cells` has one tuple of activations (name, alpha, beta) a direction. Steps after an entry's length give zeros
and change no state.
Source: ONNX RNN-22, GRU-22, LSTM-22; Hochreiter & Schmidhuber 1997; Cho et al. 2014.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from . import control, create, index, layout, pointwise as pw
from .dims import show
from .errors import ShapeError, SymbolicError
from .matmul import matmul
from .op import namespace, op
from .quantize import dynamic_fake_quantize
from .types import TensorType

Activation: TypeAlias = tuple[str, float, float]
Cells: TypeAlias = tuple[tuple[Activation, ...], ...]
Step: TypeAlias = Callable[[Any, tuple[Any, ...]], tuple[Any, ...]]

BACKWARD = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}
"""For each direction, whether it runs from the last step to the first."""


@op()
def rnn(
    x: TensorType,
    w: TensorType,
    r: TensorType,
    b: Any,
    lengths: Any,
    h0: Any,
    *,
    direction: str,
    cells: Cells,
    clip: float | None = None,
) -> tuple[TensorType, ...]:
    """h = f(x W^T + h R^T + Wb + Rb), step by step.

    Shapes: (T, B, I), (D, H, I), (D, H, H), (D, 2H) or None, (B,) or None, (D, B, H) or None
    -> every step (T, D, B, H), the last (D, B, H).

    Raises:
        ShapeError: if the weights do not fit the input or the direction.
    """
    return _types("rnn", x, w, r, direction, 1, 1)


@op()
def gru(
    x: TensorType,
    w: TensorType,
    r: TensorType,
    b: Any,
    lengths: Any,
    h0: Any,
    *,
    direction: str,
    cells: Cells,
    clip: float | None = None,
    linear_before_reset: bool = False,
) -> tuple[TensorType, ...]:
    """h = (1 - z) * n + z * h, with the gates z (update), r (reset), n (candidate), in this order in W, R, b.

    With `linear_before_reset` the reset gate multiplies h R^T + Rb instead of h (as cuDNN and PyTorch do).

    Shapes: (T, B, I), (D, 3H, I), (D, 3H, H), (D, 6H) or None, (B,) or None, (D, B, H) or None
    -> every step (T, D, B, H), the last (D, B, H).

    Raises:
        ShapeError: if the weights do not fit the input or the direction.
    """
    return _types("gru", x, w, r, direction, 3, 1)


@op()
def lstm(
    x: TensorType,
    w: TensorType,
    r: TensorType,
    b: Any,
    lengths: Any,
    h0: Any,
    c0: Any,
    p: Any,
    *,
    direction: str,
    cells: Cells,
    clip: float | None = None,
    input_forget: bool = False,
    quantized: bool = False,
) -> tuple[TensorType, ...]:
    """c = f * c + i * n, h = o * act(c), with the gates i, o, f, n (candidate), in this order in W, R, b.

    The peephole weights p (i, o, f) let the gates see the cell; `input_forget` couples them, f = 1 - i. With
    `quantized` R meets h as `dynamic_fake_quantize` leaves it.

    Shapes: (T, B, I), (D, 4H, I), (D, 4H, H), (D, 8H) or None, (B,) or None, (D, B, H) or None twice, (D, 3H)
    or None
    -> every step (T, D, B, H), the last (D, B, H), the last cell (D, B, H).

    Raises:
        ShapeError: if the weights do not fit the input or the direction.
    """
    return _types("lstm", x, w, r, direction, 4, 2)


def _types(
    name: str, x: TensorType, w: TensorType, r: TensorType, direction: str, gates: int, states: int
) -> tuple[TensorType, ...]:
    directions = len(BACKWARD[direction])
    hidden = r.known_shape[-1] if r.known_shape is not None else None
    if x.known_shape is None or w.known_shape is None or hidden is None:
        return (TensorType(x.dtype, None),) * (1 + states)
    if x.ndim != 3 or w.ndim != 3:
        raise ShapeError(f"{name}: wants x (T, B, I) and w (D, {gates}H, I), found {show(x.shape)} and {show(w.shape)}")
    wanted = (directions, gates * hidden, x.shape[2])
    if any(isinstance(d, int) and isinstance(n, int) and d != n for d, n in zip(w.shape, wanted, strict=True)):
        raise ShapeError(f"{name}: w has shape {show(w.shape)}, wanted {show(wanted)}")
    last = TensorType(x.dtype, (directions, x.shape[1], hidden))
    return (TensorType(x.dtype, (x.shape[0], directions, x.shape[1], hidden)), *(last,) * states)


def activate(x: Any, activation: Activation, clip: float | None) -> Any:
    """Apply an activation, to what is clipped first where there is a threshold."""
    name, alpha, beta = activation
    if clip is not None:
        x = pw.clip(x, -clip, clip)
    match name:
        case "Affine":
            return pw.add(pw.mul(x, alpha), beta)
        case "ThresholdedRelu":
            return pw.where(pw.less(x, alpha), 0.0, x)
        case "ScaledTanh":
            return pw.mul(pw.tanh(pw.mul(x, beta)), alpha)
        case "HardSigmoid":
            return pw.hard_sigmoid(x, alpha, beta)
        case "LeakyRelu":
            return pw.leaky_relu(x, alpha)
        case "Elu":
            return pw.elu(x, alpha)
    simple = {
        "Relu": pw.relu,
        "Tanh": pw.tanh,
        "Sigmoid": pw.sigmoid,
        "Softsign": pw.softsign,
        "Softplus": pw.softplus,
    }
    return simple[name](x)


def flipped(lengths: Any, steps: int, batch: int) -> Any:
    """Return rows (step * B + entry), shape (T * B,), that reverse each entry's steps and leave the rest."""
    xp = namespace(lengths)
    t = xp.arange(steps).reshape(-1, 1)
    back = xp.where(t < lengths, lengths - 1 - t, t)
    return (back * batch + xp.arange(batch)).reshape(-1)


def _reversed(x: Any, lengths: Any) -> Any:
    steps, batch, width = x.shape
    if lengths is None:
        return layout.flip(x, axes=(0,))
    flat = layout.reshape(x, shape=(steps * batch, width))
    return layout.reshape(index.gather(flat, flipped(lengths, steps, batch), axis=0), shape=(steps, batch, width))


def _sweep(x: Any, lengths: Any, back: bool, states: tuple[Any, ...], step: Step) -> tuple[Any, ...]:
    """Run a cell over projected steps (T, B, G); return every h (T, B, H) and the final states."""
    if lengths is not None:
        lengths = getattr(lengths, "array", lengths)
        if lengths is None:
            raise SymbolicError("the lengths of the sequences are known only at run time")
        if bool((lengths == x.shape[0]).all()):
            lengths = None
    if back:
        x = _reversed(x, lengths)
    made = []
    for t, xt in enumerate(control.unstack(x, 0)):
        after = step(xt, states)
        if lengths is None:
            made.append(after[0])
        else:
            live = (lengths > t).reshape(-1, 1)
            made.append(pw.where(live, after[0], 0.0))
            after = tuple(pw.where(live, a, s) for a, s in zip(after, states, strict=True))
        states = after
    y = control.stacked(made, 0)
    return (_reversed(y, lengths) if back else y, *states)


def _entry(x: Any, d: int) -> Any:
    return None if x is None else control.unstack(x, 0)[d]


def _split(x: Any, parts: int) -> Sequence[Any]:
    if x is None:
        return (None,) * parts
    size = x.shape[-1] // parts
    return layout.split(x, axis=x.ndim - 1, sizes=(size,) * parts)  # type: ignore[no-any-return]


def _plus(x: Any, y: Any) -> Any:
    return x if y is None else pw.add(x, y)


def _zeros(x: Any, hidden: int) -> Any:
    return create.full_like(x, shape=(x.shape[1], hidden), value=0)


def _project(x: Any, w: Any) -> Any:
    return matmul(x, layout.transpose(w, perm=(1, 0)))


def _gathered(runs: Sequence[tuple[Any, ...]]) -> tuple[Any, ...]:
    """Stack the directions: y (T, B, H) along axis 1, states (B, H) along axis 0."""
    first, *rest = zip(*runs, strict=True)
    return (control.stacked(list(first), 1), *(control.stacked(list(s), 0) for s in rest))


@rnn.compose
def _rnn(
    x: Any,
    w: Any,
    r: Any,
    b: Any,
    lengths: Any,
    h0: Any,
    *,
    direction: str,
    cells: Cells,
    clip: float | None = None,
) -> tuple[Any, ...]:
    runs = []
    for d, back in enumerate(BACKWARD[direction]):
        rd = layout.transpose(_entry(r, d), perm=(1, 0))
        wb, rb = _split(_entry(b, d), 2)
        (f,) = cells[d]

        def step(xt: Any, states: tuple[Any, ...], rd: Any = rd, rb: Any = rb, f: Activation = f) -> tuple[Any, ...]:
            return (activate(_plus(pw.add(xt, matmul(states[0], rd)), rb), f, clip),)

        h = _zeros(x, r.shape[2]) if h0 is None else _entry(h0, d)
        runs.append(_sweep(_plus(_project(x, _entry(w, d)), wb), lengths, back, (h,), step))
    return _gathered(runs)


@gru.compose
def _gru(
    x: Any,
    w: Any,
    r: Any,
    b: Any,
    lengths: Any,
    h0: Any,
    *,
    direction: str,
    cells: Cells,
    clip: float | None = None,
    linear_before_reset: bool = False,
) -> tuple[Any, ...]:
    hidden = r.shape[2]
    runs = []
    for d, back in enumerate(BACKWARD[direction]):
        rz, rr, rn = (layout.transpose(v, perm=(1, 0)) for v in _rows(_entry(r, d), 3))
        wb, rb = _split(_entry(b, d), 2)
        bz, br, bn = _split(rb, 3)
        f, g = cells[d]

        def step(
            xt: Any,
            states: tuple[Any, ...],
            rz: Any = rz,
            rr: Any = rr,
            rn: Any = rn,
            bz: Any = bz,
            br: Any = br,
            bn: Any = bn,
            f: Activation = f,
            g: Activation = g,
        ) -> tuple[Any, ...]:
            (h,) = states
            xz, xr, xn = _split(xt, 3)
            z = activate(_plus(pw.add(xz, matmul(h, rz)), bz), f, clip)
            reset = activate(_plus(pw.add(xr, matmul(h, rr)), br), f, clip)
            if linear_before_reset:
                inner = pw.mul(reset, _plus(matmul(h, rn), bn))
            else:
                inner = _plus(matmul(pw.mul(reset, h), rn), bn)
            n = activate(pw.add(xn, inner), g, clip)
            return (pw.add(n, pw.mul(z, pw.sub(h, n))),)

        h = _zeros(x, hidden) if h0 is None else _entry(h0, d)
        runs.append(_sweep(_plus(_project(x, _entry(w, d)), wb), lengths, back, (h,), step))
    return _gathered(runs)


def _rows(x: Any, parts: int) -> Sequence[Any]:
    return layout.split(x, axis=0, sizes=(x.shape[0] // parts,) * parts)  # type: ignore[no-any-return]


@lstm.compose
def _lstm(
    x: Any,
    w: Any,
    r: Any,
    b: Any,
    lengths: Any,
    h0: Any,
    c0: Any,
    p: Any,
    *,
    direction: str,
    cells: Cells,
    clip: float | None = None,
    input_forget: bool = False,
    quantized: bool = False,
) -> tuple[Any, ...]:
    hidden = r.shape[2]
    runs = []
    for d, back in enumerate(BACKWARD[direction]):
        rd = layout.transpose(_entry(r, d), perm=(1, 0))
        wb, rb = _split(_entry(b, d), 2)
        peep = _split(_entry(p, d), 3)
        f, g, act = cells[d]

        def step(
            xt: Any,
            states: tuple[Any, ...],
            rd: Any = rd,
            peep: Sequence[Any] = peep,
            f: Activation = f,
            g: Activation = g,
            act: Activation = act,
        ) -> tuple[Any, ...]:
            h, c = states
            seen = dynamic_fake_quantize(h) if quantized else h
            i, o, forget, n = _split(pw.add(xt, matmul(seen, rd)), 4)
            pi, po, pf = (None, None, None) if peep[0] is None else peep
            i = activate(_seeing(i, pi, c), f, clip)
            forget = pw.sub(1.0, i) if input_forget else activate(_seeing(forget, pf, c), f, clip)
            c = pw.add(pw.mul(forget, c), pw.mul(i, activate(n, g, clip)))
            o = activate(_seeing(o, po, c), f, clip)
            return pw.mul(o, activate(c, act, None)), c

        h = _zeros(x, hidden) if h0 is None else _entry(h0, d)
        c = _zeros(x, hidden) if c0 is None else _entry(c0, d)
        projected = _plus(_plus(_project(x, _entry(w, d)), wb), rb)
        runs.append(_sweep(projected, lengths, back, (h, c), step))
    return _gathered(runs)


def _seeing(gate: Any, peephole: Any, cell: Any) -> Any:
    return gate if peephole is None else pw.add(gate, pw.mul(peephole, cell))


__all__ = ["BACKWARD", "Activation", "Cells", "activate", "flipped", "gru", "lstm", "rnn"]
