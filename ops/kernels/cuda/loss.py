"""Losses of classification and the gradient of cross entropy.

A row is what an example has of all classes. What is lost at its label is found where its softmax is; a second kernel
adds that up. A label that is no class sets a flag, which the run raises, and makes a NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from ...types import DType, TensorType
from .kernel import Ref
from .lowering import Site, lowers
from .row_kernel import RowKernel, floats, function, real
from .row_parts import joined, parts_of, stored_as
from .rows import Along, spread, statistic_strides, whole

_NAN = "__int_as_float(0x7fc00000)"


@dataclass(frozen=True)
class Labels:
    """What is known of labels.

    Attributes:
        classes: how many there are.
        weighted: whether classes have weights.
        ignore: the label that counts nothing.
        ctype: what is calculated with.
    """

    classes: int
    weighted: bool
    ignore: int | None
    ctype: str

    @property
    def counted(self) -> bool:
        """Whether labels may count differently."""
        return self.weighted or self.ignore is not None

    @property
    def label(self) -> str:
        """The class of a label; those below 0 are counted from the last."""
        return "((i64)labels < 0 ? (i64)labels + classes : (i64)labels)"

    @property
    def weight(self) -> str:
        """What a label counts, as an expression over `label`: a NaN where it is no class."""
        weight = f"({self.ctype})widen(weights_row[label])" if self.weighted else f"({self.ctype})1"
        fits = f"label < 0 || label >= classes ? ({self.ctype}){_NAN} : {weight}"
        return fits if self.ignore is None else f"(i64)labels == ignore ? ({self.ctype})0 : {fits}"

    def check(self, k: RowKernel) -> None:
        """Set a flag where `label` is no class, unless it is ignored."""
        wanted = "" if self.ignore is None else "(i64)labels != ignore && "
        k.flag(f"{k.site.op}: a label is no class", f"{wanted}(label < 0 || label >= classes)")

    def pass_to(self, k: RowKernel) -> None:
        """Pass the numbers that the expressions read."""
        k.number("classes", self.classes, "i64")
        if self.ignore is not None:
            k.number("ignore", self.ignore, "i64")


def _labels(site: Site, x: TensorType, labels: TensorType, weights: TensorType | None, *more: DType) -> Labels | None:
    """Return what is known of labels; None for types that kernels do not calculate with, and for no classes."""
    dtypes = [x.dtype, *more, *([] if weights is None else [weights.dtype])]
    if not floats(*dtypes) or labels.dtype.name not in ("int32", "int64"):
        return None
    if labels.shape != (x.shape[0], *x.shape[2:]) or not prod(x.shape):
        return None
    classes = int(x.shape[1])
    if weights is not None and weights.shape != (classes,):
        return None
    return Labels(classes, weights is not None, site.attrs.get("ignore_index"), real(*dtypes))


def _vector(site: Site, i: int, ndim: int) -> Along:
    return Along("weights", site.read(i, order="plain"), (0,) * ndim)


def _softmax(k: RowKernel, *, keep: bool = False) -> None:
    """Fold the largest element of each row and the sum of exponentials relative to it."""
    if not k.held:
        k.fold([(("top", "total"), f"Online<{k.ctype}>", "x")])
        return
    exponential = f"{function('exp', k.ctype)}(x - top)"
    k.fold([(("top",), f"Top<{k.ctype}>", "x")])
    if keep:
        k.fold([(("total",), f"Sum<{k.ctype}>", "x")], update=("x", exponential))
    else:
        k.fold([(("total",), f"Sum<{k.ctype}>", exponential)])


@lowers("nll_loss", "softmax_cross_entropy")
def _loss(site: Site) -> bool:
    x_type, labels_type = site.types[:2]
    weights_type = site.types[2] if len(site.types) > 2 else None
    labels = _labels(site, x_type, labels_type, weights_type)
    if labels is None:
        return False
    softmax, reduction, ndim = site.op == "softmax_cross_entropy", site.attrs.get("reduction", "mean"), x_type.ndim
    where = [0, *range(2, ndim)]
    x = whole("x", site.read(0))
    reads = [x, spread("labels", site.read(1), where, ndim)]
    if weights_type is not None:
        reads.append(_vector(site, 2, ndim))
    out = site.write(0)
    stored, rows = stored_as(labels.ctype), prod(labels_type.shape)
    counts = labels.counted and reduction == "mean"
    strides = statistic_strides(x.ref.operand, where)
    if reduction == "none":
        writes = [spread("loss", out, where, ndim)]
    else:
        names = ("loss", "count") if counts else ("loss",)
        writes = [Along(name, site.temporary(stored, (rows,)), strides) for name in names]
    shape = x_type.shape if softmax else tuple(1 if a == 1 else n for a, n in enumerate(x_type.shape))
    if not softmax:
        reads = [reads[1], x, *reads[2:]]
    k = RowKernel(
        site, f"{site.op}_rows", shape, [a == 1 for a in range(ndim)], reads, writes, ctype=labels.ctype,
        hold=("x",) if softmax else (),
    )  # fmt: skip
    labels.pass_to(k)
    k.number("x_class", x.strides[1], "i64")
    if softmax:
        _softmax(k)
    k.state("label", labels.label, "i64")
    labels.check(k)
    k.state("weight", labels.weight)
    k.state("chosen", f"weight != weight || weight == 0 ? ({k.ctype})0 : ({k.ctype}){k.at('x', 'label * x_class')}")
    lost = f"({function('log', k.ctype)}(total) + (top - top)) - (chosen - top)" if softmax else "-chosen"
    ignored = "" if labels.ignore is None else "labels == ignore ? 0 : "
    k.state("lost", f"{ignored}({lost}) * weight")
    k.put({"loss": "lost", **({"count": "weight"} if counts else {})})
    k.launch()
    if reduction != "none":
        _total(site, [w.ref for w in writes], out, labels.ctype, rows if reduction == "mean" and not counts else 0)
    return True


def _total(site: Site, given: Sequence[Ref], out: Ref, ctype: str, count: int) -> None:
    """Launch the kernels that sum up losses, over the sum of what they count or a number of them."""
    shape, reduced = given[0].operand.shape, (True,)
    tensors = [Along(name, ref, (1,)) for name, ref in zip(("loss", "count"), given, strict=False)]
    names = [f"{t.name}_sum" for t in tensors]
    pieces, parts = parts_of(site, tensors[0], shape, reduced, dict.fromkeys(names, stored_as(ctype)), tensors[1:])
    if parts:
        k = RowKernel(site, f"{site.op}_pieces", shape, reduced, tensors, parts, ctype=ctype, cut=True)
        k.fold([((n,), f"Sum<{ctype}>", t.name) for n, t in zip(names, tensors, strict=True)])
        k.put({n: n for n in names})
        k.launch()
        tensors = [Along(p.name, p.ref, p.strides[:1]) for p in joined(parts, shape, reduced)]
        shape = (pieces,)
    k = RowKernel(site, f"{site.op}_sum", shape, reduced, tensors, [Along("y", out, (0,))], ctype=ctype)
    k.fold([((n,), f"Sum<{ctype}>", t.name) for n, t in zip(names, tensors, strict=True)])
    if count:
        k.number("n", float(count))
    k.put({"y": names[0] + (f" / {names[1]}" if len(names) > 1 else " / n" if count else "")})
    k.launch()


@lowers("softmax_cross_entropy_grad")
def _gradient(site: Site) -> bool:
    g_type, x_type, labels_type = site.types[:3]
    weights_type = site.types[3] if len(site.types) > 3 else None
    reduction = site.attrs.get("reduction", "mean")
    labels = _labels(site, x_type, labels_type, weights_type, g_type.dtype)
    if labels is None or g_type.shape != (labels_type.shape if reduction == "none" else ()):
        return False
    ndim, c = x_type.ndim, labels.ctype
    where = [0, *range(2, ndim)]
    x, own = whole("x", site.read(1)), site.read(2)
    reads = [
        x,
        spread("g", site.read(0), where if reduction == "none" else (), ndim),
        spread("labels", own, where, ndim),
    ]
    weights = [] if weights_type is None else [_vector(site, 3, ndim)]
    share = "g"
    if reduction == "mean" and labels.counted:
        total = site.temporary(stored_as(c), (1,))
        _count(site, labels, own, weights, total)
        reads.append(Along("sum", total, (0,) * ndim))
        share = "g / sum"
    elif reduction == "mean":
        share = "g / n"
    k = RowKernel(
        site, site.op, x_type.shape, [a == 1 for a in range(ndim)], [*reads, *weights], [whole("dx", site.write())],
        ctype=c, hold=("x",),
    )  # fmt: skip
    labels.pass_to(k)
    if share == "g / n":
        k.number("n", float(prod(labels_type.shape)))
    _softmax(k, keep=True)
    k.state("label", labels.label, "i64")
    labels.check(k)
    k.state("weight", labels.weight)
    k.state("share", f"{share} * weight")
    k.state("by", f"({c})1 / total + (top - top)")
    part = "x * by" if k.held else f"{function('exp', c)}(x - top) * by"
    ignored = "" if labels.ignore is None else f"labels == ignore ? ({c})0 : "
    k.map({"dx": f"{ignored}({part} - (position == label ? ({c})1 : ({c})0)) * share"})
    k.launch()
    return True


def _count(site: Site, labels: Labels, own: Ref, weights: Sequence[Along], total: Ref) -> None:
    """Launch the kernels that sum up what labels count."""
    shape = own.operand.shape
    reduced, still = (True,) * len(shape), (0,) * len(shape)
    reads = [whole("labels", own), *(Along(w.name, w.ref, still) for w in weights)]
    term = labels.weight.replace("label <", f"{labels.label} <").replace("label >", f"{labels.label} >")
    term = term.replace("[label]", f"[{labels.label}]")
    pieces, parts = parts_of(site, reads[0], shape, reduced, {"part": stored_as(labels.ctype)}, reads[1:])
    outputs = parts or [Along("part", total, still)]
    k = RowKernel(site, f"{site.op}_counts", shape, reduced, reads, outputs, ctype=labels.ctype, cut=bool(parts))
    labels.pass_to(k)
    k.fold([(("count",), f"Sum<{labels.ctype}>", f"({term})")])
    k.put({"part": "count"})
    k.launch()
    if parts:
        given = Along("part", parts[0].ref, (1,))
        k = RowKernel(
            site, f"{site.op}_count", (pieces,), (True,), [given], [Along("y", total, (0,))], ctype=labels.ctype
        )
        k.fold([(("count",), f"Sum<{labels.ctype}>", "part")])
        k.put({"y": "count"})
        k.launch()
