"""Steps of optimizers: one pass over a parameter, its gradient and its state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ...dims import Dim
from ...optimize import ADAM_NUMBERS, SGD_NUMBERS
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
    """

    adam: bool
    count: int
    dtype: DType
    state: int
    decays: bool
    nesterov: bool
    decoupled: bool
    lanes: int


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
    given = [i for i, t in enumerate(site.types) if t is not None]
    inputs = [site.read(i, order="plain") for i in given]
    outputs = [site.write(i, order="plain") for i in range(len(site.results))]
    step = Step(
        is_adam, size, dtype, len(outputs) - 1, site.attrs["decays"], site.attrs.get("nesterov", False),
        site.attrs.get("decoupled", False), site.target.lanes(dtype),
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
    tensors = 2 + step.state
    names = ADAM_NUMBERS if step.adam else SGD_NUMBERS
    scalars = [e.load(e.at(e.pointer(tensors), i, step.dtype), step.dtype) for i in range(len(names))]
    low = e.mul(e.chunk, _CHUNK)
    high = e.min(e.add(low, _CHUNK), step.count)
    sources = [e.pointer(i) for i in range(tensors)]
    targets = [e.pointer(tensors + 1 + i) for i in range(1 + step.state)]

    wide = [e.splat(s, step.lanes) for s in scalars]

    def vectors(at: Any, lanes: int, count: int, mask: V = None) -> None:
        numbers = scalars if lanes == 1 else wide
        places = [e.add(at, k * lanes) for k in range(count)]
        loaded = [
            [e.load(e.at(p, place, step.dtype), step.dtype, lanes, mask=mask) for p in sources] for place in places
        ]
        for place, values in zip(places, loaded, strict=True):
            for p, y in zip(targets, (_adam if step.adam else _sgd)(e, step, values, numbers), strict=True):
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
