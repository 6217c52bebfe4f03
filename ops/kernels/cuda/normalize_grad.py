"""The gradients of layers in all that they read.

Those of scale and bias are sums over rows. Where a row fits the registers of its threads, these add up what the rows
give that they walk over, one after the other, and a second kernel adds up what the blocks have: x and its gradient are
read once. Where it does not fit, a kernel over columns reads them again. Either way the order is fixed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

from .kernel import Ref
from .lowering import Site, every, lowers
from .normalize import Layer, argument, finish, moments, normalize, result, tensors
from .row_kernel import RowKernel, source
from .row_parts import joined, parts_of, statistic, stored_as
from .rows import Along, spread, whole


@lowers("layer_norm_grad", "rms_norm_grad", fuses=every, narrow=(0, 1), rounds=True)
def _layer_norm_grad(site: Site) -> bool:
    if not tensors(site, range(3)) or not site.types[1].shape:
        return False
    shape, own = site.types[1].shape, site.types[2].shape
    ndim = len(shape)
    axis = site.attrs["axis"] % ndim
    if own != shape[axis:] or prod(own) < 2 or not prod(shape):
        return False
    trailing, axes = range(axis, ndim), tuple(range(ndim))
    g, x = (whole(name, site.read(i, order="plain")) for name, i in (("g", 0), ("x", 1)))
    scale = spread("scale", site.read(2, order="plain"), trailing, ndim)
    layer = Layer(
        shape, tuple(a >= axis for a in axes), x, whole("dx", site.write(0, order="plain")), site.attrs["epsilon"],
        axes, g=g, scale=scale, center=site.op == "layer_norm_grad", inside=True,
    )  # fmt: skip
    names = ("dscale", "dbias") if layer.center else ("dscale",)
    affine = {name: site.write(i, order="plain") for i, name in enumerate(names, 1)}
    terms = {"dscale": f"g * ({layer.centred} * r)", "dbias": "g"}
    if not _in_registers(site, layer, affine, terms):
        _in_columns(site, layer, affine, terms)
    return True


def _in_registers(site: Site, layer: Layer, affine: Mapping[str, Ref], terms: Mapping[str, str]) -> bool:
    """Lower rows that fit registers, and the sums of what blocks collect."""
    reads = [*layer.walked, *layer.affine]
    k = RowKernel(
        site, site.op, layer.shape, layer.reduced, reads, [layer.y], ctype=layer.ctype, hold=("x", "g"), axes=layer.axes
    )
    if not k.held:
        return False
    parts = k.collecting(*(f"{name}_part" for name in affine))
    moments(k, layer)
    finish(k, layer)
    k.map({"dx": result(layer)}, {f"{name}_part": terms[name] for name in affine})
    k.launch()
    given = [whole(f"{name}_part", ref) for name, ref in zip(affine, parts, strict=True)]
    flat = [Along(name, ref, (0, 1)) for name, ref in affine.items()]
    k = RowKernel(site, f"{site.op}_sums", parts[0].operand.shape, (True, False), given, flat, ctype=layer.ctype)
    _sum(k, flat, [p.name for p in given])
    return True


def _sum(k: RowKernel, outputs: Sequence[Along], terms: Sequence[str]) -> None:
    """Launch a kernel that puts sums of terms."""
    k.fold([((f"{y.name}_total",), f"Sum<{k.ctype}>", term) for y, term in zip(outputs, terms, strict=True)])
    k.put({y.name: f"{y.name}_total" for y in outputs})
    k.launch()


def _in_columns(site: Site, layer: Layer, affine: Mapping[str, Ref], terms: Mapping[str, str]) -> None:
    """Lower long rows, whose statistics are kept, and the sums over columns."""
    shape, ndim = layer.shape, len(layer.shape)
    names = ("mean", "r") if layer.center else ("r",)
    known = [statistic(site, name, layer.ctype, layer.x, shape, layer.reduced) for name in names]
    kept = [Along(f"{s.name}_kept", s.ref, s.strides) for s in known]
    reads = [*layer.walked, *layer.affine]
    k = RowKernel(
        site, site.op, shape, layer.reduced, reads, [layer.y, *kept], ctype=layer.ctype, axes=layer.axes, widest=4
    )
    moments(k, layer)
    finish(k, layer, keep=names)
    k.map({"dx": result(layer)})
    k.launch()

    over = tuple(not r for r in layer.reduced)
    trailing = [a for a, r in enumerate(layer.reduced) if r]
    outputs = [spread(name, ref, trailing, ndim) for name, ref in affine.items()]
    reads = [layer.x, *([layer.g] if layer.g else []), *known]
    stored = {f"{y.name}_sum": stored_as(layer.ctype) for y in outputs}
    pieces, parts = parts_of(site, layer.x, shape, over, stored, reads[1:])
    k = RowKernel(site, f"{site.op}_columns", shape, over, reads, parts or outputs, ctype=layer.ctype, cut=bool(parts))
    _sum(k, parts or outputs, [terms[y.name] for y in outputs])
    if parts:
        given = joined(parts, shape, over)
        behind = [layer.behind(y) for y in outputs]
        ends = [pieces, *(1 if r else n for n, r in zip(shape, over, strict=True))]
        k = RowKernel(site, f"{site.op}_sums", ends, [True, *over], given, behind, ctype=layer.ctype)
        _sum(k, behind, [p.name for p in given])


@lowers("batch_norm_train_grad", fuses=every, narrow=(0, 1), prologue={0: 2}, rounds=True)
def _batch_norm_train_grad(site: Site) -> bool:
    if not tensors(site, range(3)) or site.types[1].ndim < 2 or not prod(site.types[1].shape):
        return False
    shape, ndim = site.types[1].shape, site.types[1].ndim
    axes = tuple(range(ndim))
    (g, *beside), derived = source(site, "g", 0)
    new = tuple(spread(name, site.write(i), (1,), ndim) for i, name in ((1, "dscale"), (2, "dbias")))
    layer = Layer(
        shape, tuple(a != 1 for a in axes), whole("x", site.read(1)), whole("dx", site.write()),
        site.attrs["epsilon"], axes, g=g, beside=tuple(beside), derived=derived,
        scale=argument(site, "scale", 2, (1,), ndim), new=new,
    )  # fmt: skip
    normalize(site, layer)
    return True
