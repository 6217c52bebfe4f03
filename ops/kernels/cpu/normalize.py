"""Normalisation layers and their gradients.

Where a row is short enough, one kernel walks over it as often as it must, while it is in the cache. Where there are few
long rows (the channels of a batch), three kernels do: the moments of pieces, what they are together, the result.

Source of joining moments: Chan, Golub & LeVeque 1983.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ...dims import Dim, DimLike, Shape, product
from .emitter import Emitter, V
from .lowering import Epilogue, Ref, Site, lowers
from .operand import Operand, row_major
from .reduce import LONG, call_rows, number, supported
from .row import Lanes, Row, walk
from .rows import Rows, arrange, arrange_map, cut, few_and_long, piecewise, spread, spread_epilogue

PIECE = 1 << 13
"""About how many elements a piece has whose moments are taken: they stay in the first cache."""


@dataclass(frozen=True)
class Norm:
    """A normalisation of rows.

    Attributes:
        rows: how to walk; operands are x, for a gradient g, scale and bias as far as they are there, then the output.
        epsilon: what is added to the variance.
        center: whether the mean is taken out.
        gradient: whether to compute the gradient of the standardised x instead.
        scale: whether there is a scale.
        bias: whether there is a bias.
        outside: whether epsilon is added to the deviation instead.
    """

    rows: Rows
    epsilon: float
    center: bool = True
    gradient: bool = False
    scale: bool = False
    bias: bool = False
    outside: bool = False


def emit_norm(e: Emitter, p: Norm) -> None:
    """Write a normalisation whose rows are walked over two or three times."""
    dtype = p.rows.operands[0].dtype
    last = len(p.rows.operands) - 1

    def body(row: Row) -> None:
        n = [row.count(dtype)] * row.width
        mean = _mean(row, n, dtype) if p.center else []
        given = [mean] if p.center else []
        if p.gradient:
            _standardize_gradient(row, p, n, given)
            return
        (squares,) = row.fold(("add",), lambda x, *m: [_square(e, _centred(e, x, *m))], (0,), given, dtype=dtype)
        r = row.each(
            lambda q, k: inverse_deviation(e, row, e.b.fdiv(q, k), p.epsilon, dtype, outside=p.outside), squares, n
        )

        def result(x: V, *more: V) -> Sequence[V]:
            affine, state = more[: p.scale + p.bias], more[p.scale + p.bias :]
            y = e.b.fmul(_centred(e, x, *state[:-1]), state[-1])
            return [_affine(e, y, affine, p.scale, p.bias)]

        row.map(result, tuple(range(last)), (last,), [*given, r], epilogue=last, unroll=4)

    walk(e, p.rows, body)


def _mean(row: Row, n: Lanes, dtype: Any) -> Lanes:
    (total,) = row.fold(("add",), lambda x: [x], (0,), dtype=dtype)
    return row.each(row.e.b.fdiv, total, n)


def _centred(e: Emitter, x: V, *mean: V) -> V:
    return e.b.fsub(x, mean[0]) if mean else x


def _square(e: Emitter, x: V) -> V:
    return e.b.fmul(x, x)


def _affine(e: Emitter, y: V, affine: Sequence[V], scale: bool, bias: bool) -> V:
    if scale and bias:
        return e.fma(y, affine[0], affine[1])
    return e.b.fmul(y, affine[0]) if scale else e.b.fadd(y, affine[0]) if bias else y


def inverse_deviation(e: Emitter, row: Row, variance: V, epsilon: float, dtype: Any, *, outside: bool = False) -> V:
    """Return the inverse of the deviation, epsilon added to the variance or outside of the root."""
    one, small = row.constant(1.0, dtype), row.constant(epsilon, dtype)
    root = e.call("llvm.sqrt", variance.type, [variance if outside else e.b.fadd(variance, small)])
    return e.b.fdiv(one, e.b.fadd(root, small) if outside else root)


def _standardize_gradient(row: Row, p: Norm, n: Lanes, given: Sequence[Lanes]) -> None:
    """Write r (g - mean(g) - c r r mean(g c)), with c the centred x."""
    e, dtype = row.e, p.rows.operands[0].dtype

    def terms(x: V, g: V, *m: V) -> Sequence[V]:
        c = _centred(e, x, *m)
        return [_square(e, c), e.b.fmul(g, c), *([g] if p.center else [])]

    folds = ("add",) * (2 + p.center)
    squares, products, *totals = row.fold(folds, terms, (0, 1), given, dtype=dtype, unroll=2)
    r = row.each(lambda q, k: inverse_deviation(e, row, e.b.fdiv(q, k), p.epsilon, dtype), squares, n)
    slope = row.each(lambda s, k, i: e.b.fmul(e.b.fmul(i, i), e.b.fdiv(s, k)), products, n, r)
    shift = [row.each(e.b.fdiv, totals[0], n)] if p.center else []
    row.map(
        lambda x, g, *state: _gradient(e, p.center, x, g, *state), (0, 1), (2,), [r, slope, *given, *shift],
        epilogue=2, unroll=4,
    )  # fmt: skip


def _gradient(e: Emitter, center: bool, x: V, g: V, r: V, slope: V, *centres: V) -> Sequence[V]:
    if center:
        x, g = e.b.fsub(x, centres[0]), e.b.fsub(g, centres[1])
    return [e.b.fmul(r, e.b.fsub(g, e.b.fmul(x, slope)))]


# few long rows ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Moments:
    """The moments of pieces; operands are x, for a gradient g, then what `MOMENTS` says."""

    rows: Rows
    center: bool
    gradient: bool


def emit_moments(e: Emitter, p: Moments) -> None:
    """Write the count, mean and centred squares of each piece; for a gradient also the sums of g c and g."""
    dtype = p.rows.operands[0].dtype
    reads = (0, 1) if p.gradient else (0,)
    first = len(reads)

    def body(row: Row) -> None:
        n = [row.count(dtype)] * row.width
        mean = _mean(row, n, dtype) if p.center else []

        def terms(x: V, *more: V) -> Sequence[V]:
            c = _centred(e, x, *more[first - 1 :])
            return [_square(e, c), *([e.b.fmul(more[0], c), more[0]] if p.gradient else [])]

        folds = ("add",) * (3 if p.gradient else 1)
        sums = row.fold(folds, terms, reads, [mean] if p.center else [], dtype=dtype, unroll=4 if first == 1 else 2)
        means = mean or [row.constant(0.0, dtype)] * row.width
        for k, value in enumerate([n, means, *sums]):
            row.put(first + k, value)

    walk(e, p.rows, body)


@dataclass(frozen=True)
class Joined:
    """What the moments of all pieces are together.

    Attributes:
        rows: how to walk; operands are the moments, then where the statistics go: mean and inverse deviation, for a
            gradient the slope and the mean of g; for running statistics the old ones and the new ones; for the
            gradients of scale and bias those.
        count: how many elements all pieces have.
        epsilon: what is added to the variance.
        gradient: whether there are sums with g.
        momentum: how much of the running statistics stays; None without.
        affine: whether to give the gradients of scale and bias.
    """

    rows: Rows
    count: DimLike
    epsilon: float
    gradient: bool = False
    momentum: float | None = None
    affine: bool = False


def emit_joined(e: Emitter, p: Joined) -> None:
    """Write the joining of moments."""
    dtype = p.rows.operands[0].dtype
    count = number(e, p.count, dtype)
    given = 5 if p.gradient else 3

    def body(row: Row) -> None:
        n = [e.splat(count, row.state_lanes)] * row.width
        (total,) = row.fold(("add",), lambda k, m: [e.b.fmul(k, m)], (0, 1), dtype=dtype)
        mean = row.each(e.b.fdiv, total, n)

        def terms(k: V, m: V, q: V, *more: V) -> Sequence[V]:
            d = e.b.fsub(m, more[-1])
            out = [e.b.fadd(q, e.b.fmul(k, e.b.fmul(d, d)))]
            return [*out, e.b.fadd(more[0], e.b.fmul(d, more[1])), more[1]] if p.gradient else out

        folds = ("add",) * (3 if p.gradient else 1)
        squares, *sums = row.fold(folds, terms, tuple(range(given)), [mean], dtype=dtype, unroll=2)
        variance = row.each(e.b.fdiv, squares, n)
        r = row.each(lambda v: inverse_deviation(e, row, v, p.epsilon, dtype), variance)
        results = [mean, r]
        if p.gradient:
            slope = row.each(lambda s, k, i: e.b.fmul(e.b.fmul(i, i), e.b.fdiv(s, k)), sums[0], n, r)
            results += [slope, row.each(e.b.fdiv, sums[1], n)]
        for k, value in enumerate(results):
            row.fill(given + k, value)
        if p.affine:
            row.put(given + len(results), row.each(e.b.fmul, sums[0], r))
            row.put(given + len(results) + 1, sums[1])
        if p.momentum is not None:
            old = given + len(results)
            stays, comes = row.constant(p.momentum, dtype), row.constant(1 - p.momentum, dtype)
            for k, batch in enumerate((mean, variance)):
                moved = row.each(
                    lambda a, v: e.b.fadd(e.b.fmul(a, stays), e.b.fmul(v, comes)), row.load(old + k), batch
                )
                row.put(old + 2 + k, moved)

    walk(e, p.rows, body)


@dataclass(frozen=True)
class Given:
    """A normalisation with statistics that are there.

    Attributes:
        rows: how to walk; operands are x, for a gradient g, the mean, the inverse deviation (the variance, where
            epsilon is not None), for a gradient slope and mean of g, scale and bias as far as they are there, then the
            output.
        gradient: whether it is the gradient of the standardised x.
        center: whether a gradient takes out means.
        epsilon: what is added to the variance.
        scale: whether there is a scale.
        bias: whether there is a bias.
    """

    rows: Rows
    gradient: bool = False
    center: bool = True
    epsilon: float | None = None
    scale: bool = False
    bias: bool = False


def emit_given(e: Emitter, p: Given) -> None:
    """Write a normalisation with given statistics."""
    dtype = p.rows.operands[0].dtype
    last = len(p.rows.operands) - 1

    def body(row: Row) -> None:
        if p.gradient:
            mean, r, slope, shift = (row.load(k) for k in (2, 3, 4, 5))
            if p.scale:
                r = row.each(e.b.fmul, r, row.load(6))
            state = [r, slope, mean, shift] if p.center else [r, slope]
            row.map(lambda *v: _gradient(e, p.center, *v), (0, 1), (last,), state, epilogue=last, unroll=4)
            return
        mean, r = row.load(1), row.load(2)
        if p.epsilon is not None:
            small = p.epsilon
            r = row.each(lambda v: inverse_deviation(e, row, v, small, dtype), r)
        if p.scale:
            r = row.each(e.b.fmul, r, row.load(3))
        more = [row.load(3 + p.scale)] if p.bias else []

        def result(x: V, m: V, k: V, *bias: V) -> Sequence[V]:
            c = e.b.fsub(x, m)
            return [e.fma(c, k, bias[0]) if bias else e.b.fmul(c, k)]

        row.map(result, (0,), (last,), [mean, r, *more], epilogue=last, unroll=8)

    walk(e, p.rows, body)


# lowering ---------------------------------------------------------------------------------------------------------


@dataclass
class Layer:
    """A normalisation layer at a site, over the axes of its input, which groups may split.

    Attributes:
        shape: of the walk.
        axes: that are reduced.
        wide: for statistics of pieces, the axes whose places stay apart until they are joined, of those reduced.
        inputs: x, and for a gradient g.
        affine: scale and bias, None where they are not there.
        output: where the result goes.
        epilogue: of the result.
    """

    shape: Shape
    axes: tuple[int, ...]
    inputs: list[tuple[Ref, Operand]]
    affine: list[tuple[Ref, Operand] | None]
    output: tuple[Ref, Operand]
    epilogue: Epilogue | None
    epsilon: float
    center: bool = True
    wide: tuple[int, ...] = ()

    @property
    def gradient(self) -> bool:
        """Whether there is a g."""
        return len(self.inputs) > 1

    @property
    def parameters(self) -> list[tuple[Ref, Operand]]:
        """Scale and bias as far as they are there."""
        return [a for a in self.affine if a is not None]


def in_one(site: Site, layer: Layer, *, outside: bool = False) -> Norm:
    """Return the normalisation in one kernel."""
    operands = [o for _, o in (*layer.inputs, *layer.parameters, layer.output)]
    inner = [a in layer.axes for a in range(len(layer.shape))]
    rows = arrange(
        site.target, operands[0].dtype, layer.shape, inner, operands, layer.epilogue, weight=2,
        width=4 if not layer.gradient else 2,
    )  # fmt: skip
    scale, bias = (a is not None for a in layer.affine)
    return Norm(rows, layer.epsilon, layer.center, layer.gradient, scale, bias, outside)


def call_in_one(site: Site, layer: Layer, name: str, norm: Norm) -> None:
    """Add the normalisation in one kernel."""
    refs = [r for r, _ in (*layer.inputs, *layer.parameters, layer.output)]
    call_rows(site, name, emit_norm, norm, norm.rows, refs, flops=8)


def call_in_three(
    site: Site, layer: Layer, name: str, running: Running | None = None, affine: Sequence[Ref] = ()
) -> None:
    """Add the normalisation in three kernels: moments of pieces, the moments together, the result.

    Args:
        site: where.
        layer: what.
        name: of the kernels.
        running: statistics to move on.
        affine: where the gradients of scale and bias go, for the axes of channels.
    """
    dtype, shape, ndim = layer.inputs[0][1].dtype, layer.shape, len(layer.shape)
    apart = [a for a in range(ndim) if a not in layer.axes or a in layer.wide]
    kept_shape = tuple(shape[a] for a in apart)
    size = product(kept_shape)
    strides: list[DimLike] = [0] * ndim
    for a, s in zip(apart, row_major(kept_shape), strict=True):
        strides[a] = s
    statistic = Operand(dtype, shape, tuple(strides))

    first = [o for _, o in layer.inputs]
    inner = [a not in apart for a in range(ndim)]
    rows = arrange(
        site.target, dtype, shape, inner, [*first, statistic], width=site.target.registers // (4 * len(first)), weight=2
    )
    pieces, blocks = cut(rows, dtype, PIECE // len(first) // (rows.lanes * rows.width if rows.columns else 1), weight=2)
    part, many = piecewise(pieces, len(first), blocks, size)
    number_of = 5 if layer.gradient else 3
    pieces = replace(pieces, operands=(*pieces.operands[:-1], *[part] * number_of))
    parts = [site.temporary(dtype, (many, *kept_shape)) for _ in range(number_of)]
    call_rows(
        site, f"{name}: moments", emit_moments, Moments(pieces, layer.center, layer.gradient), pieces,
        [*(r for r, _ in layer.inputs), *parts], flops=6,
    )  # fmt: skip

    joined_shape = (many, *kept_shape)
    given = Operand(dtype, joined_shape, row_major(joined_shape))
    result = Operand(dtype, joined_shape, (0, *row_major(kept_shape)))
    results = [site.temporary(dtype, kept_shape) for _ in range(4 if layer.gradient else 2)]
    operands = [*[given] * number_of, *[result] * len(results)]
    refs = [*parts, *results]
    if running is not None:
        operands += [spread(r.operand, (1,), 2) for r in running.refs]
        refs += running.refs
    operands += [spread(r.operand, (1,), 2) for r in affine]
    refs += affine
    inner = [True, *(a in layer.axes for a in apart)]
    together = arrange(site.target, dtype, joined_shape, inner, operands, width=2)
    count = product(shape[a] for a in layer.axes)
    momentum = running.momentum if running is not None else None
    params = Joined(together, count, layer.epsilon, layer.gradient, momentum, bool(affine))
    call_rows(site, f"{name}: statistics", emit_joined, params, together, refs, flops=4)

    known = [statistic] * len(results)
    call_given(site, layer, name, list(zip(results, known, strict=True)), None)


def call_given(
    site: Site, layer: Layer, name: str, statistics: Sequence[tuple[Ref, Operand]], epsilon: float | None
) -> None:
    """Add the kernel that normalises with statistics."""
    places = [*layer.inputs, *statistics, *layer.parameters, layer.output]
    first = len(layer.inputs)
    rows = arrange_map(
        site.target, layer.inputs[0][1].dtype, layer.shape, [o for _, o in places], layer.epilogue,
        hoist=range(first, len(places) - 1),
        width=site.target.registers // (4 * first),
    )  # fmt: skip
    scale, bias = (a is not None for a in layer.affine)
    params = Given(rows, layer.gradient, layer.center, epsilon, scale, bias)
    call_rows(site, name, emit_given, params, rows, [r for r, _ in places], flops=3)


@dataclass
class Running:
    """Running statistics: the old mean and variance, then the new ones."""

    refs: list[Ref]
    momentum: float


def call_layer(site: Site, layer: Layer, name: str) -> bool:
    """Add a normalisation, in one kernel or in three."""
    norm = in_one(site, layer)
    pixels = not norm.rows.columns and len(norm.rows.shape) > 1 and bool(layer.wide)
    if pixels or few_and_long(norm.rows, LONG):
        call_in_three(site, layer, name)
    else:
        call_in_one(site, layer, name, norm)
    return True


def _whole(site: Site, i: int, ndim: int) -> tuple[Ref, Operand]:
    ref = site.read(i)
    return ref, spread(ref.operand, range(ndim), ndim)


def _output(site: Site, ndim: int) -> tuple[Ref, Operand]:
    ref = site.write()
    return ref, spread(ref.operand, range(ndim), ndim)


def _epilogue(site: Site, ndim: int) -> Epilogue | None:
    return spread_epilogue(site.epilogue, range(ndim), ndim)


def _vector(site: Site, i: int, axes: Sequence[int], ndim: int) -> tuple[Ref, Operand]:
    ref = site.read(i, order="plain")
    return ref, spread(ref.operand, axes, ndim)


@lowers("standardize", "standardize_grad", fuses=True)
def _standardize(site: Site) -> bool:
    gradient = site.op == "standardize_grad"
    tensors = site.types[: 1 + gradient]
    if not supported(*tensors) or not tensors[0].shape:
        return False
    ndim, attrs = tensors[0].ndim, site.attrs
    axes = tuple(a % ndim for a in attrs["axes"])
    if not axes:
        return False
    inputs = [_whole(site, 1, ndim), _whole(site, 0, ndim)] if gradient else [_whole(site, 0, ndim)]
    layer = Layer(
        tensors[0].shape, axes, inputs, [None, None], _output(site, ndim), _epilogue(site, ndim), attrs["epsilon"],
        attrs.get("center", True),
    )  # fmt: skip
    return call_layer(site, layer, site.op)


@lowers("layer_norm", "rms_norm", fuses=True)
def _layer_norm(site: Site) -> bool:
    tensors = [t for t in site.types if t is not None]
    if not supported(*tensors) or not tensors[0].shape:
        return False
    t, ndim = tensors[0], tensors[0].ndim
    affine: list[tuple[Ref, Operand] | None] = []
    for i in (1, 2):
        if i >= len(site.types) or site.types[i] is None:
            affine.append(None)
            continue
        v = site.types[i]
        if v.ndim > ndim or any(m not in (1, n) for m, n in zip(v.shape, t.shape[ndim - v.ndim :], strict=True)):
            return False
        ref = site.read(i)
        affine.append((ref, spread(ref.operand, range(ndim - v.ndim, ndim), ndim)))
    axes = tuple(range(site.attrs["axis"] % ndim, ndim))
    layer = Layer(
        t.shape, axes, [_whole(site, 0, ndim)], affine, _output(site, ndim), _epilogue(site, ndim),
        site.attrs["epsilon"], site.op == "layer_norm",
    )  # fmt: skip
    call_in_one(site, layer, site.op, in_one(site, layer))
    return True


@lowers("instance_norm", "group_norm", fuses=True)
def _group_norm(site: Site) -> bool:
    if not supported(*site.types[:3]) or site.types[0].ndim < 2:
        return False
    t = site.types[0]
    groups = site.attrs.get("groups")
    if groups is None:
        ndim = t.ndim
        affine: list[tuple[Ref, Operand] | None] = [_vector(site, i, (1,), ndim) for i in (1, 2)]
        layer = Layer(
            t.shape, tuple(range(2, ndim)), [_whole(site, 0, ndim)], affine, _output(site, ndim),
            _epilogue(site, ndim), site.attrs["epsilon"],
        )  # fmt: skip
        if ndim == 2:
            return False
        return call_layer(site, layer, site.op)
    n, c, *rest = t.shape
    if isinstance(c, Dim) or isinstance(groups, Dim):
        return False
    each = c // groups
    shape = (n, groups, each, *rest)

    def split(o: Operand) -> Operand:
        """Return a view with the channels as groups and their channels."""
        s = o.strides
        return o.reshaped((1, groups, each), (s[0], s[1] * each, s[1], *s[2:]))

    ndim = t.ndim + 1
    x, out = site.read(0), site.write()
    vectors: list[tuple[Ref, Operand] | None] = []
    for i in (1, 2):
        ref = site.read(i, order="plain")
        vectors.append((ref, Operand(t.dtype, shape, (0, each, 1, *(0 for _ in rest)))))
    epilogue = _epilogue(site, t.ndim)
    if epilogue is not None:
        epilogue = replace(epilogue, operands=tuple(map(split, epilogue.operands)))
    layer = Layer(
        shape, tuple(range(2, ndim)), [(x, split(x.operand))], vectors, (out, split(out.operand)), epilogue,
        site.attrs["epsilon"], wide=(2,) if x.operand.channels_last else (),
    )  # fmt: skip
    return call_layer(site, layer, site.op)


@lowers("batch_norm", fuses=True)
def _batch_norm(site: Site) -> bool:
    if not supported(*site.types[:5]) or site.types[0].ndim < 2:
        return False
    layer = _channel_layer(site)
    statistics = [_vector(site, i, (1,), site.types[0].ndim) for i in (3, 4)]
    call_given(site, layer, site.op, statistics, site.attrs["epsilon"])
    return True


@lowers("batch_norm_train", fuses=True)
def _batch_norm_train(site: Site) -> bool:
    if not supported(*site.types[:5]) or site.types[0].ndim < 2:
        return False
    layer = _channel_layer(site)
    refs = [site.read(3, order="plain"), site.read(4, order="plain"), site.write(1), site.write(2)]
    call_in_three(site, layer, site.op, Running(refs, site.attrs["momentum"]))
    return True


@lowers("batch_norm_train_grad", fuses=True)
def _batch_norm_train_grad(site: Site) -> bool:
    if not supported(*site.types) or site.types[0].ndim < 2:
        return False
    t = site.types[0]
    affine = [_vector(site, 2, (1,), t.ndim), None]
    axes = (0, *range(2, t.ndim))
    inputs = [_whole(site, 1, t.ndim), _whole(site, 0, t.ndim)]
    layer = Layer(t.shape, axes, inputs, affine, _output(site, t.ndim), _epilogue(site, t.ndim), site.attrs["epsilon"])
    call_in_three(site, layer, site.op, affine=[site.write(1), site.write(2)])
    return True


def _channel_layer(site: Site) -> Layer:
    t = site.types[0]
    affine: list[tuple[Ref, Operand] | None] = [_vector(site, i, (1,), t.ndim) for i in (1, 2)]
    axes = (0, *range(2, t.ndim))
    return Layer(
        t.shape, axes, [_whole(site, 0, t.ndim)], affine, _output(site, t.ndim), _epilogue(site, t.ndim),
        site.attrs["epsilon"],
    )  # fmt: skip


@lowers("mean_variance_norm", fuses=True)
def _mean_variance_norm(site: Site) -> bool:
    t = site.types[0]
    if not supported(t) or not t.shape or not site.attrs["axes"]:
        return False
    axes = tuple(a % t.ndim for a in site.attrs["axes"])
    layer = Layer(
        t.shape, axes, [_whole(site, 0, t.ndim)], [None, None], _output(site, t.ndim), _epilogue(site, t.ndim), 1e-9
    )
    call_in_one(site, layer, site.op, in_one(site, layer, outside=True))
    return True
