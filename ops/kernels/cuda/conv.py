"""Convolutions through cuDNN, channels last; those of 1x1 kernels are products of matrices.

Biases, sums and activations belong to its graph; other epilogues are a kernel behind it.

Axes: N batch, C channel, F filter, S image sizes, K kernel, O output sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import prod
from typing import Any, TypeAlias

import numpy as np

from ...types import DType, TensorType
from ...window import Window
from .cudnn import ACTIVATIONS, TYPES
from .cudnn_graphs import ConvForward, Convolution
from .depthwise import depthwise_conv
from .fusion import Activation, copy, finish, fuses, tail_of, vector
from .indexing import View, view
from .kernel import Ref
from .lowering import Site, lowers
from .matmul import into
from .operand import Operand, Sizes, channels_last_strides

_ALIGNED = 16
"""cuDNN is told that addresses are multiples of so many bytes."""

_SUMS = 2
"""So many tensors cuDNN adds to a result; vectors along channels are summed up before and count as one."""


Pads: TypeAlias = "tuple[tuple[int, int], ...]"


def pads_of(win: Window, size: Sizes, kernel: Sizes, out: Sizes) -> Pads | None:
    """Return the zeros around an image, alike on both sides where that gives the same windows.

    None where a window would cut the image: cuDNN counts as many windows as fit.
    """
    pads = []
    for n, k, o, s, d, (low, _) in zip(size, kernel, out, win.strides, win.dilations, win.pads, strict=True):
        low = int(low)
        least = (o - 1) * s + d * (k - 1) + 1 - low - n  # zeros that the last window reaches behind the image
        most = least + s - 1
        if low < 0 or most < 0:
            return None
        pads.append((low, low if least <= low <= most else max(0, least)))
    return tuple(pads)


def lying(dtype: DType, shape: Sizes) -> Operand:
    """Return a tensor that lies channels last without gaps."""
    return Operand(dtype, shape, channels_last_strides(shape))


def shape_of(t: TensorType) -> Sizes:
    """Return the sizes of a type."""
    return tuple(int(n) for n in t.shape)


def served(*types: Any) -> bool:
    """Whether cuDNN convolves tensors of these types."""
    return (
        all(t.dtype == types[0].dtype and t.dtype.name in TYPES and 0 not in t.shape for t in types)
        and 3 <= types[0].ndim <= 5
    )


def aligned(site: Site, i: int) -> tuple[Ref, Operand]:
    """Return an input that lies channels last at an address that cuDNN takes, and how it lies."""
    ref = site.read(i, order="channels_last")
    o = ref.operand
    found = lying(o.dtype, o.shape)
    if o.offset * o.dtype.itemsize % _ALIGNED == 0:
        return ref, found
    made = site.temporary(o.dtype, (o.shape[0], *o.shape[2:], o.shape[1]))
    copy(site, View(ref, o.shape, found.strides), o.dtype, View(made, o.shape, found.strides))
    return made, found


# epilogues ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ending:
    """What a convolution applies to its result: vectors along channels, one full tensor, and then an activation."""

    bias: tuple[View, ...] = ()
    added: tuple[Ref, ...] = ()
    activation: Activation | None = None


def ending_of(site: Site, dtype: DType) -> Ending | None:
    """Return what cuDNN applies for the epilogue of a site whose result has this type, or None where it cannot."""
    epilogue = site.epilogue
    if epilogue is None:
        return Ending()
    tail = tail_of(epilogue.expression)
    if tail is None or (tail.activation and tail.activation.name not in ACTIVATIONS):
        return None
    if epilogue.dtype != dtype and not (dtype.itemsize == 2 and epilogue.dtype == np.float32):
        return None
    bias: list[View] = []
    added: list[Ref] = []
    for variable in tail.added:
        i = int(variable[1:])
        o = epilogue.operands[i]
        narrow = tuple(1 if s == 0 else n for n, s in zip(o.shape, o.strides, strict=True))
        if o.dtype.name not in TYPES:
            return None
        if narrow == (1, o.shape[1], *(1,) * (o.ndim - 2)):
            bias.append(View(site.epilogue_refs[i], o.shape[1:2], o.strides[1:2]))
        elif narrow == o.shape and o.channels_last and o.offset * o.dtype.itemsize % _ALIGNED == 0:
            added.append(site.epilogue_refs[i])
        else:
            return None
    return Ending(tuple(bias), tuple(added), tail.activation) if len(added) + bool(bias) <= _SUMS else None


def call(site: Site, made: Convolution, refs: Sequence[Ref], ending: Ending, target: Ref) -> None:
    """Call cuDNN for a convolution with its ending."""
    every, added = [*refs], []
    if ending.bias:
        (channels,) = ending.bias[0].shape
        dtypes = {v.ref.operand.dtype for v in ending.bias}
        every.append(vector(site, ending.bias, dtypes.pop() if len(dtypes) == 1 else np.dtype(np.float32)))
        added.append(lying(every[-1].operand.dtype, (1, channels, *(1,) * (made.result.ndim - 2))))
    every += ending.added
    added += [lying(ref.operand.dtype, ref.operand.shape) for ref in ending.added]
    made = replace(made, added=tuple(added), activation=ending.activation)
    site.call(made, [*every, target], writes=(len(every),))


def convolve(site: Site, described: Callable[[Operand], Convolution], refs: Sequence[Ref], target: Ref) -> None:
    """Call cuDNN for a convolution that is the first output of a site, with its epilogue.

    Args:
        site: where.
        described: the convolution that writes such a tensor.
        refs: its factors.
        target: the output; where the site has an epilogue it may lie in any order.
    """
    epilogue, shape, dtype = site.epilogue, target.operand.shape, site.results[0].dtype
    made = described(lying(target.operand.dtype, shape))
    if epilogue is None:
        call(site, made, refs, Ending(), target)
        return
    last = target.operand.channels_last
    ending = ending_of(site, dtype) if last else None
    if ending is not None and site.attempt(lambda: call(site, made, refs, ending, target)):
        return
    result, source = lying(dtype, shape), target
    if target.operand.dtype != dtype or not last:
        source = site.temporary(dtype, (shape[0], *shape[2:], shape[1]))
    call(site, described(result), refs, Ending(), source)
    finish(site, epilogue, View(source, shape, result.strides), dtype, view(target))


# 1x1 kernels ----------------------------------------------------------------------------------------------------------


def is_product(win: Window, size: Sizes, kernel: Sizes, out: Sizes) -> bool:
    """Whether a convolution is the product of its pixels with a matrix."""
    plain = all(p == (0, 0) for p in win.pads) and all(s == 1 for s in win.strides)
    return plain and win.group == 1 and prod(kernel) == 1 and size == out


def pixels(ref: Ref, *, turned: bool = False) -> View:
    """Return a tensor that lies channels last as the matrix (pixels, channels), or (channels, pixels)."""
    n, c, *space = ref.operand.shape
    shape, strides = (n * prod(space), c), (c, 1)
    return View(ref, shape[::-1], strides[::-1]) if turned else View(ref, shape, strides)


def product_into(site: Site, left: View, right: View) -> None:
    """Call for the product that is the first output of a site, an image."""
    y = site.write(0, order="channels_last")
    shape = y.operand.shape

    def full(strides: Sizes) -> Sizes | None:
        """Return the strides of (pixels, channels), where all pixels are one step apart."""
        axes = [(n, s) for n, s in zip((shape[0], *shape[2:]), (strides[0], *strides[2:]), strict=True) if n != 1]
        for (_, outer), (n, s) in pairwise(axes):
            if outer != n * s:
                return None
        return axes[-1][1] if axes else strides[1] * shape[1], strides[1] if shape[1] != 1 else 1

    into(site, y, left, right, (shape[0] * prod(shape[2:]), shape[1]), full)


# the rule -------------------------------------------------------------------------------------------------------------


@lowers("conv", fuses=fuses)
def _conv(site: Site) -> bool:
    x, w, out = site.types[0], site.types[1], site.results[0]
    win: Window = site.attrs["win"]
    if not served(x, w, out):
        return False
    if win.group > 1 and depthwise_conv(site):
        return True
    size, kernel = shape_of(x)[2:], shape_of(w)[2:]
    pads = pads_of(win, size, kernel, shape_of(out)[2:])
    if pads is None:
        return False
    if is_product(win, size, kernel, shape_of(out)[2:]):
        left, right = site.read(0, order="channels_last"), site.read(1, order="channels_last")
        product_into(site, pixels(left), pixels(right, turned=True))
        return True
    image_ref, image = aligned(site, 0)
    filters_ref, filters = aligned(site, 1)
    y = site.write(0, order="channels_last")

    def described(result: Operand) -> Convolution:
        return ConvForward(image, filters, result, pads, win.strides, win.dilations, site.tf32)

    convolve(site, described, (image_ref, filters_ref), y)
    return True
