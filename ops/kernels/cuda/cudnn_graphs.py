"""Convolutions and attention, forward and backward, as graphs of cuDNN."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from .cudnn import BETWEEN, CudnnGraphs, Draw, Sheet
from .fusion import Activation
from .operand import Operand, Sizes


@dataclass(frozen=True)
class Convolution(CudnnGraphs):
    """One of the three partial derivatives of <output, conv(image, filters)>.

    Attributes:
        image: (N, C, *S).
        filters: (F, C / groups, *K).
        output: (N, F, *O).
        pads: zeros before and behind each spatial axis.
        strides: of the window.
        dilations: of its taps.
        tf32: whether products of float32 may round their factors.
        added: what is added to the result, each of its shape or of size 1 along some axes.
        activation: applied last.
    """

    image: Operand
    filters: Operand
    output: Operand
    pads: tuple[tuple[int, int], ...]
    strides: Sizes
    dilations: Sizes
    tf32: bool = False
    added: tuple[Operand, ...] = ()
    activation: Activation | None = None

    @property
    def factors(self) -> tuple[Operand, Operand]:
        """What is multiplied."""
        raise NotImplementedError

    @property
    def result(self) -> Operand:
        """What is written."""
        raise NotImplementedError

    @property
    def operands(self) -> tuple[Operand, ...]:
        """The factors, what is added, the result."""
        return (*self.factors, *self.added, self.result)

    @property
    def exact(self) -> bool:
        """Whether products of float32 are those of float32."""
        return not self.tf32

    def convolved(self, sheet: Sheet, first: Any, second: Any, window: dict[str, list[int]]) -> Any:
        """Return the result of the convolution of two tensors."""
        raise NotImplementedError

    def ways(self) -> Iterator[tuple[Draw, ...]]:
        """Yield one graph, and where there is an epilogue the convolution and the epilogue."""
        yield (self._whole,)
        if self.added or self.activation:
            yield self._bare, self._rest

    def between(self) -> Operand | None:
        """The result before the epilogue, not rounded."""
        o = lifted(self.result)
        return Operand(self.sums, o.shape, o.strides)

    def _product(self, sheet: Sheet) -> Any:
        first, second = (sheet.reads(1 + i, lifted(o)) for i, o in enumerate(self.factors))
        before, behind = zip(*self.pads, strict=True)
        window = {
            name: [*([one] if len(self.pads) == 1 else []), *values]
            for name, values, one in (
                ("pre_padding", before, 0), ("post_padding", behind, 0), ("stride", self.strides, 1),
                ("dilation", self.dilations, 1),
            )
        }  # fmt: skip
        return self.convolved(sheet, first, second, window)

    def _ended(self, sheet: Sheet, x: Any) -> None:
        for i, o in enumerate(self.added):
            x = sheet.graph.add(a=x, b=sheet.reads(3 + i, lifted(o)))
        sheet.writes(len(self.operands), lifted(self.result), sheet.activated(x, self.activation))

    def _whole(self, sheet: Sheet) -> None:
        x = self._product(sheet)
        if self.added or self.activation:  # the frontend cannot know the size of what a gradient makes
            x.set_dim(list(lifted(self.result).shape)).set_stride(list(lifted(self.result).strides))
        self._ended(sheet, x)

    def _bare(self, sheet: Sheet) -> None:
        between = self.between()
        assert between is not None
        sheet.writes(BETWEEN, between, self._product(sheet))

    def _rest(self, sheet: Sheet) -> None:
        between = self.between()
        assert between is not None
        self._ended(sheet, sheet.reads(BETWEEN, between))


@dataclass(frozen=True)
class ConvForward(Convolution):
    """Convolution. Arguments: image, filters, what is added, output."""

    @property
    def factors(self) -> tuple[Operand, Operand]:
        """Image and filters."""
        return self.image, self.filters

    @property
    def result(self) -> Operand:
        """The output."""
        return self.output

    def convolved(self, sheet: Sheet, first: Any, second: Any, window: dict[str, list[int]]) -> Any:
        """Return the convolution."""
        return sheet.graph.conv_fprop(image=first, weight=second, **window)


@dataclass(frozen=True)
class ConvInputGrad(Convolution):
    """The transposed convolution. Arguments: output, filters, what is added, image."""

    @property
    def factors(self) -> tuple[Operand, Operand]:
        """Output and filters."""
        return self.output, self.filters

    @property
    def result(self) -> Operand:
        """The image."""
        return self.image

    def convolved(self, sheet: Sheet, first: Any, second: Any, window: dict[str, list[int]]) -> Any:
        """Return the transposed convolution."""
        return sheet.graph.conv_dgrad(loss=first, filter=second, **window)


@dataclass(frozen=True)
class ConvWeightGrad(Convolution):
    """The gradient of a convolution in its filters. Arguments: output, image, filters."""

    @property
    def factors(self) -> tuple[Operand, Operand]:
        """Output and image."""
        return self.output, self.image

    @property
    def result(self) -> Operand:
        """The filters."""
        return self.filters

    def convolved(self, sheet: Sheet, first: Any, second: Any, window: dict[str, list[int]]) -> Any:
        """Return the gradient."""
        return sheet.graph.conv_wgrad(image=second, loss=first, **window)


def lifted(o: Operand) -> Operand:
    """Return an operand of one spatial axis as one of two, the first of size 1."""
    if o.ndim != 3:
        return o
    (n, c, w), (sn, sc, sw) = o.shape, o.strides
    return Operand(o.dtype, (n, c, 1, w), (sn, sc, sw * w, sw))


@dataclass(frozen=True)
class Attention(CudnnGraphs):
    """What both directions of attention share.

    Attributes:
        q: (B, H, L, E), elements of a head neighbours, as in the others.
        k: (B, K, S, E), where K divides H.
        v: (B, K, S, V).
        y: (B, H, L, V).
        bias: (1 or B, 1 or H, L, S), added to the scores.
        scale: of the scores.
        left: how many keys before its place a query sees; -1 for all.
        right: how many behind it.
        bottom: whether the last query stands at the last key; else the first stands at the first.
    """

    q: Operand
    k: Operand
    v: Operand
    y: Operand
    bias: Operand | None
    scale: float
    left: int = -1
    right: int = -1
    bottom: bool = False

    @property
    def stats(self) -> Operand:
        """(B, H, L, 1), float32: the logarithm of the sum of exponentials of the scores."""
        b, h, n, _ = self.q.shape
        return Operand(np.dtype(np.float32), (b, h, n, 1), (h * n, n, 1, 1))

    def options(self, sheet: Sheet) -> dict[str, Any]:
        """Return what the frontend takes for the scores."""
        found: dict[str, Any] = {"attn_scale": self.scale}
        if self.left >= 0 or self.right >= 0:
            place = sheet.cudnn.diagonal_alignment
            found["diagonal_alignment"] = place.BOTTOM_RIGHT if self.bottom else place.TOP_LEFT
        if self.left >= 0:
            found["diagonal_band_left_bound"] = self.left + 1  # counts the key at the query's own place
        if self.right >= 0:
            found["diagonal_band_right_bound"] = self.right
        return found


@dataclass(frozen=True)
class AttentionForward(Attention):
    """Attention. Arguments: q, k, v, the bias where there is one, y, and the stats where they are wanted."""

    with_stats: bool = False

    @property
    def operands(self) -> tuple[Operand, ...]:
        """As above."""
        more = () if self.bias is None else (self.bias,)
        return (self.q, self.k, self.v, *more, self.y, *((self.stats,) if self.with_stats else ()))

    def ways(self) -> Iterator[tuple[Draw, ...]]:
        """Yield the one graph."""

        def draw(sheet: Sheet) -> None:
            q, k, v = (sheet.reads(1 + i, o) for i, o in enumerate((self.q, self.k, self.v)))
            options = self.options(sheet)
            if self.bias is not None:
                options["bias"] = sheet.reads(4, self.bias)
            y, stats = sheet.graph.sdpa(q=q, k=k, v=v, generate_stats=self.with_stats, **options)
            at = 4 + (self.bias is not None)
            sheet.writes(at, self.y, y)
            if self.with_stats:
                sheet.writes(at + 1, self.stats, stats)

        yield (draw,)


@dataclass(frozen=True)
class AttentionBackward(Attention):
    """The gradients of attention. Arguments: q, k, v, y, g, stats, the bias where there is one, and those of q, k, v.

    Attributes:
        g: of the result, (B, H, L, V).
        dq: like q.
        dk: like k.
        dv: like v.
    """

    g: Operand | None = None
    dq: Operand | None = None
    dk: Operand | None = None
    dv: Operand | None = None

    @property
    def operands(self) -> tuple[Operand, ...]:
        """As above."""
        assert self.g and self.dq and self.dk and self.dv
        more = () if self.bias is None else (self.bias,)
        return (self.q, self.k, self.v, self.y, self.g, self.stats, *more, self.dq, self.dk, self.dv)

    def ways(self) -> Iterator[tuple[Draw, ...]]:
        """Yield the one graph, whose sums have a fixed order."""

        def draw(sheet: Sheet) -> None:
            count = 6 + (self.bias is not None)
            given = [sheet.reads(1 + i, o) for i, o in enumerate(self.operands[:count])]
            options = self.options(sheet)
            if self.bias is not None:
                options["bias"] = given[6]
            names = ("q", "k", "v", "o", "dO", "stats")
            made = sheet.graph.sdpa_backward(
                **dict(zip(names, given, strict=False)), use_deterministic_algorithm=True, **options
            )
            for i, (o, x) in enumerate(zip(self.operands[count:], made, strict=True)):
                sheet.writes(count + 1 + i, o, x)

        yield (draw,)
