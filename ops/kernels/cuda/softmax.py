"""Softmax and its logarithm along any axis, and their gradients.

A row that its threads can hold is read once; a longer one twice, the largest element and the sum of exponentials
relative to it in one go; few long ones are cut into pieces.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from ...types import TensorType
from .lowering import Site, every, lowers
from .row_kernel import RowKernel, floats, function, real, sizes
from .row_parts import joined, parts_of, statistic, stored_as
from .rows import Along, whole


@lowers("softmax", "log_softmax", fuses=every, narrow=(0,), rounds=True)
def _softmax(site: Site) -> bool:
    t = site.types[0]
    if not isinstance(t, TensorType) or not floats(t.dtype) or not t.shape:
        return False
    axis = site.attrs["axis"] % t.ndim
    x, y = whole("x", site.read(0)), whole("y", site.write())
    if not prod(sizes(t)):
        return True
    reduced = [a == axis for a in range(t.ndim)]
    k = RowKernel(site, site.op, sizes(t), reduced, [x], [y], hold=("x",), axes=range(t.ndim))
    if k.held:
        k.fold([(("top",), f"Top<{k.ctype}>", "x")])
        exponential = f"{function('exp', k.ctype)}(x - top)"
        if site.op == "softmax":
            k.fold([(("total",), f"Sum<{k.ctype}>", "x")], update=("x", exponential))
        else:
            k.fold([(("total",), f"Sum<{k.ctype}>", exponential)])
    elif not _in_pieces(site, x, y, sizes(t), reduced):
        k.fold([(("top", "total"), f"Online<{k.ctype}>", "x")])
    else:
        return True
    k.state("by", _by(site.op, k.ctype))
    k.map({"y": _result(site.op, k.ctype, kept=k.held)})
    k.launch()
    return True


def _by(op: str, ctype: str) -> str:
    """Return what a row is scaled by, or its logarithm; a NaN where the largest is infinite."""
    of = f"({ctype})1 / total" if op == "softmax" else f"{function('log', ctype)}(total)"
    return f"{of} + (top - top)"


def _result(op: str, ctype: str, *, kept: bool = False) -> str:
    if op == "log_softmax":
        return "(x - top) - by"
    return "x * by" if kept else f"{function('exp', ctype)}(x - top) * by"


def _in_pieces(site: Site, x: Along, y: Along, shape: Sequence[int], reduced: Sequence[bool]) -> bool:
    """Lower few long rows: what pieces give, what they are together, the result."""
    ctype = real(x.ref.operand.dtype)
    online = f"Online<{ctype}>"
    pieces, parts = parts_of(site, x, shape, reduced, dict.fromkeys(("top", "total"), stored_as(ctype)))
    if not parts:
        return False
    k = RowKernel(site, f"{site.op}_pieces", shape, reduced, [x], parts, cut=True)
    k.fold([(("top", "total"), online, "x")])
    k.put({"top": "top", "total": "total"})
    k.launch()
    found = [statistic(site, name, ctype, x, shape, reduced) for name in ("highest", "by")]
    kept = [pieces, *(1 if r else n for n, r in zip(shape, reduced, strict=True))]
    behind = [Along(s.name, s.ref, (0, *s.strides)) for s in found]
    k = RowKernel(site, f"{site.op}_rows", kept, [True, *reduced], joined(parts, shape, reduced), behind)
    k.fold([(("top", "total"), online, "top_part, total_part")])
    k.put({"highest": "top", "by": _by(site.op, ctype)})
    k.launch()
    top = Along("top", found[0].ref, found[0].strides)
    k = RowKernel(site, site.op, shape, reduced, [x, top, found[1]], [y], each=True, axes=range(len(shape)))
    k.map({"y": _result(site.op, ctype)})
    k.launch()
    return True


@lowers("softmax_grad", "log_softmax_grad", fuses=every, narrow=(0, 1), rounds=True)
def _gradient(site: Site) -> bool:
    t = site.types[1]
    if not all(isinstance(t, TensorType) and floats(t.dtype) for t in site.types) or not t.shape:
        return False
    axis = site.attrs["axis"] % t.ndim
    g, y, out = whole("g", site.read(0)), whole("y", site.read(1)), whole("dx", site.write())
    if not prod(sizes(t)):
        return True
    reduced = [a == axis for a in range(t.ndim)]
    k = RowKernel(site, site.op, sizes(t), reduced, [y, g], [out], hold=("y", "g"), axes=range(t.ndim))
    if site.op == "softmax_grad":
        k.fold([(("inner",), f"Sum<{k.ctype}>", "g * y")])
        k.map({"dx": "(g - inner) * y"})
    else:
        k.fold([(("total",), f"Sum<{k.ctype}>", "g")])
        k.map({"dx": f"g - {function('exp', k.ctype)}(y) * total"})
    k.launch()
    return True
