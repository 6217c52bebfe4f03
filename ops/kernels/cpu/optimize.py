"""Steps of optimizers: one pass over a parameter, its gradient and its state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...dims import Dim
from ...optimize import SGD_IDLE, adam_idle
from ...types import DType
from .emitter import Emitter, V
from .kernel import kernel
from .lowering import Site, lowers

_CHUNK = 1 << 16
"""Elements of a chunk."""


@dataclass(frozen=True)
class Step:
    """What the code of a step depends on.

    Attributes:
        adam: whether it is Adam's.
        count: elements of the parameter.
        dtype: of everything.
        state: how many tensors of state there are.
        decays, nesterov, decoupled: the ops' attributes.
        lanes: of a vector.
        skips: whether a number other than 0 means that nothing changes.
        factors: how many numbers the gradient is multiplied with.
    """

    adam: bool
    count: int
    dtype: DType
    state: int
    decays: bool
    nesterov: bool
    decoupled: bool
    lanes: int
    skips: bool
    factors: int


@lowers("sgd_update")
def sgd(site: Site) -> bool:
    """Lower a step of gradient descent."""
    return _step(site, False)


@lowers("adam_update")
def adam(site: Site) -> bool:
    """Lower a step of Adam."""
    return _step(site, True)


def _step(site: Site, is_adam: bool) -> bool:
    dtype, size = site.result.dtype, 1
    for d in site.result.shape:
        if isinstance(d, Dim):
            return False
        size *= int(d)
    if dtype.name not in ("float32", "float64"):
        return False
    given = [i for i, t in enumerate(site.types) if t is not None and not isinstance(t, list)]
    inputs = [site.read(i, order="plain") for i in given]
    last = len(site.types) - 1
    factors = len(site.types[last]) if isinstance(site.types[last], list) else 0
    inputs += [site.read(last, order="plain", item=k) for k in range(factors)]
    outputs = [site.write(i, order="plain") for i in range(len(site.results))]
    step = Step(
        is_adam, size, dtype, len(outputs) - 1, site.attrs["decays"], site.attrs.get("nesterov", False),
        site.attrs.get("decoupled", False), site.target.lanes(dtype), len(inputs) - factors > len(outputs) + 2, factors,
    )  # fmt: skip
    made = kernel(
        "adam_update" if is_adam else "sgd_update",
        _emit,
        step,
        operands=len(inputs) + len(outputs),
        chunks=-(-size // _CHUNK),
        flops=size * (16 if is_adam else 4),
        bytes=size * dtype.itemsize * (len(inputs) - 1 + len(outputs)),
    )
    site.call(made, [*inputs, *outputs])
    return True


def _emit(e: Emitter, step: Step) -> None:
    tensors, single = 2 + step.state, np.dtype(np.float32)
    idle = adam_idle(step.decoupled) if step.adam else SGD_IDLE
    scalars = [e.load(e.at(e.pointer(tensors), i, step.dtype), step.dtype) for i in range(len(idle))]
    real, before = scalars[0].type, tensors + 1 + step.skips
    skipped: V = None
    if step.skips:
        flag = e.load(e.pointer(tensors + 1), single)
        skipped = e.b.fcmp_unordered("!=", flag, e.constant(0.0, flag.type))
        scalars = [e.b.select(skipped, e.constant(v, real), s) for v, s in zip(idle, scalars, strict=True)]
    factors = [e.load(e.pointer(before + i), single) for i in range(step.factors)]
    factors = [f if f.type == real else e.b.fpext(f, real) for f in factors]
    low = e.mul(e.chunk, _CHUNK)
    high = e.min(e.add(low, _CHUNK), step.count)
    sources = [e.pointer(i) for i in range(tensors)]
    targets = [e.pointer(before + step.factors + i) for i in range(1 + step.state)]

    wide = [e.splat(s, step.lanes) for s in scalars]
    wide_factors = [e.splat(f, step.lanes) for f in factors]

    def vectors(at: Any, lanes: int, count: int, mask: V = None) -> None:
        numbers = scalars if lanes == 1 else wide
        places = [e.add(at, k * lanes) for k in range(count)]
        loaded = [
            [e.load(e.at(p, place, step.dtype), step.dtype, lanes, mask=mask) for p in sources] for place in places
        ]
        for place, values in zip(places, loaded, strict=True):
            for f in factors if lanes == 1 else wide_factors:
                values[1] = e.b.fmul(values[1], f)
            if skipped is not None:
                values[1] = e.b.select(skipped, e.constant(0.0, values[1].type), values[1])
            made = (_adam if step.adam else _sgd)(e, step, values, numbers)
            if skipped is not None and len(made) > 3:
                made[3] = e.b.select(skipped, values[4], made[3])
            for p, y in zip(targets, made, strict=True):
                e.store(y, e.at(p, place, step.dtype), step.dtype, mask=mask)

    lanes, unroll = step.lanes, 2
    length = e.sub(high, low)
    middle = e.add(low, e.mul(e.div(length, lanes * unroll), lanes * unroll))
    with e.loop(low, middle, lanes * unroll) as loop:
        vectors(loop.index, lanes, unroll)
    if e.target.masks:
        with e.loop(middle, high, lanes) as loop:
            vectors(loop.index, lanes, 1, e.tail_mask(e.sub(high, loop.index), lanes))
    else:
        with e.loop(middle, high) as loop:
            vectors(loop.index, 1, 1)


def _sgd(e: Emitter, step: Step, values: Sequence[V], numbers: Sequence[V]) -> list[V]:
    lr, weight_decay, momentum, keep = numbers
    p, g = values[:2]
    if step.decays:
        g = e.fma(p, weight_decay, g)
    state = []
    if step.state:
        buffer = e.fma(values[2], momentum, e.b.fmul(g, keep))
        state = [buffer]
        g = e.fma(buffer, momentum, g) if step.nesterov else buffer
    return [e.b.fsub(p, e.b.fmul(g, lr)), *state]


def _adam(e: Emitter, step: Step, values: Sequence[V], numbers: Sequence[V]) -> list[V]:
    decay, grow_mean, keep_square, grow_square, square_scale, eps, rate = numbers
    p, g, mean, square = values[:4]
    if step.decays and step.decoupled:
        p = e.b.fmul(p, decay)
    elif step.decays:
        g = e.fma(p, decay, g)
    mean = e.fma(e.b.fsub(g, mean), grow_mean, mean)
    square = e.fma(e.b.fmul(g, g), grow_square, e.b.fmul(square, keep_square))
    made = [mean, square]
    if step.state > 2:
        square = e.combine("max", values[4], square)
        made.append(square)
    root = e.call("llvm.sqrt", square.type, [square])
    below = e.b.fadd(e.b.fdiv(root, square_scale), eps)
    return [e.b.fsub(p, e.b.fmul(e.b.fdiv(mean, below), rate)), *made]
