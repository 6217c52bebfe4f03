"""Copies between tensors that lie differently in memory.

Elements of one type are copied as bits. Where source and target are innermost along different axes, square tiles go
through shared memory, so that both are read and written along their own; all else is an elementwise kernel.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from ...errors import KernelError
from ...expr import Var
from ...types import DType
from .elementwise import elementwise
from .expression import write
from .indexing import View, is_wide, merged, ordered, view
from .kernel import Launch, Ref
from .operand import Sizes
from .prelude import C_TYPES, c_type, computed
from .signature import Signature, indented

TILE = 32
"""Words along both sides of a tile; shared memory has one more a row, so that its columns meet no bank twice."""

_ROWS = 8
_SMALL = 8
"""Axes shorter than this are not worth a tile."""


def bits(dtype: DType) -> DType:
    """Return the unsigned integers that elements are copied as.

    Raises:
        KernelError: if no element of a kernel has this width.
    """
    if dtype.itemsize not in (1, 2, 4, 8) or dtype.kind == "O":
        raise KernelError(f"CUDA kernels have no elements of type {dtype}")
    return np.dtype(f"uint{8 * dtype.itemsize}")


def copying(source: Ref, target: Ref) -> Launch:
    """Return the launch that copies a tensor to another of its shape, converting its elements where the types differ.

    Raises:
        KernelError: if the shapes differ, or there is no code for the types.
    """
    if source.operand.shape != target.operand.shape:
        raise KernelError(f"a tensor {source.operand.shape} is not copied to one of {target.operand.shape}")
    return copied(view(source), view(target))


def copied(source: View, target: View, name: str = "copy", *, as_bits: bool = False) -> Launch:
    """Return the launch that copies elements of a tensor to as many places of another.

    Args:
        source: what is read.
        target: where it is written, of the same shape.
        name: the kernel's, before the types.
        as_bits: elements of other types are read as the same bits, not converted.

    Raises:
        KernelError: if there is no code for the types.
    """
    of, to = source.ref.operand.dtype, target.ref.operand.dtype
    if of == to or as_bits:
        of = to = bits(of)
    elif of.name not in C_TYPES or to.name not in C_TYPES:
        raise KernelError(f"no CUDA code that converts {of} to {to}")
    shape, strides = ordered(target.shape, [source.strides, target.strides], target.strides)
    shape, (mine, theirs) = merged(shape, strides)
    tile = _across(shape, mine, theirs)
    if tile is not None and target.size:
        return _tiled(name, source, target, of, to, _Tile.of(shape, mine, theirs, tile))
    by = "x" if shape and 1 in mine and shape[mine.index(1)] < _SMALL <= shape[-1] and _dense(shape, mine) else None
    label = f"{name}_{c_type(of)}" if of == to else f"{name}_{c_type(of)}_{c_type(to)}"
    return elementwise(label, Var("x"), {"x": source}, target, types={"x": of}, stored=to, by=by)


def filled(target: View, value: int | float | bool, name: str = "fill") -> Launch:
    """Return the launch that writes one number, of the target's element type, everywhere."""
    dtype = target.ref.operand.dtype
    return elementwise(
        name, Var("x"), {"x": pattern(value, dtype)}, target, types={"x": bits(dtype)}, stored=bits(dtype)
    )


def pattern(value: int | float | bool, dtype: DType) -> int:
    """Return the bits of a number of an element type, as a signed number of 64 bits where it takes as many."""
    with np.errstate(all="ignore"):
        found = int(np.asarray(value).astype(dtype).reshape(1).view(bits(dtype))[0])
    return found - 2**64 if found >= 2**63 else found


def _dense(shape: Sizes, strides: Sizes) -> bool:
    step = 1
    for stride, n in sorted(zip(strides, shape, strict=True)):
        if stride != step:
            return False
        step *= n
    return True


def _across(shape: Sizes, mine: Sizes, theirs: Sizes) -> int | None:
    """Return the axis along which the source is innermost, where a tile is worth it, else None."""
    if len(shape) < 2 or theirs[-1] != 1 or abs(mine[-1]) <= 1 or 1 not in mine:
        return None
    axis = mine.index(1)
    return axis if min(shape[axis], shape[-1]) >= _SMALL else None


