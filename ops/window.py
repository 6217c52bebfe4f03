"""Windows that slide over spatial axes: the one home of convolution and pooling sizes.

Axes: a window has one entry a spatial axis in `strides`, `pads` (low, high) and `dilations`.
Source: Dumoulin & Visin 2016; ONNX Conv-11, MaxPool-12 (`ceil_mode`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .dims import Dim, DimLike, Shape, at_least
from .errors import ShapeError, SymbolicError


@dataclass(frozen=True)
class Window:
    """How a kernel is laid over an input."""

    strides: tuple[int, ...]
    pads: tuple[tuple[DimLike, DimLike], ...]
    dilations: tuple[int, ...]
    group: int = 1

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            ShapeError: if there are not equally many of each, or a stride, dilation or group is below 1.
        """
        counts = {len(self.strides), len(self.pads), len(self.dilations)}
        if len(counts) > 1:
            raise ShapeError(f"strides {self.strides}, pads {self.pads}, dilations {self.dilations}: counts differ")
        for what, values in (("strides", self.strides), ("dilations", self.dilations), ("group", (self.group,))):
            if any(isinstance(v, int) and v < 1 for v in values):
                raise ShapeError(f"{what} are {values}, wanted 1 or more")

    def out(self, size: Shape, kernel: Shape) -> Shape:
        """Return the spatial sizes of the output.

        Raises:
            ShapeError: if the window is larger than the padded input.
        """
        if not len(size) == len(kernel) == len(self.strides):
            raise ShapeError(
                f"a window of {len(kernel)} axes with {len(self.strides)} strides over {len(size)} spatial axes"
            )
        out = []
        for axis, (n, k, s, (lo, hi), d) in enumerate(
            zip(size, kernel, self.strides, self.pads, self.dilations, strict=True)
        ):
            if isinstance(k, int) and k < 1:
                raise ShapeError(f"window of {k} along spatial axis {axis}, wanted 1 or more")
            room = n + lo + hi - d * (k - 1) - 1
            if isinstance(room, int) and room < 0:
                raise ShapeError(
                    f"window of {k} (dilation {d}) is larger than spatial axis {axis}: {n} + pads {lo} + {hi}"
                )
            out.append(room // s + 1)
        return tuple(out)

    def ceiled(self, size: Shape, kernel: Shape) -> Window:
        """Return the window padded at the high end so that the last partial window counts (`ceil_mode`).

        A window that would start in the padding is dropped, as PyTorch and ONNX MaxPool-12 do.
        """
        pads = []
        for n, k, s, (lo, hi), d in zip(size, kernel, self.strides, self.pads, self.dilations, strict=True):
            reach = d * (k - 1) + 1
            last = -((reach - n - lo - hi) // s)
            if not isinstance(last, Dim) or not _sure(hi, reach - s):
                started = -((-n - lo) // s) - 1
                last = -at_least(-last, -started)
            pads.append((lo, last * s + reach - n - lo))
        return Window(self.strides, tuple(pads), self.dilations, self.group)


def _sure(low: DimLike, high: DimLike) -> bool:
    """Whether low <= high under every binding."""
    try:
        return low <= high
    except SymbolicError:
        return False


def same_pads(
    mode: str, size: Shape, kernel: Shape, strides: Sequence[int], dilations: Sequence[int]
) -> tuple[tuple[DimLike, DimLike], ...]:
    """Return the pads of ONNX `auto_pad` modes SAME_UPPER, SAME_LOWER and VALID."""
    pads: list[tuple[DimLike, DimLike]] = []
    for n, k, s, d in zip(size, kernel, strides, dilations, strict=True):
        if mode == "VALID":
            pads.append((0, 0))
            continue
        reach = d * (k - 1) + 1
        covered = (-(-n // s) - 1) * s - n  # between -s and -1
        if isinstance(n, Dim) and isinstance(reach, int) and (reach >= s or reach == 1):
            need = covered + reach if reach >= s else 0
        else:
            need = at_least(covered + reach, 0)
        half = need // 2
        pads.append((half, need - half) if mode == "SAME_UPPER" else (need - half, half))
    return tuple(pads)
