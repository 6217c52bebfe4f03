"""Normalisation layers and the gradients that need no sums over what scale and bias were broadcast along.

Where a row fits the registers of its threads, one kernel reads it once. A longer row is read twice, its moments taken
relative to its first elements. Of few long rows (the channels of a batch) three kernels make the moments of pieces,
what they are together, and the result.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod

from ...types import TensorType
from .lowering import Site, every, lowers
from .operand import Operand
from .row_kernel import Axes, RowKernel, floats, function, real
from .row_parts import joined, parts_of, statistic, stored_as
from .rows import Along, spread, whole


@dataclass(frozen=True)
class Layer:
    """A normalisation of rows, or its gradient.

    Attributes:
        shape: of the walk.
        reduced: which of its axes are in a row.
        x: what is normalised.
        y: the output: y, or the gradient of x.
        epsilon: what is added to the variance.
        axes: the axes of the walk that the output has, or how it lies along them.
        g: the gradient of the result; None: the result is wanted.
        beside: what `g` is computed of beside that.
        derived: the lines that compute it, by its name.
        scale: what a result, or its gradient, is multiplied by.
        bias: what is added to a result.
        center: whether the mean is taken out.
        outside: whether epsilon is added to the deviation instead.
        inside: whether a gradient is multiplied by the scale before it is projected, because that differs in a row.
        apart: axes of a row whose places are kept apart at first, because packs lie along them.
        old: running mean and variance; `new` are those moved on.
        new: see `old`; or the gradients of scale and bias.
        momentum: how much of the running statistics stays.
    """

    shape: tuple[int, ...]
    reduced: tuple[bool, ...]
    x: Along
    y: Along
    epsilon: float
    axes: Axes
    g: Along | None = None
    beside: tuple[Along, ...] = ()
    derived: Mapping[str, Sequence[str]] = field(default_factory=dict)
    scale: Along | None = None
    bias: Along | None = None
    center: bool = True
    outside: bool = False
    inside: bool = False
    apart: tuple[int, ...] = ()
    old: tuple[Along, ...] = ()
    new: tuple[Along, ...] = ()
    momentum: float = 0.0

    @property
    def walked(self) -> list[Along]:
        """What has all axes."""
        return [self.x] if self.g is None else [self.x, self.g, *self.beside]

    @property
    def affine(self) -> list[Along]:
        """Scale and bias, as far as they are there."""
        return [a for a in (self.scale, self.bias) if a is not None]

    @property
    def ctype(self) -> str:
        """What is calculated with."""
        return real(*(t.ref.operand.dtype for t in (*self.walked, *self.affine, *self.old)))

    @property
    def centred(self) -> str:
        """The element without its mean."""
        return "(x - mean)" if self.center else "x"

    @property
    def given(self) -> str:
        """The gradient of what was standardised."""
        return "(g * scale)" if self.inside else "g"

    @property
    def sums(self) -> tuple[str, ...]:
        """What is known of a piece."""
        if self.center:
            return ("count", "mean", "squares", *(() if self.g is None else ("products", "total")))
        return ("squares",) if self.g is None else ("squares", "products")

    @property
    def statistics(self) -> tuple[str, ...]:
        """What the result is computed with."""
        found = ("mean", "r") if self.center else ("r",)
        return found if self.g is None else (*found, *(("slope", "shift") if self.center else ("slope",)))

    def behind(self, along: Along) -> Along:
        """Return a tensor along a walk with an axis of pieces in front."""
        return Along(along.name, along.ref, (0, *along.strides))


def normalize(site: Site, layer: Layer) -> None:
    """Lower a layer: in one kernel, or in three."""
    reads = [*layer.walked, *layer.affine, *layer.old]
    writes = [layer.y, *layer.new]
    hold = tuple(t.name for t in layer.walked)
    k = RowKernel(
        site, site.op, layer.shape, layer.reduced, reads, writes, ctype=layer.ctype, hold=hold, axes=layer.axes,
        derived=layer.derived,
    )  # fmt: skip
    if not k.held and _in_three(site, layer):
        return
    moments(k, layer)
    finish(k, layer)
    k.map({layer.y.name: result(layer)})
    k.launch()


def moments(k: RowKernel, layer: Layer) -> None:
    """Fold what the statistics are made of."""
    total, c, g = f"Sum<{k.ctype}>", layer.centred, layer.given
    if k.held and layer.center:
        k.number("n", float(prod(n for n, r in zip(layer.shape, layer.reduced, strict=True) if r)))
        k.fold([(("sum",), total, "x")])
        k.state("mean", "sum / n")
        k.fold([
            (("squares",), total, f"{c} * {c}"),
            *([] if layer.g is None else [(("products",), total, f"{g} * {c}"), (("total",), total, g)]),
        ])  # fmt: skip
    elif layer.center and layer.g is None:
        k.fold([(layer.sums, f"Shifted<{k.ctype}>", "x")])
    elif layer.center:
        k.fold([(layer.sums, f"ShiftedJoint<{k.ctype}>", f"x, {g}")])
    else:
        terms = {"squares": "x * x", "products": f"{g} * x"}
        k.fold([((s,), total, terms[s]) for s in layer.sums])


def finish(k: RowKernel, layer: Layer, *, keep: Sequence[str] = ()) -> None:
    """Compute the statistics of what was folded; those to be kept are put in tensors `mean_kept` and so on."""
    c = k.ctype
    root = function("sqrt", c)
    k.number("n", float(prod(n for n, r in zip(layer.shape, layer.reduced, strict=True) if r)))
    k.number("epsilon", layer.epsilon)
    k.state("variance", "squares / n")
    k.state("r", f"({c})1 / " + (f"({root}(variance) + epsilon)" if layer.outside else f"{root}(variance + epsilon)"))
    if layer.g is not None:
        k.state("slope", "r * r * (products / n)")
        if layer.center:
            k.state("shift", "total / n")
    results = {f"{s}_kept": s for s in keep}
    if layer.old:
        k.number("stays", layer.momentum)
        k.number("comes", 1 - layer.momentum)
        results |= {"new_mean": "old_mean * stays + mean * comes", "new_var": "old_var * stays + variance * comes"}
    elif layer.new:
        results |= {"dscale": "products * r", "dbias": "total"}
    if results:
        k.put(results)


def result(layer: Layer) -> str:
    """Return an element of the output."""
    c = layer.centred
    if layer.g is None:
        scaled = f"{c} * r" + ("" if layer.scale is None else " * scale")
        return scaled + ("" if layer.bias is None else " + bias")
    g = f"({layer.given} - shift)" if layer.center else layer.given
    by = "r * scale" if layer.scale is not None and not layer.inside else "r"
    return f"{by} * ({g} - {c} * slope)"


def _in_three(site: Site, layer: Layer) -> bool:
    """Lower the moments of pieces, what they are together, and the result; False if rows are not cut."""
    first = tuple(r and a not in layer.apart for a, r in enumerate(layer.reduced))
    stored = stored_as(layer.ctype)
    reads = [*layer.walked, *([layer.scale] if layer.inside and layer.scale is not None else [])]
    names = dict.fromkeys(layer.sums, stored)
    pieces, parts = parts_of(site, layer.x, layer.shape, first, names, reads[1:], widest=4, always=bool(layer.apart))
    if not parts:
        return False
    k = RowKernel(
        site, f"{site.op}_pieces", layer.shape, first, reads, parts, ctype=layer.ctype, cut=True, widest=4,
        derived=layer.derived,
    )  # fmt: skip
    moments(k, layer)
    k.put({s: s for s in layer.sums})
    k.launch()

    found = [statistic(site, s, layer.ctype, layer.x, layer.shape, layer.reduced) for s in layer.statistics]
    kept = [Along(f"{s.name}_kept", s.ref, (0, *s.strides)) for s in found]
    shape = [pieces, *(1 if r else n for n, r in zip(layer.shape, first, strict=True))]
    inner = [True, *layer.reduced]
    old, new = ([layer.behind(a) for a in some] for some in (layer.old, layer.new))
    given = joined(parts, layer.shape, first)
    k = RowKernel(site, f"{site.op}_rows", shape, inner, [*given, *old], [*kept, *new], ctype=layer.ctype, widest=2)
    if layer.center:
        fold = f"{'Moments' if layer.g is None else 'Joint'}<{k.ctype}>"
        k.fold([(layer.sums, fold, ", ".join(p.name for p in given))])
    else:
        k.fold([((s,), f"Sum<{k.ctype}>", p.name) for s, p in zip(layer.sums, given, strict=True)])
    finish(k, layer, keep=layer.statistics)
    k.launch()
    apply(site, layer, found)
    return True


def apply(site: Site, layer: Layer, statistics: Sequence[Along], *, epsilon: float | None = None) -> None:
    """Launch the kernel that normalises with statistics that are there.

    Args:
        site: where.
        layer: what.
        statistics: those that its result reads; where there is an epsilon, `r` is computed of `variance`.
        epsilon: what is added to that.
    """
    vectors = [*statistics, *layer.affine]
    varies = [n != 1 and any(v.strides[a] for v in vectors) for a, n in enumerate(layer.shape)]
    order = sorted((a for a, n in enumerate(layer.shape) if n != 1), key=lambda a: -abs(layer.x.strides[a]))
    innermost = max((i for i, a in enumerate(order) if varies[a]), default=-1)
    along = [a for a in order if not varies[a]] if innermost == len(order) - 1 else order[innermost + 1 :]
    reduced = [a in along for a in range(len(layer.shape))]
    k = RowKernel(
        site, site.op if epsilon is not None else f"{site.op}_result", layer.shape, reduced,
        [*layer.walked, *vectors], [layer.y], ctype=layer.ctype, each=True, axes=layer.axes, derived=layer.derived,
        widest=8 if layer.g is None else 4,
    )  # fmt: skip
    if epsilon is not None:
        k.number("epsilon", epsilon)
        k.state("r", f"({k.ctype})1 / {function('sqrt', k.ctype)}(variance + epsilon)")
    k.map({layer.y.name: result(layer)})
    k.launch()


def tensors(site: Site, numbers: Sequence[int]) -> bool:
    """Whether these arguments are tensors of floats that kernels calculate with."""
    return all(isinstance(site.types[i], TensorType) and floats(site.types[i].dtype) for i in numbers)


def argument(site: Site, name: str, i: int, where: Sequence[int], ndim: int) -> Along | None:
    """Return an argument along the axes of a walk, None where it is left out."""
    if i >= len(site.types) or site.types[i] is None:
        return None
    return spread(name, site.read(i), where, ndim)


@lowers("standardize", "standardize_grad", fuses=every, narrow=(0, 1), rounds=True)
def _standardize(site: Site) -> bool:
    gradient = site.op == "standardize_grad"
    if not tensors(site, range(1 + gradient)):
        return False
    t = site.types[gradient]
    axes = tuple(a % t.ndim for a in site.attrs["axes"])
    if not axes:
        return False
    x, y = whole("x", site.read(int(gradient))), whole("y", site.write())
    g = whole("g", site.read(0)) if gradient else None
    if prod(t.shape):
        reduced = tuple(a in axes for a in range(t.ndim))
        normalize(
            site,
            Layer(
                t.shape, reduced, x, y, site.attrs["epsilon"], tuple(range(t.ndim)), g=g,
                center=site.attrs.get("center", True),
            ),
        )  # fmt: skip
    return True


@lowers("mean_variance_norm", fuses=every, narrow=(0,), rounds=True)
def _mean_variance_norm(site: Site) -> bool:
    if not tensors(site, (0,)) or not site.attrs["axes"]:
        return False
    t = site.types[0]
    x, y = whole("x", site.read(0)), whole("y", site.write())
    if prod(t.shape):
        axes = {a % t.ndim for a in site.attrs["axes"]}
        reduced = tuple(a in axes for a in range(t.ndim))
        normalize(site, Layer(t.shape, reduced, x, y, 1e-9, tuple(range(t.ndim)), outside=True))
    return True


@lowers("layer_norm", "rms_norm", fuses=every, narrow=(0,), rounds=True)
def _layer_norm(site: Site) -> bool:
    present = [i for i, t in enumerate(site.types) if t is not None]
    if not tensors(site, present) or not site.types[0].shape:
        return False
    t, ndim = site.types[0], site.types[0].ndim
    for i in present[1:]:
        v = site.types[i]
        if v.ndim > ndim or any(m not in (1, n) for m, n in zip(v.shape, t.shape[ndim - v.ndim :], strict=True)):
            return False
    x, y = whole("x", site.read(0)), whole("y", site.write())
    scale, bias = (
        argument(site, name, i, range(ndim - site.types[i].ndim, ndim), ndim) if i in present else None
        for i, name in ((1, "scale"), (2, "bias"))
    )
    if prod(t.shape):
        axis = site.attrs["axis"] % ndim
        reduced = tuple(a >= axis for a in range(ndim))
        center = site.op == "layer_norm"
        normalize(
            site,
            Layer(
                t.shape, reduced, x, y, site.attrs["epsilon"], tuple(range(ndim)), scale=scale, bias=bias,
                center=center,
            ),
        )  # fmt: skip
    return True


@lowers("instance_norm", fuses=every, narrow=(0,), rounds=True)
def _instance_norm(site: Site) -> bool:
    if not tensors(site, range(3)) or site.types[0].ndim < 3:
        return False
    t = site.types[0]
    x, y = whole("x", site.read(0)), whole("y", site.write())
    scale, bias = (argument(site, name, i, (1,), t.ndim) for i, name in ((1, "scale"), (2, "bias")))
    if prod(t.shape):
        reduced = tuple(a >= 2 for a in range(t.ndim))
        axes = tuple(range(t.ndim))
        normalize(site, Layer(t.shape, reduced, x, y, site.attrs["epsilon"], axes, scale=scale, bias=bias))
    return True


@lowers("group_norm", fuses=every, narrow=(0,), rounds=True)
def _group_norm(site: Site) -> bool:
    if not tensors(site, range(3)) or site.types[0].ndim < 2:
        return False
    t, groups = site.types[0], site.attrs["groups"]
    n, c, *rest = t.shape
    each = c // groups

    def split(o: Operand) -> tuple[int, ...]:
        """Return strides along the channels as groups and the channels of each."""
        s = o.strides
        return (s[0], s[1] * each, s[1], *s[2:])

    x, y = site.read(0), site.write()
    vectors = [site.read(i, order="plain") for i in (1, 2)]
    if not prod(t.shape):
        return True
    shape = (n, groups, each, *rest)
    scale, bias = (
        Along(name, ref, (0, each, 1, *(0 for _ in rest))) for name, ref in zip(("scale", "bias"), vectors, strict=True)
    )
    layer = Layer(
        shape, (False, False, *(True for _ in (each, *rest))), Along("x", x, split(x.operand)),
        Along("y", y, split(y.operand)), site.attrs["epsilon"], split, scale=scale, bias=bias,
        apart=(2,) if x.operand.channels_last and prod(rest) > 1 else (),
    )  # fmt: skip
    normalize(site, layer)
    return True


@lowers("batch_norm", fuses=every, narrow=(0,), rounds=True)
def _batch_norm(site: Site) -> bool:
    layer = channels(site)
    if layer is None:
        return False
    mean, variance = (argument(site, name, i, (1,), len(layer.shape)) for i, name in ((3, "mean"), (4, "variance")))
    assert mean is not None and variance is not None
    if prod(layer.shape):
        apply(site, replace(layer, old=(mean, variance)), [mean, variance], epsilon=layer.epsilon)
    return True


@lowers("batch_norm_train", fuses=every, narrow=(0,), rounds=True)
def _batch_norm_train(site: Site) -> bool:
    layer = channels(site) if prod(site.types[0].shape) else None
    if layer is None:
        return False
    ndim = len(layer.shape)
    old = [argument(site, name, i, (1,), ndim) for i, name in ((3, "old_mean"), (4, "old_var"))]
    new = tuple(spread(name, site.write(i), (1,), ndim) for i, name in ((1, "new_mean"), (2, "new_var")))
    normalize(site, replace(layer, old=tuple(a for a in old if a), new=new, momentum=site.attrs["momentum"]))
    return True


def channels(site: Site) -> Layer | None:
    """Return the layer of a batch normalisation, None for types that kernels do not calculate with."""
    if not tensors(site, range(5)) or site.types[0].ndim < 2:
        return None
    t = site.types[0]
    axes = tuple(range(t.ndim))
    return Layer(
        t.shape, tuple(a != 1 for a in axes), whole("x", site.read(0)), whole("y", site.write()), site.attrs["epsilon"],
        axes, scale=argument(site, "scale", 1, (1,), t.ndim), bias=argument(site, "bias", 2, (1,), t.ndim),
    )  # fmt: skip


@lowers("lp_norm", fuses=every, narrow=(0,), rounds=True)
def _lp_norm(site: Site) -> bool:
    if not tensors(site, (0,)) or not site.types[0].shape:
        return False
    t = site.types[0]
    axis, x, y = site.attrs["axis"] % t.ndim, whole("x", site.read(0)), whole("y", site.write())
    if not prod(t.shape):
        return True
    reduced = [a == axis for a in range(t.ndim)]
    k = RowKernel(site, site.op, t.shape, reduced, [x], [y], hold=("x",), axes=range(t.ndim))
    square = site.attrs["p"] == 2
    k.fold([(("sum",), f"Sum<{k.ctype}>", "x * x" if square else f"{function('fabs', k.ctype)}(x)")])
    k.state("norm", f"{function('sqrt', k.ctype)}(sum)" if square else "sum")
    k.map({"y": f"norm == 0 ? ({k.ctype})0 : x / norm"})
    k.launch()
    return True