@dataclass(frozen=True)
class _Tile:
    """A copy by tiles: the sizes of the axes innermost in the source and in the target, their strides in the other.

    Attributes:
        source_axis: (size, stride in the target) of the axis innermost in the source.
        target_axis: (size, stride in the source) of the one innermost in the target.
        outer: of the other axes, (size, stride in the source, stride in the target).
    """

    source_axis: tuple[int, int]
    target_axis: tuple[int, int]
    outer: tuple[tuple[int, int, int], ...]

    @staticmethod
    def of(shape: Sizes, mine: Sizes, theirs: Sizes, axis: int) -> _Tile:
        last = len(shape) - 1
        outer = tuple((shape[i], mine[i], theirs[i]) for i in range(last) if i != axis)
        return _Tile((shape[axis], theirs[axis]), (shape[last], mine[last]), outer)

    def divides(self, elements: int) -> bool:
        """Whether all sizes and strides are multiples of so many elements."""
        numbers = [*self.source_axis, *self.target_axis, *(s for _, *strides in self.outer for s in strides)]
        return all(n % elements == 0 for n in numbers)


_BODY = """
__shared__ {word} tile[{rows}][{tile} + 1];
{places}
{moves}
const index i = (across * {tile} + threadIdx.x) * {width};
#pragma unroll
for (int n = 0; n < {tile}; n += {step}) {{
    const int row = n + threadIdx.y;
    const index j = (down * {tile} + row) * {width};
    if (i < source_size && j < target_size) {{
{load}
    }}
}}
__syncthreads();
const index j = (down * {tile} + threadIdx.x) * {width};
#pragma unroll
for (int n = 0; n < {rows}; n += {step}) {{
    const int row = n + threadIdx.y;
    const index i = (across * {tile} + row % {tile}) * {width} + row / {tile};
    if (i < source_size && j < target_size) *({word}*)(y + i * target_stride + j) = tile[row][threadIdx.x];
}}
"""

_TURNED = """
{word} in[{width}], out[{width}];
#pragma unroll
for (int r = 0; r < {width}; ++r) in[r] = *(const {word}*)(x + (j + r) * source_stride + i);
#pragma unroll
for (int c = 0; c < {width}; ++c) {{
    #pragma unroll
    for (int r = 0; r < {width}; ++r) out[c].at[r] = in[r].at[c];
    tile[c * {tile} + threadIdx.x][row] = out[c];
}}
"""
"""A block of so many rows and columns is turned in registers: its words then hold neighbours in the target."""


def _tiled(name: str, source: View, target: View, of: DType, to: DType, p: _Tile) -> Launch:
    width = 4 // of.itemsize if of == to and of.itemsize < 4 else 1
    while width > 1 and not (p.divides(width) and source.aligned(width) and target.aligned(width)):
        width //= 2
    stored = c_type(to)
    word = f"pack<{stored}, {width}>" if width > 1 else stored
    s = Signature(wide=is_wide([source, target], target.size))
    s.reads("x", source.ref, c_type(of))
    s.writes("y", target.ref, stored)
    names = ("source_size", "target_size", "source_stride", "target_stride")
    for size, value in zip(
        names, (p.source_axis[0], p.target_axis[0], p.target_axis[1], p.source_axis[1]), strict=True
    ):
        s.size(size, value)
    across, down = (-(-n // (TILE * width)) for n in (p.source_axis[0], p.target_axis[0]))
    coordinates = [f"c{i}" for i in range(len(p.outer))]
    axes = [*zip(coordinates, (n for n, _, _ in p.outer), strict=True), ("down", down), ("across", across)]
    places = s.unravel("(index)blockIdx.x", axes)
    moves = []
    for name_of, v, k in (("x", source, 1), ("y", target, 2)):
        at = s.offset(f"{name_of}_step", [(c, axis[k]) for c, axis in zip(coordinates, p.outer, strict=True)])
        if v.start:
            s.size(f"{name_of}_start", v.start)
            at += f" + {name_of}_start"
        moves.append(f"{name_of} += {at};")
    if width > 1:
        load = _TURNED.format(word=word, width=width, tile=TILE)
    elif of == to:
        load = "tile[threadIdx.x][row] = x[j * source_stride + i];"
    else:
        written = write(Var("x"), {"x": "element"}, {"x": computed(of)}, stored=to)
        load = f"const {computed(of)} element = widen(x[j * source_stride + i]);\n{written.statements}\n"
        load += f"narrow({written.result}, &tile[threadIdx.x][row]);"
    body = _BODY.format(
        word=word, width=width, rows=TILE * width, tile=TILE, step=_ROWS, moves="\n".join(moves), places=places,
        load=indented(load, 2),
    )  # fmt: skip
    kinds = c_type(of) if of == to else f"{c_type(of)}_{c_type(to)}"
    kernel = s.kernel(f"{name}_across_{kinds}", body, threads=TILE * _ROWS)
    tiles = across * down * prod(n for n, _, _ in p.outer)
    return Launch(kernel, (tiles, 1, 1), (TILE, _ROWS, 1), tuple(s.arguments), tuple(s.written))
